"""Finds a dictionary's words before training: means of clusters of the features of many pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from iir_sdk.errors import ConfigError, needed_imports
from iir_sdk.model.backbone import Taps
from iir_sdk.model.cam import resize_map
from iir_sdk.model.companions import Dictionary
from iir_sdk.model.prototypes import grid_size
from iir_sdk.model.tokens import map_to_tokens

PICTURES = 600
_POSITIONS = 32
_ITERATIONS = 10


def fit_dictionary(dictionary: Dictionary, taps: Taps, *, seed: int = 0) -> None:
    """Set the words to means of clusters of positions, by ``mid`` and ``high`` together; no mask is looked at."""
    kmeans2 = require_clustering()
    positions = _drawn_positions(taps, seed)
    words = dictionary.mid.shape[0]
    if len(positions) < words:
        raise ConfigError(
            f"model.dictionary={words} words need as many positions, not {len(positions)}; lower it, or add pictures."
        )
    means, _ = kmeans2(positions.numpy(), words, iter=_ITERATIONS, minit="points", seed=seed)
    channels = [dictionary.mid.shape[1], dictionary.high.shape[1]]
    mid, high = (F.normalize(part, dim=1) for part in torch.from_numpy(means).float().split(channels, 1))
    dictionary.mid.copy_(mid)
    dictionary.high.copy_(high)


def require_clustering() -> Callable[..., Any]:
    """SciPy's k-means; a MissingDependencyError without SciPy."""
    with needed_imports("clusters are found with scipy; run: pip install 'iir-sdk[train]'"):
        from scipy.cluster.vq import kmeans2
    return kmeans2  # type: ignore[no-any-return]


def _drawn_positions(taps: Taps, seed: int) -> Tensor:
    """``(P, C_mid + C_high)`` float32 on the CPU: unit vectors of both maps, side by side."""
    generator, drawn = torch.Generator().manual_seed(seed), []
    # Picture by picture, since all positions of all pictures are gigabytes.
    for mid, high in zip(taps.mid.split(1), taps.high.split(1), strict=True):
        maps = (mid.float(), resize_map(high.float(), grid_size(mid)))
        rows = torch.cat([F.normalize(map_to_tokens(m)[0], dim=1) for m in maps], 1).cpu()
        drawn.append(rows[torch.randperm(len(rows), generator=generator)[:_POSITIONS]])
    return torch.cat(drawn)
