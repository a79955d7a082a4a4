"""Masks, label map, scores, views, overlay and files."""

from __future__ import annotations

import copy
import dataclasses
import io
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iir_sdk.errors import LabelError, OutputError
from iir_sdk.pictures.save import save_picture
from iir_sdk.results.full_size import Segmented
from iir_sdk.results.painting import COLOURS
from iir_sdk.results.segmentation import Cut, Segmentation
from iir_sdk.results.segmentation import segmentation as made


def segmentation(labels: int = 2, seed: int = 0, threshold: float = 0.5) -> Segmentation:
    rng = np.random.default_rng(seed)
    leads = logits(rng.uniform(size=(labels, 9, 7)))
    image = rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)
    priors = rng.uniform(size=(labels, 4, 4)).astype(np.float32)
    return made(tuple("abcdefgh"[:labels]), Segmented(leads, priors), image=image, cut=Cut(threshold), timings={})


def logits(probabilities: np.ndarray) -> np.ndarray:
    return np.log(probabilities / (1 - probabilities)).astype(np.float32)


def test_a_result_can_be_copied_and_sent_to_another_process():
    found = segmentation()
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert np.array_equal(other["b"].mask, found["b"].mask)
        assert np.array_equal(other.label_map, found.label_map)
        assert other.timings == found.timings
    assert dataclasses.asdict(found)["labels"] == ("a", "b")


@settings(max_examples=60, deadline=None)
@given(labels=st.integers(1, 5), seed=st.integers(0, 1000), threshold=st.floats(0, 1))
def test_masks_map_and_scores_equal_loops(labels, seed, threshold):
    found = segmentation(labels, seed, threshold)
    for y in range(9):
        for x in range(7):
            values = found.probabilities[:, y, x]
            inside = [float(v) > threshold for v in values]
            assert [bool(m) for m in found.masks[:, y, x]] == inside
            if labels == 1:
                assert found.label_map[y, x] == inside[0]
            else:
                # How several share the map: test_competition.py.
                assert found.label_map[y, x] in [0, *(i + 1 for i in range(labels) if inside[i])]
    for i in range(labels):
        inside_values = found.probabilities[i][found.masks[i]]
        expected = inside_values.mean() if inside_values.size else 0
        assert found.scores[i] == pytest.approx(expected, abs=1e-5)
    assert found.scores.dtype == np.float32
    assert found.label_map.dtype == np.int32


def test_labels_that_are_probably_absent_get_an_empty_mask_and_keep_their_probabilities():
    probabilities = np.full((3, 4, 5), 0.9, np.float32)
    probabilities[1] = 0.6
    probabilities[2, :, :2] = 0.3
    probabilities[2, :, 2:] = 0.7
    scores = np.array([[0.2, 0.9], [0.8, 0.6], [0.8, 0.7]], np.float32)
    found = made(
        ("a", "b", "c"),
        Segmented(logits(probabilities), probabilities, scores),
        image=np.zeros((4, 5, 3), np.uint8),
        cut=Cut(absent_below=0.5),
        timings={},
    )
    assert [bool(m.any()) for m in found.masks] == [False, True, True]
    # The label that is absent outbids nobody, however probable its pixels are.
    assert found.label_map.tolist() == [[2, 2, 3, 3, 3]] * 4
    assert np.array_equal(found.scores, scores[:, 0])
    assert found.confidences.tolist() == pytest.approx([0, 0.6, 0.7])
    np.testing.assert_allclose(found.probabilities, probabilities, atol=1e-6)
    assert not found["a"].mask.any()
    assert found["a"].score == pytest.approx(0.2)


def test_one_label_reads_directly_and_several_ask_for_a_name():
    several = segmentation(2)
    view = several["b"]
    assert view.labels == ("b",)
    assert np.array_equal(view.mask, several.masks[1])
    assert np.array_equal(view.probability, several.probabilities[1])
    assert np.array_equal(view.prior, several.priors[1])
    assert view.score == pytest.approx(float(several.scores[1]))
    assert view.confidence == pytest.approx(float(several.confidences[1]))
    assert set(np.unique(view.label_map)) <= {0, 1}
    for name in ("mask", "probability", "prior", "score", "confidence"):
        with pytest.raises(LabelError, match=r"result\['a'\]"):
            getattr(several, name)
    with pytest.raises(KeyError, match="no label 'dog'"):
        several["dog"]


def test_it_reads_like_a_mapping_of_labels():
    found = segmentation(2)
    assert list(found) == ["a", "b"]
    assert len(found) == 2
    assert "b" in found
    assert "dog" not in found
    assert {label: found[label].score for label in found}.keys() == {"a", "b"}


def test_it_is_frozen():
    found = segmentation(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.threshold = 0.1  # type: ignore[misc]
    with pytest.raises(TypeError):
        found.timings["x"] = 1  # type: ignore[index]


def test_overlay_tints_the_masks_only():
    found = segmentation(2)
    overlay = np.asarray(found.overlay(opacity=0.25))
    expected = found.image.astype(float)
    for y, x in np.argwhere(found.label_map > 0):
        own = found.label_map[y, x]
        beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inner = all(found.label_map[b] == own for b in beside if 0 <= b[0] < 9 and 0 <= b[1] < 7)
        colour = np.array(COLOURS[own - 1])
        expected[y, x] = 0.75 * found.image[y, x] + 0.25 * colour if inner else colour
    assert np.abs(overlay - expected).max() <= 0.5
    with pytest.raises(OutputError, match="opacity"):
        found.overlay(opacity=2)


def test_masks_are_written_without_loss(tmp_path):
    one, several = segmentation(1), segmentation(3)
    one.save(tmp_path / "one.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "one.png")), one.mask * np.uint8(255))
    several.save(tmp_path / "several.png")
    image = Image.open(tmp_path / "several.png")
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), several.label_map)
    assert tuple(image.getpalette()[3:6]) == COLOURS[0]
    several.save(tmp_path / "overlay.jpg", what="overlay")
    assert Image.open(tmp_path / "overlay.jpg").size == (7, 9)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.png", "overlay.jpg", "several.png"]


@pytest.mark.parametrize(
    ("name", "what", "reason"),
    [
        ("mask.jpg", "mask", "png"),
        ("no/such/mask.png", "mask", "no folder"),
        ("overlay.xyz", "overlay", "suffix"),
        ("overlay.psd", "overlay", "suffix"),
        ("mask.png", "both", "what="),
        ("mask\0.png", "mask", "null"),
        ("m" * 300 + ".png", "mask", "too long"),
    ],
)
def test_what_cannot_be_written_says_why(tmp_path, name, what, reason):
    with pytest.raises(OutputError, match=reason):
        segmentation(1).save(tmp_path / name, what=what)


def test_a_picture_that_the_format_cannot_hold_is_an_error_of_ours(tmp_path):
    wide = Image.new("RGB", (17_000, 8))
    with pytest.raises(OutputError, match="17000 x 8"):
        save_picture(wide, tmp_path / "wide.webp")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="rights of files are POSIX's")
def test_files_get_the_rights_that_open_gives_and_the_longest_names(tmp_path):
    name = "m" * 251 + ".png"
    assert len(name) == 255
    before = os.umask(0o027)
    try:
        segmentation(1).save(tmp_path / name)
        (tmp_path / "plain").write_text("", encoding="utf-8")
    finally:
        assert os.umask(before) == 0o027
    assert (tmp_path / name).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "mask.png"
    segmentation(1).save(path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OutputError, match="disk full"):
        segmentation(1, seed=5).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_masks_and_overlays_go_into_open_files(tmp_path):
    one, several = segmentation(1), segmentation(3)
    for found, what in ((one, "mask"), (several, "mask"), (several, "overlay")):
        file = io.BytesIO()
        assert found.save(file, what=what) is None
        path = found.save(tmp_path / "same.png", what=what)
        with Image.open(io.BytesIO(file.getvalue())) as written, Image.open(path) as expected:
            assert written.format == "PNG"
            assert written.mode == expected.mode
            assert np.array_equal(np.asarray(written), np.asarray(expected))
    one.save(tmp_path / "once.png")
    with (tmp_path / "once.png").open("rb") as reader:
        for bad in (reader, io.StringIO(), None, 7):
            with pytest.raises(OutputError, match="open for bytes"):
                one.save(bad)


@pytest.mark.parametrize(("size", "shown"), [((3000, 2000), (768, 512)), ((20, 30), (20, 30)), ((2000, 9), (768, 3))])
def test_a_notebook_shows_the_overlay_at_a_bounded_size(size, shown):
    image = np.zeros((*size, 3), np.uint8)
    lead = np.full((2, 6, 6), -4, np.float32)
    lead[0, :, :3], lead[1, :, 3:] = 4, 4
    found = made(("a", "b"), Segmented(lead, lead), image=image, cut=Cut(), timings={})
    with Image.open(io.BytesIO(found._repr_png_())) as png:
        assert png.size == shown[::-1]
        left, right = (png.convert("RGB").getpixel((x, shown[0] // 2)) for x in (0, shown[1] - 1))
    assert left[0] > left[2]
    assert right[2] > right[0]


@pytest.mark.parametrize("number", [0, 0.5, np.float32(0.5), np.int64(1)])
def test_numbers_of_any_kind_are_thresholds(number):
    assert Cut(number).threshold == number
