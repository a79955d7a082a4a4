"""Supports and counterexamples: encoded pictures of what a label is and is not, kept together, saved and loaded."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from iir_sdk.errors import LabelError, OutputError, SupportError
from iir_sdk.files import is_file, write_atomically
from iir_sdk.model.support_state import TOKEN_AXES, Tokens
from iir_sdk.supports.encoded import EncodedSupport
from iir_sdk.supports.pictures import PackedMask

FORMAT = "iir_sdk.supports/9"
_KINDS = ("supports", "counterexamples")
_LARGEST_HEAD = 100_000_000
"""Bytes, as safetensors has it."""

SupportFile: TypeAlias = "str | os.PathLike[str] | BinaryIO | bytes | bytearray | memoryview"
"""A path, an open binary file, or a file's bytes."""


@dataclass(frozen=True)
class Support:
    """One encoded example of a label.

    Attributes:
        label: what it is an example of.
        state: all that prediction needs of it, one task with one shot.
        packed: its mask, and where that is known.
        picture: a small copy of its picture, a JPEG, to rehearse on; empty where it is not to be kept.
        box: ``(x0, y0, x1, y1)`` as given, where the mask was made from it; else None.
        id: random name, unique in its bank.
    """

    label: str
    state: EncodedSupport = field(repr=False)
    packed: PackedMask = field(repr=False)
    picture: bytes = field(default=b"", repr=False)
    box: tuple[float, float, float, float] | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def image_size(self) -> tuple[int, int]:
        """``(height, width)`` of its picture in pixels."""
        return self.packed.size

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Bool ``(H, W)`` at its picture's size: the mask that was used, of a box the one that was made from it."""
        return self.packed.mask

    @property
    def nbytes(self) -> int:
        """Bytes of memory it holds."""
        return self.state.nbytes + len(self.packed.marked) + len(self.packed.stated) + len(self.picture)


@dataclass(frozen=True)
class Counterexample:
    """One encoded picture, or part of one, that does not show a label's object.

    Attributes:
        label: what it is no example of.
        tokens: all that prediction needs of it, of one task with one shot.
        image_size: ``(height, width)`` of its picture in pixels.
        picture: a small copy of it, a JPEG, to rehearse on; empty of a region, and where it is not to be kept.
        id: random name, unique in its bank.
    """

    label: str
    tokens: Tokens[NDArray[Any]] = field(repr=False)
    image_size: tuple[int, int]
    picture: bytes = field(default=b"", repr=False)
    id: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def nbytes(self) -> int:
        """Bytes of memory it holds."""
        return sum(int(array.nbytes) for _, array in self.tokens.parts()) + len(self.picture)


Example: TypeAlias = "Support | Counterexample"


@dataclass(frozen=True)
class SupportBank:
    """An immutable, ordered collection of supports; adding and removing give a new one.

    Its length, its labels and what it iterates over are those of the supports; counterexamples lie beside them.

    Attributes:
        supports: what labels are.
        counterexamples: what they are not; of a label without supports as well.
    """

    supports: tuple[Support, ...] = ()
    counterexamples: tuple[Counterexample, ...] = ()

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

    def counterexamples_of(self, label: str) -> tuple[Counterexample, ...]:
        """All counterexamples of a label, which may have none."""
        return tuple(c for c in self.counterexamples if c.label == label)

    def adding(self, *examples: Example) -> SupportBank:
        """A bank with further supports and counterexamples; those it holds already are not added twice."""
        ids = {s.id for s in self.supports} | {c.id for c in self.counterexamples}
        new: list[Example] = [e for e in examples if e.id not in ids]
        return SupportBank(
            (*self.supports, *(e for e in new if isinstance(e, Support))),
            (*self.counterexamples, *(e for e in new if isinstance(e, Counterexample))),
        )

    def removing(self, which: Example | str) -> SupportBank:
        """A bank without one support or counterexample, or without all of a label.

        Raises:
            LabelError: nothing fits.
        """
        examples: tuple[Example, ...] = (*self.supports, *self.counterexamples)
        if isinstance(which, (Support, Counterexample)):
            remaining = [e for e in examples if e.id != which.id]
            if len(remaining) == len(examples):
                kind = type(which).__name__.lower()
                raise LabelError(f"{kind} {which.id} ({which.label!r}) is not in this bank.")
        else:
            remaining = [e for e in examples if e.label != which]
            if len(remaining) == len(examples):
                self.of_label(which)
        return SupportBank().adding(*remaining)

    def save(self, target: SupportFile, *, checkpoint: str, sha256: str) -> None:
        """Write it all as safetensors that name the checkpoint they were made with, to a path or binary file.

        Raises:
            OutputError: it cannot be written.
        """
        arrays: dict[str, NDArray[Any]] = {}
        metadata = {"format": FORMAT, "checkpoint": checkpoint, "sha256": sha256}
        of_kinds: tuple[tuple[Example, ...], ...] = (self.supports, self.counterexamples)
        for kind, examples in zip(_KINDS, of_kinds, strict=True):
            metadata[kind] = json.dumps([_record(example) for example in examples])
            for i, example in enumerate(examples):
                arrays |= {f"{kind}.{i}.{n}": np.ascontiguousarray(a) for n, a in _arrays(example).items()}
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


_BYTES = ("picture", "mask", "known")
"""Arrays of bytes in files, beside those of the encoding; none where they are empty."""


def _record(example: Example) -> dict[str, Any]:
    record = {"id": example.id, "label": example.label, "image_size": list(example.image_size)}
    return {**record, "box": example.box} if isinstance(example, Support) else record


def _arrays(example: Example) -> dict[str, NDArray[Any]]:
    if isinstance(example, Support):
        arrays, packed = example.state.arrays(), example.packed
        contents = (example.picture, packed.marked, packed.stated)
    else:
        arrays = dict(zip(TOKEN_AXES, (array for _, array in example.tokens.parts()), strict=True))
        contents = (example.picture, b"", b"")
    beside = {n: np.frombuffer(content, np.uint8) for n, content in zip(_BYTES, contents, strict=True) if content}
    return {**arrays, **beside}


def read_supports(source: SupportFile, *, checkpoint: str, sha256: str) -> SupportBank:
    """Read what :meth:`SupportBank.save` wrote, for the checkpoint in use; else a SupportError says why not."""
    what = named(source)
    content = _content(source)
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {}) if length <= len(content) else {}
        _check_origin(what, metadata, checkpoint, sha256)
        # The library's arrays are views of read-only bytes, which torch warns of.
        tensors = {name: array.copy() for name, array in load(content).items()}
        supports, counterexamples = (json.loads(metadata[kind]) for kind in _KINDS)
        return SupportBank(
            tuple(_support(record, _part(tensors, f"supports.{i}.")) for i, record in enumerate(supports)),
            tuple(
                _counterexample(record, _part(tensors, f"counterexamples.{i}."))
                for i, record in enumerate(counterexamples)
            ),
        )
    except SupportError:
        raise
    except (SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise SupportError(f"{what} cannot be read as supports: {error}. Save them again.") from error


class FileLabels(NamedTuple):
    """What the head of a support file tells, without reading the rest.

    Attributes:
        supports: the label of each support; ``counterexamples`` likewise.
        nbytes: bytes of memory that they hold together, as :attr:`Support.nbytes`.
    """

    supports: tuple[str, ...]
    counterexamples: tuple[str, ...]
    nbytes: int


def read_labels(path: Path) -> FileLabels:
    """The labels in a file that :meth:`SupportBank.save` wrote, of whatever checkpoint; a SupportError if it is none.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        head = file.read(length) if length < _LARGEST_HEAD else b""
    try:
        tensors = json.loads(head)
        metadata = tensors.pop("__metadata__")
        supports, others = (tuple(str(record["label"]) for record in json.loads(metadata[kind])) for kind in _KINDS)
        ends = (int(tensor["data_offsets"][1]) for tensor in tensors.values())
        return FileLabels(supports, others, max(ends, default=0))
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise SupportError(f"not a file of supports, or a damaged one ({error}); save them again.") from error


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


def _part(tensors: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def _size(record: Mapping[str, Any]) -> tuple[int, int]:
    height, width = record["image_size"]
    return int(height), int(width)


def _support(record: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Support:
    picture, marked, stated = (arrays[n].tobytes() if n in arrays else b"" for n in _BYTES)
    state = EncodedSupport.from_arrays({name: array for name, array in arrays.items() if name not in _BYTES})
    packed = PackedMask(_size(record), marked, stated)
    # Unpacked once, so that a damaged one is refused here.
    if not (packed.mask & packed.known).any():
        raise ValueError("a mask is empty")
    box = None if record["box"] is None else tuple(float(edge) for edge in record["box"])
    if box is not None and len(box) != 4:
        raise ValueError(f"box {box}")
    return Support(str(record["label"]), state, packed, picture, box, str(record["id"]))


def _counterexample(record: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Counterexample:
    tokens = Tokens(*(arrays[name] for name in TOKEN_AXES))
    picture = arrays["picture"].tobytes() if "picture" in arrays else b""
    return Counterexample(str(record["label"]), tokens, _size(record), picture, str(record["id"]))
