"""Masks as polygons and run lengths, and back."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as rle

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import ConfigError, DatasetError, LabelError, MissingDependencyError
from iir_sdk.formats.polygons import joined_ring, polygons_of, rasterised, rings_of, without_holes
from iir_sdk.formats.rle import decode, encode

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0


def back(polygons: list, size: tuple[int, int]) -> np.ndarray:
    return rasterised([rings_of(p) for p in polygons], size)


def disc(size: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_run_lengths_are_exact_and_plain_text(mask):
    runs = json.loads(json.dumps(encode(mask)))
    assert runs["size"] == list(mask.shape)
    assert np.array_equal(decode(runs, mask.shape), mask)
    assert runs["counts"] == rle.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()


@settings(max_examples=200, deadline=None)
@given(MASKS, st.tuples(*[st.integers(0, 3)] * 4))
def test_run_lengths_of_a_part_are_those_of_the_whole(mask, margins):
    left, top, right, bottom = margins
    whole = np.pad(mask, ((top, bottom), (left, right)))
    assert encode(mask, whole.shape, (left, top)) == encode(whole)


def test_tall_masks_are_outlined_across_the_rows_that_are_taken_at_a_time():
    mask = np.zeros((1200, 3), np.bool_)
    mask[500:1100, 1] = True
    (polygon,) = polygons_of(mask)
    assert polygon.bounds == (1, 500, 2, 1100)
    assert np.array_equal(back([polygon], mask.shape), mask)


@settings(max_examples=300, deadline=None)
@given(MASKS, st.sampled_from([0, 0.1, 0.16]))
def test_polygons_hold_exactly_the_masks_pixels_up_to_a_sixth_of_a_pixel(mask, tolerance):
    from scipy import ndimage

    polygons = polygons_of(mask, tolerance)
    assert all(p.is_valid for p in polygons)
    assert len(polygons) == ndimage.label(mask, np.ones((3, 3)))[1]
    assert np.array_equal(back(polygons, mask.shape), mask)
    assert np.array_equal(rasterised([[joined_ring(p)] for p in polygons], mask.shape), mask)


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_small_things_survive_the_default_tolerance_and_pieces_without_holes_cover_them(mask):
    polygons = polygons_of(mask)
    assert iou(back(polygons, mask.shape), mask) >= 0.99
    pieces = [piece for p in polygons for piece in without_holes(p)]
    assert all(not piece.interiors and piece.is_valid for piece in pieces)
    assert sum(piece.area for piece in pieces) == pytest.approx(sum(p.area for p in polygons))


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 60), st.floats(-10, 110), st.floats(-10, 110), st.floats(0.2, 0.8))
def test_rings_that_touch_the_border_keep_their_shape_and_their_hole(radius, y, x, share):
    size = (100, 100)
    mask = disc(size, (y, x), radius) & ~disc(size, (y, x + 2), radius * share)
    polygons = polygons_of(mask)
    assert iou(back(polygons, size), mask) >= 0.99
    points = [[*piece.exterior.coords[:-1]] for p in polygons for piece in without_holes(p)]
    if points:
        assert iou(decode([np.ravel(p).tolist() for p in points], size), mask) >= 0.97


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((1, 1), np.bool_),
        np.ones((7, 9), np.bool_),
        np.eye(9, dtype=np.bool_),
        np.eye(9, dtype=np.bool_)[::-1],
        np.pad(np.ones((1, 1), np.bool_), ((0, 30), (30, 0))),
        np.pad(np.ones((1, 40), np.bool_), 3),
    ],
    ids=["pixel", "all", "diagonal", "other diagonal", "corner pixel", "line"],
)
def test_thin_and_tiny_things_are_one_polygon_and_come_back(mask):
    (polygon,) = polygons_of(mask)
    assert np.array_equal(back([polygon], mask.shape), mask)


def test_an_empty_mask_has_no_polygon():
    assert polygons_of(np.zeros((5, 6), np.bool_)) == []
    assert not rasterised([], (5, 6)).any()


def test_demo_masks_keep_their_pixels_with_few_points():
    for job in read_jobs():
        mask = job.truth()
        polygons = polygons_of(mask)
        assert iou(back(polygons, mask.shape), mask) >= 0.999, job.name
        pieces = [np.ravel(p.exterior.coords[:-1]).tolist() for q in polygons for p in without_holes(q)]
        assert iou(decode(pieces, mask.shape), mask) >= 0.99, job.name
        points, all_points = (sum(len(ring) for p in polygons_of(mask, t) for ring in rings_of(p)) for t in (0.4, 0))
        assert points < all_points


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf"), "1", True])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(ConfigError, match="tolerance="):
        polygons_of(np.eye(3, dtype=np.bool_), tolerance)


def test_run_lengths_of_another_size_say_both_sizes():
    runs = encode(np.eye(4, dtype=np.bool_))
    with pytest.raises(DatasetError, match="run lengths are of 4 x 4, but their picture is of 5 x 6"):
        decode(runs, (5, 6))


def test_a_result_as_polygons_runs_and_boxes(embedded):
    face, coins = (next(j for j in read_jobs() if j.name == name) for name in ("face", "coins"))
    segmenter = FewShotSegmenter(device="cpu")
    for job in (face, coins):
        segmenter.add_support(job.support, job.support_mask, job.name)
    result = segmenter.predict(face.query)
    assert result["face"].mask.any()
    assert iou(back(result.polygons("face"), result["face"].mask.shape), result["face"].mask) >= 0.99
    assert np.array_equal(decode(result["face"].rle(), result["face"].mask.shape), result["face"].mask)
    left, top, right, bottom = result.boxes()[0]
    inside = result["face"].mask[top:bottom, left:right]
    assert inside.sum() == result["face"].mask.sum()
    assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
    for read in (result.polygons, result.rle):
        with pytest.raises(LabelError, match="2 labels"):
            read()
        with pytest.raises(LabelError, match="no label 'dog'"):
            read("dog")
    nothing = segmenter.predict(face.query, absent_below=1.0)
    assert nothing.boxes().tolist() == [[0, 0, 0, 0]] * 2
    assert nothing.polygons("face") == []


@pytest.mark.parametrize(
    ("package", "call", "extra"),
    [
        ("shapely", "polygons_of(mask)", "iir-sdk[formats]"),
        ("pycocotools", "encode(mask)", "iir-sdk[formats]"),
        ("scipy", "instances_of(mask, 'a')", "iir-sdk[formats]"),
        ("supervision", "detections_of([], {}, (3, 3))", "iir-sdk[supervision]"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_its_cure(monkeypatch, package, call, extra):
    from iir_sdk.formats.instances import detections_of, instances_of

    monkeypatch.setitem(sys.modules, package, None)
    names = {"detections_of": detections_of, "instances_of": instances_of, "polygons_of": polygons_of, "encode": encode}
    with pytest.raises(MissingDependencyError, match=f"{package}.*'{extra}'".replace("[", r"\[")):
        eval(call, {**names, "mask": np.eye(3, dtype=np.bool_)})


def test_results_are_imported_without_the_formats_packages():
    code = (
        "import sys; import iir_sdk.results.segmentation, iir_sdk.formats.registry; "
        "print([p for p in ('shapely', 'pycocotools', 'scipy', 'supervision', 'rasterio') if p in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
