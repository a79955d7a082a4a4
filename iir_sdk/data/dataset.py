"""What training and evaluation ask of a dataset, and which part of a benchmark is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import DatasetError

IGNORE = 255
"""Label of pixels that count nowhere."""

CUTOUT_SET = "cutouts"
"""Name under which cut-outs with alpha count as a set; no folder of pictures may have it."""

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

    def picture(self, key: str, /) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 RGB."""

    def mask(self, name: str, key: str, /) -> NDArray[np.uint8]:
        """``(H, W)`` uint8 of a class in a picture: 0 background, 1 the class, 255 ignore."""


@runtime_checkable
class DenseDataset(FewShotDataset, Protocol):
    """A dataset that also knows the classes a picture shows too small to serve as an episode."""

    @property
    def seen(self) -> Mapping[str, tuple[str, ...]]:
        """All of the split's classes that a picture shows, by key."""


@dataclass(frozen=True)
class Selection:
    """Which part of a benchmark is read."""

    fold: int = 0  # whose classes are novel
    split: Split = "test"  # ``test``: novel classes in test pictures; ``train``: the others in training pictures
    convention: Convention = "unfiltered"  # for ``train``

    def __post_init__(self) -> None:
        """Check the words; a DatasetError names the value and the choices."""
        if self.split not in ("train", "test"):
            raise DatasetError(f"split={self.split!r} must be 'train' or 'test'.")
        if self.convention not in ("unfiltered", "filtered"):
            raise DatasetError(f"convention={self.convention!r} must be 'unfiltered' or 'filtered'.")

    def check_fold(self, folds: int) -> None:
        """Refuse a fold that a benchmark does not have: a DatasetError that names those there are."""
        if self.fold not in range(folds):
            raise DatasetError(f"fold={self.fold} does not exist; there are folds 0 to {folds - 1}.")

    def only_for_tests(self, name: str) -> None:
        """Refuse to train on a cross-domain benchmark, which has one fold, by a DatasetError."""
        self.check_fold(1)
        if self.split == "train":
            raise DatasetError(
                f"{name} is a cross-domain benchmark: it is tested on, not trained on; use split='test'."
            )
