"""A training recipe: a TOML file of tables, read into frozen, checked records."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal

from iir_sdk.errors import ConfigError, DatasetNotFoundError
from iir_sdk.files import is_file
from iir_sdk.model.config import ModelConfig
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.records import CheckedRecord, Rule, above, at_least, dotted_keys, within

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_Count = Annotated[int, at_least(0)]
_Some = Annotated[int, at_least(1)]
_Share = Annotated[float, within(0, 1)]
_Weight = Annotated[float, at_least(0)]
_Bits = Annotated[int, at_least(4), Rule(lambda v: v % 4 == 0, "and a multiple of 4, since masks are kept as bits")]
_Shots = Annotated[tuple[_Some, ...], Rule(bool, "and not empty")]
_Range = Annotated[tuple[_Some, _Some], Rule(lambda v: v[0] <= v[1], "and the largest last")]
_Factors = Annotated[tuple[float, float], Rule(lambda v: 0 < v[0] <= v[1], "and above 0, the largest last")]


@dataclass(frozen=True)
class BankSettings(CheckedRecord, prefix="recipe: bank."):
    """``[bank]``: the kept views, where ``source`` is ``bank``."""

    # Augmented pictures whose features the bank keeps; fewer where there are few pictures, see below.
    views: _Some = 8000
    # The least and the largest number of a picture's views, where ``views`` allow it: a bank has no more views than its
    # pictures' largest numbers sum to.
    views_of_picture: _Range = (2, 12)
    enough_pictures: _Some = 30  # sets with fewer pictures are asked for the less often the fewer they have
    label_size: _Bits = 192  # side of the kept masks in pixels
    paste: _Share = 0.4  # share of views with pasted objects
    # A list of sets and pictures, as ``open_sets``: its pictures get objects of its own pasted alone, so that runs with
    # ``--only`` this list may use all their views. Empty for none.
    paste_among: str = ""
    cutouts: _Share = 0.5  # share of pasted objects that are cut-outs with alpha (0 without a cutouts folder)
    cutout_classes: _Count = 400  # number of cut-outs used, each a class of its own
    # The set that ``main_weight`` of the views and episodes come from, of those of labelled classes as of those of one
    # photo's regions; the others share the rest by the square root of their number of classes.
    main_set: str = "coco"
    main_weight: _Share = 0.5  # that share
    # Share of the labelled episodes that ask for a cut-out; 0 draws them as one of the other sets.
    cutout_weight: _Share = 0.0


@dataclass(frozen=True)
class PictureSettings(CheckedRecord, prefix="recipe: pictures."):
    """``[pictures]``: the augmented crops that are trained on."""

    view_size: Annotated[int, at_least(64)] = 384  # their side in pixels
    scale: _Factors = (0.9, 1.1)  # lowest and largest factor of random resizing, with source ``pictures``


@dataclass(frozen=True)
class EpisodeSettings(CheckedRecord, prefix="recipe: episodes."):
    """``[episodes]``: what a step's batches ask for."""

    batch: _Some = 8  # episodes of a process's batch
    accumulate: _Some = 1  # batches of one optimiser step
    shots: _Shots = (1, 1, 1, 2)  # shots of a batch's episodes, drawn evenly from this list
    absent: _Share = 0.04  # share of the bank's episodes of labelled classes whose query does not show the object
    # With a bank, queries whose object covers less than this share of them are drawn the less often the smaller it is;
    # another episode is drawn in their place, of any class, so that sets of small things come a little less often than
    # their weights say, and absent queries a little more. 0 draws all alike; regions always are.
    full_share: _Share = 0.0
    # Share of all of the bank's episodes that ask for a region of one photo, which nobody labelled, in another crop of
    # it.
    regions: _Share = 0.0
    shared_regions: _Share = 0.0  # share of all that asks for a region in another photo, of whatever set
    # Share of the bank's episodes whose supports are roughly outlined, boxed, or marked by strokes or clicks; half of
    # them are drawn on the query itself, as corrections of a mask are.
    hand_drawn: _Share = 0.0
    # Share of the bank's batches whose episodes come with a picture that shows another class of the set, which the
    # query shows as well where one is labelled there.
    counterexamples: _Share = 0.0

    @property
    def ask_for_regions(self) -> bool:
        """Whether any asks for a region that nobody labelled."""
        return self.regions + self.shared_regions > 0


@dataclass(frozen=True)
class OptimiserSettings(CheckedRecord, prefix="recipe: optimiser."):
    """``[optimiser]``: how the decoder learns."""

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, above(0)] = 1e-3  # peak of the schedule
    weight_decay: _Weight = 0.05  # of matrices and kernels
    schedule: Literal["cosine", "poly"] = "cosine"  # ``cosine`` to a fiftieth, or ``poly`` to zero
    warmup: _Count = 100  # steps of linear warm-up
    gradient_clip: Annotated[float, above(0)] = 1.0  # largest gradient norm
    ema: _Share = 0.998  # decay of the weight average that is saved, reached by degrees; 0 saves the weights themselves
    dice: _Weight = 1.0  # weight of the Dice term
    directional_dropout: bool = True  # cut inconsistent pairs in cross attention


@dataclass(frozen=True)
class RunSettings(CheckedRecord, prefix="recipe: run."):
    """``[run]``: how a run computes, and what it writes when."""

    # Of autocast on the model's forward pass; ``auto`` is bfloat16 where the device computes in it.
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    validate_every: _Count = 0  # steps between validations, whose best weights are kept; 0 for none
    validate_episodes: _Some = 200  # episodes of a validation
    log_every: _Some = 20  # steps between lines of the log
    save_every: _Some = 200  # steps between checkpoints


@dataclass(frozen=True)
class TrainingConfig(CheckedRecord, prefix="recipe: "):
    """Everything that decides a training run, apart from where the data lies."""

    # ``bank`` draws episodes from kept features of augmented views, fast on a CPU; ``pictures`` runs the backbone on
    # every episode's pictures, as the benchmarks do.
    source: Literal["bank", "pictures"] = "bank"
    dataset: str = "folder"  # name of the benchmark (``folder`` for sets of one's own)
    fold: _Count = 0  # whose classes are held out, on benchmarks that have folds
    # Whether training pictures may show held-out classes (``unfiltered``) or not (``filtered``; of a bank, its views).
    convention: Literal["unfiltered", "filtered"] = "unfiltered"
    # What the masks of one's own sets were drawn on, the pictures as ``shown`` or as ``stored``.
    exif: Literal["auto", "shown", "stored"] = "auto"
    seed: Annotated[int, within(0, (1 << 32) - 1)] = 0  # of all draws
    steps: _Count = 2800  # optimiser steps; 0 where ``epochs`` says
    epochs: _Count = 0  # passes over the training pictures, with source ``pictures``; 0 where ``steps`` says
    model: ModelConfig = field(default_factory=ModelConfig)  # the architecture
    preprocessing: Preprocessing = field(default_factory=Preprocessing)  # input size and normalisation
    bank: BankSettings = field(default_factory=BankSettings)
    pictures: PictureSettings = field(default_factory=PictureSettings)
    episodes: EpisodeSettings = field(default_factory=EpisodeSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        """Check what must fit together; a ConfigError names the keys, their values and what was expected."""
        super().__post_init__()
        _check_sum(self.bank, "main_weight", "cutout_weight")
        _check_sum(self.episodes, "regions", "shared_regions")
        if self.episodes.ask_for_regions and self.source != "bank":
            raise ConfigError(
                f"recipe: episodes.regions={self.episodes.regions} and episodes.shared_regions="
                f"{self.episodes.shared_regions} need source='bank', not {self.source!r}; or set both to 0."
            )
        if bool(self.steps) == bool(self.epochs):
            raise ConfigError(f"recipe: steps={self.steps} and epochs={self.epochs}: one must be given, the other 0.")
        if self.epochs and self.source == "bank":
            raise ConfigError(f"recipe: epochs={self.epochs} needs source='pictures'; for a bank set steps.")

    @classmethod
    def from_dict(cls, values: object, where: str = "") -> TrainingConfig:
        """Build from plain values, tables as such; with ``epochs``, no ``steps`` unless they are named."""
        if isinstance(values, Mapping) and values.get("epochs"):
            values = {"steps": 0, **values}
        return super().from_dict(values, where)

    def settings(self) -> dict[str, Any]:
        """Every value by its dotted name, such as ``bank.views``."""
        return {key: attrgetter(key)(self) for key in dotted_keys(TrainingConfig)}

    def changed(self, settings: Mapping[str, Any]) -> TrainingConfig:
        """The recipe with other settings, by their dotted names such as ``bank.views``."""
        values = self.to_dict()
        for key, value in settings.items():
            _put(values, key, value)
        return TrainingConfig.from_dict(values)

    def is_kept_as(self, values: Mapping[str, Any]) -> bool:
        """Whether plain values, as a run keeps them, are this recipe; keys that came since have their defaults."""
        try:
            return TrainingConfig.from_dict(values) == self
        except ConfigError:
            # Such as a key that is gone.
            return False


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read a TOML recipe and apply ``key=value`` overrides (``model.width=64`` reaches into a table)."""
    return TrainingConfig.from_dict(recipe_values(path, overrides))


def recipe_values(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The plain values that a recipe and its overrides name, and no others."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no recipe at {str(path)!r}; those of the package: {', '.join(packaged_recipes())}.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error
    for override in overrides:
        _apply(values, override)
    return values


def packaged_recipes() -> dict[str, Path]:
    """The recipes that travel with the package, by name."""
    return {p.stem: p for p in sorted((Path(__file__).parent / "recipes").glob("*.toml"))}


def find_recipe(name_or_path: str) -> Path:
    """A recipe of the package by name, else a path."""
    return packaged_recipes().get(name_or_path, Path(name_or_path))


def packaged_lists() -> dict[str, Path]:
    """The lists of sets that travel with the package, by name."""
    return {p.stem: p for p in sorted((Path(__file__).parent / "recipes").glob("*.txt"))}


def read_names(names_or_files: Sequence[str]) -> tuple[str, ...]:
    """Names of sets as they are; those that end in ``.txt``, or that the package has a list of, read line by line."""
    names: list[str] = []
    for name in names_or_files:
        file = packaged_lists().get(name, Path(name))
        if file.suffix != ".txt":
            names.append(name)
        elif not is_file(file):
            raise DatasetNotFoundError(f"no list of sets at {name!r}; name a .txt file, or sets themselves.")
        else:
            lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
            names += [line for line in lines if line]
    return tuple(names)


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    key = key.strip()
    if not separator:
        raise ConfigError(f"override {override!r} is not key=value.")
    if key in ("steps", "epochs"):
        # The one given last decides how long.
        values.pop("epochs" if key == "steps" else "steps", None)
    try:
        _put(values, key, tomllib.loads(f"v = {text}")["v"])
    except tomllib.TOMLDecodeError:
        _put(values, key, text)


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set ``table.name`` among plain values."""
    *tables, name = key.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"recipe: {key}={value!r}: {table!r} is no table.")
    values[name] = value


def _check_sum(table: CheckedRecord, *names: str) -> None:
    """Refuse two shares of one whole that are more than it."""
    if sum(getattr(table, name) for name in names) > 1:
        both = " and ".join(f"{name}={getattr(table, name)}" for name in names)
        raise ConfigError(f"{table.prefix}{both} sum to more than 1; lower one of them.")
