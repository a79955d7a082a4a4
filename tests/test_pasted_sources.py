"""A mask that shows objects of several pictures is known by all of them: no episode pairs an object with itself."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from iir_sdk.data.folder import read_picture_sets
from iir_sdk.errors import DatasetError
from iir_sdk.training.bank import views
from iir_sdk.training.bank.features import FeatureBank
from iir_sdk.training.bank.file import read_bank
from iir_sdk.training.bank.stream import PackedView
from iir_sdk.training.bank.views import ViewMaker
from tests.test_bank_file import CPU, ORIGIN, save_bank
from tests.test_training import TINY

COIN = ("coins", "coin")
PASTING = TINY.changed({"bank.paste": 1.0, "bank.cutouts": 0.0, "bank.main_set": "coins", "bank.main_weight": 1.0})


def view(*sources: str) -> PackedView:
    """One coin's mask that shows objects of these pictures."""
    masks = np.full((1, TINY.bank.label_size**2 // 8), 255, np.uint8)
    keys = frozenset({COIN})
    return PackedView((COIN,), (frozenset(sources),), masks, {}, keys, keys, "coins/photo")


def bank_of(*held: PackedView) -> FeatureBank:
    bank = FeatureBank(TINY.changed({"bank.views": len(held), "episodes.absent": 0.0}), torch.device("cpu"))
    bank.hold([torch.zeros(len(held), 1, 1, 1) for _ in range(3)], list(held))
    return bank


def test_a_pasted_object_of_a_class_already_shown_keeps_its_source(picture_folder, monkeypatch):
    maker = ViewMaker(read_picture_sets(picture_folder / "coins"), [], PASTING)
    drawn: list[str] = []
    draw = maker._all.draw

    def noted(rng: random.Random) -> tuple[str, str, str]:
        set_name, name, stem = draw(rng)
        drawn.append(f"{set_name}/{stem}")
        return set_name, name, stem

    monkeypatch.setattr(maker._all, "draw", noted)
    for i in range(20):
        drawn.clear()
        made = maker.make(i)
        (coin,) = made.objects
        assert made.pasted == frozenset(drawn)
        assert coin.sources == {made.photo} | made.pasted
        assert drawn


def test_an_object_is_never_paired_with_itself():
    # The second shows the first's object, pasted beside its own.
    bank = bank_of(view("coins/a"), view("coins/b", "coins/a"), view("coins/c"))
    rng = random.Random(0)
    drawn = {frozenset((*supports, query)) for _, supports, query in (bank.draw(1, rng) for _ in range(100))}
    assert drawn == {frozenset({0, 2}), frozenset({1, 2})}
    with pytest.raises(DatasetError, match="3 different pictures"):
        bank.draw(2, rng)


def test_views_of_several_pictures_never_make_an_episode_too_short():
    """In a bad order they stand in the way of all others."""
    singles = [view(f"coins/{name}") for name in "abc"]
    bank = bank_of(view("coins/a", "coins/b", "coins/c"), view("coins/b", "coins/c"), *singles)
    rng = random.Random(0)
    drawn = [bank.draw(2, rng) for _ in range(100)]
    assert {frozenset((*supports, query)) for _, supports, query in drawn} == {frozenset({2, 3, 4})}


def test_a_kept_bank_knows_all_sources(tmp_path):
    config = TINY.changed({"bank.views": 2})
    bank = bank_of(view("coins/a", "coins/b"), view("coins/c"))
    save_bank(bank, tmp_path / "bank", ORIGIN)
    again = read_bank(tmp_path / "bank", config, CPU)
    assert [v.sources for v in again.views] == [v.sources for v in bank.views]


def test_decoded_pictures_are_kept_by_their_bytes(picture_folder, monkeypatch):
    sets = read_picture_sets(picture_folder / "coins")
    # A picture is 64 x 80 of three bytes, and a mask of one.
    one = 64 * 80 * 4
    monkeypatch.setattr(views, "_KEPT_BYTES", 3 * one)
    maker = ViewMaker(sets, [], PASTING)
    for i in range(12):
        maker.make(i)
    assert maker._decoded.nbytes == 3 * one
