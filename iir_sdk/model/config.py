"""The architecture of one checkpoint, as a frozen and checked record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from iir_sdk.errors import ConfigError
from iir_sdk.records import CheckedRecord, Rule, matching, within

Preset = Literal["paper", "light"]
CamForm = Literal["closed_form", "grad"]

_WIDTH = within(8, 1024)
# timm also takes names that send it to a hub or a folder; a configuration must not.
_NAME = r"[A-Za-z0-9_]{1,100}(\.[A-Za-z0-9_]{1,100})?"
_TIMM_NAMES = matching(rf"{_NAME}(\+{_NAME})?", "a plain timm model name, or two joined by '+'")


@dataclass(frozen=True)
class ModelConfig(CheckedRecord, prefix="model config: "):
    """Architecture of an IIR network (method: Fu et al., arXiv 2507.05838).

    Attributes:
        backbone: timm model name of an ImageNet classifier; or two joined by ``+``, a CNN's and a vision transformer's.
        preset: ``paper`` is the paper's network: self and cross attention between all positions, 3x3 convolutions, a
            projection for the query and one for the support, and IIR's prior alone. ``light`` is ours and costs a
            fifth: self attention on halved maps, two support tokens a cell of 2 x 2, depthwise convolutions, and the
            blocks without cross attention come first, before anything of the support is looked at; query and support
            share their projection, and similarity priors come beside IIR's own (``model/companions.py``), with a
            closed-form CAM also those that compare by several maps together.
        cam: ``closed_form`` at the pooled map (a matrix product) or ``grad`` at ``mid`` (Grad-CAM).
        width: channels ``d`` of the decoder.
        blocks: refinement blocks; the first ``cross_blocks`` of them have cross attention.
        heads: attention heads; ``width`` must be a multiple.
        head_width: channels of the stride-8 head, a multiple of 8.
        presence: a head that says how probable it is that the query shows the object, and how much of the mask is right
            if so; only with a closed-form CAM.
        evidence: how many of :data:`iir_sdk.model.presence.EVIDENCE` that head reads.
        dropout: spatial dropout on the projected features, in [0, 1).
        prototypes: ``dual`` is IIR's core and local prototype, ``single`` the whole mask's for both, for ablations.
        base_classes: classes of the base learner that suppresses them (method, section 6); 0 for none.
    """

    backbone: Annotated[str, _TIMM_NAMES] = "tf_efficientnet_lite2"
    preset: Preset = "light"
    cam: CamForm = "closed_form"
    width: Annotated[int, _WIDTH] = 128
    blocks: Annotated[int, within(1, 24)] = 3
    cross_blocks: Annotated[int, within(0, 24)] = 2
    heads: Annotated[int, within(1, 64)] = 2
    head_width: Annotated[int, _WIDTH] = 64
    presence: bool = False
    evidence: Annotated[int, within(6, 10)] = 6
    dropout: Annotated[float, Rule(lambda v: 0 <= v < 1, "in [0, 1), 1 excluded")] = 0.1
    prototypes: Literal["dual", "single"] = "dual"
    base_classes: Annotated[int, within(0, 10_000)] = 0

    def __post_init__(self) -> None:
        """Refuse values that no network can be built from.

        Raises:
            ConfigError: naming the field, its value and what was expected.
        """
        super().__post_init__()
        if self.cross_blocks > self.blocks:
            raise ConfigError(f"model config: cross_blocks={self.cross_blocks} is more than blocks={self.blocks}.")
        if self.width % self.heads:
            raise ConfigError(f"model config: width={self.width} is not a multiple of heads={self.heads}.")
        if self.head_width % 8:
            raise ConfigError(f"model config: head_width={self.head_width} is not a multiple of 8.")
        if "+" in self.backbone and self.cam != "closed_form":
            raise ConfigError("model config: a backbone of two networks needs cam='closed_form'.")
        if self.presence and self.cam != "closed_form":
            raise ConfigError("model config: presence needs cam='closed_form'.")

    def to_dict(self) -> dict[str, Any]:
        """The plain values; without ``evidence`` where it is what files of before, which do not name it, have."""
        values = super().to_dict()
        return values if self.evidence != type(self).evidence else {n: v for n, v in values.items() if n != "evidence"}

    @property
    def light(self) -> bool:
        """Whether the network is the light one, with companion priors and one projection for query and support."""
        return self.preset == "light"

    @property
    def joint_priors(self) -> bool:
        """Whether it has priors that compare by several maps together, and by the map that the classifier pools."""
        return self.light and self.cam == "closed_form"
