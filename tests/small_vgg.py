"""A small VGG of timm's own class, with the head of several layers that only this kind has."""

from __future__ import annotations

from typing import Any

from iir_sdk.torchvision_import import ensure_torchvision

ensure_torchvision()

from timm.models import register_model  # noqa: E402
from timm.models.vgg import VGG  # noqa: E402
from torch import nn  # noqa: E402


@register_model
def small_vgg_bn(pretrained: bool = False, **options: Any) -> VGG:
    """The stages of ``vgg11_bn`` with a few channels each; its 129 million parameters are 4."""
    options = {k: v for k, v in options.items() if not k.startswith("pretrained") and k != "cache_dir"}
    stages = [8, "M", 16, "M", 16, 16, "M", 24, 24, "M", 32, 32, "M"]
    return VGG(stages, mlp_ratio=1 / 64, norm_layer=nn.BatchNorm2d, **options)
