"""What looks more like a counterexample than like the supports is not the object; ours, beyond the paper.

The tokens of a counterexample tell the decoder what background may look like. That alone hardly helps against things
that look like the object: told apart they are by whose nearest relative is which, in the map that knows kinds best.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from iir_sdk.model.cam import resize_map
from iir_sdk.model.companions import mean_units
from iir_sdk.model.encodings import SupportState
from iir_sdk.model.prior import similarities
from iir_sdk.model.prototypes import area_average, grid_size
from iir_sdk.model.tokens import Vectors

_LEAD = 0.05
"""Of the counterexample's cosine over the supports' that is nothing yet: who loses by less may be the object."""

_OF_POSITIONS = 50.0
_OF_OBJECTS = 30.0
"""What a further lead of 1 takes from log-odds, of a position's and of presence.

Chosen on ten training sets whose classes look alike; see ``benchmarks/evidence/counterexamples``.
"""


def without_look_alikes(logits: Tensor, high: Vectors, state: SupportState) -> Tensor:
    """Logits ``(N, 2, h, w)`` with less foreground where positions of ``high`` resemble a counterexample more."""
    lost = _OF_POSITIONS * resize_map(_behind(high, state), grid_size(logits))
    return torch.cat([logits[:, :1], logits[:, 1:] + lost.to(logits.dtype)], 1)


def presence_lost(logits: Tensor, high: Vectors, state: SupportState) -> Tensor:
    """What the predicted object's likeness to a counterexample takes from the log-odds of presence: ``(N,)``, <= 0.

    Of the logits ``(N, 2, h, w)`` before :func:`without_look_alikes`.
    """
    foreground = (logits[:, 1:] - logits[:, :1]).float().sigmoid()
    objects = F.normalize(mean_units(high, area_average(foreground, grid_size(high.map))), dim=2)
    # As maps of one position each.
    vectors = Vectors.measured(objects.transpose(1, 2)[..., None])
    return _OF_OBJECTS * _behind(vectors, state)[:, 0, 0, 0]


def _behind(high: Vectors, state: SupportState) -> Tensor:
    """How far the cosine with the best support stays behind a counterexample's: ``(N, 1, h, w)`` float32, <= 0.

    0 of tasks without counterexamples, whose vectors in ``against`` have no length.
    """
    present = state.against.float().square().sum(2)[..., None, None]
    supports, others = (similarities(high, vectors) for vectors in (state.high.foreground, state.against))
    return ((supports.amax(1, keepdim=True) + _LEAD - others) * present).amin(1, keepdim=True).clamp_max(0)
