"""Checkpoints out: a folder with weights, configuration and card, the same on the Hub, and pickles.

A pickle has embedded weights by their name, others as the bytes of a safetensors file. Never as torch's tensors: those
name modules that a fresh process cannot import as they are, and between processes each tensor holds a file descriptor.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save
from torch import Tensor

import iir_sdk
from iir_sdk.errors import WeightsError
from iir_sdk.files import made_folder, write_atomically, write_text_atomically
from iir_sdk.process import unset_default_device
from iir_sdk.weights.checkpoint_file import (
    WEIGHTS_FILE,
    Check,
    Checkpoint,
    empty_model,
    filled,
    read_checkpoint,
    save_checkpoint,
)
from iir_sdk.weights.entry import REPO_ID, UNSTATED, WeightsEntry, check_same
from iir_sdk.weights.hub import HubOptions, fetch, upload
from iir_sdk.weights.manifest import read_manifest, write_entry
from iir_sdk.weights.model_card import model_card
from iir_sdk.weights.resolve import CONFIG_FILE, load_checkpoint

CARD_FILE = "README.md"


def described(
    entry: WeightsEntry,
    name: str | None = None,
    description: str | None = None,
    license: str | None = None,
    training_data: Sequence[str] | None = None,
) -> WeightsEntry:
    """An entry with other words; None keeps what it says."""
    if isinstance(training_data, str):
        raise WeightsError(f"training_data={training_data!r} is one string; pass a list of names.")
    given = {"name": name, "description": description, "license": license}
    changes: dict[str, object] = {k: v for k, v in given.items() if v is not None}
    if training_data is not None:
        changes["training_data"] = tuple(training_data)
    if license is not None and license != entry.license:
        changes["license_note"] = ""
    return replace(entry, **changes)  # type: ignore[arg-type]


def save_folder(checkpoint: Checkpoint, folder: str | os.PathLike[str], *, repo_id: str | None = None) -> WeightsEntry:
    """Write weights, card and configuration, the configuration last since it states the others' sha256.

    Weights that were not changed get the bytes and sha256 that they came with. The card's example loads ``repo_id``,
    else the folder. Gives the entry with the size and sha256 of the written file.
    """
    target = made_folder(folder)
    file = target / WEIGHTS_FILE
    original = unchanged_bytes(checkpoint)
    if original is None:
        digest = save_checkpoint(checkpoint.model, checkpoint.preprocessing, file)
    else:
        digest = checkpoint.sha256
        write_atomically(file, lambda beside: beside.write_bytes(original))
    unchanged = digest == checkpoint.sha256
    entry = replace(
        checkpoint.entry,
        filename=WEIGHTS_FILE,
        size=file.stat().st_size,
        sha256=digest,
        min_sdk_version=checkpoint.entry.min_sdk_version if unchanged else iir_sdk.__version__,
        model=checkpoint.model.config,
        # Scores of other weights would be nobody's.
        metrics=checkpoint.entry.metrics if unchanged else (),
        parameters=sum(p.numel() for p in checkpoint.model.parameters()),
        embedded=False,
        published=False,
        repo_id=None,
        revision=None,
    )
    write_text_atomically(target / CARD_FILE, model_card(entry, repo_id or target.resolve().name))
    write_text_atomically(target / CONFIG_FILE, json.dumps(entry.to_config(), indent=2, ensure_ascii=False) + "\n")
    return entry


def unchanged_bytes(checkpoint: Checkpoint) -> bytes | None:
    """The file that a checkpoint was read from, if its network still has the file's weights; else None.

    Saving anew could give other bytes, by another version, and so another sha256 to the same weights.
    """
    try:
        content = checkpoint.file.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest() != checkpoint.sha256:
        return None
    stored, current = tensors_from_bytes(content), checkpoint.model.state_dict()
    if stored.keys() != current.keys():
        return None
    return content if all(torch.equal(stored[n].to(t.dtype), t.cpu()) for n, t in current.items()) else None


def publish_checkpoint(
    checkpoint: Checkpoint, repo_id: str, *, token: str | bool | None, private: bool | None, message: str
) -> WeightsEntry:
    """Upload a checkpoint as :func:`save_folder` writes it, fetch it back at its commit, and verify that copy.

    Gives its entry, pinned to the commit; a WeightsError where no licence is stated, or repo_id is no ``owner/name``.
    """
    if not REPO_ID.fullmatch(repo_id):
        raise WeightsError(f"repo_id={repo_id!r} must be owner/name, as in 'me/my-weights'.")
    if checkpoint.entry.license == UNSTATED:
        raise WeightsError(
            f"checkpoint {checkpoint.name!r} states no licence, and what is published needs one: "
            "pass license='CC-BY-4.0' or whichever SPDX identifier holds."
        )
    with tempfile.TemporaryDirectory(prefix="iir_sdk-") as scratch:
        folder = Path(scratch) / "upload"
        entry = save_folder(checkpoint, folder, repo_id=repo_id)
        # Before anyone can see it.
        read_checkpoint(folder / entry.filename, entry, cure="")
        commit = upload(folder, repo_id, token=token, private=private, message=message)
        options = HubOptions(revision=commit, token=token, cache_dir=Path(scratch) / "cache")
        published = replace(entry, published=True, repo_id=repo_id, revision=commit)
        fetch(repo_id, entry.filename, options, partial(read_checkpoint, pinned=published, cure="Publish it again."))
    return published


def publish_and_pin(
    checkpoint: Checkpoint, repo_id: str, manifest: Path, *, token: str | bool | None, private: bool | None
) -> WeightsEntry:
    """Publish a checkpoint, and write commit, size and sha256 into a manifest; not over others that are embedded."""
    before = read_manifest(manifest).get(checkpoint.name) if manifest.exists() else None
    embedded = before is not None and before.embedded
    if before and embedded and before.sha256 != checkpoint.sha256:
        raise WeightsError(
            f"{manifest} has {checkpoint.name!r} for the embedded weights {before.sha256[:12]}..., these are "
            f"{checkpoint.sha256[:12]}...; publish them under another name: --name"
        )
    message = f"Publish {checkpoint.name}"
    entry = publish_checkpoint(checkpoint, repo_id, token=token, private=private, message=message)
    entry = replace(entry, embedded=embedded)
    write_entry(manifest, entry)
    return entry


@dataclass(frozen=True)
class EmbeddedWeights:
    """Weights that travel with the package, by their name and their file's sha256."""

    name: str
    sha256: str

    def unpacked(self) -> Checkpoint:
        """The weights, loaded and verified; an IntegrityError where this version of the package embeds others."""
        checkpoint = load_checkpoint(self.name)
        check_same(self.name, self.sha256, checkpoint.sha256)
        return checkpoint


@dataclass(frozen=True)
class CarriedWeights:
    """Weights that nobody else has: the checkpoint's entry, file and checks, and its content as safetensors."""

    entry: WeightsEntry
    file: Path
    checks: tuple[Check, ...]
    content: bytes

    @unset_default_device()
    def unpacked(self) -> Checkpoint:
        """The checkpoint."""
        model = filled(self.file, empty_model(self.entry.model), self.content)
        return Checkpoint(self.entry, model, self.file, self.checks)


PackedWeights: TypeAlias = EmbeddedWeights | CarriedWeights


def packed(checkpoint: Checkpoint) -> PackedWeights:
    """A checkpoint on its way to another process: its name where the package embeds it unchanged, else its weights."""
    if checkpoint.entry.embedded and unchanged_bytes(checkpoint) is not None:
        return EmbeddedWeights(checkpoint.name, checkpoint.sha256)
    tensors = {name: _compact(tensor) for name, tensor in checkpoint.model.state_dict().items()}
    return CarriedWeights(checkpoint.entry, checkpoint.file, checkpoint.checks, save(tensors))


def _compact(tensor: Tensor) -> Tensor:
    """In half precision where that changes nothing, as with weights that came from a file."""
    plain = tensor.detach().cpu().contiguous()
    half = plain.half() if plain.is_floating_point() else plain
    return half if torch.equal(half.to(plain.dtype), plain) else plain
