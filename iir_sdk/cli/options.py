"""Options that the commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


def _shared(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        """Give a command all of the options."""
        return reduce(lambda decorated, option: option(decorated), reversed(options), command)

    return decorate


WEIGHTS = click.option("--weights", help="Checkpoint name, file or folder; default: the embedded one.")
DATA = click.option("--data", type=PATH, required=True, help="A set, a folder of sets, or the benchmark's root.")
EXIF = click.option(
    "--exif",
    type=click.Choice(["auto", "shown", "stored"]),
    default="auto",
    show_default=True,
    help="Whether masks were drawn on pictures as shown, or as stored by tools that ignore EXIF; auto: by their size.",
)
DEVICE = click.option("--device", default="auto", show_default=True)


def _dtype(purpose: str) -> Callable[[Any], Any]:
    choices = click.Choice(["auto", "float32", "bfloat16", "float16"])
    return click.option("--dtype", type=choices, default="float32", show_default=True, help=purpose)


DTYPE = _dtype("To score in.")
ENGINE = _shared(
    WEIGHTS,
    click.option(
        "--backend", type=click.Choice(["torch", "openvino", "onnxruntime"]), default="torch", show_default=True
    ),
    DEVICE,
    _dtype("To compute in."),
    click.option("--threads", type=click.IntRange(1), help="To compute with; default: all cores."),
)
SUPPORT_FILE = click.option("--supports", "support_file", type=PATH, help="File that save_supports wrote.")
LABELS = click.option(
    "--label", "labels", multiple=True, help="Use these labels alone; default: all that supports have."
)
THRESHOLD = click.option("--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Of a pixel.")
OVERWRITE = click.option(
    "--overwrite", is_flag=True, help="Delete what an earlier run wrote into --out, and start anew."
)


def absent_below(queries: str) -> Callable[[Any], Any]:
    """The option, in words for these queries, as ``pictures``."""
    help_text = f"Score below which a mask is left empty; 0.5 where {queries} may well not show the object."
    return click.option("--absent-below", type=click.FloatRange(0, 1), default=0.0, show_default=True, help=help_text)


def format_names(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
    """What an option's value ``masks, coco`` names; for ``callback``."""
    return [name.strip() for name in text.split(",") if name.strip()]


WORKERS = click.option(
    "--workers",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="Processes that read and augment pictures; 0: none but the command's own.",
)
CUTOUTS = click.option("--cutouts", type=PATH, help="Folder of .png and .webp with alpha, each a class, to paste.")
BANK = click.option("--bank", "bank_file", type=PATH, help="Folder that iir-sdk bank filled; default: fill one.")
LEAVE_OUT = click.option(
    "--leave-out", multiple=True, metavar="SET", help="Do not use this set of --data, or 'cutouts'; repeat."
)
ONLY = click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Use these alone: a set, a picture (set/stem), 'cutouts', some (cutouts/FOLDER), a .txt list; repeat.",
)
_SET = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of the recipe.")
RECIPE = _shared(click.argument("recipe", default="duo"), _SET)
RECIPE_OF_INIT = _shared(click.argument("recipe", required=False), _SET)
BACKBONE_WEIGHTS = click.option(
    "--backbone-weights", type=PATH, help="File (of two towers, of either); default: its package's, or the Hub's."
)
INIT = click.option(
    "--init", help="Start from these trained weights: a name, file, folder or owner/name; the recipe is then finetune."
)
BASE_LEARNER = click.option(
    "--base-learner", type=PATH, help="Base learner that pretrain wrote, where the recipe has one."
)
PARTS = _shared(
    BACKBONE_WEIGHTS,
    click.option("--classifier", type=PATH, help="Linear classifier that pretrain wrote, or another."),
)
SCORING = _shared(
    click.option("--shots", type=click.IntRange(1), default=1, show_default=True),
    click.option(
        "--episodes", type=click.IntRange(1), default=1000, show_default=True, help="Episodes of each set and seed."
    ),
    click.option("--seed", "seeds", multiple=True, type=int, default=(0,), show_default=True, help="Repeat for more."),
    click.option("--min-share", type=float, help="Smallest object, as a share; default: 0.01, benchmarks' own rule."),
)
