"""How often sets are asked for, how many views their pictures get, and what a bank says it will take."""

from __future__ import annotations

import math
import random
import re
import shutil
from collections import Counter, namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from iir_sdk.data.dataset import CUTOUT_SET
from iir_sdk.data.folder import PictureSet, read_picture_sets
from iir_sdk.errors import ConfigError, OutputError
from iir_sdk.model.iir import IIR
from iir_sdk.training import start
from iir_sdk.training.bank import forecast
from iir_sdk.training.bank.allocation import SetSize, draw_set, fitting, planned_views, set_weights
from iir_sdk.training.bank.views import ViewMaker
from iir_sdk.training.config import BankSettings
from iir_sdk.training.sources import BankSource
from tests.test_training import TINY, random_backbone

__all__ = ["random_backbone"]

SIZED = TINY.changed(
    {"bank.main_weight": 0.35, "bank.cutout_weight": 0.1, "bank.views_of_picture": (2, 12), "bank.views": 2400}
)


def pictures(name: str, count: int, classes: int = 1) -> PictureSet:
    """A set whose first picture shows all classes and each other one a class."""
    stems = [f"{i:03}" for i in range(count)]
    shown = {f"c{c}": tuple(sorted({stems[0], *stems[c::classes]})) for c in range(classes)}
    return PictureSet(name, Path(name), {s: Path(f"{s}.jpg") for s in stems}, shown)


@pytest.mark.parametrize(
    ("cutout_weight", "names", "expected"),
    [
        (0.2, ("coco", "cutouts", "a", "b"), {"coco": 0.5, "cutouts": 0.2, "a": 0.15, "b": 0.15}),
        (0.0, ("coco", "cutouts", "a", "b"), {"coco": 0.5, "cutouts": 1 / 6, "a": 1 / 6, "b": 1 / 6}),
        (0.3, ("coco", "cutouts"), {"coco": 0.625, "cutouts": 0.375}),
        (0.3, ("cutouts",), {"cutouts": 1.0}),
        (0.3, ("a", "b"), {"a": 0.5, "b": 0.5}),
        (0.3, ("main of weight 0", "a", "b"), {"main of weight 0": 0.0, "a": 0.5, "b": 0.5}),
        (0.3, ("main of weight 0",), {"main of weight 0": 1.0}),
    ],
)
def test_the_main_set_and_cutouts_have_the_recipes_shares(cutout_weight, names, expected):
    zero = "main of weight 0" in names
    main = (names[0], 0.0) if zero else ("coco", 0.5)
    shares = {"bank.main_set": main[0], "bank.main_weight": main[1], "bank.cutout_weight": cutout_weight}
    config, rng = TINY.changed(shares), random.Random(0)
    sizes = {name: SetSize(400 if name == CUTOUT_SET else 1, 50) for name in names}
    weights = set_weights(sizes, config)
    assert weights == pytest.approx(expected)
    drawn = Counter(draw_set(weights, rng) for _ in range(6000))
    assert {name: drawn[name] / 6000 for name in names} == pytest.approx(expected, abs=0.03)


def test_other_sets_share_the_rest_by_the_root_of_their_classes_less_where_they_are_small():
    sizes = {"coco": SetSize(80, 632), "many": SetSize(49, 400), "one": SetSize(1, 45), "tiny": SetSize(1, 10)}
    weights = set_weights(sizes, SIZED)
    assert weights["coco"] == 0.35
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["many"] / weights["one"] == pytest.approx(math.sqrt(49))
    assert weights["tiny"] / weights["one"] == pytest.approx(10 / 30)
    even = set_weights(sizes, SIZED.changed({"bank.enough_pictures": 1}))
    assert even["tiny"] == even["one"]


def test_each_picture_gets_views_within_its_bounds():
    sets = [pictures("coco", 150, 20), pictures("one", 45), pictures("tiny", 8), pictures("wide", 300, 4)]
    planned = planned_views(sets, SIZED)
    assert len(planned) == SIZED.bank.views
    assert planned == planned_views(sets, SIZED)
    assert planned != planned_views(sets, replace(SIZED, seed=1))
    by_picture = Counter(planned)
    assert len(by_picture) == sum(len(s.images) for s in sets)
    assert min(by_picture.values()) >= 2
    assert max(by_picture.values()) <= 12
    for s in sets:
        of_set = [count for (name, _), count in by_picture.items() if name == s.name]
        assert max(of_set) - min(of_set) <= 1
    # In proportion to their weights, where their pictures' bounds allow.
    views = Counter(name for name, _ in planned)
    weights = set_weights({s.name: SetSize(len(s.classes), len(s.images)) for s in sets}, SIZED)
    assert views["wide"] / views["one"] == pytest.approx(weights["wide"] / weights["one"], abs=0.02)
    assert views["tiny"] == 8 * 12
    # Any stretch of them is a fair sample.
    assert Counter(name for name, _ in planned[:600])["coco"] == pytest.approx(views["coco"] / 4, rel=0.2)


def test_bounds_give_way_where_the_number_of_views_says_so():
    sets = [pictures("coco", 40, 3), pictures("one", 60)]
    more = Counter(planned_views(sets, SIZED.changed({"bank.views": 2400})))
    assert set(more.values()) == {24}
    fewer = Counter(name for name, _ in planned_views(sets, SIZED.changed({"bank.views": 100})))
    # 70 views go evenly to the pictures, of which 42 to `one`, which is above its weight with these already.
    assert fewer == {"coco": 35, "one": 65}


def test_few_pictures_get_fewer_views_than_the_recipe_has():
    sets = [pictures("mine", 49)]
    assert fitting(SIZED.changed({"bank.views": 16000}), sets).bank.views == 49 * 12
    assert fitting(SIZED.changed({"bank.views": 100}), sets).bank.views == 100
    assert fitting(SIZED.changed({"bank.views": 16000, "bank.views_of_picture": (2, 400)}), sets).bank.views == 16000
    for wrong in ((0, 3), (3, 2), (3,)):
        with pytest.raises(ConfigError, match="views_of_picture"):
            BankSettings(views_of_picture=wrong)


def test_a_rarer_class_of_a_picture_is_cropped_to_more_often(picture_folder, tmp_path):
    shutil.copytree(picture_folder / "coins", tmp_path / "coins")
    first = sorted((tmp_path / "coins/masks/coin").iterdir())[0]
    (tmp_path / "coins/masks/rare").mkdir()
    shutil.copy(first, tmp_path / "coins/masks/rare")
    sets = read_picture_sets(tmp_path)
    maker = ViewMaker(sets, [], TINY.changed({"bank.paste": 0.0, "bank.views": 100}))
    common = len(sets[0].classes["coin"])
    made = [maker.make(i) for i in range(100)]
    of_first = [view.made_of for view in made if view.photo == f"coins/{first.stem}"]
    rare = sum(("coins", "rare") in made_of for made_of in of_first) / len(of_first)
    assert rare == pytest.approx(common / (common + 1), abs=0.15)


def test_what_a_bank_takes_is_said_before_it_is_filled(picture_folder, tmp_path, random_backbone, capfd):
    assert (
        start.fill_bank(TINY.changed({"bank.views": 10_000}), picture_folder, tmp_path / "bank", workers=0) == 18 * 12
    )
    said = capfd.readouterr().err.splitlines()[0]
    assert re.fullmatch(r"216 views: [\d.]+ GB, (less than a minute|about \d+ min)", said)


def test_a_bank_without_room_is_refused_before_it_is_filled(picture_folder, tmp_path, random_backbone, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda folder: usage(10_000))
    with pytest.raises(OutputError, match=r"24 views: .*room for 0\.0 GB.*--set bank\.views"):
        start.fill_bank(TINY, picture_folder, tmp_path / "bank", workers=0)
    assert list((tmp_path / "bank").iterdir()) == []
    monkeypatch.setattr(forecast, "_memory", lambda: 10_000)
    with pytest.raises(OutputError, match="iir-sdk bank"):
        start.build_trainer(TINY, picture_folder, tmp_path / "run", workers=0, device="cpu").run()


def test_the_forecast_is_what_the_features_take(picture_folder):
    torch.manual_seed(0)
    maker = ViewMaker(read_picture_sets(picture_folder), [], TINY)
    source = BankSource(maker, IIR(TINY.model).backbone, TINY, device=torch.device("cpu"), workers=0)
    state = torch.get_rng_state()
    needed = forecast.forecast(source._together, TINY.bank.views, 1)
    assert torch.equal(torch.get_rng_state(), state)
    held = sum(tap.nbytes // 2 for tap in source.bank().taps(list(range(TINY.bank.views))))
    masks = sum(view.masks.nbytes for view in source.bank().views)
    assert needed.bytes == pytest.approx(held + masks, rel=0.05)
