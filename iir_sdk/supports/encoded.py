"""Encoded supports as they are kept: plain arrays, joined into tasks and merged to a bounded number of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import SupportError
from iir_sdk.model.token_lists import HIGH, MID, TOKEN_AXIS, TOKEN_LISTS, TokenList
from iir_sdk.supports.merging import merge_assignment, merge_mean, merge_sum, unit

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class KeptState:
    """One task with ``K`` shots and ``T`` tokens, or several tasks: the arrays of a
    :class:`iir_sdk.model.encodings.SupportState`, floats in float16. Equal only to itself, as arrays have no one truth.

    Attributes:
        arrays: by that class's names.
    """

    arrays: Arrays

    @property
    def shots(self) -> int:
        """``K``."""
        return int(self.arrays["threshold"].shape[1])

    @property
    def tokens(self) -> int:
        """``T`` of the list that cross attention reads, the longest."""
        return self._count(MID)

    def _count(self, tokens: TokenList) -> int:
        return int(self.arrays[tokens.side].shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for a in self.arrays.values())

    def check_like(self, expected: KeptState, what: str) -> None:
        """Refuse arrays whose names, shapes or dtypes differ from those of ``expected``, or that are not finite.

        The number of tokens may differ, since empty ones are not kept.

        Raises:
            SupportError: naming ``what`` and the array.
        """
        if sorted(self.arrays) != sorted(expected.arrays):
            raise SupportError(f"{what}: holds {sorted(self.arrays)}, expected {sorted(expected.arrays)}.")
        for tokens in TOKEN_LISTS:
            side, mass = self.arrays[tokens.side], self.arrays[tokens.mass]
            if side.ndim != 2 or not side.shape[1] or not (mass > 0).any() or (mass < 0).any():
                raise SupportError(
                    f"{what}: {tokens.side} {side.shape} must list tokens; {tokens.mass} must be >= 0, not all 0."
                )
        counts = {name: self._count(tokens) for tokens in TOKEN_LISTS for name in tokens.axes}
        for name, array in expected.arrays.items():
            own, shape = self.arrays[name], list(array.shape)
            if name in TOKEN_AXIS:
                shape[TOKEN_AXIS[name]] = counts[name]
            if (list(own.shape), own.dtype) != (shape, array.dtype):
                raise SupportError(f"{what}: {name} is {own.shape} {own.dtype}, expected {tuple(shape)} {array.dtype}.")
            if not np.isfinite(own).all():
                raise SupportError(f"{what}: {name} holds NaN or infinite values.")

    def with_mass(self) -> KeptState:
        """One task without the tokens that stand for nothing."""
        kept = dict(self.arrays)
        for tokens in TOKEN_LISTS:
            held = np.flatnonzero(kept[tokens.mass][0].sum(0) > 0)
            kept |= {name: kept[name].take(held, axis) for name, axis in tokens.axes.items()}
        return KeptState(kept)

    def within(self, budget: int) -> KeptState:
        """One task with at most ``budget`` tokens a list: similar ones of the same side are merged into their mean."""
        long = [tokens for tokens in TOKEN_LISTS if self._count(tokens) > budget]
        if not long:
            return self
        merged = dict(self.arrays)
        if self._one_list():
            # One token in one list must stay one in both: they are compared by the features of both together.
            alike = unit(np.concatenate([self._features(tokens) for tokens in TOKEN_LISTS], 1))
            assigned = dict.fromkeys(TOKEN_LISTS, self._assignment(MID, alike, budget))
        else:
            assigned = {tokens: self._assignment(tokens, self._features(tokens), budget) for tokens in long}
        for tokens, joined in assigned.items():
            merged |= self._merged(tokens, joined)
        return KeptState(merged)

    def _one_list(self) -> bool:
        """Whether both lists are of the same tokens, as the light decoder's and those on one grid are."""
        pairs = ((getattr(MID, part), getattr(HIGH, part)) for part in ("side", "mass"))
        return all(np.array_equal(self.arrays[a], self.arrays[b]) for a, b in pairs)

    def _features(self, tokens: TokenList) -> NDArray[np.float32]:
        features: NDArray[np.float32] = self.arrays[tokens.features][0].astype(np.float32)
        return features

    def _assignment(self, tokens: TokenList, features: NDArray[np.float32], budget: int) -> NDArray[np.int64]:
        side, mass = (self.arrays[name][0].astype(np.float32) for name in (tokens.side, tokens.mass))
        return merge_assignment(features, side, mass.sum(0), budget)

    def _merged(self, tokens: TokenList, assigned: NDArray[np.int64]) -> Arrays:
        floats = {name: self.arrays[name].astype(np.float32) for name in tokens.axes}
        mass, side, features = floats[tokens.mass][0].sum(0), floats[tokens.side], floats[tokens.features]
        merged = {name: merge_mean(floats[name], mass, assigned) for name in tokens.carried}
        merged[tokens.features] = unit(merge_mean(features, mass, assigned))
        merged[tokens.side] = merge_mean(side[..., None], mass, assigned)[..., 0]
        merged[tokens.mass] = merge_sum(floats[tokens.mass][..., None], assigned)[..., 0]
        return {name: array.astype(np.float16) for name, array in merged.items()}


def join_shots(states: Sequence[KeptState]) -> KeptState:
    """One task from several states' shots: each keeps its own tokens."""
    if len(states) == 1:
        return states[0]
    masses = {tokens.mass: _block_diagonal([s.arrays[tokens.mass] for s in states]) for tokens in TOKEN_LISTS}
    names = [name for name in states[0].arrays if name not in masses]
    joined = {n: np.concatenate([s.arrays[n] for s in states], TOKEN_AXIS.get(n, 1)) for n in names}
    return KeptState({**joined, **masses})


def _block_diagonal(masses: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Masses ``(1, K_i, T_i)`` as one ``(1, sum K_i, sum T_i)``: no shot has a share in another's tokens."""
    joined = np.zeros((1, sum(m.shape[1] for m in masses), sum(m.shape[2] for m in masses)), masses[0].dtype)
    shot, token = 0, 0
    for mass in masses:
        joined[:, shot : shot + mass.shape[1], token : token + mass.shape[2]] = mass
        shot, token = shot + mass.shape[1], token + mass.shape[2]
    return joined


def join_tasks(states: Sequence[KeptState]) -> KeptState:
    """Several tasks with equally many shots; where one has fewer tokens, the missing ones have no mass."""
    if len(states) == 1:
        return states[0]
    longest = {tokens: max(state._count(tokens) for state in states) for tokens in TOKEN_LISTS}
    parts = [_padded(state, longest) for state in states]
    return KeptState({name: np.concatenate([p[name] for p in parts]) for name in parts[0]})


def _padded(state: KeptState, counts: Mapping[TokenList, int]) -> Arrays:
    padded = dict(state.arrays)
    for tokens, count in counts.items():
        missing = count - state._count(tokens)
        for name, axis in tokens.axes.items() if missing else ():
            padded[name] = np.pad(padded[name], [(0, missing if a == axis else 0) for a in range(padded[name].ndim)])
    return padded
