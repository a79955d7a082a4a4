"""``iir-sdk segment`` on pictures too large for memory; the limit is lowered, so that the demo's coins are such."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from iir_sdk import segment_folder
from iir_sdk.errors import IirWarning
from iir_sdk.pictures.save import save_numbers
from tests.command import run
from tests.lowest_iou import LOWEST_IOU
from tests.test_large_files import written
from tests.test_segment_verb import rows_of
from tests.test_tiled_pictures import COINS, JOBS, iou, segmenter

__all__ = ["segmenter"]

rasterio = pytest.importorskip("rasterio")

PIXELS = np.asarray(Image.open(COINS.query).convert("RGB"))
SUPPORT = ("--support", COINS.support, f"{COINS.support_mask}:coin")


@pytest.fixture
def sheets(tmp_path, monkeypatch):
    """A georeferenced sheet of coins, too large, beside a single picture of them."""
    monkeypatch.setattr("iir_sdk.segmenting.reading.MAX_PIXELS", 200_000)
    folder = tmp_path / "sheets"
    folder.mkdir()
    place = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(300_000, 5_800_000, 0.2, 0.2)}
    written(folder / "sheet.tif", np.tile(PIXELS, (2, 3, 1)), **place)
    written(folder / "single.tif", PIXELS, **place)
    return folder


def test_a_picture_beyond_memory_gets_all_that_others_get(sheets, segmenter, tmp_path):
    out, page = tmp_path / "out", tmp_path / "sheet.html"
    words = ["segment", sheets, *SUPPORT, "--out", out, "--review", page, "--tile", "300"]
    words += ["--format", "geotiff,map,masks,voc,overlay"]
    assert run(*words)[0] == 0
    expected = segmenter.predict(sheets / "sheet.tif", tile=300)
    assert iou(expected.mask, np.tile(COINS.truth(), (2, 3))) >= LOWEST_IOU["coins"]
    for name in ("geotiff/sheet.tif", "map/sheet.png", "voc/SegmentationClass/sheet.png"):
        assert np.array_equal(np.asarray(Image.open(out / name)), expected.label_map), name
    assert np.array_equal(np.asarray(Image.open(out / "masks" / "coin" / "sheet.png")) == 255, expected.mask)
    with rasterio.open(out / "geotiff" / "sheet.tif") as file, rasterio.open(sheets / "sheet.tif") as source:
        assert (file.crs, file.transform) == (source.crs, source.transform)
    assert Image.open(out / "overlay" / "sheet.jpg").size == (expected.image.shape[1], expected.image.shape[0])
    row = next(r for r in rows_of(out) if r["file"].endswith("sheet.tif"))
    assert int(row["area"]) == expected.mask.sum() and float(row["score"]) == pytest.approx(expected.score, abs=1e-4)
    assert row["box"] == " ".join(map(str, expected.boxes()[0]))
    assert page.read_text(encoding="utf-8").count("data:image/jpeg") == 2
    assert "0 pictures segmented, 2 were done before" in run(*words)[1]


def test_several_labels_of_it_compete_as_in_others(sheets, tmp_path):
    face = JOBS["face"]
    both = [(COINS.support, COINS.support_mask, "coin"), (face.support, face.support_mask, "face")]
    with pytest.warns(IirWarning, match="--tile auto"):
        large = segment_folder(sheets / "sheet.tif", tmp_path / "a", supports=both, formats=["map", "masks"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iir_sdk.segmenting.reading.MAX_PIXELS", 80_000_000)
        whole = segment_folder(sheets / "sheet.tif", tmp_path / "b", supports=both, formats=["map", "masks"])
    assert [(r.label, r.area, r.box) for r in large.rows] == [(r.label, r.area, r.box) for r in whole.rows]
    for name in ("map/sheet.png", "masks/coin/sheet.png", "masks/face/sheet.png"):
        assert np.array_equal(*(np.asarray(Image.open(tmp_path / out / name)) for out in "ab"))


@pytest.mark.parametrize(
    ("asked", "needs"),
    [(["--format", "map,coco"], "--format coco"), (["--fill-holes", "--sharpen"], "--sharpen, --fill-holes")],
)
def test_what_needs_it_whole_is_named_and_the_cure_works(sheets, tmp_path, asked, needs):
    code, output = run("segment", sheets, *SUPPORT, "--out", tmp_path / "out", "--tile", "400", *asked)
    assert code == 1 and f"{needs} needs it as a whole" in output and "1 pictures segmented" in output
    assert not list((tmp_path / "out").rglob("sheet.*"))
    able = output.partition("may be any of ")[2].partition(".")[0]
    cured = ["--out", tmp_path / "other", "--tile", "400", "--format", able]
    assert run("segment", sheets / "sheet.tif", *SUPPORT, *cured)[0] == 0
    assert len(list((tmp_path / "other").rglob("sheet.*"))) == 1 + len(able.split(","))


def test_without_rasterio_its_error_says_what_to_install(sheets, tmp_path, monkeypatch):
    monkeypatch.setattr("iir_sdk.segmenting.reading.find_spec", lambda name: None)
    monkeypatch.setattr("iir_sdk.pictures.arrays.MAX_PIXELS", 200_000)
    code, output = run("segment", sheets, *SUPPORT, "--out", tmp_path / "out")
    assert code == 1 and "iir-sdk[geo]" in output and "1 pictures segmented" in output


def test_a_picture_that_is_shown_turned_is_refused_and_the_cure_works(sheets, tmp_path):
    turned, path = Image.Exif(), tmp_path / "turned.jpg"
    turned[0x112] = 6
    Image.fromarray(np.tile(PIXELS, (2, 3, 1))).save(path, exif=turned)
    code, output = run("segment", path, *SUPPORT, "--out", tmp_path / "out", "--tile", "400")
    assert code == 1 and "ImageOps.exif_transpose" in output
    ImageOps.exif_transpose(Image.open(path)).save(path)
    assert run("segment", path, *SUPPORT, "--out", tmp_path / "out", "--tile", "400")[0] == 0
    assert Image.open(tmp_path / "out" / "masks" / "coin" / "turned.png").size == Image.open(path).size


def test_a_file_that_pil_cannot_read_is_read_in_windows(sheets, tmp_path):
    source = written(tmp_path / "bands.tif", np.dstack([np.tile(PIXELS, (2, 3, 1))] * 2).astype(np.uint16))
    code, output = run("segment", source, *SUPPORT, "--out", tmp_path / "out", "--tile", "400")
    assert code == 0, output


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_pngs_of_strips_hold_the_numbers(tmp_path, kind):
    numbers = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (50, 33)).astype(kind)
    save_numbers([numbers[:1], numbers[1:20], numbers[20:]], numbers.shape, tmp_path / "a.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), numbers)
