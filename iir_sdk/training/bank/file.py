"""A filled bank as a folder of files, from which any number of runs draw, whichever classes each leaves out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import nn

from iir_sdk.errors import ConfigError, DatasetError, DatasetNotFoundError
from iir_sdk.files import is_file, write_safetensors
from iir_sdk.model.backbone import Taps
from iir_sdk.training.bank.features import FeatureBank
from iir_sdk.training.bank.stream import PackedView, ViewBatch
from iir_sdk.training.bank.views import ClassKey, ViewMaker
from iir_sdk.training.config import TrainingConfig

_FORMAT = "iir_sdk.bank/5"
PART_VIEWS = 256
"""Views of a file: some minutes' work, and a quarter of a gigabyte."""

_DELETE = "delete it, and fill what is missing: iir-sdk bank ... --resume"
_OF_VIEWS = (
    *("seed", "exif", "pictures.view_size", "run.precision"),
    *("bank.views", "bank.views_of_picture", "bank.label_size", "bank.paste", "bank.paste_among"),
    *("bank.cutouts", "bank.cutout_classes", "bank.main_set"),
    *("model.backbone", "preprocessing.mean", "preprocessing.std"),
)
"""Not the weights of sets: a run may draw its episodes by others than the views were drawn by."""


def bank_origin(config: TrainingConfig, maker: ViewMaker, backbone: nn.Module) -> dict[str, Any]:
    """What decides a bank's views and features: settings of the recipe, the data, the backbone's weights."""
    settings = config.settings()
    weights = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.cpu().contiguous().numpy().tobytes())
    return {
        # As JSON has them: lists where the records have tuples.
        "recipe": json.loads(json.dumps({name: settings[name] for name in _OF_VIEWS})),
        "sets": sorted(maker.sets),
        "cutouts": len(maker.cutouts),
        "files": maker.digest(),
        "backbone": weights.hexdigest(),
    }


def parts_of(views: int) -> list[range]:
    """The numbers of the views of each file: :data:`PART_VIEWS`, or what is left."""
    return [range(first, min(first + PART_VIEWS, views)) for first in range(0, views, PART_VIEWS)]


def write_parts(folder: Path, origin: Mapping[str, Any], batches: Iterable[ViewBatch], parts: Iterable[range]) -> None:
    """Write the views of these parts as they come in order, a file each; the one in work is all that a stop loses."""
    coming = iter(batches)
    for part in parts:
        waiting: list[ViewBatch] = []
        while sum(len(batch.views) for batch in waiting) < len(part):
            waiting.append(next(coming))
        _write_part(folder / f"{part.start:06d}.safetensors", origin, waiting)


def _write_part(path: Path, origin: Mapping[str, Any], batches: Sequence[ViewBatch]) -> None:
    views = [view for batch in batches for view in batch.views]
    taps = [batch.taps for batch in batches if batch.taps is not None]
    joined = (torch.cat(maps).to(torch.bfloat16) for maps in zip(*taps, strict=True))
    tensors = dict(zip(Taps._fields, joined, strict=True))
    tensors["masks"] = torch.from_numpy(np.concatenate([view.masks for view in views]))
    ignores = [mask for view in views for mask in view.ignores.values()]
    if ignores:
        tensors["ignores"] = torch.from_numpy(np.stack(ignores))
    listed = json.dumps([_listed(view) for view in views], separators=(",", ":"))
    write_safetensors(path, tensors, {"format": _FORMAT, "origin": json.dumps(origin), "views": listed})


def missing_parts(folder: Path, origin: Mapping[str, Any], *, resume: bool) -> list[range]:
    """What a filling still has to make; a ConfigError for parts of another bank, or some without ``resume``."""
    parts = parts_of(origin["recipe"]["bank.views"])
    if not _files(folder):
        return parts
    if not resume:
        raise ConfigError(f"{folder} holds views; pass --resume to go on with them, or name another folder.")
    there, _ = _read_listings(folder, origin)
    return [part for part in parts if part not in there]


def check_bank(path: Path, origin: Mapping[str, Any]) -> str:
    """The sha256 of what a bank holds, by its listings; an error where it is none, not full, or of another origin."""
    if is_file(path):
        raise DatasetError(f"{path} is a file, a bank of this version a folder; fill it anew: iir-sdk bank")
    if not _files(path):
        raise DatasetNotFoundError(f"no bank at {str(path)!r}; fill it first: iir-sdk bank RECIPE --data ... --out ...")
    there, digest = _read_listings(path, origin)
    count, wanted = sum(len(part) for part in there), origin["recipe"]["bank.views"]
    if count < wanted:
        raise DatasetError(
            f"{path} holds {count} of {wanted} views: its filling was stopped, or goes on, or files were deleted; fill "
            "what is missing: iir-sdk bank ... --resume"
        )
    return digest


def _files(folder: Path) -> list[Path]:
    """A bank's, in the order of their views."""
    return sorted((p for p in folder.glob("*.safetensors") if p.stem.isdecimal()), key=lambda path: int(path.stem))


def _read_listings(folder: Path, origin: Mapping[str, Any]) -> tuple[list[range], str]:
    """The parts that are there, and the sha256 of what they hold."""
    there, digest = [], hashlib.sha256(json.dumps(origin, sort_keys=True).encode())
    parts = {part.start: part for part in parts_of(origin["recipe"]["bank.views"])}
    for path in _files(folder):
        with _opened(path) as file:
            metadata = file.metadata()
            _compare(folder, json.loads(metadata["origin"]), origin)
            first, count = int(path.stem), len(json.loads(metadata["views"]))
            if first not in parts or count != len(parts[first]):
                raise DatasetError(f"{path} holds {count} views, which is no part of this bank; {_DELETE}")
            there.append(parts[first])
            digest.update(metadata["views"].encode())
    return there, digest.hexdigest()


def read_bank(
    folder: Path,
    config: TrainingConfig,
    device: torch.device,
    allowed: Callable[[ClassKey], bool] | None = None,
    pictures: Container[str] | None = None,
) -> FeatureBank:
    """A bank as it was saved; on a CPU its features and masks stay in the files, and are read as they are asked for.

    The files are mapped into memory: runs that draw from one bank at once share what they have read. ``allowed`` and
    ``pictures`` as of :class:`FeatureBank`; where they leave nothing, that is a DatasetError.
    """
    bank = FeatureBank(config, device, allowed, pictures)
    for path in _files(folder):
        with _opened(path, str(device)) as file:
            taps = [file.get_tensor(name) for name in Taps._fields]
            names = set(file.keys())
            masks = file.get_tensor("masks").cpu().numpy()
            ignores = file.get_tensor("ignores").cpu().numpy() if "ignores" in names else masks[:0]
            bank.hold(taps, _views(json.loads(file.metadata()["views"]), masks, ignores))
    if not bank.used:
        raise DatasetError(
            f"every view in {folder} was made with a class, set or picture that this run leaves out; fill a larger one."
        )
    return bank


@contextmanager
def _opened(path: Path, device: str = "cpu") -> Iterator[Any]:
    try:
        with safe_open(path, "pt", device=device) as file:
            stated = (file.metadata() or {}).get("format")
            if stated != _FORMAT:
                raise DatasetError(
                    f"{path} has format {stated!r}, a bank of this version {_FORMAT!r}; fill it anew: iir-sdk bank"
                )
            yield file
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as a bank's: {error!r}; {_DELETE}") from error


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
        sorted(view.pasted),
    ]


def _views(listed: list[list[Any]], masks: NDArray[np.uint8], ignores: NDArray[np.uint8]) -> list[PackedView]:
    views, mask, ignore = [], 0, 0
    for keys, sources, present, made_of, places, photo, pasted in listed:
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
                frozenset(pasted),
            )
        )
        mask, ignore = mask + len(keys), ignore + len(places)
    return views


def _classes(listed: list[list[str]]) -> tuple[ClassKey, ...]:
    return tuple((set_name, name) for set_name, name in listed)
