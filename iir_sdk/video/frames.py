"""The frames of a video, segmented one after another as they are asked for."""

from __future__ import annotations

import copy
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import ConfigError, IirWarning, LabelError, NoSupportError
from iir_sdk.files import is_file
from iir_sdk.pictures.masks import Value
from iir_sdk.pictures.source import ImageSource
from iir_sdk.results.segmentation import Cut, Segmentation
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.segmenting.supports import DEFAULT_LABEL, PathText, Teaching, naming_files, split_label
from iir_sdk.supports.bank import Support
from iir_sdk.video.memory import MEMORY, STEADY, Memory, Recall
from iir_sdk.video.reading import opened_video, stills_at


@dataclass(frozen=True)
class VideoFrame:
    """A frame, segmented.

    Attributes:
        index: from 0.
        time: seconds from the first frame.
        result: its masks.
    """

    index: int
    time: float
    result: Segmentation


@dataclass(frozen=True)
class FrameMask:
    """The user's mask of a frame.

    Attributes:
        frame: its index, from 0.
        mask: as :meth:`FewShotSegmenter.add_support` takes it, of the frame as it is shown.
        label: the object's name.
        value: which number of a mask of several classes it is.
    """

    frame: int
    mask: ImageSource
    label: str = DEFAULT_LABEL
    value: Value | None = None

    @classmethod
    def from_text(cls, text: str) -> FrameMask:
        """Of ``mask.png``, ``120=mask.png`` or ``120=mask.png:label``; without a number it is the first frame's."""
        frame, path = 0, text
        if (numbered := re.fullmatch(r"(\d+)=(.+)", text, re.DOTALL)) and not is_file(text):
            frame, path = int(numbered[1]), numbered[2]
        mask, label, value = split_label(path)
        return cls(frame, mask, label or DEFAULT_LABEL, value)


FrameMasks: TypeAlias = "Mapping[int, ImageSource | Mapping[str, ImageSource]] | Iterable[FrameMask]"
"""``{0: "mask.png"}``, ``{0: {"cat": "cat.png", "dog": "dog.png"}, 120: {"cat": "cat120.png"}}``, or a list."""


@dataclass(frozen=True)
class Prepared:
    """A video, and all that its frames are segmented by.

    Attributes:
        path: its file.
        segmenter: taught.
        labels: those that are asked for.
        cut: where probabilities become masks.
        recall: what earlier frames count for.
        drawn: the user's masks ``(H, W)``, by frame and label.
    """

    path: Path
    segmenter: FewShotSegmenter
    labels: tuple[str, ...]
    cut: Cut
    recall: Recall
    drawn: Mapping[int, Mapping[str, NDArray[np.bool_]]]

    def frames(self, rates: list[Fraction] | None = None) -> Iterator[VideoFrame]:
        """All frames, in order; the video's frames a second are appended to ``rates``."""
        memory = Memory(self.segmenter, self.labels, self.cut, self.recall)
        with opened_video(self.path) as video:
            if rates is not None:
                rates.append(video.rate)
            for still in video.stills():
                yield VideoFrame(still.index, still.time, memory.segment(still, self.drawn.get(still.index)))


def segment_frames(
    video: PathText,
    masks: FrameMasks = (),
    *,
    segmenter: FewShotSegmenter | None = None,
    labels: Sequence[str] | None = None,
    threshold: float = 0.5,
    absent_below: float = 0.0,
    memory: int = MEMORY,
    steady: float = STEADY,
) -> Iterator[VideoFrame]:
    """Segment a video's frames in order, each as it is asked for; nothing is written.

    Args:
        video: its file.
        masks: the user's masks of frames, by their index from 0: ``{0: "mask.png"}``; of several labels
            ``{0: {"cat": "cat.png", "dog": "dog.png"}}``.
        segmenter: an open one, whose supports count, too, and which stays as it is; None opens the default.
        labels: see :meth:`FewShotSegmenter.predict`, likewise ``threshold`` and ``absent_below``.
        memory: most frames with sure masks that are remembered for each label, as further supports; the given ones are
            never forgotten.
        steady: how much a place keeps of what it was in the frame before, in [0, 1]; with 0, and no memory, each frame
            is segmented by itself.

    Raises:
        PictureNotFoundError, VideoError: there is no such video; while the frames are read, it ends early or is
            damaged, after all frames before that.
        NoSupportError, LabelError, ImageError, MaskError: the masks are not usable.
        ConfigError: an argument is out of its range.
        MissingDependencyError: without ``pip install 'iir-sdk[video]'``.

    Example:
        >>> for frame in iir_sdk.segment_frames("clip.mp4", {0: "frame0_mask.png"}):
        ...     print(frame.index, frame.time, frame.result.score)
    """
    marks, cut = frame_masks(masks), Cut(threshold, absent_below)
    recall = Recall(memory, steady)
    return prepared(video, marks, Teaching(labels=labels), segmenter or FewShotSegmenter(), cut, recall).frames()


def prepared(
    video: PathText,
    marks: Sequence[FrameMask],
    teaching: Teaching,
    segmenter: FewShotSegmenter,
    cut: Cut,
    recall: Recall,
) -> Prepared:
    """A video with a segmenter that was taught its masks and further supports; the given one stays as it is."""
    path, taught = Path(video), copy.copy(segmenter)
    stills = stills_at(path, {mark.frame for mark in marks})
    drawn: dict[int, dict[str, NDArray[np.bool_]]] = {}
    for mark in marks:
        name = mark.mask if isinstance(mark.mask, (str, os.PathLike)) else "its mask"
        with naming_files(f"{path}, frame {mark.frame}", name):
            support = teach_frame(taught, stills[mark.frame].picture.pixels, mark)
        drawn.setdefault(mark.frame, {})[mark.label] = support.mask
    if not (marks or len(taught.supports) or teaching.shown or teaching.support_file):
        raise NoSupportError(
            f"nothing shows what to look for in {str(path)!r}: --mask mask.png, of its first frame, or --support "
            "photo.jpg mask.png; in Python masks={0: 'mask.png'}, or a segmenter that was taught."
        )
    taught = teaching.teach(taught)
    names = tuple(teaching.labels) if teaching.labels is not None else taught.supports.labels
    # A mistake in what is asked for is told now and not at the first frame.
    taught.predict_many([], labels=names, threshold=cut.threshold, absent_below=cut.absent_below)
    return Prepared(path, taught, names, cut, recall, drawn)


def teach_frame(segmenter: FewShotSegmenter, pixels: NDArray[np.uint8], mark: FrameMask) -> Support:
    """Add a frame ``(H, W, 3)`` with its mask as a support, and once more as a whole: the scene is seen again so."""
    support = segmenter.add_support(pixels, mark.mask, mark.label, value=mark.value)
    rows, columns = segmenter.preprocessing.support_cut(support.mask, support.packed.known)
    if support.mask[rows, columns].shape != support.mask.shape:
        # Of the support's own mask, so that nothing is read, or warned of, twice.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IirWarning)
            segmenter.add_support(pixels, support.mask, mark.label, known=support.packed.known, whole=True)
    return support


def frame_masks(masks: FrameMasks) -> list[FrameMask]:
    """Masks of frames as a list, checked; a ConfigError says how they are to be given."""
    several = list(_of_mapping(masks)) if isinstance(masks, Mapping) else list(masks)
    if not all(isinstance(mark, FrameMask) for mark in several):
        raise ConfigError(f"masks={masks!r:.200} must name frames: {{0: 'mask.png'}} for the first one's.")
    places = [(mark.frame, mark.label) for mark in several]
    for frame, label in places:
        if isinstance(frame, bool) or not isinstance(frame, (int, np.integer)) or frame < 0:
            raise ConfigError(f"frame {frame!r} of masks must be an integer of at least 0, the first frame.")
        if places.count((frame, label)) > 1:
            raise LabelError(f"frame {frame} has two masks of label {label!r}; join them, or name two labels.")
    return several


def _of_mapping(masks: Mapping[int, ImageSource | Mapping[str, ImageSource]]) -> Iterator[FrameMask]:
    for frame, one in masks.items():
        of_labels = one if isinstance(one, Mapping) else {DEFAULT_LABEL: one}
        yield from (FrameMask(frame, mask, label) for label, mask in of_labels.items())
