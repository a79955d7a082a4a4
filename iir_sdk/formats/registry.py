"""The formats that results are written in, by name."""

from __future__ import annotations

from iir_sdk.formats.pictures import MapWriter, MaskWriter, OverlayWriter, VocWriter
from iir_sdk.formats.writer import Writer

WRITERS: dict[str, type[Writer]] = {
    "masks": MaskWriter,
    "map": MapWriter,
    "overlay": OverlayWriter,
    "voc": VocWriter,
}
