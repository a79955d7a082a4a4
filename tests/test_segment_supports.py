"""What ``iir-sdk segment`` is shown: sets, annotations of other tools, files of supports."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iir_sdk import FewShotSegmenter, segment_folder
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import DatasetError, IirWarning, MaskError, MissingDependencyError, NoSupportError
from iir_sdk.segmenting.supports import Shown, Teaching, fingerprint
from tests.command import run

JOBS = {job.name: job for job in read_jobs()}
EYE = JOBS["eye"]


@pytest.fixture
def support_set(tmp_path: Path) -> Path:
    """A set of two labels."""
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    for name in ("eye", "coins"):
        (root / "masks" / name).mkdir(parents=True)
        shutil.copy(JOBS[name].support, root / "images" / f"{name}.jpg")
        shutil.copy(JOBS[name].support_mask, root / "masks" / name / f"{name}.png")
    return root


def mask_of(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file)) > 0


def test_a_set_and_a_file_of_supports_show_what_files_show(support_set, tmp_path, embedded):
    files = [(JOBS[name].support, JOBS[name].support_mask, name) for name in ("coins", "eye")]
    taught = Teaching([Shown(*pair) for pair in files]).teach(embedded)
    of_set = Teaching(support_set=support_set).teach(embedded)
    assert fingerprint(taught) == fingerprint(of_set) == fingerprint(Teaching(support_set=support_set).teach(embedded))
    taught.save_supports(tmp_path / "pets.safetensors")
    assert fingerprint(Teaching(support_file=tmp_path / "pets.safetensors").teach(embedded)) == fingerprint(taught)
    assert fingerprint(Teaching([Shown(*files[0])]).teach(embedded)) != fingerprint(taught)
    only = Teaching(support_set=support_set, labels=["eye"]).teach(embedded)
    assert only.supports.labels == ("eye",)
    assert not len(embedded.supports)


def test_supports_without_a_copy_of_their_picture_are_told_apart_by_their_tokens(embedded):
    segmenters = [FewShotSegmenter(embedded.engine) for _ in range(3)]
    for segmenter, job in zip(segmenters, (EYE, EYE, JOBS["coins"]), strict=True):
        segmenter.add_support(EYE.support, EYE.support_mask, keep_picture=False)
        segmenter.add_counterexample(job.query, keep_picture=False)
    first, same, other = map(fingerprint, segmenters)
    assert first == same != other


def test_a_picture_of_a_set_without_a_mask_is_told(support_set, embedded):
    shutil.copy(EYE.query, support_set / "images" / "more.jpg")
    with pytest.warns(IirWarning, match=r"more.jpg' has no mask .*--counterexample"):
        Teaching(support_set=support_set).teach(embedded)
    shutil.copy(EYE.support_mask, support_set / "masks" / "eye" / "nowhere.png")
    with pytest.raises(DatasetError, match=r"nowhere.png has no picture"):
        Teaching(support_set=support_set).teach(embedded)


def test_masks_that_do_not_fit_name_their_files_and_a_cure_that_works(tmp_path, embedded):
    classes = np.zeros(np.asarray(Image.open(EYE.support_mask)).shape[:2], np.uint8)
    classes[mask_of(EYE.support_mask)] = 3
    classes[:10, :10] = 5
    mask = tmp_path / "classes.png"
    Image.fromarray(classes).save(mask)
    with pytest.raises(MaskError, match=r"classes.png: .*value=.*:label=3"):
        Teaching([Shown(EYE.support, mask)]).teach(embedded)
    taught = Teaching([Shown.from_text(EYE.support, f"{mask}:eye=3")]).teach(embedded)
    assert (taught.supports[0].mask == (classes == 3)).all()
    with pytest.raises(NoSupportError, match=r"--support photo\.jpg mask\.png"):
        Teaching().teach(embedded)


@pytest.mark.parametrize("kind", ["coco", "coco-polygons", "labelme", "yolo"])
def test_what_a_run_wrote_serves_as_supports_of_another(tmp_path, kind):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    shutil.copy(EYE.query, photos / "a.jpg")
    support = ("--support", EYE.support, f"{EYE.support_mask}:eye")
    assert run("segment", photos, *support, "--out", out, "--format", f"masks,{kind}", "--keep-largest")[0] == 0
    file = out / kind / {"labelme": "a.json", "yolo": "data.yaml"}.get(kind, "annotations.json")
    ways = {
        "annotations": ("--annotations", file, "--images", photos),
        "mask": ("--support", photos / "a.jpg", f"{out / 'masks' / 'eye' / 'a.png'}:eye"),
    }
    for way, shown in ways.items():
        words = ("segment", EYE.support, *shown, "--out", tmp_path / way, "--format", "masks")
        code, output = run(*words)
        assert code == 0, output
    first, second = (mask_of(next((tmp_path / way / "masks" / "eye").glob("*.png"))) for way in ways)
    assert (first & second).sum() / (first | second).sum() > 0.97


def test_joint_files_hold_the_pictures_of_all_runs_into_a_folder(tmp_path, embedded):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    settings = {"supports": [(EYE.support, EYE.support_mask)], "segmenter": embedded, "formats": ["coco", "voc"]}
    (photos / "broken.jpg").write_bytes(b"")
    assert len(segment_folder(photos, out, **settings).errors) == 1
    for name in ("a", "b"):
        shutil.copy(EYE.query, photos / f"{name}.jpg")
        segment_folder(photos, out, **settings)
    (file,) = (f for f in (out / "coco").glob("*.json"))
    assert [Path(image["file_name"]).stem for image in json.loads(file.read_text())["images"]] == ["a", "b"]


def test_a_picture_without_a_place_on_earth_and_a_missing_package(tmp_path, embedded, monkeypatch):
    settings = {"supports": [(EYE.support, EYE.support_mask)], "segmenter": embedded}
    report = segment_folder(EYE.query, tmp_path / "out", **settings, formats=["masks", "geotiff"])
    assert "not georeferenced" in report.rows[0].error
    assert not list((tmp_path / "out" / "masks").rglob("*.png"))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(MissingDependencyError, match="geo"):
        segment_folder(EYE.query, tmp_path / "other", **settings, formats=["geotiff"])
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingDependencyError, match="scipy"):
        segment_folder(EYE.query, tmp_path / "third", **settings, keep_largest=True)
