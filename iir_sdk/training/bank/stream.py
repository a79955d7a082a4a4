"""Views in order, made by worker processes, on a CPU with their backbone features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from iir_sdk.model.backbone import Taps
from iir_sdk.model.prototypes import resize_mask
from iir_sdk.training.bank.views import ClassKey, View, ViewMaker

Look = Callable[[Tensor], Taps]
"""Backbone features of pictures ``(B, 3, S, S)`` uint8."""


@dataclass(frozen=True)
class PackedView:
    """What a view shows, its masks at label size, packed eight pixels a byte."""

    keys: tuple[ClassKey, ...]  # (set, class) of each object
    sources: tuple[frozenset[str], ...]  # the pictures that each object's mask shows objects of
    masks: NDArray[np.uint8]  # ``(M, L * L / 8)`` uint8
    ignores: dict[int, NDArray[np.uint8]]  # the same of what counts nowhere, by object; of those that have some
    present: frozenset[ClassKey]  # (set, class) of everything labelled that is seen at all
    made_of: frozenset[ClassKey]  # (set, class) of the masks that the view was made with
    photo: str  # the picture that it is a crop of, as ``set/stem``
    pasted: frozenset[str] = frozenset()  # the pictures and cut-outs that objects were pasted from, seen or not


class ViewBatch(NamedTuple):
    """Some views that follow one another."""

    views: list[PackedView]
    images: Tensor  # ``(B, 3, S, S)`` uint8; empty where ``taps`` are given
    taps: Taps | None  # their features ``(B, C, h, w)``; None where they are still to be computed


def stream_views(
    maker: ViewMaker, numbers: Sequence[int], *, batch: int, workers: int, look: Look | None = None
) -> Iterator[ViewBatch]:
    """Views of these numbers in order, ``batch`` at a time, made by so many processes; 0 makes them here.

    ``look`` computes their features where they are made, one by one, so that they do not depend on how views are
    grouped; None leaves that to the caller.
    """
    made = _Views(maker, numbers, look)
    yield from DataLoader(made, batch_size=batch, num_workers=workers, collate_fn=_joined)


class _Views(Dataset[ViewBatch]):
    def __init__(self, maker: ViewMaker, numbers: Sequence[int], look: Look | None) -> None:
        self.maker, self.numbers, self.look = maker, numbers, look

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> ViewBatch:
        view = self.maker.make(self.numbers[index])
        packed, image = _packed(view, self.maker.config.bank.label_size), view.image[None]
        if self.look is None:
            return ViewBatch([packed], image, None)
        with _one_thread():
            taps = self.look(image)
        return ViewBatch([packed], image[:0], Taps(*(tap.to(torch.bfloat16) for tap in taps)))


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a worker process, so that the last bits do not depend on whether there is one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _joined(single: list[ViewBatch]) -> ViewBatch:
    taps = [s.taps for s in single if s.taps is not None]
    joined = Taps(*(torch.cat(maps) for maps in zip(*taps, strict=True))) if taps else None
    return ViewBatch([s.views[0] for s in single], torch.cat([s.images for s in single]), joined)


def _packed(view: View, side: int) -> PackedView:
    masks = [_packed_mask(o.mask, side) for o in view.objects]
    return PackedView(
        tuple((o.set_name, o.name) for o in view.objects),
        tuple(o.sources for o in view.objects),
        np.stack(masks) if masks else np.zeros((0, side * side // 8), np.uint8),
        {
            i: _packed_mask(o.ignore, side)
            for i, o in enumerate(view.objects)
            if o.ignore is not None and o.ignore.any()
        },
        view.present,
        view.made_of,
        view.photo,
        view.pasted,
    )


def _packed_mask(mask: Tensor, side: int) -> NDArray[np.uint8]:
    return np.packbits((resize_mask(mask[None, None], (side, side))[0, 0] >= 0.5).numpy())
