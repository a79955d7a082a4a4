"""Puts a training run together: data, backbone weights, model, source of episodes, trainer."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from iir_sdk.data.dataset import CUTOUT_SET, FewShotDataset, Selection
from iir_sdk.data.exclusion import cutouts_among, cutouts_without, only_named, without_classes, without_sets
from iir_sdk.data.folder import PictureSet, join_sets, read_picture_sets
from iir_sdk.data.registry import benchmark
from iir_sdk.engines.devices import pick_device
from iir_sdk.errors import ConfigError, DatasetError
from iir_sdk.evaluation.evaluate import Protocol, draw_episodes, evaluate_set
from iir_sdk.files import check_writable_place, made_folder
from iir_sdk.model.backbone import VitBackbone
from iir_sdk.model.iir import IIR
from iir_sdk.segmenter import FewShotSegmenter
from iir_sdk.training.bank.allocation import fitting
from iir_sdk.training.bank.file import bank_origin, check_bank, missing_parts, write_parts
from iir_sdk.training.bank.views import ViewMaker, read_cutouts
from iir_sdk.training.config import TrainingConfig, read_names
from iir_sdk.training.convert import load_backbone_weights, load_classifier, load_in_order, read_state
from iir_sdk.training.episode_pictures import EpisodeStream
from iir_sdk.training.fine_tuning import described_run, started_from
from iir_sdk.training.pretrain import adapt_classifier, part_classes, pretrain_base_learner, save_part
from iir_sdk.training.run.loop import Trainer, Validate
from iir_sdk.training.run.processes import Processes
from iir_sdk.training.sources import BankSource, EpisodeSource, FilledBank, PictureSource
from iir_sdk.weights.checkpoint_file import Checkpoint, save_checkpoint

VALIDATION_SEED = 1_000_003
"""Of the episodes that choose among a run's weights: none that scores are reported for."""


@dataclass(frozen=True)
class TrainedParts:
    """What the network of a run starts from: files with parts of it, or all of a checkpoint.

    Attributes:
        backbone: its ImageNet weights; None for those of its package, or the Hub's.
        classifier: another linear classifier, as ``iir-sdk pretrain`` writes it.
        base_learner: of a recipe with base classes, as ``iir-sdk pretrain`` writes it.
        init: trained weights in place of all of these, see :mod:`iir_sdk.training.fine_tuning`.
    """

    backbone: Path | None = None
    classifier: Path | None = None
    base_learner: Path | None = None
    init: Checkpoint | None = None

    def digests(self) -> dict[str, str]:
        """The sha256 of each file that is named and there, and of the checkpoint."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        files = {n: p for n, p in named.items() if isinstance(p, Path) and p.is_file()}
        digests = {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in files.items()}
        return digests | ({"init": self.init.sha256} if self.init else {})


def build_trainer(
    config: TrainingConfig,
    data: Path,
    folder: Path,
    *,
    cutouts: Path | None = None,
    bank: Path | None = None,
    novel: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    only: Sequence[str] = (),
    validation: Path | None = None,
    parts: TrainedParts | None = None,
    device: str = "auto",
    workers: int = 2,
    processes: Processes | None = None,
) -> Trainer:
    """A trainer by a recipe.

    Args:
        data: one set, a folder of sets, or the root of the recipe's benchmark.
        cutouts: folder of cut-outs with alpha, for the bank.
        bank: folder that :func:`fill_bank` filled, of all classes; None fills one for this run alone.
        novel: classes whose masks must not be seen, of sets of one's own.
        leave_out: sets of ``data`` that are not used, or ``cutouts``.
        only: sets, pictures as ``set/stem`` and cut-outs that alone are used, or lists of them, see
            :func:`iir_sdk.data.exclusion.read_names`; none for all.
        validation: sets to validate on; benchmarks have their own.
        parts: what the network starts from.
        workers: processes that read and augment pictures.

    Raises:
        IirError: missing data, missing weights, or settings that do not fit.
    """
    processes, parts = processes or Processes(), parts or TrainedParts()
    _check_workers(workers)
    torch.manual_seed(config.seed)
    # First of all, since it is what is most often missing.
    every = read_picture_sets(data, exif=config.exif) if config.dataset == "folder" else []
    names = read_names(only)
    chosen_sets = only_named(every, names) if every else []
    sets = without_classes(without_sets(chosen_sets, leave_out), novel)
    _check_bank_options(config, every, sets, bank, (*leave_out, *only))
    config = fitting(config, every if bank else sets)
    _check_convention(config, bank, novel)
    source_data = _training_data(config, data, sets)
    score = _scorer(config, data, folder, validation, device)
    model = build_model(config, parts, base_classes=tuple(source_data.classes))
    chosen = processes.device_of(device)
    model.to(chosen)
    source: EpisodeSource
    if config.source == "bank":
        files = read_cutouts(cutouts) if cutouts else []
        used = [] if CUTOUT_SET in leave_out else cutouts_without(cutouts_among(files, names), novel)
        maker, filled = ViewMaker(sets, used, config), None
        if bank:
            whole = ViewMaker(every, files, config)
            filled = FilledBank(bank, check_bank(bank, bank_origin(config, whole, model.backbone)))
            # Of the cut-outs that its views were made of, those that are left.
            left = set(used)
            maker = ViewMaker(sets, [file for file in whole.cutouts if file in left], config)
        source = BankSource(
            maker, model.backbone, config, device=chosen, workers=workers, processes=processes, filled=filled
        )
    else:
        stream = EpisodeStream(source_data, config, group=config.episodes.batch * processes.count)
        source = PictureSource(stream, model.backbone, config, device=chosen, workers=workers, processes=processes)
    return Trainer(
        *(model, source, config, folder),
        device=chosen,
        processes=processes,
        validate=score,
        parts=parts.digests(),
        description=described_run(parts.init, config, source_data) if parts.init else None,
    )


def fill_bank(
    config: TrainingConfig,
    data: Path,
    out: Path,
    *,
    cutouts: Path | None = None,
    parts: TrainedParts | None = None,
    device: str = "auto",
    workers: int = 2,
    resume: bool = False,
    processes: Processes | None = None,
) -> int:
    """Fill a bank with views of every set and cut-out and write it, for runs that each leave out what they must.

    Args:
        config: the recipe.
        data: one set, or a folder of sets.
        out: folder of the bank, made if missing.
        cutouts: folder of cut-outs with alpha.
        parts: whose backbone is taken.
        device: ``auto`` or a torch device.
        workers: processes that make views, of each of ``processes``.
        resume: make what is missing of a filling that was stopped, by however many processes.
        processes: that see the same folders and make each its share of the files; None for this one alone.

    Returns:
        The number of views.

    Raises:
        IirError: missing data or weights, or a recipe without a bank.
        SystemExit: the same in several processes, one of which has said why.
    """
    processes = processes or Processes()
    # No file is written before all have listed those that are there.
    with processes.together():
        if config.source != "bank" or config.dataset != "folder":
            raise ConfigError("only recipes with source='bank' and dataset='folder' have a bank to fill.")
        _check_workers(workers)
        made_folder(out)
        sets = read_picture_sets(data, exif=config.exif)
        config = fitting(config, sets)
        maker = ViewMaker(sets, read_cutouts(cutouts) if cutouts else [], config)
        chosen = processes.device_of(device)
        backbone = build_model(config, parts or TrainedParts()).backbone
        origin = bank_origin(config, maker, backbone)
        missing = missing_parts(out, origin, resume=resume)
        source = BankSource(maker, backbone.to(chosen), config, device=chosen, workers=workers, processes=processes)
        if processes.first:
            source.announce(sum(len(part) for part in missing), processes=processes.count, folder=out)
    share = missing[processes.rank :: processes.count]
    write_parts(out, origin, source.views([number for part in share for number in part]), share)
    processes.wait()
    with processes.together():
        if missing_parts(out, origin, resume=True):
            raise DatasetError(
                f"{out} lacks views that other processes wrote: they see another folder by this name. Copy the files "
                "of all into one, or fill what is missing: iir-sdk bank ... --resume"
            )
    return config.bank.views


def run_pretraining(
    part: str,
    config: TrainingConfig,
    data: Path,
    out: Path,
    *,
    steps: int,
    parts: TrainedParts | None = None,
    device: str = "auto",
    workers: int = 0,
) -> list[float]:
    """Train the base learner (``part="base-learner"``) or the classifier and write it.

    Args:
        part: which.
        config: the recipe; its base classes are the data's.
        data: as for :func:`build_trainer`.
        out: file to write.
        steps: optimiser steps.
        parts: what the network starts from.
        device: ``auto`` or a torch device.
        workers: processes that read pictures.

    Returns:
        The loss of each step.

    Raises:
        IirError: missing data, missing weights, settings that do not fit, or no place to write to.
    """
    # Now, and not when all is trained.
    _check_workers(workers)
    check_writable_place(out)
    torch.manual_seed(config.seed)
    sets = read_picture_sets(data, exif=config.exif) if config.dataset == "folder" else []
    dataset, chosen = _training_data(config, data, sets), pick_device(device)
    plain = config.changed({"model.base_classes": 0})
    backbone = build_model(plain, parts or TrainedParts()).backbone.to(chosen)
    if part == "classifier":
        losses = adapt_classifier(backbone, dataset, config, steps=steps, device=chosen, workers=workers)
        save_part(backbone.classifier, out)
        return losses
    if config.model.base_classes != len(dataset.classes):
        raise ConfigError(
            f"the recipe has base_classes={config.model.base_classes}, the data {len(dataset.classes)} base classes; "
            f"--set model.base_classes={len(dataset.classes)}, here and when training."
        )
    learner, losses = pretrain_base_learner(backbone, dataset, config, steps=steps, device=chosen, workers=workers)
    save_part(learner, out, tuple(dataset.classes))
    return losses


def build_model(config: TrainingConfig, parts: TrainedParts, *, base_classes: Sequence[str] = ()) -> IIR:
    """The recipe's network with all that is trained elsewhere loaded.

    Args:
        config: the recipe.
        parts: the files.
        base_classes: those that the run trains on; a base learner must know them and no others.

    Raises:
        IirError: weights are missing or do not fit, or the backbone cannot be split.
    """
    if parts.init is not None:
        if parts != TrainedParts(init=parts.init):
            raise ConfigError("--init has all parts: leave out --backbone-weights, --classifier and --base-learner.")
        return started_from(parts.init, config)
    if config.model.presence:
        raise ConfigError("model.presence=true is fitted after training: leave it out, then iir-sdk calibrate RUN.")
    model = IIR(config.model)
    load_backbone_weights(model.backbone, config.model.backbone, parts.backbone)
    if parts.classifier:
        load_classifier(model.backbone, parts.classifier)
    elif isinstance(model.backbone, VitBackbone):
        raise ConfigError(f"backbone {config.model.backbone!r} has no ImageNet head of its own: pass one: --classifier")
    if model.base_learner is None and parts.base_learner is not None:
        raise ConfigError("this recipe has no base learner; leave --base-learner out, or set model.base_classes.")
    if model.base_learner is not None:
        if parts.base_learner is None:
            raise ConfigError(
                f"the recipe has a base learner of {config.model.base_classes} classes: train it first, with "
                "iir-sdk pretrain, and pass it with --base-learner, or leave it out: --set model.base_classes=0"
            )
        if config.source == "bank":
            raise ConfigError("a base learner needs source='pictures'; set model.base_classes=0 for the bank.")
        known = part_classes(parts.base_learner)
        if known != tuple(base_classes):
            strange = sorted(set(known) ^ set(base_classes))[:3]
            raise ConfigError(
                f"{parts.base_learner} was trained on other classes than this run's (as {', '.join(strange)}); "
                "was it for another fold?"
            )
        load_in_order(model.base_learner, read_state(parts.base_learner))
        model.base_learner.requires_grad_(False)
    check_split(model, config.pictures.view_size, config.model.backbone)
    return model


def check_split(model: IIR, size: int, name: str) -> None:
    """Refuse a backbone whose last stage cannot be run on a changed map.

    Raises:
        ConfigError: naming it.
    """
    images = torch.randn(1, 3, size, size)
    try:
        with torch.inference_mode():
            in_order = model.backbone.check_order(images)
    except (RuntimeError, NotImplementedError, TypeError, AssertionError):
        in_order = False
    if not in_order:
        raise ConfigError(
            f"backbone {name!r} at {size} px does not run its stages one after the other, so its last stage cannot "
            "be run on a changed map; choose another."
        )


def _check_workers(workers: int) -> None:
    if workers < 0:
        raise ConfigError(f"workers={workers} must be at least 0, which reads pictures in this process.")


def _check_bank_options(
    config: TrainingConfig,
    every: Sequence[PictureSet],
    sets: Sequence[PictureSet],
    bank: Path | None,
    leave_out: Sequence[str],
) -> None:
    if config.source != "bank" and (bank or CUTOUT_SET in leave_out):
        raise ConfigError(f"a bank and cut-outs go with source='bank', the recipe has {config.source!r}.")
    if leave_out and config.dataset != "folder":
        raise ConfigError(
            f"--leave-out and --only {leave_out[0]} go with dataset='folder', the recipe has {config.dataset!r}."
        )
    if every and not sets:
        names = ", ".join(s.name for s in every)
        raise DatasetError(f"all classes of {names} are left out; leave out fewer, or pass more sets.")
    photos, needed = sum(len(s.images) for s in sets), max(config.episodes.shots) + 1
    if config.episodes.shared_regions and photos < needed:
        raise DatasetError(
            f"a region that photos share needs {needed} of them, not {photos}; add pictures, or "
            "--set episodes.shared_regions=0"
        )


def _check_convention(config: TrainingConfig, bank: Path | None, novel: Sequence[str]) -> None:
    if novel and config.dataset != "folder":
        raise ConfigError(
            f"dataset={config.dataset!r} has folds of its own: --set fold=F in place of --exclude-fold F."
        )
    if config.dataset == "folder" and config.convention == "filtered" and novel and not bank:
        raise ConfigError(
            "convention='filtered' leaves out the views that show a held-out class, which only a kept bank of all "
            "classes tells: fill one with iir-sdk bank and pass it with --bank."
        )


def _training_data(config: TrainingConfig, data: Path, sets: Sequence[PictureSet]) -> FewShotDataset:
    if config.dataset == "folder":
        return join_sets(sets)
    if config.source == "bank":
        raise ConfigError(f"dataset={config.dataset!r} needs source='pictures'; the bank reads folders of one's own.")
    return benchmark(config.dataset).read(data, Selection(config.fold, "train", config.convention))


def _scorer(config: TrainingConfig, data: Path, folder: Path, validation: Path | None, device: str) -> Validate | None:
    if not config.run.validate_every:
        return None
    if config.dataset != "folder":
        sets: list[FewShotDataset] = [benchmark(config.dataset).read(data, Selection(config.fold, "test"))]
        share = 0.0
    elif validation is None:
        raise ConfigError(
            "the recipe validates: name sets to validate on by --validation, or set run.validate_every=0."
        )
    else:
        sets, share = list(read_picture_sets(validation, exif=config.exif)), 0.01
    # Benchmarks are validated on the classes that they are tested on, as is usual; not on the episodes of a score.
    protocol = Protocol(episodes=config.run.validate_episodes, seeds=(VALIDATION_SEED,), min_share=share)
    drawn = [draw_episodes(s, protocol) for s in sets]

    def score(model: IIR) -> float:
        # As users will load it: half precision, its own preprocessing.
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            file = Path(scratch) / "validated.safetensors"
            save_checkpoint(model, config.preprocessing, file)
            segmenter = FewShotSegmenter(file, device=device)
        scores = [evaluate_set(segmenter, s, protocol, episodes=e) for s, e in zip(sets, drawn, strict=True)]
        return sum(s.miou for s in scores) / len(scores)

    return score
