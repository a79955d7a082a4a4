"""Options that take a folder of pictures say which one is not there, from where it was looked for, and a cure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iir_sdk.data.folder import read_picture_sets
from iir_sdk.errors import DatasetNotFoundError
from iir_sdk.formats.annotations import read_annotations
from iir_sdk.training.bank.views import read_cutouts
from tests.command import output_of


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that relative paths are followed from, with annotations of a picture in it."""
    document = {"images": [], "annotations": [], "categories": []}
    (tmp_path / "coco.json").write_text(json.dumps(document))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["nowhere", "--support", "a.jpg", "a.png"], ""),
        (["coco.json", "--support-set", "nowhere"], "a set is images/"),
        (["coco.json", "--annotations", "nowhere"], ""),
        (["coco.json", "--annotations", "coco.json", "--images", "nowhere"], "the folder in which the pictures of"),
    ],
    ids=["queries", "support-set", "annotations", "images"],
)
def test_a_folder_of_pictures_that_is_not_there(here, words, cure):
    told = " ".join(output_of("segment", *words, "--weights", "iir-lite0", "--out", "masks", code=1).split())
    assert "'nowhere'" in told
    assert f"from {str(here)!r}" in told
    assert cure in told


def test_a_file_in_place_of_a_folder_and_folders_of_training(here):
    with pytest.raises(DatasetNotFoundError, match=r"images: 'coco\.json' is a file, and not a folder; name the"):
        list(read_annotations("coco.json", images="coco.json"))
    with pytest.raises(DatasetNotFoundError, match=r"no folder 'nowhere', from .*; a set is images/<stem>\.jpg"):
        read_picture_sets("nowhere")
    with pytest.raises(DatasetNotFoundError, match=r"cut-outs: there is no folder 'nowhere', from"):
        read_cutouts(Path("nowhere"))
    absolute = str(here / "nowhere")
    with pytest.raises(DatasetNotFoundError, match="there is no folder") as told:
        read_picture_sets(absolute)
    assert repr(absolute) in str(told.value)
    assert "from" not in str(told.value)
