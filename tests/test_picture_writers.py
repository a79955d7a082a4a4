"""Writers of masks, maps and overlays: what lies in the folder, of a whole run and of one that is resumed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iir_sdk import FewShotSegmenter, Segmentation
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import LabelError, OutputError
from iir_sdk.formats.pictures import voc_palette
from iir_sdk.formats.registry import WRITERS
from iir_sdk.formats.writer import file_name_of

LABELS = ("face", "coin/old")


@pytest.fixture(scope="module")
def results(embedded: FewShotSegmenter) -> dict[str, tuple[Segmentation, Path]]:
    """Of two labels, on the demo's pictures of both."""
    jobs = {job.name: job for job in read_jobs() if job.name in ("face", "coins")}
    with_supports = FewShotSegmenter(device="cpu")
    for label, job in zip(LABELS, (jobs["face"], jobs["coins"]), strict=True):
        with_supports.add_support(job.support, job.support_mask, label)
    return {f"in/{name}": (with_supports.predict(job.query), job.query) for name, job in jobs.items()}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_mask_a_label_holds_what_the_label_map_gives_it(results, tmp_path):
    writer = WRITERS["masks"](tmp_path, LABELS)
    for name, (result, source) in results.items():
        assert not writer.holds(name)
        writer.add(name, result, source)
        assert writer.holds(name)
        for i, folder in enumerate(("face", "coin%2Fold")):
            mask = np.asarray(Image.open(tmp_path / folder / f"{name}.png"))
            assert np.array_equal(mask, (result.label_map == i + 1) * np.uint8(255))
    assert (tmp_path / "labels.txt").read_text() == "face\ncoin/old\n"


@pytest.mark.parametrize("kind", ["map", "voc"])
def test_maps_hold_the_label_map(results, tmp_path, kind):
    writer = WRITERS[kind](tmp_path, LABELS)
    for name, (result, source) in results.items():
        writer.add(name, result, source)
        assert np.array_equal(np.asarray(Image.open(*writer.files(name))), result.label_map)
        assert result.label_map.any()
    writer.finish()
    if kind == "map":
        assert json.loads((tmp_path / "labels.json").read_text()) == dict(enumerate_text("background", *LABELS))
    else:
        assert (tmp_path / "ImageSets/Segmentation/all.txt").read_text() == "in/coins\nin/face\n"
        assert "face:128,0,0::\ncoin/old:0,128,0::\n" in (tmp_path / "labelmap.txt").read_text()


def enumerate_text(*names: str) -> list[tuple[str, str]]:
    return [(str(i), name) for i, name in enumerate(names)]


def test_a_label_is_a_folder_of_its_own_whatever_it_holds():
    names = {"cat/dog": "cat%2Fdog", "Münze alt": "Münze alt", "..": ".%2E", "a%": "a%25", "a ": "a%20", 'a"b': "a%22b"}
    assert {label: file_name_of(label) for label in names} == names


def test_the_palette_is_that_of_pascal_voc():
    listed = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128], [0, 128, 128]]
    assert voc_palette()[:7].tolist() == listed
    assert voc_palette()[20].tolist() == [0, 64, 128]
    assert voc_palette()[255].tolist() == [224, 224, 192]


def test_an_overlay_is_a_jpeg_of_the_pictures_size(results, tmp_path):
    writer = WRITERS["overlay"](tmp_path, LABELS)
    for name, (result, source) in results.items():
        writer.add(name, result, source)
        with Image.open(tmp_path / f"{name}.jpg") as image:
            assert (image.format, image.size) == ("JPEG", result.image.shape[1::-1])


def test_a_result_of_some_labels_keeps_the_writers_numbers(results, tmp_path):
    writer = WRITERS["map"](tmp_path, LABELS)
    result = results["in/coins"][0]["coin/old"]
    writer.add("coins", result, None)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "coins.png")), result.mask * 2)


@pytest.mark.parametrize("kind", [k for k in WRITERS if k not in ("geojson", "geotiff")])
def test_a_run_that_was_killed_gives_the_same_files_when_it_is_resumed(results, tmp_path, kind):
    whole = WRITERS[kind](tmp_path / "whole", LABELS)
    for name, (result, source) in results.items():
        whole.add(name, result, source)
    whole.finish()

    first, *_ = results
    killed = WRITERS[kind](tmp_path / "resumed", LABELS)
    killed.add(first, *results[first])
    # The start of a file, as a kill leaves it.
    (killed.files(first)[0].parent / f".iir-0123abcd{killed.suffix}").write_bytes(b"half")
    resumed = WRITERS[kind](tmp_path / "resumed", LABELS)
    for name, (result, source) in results.items():
        if not resumed.holds(name):
            resumed.add(name, result, source)
    resumed.finish()
    assert tree(tmp_path / "resumed") == tree(tmp_path / "whole")
    resumed.finish()
    assert tree(tmp_path / "resumed") == tree(tmp_path / "whole")


def test_a_folder_of_other_labels_is_refused_and_the_cure_works(results, tmp_path):
    WRITERS["map"](tmp_path, LABELS)
    with pytest.raises(OutputError, match=r"holds files of labels \['face', 'coin/old'\].*another folder"):
        WRITERS["map"](tmp_path, LABELS[::-1])
    WRITERS["map"](tmp_path, LABELS)
    WRITERS["map"](tmp_path / "other", LABELS[::-1])
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(OutputError, match="cannot read"):
        WRITERS["map"](tmp_path, LABELS)


@pytest.mark.parametrize("labels", [(), ("a", "a"), ("",), ("a\nb",), "cat"])
def test_labels_that_cannot_be_told_apart_are_refused(tmp_path, labels):
    with pytest.raises(LabelError, match="labels="):
        WRITERS["map"](tmp_path / "out", labels)


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../b", "a\\b", "a\0b", "a/"])
def test_names_that_lead_out_of_the_folder_are_refused(results, tmp_path, name):
    with pytest.raises(OutputError, match="name="):
        WRITERS["masks"](tmp_path, LABELS).add(name, *results["in/face"])


def test_a_label_that_the_writer_does_not_know_is_refused(results, tmp_path):
    with pytest.raises(LabelError, match=r"label 'coin/old'; the writer was made for \['face'\]"):
        WRITERS["masks"](tmp_path, ["face"]).add("a", *results["in/face"])
