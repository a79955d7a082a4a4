"""What a run has done, in its output folder: by it a later run goes on, or is told that it is another one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from iir_sdk.errors import IirError, OutputError
from iir_sdk.files import is_file, is_folder, lock_folder, made_folder
from iir_sdk.formats.writer import LABELS_FILE

STATE = ".iir"
"""Folder in the output folder: the journal, its lock, thumbnails."""

_JOURNAL = "journal.jsonl"

_FORMAT = "iir_sdk.segmenting/1"


@dataclass(frozen=True)
class Row:
    """One label of one picture, a line of the table.

    Attributes:
        file: the picture, as it was given.
        label: empty where there is an error.
        score: how probable it is that the picture shows the object.
        confidence: what share of the mask is right, if it does.
        area: of the mask, in pixels.
        area_share: of the mask, of the picture.
        box: around the mask, ``(x0, y0, x1, y1)``, half-open; None of an empty one.
        seconds: for all labels of the picture: reading, its share of the batch, writing.
        error: why there is no mask.
    """

    file: str
    label: str = ""
    score: float = 0.0
    confidence: float = 0.0
    area: int = 0
    area_share: float = 0.0
    box: tuple[int, int, int, int] | None = None
    seconds: float = 0.0
    error: str = ""

    @property
    def certainty(self) -> float:
        """In [0, 1]: of a mask score times confidence, of none how probable it is that there is nothing."""
        return self.score * self.confidence if self.area else 1 - self.score


@dataclass(frozen=True)
class Stamp:
    """What tells that a file is still the one that it was."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str) -> Stamp:
        """Of a file; zeros where there is none."""
        try:
            status = os.stat(path)  # noqa: PTH116
        except (OSError, ValueError):
            return cls(0, 0)
        return cls(status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Record:
    """A picture that was done."""

    key: str  # its absolute path
    name: str  # of its outputs
    stamp: Stamp
    files: tuple[str, ...]  # its outputs, relative to the output folder
    rows: tuple[Row, ...]

    @property
    def failed(self) -> bool:
        """Whether it has no masks but an error."""
        return any(row.error for row in self.rows)

    def as_given(self, path: str) -> Record:
        """With rows that name the picture as it was given."""
        return replace(self, rows=tuple(replace(row, file=path) for row in self.rows))

    def stands(self, out: Path) -> bool:
        """Whether it needs not be done again: without error, of the same picture, and all its files are there."""
        return not self.failed and self.stamp == Stamp.of(self.key) and all(is_file(out / f) for f in self.files)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """As :func:`dataclasses.asdict` and JSON leave it."""
        rows = tuple(Row(**{**row, "box": tuple(row["box"]) if row["box"] else None}) for row in values["rows"])
        return cls(values["key"], values["name"], Stamp(**values["stamp"]), tuple(values["files"]), rows)


class Journal:
    """The journal of an output folder: the run's settings, then a line a picture, written when its files are whole.

    Attributes:
        out: the output folder.
        settings: of the run that wrote it; None of a new one.
        records: pictures done, by absolute path; the last line of a picture counts.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.file = out / STATE / _JOURNAL
        self.settings: dict[str, Any] | None = None
        self.records: dict[str, Record] = {}
        self._length = 0
        if is_file(self.file):
            self._read()

    def _read(self) -> None:
        try:
            content = self.file.read_bytes()
            # Behind the last line's end lies what a killed process had begun.
            self._length = content.rfind(b"\n") + 1
            lines = [json.loads(line) for line in content[: self._length].splitlines()]
            if not lines:
                return
            if lines[0]["format"] != _FORMAT:
                raise ValueError(f"format {lines[0]['format']!r}, expected {_FORMAT!r}")
            self.settings = lines[0]["settings"]
            self.records = {record.key: record for record in map(Record.from_dict, lines[1:])}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise OutputError(
                f"{str(self.file)!r} cannot be read ({error}): no run can go on from it. Name another --out, or delete "
                "that file and say --overwrite."
            ) from error

    def start(self, settings: Mapping[str, Any]) -> None:
        """Make ready to append, with the settings first in a new journal.

        Raises:
            OutputError: the journal is of other supports, weights or settings, or cannot be written.
        """
        if self.settings is not None:
            check_same_settings(str(self.out), self.settings, settings)
        try:
            with self.file.open("ab") as file:
                file.truncate(self._length)
            if self.settings is None:
                self._append({"format": _FORMAT, "settings": dict(settings)})
                self.settings = dict(settings)
        except OSError as error:
            raise self._unwritable(error) from error

    def add(self, record: Record) -> None:
        """Write that a picture is done."""
        try:
            self._append(asdict(record))
        except OSError as error:
            raise self._unwritable(error) from error
        self.records[record.key] = record

    def _append(self, values: Mapping[str, Any]) -> None:
        with self.file.open("ab") as file:
            file.write(json.dumps(values).encode("ascii") + b"\n")

    def _unwritable(self, error: OSError) -> IirError:
        return OutputError(f"cannot write {str(self.file)!r}: {error}.")

    def forget(self, formats: Iterable[str]) -> None:
        """Delete what a run wrote: folders of its formats and of these, and its state."""
        folders = {self.out / name for name in (*(self.settings or {}).get("formats", ()), *formats)}
        # Folders that no writer made are somebody's own.
        made = [folder for folder in folders if is_file(folder / LABELS_FILE)]
        try:
            for folder in (*made, self.out / STATE / "thumbnails"):
                if is_folder(folder):
                    shutil.rmtree(folder)
            self.file.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot delete the earlier run in {str(self.out)!r}: {error}.") from error
        self.settings, self.records, self._length = None, {}, 0


def check_same_settings(out: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse, by an OutputError, to go on in ``out`` with other supports, weights or settings than before."""
    changed = [name for name in now if now[name] != before.get(name)]
    if changed:
        differences = ", ".join(_difference(n, before.get(n), now[n]) for n in changed)
        raise OutputError(
            f"{out!r} holds results of a run with {differences}. Name another --out, or say --overwrite "
            "(overwrite=True), which deletes them."
        )


def _difference(name: str, before: object, now: object) -> str:
    if name in ("supports", "sha256"):
        return "other supports" if name == "supports" else "other weights"
    return f"{name}={before!r}, not {now!r}"


@contextmanager
def held_folder(out: Path, *, overwrite: bool = False) -> Iterator[None]:
    """Hold an output folder alone, made where it is missing.

    Raises:
        OutputError: it cannot be made, holds what no run wrote, or another run is writing.
    """
    state = out / STATE
    if is_file(out):
        raise OutputError(f"cannot write into {str(out)!r}: it is a file; name a folder as --out.")
    if is_folder(out) and not is_file(state / _JOURNAL) and not overwrite:
        present = next((f for f in out.iterdir() if f != state), None) if os.access(out, os.R_OK) else None
        if present:
            raise OutputError(
                f"{str(out)!r} holds {present.name!r} and no journal of a run to go on from. Name a new or an empty "
                "--out; --overwrite (overwrite=True) writes into it, over files of the same names."
            )
    made_folder(state)
    taken = OutputError(f"another run is writing into {str(out)!r}: wait for its end, or name another --out.")
    lock = lock_folder(state / "lock", out, taken)
    try:
        _remove_leftovers(out)
        yield
    finally:
        lock.release()


def _remove_leftovers(out: Path) -> None:
    """Files that killed processes had begun, under hidden names (:func:`iir_sdk.files.write_atomically`)."""
    for leftover in out.rglob(".iir-*"):
        with suppress(OSError):
            leftover.unlink()
