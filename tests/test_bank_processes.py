"""A bank filled by several processes is the one that a single process fills, whoever of them died in between."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import distributed

from iir_sdk.errors import DatasetError
from iir_sdk.training import sources, start
from iir_sdk.training.bank import file
from iir_sdk.training.run.processes import Processes
from tests.test_training import TINY, cutouts, random_backbone

__all__ = ["cutouts", "random_backbone"]

FILE_VIEWS = 4
VIEWS = TINY.changed(
    {"model": replace(TINY.model, backbone="test_efficientnet"), "bank.views": 18, "bank.views_of_picture": (1, 12)}
)
"""Five files, the last of them half a one."""

SHARED = """
import os, signal, sys
from pathlib import Path
from iir_sdk.cli.main import main
from iir_sdk.training import fine_tuning, sources, start
from iir_sdk.training.bank import file
from iir_sdk.training.bank.views import ViewMaker
from tests.test_bank_processes import FILE_VIEWS, VIEWS
from tests.test_training import random_weights

start.load_backbone_weights = random_weights
fine_tuning.chosen_recipe = lambda *given: VIEWS
file.PART_VIEWS = sources._TOGETHER = FILE_VIEWS
make, log = ViewMaker.make, Path(sys.argv[1])


def made(self, index):
    first_life = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if index == 13 and first_life:
        os.kill(os.getpid(), signal.SIGKILL)
    with log.open("a") as file:
        print(index, file=file)
    return make(self, index)


ViewMaker.make = made
main(["bank", *sys.argv[2:]])
"""

Filling = Callable[..., int]


@pytest.fixture
def fill(picture_folder: Path, cutouts: Path, random_backbone: None, monkeypatch: pytest.MonkeyPatch) -> Filling:
    monkeypatch.setattr(file, "PART_VIEWS", FILE_VIEWS)
    monkeypatch.setattr(sources, "_TOGETHER", FILE_VIEWS)
    return partial(start.fill_bank, VIEWS, picture_folder, cutouts=cutouts, workers=0, device="cpu")


def contents(folder: Path) -> dict[str, tuple[dict[str, str], dict[str, bytes]]]:
    """Of each file, what is said of its views, and the bits of its tensors."""
    read = {}
    for path in sorted(folder.glob("0*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            bits = {name: tensor.view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items()}
            read[path.name] = (file.metadata(), bits)
    return read


def written(folder: Path) -> dict[str, int]:
    """When each file was."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("0*.safetensors")}


def test_two_processes_make_the_same_bank_though_one_is_killed(fill, picture_folder, cutouts, tmp_path):
    """The first makes files 0, 2 and 4, the second 1 and 3, dies in that, and torchrun starts both again."""
    fill(tmp_path / "one")
    script, log = tmp_path / "shared.py", tmp_path / "made.txt"
    script.write_text(SHARED)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    given = ["--data", picture_folder, "--cutouts", cutouts, "--out", tmp_path / "two", "--workers", 0]
    command = [*launch, "--standalone", script, log, *given, "--device", "cpu", "--resume"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("kept the features of 18 views") == 1
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    made = log.read_text().split()
    assert [made.count(str(number)) for number in (4, 5, 6, 7)] == [1, 1, 1, 1]
    assert [made.count(str(number)) for number in (12, 13)] == [2, 1]


@pytest.mark.parametrize("damage", ["gone", "cut", "too few"])
def test_a_lost_or_damaged_file_alone_is_made_anew(fill, picture_folder, cutouts, tmp_path, damage):
    out = tmp_path / "bank"
    fill(out)
    whole, hurt = contents(out), out / "000004.safetensors"
    if damage == "cut":
        hurt.write_bytes(hurt.read_bytes()[:-9])
    elif damage == "too few":
        shutil.copy(out / "000016.safetensors", hurt)
    if damage != "gone":
        with pytest.raises(DatasetError, match=r"000004\.safetensors .*delete it.*--resume"):
            fill(out, resume=True)
    hurt.unlink()
    others = written(out)
    with pytest.raises(DatasetError, match=r"14 of 18 views.*--resume"):
        start.build_trainer(VIEWS, picture_folder, tmp_path / "run", cutouts=cutouts, bank=out, device="cpu")
    fill(out, resume=True)
    assert contents(out) == whole
    assert {name: time for name, time in written(out).items() if name in others} == others


def test_processes_that_see_other_folders_say_so(fill, tmp_path, monkeypatch):
    monkeypatch.setattr(Processes, "together", nullcontext)
    monkeypatch.setattr(Processes, "wait", lambda self: None)
    for rank in range(2):
        with pytest.raises(DatasetError, match=r"another folder by this name.*Copy"):
            fill(tmp_path / str(rank), processes=Processes(rank, 2))
    shutil.copytree(tmp_path / "1", tmp_path / "0", dirs_exist_ok=True)
    fill(tmp_path / "whole")
    assert contents(tmp_path / "0") == contents(tmp_path / "whole")


@pytest.mark.parametrize(("rank", "said"), [(0, ""), (1, "Error: no such data\n"), (2, "")])
def test_one_process_says_why_all_end(rank, said, monkeypatch, capsys):
    def gathered(failures: list[str | None], text: str | None) -> None:
        failures[1:] = ["no such data"] * 2
        assert text == failures[rank]

    monkeypatch.setattr(distributed, "all_gather_object", gathered)
    monkeypatch.setattr(distributed, "barrier", lambda: None)
    with pytest.raises(SystemExit) as ended, Processes(rank, 3).together():
        if rank:
            raise DatasetError("no such data")
    assert ended.value.code == 1
    assert capsys.readouterr().err == said
    with pytest.raises(DatasetError, match="no such data"), Processes().together():
        raise DatasetError("no such data")
