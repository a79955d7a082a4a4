"""A project opened: its folder, its pictures and the network on one desk."""

from __future__ import annotations

import os
from pathlib import Path

from iir_sdk.engines.base import Engine
from iir_sdk.errors import PictureNotFoundError, ProjectError
from iir_sdk.files import is_folder
from iir_sdk.segmenting.queries import absolute, find_places
from iir_sdk.web.project.desk import Desk
from iir_sdk.web.project.file import ProjectFolder
from iir_sdk.web.project.pictures import Shelf
from iir_sdk.web.project.reading import FEATURES

SUFFIX = ".iir-project"
"""Behind a folder's name: where its project lies, beside it."""


def project_place(folder: Path | None) -> Path:
    """Where the project of a folder of pictures lies; without one in the current folder."""
    if folder is None:
        return Path.cwd() / f"pictures{SUFFIX}"
    whole = Path(absolute(folder))
    return whole.with_name(f"{whole.name or 'pictures'}{SUFFIX}")


def opened_desk(
    engine: Engine,
    folder: str | os.PathLike[str] | None,
    project: str | os.PathLike[str] | None = None,
    *,
    features: int = FEATURES,
) -> Desk:
    """The project of a folder's pictures, made where there is none; close the desk in the end.

    Args:
        engine: the network.
        folder: of pictures, with all folders in it; None for those alone that are dropped in.
        project: the project's folder; None for one beside the pictures', of its name.
        features: bytes of memory for what was read of pictures.

    Raises:
        PictureNotFoundError: there is no such folder, or no picture in it.
        ProjectError: another server has the project open, or it cannot be read.
        OutputError: it cannot be written.
    """
    pictures = None if folder is None else Path(absolute(folder))
    if pictures is not None and not is_folder(pictures):
        raise PictureNotFoundError(f"no folder {str(pictures)!r}: name one of pictures.")
    place = project_place(pictures) if project is None else Path(absolute(project))
    if place == pictures:
        raise ProjectError(f"the project cannot lie in {str(place)!r}, among the pictures: name another --project.")
    places = {} if pictures is None else find_places(pictures, recursive=True, out=place)
    held_by_us = ProjectFolder(place)
    try:
        held = held_by_us.read()
        return Desk(engine, held_by_us, Shelf(held_by_us, pictures, places, held.uploads), held, features=features)
    except BaseException:
        held_by_us.close()
        raise
