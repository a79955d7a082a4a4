"""What is kept of a support and read of a query: all that prediction needs, so that no picture is seen twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from iir_sdk.model.attention import KeysValues
from iir_sdk.model.backbone import Taps
from iir_sdk.model.token_lists import TOKEN_AXIS, TOKEN_LISTS, TokenList


@dataclass(frozen=True)
class SupportState:
    """Encoded supports of ``B`` tasks with ``K`` shots each; ``d`` decoder channels, ``T`` tokens of all shots.

    Attributes:
        proxy_index: ``(B, K)`` int64, proxy class; -1 without a classifier.
        proxy_weight: ``(B, K, C)``, its row of the classifier.
        threshold: ``(B, K)`` in [0, 1], binarises the class activation.
        core_high: ``(B, K, C_high)`` core prototype for the prior, a unit vector as the next ones.
        local_high: ``(B, K, C_high)`` local prototype for the prior.
        foreground_low: ``(B, K, C_low)`` whole-mask prototype at ``low``; likewise ``_mid`` and ``_high``.
        background_low: ``(B, K, C_low)`` mean outside the mask at ``low``; likewise ``_mid`` and ``_high``.
        foreground_pooled: ``(B, K, C)`` the same of the map that the classifier pools, with Grad-CAM of ``high``.
            Likewise ``background_pooled``.
        gram_low: ``(B, K, C_low, C_low)`` Gram matrix that weighs the shots.
        core: ``(B, K, d)`` what the core prototype in the decoder's features adds to the query's fusion; likewise
            ``local`` and ``whole``.
        dense_mid: ``(B, T, C_mid)`` unit features of each token.
        dense_high: ``(B, T', C_high)`` unit features of each token of the second list, with a side and a mass of its
            own: ``side_high (B, T')`` and ``mass_high (B, K, T')``.
        side: ``(B, T)`` share of foreground in each token, in [0, 1].
        mass: ``(B, K, T)`` >= 0, how many positions of each shot a token stands for.
        keys: ``(B, L, T, d)`` cross-attention keys of the ``L`` blocks that have it.
        values: ``(B, L, T, d)`` the values.
    """

    proxy_index: Tensor
    proxy_weight: Tensor
    threshold: Tensor
    core_high: Tensor
    local_high: Tensor
    foreground_low: Tensor
    foreground_mid: Tensor
    foreground_high: Tensor
    background_low: Tensor
    background_mid: Tensor
    background_high: Tensor
    foreground_pooled: Tensor
    background_pooled: Tensor
    gram_low: Tensor
    core: Tensor
    local: Tensor
    whole: Tensor
    dense_mid: Tensor
    dense_high: Tensor
    side: Tensor
    mass: Tensor
    side_high: Tensor
    mass_high: Tensor
    keys: Tensor
    values: Tensor

    @property
    def tasks(self) -> int:
        """``B``."""
        return self.threshold.shape[0]

    @property
    def shots(self) -> int:
        """``K``."""
        return self.threshold.shape[1]

    def cross(self, block: int) -> KeysValues | None:
        """Keys and values ``(B, T, d)`` of a block; None where it has no cross attention."""
        if block >= self.keys.shape[1]:
            return None
        return KeysValues(self.keys[:, block], self.values[:, block])

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> SupportState:
        """The inverse of :meth:`tensors`; missing or further names raise ``TypeError``."""
        return cls(**tensors)

    def map(self, change: Callable[[Tensor], Tensor]) -> SupportState:
        """Apply ``change`` to every tensor."""
        return SupportState(**{name: change(tensor) for name, tensor in self.tensors().items()})

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> SupportState:
        """Move to a device; floating tensors take ``dtype`` if given."""
        return self.map(lambda t: t.to(device, dtype if t.is_floating_point() else None))

    def expand(self, tasks: int) -> SupportState:
        """One task as ``tasks`` equal ones, without copying."""
        return self.map(lambda t: t.expand(tasks, *t.shape[1:]))

    def regroup(self, tasks: int, shots: int) -> SupportState:
        """``tasks * shots`` tasks of one shot as ``tasks`` of ``shots``, in order."""
        if shots == 1:
            return self
        grouped = {n: t.reshape(tasks, shots, *t.shape[2:]) for n, t in self.tensors().items() if n not in TOKEN_AXIS}
        for tokens in TOKEN_LISTS:
            grouped |= self._regrouped(tokens, tasks, shots)
        return SupportState(**grouped)

    def _regrouped(self, tokens: TokenList, tasks: int, shots: int) -> dict[str, Tensor]:
        side, features, mass = (getattr(self, name) for name in (tokens.side, tokens.features, tokens.mass))
        count = side.shape[1]
        shot_itself = torch.eye(shots, device=mass.device, dtype=mass.dtype)[None, :, :, None]
        grouped = {
            tokens.side: side.reshape(tasks, shots * count),
            tokens.features: features.reshape(tasks, shots * count, features.shape[2]),
            tokens.mass: (mass.reshape(tasks, 1, shots, count) * shot_itself).reshape(tasks, shots, shots * count),
        }
        for name in tokens.carried:
            carried = getattr(self, name)
            apart = carried.reshape(tasks, shots, *carried.shape[1:]).transpose(1, 2)
            grouped[name] = apart.reshape(tasks, carried.shape[1], shots * count, carried.shape[3])
        return grouped

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors().values())


class QueryFeatures(NamedTuple):
    """What is read of ``N`` queries once, whatever their supports and labels.

    Attributes:
        taps: the backbone's.
        lengths: ``(N, 1, h, w)`` each, of the vectors at the taps' positions.
        pooled_map: ``(N, C, h', w')``, the map that the classifier pools; None for Grad-CAM.
        pooled_lengths: ``(N, 1, h', w')``, of its vectors; None likewise.
        fused: ``(N, d, h, w)`` at ``mid``'s grid, what the decoder's features add to the fusion.
        detail: ``(N, m, 2h, 2w)``, what ``low`` adds in the mask head.
        base: ``(N, 1, h, w)``, summed probability of the base classes; None without a base learner.
    """

    taps: Taps
    lengths: Taps
    pooled_map: Tensor | None
    pooled_lengths: Tensor | None
    fused: Tensor
    detail: Tensor
    base: Tensor | None

    @property
    def queries(self) -> int:
        """``N``."""
        return len(self.detail)

    def compared(self, name: str) -> tuple[Tensor, Tensor]:
        """The map ``low``, ``mid``, ``high`` or ``pooled``, and the lengths of its vectors."""
        if name != "pooled":
            return getattr(self.taps, name), getattr(self.lengths, name)
        assert self.pooled_map is not None
        assert self.pooled_lengths is not None
        return self.pooled_map, self.pooled_lengths

    def one(self, index: int) -> QueryFeatures:
        """One query's, still with a batch axis."""
        keep = slice(index, index + 1)
        return QueryFeatures(
            Taps(*(t[keep] for t in self.taps)),
            Taps(*(t[keep] for t in self.lengths)),
            *(None if t is None else t[keep] for t in self[2:]),  # type: ignore[arg-type]
        )


def for_queries(query: QueryFeatures, vectors: Tensor) -> Tensor:
    """Vectors ``(N, K, ...)`` of all tasks as those of the one query they ask for, ``(1, N * K, ...)``."""
    return vectors.flatten(0, 1)[None] if query.queries == 1 else vectors


def by_task(query: QueryFeatures, maps: Tensor, tasks: int) -> Tensor:
    """The inverse, of what they were compared to: ``(1, N * K, ...)`` as ``(N, K, ...)``."""
    return maps.reshape(tasks, -1, *maps.shape[2:]) if query.queries == 1 else maps
