"""What a run writes of one picture: its files in every format, and a thumbnail for the page."""

from __future__ import annotations

import math
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from iir_sdk.errors import IirError, MissingDependencyError, OutputError
from iir_sdk.files import made_folder, write_atomically
from iir_sdk.formats.large import LargeResult
from iir_sdk.formats.writer import Writer
from iir_sdk.results.segmentation import Segmentation
from iir_sdk.segmenting.journal import STATE, Record, Row
from iir_sdk.segmenting.queries import Query
from iir_sdk.segmenting.reading import Read
from iir_sdk.segmenting.review import thumbnail
from iir_sdk.segmenting.table import rows_of

_LARGEST_PROBE = 64 << 20
"""Bytes that a disk is asked for, at most, to learn whether it is full."""


@dataclass(frozen=True)
class Outputs:
    """Writes pictures' files into an output folder; several processes may, of different pictures.

    Attributes:
        out: the output folder.
        writers: one a format, each in a folder of its own within.
    """

    out: Path
    writers: list[Writer]

    def record(self, read: Read, outcome: Segmentation | LargeResult | IirError, seconds: float) -> Record:
        """Write everything of one picture, and give what the journal is to say of it.

        Raises:
            OutputError: the disk takes nothing more.
            MissingDependencyError: a package that a format needs is not installed.
        """
        start, query = perf_counter(), read.query
        files = self._files(query.name)
        try:
            if isinstance(outcome, IirError):
                raise outcome
            self._write_files(query, outcome)
            rows = rows_of(query.path, outcome, seconds + perf_counter() - start)
        except MissingDependencyError:
            raise
        except IirError as error:
            if isinstance(error, OutputError) and not isinstance(outcome, IirError):
                size = outcome.size if isinstance(outcome, LargeResult) else outcome.image.shape
                self._check_room(math.prod(size))
            # What an earlier run wrote is not this picture's any more.
            for file in files:
                with suppress(OSError):
                    file.unlink(missing_ok=True)
            files, rows = [], (Row(query.path, error=str(error)),)
        relative = tuple(file.relative_to(self.out).as_posix() for file in files)
        return Record(query.key, query.name, read.stamp, relative, rows)

    def _files(self, name: str) -> list[Path]:
        try:
            return [self.thumbnail(name), *(file for writer in self.writers for file in writer.files(name))]
        except OutputError:
            # No name for a file: adding says so.
            return []

    def _write_files(self, query: Query, result: Segmentation | LargeResult) -> None:
        small, shown = self.thumbnail(query.name), result.small if isinstance(result, LargeResult) else result
        made_folder(small.parent)
        write_atomically(small, lambda beside: beside.write_bytes(thumbnail(shown)))
        for writer in self.writers:
            try:
                writer.add(query.name, result, Path(query.path))
            except UnicodeEncodeError as error:
                raise OutputError(
                    f"{query.path!r} is no UTF-8, as files in {str(writer.folder)!r} must be: rename the picture."
                ) from error

    def _check_room(self, size: int) -> None:
        """Whether the disk takes anything, after a file was not written: else an OutputError, which ends the run.

        Encoders of pictures do not say why they failed.
        """
        probe = self.out / STATE / f".iir-{secrets.token_hex(4)}"
        try:
            probe.write_bytes(bytes(min(size, _LARGEST_PROBE) + (1 << 20)))
        except OSError as error:
            raise OutputError(f"cannot write into {str(self.out)!r}: {error}.") from error
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)

    def thumbnail(self, name: str) -> Path:
        """The file of a picture's small overlay."""
        return self.out / STATE / "thumbnails" / f"{name}.jpg"
