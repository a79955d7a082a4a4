"""Attention against loops; directional dropout and each of its pitfalls."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iir_sdk.model.attention import Attention, CrossAttention, Labels, directional_dropout, inconsistent_pairs


def brute_force(affinity: np.ndarray, query: np.ndarray, support: np.ndarray) -> np.ndarray:
    batch, positions, keys = affinity.shape
    drop = np.zeros_like(affinity, dtype=bool)
    for b in range(batch):
        for j in range(keys):
            best = max(range(positions), key=lambda i: (affinity[b, i, j], -i))
            labels = (query[b, best], support[b, j])
            if 255 not in labels and labels[0] != labels[1]:
                drop[b, best, j] = True
        for i in range(positions):
            if drop[b, i].all():
                drop[b, i] = False
    return drop


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 100_000), positions=st.integers(1, 6), keys=st.integers(1, 6))
def test_inconsistent_pairs_equal_brute_force(seed, positions, keys):
    rng = np.random.default_rng(seed)
    affinity = rng.normal(size=(2, positions, keys))
    query, support = rng.choice([0, 1, 255], (2, positions)), rng.choice([0, 1, 255], (2, keys))
    found = inconsistent_pairs(torch.tensor(affinity), torch.tensor(query), torch.tensor(support))
    assert np.array_equal(found.numpy(), brute_force(affinity, query, support))
    assert not found.all(2).any()


def test_the_pair_is_hit_and_not_its_transpose():
    affinity = torch.zeros(1, 3, 3)
    affinity[0, 2, 0] = 9.0  # support 0 matches query 2
    affinity[0, 1, 1] = affinity[0, 0, 2] = 5.0
    found = inconsistent_pairs(affinity, torch.tensor([[0, 1, 1]]), torch.tensor([[0, 1, 0]]))
    assert found.nonzero().tolist() == [[0, 2, 0]]


def test_without_conflict_nothing_is_touched_not_even_the_first_pair():
    affinity = torch.eye(4)[None]
    labels = torch.tensor([[0, 1, 1, 0]])
    assert not inconsistent_pairs(affinity, labels, labels).any()


def test_ignored_pixels_never_conflict():
    affinity = torch.eye(2)[None]
    assert not inconsistent_pairs(affinity, torch.tensor([[255, 255]]), torch.tensor([[0, 1]])).any()
    assert not inconsistent_pairs(affinity, torch.tensor([[0, 1]]), torch.tensor([[255, 255]])).any()


def test_attention_equals_loops(rng):
    torch.manual_seed(0)
    attention = Attention(6, 2).double()
    tokens, other = torch.tensor(rng.normal(size=(1, 3, 6))), torch.tensor(rng.normal(size=(1, 4, 6)))
    bias = torch.tensor(rng.normal(size=(1, 1, 4)))
    found = attention(tokens, attention.keys_values(other), bias)
    q, k, v = attention.to_query(tokens)[0], attention.to_keys(other)[0], attention.to_values(other)[0]
    joined = torch.zeros(3, 6, dtype=torch.float64)
    for h in range(2):
        part = slice(3 * h, 3 * h + 3)
        for i in range(3):
            logits = torch.stack([q[i, part] @ k[j, part] / 3**0.5 + bias[0, 0, j] for j in range(4)])
            joined[i, part] = sum(w * v[j, part] for j, w in enumerate(logits.softmax(0)))
    torch.testing.assert_close(found[0], attention.merge(joined))


def test_dropped_pairs_get_no_attention_and_others_keep_theirs(rng):
    torch.manual_seed(0)
    cross = CrossAttention(8, 2).double()
    tokens, support = torch.tensor(rng.normal(size=(1, 5, 8))), torch.tensor(rng.normal(size=(1, 6, 8)))
    kept = cross.keys_values(support)
    query_labels, support_labels = torch.tensor([[0, 1, 1, 0, 1]]), torch.tensor([[1, 0, 0, 1, 1, 0]])
    labels = Labels(query_labels, support_labels)
    affinity = cross.attention.affinity(cross.query_norm(tokens), kept.keys)
    drop, bias = inconsistent_pairs(affinity, *labels), directional_dropout(affinity, None, labels)
    assert drop.any()
    assert torch.equal(bias == -torch.inf, drop)
    untouched = ~drop.any(2)[0]
    with_dropout, without = cross(tokens, kept, labels=labels), cross(tokens, kept)
    torch.testing.assert_close(with_dropout[0, untouched], without[0, untouched])
    assert (with_dropout[0, ~untouched] - without[0, ~untouched]).abs().max() > 1e-6
    assert torch.isfinite(with_dropout).all()
