"""The architecture of one checkpoint, as a frozen and checked record."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from iir_sdk.errors import ConfigError

CamForm = Literal["closed_form", "grad"]
ShotFusion = Literal["concat", "average"]
Prototypes = Literal["dual", "single"]
DecoderKind = Literal["full", "light"]

_BACKBONE = re.compile(r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_]{1,100})?")
_CHOICES = {
    "cam": ("closed_form", "grad"),
    "shot_fusion": ("concat", "average"),
    "prototypes": ("dual", "single"),
    "decoder": ("full", "light"),
}
_BOUNDS: dict[str, tuple[int, int]] = {
    "width": (8, 1024),
    "blocks": (1, 24),
    "cross_blocks": (0, 24),
    "heads": (1, 64),
    "head_width": (8, 1024),
    "base_classes": (0, 10_000),
    "dictionary": (0, 4096),
}


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of an IIR network (method: Fu et al., arXiv 2507.05838).

    Attributes:
        backbone: timm model name of an ImageNet classifier.
        classifier: keep the ImageNet head; without it the class weights come from the support itself.
        cam: ``closed_form`` at the pooled map (a matrix product) or ``grad`` at ``mid`` (Grad-CAM).
        width: channels ``d`` of the decoder.
        blocks: refinement blocks; the first ``cross_blocks`` of them have cross attention.
        heads: attention heads; ``width`` must be a multiple.
        head_width: channels of the stride-8 head.
        shot_fusion: ``concat`` attends over all shots' tokens at once, ``average`` runs each shot and averages.
        shared_projection: one 1x1 projection for query and support, or one each.
        companion_priors: feed similarity priors beside IIR's own prior.
        late_features: ``high`` also holds the features of the stage before the last one, of backbones with two stages
            at that stride: they still tell apart what the last stage takes for one class.
        joint_priors: with them, one that compares by ``mid`` and ``high`` together, and those of the map that the
            classifier pools; only of the light decoder with a closed-form CAM.
        self_support: with them, priors of the query's own prototypes, which the surest of the others gives: the joint
            one, with a dictionary that among its words.
        dictionary: words of a dictionary of what pictures show in general, which a further joint prior takes for
            background; 0 for none.
        presence: a head that says how probable it is that the query shows the object, and how much of the mask is right
            if so; only with a closed-form CAM.
        dropout: spatial dropout on the projected features, in [0, 1).
        prototypes: ``dual`` is IIR's core and local prototype, ``single`` the whole mask's for both, for ablations.
        decoder: ``full`` is the paper's: self and cross attention between all positions, 3x3 convolutions. ``light``
            costs a fifth: self attention on halved maps, two support tokens a cell of 2 x 2, depthwise convolutions,
            and the blocks without cross attention come first, before anything of the support is looked at.
        base_classes: classes of the base learner that suppresses them (method, section 6); 0 for none.
    """

    backbone: str = "tf_efficientnet_lite2"
    classifier: bool = True
    cam: CamForm = "closed_form"
    width: int = 128
    blocks: int = 3
    cross_blocks: int = 2
    heads: int = 2
    head_width: int = 64
    shot_fusion: ShotFusion = "concat"
    shared_projection: bool = True
    companion_priors: bool = True
    late_features: bool = False
    joint_priors: bool = False
    self_support: bool = False
    dictionary: int = 0
    presence: bool = False
    dropout: float = 0.1
    prototypes: Prototypes = "dual"
    decoder: DecoderKind = "full"
    base_classes: int = 0

    def __post_init__(self) -> None:
        """Refuse values that no network can be built from.

        Raises:
            ConfigError: naming the field, its value and what was expected.
        """
        self._check_types()
        if not _BACKBONE.fullmatch(self.backbone):
            # timm also takes names that send it to a hub or a folder; a configuration must not.
            raise ConfigError(f"model config: backbone={reprlib.repr(self.backbone)} must be a plain timm model name.")
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"model config: {name}={reprlib.repr(value)} is outside [{low}, {high}].")
        if self.cross_blocks > self.blocks:
            raise ConfigError(f"model config: cross_blocks={self.cross_blocks} is more than blocks={self.blocks}.")
        if self.width % self.heads:
            raise ConfigError(f"model config: width={self.width} is not a multiple of heads={self.heads}.")
        if self.head_width % 8:
            raise ConfigError(f"model config: head_width={self.head_width} is not a multiple of 8.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model config: dropout={reprlib.repr(self.dropout)} is outside [0, 1).")
        if self.joint_priors and (self.decoder, self.cam, self.companion_priors) != ("light", "closed_form", True):
            raise ConfigError(
                "model config: joint_priors needs decoder='light', cam='closed_form' and companion_priors=true."
            )
        for name in ("self_support", "dictionary"):
            if getattr(self, name) and not self.joint_priors:
                raise ConfigError(f"model config: {name} needs joint_priors=true.")
        if self.presence and self.cam != "closed_form":
            raise ConfigError("model config: presence needs cam='closed_form'.")
        if not self.classifier and self.cam == "grad":
            raise ConfigError("model config: cam='grad' needs a classifier; use cam='closed_form'.")

    def _check_types(self) -> None:
        for field in fields(self):
            value, default = getattr(self, field.name), field.default
            expected: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
            if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
                raise ConfigError(f"model config: {field.name}={reprlib.repr(value)} must be {expected[0].__name__}.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"model config: {name}={reprlib.repr(getattr(self, name))} must be one of {', '.join(choices)}."
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Build from plain values.

        Raises:
            ConfigError: on an unknown key or a value out of range.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"model config: {reprlib.repr(values)} must be an object with named settings.")
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigError(f"model config: unknown key {reprlib.repr(unknown[0])}. Was it made by a newer iir_sdk?")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The plain values, as :meth:`from_dict` takes them."""
        return asdict(self)
