"""Supports saved to and loaded from files that are already open, and bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest

from iir_sdk import FewShotSegmenter
from iir_sdk.errors import OutputError, SupportError


@pytest.fixture
def saved(small_segmenter, scene) -> bytes:
    small_segmenter.add_support(*scene, "disc")
    buffer = io.BytesIO()
    small_segmenter.save_supports(buffer)
    return buffer.getvalue()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_supports_go_through_memory(kind, saved, small_segmenter, small_checkpoint, scene):
    other = FewShotSegmenter(small_checkpoint, device="cpu")
    assert [s.label for s in other.load_supports(kind(saved))] == ["disc"]
    np.testing.assert_array_equal(
        other.predict(scene[0]).probabilities, small_segmenter.predict(scene[0]).probabilities
    )


def test_an_open_file_is_read_and_written_like_a_path(saved, small_segmenter, tmp_path):
    with (tmp_path / "open.safetensors").open("wb") as stream:
        small_segmenter.save_supports(stream)
    by_path = small_segmenter.load_supports(tmp_path / "open.safetensors")
    with (tmp_path / "open.safetensors").open("rb") as stream:
        assert [s.id for s in small_segmenter.load_supports(stream)] == [s.id for s in by_path]
    assert len(small_segmenter.supports) == 1


def test_files_that_cannot_be_read_name_the_cure(saved, small_segmenter):
    read_to_its_end = io.BytesIO(saved)
    read_to_its_end.read()
    with pytest.raises(SupportError, match=r"file\.seek\(0\)"):
        small_segmenter.load_supports(read_to_its_end)
    read_to_its_end.seek(0)
    assert len(small_segmenter.load_supports(read_to_its_end)) == 1
    closed = io.BytesIO(saved)
    closed.close()
    for source, says in (
        (io.StringIO("text"), "'rb'"),
        (closed, "closed"),
        (5, "open binary file"),
        (b"x", "format"),
    ):
        with pytest.raises(SupportError, match=says):
            small_segmenter.load_supports(source)


def test_what_cannot_be_written_to_is_an_error_of_ours(saved, small_segmenter, tmp_path):
    (tmp_path / "there").write_bytes(b"")
    with (tmp_path / "there").open("rb") as for_reading:
        for target in (io.StringIO(), for_reading, b"", None, 5):
            with pytest.raises(OutputError, match="binary"):
                small_segmenter.save_supports(target)


def test_supports_of_the_format_before_are_refused(saved, small_segmenter):
    # Their thresholds and priors mean something else than this version's.
    before = saved.replace(b"iir_sdk.supports/9", b"iir_sdk.supports/8")
    assert before != saved
    with pytest.raises(SupportError, match="add the supports again from their pictures"):
        small_segmenter.load_supports(before)
