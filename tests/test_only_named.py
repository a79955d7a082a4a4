"""Runs that use some sets, pictures and cut-outs alone, also from a bank of everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from iir_sdk.data.dataset import CUTOUT_SET
from iir_sdk.data.exclusion import cutouts_among, only_named
from iir_sdk.data.folder import read_picture_sets
from iir_sdk.errors import ConfigError, DatasetError, DatasetNotFoundError
from iir_sdk.training import start
from iir_sdk.training.bank.views import ViewMaker, read_cutouts
from iir_sdk.training.config import packaged_lists, read_names
from tests.test_exclusion import LISTED
from tests.test_training import TINY, cutouts, random_backbone

__all__ = ["cutouts", "random_backbone"]

MIXED = TINY.changed({"bank.views": 120, "bank.paste": 1.0, "bank.cutouts": 0.3})


@pytest.fixture
def listed(picture_folder: Path, cutouts: Path, tmp_path: Path) -> Path:
    """A list of three coins, and of one cut-out's folder."""
    stems = sorted(file.stem for file in (picture_folder / "coins/images").iterdir())[:3]
    lines = ["# the first coins", *(f"coins/{stem}  # kept" for stem in stems), "", f"cutouts/{cutouts.name}"]
    path = tmp_path / "open.txt"
    path.write_text("\n".join(lines))
    return path


def test_sets_pictures_and_cutouts_are_used_alone(picture_folder, listed):
    sets = read_picture_sets(picture_folder)
    assert only_named(sets, []) == sets
    assert only_named(sets, ["coco", "cutouts"]) == [s for s in sets if s.name == "coco"]
    (coins,) = only_named(sets, read_names([str(listed)]))
    assert len(coins.images) == 3
    assert set(coins.classes["coin"]) == set(coins.images)
    for wrong in ("coin", "coins/none"):
        with pytest.raises(DatasetError, match=f"cannot use {wrong} alone.*coco, coins"):
            only_named(sets, [wrong])


def test_cutouts_are_named_by_their_folder():
    files = [Path("emoji/cat.webp"), Path("stamps/cat.webp")]
    assert cutouts_among(files, []) == cutouts_among(files, ["coco", "cutouts"]) == files
    assert cutouts_among(files, ["coco", "cutouts/emoji"]) == files[:1]
    assert cutouts_among(files, ["coco"]) == []


def test_lists_are_files_or_the_packages_or_names(listed):
    assert read_names(["coco", str(listed)])[0] == "coco"
    assert len(read_names(["coco", str(listed)])) == 5
    with pytest.raises(DatasetNotFoundError, match="no list of sets"):
        read_names(["none.txt"])
    names = read_names(["open_sets"])
    assert names == read_names([str(packaged_lists()["open_sets"])])
    known = {line.split("\t")[0] for line in LISTED.read_text().splitlines()[1:]} | {CUTOUT_SET}
    assert {name.split("/")[0] for name in names} <= known
    assert "cutouts/emoji3d" in names
    assert "cutouts" not in names
    assert "coco" not in names
    assert "wild_animals7" not in names
    assert len([name for name in names if name.startswith("coco/")]) == 152


def test_a_listed_pictures_view_has_objects_of_the_list_alone_pasted(picture_folder, cutouts, listed):
    sets, files = read_picture_sets(picture_folder), read_cutouts(cutouts)
    names = set(read_names([str(listed)]))
    maker = ViewMaker(sets, files, MIXED.changed({"bank.paste_among": str(listed)}))
    made = [maker.make(i) for i in range(60)]
    of_list = [view for view in made if view.photo in names]
    assert of_list
    for view in of_list:
        assert all(p in names or p.startswith("cutouts/") for p in view.pasted)
    assert any(not view.pasted <= names for view in made if view.photo not in names)


@pytest.mark.parametrize("apart", [False, True])
def test_a_bank_of_everything_serves_a_run_of_some(picture_folder, cutouts, listed, tmp_path, random_backbone, apart):
    config = MIXED.changed({"bank.paste_among": str(listed) if apart else ""})
    start.fill_bank(config, picture_folder, tmp_path / "bank", cutouts=cutouts, workers=0)

    def bank_of(*only: str):
        trainer = start.build_trainer(
            config,
            picture_folder,
            tmp_path / "run",
            cutouts=cutouts,
            bank=tmp_path / "bank",
            only=only,
            workers=0,
            device="cpu",
        )
        assert trainer.source.maker.contents()["sets"].keys() == {"coins"}
        return trainer.source.bank()

    bank = bank_of(str(listed))
    names = set(read_names([str(listed)]))
    usable = {i for i, view in enumerate(bank.views) if view.photo in names}
    used = set(bank.used_slots)
    assert used == usable if apart else used < usable
    for slot in used:
        pasted = bank.views[slot].pasted
        assert all(p in names or p.startswith("cutouts/") for p in pasted)
    bare = bank_of("coins")
    assert bare.used
    shown = [picture for slot in bare.used_slots for picture in (bare.photo(slot), *bare.views[slot].pasted)]
    assert all(picture.startswith("coins/") for picture in shown)


def test_names_go_with_folders_of_sets(tmp_path):
    pictures = replace(TINY, source="pictures", dataset="coco")
    with pytest.raises(ConfigError, match="--only coins"):
        start.build_trainer(pictures, tmp_path, tmp_path / "run", only=["coins"])
