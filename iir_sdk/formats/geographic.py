"""Writers for pictures that know where on earth they lie: GeoTIFF and GeoJSON, by rasterio."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iir_sdk.errors import OutputError, needed_imports
from iir_sdk.files import write_text_atomically
from iir_sdk.formats.large import LargeResult, Place
from iir_sdk.formats.objects import ThingWriter
from iir_sdk.formats.pictures import MapWriter
from iir_sdk.formats.raster import write_numbers

if TYPE_CHECKING:
    from iir_sdk.results.segmentation import Segmentation

_CURE = "georeferenced pictures are read by rasterio; run: pip install 'iir-sdk[geo]'"
_SET_IT = (
    "Where you know its place, store it: with rasterio.open(path, 'r+') as file: "
    "file.crs = 'EPSG:32633'; file.transform = rasterio.transform.from_origin(west, north, pixel_width, pixel_height). "
    "Else write another format, such as 'map' or 'labelme'."
)


def place_of(source: Path | None, size: tuple[int, int]) -> Place:
    """Of a picture's file, whose pixels are ``size`` (height, width).

    Raises:
        OutputError: there is no file, or it has no place, or pixels of another size.
        MissingDependencyError: rasterio is not installed.
    """
    with needed_imports(_CURE):
        import rasterio
    if source is None:
        raise OutputError("a picture that is in no file has no place on earth; pass its file as source.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(source) as file:
                place, shape = Place(file.crs, file.transform), file.shape
    except rasterio.errors.RasterioError as error:
        raise OutputError(f"{str(source)!r} cannot be read for its place on earth: {error}.") from error
    if not place.crs or place.transform.is_identity:
        lacks = "coordinate reference system" if not place.crs else "transform from pixels to coordinates"
        raise OutputError(f"{str(source)!r} is not georeferenced: it has no {lacks}. {_SET_IT}")
    if shape != size:
        raise OutputError(
            f"{str(source)!r} is of {shape[0]} x {shape[1]}, but its masks are of {size[0]} x {size[1]} (height x "
            "width), so that they have no place. Predict on the file as it is."
        )
    return place


class GeoTiffWriter(MapWriter):
    """A GeoTIFF a picture, ``NAME.tif``, of numbers that ``labels.json`` names, with its picture's place."""

    suffix = ".tif"

    def _write(self, name: str, result: Segmentation, source: Path | None) -> None:
        place, rows = place_of(source, result.image.shape[:2]), self.label_map(result)
        write_numbers(self.file(name), [(slice(0, len(rows)), rows)], rows.shape, self.labels, place)

    def _write_large(self, name: str, result: LargeResult, source: Path | None) -> None:
        place = place_of(source, result.size)
        write_numbers(self.file(name), self.strips(result), result.size, self.labels, place)


class GeoJsonWriter(ThingWriter):
    """GeoJSON: a feature a thing, in degrees, ``pictures/NAME.geojson``; ``all.geojson`` of all pictures."""

    suffix = ".geojson"
    below = "pictures"

    def _write(self, name: str, result: Segmentation, source: Path | None) -> None:
        place = place_of(source, result.image.shape[:2])
        scores = dict(zip(result.labels, map(float, result.scores), strict=True))
        features = []
        for thing in self.things(result):
            on_earth, area = _on_earth(thing.polygon(), place)
            properties = {
                "picture": name,
                "label": thing.label,
                "score": round(scores[thing.label], 4),
                "pixels": thing.area,
                "area": area,
            }
            features.append({"type": "Feature", "geometry": on_earth, "properties": properties})
        write_text_atomically(self.file(name), _collection(features))

    def finish(self) -> None:
        """Write ``all.geojson``, things of all pictures."""
        features: Iterator[Any] = (feature for part in self.parts() for feature in part["features"])
        write_text_atomically(self.folder / "all.geojson", _collection(list(features)))


def _on_earth(polygon: Any, place: Place) -> tuple[dict[str, Any], float]:
    """A polygon in pixels as GeoJSON in degrees, and its area in the squared units of its picture's system."""
    import shapely
    from rasterio.warp import transform_geom

    matrix = place.transform
    in_units = shapely.affinity.affine_transform(polygon, [matrix.a, matrix.b, matrix.d, matrix.e, matrix.c, matrix.f])
    degrees = shapely.geometry.shape(transform_geom(place.crs, "EPSG:4326", shapely.geometry.mapping(in_units)))
    # GeoJSON's outlines go counter-clockwise.
    turned = shapely.geometry.polygon.orient(degrees)
    return json.loads(shapely.to_geojson(turned)), round(float(in_units.area), 3)


def _collection(features: list[Any]) -> str:
    return json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False) + "\n"
