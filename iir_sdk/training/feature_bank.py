"""Backbone features of many augmented views: the frozen backbone runs once a view, not once an episode."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from iir_sdk.errors import DatasetError
from iir_sdk.model.backbone import Taps
from iir_sdk.model.prototypes import resize_mask
from iir_sdk.training.config import TrainingConfig
from iir_sdk.training.data.dataset import IGNORE
from iir_sdk.training.frozen_taps import frozen_taps
from iir_sdk.training.views import CUTOUT_SET, ViewMaker, draw_set

ClassKey = tuple[str, str]


@dataclass(frozen=True)
class PackedView:
    """A view with its masks at label size, packed eight pixels a byte.

    Attributes:
        image: ``(3, S, S)`` uint8.
        keys: (set, class) of each object.
        sources: the picture each object comes from.
        masks: ``(M, L * L / 8)`` uint8.
        ignores: the same of pixels that count nowhere, by object; only of objects that have some.
        present: (set, class) of everything labelled that is seen at all.
    """

    image: Tensor
    keys: tuple[ClassKey, ...]
    sources: tuple[str, ...]
    masks: NDArray[np.uint8]
    ignores: dict[int, NDArray[np.uint8]]
    present: frozenset[ClassKey]


class _ViewStream(Dataset[PackedView]):
    def __init__(self, maker: ViewMaker, first: int, count: int) -> None:
        self.maker, self.first, self.count = maker, first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> PackedView:
        view = self.maker.make(self.first + index)
        side = self.maker.config.label_size
        packed = [np.packbits(_label_sized(o.mask, side)) for o in view.objects]
        return PackedView(
            view.image,
            tuple((o.set_name, o.name) for o in view.objects),
            tuple(o.source for o in view.objects),
            np.stack(packed) if packed else np.zeros((0, side * side // 8), np.uint8),
            {
                i: np.packbits(_label_sized(o.ignore, side))
                for i, o in enumerate(view.objects)
                if o.ignore is not None and o.ignore.any()
            },
            view.present,
        )


def _label_sized(mask: Tensor, side: int) -> NDArray[np.bool_]:
    large: NDArray[np.bool_] = (resize_mask(mask[None, None], (side, side))[0, 0] >= 0.5).numpy()
    return large


def stream_views(maker: ViewMaker, first: int, count: int, *, batch: int, workers: int) -> Iterator[list[PackedView]]:
    """Views ``first`` .. ``first + count - 1`` in order, in lists of ``batch``, made by worker processes."""
    loader = DataLoader(
        _ViewStream(maker, first, count), batch_size=batch, num_workers=workers, collate_fn=list, shuffle=False
    )
    yield from loader


class FeatureBank:
    """Taps and masks of the latest views, replaced oldest first.

    Args:
        backbone: the frozen network.
        config: number of views, label size, set weights, the pictures' normalisation.
        device: where features are made and kept.
    """

    def __init__(self, backbone: nn.Module, config: TrainingConfig, device: torch.device) -> None:
        self.backbone, self.config, self.device = backbone, config, device
        self._taps: list[Tensor] = []
        self._views: list[PackedView | None] = [None] * config.views
        self._members: dict[ClassKey, set[int]] = defaultdict(set)

    def add(self, views: list[PackedView], number: int) -> None:
        """Compute and keep the taps of views ``number`` and following, each in place of the oldest."""
        # One by one on a CPU: nothing is faster there in a batch, and its large buffers would leave the heap in holes.
        size = 1 if self.device.type == "cpu" else len(views)
        slots = [(number + i) % self.config.views for i in range(len(views))]
        for at in range(0, len(views), size):
            self._keep_taps(torch.stack([v.image for v in views[at : at + size]]), slots[at : at + size])
        for slot, view in zip(slots, views, strict=True):
            self._replace(slot, view)

    def _keep_taps(self, images: Tensor, slots: list[int]) -> None:
        taps = frozen_taps(self.backbone, images, self.config, self.device)
        if not self._taps:
            self._taps = [
                torch.empty(self.config.views, *t.shape[1:], dtype=torch.bfloat16, device=self.device) for t in taps
            ]
        index = torch.tensor(slots, device=self.device)
        for kept, new in zip(self._taps, taps, strict=True):
            kept.index_copy_(0, index, new.to(torch.bfloat16))

    def _replace(self, slot: int, view: PackedView) -> None:
        old = self._views[slot]
        for key in old.keys if old else ():
            self._members[key].discard(slot)
        # The picture itself is no longer needed.
        self._views[slot] = replace(view, image=torch.empty(0))
        for key in view.keys:
            self._members[key].add(slot)

    def taps(self, slots: list[int]) -> Taps:
        """Float taps ``(N, ...)`` of some views."""
        index = torch.tensor(slots, device=self.device)
        return Taps(*(t.index_select(0, index).float() for t in self._taps))

    def mask(self, slot: int, key: ClassKey) -> NDArray[np.uint8]:
        """``(L, L)`` uint8 of a class in a view in {0, 1, 255}; empty where the view does not show it."""
        view, side = self._views[slot], self.config.label_size
        assert view is not None
        if key not in view.keys:
            return np.zeros((side, side), np.uint8)
        place = view.keys.index(key)
        mask: NDArray[np.uint8] = np.unpackbits(view.masks[place]).reshape(side, side)
        if place in view.ignores:
            mask[np.unpackbits(view.ignores[place]).reshape(side, side) == 1] = IGNORE
        return mask

    def usable(self, shots: int) -> dict[str, list[ClassKey]]:
        """Classes seen in more than ``shots`` different pictures, by set; sets in which there is one.

        Raises:
            DatasetError: no class has enough views.
        """
        by_set: dict[str, list[ClassKey]] = defaultdict(list)
        for key, slots in self._members.items():
            if len(self._distinct(key, slots, shots + 1)) > shots:
                by_set[key[0]].append(key)
        if not by_set:
            raise DatasetError(f"no class is seen in {shots + 1} different pictures; add pictures or raise `views`.")
        return {name: sorted(keys) for name, keys in sorted(by_set.items())}

    def _distinct(self, key: ClassKey, slots: Iterable[int], count: int) -> list[int]:
        """The first ``count`` of ``slots`` whose objects come from different pictures, or as many as there are."""
        chosen: dict[str, int] = {}
        for slot in slots:
            chosen.setdefault(self._source(slot, key), slot)
            if len(chosen) == count:
                break
        return list(chosen.values())

    def draw(self, shots: int, rng: random.Random) -> tuple[ClassKey, list[int], int]:
        """One episode: class, support slots, query slot, all of different pictures.

        Raises:
            DatasetError: no class is seen in enough of them.
        """
        by_set = self.usable(shots)
        key = rng.choice(by_set[draw_set(list(by_set), self.config, rng)])
        slots = sorted(self._members[key])
        rng.shuffle(slots)
        chosen = self._distinct(key, slots, shots + 1)
        return key, chosen[1:], self._query(key, chosen[0], rng)

    def _query(self, key: ClassKey, slot: int, rng: random.Random) -> int:
        """The drawn query, or now and then a view that lacks the class, where that is known for certain."""
        certain = key[0] in (CUTOUT_SET, self.config.main_set)
        if not certain or rng.random() >= self.config.absent:
            return slot
        for _ in range(20):
            other = rng.randrange(self.config.views)
            view = self._views[other]
            if view and key not in view.present and all(k[0] in (self.config.main_set, CUTOUT_SET) for k in view.keys):
                return other
        return slot

    def _source(self, slot: int, key: ClassKey) -> str:
        view = self._views[slot]
        assert view is not None
        return view.sources[view.keys.index(key)]
