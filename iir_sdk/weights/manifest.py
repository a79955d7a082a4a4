"""``weights_manifest.json``: the checkpoints that this version of the package knows by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from iir_sdk.errors import WeightsError, WeightsNotFoundError
from iir_sdk.files import write_text_atomically
from iir_sdk.records import did_you_mean
from iir_sdk.weights.entry import WeightsEntry

DEFAULT = "iir-duo"
"""Name of the embedded checkpoint that ``FewShotSegmenter()`` loads."""

SCHEMA = 1
PACKAGE = Path(__file__).parent.parent
_LARGEST_JSON = 4_000_000


def manifest_path() -> Path:
    """The manifest inside the installed package, or at the top of a checkout."""
    inside = PACKAGE / "weights_manifest.json"
    return inside if inside.is_file() else PACKAGE.parent / "weights_manifest.json"


def manifest_to_edit() -> Path:
    """The manifest of a checkout, where publishing pins what it published; of an installed package, a WeightsError."""
    path = manifest_path()
    if path.parent == PACKAGE:
        raise WeightsError(f"{path} belongs to an installation; name the manifest to write: --manifest FILE")
    return path


@lru_cache(maxsize=1)
def known_weights() -> Mapping[str, WeightsEntry]:
    """All checkpoints of this package's manifest by name; raises as :func:`read_manifest` does."""
    return read_manifest(manifest_path())


def list_weights() -> tuple[str, ...]:
    """Names of the checkpoints that this version knows, the default first."""
    return tuple(sorted(known_weights(), key=lambda name: (name != DEFAULT, name)))


def weights_info(name: str) -> WeightsEntry:
    """What the manifest says of a checkpoint.

    Raises:
        WeightsNotFoundError: no such name; the message names those that are.
    """
    known = known_weights()
    if name not in known:
        raise WeightsNotFoundError(f"there is no checkpoint {name!r}{did_you_mean(name, known)}")
    return known[name]


def read_manifest(path: Path) -> dict[str, WeightsEntry]:
    """All checkpoints of a manifest file by name; of a broken one, a WeightsError names entry and field."""
    document = read_json(path)
    if not isinstance(document, Mapping) or not isinstance(document.get("checkpoints"), list):
        raise WeightsError(f"{path} must be an object with a list of 'checkpoints'; install iir_sdk again.")
    if document.get("schema") != SCHEMA:
        raise WeightsError(
            f"{path}: schema={str(document.get('schema'))[:20]} must be {SCHEMA}. Was it made by a newer iir_sdk? "
            "Run: pip install --upgrade iir-sdk"
        )
    entries: dict[str, WeightsEntry] = {}
    for i, values in enumerate(document["checkpoints"]):
        name = values.get("name") if isinstance(values, Mapping) else None
        entry = WeightsEntry.from_dict(values, f"{path}, entry {name if isinstance(name, str) else i!r}")
        if entry.name in entries:
            raise WeightsError(f"{path}: there are two entries named {entry.name!r}.")
        entries[entry.name] = entry
    return entries


def write_entry(path: Path, entry: WeightsEntry) -> None:
    """Put an entry into a manifest file, in place of the one of its name if there is one; a missing file is begun."""
    entries = (read_manifest(path) if path.exists() else {}) | {entry.name: entry}
    document = {"schema": SCHEMA, "checkpoints": [e.to_dict() for e in entries.values()]}
    content = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    write_text_atomically(path, content)


def read_json(path: Path) -> Any:
    """A JSON file's value; a WeightsError where it is not there, too large, or not JSON."""
    try:
        size = path.stat().st_size
        if size > _LARGEST_JSON:
            raise WeightsError(f"{path} has {size:,} bytes, more than the {_LARGEST_JSON:,} it may have.")
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}.") from error
    return parse_json(content, str(path))


def parse_json(content: bytes, where: str) -> Any:
    """The value that JSON bytes hold; a WeightsError where they are not JSON."""
    try:
        return json.loads(content)
    # RecursionError: lists nested thousands deep.
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{where} cannot be read: {error}.") from error
