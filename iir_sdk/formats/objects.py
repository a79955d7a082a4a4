"""Writers of things by their outlines, one a connected part of a label's mask: COCO, YOLO and LabelMe."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.errors import OutputError
from iir_sdk.files import made_folder, write_atomically, write_text_atomically
from iir_sdk.formats.instances import Instance, instances_of
from iir_sdk.formats.polygons import joined_ring, without_holes
from iir_sdk.formats.rle import encode
from iir_sdk.formats.writer import Writer

if TYPE_CHECKING:
    from iir_sdk.results.segmentation import Segmentation


class ThingWriter(Writer):
    """A writer of files of one picture's things each."""

    def things(self, result: Segmentation) -> list[Instance]:
        """Connected parts of all labels' masks."""
        return [thing for label, mask in self.masks(result).items() for thing in instances_of(mask, label)]

    def parts(self) -> Iterator[Any]:
        """What the files of all pictures hold, as JSON, in the order of their names; an OutputError for broken ones."""
        for file in map(self.file, self.names()):
            try:
                yield json.loads(file.read_bytes())
            except (OSError, ValueError) as error:
                raise OutputError(
                    f"cannot read {str(file)!r} ({error}); delete it, and write its picture again."
                ) from error


class CocoWriter(ThingWriter):
    """COCO: ``annotations.json`` of all pictures, masks as run lengths; a picture's part of it in ``pictures/``."""

    suffix = ".json"
    below = "pictures"

    def _write(self, name: str, result: Segmentation, source: Path | None) -> None:
        height, width = result.image.shape[:2]
        scores = dict(zip(result.labels, map(float, result.scores), strict=True))
        file_name = name if source is None else PurePosixPath(name).with_name(source.name).as_posix()
        annotations = [
            {
                "category_id": self.labels.index(thing.label) + 1,
                "segmentation": self._segmentation(thing),
                "area": thing.area,
                "bbox": [*thing.box[:2], thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]],
                "iscrowd": 0,
                "score": round(scores[thing.label], 4),
            }
            for thing in self.things(result)
        ]
        part = {"image": {"file_name": file_name, "width": width, "height": height}, "annotations": annotations}
        write_text_atomically(self.file(name), json.dumps(part, ensure_ascii=False))

    def _segmentation(self, thing: Instance) -> Any:
        return encode(thing.crop, thing.size, thing.box[:2])

    def finish(self) -> None:
        """Write ``annotations.json``; numbers of pictures and of things follow the pictures' names."""
        images: list[Any] = []
        annotations: list[Any] = []
        for part in self.parts():
            images.append({"id": len(images) + 1, **part["image"]})
            for annotation in part["annotations"]:
                annotations.append({"id": len(annotations) + 1, "image_id": len(images), **annotation})
        document = {
            "info": {"description": "masks by iir_sdk"},
            "licenses": [],
            "images": images,
            "categories": [{"id": i + 1, "name": label, "supercategory": ""} for i, label in enumerate(self.labels)],
            "annotations": annotations,
        }
        write_text_atomically(self.folder / "annotations.json", json.dumps(document, ensure_ascii=False))


class CocoPolygonWriter(CocoWriter):
    """COCO with polygons, which know no holes: what has some is cut into pieces through them."""

    def _segmentation(self, thing: Instance) -> Any:
        pieces = without_holes(thing.polygon())
        return [np.round(piece.exterior.coords[:-1], 2).ravel().tolist() for piece in pieces]


class YoloWriter(ThingWriter):
    """YOLO's segments: ``labels/NAME.txt``, a line a thing, beside a copy of its picture in ``images/``; ``data.yaml``.

    A line knows no holes: it goes to each and back on the same way.
    """

    suffix = ".txt"
    below = "labels"

    def _write(self, name: str, result: Segmentation, source: Path | None) -> None:
        height, width = result.image.shape[:2]
        lines = [
            f"{self.labels.index(thing.label)} {_numbers(joined_ring(thing.polygon()) / (width, height))}\n"
            for thing in self.things(result)
        ]
        picture = self.folder / "images" / f"{name}{'.png' if source is None else source.suffix}"
        made_folder(picture.parent)
        if source is None:
            write_atomically(picture, Image.fromarray(result.image).save)
        elif not picture.exists() or not picture.samefile(source):
            write_atomically(picture, lambda beside: shutil.copyfile(source, beside))
        write_text_atomically(self.file(name), "".join(lines))

    def finish(self) -> None:
        """Write ``data.yaml``, which trainers take, and ``classes.txt``."""
        names = "".join(f"  {i}: {json.dumps(label, ensure_ascii=False)}\n" for i, label in enumerate(self.labels))
        write_text_atomically(self.folder / "data.yaml", f"train: images\nval: images\nnames:\n{names}")
        write_text_atomically(self.folder / "classes.txt", "".join(f"{label}\n" for label in self.labels))


class LabelMeWriter(ThingWriter):
    """LabelMe: ``NAME.json``, which opens in labelme and X-AnyLabeling; it points to the picture where that lies.

    Polygons know no holes: what has some is pieces of one group.
    """

    suffix = ".json"

    def _write(self, name: str, result: Segmentation, source: Path | None) -> None:
        file = self.file(name)
        shapes = []
        for i, thing in enumerate(self.things(result)):
            pieces = without_holes(thing.polygon())
            for piece in pieces:
                shape = {
                    "label": thing.label,
                    "points": np.round(piece.exterior.coords[:-1], 2).tolist(),
                    "group_id": i + 1 if len(pieces) > 1 else None,
                    "description": "",
                    "shape_type": "polygon",
                    "flags": {},
                }
                shapes.append(shape)
        document = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"{PurePosixPath(name).name}.png" if source is None else _way_to(source, file.parent),
            "imageData": _as_text(result.image) if source is None else None,
            "imageHeight": result.image.shape[0],
            "imageWidth": result.image.shape[1],
        }
        write_text_atomically(file, json.dumps(document, indent=1, ensure_ascii=False))


def _numbers(points: NDArray[np.float64]) -> str:
    return " ".join(f"{value:.6f}" for value in points.clip(0, 1).ravel())


def _way_to(file: Path, folder: Path) -> str:
    """A file's path from a folder, with ``/``; its whole path where there is no way, as between drives."""
    try:
        return Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return file.resolve().as_posix()


def _as_text(pixels: NDArray[np.uint8]) -> str:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode("ascii")
