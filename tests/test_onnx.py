"""The network as ONNX graphs: the same masks, and no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from iir_sdk import FewShotSegmenter
from iir_sdk.cli import main
from iir_sdk.errors import ConfigError, IntegrityError
from iir_sdk.model.config import ModelConfig
from iir_sdk.model.iir import IIR
from iir_sdk.onnx.export import export_onnx
from iir_sdk.onnx.folder import PREDICTOR
from iir_sdk.preprocessing import Preprocessing
from iir_sdk.weights.checkpoint_file import read_checkpoint, save_checkpoint

pytest.importorskip("onnxruntime")


def save(path: Path, **changes: object) -> Path:
    torch.manual_seed(0)
    config = ModelConfig(
        backbone="test_efficientnet", decoder="light", width=16, blocks=2, cross_blocks=1, head_width=8, **changes
    )
    save_checkpoint(IIR(config), Preprocessing(size=96, support_size=64), path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    weights = save(folder / "light.safetensors")
    result = CliRunner().invoke(main, ["export", "onnx", "--weights", str(weights), "--out", str(folder / "graphs")])
    assert result.exit_code == 0, result.output
    return weights, folder / "graphs"


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = np.zeros((90, 120), bool)
    mask[20:60, 30 + seed : 80] = True
    return rng.integers(0, 256, (90, 120, 3)).astype(np.uint8), mask


def test_both_backends_agree_on_shots_labels_and_sizes(exported):
    weights, graphs = exported
    segmenters = [FewShotSegmenter(weights, device="cpu"), FewShotSegmenter(graphs, backend="onnxruntime")]
    for segmenter in segmenters:
        for seed, label in ((0, "a"), (1, "a"), (2, "b"), (3, "c")):
            segmenter.add_support(*scene(seed), label=label)
    queries = [scene(7)[0], np.ascontiguousarray(scene(8)[0][:50])]
    for one, other in zip(*(s.predict_many(queries) for s in segmenters), strict=True):
        assert one.labels == other.labels
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=2e-3)
        np.testing.assert_allclose(one.priors, other.priors, atol=5e-3)


def test_a_batch_is_as_its_pictures_one_by_one(exported):
    segmenter = FewShotSegmenter(exported[1], backend="onnxruntime")
    segmenter.add_support(*scene(0))
    queries = [scene(seed)[0][: 60 + 5 * seed] for seed in range(7)]
    for query, found in zip(queries, segmenter.predict_many(queries, batch_size=4), strict=True):
        np.testing.assert_allclose(found.probability, segmenter.predict(query).probability, atol=1e-5)


def test_kept_supports_go_from_one_backend_to_the_other(exported, tmp_path):
    weights, graphs = exported
    torch_side, onnx_side = FewShotSegmenter(weights, device="cpu"), FewShotSegmenter(graphs, backend="onnxruntime")
    onnx_side.add_support(*scene(0))
    onnx_side.save_supports(tmp_path / "kept.safetensors")
    torch_side.load_supports(tmp_path / "kept.safetensors")
    query = scene(5)[0]
    np.testing.assert_allclose(torch_side.predict(query).probability, onnx_side.predict(query).probability, atol=2e-3)


def test_an_exported_folder_runs_without_torch(exported):
    program = (
        "import sys, numpy as np; sys.modules['torch'] = None; from iir_sdk import FewShotSegmenter; "
        f"s = FewShotSegmenter({str(exported[1])!r}, backend='onnxruntime'); "
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


def test_what_no_graph_can_hold_is_refused(exported, tmp_path):
    checkpoint = read_checkpoint(save(tmp_path / "grad.safetensors", cam="grad"))
    with pytest.raises(ConfigError, match="closed_form"):
        export_onnx(checkpoint, tmp_path / "graphs")
    with pytest.raises(ConfigError, match="CPU"):
        FewShotSegmenter(exported[1], backend="onnxruntime", device="cuda")
    with pytest.raises(ConfigError, match="torch"):
        FewShotSegmenter(exported[1], backend="tensorflow")
    with pytest.raises(ConfigError, match="backend='torch'"):
        _ = FewShotSegmenter(exported[1], backend="onnxruntime").checkpoint
