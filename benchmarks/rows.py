"""What is timed in one process: the segmenter on one of the demo's pictures, setting by setting."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from interleaved import Row

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.engines.devices import computes_in_bfloat16
from iir_sdk.errors import ConfigError
from iir_sdk.pictures.load import load_picture
from iir_sdk.pictures.masks import load_mask
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.weights.checkpoint_file import Checkpoint
from iir_sdk.weights.resolve import load_checkpoint

SHOTS, LABELS, BATCHES, SIDES = (5, 20, 50), (5, 20), (8, 32), (256, 384, 512, 1024)
RUNTIMES = {
    "ONNX Runtime": {"backend": "onnxruntime"},
    "OpenVINO": {"backend": "openvino"},
    "OpenVINO bf16": {"backend": "openvino", "dtype": "bfloat16"},
}


class Scene:
    """A support and a query, and segmenters that know the support."""

    def __init__(self) -> None:
        self.job = next(j for j in read_jobs() if j.name == "face")
        picture = load_picture(self.job.support)
        self.pixels, self.mask = picture.pixels, load_mask(self.job.support_mask, picture) == 1
        self.query = load_picture(self.job.query).pixels

    def segmenter(self, *, shots: int = 1, labels: int = 1, **settings: Any) -> FewShotSegmenter:
        """One with so many supports; further ones are the picture shifted, so that none is another's copy."""
        segmenter = FewShotSegmenter(**{"device": "cpu", **settings})
        for label in range(labels):
            for shot in range(shots):
                pixels, mask = (np.roll(a, 7 * (shot + shots * label), 1) for a in (self.pixels, self.mask))
                segmenter.add_support(pixels, mask, label=f"label {label}")
        return segmenter

    def predicting(self, segmenter: FewShotSegmenter) -> Row:
        """A row: one prediction and its masks."""
        return lambda: segmenter.predict(self.query).masks

    def many(self, segmenter: FewShotSegmenter, count: int) -> Row:
        """A row: so many predictions as one batch, and their masks."""
        return lambda: [r.masks for r in segmenter.predict_many([self.query] * count, batch_size=count)]

    def backbone(self, segmenter: FewShotSegmenter, preprocessing: Preprocessing | None = None) -> Row:
        """A row: the bare backbone's forward pass on the query as the network sees it."""
        engine = segmenter.torch_engine
        pixels = (preprocessing or engine.identity.preprocessing).image(self.query)
        images = torch.from_numpy(pixels)[None].to(engine.device, memory_format=torch.channels_last)

        def run() -> object:
            with torch.inference_mode(), engine.autocast():
                return engine.network.backbone(images)

        return run


def settings_rows(scene: Scene, plain: FewShotSegmenter) -> dict[str, Row]:
    """The bare backbone, the support, the uncached path, and one prediction by each way to run it."""

    def uncached() -> object:
        plain_once = FewShotSegmenter(plain.engine)
        plain_once.add_support(scene.pixels, scene.mask)
        return plain_once.predict(scene.query).masks

    compiled = _compiled(scene, plain)
    rows: dict[str, Row] = {
        "bare backbone": scene.backbone(plain),
        "add_support": lambda: plain.engine.encode(scene.pixels, scene.mask),
        "uncached": uncached,
        "predict": scene.predicting(plain),
        "predict, sharpened": lambda: plain.predict(scene.query, sharpen=True).masks,
        "predict, as loaded": scene.predicting(_as_loaded(scene, plain)),
        "bare backbone, torch.compile": scene.backbone(compiled),
        "predict, torch.compile": scene.predicting(compiled),
    }
    if computes_in_bfloat16(torch.device("cpu")):
        lowered = scene.segmenter(dtype="bfloat16")
        rows |= {"bare backbone, bf16": scene.backbone(lowered), "predict, bf16": scene.predicting(lowered)}
    return rows


def runtime_rows(scene: Scene) -> dict[str, Row]:
    """The same by each runtime of exported graphs that is installed."""
    rows: dict[str, Row] = {}
    for name, settings in RUNTIMES.items():
        if not importlib.util.find_spec(settings["backend"]):
            continue
        try:
            one = scene.segmenter(**settings)
        except ConfigError:
            if "dtype" not in settings:
                raise
            # A precision that this runtime does not have on this CPU.
            continue
        rows[f"predict, {name}"] = scene.predicting(one)
        for batch in BATCHES:
            rows[f"batch of {batch}, {name}"] = scene.many(one, batch)
        rows[f"predict, 50 shots, {name}"] = scene.predicting(scene.segmenter(shots=50, **settings))
        rows[f"predict, 20 labels, {name}"] = scene.predicting(scene.segmenter(labels=20, **settings))
    return rows


def growth_rows(scene: Scene, plain: FewShotSegmenter) -> dict[str, Row]:
    """More shots, labels, pictures at once and pixels; a batch's time is that of the whole batch."""
    rows: dict[str, Row] = {}
    for shots in SHOTS:
        rows[f"predict, {shots} shots"] = scene.predicting(scene.segmenter(shots=shots))
    for labels in LABELS:
        rows[f"predict, {labels} labels"] = scene.predicting(scene.segmenter(labels=labels))
    for batch in BATCHES:
        rows[f"batch of {batch}"] = scene.many(plain, batch)
    for side in SIDES:
        resized = _at(plain.checkpoint, side)
        rows[f"bare backbone, {side} px"] = scene.backbone(plain, resized.preprocessing)
        rows[f"predict, {side} px"] = scene.predicting(scene.segmenter(weights=resized))
    return rows


def _at(checkpoint: Checkpoint, side: int) -> Checkpoint:
    entry = checkpoint.entry
    return replace(checkpoint, entry=replace(entry, preprocessing=replace(entry.preprocessing, size=side)))


def _compiled(scene: Scene, plain: FewShotSegmenter) -> FewShotSegmenter:
    """One whose backbone is compiled with its weights frozen in."""
    segmenter = scene.segmenter(weights=load_checkpoint(plain.checkpoint.name))
    network = segmenter.torch_engine.network
    network.backbone = torch.compile(network.backbone, options={"freezing": True})  # type: ignore[assignment]
    return segmenter


def _as_loaded(scene: Scene, plain: FewShotSegmenter) -> FewShotSegmenter:
    """One that runs the checkpoint's network as PyTorch does by itself: plain layout, batch norms as they are."""
    segmenter = scene.segmenter(weights=load_checkpoint(plain.checkpoint.name))
    engine = segmenter.torch_engine
    engine.network = engine.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    engine.network.backbone.register_forward_pre_hook(lambda module, args: (args[0].contiguous(),))
    return segmenter
