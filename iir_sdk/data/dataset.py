"""What training and evaluation ask of a dataset, and what the benchmarks' readers have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.errors import DatasetError, DatasetNotFoundError
from iir_sdk.pictures.load import load_picture

IGNORE = 255
"""Label of pixels that count nowhere."""

CUTOUT_SET = "cutouts"
"""Name under which cut-outs with alpha count as a set; no folder of pictures may have it."""

MIN_AREA = 2 * 32 * 32
"""Fewest pixels by which a class must be seen for its picture to serve it, on the benchmarks (method, section 8)."""

Split = Literal["train", "test"]
Convention = Literal["unfiltered", "filtered"]
"""Whether training pictures may show novel classes, as background; ``filtered`` leaves them out (as BAM does)."""


def source_of(key: str) -> str:
    """The picture that a key's crop comes from: what stands before its ``#``."""
    return key.partition("#")[0]


class FewShotDataset(Protocol):
    """Pictures with the classes they show; pictures go by a key: a file's stem, or ``<stem>#<crop>``."""

    @property
    def name(self) -> str:
        """Of the set."""

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Keys of the pictures that show a class, by class."""

    def picture(self, key: str) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 RGB."""

    def mask(self, name: str, key: str) -> NDArray[np.uint8]:
        """``(H, W)`` uint8 of a class in a picture: 0 background, 1 the class, 255 ignore."""


@runtime_checkable
class DenseDataset(FewShotDataset, Protocol):
    """A dataset that also knows the classes a picture shows too small to serve as an episode."""

    @property
    def seen(self) -> Mapping[str, tuple[str, ...]]:
        """All of the split's classes that a picture shows, by key."""


@dataclass(frozen=True)
class Selection:
    """Which part of a benchmark is read.

    Attributes:
        fold: whose classes are novel.
        split: ``test`` gives the novel classes in test pictures, ``train`` the others in training pictures.
        convention: for ``train``.
    """

    fold: int = 0
    split: Split = "test"
    convention: Convention = "unfiltered"

    def __post_init__(self) -> None:
        """Check the words.

        Raises:
            DatasetError: naming the value and the choices.
        """
        if self.split not in ("train", "test"):
            raise DatasetError(f"split={self.split!r} must be 'train' or 'test'.")
        if self.convention not in ("unfiltered", "filtered"):
            raise DatasetError(f"convention={self.convention!r} must be 'unfiltered' or 'filtered'.")

    def check_fold(self, folds: int) -> None:
        """Refuse a fold that a benchmark does not have.

        Raises:
            DatasetError: naming the folds there are.
        """
        if self.fold not in range(folds):
            raise DatasetError(f"fold={self.fold} does not exist; there are folds 0 to {folds - 1}.")


def block_fold(classes: Sequence[str], fold: int, folds: int) -> tuple[str, ...]:
    """Novel classes of a fold of neighbours: 0..n-1, n..2n-1 and so on, as PASCAL-5i has them."""
    size = len(classes) // folds
    return tuple(classes[fold * size : (fold + 1) * size])


def interleaved_fold(classes: Sequence[str], fold: int, folds: int) -> tuple[str, ...]:
    """Novel classes of a fold of every ``folds``-th class, as COCO-20i has them."""
    return tuple(classes[fold::folds])


def select(
    areas: Mapping[str, Mapping[str, int]],
    classes: Sequence[str],
    novel: Iterable[str],
    selection: Selection,
    *,
    min_area: int = MIN_AREA,
) -> dict[str, tuple[str, ...]]:
    """Pictures of each wanted class (method, section 8).

    Args:
        areas: pixels of each class, by picture, of the split's pictures.
        classes: all of the benchmark's classes, in its order.
        novel: those of the fold.
        selection: split and convention.
        min_area: fewest pixels of the class.

    Returns:
        Keys by class, in order; classes without a picture are left out.

    Raises:
        DatasetError: no picture is left.
    """
    held_out = set(novel)
    train = selection.split == "train"
    wanted = [c for c in classes if (c in held_out) != train]
    kept: Mapping[str, Mapping[str, int]] = areas
    if train and selection.convention == "filtered":
        # Also where a class is seen in a crowd only, with an area of 0.
        kept = {key: seen for key, seen in areas.items() if not held_out & set(seen)}
    lists: dict[str, list[str]] = {c: [] for c in wanted}
    for key in sorted(kept):
        for name, area in kept[key].items():
            if name in lists and area >= min_area:
                lists[name].append(key)
    found = {c: tuple(keys) for c, keys in lists.items() if keys}
    if not found:
        raise DatasetError(f"no picture shows a class of fold {selection.fold}, {selection.split}, large enough.")
    return found


def seen_classes(
    areas: Mapping[str, Mapping[str, int]], classes: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Of each picture that serves a class, all of those classes that it shows, however small.

    Args:
        areas: pixels of each class, by picture.
        classes: what :func:`select` gave.
    """
    serving = {key for keys in classes.values() for key in keys}
    return {key: tuple(c for c in areas[key] if c in classes) for key in sorted(serving)}


def require(path: Path, what: str, *, folder: bool = False) -> Path:
    """A file or folder of an official distribution.

    Raises:
        DatasetNotFoundError: it is not there; the message says what to put where.
    """
    if not (path.is_dir() if folder else path.is_file()):
        kind = "folder" if folder else "file"
        raise DatasetNotFoundError(f"{kind} {path} is missing: put {what} there.")
    return path


def read_lines(path: Path, what: str) -> tuple[str, ...]:
    """Lines of a list file that are not empty; raises as :func:`require` does."""
    return tuple(line.strip() for line in require(path, what).read_text(encoding="utf-8").splitlines() if line.strip())


def read_picture(path: Path, what: str) -> NDArray[np.uint8]:
    """``(H, W, 3)`` uint8 RGB of a picture; raises as :func:`require` does."""
    return load_picture(require(path, what), what=str(path)).pixels


def read_white_mask(path: Path, what: str) -> NDArray[np.uint8]:
    """``(H, W)`` uint8 of a mask that is a picture, white on black, perhaps with soft edges: 0 and 1.

    Raises as :func:`stored_pixels` does.
    """
    return (stored_pixels(path, what, "L") >= 128).astype(np.uint8)


def stored_pixels(path: Path, what: str, mode: str | None = None) -> NDArray[np.uint8]:
    """``(H, W)`` or ``(H, W, C)`` uint8 as a file of labels holds them, a palette's as indices, or converted.

    Raises:
        DatasetNotFoundError: it is missing.
        DatasetError: it is no picture, or damaged.
    """
    require(path, what)
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert(mode) if mode else picture, np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as a picture ({error}); fetch it again.") from error


def mask_of(labels: NDArray[np.uint8], value: int) -> NDArray[np.uint8]:
    """``(H, W)`` class numbers with 255 for ignore -> the mask of one class: 0, 1, 255."""
    mask: NDArray[np.uint8] = (labels == value).astype(np.uint8)
    mask[labels == IGNORE] = IGNORE
    return mask


def label_areas(labels: NDArray[np.uint8], values: Mapping[str, int]) -> dict[str, int]:
    """Pixels of each class in a map of class numbers; classes that are not seen are left out."""
    counts = np.bincount(labels.ravel(), minlength=256)
    return {name: int(counts[value]) for name, value in values.items() if counts[value]}
