"""One checkpoint file: everything is checked on the bytes in memory before they become the network's weights."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from torch import Tensor

import iir_sdk
from iir_sdk.errors import ConfigError, IirError, IntegrityError, WeightsError, WeightsNotFoundError
from iir_sdk.files import write_safetensors
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.iir import IIR
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.process import unset_default_device
from iir_sdk.weights.entry import LARGEST_FILE, UNSTATED, WeightsEntry

FORMAT = "iir_sdk.checkpoint/3"
"""Key of a file's metadata that holds its configuration; the only one, since their order in the file is not fixed."""

WEIGHTS_FILE = "model.safetensors"
_LARGEST_HEADER = 4_000_000
_FLOATS = ("F16", "BF16", "F32")
_STORED_AS = {torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}


@dataclass(frozen=True)
class Check:
    """One thing that was verified, and what it turned out to be."""

    name: str
    finding: str


@dataclass(frozen=True)
class Checkpoint:
    """A verified network in evaluation mode, float32, without gradients, with what is known of it."""

    entry: WeightsEntry
    model: IIR
    file: Path
    checks: tuple[Check, ...]  # what was verified before the first tensor was used

    @property
    def name(self) -> str:
        """Manifest name, or the file's."""
        return self.entry.name

    @property
    def sha256(self) -> str:
        """Of the file: the identity that saved supports are bound to."""
        return self.entry.sha256

    @property
    def preprocessing(self) -> Preprocessing:
        """What its pictures go through."""
        return self.entry.preprocessing


@unset_default_device()
def read_checkpoint(
    file: Path,
    pinned: WeightsEntry | None = None,
    *,
    stated_by: str = "the manifest",
    cure: str = "Get the file again.",
) -> Checkpoint:
    """Verify a checkpoint file and build its network. Memory: at most eight times the file's size and 256 MB.

    Args:
        file: a safetensors file that :func:`save_checkpoint` wrote.
        pinned: what it must be; None where nothing is known of it.
        stated_by: where ``pinned`` is from, for the checks' texts.
        cure: what to do about a damaged file, for the message.

    Raises:
        IntegrityError: size, sha256, tensors or values are not the expected ones.
        WeightsError: it is not a checkpoint of this package.
        ConfigError: its architecture is out of bounds.
    """
    if pinned:
        pinned.check_sdk_version()
    content = _read(file, pinned, cure)
    digest = hashlib.sha256(content).hexdigest()
    if pinned and digest != pinned.sha256:
        raise IntegrityError(
            f"{file}: expected sha256 {pinned.sha256}, got {digest}. The file was changed or damaged. {cure}"
        )
    header = _header(file, content)
    config, preprocessing, description = _configuration(file, header)
    if pinned and (config, preprocessing) != (pinned.model, pinned.preprocessing):
        raise IntegrityError(f"{file}: its own configuration is not the one stated for {pinned.name!r}. {cure}")
    model = empty_model(config)
    expected = model.state_dict()
    _check_tensors(file, header, expected)
    model = filled(file, model, content)
    parameters = sum(p.numel() for p in model.parameters())
    if pinned and parameters != pinned.parameters:
        raise IntegrityError(f"{file}: expected {pinned.parameters:,} parameters, got {parameters:,}. {cure}")
    entry = pinned or _unpinned(file, len(content), digest, model, preprocessing, description)
    origin = f"as {stated_by} states" if pinned else "nothing to compare with"
    checks = (
        Check("size", f"{len(content):,} bytes, {origin}"),
        Check("sha256", f"{digest}, {origin}"),
        Check("format", "safetensors, no pickled code"),
        Check("configuration", "within bounds" + (f", as {stated_by} states" if pinned else "")),
        Check("tensors", f"{len(expected)} with the names, shapes and dtypes of {config.backbone} and its decoder"),
        Check("values", f"{parameters:,} parameters, none NaN or infinite"),
    )
    # Absolute, for it may be read again after the working directory has changed.
    return Checkpoint(entry, model, file.absolute(), checks)


def save_checkpoint(
    model: IIR, preprocessing: Preprocessing, path: str | os.PathLike[str], description: str = ""
) -> str:
    """Write a checkpoint as float16 safetensors with its own configuration, and give the file's sha256.

    Same weights, same bytes; a WeightsError where one is NaN or infinite. The description, one line, goes with it.
    """
    tensors = {name: _stored(name, tensor) for name, tensor in model.state_dict().items()}
    config: dict[str, Any] = {"model": model.config.to_dict(), "preprocessing": preprocessing.to_dict()}
    if description:
        config["description"] = description
    written = write_safetensors(path, tensors, {FORMAT: json.dumps(config)})
    return hashlib.sha256(written.read_bytes()).hexdigest()


def _stored(name: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    if not torch.isfinite(tensor).all():
        raise WeightsError(f"{name} holds NaN or infinite values; such weights are not saved.")
    half = tensor.half()
    # What is too large for half precision stays as it is.
    return half if torch.isfinite(half).all() else tensor.float()


def _read(file: Path, pinned: WeightsEntry | None, cure: str) -> bytes:
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise WeightsError(f"{file} is not a regular file.")
            if pinned and status.st_size != pinned.size:
                raise IntegrityError(
                    f"{file}: expected {pinned.size:,} bytes, got {status.st_size:,}. "
                    f"The file was cut short or exchanged. {cure}"
                )
            if status.st_size > LARGEST_FILE:
                raise WeightsError(f"{file} has {status.st_size:,} bytes; a checkpoint has {LARGEST_FILE:,} at most.")
            return stream.read(status.st_size)
    except FileNotFoundError as error:
        raise WeightsNotFoundError(f"{file} is missing. {cure}") from error
    except OSError as error:
        if isinstance(error, IirError):
            raise
        raise WeightsError(f"{file} cannot be read: {error}.") from error


def _header(file: Path, content: bytes) -> Mapping[str, Any]:
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(_LARGEST_HEADER, len(content) - 8):
        if content[:2] == b"PK" or content[:1] == b"\x80":
            raise WeightsError(
                f"{file} looks like a pickle (.pt, .pth). Pickles can run code when opened; only safetensors are read."
            )
        raise WeightsError(f"{file} is not a safetensors file: its header claims {length:,} bytes.")
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{file} is not a safetensors file: its header cannot be read: {error}.") from error
    if not isinstance(header, dict):
        raise WeightsError(f"{file} is not a safetensors file: its header is a {type(header).__name__}.")
    return header


def _configuration(file: Path, header: Mapping[str, Any]) -> tuple[ModelConfig, Preprocessing, str]:
    stored = header.get("__metadata__")
    metadata = stored if isinstance(stored, Mapping) else {}
    if not isinstance(metadata.get(FORMAT), str):
        formats = [str(key)[:100] for key in metadata if str(key).startswith(FORMAT.rpartition("/")[0])]
        other = f" It is of format {formats[0]!r}: load it with the iir_sdk that made it." if formats else ""
        raise WeightsError(f"{file} is not a checkpoint of this package: its metadata has no {FORMAT!r}.{other}")
    try:
        config = json.loads(metadata[FORMAT])
        records = ModelConfig.from_dict(config["model"]), Preprocessing.from_dict(config["preprocessing"])
        return *records, config.get("description", "")
    except (KeyError, TypeError, json.JSONDecodeError, RecursionError) as error:
        raise WeightsError(f"{file}: its configuration cannot be read: {error!r}.") from error
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    except ValueError as error:
        # A number of thousands of digits.
        raise WeightsError(f"{file}: its configuration cannot be read: {error}.") from error


def empty_model(config: ModelConfig) -> IIR:
    """The network without memory or random numbers for weights that a file replaces; a ConfigError where none fits."""
    try:
        with torch.device("meta"):
            return IIR(config)
    except IirError:
        raise
    except Exception as error:
        # timm's thousand networks fail in ways of their own where they do not fit.
        raise ConfigError(f"no network can be built on backbone {config.backbone!r}: {error!r}.") from error


def _check_tensors(file: Path, header: Mapping[str, Any], expected: Mapping[str, Tensor]) -> None:
    stored = {name: spec for name, spec in header.items() if name != "__metadata__"}
    missing, further = sorted(set(expected) - set(stored)), sorted(set(stored) - set(expected))
    if missing or further:
        what = f"lacks {missing[0]!r}" if missing else f"holds {further[0][:100]!r}, which the architecture does not"
        raise IntegrityError(f"{file} {what}; its weights are for another architecture.")
    for name, spec in stored.items():
        wanted = expected[name]
        dtypes = _FLOATS if wanted.is_floating_point() else (_STORED_AS[wanted.dtype],)
        shape, dtype = (spec.get("shape"), spec.get("dtype")) if isinstance(spec, Mapping) else (None, None)
        if shape != list(wanted.shape):
            raise IntegrityError(f"{file}: {name} has shape {str(shape)[:100]}, expected {list(wanted.shape)}.")
        if dtype not in dtypes:
            raise IntegrityError(f"{file}: {name} has dtype {str(dtype)[:20]}, expected {' or '.join(dtypes)}.")


def filled(file: Path, model: IIR, content: bytes) -> IIR:
    """An empty network with the weights of a file's content, in evaluation mode and float32, without gradients."""
    try:
        tensors = tensors_from_bytes(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise IntegrityError(f"{file} is damaged: {error}. Get it again.") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise IntegrityError(f"{file}: {name} holds NaN or infinite values.")
    full = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    model.load_state_dict(full, assign=True)
    if any(b.is_meta for b in model.buffers()):
        # Buffers that no file stores, as some backbones have, are made only by building for real. What that takes is
        # bounded by now: every weight has been found in the file.
        model = IIR(model.config)
        model.load_state_dict(full)
    return model.requires_grad_(False).eval()


def _unpinned(
    file: Path, size: int, digest: str, model: IIR, preprocessing: Preprocessing, description: str
) -> WeightsEntry:
    stem = file.resolve().parent.name if file.name == WEIGHTS_FILE else file.stem
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:96] or "checkpoint"
    return WeightsEntry(
        name=name,
        description=description,
        filename=WEIGHTS_FILE,
        size=size,
        sha256=digest,
        min_sdk_version=iir_sdk.__version__,
        model=model.config,
        preprocessing=preprocessing,
        parameters=sum(p.numel() for p in model.parameters()),
        license=UNSTATED,
        license_note="",
        training_data=(),
        metrics=(),
    )
