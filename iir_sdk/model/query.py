"""What is read of a query once, whatever its supports and labels."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from iir_sdk.model.backbone import Taps


class QueryFeatures(NamedTuple):
    """Of ``N`` queries.

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
