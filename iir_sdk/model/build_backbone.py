"""Which adapter a timm network gets."""

from __future__ import annotations

from iir_sdk.errors import ConfigError
from iir_sdk.model.backbone import Backbone
from iir_sdk.model.vit_backbone import VitBackbone


def build_backbone(name: str, *, classifier: bool = True, late: bool = False) -> Backbone:
    """The adapter of a timm model name; see :class:`~iir_sdk.model.backbone.Backbone`.

    Raises:
        ConfigError: a name timm does not know, or a network that no adapter fits.
    """
    if not name.startswith("vit_"):
        return Backbone(name, classifier=classifier, late=late)
    if late:
        raise ConfigError(f"backbone {name!r} has no two stages at one stride; set late_features=false.")
    return VitBackbone(name, classifier=classifier)
