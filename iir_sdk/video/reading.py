"""Reads the frames of a video in order, as they are shown, with their times; what is damaged is told, and where."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from iir_sdk.errors import (
    ImageError,
    PictureNotFoundError,
    VideoError,
    is_memory_shortage,
    memory_shortage,
    needed_imports,
)
from iir_sdk.files import is_file, is_folder
from iir_sdk.pictures.load import Picture, load_picture
from iir_sdk.video.turning import shown_upright, turn_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

NEEDED = "video needs PyAV: pip install 'iir-sdk[video]'."

_USUAL_RATE = Fraction(25)
_SLACK = 0.5
"""Seconds by which a video may be shorter than its file says, as rounded times and trimmed sound make it."""


@dataclass(frozen=True)
class Still:
    """A frame as it is shown."""

    index: int  # from 0, of the frames in the order of their times
    time: float  # in seconds from the first frame
    picture: Picture


class Video:
    """An open video.

    Attributes:
        path: its file.
        rate: frames a second, on average.
    """

    def __init__(self, path: Path, container: InputContainer, stream: VideoStream) -> None:
        self.path, self._container, self._stream = path, container, stream
        self.rate: Fraction = stream.average_rate or stream.guessed_rate or _USUAL_RATE

    @property
    def count(self) -> int | None:
        """How many frames there are, as the file says; None where it does not."""
        return self._stream.frames or None

    def stills(self) -> Iterator[Still]:
        """All frames, from the first.

        Raises:
            VideoError: there is none, one cannot be decoded or is of another size, or the video ends early; all frames
                before that have been given.
        """
        index, time, size = -1, 0.0, (0, 0)
        for index, (stamp, frame) in enumerate(self._decoded()):
            time = stamp if index == 0 or stamp > time else time + float(1 / self.rate)
            picture = self._picture(frame, index)
            size = size if index else picture.size
            if picture.size != size:
                raise VideoError(
                    f"{self._name}: frame {index} is {picture.size[0]} x {picture.size[1]}, and those before it are "
                    f"{size[0]} x {size[1]}. Cut it into videos of one size each, or scale it to one: "
                    "ffmpeg -i VIDEO -vf scale=W:H ONE_SIZE.mp4."
                )
            yield Still(index, time, picture)
        if index < 0:
            raise VideoError(f"{self._name} holds no frame that can be decoded; record or export it again.")
        self._check_end(index + 1, time)

    def _decoded(self) -> Iterator[tuple[float, Any]]:
        """Frames with their seconds from the first; what the decoder raises becomes a VideoError."""
        import av

        index, first = 0, None
        try:
            for frame in self._container.decode(self._stream):
                stamp = frame.time if frame.pts is not None else None
                first = stamp if first is None else first
                seconds = float(index / self.rate) if stamp is None or first is None else float(stamp - first)
                yield seconds, frame
                index += 1
        except (av.FFmpegError, OSError) as error:
            if is_memory_shortage(error):
                raise memory_shortage(f"{self._name}: frame {index}", error) from error
            raise VideoError(
                f"{self._name} cannot be decoded at frame {index} ({error}): it is damaged there. Copy it again, or "
                "keep what can be read: ffmpeg -err_detect ignore_err -i VIDEO -c:v libx264 MENDED.mp4."
            ) from error

    def _picture(self, frame: Any, index: int) -> Picture:
        try:
            turn = turn_of(frame)
        except ValueError as error:
            raise VideoError(
                f"{self._name} is to be shown {error}, which is no quarter turn. Turn its frames for good: ffmpeg -i "
                "VIDEO TURNED.mp4."
            ) from error
        # Alpha goes through the pictures' door, which shows transparency on white.
        alpha = any(component.is_alpha for component in frame.format.components)
        pixels = shown_upright(frame.to_ndarray(format="rgba" if alpha else "rgb24"), turn)
        try:
            return load_picture(Image.fromarray(np.ascontiguousarray(pixels)) if alpha else pixels, what="frame")
        except ImageError as error:
            raise VideoError(f"{self._name}, frame {index}: {error}") from error

    def _check_end(self, count: int, time: float) -> None:
        """Refuse a video that is shorter than its file says by a VideoError."""
        stream, container = self._stream, self._container
        if stream.duration is not None and stream.time_base is not None:
            promised = float(stream.duration * stream.time_base)
        elif container.duration is not None and len(container.streams) == 1:
            promised = container.duration / 1e6
        else:
            return
        end = time + float(1 / self.rate)
        if promised - end > max(_SLACK, 3 / float(self.rate)):
            raise VideoError(
                f"{self._name} ends early: at frame {count}, after {end:.2f} of {promised:.2f} seconds; the frames "
                "before it are whole. Copy the file again; or, if there is no more of it, say so in the file: "
                "ffmpeg -i VIDEO -c copy ALL_THERE_IS.mp4, and take that."
            )

    @property
    def _name(self) -> str:
        return f"video {str(self.path)!r}"


@contextmanager
def opened_video(source: str | os.PathLike[str]) -> Iterator[Video]:
    """Open a video file.

    Raises:
        PictureNotFoundError: there is no file.
        VideoError: it is no video, or holds none.
        MissingDependencyError: PyAV is not installed.
    """
    with needed_imports(NEEDED):
        import av
    path = Path(source)
    if not is_file(path):
        kind = "is a folder; name one video of it" if is_folder(path) else "is not there"
        raise PictureNotFoundError(f"video {str(path)!r} {kind}.")
    try:
        # Said to be a file, since a colon in its name would make it a protocol's.
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(
            f"video {str(path)!r} cannot be read ({error}): it is no video, or its end, where many formats keep their "
            "index, is missing. Copy it again from where it was recorded."
        ) from error
    with container:
        yield Video(path, container, _stream_of(container, path))


def _stream_of(container: InputContainer, path: Path) -> VideoStream:
    from av.stream import Disposition

    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        raise VideoError(f"video {str(path)!r} is a picture; pictures are for segment (segment_folder, predict).")
    # Covers of songs are streams of one picture.
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise VideoError(f"video {str(path)!r} has no stream of pictures; it holds {kinds}. Name a video.")
    stream = max(streams, key=lambda s: (s.width or 0) * (s.height or 0))
    if stream.codec_context is None:
        raise VideoError(
            f"video {str(path)!r}: this PyAV cannot decode its codec. Convert it: ffmpeg -i VIDEO -c:v libx264 OUT.mp4."
        )
    stream.thread_type = "AUTO"
    return stream


def stills_at(video: str | os.PathLike[str], indices: Collection[int]) -> dict[int, Still]:
    """Some frames of a video, by index; a VideoError for those beyond its end."""
    last, stills = max(indices, default=-1), {}
    with opened_video(video) as opened:
        count = 0
        for still in opened.stills() if indices else ():
            count = still.index + 1
            if still.index in indices:
                stills[still.index] = still
            if still.index == last:
                break
    if last >= 0 and last not in stills:
        raise VideoError(f"video {str(Path(video))!r} has {count} frames, counted from 0; there is no frame {last}.")
    return stills
