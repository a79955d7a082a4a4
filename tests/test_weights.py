"""The manifest, and the check of a checkpoint before it is used."""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import iir_sdk
from iir_sdk.errors import ConfigError, IntegrityError, WeightsError, WeightsNotFoundError
from iir_sdk.pictures.preprocess import Preprocessing
from iir_sdk.weights import manifest
from iir_sdk.weights.checkpoint_file import FORMAT, read_checkpoint, save_checkpoint
from iir_sdk.weights.entry import WeightsEntry
from iir_sdk.weights.manifest import manifest_path, read_manifest, write_entry
from iir_sdk.weights.model_card import model_card
from iir_sdk.weights.resolve import embedded_file, load_checkpoint

EMBEDDED = manifest.weights_info(manifest.DEFAULT)


def test_the_manifest_tells_the_truth_about_the_embedded_file():
    content = embedded_file(EMBEDDED).read_bytes()
    assert EMBEDDED.size == len(content)
    assert EMBEDDED.sha256 == hashlib.sha256(content).hexdigest()
    model = load_checkpoint().model
    assert EMBEDDED.parameters == sum(p.numel() for p in model.parameters())
    assert EMBEDDED.published == (EMBEDDED.revision is not None)
    assert EMBEDDED.license
    assert EMBEDDED.training_data
    assert EMBEDDED.metrics


@pytest.mark.parametrize(
    ("name", "most"), [("iir-duo", 25_000_000), ("iir-duo-research", 25_000_000), ("iir-lite0", 16_000_000)]
)
def test_embedded_files_are_small_and_their_cards_are_of_the_manifest(name, most):
    entry = manifest.weights_info(name)
    assert embedded_file(entry).stat().st_size == entry.size <= most
    assert embedded_file(entry).with_suffix(".md").read_text(encoding="utf-8") == model_card(entry, entry.name)


def test_the_file_carries_the_same_configuration_as_its_entry():
    entry = read_checkpoint(embedded_file(EMBEDDED)).entry
    assert (entry.model, entry.preprocessing) == (EMBEDDED.model, EMBEDDED.preprocessing)
    with safe_open(embedded_file(EMBEDDED), framework="pt") as stored:
        assert {stored.get_tensor(n).dtype for n in stored.keys()} <= {torch.float16, torch.int64}  # noqa: SIM118


def test_known_names():
    assert iir_sdk.list_weights()[0] == manifest.DEFAULT
    assert iir_sdk.weights_info(manifest.DEFAULT).sha256 == EMBEDDED.sha256
    with pytest.raises(WeightsNotFoundError, match="did you mean 'iir-duo'"):
        iir_sdk.weights_info("iir-dou")


def test_a_checkpoint_round_trips(small_model, small_checkpoint):
    loaded = load_checkpoint(small_checkpoint)
    assert loaded.model.config == small_model.config
    assert loaded.preprocessing == Preprocessing(size=96, support_size=64)
    for name, tensor in small_model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
    assert not loaded.model.training


def test_the_same_weights_are_the_same_bytes(small_model, tmp_path):
    digests = {save_checkpoint(small_model, Preprocessing(), tmp_path / f"{i}.safetensors") for i in range(5)}
    assert len(digests) == 1


def test_a_folder_is_a_checkpoint(small_checkpoint, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(small_checkpoint.read_bytes())
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.sha256 == load_checkpoint(small_checkpoint).sha256
    assert checkpoint.entry.license == "not stated"
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsNotFoundError, match=r"model\.safetensors"):
        load_checkpoint(tmp_path / "empty")


@pytest.mark.parametrize("name", ["", "a" * 300, "no/such/file.safetensors", Path("iir-duo"), Path("labs/tiny")])
def test_what_leads_nowhere(name):
    with pytest.raises(WeightsNotFoundError):
        load_checkpoint(name)


def pinned(checkpoint: Path, **changes: object) -> WeightsEntry:
    return replace(read_checkpoint(checkpoint).entry, **changes)  # type: ignore[arg-type]


def test_a_flipped_byte_is_noticed(tiny_checkpoint, tmp_path):
    entry = pinned(tiny_checkpoint)
    content = bytearray(tiny_checkpoint.read_bytes())
    content[-5] ^= 1
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(IntegrityError, match=rf"bad\.safetensors: expected sha256 {entry.sha256}, got"):
        read_checkpoint(tmp_path / "bad.safetensors", entry)


def test_what_was_pinned_is_compared_to_the_last_field(tiny_checkpoint):
    assert [c.name for c in read_checkpoint(tiny_checkpoint, pinned(tiny_checkpoint)).checks] == [
        "size",
        "sha256",
        "format",
        "configuration",
        "tensors",
        "values",
    ]
    for changes, says in (
        ({"size": 5}, "expected 5 bytes"),
        ({"sha256": "0" * 64}, "expected sha256 0000"),
        ({"preprocessing": Preprocessing(size=96)}, "its own configuration"),
        ({"parameters": 7}, "expected 7 parameters"),
    ):
        with pytest.raises(IntegrityError, match=says):
            read_checkpoint(tiny_checkpoint, pinned(tiny_checkpoint, **changes))


def changed(checkpoint: Path, tmp_path: Path, change: object) -> Path:
    tensors = load_file(checkpoint)
    with safe_open(checkpoint, framework="pt") as stored:
        metadata = dict(stored.metadata())
    change(tensors, metadata)  # type: ignore[operator]
    path = tmp_path / "changed.safetensors"
    save_file(tensors, path, metadata)
    return path


BIAS = "decoder.fuse_query.bias"


def drop(tensors: dict, _: dict) -> None:
    del tensors[BIAS]


def add(tensors: dict, _: dict) -> None:
    tensors["surprise"] = torch.zeros(1)


def reshape(tensors: dict, _: dict) -> None:
    tensors[BIAS] = torch.zeros(3)


def recast(tensors: dict, _: dict) -> None:
    tensors[BIAS] = tensors[BIAS].double()


def poison(tensors: dict, _: dict) -> None:
    tensors[BIAS][0] = torch.nan


def overflow(tensors: dict, _: dict) -> None:
    tensors[BIAS][0] = torch.inf


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drop, f"lacks '{BIAS}'"),
        (add, "surprise"),
        (reshape, r"has shape \[3\], expected"),
        (recast, "has dtype F64, expected F16 or BF16 or F32"),
        (poison, "NaN"),
        (overflow, "infinite"),
    ],
)
def test_wrong_tensors_are_refused(tiny_checkpoint, tmp_path, change, reason):
    with pytest.raises(IntegrityError, match=reason):
        load_checkpoint(changed(tiny_checkpoint, tmp_path, change))


def hostile(_: dict, metadata: dict) -> None:
    config = json.loads(metadata[FORMAT])
    config["model"]["width"] = 10**9
    metadata[FORMAT] = json.dumps(config)


def elsewhere(_: dict, metadata: dict) -> None:
    config = json.loads(metadata[FORMAT])
    config["model"]["backbone"] = "hf-hub:labs/anything"
    metadata[FORMAT] = json.dumps(config)


def foreign(_: dict, metadata: dict) -> None:
    metadata["other"] = metadata.pop(FORMAT)


def older(_: dict, metadata: dict) -> None:
    metadata["iir_sdk.checkpoint/1"] = metadata.pop(FORMAT)


def broken(_: dict, metadata: dict) -> None:
    metadata[FORMAT] = "{"


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        (hostile, ConfigError, "width"),
        (elsewhere, ConfigError, "plain timm model name"),
        (foreign, WeightsError, "not a checkpoint of this package"),
        (older, WeightsError, "format 'iir_sdk.checkpoint/1': load it with the iir_sdk that made it"),
        (broken, WeightsError, "configuration cannot be read"),
    ],
)
def test_wrong_configurations_are_refused(tiny_checkpoint, tmp_path, change, kind, reason):
    with pytest.raises(kind, match=reason):
        load_checkpoint(changed(tiny_checkpoint, tmp_path, change))


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"\xff" * 8 + b"{}", b"\x02" + b"\x00" * 7 + b"[]"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.safetensors is not a safetensors file"):
        load_checkpoint(path)


class Trap:
    """Runs code when unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def test_pickles_are_never_opened(tmp_path):
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Trap()))
    torch.save({"weight": torch.zeros(2)}, tmp_path / "b.pt")
    for name in ("a.pt", "b.pt"):
        with pytest.raises(WeightsError, match="looks like a pickle"):
            load_checkpoint(tmp_path / name)


# The manifest


def one_entry() -> dict:
    return next(e for e in json.loads(manifest_path().read_text())["checkpoints"] if e["name"] == EMBEDDED.name)


def write(tmp_path: Path, document: object) -> Path:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("sise", 3, "unknown key 'sise'; did you mean 'size'"),
        ("size", -1, "size=-1 must be an integer"),
        ("size", True, "size=True must be an integer"),
        ("sha256", "ABC", "sha256='ABC' must be 64"),
        ("filename", "../../etc/passwd.safetensors", "filename="),
        ("filename", "model.bin", "filename="),
        ("revision", "main", "revision='main' must be a commit"),
        ("published", True, "must have both"),
        ("repo_id", "labs/tiny", "an unpublished one neither"),
        ("model", {"widht": 3}, "widht"),
        ("model", {"width": 1}, "width=1"),
        ("preprocessing", {"size": 10}, "size=10"),
        ("license", "", "license='' must be"),
        ("training_data", "coco", "training_data='coco' must be a list"),
        ("min_sdk_version", "new", "min_sdk_version='new' must be a version"),
        ("metrics", [{}], r"metrics\[0\]: key 'title' is missing"),
        ("name", "a b", "name='a b'"),
    ],
)
def test_a_broken_manifest_names_entry_and_field(tmp_path, field, value, says):
    entry = {**one_entry(), field: value}
    path = write(tmp_path, {"schema": 1, "checkpoints": [entry]})
    with pytest.raises(WeightsError, match=f"manifest.json, entry {entry['name']!r}: .*{says}"):
        read_manifest(path)


def test_every_field_of_an_entry_is_needed(tmp_path):
    optional = {"embedded", "published", "repo_id", "revision"}
    for field in set(one_entry()) - optional:
        entry = one_entry()
        del entry[field]
        with pytest.raises(WeightsError, match=f"key '{field}' is missing"):
            read_manifest(write(tmp_path, {"schema": 1, "checkpoints": [entry]}))


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "object with a list"),
        ({"schema": 1}, "object with a list"),
        ({"schema": 2, "checkpoints": []}, "schema=2 must be 1.*newer"),
        ({"checkpoints": []}, "schema=None"),
        ({"schema": 1, "checkpoints": [3]}, "entry 0"),
        ({"schema": 1, "checkpoints": [one_entry(), one_entry()]}, "two entries named"),
    ],
)
def test_a_manifest_of_another_shape(tmp_path, document, says):
    with pytest.raises(WeightsError, match=says):
        read_manifest(write(tmp_path, document))


def test_a_manifest_that_is_missing_or_huge(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        read_manifest(tmp_path / "none.json")
    (tmp_path / "huge.json").write_bytes(b" " * 5_000_000)
    with pytest.raises(WeightsError, match="5,000,000 bytes, more than"):
        read_manifest(tmp_path / "huge.json")


def test_an_entry_is_replaced_and_others_are_kept(tmp_path):
    path = write(tmp_path, {"schema": 1, "checkpoints": [one_entry(), {**one_entry(), "name": "second"}]})
    write_entry(path, replace(EMBEDDED, name="third"))
    write_entry(path, replace(EMBEDDED, description="Changed."))
    entries = read_manifest(path)
    assert list(entries) == [EMBEDDED.name, "second", "third"]
    assert entries[EMBEDDED.name].description == "Changed."
    assert entries["third"] == replace(EMBEDDED, name="third")


def test_an_entry_round_trips():
    assert WeightsEntry.from_dict(json.loads(json.dumps(EMBEDDED.to_dict()))) == EMBEDDED
    stated = WeightsEntry.from_config(json.loads(json.dumps(EMBEDDED.to_config())))
    assert stated == replace(EMBEDDED, embedded=False, published=False, repo_id=None, revision=None)
