"""Training that starts from a checkpoint: its architecture, its weights, and what the run says of its origin."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from iir_sdk import FewShotSegmenter
from iir_sdk.errors import ConfigError, DatasetError
from iir_sdk.model.iir import IIR
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.training import start
from iir_sdk.training.config import TrainingConfig, find_recipe
from iir_sdk.training.fine_tuning import read_fine_tuning, started_from
from iir_sdk.training.start import TrainedParts, build_trainer
from iir_sdk.weights.checkpoint_file import Checkpoint, read_checkpoint, save_checkpoint
from iir_sdk.weights.resolve import load_checkpoint
from tests.command import output_of
from tests.test_presence import CONFIG

SHORT = ("--set", "steps=4", "--set", "run.save_every=2", "--set", "run.log_every=1", "--set", "bank.views=12")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("init") / "mine.safetensors"
    save_checkpoint(IIR(CONFIG), Preprocessing(size=96, support_size=64, mean=(0.5, 0.4, 0.5)), path)
    return path


@pytest.fixture
def init(weights: Path) -> Checkpoint:
    return read_checkpoint(weights)


@pytest.fixture(autouse=True)
def _no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the backbone's weights are the checkpoint's")

    monkeypatch.setattr(start, "load_backbone_weights", refuse)


def recipe(init: Checkpoint, *overrides: str, name: str = "finetune") -> TrainingConfig:
    return read_fine_tuning(find_recipe(name), overrides, init)


def test_architecture_preprocessing_and_crops_are_the_weights_own(init):
    config = recipe(init)
    assert (config.model, config.preprocessing) == (CONFIG, init.preprocessing)
    assert (config.pictures.view_size, config.bank.label_size) == (64, 32)
    assert not config.episodes.ask_for_regions
    chosen = recipe(init, "pictures.view_size=96", "model.dropout=0.3", "model.width=8")
    assert (chosen.pictures.view_size, chosen.bank.label_size, chosen.model.dropout) == (96, 48, 0.3)
    embedded = recipe(load_checkpoint("iir-duo"))
    assert (embedded.pictures.view_size, embedded.bank.label_size) == (384, 192)


@pytest.mark.parametrize("name", ["finetune", "lite0", "pascal"])
def test_a_recipe_that_contradicts_is_refused_and_the_cure_works(init, name):
    with pytest.raises(ConfigError, match=r"model.width=24.*'mine', the weights of --init") as refused:
        recipe(init, "model.width=24", "preprocessing.size=128", name=name)
    cure = re.findall(r"--set (\S+)", str(refused.value))
    assert recipe(init, "model.width=24", "preprocessing.size=128", *cure, name=name).model.width == 8


def test_the_network_begins_as_the_checkpoint_and_does_not_change_it(init):
    model = started_from(init, recipe(init))
    state = init.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad for p in model.decoder.parameters())
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    assert any(not torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_it_trains_without_cutouts_says_what_it_is_of_and_goes_on(weights, picture_folder, tmp_path):
    run, init = tmp_path / "run", read_checkpoint(weights)
    data = picture_folder / "coins"
    command = ("train", "--init", weights, "--data", data, "--out", run, "--device", "cpu", "--workers", 0, *SHORT)
    output = output_of(*command)
    note = re.search(r"iir-sdk (calibrate .*)", output)
    assert note
    assert note[1].split() == ["calibrate", str(run), "--data", str(data)]
    kept = json.loads((run / "recipe.json").read_text())
    assert (kept["steps"], kept["bank"]["views"], kept["model"]["presence"]) == (4, 12, True)
    assert json.loads((run / "data.json").read_text())["parts"] == {"init": init.sha256}
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    before, after = init.model.state_dict(), load_checkpoint(run).model.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed
    assert all(name.startswith("decoder.") for name in changed)
    assert not [name for name in changed if name.startswith("decoder.scores")]
    segmenter = FewShotSegmenter(run, device="cpu")
    words = f"Fine-tuned from mine (sha256 {init.sha256}, licence not stated) for 4 steps on coins."
    assert segmenter.checkpoint.entry.description == words
    segmenter.save_pretrained(tmp_path / "saved")
    assert words in (tmp_path / "saved" / "README.md").read_text()
    assert FewShotSegmenter(tmp_path / "saved", device="cpu").checkpoint.entry.description == words
    assert "trained 4 steps" in output_of(*command, "--resume")


def test_a_run_is_resumed_from_the_same_weights_only(weights, init, picture_folder, tmp_path):
    config = recipe(init, "steps=2", "bank.views=12", "run.save_every=1")
    build_trainer(config, picture_folder / "coins", tmp_path, parts=TrainedParts(init=init), workers=0).run()
    torch.manual_seed(1)
    save_checkpoint(IIR(CONFIG), init.preprocessing, tmp_path / "others.safetensors")
    others = TrainedParts(init=read_checkpoint(tmp_path / "others.safetensors"))
    with pytest.raises(ConfigError, match=r"data.json differs"):
        build_trainer(config, picture_folder / "coins", tmp_path, parts=others, workers=0).run(resume=True)


def test_a_fitted_head_keeps_the_words(weights, picture_folder, tmp_path):
    words = "Fine-tuned from something else."
    file = tmp_path / "model.safetensors"
    checkpoint = read_checkpoint(weights)
    save_checkpoint(checkpoint.model, checkpoint.preprocessing, file, words)
    output_of("calibrate", file, "--data", picture_folder / "coco", "--episodes", 4)
    assert read_checkpoint(file).entry.description == words


def test_a_bank_for_such_runs_is_filled_with_the_same_backbone(weights, picture_folder, tmp_path):
    of_both = ("--init", weights, "--data", picture_folder / "coins", "--workers", 0, "--device", "cpu", *SHORT)
    output_of("bank", *of_both, "--out", tmp_path / "bank")
    output_of("train", *of_both, "--bank", tmp_path / "bank", "--out", tmp_path / "run")


def test_weights_that_have_all_parts_take_no_others(init, picture_folder, tmp_path):
    for parts in (TrainedParts(classifier=tmp_path / "c", init=init), TrainedParts(tmp_path / "b", init=init)):
        with pytest.raises(ConfigError, match="leave out --backbone-weights"):
            build_trainer(recipe(init), picture_folder, tmp_path / "run", parts=parts)


def test_a_base_learner_is_refused(init, picture_folder, tmp_path):
    model = IIR(replace(CONFIG, base_classes=3))
    save_checkpoint(model, init.preprocessing, tmp_path / "based.safetensors")
    based = read_checkpoint(tmp_path / "based.safetensors")
    with pytest.raises(ConfigError, match="base learner, which knows 3 classes"):
        build_trainer(recipe(based), picture_folder, tmp_path / "run", parts=TrainedParts(init=based))


def test_too_few_pictures_for_two_shots_have_a_cure(init, picture_folder, tmp_path):
    only = tuple(f"coins/coin{i}" for i in range(2))
    build = {"parts": TrainedParts(init=init), "workers": 0, "only": only}
    settings = ("bank.views=6", "steps=8", "bank.paste=0")
    with pytest.raises(DatasetError, match="ask for fewer shots") as refused:
        build_trainer(recipe(init, *settings), picture_folder, tmp_path / "run", **build).run()
    cure = re.findall(r"--set ([^\s)]+)", str(refused.value))
    build_trainer(recipe(init, *settings, *cure), picture_folder, tmp_path / "cured", **build).run()
