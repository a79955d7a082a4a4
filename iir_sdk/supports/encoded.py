"""Encoded supports as they are kept: plain arrays, joined into tasks and merged to a bounded number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import SupportError
from iir_sdk.model.support_state import TOKEN_AXES, SupportRecord, Tokens
from iir_sdk.supports.merging import merge_assignment, merge_mean, merge_sum, unit

Numbers: TypeAlias = NDArray[Any]
TokenList = TypeVar("TokenList", bound="Tokens[Numbers]")


class EncodedSupport(SupportRecord[Numbers]):
    """One task with ``K`` shots and ``T`` tokens, or several tasks, with floats in float16."""

    @property
    def tokens(self) -> int:
        """``T`` of the list that cross attention reads, the longest."""
        return self.tokens_mid.count

    def check_like(self, expected: EncodedSupport, what: str) -> None:
        """Refuse arrays whose shapes or dtypes differ from those of ``expected``, or that are not finite.

        The number of tokens may differ, since empty ones are not kept.

        Raises:
            SupportError: naming ``what`` and the array.
        """
        counts: dict[str, int] = {}
        for part, tokens in (("tokens_mid", self.tokens_mid), ("tokens_high", self.tokens_high)):
            side, mass = tokens.side, tokens.mass
            if side.ndim != 2 or not side.shape[1] or not (mass > 0).any() or (mass < 0).any():
                raise SupportError(
                    f"{what}: {part}_side {side.shape} must list tokens; {part}_mass must be >= 0, not all 0."
                )
            counts |= {f"{part}_{name}": tokens.count for name in tokens.axes()}
        arrays = self.arrays()
        for name, like in expected.arrays().items():
            array, shape = arrays[name], list(like.shape)
            if name in counts:
                shape[TOKEN_AXES[name]] = counts[name]
            if (list(array.shape), array.dtype) != (shape, like.dtype):
                raise SupportError(
                    f"{what}: {name} is {array.shape} {array.dtype}, expected {tuple(shape)} {like.dtype}."
                )
            if not np.isfinite(array).all():
                raise SupportError(f"{what}: {name} holds NaN or infinite values.")

    def with_mass(self) -> EncodedSupport:
        """One task without the tokens that stand for nothing."""
        return self.with_tokens(_with_mass(self.tokens_mid), _with_mass(self.tokens_high))

    def within(self, budget: int) -> EncodedSupport:
        """One task with at most ``budget`` tokens a list: similar ones of the same side are merged into their mean."""
        mid, high = self.tokens_mid, self.tokens_high
        if max(mid.count, high.count) <= budget:
            return self
        if np.array_equal(mid.side, high.side) and np.array_equal(mid.mass, high.mass):
            # The same tokens in both lists, as the light decoder's are, must stay so: both features together tell.
            alike = unit(np.concatenate([mid.features[0], high.features[0]], 1, dtype=np.float32))
            joined = _assignment(mid, alike, budget)
            return self.with_tokens(_merged(mid, joined), _merged(high, joined))
        return self.with_tokens(_within(mid, budget), _within(high, budget))


def _with_mass(tokens: TokenList) -> TokenList:
    heavy = np.flatnonzero(tokens.mass[0].sum(0) > 0)
    return tokens.along(lambda array, axis: array.take(heavy, axis))


def _within(tokens: TokenList, budget: int) -> TokenList:
    if tokens.count <= budget:
        return tokens
    return _merged(tokens, _assignment(tokens, tokens.features[0].astype(np.float32), budget))


def _assignment(tokens: Tokens[Numbers], features: NDArray[np.float32], budget: int) -> NDArray[np.int64]:
    side, mass = tokens.side[0].astype(np.float32), tokens.mass[0].astype(np.float32)
    return merge_assignment(features, side, mass.sum(0), budget)


def _merged(tokens: TokenList, assigned: NDArray[np.int64]) -> TokenList:
    """Means of the tokens that were assigned to the same one, weighted by their masses, which are summed."""
    mass = tokens.mass.astype(np.float32)

    def mean(array: Numbers, axis: int) -> Numbers:
        """Along the last axis but one, where :func:`merge_mean` takes it."""
        values = array.astype(np.float32)
        if axis < array.ndim - 1:
            return merge_mean(values, mass[0].sum(0), assigned)
        return merge_mean(values[..., None], mass[0].sum(0), assigned)[..., 0]

    means = tokens.along(mean)
    merged = replace(means, features=unit(means.features), mass=merge_sum(mass[..., None], assigned)[..., 0])
    return merged.along(lambda array, _: array.astype(np.float16))


def join_shots(states: Sequence[EncodedSupport]) -> EncodedSupport:
    """One task from several states' shots: each keeps its own tokens."""
    if len(states) == 1:
        return states[0]
    parts = [state.arrays() for state in states]
    joined = {name: np.concatenate([part[name] for part in parts], TOKEN_AXES.get(name, 1)) for name in parts[0]}
    for name in ("tokens_mid_mass", "tokens_high_mass"):
        joined[name] = _block_diagonal([part[name] for part in parts])
    return EncodedSupport.from_arrays(joined)


def _block_diagonal(masses: Sequence[Numbers]) -> Numbers:
    """Masses ``(1, K_i, T_i)`` as one ``(1, sum K_i, sum T_i)``: no shot has a share in another's tokens."""
    joined = np.zeros((1, sum(m.shape[1] for m in masses), sum(m.shape[2] for m in masses)), masses[0].dtype)
    shot, token = 0, 0
    for mass in masses:
        joined[:, shot : shot + mass.shape[1], token : token + mass.shape[2]] = mass
        shot, token = shot + mass.shape[1], token + mass.shape[2]
    return joined


def join_tasks(states: Sequence[EncodedSupport]) -> EncodedSupport:
    """Several tasks with equally many shots; where one has fewer tokens, the missing ones have no mass."""
    if len(states) == 1:
        return states[0]
    of_mid, of_high = max(s.tokens_mid.count for s in states), max(s.tokens_high.count for s in states)
    parts = [s.with_tokens(_padded(s.tokens_mid, of_mid), _padded(s.tokens_high, of_high)).arrays() for s in states]
    return EncodedSupport.from_arrays({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _padded(tokens: TokenList, count: int) -> TokenList:
    missing = count - tokens.count
    return tokens.along(lambda a, axis: np.pad(a, [(0, missing if i == axis else 0) for i in range(a.ndim)]))
