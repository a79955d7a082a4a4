"""What one counterexample takes away: ``python benchmarks/counterexamples.py DATA --out OUT``.

Of two classes of a set, one is looked for by one support: in pictures of it, and in pictures of the other alone, its
look-alikes, which hold nothing of it. Then one picture of the other class is given as what it is not, and both are
asked again. A lower probability everywhere would take away false positives as well, so they are also counted at the
threshold at which as much of the object is found as before.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from iir_sdk import FewShotSegmenter
from iir_sdk.data.folder import PictureSet, read_picture_sets
from iir_sdk.pictures.preprocess import resized_map

SETS = (
    *("bottle_material", "car_damage_multi", "cutlery", "fish_cod_angelfish", "fruits_nuts", "magnetic_tile"),
    *("rice_leaf", "stop_yield_sign", "wild_animals7", "kitchen_appliances", "road_sign_thermal", "street_garbage"),
    *("dog_cat", "food6", "surgical_tool"),
)
"""Whose classes look alike, are labelled wherever they are shown, and have pictures of their own."""

SIDE = 120
"""Of the maps that are counted."""

_SMALLEST = 0.01
"""Share of a picture from which on a mask counts as one."""


class Task(NamedTuple):
    """A class and another that looks like it, by pictures that show but one of them; the first two are given."""

    pictures: PictureSet
    name: str
    other: str
    shown: tuple[str, ...]
    others: tuple[str, ...]


@dataclass
class Counts:
    """Probabilities: of each picture's pixels of the object, and of all pixels of each look-alike; ``(SIDE, SIDE)``."""

    objects: list[NDArray[np.float32]] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)
    look_alikes: list[NDArray[np.float32]] = field(default_factory=list)

    def recall(self, threshold: float = 0.5) -> float:
        """Mean share of the object that is in the mask."""
        return float(np.mean([(p > threshold).mean() for p in self.objects]))

    def area(self, threshold: float = 0.5) -> float:
        """Mean share of a look-alike's picture that is in the mask."""
        return float(np.mean([(p > threshold).mean() for p in self.look_alikes]))

    def masked(self, threshold: float = 0.5) -> float:
        """Share of the look-alikes' pictures that have a mask."""
        return float(np.mean([(p > threshold).mean() > _SMALLEST for p in self.look_alikes]))

    def threshold_of(self, recall: float) -> float:
        """The highest threshold at which recall is at least this."""
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.recall(middle) >= recall else (low, middle)
        return low

    def extend(self, other: Counts) -> None:
        """Take another's pictures as well."""
        self.objects += other.objects
        self.ious += other.ious
        self.look_alikes += other.look_alikes


def tasks_of(pictures: PictureSet, pairs: int, count: int, seed: int) -> list[Task]:
    """At most so many pairs of classes with at least three pictures each, ``count`` to be asked at most."""
    rng, tasks = random.Random(f"{seed}/{pictures.name}"), []
    shows = {name: set(stems) for name, stems in pictures.classes.items()}
    for name, other in permutations(sorted(shows), 2):
        alone = [sorted(shows[a] - shows[b]) for a, b in ((name, other), (other, name))]
        if min(map(len, alone)) >= 3:
            drawn = [tuple(rng.sample(stems, min(len(stems), count + 1))) for stems in alone]
            tasks.append(Task(pictures, name, other, drawn[0], drawn[1]))
    return rng.sample(tasks, min(pairs, len(tasks)))


def before_and_after(segmenter: FewShotSegmenter, task: Task, *, region: bool) -> tuple[Counts, Counts]:
    """Without and with one counterexample, whole or by its region alone."""
    segmenter.clear_supports()
    (given, *shown), (counter, *others) = task.shown, task.others
    segmenter.add_support(task.pictures.picture(given), task.pictures.mask(task.name, given))
    before = counted(segmenter, task, shown, others)
    marked = task.pictures.mask(task.other, counter) == 1 if region else None
    segmenter.add_counterexample(task.pictures.picture(counter), marked)
    return before, counted(segmenter, task, shown, others)


def counted(segmenter: FewShotSegmenter, task: Task, shown: Sequence[str], others: Sequence[str]) -> Counts:
    """Probabilities on pictures of the object and on those of look-alikes."""
    counts = Counts()
    for key in shown:
        truth = resized_map((task.pictures.mask(task.name, key) == 1).astype(np.float32), (SIDE, SIDE)) >= 0.5
        probability = asked(segmenter, task, key)
        if truth.any():
            counts.objects.append(probability[truth])
            counts.ious.append(float(((probability > 0.5) & truth).sum() / ((probability > 0.5) | truth).sum()))
    counts.look_alikes = [asked(segmenter, task, key) for key in others]
    return counts


def asked(segmenter: FewShotSegmenter, task: Task, key: str) -> NDArray[np.float32]:
    """The probability of a picture."""
    return resized_map(segmenter.predict(task.pictures.picture(key)).probability, (SIDE, SIDE))


def row(before: Counts, after: Counts) -> dict[str, Any]:
    """What both find, in percent."""
    threshold = after.threshold_of(before.recall())
    values = {
        "look-alikes": len(before.look_alikes),
        "false area": (before.area(), after.area(), after.area(threshold)),
        "with a mask": (before.masked(), after.masked(), after.masked(threshold)),
        "recall": (before.recall(), after.recall(), after.recall(threshold)),
        "IoU": (float(np.mean(before.ious)), float(np.mean(after.ious))),
    }
    rounded = {n: v if isinstance(v, int) else [round(100 * each, 1) for each in v] for n, v in values.items()}
    return rounded | {"threshold": round(threshold, 3)}


def verdict(values: dict[str, Any]) -> str:
    """The bar: what is left of the false positives at equal recall."""
    shares = []
    for what in ("false area", "with a mask"):
        before, _, equal = values[what]
        left = f"x {equal / before:.2f}" if before else "-"
        shares.append(f"{what} {before} % -> {equal} % ({left})")
    return f"at equal recall: {', '.join(shares)}; to be halved"


def table(rows: dict[str, dict[str, Any]]) -> str:
    """As Markdown; after an arrow with the counterexample, in brackets at equal recall."""
    lines = ["| set | look-alikes | false area | with a mask | recall | IoU |", "|---|---|---|---|---|---|"]
    for name, values in rows.items():
        cells = [f"{b} -> {a} ({e})" for b, a, e in (values["false area"], values["with a mask"])]
        pairs = [f"{b} -> {a}" for b, a, *_ in (values["recall"], values["IoU"])]
        lines.append(f"| {name} | {values['look-alikes']} | {' | '.join([*cells, *pairs])} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Json file; a table goes beside it.")
@click.option("--weights", help="Checkpoint name, file or folder; default: the embedded one.")
@click.option("--set", "names", multiple=True, help="A set of DATA; repeat. Default: of those listed in the script.")
@click.option("--pairs", default=4, show_default=True, help="Of classes, of each set.")
@click.option("--pictures", "count", default=5, show_default=True, help="Asked of each class of a pair.")
@click.option("--region", is_flag=True, help="Give the look-alike alone, not its whole picture.")
@click.option("--seed", default=0, show_default=True)
def main(
    data: Path, out: Path, weights: str | None, names: tuple[str, ...], pairs: int, count: int, region: bool, seed: int
) -> None:
    """Count false positives on look-alikes without and with a counterexample."""
    segmenter, rows = FewShotSegmenter(weights), {}
    every = Counts(), Counts()
    for name in names or [name for name in SETS if (data / name).is_dir()]:
        (pictures,) = read_picture_sets(data / name)
        of_set = Counts(), Counts()
        for task in tasks_of(pictures, pairs, count, seed):
            for whole, part in zip(of_set, before_and_after(segmenter, task, region=region), strict=True):
                whole.extend(part)
        if of_set[0].objects and of_set[0].look_alikes:
            rows[pictures.name] = row(*of_set)
            for whole, part in zip(every, of_set, strict=True):
                whole.extend(part)
            named = rows | {"all": row(*every)}
            document = {"sha256": segmenter.checkpoint.sha256, "region": region, "seed": seed, "sets": named}
            out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            out.with_suffix(".md").write_text(table(named), encoding="utf-8")
        print(pictures.name, len(of_set[0].look_alikes), flush=True)
    if rows:
        click.echo(f"{len(rows)} sets, {segmenter.checkpoint.name}: {verdict(row(*every))}")
    else:
        raise click.UsageError(f"no pair of classes of {data} has three pictures each; name others by --set.")


if __name__ == "__main__":
    main()
