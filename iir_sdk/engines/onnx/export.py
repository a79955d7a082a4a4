"""From a checkpoint to ONNX graphs, checked against PyTorch on the demo's pictures."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from torch import Tensor, nn

from iir_sdk.demo.job import Job, read_jobs
from iir_sdk.engines.agreement import compared_leads
from iir_sdk.engines.base import Engine
from iir_sdk.engines.onnx.engine import OnnxEngine
from iir_sdk.engines.onnx.export_folder import (
    COUNTEREXAMPLE_ENCODER,
    ENCODER,
    GRAPHS,
    OPSET,
    PREDICTOR,
    SCORES_OUTPUT,
    OnnxExport,
    read_graphs,
    write_record,
)
from iir_sdk.engines.onnx.runtime import OnnxRuntime
from iir_sdk.engines.pytorch import TorchEngine
from iir_sdk.errors import ConfigError, IirError, MissingDependencyError, OutputError, WeightsError
from iir_sdk.files import made_folder, write_atomically
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.encodings import SupportState
from iir_sdk.model.iir import IIR
from iir_sdk.model.support_state import NAMES, TOKEN_AXES
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.process import unset_default_device
from iir_sdk.results.full_size import Segmented, probability_map
from iir_sdk.weights.checkpoint_file import Checkpoint
from iir_sdk.weights.entry import EXPORT_RECORD

LEAST_IOU = 0.995
LARGEST_DIFFERENCE = 1e-2
_READ = tuple(name for name in NAMES if name != "proxy_index")
_TOKENS = tuple(TOKEN_AXES)
_SHOTS = 2
# Torch keeps what it is exporting for the whole process.
_ONE_EXPORT = Lock()


class _SupportEncoder(nn.Module):
    def __init__(self, model: IIR) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, mask: Tensor, known: Tensor) -> tuple[Tensor, ...]:
        """Pictures ``(B, 3, H, W)``, masks and where they are known ``(B, 1, H, W)`` -> all tensors of their states."""
        return tuple(self.model.encode_support(image[:, None], mask, known).arrays().values())


class _CounterexampleEncoder(nn.Module):
    def __init__(self, model: IIR) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, known: Tensor) -> tuple[Tensor, ...]:
        """Pictures ``(B, 3, H, W)`` and where they do not show the object ``(B, 1, H, W)`` -> their tokens."""
        return tuple(tensor for _, tensor in self.model.encode_counterexample(image, known[:, 0]).parts())


class _QueryPredictor(nn.Module):
    def __init__(self, model: IIR) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Pictures ``(B, 3, H, W)`` and the states of as many tasks, or of one, or many tasks for one picture."""
        tensors = dict(zip(_READ, state, strict=True))
        # Which class it was matters only to Grad-CAM, which no graph can hold.
        index = torch.zeros_like(tensors["threshold"], dtype=torch.long)
        query = self.model.read_query(self.model.backbone(image))
        # One for each task: OpenVINO fuses the sum that it goes into, and then takes one query's for all of them.
        query = query._replace(detail=_for_each(query.detail, tensors["threshold"]))
        prediction = self.model.decode(query, SupportState.from_arrays({"proxy_index": index, **tensors}))
        maps = (prediction.logits, prediction.prior)
        return maps if prediction.scores is None else (*maps, prediction.scores)


def _for_each(maps: Tensor, of_tasks: Tensor) -> Tensor:
    """Maps of one query or of several, as many as there are tasks, or as queries that ask for one task."""
    pairs = torch.zeros_like(maps[:, 0, 0, 0]) + torch.ones_like(of_tasks[:, 0])
    # Counted in integers: in bfloat16 there is no 257.
    return maps.index_select(0, (pairs.long().cumsum(0) - 1) % maps.shape[0])


@unset_default_device()
def export_onnx(checkpoint: Checkpoint, folder: Path) -> OnnxExport:
    """Write the graphs of both encoders and of the query predictor, and a record of what they are.

    Batch, height and width are dynamic (sides in steps of 32 pixels), and so are labels, shots and tokens.

    Args:
        checkpoint: verified weights.
        folder: made if missing; an older export in it is replaced, once the new one has passed.

    Raises:
        ConfigError: an architecture that no graph can hold.
        MissingDependencyError: onnx or onnxruntime is not installed.
        WeightsError: the graphs do not give what PyTorch gives.
        OutputError: the folder cannot be written.
    """
    _require_onnx()
    _check_exportable(checkpoint.model.config, checkpoint.preprocessing)
    made_folder(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as beside:
            with _ONE_EXPORT:
                export = _export(checkpoint, Path(beside))
            # Without a record it is no export, until all of the new one is there.
            (folder / EXPORT_RECORD).unlink(missing_ok=True)
            for name in (*GRAPHS, EXPORT_RECORD):
                (Path(beside) / name).replace(folder / name)
    except OSError as error:
        if isinstance(error, IirError):
            raise
        raise OutputError(f"the export cannot be written to {str(folder)!r}: {error}.") from error
    return export


def _export(checkpoint: Checkpoint, folder: Path) -> OnnxExport:
    torch_engine = TorchEngine(checkpoint, device="cpu")
    model, side = torch_engine.model, checkpoint.preprocessing
    image, mask = torch.rand(2, 3, side.support_size, side.support_size), torch.zeros(2, 1, *[side.support_size] * 2)
    mask[:, :, : side.support_size // 2] = 1
    support = (image, mask, torch.ones_like(mask))
    with torch.inference_mode():
        state = model.encode_support(image[:, None], *support[1:])
    _write(folder / ENCODER, _SupportEncoder(model), support, ("image", "mask", "known"), NAMES)
    _write(folder / COUNTEREXAMPLE_ENCODER, _CounterexampleEncoder(model), (image, mask), ("image", "known"), _TOKENS)
    query = torch.rand(2, 3, side.size, side.size)
    outs = ("logits", "prior", SCORES_OUTPUT) if model.config.presence else ("logits", "prior")
    _write(folder / PREDICTOR, _QueryPredictor(model), (query, *_example(state)), ("image", *_READ), outs)
    export = OnnxExport(checkpoint.entry, read_graphs(folder), compared_leads(torch_engine))
    write_record(folder, export, compare(torch_engine, OnnxEngine(export, OnnxRuntime())))
    return export


def compare(first: Engine, second: Engine) -> dict[str, float]:
    """Least mask IoU and largest difference of the probability between two engines, over the demo's pictures.

    Each by its support alone, and by that with the job before's support as a counterexample. A WeightsError where they
    differ by more than rounding: IoU below 0.995, or a difference above 0.01.
    """
    least, largest = 1.0, 0.0
    jobs = read_jobs()
    for before, job in zip((jobs[-1], *jobs), jobs, strict=False):
        size = load_picture(job.query).size
        for a, b in zip(_segmented_twice(first, job, before), _segmented_twice(second, job, before), strict=True):
            one, other = (probability_map(segmented.leads[0], size) for segmented in (a, b))
            union = ((one > 0.5) | (other > 0.5)).sum()
            least = min(least, float(((one > 0.5) & (other > 0.5)).sum() / union) if union else 1.0)
            largest = max(largest, float(np.abs(one - other).max()))
            if a.scores is not None and b.scores is not None:
                largest = max(largest, float(np.abs(a.scores - b.scores).max()))
    if least < LEAST_IOU or largest > LARGEST_DIFFERENCE:
        raise WeightsError(
            f"the exported graphs differ from PyTorch: mask IoU {least:.4f} (at least {LEAST_IOU} expected), "
            f"probability by {largest:.4f} (at most {LARGEST_DIFFERENCE}). Nothing was kept of them."
        )
    return {"mask_iou": round(least, 5), "probability_difference": round(largest, 6)}


def _segmented_twice(engine: Engine, job: Job, counterexample: Job) -> list[Segmented]:
    """A job's query by its support, and by that beside another job's picture as a counterexample."""
    support, other = load_picture(job.support), load_picture(counterexample.support)
    state = engine.encode(support.pixels, load_mask(job.support_mask, support) == 1)
    tokens = engine.encode_counterexample(other.pixels, np.ones(other.size, np.bool_))
    query = load_picture(job.query).pixels
    return [engine.segment([query], engine.prepare([task]))[0][0] for task in (state, state.beside([tokens]))]


def _write(
    path: Path, module: nn.Module, inputs: tuple[Tensor, ...], names: Sequence[str], outs: Sequence[str]
) -> None:
    axes = {name: _dynamic(name) for name in (*names, *outs)}

    def write(beside: Path) -> None:
        """Fill a file with the graph."""
        torch.onnx.export(
            module.eval(),
            inputs,
            str(beside),
            input_names=list(names),
            output_names=list(outs),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )

    with warnings.catch_warnings(), torch.no_grad():
        # Tracing says of every constant that it is one, and of itself that it is the older of two exporters.
        warnings.simplefilter("ignore")
        try:
            write_atomically(path, write)
        except RuntimeError as error:
            # Its exporter's errors, of what it has no operator for, are of this kind.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"torch {torch.__version__} cannot export this network: {reason}") from error


def _dynamic(name: str) -> dict[int, str]:
    if name in ("image", "mask", "known", "logits", "prior"):
        return {0: "pairs" if name in ("logits", "prior") else "batch", 2: f"{name}_height", 3: f"{name}_width"}
    if name == SCORES_OUTPUT:
        return {0: "pairs"}
    if name in TOKEN_AXES:
        shots = {1: "shots"} if name.endswith("_mass") else {}
        return {0: "tasks", **shots, TOKEN_AXES[name]: "tokens"}
    return {0: "tasks", 1: "counterexamples" if name == "against" else "shots"}


def _example(state: SupportState) -> list[Tensor]:
    """A state of two tasks with two shots each, so that tracing takes no size of 1 for a constant."""
    doubled = state.map(lambda tensor: torch.cat([tensor, tensor])).regroup(2, _SHOTS).arrays()
    return [doubled[name] for name in _READ]


def _check_exportable(config: ModelConfig, sides: Preprocessing) -> None:
    if config.cam != "closed_form":
        raise ConfigError(f"cam={config.cam!r} needs gradients, which no ONNX graph has; only 'closed_form' has none.")
    if config.base_classes:
        raise ConfigError(f"base_classes={config.base_classes}: a network with a base learner cannot be exported.")
    if sides.size % 32 or sides.support_size % 32:
        raise ConfigError(
            f"size={sides.size}, support_size={sides.support_size}: only multiples of 32 pixels can be exported."
        )


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"exporting needs {error.name}. Install it: pip install 'iir-sdk[onnx]'"
        ) from error
