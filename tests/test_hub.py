"""Weights from the Hub, with the real client against a server of our own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from iir_sdk import FewShotSegmenter
from iir_sdk.errors import (
    HubAccessError,
    HubError,
    IntegrityError,
    WeightsError,
    WeightsNotFoundError,
)
from iir_sdk.weights.checkpoint_file import read_checkpoint
from iir_sdk.weights.saving import save_folder
from tests.conftest import save_tiny
from tests.hub_server import TOKEN
from tests.published import REPO, blobs, contents, flipped, know, load

# Finding and caching


def test_the_first_use_downloads_and_verifies(hub, entry, cache):
    segmenter = FewShotSegmenter.from_pretrained("tiny", cache_dir=cache, device="cpu")
    assert segmenter.checkpoint.sha256 == entry.sha256
    assert segmenter.checkpoint.entry.revision == entry.revision
    assert {c.name for c in segmenter.checkpoint.checks} >= {"size", "sha256", "tensors", "values"}
    assert len(hub.downloads()) == 1
    assert any("iir_sdk/0.1.0" in agent for agent in hub.agents)


def test_the_second_use_asks_nothing(hub, entry, cache):
    load(cache)
    hub.requests.clear()
    assert load(cache).sha256 == entry.sha256
    assert load(cache, local_files_only=True).sha256 == entry.sha256
    assert hub.requests == []


def test_force_download_fetches_again(hub, entry, cache):
    load(cache)
    hub.requests.clear()
    assert load(cache, force_download=True).sha256 == entry.sha256
    assert hub.downloads()


def test_what_is_pinned_stays_what_it_was(hub, entry, cache, tmp_path):
    save_tiny(tmp_path / "other.safetensors", seed=1)
    save_folder(read_checkpoint(tmp_path / "other.safetensors"), tmp_path / "other")
    later = hub.repo(REPO).commit(contents(tmp_path / "other"))
    assert load(cache).sha256 == entry.sha256
    newest = load(cache, revision="main")
    assert newest.sha256 != entry.sha256
    assert newest.entry.revision == later
    assert load(cache, revision=entry.revision).sha256 == entry.sha256


def test_any_repository_with_our_configuration(hub, entry, cache, folder):
    found = load(cache, REPO)
    assert (found.name, found.sha256, found.entry.revision) == ("tiny", entry.sha256, entry.revision)
    hub.requests.clear()
    assert load(cache, REPO, revision=entry.revision).sha256 == entry.sha256
    assert hub.requests == []
    assert load(cache, REPO, local_files_only=True).sha256 == entry.sha256
    assert hub.requests == []


def test_a_local_folder_comes_before_the_manifests_repository(hub, entry, folder, cache, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert load(cache).file == Path.cwd() / "tiny" / "model.safetensors"
    assert hub.requests == []


def test_what_is_not_published_is_never_looked_for(hub, entry, cache, monkeypatch):
    unpublished = replace(entry, published=False, repo_id=None, revision=None)
    for embedded in (False, True):
        know(monkeypatch, replace(unpublished, embedded=embedded))
        for options in ({"force_download": True}, {"revision": "main"}):
            with pytest.raises(WeightsNotFoundError, match="'tiny' is not on the Hub yet"):
                load(cache, **options)
    know(monkeypatch, unpublished)
    with pytest.raises(WeightsNotFoundError, match="not on the Hub yet"):
        load(cache)
    assert hub.requests == []


def test_a_checkpoint_for_a_newer_sdk_is_refused_before_the_download(hub, entry, cache, monkeypatch):
    know(monkeypatch, replace(entry, min_sdk_version="99.0"))
    with pytest.raises(WeightsError, match=r"needs iir_sdk 99\.0.*pip install --upgrade"):
        load(cache)
    assert hub.requests == []


# Refusals and failures of the Hub


def test_a_private_repository_needs_the_token(hub, entry, cache):
    hub.repo(REPO).private = True
    with pytest.raises(WeightsNotFoundError, match="private"):
        load(cache)
    # The storage host answers 400 to credentials, so this also shows that they stay with the Hub.
    assert load(cache, token=TOKEN).sha256 == entry.sha256


def test_a_gated_repository_says_so(hub, entry, cache):
    hub.repo(REPO).gated = True
    with pytest.raises(HubAccessError, match="gated"):
        load(cache)


def test_names_that_lead_nowhere(hub, entry, cache):
    with pytest.raises(WeightsNotFoundError, match=r"labs/none.*private"):
        load(cache, "labs/none")
    with pytest.raises(WeightsNotFoundError, match="no such revision"):
        load(cache, REPO, revision="gone")
    with pytest.raises(WeightsNotFoundError, match="no repository name"):
        load(cache, "labs/a--b")
    with pytest.raises(WeightsNotFoundError, match="did you mean 'tiny'"):
        load(cache, "tinny")


def test_a_pinned_revision_that_is_gone(hub, entry, cache):
    hub.repo(REPO).commits.clear()
    with pytest.raises(WeightsNotFoundError, match="no such revision"):
        load(cache)


def test_a_file_that_is_gone(hub, entry, cache):
    del hub.repo(REPO).commits[entry.revision]["model.safetensors"]
    with pytest.raises(WeightsNotFoundError, match="no such file"):
        load(cache)


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (401, HubAccessError, "401.*token"),
        (403, HubAccessError, "403"),
        (404, (HubError, WeightsNotFoundError), "404|no such"),
        (429, HubError, "429"),
        (500, HubError, "500"),
        (503, HubError, "503"),
    ],
)
@pytest.mark.parametrize("where", ["resolve", "storage"])
def test_every_refusal_is_named(hub, entry, cache, impatient, status, kind, says, where):
    hub.fail(f"{where}/", status=status)
    with pytest.raises(kind, match=says):
        load(cache)
    assert blobs(cache) == []
    hub.faults.clear()
    assert load(cache).sha256 == entry.sha256


@pytest.mark.parametrize("status", [429, 503])
def test_a_passing_failure_is_waited_out(hub, entry, cache, impatient, status):
    hub.fail("HEAD .*resolve", status=status, times=2)
    assert load(cache).sha256 == entry.sha256
    assert hub.faults[0].times == 0


def test_an_unreachable_hub(hub, entry, cache, impatient, monkeypatch):
    hub.fail(".", cut_after=0)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="Check the connection"):
        load(cache)


def test_a_connection_cut_midway_is_taken_up_again(hub, entry, cache, impatient):
    hub.fail("GET /storage", cut_after=entry.size // 2, times=1)
    assert load(cache).sha256 == entry.sha256
    assert len(hub.downloads()) == 2


def test_a_connection_that_is_always_cut(hub, entry, cache, impatient):
    hub.fail("GET /storage", cut_after=0)
    with pytest.raises(HubError, match="could not be had"):
        load(cache)
    assert blobs(cache) == []


# Damage


def test_a_flipped_byte_on_the_way_is_fetched_afresh(hub, entry, cache, caplog):
    hub.fail("GET /storage", body=flipped, times=1)
    assert load(cache).sha256 == entry.sha256
    assert "Set aside" in caplog.text
    assert len(list(cache.glob("models--*/blobs/*.corrupt"))) == 1


def test_a_byte_that_is_always_flipped_is_refused(hub, entry, cache):
    hub.fail("GET /storage", body=flipped)
    with pytest.raises(IntegrityError, match=f"expected sha256 {entry.sha256}, got .*no better.*Tell its owner"):
        load(cache)
    assert len(hub.downloads()) == 2
    assert blobs(cache) == []
    hub.faults.clear()
    assert load(cache).sha256 == entry.sha256


def swap_for_another(content: bytes, tmp_path: Path) -> bytes:
    save_tiny(tmp_path / "swap.safetensors", seed=2)
    return (tmp_path / "swap.safetensors").read_bytes()


DAMAGE = {
    "flipped": lambda content, tmp_path: flipped(content),
    "truncated": lambda content, tmp_path: content[:-100],
    "emptied": lambda content, tmp_path: b"",
    "swapped": swap_for_another,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_in_the_cache_is_fetched_afresh(hub, entry, cache, tmp_path, how):
    (blob,) = [load(cache).file.resolve()]
    blob.write_bytes(DAMAGE[how](blob.read_bytes(), tmp_path))
    assert load(cache).sha256 == entry.sha256
    assert load(cache, REPO, revision=entry.revision).sha256 == entry.sha256


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_without_a_network_is_refused_and_not_reused(hub, entry, cache, tmp_path, how):
    blob = load(cache).file.resolve()
    blob.write_bytes(DAMAGE[how](blob.read_bytes(), tmp_path))
    with pytest.raises(IntegrityError, match=r"expected .*Set aside as .*corrupt.*local_files_only"):
        load(cache, local_files_only=True)
    with pytest.raises(WeightsNotFoundError, match="not in the cache"):
        load(cache, local_files_only=True)


def test_a_server_that_sends_less_than_it_says(hub, entry, cache, impatient):
    hub.fail("GET /storage", body=lambda content: content[:-100])
    with pytest.raises(HubError, match="could not be had"):
        load(cache)
    assert blobs(cache) == []


def test_a_repository_whose_weights_are_not_what_its_configuration_states(hub, entry, cache, tmp_path):
    save_tiny(tmp_path / "other.safetensors", seed=3)
    hub.repo(REPO).commit({"model.safetensors": (tmp_path / "other.safetensors").read_bytes()})
    with pytest.raises(IntegrityError, match=r"expected sha256.*Tell its owner"):
        load(cache, REPO)


@pytest.mark.parametrize(
    ("config", "kind", "says"),
    [
        (b'{"architectures": ["BertModel"]}', WeightsError, "not the configuration of an iir_sdk"),
        (b"{", IntegrityError, "cannot be read"),
        (b"[]", WeightsError, "not the configuration"),
        (b"[" * 100_000, IntegrityError, "cannot be read"),
        (b'{"format": "iir_sdk.config/1"}', WeightsError, "'name' is missing"),
    ],
)
def test_a_repository_that_is_not_ours(hub, folder, cache, config, kind, says):
    hub.repo(REPO).commit(contents(folder) | {"config.json": config})
    with pytest.raises(kind, match=says):
        load(cache, REPO)


def test_a_damaged_configuration_in_the_cache_is_fetched_afresh(hub, entry, cache):
    config = load(cache, REPO).file.with_name("config.json")
    config.resolve().write_bytes(config.read_bytes()[:40])
    assert load(cache, REPO, revision=entry.revision).sha256 == entry.sha256


@pytest.mark.parametrize("change", [("sha256", "0" * 64), ("size", 5), ("surprise", 1)])
def test_a_damaged_configuration_that_is_still_json_does_not_blame_sound_weights(hub, entry, cache, change):
    config = load(cache, REPO).file.with_name("config.json").resolve()
    config.write_text(json.dumps(json.loads(config.read_text()) | dict([change])))
    assert load(cache, REPO).sha256 == entry.sha256
    assert load(cache, REPO, local_files_only=True).sha256 == entry.sha256


def test_a_token_that_is_asked_for_and_not_there(hub, entry, cache):
    with pytest.raises(HubAccessError, match="nobody is logged in"):
        load(cache, token=True)
