"""The training loop: episodes from the feature bank, AdamW, a weight average, checkpoints and a log."""

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from iir_sdk.errors import ConfigError
from iir_sdk.model.backbone import Taps
from iir_sdk.model.iir import IIR
from iir_sdk.model.prototypes import resize_mask
from iir_sdk.training.config import TrainingConfig
from iir_sdk.training.feature_bank import FeatureBank, stream_views
from iir_sdk.training.losses import auxiliary_loss, mask_loss
from iir_sdk.training.views import ViewMaker
from iir_sdk.weights.checkpoint_file import save_checkpoint


@dataclass(frozen=True)
class EpisodeBatch:
    """Episodes of one step.

    Attributes:
        support: taps of ``B * K`` supports.
        support_mask: ``(B * K, 1, L, L)`` in {0, 1}.
        query: taps of ``B`` queries.
        target: ``(B, L, L)`` int64 in {0, 1, 255}.
        shots: ``K``.
    """

    support: Taps
    support_mask: Tensor
    query: Taps
    target: Tensor
    shots: int


def draw_batch(bank: FeatureBank, config: TrainingConfig, rng: random.Random) -> EpisodeBatch:
    """Draw one step's episodes."""
    shots = rng.choice(config.shots)
    episodes = [bank.draw(shots, rng) for _ in range(config.batch)]
    support_slots = [slot for _, slots, _ in episodes for slot in slots]
    masks = np.stack([bank.mask(slot, key) for key, slots, _ in episodes for slot in slots])
    targets = np.stack([bank.mask(query, key) for key, _, query in episodes])
    return EpisodeBatch(
        bank.taps(support_slots),
        torch.from_numpy(masks)[:, None].float().to(bank.device),
        bank.taps([query for _, _, query in episodes]),
        torch.from_numpy(targets).long().to(bank.device),
        shots,
    )


def batch_loss(model: IIR, batch: EpisodeBatch, config: TrainingConfig) -> tuple[Tensor, Tensor]:
    """Loss of a batch (method, section 7), and the query logits ``(B, 2, h, w)`` for the log."""
    size = (batch.query.mid.shape[2], batch.query.mid.shape[3])
    tasks = len(batch.target)
    encoding = model.encode_support_taps(batch.support, batch.support_mask, tasks, batch.shots)
    support_share = resize_mask(batch.support_mask, size)
    query_share = _known_share(batch.target, size)
    query_labels = torch.where(query_share < 0, 255, (query_share > 0.5).long()).flatten(1)
    support_labels = (support_share > 0.5).long().reshape(tasks, batch.shots, -1)
    if not config.directional_dropout:
        query_labels = torch.full_like(query_labels, 255)
    prediction = model.decode(batch.query, encoding.state, (query_labels, support_labels))
    loss = mask_loss(prediction.logits, batch.target, dice_weight=config.dice)
    loss = loss + auxiliary_loss(prediction.auxiliary, query_share)
    return loss + auxiliary_loss(encoding.auxiliary, support_share[:, 0]), prediction.logits


def _known_share(target: Tensor, size: tuple[int, int]) -> Tensor:
    """Share of foreground among each cell's known pixels, ``(B, *size)``; -1 where none is known."""
    known = resize_mask((target != 255)[:, None], size)[:, 0]
    share = resize_mask((target == 1)[:, None], size)[:, 0] / known.clamp_min(1e-6)
    return share.masked_fill(known == 0, -1)


class Trainer:
    """Trains a decoder in a folder that it can be resumed from.

    Args:
        model: with its backbone's ImageNet weights loaded.
        maker: of the augmented views.
        config: the recipe.
        folder: receives ``recipe.json``, ``data.json``, ``log.jsonl``, ``last.pt``.
        device: to train on.
        workers: processes that make views.
    """

    def __init__(
        self,
        model: IIR,
        maker: ViewMaker,
        config: TrainingConfig,
        folder: Path,
        *,
        device: torch.device,
        workers: int = 2,
    ) -> None:
        self.model = model.to(device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.maker, self.config, self.folder, self.device, self.workers = maker, config, folder, device, workers
        self.average = AveragedModel(model.decoder, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(model.decoder, config.weight_decay), lr=config.learning_rate
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)

    def _rate(self, step: int) -> float:
        warmed = min(1.0, (step + 1) / max(1, self.config.warmup))
        return warmed * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.config.steps))))

    def run(self, *, resume: bool = False) -> None:
        """Train to the last step.

        Raises:
            ConfigError: the folder holds a run of another recipe or other data, or one already and ``resume`` is off.
        """
        self._open_folder(resume)
        rng = random.Random(f"{self.config.seed}/episodes/{self.step}")
        bank = self._filled_bank()
        remaining = self.config.steps - self.step
        # Further view numbers than the first fill's, so that a resumed run sees new ones too.
        fresh = stream_views(
            self.maker,
            self.config.views + self.step * self.config.refresh,
            max(1, remaining * self.config.refresh),
            batch=max(1, self.config.refresh),
            workers=1 if self.workers else 0,
        )
        self.model.train()
        started, losses, ious = time.perf_counter(), [], []
        for _ in tqdm(range(remaining), desc="train", unit="step"):
            if self.config.refresh:
                bank.add(next(fresh))
            loss, iou = self._one_step(draw_batch(bank, self.config, rng))
            losses.append(loss)
            ious.append(iou)
            if self.step % self.config.log_every == 0:
                self._log(losses, ious, time.perf_counter() - started)
                losses, ious = [], []
            if self.step % self.config.save_every == 0 or self.step == self.config.steps:
                self._save()

    def export(self) -> Path:
        """Write the averaged decoder with its backbone as ``model.safetensors`` in the run's folder.

        Raises:
            OutputError: it cannot be written.
        """
        averaged = IIR(self.config.model)
        averaged.backbone.load_state_dict(self.model.backbone.state_dict())
        averaged.decoder.load_state_dict(self.average.module.state_dict())
        path = self.folder / "model.safetensors"
        save_checkpoint(averaged, self.config.preprocessing, path)
        return path

    def _filled_bank(self) -> FeatureBank:
        bank = FeatureBank(self.model.backbone, self.config.preprocessing, self.config, self.device)
        batches = stream_views(self.maker, 0, self.config.views, batch=16, workers=self.workers)
        with tqdm(total=self.config.views, desc="views", unit="view") as bar:
            for views in batches:
                bank.add(views)
                bar.update(len(views))
        return bank

    def _one_step(self, batch: EpisodeBatch) -> tuple[float, float]:
        with torch.autocast(self.device.type, torch.bfloat16):
            loss, logits = batch_loss(self.model, batch, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.decoder.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model.decoder)
        self.step += 1
        return float(loss.detach()), _batch_iou(logits, batch.target)

    def _open_folder(self, resume: bool) -> None:
        checkpoint, recipe, data = (self.folder / name for name in ("last.pt", "recipe.json", "data.json"))
        text = json.dumps(self.config.to_dict(), indent=2)
        if checkpoint.exists() and not resume:
            raise ConfigError(f"{self.folder} holds a run; pass --resume to go on with it, or name another folder.")
        if checkpoint.exists():
            if recipe.exists() and json.loads(recipe.read_text()) != json.loads(text):
                raise ConfigError(f"{recipe} differs from the given recipe; resume with the same one.")
            if data.exists() and json.loads(data.read_text()) != self.maker.contents():
                raise ConfigError(
                    f"{data} differs from the given data; resume with the same sets, classes and cut-outs."
                )
            state = torch.load(checkpoint, map_location=self.device, weights_only=True)
            self.model.decoder.load_state_dict(state["decoder"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.step = state["step"]
        recipe.write_text(text + "\n")
        data.write_text(json.dumps(self.maker.contents(), indent=1) + "\n")

    def _save(self) -> None:
        state = {
            "decoder": self.model.decoder.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
        }
        beside = self.folder / "last.pt.partial"
        torch.save(state, beside)
        beside.replace(self.folder / "last.pt")

    def _log(self, losses: list[float], ious: list[float], seconds: float) -> None:
        line = {
            "step": self.step,
            "loss": round(sum(losses) / len(losses), 4),
            "iou": round(sum(ious) / len(ious), 4),
            "lr": self.schedule.get_last_lr()[0],
            "seconds": round(seconds, 1),
        }
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")


def _parameter_groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Decay matrices and kernels only, not biases, norms and scales."""
    matrices = [p for p in module.parameters() if p.ndim > 1]
    rest = [p for p in module.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


def _batch_iou(logits: Tensor, target: Tensor) -> float:
    """Mean foreground IoU of the pictures that hold the object, at the logits' size."""
    predicted = logits.argmax(1)
    truth = resize_mask((target == 1)[:, None], (logits.shape[2], logits.shape[3]))[:, 0] > 0.5
    inter = ((predicted == 1) & truth).flatten(1).sum(1)
    union = ((predicted == 1) | truth).flatten(1).sum(1)
    held = truth.flatten(1).any(1)
    return float((inter / union.clamp_min(1))[held].mean()) if held.any() else 0.0
