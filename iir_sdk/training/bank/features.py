"""Backbone features of many augmented views: the frozen backbone runs once a view, not once an episode."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iir_sdk.data.dataset import CUTOUT_SET, IGNORE
from iir_sdk.errors import DatasetError
from iir_sdk.model.backbone import Taps
from iir_sdk.training.bank.allocation import SetSize, draw_set, set_weights
from iir_sdk.training.bank.stream import PackedView
from iir_sdk.training.bank.views import ClassKey
from iir_sdk.training.config import TrainingConfig

_TRIES = 30
_OVERLAP = 0.05


class FeatureBank:
    """Taps and masks of all views, filled once, part by part.

    Args:
        config: label size, sets' weights, share of absent queries, convention.
        device: where features are kept.
        allowed: whether a class may be asked for; views that were made with another's masks are not used at all, nor by
            the filtered convention are those that show one. None allows all.
        pictures: those that views may be made of, as ``set/stem``, and cut-outs. None allows all.
    """

    def __init__(
        self,
        config: TrainingConfig,
        device: torch.device,
        allowed: Callable[[ClassKey], bool] | None = None,
        pictures: Container[str] | None = None,
    ) -> None:
        self.config, self.device, self.allowed, self.pictures = config, device, allowed or (lambda key: True), pictures
        self.views: list[PackedView] = []
        self._parts: list[Sequence[Tensor]] = []
        self._places: list[tuple[int, int]] = []
        self._used: list[bool] = []
        self._members: dict[ClassKey, list[int]] = defaultdict(list)
        self._usable: dict[int, dict[str, list[ClassKey]]] = {}
        self._weights: dict[tuple[str, ...], dict[str, float]] = {}

    @property
    def used(self) -> int:
        """Number of views that episodes are drawn from."""
        return sum(self._used)

    @property
    def used_slots(self) -> list[int]:
        """Of the views that episodes are drawn from."""
        return [slot for slot, used in enumerate(self._used) if used]

    def photo(self, slot: int) -> str:
        """The picture that a view is a crop of."""
        return self.views[slot].photo

    def hold(self, taps: Sequence[Tensor], views: Sequence[PackedView]) -> None:
        """Take the next views with their ``taps``, bfloat16 ``(V, C, h, w)`` that are not copied."""
        self._places += [(len(self._parts), row) for row in range(len(views))]
        self._parts.append(taps)
        for view in views:
            self._list(view)

    def _list(self, view: PackedView) -> None:
        telling = view.made_of | view.present if self.config.convention == "filtered" else view.made_of
        used = all(self.allowed(key) for key in telling)
        if self.pictures is not None:
            used = used and all(picture in self.pictures for picture in (view.photo, *view.pasted))
        for key in view.keys if used else ():
            if self.allowed(key):
                self._members[key].append(len(self.views))
        self.views.append(view)
        self._used.append(used)
        self._usable.clear()
        self._weights.clear()

    def taps(self, slots: list[int]) -> Taps:
        """Float taps ``(N, ...)`` of some views."""
        places = [self._places[slot] for slot in slots]
        return Taps(
            *(torch.stack([self._parts[p][i][row] for p, row in places]).float() for i in range(len(Taps._fields)))
        )

    def weights(self, names: Iterable[str]) -> dict[str, float]:
        """The shares of these sets in episodes, by the classes and pictures that views in use show."""
        wanted = tuple(sorted(names))
        if wanted not in self._weights:
            photos, classes = {self.photo(slot) for slot in self.used_slots}, list(self._members)
            of_photos = Counter(photo.split("/")[0] for photo in photos)
            of_classes = Counter(set_name for set_name, _ in classes)
            sizes = {name: SetSize(max(1, of_classes[name]), max(1, of_photos[name])) for name in wanted}
            self._weights[wanted] = set_weights(sizes, self.config)
        return self._weights[wanted]

    def mask(self, slot: int, key: ClassKey) -> NDArray[np.uint8]:
        """``(L, L)`` uint8 of a class in a view in {0, 1, 255}; empty where the view does not show it."""
        view, side = self.views[slot], self.config.bank.label_size
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
        if shots not in self._usable:
            self._usable[shots] = self._find_usable(shots)
        return self._usable[shots]

    def _find_usable(self, shots: int) -> dict[str, list[ClassKey]]:
        by_set: dict[str, list[ClassKey]] = defaultdict(list)
        for key in self._members:
            if len(self._distinct(key, self._plainest_first(key), shots + 1)) > shots:
                by_set[key[0]].append(key)
        if not by_set:
            raise DatasetError(
                f"no class is seen in {shots + 1} different pictures, of {self.used} views in use; add pictures, "
                + ("ask for fewer shots (--set episodes.shots=[1]), " if shots > 1 else "")
                + "raise bank.views, or leave out fewer classes."
            )
        return {name: sorted(keys) for name, keys in sorted(by_set.items())}

    def _distinct(self, key: ClassKey, slots: Iterable[int], count: int) -> list[int]:
        """The first ``count`` of ``slots`` no two of which show an object of one picture, or as many as there are."""
        chosen: list[int] = []
        taken: set[str] = set()
        for slot in slots:
            sources = self._sources(slot, key)
            if taken.isdisjoint(sources):
                taken |= sources
                chosen.append(slot)
            if len(chosen) == count:
                break
        return chosen

    def _plainest_first(self, key: ClassKey) -> Iterator[int]:
        """A class's views, first those of one picture: who takes them in this order finds many that are distinct."""
        slots = self._members[key]
        yield from (slot for slot in slots if len(self._sources(slot, key)) == 1)
        yield from (slot for slot in slots if len(self._sources(slot, key)) > 1)

    def draw(self, shots: int, rng: random.Random) -> tuple[ClassKey, list[int], int]:
        """One episode: class, support slots, query slot, all of different pictures.

        With ``full_share`` an episode whose query shows less of its object than that is as a rule drawn anew, class and
        all; after thirty tries it is taken as it is.

        Raises:
            DatasetError: no class is seen in enough of them.
        """
        key, supports, query = self._draw_any(shots, rng)
        for _ in range(_TRIES if self.config.episodes.full_share else 0):
            if rng.random() * self.config.episodes.full_share <= self._share(query, key):
                break
            key, supports, query = self._draw_any(shots, rng)
        return key, supports, query

    def _share(self, slot: int, key: ClassKey) -> float:
        """Of a view that an object covers; 1 where the view lacks it."""
        return float((self.mask(slot, key) == 1).mean()) if key in self.views[slot].keys else 1.0

    def _draw_any(self, shots: int, rng: random.Random) -> tuple[ClassKey, list[int], int]:
        by_set = self.usable(shots)
        key = rng.choice(by_set[draw_set(self.weights(by_set), rng)])
        slots = list(self._members[key])
        rng.shuffle(slots)
        chosen = self._distinct(key, slots, shots + 1)
        if len(chosen) <= shots:
            # Views that show objects of several pictures came first and stand in the way of the others.
            chosen = self._distinct(key, self._plainest_first(key), shots + 1)
        return key, chosen[1:], self._query(key, chosen[0], rng)

    def _query(self, key: ClassKey, slot: int, rng: random.Random) -> int:
        """The drawn query, or now and then a view that lacks the class, where that is known for certain."""
        told_apart = (CUTOUT_SET, self.config.bank.main_set)
        if key[0] not in told_apart or rng.random() >= self.config.episodes.absent:
            return slot
        for _ in range(20):
            other = rng.randrange(len(self.views))
            view = self.views[other]
            if not self._used[other] or key in view.present:
                continue
            # Of sets that do not label the class, neither a photo nor a pasted object says that it is absent.
            if all(name in told_apart for name in (view.photo.split("/")[0], *(k[0] for k in view.keys))):
                return other
        return slot

    def draw_counterexample(
        self, key: ClassKey, query: int, rng: random.Random
    ) -> tuple[int, NDArray[np.bool_]] | None:
        """A view of another class than an episode's, and where it shows that one; None if there is none to be sure of.

        A class that the query shows beside the object is preferred: it is what a mask may take for it by mistake.

        Args:
            key: the episode's class.
            query: its query's slot.
            rng: draws.
        """
        view, object_mask = self.views[query], self.mask(query, key) != 0
        beside = [other for other in view.keys if other != key and self._apart(query, other, object_mask)]
        of_set = (k for k in self._members if k[0] == key[0] and k != key and k not in view.keys)
        others = [k for k in beside if k in self._members] or list(of_set)
        if not others:
            return None
        other = rng.choice(others)
        slots = self._members[other]
        # Where the two may lie over each other, as a part on its whole, nobody knows unless both are labelled.
        slot = slots[rng.randrange(len(slots))]
        if slot == query or (key in self.views[slot].present and key not in self.views[slot].keys):
            return None
        return slot, (self.mask(slot, other) == 1) & (self.mask(slot, key) == 0)

    def _apart(self, slot: int, key: ClassKey, object_mask: NDArray[np.bool_]) -> bool:
        """Whether a class shares hardly anything with the object, where a view shows both."""
        mask = self.mask(slot, key) == 1
        return float((mask & object_mask).sum()) <= _OVERLAP * float(mask.sum())

    def _sources(self, slot: int, key: ClassKey) -> frozenset[str]:
        view = self.views[slot]
        return view.sources[view.keys.index(key)]
