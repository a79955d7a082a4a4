"""Writers of things by their outlines, read back by the package's readers and by the tools' own rules."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iir_sdk import Segmentation
from iir_sdk.errors import OutputError
from iir_sdk.formats.annotations import read_annotations
from iir_sdk.formats.registry import WRITERS
from tests.test_picture_writers import LABELS, results
from tests.test_polygons import iou

__all__ = ["results"]
OF_KIND = {"coco": "annotations.json", "coco-polygons": "annotations.json", "yolo": "data.yaml", "labelme": "in"}
"""What is read of a folder in each format."""


def written(kind: str, results: dict[str, tuple[Segmentation, Path]], folder: Path) -> Path:
    writer = WRITERS[kind](folder, LABELS)
    for name, (result, source) in results.items():
        writer.add(name, result, source)
    writer.finish()
    return folder / OF_KIND[kind]


@pytest.mark.parametrize("kind", list(OF_KIND))
def test_what_is_written_is_read_back_as_the_same_masks(results, tmp_path, kind):
    file = written(kind, results, tmp_path)
    pictures = next(iter(results.values()))[1].parent if kind.startswith("coco") else None
    read = {(a.picture.stem, a.label): a.mask for a in read_annotations(file, images=pictures)}
    expected = {
        (name.removeprefix("in/") if kind == "yolo" else source.stem, label): result.label_map == i + 1
        for name, (result, source) in results.items()
        for i, label in enumerate(LABELS)
        if (result.label_map == i + 1).any()
    }
    assert read.keys() == expected.keys()
    for key, mask in expected.items():
        assert set(np.unique(read[key])) <= {0, 1}
        if kind == "coco":
            assert np.array_equal(read[key] == 1, mask)
        else:
            assert iou(read[key] == 1, mask) >= 0.99


@pytest.mark.parametrize("kind", ["coco", "coco-polygons"])
def test_the_coco_file_loads_in_pycocotools(results, tmp_path, kind):
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(written(kind, results, tmp_path)))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(LABELS)
    assert len(coco.getImgIds()) == len(results)
    for name, (result, source) in results.items():
        (image,) = (i for i in coco.loadImgs(coco.getImgIds()) if i["file_name"] == f"in/{source.name}")
        assert (image["height"], image["width"]) == result.label_map.shape
        for number, label in enumerate(LABELS):
            annotations = coco.loadAnns(coco.getAnnIds(image["id"], catIds=[number + 1], iscrowd=False))
            mask = (
                np.any([coco.annToMask(a) for a in annotations], 0) if annotations else np.zeros(result.label_map.shape)
            )
            assert iou(mask > 0, result.label_map == number + 1) >= (1 if kind == "coco" else 0.98), (name, label)
            for a in annotations:
                x, y, w, h = a["bbox"]
                assert a["iscrowd"] == 0
                ys, xs = np.nonzero(coco.annToMask(a))
                if kind == "coco":
                    assert a["area"] == len(ys)
                    assert (x, y, x + w, y + h) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_yolos_folder_is_a_data_set_by_itself(results, tmp_path):
    import yaml

    data = yaml.safe_load(written("yolo", results, tmp_path).read_text())
    assert data == {"train": "images", "val": "images", "names": dict(enumerate(LABELS))}
    for name, (_, source) in results.items():
        assert (tmp_path / "images" / f"{name}.jpg").read_bytes() == source.read_bytes()
        for line in (tmp_path / "labels" / f"{name}.txt").read_text().splitlines():
            number, *values = line.split()
            assert int(number) in (0, 1)
            assert len(values) >= 6
            assert len(values) % 2 == 0
            assert all(0 <= float(v) <= 1 for v in values)


def test_labelmes_file_keeps_its_rules_and_leads_to_the_picture(results, tmp_path):
    written("labelme", results, tmp_path)
    for name, (result, source) in results.items():
        file = tmp_path / f"{name}.json"
        content = json.loads(file.read_text())
        assert content.keys() == {
            "version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth",
        }  # fmt: skip
        assert (file.parent / content["imagePath"]).samefile(source)
        assert "\\" not in content["imagePath"]
        assert (content["imageHeight"], content["imageWidth"]) == result.label_map.shape
        assert content["shapes"]
        for shape in content["shapes"]:
            assert shape["label"] in LABELS
            assert shape["shape_type"] == "polygon"
            assert shape["flags"] == {}
            assert shape["group_id"] is None or isinstance(shape["group_id"], int)
            assert len(shape["points"]) >= 3
            assert all(len(p) == 2 and all(isinstance(v, float) for v in p) for p in shape["points"])


def test_a_picture_in_no_file_travels_with_labelmes_and_yolos(results, tmp_path):
    import base64

    result, _ = results["in/face"]
    WRITERS["labelme"](tmp_path / "l", LABELS).add("face", result)
    content = json.loads((tmp_path / "l" / "face.json").read_text())
    image = Image.open(io.BytesIO(base64.b64decode(content["imageData"])))
    assert np.array_equal(np.asarray(image), result.image)
    WRITERS["yolo"](tmp_path / "y", LABELS).add("face", result)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "y" / "images" / "face.png")), result.image)


def test_a_picture_without_things_is_in_the_joint_file_without_annotations(results, tmp_path):
    from dataclasses import replace

    result, source = results["in/face"]
    writer = WRITERS["coco"](tmp_path, LABELS)
    writer.add(".face", replace(result, absent_below=1.0), str(source))
    writer.finish()
    document = json.loads((tmp_path / "annotations.json").read_text())
    assert [i["file_name"] for i in document["images"]] == [source.name]
    assert document["annotations"] == []


def test_a_broken_part_is_named_and_the_cure_works(results, tmp_path):
    file = written("coco", results, tmp_path)
    whole = file.read_bytes()
    writer = WRITERS["coco"](tmp_path, LABELS)
    part = writer.file("in/face")
    part.write_text("{")
    with pytest.raises(OutputError, match=r"in/face\.json.*delete it"):
        writer.finish()
    part.unlink()
    assert not writer.holds("in/face")
    writer.add("in/face", *results["in/face"])
    writer.finish()
    assert file.read_bytes() == whole


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_supervision_loads_the_set_with_the_same_masks(results, tmp_path, kind):
    from supervision import DetectionDataset

    file = written(kind, results, tmp_path)
    if kind == "yolo":
        places = (str(tmp_path / "images" / "in"), str(tmp_path / "labels" / "in"), str(file))
        loaded = DetectionDataset.from_yolo(*places, force_masks=True)
    else:
        for name, (_, source) in results.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / Path(name).with_name(source.name)).write_bytes(source.read_bytes())
        loaded = DetectionDataset.from_coco(str(tmp_path), str(file), force_masks=True)
    assert list(loaded.classes) == list(LABELS)
    assert len(loaded) == len(results)
    for path, _, detections in loaded:
        stem = Path(path).stem
        result = next(r for n, (r, s) in results.items() if stem in (n.removeprefix("in/"), s.stem))
        for i in range(len(LABELS)):
            masks = np.asarray(detections.mask)[detections.class_id == i]
            mask = np.any(masks, 0) if len(masks) else np.zeros(result.label_map.shape, np.bool_)
            # Supervision fills polygons by whole pixels, those that their lines touch as well.
            assert iou(mask, result.label_map == i + 1) >= (1 if kind == "coco" else 0.94)
