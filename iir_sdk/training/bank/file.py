"""A filled bank as one file, from which any number of runs draw, whichever classes each leaves out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from iir_sdk.errors import ConfigError, DatasetError, DatasetNotFoundError, OutputError
from iir_sdk.files import write_atomically
from iir_sdk.model.backbone import Taps
from iir_sdk.training.bank.features import FeatureBank
from iir_sdk.training.bank.stream import PackedView
from iir_sdk.training.bank.views import ClassKey, ViewMaker
from iir_sdk.training.config import TrainingConfig

_FORMAT = "iir_sdk.bank/3"
_OF_VIEWS = (
    "seed",
    "view_size",
    "label_size",
    "precision",
    "views",
    "paste",
    "cutouts",
    "cutout_classes",
    "main_set",
    "exif",
)
"""Not the weights of sets: a run may draw its episodes by others than the views were drawn by."""


def bank_origin(config: TrainingConfig, maker: ViewMaker, backbone: nn.Module) -> dict[str, Any]:
    """What decides a bank's views and features: settings of the recipe, the data, the backbone's weights.

    Args:
        config: the recipe.
        maker: of views of all sets and cut-outs.
        backbone: with its weights loaded.
    """
    settings = {name: getattr(config, name) for name in _OF_VIEWS}
    settings |= {f"model.{name}": getattr(config.model, name) for name in ("backbone", "late_features")}
    settings |= {f"preprocessing.{name}": list(getattr(config.preprocessing, name)) for name in ("mean", "std")}
    weights = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.cpu().contiguous().numpy().tobytes())
    return {
        "recipe": settings,
        "sets": sorted(maker.sets),
        "cutouts": len(maker.cutouts),
        "files": maker.digest(),
        "backbone": weights.hexdigest(),
    }


def save_bank(bank: FeatureBank, path: Path, origin: Mapping[str, Any]) -> None:
    """Write a full bank as ``.safetensors``.

    Args:
        bank: all of its views are there.
        path: of the file.
        origin: of :func:`bank_origin`.

    Raises:
        OutputError: it cannot be written.
    """
    views = bank.views
    assert len(views) == bank.config.views
    tensors = dict(zip(Taps._fields, bank.kept, strict=True))
    tensors["masks"] = torch.from_numpy(np.concatenate([view.masks for view in views]))
    ignores = [mask for view in views for mask in view.ignores.values()]
    if ignores:
        tensors["ignores"] = torch.from_numpy(np.stack(ignores))
    listed = json.dumps([_listed(view) for view in views], separators=(",", ":"))
    metadata = {"format": _FORMAT, "origin": json.dumps(origin), "views": listed}
    try:
        write_atomically(path, lambda beside: save_file(tensors, beside, metadata))
    except SafetensorError as error:
        # What the library makes of a full disk.
        raise OutputError(f"cannot write {str(path)!r}: {error}; is there room for it?") from error


def check_bank(path: Path, origin: Mapping[str, Any]) -> str:
    """Compare a file's origin with what a run asks for, without reading its features.

    Args:
        path: of the file.
        origin: of :func:`bank_origin`, as the run has it.

    Returns:
        The sha256 of what the bank holds: its origin and all its views.

    Raises:
        DatasetNotFoundError: there is no such file.
        DatasetError: it is not a bank's.
        ConfigError: it was filled by another recipe, from other data, or with another backbone.
    """
    if not path.is_file():
        raise DatasetNotFoundError(f"no bank at {str(path)!r}; fill it first: iir-sdk bank RECIPE --data ... --out ...")
    with _opened(path) as file:
        metadata = file.metadata()
        _compare(path, json.loads(metadata["origin"]), origin)
        return hashlib.sha256((metadata["origin"] + metadata["views"]).encode()).hexdigest()


def read_bank(
    path: Path, config: TrainingConfig, device: torch.device, allowed: Callable[[ClassKey], bool] | None = None
) -> FeatureBank:
    """A bank as it was saved; on a CPU its features stay in the file, and are read as they are asked for.

    Args:
        path: the file, of :func:`check_bank`.
        config: the recipe of the run.
        device: where features are kept.
        allowed: see :class:`FeatureBank`.

    Raises:
        DatasetError: it is not a bank's, or nothing in it may be used.
    """
    with _opened(path, str(device)) as file:
        taps = [file.get_tensor(name) for name in Taps._fields]
        names = set(file.keys())
        masks = file.get_tensor("masks").cpu().numpy()
        ignores = file.get_tensor("ignores").cpu().numpy() if "ignores" in names else masks[:0]
        views = _views(json.loads(file.metadata()["views"]), masks, ignores)
    bank = FeatureBank(config, device, allowed)
    bank.hold(taps, views)
    if not bank.used:
        raise DatasetError(
            f"every view in {path} was made with a class or set that this run leaves out; fill a larger one."
        )
    return bank


@contextmanager
def _opened(path: Path, device: str = "cpu") -> Iterator[Any]:
    cure = "fill it anew: iir-sdk bank"
    try:
        with safe_open(path, "pt", device=device) as file:
            found = (file.metadata() or {}).get("format")
            if found != _FORMAT:
                raise DatasetError(f"{path} has format {found!r}, a bank of this version {_FORMAT!r}; {cure}")
            yield file
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as a bank: {error!r}; {cure}") from error


def _compare(path: Path, kept: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for name, value in given["recipe"].items():
        if kept["recipe"].get(name) != value:
            raise ConfigError(
                f"{path} was filled with {name}={kept['recipe'].get(name)!r}, the run has {value!r}; "
                f"--set {name} as it was, or fill another bank."
            )
    if kept["backbone"] != given["backbone"]:
        raise ConfigError(f"{path} was filled with other weights of the backbone; pass the same --backbone-weights.")
    for name, what in (("sets", "the sets"), ("cutouts", "this many cut-outs:")):
        if kept[name] != given[name]:
            raise ConfigError(
                f"{path} was filled from {what} {kept[name]}, the run has {given[name]}; pass the same --data and "
                "--cutouts, and leave sets out with --leave-out."
            )
    if kept["files"] != given["files"]:
        raise ConfigError(f"files of --data or --cutouts have changed since {path} was filled; fill it anew.")


def _listed(view: PackedView) -> list[Any]:
    return [
        view.keys,
        [sorted(sources) for sources in view.sources],
        sorted(view.present),
        sorted(view.made_of),
        list(view.ignores),
        view.photo,
    ]


def _views(listed: list[list[Any]], masks: NDArray[np.uint8], ignores: NDArray[np.uint8]) -> list[PackedView]:
    views, mask, ignore = [], 0, 0
    for keys, sources, present, made_of, places, photo in listed:
        own = {place: ignores[ignore + i] for i, place in enumerate(places)}
        views.append(
            PackedView(
                _classes(keys),
                tuple(frozenset(of_object) for of_object in sources),
                masks[mask : mask + len(keys)],
                own,
                frozenset(_classes(present)),
                frozenset(_classes(made_of)),
                photo,
            )
        )
        mask, ignore = mask + len(keys), ignore + len(places)
    return views


def _classes(listed: list[list[str]]) -> tuple[ClassKey, ...]:
    return tuple((set_name, name) for set_name, name in listed)
