"""The table over COCO's folds: what is scored already is read, and the mean is the folds' own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from iir_sdk import FewShotSegmenter, weights_info
from iir_sdk.model.iir import IIR
from iir_sdk.training.config import find_recipe, read_recipe
from iir_sdk.weights.checkpoint_file import save_checkpoint
from iir_sdk.weights.resolve import embedded_file
from tests.test_speed_report import script


@pytest.fixture(scope="module")
def folds() -> ModuleType:
    return script("folds")


def write_scores(run: Path, one: float, five: float) -> None:
    run.mkdir()
    absent = {"auroc": 0.9, "ece": 0.03, "confidence_ece": 0.06}
    for name, entry in (("1shot", mious(one)), ("5shot", mious(five)), ("absent", absent)):
        (run / f"{name}.json").write_text(json.dumps({"sets": [{"name": "coco", **entry}]}), encoding="utf-8")


def mious(mean: float) -> dict[str, float]:
    return {"miou": mean, "miou_std": 0.01}


def test_the_mean_is_over_folds(folds, tmp_path):
    write_scores(tmp_path / "fold0", 0.30, 0.40)
    write_scores(tmp_path / "fold1", 0.40, 0.60)
    rows = {fold: folds.row(tmp_path / f"fold{fold}") for fold in (0, 1)}
    table = folds.table(rows)
    assert "| 0 | 30.0 +- 1.0 | 40.0 +- 1.0 | 0.900 | 0.030 | 0.060 |" in table
    assert "| mean | 35.0 | 50.0 | 0.900 | 0.030 | 0.060 |" in table


def test_what_is_scored_is_not_trained_again_and_what_is_missing_is_asked_for(folds, tmp_path, monkeypatch):
    asked: list[list[str]] = []
    monkeypatch.setattr(folds, "iir_sdk", lambda words, standalone_mode: asked.append(words))
    write_scores(tmp_path / "fold0", 0.30, 0.40)
    folds.score_fold(0, ["duo"], tmp_path / "coco", tmp_path / "fold0", "auto")
    assert asked == []
    (tmp_path / "fold0" / "5shot.json").unlink()
    folds.score_fold(0, ["duo"], tmp_path / "coco", tmp_path / "fold0", "auto")
    assert [words[0] for words in asked] == ["train", "calibrate", "evaluate"]
    assert {"--resume", "--exclude-fold"} <= set(asked[0])
    assert asked[2][asked[2].index("--shots") + 1] == "5"


def test_a_calibrated_run_is_only_scored(folds, tmp_path, monkeypatch):
    asked: list[list[str]] = []
    monkeypatch.setattr(folds, "iir_sdk", lambda words, standalone_mode: asked.append(words))
    run = tmp_path / "fold0"
    run.mkdir()
    shutil.copy(embedded_file(weights_info("iir-lite0")), run / "model.safetensors")
    folds.score_fold(0, ["duo"], tmp_path / "coco", run, "auto")
    assert [words[0] for words in asked] == ["evaluate"] * 3


def test_weights_that_are_not_calibrated_are_calibrated(folds, tmp_path, monkeypatch):
    asked: list[list[str]] = []
    monkeypatch.setattr(folds, "iir_sdk", lambda words, standalone_mode: asked.append(words))
    run = tmp_path / "fold0"
    run.mkdir()
    segmenter = FewShotSegmenter("iir-lite0", device="cpu")
    config = replace(segmenter.model.config, presence=False)
    save_checkpoint(IIR(config), segmenter.preprocessing, run / "model.safetensors")
    folds.score_fold(0, ["duo"], tmp_path / "coco", run, "auto")
    assert [words[0] for words in asked] == ["calibrate", *["evaluate"] * 3]


def test_folds_that_are_trained_need_no_bank_and_others_say_so(folds, tmp_path, monkeypatch):
    asked: list[list[str]] = []
    monkeypatch.setattr(folds, "iir_sdk", lambda words, standalone_mode: asked.append(words))
    for fold in (0, 1):
        write_scores(tmp_path / f"fold{fold}", 0.30, 0.40)
        shutil.copy(embedded_file(weights_info("iir-lite0")), tmp_path / f"fold{fold}" / "model.safetensors")
        (tmp_path / f"fold{fold}" / "5shot.json").unlink()
    given = ["duo", "--data", str(tmp_path), "--out", str(tmp_path)]
    result = CliRunner().invoke(folds.main, [*given, "--fold", "0", "--fold", "1", "--fold", "2"])
    assert result.exit_code == 2
    assert "fold2 is not trained: pass --bank" in result.output
    CliRunner().invoke(folds.main, [*given, "--fold", "0", "--fold", "1"])
    assert asked[0][0] == "evaluate"


def test_a_run_of_another_recipe_is_refused_and_one_from_before_a_key_is_not(folds, tmp_path):
    config = read_recipe(find_recipe("duo"))
    kept = config.to_dict()
    del kept["episodes"]["accumulate"]
    (tmp_path / "recipe.json").write_text(json.dumps(kept), encoding="utf-8")
    folds.check_recipe(tmp_path, config)
    with pytest.raises(click.UsageError, match="name another --out"):
        folds.check_recipe(tmp_path, replace(config, steps=5))


def test_nothing_is_trained_before_all_recipes_are_checked(folds, tmp_path, monkeypatch):
    monkeypatch.setattr(folds, "iir_sdk", lambda words, standalone_mode: pytest.fail(words[0]))
    other = read_recipe(find_recipe("duo"), ("convention=filtered", "steps=5"))
    (tmp_path / "fold3").mkdir()
    (tmp_path / "fold3" / "recipe.json").write_text(json.dumps(other.to_dict()), encoding="utf-8")
    given = ["--data", str(tmp_path), "--bank", str(tmp_path / "bank"), "--out", str(tmp_path)]
    for options, reason in (((), "name another --out"), (("--set", "stepz=3"), "unknown key 'stepz'")):
        result = CliRunner().invoke(folds.main, [*given, *options])
        assert result.exit_code == 2
        assert reason in result.output
