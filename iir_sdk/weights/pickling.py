"""Checkpoints as pickles: embedded weights by their name, others as the bytes of a safetensors file.

Never as torch's tensors: those name modules that a fresh process cannot import as they are, and between processes each
tensor holds a file descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors.torch import save
from torch import Tensor

from iir_sdk.process import unset_default_device
from iir_sdk.weights.checkpoint_file import Check, Checkpoint, empty_model, filled
from iir_sdk.weights.entry import WeightsEntry, check_same
from iir_sdk.weights.resolve import load_checkpoint
from iir_sdk.weights.saving import unchanged_bytes


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
