"""The folder that an export is: two graphs and what they are, in one checked file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import iir_sdk
from iir_sdk.atomic_write import write_text_atomically
from iir_sdk.errors import IntegrityError, WeightsError, WeightsNotFoundError
from iir_sdk.paths import is_file
from iir_sdk.preprocessing import Preprocessing
from iir_sdk.weights.entry import WeightsEntry
from iir_sdk.weights.manifest import read_json

FORMAT = "iir_sdk.onnx/4"
RECORD = "export.json"
ENCODER = "support_encoder.onnx"
PREDICTOR = "query_predictor.onnx"
SCORES_OUTPUT = "scores"
"""The predictor's output that networks without such a head do not have."""
OPSET = 17


@dataclass(frozen=True)
class OnnxExport:
    """Two graphs and the checkpoint that they were made from.

    Attributes:
        folder: where they are.
        entry: of the checkpoint; kept supports are bound to its sha256.
    """

    folder: Path
    entry: WeightsEntry

    @property
    def preprocessing(self) -> Preprocessing:
        """The checkpoint's."""
        return self.entry.preprocessing


def write_record(folder: Path, entry: WeightsEntry, measured: Mapping[str, float]) -> None:
    """Write what the graphs beside it are; last, so that a folder without it is not an export.

    Raises:
        OutputError: it cannot be written.
    """
    record = {
        "format": FORMAT,
        "opset": OPSET,
        "sdk_version": iir_sdk.__version__,
        "graphs": {name: _sha256(folder / name) for name in (ENCODER, PREDICTOR)},
        "against_torch": dict(measured),
        "checkpoint": entry.to_dict(),
    }
    content = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_text_atomically(folder / RECORD, content)


def read_export(folder: Path) -> OnnxExport:
    """A verified export.

    Raises:
        WeightsNotFoundError: a graph is missing.
        IntegrityError: a graph is not the one that was written.
        WeightsError: the record is broken or of another version.
    """
    path = folder / RECORD
    record: Any = read_json(path)
    if not isinstance(record, Mapping) or record.get("format") != FORMAT:
        raise WeightsError(f"{path} is not an export of this package (format {FORMAT!r}); export again.")
    graphs = record.get("graphs")
    for name in (ENCODER, PREDICTOR):
        if not is_file(folder / name):
            raise WeightsNotFoundError(f"{folder / name} is missing; export again: iir-sdk export onnx --out FOLDER")
        if not isinstance(graphs, Mapping) or graphs.get(name) != _sha256(folder / name):
            raise IntegrityError(f"{folder / name} is not the file that {RECORD} beside it names; export again.")
    return OnnxExport(folder, WeightsEntry.from_dict(record.get("checkpoint"), f"{path}, checkpoint"))


def is_export(folder: Path) -> bool:
    """Whether a folder says it is an export."""
    return is_file(folder / RECORD)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
