"""A project's folder: its file, written beside and renamed at every action, and the masks that it names."""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk.errors import ProjectError
from iir_sdk.files import is_file, lock_folder, made_folder, write_atomically, write_text_atomically
from iir_sdk.web.project.state import Action, State, action_of, plain, record_of

_FILE = "project.json"
_FORMAT, _VERSION = "iir_sdk.project", 1
MOST_UNDONE = 100
"""Actions that can be taken back."""
_MASK, _UPLOAD = re.compile(r"[0-9a-f]{24}\.png"), re.compile(r"[0-9a-f]{16}/(?!\.)[^/\\\0]+")
"""Names that a project's file may hold: others could lead out of its folder."""
_ACCEPTED_AGAIN = "reset the picture, and accept it again."


@dataclass
class Held:
    """What a project's file holds.

    Attributes:
        state: the tables.
        done: actions that can be undone, the latest last.
        undone: actions that can be done again, the latest last.
        uploads: pictures that were dropped in: the shown name, by the file's name.
        version: of predictions; grows with every change of what they depend on.
        last_stroke: id of the last stroke that was ever made.
        last_label: the same of labels.
        checkpoint: sha256 of the weights that it was last open with.
    """

    state: State = field(default_factory=State)
    done: list[Action] = field(default_factory=list)
    undone: list[Action] = field(default_factory=list)
    uploads: dict[str, str] = field(default_factory=dict)
    version: int = 0
    last_stroke: int = 0
    last_label: int = 0
    checkpoint: str = ""


class ProjectFolder:
    """The folder of a project, held by one process at a time.

    Raises:
        ProjectError: another server has it open, or its file is damaged or of a newer version.
        OutputError: it cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = made_folder(folder)
        self.masks, self.uploads = made_folder(folder / "masks"), made_folder(folder / "uploads")
        self.thumbnails, self.exports = made_folder(folder / "thumbnails"), made_folder(folder / "exports")
        taken = f"another server has {str(folder)!r} open: use its page, stop it first, or name another --project."
        self._lock = lock_folder(folder / "lock", folder, ProjectError(taken))
        for leftover in (*folder.rglob(".iir-*"), *self.exports.glob("*.zip")):
            with suppress(OSError):
                leftover.unlink()
        for unfinished in self.exports.iterdir():
            shutil.rmtree(unfinished, ignore_errors=True)

    def close(self) -> None:
        """Let others open it."""
        self._lock.release()

    @property
    def file(self) -> Path:
        """The project's file."""
        return self.folder / _FILE

    def read(self) -> Held:
        """What the file holds; a new project without one."""
        if not is_file(self.file):
            return Held()
        try:
            values = json.loads(self.file.read_bytes())
            name, _, number = str(values["format"]).rpartition("/")
            if name != _FORMAT:
                raise ValueError(f"format {values['format']!r}, expected {_FORMAT}/{_VERSION}")
            if int(number) > _VERSION:
                raise ProjectError(
                    f"{str(self.file)!r} has format {values['format']!r}, which a newer version of iir-sdk wrote; this "
                    f"one reads up to {_FORMAT}/{_VERSION}. Run: pip install -U iir-sdk; or name another --project."
                )
            return _held(values)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            if isinstance(error, ProjectError):
                raise
            raise ProjectError(
                f"{str(self.file)!r} cannot be read ({error}): put a copy of it back, or name another --project."
            ) from error

    def write(self, held: Held) -> None:
        """Write all of it in one step; an OutputError where it cannot be."""
        tables: dict[str, Any] = {
            table: [plain(record) for record in getattr(held.state, table).values()] for table in State.TABLES
        }
        values: dict[str, Any] = {
            "format": f"{_FORMAT}/{_VERSION}",
            **{name: getattr(held, name) for name in ("version", "last_stroke", "last_label", "checkpoint", "uploads")},
            **tables,
            "done": [plain(action) for action in held.done[-MOST_UNDONE:]],
            "undone": [plain(action) for action in held.undone],
        }
        write_text_atomically(self.file, json.dumps(values, separators=(",", ":")))

    def write_mask(self, labels: NDArray[np.uint8]) -> str:
        """Keep numbers ``(H, W)`` exactly, as a PNG that nothing writes to again; its name."""
        content = io.BytesIO()
        Image.fromarray(labels).save(content, "PNG", compress_level=3)
        name = f"{hashlib.sha256(content.getvalue()).hexdigest()[:24]}.png"
        if not is_file(self.masks / name):
            write_atomically(self.masks / name, lambda beside: beside.write_bytes(content.getvalue()))
        return name

    def read_mask(self, name: str, cure: str = _ACCEPTED_AGAIN) -> NDArray[np.uint8]:
        """The numbers ``(H, W)`` that :meth:`write_mask` kept; a ProjectError with ``cure`` where they are gone."""
        try:
            if not _MASK.fullmatch(name):
                raise ValueError("no name of a mask")
            with Image.open(self.masks / name) as image:
                return np.array(image, np.uint8)
        except (OSError, ValueError, SyntaxError) as error:
            raise ProjectError(f"mask {name!r} of {str(self.folder)!r} cannot be read ({error}): {cure}") from error

    def write_upload(self, content: bytes, name: str) -> str:
        """Keep a picture's file in a folder of its own, whose name and its are returned; ``name`` is a checked one."""
        folder = made_folder(self.uploads / secrets.token_hex(8))
        write_atomically(folder / name, lambda beside: beside.write_bytes(content))
        return f"{folder.name}/{name}"

    def remove_unnamed_masks(self, held: Held) -> None:
        """Delete masks that neither the state nor an action names."""
        edits = [edit for action in (*held.done, *held.undone) for edit in action.edits]
        records: list[Any] = [record for edit in edits for record in (edit.before, edit.after)]
        records += [*held.state.verdicts.values(), *held.state.strokes.values()]
        named = {getattr(record, "mask", "") for record in records}
        for file in self.masks.glob("*.png"):
            if file.name not in named:
                with suppress(OSError):
                    file.unlink()


def _held(values: dict[str, Any]) -> Held:
    tables: dict[str, Any] = {}
    for table in State.TABLES:
        records: list[Any] = [record_of(table, record) for record in values[table]]
        if table == "settings":
            tables[table] = {"settings": records[0]}
        else:
            key = "picture" if table == "verdicts" else "id"
            tables[table] = {getattr(record, key): record for record in records}
    if strange := [file for file in values["uploads"] if not _UPLOAD.fullmatch(file)]:
        raise ValueError(f"{strange[0]!r:.100} is no name of a picture that was dropped in")
    return Held(
        state=State(**tables),
        done=[action_of(action) for action in values["done"]],
        undone=[action_of(action) for action in values["undone"]],
        uploads={str(file): str(name) for file, name in values["uploads"].items()},
        version=int(values["version"]),
        last_stroke=int(values["last_stroke"]),
        last_label=int(values["last_label"]),
        checkpoint=str(values["checkpoint"]),
    )
