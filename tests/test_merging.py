"""Many tokens merged into few: what a label's supports cost is bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iir_sdk.errors import SupportError
from iir_sdk.model.support_state import NAMES
from iir_sdk.supports.encoded import EncodedSupport, cluster, join_shots, join_tasks, merge_assignment, merge_mean, unit


def state(seed: int, tokens: int, shots: int = 1) -> EncodedSupport:
    rng = np.random.default_rng(seed)
    mass = np.zeros((1, shots, tokens), np.float16)
    mass[0, rng.integers(0, shots, tokens), np.arange(tokens)] = rng.uniform(0.5, 4, tokens)
    side = (np.arange(tokens) < tokens // 3).astype(np.float16)[None]
    arrays = {name: np.full((1, shots), 0.5, np.float16) for name in NAMES} | {
        "against": np.zeros((1, 1, 6), np.float16),
        "tokens_side": side,
        "tokens_mass": mass,
        "tokens_keys": rng.normal(size=(1, 2, tokens, 4)).astype(np.float16),
        "tokens_values": rng.normal(size=(1, 2, tokens, 4)).astype(np.float16),
        "tokens_mid": unit(rng.normal(size=(1, tokens, 5)).astype(np.float32)).astype(np.float16),
        "tokens_high": unit(rng.normal(size=(1, tokens, 6)).astype(np.float32)).astype(np.float16),
    }
    return EncodedSupport.from_arrays(arrays)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), tokens=st.integers(3, 60), shots=st.integers(1, 4), budget=st.integers(2, 70))
def test_merging_keeps_the_mass_and_never_mixes_the_sides(seed, tokens, shots, budget):
    whole = state(seed, tokens, shots)
    merged = whole.within(budget)
    assert merged.tokens.count <= max(budget, 2)
    joined, single = merged.tokens, whole.tokens
    np.testing.assert_allclose(joined.mass.sum(2), single.mass.sum(2), rtol=0.01)
    assert set(np.unique(joined.side)) <= {0, 1}
    for side in (0, 1):
        before, after = (float(tokens.mass[..., tokens.side[0] == side].sum()) for tokens in (single, joined))
        assert after == pytest.approx(before, rel=0.02)
    for features in (joined.mid, joined.high):
        np.testing.assert_allclose(np.linalg.norm(features.astype(float), axis=2), 1, atol=0.01)


def test_the_mean_equals_loops(rng):
    values, mass = rng.normal(size=(2, 6, 3)).astype(np.float32), rng.uniform(1, 3, 6).astype(np.float32)
    assigned = np.array([0, 1, 0, 2, 1, 0])
    found = merge_mean(values, mass, assigned)
    for group in range(3):
        members = [t for t in range(6) if assigned[t] == group]
        expected = sum(mass[t] * values[:, t] for t in members) / sum(mass[t] for t in members)
        np.testing.assert_allclose(found[:, group], expected, rtol=1e-5)


def test_equal_tokens_fall_into_one_cluster(rng):
    directions = unit(rng.normal(size=(3, 8)).astype(np.float32))
    assigned = cluster(np.repeat(directions, 10, 0), np.ones(30, np.float32), 3)
    assert len({tuple(assigned[i : i + 10]) for i in (0, 10, 20)}) == 3
    assert all(len(set(assigned[i : i + 10])) == 1 for i in (0, 10, 20))


def test_one_side_leaves_its_room_to_the_other(rng):
    features = unit(rng.normal(size=(100, 8)).astype(np.float32))
    side = (np.arange(100) < 4).astype(np.float32)
    assigned = merge_assignment(features, side, np.ones(100, np.float32), 40)
    assert len(set(assigned[:4])) == 4
    assert 20 < len(set(assigned[4:])) <= 36


def test_shots_keep_their_own_tokens_and_tasks_are_filled_up():
    joined = join_shots([state(0, 5), state(1, 7)])
    assert (joined.shots, joined.tokens.count) == (2, 12)
    assert not joined.tokens.mass[0, 0, 5:].any()
    assert not joined.tokens.mass[0, 1, :5].any()
    tasks = join_tasks([state(0, 5), state(1, 7)])
    assert tasks.tokens.keys.shape == (2, 2, 7, 4)
    assert not tasks.tokens.mass[0, :, 5:].any()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokens_keys": np.zeros((1, 2, 4, 4), np.float16)}, "tokens_keys"),
        ({"tokens_mass": np.zeros((1, 1, 5), np.float16)}, "tokens_mass"),
        ({"tokens_values": np.full((1, 2, 5, 4), np.nan, np.float16)}, "NaN"),
    ],
)
def test_foreign_arrays_are_refused(change, says):
    own = state(0, 5)
    own.check_like(state(1, 9), "file")
    with pytest.raises(SupportError, match=says):
        EncodedSupport.from_arrays({**own.arrays(), **change}).check_like(state(1, 9), "file")


def test_a_state_has_all_of_its_arrays_and_no_further_ones():
    arrays = state(0, 5).arrays()
    with pytest.raises(TypeError, match="has no further"):
        EncodedSupport.from_arrays({**arrays, "further": np.zeros(1)})
    with pytest.raises(TypeError, match="gram_low"):
        EncodedSupport.from_arrays({name: array for name, array in arrays.items() if name != "gram_low"})
