"""Numbers that no training can go by are refused before it begins, by the key's name."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

from iir_sdk.cli.main import main
from iir_sdk.data.folder import join_sets, read_picture_sets
from iir_sdk.errors import ConfigError
from iir_sdk.model.towers import build_backbone
from iir_sdk.training import start
from iir_sdk.training.config import TrainingConfig, find_recipe, read_recipe
from iir_sdk.training.pretrain import adapt_classifier, pretrain_base_learner
from tests.test_loop import PICTURES

NUMBERS = [name for name, value in TrainingConfig().settings().items() if isinstance(value, float)]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_of_a_recipe_may_be_nan_or_infinite(name, value):
    with pytest.raises(ConfigError, match=name.split(".")[-1]):
        read_recipe(find_recipe("duo"), [f"{name}={value}"])


@pytest.mark.parametrize("value", ["[nan, 1.1]", "[0.9, inf]"])
def test_nor_may_one_of_a_list(value):
    with pytest.raises(ConfigError, match=r"pictures\.scale="):
        read_recipe(find_recipe("duo"), [f"pictures.scale={value}"])


@pytest.mark.parametrize("name", ["optimiser.learning_rate", "optimiser.gradient_clip"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_the_key_and_its_value_are_named(name, value):
    with pytest.raises(ConfigError, match=rf"{name}={value} must be"):
        PICTURES.changed({name: value})


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("bank.cutout_classes=-1", "bank.cutout_classes=-1 must be an integer of at least 0"),
        ("seed=-1", r"seed=-1 must be an integer in \[0, "),
        ("seed=99999999999999999999", r"seed=99999999999999999999 must be .* 4294967295\]"),
    ],
)
def test_whole_numbers_that_no_run_can_go_by(override, reason):
    with pytest.raises(ConfigError, match=reason):
        read_recipe(find_recipe("duo"), [override])


@pytest.mark.parametrize("train", [adapt_classifier, pretrain_base_learner])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"steps": 1, "learning_rate": float("nan")}, "learning_rate=nan must be a finite number above 0"),
        ({"steps": 1, "learning_rate": float("inf")}, "learning_rate=inf"),
        ({"steps": 1, "learning_rate": 0.0}, "learning_rate=0.0"),
    ],
)
def test_parts_are_not_trained_by_them_either(train, options, reason, picture_folder):
    backbone = build_backbone("test_efficientnet")
    with pytest.raises(ConfigError, match=reason):
        train(backbone, join_sets(read_picture_sets(picture_folder)), PICTURES, device=torch.device("cpu"), **options)


def test_fewer_than_no_workers(picture_folder, tmp_path):
    calls = (
        lambda: start.build_trainer(PICTURES, picture_folder, tmp_path / "run", workers=-1),
        lambda: start.fill_bank(TrainingConfig(), picture_folder, tmp_path / "b.safetensors", workers=-1),
        lambda: start.run_pretraining("classifier", PICTURES, picture_folder, tmp_path / "c", steps=1, workers=-1),
    )
    for call in calls:
        with pytest.raises(ConfigError, match="workers=-1 must be at least 0"):
            call()


@pytest.mark.parametrize(
    "arguments",
    [
        ["pretrain", "--part", "classifier", "--out", "c.safetensors", "--workers", "-1"],
        ["pretrain", "--part", "classifier", "--out", "c.safetensors", "--steps", "0"],
        ["bank", "--out", "b.safetensors", "--workers", "-1"],
        ["train", "--out", "run", "--workers", "-1"],
        ["train", "--out", "run", "--set", "optimiser.learning_rate=nan"],
        ["ablate", "--out", "runs", "--steps", "0"],
        ["ablate", "--out", "runs", "--workers", "-1"],
        ["evaluate", "--shots", "0"],
        ["evaluate", "--episodes", "0"],
        ["evaluate", "--min-share", "nan"],
        ["evaluate", "--token-budget", "0"],
    ],
    ids=" ".join,
)
def test_commands_name_the_option_or_the_key(arguments, picture_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, [*arguments, "--data", str(picture_folder)])
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit), result.exception
    name = arguments[-1].split("=")[0] if arguments[-2] == "--set" else arguments[-2]
    assert name.strip("-").replace("-", "_") in result.output.replace("-", "_")
