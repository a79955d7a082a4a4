"""The folder layout, folds, episodes and the exclusion of novel classes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iir_sdk.data.episodes import large_enough, sample_episodes
from iir_sdk.data.exclusion import cutouts_without, names_class, without_classes, without_sets
from iir_sdk.data.folder import COCO_CLASSES, coco_fold, read_picture_set, read_picture_sets
from iir_sdk.errors import DatasetError, DatasetNotFoundError


def test_reading_one_set_and_many(picture_folder):
    sets = read_picture_sets(picture_folder)
    assert [(s.name, sorted(s.classes)) for s in sets] == [("coco", ["cat", "dog"]), ("coins", ["coin"])]
    (alone,) = read_picture_sets(picture_folder / "coins")
    assert alone.classes == {"coin": tuple(f"coin{i}" for i in range(6))}
    assert alone.picture("coin0").shape == (64, 80, 3)
    mask = alone.mask("coin", "coin0")
    assert mask.dtype == np.uint8
    assert 0 < mask.mean() < 0.5


def test_what_is_missing_is_named(tmp_path, picture_folder):
    with pytest.raises(DatasetNotFoundError, match="images"):
        read_picture_set(tmp_path)
    with pytest.raises(DatasetNotFoundError, match="no images/"):
        read_picture_sets(tmp_path)
    shutil.copytree(picture_folder / "coins", tmp_path / "coins")
    (tmp_path / "coins/images/coin3.jpg").unlink()
    with pytest.raises(DatasetError, match="coin3"):
        read_picture_set(tmp_path / "coins")
    shutil.rmtree(tmp_path / "coins/masks/coin")
    with pytest.raises(DatasetError, match="holds no masks"):
        read_picture_set(tmp_path / "coins")


def test_coco_folds_are_every_fourth_class():
    assert len(COCO_CLASSES) == 80
    folds = [coco_fold(i) for i in range(4)]
    assert sorted(c for f in folds for c in f) == sorted(COCO_CLASSES)
    assert all(len(f) == 20 for f in folds)
    assert folds[0][:3] == ("person", "airplane", "boat")
    assert folds[3][-2:] == ("vase", "toothbrush")
    with pytest.raises(DatasetError, match="fold 4"):
        coco_fold(4)


def test_episodes_are_fixed_by_their_seed(picture_folder):
    stems = read_picture_set(picture_folder / "coco").classes
    first = sample_episodes(stems, shots=2, count=40, seed=7)
    assert first == sample_episodes(dict(reversed(stems.items())), shots=2, count=40, seed=7)
    assert first != sample_episodes(stems, shots=2, count=40, seed=8)
    assert first[:10] == sample_episodes(stems, shots=2, count=10, seed=7)
    for episode in first:
        pictures = {*episode.supports, episode.query}
        assert len(pictures) == 3
        assert pictures <= set(stems[episode.name])
    assert {e.name for e in first} == {"cat", "dog"}


def test_classes_with_too_few_pictures_are_left_out():
    stems = {"many": ("a", "b", "c"), "few": ("a", "b")}
    assert {e.name for e in sample_episodes(stems, shots=2, count=5, seed=0)} == {"many"}
    with pytest.raises(DatasetError, match="4 pictures"):
        sample_episodes(stems, shots=3, count=5, seed=0)


def test_small_objects_are_left_out(tmp_path):
    for stem, side in (("small", 5), ("large", 20)):
        for folder in ("images", "masks/thing"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        mask = np.zeros((100, 100), np.uint8)
        mask[:side, :side] = 255
        Image.fromarray(np.zeros((100, 100, 3), np.uint8)).save(tmp_path / "images" / f"{stem}.png")
        Image.fromarray(mask).convert("1").save(tmp_path / "masks/thing" / f"{stem}.png")
    assert large_enough(read_picture_set(tmp_path), 0.01) == {"thing": ("large",)}
    assert large_enough(read_picture_set(tmp_path), 0.001) == {"thing": ("large", "small")}


def test_novel_classes_are_known_under_other_names():
    fold = coco_fold(3)
    for name in (
        "cat",
        "1f408-cat",
        "animals-mammals-cats-lion",
        "delivery_truck",
        "necktie",
        "sake_bottle_and_cup",
        "vehicles-garbagetruck",
        "town-roadsigns-stop",
        "1f6d1-octagonal_sign",
        "seasonal-halloween-blackcat",
        "hocho",
    ):
        assert names_class(name, fold), name
    for name in ("dog", "cattle", "scatter", "baseball_bat", "caterpillar", "tiebreak", "stoplight"):
        assert not names_class(name, fold), name
    assert cutouts_without([Path("a/cow.png"), Path("a/dog.png")], fold) == [Path("a/dog.png")]
    # A number does not say what it shows.
    assert cutouts_without([Path("a/1fae8-1fae8.png")], fold) == []
    assert cutouts_without([Path("a/1fae8-1fae8.png")], ()) == [Path("a/1fae8-1fae8.png")]
    assert cutouts_without([Path("a/bee.png"), Path("a/1f41d-bee.png")], fold) == [
        Path("a/bee.png"),
        Path("a/1f41d-bee.png"),
    ]


@pytest.mark.parametrize(
    ("fold", "shown", "others"),
    [
        (
            0,
            (
                *("1f466-boy", "military-vehicles-f22_raptor", "clinking_glasses", "sports-soccer"),
                *("1f3c7-horse_racing", "1f923-rolling_on_the_floor_laughing", "town-roadsigns-xing_school", "bag"),
            ),
            ("cactus", "1f408-cat"),
        ),
        (
            1,
            ("town-roadsigns-stoplight_01_red", "bubble_tea", "1f696-minibus", "closed_book"),
            ("handbook", "cupboard"),
        ),
        (2, ("vehicles-race-indycar", "1f689-station", "animals-birds-owl", "school_handbag"), ("scarf", "strain")),
    ],
)
def test_other_names_are_known_for_every_fold(fold, shown, others):
    for name in shown:
        assert names_class(name, coco_fold(fold)), name
    for name in others:
        assert not names_class(name, coco_fold(fold)), name


def test_classes_that_hold_a_novel_one_are_excluded_too(picture_folder, tmp_path):
    shutil.copytree(picture_folder / "coco", tmp_path / "camvid")
    (tmp_path / "camvid/masks/cat").rename(tmp_path / "camvid/masks/car")
    (usable,) = without_classes(read_picture_sets(tmp_path), ["truck"])
    assert set(usable.classes) == {"dog"}


def test_excluded_classes_lose_their_masks_and_keep_their_pictures(picture_folder):
    sets = read_picture_sets(picture_folder)
    (coco, coins) = without_classes(sets, ["cat"])
    assert set(coco.classes) == {"dog"}
    assert coco.images == sets[0].images
    assert set(coins.classes) == {"coin"}
    assert [s.name for s in without_classes(sets, ["coin"])] == ["coco"]
    with pytest.raises(DatasetError, match="zebra"):
        coco.only(["zebra"])


def test_sets_are_left_out_by_name(picture_folder):
    sets = read_picture_sets(picture_folder)
    assert [s.name for s in without_sets(sets, ["coins", "cutouts"])] == ["coco"]
    assert without_sets(sets, []) == sets
    with pytest.raises(DatasetError, match=r"'coin'.*coco, coins, cutouts"):
        without_sets(sets, ["coin"])
    assert without_sets(sets, ["coins", "coco"]) == []
