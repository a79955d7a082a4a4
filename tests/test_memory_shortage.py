"""Too little memory is told as such, and not as a damaged file; what was read beside others is read again alone."""

from __future__ import annotations

import errno
import io
import os
import threading

import numpy as np
import pytest
from PIL import Image, ImageFile

from iir_sdk.data.benchmarks.stored_files import stored_pixels
from iir_sdk.errors import DatasetError, ImageError, MaskError, MemoryShortageError, is_memory_shortage
from iir_sdk.pictures.load import Picture, load_picture
from iir_sdk.pictures.masks import mask_labels
from iir_sdk.segmenting.journal import Stamp
from iir_sdk.segmenting.queries import Query
from iir_sdk.segmenting.reading import Read, read_ahead, read_batches
from iir_sdk.web.api.problems import answer_to

# As numpy and Python, PIL's decoders and the system say it.
SHORTAGES = [
    MemoryError(),
    OSError("out of memory error when reading image file"),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
]


class OutOfMemoryError(Exception):
    """As GDAL's and torch's kinds are called."""


@pytest.fixture(params=SHORTAGES, ids=["MemoryError", "decoder", "system"])
def short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without memory for any decoded picture."""

    def load(image: ImageFile.ImageFile) -> None:
        raise request.param

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)


def png() -> bytes:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 2:5] = 255
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    return stream.getvalue()


def test_a_picture_that_memory_does_not_suffice_for_is_not_called_damaged(short, tmp_path):
    (tmp_path / "mask.png").write_bytes(png())
    for read in (load_picture, mask_labels):
        for source in (png(), tmp_path / "mask.png"):
            with pytest.raises(MemoryShortageError, match=r"takes more memory than there is .*; shrink it") as told:
                read(source)
            assert not isinstance(told.value, (ImageError, MaskError))
            assert "damaged" not in str(told.value)
    with pytest.raises(MemoryShortageError, match=r"mask\.png takes more memory"):
        stored_pixels(tmp_path / "mask.png", "a mask")
    (read,) = next(iter(read_batches([Query(str(tmp_path / "mask.png"), "mask")], 4)))
    assert isinstance(read.outcome, MemoryShortageError)
    assert answer_to(read.outcome).status_code == 503


def test_damaged_files_are_still_damaged(tmp_path):
    (tmp_path / "out of memory.png").write_bytes(png()[:60])
    with pytest.raises(ImageError, match="damaged"):
        load_picture(tmp_path / "out of memory.png")
    with pytest.raises(DatasetError, match="fetch it again"):
        stored_pixels(tmp_path / "out of memory.png", "a mask")


def test_pixels_that_cannot_be_copied_are_told_alike(monkeypatch):
    def rgb_of_array(array: np.ndarray, what: str) -> np.ndarray:
        raise MemoryError("Unable to allocate 9.00 GiB")

    monkeypatch.setattr("iir_sdk.pictures.load.rgb_of_array", rgb_of_array)
    with pytest.raises(MemoryShortageError, match=r"query takes more memory .*9\.00 GiB"):
        load_picture(np.zeros((4, 4, 3), np.uint8), what="query")


def test_what_shortages_are():
    wrapped = RuntimeError("read failed, see the previous one")
    wrapped.__cause__ = OutOfMemoryError()
    for error in (*SHORTAGES, OutOfMemoryError(), wrapped, RuntimeError("CUDA out of memory. Tried to allocate")):
        assert is_memory_shortage(error)
    for error in (None, ValueError("out of memory.png is no picture"), OSError("broken data stream")):
        assert not is_memory_shortage(error)


def test_what_was_read_beside_others_is_read_again_alone():
    reads: list[tuple[str, bool]] = []

    def read(name: str, pixels: int) -> Read:
        alone = threading.current_thread() is threading.main_thread()
        reads.append((name, alone))
        short = name == "huge" or (name == "large" and not alone)
        outcome = MemoryShortageError("too much") if short else Picture(np.zeros((4, 4, 3), np.uint8))
        return Read(Query(name, ""), outcome, Stamp(0, 0), 0.0)

    names = ["a", "huge", "large", "b", "c", "d", "e", "huge"]
    batches = list(read_ahead([(name, 16) for name in names], 2, read))
    assert sorted(one.query.path for batch in batches for one in batch) == sorted(names)
    assert [one.query.path for batch in batches for one in batch if not isinstance(one.outcome, Picture)] == [
        "huge"
    ] * 2
    assert all(len(batch) == 1 for batch in batches if batch[0].query.path in ("huge", "large"))
    assert [name for name, alone in reads if alone] == ["huge", "large", "huge"]
