"""Encoded supports as they are kept: plain arrays, joined into tasks and merged to a bounded number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import SupportError
from iir_sdk.model.support_state import TOKEN_AXES, SupportRecord, Tokens

Numbers: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float32]
Indices: TypeAlias = NDArray[np.int64]

_ALIKE_TEMPERATURE = 0.05


class EncodedSupport(SupportRecord[Numbers]):
    """One task with ``K`` shots and ``T`` tokens, or several tasks, with floats in float16."""

    def check_like(self, expected: EncodedSupport, what: str) -> None:
        """Refuse arrays whose shapes or dtypes are not those of ``expected``, or not finite, by a SupportError.

        The number of tokens may differ, since empty ones are not kept.
        """
        arrays = self.arrays()
        for name, like in expected.arrays().items():
            if name not in TOKEN_AXES:
                _check_array(arrays[name], list(like.shape), like.dtype, f"{what}: {name}")
        check_tokens(self.tokens, expected.tokens, what)

    def with_mass(self) -> EncodedSupport:
        """One task without the tokens that stand for nothing."""
        return self.with_tokens(with_mass(self.tokens))

    def beside(self, counterexamples: Sequence[Tokens[Numbers]]) -> EncodedSupport:
        """One task with the tokens of pictures that do not show the object: background, whatever the shots weigh.

        However many they are, together they count as one picture does, since they are the mean of theirs. What in each
        looks most like the object is kept as ``against``.
        """
        telling = [tokens for tokens in counterexamples if tokens.count]
        if not telling:
            return self
        against = np.stack([most_alike(tokens, self.high.foreground[0]) for tokens in telling])
        lists = [self.tokens]
        for tokens in telling:
            share = tokens.mass.astype(np.float32) / len(telling)
            lists.append(replace(tokens, mass=np.repeat(share, self.shots, 1).astype(np.float16)))
        # All at once: one after the other would copy what is joined already for each further one.
        parts = zip(*(tokens.parts() for tokens in lists), strict=True)
        joined = Tokens(*(np.concatenate([array for _, array in part], part[0][0]) for part in parts))
        return self.with_tokens(joined, against.astype(np.float16)[None])

    def within(self, budget: int) -> EncodedSupport:
        """One task with at most ``budget`` tokens: similar ones of the same side are merged into their mean."""
        if self.tokens.count <= budget:
            return self
        tokens = self.tokens.along(lambda array, _: array.astype(np.float32))
        mass = tokens.mass[0].sum(0)
        alike = unit(np.concatenate([tokens.mid[0], tokens.high[0]], 1))
        assigned = merge_assignment(alike, tokens.side[0], mass, budget)

        def mean(array: Numbers, axis: int) -> Numbers:
            # Tokens stand along the last axis but one, where :func:`merge_mean` takes them, or along the last.
            if axis < array.ndim - 1:
                return merge_mean(array, mass, assigned)
            return merge_mean(array[..., None], mass, assigned)[..., 0]

        means = tokens.along(mean)
        total = merge_sum(tokens.mass[..., None], assigned)[..., 0]
        merged = replace(means, mass=total, mid=unit(means.mid), high=unit(means.high))
        return self.with_tokens(merged.along(lambda array, _: array.astype(np.float16)))


def most_alike(tokens: Tokens[Numbers], objects: Numbers) -> Floats:
    """What in a counterexample looks most like the object: a unit vector ``(C_high,)``.

    The mean of its tokens, each by its mass and a softmax of its cosine with the mean of ``objects (K, C_high)``.
    """
    high, mass = tokens.high[0].astype(np.float32), tokens.mass[0, 0].astype(np.float32)
    cosines = high @ unit(objects.astype(np.float32).mean(0))
    shares = mass * np.exp((cosines - cosines.max()) / _ALIKE_TEMPERATURE)
    return unit(shares @ high)


def with_mass(tokens: Tokens[Numbers]) -> Tokens[Numbers]:
    """Those of one task that stand for anything."""
    heavy = np.flatnonzero(tokens.mass[0].sum(0) > 0)
    return tokens.along(lambda array, axis: array.take(heavy, axis))


def check_tokens(tokens: Tokens[Numbers], expected: Tokens[Numbers], what: str) -> None:
    """Refuse tokens, however many, whose shapes or dtypes are not those of ``expected``, or that are not finite."""
    side, mass = tokens.side, tokens.mass
    if side.ndim != 2 or not side.shape[1] or not (mass > 0).any() or (mass < 0).any():
        raise SupportError(f"{what}: tokens_side {side.shape} must list tokens; tokens_mass must be >= 0, not all 0.")
    for name, (axis, array), (_, like) in zip(TOKEN_AXES, tokens.parts(), expected.parts(), strict=True):
        shape = list(like.shape)
        shape[axis] = tokens.count
        _check_array(array, shape, like.dtype, f"{what}: {name}")


def _check_array(array: Numbers, shape: list[int], dtype: np.dtype[Any], what: str) -> None:
    if (list(array.shape), array.dtype) != (shape, dtype):
        raise SupportError(f"{what} is {array.shape} {array.dtype}, expected {tuple(shape)} {dtype}.")
    if not np.isfinite(array).all():
        raise SupportError(f"{what} holds NaN or infinite values.")


def join_shots(states: Sequence[EncodedSupport]) -> EncodedSupport:
    """One task from several states' shots: each keeps its own tokens."""
    if len(states) == 1:
        return states[0]
    parts = [state.arrays() for state in states]
    joined = {name: np.concatenate([part[name] for part in parts], TOKEN_AXES.get(name, 1)) for name in parts[0]}
    joined["tokens_mass"] = _block_diagonal([state.tokens.mass for state in states])
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
    """Several tasks with equally many shots; missing tokens have no mass, missing counterexamples no length."""
    if len(states) == 1:
        return states[0]
    longest, most = (
        max(counts) for counts in zip(*((s.tokens.count, s.against.shape[1]) for s in states), strict=True)
    )

    def filled_up(array: Numbers, axis: int) -> Numbers:
        missing = longest - array.shape[axis]
        return np.pad(array, [(0, missing if i == axis else 0) for i in range(array.ndim)])

    def like_the_others(state: EncodedSupport) -> EncodedSupport:
        missing = most - state.against.shape[1]
        against = np.pad(state.against, [(0, 0), (0, missing), (0, 0)])
        return state.with_tokens(state.tokens.along(filled_up), against)

    parts = [like_the_others(state).arrays() for state in states]
    return EncodedSupport.from_arrays({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def merge_assignment(features: Floats, side: Floats, mass: Floats, budget: int) -> Indices:
    """Which of at most ``budget`` merged tokens each joins, ``(T,)`` from 0; foreground and background never mix.

    Of unit vectors ``(T, C)``, shares of foreground and masses > 0, ``(T,)``. Each side gets half of the budget, and
    what the other leaves over.
    """
    foreground = side > 0.5
    inside = int(foreground.sum())
    half = min(inside, max(budget // 2, budget - (len(side) - inside)))
    assigned = np.zeros(len(side), np.int64)
    for chosen, count, first in ((foreground, half, 0), (~foreground, budget - half, budget)):
        if chosen.any():
            assigned[chosen] = first + cluster(features[chosen], mass[chosen], count)
    return np.unique(assigned, return_inverse=True)[1].reshape(-1).astype(np.int64)


def cluster(features: Floats, mass: Floats, count: int) -> Indices:
    """Spherical k-means of unit vectors ``(T, C)`` with masses > 0: ``(T,)`` below ``count``, some perhaps unused.

    Begun with tokens evenly spaced in their order, so that equal input gives equal output.
    """
    if count >= len(features):
        return np.arange(len(features))
    centres = features[np.linspace(0, len(features) - 1, count).round().astype(np.int64)]
    assigned: Indices = (features @ centres.T).argmax(1)
    for _ in range(4):
        sums = merge_sum(features * mass[:, None], assigned, count)
        # A cluster that lost all its tokens stays where it was.
        centres = np.where(sums.any(1, keepdims=True), unit(sums), centres)
        assigned = (features @ centres.T).argmax(1)
    return assigned


def merge_sum(values: Floats, assigned: Indices, count: int | None = None) -> Floats:
    """Sums ``(..., T', C)`` of ``values (..., T, C)`` over each merged token."""
    count = int(assigned.max()) + 1 if count is None else count
    # A product with a 0-1 matrix: many times faster than numpy's own adding by index.
    member = np.zeros((count, len(assigned)), np.float32)
    member[assigned, np.arange(len(assigned))] = 1
    total: Floats = member @ values
    return total


def merge_mean(values: Floats, mass: Floats, assigned: Indices) -> Floats:
    """Means ``(..., T', C)`` of ``values (..., T, C)`` over each merged token, weighted by ``mass (T,)``."""
    mean: Floats = merge_sum(values * mass[:, None], assigned) / merge_sum(mass[:, None], assigned)
    return mean


def unit(vectors: Floats) -> Floats:
    """Vectors of length 1 along the last axis; zero stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Floats = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    return scaled
