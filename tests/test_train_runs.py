"""The script that trains all runs on one machine: what it asks for, how it stops, what it leaves to take away."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from tools import train_runs


@pytest.fixture
def asked(monkeypatch) -> list[list[str]]:
    """What is asked of the package; commands write what a run leaves, fold 1 fails and fold 2 never ends."""
    words_of: list[list[str]] = []

    def started(words: list[str], log: Path) -> subprocess.Popen[bytes]:
        words_of.append(words)
        folder = Path(words[words.index("--out") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        if words[0] == "train":
            (folder / "last.pt").write_text("")
            (folder / "log.jsonl").write_text("{}")
            if folder.name not in ("fold1", "fold2"):
                (folder / "model.safetensors").write_text("")
        code = {"fold1": "raise SystemExit(2)", "fold2": "import time; time.sleep(600)"}.get(folder.name, "")
        return subprocess.Popen([sys.executable, "-S", "-c", code])

    monkeypatch.setattr(train_runs, "started", started)
    monkeypatch.setattr(train_runs, "_LOOK_AGAIN", 0.01)
    return words_of


def call(out: Path, *more: object) -> Result:
    words = ["duo", "--data", "sets", "--backbone-weights", "vit", "--set", "steps=9", "--out", out, *more]
    return CliRunner().invoke(train_runs.main, [str(word) for word in words])


def test_one_bank_is_filled_and_every_run_goes_on_from_where_it_was(asked, tmp_path):
    result = call(tmp_path, "--leave-out", "wild", "--run", "open", "--run", "all", "--run", "fold3")
    assert result.exit_code == 0, result.output
    bank, *runs = asked
    assert bank[:2] == ["bank", "duo"]
    assert all("--resume" in words and "steps=9" in words and "vit" in words for words in asked)
    assert [words[words.index("--out") + 1] for words in runs] == [str(tmp_path / n) for n in ("open", "all", "fold3")]
    assert all(words[words.index("--bank") + 1] == str(tmp_path / "bank") for words in runs)
    assert runs[0][runs[0].index("--only") + 1] == "open_sets"
    assert ["--leave-out" in words for words in runs] == [False, False, True]
    assert runs[2][runs[2].index("--exclude-fold") + 1] == "3"
    assert {file.name for file in (tmp_path / "taken" / "all").iterdir()} == {"log.jsonl", "model.safetensors"}


def test_what_failed_or_had_no_time_is_told_and_can_go_on(asked, tmp_path, monkeypatch):
    names = ("fold0", "fold1", "fold2", "fold3")

    def clock() -> float:
        """The hour is over when fold 2 has begun."""
        return 3601.0 if any(words[-1].endswith("fold2") for words in asked) else 0.0

    monkeypatch.setattr(train_runs, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
    result = call(tmp_path, "--minutes", 60, "--at-once", 1, *(word for name in names for word in ("--run", name)))
    assert result.exit_code == 1
    expected = "bank: done, fold0: done, fold1: failed, fold2: stopped, fold3: waits"
    assert result.output.splitlines()[-1] == expected
    assert {file.name for file in (tmp_path / "taken" / "fold2").iterdir()} == {"log.jsonl", "last.pt"}
    assert not (tmp_path / "taken" / "fold3").exists()


def test_its_words_are_options_of_the_commands(asked, tmp_path):
    from iir_sdk.cli.train import bank, train

    call(tmp_path, "--cutouts", "cut", "--leave-out", "wild", "--run", "open", "--run", "fold0")
    for words in asked:
        command = {"bank": bank, "train": train}[words[0]]
        command.make_context(words[0], words[1:])
