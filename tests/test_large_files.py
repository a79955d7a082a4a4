"""Pictures read and written in windows: sheets of the demo's coins as GeoTIFFs."""

from __future__ import annotations

import numpy as np
import pytest

from iir_sdk import FewShotSegmenter, segment_large
from iir_sdk.errors import ConfigError, ImageError, OutputError, PictureNotFoundError
from iir_sdk.formats.raster import Raster, opened_raster, pixels_of
from iir_sdk.pictures.load import load_picture
from tests.lowest_iou import LOWEST_IOU
from tests.test_tiled_pictures import COINS, JOBS, iou, segmenter

__all__ = ["segmenter"]

rasterio = pytest.importorskip("rasterio")

PIXELS, TRUTH = load_picture(COINS.query).pixels, COINS.truth()


def written(path, bands: np.ndarray, **form):
    """Of ``(H, W, bands)``."""
    form = {"driver": "GTiff", "dtype": bands.dtype, "count": bands.shape[2], **form}
    with rasterio.open(path, "w", height=bands.shape[0], width=bands.shape[1], **form) as file:
        file.write(np.moveaxis(bands, -1, 0))
    return path


def test_a_geotiff_is_segmented_in_windows_and_keeps_its_place(segmenter, tmp_path):
    sheet, truth = np.tile(PIXELS, (2, 3, 1)), np.tile(TRUTH, (2, 3))
    place = rasterio.transform.from_origin(300_000, 5_800_000, 0.2, 0.2)
    source = written(tmp_path / "sheet.tif", sheet, crs="EPSG:32633", transform=place, tiled=True)
    report = segment_large(source, tmp_path / "mask.tif", segmenter=segmenter, tile=300)
    with rasterio.open(tmp_path / "mask.tif") as file:
        mask = file.read(1)
        assert (file.crs.to_string(), file.transform) == ("EPSG:32633", place)
        assert file.tags(1)["label_1"] == "coin"
    assert iou(mask == 1, truth) >= LOWEST_IOU["coins"]
    assert report.areas == ((mask == 1).sum(),) and report.labels == ("coin",) and report.size == truth.shape
    assert report.scores[0] > 0.9 and report.confidences[0] > 0.4
    result = segmenter.predict(sheet, tile=300)
    assert np.array_equal(result.mask, mask == 1)


def test_several_labels_compete_as_in_a_result(segmenter, tmp_path):
    both = FewShotSegmenter(segmenter.engine)
    both.add_support(COINS.support, COINS.support_mask, label="coin")
    both.add_support(JOBS["face"].support, JOBS["face"].support_mask, label="face")
    source = written(tmp_path / "coins.tif", PIXELS)
    report = segment_large(source, tmp_path / "mask.tif", segmenter=both, tile=None)
    with rasterio.open(tmp_path / "mask.tif") as file:
        numbers = file.read(1)
    assert np.array_equal(numbers, both.predict(PIXELS).label_map)
    assert report.areas == tuple((numbers == i).sum() for i in (1, 2))
    absent = segment_large(source, tmp_path / "mask.tif", segmenter=both, labels=["face"], tile=None, absent_below=0.5)
    assert absent.areas == (0,) and absent.confidences == (0,)


def test_windows_are_what_the_whole_file_shows(tmp_path):
    alpha = np.full((*PIXELS.shape[:2], 1), 255, np.uint8)
    alpha[:50] = 0
    deep = PIXELS.astype(np.uint16) * 40 + 1000
    for name, bands, form in (
        ("rgb", PIXELS, {}),
        ("grey", PIXELS[..., :1], {}),
        ("rgba", np.concatenate([PIXELS, alpha], -1), {"photometric": "RGB"}),
        ("deep", deep, {"photometric": "RGB"}),
    ):
        source = written(tmp_path / f"{name}.tif", bands, **form)
        expected = load_picture(source).pixels
        with opened_raster(source) as raster:
            assert raster.size == PIXELS.shape[:2]
            window = raster.window(slice(20, 90), slice(100, 300)).astype(int)
            assert np.abs(window - expected[20:90, 100:300]).max() <= (1 if name == "deep" else 0)
            assert np.abs(raster.overview().astype(int) - expected).max() <= 1


def test_bands_are_found_by_their_colours(tmp_path):
    source = written(tmp_path / "bgr.tif", np.dstack([PIXELS[..., ::-1], PIXELS[..., :1]]))
    colours = rasterio.enums.ColorInterp
    with rasterio.open(source, "r+") as file:
        file.colorinterp = (colours.blue, colours.green, colours.red, colours.undefined)
    with opened_raster(source) as raster:
        assert np.array_equal(raster.window(slice(0, 9), slice(0, 9)), PIXELS[:9, :9])


def test_a_palette_is_shown_in_its_colours(tmp_path):
    numbers = (PIXELS[..., :1] > 128).astype(np.uint8)
    source = written(tmp_path / "palette.tif", numbers)
    with rasterio.open(source, "r+") as file:
        file.write_colormap(1, {0: (9, 8, 7), 1: (200, 100, 0)})
    with opened_raster(source) as raster:
        window = raster.window(slice(0, 60), slice(0, 60))
    assert np.array_equal(window, np.array([(9, 8, 7), (200, 100, 0)], np.uint8)[numbers[:60, :60, 0]])


def test_what_cannot_be_read_or_written_is_said(segmenter, tmp_path):
    with pytest.raises(PictureNotFoundError, match=r"no\.tif"):
        segment_large(tmp_path / "no.tif", tmp_path / "out.tif", segmenter=segmenter)
    (tmp_path / "text.tif").write_text("no picture")
    with pytest.raises(ImageError, match=r"text\.tif"):
        segment_large(tmp_path / "text.tif", tmp_path / "out.tif", segmenter=segmenter)
    source = written(tmp_path / "whole.tif", PIXELS, compress="deflate")
    with pytest.raises(OutputError, match=r"must be a \.tif"):
        segment_large(source, tmp_path / "out.png", segmenter=segmenter)
    with pytest.raises(OutputError, match="create it first"):
        segment_large(source, tmp_path / "nowhere" / "out.tif", segmenter=segmenter)
    source.write_bytes(source.read_bytes()[:-30_000])
    with pytest.raises(ImageError, match="damaged"):
        segment_large(source, tmp_path / "out.tif", segmenter=segmenter)
    assert not (tmp_path / "out.tif").exists()


def test_tiles_too_small_for_a_picture_are_refused_and_the_cure_works(segmenter, monkeypatch):
    monkeypatch.setattr("iir_sdk.engines.tiled._MOST_CELLS", 5000)
    with pytest.raises(ConfigError, match="pass tile=256 or more"):
        segmenter.predict(PIXELS, tile=200)
    assert segmenter.predict(PIXELS, tile=256).mask.any()


def test_to_count_its_pixels_a_file_is_not_read(tmp_path, monkeypatch):
    """Of more than 8 bits all of it was, for its stretch."""
    source = written(tmp_path / "deep.tif", PIXELS.astype(np.uint16) * 40, photometric="RGB")
    monkeypatch.setattr(Raster, "_read", lambda *_, **__: pytest.fail("pixels were read"))
    assert pixels_of(source) == PIXELS.shape[0] * PIXELS.shape[1]
