"""Which adapter a timm network gets."""

from __future__ import annotations

from iir_sdk.model.backbone import Backbone
from iir_sdk.model.vit_backbone import VitBackbone


def build_backbone(name: str, *, classifier: bool = True) -> Backbone:
    """The adapter of a timm model name.

    Raises:
        ConfigError: a name timm does not know, or a network that no adapter fits.
    """
    adapter = VitBackbone if name.startswith("vit_") else Backbone
    return adapter(name, classifier=classifier)
