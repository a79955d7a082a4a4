"""Encoded supports as they are kept: plain arrays, joined into tasks and merged to a bounded number of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import SupportError
from iir_sdk.token_merging import merge_assignment, merge_mean, merge_sum, unit

TOKEN_AXIS = {"keys": 2, "values": 2, "dense_mid": 1, "dense_high": 1, "side": 1, "mass": 2}
"""Arrays that list tokens, and the axis they list them on."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class KeptState:
    """One task with ``K`` shots and ``T`` tokens, or several tasks: the arrays of a
    :class:`iir_sdk.model.state.SupportState`, floats in float16.

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
        """``T``."""
        return int(self.arrays["side"].shape[1])

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
        side, mass = self.arrays["side"], self.arrays["mass"]
        if side.ndim != 2 or not side.shape[1] or not (mass > 0).any() or (mass < 0).any():
            raise SupportError(f"{what}: side {side.shape} must list tokens, and mass must be >= 0 and not all 0.")
        for name, array in expected.arrays.items():
            own, shape = self.arrays[name], list(array.shape)
            if name in TOKEN_AXIS:
                shape[TOKEN_AXIS[name]] = self.tokens
            if (list(own.shape), own.dtype) != (shape, array.dtype):
                raise SupportError(f"{what}: {name} is {own.shape} {own.dtype}, expected {tuple(shape)} {array.dtype}.")
            if not np.isfinite(own).all():
                raise SupportError(f"{what}: {name} holds NaN or infinite values.")

    def with_mass(self) -> KeptState:
        """One task without the tokens that stand for nothing."""
        held = np.flatnonzero(self.arrays["mass"][0].sum(0) > 0)
        kept = {n: a.take(held, TOKEN_AXIS[n]) if n in TOKEN_AXIS else a for n, a in self.arrays.items()}
        return KeptState(kept)

    def within(self, budget: int) -> KeptState:
        """One task with at most ``budget`` tokens: similar ones of the same side are merged into their mean."""
        if self.tokens <= budget:
            return self
        floats = {name: self.arrays[name].astype(np.float32) for name in TOKEN_AXIS}
        mass = floats["mass"][0].sum(0)
        assigned = merge_assignment(floats["dense_mid"][0], floats["side"][0], mass, budget)
        merged = {n: merge_mean(floats[n], mass, assigned) for n in ("keys", "values")}
        merged |= {n: unit(merge_mean(floats[n], mass, assigned)) for n in ("dense_mid", "dense_high")}
        merged["side"] = merge_mean(floats["side"][..., None], mass, assigned)[..., 0]
        merged["mass"] = merge_sum(floats["mass"][..., None], assigned)[..., 0]
        return KeptState({**self.arrays, **{n: a.astype(np.float16) for n, a in merged.items()}})


def join_shots(states: Sequence[KeptState]) -> KeptState:
    """One task from several states' shots: each keeps its own tokens."""
    if len(states) == 1:
        return states[0]
    names = [n for n in states[0].arrays if n != "mass"]
    joined = {n: np.concatenate([s.arrays[n] for s in states], TOKEN_AXIS.get(n, 1)) for n in names}
    mass = np.zeros((1, sum(s.shots for s in states), joined["side"].shape[1]), states[0].arrays["mass"].dtype)
    shot, token = 0, 0
    for state in states:
        mass[:, shot : shot + state.shots, token : token + state.tokens] = state.arrays["mass"]
        shot, token = shot + state.shots, token + state.tokens
    return KeptState({**joined, "mass": mass})


def join_tasks(states: Sequence[KeptState]) -> KeptState:
    """Several tasks with equally many shots; where one has fewer tokens, the missing ones have no mass."""
    if len(states) == 1:
        return states[0]
    longest = max(state.tokens for state in states)
    parts = [_padded(state, longest) for state in states]
    return KeptState({name: np.concatenate([p[name] for p in parts]) for name in parts[0]})


def _padded(state: KeptState, tokens: int) -> Arrays:
    padded = dict(state.arrays)
    for name, axis in TOKEN_AXIS.items():
        room = [(0, tokens - state.tokens if a == axis else 0) for a in range(padded[name].ndim)]
        padded[name] = np.pad(padded[name], room)
    return padded
