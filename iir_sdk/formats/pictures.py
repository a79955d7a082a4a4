"""Writers of pictures: a mask a label, maps of all labels, overlays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.errors import LabelError
from iir_sdk.files import made_folder, write_text_atomically
from iir_sdk.formats.writer import Writer, file_name_of
from iir_sdk.pictures.save import save_numbers, save_picture

if TYPE_CHECKING:
    from iir_sdk.formats.large import LargeResult
    from iir_sdk.results.segmentation import Segmentation


class MaskWriter(Writer):
    """A PNG a label, ``LABEL/NAME.png``: 255 on its pixels, else 0."""

    suffix = ".png"
    takes_large = True

    def files(self, name: str) -> tuple[Path, ...]:
        """A file a label."""
        below = self.file(name).relative_to(self.folder)
        return tuple(self.folder / file_name_of(label) / below for label in self.labels)

    def _write(self, name: str, result: Segmentation, source: Path | None) -> None:
        for file, mask in zip(self.files(name), self.masks(result).values(), strict=True):
            save_picture(Image.fromarray(mask * np.uint8(255)), file)

    def _write_large(self, name: str, result: LargeResult, source: Path | None) -> None:
        for number, file in enumerate(self.files(name), 1):
            save_numbers(((rows == number) * np.uint8(255) for _, rows in self.strips(result)), result.size, file)


class MapWriter(Writer):
    """A grey PNG a picture, ``NAME.png``, of numbers that ``labels.json`` names; 0 is background."""

    suffix = ".png"
    takes_large = True

    def _write(self, name: str, result: Segmentation, source: Path | None) -> None:
        save_picture(Image.fromarray(self.label_map(result)), self.file(name))

    def _write_large(self, name: str, result: LargeResult, source: Path | None) -> None:
        save_numbers((rows for _, rows in self.strips(result)), result.size, self.file(name))

    def finish(self) -> None:
        """Write ``labels.json``, names by number."""
        names = {str(i): label for i, label in enumerate(("background", *self.labels))}
        write_text_atomically(self.folder / "labels.json", json.dumps(names, indent=1, ensure_ascii=False) + "\n")


class OverlayWriter(Writer):
    """A JPEG a picture, ``NAME.jpg``, with each label tinted and outlined, to look at; a small one of large ones."""

    suffix = ".jpg"
    takes_large = True

    def _write(self, name: str, result: Segmentation, source: Path | None) -> None:
        save_picture(result.overlay(), self.file(name))

    def _write_large(self, name: str, result: LargeResult, source: Path | None) -> None:
        self._write(name, result.small, source)


class VocWriter(Writer):
    """Pascal VOC's layout: ``SegmentationClass/NAME.png`` in its palette, its list of pictures and of colours."""

    suffix = ".png"
    below = "SegmentationClass"
    takes_large = True

    def _write(self, name: str, result: Segmentation, source: Path | None) -> None:
        self._check_count()
        image = Image.fromarray(self.label_map(result)).convert("P")
        image.putpalette(voc_palette().ravel().tolist())
        save_picture(image, self.file(name))

    def _write_large(self, name: str, result: LargeResult, source: Path | None) -> None:
        self._check_count()
        save_numbers((rows for _, rows in self.strips(result)), result.size, self.file(name), voc_palette())

    def _check_count(self) -> None:
        if len(self.labels) > 254:
            raise LabelError(f"Pascal VOC holds 254 labels, as 255 is unknown; got {len(self.labels)}. Write 'map'.")

    def finish(self) -> None:
        """Write ``ImageSets/Segmentation/all.txt``, the pictures' names, and ``labelmap.txt``, the labels' colours."""
        lists = made_folder(self.folder / "ImageSets" / "Segmentation")
        write_text_atomically(lists / "all.txt", "".join(f"{name}\n" for name in self.names()))
        colours = zip(("background", *self.labels), voc_palette().tolist(), strict=False)
        lines = [f"{label}:{','.join(map(str, colour))}::\n" for label, colour in colours]
        write_text_atomically(self.folder / "labelmap.txt", "".join(["# label:color_rgb:parts:actions\n", *lines]))


def voc_palette() -> NDArray[np.uint8]:
    """Pascal VOC's colours, ``(256, 3)`` RGB: bits of a number, by threes, are the highest ones of red, green, blue."""
    numbers = np.arange(256)
    channels: list[Any] = [sum((numbers >> (3 * i + c) & 1) << (7 - i) for i in range(8)) for c in range(3)]
    palette: NDArray[np.uint8] = np.stack(channels, 1).astype(np.uint8)
    return palette
