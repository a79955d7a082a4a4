"""From what a user names to the engine that runs it."""

from __future__ import annotations

import os
from numbers import Integral
from typing import TYPE_CHECKING

from iir_sdk.engines.base import Backend, Engine
from iir_sdk.errors import ConfigError
from iir_sdk.weights.hub import HubOptions

if TYPE_CHECKING:
    import torch

    from iir_sdk.engines.devices import Precision
    from iir_sdk.engines.onnx.runtime import GraphRuntime
    from iir_sdk.weights.checkpoint_file import Checkpoint


def open_engine(
    weights: str | os.PathLike[str] | Checkpoint | None,
    options: HubOptions,
    *,
    device: str | torch.device,
    dtype: Precision,
    backend: Backend,
    threads: int | None = None,
) -> Engine:
    """Load a checkpoint into the engine of a backend; arguments and errors as :class:`iir_sdk.FewShotSegmenter`'s."""
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, Integral) or threads < 1):
        raise ConfigError(f"threads={threads!r} must be None or an integer of at least 1.")
    count = None if threads is None else int(threads)
    if backend in ("onnxruntime", "openvino"):
        from iir_sdk.engines.onnx.export_cache import open_onnx

        return open_onnx(weights, options, _graph_runtime(backend, device, dtype, count))
    if backend != "torch":
        raise ConfigError(f"backend={backend!r} must be 'torch', 'onnxruntime' or 'openvino'.")
    from iir_sdk.engines.pytorch import open_torch
    from iir_sdk.weights.checkpoint_file import Checkpoint
    from iir_sdk.weights.resolve import load_checkpoint

    handed_in = isinstance(weights, Checkpoint)
    checkpoint = weights if isinstance(weights, Checkpoint) else load_checkpoint(weights, options)
    return open_torch(checkpoint, device=device, dtype=dtype, threads=count, just_loaded=not handed_in)


def _graph_runtime(backend: Backend, device: str | torch.device, dtype: Precision, threads: int | None) -> GraphRuntime:
    from iir_sdk.engines.onnx.runtime import OnnxRuntime, OpenVino

    wanted = None if dtype is None else str(dtype).removeprefix("torch.")
    known = (None, "auto", "float32") if backend == "onnxruntime" else (None, "auto", "float32", "bfloat16")
    if str(device) not in ("auto", "cpu") or wanted not in known:
        also = "" if backend == "onnxruntime" else " or bfloat16"
        raise ConfigError(
            f"device={str(device)!r}, dtype={str(dtype)!r}: backend={backend!r} runs on the CPU in float32{also}."
        )
    return OnnxRuntime(threads) if backend == "onnxruntime" else OpenVino(wanted, threads)
