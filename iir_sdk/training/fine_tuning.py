"""Runs that start from trained weights: their architecture, their network, and where they say that they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iir_sdk.data.dataset import FewShotDataset
from iir_sdk.data.folder import JoinedSets
from iir_sdk.errors import ConfigError
from iir_sdk.model.iir import IIR
from iir_sdk.training.config import TrainingConfig, find_recipe, read_recipe, recipe_values
from iir_sdk.weights.checkpoint_file import Checkpoint

RECIPE = "finetune"
"""The recipe of such runs, unless another is named."""

_MAY_DIFFER = ("model.dropout",)
"""Of the architecture: what changes no weight and no prediction."""

_NAMED_SETS = 5


def read_fine_tuning(path: str | Path, overrides: Sequence[str], init: Checkpoint) -> TrainingConfig:
    """Read a recipe whose architecture and preprocessing are the checkpoint's, and whose crops fit them."""
    values, stated = recipe_values(path, overrides), _stated(init)
    # What is no table is refused by name below.
    named = {table: values[table] for table in stated if isinstance(values.get(table), dict)}
    _check_same(named, init)
    for table in stated.keys() - (values.keys() - named.keys()):
        values[table] = stated[table] | named.get(table, {})
    pictures = values.setdefault("pictures", {})
    if isinstance(pictures, dict):
        # As supports are seen, in whose scale queries are.
        pictures.setdefault("view_size", init.preprocessing.support_size)
    bank = values.setdefault("bank", {})
    if isinstance(bank, dict) and isinstance(pictures, dict) and isinstance(pictures["view_size"], int):
        bank.setdefault("label_size", max(4, pictures["view_size"] // 8 * 4))
    return TrainingConfig.from_dict(values)


def chosen_recipe(recipe: str | None, overrides: Sequence[str], init: Checkpoint | None) -> TrainingConfig:
    """A recipe by name or file; unless one is named ``finetune`` with a checkpoint, and ``duo`` without."""
    if init is None:
        return read_recipe(find_recipe(recipe or "duo"), overrides)
    return read_fine_tuning(find_recipe(recipe or RECIPE), overrides, init)


def started_from(init: Checkpoint, config: TrainingConfig) -> IIR:
    """A network of its own with the checkpoint's weights, whose decoder learns."""
    _check_same({"model": config.model.to_dict(), "preprocessing": config.preprocessing.to_dict()}, init)
    if config.model.base_classes:
        raise ConfigError(
            f"checkpoint {init.name!r} has a base learner, which knows {config.model.base_classes} classes by number "
            "alone; start from weights without one, or train by the recipe with --base-learner in place of --init."
        )
    model = IIR(config.model)
    model.load_state_dict(init.model.state_dict())
    return model


def described_run(init: Checkpoint, config: TrainingConfig, data: FewShotDataset) -> str:
    """One line on a run's weights: how long they were trained further, on what, from which with which licence."""
    sets = list(data.sets) if isinstance(data, JoinedSets) else [data.name]
    names = ", ".join(sets) if len(sets) <= _NAMED_SETS else f"{len(sets)} sets"
    long = f"{config.steps} steps" if config.steps else f"{config.epochs} epochs"
    origin = f"{init.name} (sha256 {init.sha256}, licence {init.entry.license})"
    text = "".join(c if c.isprintable() else "?" for c in f"{origin} for {long} on {names}")
    return f"Fine-tuned from {text}"[:999] + "."


def _stated(init: Checkpoint) -> dict[str, dict[str, Any]]:
    """The tables of a recipe that are the weights' own."""
    return {"model": init.model.config.to_dict(), "preprocessing": init.preprocessing.to_dict()}


def _check_same(tables: Mapping[str, Mapping[str, Any]], init: Checkpoint) -> None:
    """Refuse settings that the checkpoint's weights do not have."""
    stated, given = _dotted(_stated(init)), _dotted(tables)
    differing = {n: v for n, v in given.items() if n in stated and n not in _MAY_DIFFER and not _same(v, stated[n])}
    if differing:
        named = ", ".join(f"{name}={value!r}" for name, value in differing.items())
        # As TOML has it.
        cure = " ".join(f"--set {name}={json.dumps(stated[name], separators=(',', ':'))}" for name in differing)
        raise ConfigError(
            f"recipe: {named} contradicts {init.name!r}, the weights of --init; leave it out, as the recipe {RECIPE} "
            f"does, or {cure}"
        )


def _dotted(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{table}.{name}": value for table, of_table in tables.items() for name, value in of_table.items()}


def _same(given: Any, stated: Any) -> bool:
    """Whether two settings are, be it that one came as a list and one as a tuple."""
    return bool((tuple(given) if isinstance(given, list) else given) == stated)
