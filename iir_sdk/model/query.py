"""What is read of a query once, whatever its supports and labels."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from iir_sdk.model.backbone import Taps


class QueryFeatures(NamedTuple):
    """Of ``N`` queries.

    Attributes:
        taps: the backbone's.
        unit: the same with unit vectors, float32.
        unit_pooled: ``(N, C, h', w')``, likewise of ``pooled_map``; None where no prior is made of it.
        gram: ``(N, C_low, C_low)``, their style.
        pooled_map: ``(N, C, h', w')``, the map that the classifier pools; None for Grad-CAM.
        fused: ``(N, d, h, w)`` at ``mid``'s grid, what the decoder's features add to the fusion.
        detail: ``(N, m, 2h, 2w)``, what ``low`` adds in the mask head.
        base: ``(N, 1, h, w)``, summed probability of the base classes; None without a base learner.
    """

    taps: Taps
    unit: Taps
    unit_pooled: Tensor | None
    gram: Tensor
    pooled_map: Tensor | None
    fused: Tensor
    detail: Tensor
    base: Tensor | None

    def one(self, index: int) -> QueryFeatures:
        """One query's, still with a batch axis."""
        keep = slice(index, index + 1)
        return QueryFeatures(
            Taps(*(t[keep] for t in self.taps)),
            Taps(*(t[keep] for t in self.unit)),
            *(None if t is None else t[keep] for t in self[2:]),  # type: ignore[arg-type]
        )
