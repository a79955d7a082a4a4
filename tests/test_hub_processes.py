"""Weights from the Hub where processes meet, die, or find no room to write."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from iir_sdk.weights.entry import WeightsEntry
from iir_sdk.weights.saving import save_folder
from tests import SETTINGS
from tests.hub_server import HubServer
from tests.published import REPO, blobs, contents, flipped, know, load

LOAD = """
import sys, json
from pathlib import Path
from iir_sdk.weights import manifest, resolve
from iir_sdk.weights.hub import HubOptions
known = manifest.read_manifest(Path(sys.argv[1]))
resolve.known_weights = lambda: known
try:
    print("LOADED", resolve.load_checkpoint("tiny", HubOptions(cache_dir=sys.argv[2])).sha256)
except Exception as error:
    print(type(error).__name__, error)
"""


class Child:
    """Another process that loads ``tiny``."""

    def __init__(self, entry: WeightsEntry, cache: Path, prefix: tuple[str, ...] = (), before: str = "", **env: str):
        listing = cache.parent / "manifest.json"
        listing.write_text(json.dumps({"schema": 1, "checkpoints": [entry.to_dict()]}))
        command = [*prefix, sys.executable, "-c", before + LOAD, str(listing), str(cache)]
        settings = {**os.environ, **SETTINGS, **env, "PYTHONPATH": str(Path(__file__).parent.parent)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=settings)

    def answer(self) -> str:
        return self.process.communicate(timeout=100)[0].strip()


def test_offline_by_the_environment_asks_nothing(hub, entry, cache):
    load(cache)
    hub.requests.clear()
    assert Child(entry, cache, HF_HUB_OFFLINE="1").answer() == f"LOADED {entry.sha256}"
    assert "switched off" in Child(entry, cache.with_name("empty"), HF_HUB_OFFLINE="1").answer()
    assert hub.requests == []


def test_two_processes_at_once(hub, entry, cache):
    hub.fail("GET /storage", delay=1.0)
    children = [Child(entry, cache), Child(entry, cache)]
    assert [c.answer() for c in children] == [f"LOADED {entry.sha256}"] * 2
    assert len(blobs(cache)) == 1


def test_a_process_killed_midway_leaves_nothing_that_is_trusted(hub, embedded, tmp_path, cache, monkeypatch):
    """With a file larger than the client's own blocks, so that a part of it is on the disk when the process dies."""
    save_folder(embedded.checkpoint, tmp_path / "large")
    commit = hub.repo(REPO).commit(contents(tmp_path / "large"))
    config = json.loads((tmp_path / "large" / "config.json").read_text())
    entry = replace(WeightsEntry.from_config(config), name="tiny", published=True, repo_id=REPO, revision=commit)
    know(monkeypatch, entry)
    hub.fail("GET /storage", stall_after=entry.size - 1_000_000, times=1)
    child = Child(entry, cache)
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size > 1_000_000 for p in cache.glob("models--*/blobs/*.incomplete")):
        assert time.monotonic() < deadline, "the child never wrote a part of the file"
        time.sleep(0.05)
    child.process.send_signal(signal.SIGKILL)
    child.process.wait()
    assert blobs(cache) == []
    assert load(cache).sha256 == entry.sha256


def test_a_half_written_file_under_the_final_name_is_not_trusted(hub, entry, cache):
    blob = load(cache).file.resolve()
    whole = blob.read_bytes()
    blob.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    assert load(cache).sha256 == entry.sha256


def test_a_full_disk_is_named(hub, entry, cache):
    quota = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    answer = Child(entry, cache, before=quota).answer()
    assert answer.startswith("OutputError no room to download"), answer
    assert "cache_dir" in answer
    assert blobs(cache) == []
    assert load(cache).sha256 == entry.sha256


def can_mount_in_private() -> bool:
    probe = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount_in_private(), reason="no right to mount a small file system")
def test_a_really_full_disk_is_named(hub, entry, cache):
    cache.mkdir()
    mount = f'mount -t tmpfs -o size=300k none {cache} && exec "$@"'
    answer = Child(entry, cache, ("unshare", "--mount", "sh", "-c", mount, "sh")).answer()
    assert answer.startswith("OutputError no room to download"), answer


def without_override() -> tuple[str, ...] | None:
    """A prefix under which file permissions hold: root passes over them."""
    if os.geteuid() != 0:
        return ()
    if not shutil.which("setpriv"):
        return None
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")


@pytest.mark.skipif(without_override() is None, reason="root without setpriv can write anywhere")
def test_a_read_only_cache(hub, entry, cache):
    prefix = without_override()
    load(cache)
    blob = load(cache).file.resolve()
    locked = [*cache.rglob("*"), cache]
    for path in locked:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o555)
    try:
        hub.requests.clear()
        assert Child(entry, cache, prefix).answer() == f"LOADED {entry.sha256}"
        assert hub.requests == []
        blob.write_bytes(flipped(blob.read_bytes()))
        answer = Child(entry, cache, prefix).answer()
        assert answer.startswith("IntegrityError"), answer
        assert "cannot be set aside" in answer
        assert "cache_dir" in answer
        other = replace(entry, repo_id="labs/unseen")
        hub.repos["labs/unseen"] = hub.repos[REPO]
        answer = Child(other, cache, prefix).answer()
        assert answer.startswith("OutputError the cache cannot be written"), answer
    finally:
        for path in locked:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)


def test_the_hub_of_the_tests_is_the_one_that_is_asked(hub: HubServer):
    from huggingface_hub import constants

    assert hub.url == constants.ENDPOINT
