"""The benchmarks' readers, on tiny copies in the official layouts."""

from __future__ import annotations

import itertools
import pickle
import re

import numpy as np
import pytest
from PIL import Image

from iir_sdk.data.benchmarks import coco, pascal, pascal_part
from iir_sdk.data.benchmarks.part import block_fold, interleaved_fold, select
from iir_sdk.data.benchmarks.stored_files import read_colour_labels, read_white_mask
from iir_sdk.data.dataset import Selection
from iir_sdk.data.folder import COCO_CLASSES, coco_fold
from iir_sdk.data.registry import BENCHMARKS, benchmark
from iir_sdk.data.sheet import contact_sheet
from iir_sdk.errors import DatasetError, DatasetNotFoundError
from tests import benchmark_trees as trees
from tests.benchmark_trees import BOX, boxed
from tests.command import output_of

TREES = {
    "pascal": trees.pascal_tree,
    "coco": trees.coco_tree,
    "fss1000": trees.fss_tree,
    "lvis": trees.lvis_tree,
    "pascal_part": trees.pascal_part_tree,
    "paco_part": trees.paco_tree,
    "deepglobe": trees.deepglobe_tree,
    "isic2018": trees.isic_tree,
    "chest_xray": trees.chest_tree,
    "suim": trees.suim_tree,
}


def read(name: str, root, fold: int = 0, split: str = "test", convention: str = "unfiltered"):
    return benchmark(name).read(root, Selection(fold, split, convention))  # type: ignore[arg-type]


# Folds, against their published definitions


def test_pascals_folds_are_five_neighbours_each():
    published = (
        ("aeroplane", "bicycle", "bird", "boat", "bottle"),
        ("bus", "car", "cat", "chair", "cow"),
        ("diningtable", "dog", "horse", "motorbike", "person"),
        ("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
    )
    assert tuple(block_fold(pascal.CLASSES, i, 4) for i in range(4)) == published


def test_cocos_folds_are_every_fourth_category():
    assert len(COCO_CLASSES) == 80
    for fold in range(4):
        assert interleaved_fold(COCO_CLASSES, fold, 4) == coco_fold(fold)
        assert len(coco_fold(fold)) == 20
    assert coco_fold(0)[:5] == ("person", "airplane", "boat", "parking_meter", "dog")
    assert coco_fold(3)[-3:] == ("sink", "vase", "toothbrush")
    assert sorted(itertools.chain(*map(coco_fold, range(4)))) == sorted(COCO_CLASSES)


@pytest.mark.parametrize(("classes", "folds"), [(920, 10), (448, 4)])
def test_interleaved_folds_share_all_classes_evenly(classes, folds):
    names = [str(i) for i in range(classes)]
    parts = [interleaved_fold(names, fold, folds) for fold in range(folds)]
    assert {len(p) for p in parts} == {classes // folds}
    assert sorted(itertools.chain(*parts)) == sorted(names)


def test_parts_are_of_four_kinds():
    assert [kind for kind, _ in pascal_part.KINDS] == ["animals", "indoor", "person", "vehicles"]
    objects_named = [c for _, objects in pascal_part.KINDS for c in objects]
    assert len(objects_named) == len(set(objects_named)) == 16
    assert set(objects_named) <= set(pascal.CLASSES)


@pytest.mark.parametrize(
    ("part", "merged"),
    [
        ("lear", "ear"),
        ("rebrow", "eyebrow"),
        ("lfuleg", "leg"),
        ("rblleg", "leg"),
        ("ruarm", "arm"),
        ("lfpa", "paw"),
        ("rbho", "hoof"),
        ("wheel_2", "wheel"),
        ("bwheel", "wheel"),
        ("fliplate", "plate"),
        ("leftmirror", "mirror"),
        ("hfrontside", "side"),
        ("engine_4", "engine"),
        ("lwing", "wing"),
        ("torso", "torso"),
        ("head", "head"),
        ("nose", "nose"),
    ],
)
def test_sides_and_numbers_of_parts_are_merged(part, merged):
    assert pascal_part.merged_part(part) == merged


# The rules for which picture serves which class


def test_select_holds_classes_out_and_filters():
    areas = {"p": {"a": 5000}, "q": {"a": 5000, "b": 1}, "r": {"b": 3000}, "s": {"a": 2047}}
    classes, novel = ["a", "b"], ["b"]
    assert select(areas, classes, novel, Selection(split="test")) == {"b": ("r",)}
    assert select(areas, classes, novel, Selection(split="train")) == {"a": ("p", "q")}
    assert select(areas, classes, novel, Selection(split="train", convention="filtered")) == {"a": ("p",)}
    assert select(areas, classes, novel, Selection(split="train"), min_area=2047) == {"a": ("p", "q", "s")}
    with pytest.raises(DatasetError, match="large enough"):
        select({}, classes, novel, Selection())


@pytest.mark.parametrize("bad", [{"split": "val"}, {"convention": "bam"}])
def test_words_that_are_not_choices(bad):
    with pytest.raises(DatasetError, match="must be"):
        Selection(**bad)


@pytest.mark.parametrize("name", TREES)
def test_a_fold_that_does_not_exist(name, tmp_path):
    with pytest.raises(DatasetError, match="folds 0 to"):
        read(name, TREES[name](tmp_path), fold=BENCHMARKS[name].reader.FOLDS)


@pytest.mark.parametrize("name", TREES)
def test_what_is_missing_is_named(name, tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"is missing: put .* there"):
        read(name, tmp_path)


@pytest.mark.parametrize("name", TREES)
def test_pictures_and_masks_fit_and_the_sheet_shows_them(name, tmp_path):
    root = TREES[name](tmp_path)
    for fold in range(BENCHMARKS[name].reader.FOLDS):
        try:
            dataset = read(name, root, fold)
        except DatasetError:
            # These trees hold a few classes, not one of every fold.
            continue
        # As data loaders' processes get it.
        dataset = pickle.loads(pickle.dumps(dataset))
        for label, keys in dataset.classes.items():
            for key in keys:
                pixels, mask = dataset.picture(key), dataset.mask(label, key)
                assert pixels.shape == (*mask.shape, 3)
                assert mask.dtype == np.uint8
                assert set(np.unique(mask)) <= {0, 1, 255}
                assert (mask == 1).any()
        assert contact_sheet(dataset, pictures=5).size == (800, 400)


# Each benchmark


def test_pascal(tmp_path):
    root = trees.pascal_tree(tmp_path)
    train = read("pascal", root, 0, "train")
    assert train.classes == {"bus": ("a", "b", "s1"), "train": ("s2",)}
    assert read("pascal", root, 0, "train", "filtered").classes == {"bus": ("a", "s1"), "train": ("s2",)}
    # Picture c is VOC's for validation, so SBD's mask of it (a cow) serves nothing.
    assert read("pascal", root, 1, "train").classes == {"bird": ("b",), "train": ("s2",)}
    assert read("pascal", root, 0, "test").classes == {"bird": ("c",), "boat": ("v",)}
    with pytest.raises(DatasetError, match="large enough"):
        read("pascal", root, 1, "test")
    mask = train.mask("bus", "a")
    assert (mask == 1).sum() == 3600
    assert (mask == 255).sum() == 60
    assert np.array_equal(train.mask("bus", "s1"), boxed(BOX))
    assert (train.mask("bird", "b")[75:] == 1).all()


@pytest.mark.parametrize("key", ["a", "s1"])
def test_damaged_masks_are_named(tmp_path, key):
    root = trees.pascal_tree(tmp_path)
    train = read("pascal", root, 0, "train")
    (file,) = [p for p in root.rglob(f"{key}.*") if p.suffix in (".mat", ".png") and p.parent.name != "JPEGImages"]
    file.write_bytes(b"damaged")
    with pytest.raises(DatasetError, match="cannot be read"):
        train.mask("bus", key)


def test_damaged_pictures_of_masks_are_named(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"damaged")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_white_mask(tmp_path / "mask.png", "masks")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_colour_labels(tmp_path / "mask.png", "masks", {"red": (255, 0, 0)})


def test_coco(tmp_path):
    root = trees.coco_tree(tmp_path)
    assert read("coco", root, 0, "train").classes == {"bicycle": ("1",), "car": ("2",)}
    assert read("coco", root, 0, "train", "filtered").classes == {"bicycle": ("1",)}
    test = read("coco", root, 0)
    assert test.classes == {"person": ("7",), "airplane": ("8",)}
    mask = test.mask("person", "7")
    assert np.array_equal(mask == 1, boxed(BOX) == 1)  # two instances as one, also where the crowd lies
    assert (mask[75:] == 255).all()
    assert np.array_equal(test.mask("airplane", "8"), boxed(BOX))
    # A base learner must know of objects too small for an episode.
    assert read("coco", root, 1, "train").seen == {"2": ("car",)}
    assert read("coco", root, 3, "train").seen == {"1": ("bicycle",), "2": ("car",)}
    assert coco.image_areas(coco.COCO.annotations(root, "test"), 7) == {"person": 3600}


def test_lvis(tmp_path):
    root = trees.lvis_tree(tmp_path)
    assert read("lvis", root, 0).classes == {"thing_1": ("200", "201"), "thing_11": ("200", "201")}
    assert np.array_equal(read("lvis", root, 0).mask("thing_1", "201"), boxed(BOX))
    # Tested on it is not, being in one validation picture only; trained on it is.
    assert "thing_12" not in {c for f in range(2) for c in read("lvis", root, f).classes}
    assert "thing_12" in read("lvis", root, 0, "train").classes
    assert "thing_1" not in read("lvis", root, 0, "train").classes


def test_paco_part(tmp_path):
    root = trees.paco_tree(tmp_path)
    test = read("paco_part", root, 0)
    assert test.classes == {"chair:leg": ("0#1", "1#11")}
    assert read("paco_part", root, 1).classes == {"chair:back": ("0#1", "1#11")}
    # The object's box is x 15 to 85, y 5 to 85.
    expected = np.zeros((80, 70), np.uint8)
    expected[35:75, 5:65] = 1
    assert np.array_equal(test.mask("chair:leg", "0#1"), expected)
    assert test.picture("0#1").shape == (80, 70, 3)


def test_pascal_part(tmp_path):
    root = trees.pascal_part_tree(tmp_path)
    animals = read("pascal_part", root, 0)
    assert animals.classes == {"cat:ear": ("val_0#0",)}
    assert read("pascal_part", root, 3).classes == {"bus:wheel": ("val_1#0",)}
    assert read("pascal_part", root, 3, "train").classes == {"cat:ear": ("train_0#0",)}
    expected = np.zeros((90, 95), np.uint8)
    expected[5:55, 10:90] = 1
    assert np.array_equal(animals.mask("cat:ear", "val_0#0"), expected)


def test_fss1000(tmp_path):
    root = trees.fss_tree(tmp_path)
    assert list(read("fss1000", root).classes) == ["bell"]
    train = read("fss1000", root, 0, "train")
    assert list(train.classes) == ["abacus", "cup"]
    assert len(train.classes["cup"]) == 10
    assert np.array_equal(train.mask("cup", "cup/3"), boxed(BOX))
    trees.write_lines(root / "fss_val_set.txt", ["cup"])
    assert list(read("fss1000", root, 0, "train").classes) == ["abacus"]
    trees.write_lines(root / "fss_test_set.txt", ["bell", "zebra"])
    with pytest.raises(DatasetError, match="'zebra'"):
        read("fss1000", root)


def test_deepglobe(tmp_path):
    part = read("deepglobe", trees.deepglobe_tree(tmp_path))
    assert part.classes == {"forest": ("7#0,0",), "water": ("7#0,0",)}
    assert part.mask("water", "7#0,0")[:50].all()
    assert part.mask("forest", "7#0,0")[50:].all()
    assert part.picture("7#0,0").shape == (100, 100, 3)


def test_isic2018(tmp_path):
    part = read("isic2018", trees.isic_tree(tmp_path))
    assert part.classes == {"melanoma": ("ISIC_1",), "nevus": ("ISIC_3",), "seborrheic_keratosis": ("ISIC_2",)}


def test_chest_xray(tmp_path):
    assert read("chest_xray", trees.chest_tree(tmp_path)).classes == {"lung": ("CHNCXR_1", "MCUCXR_0")}


def test_suim(tmp_path):
    part = read("suim", trees.suim_tree(tmp_path))
    assert part.classes == {"reef": ("d_1",), "fish": ("d_1",)}
    assert np.array_equal(part.mask("fish", "d_1"), boxed(BOX))


@pytest.mark.parametrize("name", [n for n, b in BENCHMARKS.items() if b.cross_domain])
def test_cross_domain_sets_are_not_trained_on(name, tmp_path):
    with pytest.raises(DatasetError, match="not trained on"):
        read(name, TREES[name](tmp_path), 0, "train")


def test_the_index_of_areas_is_kept_and_made_again_when_damaged(tmp_path):
    root = trees.pascal_tree(tmp_path)
    first = read("pascal", root).classes
    (index,) = (root / ".iir_sdk").glob("areas-pascal-test.json")
    (root / pascal.VOC / "SegmentationClass" / "c.png").rename(root / "c.png")
    assert read("pascal", root).classes == first  # from the index
    (root / "c.png").rename(root / pascal.VOC / "SegmentationClass" / "c.png")
    index.write_text("{")
    assert read("pascal", root).classes == first


# The command


COUNTED = {
    "pascal": {"training pictures": 4, "test pictures": 2, "classes": 20},
    "coco": {"training pictures": 3, "test pictures": 2, "classes": 5},
    "fss1000": {"training classes": 2, "test classes": 1},
    "lvis": {"training pictures": 2, "test pictures": 2, "classes": 11},
    "pascal_part": {"annotated pictures": 4, "folds": 4},
    "paco_part": {"classes": 3},
    "deepglobe": {"pictures": 1, "tiles": 1, "classes": 2},
    "isic2018": {"pictures": 3, "classes": 3},
    "chest_xray": {"pictures": 2, "classes": 1},
    "suim": {"pictures": 1, "classes": 2},
}
TAKEN_AWAY = {
    "pascal": "benchmark_RELEASE/dataset/cls/s2.mat",
    "coco": "train2014/COCO_train2014_000000000003.jpg",
    "fss1000": "fewshot_data/cup/7.png",
    "lvis": "val2017/000000000101.jpg",
    "pascal_part": "VOCdevkit/VOC2010/JPEGImages/train_1.jpg",
    "paco_part": "train2017/000000000001.jpg",
    "deepglobe": "train/7_sat.jpg",
    "isic2018": "ISIC2018_Task1_Training_GroundTruth/ISIC_4_segmentation.png",
    "chest_xray": "CXR_png/MCUCXR_0.png",
    "suim": "TEST/images/d_1.jpg",
}


@pytest.mark.parametrize("name", TREES)
def test_check_counts_a_copy_and_finds_what_is_missing(name, tmp_path):
    root = TREES[name](tmp_path)
    assert benchmark(name).reader.census(root) == COUNTED[name]
    assert benchmark(name).missing_files(root) == []
    (root / TAKEN_AWAY[name]).unlink()
    assert benchmark(name).missing_files(root) == [root / TAKEN_AWAY[name]]


def places_of(pattern: str) -> list[str]:
    """Patterns for ``glob`` of a line of a layout."""
    if alternatives := re.search(r"\{([^{}]*)\}", pattern):
        before, after = pattern[: alternatives.start()], pattern[alternatives.end() :]
        return [place for each in alternatives[1].split(",") for place in places_of(before + each + after)]
    return [re.sub("<.*?>", "*", pattern).rstrip("/")]


@pytest.mark.parametrize("name", TREES)
def test_layouts_say_where_everything_lies(name, tmp_path):
    root = TREES[name](tmp_path)
    lines = BENCHMARKS[name].layout
    assert all(list(root.glob(place)) for line in lines for place in places_of(line))
    described = [file for line in lines for place in places_of(line) for file in root.glob(place)]
    for file in BENCHMARKS[name].reader.files(root):
        assert any(file.is_relative_to(place) for place in described), file


def test_data_list_names_every_benchmark_with_layout_and_counts():
    lines = output_of("data", "list").splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == list(BENCHMARKS)
    assert "pascal       10,582 training pictures, 1,449 test pictures, 20 classes, 4 folds" in lines
    assert "suim         110 pictures, 7 classes, to test on only" in lines
    assert "             masks/<class>/<id>.png" in lines


def test_data_check_names_what_differs_and_draws_the_sheet(tmp_path):
    root = trees.suim_tree(tmp_path / "suim")
    sheet = tmp_path / "sheet.png"
    output = output_of("data", "check", "suim", root, "--sheet", sheet, code=1)
    for part in ("missing files               0", "110", "differs"):
        assert part in output
    assert Image.open(sheet).width == 800
    assert "there are: pascal" in output_of("data", "check", "nothing", root, code=1)


def test_data_check_of_ones_own_folder(picture_folder, tmp_path):
    output_of("data", "check", "folder", picture_folder / "coins", "--sheet", tmp_path / "s.png")
