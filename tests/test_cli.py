"""The command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from iir_sdk.training import start
from tests.command import run
from tests.test_training import random_backbone  # noqa: F401


def test_help_names_every_command():
    code, output = run("--help")
    assert code == 0
    for command in ("demo", "train", "evaluate"):
        assert command in output
        assert run(command, "--help")[0] == 0


def test_version():
    code, output = run("--version")
    assert code == 0
    assert "0.1.0" in output


def test_demo_writes_the_sheet_and_the_table(small_checkpoint, tmp_path):
    code, output = run("demo", "--weights", small_checkpoint, "--out", tmp_path / "sheet.png", "--device", "cpu")
    assert code == 0
    for job in ("coins", "face", "mean"):
        assert job in output
    assert Image.open(tmp_path / "sheet.png").width == 1000


_SMALL_RECIPE = (
    "steps=2",
    "bank.views=48",
    "episodes.batch=2",
    "bank.label_size=32",
    "preprocessing.size=64",
    "pictures.view_size=64",
    "run.log_every=1",
    "model.backbone=test_efficientnet",
    "model.width=16",
    "model.blocks=1",
    "model.cross_blocks=1",
    "model.head_width=8",
)
SMALL = [word for setting in _SMALL_RECIPE for word in ("--set", setting)]


def test_train_then_evaluate(picture_folder, tmp_path, random_backbone):  # noqa: F811
    out = tmp_path / "run"
    code, output = run("train", "--data", picture_folder, "--out", out, "--workers", 0, "--exclude-fold", 3, *SMALL)
    assert code == 0, output
    assert "trained 2 steps" in output
    scores = tmp_path / "scores.json"
    coco = picture_folder / "coco"
    arguments = ("--weights", out, "--episodes", 4, "--device", "cpu", "--json", scores)
    code, output = run("evaluate", "--data", coco, "--fold", 3, *arguments)
    assert code == 0, output
    document = json.loads(scores.read_text())
    assert list(document["sets"][0]["per_class"]) == ["cat"]
    assert 0 <= document["mean_miou"] <= 1
    assert f"{100 * document['mean_miou']:.1f}" in output


def test_an_ablation_over_folds_trains_each_and_takes_their_mean(picture_folder, tmp_path, random_backbone):  # noqa: F811
    out, coco = tmp_path / "out", picture_folder / "coco"
    folds = ("--exclude-fold", 0, "--exclude-fold", 3, "--variant", "prior", "--episodes", 3)
    where = ("--data", picture_folder, "--test", coco, "--out", out, "--workers", 0, "--device", "cpu")
    code, _ = run("ablate", *where, *folds, *SMALL)
    assert code == 0
    [row] = json.loads((out / "ablation.json").read_text())["rows"]
    dog_in_fold_0, cat_in_fold_3 = row["miou_of_runs"]["fold0"], row["miou_of_runs"]["fold3"]
    assert row["miou"] == pytest.approx((dog_in_fold_0 + cat_in_fold_3) / 2)
    assert "| variant | mIoU | FB-IoU | mIoU, fold0 | mIoU, fold3 |" in (out / "ablation.md").read_text()
    for fold, kept in (("fold0", "cat"), ("fold3", "dog")):
        trained = json.loads((out / "prior" / fold / "data.json").read_text())["sets"]
        assert set(trained["coco"]) == {kept}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("evaluate", "--data", "/no/such/folder"), "a set is images/"),
        (("demo", "--weights", "giant"), "known names"),
        (("demo", "--out", "/no/such/folder/sheet.png"), "no folder"),
        (("demo", "--out", "sheet"), "suffix"),
        (("train", "no.toml", "--data", ".", "--out", "."), "no recipe"),
    ],
)
def test_errors_are_one_line_without_a_traceback(arguments, reason):
    code, output = run(*arguments)
    assert code == 1
    assert output.splitlines()[-1].startswith("Error: ")
    assert reason in output
    assert "Traceback" not in output


def test_the_default_recipe_travels_with_the_package():
    assert (Path(start.__file__).parent / "recipes/duo.toml").is_file()
