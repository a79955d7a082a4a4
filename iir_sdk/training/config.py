"""A training recipe: a TOML file read into a frozen, checked record."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from iir_sdk.errors import ConfigError, DatasetNotFoundError
from iir_sdk.files import is_file
from iir_sdk.model.config import ModelConfig
from iir_sdk.pictures.preprocess import Preprocessing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_CHOICES = {
    "source": ("bank", "pictures"),
    "optimizer": ("adamw", "sgd"),
    "schedule": ("cosine", "poly"),
    "precision": ("auto", "bfloat16", "float32"),
    "convention": ("unfiltered", "filtered"),
    "exif": ("auto", "shown", "stored"),
}
_AT_LEAST_ONE = (
    "batch",
    "views",
    "enough_pictures",
    "log_every",
    "save_every",
    "label_size",
    "accumulate",
    "validate_episodes",
)
_AT_LEAST_ZERO = (
    *("steps", "epochs", "warmup", "validate_every", "fold", "dice", "rotation", "weight_decay"),
    *("cutout_classes", "seed"),
)
_ABOVE_ZERO = ("learning_rate", "gradient_clip", "poly_power")
_SEEDS = 1 << 32
_SHARES = (
    *("ema", "absent", "paste", "cutouts", "main_weight", "cutout_weight", "blur", "momentum", "full_share"),
    *("regions", "shared_regions"),
)


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a training run, apart from where the data lies.

    Attributes:
        model: the architecture.
        preprocessing: input size and normalisation.
        source: ``bank`` draws episodes from kept features of augmented views, fast on a CPU; ``pictures`` runs the
            backbone on every episode's pictures, as the benchmarks do.
        dataset: name of the benchmark (``folder`` for sets of one's own).
        fold: whose classes are held out, on benchmarks that have folds.
        convention: whether training pictures may show held-out classes (``unfiltered``) or not (``filtered``; of a
            bank, its views).
        exif: what the masks of one's own sets were drawn on, the pictures as ``shown`` or as ``stored``.
        seed: of all draws.
        steps: optimiser steps; 0 where ``epochs`` says.
        epochs: passes over the training pictures, with source ``pictures``; 0 where ``steps`` says.
        batch: episodes of a process's batch.
        accumulate: batches of one optimiser step.
        shots: shots of a batch's episodes, drawn evenly from this list.
        optimizer: ``adamw`` or ``sgd``.
        learning_rate: peak of the schedule.
        momentum: SGD's.
        weight_decay: the optimiser's.
        schedule: ``cosine`` to a fiftieth, or ``poly`` to zero.
        poly_power: exponent of ``poly``.
        warmup: steps of linear warm-up.
        gradient_clip: largest gradient norm.
        precision: of autocast on the model's forward pass; ``auto`` is bfloat16 where the device computes in it.
        ema: decay of the weight average that is saved, reached by degrees; 0 saves the weights themselves.
        dice: weight of the Dice term.
        directional_dropout: cut inconsistent pairs in cross attention.
        view_size: side of the augmented pictures in pixels.
        label_size: side of the bank's kept masks in pixels.
        scale: range of random resizing, with source ``pictures``.
        rotation: largest angle in degrees, with source ``pictures``.
        blur: share of blurred pictures, with source ``pictures``.
        absent: share of the bank's episodes of labelled classes whose query does not show the object.
        full_share: with a bank, queries whose object covers less than this share of them are drawn the less often the
            smaller it is; another episode is drawn in their place, of any class, so that sets of small things come a
            little less often than their weights say, and absent queries a little more. 0 draws all alike; regions
            always are.
        views: augmented pictures whose features the bank keeps; fewer where there are few pictures, see below.
        views_of_picture: the least and the largest number of a picture's views, where ``views`` allow it: a bank has no
            more views than its pictures' largest numbers sum to.
        enough_pictures: sets with fewer pictures are asked for the less often the fewer they have.
        paste: share of views with pasted objects.
        paste_among: a list of sets and pictures, as ``open_sets``: its pictures get objects of its own pasted alone, so
            that runs with ``--only`` this list may use all their views. Empty for none.
        cutouts: share of pasted objects that are cut-outs with alpha (0 without a cutouts folder).
        cutout_classes: number of cut-outs used, each a class of its own.
        main_set: the set that ``main_weight`` of the bank's episodes come from, of those of labelled classes as of
            those of one photo's regions; the others share the rest by the square root of their number of classes.
        main_weight: that share.
        cutout_weight: share of the labelled episodes that ask for a cut-out; 0 draws them as one of the other sets.
        regions: share of all of the bank's episodes that ask for a region of one photo, which nobody labelled, in
            another crop of it.
        shared_regions: share of all that asks for a region in another photo, of whatever set.
        validate_every: steps between validations, whose best weights are kept; 0 for none.
        validate_episodes: episodes of a validation.
        log_every: steps between lines of the log.
        save_every: steps between checkpoints.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    source: Literal["bank", "pictures"] = "bank"
    dataset: str = "folder"
    fold: int = 0
    convention: Literal["unfiltered", "filtered"] = "unfiltered"
    exif: Literal["auto", "shown", "stored"] = "auto"
    seed: int = 0
    steps: int = 2800
    epochs: int = 0
    batch: int = 8
    accumulate: int = 1
    shots: tuple[int, ...] = (1, 1, 1, 2)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.05
    schedule: Literal["cosine", "poly"] = "cosine"
    poly_power: float = 0.9
    warmup: int = 100
    gradient_clip: float = 1.0
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    ema: float = 0.998
    dice: float = 1.0
    directional_dropout: bool = True
    view_size: int = 384
    label_size: int = 192
    scale: tuple[float, ...] = (0.9, 1.1)
    rotation: float = 10.0
    blur: float = 0.5
    absent: float = 0.04
    full_share: float = 0.0
    views: int = 8000
    views_of_picture: tuple[int, ...] = (2, 12)
    enough_pictures: int = 30
    paste: float = 0.4
    paste_among: str = ""
    cutouts: float = 0.5
    cutout_classes: int = 400
    main_set: str = "coco"
    main_weight: float = 0.5
    cutout_weight: float = 0.0
    regions: float = 0.0
    shared_regions: float = 0.0
    validate_every: int = 0
    validate_episodes: int = 200
    log_every: int = 20
    save_every: int = 200

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: naming the key, its value and what was expected.
        """
        for f in fields(self):
            _check_finite(f.name, getattr(self, f.name))
        for names, low in ((_AT_LEAST_ONE, 1), (_AT_LEAST_ZERO, 0)):
            for name in names:
                if not getattr(self, name) >= low:
                    raise ConfigError(f"recipe: {name}={getattr(self, name)} must be at least {low}.")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"recipe: {name}={getattr(self, name)} must lie in [0, 1].")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"recipe: {name}={getattr(self, name)!r} must be one of {', '.join(choices)}.")
        if self.main_weight + self.cutout_weight > 1:
            raise ConfigError(
                f"recipe: main_weight={self.main_weight} and cutout_weight={self.cutout_weight} sum to more "
                "than 1; lower one of them."
            )
        if self.regions + self.shared_regions > 1:
            raise ConfigError(
                f"recipe: regions={self.regions} and shared_regions={self.shared_regions} sum to more than 1; lower "
                "one of them."
            )
        if self.asks_for_regions and self.source != "bank":
            raise ConfigError(
                f"recipe: regions={self.regions} and shared_regions={self.shared_regions} need source='bank', not "
                f"{self.source!r}; or set both to 0."
            )
        if self.seed >= _SEEDS:
            raise ConfigError(f"recipe: seed={self.seed} must be below {_SEEDS}.")
        if self.label_size % 4:
            raise ConfigError(f"recipe: label_size={self.label_size} must be a multiple of 4: masks are kept as bits.")
        if self.view_size < 64:
            raise ConfigError(f"recipe: view_size={self.view_size} must be at least 64.")
        if not self.shots or not all(isinstance(shots, int) and shots >= 1 for shots in self.shots):
            raise ConfigError(f"recipe: shots={self.shots} must list whole numbers of at least 1.")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"recipe: scale={self.scale} must be a lowest and a largest factor above 0.")
        if len(self.views_of_picture) != 2 or not 0 < self.views_of_picture[0] <= self.views_of_picture[1]:
            raise ConfigError(
                f"recipe: views_of_picture={self.views_of_picture} must be a least and a largest number of at least 1."
            )
        for name in _ABOVE_ZERO:
            if not getattr(self, name) > 0:
                raise ConfigError(f"recipe: {name}={getattr(self, name)} must be above 0.")
        if bool(self.steps) == bool(self.epochs):
            raise ConfigError(f"recipe: steps={self.steps} and epochs={self.epochs}: one must be given, the other 0.")
        if self.epochs and self.source == "bank":
            raise ConfigError(f"recipe: epochs={self.epochs} needs source='pictures'; for a bank set steps.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingConfig:
        """Build from plain values, ``model`` and ``preprocessing`` as tables.

        Raises:
            ConfigError: on an unknown key or a value that does not fit.
        """
        known = {f.name: f for f in fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(f"recipe: unknown key {unknown[0]!r}; known keys: {', '.join(known)}.")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        if isinstance(plain.get("model"), Mapping):
            plain["model"] = ModelConfig.from_dict(plain["model"])
        if isinstance(plain.get("preprocessing"), Mapping):
            plain["preprocessing"] = Preprocessing.from_dict(plain["preprocessing"])
        if plain.get("epochs"):
            plain.setdefault("steps", 0)
        _check_kinds(plain)
        return cls(**plain)

    @property
    def asks_for_regions(self) -> bool:
        """Whether any episode asks for a region that nobody labelled."""
        return self.regions + self.shared_regions > 0

    def is_kept_as(self, values: Mapping[str, Any]) -> bool:
        """Whether plain values, as a run keeps them, are this recipe; keys that came since have their defaults."""
        try:
            return TrainingConfig.from_dict(values) == self
        except ConfigError:
            # Such as a key that is gone.
            return False

    def to_dict(self) -> dict[str, Any]:
        """The plain values, as :meth:`from_dict` takes them."""
        return asdict(self)


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read a TOML recipe and apply ``key=value`` overrides (``model.width=64`` reaches into a table).

    Raises:
        ConfigError: the file is missing or is not TOML, or a key or value does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no recipe at {str(path)!r}; those of the package: {', '.join(packaged_recipes())}.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error
    for override in overrides:
        _apply(values, override)
    return TrainingConfig.from_dict(values)


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
    """Names of sets as they are; those that end in ``.txt``, or that the package has a list of, read line by line.

    Raises:
        DatasetNotFoundError: there is no such file.
    """
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
    if not separator:
        raise ConfigError(f"override {override!r} is not key=value.")
    *tables, name = key.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"override {override!r}: {table!r} is not a table.")
    if not tables and name in ("steps", "epochs"):
        # The one given last decides how long.
        values.pop("epochs" if name == "steps" else "steps", None)
    try:
        values[name] = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        values[name] = text


def _check_finite(name: str, value: Any) -> None:
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise ConfigError(f"recipe: {name}={value} must be finite.")


def _check_kinds(values: Mapping[str, Any]) -> None:
    defaults = TrainingConfig()
    for key, value in values.items():
        default = getattr(defaults, key)
        expected: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
        if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
            raise ConfigError(f"recipe: {key}={value!r} must be {expected[-1].__name__}.")
        if isinstance(value, tuple) and not all(isinstance(v, (int, float)) for v in value):
            raise ConfigError(f"recipe: {key}={value!r} must list numbers.")
