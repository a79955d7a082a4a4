"""Classes of regions: one kind of thing in support and query, of one photo or of several, in used views only."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from iir_sdk.errors import ConfigError, DatasetError, MissingDependencyError
from iir_sdk.training import start
from iir_sdk.training.bank.features import FeatureBank
from iir_sdk.training.bank.regions import BankEpisode, RegionClasses
from iir_sdk.training.bank.stream import PackedView
from iir_sdk.training.sources import _episode
from tests.test_training import TINY, random_backbone

__all__ = ["random_backbone"]

PHOTOS, CROPS, GRID = 5, 4, 8
STILL = TINY.changed(
    {"bank.views": PHOTOS * CROPS, "bank.label_size": 32, "episodes.regions": 0.5, "episodes.shared_regions": 0.25}
)
LEFT_OUT = ("coco", "left out")


def kinds() -> np.ndarray:
    """``(V, GRID, GRID)``: which of two things each cell of each view shows; one lies left of the other, or right."""
    shown = np.zeros((PHOTOS * CROPS, GRID, GRID), int)
    for view in range(len(shown)):
        edge = 3 + view % 3
        shown[view, :, :edge] = view % 2
        shown[view, :, edge:] = 1 - view % 2
    return shown


def two_kinds(config=STILL, allowed=None) -> FeatureBank:
    """A bank of these views; the photo of a view is its number modulo PHOTOS, and photo 0 is what may be left out."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(2, 24))
    cells = directions[kinds()] + 0.05 * rng.normal(size=(PHOTOS * CROPS, GRID, GRID, 24))
    mid = torch.from_numpy(cells).permute(0, 3, 1, 2)
    taps = [mid.repeat_interleave(2, 2).repeat_interleave(2, 3), mid, torch.nn.functional.avg_pool2d(mid, 2)]
    bank = FeatureBank(config, torch.device("cpu"), allowed)
    nothing = np.zeros((0, 32 * 32 // 8), np.uint8)
    views = [
        PackedView((), (), nothing, {}, frozenset(), frozenset([LEFT_OUT] if v % PHOTOS == 0 else []), photo_of(v))
        for v in range(PHOTOS * CROPS)
    ]
    bank.hold([t.bfloat16() for t in taps], views)
    return bank


def photo_of(slot: int) -> str:
    return f"coco/{slot % PHOTOS}"


def kinds_asked_for(episode: BankEpisode) -> set[int]:
    """What the certain foreground of all of an episode's views shows."""
    found: set[int] = set()
    for slot in (*episode.supports, episode.query):
        mask = episode.mask(slot)
        assert mask.shape == (32, 32)
        assert set(np.unique(mask)) <= {0, 1, 255}
        assert (mask == 1).any()
        found |= set(kinds()[slot].repeat(4, 0).repeat(4, 1)[mask == 1].tolist())
    return found


@pytest.mark.parametrize("shared", [False, True])
def test_an_episode_asks_for_one_kind_of_thing(shared):
    regions = RegionClasses(two_kinds(), STILL)
    asked = set()
    for number in range(60):
        episode = regions.draw(1 + number % 2, random.Random(number), shared=shared)
        slots = [*episode.supports, episode.query]
        assert len(set(slots)) == len(slots) == 2 + number % 2
        assert len({photo_of(slot) for slot in slots}) == (len(slots) if shared else 1)
        kind = kinds_asked_for(episode)
        assert len(kind) == 1
        asked |= kind
    assert asked == {0, 1}


def test_what_lies_between_regions_counts_nowhere():
    episode = RegionClasses(two_kinds(), STILL).draw(1, random.Random(0), shared=False)
    mask = episode.mask(episode.query)
    borders = mask[:, :-1].astype(int) - mask[:, 1:]
    assert (mask == 255).any()
    assert not (np.abs(borders) == 1).any(), "between 0 and 1 there is always 255"


def test_the_same_bank_and_seed_give_the_same_regions():
    one, two = (RegionClasses(two_kinds(), STILL) for _ in range(2))
    for number in range(20):
        first, second = (r.draw(2, random.Random(number), shared=number % 2 == 0) for r in (one, two))
        assert first[:2] == second[:2]
        assert np.array_equal(first.mask(first.query), second.mask(second.query))


def test_views_of_what_is_left_out_are_not_looked_at():
    bank = two_kinds(allowed=lambda key: key != LEFT_OUT)
    assert bank.used == (PHOTOS - 1) * CROPS
    regions = RegionClasses(bank, STILL)
    drawn = [regions.draw(1, random.Random(i), shared=i % 2 == 0) for i in range(200)]
    assert {photo_of(slot) for e in drawn for slot in (*e.supports, e.query)} == {f"coco/{i}" for i in range(1, PHOTOS)}


def test_the_recipes_shares_decide_what_is_asked_for(monkeypatch):
    bank, asked = two_kinds(), []
    monkeypatch.setattr(bank, "draw", lambda shots, rng: (("coco", "cat"), [0], 1))
    regions = RegionClasses(bank, STILL)
    labelled = BankEpisode([0], 1, lambda slot: np.zeros((32, 32), np.uint8))
    monkeypatch.setattr(regions, "draw", lambda shots, rng, *, shared: asked.append(shared) or labelled)
    rng = random.Random(0)
    for _ in range(2000):
        _episode(bank, regions, 1, rng)
    assert len(asked) / 2000 == pytest.approx(0.75, abs=0.04)
    assert sum(asked) / 2000 == pytest.approx(0.25, abs=0.04)


def test_without_regions_nothing_else_is_drawn(picture_folder, tmp_path, random_backbone):
    config = STILL.changed({"episodes.regions": 0.0, "episodes.shared_regions": 0.0, "bank.views": 24})
    bank = start.build_trainer(config, picture_folder, tmp_path, device="cpu", workers=0).source.bank()
    for number in range(10):
        key, supports, query = bank.draw(1, random.Random(number))
        episode = _episode(bank, None, 1, random.Random(number))
        assert (episode.supports, episode.query) == (supports, query)
        assert np.array_equal(episode.mask(query), bank.mask(query, key))


def test_a_run_learns_from_regions_and_goes_on_with_the_same_ones(picture_folder, tmp_path, random_backbone):
    config = STILL.changed(
        {"bank.views": 48, "episodes.shots": (1,), "episodes.regions": 1.0, "episodes.shared_regions": 0.0}
    )
    trainer = start.build_trainer(config, picture_folder, tmp_path, device="cpu", workers=0)
    trainer.run()
    assert trainer.step == config.steps
    [whole] = list(islice(trainer.source.batches(0), 4))[3]
    [resumed] = next(trainer.source.batches(3))
    assert torch.equal(whole.target, resumed.target)
    assert torch.equal(whole.query.mid, resumed.query.mid)
    assert (whole.target == 255).any()


@pytest.mark.parametrize(
    ("photo", "share", "reason"),
    [
        ("coco/{slot}", "regions", "in 3 views of one photo, of 20 views of 20 photos; .* or set episodes.regions=0"),
        ("coco/one", "shared_regions", "in 3 photos, of 20 views of 1 photos; .* or set episodes.shared_regions=0"),
    ],
)
def test_regions_that_never_come_back_are_an_error(photo, share, reason):
    bank = two_kinds()
    for slot, view in enumerate(bank.views):
        bank.views[slot] = replace(view, photo=photo.format(slot=slot))
    with pytest.raises(DatasetError, match=f"no region comes back {reason}"):
        RegionClasses(bank, STILL)
    RegionClasses(bank, STILL.changed({f"episodes.{share}": 0.0}))


def test_what_clusters_regions_is_asked_for_before_anything_is_trained(
    picture_folder, tmp_path, random_backbone, monkeypatch
):
    monkeypatch.setitem(sys.modules, "scipy.cluster.vq", None)
    config = STILL.changed({"bank.views": 48, "episodes.shots": (1,)})
    trainer = start.build_trainer(config, picture_folder, tmp_path, device="cpu", workers=0)
    monkeypatch.setattr(trainer, "_train", lambda: pytest.fail("trained"))
    with pytest.raises(MissingDependencyError, match="scipy"):
        trainer.run()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"episodes.regions": 0.7, "episodes.shared_regions": 0.4}, "sum to more than 1"),
        (
            {"episodes.shared_regions": 0.1, "source": "pictures"},
            "need source='bank', not 'pictures'; or set both to 0",
        ),
        ({"episodes.regions": -0.1}, r"regions=-0.1 must be a number in \[0, 1\]"),
    ],
)
def test_recipes_that_regions_do_not_fit_are_refused(change, reason):
    with pytest.raises(ConfigError, match=reason):
        STILL.changed(change)


def test_too_few_photos_are_an_error_before_any_feature_is_computed(picture_folder, tmp_path, random_backbone):
    config = STILL.changed({"episodes.shots": (1, 400)})
    with pytest.raises(
        DatasetError, match=r"needs 401 of them, not \d+; add pictures, or --set episodes.shared_regions=0"
    ):
        start.build_trainer(config, picture_folder, tmp_path, device="cpu", workers=0)


def test_two_views_of_a_photo_are_enough_for_one_shot(monkeypatch):
    """Most pictures of a bank have few views, and recipes ask for several shots now and then."""
    monkeypatch.setattr(FeatureBank, "photo", lambda bank, slot: f"coco/{slot // 2}" if slot < 12 else "coco/many")
    config = STILL.changed({"episodes.shots": (1, 2), "episodes.shared_regions": 0.0})
    regions, rng = RegionClasses(two_kinds(config), config), random.Random(0)

    def photos(shots: int) -> set[bool]:
        drawn = (regions.draw(shots, rng, shared=False) for _ in range(60))
        return {slot < 12 for episode in drawn for slot in (*episode.supports, episode.query)}

    assert photos(1) == {True, False}
    assert photos(2) == {False}
