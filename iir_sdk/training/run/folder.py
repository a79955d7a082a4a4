"""The folder of a training run: recipe, data list, log, checkpoints, curve; everything written beside and renamed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from iir_sdk.errors import ConfigError, needed_imports
from iir_sdk.files import made_folder, write_atomically, write_text_atomically
from iir_sdk.training.config import TrainingConfig

LAST, BEST = "last.pt", "best.pt"


class RunFolder:
    """Keeps a run and what it is made of; where it does not write, as in all processes but one, it only reads."""

    def __init__(self, path: Path, config: TrainingConfig, contents: Mapping[str, Any], *, writes: bool = True) -> None:
        self.path, self.config, self.contents, self.writes = path, config, contents, writes
        if writes:
            made_folder(path)

    def open(self, *, resume: bool, device: torch.device) -> dict[str, Any] | None:
        """The state to go on from, None for a fresh run; a ConfigError for another's, or any without ``resume``."""
        state = None
        if (self.path / LAST).exists():
            if not resume:
                raise ConfigError(f"{self.path} holds a run; pass --resume to go on with it, or name another folder.")
            self._check_same()
            state = torch.load(self.path / LAST, map_location=device, weights_only=True)
        if self.writes:
            self._write("recipe.json", json.dumps(self.config.to_dict(), indent=2))
            self._write("data.json", json.dumps(self.contents, indent=1))
        return state

    def _check_same(self) -> None:
        # Through JSON, which has lists where the records have tuples.
        contents = json.loads(json.dumps(self.contents))
        for name, same in (("recipe", self.config.is_kept_as), ("data", lambda written: written == contents)):
            file = self.path / f"{name}.json"
            if file.exists() and not same(json.loads(file.read_text(encoding="utf-8"))):
                raise ConfigError(
                    f"{file} differs from the given {name}; resume with the same, or name another folder."
                )

    def save(self, name: str, state: Mapping[str, Any], *, always: bool = False) -> None:
        """Write tensors and numbers to a file of the folder in one step; ``always``: from any process."""
        if self.writes or always:
            write_atomically(self.path / name, lambda beside: torch.save(dict(state), beside))

    def log(self, line: Mapping[str, float | int]) -> None:
        """Add a line to ``log.jsonl``."""
        if self.writes:
            with (self.path / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")

    def lines(self) -> list[dict[str, float]]:
        """The log; of a step that was logged twice, as after a stop, the later line."""
        file = self.path / "log.jsonl"
        if not file.exists():
            return []
        of_step: dict[tuple[int, bool], dict[str, float]] = {}
        for text in file.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            of_step[int(line["step"]), "validation_miou" in line] = line
        return [of_step[key] for key in sorted(of_step)]

    def _write(self, name: str, text: str) -> None:
        write_text_atomically(self.path / name, text + "\n")


def require_matplotlib() -> Any:
    """Matplotlib's figures, drawn without a screen; a MissingDependencyError without it."""
    with needed_imports("curves are drawn by matplotlib; run: pip install 'iir-sdk[train]'"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

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
