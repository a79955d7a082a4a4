"""A picture's positions as tokens, and those of a support that a query is compared with; in full precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

Arguments = ParamSpec("Arguments")
Outcome = TypeVar("Outcome")


def full_precision(function: Callable[Arguments, Outcome]) -> Callable[Arguments, Outcome]:
    """Run ``function`` with autocast off on its first tensor's device; it casts its inputs to float32 itself."""

    @wraps(function)
    def outside_autocast(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Outcome:
        device = next(a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)).device.type
        if not torch.is_autocast_enabled(device):
            return function(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return outside_autocast


def map_to_tokens(maps: Tensor) -> Tensor:
    """``(N, C, h, w)`` -> ``(N, h*w, C)``, contiguous: norms are ten times slower on a transposed view.

    Maps whose channels lie last in memory, as a backbone gives them, are not copied.
    """
    return maps.flatten(2).transpose(1, 2).contiguous()


def tokens_to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """The inverse of :func:`map_to_tokens`; a view whose channels lie last."""
    # Not a transpose and a reshape: of a single map that makes strides which torch takes for the plain layout's.
    return tokens.reshape(tokens.shape[0], *size, tokens.shape[2]).permute(0, 3, 1, 2)


@full_precision
def vector_lengths(maps: Tensor) -> Tensor:
    """Length of each position's vector of ``(N, C, h, w)``, ``(N, 1, h, w)`` float32, at least 1e-12."""
    # A sum of squares: torch's own norm along the channels is ten times slower.
    return maps.float().square().sum(1, keepdim=True).clamp_min(1e-24).sqrt()


class Vectors(NamedTuple):
    """A map of vectors to compare with others."""

    map: Tensor  # ``(N, C, h, w)``
    lengths: Tensor  # ``(N, 1, h, w)`` float32, of :func:`vector_lengths`

    @classmethod
    def measured(cls, maps: Tensor) -> Vectors:
        """A map ``(N, C, h, w)`` with the lengths of its vectors."""
        return cls(maps, vector_lengths(maps))

    def of(self, queries: slice) -> Vectors:
        """Those of some of the ``N``."""
        return Vectors(self.map[queries], self.lengths[queries])


def laid_out_like(other: Tensor, maps: Tensor) -> Tensor:
    """``maps (N, C, h, w)`` in memory as ``other`` is: sums and convolutions are slow where layouts differ."""
    last = other.is_contiguous(memory_format=torch.channels_last) and not other.is_contiguous()
    return maps.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


class TokenLayout(NamedTuple):
    """How the positions of ``N`` supports become ``T`` tokens each."""

    side: Tensor  # ``(N, T)`` float32, share of foreground in each token, in [0, 1]
    mass: Tensor  # ``(N, T)`` float32 >= 0, how many positions each stands for; 0 where it stands for none
    pool: Callable[[Tensor], Tensor]  # ``(N, C, h, w)`` -> ``(N, T, C)``, the mean of each token's positions


def mean_unit_vectors(layout: TokenLayout, maps: Tensor) -> Tensor:
    """Unit features ``(N, T, C)`` of tokens: means of their positions' unit vectors in ``maps (N, C, h, w)``."""
    maps = maps.float()
    return F.normalize(layout.pool(maps / vector_lengths(maps)), dim=2)


def every_position(mask: Tensor, known: Tensor) -> TokenLayout:
    """One token a position; those of which nothing is ``known`` have no mass. Both ``(N, 1, h, w)`` in [0, 1]."""
    return TokenLayout(mask.flatten(1), (known > 0).float().flatten(1), map_to_tokens)


def sides_of_cells(mask: Tensor | None, known: Tensor) -> TokenLayout:
    """Two tokens a cell of 2 x 2 positions: the mean of its foreground and that of its background.

    A quarter of the positions, and yet none that mixes the object with what is beside it. Both arguments are
    ``(N, 1, h, w)`` in [0, 1]; without a mask all that is known is background, and cells have but one token.
    """
    shares = [known] if mask is None else [mask, (known - mask).clamp_min(0)]

    def cell_sums(maps: Tensor) -> Tensor:
        # At the edge of an odd grid the mean of what is left of a cell counts as a whole one.
        return F.avg_pool2d(maps.float(), 2, ceil_mode=True) * 4

    def pool(maps: Tensor) -> Tensor:
        sides = [cell_sums(maps * share) / cell_sums(share).clamp_min(1e-6) for share in shares]
        return torch.cat([map_to_tokens(side) for side in sides], 1)

    masses = [cell_sums(share).flatten(1) for share in shares]
    sides = [torch.full_like(mass, float(share is mask)) for mass, share in zip(masses, shares, strict=True)]
    return TokenLayout(torch.cat(sides, 1), torch.cat(masses, 1), pool)


@full_precision
def token_bias(weights: Tensor, mass: Tensor) -> Tensor:
    """What the tokens' masses ``(N, K, T)`` add to attention logits, so that each counts in the softmax by its weight.

    Float32 ``(N, 1, T)``, ``-inf`` at tokens without mass; weights ``(N, K)`` of the shots, each row sums to 1.
    """
    total = weights.float()[:, None] @ mass.float()
    return total.clamp_min(1e-12).log().masked_fill(total <= 0, -torch.inf)
