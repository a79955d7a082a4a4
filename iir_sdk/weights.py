"""Checkpoints: the manifest that names them, their check, and safetensors in and out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from iir_sdk.atomic_write import write_atomically
from iir_sdk.errors import IntegrityError, WeightsError, WeightsNotFoundError
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.iir import IIR
from iir_sdk.preprocessing import Preprocessing

DEFAULT = "iir-lite2"
"""Name of the embedded checkpoint that ``FewShotSegmenter()`` loads."""

FORMAT = "iir_sdk.checkpoint/1"
_PACKAGE = Path(__file__).parent
_LARGEST_HEADER = 8_000_000


@dataclass(frozen=True)
class WeightsEntry:
    """One checkpoint of the manifest.

    Attributes:
        name: what ``from_pretrained`` takes.
        description: one line.
        filename: file name of the checkpoint.
        size: bytes.
        sha256: of the file, 64 hex digits.
        embedded: whether the file travels in the package.
        published: whether it can be had from the Hub.
        repo_id: its repository on the Hub, ``owner/name``, or None.
        revision: 40-hex commit on the Hub, or None.
        model: architecture.
        preprocessing: what its pictures go through.
        parameters: number of parameters, backbone included.
        license: of the weights.
        training_data: sets it was trained on.
        metrics: scores with the protocol they were measured by.
    """

    name: str
    description: str
    filename: str
    size: int
    sha256: str
    embedded: bool
    published: bool
    repo_id: str | None
    revision: str | None
    model: ModelConfig
    preprocessing: Preprocessing
    parameters: int
    license: str
    training_data: tuple[str, ...]
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded network with what it needs to know of its pictures.

    Attributes:
        name: manifest name, or the file's.
        sha256: of the file: the identity that saved supports are bound to.
        model: in evaluation mode, float32, without gradients.
        preprocessing: what its pictures go through.
    """

    name: str
    sha256: str
    model: IIR
    preprocessing: Preprocessing


def manifest_path() -> Path:
    """The manifest inside the installed package, or at the top of a checkout."""
    inside = _PACKAGE / "weights_manifest.json"
    return inside if inside.is_file() else _PACKAGE.parent / "weights_manifest.json"


@lru_cache(maxsize=1)
def read_manifest() -> dict[str, WeightsEntry]:
    """All known checkpoints by name.

    Raises:
        WeightsError: the manifest is missing or broken; the message names entry and field.
    """
    path = manifest_path()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        entries = {e["name"]: e for e in document["checkpoints"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} cannot be read ({error!r}); install iir_sdk again.") from error
    return {name: _entry(name, values) for name, values in entries.items()}


def _entry(name: str, values: Mapping[str, Any]) -> WeightsEntry:
    try:
        plain = dict(values)
        plain["model"] = ModelConfig.from_dict(plain["model"])
        plain["preprocessing"] = Preprocessing.from_dict(plain["preprocessing"])
        plain["training_data"] = tuple(plain["training_data"])
        return WeightsEntry(**plain)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"weights manifest, entry {name!r}: {error}.") from error


def load_checkpoint(name_or_path: str | os.PathLike[str] | None = None) -> Checkpoint:
    """Resolve, verify and load a checkpoint.

    Args:
        name_or_path: a manifest name, a ``.safetensors`` file, or a folder with ``model.safetensors``; None is the
            embedded default.

    Raises:
        WeightsNotFoundError: the name or path leads nowhere.
        IntegrityError: the bytes or tensors are not the expected ones.
        WeightsError: the file is not a checkpoint of this package.
        ConfigError: its architecture is out of bounds.
    """
    manifest = read_manifest()
    if name_or_path is None or (isinstance(name_or_path, str) and name_or_path in manifest):
        entry = manifest[DEFAULT if name_or_path is None else str(name_or_path)]
        file = _embedded_file(entry)
        digest = _verified_sha256(file, entry)
        return Checkpoint(entry.name, digest, _load_model(file, entry.model), entry.preprocessing)
    file = _local_file(Path(name_or_path), manifest)
    model, preprocessing = _own_config(file)
    return Checkpoint(file.stem, _sha256(file), _load_model(file, model), preprocessing)


def _embedded_file(entry: WeightsEntry) -> Path:
    if not entry.embedded:
        raise WeightsNotFoundError(f"checkpoint {entry.name!r} is not embedded and not published on the Hub yet.")
    file = _PACKAGE / "checkpoints" / entry.filename
    if not file.is_file():
        raise WeightsNotFoundError(f"{file} is missing from the installation; install iir_sdk again.")
    return file


def _local_file(path: Path, manifest: Mapping[str, WeightsEntry]) -> Path:
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise WeightsNotFoundError(
            f"{str(path)!r} is neither a file, a folder with model.safetensors, nor a known name; "
            f"known names: {', '.join(manifest)}."
        )
    return path


def _verified_sha256(file: Path, entry: WeightsEntry) -> str:
    size, digest = file.stat().st_size, _sha256(file)
    if (size, digest) != (entry.size, entry.sha256):
        raise IntegrityError(
            f"{file}: expected {entry.size} bytes with sha256 {entry.sha256}, got {size} bytes with sha256 {digest}. "
            "The file was changed or damaged; install iir_sdk again."
        )
    return digest


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return (
            hashlib.file_digest(stream, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else (hashlib.sha256(stream.read()).hexdigest())
        )


def _own_config(file: Path) -> tuple[ModelConfig, Preprocessing]:
    try:
        with safe_open(file, framework="pt") as tensors:
            metadata = tensors.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise WeightsError(f"{file} is not a checkpoint of this package (format {metadata.get('format')!r}).")
        config = json.loads(metadata["config"])
        return ModelConfig.from_dict(config["model"]), Preprocessing.from_dict(config["preprocessing"])
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise WeightsError(f"{file} cannot be read as a checkpoint: {error}.") from error


def _load_model(file: Path, config: ModelConfig) -> IIR:
    with torch.device("meta"):
        # No memory and no random numbers for weights that the file replaces.
        model = IIR(config)
    expected = model.state_dict()
    try:
        with safe_open(file, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{file} cannot be read: {error}. Get it again.") from error
    _check_tensors(file, tensors, expected)
    full = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    model.load_state_dict(full, assign=True)
    if any(b.is_meta for b in model.buffers()):
        # Buffers that no file stores, as some backbones have, are made only by building for real.
        model = IIR(config)
        model.load_state_dict(full)
    return model.requires_grad_(False).eval()


def _check_tensors(file: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing, further = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or further:
        what = f"lacks {missing[0]!r}" if missing else f"holds {further[0]!r}, which the architecture does not"
        raise IntegrityError(f"{file} {what}; its weights are for another architecture.")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise IntegrityError(
                f"{file}: {name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}."
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise IntegrityError(f"{file}: {name} holds NaN or infinite values.")


def save_checkpoint(model: IIR, preprocessing: Preprocessing, path: str | os.PathLike[str]) -> str:
    """Write a checkpoint as float16 safetensors that carries its own configuration.

    Returns:
        sha256 of the file.

    Raises:
        OutputError: it cannot be written.
    """
    tensors = {
        name: (t.half() if t.is_floating_point() else t).contiguous().cpu() for name, t in model.state_dict().items()
    }
    config = {"model": model.config.to_dict(), "preprocessing": preprocessing.to_dict()}
    metadata = {"format": FORMAT, "config": json.dumps(config)}
    return _sha256(write_atomically(path, lambda beside: save_file(tensors, beside, metadata)))
