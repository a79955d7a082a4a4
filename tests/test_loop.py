"""The loop: the same run whether it was stopped, resumed, or shared by processes; numbers that go wrong; validation."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iir_sdk import FewShotSegmenter
from iir_sdk.data.dataset import IGNORE, source_of
from iir_sdk.data.episodes import sample_episodes
from iir_sdk.data.folder import join_sets, read_picture_set, read_picture_sets
from iir_sdk.errors import ConfigError, DatasetError, MissingDependencyError, TrainingError
from iir_sdk.model.backbone import Taps
from iir_sdk.training import start
from iir_sdk.training.bank.views import ViewMaker
from iir_sdk.training.config import TrainingConfig
from iir_sdk.training.episode_pictures import EpisodePictures, EpisodeStream
from iir_sdk.training.run.loop import Trainer
from iir_sdk.training.run.step import EpisodeBatch, TrainingStep, batch_iou, known_share
from iir_sdk.training.sources import BankSource
from tests.benchmark_trees import pascal_tree
from tests.test_training import TINY, random_backbone  # noqa: F401

MODEL = replace(TINY.model, backbone="test_efficientnet", dropout=0.1)
BANK = TINY.changed(
    {
        "model": MODEL,
        "steps": 20,
        "run.save_every": 10,
        "run.log_every": 1,
        "bank.views": 20,
        "run.precision": "float32",
    }
)
PICTURES = replace(BANK, source="pictures")


def build(config: TrainingConfig, data: Path, folder: Path, **more: object) -> Trainer:
    return start.build_trainer(config, data, folder, device="cpu", workers=0, **more)  # type: ignore[arg-type]


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    own = {f"decoder.{n}": t for n, t in trainer.model.decoder.state_dict().items()}
    return own | {f"average.{n}": t for n, t in trainer.average.state_dict().items()}


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "config",
    [BANK, BANK.changed({"run.precision": "bfloat16"}), PICTURES],
    ids=["bank", "bf16", "pictures"],
)
def test_twenty_steps_are_ten_and_ten_more_to_the_last_bit(config, picture_folder, tmp_path, random_backbone):  # noqa: F811
    whole = build(config, picture_folder, tmp_path / "whole")
    whole.run()
    stopped = build(config, picture_folder, tmp_path / "parts")
    one_step = stopped._one_step

    def stop_at_fifteen(batches: object) -> tuple[float, float]:
        if stopped.step == 15:
            raise KeyboardInterrupt
        return one_step(batches)  # type: ignore[arg-type]

    stopped._one_step = stop_at_fifteen  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = build(config, picture_folder, tmp_path / "parts")
    resumed.run(resume=True)
    assert resumed.step == 20
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
    by_step = {line["step"]: line["loss"] for line in resumed.folder.lines()}
    assert by_step == {line["step"]: line["loss"] for line in lines(tmp_path / "whole")}
    assert (tmp_path / "parts" / "curve.png").stat().st_size > 5000


def test_two_processes_are_one_with_twice_the_batch(picture_folder, tmp_path, random_backbone):  # noqa: F811
    """Tolerance 0.1 %: each process's mean is over its own known pixels, and their number differs a little."""
    config = PICTURES.changed(
        {"episodes.batch": 4, "steps": 6, "episodes.shots": (1,), "model": replace(MODEL, dropout=0.0)}
    )
    build(config, picture_folder / "coins", tmp_path / "one").run()
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(config.changed({"episodes.batch": 2}).to_dict()))
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(script)]
    arguments = [str(recipe), str(picture_folder / "coins"), str(tmp_path / "two")]
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        command + arguments,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (np.array([line["loss"] for line in lines(tmp_path / count)]) for count in ("one", "two"))
    assert len(one) == len(two) == 6
    np.testing.assert_allclose(one, two, rtol=1e-3)
    assert len(set(one.tolist())) > 1


SHARED = """
import json, sys
from pathlib import Path
import pytest
from iir_sdk.training import start
from iir_sdk.training.config import TrainingConfig
from iir_sdk.training.run.processes import joined_processes
from tests.test_training import random_weights

start.load_backbone_weights = random_weights
config = TrainingConfig.from_dict(json.loads(Path(sys.argv[1]).read_text()))
data, out = Path(sys.argv[2]), Path(sys.argv[3])
with joined_processes("cpu") as processes:
    assert processes.count == 2
    trainer = start.build_trainer(config, data, out, device="cpu", workers=0, processes=processes)
    trainer.run()
    trainer.export()
"""


def test_accumulated_batches_are_one_larger_batch(picture_folder, tmp_path, random_backbone):  # noqa: F811
    config = PICTURES.changed({"steps": 3, "episodes.shots": (1,), "model": replace(MODEL, dropout=0.0)})
    one = build(config.changed({"episodes.batch": 4}), picture_folder / "coins", tmp_path / "one")
    two = build(
        config.changed({"episodes.batch": 2, "episodes.accumulate": 2}), picture_folder / "coins", tmp_path / "two"
    )
    for trainer in (one, two):
        trainer.run()
    losses = [np.array([line["loss"] for line in lines(tmp_path / name)]) for name in ("one", "two")]
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_a_loss_that_is_no_number_stops_and_keeps_the_batch(picture_folder, tmp_path, random_backbone):  # noqa: F811
    trainer = build(replace(PICTURES, steps=4), picture_folder, tmp_path / "run")
    with torch.no_grad():
        trainer.model.decoder.query_start.weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"loss of step 0 is nan.*failed_batch_0\.pt.*learning_rate"):
        trainer.run()
    kept = torch.load(tmp_path / "run" / "failed_batch_0.pt", weights_only=True)
    assert kept["batch"]["target"].shape == (2, 64, 64)
    assert not (tmp_path / "run" / "last.pt").exists()


def test_the_best_validated_weights_are_exported(picture_folder, tmp_path, random_backbone):  # noqa: F811
    config = PICTURES.changed({"steps": 6, "run.validate_every": 2, "run.validate_episodes": 4})
    with pytest.raises(ConfigError, match="--validation"):
        build(config, picture_folder, tmp_path / "none")
    trainer = build(config, picture_folder, tmp_path / "run", validation=picture_folder / "coins")
    scores = iter([0.2, 0.5, 0.3])
    states = []

    def score(model: torch.nn.Module) -> float:
        states.append({n: t.clone() for n, t in model.decoder.state_dict().items()})
        return next(scores)

    trainer.validate = score
    trainer.run()
    assert [line["validation_miou"] for line in trainer.folder.lines() if "validation_miou" in line] == [0.2, 0.5, 0.3]
    loaded = FewShotSegmenter(trainer.export(), device="cpu").model.decoder.state_dict()
    for name, tensor in states[1].items():
        torch.testing.assert_close(loaded[name], tensor, atol=1e-3, rtol=1e-3)


def test_a_benchmark_is_not_validated_on_the_episodes_that_score_it(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(start, "draw_episodes", lambda pictures, protocol: drawn.append((pictures, protocol)))
    config = PICTURES.changed({"dataset": "pascal", "run.validate_every": 2})
    assert start._scorer(config, pascal_tree(tmp_path), tmp_path, None, "cpu") is not None
    ((pictures, protocol),) = drawn
    assert pictures.classes == {"bird": ("c",), "boat": ("v",)}
    assert not set(protocol.seeds) & set(range(1000))


def test_a_real_validation_gives_a_score(picture_folder, tmp_path, random_backbone):  # noqa: F811
    config = PICTURES.changed({"steps": 2, "run.validate_every": 2, "run.validate_episodes": 4})
    trainer = build(config, picture_folder, tmp_path / "run", validation=picture_folder)
    trainer.run()
    assert 0 <= trainer.best <= 1
    assert [p.name for p in (tmp_path / "run").iterdir() if p.is_dir()] == []


def test_matplotlib_is_asked_for_before_the_first_step(picture_folder, tmp_path, random_backbone, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match="train"):
        build(PICTURES, picture_folder, tmp_path / "run").run()


# Episodes of pictures


def stream(picture_folder: Path, changes: dict[str, object] | None = None) -> EpisodeStream:
    config = PICTURES.changed(changes or {})
    return EpisodeStream(join_sets(read_picture_sets(picture_folder)), config, group=config.episodes.batch)


def same(one: EpisodePictures, two: EpisodePictures) -> bool:
    return one.own_class == two.own_class and all(torch.equal(a, b) for a, b in zip(one[:4], two[:4], strict=True))


def test_an_episode_is_fixed_by_seed_epoch_and_number(picture_folder):
    one, two = stream(picture_folder), stream(picture_folder)
    for number in (0, 7, 25):
        torch.manual_seed(number)
        assert same(one[number], two[number])
    assert not torch.equal(one[0].query, stream(picture_folder, {"seed": 1})[0].query)
    before = torch.random.get_rng_state()
    _ = one[3]
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_same_episodes_come_from_any_number_of_workers(picture_folder):
    episodes = stream(picture_folder)
    numbers = [[0, 1], [2, 3], [4, 5]]
    found = []
    for workers in (0, 2):
        loader = torch.utils.data.DataLoader(episodes, batch_sampler=numbers, num_workers=workers, collate_fn=list)
        found.append([e for batch in loader for e in batch])
    assert all(same(a, b) for a, b in zip(*found, strict=True))


def test_an_epoch_takes_every_picture_once_and_no_picture_supports_itself(picture_folder, monkeypatch):
    episodes = stream(picture_folder)
    asked: list[tuple[str, str]] = []

    def pair(name: str, key: str) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append((name, key))
        return torch.zeros(3, 4, 4), torch.zeros(4, 4)

    monkeypatch.setattr(episodes, "_pair", pair)
    queries = []
    for number in range(episodes.epoch_length):
        asked.clear()
        _ = episodes[number]
        queries.append(asked[-1][1])
        assert asked[-1][1] not in {key for _, key in asked[:-1]}
        assert len({key for _, key in asked}) == len(asked)
    assert sorted(queries) == sorted(episodes.queries)
    assert queries != episodes.queries


def test_a_batch_has_equally_many_shots(picture_folder):
    episodes = stream(picture_folder, {"episodes.shots": (1, 2, 3), "episodes.batch": 4})
    shots = [[len(episodes[4 * step + i].support) for i in range(4)] for step in range(8)]
    assert all(len(set(of_batch)) == 1 for of_batch in shots)
    assert len({of_batch[0] for of_batch in shots}) > 1


def test_supports_show_their_object_and_borders_are_ignored(picture_folder, monkeypatch):
    monkeypatch.setattr("iir_sdk.training.object_crop._LARGEST_ANGLE", 40.0)
    episodes = stream(picture_folder, {"pictures.scale": (0.5, 0.6)})
    for number in range(12):
        episode = episodes[number]
        assert all((mask == 1).any() for mask in episode.support_mask)
        # Shrunk pictures are padded, and what lies outside counts nowhere.
        assert (episode.target == IGNORE).any()
        assert set(episode.target.unique().tolist()) <= {0, 1, IGNORE}


def test_too_few_pictures_for_the_shots(picture_folder):
    with pytest.raises(DatasetError, match="has the 10 pictures"):
        stream(picture_folder, {"episodes.shots": (9,)})


# Ignored pixels


@pytest.fixture
def with_borders(picture_folder, tmp_path) -> Path:
    """A set whose masks are 1 on the object, 255 on a stripe and 0 elsewhere."""
    for i in range(4):
        for kind in ("images", "masks/thing"):
            (tmp_path / "bordered" / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((60, 60, 3), 40 * i, np.uint8)).save(tmp_path / f"bordered/images/p{i}.png")
        mask = np.zeros((60, 60), np.uint8)
        mask[10:40, 10:40], mask[:, 50:] = 1, 255
        Image.fromarray(mask).save(tmp_path / f"bordered/masks/thing/p{i}.png")
    return tmp_path / "bordered"


def test_255_beside_another_value_is_ignore_and_alone_it_is_foreground(with_borders, picture_folder):
    mask = read_picture_set(with_borders).mask("thing", "p0")
    assert (mask == 1).sum() == 900
    assert (mask[:, 50:] == IGNORE).all()
    assert set(np.unique(read_picture_set(picture_folder / "coins").mask("coin", "coin0"))) == {0, 1}


def test_ignored_pixels_stay_ignored_in_the_bank_and_in_the_loss(with_borders):
    config = BANK.changed({"bank.paste": 0.0, "bank.views": 12})
    maker = ViewMaker([read_picture_set(with_borders)], [], config)
    backbone = start.IIR(config.model).backbone
    bank = BankSource(maker, backbone, config, device=torch.device("cpu"), workers=0).bank()
    values = {v for slot in range(12) for v in np.unique(bank.mask(slot, ("bordered", "thing"))).tolist()}
    assert values == {0, 1, IGNORE}
    target = torch.tensor([[[0, 1], [IGNORE, IGNORE]]])
    assert known_share(target, (1, 2)).tolist() == [[[0.0, 1.0]]]
    assert known_share(torch.full((1, 2, 2), IGNORE), (1, 1)).tolist() == [[[-1.0]]]


def test_ignored_pixels_of_supports_are_no_background():
    """Changing what lies under them changes neither the loss nor any gradient but through the backbone's view."""
    torch.manual_seed(0)
    model = start.IIR(replace(MODEL, dropout=0.0)).train()
    taps = [torch.rand(2, c, s, s) for c, s in zip(model.backbone.channels, (8, 4, 2), strict=True)]
    support, query = (Taps(*(t[i : i + 1] for t in taps)) for i in (0, 1))
    target = torch.zeros(1, 64, 64, dtype=torch.int64)
    target[:, 16:32, 16:32] = 1
    ignored, background = target.clone(), target.clone()
    ignored[:, 32:] = IGNORE
    losses = {}
    for name, of_support in (("ignored", ignored), ("background", background)):
        step = TrainingStep(model, PICTURES)
        losses[name] = float(step(EpisodeBatch(support, of_support, query, target, 1))[0].detach())
    assert losses["ignored"] != losses["background"]
    with torch.no_grad():
        foreground, known = (ignored == 1)[:, None].float(), (ignored != IGNORE)[:, None].float()
        state = model.encode_support_taps(support, foreground, 1, 1, known).state
        low = support.low[0, :, :4]
        weight = 1 - foreground[0, 0].reshape(8, 8, 8, 8).mean((1, 3))[:4]
        expected = (low * weight).sum((1, 2)) / weight.sum()
    torch.testing.assert_close(state.low.background[0, 0], expected / expected.norm())


def test_crops_of_one_picture_never_meet():
    keys = {"thing": tuple(f"p{i}#{j}" for i in range(3) for j in range(4))}
    episodes = EpisodeStream(Crops(keys), PICTURES.changed({"episodes.shots": (2,)}), group=1)
    for number in range(episodes.epoch_length):
        query = episodes.queries[episodes._order(0)[number]]
        supports = episodes._supports("thing", query, 2, random.Random(number))
        assert len({source_of(k) for k in (query, *supports)}) == 3
    for episode in sample_episodes(keys, shots=2, count=50, seed=0):
        assert len({source_of(k) for k in (episode.query, *episode.supports)}) == 3
    with pytest.raises(DatasetError, match="4 pictures"):
        sample_episodes(keys, shots=3, count=1, seed=0)


@dataclass
class Crops:
    classes: dict[str, tuple[str, ...]]
    name: str = "crops"

    def picture(self, key: str) -> np.ndarray:
        raise NotImplementedError

    def mask(self, name: str, key: str) -> np.ndarray:
        raise NotImplementedError


def test_a_run_is_not_resumed_with_other_parts_or_processes(picture_folder, tmp_path, random_backbone):  # noqa: F811
    config = replace(PICTURES, steps=2)
    build(config, picture_folder, tmp_path / "run").run()
    other = build(replace(config), picture_folder, tmp_path / "run")
    other.folder.contents = {**other.folder.contents, "processes": 4}
    with pytest.raises(ConfigError, match=r"data\.json differs"):
        other.run(resume=True)


def test_a_run_from_before_a_key_was_there_is_resumed_and_one_of_another_value_is_not(
    picture_folder,
    tmp_path,
    random_backbone,  # noqa: F811
):
    config = replace(PICTURES, steps=2)
    build(config, picture_folder, tmp_path / "run").run()
    recipe = tmp_path / "run" / "recipe.json"
    kept = json.loads(recipe.read_text())
    del kept["episodes"]["shared_regions"]
    recipe.write_text(json.dumps(kept))
    build(config, picture_folder, tmp_path / "run").run(resume=True)
    assert json.loads(recipe.read_text())["episodes"]["shared_regions"] == 0.0
    with pytest.raises(ConfigError, match=r"recipe\.json differs"):
        build(config.changed({"optimiser.dice": 0.5}), picture_folder, tmp_path / "run").run(resume=True)
    recipe.write_text(json.dumps(kept | {"a_key_that_is_gone": 1}))
    with pytest.raises(ConfigError, match=r"recipe\.json differs"):
        build(config, picture_folder, tmp_path / "run").run(resume=True)


def test_the_logs_iou_leaves_ignored_pixels_out():
    target = torch.tensor([[[1, 1], [IGNORE, 0]]])
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1] = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    assert batch_iou(logits, target) == pytest.approx(0.5)


def test_a_benchmarks_fold_is_the_recipes_and_not_left_out_by_classes(tmp_path):
    config = replace(PICTURES, dataset="pascal")
    with pytest.raises(ConfigError, match="--set fold=F in place of --exclude-fold"):
        start.build_trainer(config, tmp_path, tmp_path / "run", novel=("cat",), device="cpu", workers=0)
