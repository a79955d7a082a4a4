"""Draws a run's log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iir_sdk.errors import MissingDependencyError
from iir_sdk.files import write_atomically


def require_matplotlib() -> Any:
    """Matplotlib's figures, drawn without a screen; a MissingDependencyError without it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("curves are drawn by matplotlib; run: pip install 'iir-sdk[train]'") from error

    def figure(**settings: Any) -> Any:
        made = Figure(**settings)
        FigureCanvasAgg(made)
        return made

    return figure


def draw_curve(lines: Sequence[dict[str, float]], path: Path) -> Path:
    """Loss, IoU and learning rate over the steps of ``log.jsonl``, and the validations if there were any, as a PNG."""
    figure = require_matplotlib()(figsize=(9, 4.5), layout="constrained")
    loss, iou = figure.subplots(1, 2)
    training = [line for line in lines if "loss" in line]
    steps = [line["step"] for line in training]
    loss.plot(steps, [line["loss"] for line in training], color="tab:blue")
    loss.set(xlabel="step", ylabel="loss", title="loss")
    rate = loss.twinx()
    rate.plot(steps, [line["lr"] for line in training], color="tab:grey", linestyle=":")
    rate.set_ylabel("learning rate (dotted)")
    iou.plot(steps, [line["iou"] for line in training], color="tab:orange", label="training batches")
    validations = [line for line in lines if "validation_miou" in line]
    if validations:
        places = [line["step"] for line in validations]
        iou.plot(places, [line["validation_miou"] for line in validations], "o-", color="tab:green", label="validation")
    iou.set(xlabel="step", ylabel="IoU", title="foreground IoU")
    iou.legend()
    return write_atomically(path, lambda beside: figure.savefig(beside, dpi=110, format="png"))
