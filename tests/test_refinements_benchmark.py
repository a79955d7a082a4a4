"""What the two refinements find to work with: figures against loops."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from iir_sdk.model.attention import Attention
from tests.test_speed_report import script


@pytest.fixture(scope="module")
def refinements() -> ModuleType:
    return script("refinements")


def test_the_best_iou_is_that_of_the_best_threshold(refinements):
    soft = torch.tensor([[0.1, 0.6], [0.7, 0.9]])[None, None]
    truth, known = (torch.tensor(rows)[None, None] > 0 for rows in ([[0, 1], [0, 1]], [[1, 1], [1, 1]]))
    assert refinements.best_iou(soft, truth, known) == pytest.approx(2 / 3)
    unknown = torch.tensor([[1, 1], [0, 1]])[None, None] > 0
    assert refinements.best_iou(soft, truth, unknown) == 1


def test_what_cut_pairs_hold_equals_loops(refinements):
    torch.manual_seed(0)
    attention, tokens, keys = Attention(4, 2), torch.randn(1, 5, 4), torch.randn(1, 3, 4)
    labels, of_support = torch.tensor([[1, 0, 0, 1, 255]]), torch.tensor([[1, 0, 255]])
    with torch.inference_mode():
        figures = refinements.of_one_attention(attention, tokens, keys, torch.zeros(1, 1, 3), labels, of_support)
        asked = attention.to_query(tokens)[0]
        heads = [(asked[:, h : h + 2] @ keys[0, :, h : h + 2].T / 2**0.5).softmax(1) for h in (0, 2)]
    mass, held, conflicts = (heads[0] + heads[1]) / 2, 0.0, []
    for j in (0, 1):
        match = max(range(5), key=lambda i: float(asked[i] @ keys[0, j]))
        cut = int(labels[0, match]) not in (255, int(of_support[0, j]))
        conflicts.append(cut)
        held += float(mass[match, j]) if cut else 0.0
    assert figures["support tokens whose best match in the query conflicts"] == sum(conflicts) / 2
    assert figures["attention that the cut pairs hold"] == pytest.approx(held / 5, abs=1e-6)
    of_object = (float(mass[0, 0]) + float(mass[3, 0])) / 2
    assert figures["attention to the object's tokens, from the object"] == pytest.approx(of_object, abs=1e-6)
