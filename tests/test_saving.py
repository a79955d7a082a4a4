"""Weights out: a folder that loads again, the model card, and publishing with the real client."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from iir_sdk import FewShotSegmenter
from iir_sdk.errors import HubAccessError, HubError, IirError, IntegrityError, OutputError, WeightsError
from iir_sdk.weights.checkpoint_file import read_checkpoint
from iir_sdk.weights.entry import EvaluationProtocol, Metric, SetMetric, WeightsEntry
from iir_sdk.weights.hub import HubOptions
from iir_sdk.weights.manifest import known_weights, read_manifest
from iir_sdk.weights.resolve import load_checkpoint
from iir_sdk.weights.saving import described, save_folder
from tests import command
from tests.hub_server import TOKEN

REPO = "labs/tiny"


@pytest.fixture
def tiny(tiny_checkpoint) -> FewShotSegmenter:
    return FewShotSegmenter(tiny_checkpoint, device="cpu")


def test_a_saved_folder_loads_again_and_predicts_the_same(tiny, scene, tmp_path):
    entry = tiny.save_pretrained(
        tmp_path / "new" / "mine", name="mine", description="Finds discs.", license="MIT", training_data=["discs"]
    )
    assert sorted(p.name for p in (tmp_path / "new" / "mine").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    again = FewShotSegmenter.from_pretrained(tmp_path / "new" / "mine", device="cpu")
    assert again.checkpoint.entry == entry
    assert (entry.name, entry.license, entry.training_data) == ("mine", "MIT", ("discs",))
    for segmenter in (tiny, again):
        segmenter.add_support(*scene)
    assert np.array_equal(tiny.predict(scene[0]).probability, again.predict(scene[0]).probability)


def test_unchanged_weights_keep_their_bytes_so_that_saved_supports_still_fit(tiny, embedded, scene, tmp_path):
    for segmenter in (tiny, embedded):
        for i in range(3):
            assert segmenter.save_pretrained(tmp_path / str(i)).sha256 == segmenter.checkpoint.sha256
    tiny.add_support(*scene)
    tiny.save_supports(tmp_path / "supports.safetensors")
    tiny.save_pretrained(tmp_path / "again")
    assert FewShotSegmenter(tmp_path / "again", device="cpu").load_supports(tmp_path / "supports.safetensors")


def test_unchanged_weights_keep_their_scores_wherever_they_came_from(embedded, tmp_path, monkeypatch):
    embedded.save_pretrained(tmp_path / "one")
    monkeypatch.chdir(tmp_path)
    loaded = FewShotSegmenter("one", device="cpu")
    monkeypatch.chdir("/")
    assert loaded.save_pretrained(tmp_path / "two").metrics == embedded.checkpoint.entry.metrics
    (tmp_path / "one").rename(tmp_path / "moved")
    assert loaded.save_pretrained(tmp_path / "three").metrics == embedded.checkpoint.entry.metrics


def test_changed_weights_are_what_is_saved(tiny, tmp_path):
    name, tensor = next((n, t) for n, t in tiny.model.named_parameters() if t.ndim == 4)
    tensor.data.mul_(2)
    entry = tiny.save_pretrained(tmp_path / "changed")
    assert entry.sha256 != tiny.checkpoint.sha256
    assert entry.metrics == ()
    loaded = FewShotSegmenter(tmp_path / "changed", device="cpu").model.get_parameter(name)
    assert np.allclose(loaded.numpy(), tensor.detach().numpy(), rtol=1e-3)


def test_a_folder_whose_weights_were_exchanged_is_refused(tiny, tmp_path, small_checkpoint):
    tiny.save_pretrained(tmp_path / "mine")
    (tmp_path / "mine" / "model.safetensors").write_bytes(small_checkpoint.read_bytes())
    with pytest.raises(IntegrityError, match=r"expected .* bytes, got .*config\.json beside it names"):
        FewShotSegmenter(tmp_path / "mine")


def test_the_model_card_says_what_one_must_know(tiny, tmp_path):
    protocol = EvaluationProtocol(1000, 1, (0,), 0.01, 480, "own size")
    metric = Metric("Coins", 0.512, (SetMetric("coins", 0.512, 0.7),), protocol, tiny.checkpoint.sha256)
    entry = replace(tiny.checkpoint.entry, metrics=(metric,), license="CC-BY-4.0", license_note="Photos by hand.")
    save_folder(replace(tiny.checkpoint, entry=entry), tmp_path / "mine")
    card = (tmp_path / "mine" / "README.md").read_text()
    assert card.startswith("---\n")
    for part in (
        "license: cc-by-4.0",
        "library_name: iir_sdk",
        "51.2",
        "70.0",
        "1000 episodes",
        "CC-BY-4.0. Photos by hand.",
        "## Limits",
    ):
        assert part in card, part
    assert tiny.checkpoint.sha256 in card
    assert "{" not in card.split("```")[2]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"name": "a/b"}, "name="),
        ({"license": ""}, "license="),
        ({"description": "two\nlines"}, "description="),
        ({"training_data": "coco"}, "pass a list"),
        ({"training_data": [3]}, "training_data="),
    ],
)
def test_words_that_break_a_rule_write_nothing(tiny, tmp_path, words, says):
    with pytest.raises(WeightsError, match=says):
        tiny.save_pretrained(tmp_path / "mine", **words)
    assert not (tmp_path / "mine").exists()


def test_a_folder_that_cannot_be_made(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make folder"):
        tiny.save_pretrained(tmp_path / "file" / "mine")


def test_push_to_hub_publishes_and_fetches_back(hub, tiny, tmp_path):
    entry = tiny.push_to_hub(REPO, token=TOKEN, license="MIT", name="tiny")
    assert entry.published
    assert entry.revision == hub.repo(REPO).refs["main"]
    assert set(hub.repo(REPO).commits[entry.revision]) == {"README.md", "config.json", "model.safetensors"}
    assert f'from_pretrained("{REPO}")' in hub.repo(REPO).commits[entry.revision]["README.md"].decode()
    checkpoint = load_checkpoint(REPO, HubOptions(cache_dir=tmp_path))
    assert checkpoint.entry == entry


def test_publishing_the_same_again_is_no_new_commit(hub, tiny):
    first = tiny.push_to_hub(REPO, token=TOKEN, license="MIT")
    assert tiny.push_to_hub(REPO, token=TOKEN, license="MIT") == first
    assert len(hub.repo(REPO).commits) == 1


@pytest.mark.parametrize("repo_id", ["mine", "a/b/c", "me/my weights", ""])
def test_a_name_that_is_no_repository_is_refused_before_the_upload(hub, tiny, repo_id):
    with pytest.raises(WeightsError, match="must be owner/name"):
        tiny.push_to_hub(repo_id, token=TOKEN, license="MIT")
    assert hub.requests == []


def test_weights_that_are_no_numbers_are_neither_saved_nor_published(hub, tiny, tmp_path):
    name, tensor = next(iter(tiny.model.decoder.named_parameters()))
    tensor.data.fill_(float("nan"))
    with pytest.raises(WeightsError, match=f"{name} holds NaN"):
        tiny.save_pretrained(tmp_path / "mine")
    with pytest.raises(WeightsError, match="not saved"):
        tiny.push_to_hub(REPO, token=TOKEN, license="MIT")
    assert hub.requests == []


def test_weights_too_large_for_half_precision_are_kept(tiny, tmp_path):
    name, tensor = next(iter(tiny.model.decoder.named_parameters()))
    tensor.data.fill_(1e6)
    tiny.save_pretrained(tmp_path / "mine")
    assert (FewShotSegmenter(tmp_path / "mine", device="cpu").model.decoder.get_parameter(name) == 1e6).all()


def test_a_disk_too_small_to_save_on(tiny_checkpoint, tmp_path):
    code = f"""
import resource
from iir_sdk import FewShotSegmenter
segmenter = FewShotSegmenter({str(tiny_checkpoint)!r}, device="cpu")
next(segmenter.model.decoder.parameters()).data.mul_(2)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    segmenter.save_pretrained({str(tmp_path / "mine")!r})
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("OutputError cannot write"), done.stdout + done.stderr
    assert list((tmp_path / "mine").iterdir()) == []


def test_push_to_hub_can_be_private(hub, tiny):
    tiny.push_to_hub(REPO, token=TOKEN, license="MIT", private=True)
    assert hub.repo(REPO).private


def test_what_may_not_be_pushed(hub, tiny):
    with pytest.raises(WeightsError, match="states no licence"):
        tiny.push_to_hub(REPO, token=TOKEN)
    assert hub.requests == []
    with pytest.raises(HubAccessError, match="401"):
        tiny.push_to_hub(REPO, license="MIT")
    assert REPO not in hub.repos


@pytest.mark.parametrize("where", ["PUT /storage", "preupload", "/commit/", "create"])
def test_a_hub_that_fails_during_the_upload_is_named(hub, tiny, monkeypatch, where):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.fail(where, status=500)
    with pytest.raises(HubError, match="HTTP 500"):
        tiny.push_to_hub(REPO, token=TOKEN, license="MIT")


def test_a_hub_that_garbles_what_was_sent_is_noticed(hub, tiny):
    hub.fail("GET /storage", body=lambda content: content[:-1] + b"\x01")
    with pytest.raises(IntegrityError, match="Publish it again"):
        tiny.push_to_hub(REPO, token=TOKEN, license="MIT")


# The command


run = partial(command.run, "weights")


@pytest.fixture
def listing(tmp_path) -> Path:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"schema": 1, "checkpoints": []}))
    return path


def test_publish_writes_the_manifest_entry(hub, tiny_checkpoint, listing, tmp_path):
    code, output = run(
        "publish", tiny_checkpoint, REPO, "--license", "MIT", "--data", "discs", "--token", TOKEN, "--manifest", listing
    )
    assert code == 0, output
    entry = read_manifest(listing)["tiny"]
    assert entry.revision == hub.repo(REPO).refs["main"]
    assert entry.revision in output
    content = hub.repo(REPO).commits[entry.revision]["model.safetensors"]
    assert (entry.size, entry.license, entry.training_data) == (len(content), "MIT", ("discs",))
    assert load_checkpoint(REPO, HubOptions(cache_dir=tmp_path / "cache")).sha256 == entry.sha256


def test_publishing_the_embedded_checkpoint_keeps_it_embedded(hub, embedded, listing):
    before = embedded.checkpoint.entry
    listing.write_text(json.dumps({"schema": 1, "checkpoints": [before.to_dict()]}))
    code, output = run("publish", before.name, "labs/lite2", "--token", TOKEN, "--manifest", listing)
    assert code == 0, output
    after = read_manifest(listing)[before.name]
    assert after == replace(before, published=True, repo_id="labs/lite2", revision=after.revision)


def test_other_weights_under_an_embedded_name_are_refused_before_the_upload(hub, embedded, tiny_checkpoint, listing):
    before = embedded.checkpoint.entry
    listing.write_text(json.dumps({"schema": 1, "checkpoints": [before.to_dict()]}))
    arguments = ("--name", before.name, "--license", "MIT", "--token", TOKEN, "--manifest", listing)
    code, output = run("publish", tiny_checkpoint, REPO, *arguments)
    assert code == 1
    assert "another name" in output
    assert hub.requests == []


def test_a_manifest_of_ones_own_is_begun(hub, tiny_checkpoint, tmp_path):
    fresh = tmp_path / "mine.json"
    arguments = ("--license", "MIT", "--token", TOKEN, "--manifest", fresh)
    code, output = run("publish", tiny_checkpoint, REPO, *arguments)
    assert code == 0, output
    assert list(read_manifest(fresh)) == ["tiny"]


def test_a_refused_publication_leaves_the_manifest_alone(hub, tiny_checkpoint, listing):
    before = listing.read_bytes()
    code, output = run("publish", tiny_checkpoint, REPO, "--license", "MIT", "--manifest", listing)
    assert code == 1
    assert "401" in output
    assert listing.read_bytes() == before


def test_list_info_and_verify_of_the_embedded(embedded):
    entry = embedded.checkpoint.entry
    code, output = run("list")
    assert code == 0
    assert entry.name in output
    assert "embedded" in output
    code, output = run("info", entry.name)
    assert code == 0
    for part in (entry.sha256, entry.license, entry.training_data[0], entry.metrics[0].title):
        assert part in output
    code, output = run("verify")
    assert code == 0
    own = [e for e in known_weights().values() if e.embedded]
    assert {e.name for e in own} == {"iir-duo", "iir-duo-research", "iir-lite0"}
    assert output.count("  ok  ") == len(own) * len(embedded.checkpoint.checks) == 18
    assert all(e.sha256 in output for e in own)


def test_verify_names_what_is_wrong(tiny_checkpoint, tmp_path):
    assert run("verify", tiny_checkpoint)[0] == 0
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(tiny_checkpoint.read_bytes()[:-4])
    code, output = run("verify", bad)
    assert code == 1
    assert "bad.safetensors" in output
    assert run("verify", "no/such")[0] == 1
    assert run("info", "iir-huge")[0] == 1


def test_download_puts_a_repository_into_the_cache(hub, tiny, tmp_path):
    tiny.push_to_hub(REPO, token=TOKEN, license="MIT")
    hub.requests.clear()
    code, output = run("download", REPO, "--cache-dir", tmp_path / "cache")
    assert code == 0, output
    assert output.count("  ok  ") == 6
    assert len(hub.downloads()) == 1
    assert run("verify", REPO, "--cache-dir", tmp_path / "cache")[0] == 0
    assert len(hub.downloads()) == 1
    commit = hub.repo(REPO).refs["main"]
    assert run("download", REPO, "--revision", commit, "--cache-dir", tmp_path / "pinned")[0] == 0
    code, output = run("verify", REPO, "--revision", commit, "--cache-dir", tmp_path / "pinned")
    assert code == 0, output
    assert "as labs/tiny/config.json states" in output
    code, output = run("download", "iir-duo")
    assert code == 1
    assert "not on the Hub yet" in output


def test_described_keeps_what_is_not_given(tiny_checkpoint):
    entry = replace(read_checkpoint(tiny_checkpoint).entry, license="MIT", license_note="A note.")
    assert described(entry) == entry
    assert described(entry, license="MIT").license_note == "A note."
    assert described(entry, license="Apache-2.0").license_note == ""
    assert issubclass(WeightsError, IirError)
    assert isinstance(entry, WeightsEntry)
