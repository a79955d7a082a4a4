"""Augmented crops of a picture and its mask that keep the object in sight."""

from __future__ import annotations

import torch
from torch import Tensor

from iir_sdk.data.dataset import IGNORE
from iir_sdk.torchvision_import import ensure_torchvision
from iir_sdk.training.config import TrainingConfig

ensure_torchvision()

from torchvision import tv_tensors  # noqa: E402
from torchvision.transforms import v2  # noqa: E402
from torchvision.transforms.v2 import functional as transform  # noqa: E402

_KEPT_SHARE = 0.85
_CROPS = 30
_ROTATIONS = 5
_LARGEST_ANGLE = 10.0
_BLURRED = 0.5
_FILL = {tv_tensors.Image: 124, tv_tensors.Mask: IGNORE}


class ObjectCrop:
    """Resizing, rotation, blur, flip and crop of picture and mask together (method, section 7).

    Of thirty crops the first is taken that keeps 85 % of the object, as this line of work does; where none does, the
    one that keeps most, moved to hold the object where it fits.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.size = config.pictures.view_size
        smallest, largest = (max(1, round(self.size * factor)) for factor in config.pictures.scale)
        self._resize = v2.RandomShortestSize(list(range(smallest, largest + 1)), antialias=True)
        self._rotate = v2.RandomRotation(_LARGEST_ANGLE, interpolation=v2.InterpolationMode.BILINEAR, fill=_FILL)
        self._blur = v2.RandomApply([v2.GaussianBlur(5, (0.1, 2.0))], p=_BLURRED)
        self._flip = v2.RandomHorizontalFlip()

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """A crop of ``(3, H, W)`` uint8 and of its ``(H, W)`` labels, drawn from torch's global generator.

        Labels other than 0 and 255 are the object. Returns ``(3, S, S)`` and ``(S, S)``, which shows some of it where
        there is any, and is 255 where nothing of the picture is.
        """
        image, mask = tv_tensors.Image(image), tv_tensors.Mask(mask)
        resized, resized_mask = self._resize(image, mask)
        needed = _KEPT_SHARE * _object_size(resized_mask)
        turned, turned_mask = self._padded(*self._flip(self._blur(*self._rotated(resized, resized_mask, needed))))
        if not _object_size(turned_mask) and _object_size(mask):
            return self._whole(image, mask)
        place = (*self._corner(turned_mask, needed), self.size, self.size)
        crop, crop_mask = transform.crop(turned, *place), transform.crop(turned_mask, *place)
        return crop.as_subclass(Tensor).contiguous(), crop_mask.as_subclass(Tensor).contiguous()

    def _corner(self, mask: Tensor, needed: float) -> tuple[int, int]:
        """Top and left of the crop."""
        best, most = (0, 0), -1
        for _ in range(_CROPS):
            top, left = (int(torch.randint(side - self.size + 1, ())) for side in mask.shape[-2:])
            shown = _object_size(mask[top : top + self.size, left : left + self.size])
            if shown >= needed:
                return top, left
            if shown > most:
                best, most = (top, left), shown
        rows, columns = _is_object(mask).nonzero().unbind(1)
        return self._moved(best[0], rows), self._moved(best[1], columns)

    def _moved(self, start: int, places: Tensor) -> int:
        """The start of a crop along one axis, moved as little as holds these places, where they fit."""
        first, last = int(places.min()), int(places.max())
        return min(max(start, last + 1 - self.size), first) if last - first < self.size else start

    def _rotated(self, image: Tensor, mask: Tensor, needed: float) -> tuple[Tensor, Tensor]:
        """Rotated; as it was where every try turns the object out of sight, as it does in the corners."""
        for _ in range(_ROTATIONS):
            rotated, rotated_mask = self._rotate(image, mask)
            if _object_size(rotated_mask) >= needed:
                return rotated, rotated_mask
        return image, mask

    def _padded(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """At least as large as a crop."""
        height, width = (max(0, self.size - side) for side in mask.shape[-2:])
        sides = [width, height, width, height]
        fill, unknown = (_FILL[kind] for kind in (tv_tensors.Image, tv_tensors.Mask))
        return transform.pad(image, sides, fill=fill), transform.pad(mask, sides, fill=unknown)

    def _whole(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The whole picture resized; an object too small to survive that keeps its nearest pixel."""
        side = [self.size, self.size]
        whole, target = v2.Resize(side, antialias=True)(image, mask)
        if not _object_size(target):
            row, column = (_is_object(mask).nonzero()[0] * torch.tensor(side)) // torch.tensor(mask.shape)
            target[row, column] = mask[_is_object(mask)][0]
        return whole.as_subclass(Tensor), target.as_subclass(Tensor)


def _is_object(mask: Tensor) -> Tensor:
    plain = mask.as_subclass(Tensor)
    return (plain != 0) & (plain != IGNORE)


def _object_size(mask: Tensor) -> int:
    return int(_is_object(mask).sum())
