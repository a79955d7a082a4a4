"""A training recipe: a TOML file read into a frozen, checked record."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from iir_sdk.errors import ConfigError
from iir_sdk.model.config import ModelConfig
from iir_sdk.preprocessing import Preprocessing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a training run, apart from where the data lies.

    Attributes:
        model: the architecture.
        preprocessing: input size and normalisation.
        seed: of all draws.
        steps: optimiser steps.
        batch: episodes a step.
        shots: shots of a step's episodes, drawn evenly from this list.
        learning_rate: peak of the cosine schedule (AdamW).
        weight_decay: AdamW's.
        warmup: steps of linear warm-up.
        gradient_clip: largest gradient norm.
        ema: decay of the weight average that is saved.
        dice: weight of the Dice term.
        directional_dropout: cut inconsistent pairs in cross attention.
        absent: share of episodes whose query does not show the object.
        view_size: side of the augmented pictures in pixels, a multiple of 32.
        views: augmented pictures whose features are kept.
        refresh: views replaced by new ones at each step.
        paste: share of views with pasted objects.
        cutouts: share of pasted objects that are cut-outs with alpha (0 without a cutouts folder).
        cutout_classes: number of cut-outs used, each a class of its own.
        label_size: side of the kept masks in pixels.
        main_set: the set that half of the episodes come from; the others share the rest evenly.
        main_weight: that share.
        log_every: steps between lines of the log.
        save_every: steps between checkpoints.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    seed: int = 0
    steps: int = 2800
    batch: int = 8
    shots: tuple[int, ...] = (1, 1, 1, 2)
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 100
    gradient_clip: float = 1.0
    ema: float = 0.998
    dice: float = 1.0
    directional_dropout: bool = True
    absent: float = 0.04
    view_size: int = 384
    views: int = 8000
    refresh: int = 3
    paste: float = 0.4
    cutouts: float = 0.5
    cutout_classes: int = 400
    label_size: int = 192
    main_set: str = "coco"
    main_weight: float = 0.5
    log_every: int = 20
    save_every: int = 200

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: naming the key, its value and what was expected.
        """
        for name in ("steps", "batch", "views", "log_every", "save_every", "label_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"recipe: {name}={getattr(self, name)} must be at least 1.")
        for name in ("ema", "absent", "paste", "cutouts", "main_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"recipe: {name}={getattr(self, name)} must lie in [0, 1].")
        if self.view_size % 32 or self.view_size < 64:
            raise ConfigError(f"recipe: view_size={self.view_size} must be a multiple of 32 and at least 64.")
        if not self.shots or min(self.shots) < 1:
            raise ConfigError(f"recipe: shots={self.shots} must list numbers of at least 1.")
        if self.learning_rate <= 0 or self.gradient_clip <= 0:
            raise ConfigError("recipe: learning_rate and gradient_clip must be above 0.")

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
        _check_kinds(plain)
        return cls(**plain)

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
        raise ConfigError(f"no recipe at {str(path)!r}.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error
    for override in overrides:
        _apply(values, override)
    return TrainingConfig.from_dict(values)


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"override {override!r} is not key=value.")
    *tables, name = key.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
    try:
        values[name] = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        values[name] = text


def _check_kinds(values: Mapping[str, Any]) -> None:
    defaults = TrainingConfig()
    for key, value in values.items():
        default = getattr(defaults, key)
        expected: tuple[type, ...] = (int, float) if isinstance(default, float) else (type(default),)
        if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
            raise ConfigError(f"recipe: {key}={value!r} must be {expected[-1].__name__}.")
