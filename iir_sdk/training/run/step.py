"""One batch of episodes: the frozen backbone's features of its pictures, and its loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from iir_sdk.data.dataset import IGNORE
from iir_sdk.model.backbone import Taps, taps_of
from iir_sdk.model.iir import IIR
from iir_sdk.model.prototypes import resize_mask
from iir_sdk.training.config import TrainingConfig
from iir_sdk.training.run.losses import auxiliary_loss, mask_loss
from iir_sdk.training.run.optimisation import autocast


@dataclass(frozen=True)
class EpisodeBatch:
    """Episodes of one step."""

    support: Taps  # taps of ``B * K`` supports
    support_target: Tensor  # ``(B * K, L, L)`` int64 in {0, 1, 255}
    query: Taps  # taps of ``B`` queries
    target: Tensor  # ``(B, L, L)`` int64 in {0, 1, 255}
    shots: int  # ``K``
    own_class: Tensor | None = None  # ``(B,)`` int64, each episode's class among the base learner's; None without one
    counterexample: Taps | None = None  # taps of ``B`` pictures, of which a part is not the object; None without any
    counterexample_known: Tensor | None = None  # ``(B, L, L)`` bool, that part, empty of an episode that has none

    def tensors(self) -> Mapping[str, object]:
        """All of it as plain tensors by name, to be saved."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {n: tuple(v) if isinstance(v, Taps) else v for n, v in plain.items()}


class TrainingStep(nn.Module):
    """The loss of a batch as a module's forward pass, which is what data-parallel training wraps."""

    def __init__(self, model: IIR, config: TrainingConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, batch: EpisodeBatch) -> tuple[Tensor, Tensor]:
        """Loss (method, section 7), and the query logits ``(B, 2, h, w)`` for the log."""
        size = (batch.query.mid.shape[2], batch.query.mid.shape[3])
        tasks = len(batch.target)
        foreground, known = ((t[:, None]).float() for t in (batch.support_target == 1, batch.support_target != IGNORE))
        encoding = self.model.encode_support_taps(batch.support, foreground, tasks, batch.shots, known)
        state = encoding.state
        if batch.counterexample is not None and batch.counterexample_known is not None:
            not_object = batch.counterexample_known[:, None].float()
            state = state.beside(self.model.encode_counterexample_taps(batch.counterexample, not_object))
        support_share, query_share = known_share(batch.support_target, size), known_share(batch.target, size)
        query_labels = cell_labels(query_share).flatten(1)
        if not self.config.optimiser.directional_dropout:
            query_labels = torch.full_like(query_labels, IGNORE)
        prediction = self.model.decode(batch.query, state, query_labels, batch.own_class)
        loss = mask_loss(prediction.logits, batch.target, dice_weight=self.config.optimiser.dice)
        loss = loss + auxiliary_loss(prediction.auxiliary, query_share)
        return loss + auxiliary_loss(encoding.auxiliary, support_share), prediction.logits


def network_input(images: Tensor, config: TrainingConfig, device: torch.device) -> Tensor:
    """Pictures ``(B, 3, S, S)`` uint8 -> normalised, on the device, channels last."""
    scale, shift = (torch.from_numpy(v).to(device)[:, None, None] for v in config.preprocessing.scale_and_shift)
    return (images.to(device) * scale + shift).contiguous(memory_format=torch.channels_last)


def frozen_taps(backbone: nn.Module, images: Tensor, config: TrainingConfig, device: torch.device) -> Taps:
    """Float32 taps of pictures ``(B, 3, S, S)`` uint8, without gradients."""
    with torch.no_grad(), autocast(config, device):
        taps = taps_of(backbone, network_input(images, config, device))
    # Plain layout, as the bank's: the backward pass of some layers crashes on the other (torch 2.13, CPU).
    return Taps(*(t.float().contiguous() for t in taps))


def known_share(target: Tensor, size: tuple[int, int]) -> Tensor:
    """Share of foreground among each cell's known pixels, ``(B, *size)``; -1 where none is known."""
    known = resize_mask((target != IGNORE)[:, None], size)[:, 0]
    share = resize_mask((target == 1)[:, None], size)[:, 0] / known.clamp_min(1e-6)
    return share.masked_fill(known == 0, -1)


def cell_labels(share: Tensor) -> Tensor:
    """Labels by :func:`known_share`: 1 where most of a cell is foreground, 255 where nothing of it is known."""
    return torch.where(share < 0, IGNORE, (share > 0.5).long())


def batch_iou(logits: Tensor, target: Tensor) -> float:
    """Mean foreground IoU of the pictures that hold the object, at the logits' size; ignored cells left out."""
    share = known_share(target, (logits.shape[2], logits.shape[3]))
    predicted, truth, known = logits.argmax(1) == 1, share > 0.5, share >= 0
    inter = (predicted & truth & known).flatten(1).sum(1)
    union = ((predicted | truth) & known).flatten(1).sum(1)
    present = truth.flatten(1).any(1)
    return float((inter / union.clamp_min(1))[present].mean()) if present.any() else 0.0
