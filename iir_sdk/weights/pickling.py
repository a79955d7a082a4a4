"""Checkpoints as pickles: embedded weights by their name, others as the bytes of a safetensors file.

Never as torch's tensors: those name modules that a fresh process cannot import as they are, and between processes each
tensor holds a file descriptor.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from iir_sdk.errors import IntegrityError
from iir_sdk.torch_settings import unset_default_device
from iir_sdk.weights.checkpoint_file import Check, Checkpoint, empty_model, filled
from iir_sdk.weights.entry import WeightsEntry
from iir_sdk.weights.resolve import load_checkpoint
from iir_sdk.weights.saving import unchanged_bytes

Reduced = tuple[Callable[..., Checkpoint], tuple[object, ...]]


def reduced(checkpoint: Checkpoint) -> Reduced:
    """What makes the checkpoint again, as ``__reduce__`` gives it."""
    if checkpoint.entry.embedded and unchanged_bytes(checkpoint) is not None:
        return embedded_again, (checkpoint.name, checkpoint.sha256)
    tensors = {name: _compact(tensor) for name, tensor in checkpoint.model.state_dict().items()}
    return from_bytes, (checkpoint.entry, checkpoint.file, checkpoint.checks, save(tensors))


def embedded_again(name: str, sha256: str) -> Checkpoint:
    """Embedded weights.

    Raises:
        IntegrityError: this version of the package embeds others under that name.
    """
    checkpoint = load_checkpoint(name)
    if checkpoint.sha256 != sha256:
        raise IntegrityError(
            f"this was pickled with weights {name!r} of sha256 {sha256[:12]}..., but those of this version of the "
            f"package have {checkpoint.sha256[:12]}...; pickle and unpickle with one version."
        )
    return checkpoint


@unset_default_device()
def from_bytes(entry: WeightsEntry, file: Path, checks: tuple[Check, ...], content: bytes) -> Checkpoint:
    """A checkpoint with the weights of a safetensors file's content."""
    return Checkpoint(entry, filled(file, empty_model(entry.model), content), file, checks)


def _compact(tensor: Tensor) -> Tensor:
    """In half precision where that changes nothing, as with weights that came from a file."""
    plain = tensor.detach().cpu().contiguous()
    half = plain.half() if plain.is_floating_point() else plain
    return half if torch.equal(half.to(plain.dtype), plain) else plain
