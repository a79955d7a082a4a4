"""Batch norms folded into the convolutions before them, for a network that only predicts."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from iir_sdk.model.backbone import Backbone
from iir_sdk.model.iir import IIR

_SIDE = 96
# Of the largest value: a wrong folding is off by far more, the rounding of a graphics card (TF32) by less.
_TOLERANCE = 2e-2


def with_folded_norms(model: IIR) -> IIR:
    """The same network, decoder shared, with a backbone of its own that takes fewer steps; the model is left as it is.

    A convolution listed right before a batch norm takes up its scale and shift. That the listed order is the order of
    running is not certain for every network, so the outcome is compared with the original's on a random picture; where
    they differ, the network does not take that picture, or there is nothing to fold, the model itself is returned:
    slower, and right.
    """
    if not any(isinstance(m, nn.BatchNorm2d) for m in model.backbone.modules()):
        return model
    folded = copy.deepcopy(model.backbone)
    for module in list(folded.modules()):
        _fold_children(module)
    folded.eval()
    # Folded weights are new tensors, which lack the layout that convolutions are fast in.
    folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if not _alike(model.backbone, folded):
        return model
    network = copy.copy(model)
    # The copy's own table of parts, so that the original keeps its backbone.
    network._modules = {**model._modules, "backbone": folded}
    return network


def _fold_children(module: nn.Module) -> None:
    for (name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
        if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
            continue
        if conv.out_channels == norm.num_features and norm.track_running_stats:
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
            # timm's batch norms carry the activation that follows them.
            rest = (getattr(norm, part, nn.Identity()) for part in ("drop", "act"))
            setattr(module, norm_name, nn.Sequential(*(m for m in rest if not isinstance(m, nn.Identity))))


@torch.inference_mode()
def _alike(one: Backbone, other: Backbone) -> bool:
    device = next(one.parameters()).device
    images = torch.randn(1, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        maps = [[*taps, backbone.pooled_map(taps.high)] for backbone in (one, other) for taps in (backbone(images),)]
    except (RuntimeError, AssertionError):
        # Networks with windows of a fixed size refuse pictures that these do not divide.
        return False
    return all(bool((a - b).abs().max() <= _TOLERANCE * a.abs().max()) for a, b in zip(*maps, strict=True))
