"""Masks, and not names of precisions: every backend in every precision this machine has, on all demo jobs."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import warnings
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.engines import agreement as agreeing
from iir_sdk.engines import pytorch
from iir_sdk.engines.agreement import COMPARED, LEAST_AGREEMENT, agreement, compared_leads
from iir_sdk.engines.onnx.runtime import OpenVino
from iir_sdk.engines.pytorch import TorchEngine
from iir_sdk.errors import ConfigError, IirWarning, PrecisionError, WeightsError
from iir_sdk.model.tokens import token_bias
from iir_sdk.weights.entry import EXPORT_RECORD
from tests.test_onnx import export

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
CHECKPOINTS = ("iir-duo", "iir-lite0")
# Of the masks that float32 gives: rounding moves edges, and more of them where a network is unsure.
LEAST_IOU = {"float32": 0.995, "float16": 0.99, "bfloat16": 0.92}
LEAST_UNSURE = 0.8
Masks = dict[str, np.ndarray]


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def masks_of(segmenter: FewShotSegmenter) -> Masks:
    for job in read_jobs():
        segmenter.add_support(job.support, job.support_mask, label=job.name)
    return {job.name: segmenter.predict(job.query, labels=[job.name]).mask for job in read_jobs()}


@pytest.fixture(scope="session")
def in_float32() -> dict[str, Masks]:
    return {name: masks_of(FewShotSegmenter(name, device="cpu")) for name in CHECKPOINTS}


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [("torch", "bfloat16"), ("onnxruntime", "float32"), ("openvino", "float32"), ("openvino", "bfloat16")],
)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_masks_are_those_of_float32_and_right(in_float32, name, backend, dtype):
    try:
        found = masks_of(FewShotSegmenter(name, device="cpu", backend=backend, dtype=dtype))
    except ConfigError as error:
        pytest.skip(str(error))
    for job in read_jobs():
        mask, expected, truth = found[job.name], in_float32[name][job.name], job.truth()
        sure = iou(expected, truth) > 0.7
        assert iou(mask, expected) >= (LEAST_IOU[dtype] if sure else min(LEAST_IOU[dtype], LEAST_UNSURE)), job.name
        assert iou(mask, truth) >= iou(expected, truth) - 0.02, job.name


def test_the_compared_pictures_tell_a_lost_mask_from_rounding(embedded):
    expected = compared_leads(embedded.engine)
    assert set(expected) == set(COMPARED)
    noise = {n: lead + np.random.default_rng(0).normal(0, 0.1, lead.shape) for n, lead in expected.items()}
    assert agreement(noise, expected) > 0.9
    for name in COMPARED:
        for lost in (-0.9, -20.0, 20.0, np.nan):
            assert agreement({**expected, name: np.full_like(expected[name], lost)}, expected) < 0.5
    nothing = {n: np.full_like(lead, -9) for n, lead in expected.items()}
    assert agreement({n: lead - 1 for n, lead in nothing.items()}, nothing) > LEAST_AGREEMENT


@pytest.fixture
def fresh(tmp_path, monkeypatch) -> Path:
    """A cache of its own, of which this process knows nothing."""
    place = tmp_path / "agreements"
    monkeypatch.setattr(agreeing, "_place", lambda key: place / f"{key}.json")
    monkeypatch.setattr(agreeing, "_OF_THIS_PROCESS", {})
    place.mkdir()
    return place


@pytest.fixture(scope="module")
def graphs(tmp_path_factory) -> Path:
    return export(tmp_path_factory.mktemp("precision"))[1]


class Lying(OpenVino):
    """Says bfloat16 whatever the machine, computes in float32, and turns the logits upside down."""

    def __init__(self, dtype=None, threads=None):
        super().__init__("float32", threads)
        self._dtype, self.precision = dtype, "bfloat16" if dtype in ("auto", "bfloat16") else "float32"

    def open(self, graph, name, **how):
        opened, lies = super().open(graph, name, **how), self.precision == "bfloat16"
        run = opened.run

        def turned(outputs, inputs):
            return [-9 * a if lies and n == "logits" else a for n, a in zip(outputs, run(outputs, inputs), strict=True)]

        opened.run = turned
        return opened

    def fallback(self):
        return Lying("float32", self.threads) if self._dtype == "auto" else None


def test_a_runtime_that_lies_is_refused_and_auto_falls_back(graphs, fresh, monkeypatch):
    monkeypatch.setattr("iir_sdk.engines.onnx.runtime.OpenVino", Lying)
    with pytest.raises(PrecisionError, match="use dtype=None") as refused:
        FewShotSegmenter(graphs, backend="openvino", dtype="bfloat16")
    assert "openvino" in str(refused.value)
    with pytest.warns(IirWarning, match="float32 is taken instead"):
        assert FewShotSegmenter(graphs, backend="openvino", dtype="auto").engine.identity.precision == "float32"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The cure that is named.
        assert FewShotSegmenter(graphs, backend="openvino", dtype=None).engine.identity.precision == "float32"


def test_float32_that_lies_names_another_backend(graphs, fresh, monkeypatch):
    monkeypatch.setattr("iir_sdk.engines.onnx.export_cache.agreement", lambda found, expected: 0.1)
    with pytest.raises(PrecisionError, match="use backend='torch'"):
        FewShotSegmenter(graphs, backend="onnxruntime")


class Mixing(OpenVino):
    """Right for one label; gives several what the first one gets."""

    def open(self, graph, name, **how):
        opened = super().open(graph, name, **how)
        run = opened.run

        def mixed(outputs, inputs):
            found = run(outputs, inputs)
            return [np.repeat(a[:1], len(a), 0) if n == "logits" else a for n, a in zip(outputs, found, strict=True)]

        opened.run = mixed
        return opened


def test_a_runtime_that_mixes_labels_is_refused(fresh, monkeypatch):
    monkeypatch.setattr("iir_sdk.engines.onnx.runtime.OpenVino", Mixing)
    with pytest.raises(PrecisionError, match="use backend='torch'"):
        FewShotSegmenter("iir-lite0", backend="openvino")


def test_a_verdict_is_kept_and_a_damaged_or_unwritable_one_found_anew(graphs, fresh, monkeypatch):
    compared: list[object] = []
    monkeypatch.setattr(
        "iir_sdk.engines.onnx.export_cache.compared_leads",
        lambda engine: compared.append(engine) or compared_leads(engine),
    )
    for _ in range(2):
        FewShotSegmenter(graphs, backend="openvino")
        agreeing._OF_THIS_PROCESS.clear()
    assert len(compared) == 1
    FewShotSegmenter(graphs, backend="onnxruntime")
    assert len(compared) == 2
    files = sorted(fresh.iterdir())
    assert {json.loads(f.read_text())["identity"]["backend"] for f in files} == {"openvino", "onnxruntime"}
    record = json.loads(files[0].read_text())
    other = {**record["identity"], "processor": "another"}
    for damage in (
        "",
        "[]",
        "{}",
        "null",
        "\0",
        json.dumps({**record, "agreement": "1"}),
        json.dumps({**record, "agreement": 7}),
        json.dumps({**record, "identity": other}),
    ):
        agreeing._OF_THIS_PROCESS.clear()
        for file in files:
            file.write_text(damage)
        assert agreeing.recorded_agreement(record["identity"]) is None
    FewShotSegmenter(graphs, backend="openvino")
    assert len(compared) == 3
    shutil.rmtree(fresh)
    agreeing._OF_THIS_PROCESS.clear()
    for _ in range(2):
        FewShotSegmenter(graphs, backend="openvino")
    # It cannot be written; this process remembers.
    assert len(compared) == 4


def test_an_export_without_what_is_expected_is_refused(graphs, tmp_path):
    copied = shutil.copytree(graphs, tmp_path / "graphs")
    record = json.loads((copied / EXPORT_RECORD).read_text())
    for expected in (None, {"grass": {}}, {"grass": {"shape": [3, 3], "float16": "AAAA"}}):
        (copied / EXPORT_RECORD).write_text(json.dumps({**record, "expected": expected}))
        with pytest.raises(WeightsError, match="export again"):
            FewShotSegmenter(copied, backend="onnxruntime")


def test_torch_that_lies_in_bfloat16_is_refused_and_auto_falls_back(small_checkpoint, fresh, monkeypatch):
    monkeypatch.setattr("iir_sdk.engines.devices.computes_in_bfloat16", lambda device: True)
    segment = TorchEngine.segment

    def lying(engine, pictures, tasks):
        found, laps = segment(engine, pictures, tasks)
        if engine.identity.precision != "float32":
            for one in found:
                one.leads[:] = -one.leads * 9 - 5
        return found, laps

    monkeypatch.setattr(TorchEngine, "segment", lying)
    with pytest.raises(PrecisionError, match="use dtype=None"):
        FewShotSegmenter(small_checkpoint, device="cpu", dtype="bfloat16")
    with pytest.warns(IirWarning, match="float32 is taken instead"):
        fallen = FewShotSegmenter(small_checkpoint, device="cpu", dtype="auto")
    assert fallen.engine.identity.precision == "float32"
    assert len(list(fresh.iterdir())) == 1


def test_changed_weights_are_compared_once(small_checkpoint, fresh, monkeypatch):
    monkeypatch.setattr("iir_sdk.engines.devices.computes_in_bfloat16", lambda device: True)
    compared: list[object] = []
    monkeypatch.setattr(pytorch, "agreement", lambda one, other: compared.append(one) or 0.9)
    monkeypatch.setattr(pytorch, "compared_leads", lambda engine: {})
    checkpoint = FewShotSegmenter(small_checkpoint, device="cpu").checkpoint
    for times in (1, 2):
        next(checkpoint.model.decoder.parameters()).data.mul_(1.5)
        segmenter = FewShotSegmenter(checkpoint, device="cpu", dtype="bfloat16")
        # Its copies and pickles, in other processes too, are the same.
        pickle.loads(pickle.dumps(segmenter))
        copy.deepcopy(segmenter)
        assert len(compared) == len(list(fresh.iterdir())) == times


def test_weights_just_read_are_not_read_again_to_compare(small_checkpoint, fresh, monkeypatch):
    monkeypatch.setattr("iir_sdk.engines.devices.computes_in_bfloat16", lambda device: True)
    monkeypatch.setattr(pytorch, "_digest_of", lambda engine: pytest.fail("read again"))
    FewShotSegmenter(small_checkpoint, device="cpu", dtype="bfloat16")
    assert len(list(fresh.iterdir())) == 1


def test_a_verdict_holds_only_for_what_was_compared(graphs, small_checkpoint, fresh, tmp_path, monkeypatch):
    FewShotSegmenter(graphs, backend="openvino")
    other = shutil.copytree(graphs, tmp_path / "other")
    record = json.loads((other / EXPORT_RECORD).read_text())
    sure = [b64encode(np.full(lead["shape"], 20, "<f2").tobytes()).decode() for lead in record["expected"].values()]
    for lead, content in zip(record["expected"].values(), sure, strict=True):
        lead["float16"] = content
    (other / EXPORT_RECORD).write_text(json.dumps(record))
    # The same graphs, of which something else is expected.
    with pytest.raises(PrecisionError):
        FewShotSegmenter(other, backend="openvino")
    checkpoint = FewShotSegmenter(small_checkpoint, device="cpu").checkpoint
    darker = replace(checkpoint.preprocessing, mean=(0.9, 0.9, 0.9))
    one = TorchEngine(checkpoint, device="cpu")
    another = TorchEngine(replace(checkpoint, entry=replace(checkpoint.entry, preprocessing=darker)), device="cpu")
    assert pytorch._compared_by(one, "w") != pytorch._compared_by(another, "w")
    measured = iter([0.9, 0.3])
    assert agreeing.agreement_once({"a": "b"}, lambda: next(measured)) == 0.9
    monkeypatch.setattr(agreeing, "code", lambda: "0.1.0 (changed)")
    assert agreeing.agreement_once({"a": "b"}, lambda: next(measured)) == 0.3


def test_processors_with_other_instructions_are_others(tmp_path, monkeypatch):
    stated = tmp_path / "cpuinfo"
    monkeypatch.setattr(agreeing, "_STATED_BY_LINUX", stated)
    for lines in (
        "vendor_id\t: A\nmodel name\t: B\nflags\t\t: fpu {}",
        "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd {}\nCPU implementer\t: 0x41\nCPU part\t: 0xd40",
    ):
        found = set()
        for instruction in ("", "bf16"):
            stated.write_text(lines.format(instruction) + "\n\nprocessor\t: 1\n")
            found.add(agreeing.processor())
        for limit in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE"):
            with monkeypatch.context() as environment:
                environment.setenv(limit, "avx2")
                found.add(agreeing.processor())
        assert len(found) == 5


def test_comparing_needs_no_cache_folder_at_all(small_checkpoint, monkeypatch):
    def nowhere(key: str) -> Path:
        raise ValueError("a file is in the way")

    monkeypatch.setattr(agreeing, "_place", nowhere)
    monkeypatch.setattr(agreeing, "_OF_THIS_PROCESS", {})
    assert agreeing.agreement_once({"backend": "a"}, lambda: 0.9) == 0.9
    assert agreeing.agreement_once({"backend": "a"}, lambda: 0.1) == 0.9


def test_biases_of_tokens_are_not_lowered_by_autocast():
    weights, mass = torch.tensor([[0.3, 0.7]]), torch.rand(1, 2, 50, generator=torch.Generator().manual_seed(0)) * 4
    with torch.autocast("cpu", torch.bfloat16):
        found = token_bias(weights, mass)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, (0.3 * mass[:, :1] + 0.7 * mass[:, 1:]).log(), atol=1e-6, rtol=0)
