"""Annotations of other tools as masks, and what is said of those that cannot be used."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import DatasetError, DatasetNotFoundError, IirWarning, MaskError
from iir_sdk.formats.annotations import read_annotations
from iir_sdk.formats.rle import encode
from tests.lowest_iou import LOWEST_IOU
from tests.test_polygons import iou

HEIGHT, WIDTH = 20, 30
SQUARE = np.zeros((HEIGHT, WIDTH), np.bool_)
SQUARE[4:10, 5:15] = True
POLYGON = [5, 4, 15, 4, 15, 10, 5, 10]
COUNTS = [5 * HEIGHT + 4, *([6, 14] * 9), 6, WIDTH * HEIGHT - 14 * HEIGHT - 10]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    return tmp_path


def coco(folder: Path, *segmentations: Any, **changes: Any) -> Path:
    """A file of one picture with an annotation for each segmentation; changes replace its parts."""
    document = {
        "images": [{"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": 7, "category_id": 3, "iscrowd": 0, "segmentation": s}
            for i, s in enumerate(segmentations)
        ],
        **changes,
    }
    (folder / "coco.json").write_text(json.dumps(document))
    return folder / "coco.json"


@pytest.mark.parametrize(
    "segmentation",
    [[POLYGON], {"size": [HEIGHT, WIDTH], "counts": COUNTS}, encode(SQUARE)],
    ids=["polygon", "counts", "text"],
)
def test_cocos_masks_are_read_in_all_their_kinds(folder, segmentation):
    (read,) = read_annotations(coco(folder, segmentation))
    assert (read.picture, read.label) == (folder / "a.png", "cat")
    assert read.mask.dtype == np.uint8
    assert np.array_equal(read.mask, SQUARE)


def test_things_of_a_category_are_one_mask_and_crowds_are_unknown_beside_it(folder):
    crowd = np.zeros_like(SQUARE)
    crowd[8:12, 10:20] = True
    other = np.roll(SQUARE, 12, 1)
    annotations = [
        {"id": 1, "image_id": 7, "category_id": 3, "iscrowd": 0, "segmentation": [POLYGON]},
        {"id": 2, "image_id": 7, "category_id": 3, "iscrowd": 1, "segmentation": encode(crowd)},
        {"id": 3, "image_id": 7, "category_id": 3, "segmentation": encode(other)},
        {"id": 4, "image_id": 7, "category_id": 9, "iscrowd": 0, "segmentation": encode(crowd)},
    ]
    cat, dog = read_annotations(coco(folder, annotations=annotations))
    assert np.array_equal(cat.mask, np.where(SQUARE | other, 1, np.where(crowd, 255, 0)))
    assert np.array_equal(dog.mask, crowd)
    annotations = [{**annotations[1], "category_id": 9}, annotations[0]]
    with pytest.warns(IirWarning, match="'dog' in 'a.png' by crowds alone"):
        assert [a.label for a in read_annotations(coco(folder, annotations=annotations))] == ["cat"]


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([], "id=0 of 'a.png' has no polygons"),
        (None, "has no polygons"),
        ([[]], "a polygon has 0 points"),
        ([[1, 2, 3, 4]], "a polygon has 2 points"),
        ([[1, 2, 3, 4, 5]], "not pairs"),
        ([[float("nan")] * 6], "goes from .*nan"),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], "drawn on a picture of another size"),
        ([[25, -9, 29, -9, 29, -2]], "marks no pixel"),
        (encode(np.zeros_like(SQUARE)), "marks no pixel"),
        (encode(np.eye(4, dtype=np.bool_)), "run lengths are of 4 x 4, but their picture is of 20 x 30"),
        ({"size": [10**9, 10**9], "counts": "1"}, "run lengths are of 1000000000 x"),
        ({"size": [HEIGHT, WIDTH], "counts": [1, 2]}, "count 3 pixels, but their picture has 600"),
        ({"size": [HEIGHT, WIDTH], "counts": [-5, 605]}, "whole numbers from 0 on"),
        ({"size": [HEIGHT, WIDTH], "counts": "é"}, "neither polygons nor run lengths"),
        ("text", "neither polygons nor run lengths"),
    ],
)
def test_masks_that_are_none_are_named_by_their_annotation(folder, segmentation, reason):
    with pytest.raises(MaskError, match=f"coco.json.*{reason}"):
        list(read_annotations(coco(folder, segmentation)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"categories": [{"id": 1, "name": "dog"}]}, r"category 3, which is not among its categories: 1 \(dog\)"),
        ({"categories": []}, "categories: none"),
        ({"images": []}, "picture 7, which is not among its images"),
        ({"images": [{"id": 7}]}, "not in COCO's annotation format: KeyError"),
        ({"annotations": {"a": 1}}, "not in COCO's annotation format"),
    ],
)
def test_records_that_do_not_fit_are_named(folder, changes, reason):
    with pytest.raises(DatasetError, match=reason):
        list(read_annotations(coco(folder, [POLYGON], **changes)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"images": [', "cannot be read as JSON"),
        (b"\xff\xfe\x00", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", "it holds no object"),
        (b'{"a": 1}', "it holds an object with 'a'"),
        (b'{"shapes": []}', "not in LabelMe's format: KeyError"),
        (b'{"shapes": 3, "imagePath": "a.png"}', "not in LabelMe's format"),
        (b'{"shapes": ["a"], "imagePath": "a.png"}', "not in LabelMe's format"),
    ],
)
def test_files_that_are_none_of_them_are_named(folder, content, reason):
    (folder / "some.json").write_bytes(content)
    with pytest.raises(DatasetError, match=f"some.json.*{reason}"):
        list(read_annotations(folder / "some.json"))


def test_a_path_that_leads_nowhere_is_named(tmp_path):
    with pytest.raises(DatasetNotFoundError, match="nothing at"):
        list(read_annotations(tmp_path / "no.json"))
    with pytest.raises(DatasetNotFoundError, match="holds no label files"):
        list(read_annotations(tmp_path))


@pytest.mark.parametrize("kind", ["coco", "labelme", "yolo"])
def test_pictures_that_are_elsewhere_are_named_and_the_cure_works(folder, kind):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (folder / "a.png").rename(elsewhere / "a.png")
    if kind == "coco":
        file = coco(folder, [POLYGON])
    elif kind == "labelme":
        file = labelme(folder, polygon())
    else:
        file = yolo(folder, yolo_line())
    with pytest.raises(DatasetNotFoundError, match=r"1 pictures that are not in .*'a\.\w+'.*images=FOLDER"):
        list(read_annotations(file))
    (read,) = read_annotations(file, images=elsewhere)
    assert read.picture == elsewhere / "a.png"
    assert np.array_equal(read.mask, SQUARE)


def labelme(folder: Path, *shapes: dict[str, Any], **changes: Any) -> Path:
    document = {"imagePath": "a.png", "imageData": None, "shapes": shapes, **changes}
    (folder / "a.json").write_text(json.dumps(document))
    return folder / "a.json"


def polygon(points: Any = ((5, 4), (15, 4), (15, 10), (5, 10)), **changes: Any) -> dict[str, Any]:
    return {"label": "cat", "shape_type": "polygon", "points": points, **changes}


def patch() -> str:
    content = io.BytesIO()
    Image.fromarray(np.full((6, 10), 255, np.uint8)).convert("1").save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


@pytest.mark.parametrize(
    "shape",
    [
        polygon(),
        polygon([[15, 10], [5, 4]], shape_type="rectangle"),
        polygon(shape_type="rectangle"),
        polygon(shape_type="rotation", direction=0.0),
        polygon([[5, 4], [14, 9]], shape_type="mask", mask=patch()),
    ],
    ids=["polygon", "corners", "four corners", "rotation", "mask"],
)
def test_labelmes_shapes_are_read(folder, shape):
    for path in (labelme(folder, shape), folder):
        (read,) = read_annotations(path)
        assert (read.picture, read.label) == (folder / "a.png", "cat")
        assert np.array_equal(read.mask, SQUARE)


def test_labelmes_circles_and_several_labels_are_read_and_points_left_out(folder):
    circle = polygon([[15, 10], [15, 15]], shape_type="circle", label="dog")
    point = polygon([[1, 1]], shape_type="point", label="nose")
    with pytest.warns(IirWarning, match=r"shape 2 \(nose\) is a point, which marks no area"):
        cat, dog = read_annotations(labelme(folder, polygon(), circle, point, imageHeight=HEIGHT, imageWidth=WIDTH))
    assert (cat.label, dog.label) == ("cat", "dog")
    assert dog.mask.sum() == pytest.approx(np.pi * 25, rel=0.05)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (polygon([[1, 2], [3, 4]]), "a polygon has 2 points"),
        (polygon([]), "a polygon has 0 points"),
        (polygon(shape_type="blob"), "shape_type 'blob'; known are polygon"),
        (polygon([[5, 4], [14, 9]], shape_type="mask", mask="?"), "its mask cannot be read"),
        (polygon([[5, 4], [14, 9]], shape_type="mask"), "its mask cannot be read"),
        (polygon([[40, 4], [50, 4], [50, 19]]), "marks no pixel"),
        (polygon([[400, 4], [500, 4], [500, 19]]), "drawn on a picture of another size"),
        (polygon([["x", 4], [50, 4], [50, 19]]), "not pairs of numbers"),
    ],
)
def test_labelmes_shapes_that_are_none_are_named(folder, shape, reason):
    with pytest.raises(MaskError, match=rf"a.json.*shape 0 \(cat\).*{reason}"):
        list(read_annotations(labelme(folder, shape)))


def yolo_line(number: int = 1) -> str:
    return f"{number} " + " ".join(f"{v / s:.6f}" for v, s in zip(POLYGON, [WIDTH, HEIGHT] * 4, strict=True))


def yolo(folder: Path, *lines: str, names: str | None = "dog\ncat\n") -> Path:
    (folder / "a.txt").write_text("\n".join(lines))
    if names is not None:
        (folder / "classes.txt").write_text(names)
    return folder / "a.txt"


def test_yolos_segments_are_read_from_a_file_a_folder_and_a_data_set(folder):
    for path in (yolo(folder, yolo_line(), ""), folder):
        (read,) = read_annotations(path)
        assert (read.picture, read.label) == (folder / "a.png", "cat")
        assert np.array_equal(read.mask, SQUARE)
    for part in ("images", "labels"):
        (folder / "set" / part / "train").mkdir(parents=True)
    (folder / "a.png").rename(folder / "set/images/train/a.png")
    (folder / "a.txt").rename(folder / "set/labels/train/a.txt")
    (folder / "classes.txt").unlink()
    (folder / "set/labels/train/none.txt").write_text("")
    for names in ("names: [dog, cat]\n", "names:\n  0: dog\n  1: cat\n"):
        (folder / "set/data.yaml").write_text(f"train: images/train\n{names}")
        for path in (folder / "set", folder / "set/data.yaml", folder / "set/labels/train/a.txt"):
            (read,) = read_annotations(path)
            assert (read.picture, read.label) == (folder / "set/images/train/a.png", "cat")
            assert np.array_equal(read.mask, SQUARE)


@pytest.mark.parametrize(
    ("line", "error", "reason"),
    [
        ("1 0.5 0.5 0.2 0.2", MaskError, "line 1 is a box, not a segment"),
        ("1 0.5 0.5", MaskError, "a polygon has 1 points"),
        ("1 0.1 0.1 0.2 0.2 0.3", MaskError, "not pairs"),
        ("1 10 10 20 20 30 10", MaskError, r"outside of \[0, 1\]"),
        ("1 nan nan nan nan nan nan", MaskError, r"outside of \[0, 1\]"),
        ("1 0.1 0.1 0.1 0.1 0.1 0.1", MaskError, "marks no pixel"),
        ("cat 0.1 0.1 0.2 0.1 0.2 0.2", DatasetError, "not a class and numbers"),
        (yolo_line(5), DatasetError, r"class 5 is not among the names: 0 \(dog\), 1 \(cat\)"),
    ],
)
def test_yolos_lines_that_are_none_are_named(folder, line, error, reason):
    with pytest.raises(error, match=f"a.txt.*{reason}"):
        list(read_annotations(yolo(folder, line)))


def test_yolos_names_that_are_missing_or_broken_are_named(folder):
    with pytest.raises(DatasetNotFoundError, match=r"no names of classes.*Put a classes.txt there"):
        list(read_annotations(yolo(folder, yolo_line(), names=None)))
    for content, reason in (("names: 3", "no names of classes"), ("a: [", "cannot be read as YAML"), ("", "no names")):
        (folder / "data.yaml").write_text(content)
        with pytest.raises(DatasetError, match=reason):
            list(read_annotations(folder / "a.txt"))


def test_a_coco_file_teaches_the_segmenter_as_its_mask_does(tmp_path):
    job = next(j for j in read_jobs() if j.name == "face")
    mask = np.asarray(Image.open(job.support_mask)) > 0
    images = [{"id": 1, "file_name": job.support.name, "height": mask.shape[0], "width": mask.shape[1]}]
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "iscrowd": 0, "segmentation": encode(mask)}
    file = coco(tmp_path, images=images, annotations=[annotation])
    results = []
    for support in ((job.support, job.support_mask), *read_annotations(file, images=job.support.parent)):
        segmenter = FewShotSegmenter(device="cpu")
        picture, drawn = (support.picture, support.mask) if hasattr(support, "picture") else support
        segmenter.add_support(picture, drawn, "face")
        results.append(segmenter.predict(job.query).mask)
    assert np.array_equal(*results)
    assert iou(results[0], job.truth()) >= LOWEST_IOU["face"]
