"""Videos for tests, written by PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from iir_sdk.demo.job import read_jobs

EYE = next(job for job in read_jobs() if job.name == "eye")


def write_video(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: Sequence[float] | None = None,
    rate: int = 10,
    source: str = "rgb24",
    rotation: int = 0,
    sound: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Pictures ``(H, W, C)`` uint8 at their times in seconds, else at a rate."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        if codec == "libx264":
            stream.options = {"crf": "12", "preset": "ultrafast"}
        if rotation:
            stream.set_display_rotation(rotation)
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=source)
            frame.pts, frame.time_base = round(1000 * (times[i] if times else i / rate)), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def camera(count: int, side: int = 128, support: bool = True) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames and masks of a camera that goes over the demo's eye, to the right and back a little each time."""
    picture, mask = (EYE.support, EYE.support_mask) if support else (EYE.query, EYE.query_mask)
    with Image.open(picture) as image, Image.open(mask) as drawn:
        views = [_view(image.convert("RGB"), drawn.convert("L"), i, side) for i in range(count)]
    return [pixels for pixels, _ in views], [seen > 127 for _, seen in views]


def _view(image: Image.Image, mask: Image.Image, i: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    width, height = image.size
    box = (i * width // 100, 0, width - (10 - i % 10) * width // 100, height)
    return tuple(np.asarray(each.crop(box).resize((side, side))) for each in (image, mask))  # type: ignore[return-value]


def colours(size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A picture of four colours, each in its corner: red, blue, green, black."""
    height, width = size
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (250, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 0, 250)
    picture[height // 2 :, : width // 2] = (0, 250, 0)
    return picture
