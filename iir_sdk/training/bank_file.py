"""A filled bank as one file, from which any number of runs draw, whichever classes each leaves out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from iir_sdk.atomic_write import write_atomically
from iir_sdk.errors import ConfigError, DatasetError, DatasetNotFoundError
from iir_sdk.model.backbone import Taps
from iir_sdk.training.config import TrainingConfig
from iir_sdk.training.feature_bank import FeatureBank
from iir_sdk.training.view_stream import PackedView
from iir_sdk.training.views import ClassKey

_FORMAT = "iir_sdk.bank/1"
_OF_VIEWS = (
    "seed",
    "view_size",
    "label_size",
    "views",
    "paste",
    "cutouts",
    "cutout_classes",
    "main_set",
)
"""Not the weights of sets: a run may draw its episodes by others than the views were drawn by."""


def bank_origin(config: TrainingConfig, contents: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a bank's views and features: settings of the recipe, and the data."""
    settings = {name: getattr(config, name) for name in _OF_VIEWS}
    settings |= {"backbone": config.model.backbone, "late_features": config.model.late_features}
    settings |= {name: list(getattr(config.preprocessing, name)) for name in ("mean", "std")}
    return {"recipe": settings, "data": dict(contents)}


def save_bank(bank: FeatureBank, path: Path, origin: Mapping[str, Any]) -> None:
    """Write a full bank as ``.safetensors``.

    Raises:
        OutputError: it cannot be written.
    """
    views = [view for view in bank.views if view is not None]
    assert len(views) == len(bank.views)
    tensors = dict(zip(Taps._fields, bank.kept, strict=True))
    tensors["masks"] = torch.from_numpy(np.concatenate([view.masks for view in views]))
    ignores = [mask for view in views for mask in view.ignores.values()]
    if ignores:
        tensors["ignores"] = torch.from_numpy(np.stack(ignores))
    listed = json.dumps([_listed(view) for view in views], separators=(",", ":"))
    metadata = {"format": _FORMAT, "origin": json.dumps(origin), "views": listed}
    write_atomically(path, lambda beside: save_file(tensors, beside, metadata))


def read_bank(
    path: Path,
    config: TrainingConfig,
    origin: Mapping[str, Any],
    device: torch.device,
    allowed: Callable[[ClassKey], bool] | None = None,
) -> FeatureBank:
    """A bank as it was saved; on a CPU its features stay in the file, and are read as they are asked for.

    Args:
        path: the file.
        config: the recipe of the run.
        origin: :func:`bank_origin` of it.
        device: where features are kept.
        allowed: see :class:`FeatureBank`.

    Raises:
        DatasetNotFoundError: there is no such file.
        DatasetError: it is not a bank's.
        ConfigError: it was filled by another recipe or from other data.
    """
    if not path.is_file():
        raise DatasetNotFoundError(f"no bank at {str(path)!r}; fill it first: iir-sdk bank RECIPE --data ... --out ...")
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise DatasetError(f"{path} is not a bank of this version ({_FORMAT}); fill it anew: iir-sdk bank")
            _check_origin(path, json.loads(metadata["origin"]), json.loads(json.dumps(origin)))
            taps = [file.get_tensor(name) for name in Taps._fields]
            masks = file.get_tensor("masks").cpu().numpy()
            ignores = file.get_tensor("ignores").cpu().numpy() if "ignores" in file.keys() else masks[:0]  # noqa: SIM118
            views = _views(json.loads(metadata["views"]), masks, ignores)
    except SafetensorError as error:
        raise DatasetError(f"{path} cannot be read as a bank: {error}; fill it anew: iir-sdk bank") from error
    bank = FeatureBank(config, device, allowed)
    bank.hold(taps, views)
    return bank


def _check_origin(path: Path, kept: dict[str, Any], given: dict[str, Any]) -> None:
    for name, value in given["recipe"].items():
        if kept["recipe"].get(name) != value:
            raise ConfigError(
                f"{path} was filled with {name}={kept['recipe'].get(name)!r}, the recipe has {value!r}; "
                "fill another bank, or take its recipe."
            )
    if kept["data"] != given["data"]:
        raise ConfigError(f"{path} was filled from other sets or cut-outs than those given; name the same, or refill.")


def _listed(view: PackedView) -> list[Any]:
    return [
        view.keys,
        view.sources,
        sorted(view.present),
        sorted(view.made_of),
        list(view.ignores),
    ]


def _views(listed: list[list[Any]], masks: NDArray[np.uint8], ignores: NDArray[np.uint8]) -> list[PackedView]:
    views, mask, ignore = [], 0, 0
    for keys, sources, present, made_of, places in listed:
        own = {place: ignores[ignore + i] for i, place in enumerate(places)}
        views.append(
            PackedView(
                _classes(keys),
                tuple(sources),
                masks[mask : mask + len(keys)],
                own,
                frozenset(_classes(present)),
                frozenset(_classes(made_of)),
            )
        )
        mask, ignore = mask + len(keys), ignore + len(places)
    return views


def _classes(listed: list[list[str]]) -> tuple[ClassKey, ...]:
    return tuple((set_name, name) for set_name, name in listed)
