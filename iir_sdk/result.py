"""What a prediction gives: masks, probabilities and scores at the query's own size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.errors import ConfigError, LabelError, OutputError
from iir_sdk.pictures.save import save_picture
from iir_sdk.preprocessing import resized_map

COLOURS: tuple[tuple[int, int, int], ...] = (
    (255, 64, 87),
    (0, 168, 232),
    (255, 190, 11),
    (61, 220, 132),
    (160, 92, 255),
    (255, 122, 26),
    (0, 206, 201),
    (240, 98, 200),
)
"""RGB of the first, second, ... label in overlays and palette masks, used in turn."""


_OF_LABELS = ("labels", "probabilities", "masks", "scores", "confidences", "grid_priors")


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

    Attributes:
        labels: in the order of the first axis below.
        probabilities: float32 ``(L, H, W)`` in [0, 1].
        masks: bool ``(L, H, W)``, ``probabilities > threshold``, empty for labels that ``absent_below`` left out; masks
            of different labels may overlap.
        scores: float32 ``(L,)`` in [0, 1], how probable it is that the picture shows each label's object; of a
            checkpoint that was not calibrated for this, the mean probability inside its mask, 0 for an empty one.
        confidences: float32 ``(L,)`` in [0, 1], what share of the mask is right, as a rule, if the picture shows the
            object; fitted to masks at threshold 0.5, 0 for an empty one. Of a checkpoint that was not calibrated for
            this, the mean probability inside the mask.
        grid_priors: float32 ``(L, h, w)`` in [0, 1], :attr:`priors` at the network's own grid.
        timings: milliseconds by stage; of the whole batch where several queries ran together.
        image: uint8 ``(H, W, 3)`` RGB, the query.
        threshold: of the masks.
    """

    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    confidences: NDArray[np.float32]
    grid_priors: NDArray[np.float32]
    timings: Mapping[str, float]
    image: NDArray[np.uint8] = field(repr=False)
    threshold: float = 0.5

    def __repr__(self) -> str:
        found = ", ".join(
            f"{label!r}: {mask.mean():.1%} of the picture, score {score:.2f}"
            for label, mask, score in zip(self.labels, self.masks, self.scores, strict=True)
        )
        return f"Segmentation({self.image.shape[0]} x {self.image.shape[1]}; {found})"

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[str]:
        """Over the labels, like a mapping."""
        return iter(self.labels)

    def __contains__(self, label: object) -> bool:
        return label in self.labels

    def __getitem__(self, label: str) -> Segmentation:
        """The view of one label.

        Raises:
            LabelError: the label was not predicted.
        """
        if label not in self.labels:
            raise LabelError(f"no label {label!r} in this result; it has {', '.join(map(repr, self.labels))}.")
        i = self.labels.index(label)
        own = {name: getattr(self, name)[i : i + 1] for name in _OF_LABELS}
        return replace(self, **own)

    @cached_property
    def label_map(self) -> NDArray[np.int32]:
        """Int32 ``(H, W)``: 0 for background, ``i + 1`` for ``labels[i]``, the most probable whose mask is there."""
        best = np.full(self.masks.shape[1:], -1, np.float32)
        label_map = np.zeros(self.masks.shape[1:], np.int32)
        for i in range(len(self.labels)):
            # Where a mask was left empty as absent, its probabilities outbid nobody.
            better = self.masks[i] & (self.probabilities[i] > best)
            label_map[better] = i + 1
            best[better] = self.probabilities[i][better]
        return label_map

    @cached_property
    def priors(self) -> NDArray[np.float32]:
        """Float32 ``(L, H, W)`` in [0, 1]: where similarity alone places each label."""
        height, width = self.image.shape[:2]
        return np.stack([resized_map(prior, (height, width)) for prior in self.grid_priors])

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Bool ``(H, W)`` of the only label; with several, ``LabelError``."""
        mask: NDArray[np.bool_] = self.masks[self._only()]
        return mask

    @property
    def probability(self) -> NDArray[np.float32]:
        """Float32 ``(H, W)`` of the only label; with several, ``LabelError``."""
        probability: NDArray[np.float32] = self.probabilities[self._only()]
        return probability

    @property
    def prior(self) -> NDArray[np.float32]:
        """Float32 ``(H, W)`` of the only label; with several, ``LabelError``."""
        prior: NDArray[np.float32] = self.priors[self._only()]
        return prior

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

    def overlay(self, *, opacity: float = 0.5) -> Image.Image:
        """The query with each label tinted in its colour of :data:`COLOURS` and outlined, an RGB PIL image.

        Args:
            opacity: of the tint, in [0, 1].

        Raises:
            OutputError: opacity is out of its range.
        """
        if not 0 <= opacity <= 1:
            raise OutputError(f"opacity={opacity} must lie in [0, 1].")
        picture = self.image.astype(np.float32)
        for i in range(len(self.labels)):
            colour = np.array(COLOURS[i % len(COLOURS)], np.float32)
            region = self.label_map == i + 1
            picture[region] += opacity * (colour - picture[region])
            picture[_outline(region)] = colour
        return Image.fromarray(picture.round().astype(np.uint8))

    def save(self, path: str | os.PathLike[str], *, what: Literal["mask", "overlay"] = "mask") -> Path:
        """Write the mask (PNG: 0 and 255 for one label, a palette of ``label_map`` for several) or the overlay.

        Raises:
            OutputError: a mask under a lossy suffix, more than 255 labels, or the file cannot be written.
        """
        suffix = Path(path).suffix.lower()
        if what == "overlay":
            image = self.overlay()
        elif what == "mask":
            if suffix != ".png":
                raise OutputError(f"a mask is written as .png, which keeps its values; got {os.fspath(path)!r}.")
            image = self._mask_image()
        else:
            raise OutputError(f"what={what!r} must be 'mask' or 'overlay'.")
        return save_picture(image, path)

    def _mask_image(self) -> Image.Image:
        if len(self.labels) == 1:
            return Image.fromarray(np.uint8(self.masks[0]) * np.uint8(255))
        if len(self.labels) > 255:
            raise OutputError(f"a palette mask holds 255 labels, this result has {len(self.labels)}; save one by one.")
        image = Image.fromarray(self.label_map.astype(np.uint8)).convert("P")
        colours = [c for i in range(len(self.labels)) for c in COLOURS[i % len(COLOURS)]]
        image.putpalette([0, 0, 0, *colours])
        return image


@dataclass(frozen=True)
class Cut:
    """Where probabilities become masks.

    Attributes:
        threshold: a pixel belongs to a mask where its probability exceeds this, in [0, 1].
        absent_below: labels with a score below this get an empty mask, in [0, 1].
    """

    threshold: float = 0.5
    absent_below: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: naming the value.
        """
        for name, value in (("threshold", self.threshold), ("absent_below", self.absent_below)):
            if not isinstance(value, (int, float, np.floating)) or not 0 <= value <= 1:
                raise ConfigError(f"{name}={value!r} must be a number in [0, 1].")


def from_probabilities(
    labels: tuple[str, ...],
    probabilities: NDArray[np.float32],
    grid_priors: NDArray[np.float32],
    *,
    image: NDArray[np.uint8],
    cut: Cut,
    timings: Mapping[str, float],
    scores: NDArray[np.float32] | None = None,
) -> Segmentation:
    """Derive masks from probabilities ``(L, H, W)``, priors ``(L, h, w)`` and scores ``(L, 2)`` of an engine."""
    masks = probabilities > cut.threshold
    if scores is None:
        scores = np.stack([_mean_probabilities(probabilities, masks)] * 2, 1)
    presence, confidence = scores[:, 0], scores[:, 1]
    masks &= (presence >= cut.absent_below)[:, None, None]
    return Segmentation(
        labels=labels,
        probabilities=probabilities,
        masks=masks,
        scores=presence,
        confidences=np.where(masks.any((1, 2)), confidence, np.float32(0)),
        grid_priors=grid_priors,
        timings=Timings(timings),
        image=image,
        threshold=cut.threshold,
    )


def _mean_probabilities(probabilities: NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    # Products and not p[m]: picking pixels takes many times longer.
    means = [(p * m).sum() / max(1, np.count_nonzero(m)) for p, m in zip(probabilities, masks, strict=True)]
    return np.array(means, np.float32)


def _outline(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the region that touch its outside."""
    padded = np.pad(region, 1, mode="edge")
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    outline: NDArray[np.bool_] = region & ~inner
    return outline
