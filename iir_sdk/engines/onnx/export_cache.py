"""From what a user names to an engine on exported graphs: an export on disk, one kept from before, or a new one."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from huggingface_hub import cached_assets_path

import iir_sdk
from iir_sdk.engines.agreement import agreement, compared_leads, digest, disagreement
from iir_sdk.engines.onnx.engine import OnnxEngine
from iir_sdk.engines.onnx.export_folder import OnnxExport, is_export, read_export
from iir_sdk.engines.onnx.runtime import GraphRuntime
from iir_sdk.errors import IirError, IirWarning, OutputError, PrecisionError
from iir_sdk.weights.entry import check_same
from iir_sdk.weights.hub import HubOptions
from iir_sdk.weights.manifest import DEFAULT, known_weights

if TYPE_CHECKING:
    from iir_sdk.weights.checkpoint_file import Checkpoint


def open_onnx(
    weights: str | os.PathLike[str] | Checkpoint | None, options: HubOptions, runtime: GraphRuntime
) -> OnnxEngine:
    """An engine for a folder that ``iir-sdk export onnx`` wrote, or for a checkpoint, exported at its first use.

    Exports are kept among the Hub client's cached assets; torch is imported only to make one.
    """
    name = DEFAULT if weights is None else weights
    entry = known_weights().get(name) if isinstance(name, str) else None
    if entry is None and isinstance(weights, (str, os.PathLike)) and is_export(Path(weights)):
        return opened(read_export(Path(weights)), runtime)
    if entry is not None and entry.embedded and not options.ask_for_the_hub:
        cached = _cached(entry.sha256)
        if cached is not None:
            return _named(cached, runtime)
    from iir_sdk.weights.checkpoint_file import Checkpoint
    from iir_sdk.weights.resolve import load_checkpoint
    from iir_sdk.weights.saving import unchanged_bytes

    if isinstance(weights, Checkpoint):
        checkpoint, as_loaded = weights, unchanged_bytes(weights) is not None
    else:
        checkpoint, as_loaded = load_checkpoint(weights, options), True
    if not as_loaded:
        from iir_sdk.engines.onnx.export import export_onnx

        # Its network is not what the sha256 says, or nobody can tell any more: an export for this engine alone.
        with tempfile.TemporaryDirectory(prefix="iir_sdk-") as scratch:
            return opened(export_onnx(checkpoint, Path(scratch)), runtime)
    return _named(_cached(checkpoint.sha256) or _export_into_cache(checkpoint), runtime)


def _named(export: OnnxExport, runtime: GraphRuntime) -> OnnxEngine:
    """On graphs that any process finds or makes by the name of their weights, if the package embeds those."""
    entry = export.entry
    again = partial(embedded_again, entry.name, entry.sha256, runtime) if entry.embedded else None
    return opened(export, runtime, again)


def opened(export: OnnxExport, runtime: GraphRuntime, again: Callable[[], OnnxEngine] | None = None) -> OnnxEngine:
    """An engine that gives the masks PyTorch gave when the graphs were made, to within rounding; or a PrecisionError.

    Compared when first opened on a machine. Where they differ and the precision was left to choose, float32 is taken,
    with a warning. ``again`` is what a pickle calls; None for pickles that carry the graphs.
    """
    again = again or partial(opened, export, runtime)
    compared: list[OnnxEngine] = []

    def measure() -> float:
        compared.append(OnnxEngine(export, runtime, opened_again=again))
        return agreement(compared_leads(compared[0]), export.expected)

    wrong, plain = disagreement(_compared_by(export, runtime), measure), runtime.fallback()
    if wrong is None:
        return compared[0] if compared else OnnxEngine(export, runtime, opened_again=again)
    if plain is not None:
        warnings.warn(f"{wrong}. float32 is taken instead.", IirWarning, stacklevel=2)
        return opened(export, plain, again)
    cure = "backend='torch'" if runtime.precision == "float32" else "dtype=None for float32"
    raise PrecisionError(f"{wrong}; use {cure}.")


def _compared_by(export: OnnxExport, runtime: GraphRuntime) -> dict[str, str]:
    """What the comparison depends on."""
    return {
        "backend": runtime.name,
        "version": runtime.version,
        "precision": runtime.precision,
        "graphs": digest(*export.graphs.values()),
        "expected": digest(*(lead.tobytes() for lead in export.expected.values())),
        "preprocessing": str(export.entry.preprocessing),
    }


def embedded_again(name: str, sha256: str, runtime: GraphRuntime) -> OnnxEngine:
    """An engine for embedded weights, in another process; an IntegrityError where that embeds others by the name."""
    engine = open_onnx(name, HubOptions(), runtime)
    check_same(name, sha256, engine.identity.sha256)
    return engine


def _place(sha256: str) -> Path:
    try:
        return cached_assets_path("iir_sdk", namespace=f"onnx-{iir_sdk.__version__}", subfolder=sha256)
    except ValueError as error:
        raise _no_cache(error) from error


def _cached(sha256: str) -> OnnxExport | None:
    try:
        folder = _place(sha256) / "graphs"
        export = read_export(folder) if is_export(folder) else None
    except (IirError, OSError):
        # Damaged or unreadable: it is made anew.
        return None
    return export if export is not None and export.entry.sha256 == sha256 else None


def _export_into_cache(checkpoint: Checkpoint) -> OnnxExport:
    """A new export, put among the cached ones; by one thread of one process at a time."""
    from iir_sdk.engines.onnx.export import export_onnx

    try:
        place = _place(checkpoint.sha256)
        with FileLock(place / "lock"), tempfile.TemporaryDirectory(dir=place) as beside:
            by_another = _cached(checkpoint.sha256)
            if by_another is not None:
                return by_another
            written, target = Path(beside) / "graphs", place / "graphs"
            export = export_onnx(checkpoint, written)
            if target.exists():
                # Damaged, or of another version: set aside with what is removed here.
                target.rename(Path(beside) / "old")
            written.rename(target)
            return export
    except OSError as error:
        if isinstance(error, IirError):
            raise
        raise _no_cache(error) from error


def _no_cache(error: Exception) -> OutputError:
    return OutputError(
        f"the exported graphs cannot be kept: {error}. Export them to a folder of your own and load that: "
        "iir-sdk export onnx --out FOLDER"
    )
