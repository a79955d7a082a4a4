"""The manifest, and the check of a checkpoint before it is used."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from iir_sdk import weights
from iir_sdk.errors import IntegrityError, WeightsError, WeightsNotFoundError
from iir_sdk.preprocessing import Preprocessing


def test_the_manifest_tells_the_truth_about_the_embedded_file():
    entry = weights.read_manifest()[weights.DEFAULT]
    file = Path(weights.__file__).parent / "checkpoints" / entry.filename
    content = file.read_bytes()
    assert entry.size == len(content) <= 25_000_000
    assert entry.sha256 == hashlib.sha256(content).hexdigest()
    model = weights.load_checkpoint().model
    assert entry.parameters == sum(p.numel() for p in model.parameters())
    assert not entry.published
    assert entry.repo_id is None
    assert entry.revision is None
    assert entry.license
    assert entry.training_data
    assert entry.metrics


def test_the_file_carries_the_same_configuration_as_its_entry():
    entry = weights.read_manifest()[weights.DEFAULT]
    file = Path(weights.__file__).parent / "checkpoints" / entry.filename
    assert weights._own_config(file) == (entry.model, entry.preprocessing)
    with safe_open(file, framework="pt") as stored:
        assert {stored.get_tensor(n).dtype for n in stored.keys()} <= {torch.float16, torch.int64}  # noqa: SIM118


def test_a_checkpoint_round_trips(small_model, small_checkpoint):
    loaded = weights.load_checkpoint(small_checkpoint)
    assert loaded.model.config == small_model.config
    assert loaded.preprocessing == Preprocessing(size=96, support_size=64)
    for name, tensor in small_model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
    assert not loaded.model.training


def test_a_folder_is_a_checkpoint(small_checkpoint, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(small_checkpoint.read_bytes())
    assert weights.load_checkpoint(tmp_path).sha256 == weights.load_checkpoint(small_checkpoint).sha256
    with pytest.raises(WeightsNotFoundError, match=r"model\.safetensors"):
        weights.load_checkpoint(tmp_path / "elsewhere")


def test_a_flipped_byte_is_noticed(small_checkpoint, monkeypatch, tmp_path):
    entry = weights.read_manifest()[weights.DEFAULT]
    content = bytearray(small_checkpoint.read_bytes())
    good = replace(entry, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    content[-5] ^= 1
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(IntegrityError, match=good.sha256):
        weights._verified_sha256(tmp_path / "bad.safetensors", good)


def changed(checkpoint: Path, tmp_path: Path, change: object) -> Path:
    tensors = load_file(checkpoint)
    with safe_open(checkpoint, framework="pt") as stored:
        metadata = dict(stored.metadata())
    change(tensors, metadata)  # type: ignore[operator]
    path = tmp_path / "changed.safetensors"
    save_file(tensors, path, metadata)
    return path


def drop(tensors: dict, _: dict) -> None:
    del tensors["decoder.fuse_query.bias"]


def add(tensors: dict, _: dict) -> None:
    tensors["surprise"] = torch.zeros(1)


def reshape(tensors: dict, _: dict) -> None:
    tensors["decoder.fuse_query.bias"] = torch.zeros(3)


def poison(tensors: dict, _: dict) -> None:
    tensors["decoder.fuse_query.bias"][0] = torch.nan


@pytest.mark.parametrize(
    ("change", "reason"),
    [(drop, "lacks 'decoder.fuse_query.bias'"), (add, "surprise"), (reshape, "shape"), (poison, "NaN")],
)
def test_wrong_tensors_are_refused(small_checkpoint, tmp_path, change, reason):
    with pytest.raises(IntegrityError, match=reason):
        weights.load_checkpoint(changed(small_checkpoint, tmp_path, change))


def hostile(_: dict, metadata: dict) -> None:
    config = json.loads(metadata["config"])
    config["model"]["width"] = 10**9
    metadata["config"] = json.dumps(config)


def foreign(_: dict, metadata: dict) -> None:
    metadata["format"] = "pt"


def broken(_: dict, metadata: dict) -> None:
    metadata["config"] = "{"


@pytest.mark.parametrize(("change", "reason"), [(hostile, "width"), (foreign, "format"), (broken, "read")])
def test_wrong_configurations_are_refused(small_checkpoint, tmp_path, change, reason):
    with pytest.raises(ValueError, match=reason):
        weights.load_checkpoint(changed(small_checkpoint, tmp_path, change))


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"PK\x03\x04 a pickle in a zip", b"\xff" * 8 + b"{}"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.safetensors"):
        weights.load_checkpoint(path)


def test_a_broken_manifest_names_entry_and_field(tmp_path, monkeypatch):
    entry = json.loads(weights.manifest_path().read_text())["checkpoints"][0]
    for change, reason in (({"sise": 3}, "sise"), ({"model": {"widht": 3}}, "widht")):
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps({"schema": 1, "checkpoints": [{**entry, **change}]}))
        monkeypatch.setattr(weights, "manifest_path", lambda path=path: path)
        weights.read_manifest.cache_clear()
        with pytest.raises(WeightsError, match=f"{entry['name']}.*{reason}"):
            weights.read_manifest()
    weights.read_manifest.cache_clear()
