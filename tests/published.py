"""A checkpoint on the tests' Hub, and what its tests share; its fixtures are known to all tests."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from iir_sdk.weights import manifest, resolve
from iir_sdk.weights.checkpoint_file import read_checkpoint
from iir_sdk.weights.entry import WeightsEntry
from iir_sdk.weights.hub import HubOptions
from iir_sdk.weights.resolve import load_checkpoint
from iir_sdk.weights.saving import save_folder

REPO = "labs/tiny"


@pytest.fixture
def folder(tiny_checkpoint, tmp_path) -> Path:
    """What save_pretrained writes, ready to be put on the Hub."""
    save_folder(read_checkpoint(tiny_checkpoint), tmp_path / "tiny")
    return tmp_path / "tiny"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def entry(hub, folder, monkeypatch) -> WeightsEntry:
    """A published checkpoint that the manifest knows as ``tiny``."""
    commit = hub.repo(REPO).commit(contents(folder))
    config = json.loads((folder / "config.json").read_text())
    entry = replace(WeightsEntry.from_config(config), name="tiny", published=True, repo_id=REPO, revision=commit)
    know(monkeypatch, entry)
    return entry


def know(monkeypatch, *entries: WeightsEntry) -> None:
    for module in (resolve, manifest):
        monkeypatch.setattr(module, "known_weights", lambda: {e.name: e for e in entries})


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def impatient(monkeypatch) -> None:
    """The client waits between its retries; here it does not."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def load(cache: Path, name: str = "tiny", **options: object):
    return load_checkpoint(name, HubOptions(cache_dir=cache, **options))  # type: ignore[arg-type]


def blobs(cache: Path) -> list[Path]:
    """Complete files of weights in the cache that a later call might take."""
    held = cache.glob("models--*/blobs/*")
    return [p for p in held if p.suffix not in (".corrupt", ".incomplete") and p.stat().st_size > 100_000]


def flipped(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
