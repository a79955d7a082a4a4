"""N-way scoring: its episodes, its truth, its counts, its command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from iir_sdk.cli.main import main
from iir_sdk.data.dataset import source_of
from iir_sdk.data.folder import read_picture_set
from iir_sdk.errors import ConfigError, TooFewPicturesError
from iir_sdk.evaluation import ways
from iir_sdk.evaluation.evaluate import Evaluator, Protocol
from iir_sdk.evaluation.metrics import WaysScore
from iir_sdk.evaluation.ways import (
    WaysEpisode,
    draw_ways,
    evaluate_ways,
    predicted,
    truth_map,
)


class Drawn:
    """A data set of masks drawn by hand."""

    name = "drawn"

    def __init__(self, masks: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        self.masks = masks
        self.classes = {name: tuple(of) for name, of in masks.items()}

    def picture(self, key: str) -> np.ndarray:
        return np.zeros((2, 4, 3), np.uint8)

    def mask(self, name: str, key: str) -> np.ndarray:
        return np.asarray(self.masks[name][key], np.uint8)


def test_the_truth_is_composed_of_all_masks_of_the_episodes_labels():
    masks = {
        "plate": {"q": [[1, 1, 1, 0], [0, 0, 255, 0]]},
        "meal": {"q": [[0, 1, 0, 0], [0, 0, 0, 0]]},
        "fork": {"q": [[0, 0, 0, 1], [0, 0, 0, 0]]},
        "spoon": {"other": [[1, 0, 0, 0], [0, 0, 0, 0]]},
    }
    pictures = Drawn(masks)
    supports = (("s",),) * 3
    found = truth_map(pictures, WaysEpisode(("meal", "spoon", "plate"), supports, "q"))
    # Where plate and meal meet, and where it is not known, nothing counts; forks were not asked for.
    assert found.tolist() == [[3, 255, 3, 0], [0, 0, 255, 0]]
    assert truth_map(pictures, WaysEpisode(("fork", "meal"), supports[:2], "q")).tolist() == [
        [0, 2, 0, 1],
        [0, 0, 0, 0],
    ]


def test_intersections_and_unions_of_labels_and_background():
    score = WaysScore()
    score.add(("a", "b"), np.array([[1, 1, 0, 2], [0, 2, 1, 0]]), np.array([[1, 0, 0, 2], [0, 1, 255, 0]], np.uint8))
    score.add(("b", "c"), np.array([[1, 0]]), np.array([[1, 1]], np.uint8))
    # c was neither shown nor found.
    expected = {"a": 1 / 3, "b": (1 + 1) / (2 + 2)}
    assert score.per_class == pytest.approx(expected)
    assert score.background == pytest.approx((3 + 0) / (4 + 1))
    assert score.miou == pytest.approx(np.mean([*expected.values(), 3 / 5]))


def test_a_label_called_background_is_a_label():
    score = WaysScore()
    score.add(("background", "a"), np.array([[1, 0, 2, 0]]), np.array([[1, 1, 2, 0]], np.uint8))
    assert score.per_class == {"background": 1 / 2, "a": 1.0}
    assert score.background == 1 / 2
    assert score.miou == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)


def test_episodes_show_a_label_in_turn_and_never_their_own_supports():
    classes = {name: tuple(f"{name}{i}" for i in range(5)) for name in ("cat", "dog", "cow", "owl")}
    classes["few"] = ("few0",)
    pictures = Drawn({name: {k: [[1, 0, 0, 0], [0, 0, 0, 0]] for k in keys} for name, keys in classes.items()})
    protocol = Protocol(shots=2, episodes=40, seeds=(0, 1))
    drawn = draw_ways(pictures, protocol, 3)
    assert drawn == draw_ways(pictures, protocol, 3)
    assert drawn[0] != drawn[1]
    shown = []
    for episode in drawn[0]:
        assert len(set(episode.labels)) == 3
        assert "few" not in episode.labels
        shown += [name for name in episode.labels if episode.query in classes[name]]
        for name, keys in zip(episode.labels, episode.supports, strict=True):
            assert len(set(map(source_of, keys))) == 2
            assert set(keys) <= set(classes[name]) - {episode.query}
    assert {name: shown.count(name) for name in classes} == {"cat": 10, "dog": 10, "cow": 10, "owl": 10, "few": 0}
    assert {episode.labels.index(n) for episode, n in zip(drawn[0], shown, strict=True)} == {0, 1, 2}
    assert len(draw_ways(pictures, protocol, 9)[0][0].labels) == 4
    with pytest.raises(TooFewPicturesError, match="drawn: 0 classes have the 10 pictures"):
        draw_ways(pictures, Protocol(shots=9), 3)
    for bad in (0, 1, 255):
        with pytest.raises(ConfigError, match=f"ways={bad}"):
            draw_ways(pictures, protocol, bad)


def test_what_is_scored_is_what_users_get(small_segmenter, picture_folder):
    pictures = read_picture_set(picture_folder / "coco")
    protocol = Protocol(episodes=4)
    drawn = draw_ways(pictures, protocol, 2)
    episode = drawn[0][0]
    for name, keys in zip(episode.labels, episode.supports, strict=True):
        for key in keys:
            small_segmenter.add_support(pictures.picture(key), pictures.mask(name, key) == 1, label=name)
    expected = small_segmenter.predict(pictures.picture(episode.query))
    small_segmenter.clear_supports()
    found = predicted(Evaluator(small_segmenter, pictures), episode)
    np.testing.assert_allclose(found.leads, expected.leads, atol=1e-4)
    assert np.mean(found.label_map == expected.label_map) > 0.99
    score = evaluate_ways(small_segmenter, pictures, protocol, drawn)
    assert score.ways == 2
    assert score.miou == pytest.approx(np.mean([score.background, *score.per_class.values()]))


def test_the_command_scores_several_labels(small_checkpoint, picture_folder, tmp_path):
    base = ["evaluate", "--weights", small_checkpoint, "--device", "cpu", "--episodes", 3, "--ways", 4]
    files = ["--json", tmp_path / "s.json", "--markdown", tmp_path / "s.md"]
    command = [*base, "--data", picture_folder, "--seed", 0, "--seed", 1, *files]
    result = CliRunner().invoke(main, [str(a) for a in command])
    # The set of one class is named and left out.
    assert result.exit_code == 3, result.output
    assert "coins: 1 classes have" in result.stderr
    assert "2-way mIoU" in result.stdout
    assert result.stdout.splitlines()[-2].startswith("mean") and "by their own masks" in result.stdout.splitlines()[-2]
    document = json.loads((tmp_path / "s.json").read_text())
    (scored,) = document["sets"]
    assert (scored["ways"], scored["episodes"], scored["protocol"]["seeds"]) == (2, 3, [0, 1])
    assert set(scored["per_class"]) <= {"cat", "dog"}
    assert "| coco | 2 |" in (tmp_path / "s.md").read_text()
    for more in (["--absent"], ["--figures", tmp_path], ["--output", "prior"]):
        command = [*base, "--data", picture_folder, *more]
        result = CliRunner().invoke(main, [str(a) for a in command])
        assert result.exit_code == 2, result.output


def test_what_competition_costs_is_told_by_the_labels_own_masks(small_segmenter, monkeypatch):
    """Of a, its own mask finds all; on the map b takes one of its two pixels, and c, which is not shown, another."""
    masks = {
        "a": {"q": [[1, 1, 0, 0], [0, 0, 0, 0]]},
        "b": {"q": [[0, 0, 1, 0], [0, 0, 0, 255]]},
        "c": {"other": [[1, 0, 0, 0], [0, 0, 0, 0]]},
    }
    alone = {"a": np.array([[1, 1, 0, 0], [0, 0, 0, 0]]), "b": np.array([[0, 0, 1, 1], [0, 0, 0, 1]])}

    class Found(dict):
        """A result, by what is read of it."""

    found = Found({name: SimpleNamespace(mask=mask == 1) for name, mask in alone.items()})
    found.label_map = np.array([[1, 2, 2, 0], [0, 3, 0, 2]])
    monkeypatch.setattr(ways, "predicted", lambda evaluator, episode: found)
    episode = WaysEpisode(("a", "b", "c"), (("s",),) * 3, "q")
    score = evaluate_ways(small_segmenter, Drawn(masks), Protocol(), {0: [episode]})
    # On the map a has one of two, b one of two, c none of one; where ignored, nothing counts.
    assert score.per_class == pytest.approx({"a": 1 / 2, "b": 1 / 2, "c": 0})
    assert score.labels == pytest.approx(1 / 3)
    assert score.shown == pytest.approx(1 / 2)
    assert score.own_masks == pytest.approx((1 + 1 / 2) / 2)
