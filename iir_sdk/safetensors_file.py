"""Tensors to a safetensors file, in one step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from iir_sdk.atomic_write import write_atomically


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write tensors, moved to the CPU, with text beside them.

    Raises:
        OutputError: the file cannot be written.
    """
    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    # As bytes: the library's own file writing raises an error of its own on a full disk.
    content = save(plain, dict(metadata))
    return write_atomically(path, lambda beside: beside.write_bytes(content))
