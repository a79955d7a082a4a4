"""The formats that results are written in, by name."""

from __future__ import annotations

from iir_sdk.formats.geographic import GeoJsonWriter, GeoTiffWriter
from iir_sdk.formats.objects import CocoPolygonWriter, CocoWriter, LabelMeWriter, YoloWriter
from iir_sdk.formats.pictures import MapWriter, MaskWriter, OverlayWriter, VocWriter
from iir_sdk.formats.writer import Writer

WRITERS: dict[str, type[Writer]] = {
    "masks": MaskWriter,
    "map": MapWriter,
    "overlay": OverlayWriter,
    "coco": CocoWriter,
    "coco-polygons": CocoPolygonWriter,
    "yolo": YoloWriter,
    "labelme": LabelMeWriter,
    "voc": VocWriter,
    "geojson": GeoJsonWriter,
    "geotiff": GeoTiffWriter,
}
