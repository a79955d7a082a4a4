"""Cleaning of masks: holes filled, crumbs dropped, the largest part alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import ConfigError, MissingDependencyError


@dataclass(frozen=True)
class Cleaning:
    """What is done to a mask after it was cut, in this order; by default nothing.

    Attributes:
        fill_holes: background that the object encloses becomes object.
        min_area: smaller parts are dropped; from 1 on in pixels, below 1 a share of the picture.
        keep_largest: of what is left, the largest part alone.
    """

    fill_holes: bool = False
    min_area: float = 0
    keep_largest: bool = False

    def __post_init__(self) -> None:
        """Check the fields; a ConfigError names the value, a MissingDependencyError the package."""
        number = isinstance(self.min_area, (int, float, np.integer, np.floating)) and not isinstance(
            self.min_area, bool
        )
        if not number or not 0 <= self.min_area < float("inf"):
            raise ConfigError(
                f"min_area={self.min_area!r} must be a number of at least 0: pixels from 1 on, below 1 a share of the "
                "picture."
            )
        for name in ("fill_holes", "keep_largest"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ConfigError(f"{name}={getattr(self, name)!r} must be True or False.")
        if self:
            _ndimage()

    def __bool__(self) -> bool:
        return bool(self.fill_holes or self.min_area or self.keep_largest)

    def of(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask ``(H, W)``, bool, cleaned; parts touch by edges and corners."""
        if not self or not mask.any():
            return mask
        filled = fill_holes(mask) if self.fill_holes else mask
        return drop_parts(filled, self.min_area, keep_largest=self.keep_largest)

    def of_map(self, places: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
        """A map ``(H, W)`` of labels from 1, 0 for background, each cleaned; holes that another label fills stay."""
        if not self:
            return places
        clean = np.zeros_like(places)
        for value in np.unique(places[places > 0]):
            mask = places == value
            clean[self.of(mask) & (mask | (places == 0))] = value
        return clean


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask ``(H, W)``, bool, with the background that it encloses.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    filled: NDArray[np.bool_] = _ndimage().binary_fill_holes(mask)
    return filled


def drop_parts(mask: NDArray[np.bool_], min_area: float = 0, *, keep_largest: bool = False) -> NDArray[np.bool_]:
    """A mask ``(H, W)``, bool, without its small parts; parts touch by edges and corners.

    Args:
        mask: the mask.
        min_area: smallest part that stays; from 1 on in pixels, below 1 a share of the picture.
        keep_largest: the largest part alone, if it is large enough.

    Raises:
        MissingDependencyError: scipy is not installed.
    """
    parts, count = _ndimage().label(mask, np.ones((3, 3)))
    if not count:
        return mask
    areas = np.bincount(parts.ravel(), minlength=count + 1)
    least = min_area if min_area >= 1 else min_area * mask.size
    stays = areas >= least
    stays[0] = False
    if keep_largest:
        stays &= np.arange(count + 1) == 1 + areas[1:].argmax()
    without: NDArray[np.bool_] = stays[parts]
    return without


def _ndimage() -> Any:
    try:
        from scipy import ndimage
    except ImportError as error:
        raise MissingDependencyError("masks are cleaned with scipy; run: pip install 'iir-sdk[formats]'") from error
    return ndimage
