"""What users get wrong in what they hand to ``iir-sdk segment``: named, with a cure that works."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from iir_sdk import segment_folder
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import DatasetError, LabelError, NoSupportError, OutputError
from tests.command import run

EYE = next(job for job in read_jobs() if job.name == "eye")


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """COCO's json of the eye, in a folder beside its picture."""
    shutil.copy(EYE.support, tmp_path / "photo.jpg")
    width, height = Image.open(EYE.support).size
    x, y, right, bottom = width // 3, height // 3, width // 2, height // 2
    document = {
        "images": [{"id": 1, "file_name": "photo.jpg", "width": width, "height": height}],
        "categories": [{"id": 1, "name": "eye"}],
        "annotations": [
            {"id": 7, "image_id": 1, "category_id": 1, "segmentation": [[x, y, right, y, right, bottom, x, bottom]]}
        ],
    }
    file = tmp_path / "coco.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def test_a_label_that_annotations_do_not_have_is_named_with_those_that_they_have(annotations, tmp_path, embedded):
    settings = {"annotations": annotations, "segmenter": embedded}
    with pytest.raises(LabelError, match=r"no support has label 'nose'.*eye"):
        segment_folder(EYE.query, tmp_path / "out", **settings, labels=["nose"])
    assert segment_folder(EYE.query, tmp_path / "out", **settings, labels=["eye"]).segmented == 1
    with pytest.raises(NoSupportError, match="nothing shows"):
        segment_folder(EYE.query, tmp_path / "other", segmenter=embedded, labels=["nose"])


def test_labels_of_a_set_and_of_annotations_are_joined(annotations, tmp_path, embedded):
    for folder, source in (("images", EYE.support), ("masks/pupil", EYE.support_mask)):
        (tmp_path / "set" / folder).mkdir(parents=True)
        shutil.copy(source, tmp_path / "set" / folder / f"a{source.suffix}")
    shown = {"annotations": annotations, "support_set": tmp_path / "set", "segmenter": embedded}
    report = segment_folder(EYE.query, tmp_path / "out", **shown, labels=["eye", "pupil"])
    assert sorted(row.label for row in report.rows) == ["eye", "pupil"]


def test_annotations_of_a_picture_of_another_size_are_named_and_the_cure_works(annotations, tmp_path, embedded):
    drawn_on = tmp_path / "drawn"
    drawn_on.mkdir()
    (tmp_path / "photo.jpg").rename(drawn_on / "photo.jpg")
    with Image.open(drawn_on / "photo.jpg") as image:
        image.reduce(2).save(tmp_path / "photo.jpg")
    with pytest.raises(DatasetError, match=r"photo.jpg with .*coco.json: the annotations are of .*--images"):
        segment_folder(EYE.query, tmp_path / "out", annotations=annotations, segmenter=embedded)
    report = segment_folder(EYE.query, tmp_path / "out", annotations=annotations, images=drawn_on, segmenter=embedded)
    assert report.segmented == 1


def test_a_file_in_place_of_the_output_folder_is_named(tmp_path, embedded):
    file = tmp_path / "masks"
    file.write_text("")
    with pytest.raises(OutputError, match="it is a file; name a folder"):
        segment_folder(EYE.query, file, supports=[(EYE.support, EYE.support_mask)], segmenter=embedded)
    assert run("segment", EYE.query, "--support", EYE.support, EYE.support_mask, "--out", file)[0] == 1
