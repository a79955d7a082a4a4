"""The loop on a tiny folder: it learns, it resumes, every parameter that should learn does."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iir_sdk import FewShotSegmenter
from iir_sdk.data.dataset import CUTOUT_SET
from iir_sdk.data.episodes import Episode
from iir_sdk.data.folder import read_picture_set, read_picture_sets
from iir_sdk.errors import ConfigError, DatasetError, DatasetNotFoundError, IirError
from iir_sdk.evaluation.evaluate import Evaluator, Protocol, evaluate_set
from iir_sdk.model.backbone import Backbone
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.iir import IIR
from iir_sdk.model.towers import build_backbone
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.training import start
from iir_sdk.training.bank.augment import Augmented, paste, random_view
from iir_sdk.training.bank.features import FeatureBank
from iir_sdk.training.bank.stream import stream_views
from iir_sdk.training.bank.views import ViewMaker, read_cutouts
from iir_sdk.training.config import (
    BankSettings,
    EpisodeSettings,
    OptimiserSettings,
    PictureSettings,
    RunSettings,
    TrainingConfig,
    read_recipe,
)
from iir_sdk.training.run.loop import Trainer
from iir_sdk.training.run.step import EpisodeBatch, TrainingStep, frozen_taps
from iir_sdk.training.sources import BankSource, _bank_batch, _episode

TINY = TrainingConfig(
    steps=6,
    model=ModelConfig(width=16, blocks=2, cross_blocks=1, heads=2, head_width=8, dropout=0.0),
    preprocessing=Preprocessing(size=64, support_size=64),
    bank=BankSettings(views=24, label_size=32),
    pictures=PictureSettings(view_size=64),
    episodes=EpisodeSettings(batch=2, shots=(1, 2)),
    optimiser=OptimiserSettings(warmup=1),
    run=RunSettings(log_every=2, save_every=3),
)


@pytest.fixture(scope="module")
def cutouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cutouts")
    for name, colour in (("star", (255, 0, 0)), ("moon", (0, 255, 0)), ("cat", (0, 0, 255))):
        rgba = np.zeros((30, 40, 4), np.uint8)
        rgba[5:25, 5:35] = (*colour, 255)
        Image.fromarray(rgba).save(root / f"{name}.webp", lossless=True)
    return root


@pytest.fixture
def bank(picture_folder: Path, cutouts: Path) -> FeatureBank:
    return filled(ViewMaker(read_picture_sets(picture_folder), read_cutouts(cutouts), TINY))


def filled(maker: ViewMaker) -> FeatureBank:
    torch.manual_seed(0)
    source = BankSource(maker, IIR(TINY.model).backbone, maker.config, device=torch.device("cpu"), workers=0)
    return source.bank()


def draw_batch(bank: FeatureBank, shots: int, seed: int) -> EpisodeBatch:
    rng = random.Random(seed)
    episodes = [_episode(bank, None, shots, rng) for _ in range(TINY.episodes.batch)]
    return _bank_batch(bank, episodes, shots, [rng] * len(episodes))


@pytest.fixture
def random_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers in place of the ImageNet weights, which are a training requirement only."""
    monkeypatch.setattr(start, "load_backbone_weights", random_weights)


def random_weights(backbone: Backbone, name: str, file: Path | None = None) -> None:
    """The same numbers for the same name."""
    torch.manual_seed(0)
    backbone.net.load_state_dict(build_backbone(name).net.state_dict(), strict=False)


def test_views_are_fixed_by_seed_and_number(picture_folder, cutouts):
    sets, files = read_picture_sets(picture_folder), read_cutouts(cutouts)
    one, two = ViewMaker(sets, files, TINY).make(5), ViewMaker(sets, files, TINY).make(5)
    assert torch.equal(one.image, two.image)
    assert all(torch.equal(a.mask, b.mask) for a, b in zip(one.objects, two.objects, strict=True))
    assert not torch.equal(one.image, ViewMaker(sets, files, TINY).make(6).image)
    names = {o.set_name for i in range(30) for o in ViewMaker(sets, files, TINY).make(i).objects}
    assert names == {"coco", "coins", CUTOUT_SET}


def test_a_view_moves_picture_and_mask_together():
    """The object is the bright part before, so it must be the bright part after."""
    image = torch.zeros(3, 90, 120, dtype=torch.uint8)
    mask = torch.zeros(1, 90, 120, dtype=torch.bool)
    image[:, 30:70, 20:80], mask[0, 30:70, 20:80] = 255, True
    rng = random.Random(0)
    for _ in range(40):
        view = random_view(image, mask, 0, 64, rng)
        bright = view.image[0] > 127
        assert view.masks[0].any()
        assert (bright ^ view.masks[0]).float().mean() < 0.03


def test_pasting_covers_what_lies_below():
    base = Augmented(torch.zeros(3, 64, 64, dtype=torch.uint8), torch.ones(1, 64, 64, dtype=torch.bool))
    patch, alpha = torch.full((3, 20, 20), 200, dtype=torch.uint8), torch.ones(1, 20, 20)
    rng = random.Random(0)
    for _ in range(20):
        pasted, covered = paste(base, patch, alpha, rng)
        assert covered.any()
        assert torch.equal(pasted.masks[0], ~covered)
        assert torch.equal(pasted.image[0] > 0, covered)
    assert not base.image.any()


def test_a_bank_without_a_file_is_filled_once_with_every_view(picture_folder, cutouts):
    maker = ViewMaker(read_picture_sets(picture_folder), read_cutouts(cutouts), TINY)
    torch.manual_seed(0)
    backbone = IIR(TINY.model).backbone
    source = BankSource(maker, backbone, TINY, device=torch.device("cpu"), workers=0)
    bank = source.bank()
    for number in (0, 15, 16, TINY.bank.views - 1):
        view = maker.make(number)
        assert bank.views[number].keys == tuple((o.set_name, o.name) for o in view.objects)
        taps = frozen_taps(backbone, view.image[None], TINY, torch.device("cpu"))
        for own, expected in zip(bank.taps([number]), taps, strict=True):
            torch.testing.assert_close(own, expected.bfloat16().float())
    for key, slots in bank._members.items():
        assert slots == [slot for slot, view in enumerate(bank.views) if key in view.keys]
    before = [t.clone() for t in bank.taps(list(range(TINY.bank.views)))]
    assert len(list(source.batches(0))) == TINY.steps
    assert source.bank() is bank
    assert all(torch.equal(a, b) for a, b in zip(before, bank.taps(list(range(TINY.bank.views))), strict=True))


def test_workers_make_the_same_views_and_features(picture_folder, cutouts):
    torch.manual_seed(0)
    look = partial(frozen_taps, IIR(TINY.model).backbone, config=TINY, device=torch.device("cpu"))
    maker = ViewMaker(read_picture_sets(picture_folder), read_cutouts(cutouts), TINY)
    (here,) = stream_views(maker, range(5), batch=5, workers=0, look=look)
    there = list(stream_views(maker, range(5), batch=2, workers=2, look=look))
    for own, others in zip(here.taps, zip(*(t.taps for t in there), strict=True), strict=True):
        assert torch.equal(own, torch.cat(others))
        assert not torch.equal(own[0], own[1])
    assert [v.keys for v in here.views] == [v.keys for t in there for v in t.views]
    assert here.images.numel() == 0


def test_an_episode_pairs_different_pictures_of_one_class(bank):
    rng = random.Random(0)
    drawn = [bank.draw(2, rng) for _ in range(200)]
    shown = 0
    for key, supports, query in drawn:
        sources = [source for s in supports for source in bank._sources(s, key)]
        assert len(set(sources)) == len(sources) >= 2
        assert all(bank.mask(s, key).any() for s in supports)
        if bank.mask(query, key).any():
            shown += 1
            assert bank._sources(query, key).isdisjoint(sources)
    assert shown > 0.8 * len(drawn)


def test_absent_queries_lack_the_object(picture_folder):
    config = TINY.changed({"episodes.absent": 1.0, "bank.paste": 0.0})
    bank = filled(ViewMaker([read_picture_set(picture_folder / "coco")], [], config))
    rng = random.Random(0)
    drawn = [bank.draw(1, rng) for _ in range(30)]
    assert not any(bank.mask(query, key).any() for key, _, query in drawn)


def test_small_queries_are_drawn_in_proportion_to_their_share(picture_folder):
    config = TINY.changed({"bank.views": 60, "episodes.absent": 0.0})
    maker, means = ViewMaker(read_picture_sets(picture_folder), [], config), []
    bank = filled(maker)
    for full_share in (0.0, 1.0):
        bank.config = bank.config.changed({"episodes.full_share": full_share})
        rng = random.Random(0)
        drawn = [bank.draw(1, rng) for _ in range(1500)]
        means.append([bank.mask(query, key).mean() for key, _, query in drawn])
    # A distribution weighted by its own values has the mean E[x^2] / E[x].
    assert np.mean(means[1]) == pytest.approx(np.square(means[0]).mean() / np.mean(means[0]), rel=0.1)
    assert np.mean(means[1]) > 1.1 * np.mean(means[0])


@pytest.mark.parametrize("autocast", [False, True])
def test_every_decoder_parameter_learns(bank, autocast):
    torch.manual_seed(0)
    model = IIR(TINY.model).train()
    batch = draw_batch(bank, 2, 0)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, _ = TrainingStep(model, TINY)(batch)
    loss.backward()
    silent = [n for n, p in model.decoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    assert all(p.grad is None for p in model.backbone.parameters())


def test_training_lowers_the_loss_on_one_batch(bank):
    torch.manual_seed(0)
    model = IIR(TINY.model).train()
    batch = draw_batch(bank, 1, 1)
    optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss, _ = TrainingStep(model, TINY)(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_a_run_is_kept_resumed_and_exported(picture_folder, cutouts, tmp_path, random_backbone):
    def build(config: TrainingConfig = TINY) -> Trainer:
        return start.build_trainer(config, picture_folder, tmp_path / "run", cutouts=cutouts, workers=0)

    build().run()
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert all(np.isfinite(line["loss"]) for line in lines)
    with pytest.raises(ConfigError, match="--resume"):
        build().run()
    with pytest.raises(ConfigError, match=r"recipe\.json differs"):
        build(replace(TINY, seed=5)).run(resume=True)
    with pytest.raises(ConfigError, match=r"data\.json differs"):
        start.build_trainer(TINY, picture_folder, tmp_path / "run", novel=["cat"], workers=0).run(resume=True)
    again = build()
    again.run(resume=True)
    assert again.step == 6
    segmenter = FewShotSegmenter(again.export().parent, device="cpu")
    assert segmenter.model.config == TINY.model


def test_resume_goes_on_where_the_run_stopped(picture_folder, tmp_path, random_backbone, monkeypatch):
    folder = tmp_path / "run"
    trainer = start.build_trainer(TINY, picture_folder, folder, workers=0)
    one_step = trainer._one_step

    def stop_at_four(batch: object) -> tuple[float, float]:
        if trainer.step == 4:
            raise KeyboardInterrupt
        return one_step(batch)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "_one_step", stop_at_four)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    resumed = start.build_trainer(TINY, picture_folder, folder, workers=0)
    resumed.run(resume=True)
    assert resumed.step == 6
    assert resumed.schedule.last_epoch == 6
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps[-1] == 6


def test_novel_classes_never_reach_the_bank(picture_folder, cutouts, tmp_path, random_backbone):
    trainer = start.build_trainer(TINY, picture_folder, tmp_path / "run", cutouts=cutouts, novel=["cat"], workers=0)
    seen = {(o.set_name, o.name) for i in range(60) for o in trainer.source.maker.make(i).objects}
    assert ("coco", "dog") in seen
    assert not any("cat" in name.split("/")[-1] for _, name in seen)


def test_evaluation_scores_what_the_segmenter_predicts(small_segmenter, picture_folder):
    pictures = read_picture_set(picture_folder / "coco")
    episode = Episode("cat", ("cat1", "cat4"), "cat2")
    found = Evaluator(small_segmenter, pictures).probability(episode)
    for stem in episode.supports:
        root = pictures.root
        small_segmenter.add_support(root / f"images/{stem}.jpg", root / f"masks/cat/{stem}.png")
    expected = small_segmenter.predict(pictures.images["cat2"]).probability
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_evaluation_is_fixed_by_its_seed(small_segmenter, picture_folder):
    pictures = read_picture_set(picture_folder / "coco")
    one, two = (evaluate_set(small_segmenter, pictures, Protocol(episodes=8, seeds=(3,))) for _ in range(2))
    assert (one.miou, one.fb_iou) == (two.miou, two.fb_iou)
    assert one.episodes == 8
    assert set(one.per_class) == {"cat", "dog"}
    assert one.miou == pytest.approx(np.mean(list(one.per_class.values())))


def test_the_recipe_of_the_embedded_weights_is_valid_and_overridable(tmp_path):
    recipe = Path(start.__file__).parent / "recipes/duo.toml"
    config = read_recipe(recipe, ["steps=5", "model.width=64", "bank.main_set=mine", "episodes.shots=[1, 5]"])
    assert (config.steps, config.model.width, config.bank.main_set, config.episodes.shots) == (5, 64, "mine", (1, 5))
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("speed=3", "speed"),
        ("tensorboard=true", "unknown key 'tensorboard'"),
        ("views=8000", "unknown key 'views'; did you mean 'bank.views'"),
        ("bank.view=8000", "unknown key 'bank.view'; did you mean 'bank.views'"),
        ("bank.views.x=8000", "'views' is no table"),
        ("refresh=0", "unknown key 'refresh'"),
        ("model.depth=3", "depth"),
        ("steps=many", "steps"),
        ("steps=0", "one must be given"),
        ("steps", "key=value"),
        ("optimiser.ema=2.0", "ema"),
        ("episodes.shots=[]", "shots"),
        ("episodes.shots=[1.5]", "each an integer of at least 1"),
        ("optimiser.learning_rate=-1.0", "above 0"),
        ("model=3", "model"),
    ],
)
def test_recipes_refuse_what_does_not_fit(override, reason):
    with pytest.raises(ConfigError, match=reason):
        read_recipe(Path(start.__file__).parent / "recipes/duo.toml", [override])


def test_missing_recipes_data_and_cutouts_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no recipe"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("steps = = 3")
    with pytest.raises(ConfigError, match="not TOML"):
        read_recipe(tmp_path / "bad.toml")
    (tmp_path / "._hidden.png").write_bytes(b"not a picture")
    with pytest.raises(DatasetNotFoundError, match="cut-outs"):
        read_cutouts(tmp_path)
    with pytest.raises(IirError):
        start.build_trainer(TINY, tmp_path / "nowhere", tmp_path / "run")


def test_a_damaged_cutout_is_named(picture_folder, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    maker = ViewMaker(
        read_picture_sets(picture_folder),
        read_cutouts(tmp_path),
        TINY.changed({"bank.paste": 1.0, "bank.cutouts": 1.0}),
    )
    with pytest.raises(DatasetError, match=r"broken\.png cannot be read"):
        maker.make(0)


def test_a_bank_without_pairs_says_so(picture_folder, tmp_path):
    bank = FeatureBank(TINY, torch.device("cpu"))
    with pytest.raises(DatasetError, match="add pictures"):
        bank.draw(1, random.Random(0))
    # Two pictures, many views of them: enough for one shot, never for two.
    for folder in ("images", "masks/coin"):
        (tmp_path / "coins" / folder).mkdir(parents=True)
        for file in sorted((picture_folder / "coins" / folder).iterdir())[:2]:
            shutil.copy(file, tmp_path / "coins" / folder)
    config = TINY.changed({"bank.paste": 0.0})
    bank = filled(ViewMaker(read_picture_sets(tmp_path), [], config))
    bank.draw(1, random.Random(0))
    with pytest.raises(DatasetError, match="3 different pictures"):
        bank.draw(2, random.Random(0))


def test_views_are_made_in_started_processes_too(picture_folder, cutouts):
    """Where processes are spawned and not forked, the maker and the backbone travel as pickles."""
    maker = ViewMaker(read_picture_sets(picture_folder), read_cutouts(cutouts), TINY)
    again = pickle.loads(pickle.dumps(maker))
    image = maker.make(3).image
    assert torch.equal(again.make(3).image, image)
    look = partial(frozen_taps, IIR(TINY.model).backbone, config=TINY, device=torch.device("cpu"))
    for own, expected in zip(pickle.loads(pickle.dumps(look))(image[None]), look(image[None]), strict=True):
        assert torch.equal(own, expected)


def test_masks_that_do_not_fit_their_pictures_are_refused(picture_folder, tmp_path):
    shutil.copytree(picture_folder / "coins", tmp_path / "coins")
    pictures = read_picture_set(tmp_path / "coins")
    Image.fromarray(np.ones((10, 10), np.uint8)).save(tmp_path / "coins/masks/coin/coin1.png")
    Image.fromarray(np.zeros((64, 80), np.uint8)).save(tmp_path / "coins/masks/coin/coin2.png")
    with pytest.raises(DatasetError, match=r"coin1\.png is 10 x 10 but its picture is 64 x 80"):
        pictures.mask("coin", "coin1")
    with pytest.raises(DatasetError, match=r"coin2\.png is empty"):
        pictures.mask("coin", "coin2")


def test_a_backbone_that_cannot_be_split_is_refused_before_training(picture_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "load_backbone_weights", random_weights)
    config = replace(TINY, model=replace(TINY.model, backbone="hrnet_w18_small"))
    with pytest.raises(ConfigError, match="choose another"):
        start.build_trainer(config, picture_folder, tmp_path / "run", workers=0)
