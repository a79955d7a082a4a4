"""Opens PyTorch engines whose lower precision was compared with float32."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from safetensors.torch import save

from iir_sdk.engines.agreement import LEAST_AGREEMENT, agreement, agreement_once, compared_leads, digest, disagreement
from iir_sdk.engines.pytorch import Precision, TorchEngine
from iir_sdk.errors import IirWarning, PrecisionError
from iir_sdk.weights.checkpoint_file import Checkpoint
from iir_sdk.weights.pickling import EmbeddedWeights, PackedWeights


def open_torch(
    checkpoint: Checkpoint, *, device: str | torch.device, dtype: Precision, threads: int | None, just_loaded: bool
) -> TorchEngine:
    """An engine that gives the masks of float32, to within rounding; arguments as :class:`TorchEngine`'s.

    Compared when first opened on a machine. Where they differ and the precision was left to choose, float32 is taken,
    with a warning. ``just_loaded`` says that nobody can have changed the weights since they were read.

    Raises:
        PrecisionError: they differ; further as :class:`TorchEngine` raises.
    """
    engine = TorchEngine(checkpoint, device=device, dtype=dtype, threads=threads, opened_again=_opened_again)
    if engine.dtype == torch.float32:
        return engine
    plain = engine.in_float32()
    weights = engine.sha256 if just_loaded else _digest_of(engine)
    value = agreement_once(_identity(engine, weights), lambda: agreement(compared_leads(engine), compared_leads(plain)))
    if value >= LEAST_AGREEMENT:
        return engine
    wrong = disagreement("torch", torch.__version__, engine.precision, value)
    if dtype == "auto":
        warnings.warn(f"{wrong}. float32 is taken instead.", IirWarning, stacklevel=2)
        return plain
    raise PrecisionError(f"{wrong}; use dtype=None for float32.")


def _opened_again(weights: PackedWeights, opened_with: dict[str, Any]) -> TorchEngine:
    return open_torch(weights.unpacked(), **opened_with, just_loaded=isinstance(weights, EmbeddedWeights))


def _digest_of(engine: TorchEngine) -> str:
    """Of the network as it is now, which need not be that of the checkpoint's file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in engine.model.state_dict().items()}
    return digest(str(engine.model.config).encode(), save(tensors))


def _identity(engine: TorchEngine, weights: str) -> dict[str, str]:
    """What the comparison depends on; ``weights`` tell the network from others."""
    device = engine.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "backend": "torch",
        "version": torch.__version__,
        "precision": engine.precision,
        "device": name,
        "weights": weights,
        "preprocessing": str(engine.preprocessing),
    }
