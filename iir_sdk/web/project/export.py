"""A project's masks in the formats of other tools, as one archive."""

from __future__ import annotations

import secrets
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import ConfigError, IirError, MissingDependencyError, OutputError, ProjectError
from iir_sdk.files import made_folder, write_text_atomically
from iir_sdk.formats.registry import WRITERS
from iir_sdk.records import did_you_mean
from iir_sdk.results.segmentation import Segmentation
from iir_sdk.web.project.desk import Desk
from iir_sdk.web.project.pictures import PictureFile

What = Literal["accepted", "all"]
_WITH_PIXELS = ("overlay", "labelme")
"""Formats that show the picture, or hold it."""
_PACKED = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".avif")
_LEFT_OUT = "left_out.txt"


@dataclass(frozen=True, eq=False, kw_only=True)
class Settled(Segmentation):
    """A result whose map is given: as it was accepted, or corrected by strokes.

    Attributes:
        places: ``(H, W)``, 0 for background, ``i + 1`` for ``labels[i]``.
    """

    places: NDArray[np.integer[Any]]

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Bool ``(L, H, W)``: each label's part of the map."""
        numbers = np.arange(1, len(self.labels) + 1)
        return np.asarray(self.places == numbers[:, None, None])

    def _places(self) -> NDArray[np.integer[Any]]:
        return self.places


def exported(desk: Desk, form: str, what: What) -> Path:
    """Masks of all accepted pictures, or of all that are not rejected, as a new ``.zip``, which is the caller's.

    What cannot be written in the format is left out, and listed in ``left_out.txt``.

    Raises:
        ConfigError: no such format, or ``what`` is neither.
        ProjectError: there is nothing to export.
        OutputError: the disk is full.
        IirError: nothing could be written; why not the first one.
    """
    if form not in WRITERS:
        raise ConfigError(f"no format {form!r:.100}{did_you_mean(form, WRITERS, 'formats')}")
    if what not in ("accepted", "all"):
        raise ConfigError(f"what={what!r:.100} must be 'accepted' or 'all'.")
    state = desk.held.state
    chosen = [p for p in list(desk.shelf.files) if _is_wanted(desk, p, what)]
    if not chosen or not state.labels:
        raise ProjectError(f"there is no {'accepted ' if what == 'accepted' else ''}picture to export yet.")
    place = desk.project.exports / secrets.token_hex(8)
    try:
        _write(desk, chosen, form, made_folder(place / form))
        return _zipped(place, desk.project.exports / f"{place.name}.zip")
    except IirError:
        raise
    except OSError as error:
        raise OutputError(f"the archive cannot be written beside the project ({error}): make room there.") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _is_wanted(desk: Desk, picture: str, what: What) -> bool:
    verdict = desk.held.state.verdicts.get(picture)
    if verdict is not None:
        return verdict.kind == "accepted"
    return what == "all" and not desk.is_broken(picture)


def _write(desk: Desk, pictures: list[str], form: str, folder: Path) -> None:
    labels = {label.id: label.name for label in desk.held.state.labels.values()}
    writer = WRITERS[form](folder, list(labels.values()))
    left_out: dict[str, IirError] = {}
    for picture in pictures:
        file = desk.shelf.file(picture)
        try:
            result = _result(desk, file, labels, with_pixels=form in _WITH_PIXELS)
            # LabelMe's files name the picture by the way to it, which is another one where the archive is unpacked.
            writer.add(file.output, result, None if form == "labelme" else file.path)
        except MissingDependencyError:
            raise
        except IirError as error:
            left_out[file.name] = error
    if len(left_out) == len(pictures):
        raise next(iter(left_out.values()))
    writer.finish()
    if left_out:
        lines = (f"{name}: {error}".replace("\n", " ") for name, error in left_out.items())
        write_text_atomically(folder / _LEFT_OUT, "".join(f"{line}\n" for line in lines))


def _result(desk: Desk, file: PictureFile, labels: dict[int, str], *, with_pixels: bool) -> Settled:
    size = desk.mask_size(file.id)
    places = desk.masks.places(file.id, size)
    if places is None:
        raise ProjectError("it has no mask: show what to look for first.")
    numbers = np.zeros(256, np.uint8)
    numbers[list(labels)] = np.arange(1, len(labels) + 1)
    scores = np.array([desk.overview.score_of(file.id, label) for label in labels], np.float32)
    image = desk.shelf.pixels(file.id) if with_pixels else np.broadcast_to(np.uint8(0), (*size, 3))
    blank = np.zeros((len(labels), 1, 1), np.float32)
    return Settled(
        labels=tuple(labels.values()),
        leads=blank,
        scores=scores,
        confidences=scores,
        grid_priors=blank,
        timings={},
        image=image,
        places=numbers[places],
    )


def _zipped(folder: Path, archive: Path) -> Path:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    with _removed_if_broken(archive), zipfile.ZipFile(archive, "w", allowZip64=True) as target:
        for file in files:
            kind = zipfile.ZIP_STORED if file.suffix.lower() in _PACKED else zipfile.ZIP_DEFLATED
            target.write(file, file.relative_to(folder).as_posix(), kind)
    return archive


@contextmanager
def _removed_if_broken(file: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            file.unlink(missing_ok=True)
        raise
