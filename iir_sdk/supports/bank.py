"""Supports: encoded examples of a label, kept together, saved and loaded."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from iir_sdk.atomic_write import write_atomically
from iir_sdk.errors import LabelError, SupportError
from iir_sdk.paths import is_file
from iir_sdk.supports.encoded import KeptState, join_shots

FORMAT = "iir_sdk.supports/4"


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
    state: KeptState = field(repr=False)
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

    def of_label(self, label: str) -> tuple[Support, ...]:
        """All supports of a label.

        Raises:
            LabelError: there is none.
        """
        found = tuple(s for s in self.supports if s.label == label)
        if not found:
            raise LabelError(f"no support has label {label!r}; labels: {', '.join(map(repr, self.labels)) or 'none'}.")
        return found

    def state_of(self, label: str) -> KeptState:
        """One task with all shots of a label.

        Raises:
            LabelError: there is no such label.
        """
        return join_shots([s.state for s in self.of_label(label)])

    def adding(self, *supports: Support) -> SupportBank:
        """A bank with further supports; those it holds already are not added twice."""
        held = {s.id for s in self.supports}
        return SupportBank((*self.supports, *(s for s in supports if s.id not in held)))

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

    def save(self, path: str | os.PathLike[str], *, checkpoint: str, sha256: str) -> None:
        """Write all supports to one safetensors file that names the checkpoint they were made with.

        Raises:
            OutputError: it cannot be written.
        """
        arrays, records = {}, []
        for i, support in enumerate(self.supports):
            records.append({"id": support.id, "label": support.label, "image_size": list(support.image_size)})
            for name, array in support.state.arrays.items():
                arrays[f"{i}.{name}"] = np.ascontiguousarray(array)
        metadata = {
            "format": FORMAT,
            "checkpoint": checkpoint,
            "sha256": sha256,
            "supports": json.dumps(records),
        }
        # As bytes: the library's own file writing raises an error of its own on a full disk.
        content = save(arrays, metadata)
        write_atomically(path, lambda beside: beside.write_bytes(content))


def read_supports(path: str | os.PathLike[str], *, checkpoint: str, sha256: str) -> tuple[Support, ...]:
    """Read what :meth:`SupportBank.save` wrote, for the checkpoint in use.

    Raises:
        SupportError: no such file, not a support file, damaged, or made with another checkpoint.
    """
    if not is_file(path):
        raise SupportError(f"no support file at {os.fspath(path)!r}, or no right to see it.")
    try:
        with safe_open(path, framework="np") as stored:
            metadata = stored.metadata() or {}
            _check_origin(path, metadata, checkpoint, sha256)
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        records = json.loads(metadata["supports"])
        return tuple(_support(i, record, tensors) for i, record in enumerate(records))
    except SupportError:
        raise
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise SupportError(f"{os.fspath(path)!r} cannot be read as supports: {error}. Save them again.") from error


def _check_origin(path: str | os.PathLike[str], metadata: Mapping[str, str], checkpoint: str, sha256: str) -> None:
    if metadata.get("format") != FORMAT:
        raise SupportError(
            f"{os.fspath(path)!r} has format {metadata.get('format')!r}, expected {FORMAT!r}: not a support file, "
            "or one of another version; add the supports again from their pictures."
        )
    if metadata.get("sha256") != sha256:
        raise SupportError(
            f"{os.fspath(path)!r} was made with checkpoint {metadata.get('checkpoint')!r} "
            f"(sha256 {str(metadata.get('sha256'))[:12]}...), but {checkpoint!r} (sha256 {sha256[:12]}...) is loaded. "
            "Load that checkpoint, or add the supports again from their pictures."
        )


def _support(index: int, record: Mapping[str, Any], tensors: Mapping[str, Any]) -> Support:
    prefix = f"{index}."
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    height, width = record["image_size"]
    return Support(str(record["label"]), KeptState(own), (int(height), int(width)), str(record["id"]))
