"""What the two refinements find to work with: figures against loops."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner

from iir_sdk.model.attention import Attention
from iir_sdk.model.iir import IIR
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.weights.checkpoint_file import save_checkpoint
from tests.test_presence import CONFIG
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
    assert any(conflicts)
    assert figures["support tokens whose best match in the query conflicts"] == sum(conflicts) / 2
    assert figures["attention that the cut pairs hold"] == pytest.approx(held / 5, abs=1e-6)
    of_object = (float(mass[0, 0]) + float(mass[3, 0])) / 2
    assert figures["attention to the object's tokens, from the object"] == pytest.approx(of_object, abs=1e-6)


def test_a_mean_is_over_the_episodes_that_have_the_figure(refinements):
    found = refinements.mean_figures([{"a": 1.0, "b": math.nan}, {"a": 0.0, "b": 0.5}, {"a": 0.5, "b": math.nan}])
    assert found == {"a": 0.5, "b": 0.5}


def test_a_sets_figures_are_shares_and_name_the_checkpoint(refinements, picture_folder, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    save_checkpoint(IIR(CONFIG), Preprocessing(size=96, support_size=64), path)
    words = ["--data", str(picture_folder / "coco"), "--fold", "0", "--episodes", "4", "--out", str(tmp_path)]
    done = CliRunner().invoke(refinements.main, [str(path), *words], catch_exceptions=False)
    document = json.loads((tmp_path / "refinements.json").read_text(encoding="utf-8"))
    assert document["of"] == "small, 4 episodes of fold 0's classes, 1-shot, seed 0"
    assert len(document["sha256"]) == 64
    means = document["means"]
    assert all(-1 <= value <= 1 for value in means.values())
    assert means["the same, threshold chosen by the query's truth"] >= means["IoU of activated region and truth, query"]
    astray = "attention to the object's tokens, from the"
    assert 0 < means[f"{astray} object"] < 1
    assert f"| {astray} object | {100 * means[f'{astray} object']:.1f} |" in done.output


def test_without_cross_attention_there_is_nothing_to_measure(refinements, picture_folder, tmp_path):
    path = tmp_path / "small.safetensors"
    save_checkpoint(IIR(replace(CONFIG, cross_blocks=0)), Preprocessing(size=96, support_size=64), path)
    words = ["--data", str(picture_folder / "coco"), "--fold", "0", "--out", str(tmp_path)]
    with pytest.raises(refinements.ConfigError, match="no cross attention"):
        CliRunner().invoke(refinements.main, [str(path), *words], catch_exceptions=False)
