"""Evaluation: known IoUs, seeds, listed episodes, reports; and the ablation."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from iir_sdk import FewShotSegmenter
from iir_sdk.data.episodes import Episode, read_episodes, sample_episodes, write_episodes
from iir_sdk.data.folder import read_picture_set, read_picture_sets
from iir_sdk.engines.pytorch import TorchEngine
from iir_sdk.errors import ConfigError, DatasetError
from iir_sdk.evaluation.evaluate import EpisodeScore, Evaluator, Protocol, draw_episodes, evaluate_set
from iir_sdk.evaluation.report import draw_episode_figures, markdown_table, telling_episodes, write_scores
from iir_sdk.training import start
from iir_sdk.training.ablate import VARIANTS, HeldOut, ablate, variants_of, varied
from iir_sdk.training.config import find_recipe, read_recipe
from tests.command import output_of
from tests.test_loop import PICTURES, random_backbone  # noqa: F401


@dataclass
class HandMade:
    """A dataset of four pictures of one class and two of another, whose masks are given."""

    masks: dict[tuple[str, str], np.ndarray]
    name: str = "hand"
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, key in self.masks:
            self.classes[name] = (*self.classes.get(name, ()), key)

    def picture(self, key: str) -> np.ndarray:
        size = next(m.shape for (_, k), m in self.masks.items() if k == key)
        return np.full((*size, 3), 90, np.uint8)

    def mask(self, name: str, key: str) -> np.ndarray:
        return self.masks[name, key]


def test_hand_made_predictions_score_as_worked_out_by_hand(small_segmenter, monkeypatch):
    """Class a: 2 of 4 pixels of the union, then 1 of 2. Class b: 0 of 3. Ignored pixels count nowhere."""
    masks = {
        ("a", "p"): np.array([[1, 1, 0], [0, 0, 255]], np.uint8),
        ("a", "q"): np.array([[0, 1, 255], [0, 0, 0]], np.uint8),
        ("b", "r"): np.array([[0, 0, 1], [0, 0, 0]], np.uint8),
        ("b", "s"): np.array([[1, 0, 0], [0, 0, 0]], np.uint8),
    }
    found = {
        "p": np.array([[1, 1, 1], [1, 0, 1]]),  # union 4 (the ignored one left out), intersection 2
        "q": np.array([[1, 1, 1], [0, 0, 0]]),  # union 2, intersection 1
        "r": np.array([[1, 1, 0], [0, 0, 0]]),  # union 3, intersection 0
    }
    evaluator = Evaluator(small_segmenter, HandMade(masks))
    monkeypatch.setattr(evaluator, "probability", lambda e: found[e.query].astype(np.float32))
    episodes = [Episode("a", ("q",), "p"), Episode("a", ("p",), "q"), Episode("b", ("s",), "r")]
    score, each = evaluator.score(episodes)
    assert [e.iou for e in each] == pytest.approx([2 / 4, 1 / 2, 0])
    assert score.per_class == pytest.approx({"a": 3 / 6, "b": 0})
    assert score.miou == pytest.approx(0.25)
    # Background: p has 1 of 3, q 3 of 4, r 3 of 6 (intersection over union of the rest, ignored left out).
    assert score.fb_iou == pytest.approx((3 / 9 + (1 + 3 + 3) / (3 + 4 + 6)) / 2)


def test_mean_and_deviation_over_seeds(small_segmenter, picture_folder):
    pictures = read_picture_set(picture_folder / "coco")
    singles = [evaluate_set(small_segmenter, pictures, Protocol(episodes=6, seeds=(s,))).miou for s in (0, 1, 2)]
    score = evaluate_set(small_segmenter, pictures, Protocol(episodes=6, seeds=(0, 1, 2)))
    assert score.miou_of_seeds == pytest.approx(singles)
    assert score.miou == pytest.approx(np.mean(singles))
    assert score.miou_std == pytest.approx(np.std(singles, ddof=1))
    assert len(score.scored) == 6


@pytest.mark.parametrize("shots", [1, 3, 5])
def test_any_number_of_shots(small_segmenter, picture_folder, shots):
    score = evaluate_set(small_segmenter, read_picture_set(picture_folder / "coins"), Protocol(shots=shots, episodes=3))
    assert all(len(s.episode.supports) == shots for s in score.scored)


def test_a_probability_is_that_of_the_network_at_the_pictures_own_size(small_segmenter, picture_folder):
    pictures = read_picture_set(picture_folder / "coco")
    episode = Episode("cat", ("cat1",), "cat2")
    engine = TorchEngine(small_segmenter.checkpoint, device="cpu")
    found = Evaluator(FewShotSegmenter(engine), pictures).probability(episode)
    pixels = pictures.picture("cat2")
    (task,) = engine.prepare([engine.encode(pictures.picture("cat1"), pictures.mask("cat", "cat1") == 1)])
    resized = np.array(Image.fromarray(pixels).resize((96, 96), Image.Resampling.BILINEAR))
    image = torch.from_numpy(resized).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        taps = engine.model.backbone((image - 0.5) / 0.5)
        logits = engine.model.decode(taps, task.state).logits
    lead = F.interpolate(logits[:, 1:] - logits[:, :1], pixels.shape[:2], mode="bilinear")
    np.testing.assert_allclose(found, lead.sigmoid()[0, 0].numpy(), atol=2e-3)


def test_the_prior_alone_can_be_scored(small_segmenter, picture_folder):
    pictures = read_picture_set(picture_folder / "coco")
    episode = Episode("cat", ("cat1",), "cat2")
    prior = Evaluator(small_segmenter, pictures, output="prior").probability(episode)
    small_segmenter.add_support(pictures.images["cat1"], pictures.root / "masks/cat/cat1.png")
    np.testing.assert_allclose(prior, small_segmenter.predict(pictures.images["cat2"]).prior, atol=2e-3)


@pytest.mark.parametrize("bad", [{"shots": 0}, {"episodes": 0}, {"seeds": ()}, {"seeds": (1, 1)}, {"min_share": 1.0}])
def test_protocols_that_make_no_sense(bad):
    with pytest.raises(ConfigError):
        Protocol(**bad)


def test_listed_episodes_are_read_back(tmp_path, picture_folder):
    pictures = read_picture_set(picture_folder / "coco")
    drawn = {"coco": draw_episodes(pictures, Protocol(shots=2, episodes=5, seeds=(0, 7)))}
    assert read_episodes(write_episodes(tmp_path / "episodes.json", drawn)) == drawn
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(DatasetError, match="not a list of episodes"):
        read_episodes(tmp_path / "bad.json")
    keys = {"a": ["x", "y", "z"]}
    assert sample_episodes(keys, shots=1, count=4, seed=2) == sample_episodes(keys, shots=1, count=4, seed=2)


def test_the_telling_episodes():
    scored = [EpisodeScore(Episode("a", ("x",), str(i)), i / 10) for i in (3, 0, 9, 5, 7)]
    found = {kind: [s.iou for s in chosen] for kind, chosen in telling_episodes(scored, 1).items()}
    assert found == {"best": [0.9], "median": [0.5], "worst": [0.0]}
    assert len(telling_episodes(scored, 99)["median"]) == 5


def test_reports(small_segmenter, picture_folder, tmp_path):
    sets = read_picture_sets(picture_folder)
    scores = [evaluate_set(small_segmenter, s, Protocol(episodes=4, seeds=(0, 1))) for s in sets]
    write_scores(tmp_path / "scores.json", scores)
    document = json.loads((tmp_path / "scores.json").read_text())
    assert document["mean_miou"] == pytest.approx(np.mean([s.miou for s in scores]))
    assert document["sets"][0]["protocol"]["seeds"] == [0, 1]
    table = markdown_table(scores)
    for part in (
        "| coco | 2 |",
        "**mean**",
        "## coins",
        "seeds 0, 1",
        f"| cat | {100 * scores[0].per_class['cat']:.1f} |",
    ):
        assert part in table, part
    written = draw_episode_figures(small_segmenter, sets[0], scores[0], tmp_path / "figures", count=2)
    assert [p.name for p in written] == ["coco_best.png", "coco_median.png", "coco_worst.png"]
    assert Image.open(written[0]).size == (720, 480)


def test_the_command_writes_everything(small_checkpoint, picture_folder, tmp_path):
    def run(*more: object) -> str:
        words = ("evaluate", "--data", picture_folder / "coco", "--weights", small_checkpoint, "--device", "cpu")
        return output_of(*words, *more)

    listed = tmp_path / "episodes.json"
    files = ("--json", tmp_path / "s.json", "--markdown", tmp_path / "s.md", "--figures", tmp_path / "figures")
    first = run("--episodes", 4, "--seed", 3, "--seed", 4, *files, "--episodes-file", listed)
    assert "+-" in first
    assert (tmp_path / "s.md").read_text().startswith("1-shot, 4 episodes")
    assert len(list((tmp_path / "figures").iterdir())) == 3
    before = listed.read_bytes()
    again = run("--episodes", 4, "--episodes-file", listed, "--json", tmp_path / "again.json")
    assert listed.read_bytes() == before
    assert re.findall("mIoU.*", again) == re.findall("mIoU.*", first)
    protocol = json.loads((tmp_path / "again.json").read_text())["sets"][0]["protocol"]
    assert (protocol["seeds"], protocol["min_share"], protocol["episodes_file"]) == ([3, 4], None, "episodes.json")


@pytest.mark.parametrize("option", ["--json", "--markdown", "--episodes-file"])
def test_a_place_that_cannot_be_written_is_refused_before_any_scoring(picture_folder, tmp_path, monkeypatch, option):
    monkeypatch.setattr("iir_sdk.segmenter.FewShotSegmenter.__init__", lambda *_, **__: pytest.fail("loaded"))
    output = output_of("evaluate", "--data", picture_folder, option, tmp_path / "none" / "s.json", code=1)
    assert "no folder" in output


def test_a_list_of_other_episodes_is_refused(small_checkpoint, picture_folder, tmp_path):
    listed = tmp_path / "episodes.json"
    base = ("evaluate", "--weights", small_checkpoint, "--device", "cpu", "--episodes", 2, "--episodes-file", listed)
    output_of(*base, "--data", picture_folder / "coco", "--fold", 3)
    assert "not of coco" in output_of(*base, "--data", picture_folder / "coco", "--fold", 0, code=1)
    assert "shots, not 2" in output_of(*base, "--data", picture_folder / "coco", "--shots", 2, code=1)
    assert "not coins" in output_of(*base, "--data", picture_folder / "coins", code=1)


def test_the_command_reads_benchmarks(small_checkpoint, tmp_path):
    from tests.benchmark_trees import fss_tree

    root = fss_tree(tmp_path / "fss")
    words = ("evaluate", "--benchmark", "fss1000", "--data", root, "--weights", small_checkpoint, "--episodes", 3)
    assert "fss1000" in output_of(*words, "--device", "cpu")


# Ablation


def test_variants_differ_in_what_they_say():
    grad = varied(PICTURES, "other_cam")
    assert grad.model.cam == "grad"
    assert varied(grad, "other_cam").model.cam == "closed_form"
    faster = read_recipe(find_recipe("lite0"))
    assert {varied(faster, name).model.cam for name in VARIANTS} == {"closed_form", "grad"}
    assert varied(PICTURES, "single").model.prototypes == "single"
    assert varied(PICTURES, "dual").model.prototypes == "dual"
    assert varied(PICTURES, "dual").model.cross_blocks == 0
    assert not varied(PICTURES, "cross").optimiser.directional_dropout
    assert varied(PICTURES, "dropout").optimiser.directional_dropout
    with pytest.raises(ConfigError, match="there are: prior"):
        varied(PICTURES, "luck")


def test_rows_that_leave_data_out_are_of_banks_that_have_it():
    embedded = read_recipe(find_recipe("duo"))
    assert variants_of(read_recipe(find_recipe("lite0")), cutouts=True) == tuple(VARIANTS)
    assert set(VARIANTS) - set(variants_of(embedded, cutouts=True)) == {"other_cam"}
    assert set(VARIANTS) - set(variants_of(embedded, cutouts=False)) == {"other_cam", "no_cutouts"}
    without_regions = embedded.changed({"episodes.regions": 0.0, "episodes.shared_regions": 0.0})
    assert set(VARIANTS) - set(variants_of(without_regions, cutouts=True)) == {"other_cam", "no_regions"}
    assert varied(embedded, "no_regions") == without_regions.changed({"optimiser.directional_dropout": True})
    prior, alone = varied(embedded, "prior"), varied(embedded, "main_set")
    assert (prior.episodes.regions, prior.episodes.shared_regions) == (0, 0)
    assert (alone.episodes.regions, alone.episodes.shared_regions) == (embedded.episodes.regions, 0)
    assert (alone.bank.main_weight, alone.bank.cutout_weight) == (1.0, 0.0)
    lacking = (
        ("main_set", "source = 'bank'"),
        ("no_regions", "episodes.regions or"),
    )
    for name, lacks in lacking:
        with pytest.raises(ConfigError, match=f"{name!r} needs what the recipe does not have: {lacks}"):
            varied(PICTURES, name)
    with pytest.raises(ConfigError, match=r"'other_cam' needs .* not have: a backbone of one network"):
        varied(embedded, "other_cam")


def test_an_ablation_trains_scores_and_writes_its_table(picture_folder, tmp_path, random_backbone):  # noqa: F811
    built: list[str] = []
    unused: dict[str, tuple[str, ...]] = {}

    def build(config: Any, folder: Path, novel: tuple[str, ...], leave_out: tuple[str, ...]) -> Any:
        built.append(folder.name)
        unused[folder.name] = (*novel, *leave_out)
        return start.build_trainer(config, picture_folder, folder, leave_out=leave_out, device="cpu", workers=0)

    config = replace(PICTURES, steps=2)
    sets = [read_picture_set(picture_folder / "coins")]
    names = variants_of(config, cutouts=False)
    assert set(VARIANTS) - set(names) == {"no_regions", "no_cutouts", "main_set"}
    held_out = [HeldOut("", (), sets)]
    rows = ablate(config, names, build, held_out, Protocol(episodes=3), tmp_path / "out", device="cpu")
    assert built == [r.variant for r in rows] == list(names)
    assert all(0 <= r.miou <= 1 for r in rows)
    assert not any(unused.values())
    table = (tmp_path / "out" / "ablation.md").read_text()
    assert all(f"| {VARIANTS[name].title} |" in table for name in names)
    document = json.loads((tmp_path / "out" / "ablation.json").read_text())
    settings = {row["variant"]: row["settings"] for row in document["rows"]}
    assert settings["single"] == {
        "model.prototypes": "single",
        "model.cross_blocks": 0,
        "optimiser.directional_dropout": False,
    }
    assert settings["dropout"] == {}, "the whole"
    assert settings["other_cam"]["model.cam"] == "grad"
    kept = tmp_path / "out" / "dual" / "score.json"
    document = json.loads(kept.read_text())
    assert document["miou"] == rows[2].miou
    kept.write_text(json.dumps(document | {"miou": 0.125}))
    again = ablate(config, ("dual",), build, held_out, Protocol(episodes=3), tmp_path / "out", device="cpu")
    assert again[0].miou == 0.125, "what was scored by the same protocol is not scored again"
    ablate(config, ("dual",), build, held_out, Protocol(episodes=4), tmp_path / "out", device="cpu")
    again = ablate(config, ("dual",), build, held_out, Protocol(episodes=3), tmp_path / "out", device="cpu")
    assert again[0].miou == pytest.approx(rows[2].miou)
