"""Engines on exported graphs, in forked processes and in pickles."""

from __future__ import annotations

import copy
import gc
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from iir_sdk import FewShotSegmenter
from iir_sdk.engines.onnx import export_cache as opening
from iir_sdk.engines.onnx.export import export_onnx
from iir_sdk.engines.onnx.export_folder import GRAPHS, OnnxExport
from iir_sdk.engines.onnx.runtime import _ONE_CORE, OnnxRuntime, OpenVino
from iir_sdk.errors import DeviceError, IntegrityError
from iir_sdk.weights.checkpoint_file import read_checkpoint
from tests.forked import forked, needs_fork

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
BACKENDS = pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
RUNTIMES = pytest.mark.parametrize("runtime", [OnnxRuntime, OpenVino])


@pytest.fixture(scope="module")
def export(tiny_checkpoint, tmp_path_factory) -> tuple[Path, OnnxExport]:
    folder = tmp_path_factory.mktemp("graphs")
    return folder, export_onnx(read_checkpoint(tiny_checkpoint), folder)


def test_a_default_device_changes_nothing(tiny_checkpoint, tmp_path):
    torch.set_default_device("meta")
    try:
        assert set(export_onnx(read_checkpoint(tiny_checkpoint), tmp_path).graphs) == set(GRAPHS)
    finally:
        torch.set_default_device(None)


@needs_fork
@BACKENDS
def test_a_forked_child_computes_and_ends(backend, export, scene):
    segmenters = [FewShotSegmenter(export[0], backend=backend, threads=2)]
    segmenters[0].add_support(*scene)
    pictures = [scene[0]] * 3
    expected = [r.probability for r in (segmenters[0].predict(scene[0]), *segmenters[0].predict_many(pictures))]

    def work() -> float:
        results = (segmenters[0].predict(scene[0]), *segmenters[0].predict_many(pictures))
        difference = max(float(np.abs(r.probability - e).max()) for r, e in zip(results, expected, strict=True))
        # Closing graphs whose threads are gone waits for them.
        segmenters.clear()
        gc.collect()
        return difference

    # As if another thread were opening a graph at this moment.
    assert forked(work, segmenters[0].engine._opening, _ONE_CORE) < 1e-4


@BACKENDS
def test_pickles_carry_graphs_and_settings(backend, export, scene):
    segmenter = FewShotSegmenter(export[0], backend=backend, threads=1)
    segmenter.add_support(*scene)
    sent = pickle.dumps(segmenter)
    assert len(sent) < sum(map(len, export[1].graphs.values())) + segmenter.supports[0].nbytes + 50_000
    twin = pickle.loads(sent)
    assert (repr(twin), twin.engine.runtime.threads) == (repr(segmenter), 1)
    np.testing.assert_array_equal(twin.predict(scene[0]).probability, segmenter.predict(scene[0]).probability)


@RUNTIMES
def test_pickles_of_embedded_weights_name_them(runtime, export, monkeypatch):
    embedded = replace(export[1], entry=replace(export[1].entry, embedded=True))
    engine = opening._named(embedded, runtime())
    sent = pickle.dumps(engine)
    assert len(sent) < 1000
    monkeypatch.setattr(opening, "open_onnx", lambda name, options, runtime: opening._named(embedded, runtime))
    assert pickle.loads(sent).identity == engine.identity
    changed = replace(embedded, entry=replace(embedded.entry, sha256="0" * 64))
    monkeypatch.setattr(opening, "open_onnx", lambda name, options, runtime: opening._named(changed, runtime))
    with pytest.raises(IntegrityError, match="one version"):
        pickle.loads(sent)


@needs_fork
def test_a_child_forked_after_graphs_were_closed_never_waits(export, scene):
    segmenter = FewShotSegmenter(export[0], backend="openvino", threads=2)
    segmenter.add_support(*scene)
    expected = [r.probability for r in segmenter.predict_many([scene[0]] * 2)]
    closed = FewShotSegmenter(export[0], backend="openvino", threads=2)
    list(FewShotSegmenter.predict_many(copy.deepcopy(segmenter), [scene[0]] * 2))
    del closed
    gc.collect()

    def work() -> float:
        results = segmenter.predict_many([scene[0]] * 2)
        with pytest.raises(DeviceError, match="Open the segmenter before the fork"):
            FewShotSegmenter(export[0], backend="openvino", threads=2)
        FewShotSegmenter(export[0], backend="onnxruntime", threads=2)
        return max(float(np.abs(r.probability - e).max()) for r, e in zip(results, expected, strict=True))

    assert forked(work) < 1e-4
