"""Prior maps against loops, and their edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iir_sdk.model import prior as priors
from iir_sdk.model.companions import dense_prior, similarity_prior, token_affinity
from iir_sdk.model.tokens import Vectors


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def cosines(maps: torch.Tensor, prototype: np.ndarray) -> torch.Tensor:
    unit = torch.tensor(prototype / np.linalg.norm(prototype))
    return priors.similarities(Vectors.measured(maps), unit[None, None])


def test_region_prior_equals_loops(rng):
    features, core, local = rng.normal(size=(7, 5, 6)), rng.normal(size=7), rng.normal(size=7)
    active = rng.uniform(size=(5, 6)) > 0.5
    expected = np.zeros((5, 6))
    for inside, prototype in ((True, core), (False, local)):
        where = [(y, x) for y in range(5) for x in range(6) if active[y, x] == inside]
        values = [cosine(features[:, y, x], prototype) for y, x in where]
        for (y, x), value in zip(where, values, strict=True):
            expected[y, x] = (value - min(values)) / (max(values) - min(values))
    maps = torch.tensor(features)[None]
    found = priors.region_prior(
        cosines(maps, core),
        cosines(maps, local),
        torch.tensor(active)[None, None],
    )
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-5)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.0, 0.05, 0.5, 1.0]), flat=st.booleans())
def test_region_prior_is_finite_and_bounded(seed, share, flat):
    rng = np.random.default_rng(seed)
    similarity = torch.zeros(1, 2, 4, 4) if flat else torch.tensor(rng.uniform(-1, 1, (1, 2, 4, 4)))
    active = torch.tensor(rng.uniform(size=(1, 2, 4, 4)) < share)
    found = priors.region_prior(similarity, -similarity, active)
    assert torch.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_dense_prior_equals_loops(rng):
    query, support, mask = rng.normal(size=(4, 2, 3)), rng.normal(size=(5, 4)), rng.uniform(size=5)
    support /= np.linalg.norm(support, axis=1, keepdims=True)
    mass = rng.uniform(0.5, 4, size=5)
    maps = torch.tensor(query).float()[None]
    affinity = token_affinity(Vectors.measured(maps), torch.tensor(support).float()[None], torch.tensor(0.1))
    found = dense_prior(affinity, torch.tensor(mask)[None], torch.tensor(mass).float().log()[None, None])
    for y in range(2):
        for x in range(3):
            weights = mass * np.exp([cosine(query[:, y, x], s) / 0.1 for s in support])
            assert float(found[0, 0, y, x]) == pytest.approx(float(weights @ mask / weights.sum()), abs=1e-5)


def test_shot_weights_equal_the_formula(rng):
    query, shots = rng.normal(size=(6, 3, 3)), rng.normal(size=(4, 6, 3, 3))

    def gram(f: np.ndarray) -> np.ndarray:
        g = np.zeros((6, 6))
        for y in range(3):
            for x in range(3):
                g += np.outer(f[:, y, x], f[:, y, x])
        return g / np.trace(g)

    distance = np.array([np.sqrt(((gram(query) - gram(s)) ** 2).sum()) for s in shots])
    expected = np.exp(-5 * distance) / np.exp(-5 * distance).sum()
    found = priors.shot_weights(
        priors.gram(torch.tensor(query)[None]), priors.gram(torch.tensor(shots))[None], torch.tensor(5.0)
    )
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)
    assert found.argmax() == distance.argmin()


def test_a_mean_over_equal_shots_is_the_shot(rng):
    maps = torch.tensor(rng.uniform(size=(1, 1, 3, 3)), dtype=torch.float32).expand(1, 5, 3, 3)
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.15, 0.25]])
    torch.testing.assert_close(priors.mean_over_shots(maps, weights), maps[:, :1])


def test_similarity_priors_span_each_map_and_flat_ones_are_zero(rng):
    maps = torch.tensor(rng.uniform(-1, 1, (2, 3, 4, 5)), dtype=torch.float32)
    maps[1, 2] = 0.3
    found = similarity_prior(maps)
    torch.testing.assert_close(found, priors.min_max(maps, torch.ones_like(maps, dtype=torch.bool)))
    assert not found[1, 2].any()
