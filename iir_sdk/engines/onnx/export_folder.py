"""The folder that an export is: its graphs and what they are, in one checked file."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import iir_sdk
from iir_sdk.errors import IntegrityError, WeightsError, WeightsNotFoundError
from iir_sdk.files import is_file, write_text_atomically
from iir_sdk.weights.entry import EXPORT_RECORD, WeightsEntry
from iir_sdk.weights.manifest import read_json

FORMAT = "iir_sdk.onnx/13"
ENCODER = "support_encoder.onnx"
COUNTEREXAMPLE_ENCODER = "counterexample_encoder.onnx"
PREDICTOR = "query_predictor.onnx"
GRAPHS = (ENCODER, COUNTEREXAMPLE_ENCODER, PREDICTOR)
"""Names of the graphs' files."""
SCORES_OUTPUT = "scores"
"""The predictor's output that networks without such a head do not have."""
OPSET = 17


@dataclass(frozen=True)
class OnnxExport:
    """The graphs and the checkpoint that they were made from.

    Attributes:
        entry: of the checkpoint; kept supports are bound to its sha256.
        graphs: the verified files by name: what is opened later is what was read, whatever becomes of the folder.
        expected: what PyTorch makes of the compared pictures (:mod:`iir_sdk.engines.agreement`), for runtimes without
            it.
    """

    entry: WeightsEntry
    graphs: Mapping[str, bytes] = field(repr=False)
    expected: Mapping[str, NDArray[np.float32]] = field(repr=False)


def write_record(folder: Path, export: OnnxExport, measured: Mapping[str, float]) -> None:
    """Write what the graphs beside it are; last, so that a folder without it is not an export."""
    record = {
        "format": FORMAT,
        "opset": OPSET,
        "sdk_version": iir_sdk.__version__,
        "graphs": {name: _sha256(content) for name, content in export.graphs.items()},
        "against_torch": dict(measured),
        "expected": {name: _packed(lead) for name, lead in export.expected.items()},
        "checkpoint": export.entry.to_dict(),
    }
    content = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_text_atomically(folder / EXPORT_RECORD, content)


def read_export(folder: Path) -> OnnxExport:
    """A verified export; a WeightsError (or its kinds) where it is not whole, or not the one that was written."""
    path = folder / EXPORT_RECORD
    record: Any = read_json(path)
    if not isinstance(record, Mapping) or record.get("format") != FORMAT:
        raise WeightsError(f"{path} is not an export of this package (format {FORMAT!r}); export again.")
    entry = WeightsEntry.from_dict(record.get("checkpoint"), f"{path}, checkpoint")
    stated = record.get("graphs")
    graphs = read_graphs(folder)
    for name, content in graphs.items():
        if not isinstance(stated, Mapping) or stated.get(name) != _sha256(content):
            raise IntegrityError(f"{folder / name} is not the file that {EXPORT_RECORD} beside it names; export again.")
    return OnnxExport(entry, graphs, _expected(path, record))


def _packed(lead: NDArray[np.float32]) -> dict[str, Any]:
    return {"shape": list(lead.shape), "float16": b64encode(lead.astype("<f2").tobytes()).decode()}


def _expected(path: Path, record: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    try:
        return {
            name: np.frombuffer(b64decode(packed["float16"]), "<f2").astype(np.float32).reshape(packed["shape"])
            for name, packed in record["expected"].items()
        }
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{path}: what is expected of the graphs cannot be read; export again.") from error


def read_graphs(folder: Path) -> dict[str, bytes]:
    """The graphs' files by name; a WeightsNotFoundError where one is missing."""
    for name in GRAPHS:
        if not is_file(folder / name):
            raise WeightsNotFoundError(f"{folder / name} is missing; export again: iir-sdk export onnx --out FOLDER")
    return {name: (folder / name).read_bytes() for name in GRAPHS}


def is_export(folder: Path) -> bool:
    """Whether a folder says it is an export."""
    return is_file(folder / EXPORT_RECORD)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
