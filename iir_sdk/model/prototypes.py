"""Masked average pooling and the dual prototypes (method, section 2, step 4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from iir_sdk.model.support_state import DualPrototypes, Prototypes
from iir_sdk.model.tokens import full_precision, map_to_tokens, tokens_to_map

_EMPTY = 1e-6


def grid_size(maps: Tensor) -> tuple[int, int]:
    """``(h, w)`` of ``(N, C, h, w)``."""
    return (maps.shape[2], maps.shape[3])


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Share of foreground in each cell: area-average ``(N, 1, H, W)`` in [0, 1] to ``(N, 1, *size)``.

    Averaging keeps thin and small objects: a cell that holds any foreground keeps a weight above zero. A mask
    smaller than ``size`` is enlarged by repetition, which leaves the shares as they are.
    """
    return area_average(mask.float(), size)


def area_average(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean over each cell of a grid of ``size``: ``(N, C, H, W)`` -> ``(N, C, *size)``."""
    kernel = (int(maps.shape[2]) // int(size[0]), int(maps.shape[3]) // int(size[1]))
    whole = min(kernel) > 0 and (kernel[0] * size[0], kernel[1] * size[1]) == (maps.shape[2], maps.shape[3])
    return F.avg_pool2d(maps, kernel) if whole else _average_of_uneven_cells(maps, size)


@full_precision
def _average_of_uneven_cells(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """As torch's adaptive pooling, which ONNX does not know, by two products of matrices."""
    shares = []
    for cells, length in zip(size, maps.shape[2:], strict=True):
        first, place = (
            torch.arange(int(cells), device=maps.device)[:, None],
            torch.arange(int(length), device=maps.device),
        )
        inside = (place >= first * length // cells) & (place < -(-(first + 1) * length // cells))
        shares.append(inside / inside.sum(1, keepdim=True))
    rows, columns = shares
    return (rows @ maps.float() @ columns.T).to(maps.dtype)


@full_precision
def masked_average(features: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of ``features (N, C, h, w)`` with ``weights (N, 1, h, w)`` >= 0: ``(N, C)`` float32."""
    weights = weights.float()
    total = (features.float() * weights).sum((2, 3))
    return total / weights.sum((2, 3)).clamp_min(_EMPTY)


def dual_prototypes(features: Tensor, mask: Tensor, activated: Tensor) -> DualPrototypes[Tensor]:
    """Core, local and whole prototypes by masked average pooling; mask and activated are ``(N, 1, h, w)``.

    A region that holds nothing (a class activation over all of the mask, or none of it) takes the whole-mask prototype,
    so none is ever NaN or zero.
    """
    whole = masked_average(features, mask)
    prototypes = []
    for region in (mask * activated, mask * (1 - activated)):
        empty = region.float().sum((2, 3)) <= _EMPTY
        prototypes.append(torch.where(empty, whole, masked_average(features, region)))
    core, local = prototypes
    return DualPrototypes(core, local, whole)


def sides_prototypes(features: Tensor, masks: Tensor, known: Tensor) -> Prototypes[Tensor]:
    """Unit prototypes ``(N, 1, C)`` in and beside ``masks (N, 1, H, W)``, of ``N`` supports, each a task of one shot.

    What is not ``known`` (0) is neither inside nor outside.
    """
    mask, whole = (resize_mask(shares, grid_size(features)) for shares in (masks, known))
    sides = (masked_average(features, shares) for shares in (mask, (whole - mask).clamp_min(0)))
    return Prototypes(*(F.normalize(side, dim=1)[:, None] for side in sides))


def core_or_local(activated: Tensor, core: Tensor, local: Tensor, weights: Tensor) -> Tensor:
    """Core prototype where activated, local elsewhere, mean over shots: ``(N, K, ...)`` -> ``(N, d, h, w)``."""
    if activated.shape[1] == 1:
        chosen = torch.where(map_to_tokens(activated).bool(), core.float(), local.float())
        return tokens_to_map(chosen, grid_size(activated))
    # local + activated * (core - local), weighted over the shots as one product of matrices.
    shares = (activated.float() * weights[:, :, None, None]).flatten(2).transpose(1, 2)
    tokens = shares @ (core.float() - local.float()) + weights[:, None] @ local.float()
    return tokens_to_map(tokens, grid_size(activated))
