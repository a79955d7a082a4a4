"""Supports: encoded examples of a label, kept together, saved and loaded."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from iir_sdk.errors import LabelError, OutputError, SupportError
from iir_sdk.files import is_file, write_atomically
from iir_sdk.supports.encoded import EncodedSupport

FORMAT = "iir_sdk.supports/7"

SupportFile: TypeAlias = "str | os.PathLike[str] | BinaryIO | bytes | bytearray | memoryview"
"""A path, an open binary file, or a file's bytes."""


@dataclass(frozen=True)
class Support:
    """One encoded example of a label; the picture itself is not kept.

    Attributes:
        label: what it is an example of.
        state: all that prediction needs of it, one task with one shot.
        image_size: ``(height, width)`` of its picture in pixels.
        id: random name, unique in its bank.
    """

    label: str
    state: EncodedSupport = field(repr=False)
    image_size: tuple[int, int]
    id: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def nbytes(self) -> int:
        """Bytes of memory it holds."""
        return self.state.nbytes


@dataclass(frozen=True)
class SupportBank:
    """An immutable, ordered collection of supports; adding and removing give a new one."""

    supports: tuple[Support, ...] = ()

    def __len__(self) -> int:
        return len(self.supports)

    def __iter__(self) -> Iterator[Support]:
        return iter(self.supports)

    def __getitem__(self, index: int) -> Support:
        return self.supports[index]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order they were first added."""
        return tuple(dict.fromkeys(s.label for s in self.supports))

    def by_label(self) -> dict[str, tuple[Support, ...]]:
        """All supports, by label."""
        lists: dict[str, list[Support]] = {}
        for support in self.supports:
            lists.setdefault(support.label, []).append(support)
        return {label: tuple(supports) for label, supports in lists.items()}

    def of_label(self, label: str) -> tuple[Support, ...]:
        """All supports of a label.

        Raises:
            LabelError: there is none.
        """
        supports = tuple(s for s in self.supports if s.label == label)
        if not supports:
            raise LabelError(f"no support has label {label!r}; labels: {', '.join(map(repr, self.labels)) or 'none'}.")
        return supports

    def adding(self, *supports: Support) -> SupportBank:
        """A bank with further supports; those it holds already are not added twice."""
        ids = {s.id for s in self.supports}
        return SupportBank((*self.supports, *(s for s in supports if s.id not in ids)))

    def removing(self, which: Support | str) -> SupportBank:
        """A bank without one support, or without all of a label.

        Raises:
            LabelError: nothing fits.
        """
        if isinstance(which, Support):
            if which.id not in {s.id for s in self.supports}:
                raise LabelError(f"support {which.id} ({which.label!r}) is not in this bank.")
            return SupportBank(tuple(s for s in self.supports if s.id != which.id))
        self.of_label(which)
        return SupportBank(tuple(s for s in self.supports if s.label != which))

    def save(self, target: SupportFile, *, checkpoint: str, sha256: str) -> None:
        """Write all supports as safetensors that name the checkpoint they were made with, to a path or binary file.

        Raises:
            OutputError: it cannot be written.
        """
        arrays, records = {}, []
        for i, support in enumerate(self.supports):
            records.append({"id": support.id, "label": support.label, "image_size": list(support.image_size)})
            for name, array in support.state.arrays().items():
                arrays[f"{i}.{name}"] = np.ascontiguousarray(array)
        metadata = {"format": FORMAT, "checkpoint": checkpoint, "sha256": sha256, "supports": json.dumps(records)}
        # As bytes: the library's own file writing raises an error of its own on a full disk.
        content = save(arrays, metadata)
        if isinstance(target, (str, os.PathLike)):
            write_atomically(target, lambda beside: beside.write_bytes(content))
        elif isinstance(target, (bytes, bytearray, memoryview)) or not hasattr(target, "write"):
            raise OutputError(f"a {type(target).__name__} cannot be written to; pass a path or an open binary file.")
        else:
            try:
                target.write(content)
            except (OSError, ValueError, TypeError) as error:
                # Closed, opened for reading, or opened for text.
                raise OutputError(
                    f"cannot write to {target!r}: {error}. Open it for binary writing: open(path, 'wb')."
                ) from error


def read_supports(source: SupportFile, *, checkpoint: str, sha256: str) -> tuple[Support, ...]:
    """Read what :meth:`SupportBank.save` wrote, for the checkpoint in use.

    Args:
        source: a path, an open binary file, or the file's bytes.
        checkpoint: its name.
        sha256: of the checkpoint.

    Raises:
        SupportError: no such file, not a support file, damaged, or made with another checkpoint.
    """
    what = named(source)
    content = _content(source)
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {}) if length <= len(content) else {}
        _check_origin(what, metadata, checkpoint, sha256)
        # The library's arrays are views of read-only bytes, which torch warns of.
        tensors = {name: array.copy() for name, array in load(content).items()}
        records = json.loads(metadata["supports"])
        return tuple(_support(i, record, tensors) for i, record in enumerate(records))
    except SupportError:
        raise
    except (SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise SupportError(f"{what} cannot be read as supports: {error}. Save them again.") from error


def named(source: SupportFile) -> str:
    """What a message calls a file of supports."""
    return repr(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else f"the {type(source).__name__}"


def _content(source: SupportFile) -> bytes:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    try:
        if not isinstance(source, (str, os.PathLike)):
            content = source.read()
        elif is_file(source):
            content = Path(source).read_bytes()
        else:
            raise SupportError(f"no support file at {os.fspath(source)!r}, or no right to see it.")
    except (OSError, ValueError, AttributeError) as error:
        if isinstance(error, SupportError):
            raise
        raise SupportError(
            f"{named(source)} cannot be read: {error}. Pass a path, an open binary file, or bytes."
        ) from error
    if not content:
        raise SupportError(f"{named(source)} is empty, or was read to its end: wind it back with file.seek(0).")
    if not isinstance(content, bytes):
        raise SupportError(f"{named(source)} was opened for text; open it for bytes: open(path, 'rb').")
    return content


def _check_origin(what: str, metadata: Mapping[str, str], checkpoint: str, sha256: str) -> None:
    if metadata.get("format") != FORMAT:
        raise SupportError(
            f"{what} has format {metadata.get('format')!r}, expected {FORMAT!r}: not a support file, "
            "or one of another version; add the supports again from their pictures."
        )
    if metadata.get("sha256") != sha256:
        raise SupportError(
            f"{what} was made with checkpoint {metadata.get('checkpoint')!r} "
            f"(sha256 {str(metadata.get('sha256'))[:12]}...), but {checkpoint!r} (sha256 {sha256[:12]}...) is loaded. "
            "Load that checkpoint, or add the supports again from their pictures."
        )


def _support(index: int, record: Mapping[str, Any], tensors: Mapping[str, Any]) -> Support:
    prefix = f"{index}."
    arrays = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
    height, width = record["image_size"]
    state = EncodedSupport.from_arrays(arrays)
    return Support(str(record["label"]), state, (int(height), int(width)), str(record["id"]))
