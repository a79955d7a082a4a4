"""How many pixels of each class a picture shows, counted once and kept beside the data."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from iir_sdk.errors import OutputError
from iir_sdk.files import write_text_atomically

logger = logging.getLogger("iir_sdk")

Areas = dict[str, dict[str, int]]
FOLDER = ".iir_sdk"


def indexed_areas(root: Path, name: str, keys: Sequence[str], measure: Callable[[str], dict[str, int]]) -> Areas:
    """Areas of every picture: read from ``root/.iir_sdk/areas-NAME.json`` if it is of these pictures, else counted.

    Args:
        root: of the dataset.
        name: of the index.
        keys: pictures.
        measure: pixels by class of one picture.
    """
    file = root / FOLDER / f"areas-{name}.json"
    of = hashlib.sha256("\n".join(keys).encode()).hexdigest()
    kept = _kept(file, of)
    if kept is not None:
        return kept
    areas = {key: measure(key) for key in tqdm(keys, desc=f"{name}: areas", unit="picture", disable=len(keys) < 500)}
    text = json.dumps({"of": of, "areas": areas})
    try:
        file.parent.mkdir(exist_ok=True)
        write_text_atomically(file, text)
    except (OutputError, OSError) as error:
        logger.warning("%s; the areas of %s will be counted again next time.", error, name)
    return areas


def _kept(file: Path, of: str) -> Areas | None:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["of"] != of:
            return None
        areas: Areas = document["areas"]
        return areas
    # An index that is missing or damaged is made again.
    except (OSError, ValueError, KeyError, TypeError):
        return None
