"""What pictures show in general, as a background that every support shares.

A support's own background is what happens to be beside its object; of a query's other things it says nothing. Words of
a dictionary, means of clusters of the features of many pictures, stand in for them: whatever resembles a word more than
the object is background, and words that resemble the object itself hardly count.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iir_sdk.model.precision import full_precision
from iir_sdk.model.prototypes import grid_size
from iir_sdk.model.tokens import map_to_tokens, tokens_to_map

_NEAR = 10.0
_LOGIT_SCALE = 8.0
_SMALLEST = 1e-4


class Dictionary(nn.Module):
    """``M`` words, each a unit vector of ``mid`` and one of ``high``, and how much they count.

    Args:
        words: ``M``.
        mid: channels of ``mid``.
        high: channels of ``high``.
    """

    mid: Tensor
    high: Tensor

    def __init__(self, words: int, mid: int, high: int) -> None:
        super().__init__()
        # Found before training, by clustering; trained ones would be those of the base classes.
        self.register_buffer("mid", nn.functional.normalize(torch.randn(words, mid), dim=1))
        self.register_buffer("high", nn.functional.normalize(torch.randn(words, high), dim=1))
        self.near_scale_log = nn.Parameter(torch.tensor(_NEAR).log())
        self.weight_log = nn.Parameter(torch.tensor(0.0))


class DictionaryPriors(NamedTuple):
    """Maps ``(N, 1, h, w)`` float32.

    Attributes:
        among_tokens: in [0, 1], by the support's tokens alone: :func:`iir_sdk.model.companions.dense_prior`.
        among_words: in [0, 1], with the words as further background.
        odds: an eighth of the logarithm of the latter's odds, its ends cut off at one in ten thousand.
    """

    among_tokens: Tensor
    among_words: Tensor
    odds: Tensor


@full_precision
def dictionary_prior(
    affinity: Tensor, of_words: Tensor, near: Tensor, side: Tensor, bias: Tensor, dictionary: Dictionary
) -> DictionaryPriors:
    """Share of foreground among the support's tokens alone, and among them and the words.

    Args:
        affinity: ``(N, T, h, w)`` of each query position with each support token.
        of_words: ``(N, M, h, w)`` of each query position with each word, or of one query for all.
        near: ``(N, M, T)`` of each word with each support token.
        side: ``(N, T)`` share of foreground in each token.
        bias: ``(N, 1, T)`` of the tokens' masses.
        dictionary: how much words count.
    """
    foreground = side.float()[:, :, None]
    resembles = (near + bias).softmax(2) @ foreground
    # Together the words weigh as much as all of a support's positions.
    weight = _exponentials(bias).log_sum - math.log(near.shape[1]) + dictionary.weight_log
    weight = weight - dictionary.near_scale_log.exp() * resembles
    tokens = _exponentials(map_to_tokens(affinity) + bias)
    words = _exponentials(map_to_tokens(of_words) + weight.transpose(1, 2))
    both = tokens.relative @ torch.cat([foreground, 1 - foreground], 2) / tokens.relative.sum(2, keepdim=True)
    share, rest = both.chunk(2, 2)
    lead = tokens.log_sum - words.log_sum
    among_words = share * lead.sigmoid()
    # Summed from its parts and not taken from 1: a runtime in bfloat16 rounds all above 0.998 to 1, and then the odds
    # of the surest foreground are infinite, and the mask is gone.
    others = rest * lead.sigmoid() + (-lead).sigmoid()
    foreground_log, background_log = (t.clamp(_SMALLEST, 1 - _SMALLEST).log() for t in (among_words, others))
    odds = (foreground_log - background_log) / _LOGIT_SCALE
    return DictionaryPriors(*(tokens_to_map(t, grid_size(affinity)) for t in (share, among_words, odds)))


class _Exponentials(NamedTuple):
    """Exponentials relative to the largest along the last axis, and the logarithm of the sum of the true ones."""

    relative: Tensor
    log_sum: Tensor


def _exponentials(values: Tensor) -> _Exponentials:
    # Written out: OpenVINO's ReduceLogSumExp is off by a thousandth, and a softmax would take them once more.
    largest = values.amax(2, keepdim=True)
    relative = (values - largest).exp()
    return _Exponentials(relative, largest + relative.sum(2, keepdim=True).log())
