"""A kept bank: what is read is what was filled, and no run sees anything of the classes that it leaves out."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from iir_sdk.data.dataset import CUTOUT_SET
from iir_sdk.data.folder import read_picture_sets
from iir_sdk.errors import ConfigError, DatasetError, DatasetNotFoundError, OutputError
from iir_sdk.model.backbone import Taps
from iir_sdk.training import start
from iir_sdk.training.bank import file
from iir_sdk.training.bank.features import FeatureBank
from iir_sdk.training.bank.file import check_bank, missing_parts, read_bank, write_parts
from iir_sdk.training.bank.stream import PackedView, ViewBatch
from iir_sdk.training.bank.views import ViewMaker, read_cutouts
from iir_sdk.training.run.loop import Trainer
from iir_sdk.training.sources import BankSource
from tests.command import output_of
from tests.test_training import TINY, cutouts, random_backbone, random_weights

__all__ = ["cutouts", "random_backbone"]

STILL = TINY.changed({"bank.views": 32})
CPU = torch.device("cpu")
ORIGIN = {"recipe": {"bank.views": 32}, "sets": [], "cutouts": 0, "files": "", "backbone": ""}


def save_bank(bank: FeatureBank, folder: Path, origin: dict[str, Any]) -> None:
    """All of a bank, as it would have come."""
    folder.mkdir()
    taps = bank.taps(list(range(len(bank.views))))
    write_parts(folder, origin, [ViewBatch(bank.views, torch.zeros(0), Taps(*taps))], [range(len(bank.views))])


@pytest.fixture
def maker(picture_folder: Path, cutouts: Path) -> ViewMaker:
    return ViewMaker(read_picture_sets(picture_folder), read_cutouts(cutouts), STILL)


@pytest.fixture
def bank(maker: ViewMaker) -> FeatureBank:
    backbone = start.IIR(STILL.model).backbone
    random_weights(backbone, STILL.model.backbone)
    return BankSource(maker, backbone, STILL, device=CPU, workers=0).bank()


def test_a_bank_is_read_as_it_was_filled(bank, maker, tmp_path):
    bank.views[3].ignores[0] = bank.views[3].masks[0] ^ 255
    save_bank(bank, tmp_path / "bank", ORIGIN)
    again = read_bank(tmp_path / "bank", STILL, CPU)
    slots = list(range(STILL.bank.views))
    for own, expected in zip(again.taps(slots), bank.taps(slots), strict=True):
        assert torch.equal(own, expected)
    for own, expected in zip(again.views, bank.views, strict=True):
        for what in ("keys", "sources", "present", "made_of", "photo", "pasted"):
            assert getattr(own, what) == getattr(expected, what)
        assert np.array_equal(own.masks, expected.masks)
        assert own.ignores.keys() == expected.ignores.keys()
    key = bank.views[3].keys[0]
    assert np.array_equal(again.mask(3, key), bank.mask(3, key))
    assert 255 in again.mask(3, key)
    one, two = ([b.draw(1, random.Random(i)) for i in range(30)] for b in (bank, again))
    assert one == two


def test_views_made_with_a_left_out_mask_are_not_used(bank, maker, tmp_path):
    path = tmp_path / "bank"
    save_bank(bank, path, ORIGIN)
    left_out = {("coco", "cat"), (CUTOUT_SET, f"{maker.cutouts[0].parent.name}/cat")}
    config = STILL.changed({"episodes.absent": 1.0})
    less = read_bank(path, config, CPU, lambda key: key not in left_out)
    touched = [i for i, view in enumerate(less.views) if view.made_of & left_out]
    assert touched
    assert less.used == STILL.bank.views - len(touched)
    rng = random.Random(0)
    for _ in range(200):
        key, supports, query = less.draw(1, rng)
        assert key not in left_out
        assert not {*supports, query} & set(touched)


def test_by_the_filtered_convention_no_view_shows_a_left_out_class(bank, tmp_path):
    path = tmp_path / "bank"
    cat = ("coco", "cat")
    for i, view in enumerate(bank.views[:8]):
        bank.views[i] = replace(view, present=view.present | {cat})
    save_bank(bank, path, ORIGIN)
    showing = [i for i, view in enumerate(bank.views) if cat in view.present | view.made_of]
    shown_beside = [i for i in showing if cat not in bank.views[i].made_of]
    assert shown_beside

    def used(convention: str) -> FeatureBank:
        config = STILL.changed({"convention": convention, "episodes.absent": 1.0})
        return read_bank(path, config, CPU, lambda key: key != cat)

    filtered = used("filtered")
    assert filtered.used == STILL.bank.views - len(showing)
    assert used("unfiltered").used == filtered.used + len(shown_beside)
    rng = random.Random(0)
    drawn = [filtered.draw(1, rng) for _ in range(200)]
    assert not {slot for _, supports, query in drawn for slot in (*supports, query)} & set(showing)


def test_only_a_kept_bank_tells_what_views_to_filter(picture_folder, cutouts, tmp_path, kept):
    def run(bank: Path | None, novel: list[str]) -> Trainer:
        change = {"convention": "filtered"}
        return build(picture_folder, tmp_path / "run", bank, novel=novel, cutouts=cutouts, change=change)

    with pytest.raises(ConfigError, match="--bank"):
        run(None, ["cat"])
    shown = [view for view in run(kept, ["cat"]).source.bank().views if ("coco", "cat") in view.present]
    assert shown
    assert run(None, []).source.bank().used == STILL.bank.views


def test_what_made_a_view_is_known(maker):
    """The class whose object chose the crop, and all that was pasted; what merely stands beside it is not among it."""
    pasting = ViewMaker(
        list(maker.sets.values()), maker.cutouts, STILL.changed({"bank.paste": 1.0, "bank.cutouts": 1.0})
    )
    for i in range(20):
        made_of = pasting.make(i).made_of
        assert len([key for key in made_of if key[0] != CUTOUT_SET]) == 1
        assert any(key[0] == CUTOUT_SET for key in made_of)
        assert {f"{CUTOUT_SET}/{key[1]}" for key in made_of if key[0] == CUTOUT_SET} == pasting.make(i).pasted
    plain = ViewMaker(list(maker.sets.values()), [], STILL.changed({"bank.paste": 0.0}))
    assert plain.make(0).pasted == frozenset()
    assert all(len(plain.make(i).made_of) == 1 for i in range(20))


def test_a_run_from_a_kept_bank_is_the_run_that_fills_its_own(picture_folder, cutouts, tmp_path, random_backbone):
    assert start.fill_bank(STILL, picture_folder, tmp_path / "bank", cutouts=cutouts, workers=0) == 32
    weights = []
    for name, bank in (("own", None), ("kept", tmp_path / "bank")):
        trainer = start.build_trainer(
            STILL, picture_folder, tmp_path / name, cutouts=cutouts, bank=bank, workers=0, device="cpu"
        )
        trainer.run()
        weights.append(trainer.model.decoder.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


class Stopped(Exception):
    """As by a signal."""


def stopped_after(views: int, maker: ViewMaker) -> Any:
    """A maker's ``make`` that stops the filling at a view."""
    make = ViewMaker.make

    def stopping(self: ViewMaker, index: int) -> Any:
        if index == views:
            raise Stopped
        return make(self, index)

    return stopping


def test_a_stopped_filling_is_gone_on_with(picture_folder, cutouts, tmp_path, random_backbone, monkeypatch):
    monkeypatch.setattr(file, "PART_VIEWS", 16)

    def fill(folder: str, resume: bool = False) -> int:
        return start.fill_bank(STILL, picture_folder, tmp_path / folder, cutouts=cutouts, workers=0, resume=resume)

    fill("whole")
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(ViewMaker, "make", stopped_after(20, ViewMaker))
        fill("bank")
    assert [part.name for part in sorted((tmp_path / "bank").iterdir())] == ["000000.safetensors"]
    with pytest.raises(DatasetError, match=r"16 of 32 views.*--resume"):
        build(picture_folder, tmp_path / "run", tmp_path / "bank", cutouts=cutouts)
    with pytest.raises(ConfigError, match="--resume"):
        fill("bank")
    with pytest.raises(ConfigError, match="seed=0"):
        start.fill_bank(replace(STILL, seed=1), picture_folder, tmp_path / "bank", cutouts=cutouts, resume=True)
    for _ in range(2):
        # The second finds nothing left to do.
        assert fill("bank", resume=True) == 32
        whole, gone_on = (read_bank(tmp_path / name, STILL, CPU) for name in ("whole", "bank"))
        slots = list(range(STILL.bank.views))
        assert all(torch.equal(a, b) for a, b in zip(whole.taps(slots), gone_on.taps(slots), strict=True))
        assert [v.keys for v in whole.views] == [v.keys for v in gone_on.views]


def test_all_parts_are_missing_where_no_folder_is(tmp_path):
    assert missing_parts(tmp_path / "none", ORIGIN, resume=True) == [range(32)]


def test_runs_that_read_one_bank_map_its_files(bank, tmp_path):
    save_bank(bank, tmp_path / "bank", ORIGIN)
    one, two = (read_bank(tmp_path / "bank", STILL, CPU) for _ in range(2))
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert maps.read_text().count(str(tmp_path / "bank/000000.safetensors")) >= 2
    assert all(torch.equal(a, b) for a, b in zip(one.taps([1]), two.taps([1]), strict=True))


def other_weights(module: torch.nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        torch.nn.init.ones_(parameter)


def drawn_classes(bank: FeatureBank) -> set[tuple[str, str]]:
    rng = random.Random(0)
    return {bank.draw(1, rng)[0] for _ in range(200)}


def build(picture_folder: Path, folder: Path, bank: Path | None, **options: Any) -> Trainer:
    config = STILL.changed(options.pop("change", {}))
    return start.build_trainer(config, picture_folder, folder, bank=bank, workers=0, device="cpu", **options)


@pytest.fixture
def kept(picture_folder: Path, cutouts: Path, tmp_path: Path, random_backbone: None) -> Path:
    path = tmp_path / "bank"
    start.fill_bank(STILL, picture_folder, path, cutouts=cutouts, workers=0)
    return path


def test_no_mask_of_a_left_out_class_reaches_a_run(picture_folder, cutouts, tmp_path, kept):
    trainer = build(picture_folder, tmp_path / "run", kept, cutouts=cutouts, novel=["cat"])
    bank = trainer.source.bank()
    names = drawn_classes(bank)
    assert ("coco", "dog") in names
    assert not any("cat" in name.split("/")[-1] for _, name in names)
    assert 0 < bank.used < STILL.bank.views
    contents = trainer.source.contents()
    assert [name for name in contents["cutouts"] if "cat" in name] == []
    assert "cat" not in contents["sets"]["coco"]
    assert len(contents["bank"]) == 64


@pytest.mark.parametrize("from_kept", [False, True])
def test_a_left_out_set_is_not_trained_on(picture_folder, cutouts, tmp_path, kept, from_kept):
    bank = kept if from_kept else None
    options = {"cutouts": cutouts, "leave_out": ["coins", CUTOUT_SET]}
    trainer = build(picture_folder, tmp_path / "run", bank, **options)
    assert {set_name for set_name, _ in drawn_classes(trainer.source.bank())} == {"coco"}
    # A set may be named whose classes are novel anyway, but something must be left.
    build(picture_folder, tmp_path / "run", bank, cutouts=cutouts, leave_out=["coins"], novel=["coin"])
    with pytest.raises(DatasetError, match="left out"):
        build(picture_folder, tmp_path / "run", bank, cutouts=cutouts, leave_out=["coco"], novel=["coin"])


def test_a_run_is_resumed_with_its_own_bank_only(picture_folder, cutouts, tmp_path, kept):
    build(picture_folder, tmp_path / "run", kept, cutouts=cutouts).run()
    build(picture_folder, tmp_path / "run", kept, cutouts=cutouts).run(resume=True)
    with pytest.raises(ConfigError, match=r"data\.json differs"):
        build(picture_folder, tmp_path / "run", None, cutouts=cutouts).run(resume=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": 3}, "seed=0"),
        ({"pictures.view_size": 96}, "pictures.view_size=64"),
        ({"paste": 0.1}, "paste"),
        ({"model": replace(STILL.model, backbone="tf_efficientnet_lite0")}, "model.backbone="),
    ],
)
def test_a_bank_of_another_recipe_is_refused(change, reason, picture_folder, cutouts, tmp_path, kept):
    with pytest.raises(ConfigError, match=reason):
        build(picture_folder, tmp_path / "run", kept, cutouts=cutouts, change=change)
    assert not (tmp_path / "run").exists()


def test_a_bank_of_other_data_or_another_backbone_is_refused(picture_folder, cutouts, tmp_path, kept, monkeypatch):
    with pytest.raises(ConfigError, match="this many cut-outs: 3"):
        build(picture_folder, tmp_path / "run", kept)
    with pytest.raises(ConfigError, match="the sets"):
        build(picture_folder / "coco", tmp_path / "run", kept, cutouts=cutouts)
    changed = tmp_path / "changed"
    shutil.copytree(picture_folder, changed)
    picture = sorted((changed / "coco/images").iterdir())[0]
    picture.write_bytes(picture.read_bytes() + b" ")
    with pytest.raises(ConfigError, match="have changed"):
        build(changed, tmp_path / "run", kept, cutouts=cutouts)
    monkeypatch.setattr(start, "load_backbone_weights", lambda backbone, name, file: backbone.apply(other_weights))
    with pytest.raises(ConfigError, match="--backbone-weights"):
        build(picture_folder, tmp_path / "run", kept, cutouts=cutouts)


def test_files_that_are_no_banks_are_refused(bank, tmp_path):
    with pytest.raises(DatasetNotFoundError, match="iir-sdk bank"):
        check_bank(tmp_path / "none", ORIGIN)
    (tmp_path / "file").write_text("a bank of an older version")
    with pytest.raises(DatasetError, match="is a file"):
        check_bank(tmp_path / "file", ORIGIN)
    for name in ("text", "other", "cut"):
        (tmp_path / name).mkdir()
    (tmp_path / "text/000000.safetensors").write_text("no bank")
    save_file({"low": torch.zeros(1)}, tmp_path / "other/000000.safetensors")
    save_file({"low": torch.zeros(1)}, tmp_path / "cut/000000.safetensors", {"format": file._FORMAT, "origin": "{"})
    for name, reason in (("text", "cannot be read"), ("other", "has format None"), ("cut", "cannot be read")):
        with pytest.raises(DatasetError, match=reason):
            check_bank(tmp_path / name, ORIGIN)
        with pytest.raises(DatasetError):
            read_bank(tmp_path / name, STILL, CPU)
    path = tmp_path / "bank"
    save_bank(bank, path, ORIGIN)
    with pytest.raises(DatasetError, match="leaves out"):
        read_bank(path, STILL, CPU, lambda key: False)
    # The weights of sets may differ: episodes are drawn by the run's.
    reweighted = STILL.changed({"bank.main_weight": 1.0, "bank.cutout_weight": 0.0})
    assert {key[0] for key in drawn_classes(read_bank(path, reweighted, CPU))} == {"coco"}
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="cannot make folder"):
        start.fill_bank(STILL, tmp_path, tmp_path / "taken/bank")


def test_a_recipe_that_reads_pictures_has_no_bank(picture_folder, tmp_path):
    pictures = replace(TINY, source="pictures")
    with pytest.raises(ConfigError, match="source='bank'"):
        start.fill_bank(pictures, picture_folder, tmp_path / "bank")
    for options in ({"bank": tmp_path / "bank"}, {"leave_out": [CUTOUT_SET]}):
        with pytest.raises(ConfigError, match="source='bank'"):
            start.build_trainer(pictures, picture_folder, tmp_path / "run", **options)


def test_bank_and_train_from_the_command_line(picture_folder, cutouts, tmp_path, random_backbone):
    settings = [
        "bank.views=72",
        "pictures.view_size=64",
        "bank.label_size=32",
        "steps=2",
        "episodes.batch=2",
        "model.backbone=test_efficientnet",
        "model.width=16",
    ]
    given: list[object] = ["--data", picture_folder, "--cutouts", cutouts, "--workers", 0]
    for setting in [*settings, "model.head_width=8", "preprocessing.size=64", "preprocessing.support_size=64"]:
        given += ["--set", setting]
    assert "72 views" in output_of("bank", "duo", *given, "--out", tmp_path / "bank")
    output_of("train", "duo", *given, "--bank", tmp_path / "bank", "--out", tmp_path / "run")
    assert (tmp_path / "run/model.safetensors").exists()


def test_a_photo_of_another_set_says_nothing_of_what_is_absent():
    def view(photo: str, *names: str) -> PackedView:
        keys, side = tuple(("coco", name) for name in names), TINY.bank.label_size
        masks = np.full((len(names), side * side // 8), 255, np.uint8)
        return PackedView(keys, (frozenset({photo}),) * len(names), masks, {}, frozenset(keys), frozenset(keys), photo)

    views = [view("coco/a", "dog"), view("coco/b", "dog"), view("coins/c"), view("coco/d"), view("coco/e", "cat")]
    bank = FeatureBank(TINY.changed({"bank.views": 5, "episodes.absent": 1.0}), torch.device("cpu"))
    bank.hold([torch.zeros(5, 1, 1, 1)] * 3, views)
    rng = random.Random(0)
    assert {bank.draw(1, rng)[2] for _ in range(60)} == {3, 4}


def test_a_run_cannot_lie_where_a_file_is(picture_folder, tmp_path, random_backbone):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot make folder"):
        start.build_trainer(TINY, picture_folder, tmp_path / "file")
