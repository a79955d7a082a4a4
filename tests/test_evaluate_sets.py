"""Scoring several sets: what is left out is named, and what was scored is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from iir_sdk.cli.main import main
from iir_sdk.errors import DatasetError
from iir_sdk.evaluation import calibration as presence_fit
from iir_sdk.evaluation import evaluate as evaluation
from iir_sdk.evaluation.calibration import PresenceScore


def run(checkpoint: Path, data: Path, *more: object) -> Result:
    arguments = ["evaluate", "--data", data, "--weights", checkpoint, "--device", "cpu", "--episodes", 2, *more]
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def sets(picture_folder: Path, tmp_path: Path) -> Path:
    """Three sets, of which one has a single picture."""
    data = tmp_path / "sets"
    shutil.copytree(picture_folder, data)
    shutil.copytree(data / "coins", data / "few")
    for kind in ("images", "masks/coin"):
        for file in sorted((data / "few" / kind).iterdir())[1:]:
            file.unlink()
    return data


def test_a_list_that_is_there_is_scored_into_a_table(small_checkpoint, picture_folder, tmp_path):
    files = ("--episodes-file", tmp_path / "list.json", "--markdown", tmp_path / "s.md")
    assert run(small_checkpoint, picture_folder / "coco", *files).exit_code == 0
    assert "objects of at least 1 % of the picture" in (tmp_path / "s.md").read_text()
    result = run(small_checkpoint, picture_folder / "coco", *files)
    assert result.exit_code == 0, result.output
    assert "episodes listed in `list.json`" in (tmp_path / "s.md").read_text()


def test_sets_with_too_few_pictures_are_named_and_left_out(small_checkpoint, sets, tmp_path):
    files = ("--json", tmp_path / "s.json", "--markdown", tmp_path / "s.md", "--figures", tmp_path / "figures")
    for listed in ((), ("--episodes-file", tmp_path / "list.json"), ("--episodes-file", tmp_path / "list.json")):
        result = run(small_checkpoint, sets, *files, *listed)
        assert result.exit_code == 3, result.output
        assert "few" in result.stderr
        assert "left out: few" in result.stdout
        document = json.loads((tmp_path / "s.json").read_text())
        assert [s["name"] for s in document["sets"]] == ["coco", "coins"]
        assert list(document["left_out"]) == ["few"]
        assert "Left out: " in (tmp_path / "s.md").read_text()
        assert len(list((tmp_path / "figures").iterdir())) == 6
    assert "few: no class has the 2 pictures that a 1-shot episode needs" in run(small_checkpoint, sets).stderr


def test_no_set_at_all_is_an_error(small_checkpoint, sets):
    result = run(small_checkpoint, sets / "few")
    assert result.exit_code == 1
    assert "no set is left: few: no class has the 2 pictures" in result.output
    assert run(small_checkpoint, sets / "few", "--absent").exit_code != 0


def test_each_sets_score_is_kept_as_it_comes(small_checkpoint, picture_folder, tmp_path, monkeypatch):
    real, scored = evaluation.evaluate_set, []

    def until_the_second(segmenter: object, pictures: object, *more: object, **named: object) -> object:
        if scored:
            raise KeyboardInterrupt
        scored.append(pictures)
        return real(segmenter, pictures, *more, **named)

    monkeypatch.setattr(evaluation, "evaluate_set", until_the_second)
    result = run(small_checkpoint, picture_folder, "--json", tmp_path / "s.json", "--markdown", tmp_path / "s.md")
    assert result.exit_code != 0
    assert [s["name"] for s in json.loads((tmp_path / "s.json").read_text())["sets"]] == ["coco"]
    assert "| coco |" in (tmp_path / "s.md").read_text()


def test_each_sets_presence_is_kept_as_it_comes(small_checkpoint, picture_folder, tmp_path, monkeypatch):
    def until_the_second(segmenter: object, pictures: object, protocol: object) -> PresenceScore:
        if pictures.name != "coco":
            raise DatasetError("broken")
        return PresenceScore("coco", 0.5, 0.5, 0.5, 0.5, 2)

    monkeypatch.setattr(presence_fit, "presence_score", until_the_second)
    assert run(small_checkpoint, picture_folder, "--absent", "--json", tmp_path / "s.json").exit_code != 0
    assert [s["name"] for s in json.loads((tmp_path / "s.json").read_text())["sets"]] == ["coco"]


def test_sets_without_absence_are_named_in_the_file(small_checkpoint, picture_folder, tmp_path, monkeypatch):
    real = presence_fit.present_and_absent
    monkeypatch.setattr(
        presence_fit,
        "presence_score",
        lambda segmenter, pictures, protocol: (
            real(segmenter, pictures, protocol) and PresenceScore(pictures.name, 0.5, 0.5, 0.5, 0.5, 2)
        ),
    )
    result = run(small_checkpoint, picture_folder, "--absent", "--json", tmp_path / "s.json")
    assert result.exit_code == 3, result.output
    assert list(json.loads((tmp_path / "s.json").read_text())["left_out"]) == ["coins"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--ways", 0), "--ways"),
        (("--benchmark", "pascal", "--exif", "stored"), "--exif"),
        (("--absent", "--seed", 0, "--seed", 1), "one --seed"),
        (("--absent", "--output", "prior"), "--output"),
    ],
)
def test_options_that_would_change_nothing_are_refused_before_anything_is_read(options, says, tmp_path, monkeypatch):
    monkeypatch.setattr("iir_sdk.cli.evaluate.sets_of", lambda *given: pytest.fail("read"))
    result = run(tmp_path / "missing.safetensors", tmp_path, *options)
    assert result.exit_code == 2, result.output
    assert says in result.stderr


def test_a_place_where_no_figures_can_be_is_told_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("iir_sdk.cli.evaluate.sets_of", lambda *given: pytest.fail("read"))
    (tmp_path / "file").touch()
    result = run(tmp_path / "missing.safetensors", tmp_path, "--figures", tmp_path / "file")
    assert result.exit_code == 1
    assert "cannot make folder" in result.output
