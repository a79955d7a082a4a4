"""The output of a run as Parquet: parts of whole pictures under names that their ids give, read again to go on."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iir_sdk.errors import OutputError
from iir_sdk.ray.store import Store
from iir_sdk.segmenting.journal import STATE, check_same_settings

SETTINGS = f"{STATE}/settings.json"
_FORMAT = "iir_sdk.ray/1"
_READERS = 16
_NAMED = 5
"""Ids that an error names."""


def schema() -> Any:
    """Columns of a part: a row a picture and label; without label and numbers, one of a picture with an error."""
    import pyarrow as pa

    return pa.schema(
        [
            ("id", pa.string()),
            ("label", pa.string()),
            ("score", pa.float32()),
            ("confidence", pa.float32()),
            ("box", pa.list_(pa.int32())),
            ("area", pa.int64()),
            ("size", pa.list_(pa.int32())),
            ("counts", pa.string()),
            ("seconds", pa.float32()),
            ("error", pa.string()),
        ]
    )


def part_name(ids: Iterable[str]) -> str:
    """The file's name of a part with these pictures, the same in any order."""
    digest = hashlib.blake2b(digest_size=16)
    for text in sorted(ids):
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return f"part-{digest.hexdigest()}.parquet"


class KnownIds:
    """Ids by their digests, 16 bytes each: ten million of them take 160 MB, which processes share."""

    def __init__(self, digests: NDArray[np.uint64]) -> None:
        self.digests = digests  # ``(N, 2)``, in order

    def __len__(self) -> int:
        return len(self.digests)

    @classmethod
    def of(cls, ids: Iterable[str]) -> KnownIds:
        """Of these, each once."""
        return cls(np.unique(digests_of(ids), axis=0))

    def hold(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """``(N,)``, which of the ids are among them."""
        asked = digests_of(ids)
        starts, ends = (np.searchsorted(self.digests[:, 0], asked[:, 0], side) for side in ("left", "right"))
        pairs = zip(starts, ends, asked[:, 1], strict=True)
        return np.array([bool((self.digests[a:b, 1] == low).any()) for a, b, low in pairs], np.bool_)


def digests_of(ids: Iterable[str]) -> NDArray[np.uint64]:
    """``(N, 2)``, 128 bits of each."""
    hashes = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in ids]
    return np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, 2)


@dataclass(frozen=True)
class Parts:
    """The parts of an output folder."""

    store: Store

    def write(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a part's rows; an OutputError where it cannot be."""
        import pyarrow as pa

        self._write_table(name, pa.Table.from_pylist(list(rows), schema=schema()))

    def _write_table(self, name: str, table: Any) -> None:
        from pyarrow import parquet

        content = io.BytesIO()
        parquet.write_table(table, content, compression="zstd")
        self.store.write(name, content.getvalue())

    def table(self, name: str, columns: Sequence[str] | None = None) -> Any:
        """A part, or some of its columns; an OutputError where it is no such file."""
        import pyarrow as pa
        from pyarrow import parquet

        try:
            return parquet.read_table(self.store.path(name), columns=columns, filesystem=self.store.system)
        except (OSError, pa.ArrowException) as error:
            raise OutputError(f"{name!r} in {self.store.place!r} is no part of a run ({error}); delete it.") from error

    def pictures_in(self, name: str) -> int | None:
        """How many pictures a part holds; None where there is no such part."""
        return len(set(self.table(name, ["id"])["id"].to_pylist())) if self.store.holds(name) else None

    def names(self) -> list[str]:
        """Files of the parts, sorted."""
        return [name for name in self.store.names() if name.endswith(".parquet")]

    def start(self, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        """Make ready for a run, with its settings kept beside the parts.

        Raises:
            OutputError: the folder holds what no run wrote, or results of other supports, weights or settings; or it
                cannot be read or written.
        """
        content = self.store.read(SETTINGS)
        if overwrite:
            for name in self.names():
                self.store.remove(name)
            content = None
        if content is not None:
            self._check(content, settings)
            return
        if names := self.store.names():
            raise OutputError(
                f"{self.store.place!r} holds {names[0]!r} and no settings of a run to go on from. Name a new or an "
                "empty out."
            )
        self.store.write(SETTINGS, json.dumps({"format": _FORMAT, "settings": dict(settings)}).encode("ascii"))

    def _check(self, content: bytes, settings: Mapping[str, Any]) -> None:
        try:
            kept = json.loads(content)
            if kept["format"] != _FORMAT:
                raise ValueError(f"format {kept['format']!r}, expected {_FORMAT!r}")
            before = dict(kept["settings"])
        except (ValueError, LookupError, TypeError) as error:
            raise OutputError(
                f"{SETTINGS!r} in {self.store.place!r} cannot be read ({error}): no run can go on from it. Name "
                "another out, or say overwrite=True."
            ) from error
        check_same_settings(self.store.place, before, settings)

    def present(self) -> Present:
        """What the parts hold, of all their rows."""
        names = self.names()
        with ThreadPoolExecutor(_READERS) as pool:
            tables = list(pool.map(lambda name: self.table(name, ["id", "label", "error"]), names))
        return Present(names, tables)

    def without_errors(self, present: Present) -> Present:
        """Take rows with errors out of their parts, and so their pictures out of what is done."""
        from pyarrow import compute

        for name, table in zip(present.names, present.tables, strict=True):
            if table["error"].null_count < len(table):
                self._keep(name, compute.is_null(self.table(name)["error"]))
        return self.present()

    def without_doubles(self, present: Present, known: Iterable[str]) -> Present:
        """Take out what was written twice: by a worker that outlived the driver that had asked for it.

        Parts of these names are ``known`` to be asked for; of the others goes what these or earlier ones hold.
        """
        ours = set(known)
        order = sorted(range(len(present.names)), key=lambda i: (present.names[i] not in ours, i))
        seen: set[str] = set()
        changed = False
        for i in order:
            ids = present.tables[i]["id"].to_pylist()
            double = seen.intersection(ids)
            if double and present.names[i] not in ours:
                self._keep(present.names[i], [text not in double for text in ids])
                changed = True
            seen.update(ids)
        return self.present() if changed else present

    def _keep(self, name: str, wanted: Any) -> None:
        import pyarrow as pa

        table = self.table(name).filter(pa.array(wanted) if isinstance(wanted, list) else wanted)
        if len(table):
            self._write_table(name, table)
        else:
            self.store.remove(name)


@dataclass(frozen=True)
class Present:
    """What an output folder holds.

    Attributes:
        names: of its parts.
        tables: columns ``id``, ``label`` and ``error`` of each.
    """

    names: list[str]
    tables: list[Any]

    def ids(self) -> list[str]:
        """Of every row."""
        return [text for table in self.tables for text in table["id"].to_pylist()]

    def known(self) -> KnownIds:
        """Ids of all pictures."""
        return KnownIds.of(self.ids())

    def rows(self) -> int:
        """How many there are."""
        return sum(len(table) for table in self.tables)

    def pictures(self) -> dict[str, int]:
        """How many pictures each part holds."""
        return {n: len(set(t["id"].to_pylist())) for n, t in zip(self.names, self.tables, strict=True)}

    def errors(self) -> dict[str, str]:
        """Why pictures have no masks, by id."""
        failed = [table.filter(table["error"].is_valid()) for table in self.tables]
        return {i: e for t in failed for i, e in zip(t["id"].to_pylist(), t["error"].to_pylist(), strict=True)}

    def doubles(self) -> list[str]:
        """Ids that two rows of the same label have."""
        seen: set[tuple[str, str | None]] = set()
        doubles = []
        for table in self.tables:
            for key in zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True):
                if key in seen:
                    doubles.append(key[0])
                seen.add(key)
        return doubles

    def check(self, written: Mapping[str, int], wanted: Sequence[str] | None) -> None:
        """Hold the output to what went in: every picture once.

        Args:
            written: how many pictures each part of this run is to hold.
            wanted: ids of all pictures; None where only their count is known.

        Raises:
            OutputError: a row is missing, or is there twice; it names them.
        """
        if doubles := self.doubles():
            raise OutputError(
                f"{len(doubles)} pictures are there twice: {_some(doubles)}. Ids must differ; two pictures of the "
                "input have the same one."
            )
        counts = self.pictures()
        short = [name for name, count in written.items() if counts.get(name) != count]
        if short:
            raise OutputError(
                f"{short[0]!r} is to hold {written[short[0]]} pictures and holds {counts.get(short[0], 0)} (one of "
                f"{len(short)} such parts): something else changed the output meanwhile. The same call does what is "
                "missing."
            )
        if wanted is not None:
            held = self.known().hold(wanted)
            missing = [text for text, there in zip(wanted, held, strict=True) if not there]
            if missing:
                raise OutputError(
                    f"{len(missing)} pictures are missing from the output: {_some(missing)}. The same call does them."
                )


def _some(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:_NAMED])) + (", ..." if len(ids) > _NAMED else "")
