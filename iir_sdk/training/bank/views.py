"""Augmented pictures to train on: real pictures, with objects of other pictures and cut-outs pasted in."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from iir_sdk.data.benchmarks.stored_files import stored_pixels
from iir_sdk.data.bounded_cache import BoundedCache
from iir_sdk.data.dataset import CUTOUT_SET, IGNORE
from iir_sdk.data.exclusion import among, cutouts_among
from iir_sdk.data.folder import PictureSet
from iir_sdk.errors import DatasetNotFoundError
from iir_sdk.files import is_folder, why_no_folder
from iir_sdk.training.bank.allocation import SetSize, draw_set, planned_views, set_weights
from iir_sdk.training.bank.augment import Augmented, change_light, paste, random_view
from iir_sdk.training.config import TrainingConfig, read_names

ClassKey = tuple[str, str]
"""(set, class)."""

_SMALLEST_SHARE = 0.008
_KEPT_BYTES = 1 << 30


@dataclass(frozen=True)
class LabelledObject:
    """One class seen in a view."""

    set_name: str  # the set whose class it is
    name: str  # the class
    sources: frozenset[str]  # pictures that its mask shows objects of; an episode never pairs an object with itself
    mask: Tensor  # ``(S, S)`` bool
    ignore: Tensor | None = None  # ``(S, S)`` bool of pixels that count nowhere; None for none


@dataclass(frozen=True)
class View:
    """An augmented picture."""

    image: Tensor  # ``(3, S, S)`` uint8
    objects: tuple[LabelledObject, ...]  # those large enough to learn from
    present: frozenset[ClassKey]  # (set, class) of everything labelled that is seen at all
    made_of: frozenset[ClassKey]  # (set, class) of the masks that decided its crop, and of those pasted into it
    photo: str  # the picture that it is a crop of, as ``set/stem``
    pasted: frozenset[str]  # the pictures and cut-outs that objects were pasted from, seen or not


class _Label(NamedTuple):
    """What a plane of a view's masks says: whose class, and of which pictures; of none where it is to be ignored."""

    set_name: str
    name: str
    sources: frozenset[str] = frozenset()

    @property
    def key(self) -> ClassKey:
        return self.set_name, self.name


class _Decoded(NamedTuple):
    """A picture with planes of its masks."""

    image: Tensor  # ``(3, H, W)`` uint8
    masks: Tensor  # ``(M, H, W)`` bool; the last ones say, of the classes ``ignored``, what is to be ignored
    ignored: tuple[str, ...]


def _decoded_bytes(decoded: _Decoded) -> int:
    return decoded.image.nbytes + decoded.masks.nbytes


def read_cutouts(root: Path) -> list[Path]:
    """All WebP or PNG files with alpha below ``root``, sorted; none is a DatasetNotFoundError."""
    if not is_folder(root):
        raise DatasetNotFoundError(f"cut-outs: {why_no_folder(root)}; name a folder of .png or .webp with alpha.")
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in (".webp", ".png") and p.name[0] != ".")
    if not files:
        raise DatasetNotFoundError(f"no .webp or .png cut-outs below {root}.")
    return files


class _Objects:
    """Objects of some pictures, and cut-outs, that are pasted into others."""

    def __init__(self, sets: Sequence[PictureSet], cutouts: Sequence[Path], config: TrainingConfig) -> None:
        self.sets, self.cutouts = {s.name: s for s in sets if s.classes}, list(cutouts)
        sizes = {name: SetSize(len(s.classes), len(s.images)) for name, s in self.sets.items()}
        self._weights = set_weights(sizes, config) if sizes else {}

    def has(self, set_name: str, stem: str) -> bool:
        """Whether a picture is among them."""
        return set_name in self.sets and stem in self.sets[set_name].images

    def draw(self, rng: random.Random) -> tuple[str, str, str]:
        """Set, class and stem of an object."""
        set_name = draw_set(self._weights, rng)
        classes = self.sets[set_name].classes
        name = rng.choice(sorted(classes))
        return set_name, name, rng.choice(classes[name])


class ViewMaker:
    """Makes view number ``i`` from (seed, i) alone, of sets and of cut-outs, each of which is a class of its own."""

    def __init__(self, sets: Sequence[PictureSet], cutouts: Sequence[Path], config: TrainingConfig) -> None:
        self.config = config
        self.sets = {s.name: s for s in sets}
        self._planned = planned_views(sets, config)
        self._classes_of: dict[ClassKey, list[str]] = defaultdict(list)
        for s in sets:
            for name, stems in s.classes.items():
                for stem in stems:
                    self._classes_of[s.name, stem].append(name)
        count = min(len(cutouts), config.bank.cutout_classes)
        self.cutouts = random.Random(config.seed).sample(list(cutouts), count)
        self._all, self._listed = _Objects(sets, self.cutouts, config), None
        if config.bank.paste_among:
            names = read_names([config.bank.paste_among])
            self._listed = _Objects(among(sets, names), cutouts_among(self.cutouts, names), config)
        # Pictures are small and drawn again and again, so the latest ones stay decoded.
        self._decoded: BoundedCache[tuple[str, str], _Decoded] = BoundedCache(_KEPT_BYTES, _decoded_bytes)

    def make(self, index: int) -> View:
        """View number ``index``."""
        rng = random.Random(f"{self.config.seed}/{index}")
        torch.manual_seed(rng.getrandbits(62))
        set_name, stem = self._planned[index % len(self._planned)]
        names = self._classes_of[set_name, stem]
        # Rarer classes first: each view of a picture that shows one counts.
        name = rng.choices(names, [1 / len(self.sets[set_name].classes[n]) for n in names])[0]
        image, masks, ignored = self._read(set_name, stem)
        base = random_view(image, masks, names.index(name), self.config.pictures.view_size, rng)
        labels = [_Label(set_name, n, frozenset({f"{set_name}/{stem}"})) for n in names]
        labels += [_Label(set_name, n) for n in ignored]
        made_of, pasted = {(set_name, name)}, set()
        pool = self._listed if self._listed and self._listed.has(set_name, stem) else self._all
        if rng.random() < self.config.bank.paste:
            for _ in range(rng.randint(1, 3)):
                base, labels, key, picture = self._paste_one(base, labels, pool, rng, index)
                made_of.add(key)
                pasted.add(picture)
        planes = list(zip(labels, base.masks, strict=True))
        ignores = {label.key: mask for label, mask in planes if not label.sources}
        objects = [LabelledObject(*label, mask, ignores.get(label.key)) for label, mask in planes if label.sources]
        kept = tuple(o for o in objects if _SMALLEST_SHARE <= o.mask.float().mean() <= 0.97)
        present = frozenset((o.set_name, o.name) for o in objects if o.mask.any())
        photo = f"{set_name}/{stem}"
        return View(change_light(base.image), kept, present, frozenset(made_of), photo, frozenset(pasted))

    def contents(self) -> dict[str, Any]:
        """Number of masks by set and class, and of cut-outs: what a run was made of."""
        sets = {s.name: {name: len(stems) for name, stems in s.classes.items()} for s in self.sets.values()}
        return {"sets": sets, "cutouts": [f.stem for f in self.cutouts]}

    def classes(self) -> set[ClassKey]:
        """All that views are made of."""
        of_sets = {(s.name, name) for s in self.sets.values() for name in s.classes}
        return of_sets | {(CUTOUT_SET, _cutout_name(file)) for file in self.cutouts}

    def pictures(self) -> set[str]:
        """All pictures, as ``set/stem``, and cut-outs."""
        of_sets = {f"{s.name}/{stem}" for s in self.sets.values() for stem in s.images}
        return of_sets | {f"{CUTOUT_SET}/{_cutout_name(file)}" for file in self.cutouts}

    def digest(self) -> str:
        """Sha256 of every file's name and size: the same data give the same."""
        sizes = [f"{CUTOUT_SET}/{_cutout_name(file)} {file.stat().st_size}" for file in self.cutouts]
        for s in self.sets.values():
            for name, stems in s.classes.items():
                masks = (s.root / "masks" / name / f"{stem}.png" for stem in stems)
                sizes += [f"{s.name}/{name}/{mask.stem} {mask.stat().st_size}" for mask in masks]
            sizes += [f"{s.name}/{stem} {image.stat().st_size}" for stem, image in s.images.items()]
        return hashlib.sha256("\n".join(sorted(sizes)).encode()).hexdigest()

    def _read(self, set_name: str, stem: str) -> _Decoded:
        return self._decoded.computed((set_name, stem), lambda: self._decode(set_name, stem))

    def _decode(self, set_name: str, stem: str) -> _Decoded:
        pictures = self.sets[set_name]
        image = torch.from_numpy(pictures.picture(stem).copy()).permute(2, 0, 1).contiguous()
        labels = {n: pictures.mask(n, stem) for n in self._classes_of[set_name, stem]}
        ignored = tuple(n for n, mask in labels.items() if (mask == IGNORE).any())
        planes = [mask == 1 for mask in labels.values()] + [labels[n] == IGNORE for n in ignored]
        return _Decoded(image, torch.from_numpy(np.stack(planes)), ignored)

    def _paste_one(
        self, base: Augmented, labels: list[_Label], pool: _Objects, rng: random.Random, index: int
    ) -> tuple[Augmented, list[_Label], ClassKey, str]:
        """The view with one more object, its labels, the object's class and the picture that it is from."""
        if pool.cutouts and rng.random() < self.config.bank.cutouts:
            file = rng.choice(pool.cutouts)
            rgba = torch.from_numpy(stored_pixels(file, "a cut-out", "RGBA")).permute(2, 0, 1)
            # Each view's copy counts as another source: the same cut-out on two pictures is an episode.
            label = _Label(CUTOUT_SET, _cutout_name(file), frozenset({f"{file.stem}/{index}"}))
            picture = f"{CUTOUT_SET}/{_cutout_name(file)}"
            patch, alpha = rgba[:3], rgba[3:].float() / 255
        else:
            set_name, name, stem = pool.draw(rng)
            image, masks, _ = self._read(set_name, stem)
            mask = masks[self._classes_of[set_name, stem].index(name)]
            rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
            box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
            patch, alpha = image[(slice(None), *box)], mask[box][None].float()
            picture = f"{set_name}/{stem}"
            label = _Label(set_name, name, frozenset({picture}))
        base, covered = paste(base, patch, alpha, rng)
        for i, other in enumerate(labels):
            if other.key == label.key and other.sources:
                base.masks[i] |= covered
                joined = other._replace(sources=other.sources | label.sources)
                return base, [*labels[:i], joined, *labels[i + 1 :]], label.key, picture
        return Augmented(base.image, torch.cat([base.masks, covered[None]])), [*labels, label], label.key, picture


def _cutout_name(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"
