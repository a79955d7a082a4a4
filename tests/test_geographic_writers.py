"""Masks of georeferenced pictures keep their place on earth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform_geom

from iir_sdk import FewShotSegmenter, Segmentation
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import MissingDependencyError, OutputError
from iir_sdk.formats.polygons import rasterised
from iir_sdk.formats.registry import WRITERS
from tests.test_polygons import iou

PLACE = from_origin(500_000, 5_800_000, 0.5, 0.5)
CRS = "EPSG:32633"


@pytest.fixture(scope="module")
def result() -> Segmentation:
    job = next(j for j in read_jobs() if j.name == "coins")
    segmenter = FewShotSegmenter(device="cpu")
    segmenter.add_support(job.support, job.support_mask, "coin")
    return segmenter.predict(job.query)


def stored(path: Path, pixels: np.ndarray, **form: object) -> Path:
    height, width = pixels.shape[:2]
    with rasterio.open(path, "w", driver="GTiff", height=height, width=width, count=3, dtype="uint8", **form) as file:
        file.write(pixels.transpose(2, 0, 1))
    return path


@pytest.fixture
def source(result, tmp_path) -> Path:
    return stored(tmp_path / "field.tif", result.image, crs=CRS, transform=PLACE)


def test_a_geotiff_has_its_pictures_place_and_the_label_map(result, source, tmp_path):
    writer = WRITERS["geotiff"](tmp_path / "out", ["leaf", "coin"])
    writer.add("a/field", result, source)
    writer.finish()
    with rasterio.open(tmp_path / "out" / "a" / "field.tif") as file:
        assert (file.crs, file.transform, file.dtypes) == (CRS, PLACE, ("uint8",))
        assert np.array_equal(file.read(1), result.mask * 2)
        assert file.tags(1)["label_2"] == "coin"
        assert file.colormap(1)[2] == (0, 128, 0, 255)
    names = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert names == {"0": "background", "1": "leaf", "2": "coin"}
    assert [f.name for f in (tmp_path / "out" / "a").iterdir()] == ["field.tif"]


def test_geojson_holds_the_things_in_degrees_and_one_file_all_pictures(result, source, tmp_path):
    writer = WRITERS["geojson"](tmp_path / "out", ["coin"])
    for name in ("b", "a"):
        writer.add(name, result, source)
    writer.finish()
    part = json.loads((tmp_path / "out" / "pictures" / "a.geojson").read_text())
    whole = json.loads((tmp_path / "out" / "all.geojson").read_text())
    assert whole["type"] == part["type"] == "FeatureCollection"
    assert len(part["features"]) == len(result.instances())
    assert [f["properties"]["picture"] for f in whole["features"]] == ["a"] * len(part["features"]) + ["b"] * len(
        part["features"]
    )
    to_pixels, polygons = ~PLACE, []
    for feature in part["features"]:
        assert feature["properties"]["label"] == "coin"
        assert feature["properties"]["area"] == pytest.approx(feature["properties"]["pixels"] * 0.25, rel=0.1, abs=1)
        outline = np.array(feature["geometry"]["coordinates"][0])
        assert np.all((outline > (14.9, 52.2)) & (outline < (15.1, 52.5)))
        x, y = outline[:, 0], outline[:, 1]
        assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0, "outlines go counter-clockwise"
        rings = transform_geom("EPSG:4326", CRS, feature["geometry"])["coordinates"]
        polygons.append([np.array([to_pixels @ point for point in ring[:-1]]) for ring in rings])
    assert iou(rasterised(polygons, result.mask.shape), result.mask) >= 0.99


@pytest.mark.parametrize("kind", ["geojson", "geotiff"])
@pytest.mark.parametrize("form", [{}, {"crs": CRS}, {"transform": PLACE}], ids=["nothing", "no transform", "no crs"])
def test_a_picture_without_a_place_is_refused_and_the_cure_works(result, tmp_path, kind, form):
    path = stored(tmp_path / "plain.tif", result.image, **form)
    writer = WRITERS[kind](tmp_path / "out", ["coin"])
    with pytest.raises(
        OutputError, match=r"plain\.tif' is not georeferenced: it has no .*rasterio.open\(path, 'r\+'\)"
    ):
        writer.add("plain", result, path)
    assert not writer.holds("plain")
    with rasterio.open(path, "r+") as file:
        file.crs = "EPSG:32633"
        file.transform = rasterio.transform.from_origin(500_000, 5_800_000, 0.5, 0.5)
    writer.add("plain", result, path)
    assert writer.holds("plain")


def test_other_pictures_are_refused_with_the_reason(result, source, tmp_path):
    writer = WRITERS["geotiff"](tmp_path / "out", ["coin"])
    with pytest.raises(OutputError, match="in no file has no place"):
        writer.add("a", result, None)
    (tmp_path / "broken.tif").write_bytes(b"no picture")
    with pytest.raises(OutputError, match=r"broken\.tif' cannot be read"):
        writer.add("a", result, tmp_path / "broken.tif")
    small = stored(tmp_path / "small.tif", result.image[::2, ::2], crs=CRS, transform=PLACE)
    with pytest.raises(OutputError, match=r"small\.tif' is of 152 x 150, but its masks are of 303 x 300"):
        writer.add("a", result, small)


def test_without_rasterio_its_extra_is_named(result, source, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(MissingDependencyError, match=r"rasterio; run: pip install 'iir-sdk\[geo\]'"):
        WRITERS["geotiff"](tmp_path / "out", ["coin"]).add("a", result, source)
