"""Presence and confidence that are fitted to several sets: who counts how much, what is absent, what it is worth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iir_sdk.data.episodes import Episode
from iir_sdk.data.folder import JoinedSets, PictureSet, read_picture_sets
from iir_sdk.errors import DatasetError
from iir_sdk.evaluation.absence import absent_across
from iir_sdk.evaluation.calibration import cross_validated, fit_head
from iir_sdk.evaluation.observation import Observed
from iir_sdk.model.iir import IIR
from iir_sdk.model.presence import EVIDENCE, OF_CONFIDENCE_ALONE, score_logits
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.weights.checkpoint_file import read_checkpoint, save_checkpoint
from tests.command import output_of
from tests.conftest import draw_scene
from tests.test_presence import CONFIG


def drawn(count: int, *, shown: float, likeness: float, seed: int, name: str = "thing") -> Observed:
    """Predictions whose evidence is a likeness and noise; half of the mask is right where the object is shown."""
    evidence = likeness + 0.1 * torch.randn(count, len(EVIDENCE), generator=torch.Generator().manual_seed(seed))
    kind = (torch.arange(count) < round(shown * count)).float()
    evidence[kind == 0] -= 0.5
    return Observed(evidence, kind, 0.5 * kind, 0.6 * kind, (name,) * count)


def test_each_set_counts_alike_whatever_its_episodes():
    small, large = drawn(20, shown=0.5, likeness=0.9, seed=0), drawn(20, shown=0.5, likeness=0.5, seed=1)
    ten_times = Observed(*(torch.cat([values] * 10) for values in large[:4]), large.classes * 10)
    one, other = (fit_head({"a": small, "b": b}) for b in (large, ten_times))
    torch.testing.assert_close(one.bias, other.bias, atol=0.05, rtol=0.05)
    assert not one.weight[0, [EVIDENCE.index(name) for name in OF_CONFIDENCE_ALONE]].any()


def test_sets_without_absence_say_nothing_of_how_often_things_are_shown():
    told = drawn(40, shown=0.5, likeness=0.8, seed=0)
    shown_alone = [drawn(20, shown=1, likeness=0.8, seed=i) for i in range(1, 9)]
    head = fit_head({"told": told} | {f"set{i}": o for i, o in enumerate(shown_alone)})
    logits = told.evidence @ head.weight[0] + head.bias[0]
    assert float(logits.sigmoid().mean()) == pytest.approx(0.5, abs=0.05)
    with pytest.raises(DatasetError, match="--complete SET"):
        fit_head({"alone": shown_alone[0]})


def test_held_out_sets_are_told_by_heads_that_never_saw_them():
    observed = {f"set{i}": drawn(20, shown=0.5, likeness=0.8, seed=i) for i in range(4)}
    observed["odd"] = drawn(20, shown=0.5, likeness=0.2, seed=9)
    scores = {score.name: score for score in cross_validated(observed)}
    assert scores["set0"].auroc == pytest.approx(1, abs=0.05)
    # By the others' measure nothing of it is there, though a mask's IoU is 0.6.
    assert scores["odd"].missed > 0.8
    assert scores["set0"].missed < 0.2
    assert scores["odd"].confidence_error < 0.2
    assert cross_validated({"one": observed["odd"]}) == []
    parts = drawn(20, shown=0.5, likeness=0.8, seed=3)._replace(classes=("dog", "cat") * 10)
    (only,) = cross_validated({"one": parts}, ["one"])
    assert only.auroc == pytest.approx(1, abs=0.1)


def test_a_head_of_six_pieces_reads_the_first_six():
    head, evidence = torch.nn.Linear(6, 2), torch.randn(3, len(EVIDENCE))
    assert torch.equal(score_logits(evidence, head), head(evidence[:, :6]))


def sets_of(**classes: tuple[str, ...]) -> JoinedSets:
    pictures = {
        name: PictureSet(name, Path(), {f"{name}{i}": Path() for i in range(3)}, dict.fromkeys(of, (f"{name}0",)))
        for name, of in classes.items()
    }
    return JoinedSets(pictures)


def test_absence_is_taken_from_sets_that_share_no_word():
    sets = sets_of(teeth_xray=("tooth",), strawberry_farm=("strawberry",), strawberries=("leaf",), rust=("pipe_rust",))
    episode = Episode("strawberry_farm/strawberry", ("strawberry_farm/strawberry_farm0",), "strawberry_farm/x")
    found = absent_across(sets, [episode] * 40, seed=0)
    assert {e.query.split("/")[0] for e in found} == {"teeth_xray", "rust"}
    assert {(e.name, e.supports) for e in found} == {(episode.name, episode.supports)}
    assert found == absent_across(sets, [episode] * 40, seed=0)


@pytest.mark.parametrize("name", ["street/person", "street/tree_trunk", "campus/white_walls", "car_panel/bonnet"])
def test_what_any_photo_may_show_is_never_absent(name):
    sets = sets_of(teeth=("tooth",), **{name.split("/")[0]: (name.split("/")[1],)})
    assert absent_across(sets, [Episode(name, ("a",), "b")], seed=0) == []


@pytest.fixture
def three_sets(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for name, classes in (("coco", ("dog", "cat")), ("coins", ("coin",)), ("teeth", ("tooth",))):
        for label in classes:
            for i in range(4):
                picture, mask = draw_scene(rng, (64, 80))
                for part in ("images", f"masks/{label}"):
                    (tmp_path / name / part).mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(tmp_path / name / "images" / f"{label}{i}.jpg")
                Image.fromarray(mask).save(tmp_path / name / "masks" / label / f"{label}{i}.png")
    return tmp_path


def test_several_sets_are_fitted_at_once(three_sets, tmp_path):
    torch.manual_seed(0)
    run, scores = tmp_path / "model.safetensors", tmp_path / "scores.json"
    save_checkpoint(IIR(replace(CONFIG, presence=False)), Preprocessing(size=96, support_size=64), run)
    output = output_of("calibrate", run, "--data", three_sets, "--episodes", 16, "--json", scores, "--device", "cpu")
    assert "fitted to 32 episodes" in output
    by_set = {each["name"]: each for each in json.loads(scores.read_text())["sets"]}
    assert {name: each["episodes"] for name, each in by_set.items()} == {"coco": 8, "coins": 4, "teeth": 4}
    assert all(f"{name} " in output for name in by_set)
    model = read_checkpoint(run).model
    assert model.config.evidence == len(EVIDENCE)
    assert model.decoder.scores.weight.shape == (2, len(EVIDENCE))
    assert [s.name for s in read_picture_sets(three_sets)] == ["coco", "coins", "teeth"]


def test_they_are_fitted_to_what_is_named_alone(three_sets, tmp_path):
    run, scores, listed = tmp_path / "model.safetensors", tmp_path / "scores.json", tmp_path / "listed.txt"
    listed.write_text("".join(f"coco/{label}{i}\n" for label in ("dog", "cat") for i in range(3)) + "teeth\n")
    save_checkpoint(IIR(replace(CONFIG, presence=False)), Preprocessing(size=96, support_size=64), run)
    output_of("calibrate", run, "--data", three_sets, "--only", listed, "--episodes", 8, "--json", scores)
    assert {each["name"] for each in json.loads(scores.read_text())["sets"]} == {"coco", "teeth"}


def test_a_complete_set_must_be_there(three_sets, tmp_path):
    run = tmp_path / "model.safetensors"
    save_checkpoint(IIR(replace(CONFIG, presence=False)), Preprocessing(size=96, support_size=64), run)
    output = output_of("calibrate", run, "--data", three_sets, "--complete", "cocoa", code=2)
    assert "--complete cocoa is no set; there are coco, coins, teeth." in output
