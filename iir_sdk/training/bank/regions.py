"""Classes that nobody labelled: regions of photos, clusters of the backbone's features.

Self-supervision as by superpixels in Ouyang et al. (ECCV 2020, arXiv 2007.09886). A region of one photo is found again
in another crop of it; a shared region, as sky or grass, in another photo.
"""

from __future__ import annotations

import random
import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from iir_sdk.data.dataset import IGNORE
from iir_sdk.errors import DatasetError, needed_imports
from iir_sdk.model.backbone import Taps
from iir_sdk.model.cam import resize_map
from iir_sdk.model.prototypes import area_average, grid_size
from iir_sdk.training.bank.allocation import draw_set
from iir_sdk.training.bank.features import FeatureBank
from iir_sdk.training.config import TrainingConfig

_FIT_VIEWS = 300
_FEATURES = 64
_LOW_WEIGHT = 0.5
_ITERATIONS = 12
_FIT_CELLS = 2000
_REGIONS_OF_A_PHOTO = (4, 10)
_SHARED_REGIONS = 150
_SHARED_CELLS = 16
_SHARE = (0.02, 0.6)
_UNSURE = (0.3, 0.7)


class BankEpisode(NamedTuple):
    """One episode from a bank."""

    supports: list[int]  # slots
    query: int  # slot
    mask: Callable[[int], NDArray[np.uint8]]  # of a slot, ``(L, L)`` in {0, 1, 255}
    counterexample: tuple[int, NDArray[np.bool_]] | None = None  # a slot, and what is not the object there


_PhotoRegions = dict[str, dict[str, list[tuple[int, list[int]]]]]
"""By set and photo: regions, each with the views that show a fair part of it."""


class RegionClasses:
    """Regions of the views that a full bank's episodes are drawn from; a DatasetError where too few come back."""

    def __init__(self, bank: FeatureBank, config: TrainingConfig, *, progress: bool = True) -> None:
        self.bank, self.config, self._needed = bank, config, max(config.episodes.shots) + 1
        photos: dict[str, list[int]] = defaultdict(list)
        for slot in bank.used_slots:
            photos[bank.photo(slot)].append(slot)
        cells = _projected(bank, config.seed, progress=progress)
        own = _clustered_by_photo(cells, photos, config.seed, progress=progress) if config.episodes.regions else {}
        self._own = own
        self._shared = _clustered_together(cells, config.seed) if config.episodes.shared_regions else {}
        of_photos = self._photo_regions(photos) if config.episodes.regions else {}
        # Most pictures have few views: what is too few for several shots still gives one-shot episodes.
        self._of_photos = {shots: _with_views(of_photos, shots + 1) for shots in set(config.episodes.shots)}
        self._of_all = self._shared_regions(photos) if config.episodes.shared_regions else {}
        for name, found in (("regions", self._of_photos[max(config.episodes.shots)]), ("shared_regions", self._of_all)):
            if getattr(config.episodes, name) and not found:
                where = "views of one photo" if name == "regions" else "photos"
                raise DatasetError(
                    f"no region comes back in {self._needed} {where}, of {bank.used} views of {len(photos)} photos; "
                    f"raise bank.views, or set episodes.{name}=0."
                )

    def draw(self, shots: int, rng: random.Random, *, shared: bool) -> BankEpisode:
        """An episode: views of one photo, or for a shared region of different ones; its share must be above 0."""
        if shared:
            region = rng.choice(sorted(self._of_all))
            by_photo = self._of_all[region]
            chosen = [rng.choice(by_photo[photo]) for photo in rng.sample(sorted(by_photo), shots + 1)]
            return BankEpisode(chosen[1:], chosen[0], lambda slot: self._mask(self._shared[slot], region))
        by_set = self._of_photos[shots]
        photos = by_set[draw_set(self.bank.weights(by_set), rng)]
        region, slots = rng.choice(photos[rng.choice(list(photos))])
        chosen = rng.sample(slots, shots + 1)
        return BankEpisode(chosen[1:], chosen[0], lambda slot: self._mask(self._own[slot], region))

    def _mask(self, regions: NDArray[np.uint8], region: int) -> NDArray[np.uint8]:
        """At label size; where a cell is at least three pixels wide, what lies between regions counts nowhere."""
        side, own = self.config.bank.label_size, torch.from_numpy(regions == region).float()
        share = F.interpolate(own[None, None], (side, side), mode="bilinear", align_corners=False)[0, 0].numpy()
        mask: NDArray[np.uint8] = (share >= _UNSURE[1]).astype(np.uint8)
        mask[(share > _UNSURE[0]) & (share < _UNSURE[1])] = IGNORE
        return mask

    def _photo_regions(self, photos: dict[str, list[int]]) -> _PhotoRegions:
        found: _PhotoRegions = defaultdict(dict)
        for photo, slots in photos.items():
            shown = _slots_by_region(self._own, slots)
            found[photo.split("/")[0]][photo] = sorted(shown.items())
        return found

    def _shared_regions(self, photos: dict[str, list[int]]) -> dict[int, dict[str, list[int]]]:
        """By region: photos, each with its views that show a fair part of it."""
        found: dict[int, dict[str, list[int]]] = defaultdict(dict)
        for photo, slots in photos.items():
            for region, at in _slots_by_region(self._shared, slots).items():
                found[region][photo] = at
        return {region: by_photo for region, by_photo in found.items() if len(by_photo) >= self._needed}


def _with_views(by_set: _PhotoRegions, count: int) -> _PhotoRegions:
    """Those regions that so many views show, of the photos and sets that have one."""
    found: _PhotoRegions = defaultdict(dict)
    for name, photos in sorted(by_set.items()):
        for photo, regions in sorted(photos.items()):
            enough = [(region, at) for region, at in regions if len(at) >= count]
            if enough:
                found[name][photo] = enough
    return dict(found)


def _slots_by_region(regions: dict[int, NDArray[np.uint8]], slots: list[int]) -> dict[int, list[int]]:
    """Views in which a region is neither too small nor too large to be asked for."""
    found: dict[int, list[int]] = defaultdict(list)
    for slot in slots:
        for region, count in zip(*np.unique(regions[slot], return_counts=True), strict=True):
            if _SHARE[0] <= count / regions[slot].size <= _SHARE[1]:
                found[int(region)].append(slot)
    return found


def _projected(bank: FeatureBank, seed: int, *, progress: bool) -> dict[int, NDArray[np.float16]]:
    """By slot ``(h, w, F)``: main components of centred unit features of all three taps, on the grid of ``mid``."""
    slots = bank.used_slots
    drawn = random.Random(seed).sample(slots, min(_FIT_VIEWS, len(slots)))
    centres, mean, axes = _main_axes(bank, drawn)
    found = {}
    for slot in tqdm(slots, desc="regions", unit="view", disable=not progress):
        cells = (_joined(_on_one_grid(bank.taps([slot])), centres)[0] - mean) @ axes
        found[slot] = cells.half().cpu().numpy()
    return found


def _main_axes(bank: FeatureBank, slots: list[int]) -> tuple[list[Tensor], Tensor, Tensor]:
    """Centres of the taps, mean of the joined cells and their main axes ``(C, F)``."""
    # View by view: all of their cells are gigabytes.
    means = [[tap.mean((0, 2, 3), keepdim=True) for tap in _on_one_grid(bank.taps([slot]))] for slot in slots]
    centres = [torch.stack(of_tap).mean(0) for of_tap in zip(*means, strict=True)]
    total, products, count = torch.zeros(()).double(), torch.zeros(()).double(), 0
    for slot in slots:
        rows = _joined(_on_one_grid(bank.taps([slot])), centres).flatten(0, 2).double().cpu()
        total, products, count = total + rows.sum(0), products + rows.T @ rows, count + len(rows)
    mean = total / count
    axes = torch.linalg.eigh(products / count - torch.outer(mean, mean)).eigenvectors[:, -_FEATURES:]
    return centres, mean.float().to(bank.device), axes.float().to(bank.device)


def _on_one_grid(taps: Taps) -> list[Tensor]:
    size = grid_size(taps.mid)
    return [area_average(taps.low, size), taps.mid, resize_map(taps.high, size)]


def _joined(maps: list[Tensor], centres: list[Tensor]) -> Tensor:
    """``(B, h, w, C)``: unit vectors of each map side by side, those of ``low`` shorter."""
    low, mid, high = (F.normalize(m - centre, dim=1) for m, centre in zip(maps, centres, strict=True))
    return torch.cat([_LOW_WEIGHT * low, mid, high], 1).permute(0, 2, 3, 1)


def _clustered_by_photo(
    cells: dict[int, NDArray[np.float16]], photos: dict[str, list[int]], seed: int, *, progress: bool
) -> dict[int, NDArray[np.uint8]]:
    found: dict[int, NDArray[np.uint8]] = {}
    for photo, slots in tqdm(photos.items(), desc="regions", unit="photo", disable=not progress):
        rng = random.Random(f"{seed}/regions/{photo}")
        rows = np.concatenate([cells[slot].reshape(-1, cells[slot].shape[-1]) for slot in slots]).astype(np.float32)
        nearest = _clusters(_sample(rows, _FIT_CELLS, rng), rng.randint(*_REGIONS_OF_A_PHOTO), rng)
        found |= {slot: nearest(cells[slot]) for slot in slots}
    return found


def _clustered_together(cells: dict[int, NDArray[np.float16]], seed: int) -> dict[int, NDArray[np.uint8]]:
    rng = random.Random(f"{seed}/shared regions")
    rows = [_sample(own.reshape(-1, own.shape[-1]).astype(np.float32), _SHARED_CELLS, rng) for own in cells.values()]
    nearest = _clusters(np.concatenate(rows), _SHARED_REGIONS, rng)
    return {slot: nearest(own) for slot, own in cells.items()}


def _sample(rows: NDArray[np.float32], count: int, rng: random.Random) -> NDArray[np.float32]:
    return rows[rng.sample(range(len(rows)), min(count, len(rows)))]


def require_clustering() -> Callable[..., Any]:
    """SciPy's k-means; a MissingDependencyError without SciPy."""
    with needed_imports("clusters are found with scipy; run: pip install 'iir-sdk[train]'"):
        from scipy.cluster.vq import kmeans2
    return kmeans2  # type: ignore[no-any-return]


def _clusters(rows: NDArray[np.float32], count: int, rng: random.Random) -> Callable[[Any], NDArray[np.uint8]]:
    """K-means of rows; gives the nearest mean's number for each cell of ``(h, w, F)``."""
    kmeans2, seed = require_clustering(), rng.getrandbits(31)
    with warnings.catch_warnings():
        # That a cluster stays empty does no harm here.
        warnings.simplefilter("ignore", UserWarning)
        means, _ = kmeans2(rows, min(count, len(rows)), iter=_ITERATIONS, minit="points", seed=seed)
    squares = (means**2).sum(1) / 2

    def nearest(cells: NDArray[np.float16]) -> NDArray[np.uint8]:
        """Number ``(h, w)`` of each cell's nearest mean."""
        numbers: NDArray[np.uint8] = (cells.astype(np.float32) @ means.T - squares).argmax(-1).astype(np.uint8)
        return numbers

    return nearest
