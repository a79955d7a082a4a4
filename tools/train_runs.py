"""Trains a recipe's runs, all data, open data and COCO's four folds, where a GPU is at hand for a while.

``python -m tools.train_runs duo --data DATA --cutouts DATA/cutouts --backbone-weights VIT --out runs --minutes 50``

The package's own commands fill one bank, then train the runs on it, so many at once: drawing episodes keeps a core busy
for each, and the card is shared. When the time is up they are stopped, and the same call goes on with them. What is
worth taking away lies in ``OUT/taken``: recipe, data list, log, curve and weights of each run, and of one that was
stopped what it goes on from.

The machine needs the package's dependencies, ``[train]`` and, for transformers, the file of their weights; without a
network, wheels fetched elsewhere: ``pip install --no-index --find-links WHEELS '.[train]'``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from iir_sdk.files import made_folder
from iir_sdk.training.run.folder import LAST
from iir_sdk.weights.checkpoint_file import WEIGHTS_FILE

RUNS: dict[str, tuple[str, ...]] = {
    "open": ("--only", "open_sets"),
    "all": (),
    **{f"fold{fold}": ("--exclude-fold", str(fold)) for fold in range(4)},
}
"""By name: what ``iir-sdk train`` is told of each."""

_LOOK_AGAIN = 2.0
"""Seconds."""


def started(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """One of the package's commands as a process of its own, its output at the end of a file."""
    with log.open("ab") as output:
        return subprocess.Popen([sys.executable, "-m", "iir_sdk.cli", *words], stdout=output, stderr=output)


def run_all(commands: dict[str, list[str]], out: Path, at_once: int, deadline: float) -> dict[str, str]:
    """How each command ended: ``done``, ``failed``, ``stopped`` at the deadline (``time.monotonic``), or ``waits``."""
    ended, waiting, going = dict.fromkeys(commands, "waits"), list(commands), dict[str, subprocess.Popen[bytes]]()
    try:
        while (waiting or going) and time.monotonic() < deadline:
            while waiting and len(going) < at_once:
                name = waiting.pop(0)
                going[name] = started(commands[name], out / f"{name}.log")
                click.echo(f"{name}: started, {out / name}.log")
            time.sleep(_LOOK_AGAIN)
            for name in [name for name, process in going.items() if process.poll() is not None]:
                ended[name] = "failed" if going.pop(name).returncode else "done"
                click.echo(f"{name}: {ended[name]}")
    finally:
        for name, process in going.items():
            process.terminate()
            process.wait()
            ended[name] = "stopped"
    return ended


def take(run: Path, taken: Path) -> None:
    """Copy what is worth keeping of a run's folder: all of it but, of a finished one, what it would go on from."""
    finished = (run / WEIGHTS_FILE).exists()
    for file in sorted(run.glob("*")):
        if file.is_file() and not (finished and file.name == LAST):
            shutil.copyfile(file, made_folder(taken) / file.name)


PATH = click.Path(path_type=Path)


@click.command()
@click.argument("recipe", default="duo")
@click.option("--data", type=PATH, required=True, help="Folder of sets, one of them coco.")
@click.option("--cutouts", type=PATH, help="Folder of cut-outs.")
@click.option("--backbone-weights", type=PATH, help="ImageNet weights that no package carries.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As of iir-sdk train; for the bank, too.")
@click.option("--leave-out", multiple=True, metavar="SET", help="A set that the folds' runs do not see; repeat.")
@click.option("--run", "names", multiple=True, type=click.Choice(tuple(RUNS)), default=tuple(RUNS), show_default=True)
@click.option("--at-once", type=click.IntRange(1), default=3, show_default=True, help="Runs that share the card.")
@click.option("--minutes", type=float, default=float("inf"), help="When to stop; default: when all is done.")
@click.option("--device", default="cuda", show_default=True)
@click.option("--workers", default=8, show_default=True, help="Processes that make the bank's views.")
@click.option("--out", type=PATH, required=True, help="Folder of the bank, the runs, their logs and what to take away.")
def main(
    recipe: str,
    data: Path,
    cutouts: Path | None,
    backbone_weights: Path | None,
    overrides: tuple[str, ...],
    leave_out: tuple[str, ...],
    names: tuple[str, ...],
    at_once: int,
    minutes: float,
    device: str,
    workers: int,
    out: Path,
) -> None:
    """Fill RECIPE's bank and train its runs on it; called again, it goes on where it was stopped."""
    deadline = time.monotonic() + 60 * minutes
    given = {"--data": data, "--cutouts": cutouts, "--backbone-weights": backbone_weights, "--device": device}
    common = [recipe, *(word for name, value in given.items() if value for word in (name, str(value)))]
    common += [word for override in overrides for word in ("--set", override)]
    bank = made_folder(out) / "bank"
    filling = ["bank", *common, "--workers", str(workers), "--out", str(bank), "--resume"]
    ended = run_all({"bank": filling}, out, 1, deadline)
    if ended["bank"] == "done":
        training = ["train", *common, "--workers", "0", "--bank", str(bank), "--resume"]
        without = [word for name in leave_out for word in ("--leave-out", name)]
        commands = {
            name: [*training, *RUNS[name], *(without if name.startswith("fold") else ()), "--out", str(out / name)]
            for name in names
        }
        ended |= run_all(commands, out, at_once, deadline)
    for name in names:
        take(out / name, out / "taken" / name)
    click.echo(", ".join(f"{name}: {end}" for name, end in ended.items()))
    if set(ended.values()) != {"done"}:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
