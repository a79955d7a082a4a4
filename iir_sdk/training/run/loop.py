"""The training loop: steps, schedule, weight average, validation, checkpoints and a log, on one process or several."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from iir_sdk.errors import TrainingError
from iir_sdk.model.iir import IIR
from iir_sdk.training.bank.regions import require_clustering
from iir_sdk.training.config import TrainingConfig
from iir_sdk.training.run.folder import BEST, LAST, RunFolder, draw_curve, require_matplotlib
from iir_sdk.training.run.optimisation import autocast, build_average, build_optimizer, build_schedule
from iir_sdk.training.run.processes import Processes
from iir_sdk.training.run.step import EpisodeBatch, TrainingStep, batch_iou
from iir_sdk.training.sources import EpisodeSource
from iir_sdk.weights.checkpoint_file import save_checkpoint

Validate = Callable[[IIR], float]
"""Scores a model, in [0, 1]."""


class Trainer:
    """Trains a decoder in a folder that it can be resumed from.

    Args:
        model: with its backbone's weights loaded.
        source: of the episodes.
        config: the recipe.
        folder: receives ``recipe.json``, ``data.json``, ``log.jsonl``, ``last.pt``, ``best.pt``, ``curve.png`` and
            ``model.safetensors``.
        device: to train on.
        processes: of the run.
        validate: scores the averaged weights every ``validate_every`` steps.
        parts: sha256 of the files that parts of the network came from; a run is resumed with the same ones only.
        description: one line on the trained weights that the run starts from; None where the decoder is new.
    """

    def __init__(
        self,
        model: IIR,
        source: EpisodeSource,
        config: TrainingConfig,
        folder: Path,
        *,
        device: torch.device,
        processes: Processes | None = None,
        validate: Validate | None = None,
        parts: Mapping[str, str] | None = None,
        description: str | None = None,
    ) -> None:
        self.model, self.source, self.config, self.device = model.to(device), source, config, device
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.processes, self.validate, self.description = processes or Processes(), validate, description
        contents = {**source.contents(), "processes": self.processes.count, "parts": dict(parts or {})}
        self.folder = RunFolder(folder, config, contents, writes=self.processes.first)
        self.average = build_average(model.decoder, config)
        self.optimizer = build_optimizer(model.decoder, config)
        self.schedule = build_schedule(self.optimizer, config, source.steps)
        self.step, self.best = 0, -1.0
        self._stateful: dict[str, Any] = {"decoder": model.decoder, "average": self.average}
        self._stateful |= {"optimizer": self.optimizer, "schedule": self.schedule}
        step = TrainingStep(model, config)
        several = self.processes.count > 1
        # Some parameters, such as the shots' scale with one shot, get no gradient at every step.
        self._module: nn.Module = DistributedDataParallel(step, find_unused_parameters=True) if several else step

    def run(self, *, resume: bool = False) -> None:
        """Train to the last step; a run that was finished before only draws its curve again.

        Raises:
            ConfigError: the folder holds a run of another recipe or other data, or one already and ``resume`` is off.
            MissingDependencyError: matplotlib is not installed, or scipy for the recipe's regions.
            TrainingError: the loss is not a number; the batch is in the folder.
        """
        require_matplotlib()
        if self.config.episodes.ask_for_regions:
            require_clustering()
        state = self.folder.open(resume=resume, device=self.device)
        if state is not None:
            for name, part in self._stateful.items():
                part.load_state_dict(state[name])
            self.step, self.best = state["step"], state["best"]
        if self.step < self.source.steps:
            self._train()
        if self.processes.first and self.folder.lines():
            draw_curve(self.folder.lines(), self.folder.path / "curve.png")
        self.processes.wait()

    def export(self) -> Path:
        """Write the best validated weights, else the averaged ones, as ``model.safetensors`` in the run's folder."""
        path = self.folder.path / "model.safetensors"
        if self.processes.first:
            model = self._averaged()
            if (self.folder.path / BEST).exists():
                best = torch.load(self.folder.path / BEST, map_location=self.device, weights_only=True)
                model.decoder.load_state_dict(best["decoder"])
            save_checkpoint(model, self.config.preprocessing, path, self.description or "")
        self.processes.wait()
        return path

    def _train(self) -> None:
        self.model.train()
        started, losses, ious = time.perf_counter(), [], []
        bar = tqdm(total=self.source.steps, initial=self.step, desc="train", disable=not self.processes.first)
        for batches in self.source.batches(self.step):
            loss, iou = self._one_step(batches)
            losses.append(loss)
            ious.append(iou)
            bar.update()
            if self.step % self.config.run.log_every == 0:
                self._log(losses, ious, time.perf_counter() - started)
                losses, ious = [], []
            last = self.step == self.source.steps
            if self.config.run.validate_every and (self.step % self.config.run.validate_every == 0 or last):
                self._validate()
            if self.step % self.config.run.save_every == 0 or last:
                states = {name: part.state_dict() for name, part in self._stateful.items()}
                self.folder.save(LAST, states | {"step": self.step, "best": self.best})
        bar.close()

    def _one_step(self, batches: list[EpisodeBatch]) -> tuple[float, float]:
        # Dropout is drawn anew for each step and process, so that a resumed run draws as one that never stopped.
        torch.manual_seed((self.config.seed * 1_000_003 + self.step) * 1009 + self.processes.rank)
        self.optimizer.zero_grad(set_to_none=True)
        losses, ious = [], []
        for i, batch in enumerate(batches):
            # Gradients travel between processes with the last of a step's batches.
            waits = i + 1 < len(batches) and isinstance(self._module, DistributedDataParallel)
            with self._module.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with autocast(self.config, self.device):
                    loss, logits = self._module(batch)
                self._check_finite(loss, batch)
                (loss / len(batches)).backward()
            losses.append(float(loss.detach()))
            ious.append(batch_iou(logits.detach(), batch.target))
        nn.utils.clip_grad_norm_(self.model.decoder.parameters(), self.config.optimiser.gradient_clip)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model.decoder)
        self.step += 1
        return sum(losses) / len(losses), sum(ious) / len(ious)

    def _check_finite(self, loss: Tensor, batch: EpisodeBatch) -> None:
        if math.isfinite(float(loss.detach())):
            return
        state = {"batch": batch.tensors(), "decoder": self.model.decoder.state_dict(), "step": self.step}
        name = f"failed_batch_{self.processes.rank}.pt"
        self.folder.save(name, state, always=True)
        raise TrainingError(
            f"the loss of step {self.step} is {float(loss.detach())}. The batch and the weights are in "
            f"{self.folder.path / name}; lower optimiser.learning_rate, or set run.precision='float32', and resume "
            f"from {LAST}."
        )

    def _validate(self) -> None:
        assert self.validate is not None, "a recipe that validates was built without a scorer"
        if self.processes.first:
            score = self.validate(self._averaged().eval())
            self.folder.log({"step": self.step, "validation_miou": round(score, 4)})
            if score > self.best:
                self.best = score
                decoder = self.average.module.state_dict()
                self.folder.save(BEST, {"decoder": decoder, "step": self.step, "miou": score})
        self.processes.wait()

    def _averaged(self) -> IIR:
        averaged = IIR(self.config.model)
        averaged.load_state_dict(self.model.state_dict())
        averaged.decoder.load_state_dict(self.average.module.state_dict())
        return averaged.to(self.device)

    def _log(self, losses: list[float], ious: list[float], seconds: float) -> None:
        line = {
            "step": self.step,
            "loss": round(self.processes.mean(sum(losses) / len(losses), self.device), 6),
            "iou": round(self.processes.mean(sum(ious) / len(ious), self.device), 4),
            "lr": float(self.schedule.get_last_lr()[0]),
            "seconds": round(seconds, 1),
        }
        self.folder.log(line)
