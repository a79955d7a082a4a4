"""Writes a video of overlays, and the table of a video's frames."""

from __future__ import annotations

import csv
import io
import secrets
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import OutputError, needed_imports
from iir_sdk.files import check_writable_place, write_atomically
from iir_sdk.results.segmentation import Segmentation
from iir_sdk.segmenting.journal import Row
from iir_sdk.video.reading import NEEDED

ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""What overlays are encoded by: the first that PyAV has. H.264, which every player shows, else MPEG-4."""

_TICKS = 60_000
"""A second has as many: whole numbers for all usual rates, and few enough for MPEG-4."""

COLUMNS = ("frame", "time", "label", "score", "confidence", "area", "area_share", "box", "seconds")


class OverlayVideo:
    """A video of overlays at a place, written beside it and moved there when it is finished.

    Frames keep their times. Sides of an odd number of pixels, which encoders refuse, get a last row or column twice.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        with needed_imports(NEEDED):
            import av  # noqa: F401
        check_writable_place(path)
        self.path, self._rate = path, rate
        self._beside = path.with_name(f".iir-{secrets.token_hex(4)}{path.suffix}")
        self._container: Any = None
        self._stream: Any = None
        self._last = -1

    def add(self, time: float, result: Segmentation) -> None:
        """The next frame, at its time in seconds; an OutputError where it cannot be written."""
        import av

        pixels = _even(np.asarray(result.overlay()))
        try:
            if self._container is None:
                self._open(pixels)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            self._last = max(self._last + 1, round(time * _TICKS))
            frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
            self._container.mux(self._stream.encode(frame))
        except (av.FFmpegError, OSError) as error:
            raise self._unwritable(error) from error

    def finish(self) -> None:
        """Move what was added to its place, if anything was; an OutputError where that fails."""
        import av

        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            try:
                container.mux(self._stream.encode(None))
            finally:
                container.close()
            self._beside.replace(self.path)
        except (av.FFmpegError, OSError) as error:
            raise self._unwritable(error) from error
        finally:
            with suppress(OSError):
                self._beside.unlink(missing_ok=True)

    def _open(self, pixels: NDArray[np.uint8]) -> None:
        import av

        self._container = av.open(f"file:{self._beside}", "w", format="mp4")
        encoder = next(name for name in ENCODERS if name in av.codecs_available)
        self._stream = self._container.add_stream(encoder, rate=self._rate)
        self._stream.height, self._stream.width = pixels.shape[:2]
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        if encoder == "libx264":
            self._stream.options = {"crf": "20", "preset": "veryfast"}
        else:
            self._stream.bit_rate = max(1_000_000, 4 * pixels.shape[0] * pixels.shape[1])

    def _unwritable(self, error: Exception) -> OutputError:
        return OutputError(f"cannot write {str(self.path)!r}: {error}.")


def _even(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    if not (height % 2 or width % 2):
        return np.ascontiguousarray(pixels)
    return np.pad(pixels, [(0, height % 2), (0, width % 2), (0, 0)], mode="edge")


def write_frame_table(path: Path, times: dict[str, float], rows: Iterable[Row]) -> Path:
    """Write a row a frame and label as CSV; ``times`` are frames' seconds by their names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        numbers = (f"{row.score:.4f}", f"{row.confidence:.4f}", row.area, f"{row.area_share:.6f}")
        box = " ".join(map(str, row.box or ()))
        writer.writerow([row.file, f"{times[row.file]:.3f}", row.label, *numbers, box, f"{row.seconds:.3f}"])
    return write_atomically(path, lambda beside: beside.write_text(text.getvalue(), encoding="utf-8", newline=""))
