"""The network as ONNX graphs, in both runtimes: the same masks, and no torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from threading import Lock
from time import sleep

import numpy as np
import pytest
import torch

from iir_sdk import FewShotSegmenter, weights_info
from iir_sdk.engines.onnx import export as exporting
from iir_sdk.engines.onnx import export_cache as opening
from iir_sdk.engines.onnx import runtime as runtime_module
from iir_sdk.engines.onnx.export import export_onnx
from iir_sdk.engines.onnx.export_folder import PREDICTOR, read_export
from iir_sdk.engines.onnx.runtime import OnnxRuntime, OpenVino
from iir_sdk.errors import (
    ConfigError,
    IntegrityError,
    MissingDependencyError,
    OutputError,
    WeightsError,
    WeightsNotFoundError,
)
from iir_sdk.files import made_folder
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.iir import IIR
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.weights.checkpoint_file import read_checkpoint, save_checkpoint
from iir_sdk.weights.entry import EXPORT_RECORD
from tests.command import output_of

pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")
BACKENDS = pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])


PLAIN = {"presence": False}


def save(path: Path, **changes: object) -> Path:
    torch.manual_seed(0)
    config = ModelConfig(
        **{
            "backbone": "test_efficientnet",
            "width": 16,
            "blocks": 2,
            "cross_blocks": 1,
            "head_width": 8,
            "presence": True,
            **changes,
        }
    )
    save_checkpoint(IIR(config), Preprocessing(size=96, support_size=64), path)
    return path


def export(folder: Path, **changes: object) -> tuple[Path, Path]:
    """A random network's weights, and its graphs as the command writes them."""
    weights = save(folder / "weights.safetensors", **changes)
    output_of("export", "onnx", "--weights", weights, "--out", folder / "graphs")
    return weights, folder / "graphs"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module")
def opened():
    """Segmenters of exports, without supports; compiling a graph takes seconds, so each is compiled once."""

    @lru_cache
    def once(graphs: Path, backend: str) -> FewShotSegmenter:
        return FewShotSegmenter(graphs, backend=backend)

    def emptied(graphs: Path, backend: str) -> FewShotSegmenter:
        segmenter = once(graphs, backend)
        segmenter.clear_supports()
        return segmenter

    return emptied


def copy_graphs(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on an export takes these in place of tracing the same network again; the rest it does as always."""
    monkeypatch.setattr(exporting, "_write", lambda path, *_: shutil.copy(graphs / path.name, path))


@pytest.fixture
def traced_before(exported, monkeypatch):
    copy_graphs(exported[1], monkeypatch)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = np.zeros((90, 120), bool)
    mask[20:60, 30 + seed : 80] = True
    return rng.integers(0, 256, (90, 120, 3)).astype(np.uint8), mask


def on_torch(weights: Path) -> FewShotSegmenter:
    return FewShotSegmenter(weights, device="cpu")


@pytest.fixture(scope="module", params=["joint", "light", "paper"])
def each_exported(request, tmp_path_factory, exported):
    if request.param == "joint":
        return exported
    return export(tmp_path_factory.mktemp(request.param), preset=request.param, **PLAIN)


@BACKENDS
def test_backends_agree_on_what_is_unknown(each_exported, opened, backend):
    weights, graphs = each_exported
    pixels, mask = scene(0)
    known = np.ones_like(mask)
    known[:, :50] = False
    engines = [on_torch(weights).engine, opened(graphs, backend).engine]
    one, other = (engine.encode(pixels, mask & known, known) for engine in engines)
    other.check_like(one, backend)
    for name, array in one.arrays().items():
        np.testing.assert_allclose(other.arrays()[name].astype(float), array.astype(float), atol=2e-2, err_msg=name)


@BACKENDS
def test_backends_agree_on_shots_labels_and_sizes(each_exported, opened, backend):
    weights, graphs = each_exported
    segmenters = [on_torch(weights), opened(graphs, backend)]
    for segmenter in segmenters:
        for seed, label in ((0, "a"), (1, "a"), (2, "b"), (3, "c")):
            segmenter.add_support(*scene(seed), label=label)
    queries = [scene(7)[0], np.ascontiguousarray(scene(8)[0][:50])]
    for one, other in zip(*(s.predict_many(queries) for s in segmenters), strict=True):
        assert one.labels == other.labels
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=2e-3)
        np.testing.assert_allclose(one.priors, other.priors, atol=5e-3)
        np.testing.assert_allclose(one.scores, other.scores, atol=2e-3)


@BACKENDS
def test_a_batch_is_as_its_pictures_one_by_one(exported, opened, backend):
    segmenter = opened(exported[1], backend)
    segmenter.add_support(*scene(0))
    queries = [scene(seed)[0][: 60 + 5 * seed] for seed in range(7)]
    for query, found in zip(queries, segmenter.predict_many(queries, batch_size=4), strict=True):
        np.testing.assert_allclose(found.probability, segmenter.predict(query).probability, atol=1e-5)


@BACKENDS
def test_kept_supports_go_from_one_backend_to_the_other(exported, opened, tmp_path, backend):
    weights, graphs = exported
    torch_side, onnx_side = on_torch(weights), opened(graphs, backend)
    onnx_side.add_support(*scene(0))
    onnx_side.save_supports(tmp_path / "kept.safetensors")
    torch_side.load_supports(tmp_path / "kept.safetensors")
    query = scene(5)[0]
    np.testing.assert_allclose(torch_side.predict(query).probability, onnx_side.predict(query).probability, atol=2e-3)


@BACKENDS
def test_an_exported_folder_runs_without_torch(exported, backend):
    program = (
        "import sys, numpy as np; sys.modules['torch'] = None; from iir_sdk import FewShotSegmenter; "
        f"s = FewShotSegmenter({str(exported[1])!r}, backend={backend!r}, dtype='auto'); "
        "p = np.zeros((70, 80, 3), np.uint8); p[20:40, 20:50] = 200; m = p[..., 0] > 0; "
        "s.add_support(p, m); print(s.predict(p).mask.shape)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(70, 80)", done.stderr


def test_a_changed_graph_is_refused(exported, tmp_path):
    for file in exported[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / PREDICTOR).open("ab") as graph:
        graph.write(b"x")
    with pytest.raises(IntegrityError, match=PREDICTOR):
        FewShotSegmenter(tmp_path, backend="onnxruntime")


def test_threads_may_predict_at_once(exported, opened):
    segmenter = opened(exported[1], "openvino")
    segmenter.add_support(*scene(0))
    queries = [scene(seed)[0] for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(segmenter.predict, queries))
    for query, one in zip(queries, found, strict=True):
        np.testing.assert_array_equal(one.probability, segmenter.predict(query).probability)


def test_openvino_lowers_to_bfloat16_only_where_the_cpu_computes_in_it(exported, monkeypatch):
    able = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert FewShotSegmenter(exported[1], backend="openvino", dtype="auto").engine.identity.precision == (
        "bfloat16" if able else "float32"
    )
    assert FewShotSegmenter(exported[1], backend="openvino").engine.identity.precision == "float32"

    class Unable:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32"]

    monkeypatch.setattr(openvino, "Core", Unable)
    monkeypatch.setattr(runtime_module, "_CORES", [])
    assert OpenVino("auto").precision == "float32"
    with pytest.raises(ConfigError, match="no instructions"):
        OpenVino("bfloat16")
    with pytest.raises(ConfigError, match="float32 or bfloat16"):
        FewShotSegmenter(exported[1], backend="openvino", dtype="float16")


@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO replaces the stack for signals on Linux alone")
def test_signals_are_handled_after_runtimes_that_ended_in_the_order_they_were_made_in():
    code = (
        "import faulthandler, os, signal; from iir_sdk.engines.onnx.runtime import OpenVino; faulthandler.enable();"
        "signal.signal(signal.SIGUSR1, lambda *_: print('handled'));"
        "one = OpenVino(); two = OpenVino(); del one; del two; os.kill(os.getpid(), signal.SIGUSR1)"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr


@pytest.mark.parametrize(("library", "runtime"), [("onnxruntime", OnnxRuntime), ("openvino", OpenVino)])
def test_a_missing_runtime_and_a_broken_graph_say_what_to_do(monkeypatch, library, runtime):
    with pytest.raises(WeightsError, match=r"broken\.onnx"):
        runtime().open(b"no graph", "broken.onnx")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        runtime()


def test_an_export_of_another_version_is_refused(exported, tmp_path):
    for file in exported[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    record = json.loads((tmp_path / EXPORT_RECORD).read_text())
    (tmp_path / EXPORT_RECORD).write_text(json.dumps({**record, "format": "iir_sdk.onnx/1"}))
    with pytest.raises(WeightsError, match="export again"):
        FewShotSegmenter(tmp_path, backend="openvino")


def test_what_no_graph_can_hold_is_refused(exported, tmp_path):
    checkpoint = read_checkpoint(save(tmp_path / "grad.safetensors", cam="grad", **PLAIN))
    with pytest.raises(ConfigError, match="closed_form"):
        export_onnx(checkpoint, tmp_path / "graphs")
    for changes, sides in (({"base_classes": 3}, (96, 64)), ({}, (100, 64))):
        path = tmp_path / f"{sides[0]}.safetensors"
        save_checkpoint(IIR(ModelConfig(backbone="test_efficientnet", **changes)), Preprocessing(*sides), path)
        with pytest.raises(ConfigError, match="exported"):
            export_onnx(read_checkpoint(path), tmp_path / "graphs")
    with pytest.raises(ConfigError, match="CPU"):
        FewShotSegmenter(exported[1], backend="onnxruntime", device="cuda")
    with pytest.raises(ConfigError, match="torch"):
        FewShotSegmenter(exported[1], backend="tensorflow")
    with pytest.raises(ConfigError, match="backend='torch'"):
        _ = FewShotSegmenter(exported[1], backend="onnxruntime").checkpoint


@BACKENDS
def test_a_checkpoints_export_is_kept_and_made_anew_where_it_is_damaged(
    exported, traced_before, tmp_path, monkeypatch, backend
):
    monkeypatch.setattr(opening, "_place", lambda sha256: made_folder(tmp_path / sha256))
    weights, made = exported[0], []
    monkeypatch.setattr(exporting, "export_onnx", lambda c, folder: made.append(folder) or export_onnx(c, folder))
    segmenter = FewShotSegmenter(weights, backend=backend)
    segmenter.add_support(*scene(0))
    first = segmenter.predict(scene(1)[0]).probability
    again = FewShotSegmenter(weights, backend=backend)
    assert len(made) == 1
    again.add_support(*scene(0))
    assert np.array_equal(again.predict(scene(1)[0]).probability, first)
    graph = next(tmp_path.glob(f"*/graphs/{PREDICTOR}"))
    damaged = graph.read_bytes()[:-1]
    # A new file: a runtime may have the old one mapped into memory.
    graph.unlink()
    graph.write_bytes(damaged)
    FewShotSegmenter(weights, backend=backend)
    assert len(made) == 2
    assert {p.name for p in graph.parent.parent.iterdir()} <= {"graphs", "lock"}


def test_first_uses_at_once_export_a_checkpoint_once(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "_place", lambda sha256: made_folder(tmp_path / sha256))
    made = []
    monkeypatch.setattr(exporting, "export_onnx", lambda c, folder: made.append(folder) or export_onnx(c, folder))
    # Torch keeps what it is tracing for the whole process: no other may be traced meanwhile.
    tracing = Lock()

    def alone(path: Path, *_: object) -> None:
        assert tracing.acquire(blocking=False)
        sleep(0.05)
        shutil.copy(exported[1] / path.name, path)
        tracing.release()

    monkeypatch.setattr(exporting, "_write", alone)
    monkeypatch.setattr(exporting, "compare", lambda *_: {"mask_iou": 1.0, "probability_difference": 0.0})
    # Both get the first one's graphs.
    monkeypatch.setattr(opening, "agreement", lambda *_: 1.0)
    first, other = exported[0], save(tmp_path / "other.safetensors", width=8)
    junk = made_folder(tmp_path / read_checkpoint(first).sha256 / "graphs")
    (junk / EXPORT_RECORD).write_text("no record")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda path: FewShotSegmenter(path, backend="onnxruntime"), [first, other, first, first]))
    assert len(made) == 2
    assert {f.engine.identity.sha256 for f in found} == {read_checkpoint(path).sha256 for path in (first, other)}


def test_a_changed_network_is_not_kept_as_the_checkpoint_it_was(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "_place", lambda sha256: made_folder(tmp_path / sha256))
    on_disk, changed = read_checkpoint(exported[0]), read_checkpoint(exported[0])
    for parameter in changed.model.decoder.parameters():
        parameter.data.mul_(1.5)
    found = []
    for checkpoint in (changed, on_disk):
        if checkpoint is on_disk:
            copy_graphs(exported[1], monkeypatch)
        for make in (lambda c: FewShotSegmenter(c, backend="onnxruntime"), lambda c: FewShotSegmenter(c)):
            segmenter = make(checkpoint)
            segmenter.add_support(*scene(0))
            found.append(segmenter.predict(scene(1)[0]).probability)
    assert np.abs(found[0] - found[2]).max() > 0.02
    assert np.abs(found[0] - found[1]).max() < 0.02
    assert np.abs(found[2] - found[3]).max() < 0.02


@BACKENDS
def test_an_opened_export_does_not_need_its_folder(exported, tmp_path, backend):
    shutil.copytree(exported[1], tmp_path / "graphs")
    segmenter = FewShotSegmenter(tmp_path / "graphs", backend=backend)
    segmenter.add_support(*scene(0))
    shutil.rmtree(tmp_path / "graphs")
    one = segmenter.predict(scene(1)[0]).probability
    for found in segmenter.predict_many([scene(1)[0]] * 2):
        np.testing.assert_allclose(found.probability, one, atol=1e-3)


def test_small_pictures_give_the_same_mask_as_torch(exported, opened):
    masks = []
    for segmenter in (on_torch(exported[0]), opened(exported[1], "onnxruntime")):
        segmenter.add_support(*scene(0))
        masks.append(segmenter.predict(scene(1)[0][:8, :9]).probability)
    np.testing.assert_allclose(masks[0], masks[1], atol=2e-3)


def test_a_folder_of_graphs_names_the_backends_and_hides_no_known_name(exported, tmp_path, monkeypatch):
    with pytest.raises(WeightsNotFoundError, match="backend='onnxruntime'"):
        FewShotSegmenter(exported[1])
    both = shutil.copytree(exported[1], tmp_path / "both")
    shutil.copy(exported[0], both / "model.safetensors")
    assert FewShotSegmenter(both).checkpoint.sha256 == read_checkpoint(exported[0]).sha256
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exported[1], tmp_path / "iir-duo")
    asked = []
    monkeypatch.setattr(opening, "_cached", lambda sha256: asked.append(sha256) or read_export(exported[1]))
    FewShotSegmenter("iir-duo", backend="onnxruntime")
    assert asked == [weights_info("iir-duo").sha256]


def test_a_failed_export_leaves_the_older_one(exported, traced_before, tmp_path, monkeypatch):
    weights, graphs = exported
    shutil.copytree(graphs, tmp_path / "graphs")
    monkeypatch.setattr(exporting, "LARGEST_DIFFERENCE", -1.0)
    with pytest.raises(WeightsError, match="differ from PyTorch"):
        export_onnx(read_checkpoint(weights), tmp_path / "graphs")
    assert read_export(tmp_path / "graphs").entry.sha256 == read_checkpoint(weights).sha256
    assert sorted(p.name for p in (tmp_path / "graphs").iterdir()) == sorted(p.name for p in graphs.iterdir())


def test_a_cache_that_is_a_file_is_an_error_of_ours(exported, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"cannot be kept.*iir-sdk export onnx --out FOLDER"):
        FewShotSegmenter(exported[0], backend="onnxruntime")
    # The cure that is named.
    assert FewShotSegmenter(exported[1], backend="onnxruntime").engine.identity.precision == "float32"
