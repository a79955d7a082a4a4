"""Trains variants of a recipe on one budget and sets their scores side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from iir_sdk.atomic_write import write_text_atomically
from iir_sdk.errors import ConfigError
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.training.config import TrainingConfig
from iir_sdk.training.data.dataset import CUTOUT_SET, FewShotDataset
from iir_sdk.training.evaluate import Output, Protocol, evaluate_set
from iir_sdk.training.loop import Trainer


@dataclass(frozen=True)
class Variant:
    """One row of an ablation.

    Attributes:
        title: of the row.
        model: settings of the architecture that differ.
        training: settings of the recipe that differ.
        output: what is scored; ``prior`` needs no training.
        leave_out: sets that are not trained on.
        of_bank: only for recipes whose source is a bank of several sets.
        without: a setting of the architecture that the variant turns off; only for recipes that have it on.
    """

    title: str
    model: dict[str, Any]
    training: dict[str, Any]
    output: Output = "mask"
    leave_out: tuple[str, ...] = ()
    of_bank: bool = False
    without: str = ""

    def fits(self, config: TrainingConfig) -> bool:
        """Whether a recipe has what the variant leaves out."""
        has_setting = not self.without or bool(getattr(config.model, self.without))
        return has_setting and (config.source == "bank" or not self.of_bank)


OF_CLOSED_FORM: dict[str, Any] = {
    "cam": "grad",
    "joint_priors": False,
    "self_support": False,
    "dictionary": 0,
    "presence": False,
}
"""Grad-CAM, and without what only the closed form has."""

_MAIN_SET_ALONE: dict[str, Any] = {"main_weight": 1.0, "cutout_weight": 0.0}

VARIANTS: dict[str, Variant] = {
    "prior": Variant("prior only", {}, {"steps": 1, "epochs": 0}, "prior"),
    "single": Variant("single prototype", {"prototypes": "single", "cross_blocks": 0}, {"directional_dropout": False}),
    "dual": Variant("dual prototypes", {"cross_blocks": 0}, {"directional_dropout": False}),
    "cross": Variant("+ cross attention", {}, {"directional_dropout": False}),
    "dropout": Variant("+ directional dropout", {}, {"directional_dropout": True}),
    "other_cam": Variant("the other CAM form", {}, {"directional_dropout": True}),
    "no_dictionary": Variant(
        "without dictionary", {"dictionary": 0}, {"directional_dropout": True}, without="dictionary"
    ),
    "no_self_support": Variant(
        "without self-support", {"self_support": False}, {"directional_dropout": True}, without="self_support"
    ),
    "no_cutouts": Variant("without cut-outs", {}, {"directional_dropout": True}, leave_out=(CUTOUT_SET,), of_bank=True),
    "main_set": Variant(
        "episodes of the main set alone", {}, {"directional_dropout": True, **_MAIN_SET_ALONE}, of_bank=True
    ),
}
"""By name; each adds to the one before, from ``other_cam`` on to the whole."""


@dataclass(frozen=True)
class AblationRow:
    """A variant's score: mean mIoU and FB-IoU over the sets, in [0, 1], and the settings that differ."""

    variant: str
    title: str
    miou: float
    fb_iou: float
    settings: dict[str, Any]


def variants_of(config: TrainingConfig, *, cutouts: bool) -> tuple[str, ...]:
    """Names of the variants that make sense for a recipe.

    Args:
        config: the recipe.
        cutouts: whether it is trained with some.
    """
    return tuple(name for name, v in VARIANTS.items() if v.fits(config) and (cutouts or CUTOUT_SET not in v.leave_out))


def varied(config: TrainingConfig, name: str) -> TrainingConfig:
    """A recipe as a variant has it.

    Raises:
        ConfigError: no such variant, or not of such a recipe.
    """
    if name not in VARIANTS:
        raise ConfigError(f"there is no variant {name!r}; there are: {', '.join(VARIANTS)}.")
    variant = VARIANTS[name]
    if not variant.fits(config):
        lacks = f"model.{variant.without}" if variant.without else f"a bank: it has source={config.source!r}"
        raise ConfigError(f"variant {name!r} leaves something out that the recipe does not have: {lacks}.")
    model = dict(variant.model)
    if name == "other_cam":
        model |= OF_CLOSED_FORM if config.model.cam == "closed_form" else {"cam": "closed_form"}
    return replace(config, model=replace(config.model, **model), **variant.training)


def ablate(
    config: TrainingConfig,
    names: Sequence[str],
    build: Callable[[TrainingConfig, Path, Sequence[str]], Trainer],
    sets: Sequence[FewShotDataset],
    protocol: Protocol,
    folder: Path,
    *,
    device: str = "auto",
) -> list[AblationRow]:
    """Train and score each variant; those whose runs are in the folder already are gone on with.

    Args:
        config: the recipe, its steps the budget of each row.
        names: of the variants.
        build: a trainer of a recipe in a folder, without some sets.
        sets: to score on.
        protocol: how.
        folder: receives a run for each row, ``ablation.json`` and ``ablation.md``.
        device: to score on.

    Raises:
        ConfigError: no such variant.
    """
    recipes = {name: varied(config, name) for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, recipe in recipes.items():
        variant = VARIANTS[name]
        trainer = build(recipe, folder / name, variant.leave_out)
        trainer.run(resume=True)
        segmenter = FewShotSegmenter(trainer.export(), device=device)
        scores = [evaluate_set(segmenter, s, replace(protocol, output=variant.output)) for s in sets]
        miou, fb_iou = (sum(getattr(s, what) for s in scores) / len(scores) for what in ("miou", "fb_iou"))
        rows.append(AblationRow(name, variant.title, miou, fb_iou, _settings(variant)))
        write_rows(folder, rows, config, protocol)
    return rows


def _settings(variant: Variant) -> dict[str, Any]:
    settings = {**variant.model, **variant.training}
    return settings | ({"leave_out": list(variant.leave_out)} if variant.leave_out else {})


def write_rows(folder: Path, rows: Sequence[AblationRow], config: TrainingConfig, protocol: Protocol) -> None:
    """Write the table as JSON and Markdown.

    Raises:
        OutputError: it cannot be written.
    """
    document = {"rows": [asdict(r) for r in rows], "recipe": config.to_dict(), "protocol": asdict(protocol)}
    text = json.dumps(document, indent=1) + "\n"
    write_text_atomically(folder / "ablation.json", text)
    table = ablation_table(rows, config, protocol)
    write_text_atomically(folder / "ablation.md", table)


def ablation_table(rows: Sequence[AblationRow], config: TrainingConfig, protocol: Protocol) -> str:
    """The rows in Markdown, with budget and protocol."""
    budget = f"{config.steps} steps" if config.steps else f"{config.epochs} epochs"
    lines = [
        f"{budget} of batch {config.batch}, seed {config.seed}; {protocol.shots}-shot, "
        f"{protocol.episodes} episodes a set, seeds {', '.join(map(str, protocol.seeds))}, scored at own size.",
        "",
        "| variant | mIoU | FB-IoU |",
        "|---|---|---|",
        *(f"| {r.title} | {100 * r.miou:.1f} | {100 * r.fb_iou:.1f} |" for r in rows),
    ]
    return "\n".join(lines) + "\n"
