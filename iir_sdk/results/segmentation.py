"""What a prediction gives: scores, and masks and other maps at the query's own size when they are asked for."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.errors import ConfigError, LabelError, OutputError
from iir_sdk.formats.instances import Instance, box_of, detections_of, instances_of
from iir_sdk.formats.polygons import TOLERANCE
from iir_sdk.formats.rle import encode
from iir_sdk.pictures.save import save_picture, write_png
from iir_sdk.results.cleaning import Cleaning
from iir_sdk.results.competition import contested, handicaps_of
from iir_sdk.results.full_size import Masks, Segmented, full_map, mask_map, mean_probabilities, probability_map, sigmoid
from iir_sdk.results.painting import COLOURS, painted

if TYPE_CHECKING:
    from shapely import Polygon
    from supervision import Detections
else:
    Polygon: TypeAlias = Any
    Detections: TypeAlias = Any

_OF_LABELS = ("labels", "leads", "scores", "confidences", "grid_priors")
_REPR_SIDE, _SHOWN_SIDE = 256, 768


class Timings(Mapping[str, float]):
    """Milliseconds by stage, read-only; unlike a ``MappingProxyType`` they can be copied and pickled."""

    def __init__(self, milliseconds: Mapping[str, float]) -> None:
        self._milliseconds = dict(milliseconds)

    def __getitem__(self, stage: str) -> float:
        return self._milliseconds[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self._milliseconds)

    def __len__(self) -> int:
        return len(self._milliseconds)

    def __repr__(self) -> str:
        return f"Timings({self._milliseconds})"


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Masks of one query, for ``L`` labels, at the query's own height ``H`` and width ``W``.

    It holds what the network gave, at the network's own grid, and makes maps of the query's size when they are asked
    for; masks are kept, a byte a pixel and label, the other maps are not.

    Attributes:
        labels: in the order of the first axis below.
        leads: float32 ``(L, h, w)``, log-odds of the foreground at the network's own grid.
        scores: float32 ``(L,)`` in [0, 1], how probable it is that the picture shows each label's object; of a
            checkpoint that was not calibrated for this, the mean probability of the grid's cells in its mask, 0 for
            none.
        confidences: float32 ``(L,)`` in [0, 1], what share of the mask is right, as a rule, if the picture shows the
            object; fitted to masks at threshold 0.5, 0 where no cell of the grid is in the mask. Of a checkpoint that
            was not calibrated for this, as ``scores``.
        grid_priors: float32 ``(L, h, w)`` in [0, 1], :attr:`priors` at the network's own grid.
        timings: milliseconds by stage; of the whole batch where several queries ran together.
        image: uint8 ``(H, W, 3)`` RGB, the query.
        threshold: of the masks.
        absent_below: labels with a score below this have an empty mask.
        calibrated: whether the checkpoint was calibrated for scores and confidences.
        cleaning: what was done to the masks and the label map, see :meth:`cleaned`; None for nothing.
    """

    labels: tuple[str, ...]
    leads: NDArray[np.float32]
    scores: NDArray[np.float32]
    confidences: NDArray[np.float32]
    grid_priors: NDArray[np.float32]
    timings: Mapping[str, float]
    image: NDArray[np.uint8] = field(repr=False)
    threshold: float = 0.5
    absent_below: float = 0.0
    calibrated: bool = True
    cleaning: Cleaning | None = None

    def __repr__(self) -> str:
        # Counted on small maps of the whole picture, however large it is.
        size = (min(self._size[0], _REPR_SIDE), min(self._size[1], _REPR_SIDE))
        shares = [mask_map(lead, size, self.threshold).mean() for lead in self.leads] * self._present
        by_label = ", ".join(
            f"{label!r}: {share:.1%} of the picture, score {score:.2f}"
            for label, share, score in zip(self.labels, shares, self.scores, strict=True)
        )
        return f"Segmentation({self.image.shape[0]} x {self.image.shape[1]}; {by_label})"

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: masks are made again where a copy or another process asks for them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[str]:
        """Over the labels, like a mapping."""
        return iter(self.labels)

    def __contains__(self, label: object) -> bool:
        return label in self.labels

    def __getitem__(self, label: str) -> Segmentation:
        """The view of one label; ``LabelError`` where it was not predicted."""
        if label not in self.labels:
            raise LabelError(f"no label {label!r} in this result; it has {', '.join(map(repr, self.labels))}.")
        i = self.labels.index(label)
        view = replace(self, **{name: getattr(self, name)[i : i + 1] for name in _OF_LABELS})
        first = self._first + i
        view.__dict__.update(_masks=self._masks, _first=first)
        return view

    @cached_property
    def _masks(self) -> Masks:
        return Masks(self.leads, self._present, self._size, self.threshold, self.cleaning)

    @cached_property
    def _first(self) -> int:
        """Place of the first label among those of the masks."""
        return 0

    @property
    def _size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    @property
    def _present(self) -> NDArray[np.bool_]:
        present: NDArray[np.bool_] = self.scores >= self.absent_below
        return present

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Bool ``(L, H, W)``: where the probability exceeds the threshold; masks of different labels may overlap.

        Empty for labels that ``absent_below`` left out. Made at the first reading, and kept: a byte a pixel and label.
        """
        return self._masks.of(self._first, self._first + len(self.labels))

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Float32 ``(L, H, W)`` in [0, 1].

        Made anew at each reading, 4 bytes a pixel and label, and not kept: hold on to it, or read one label's.
        """
        return np.stack([probability_map(lead, self._size) for lead in self.leads])

    @property
    def priors(self) -> NDArray[np.float32]:
        """Float32 ``(L, H, W)`` in [0, 1]: where similarity alone places each label; made anew at each reading."""
        return np.stack([full_map(prior, self._size) for prior in self.grid_priors])

    @cached_property
    def label_map(self) -> NDArray[np.int32]:
        """Int32 ``(H, W)``: 0 for background, ``i + 1`` for ``labels[i]``.

        Of one label it is its mask. Several compete, by probability and score: what the picture most likely shows gets
        the pixels that others claim too, and a label that the picture does not show leaves nothing
        (:mod:`iir_sdk.results.competition`). Masks are not touched by this: each is its label's answer without the
        others.

        Made at the first reading, and kept: 4 bytes a pixel.
        """
        return self._places().astype(np.int32)

    def _places(self) -> NDArray[np.integer[Any]]:
        """As ``label_map``, a byte a pixel for up to 255 labels."""
        if len(self.labels) == 1:
            of_one: NDArray[np.uint8] = self.masks[0].view(np.uint8)
            return of_one
        places = self._map(self._size)
        return places if self.cleaning is None else self.cleaning.of_map(places)

    def _map(self, size: tuple[int, int]) -> NDArray[np.integer[Any]]:
        """As ``label_map``, at another size and not cleaned."""
        scores = self.scores if self.calibrated else None
        handicaps = handicaps_of(self.leads, scores, self._present, self.threshold)
        return contested(self.leads, handicaps, size, self.threshold)

    def cleaned(self, *, fill_holes: bool = False, min_area: float = 0, keep_largest: bool = False) -> Segmentation:
        """The same result, its masks and label map cleaned, in the order of the arguments.

        Args:
            fill_holes: background that the object encloses becomes object.
            min_area: smaller parts are dropped; from 1 on in pixels, below 1 a share of the picture.
            keep_largest: of what is left, the largest part alone.

        Raises:
            ConfigError: an argument is out of its range.
            MissingDependencyError: scipy is not installed.
        """
        return replace(self, cleaning=Cleaning(fill_holes, min_area, keep_largest))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Bool ``(H, W)`` of the only label, see :attr:`masks`; with several, ``LabelError``."""
        return np.asarray(self.masks[self._only()])

    @property
    def probability(self) -> NDArray[np.float32]:
        """Float32 ``(H, W)`` of the only label, see :attr:`probabilities`; with several, ``LabelError``."""
        return np.asarray(self.probabilities[self._only()])

    @property
    def prior(self) -> NDArray[np.float32]:
        """Float32 ``(H, W)`` of the only label, see :attr:`priors`; with several, ``LabelError``."""
        return np.asarray(self.priors[self._only()])

    @property
    def score(self) -> float:
        """Score of the only label; with several, ``LabelError``."""
        return float(self.scores[self._only()])

    @property
    def confidence(self) -> float:
        """Confidence of the only label; with several, ``LabelError``."""
        return float(self.confidences[self._only()])

    def _only(self) -> int:
        if len(self.labels) != 1:
            raise LabelError(
                f"this result has {len(self.labels)} labels; name one, as in result[{self.labels[0]!r}].mask."
            )
        return 0

    def polygons(self, label: str | None = None, tolerance: float = TOLERANCE) -> list[Polygon]:
        """A mask's connected parts as valid shapely polygons with their holes: x, y in pixels, whose centres are at .5.

        Args:
            label: of the mask; None for the only one.
            tolerance: by how many pixels an outline may leave its place to be simpler.

        Raises:
            LabelError: the label was not predicted, or several were and none is named.
            ConfigError: tolerance is not a number of at least 0.
            MissingDependencyError: without ``pip install 'iir-sdk[formats]'``.
        """
        one = self if label is None else self[label]
        return [thing.polygon(tolerance) for thing in instances_of(one.mask, one.labels[0])]

    def rle(self, label: str | None = None) -> dict[str, Any]:
        """A mask as COCO's run lengths, exactly: ``{"size": [H, W], "counts": text}``; raises as :meth:`polygons`."""
        return encode(self.mask if label is None else self[label].mask)

    def boxes(self) -> NDArray[np.int64]:
        """Int64 ``(L, 4)``, of each label's mask: left, top, right, bottom, the latter two beyond it; zeros of none."""
        return np.array([box_of(mask) for mask in self.masks], np.int64)

    def instances(self, *, split: bool = False, min_area: int = 1) -> list[Instance]:
        """The connected things of every label's mask, from the top down; how many there are is its length.

        Args:
            split: cut things apart that touch, as coins and cells do: where what joins two of them is narrower than
                three quarters of the narrower one.
            min_area: smaller ones are left out, in pixels.

        Raises:
            MissingDependencyError: without ``pip install 'iir-sdk[formats]'``.
        """
        pairs = zip(self.labels, self.masks, strict=True)
        return [i for label, mask in pairs for i in instances_of(mask, label, split=split, min_area=min_area)]

    def to_supervision(self, *, split: bool = False) -> Detections:
        """Supervision's ``Detections``, one for each of :meth:`instances`, with its label's score as confidence.

        A MissingDependencyError without ``pip install 'iir-sdk[formats,supervision]'``.
        """
        scores = dict(zip(self.labels, map(float, self.scores), strict=True))
        return detections_of(self.instances(split=split), scores, self._size)

    def overlay(self, *, opacity: float = 0.5) -> Image.Image:
        """The query with each label tinted in its colour of :data:`COLOURS` and outlined, an RGB PIL image.

        Args:
            opacity: of the tint, in [0, 1].

        Raises:
            OutputError: opacity is out of its range.
        """
        if not 0 <= opacity <= 1:
            raise OutputError(f"opacity={opacity} must lie in [0, 1].")
        return painted(self.image, self._places(), opacity)

    def _repr_png_(self) -> bytes:
        """The overlay as a notebook shows it, at most 768 pixels a side."""
        height, width = self._size
        scale = min(1, _SHOWN_SIDE / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        # Every so many pixels of a large picture, so that it is not copied as a whole.
        step = max(1, int(0.5 / scale))
        image = Image.fromarray(np.ascontiguousarray(self.image[::step, ::step])).resize(size[::-1])
        if self.cleaning is not None:
            rows, columns = (np.arange(n) * full // n for n, full in zip(size, self._size, strict=True))
            places = self._places()[rows[:, None], columns]
        else:
            places = self._map(size)
        shown = io.BytesIO()
        painted(np.asarray(image), places, 0.5).save(shown, "PNG")
        return shown.getvalue()

    def save(
        self, path: str | os.PathLike[str] | IO[bytes], *, what: Literal["mask", "overlay"] = "mask"
    ) -> Path | None:
        """Write the mask (PNG: 0 and 255 for one label, a palette of ``label_map`` for several) or the overlay.

        Args:
            path: a path, or a file open for writing bytes, as ``io.BytesIO()``, which gets a PNG.
            what: to write.

        Returns:
            The path; None for an open file.

        Raises:
            OutputError: a mask under a lossy suffix, more than 255 labels, or the file cannot be written.
        """
        if what not in ("mask", "overlay"):
            raise OutputError(f"what={what!r} must be 'mask' or 'overlay'.")
        if not isinstance(path, (str, os.PathLike)):
            write_png(self._image(what), path)
            return None
        if what == "mask" and Path(path).suffix.lower() != ".png":
            raise OutputError(f"a mask is written as .png, which keeps its values; got {os.fspath(path)!r}.")
        return save_picture(self._image(what), path)

    def _image(self, what: str) -> Image.Image:
        if what == "overlay":
            return self.overlay()
        if len(self.labels) == 1:
            return Image.fromarray(self._places() * np.uint8(255))
        if len(self.labels) > 255:
            raise OutputError(f"a palette mask holds 255 labels, this result has {len(self.labels)}; save one by one.")
        image = Image.fromarray(self._places()).convert("P")
        colours = [c for i in range(len(self.labels)) for c in COLOURS[i % len(COLOURS)]]
        image.putpalette([0, 0, 0, *colours])
        return image


@dataclass(frozen=True)
class Cut:
    """Where probabilities become masks."""

    threshold: float = 0.5  # a pixel belongs to a mask where its probability exceeds this, in [0, 1]
    absent_below: float = 0.0  # labels with a score below this get an empty mask, in [0, 1]
    sharpen: bool = False  # draw edges to those of the picture

    def __post_init__(self) -> None:
        """Check the ranges; a ConfigError names the value."""
        for name, value in (("threshold", self.threshold), ("absent_below", self.absent_below)):
            number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
            if not number or not 0 <= value <= 1:
                raise ConfigError(f"{name}={value!r} must be a number in [0, 1].")
        if not isinstance(self.sharpen, (bool, np.bool_)):
            raise ConfigError(f"sharpen={self.sharpen!r} must be True or False.")


def scores_of(segmented: Segmented, cut: Cut) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores and confidences, ``(L,)`` in [0, 1], see :class:`Segmentation`."""
    leads, scores = segmented.leads, segmented.scores
    presence, confidence = (mean_probabilities(leads, cut.threshold) if scores is None else scores).T
    masked = (sigmoid(leads.copy()) > cut.threshold).any((1, 2))
    return presence, np.where(masked & (presence >= cut.absent_below), confidence, np.float32(0))


def segmentation(
    labels: tuple[str, ...],
    segmented: Segmented,
    *,
    image: NDArray[np.uint8],
    cut: Cut,
    timings: Mapping[str, float],
) -> Segmentation:
    """What an engine made of a picture ``(H, W, 3)``, as a result."""
    scores, confidences = scores_of(segmented, cut)
    return Segmentation(
        labels=labels,
        leads=segmented.leads,
        scores=scores,
        confidences=confidences,
        grid_priors=segmented.priors,
        timings=Timings(timings),
        image=image,
        threshold=cut.threshold,
        absent_below=cut.absent_below,
        calibrated=segmented.scores is not None,
    )
