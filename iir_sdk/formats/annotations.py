"""The door for annotations that other tools made: COCO, LabelMe and YOLO, told apart by what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from iir_sdk.errors import DatasetError, DatasetNotFoundError
from iir_sdk.files import followed_from, is_file, is_folder, why_no_folder
from iir_sdk.formats.annotated import AnnotatedMask, PathLike, read_json
from iir_sdk.formats.coco_reader import read_coco
from iir_sdk.formats.labelme_reader import read_labelme
from iir_sdk.formats.yolo_reader import read_yolo

__all__ = ["AnnotatedMask", "read_annotations"]


def read_annotations(path: PathLike, images: PathLike | None = None) -> Iterator[AnnotatedMask]:
    """Masks that another tool made, one for each label that a picture shows.

    Args:
        path: a COCO file (polygons or run lengths), a LabelMe file or a folder of them, YOLO's ``data.yaml``, one of
            its label files, or a folder of them with the names of their classes.
        images: the folder of the pictures; None for where the annotations say, and the folders beside them.

    Raises:
        DatasetNotFoundError: nothing at the path, or pictures that are elsewhere; the message names them.
        DatasetError: a file in none of these formats, a broken one, or one with categories that it does not name.
        MaskError: an annotation without an area, or run lengths of another size than its picture.
        MissingDependencyError: COCO's need ``pip install 'iir-sdk[formats]'``.
    """
    file = Path(path)
    if images is not None and not is_folder(images):
        raise DatasetNotFoundError(
            f"images: {why_no_folder(images)}; name the folder in which the pictures of {str(file)!r} lie, or none, if "
            "they lie where it says or beside it."
        )
    if is_folder(file):
        documents = sorted(f for f in file.glob("*.json") if not f.name.startswith("."))
        if not documents or is_folder(file / "labels"):
            yield from read_yolo(file, images)
        for document in documents:
            yield from _of_json(document, images)
    elif not is_file(file):
        raise DatasetNotFoundError(f"annotations: there is nothing at {str(file)!r}{followed_from(file)}.")
    elif file.suffix.lower() in (".yaml", ".yml", ".txt"):
        yield from read_yolo(file, images)
    else:
        yield from _of_json(file, images)


def _of_json(file: Path, images: PathLike | None) -> Iterator[AnnotatedMask]:
    document = read_json(file)
    if isinstance(document, dict) and "shapes" in document:
        return read_labelme(file, document, images)
    if isinstance(document, dict) and "annotations" in document:
        return read_coco(file, document, images)
    held = f"an object with {', '.join(map(repr, list(document)[:5]))}" if isinstance(document, dict) else "no object"
    raise DatasetError(
        f"{str(file)!r} is neither COCO's (with 'images', 'annotations' and 'categories') nor LabelMe's (with "
        f"'shapes'): it holds {held}."
    )
