"""Trains variants of a recipe on one budget and sets their scores side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from iir_sdk.data.dataset import CUTOUT_SET, FewShotDataset
from iir_sdk.engines.devices import Precision
from iir_sdk.errors import ConfigError
from iir_sdk.evaluation.evaluate import Output, Protocol, evaluate_set
from iir_sdk.files import made_folder, write_text_atomically
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.training.config import TrainingConfig
from iir_sdk.training.run.loop import Trainer

_SCORES_FILE = "score.json"


@dataclass(frozen=True)
class Variant:
    """One row of an ablation."""

    title: str  # of the row
    settings: dict[str, Any]  # those of the recipe that differ, by their dotted names
    output: Output = "mask"  # what is scored; ``prior`` needs no training
    leave_out: tuple[str, ...] = ()  # sets that are not trained on
    of_bank: bool = False  # only for recipes whose source is a bank of several sets
    of_regions: bool = False  # only for recipes that ask for regions
    of_one_network: bool = False  # only for backbones of one network, which alone have both forms of CAM

    def lacking(self, config: TrainingConfig) -> str:
        """What the variant needs and a recipe does not have; "" where it has all."""
        if self.of_one_network and "+" in config.model.backbone:
            return "a backbone of one network"
        if self.of_regions and not config.episodes.ask_for_regions:
            return "episodes.regions or episodes.shared_regions"
        return "source = 'bank'" if self.of_bank and config.source != "bank" else ""


_CUT, _NOT_CUT = {"optimiser.directional_dropout": True}, {"optimiser.directional_dropout": False}
_NO_REGIONS: dict[str, Any] = {"episodes.regions": 0.0, "episodes.shared_regions": 0.0}
_MAIN_SET: dict[str, Any] = {"bank.main_weight": 1.0, "bank.cutout_weight": 0.0, "episodes.shared_regions": 0.0}
_SINGLE: dict[str, Any] = {"model.prototypes": "single", "model.cross_blocks": 0}

VARIANTS: dict[str, Variant] = {
    "prior": Variant("prior only", {"steps": 1, "epochs": 0} | _NO_REGIONS, "prior"),
    "single": Variant("single prototype", _SINGLE | _NOT_CUT),
    "dual": Variant("dual prototypes", {"model.cross_blocks": 0} | _NOT_CUT),
    "cross": Variant("+ cross attention", _NOT_CUT),
    "dropout": Variant("+ directional dropout", _CUT),
    "other_cam": Variant("the other CAM form", _CUT, of_one_network=True),
    "no_regions": Variant("without regions", _CUT | _NO_REGIONS, of_regions=True),
    "no_cutouts": Variant("without cut-outs", _CUT, leave_out=(CUTOUT_SET,), of_bank=True),
    "main_set": Variant("episodes of the main set alone", _CUT | _MAIN_SET, of_bank=True),
}
"""By name; each adds to the one before, from ``other_cam`` on to the whole."""


@dataclass(frozen=True)
class HeldOut:
    """Classes that a row's run does not train on, and the sets that it is scored on."""

    name: str  # of the run's folder within its row's, such as ``fold3``; empty where no fold is left out
    novel: tuple[str, ...]  # classes
    sets: Sequence[FewShotDataset]


Build = Callable[[TrainingConfig, Path, Sequence[str], Sequence[str]], Trainer]
"""A trainer of a recipe in a folder, without some classes and some sets."""


@dataclass(frozen=True)
class AblationRow:
    """A variant's scores, in [0, 1]."""

    variant: str  # its name
    title: str  # of the row
    miou: float  # mean over its runs, of each the mean over the sets
    fb_iou: float  # likewise
    miou_of_runs: dict[str, float]  # by name of the :class:`HeldOut`
    settings: dict[str, Any]  # those of architecture and recipe that the variant changes, and ``leave_out``


def variants_of(config: TrainingConfig, *, cutouts: bool) -> tuple[str, ...]:
    """Names of the variants that make sense for a recipe, trained with cut-outs or without."""
    return tuple(
        name for name, v in VARIANTS.items() if not v.lacking(config) and (cutouts or CUTOUT_SET not in v.leave_out)
    )


def varied(config: TrainingConfig, name: str) -> TrainingConfig:
    """A recipe as a variant has it; a ConfigError where there is none, or not of such a recipe."""
    if name not in VARIANTS:
        raise ConfigError(f"there is no variant {name!r}; there are: {', '.join(VARIANTS)}.")
    variant = VARIANTS[name]
    if lacking := variant.lacking(config):
        raise ConfigError(f"variant {name!r} needs what the recipe does not have: {lacking}.")
    settings = dict(variant.settings)
    if name == "other_cam":
        # Only the closed form has a head for scores.
        grad = {"model.cam": "grad", "model.presence": False}
        settings |= grad if config.model.cam == "closed_form" else {"model.cam": "closed_form"}
    return config.changed(settings)


def ablate(
    config: TrainingConfig,
    names: Sequence[str],
    build: Build,
    held_out: Sequence[HeldOut],
    protocol: Protocol,
    folder: Path,
    *,
    device: str = "auto",
    dtype: Precision = None,
) -> list[AblationRow]:
    """Train and score each variant, on each part held out: the runs, ``ablation.json`` and ``ablation.md`` in a folder.

    Runs that are there already are gone on with, scores there are kept. The recipe's steps are the budget of each run.
    """
    recipes = {name: varied(config, name) for name in names}
    made_folder(folder)
    rows = []
    for name, recipe in recipes.items():
        variant, scores = VARIANTS[name], []
        for part in held_out:
            run = folder / name / part.name
            trainer = build(recipe, run, part.novel, variant.leave_out)
            trainer.run(resume=True)
            segmenter = FewShotSegmenter(trainer.export(), device=device, dtype=dtype)
            scores.append(_scores(segmenter, part.sets, replace(protocol, output=variant.output), run / _SCORES_FILE))
        miou, fb_iou = (fmean(values) for values in zip(*scores, strict=True))
        of_runs = {part.name: score[0] for part, score in zip(held_out, scores, strict=True)}
        before = config.settings() | {"leave_out": []}
        settings = {"leave_out": list(variant.leave_out)} | recipe.settings()
        differing = {key: value for key, value in settings.items() if value != before[key]}
        rows.append(AblationRow(name, variant.title, miou, fb_iou, of_runs, differing))
        write_rows(folder, rows, config, protocol)
    return rows


def _scores(
    segmenter: FewShotSegmenter, sets: Sequence[FewShotDataset], protocol: Protocol, file: Path
) -> tuple[float, float]:
    """MIoU and FB-IoU over the sets: as kept, where checkpoint, protocol and number of pictures are the same."""
    of = {
        "sha256": segmenter.engine.identity.sha256,
        "precision": segmenter.engine.identity.precision,
        "pictures": {s.name: {name: len(keys) for name, keys in s.classes.items()} for s in sets},
        "protocol": json.loads(json.dumps(asdict(protocol))),
    }
    document = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if document.get("of") != of:
        scores = [evaluate_set(segmenter, pictures, protocol) for pictures in sets]
        means = {"miou": fmean(s.miou for s in scores), "fb_iou": fmean(s.fb_iou for s in scores)}
        document = {**means, "of": of}
        write_text_atomically(file, json.dumps(document, indent=1) + "\n")
    return document["miou"], document["fb_iou"]


def write_rows(folder: Path, rows: Sequence[AblationRow], config: TrainingConfig, protocol: Protocol) -> None:
    """Write the table as JSON and Markdown."""
    document = {"rows": [asdict(r) for r in rows], "recipe": config.to_dict(), "protocol": asdict(protocol)}
    write_text_atomically(folder / "ablation.json", json.dumps(document, indent=1) + "\n")
    write_text_atomically(folder / "ablation.md", ablation_table(rows, config, protocol))


def ablation_table(rows: Sequence[AblationRow], config: TrainingConfig, protocol: Protocol) -> str:
    """The rows in Markdown, with budget and protocol."""
    budget = f"{config.steps} steps" if config.steps else f"{config.epochs} epochs"
    runs = list(rows[0].miou_of_runs) if len(rows[0].miou_of_runs) > 1 else []
    shares = [(r.title, [r.miou, r.fb_iou, *(r.miou_of_runs[run] for run in runs)]) for r in rows]
    lines = [
        f"{budget} of batch {config.episodes.batch}, seed {config.seed}; {protocol.shots}-shot, "
        f"{protocol.episodes} episodes a set, seeds {', '.join(map(str, protocol.seeds))}, scored at own size.",
        "",
        f"| {' | '.join(['variant', 'mIoU', 'FB-IoU', *(f'mIoU, {run}' for run in runs)])} |",
        "|---" * (3 + len(runs)) + "|",
        *(f"| {title} | {' | '.join(f'{100 * share:.1f}' for share in of_row)} |" for title, of_row in shares),
    ]
    return "\n".join(lines) + "\n"
