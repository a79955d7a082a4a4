"""Puts a training run together: data, backbone weights, model, trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from iir_sdk.devices import pick_device
from iir_sdk.errors import ConfigError
from iir_sdk.model.iir import IIR
from iir_sdk.training.config import TrainingConfig
from iir_sdk.training.convert import imagenet_weights, load_in_order
from iir_sdk.training.data.exclusion import cutouts_without, without_classes
from iir_sdk.training.data.folder import read_picture_sets
from iir_sdk.training.loop import Trainer
from iir_sdk.training.views import ViewMaker, read_cutouts


def build_trainer(
    config: TrainingConfig,
    data: Path,
    folder: Path,
    *,
    cutouts: Path | None = None,
    novel: Sequence[str] = (),
    device: str = "auto",
    workers: int = 2,
) -> Trainer:
    """A trainer on every set below ``data``.

    Args:
        config: the recipe.
        data: one set, or a folder of sets.
        folder: where the run is kept.
        cutouts: folder of cut-outs with alpha, if any.
        novel: classes whose masks must not be seen.
        device: ``auto`` or a torch device.
        workers: processes that make views.

    Raises:
        IirError: missing data, missing ImageNet weights, or settings that do not fit.
    """
    torch.manual_seed(config.seed)
    sets, files = read_picture_sets(data), read_cutouts(cutouts) if cutouts else []
    if novel:
        sets, files = without_classes(sets, novel), cutouts_without(files, novel)
    model = IIR(config.model)
    load_in_order(model.backbone.net, imagenet_weights(config.model.backbone))
    _check_split(model, config)
    maker = ViewMaker(sets, files, config)
    return Trainer(model, maker, config, folder, device=pick_device(device), workers=workers)


def _check_split(model: IIR, config: TrainingConfig) -> None:
    images = torch.randn(1, 3, config.view_size, config.view_size)
    try:
        with torch.inference_mode():
            in_order = model.backbone.check_order(images)
    except (RuntimeError, NotImplementedError, TypeError):
        in_order = False
    if not in_order:
        raise ConfigError(
            f"backbone {config.model.backbone!r} does not run its stages one after the other, so its last stage cannot "
            "be run on a changed map; choose another."
        )
