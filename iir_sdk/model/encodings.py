"""What is kept of a support and read of a query: all that prediction needs, so that no picture is seen twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from iir_sdk.model.support_state import TOKEN_AXES, SupportRecord, Tokens
from iir_sdk.model.tokens import Vectors


class SupportState(SupportRecord[Tensor]):
    """The record as the network reads it; ``d`` decoder channels, ``T`` tokens of all shots."""

    def map(self, change: Callable[[Tensor], Tensor]) -> SupportState:
        """Apply ``change`` to every tensor."""
        return SupportState.from_arrays({name: change(tensor) for name, tensor in self.arrays().items()})

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> SupportState:
        """Move to a device; floating tensors take ``dtype`` if given."""
        return self.map(lambda t: t.to(device, dtype if t.is_floating_point() else None))

    def regroup(self, tasks: int, shots: int) -> SupportState:
        """``tasks * shots`` tasks of one shot as ``tasks`` of ``shots``, in order."""
        if shots == 1:
            return self
        grouped = {
            name: tensor if name in TOKEN_AXES else tensor.reshape(tasks, shots, *tensor.shape[2:])
            for name, tensor in self.arrays().items()
        }

        def listed(tensor: Tensor, axis: int) -> Tensor:
            """``(tasks * shots, ..., T, ...)`` -> ``(tasks, ..., shots * T, ...)``, one shot after the other."""
            apart = tensor.reshape(tasks, shots, *tensor.shape[1:]).movedim(1, axis)
            return apart.flatten(axis, axis + 1)

        # Of a shot's tokens the other shots have no share.
        mass = self.tokens.mass
        of_itself = torch.eye(shots, device=mass.device, dtype=mass.dtype)[None, :, :, None]
        mass = (mass.reshape(tasks, 1, shots, -1) * of_itself).flatten(2)
        tokens = replace(self.tokens.along(listed), mass=mass)
        return SupportState.from_arrays(grouped).with_tokens(tokens)

    def beside(self, counterexamples: Tokens[Tensor]) -> SupportState:
        """With the tokens ``(B, 1, T)`` of pictures that do not show the object: background, whatever the shots weigh.

        They count as much as those of all shots together, which is a picture's.
        """
        mass = counterexamples.mass.expand(-1, self.shots, -1)
        pairs = zip(self.tokens.parts(), replace(counterexamples, mass=mass).parts(), strict=True)
        return self.with_tokens(Tokens(*(torch.cat([a, b.to(a.dtype)], axis) for (axis, a), (_, b) in pairs)))


class QueryFeatures(NamedTuple):
    """What is read of ``N`` queries once, whatever their supports and labels.

    Attributes:
        low: the backbone's map; ``mid`` and ``high`` likewise.
        pooled: the map that the classifier pools; None for Grad-CAM.
        fused: ``(N, d, h, w)`` at ``mid``'s grid, what the decoder's features add to the fusion.
        detail: ``(N, m, 2h, 2w)``, what ``low`` adds in the mask head.
        base: ``(N, 1, h, w)``, summed probability of the base classes; None without a base learner.
    """

    low: Vectors
    mid: Vectors
    high: Vectors
    pooled: Vectors | None
    fused: Tensor
    detail: Tensor
    base: Tensor | None

    @property
    def queries(self) -> int:
        """``N``."""
        return len(self.detail)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        vectors = (*self.low, *self.mid, *self.high, *(self.pooled or ()))
        return sum(t.nbytes for t in (*vectors, self.fused, self.detail, *([] if self.base is None else [self.base])))

    def one(self, index: int) -> QueryFeatures:
        """One query's, still with a batch axis."""
        one = slice(index, index + 1)
        return QueryFeatures(
            low=self.low.of(one),
            mid=self.mid.of(one),
            high=self.high.of(one),
            pooled=None if self.pooled is None else self.pooled.of(one),
            fused=self.fused[one],
            detail=self.detail[one],
            base=None if self.base is None else self.base[one],
        )


def for_queries(vectors: Tensor, queries: int) -> Tensor:
    """Vectors ``(N, K, ...)`` of all tasks as those of the one query they ask for, ``(1, N * K, ...)``."""
    return vectors.flatten(0, 1)[None] if queries == 1 else vectors


def by_task(maps: Tensor, tasks: int) -> Tensor:
    """The inverse, of what they were compared to: ``(1, N * K, ...)`` as ``(N, K, ...)``."""
    return maps.reshape(tasks, -1, *maps.shape[2:]) if len(maps) == 1 else maps
