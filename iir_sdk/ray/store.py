"""Files on a disk or in an object store, by pyarrow's file systems: each written in one step, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from iir_sdk.errors import ConfigError, ImageError, OutputError, PictureNotFoundError
from iir_sdk.files import made_folder, write_atomically

LARGEST_FILE = 1 << 30
"""Bytes of a picture's file that are fetched at most: four times what the largest picture has without compression."""


def is_uri(path: str) -> bool:
    """Whether it names a file system, as ``s3://bucket/folder`` does."""
    scheme, mark, _ = path.partition("://")
    return bool(mark) and scheme.replace("+", "").isalnum()


def file_system_of(uri: str) -> tuple[Any, str]:
    """Pyarrow's file system of a URI, and the path in it; a ConfigError where there is none."""
    import pyarrow
    from pyarrow import fs

    try:
        system, path = fs.FileSystem.from_uri(uri)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, OSError, ValueError) as error:
        raise ConfigError(
            f"{uri!r} names no file system that pyarrow knows ({error}): s3://, gs://, abfs://, hdfs:// or file://."
        ) from error
    return system, path


@dataclass(frozen=True)
class Store:
    """A folder for outputs: a path on a disk, or a URI of a file system that pyarrow knows."""

    place: str

    @classmethod
    def of(cls, place: str | os.PathLike[str]) -> Store:
        """At a path or URI; ``file://`` and relative paths become absolute ones."""
        text = os.fspath(place)
        if text.startswith("file://"):
            text = file_system_of(text)[1]
        return cls(text.rstrip("/") if is_uri(text) else str(Path(text).absolute()))

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine, or one that machines share."""
        return not is_uri(self.place)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from pyarrow import fs

        return (fs.LocalFileSystem(), self.place) if self.local else file_system_of(self.place)

    @property
    def system(self) -> Any:
        """Pyarrow's file system."""
        return self._opened[0]

    def path(self, name: str) -> str:
        """Of a file in the folder, as the file system has it."""
        return f"{self._opened[1]}/{name}"

    def __getstate__(self) -> dict[str, str]:
        """For other processes, which open the file system themselves."""
        return {"place": self.place}

    def __setstate__(self, state: dict[str, str]) -> None:
        object.__setattr__(self, "place", state["place"])

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the folder: beside its place and renamed, in an object store in one piece.

        An OutputError where it cannot be written.
        """
        if self.local:
            file = Path(self.place) / name
            made_folder(file.parent)
            write_atomically(file, lambda beside: beside.write_bytes(content))
            return
        with self._told(f"write {name!r}"):
            if self.system.type_name in ("s3", "gcs", "abfs"):
                # Such a store shows an object when all of it is there.
                self._put(self.path(name), content)
                return
            beside = self.path(f".iir-{secrets.token_hex(4)}")
            self.system.create_dir(self.path(name).rpartition("/")[0], recursive=True)
            self._put(beside, content)
            self.system.move(beside, self.path(name))

    def _put(self, path: str, content: bytes) -> None:
        with self.system.open_output_stream(path) as stream:
            stream.write(content)

    def read(self, name: str) -> bytes | None:
        """A file's content, None where there is none; an OutputError where it cannot be read."""
        with self._told(f"read {name!r}"):
            try:
                with self.system.open_input_stream(self.path(name)) as stream:
                    content: bytes = stream.read()
                    return content
            except FileNotFoundError:
                return None

    def holds(self, name: str) -> bool:
        """Whether there is such a file."""
        with self._told(f"look for {name!r}"):
            return bool(self.system.get_file_info(self.path(name)).is_file)

    def names(self) -> list[str]:
        """Files that lie in the folder itself, without hidden ones, sorted."""
        from pyarrow import fs

        with self._told("list files"):
            infos = self.system.get_file_info(fs.FileSelector(self._opened[1], allow_not_found=True))
        return sorted(info.base_name for info in infos if info.is_file and not info.base_name.startswith("."))

    def remove(self, name: str) -> None:
        """Delete a file; an OutputError where it cannot be."""
        with self._told(f"delete {name!r}"), suppress(FileNotFoundError):
            self.system.delete_file(self.path(name))

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"cannot {what} in {self.place!r}: {error}.") from error


def fetched(uri: str) -> bytes:
    """A picture's file from a store, all of it.

    Raises:
        PictureNotFoundError: there is none.
        ImageError: it cannot be read, or is larger than any picture that is taken.
    """
    try:
        system, path = file_system_of(uri)
        with system.open_input_file(path) as file:
            if file.size() > LARGEST_FILE:
                raise ImageError(
                    f"{uri!r} has {file.size():,} bytes; at most {LARGEST_FILE:,} are fetched. Shrink the picture, or "
                    "segment it as a file, in windows, by iir-sdk segment."
                )
            content: bytes = file.read()
            return content
    except FileNotFoundError as error:
        raise PictureNotFoundError(f"no file at {uri!r}.") from error
    except OSError as error:
        raise ImageError(f"{uri!r} cannot be read: {error}.") from error
