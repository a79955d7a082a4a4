"""What it brings to correct a few pictures: ``python benchmarks/annotation_curve.py DATA --out OUT``.

The plot of figures that there are: ``python benchmarks/annotation_curve.py --curve curve.json --out OUT``.

Of each set, some pictures are a user's, who wants one label's masks of them all. The first picture, drawn at random, is
masked whole. Then one is touched after the other: its mask is looked at and corrected by a few strokes
(:mod:`iir_sdk.evaluation.strokes`), as on the page: the picture's new mask is seen at once, and further strokes are
drawn where it is wrong still. They are a support that is known in part; of a picture that shows nothing of the label
the user says so, and it is a counterexample. After each, all masks are made anew. Which picture comes next is
said by :attr:`iir_sdk.segmenting.journal.Row.certainty`, the least sure first; beside it by chance, and the least sure
first with every touched picture masked whole.

Scored is what the user has by then, the mean IoU over *all* pictures: masks that were drawn as drawn, corrected ones as
predicted with the strokes spread and as drawn. Beside it the mean over the untouched ones alone, then and by the first
mask.
"""

from __future__ import annotations

import copy
import json
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from iir_sdk import FewShotSegmenter
from iir_sdk.data.dataset import IGNORE
from iir_sdk.data.episodes import large_enough
from iir_sdk.data.folder import PictureSet, read_picture_sets
from iir_sdk.engines.base import TaskGroup
from iir_sdk.errors import IirWarning
from iir_sdk.evaluation.evaluate import Query
from iir_sdk.evaluation.strokes import Mask, Strokes, correction, iou
from iir_sdk.results.correction import SIDE, corrected, corrected_and_spread, spread
from iir_sdk.results.segmentation import Cut, Segmentation, segmentation
from iir_sdk.segmenting.table import rows_of
from iir_sdk.supports.cache import as_task

COMPLETE = ("wild_animals7", "fish_cod_angelfish", "dog_cat", "food6", "surgical_tool")
"""Sets whose classes are labelled wherever they are shown: a quarter of their pictures do not show the label."""

MIN_SHARE = 0.01
"""Smallest share of its picture that an object covers."""

LABEL = "object"

ROUNDS = 4
"""Times that a user looks at the mask of a picture and draws two strokes at most: one of it, one of not it."""


@dataclass(frozen=True)
class Folder:
    """A user's pictures, by key; truths ``(H, W)`` of 1, 0 and 255, 0 throughout where nothing is shown."""

    name: str
    label: str
    images: dict[str, NDArray[np.uint8]]
    truths: dict[str, NDArray[np.uint8]]

    @property
    def showing(self) -> list[str]:
        """Keys of the pictures that show the label."""
        return [key for key, truth in self.truths.items() if (truth == 1).any()]


def folder_of(pictures: PictureSet, count: int, seed: int) -> Folder:
    """So many pictures of the class with the most large enough ones; of complete sets a quarter without it."""
    shown = large_enough(pictures, MIN_SHARE)
    label = max(sorted(shown), key=lambda name: len(shown[name]))
    rng = random.Random(f"{seed}/{pictures.name}")
    without = sorted(set(pictures.images) - set(pictures.classes[label])) if pictures.name in COMPLETE else []
    absent = rng.sample(without, min(len(without), count // 4))
    showing = rng.sample(sorted(shown[label]), min(len(shown[label]), count - len(absent)))
    images = {key: pictures.picture(key) for key in [*showing, *absent]}
    masks = {key: pictures.mask(label, key) for key in showing}
    return Folder(pictures.name, label, images, masks | {k: np.zeros(images[k].shape[:2], np.uint8) for k in absent})


Order = Callable[[Mapping[str, Segmentation]], str]
"""The next of untouched pictures, by what they look like now."""


def least_sure(looks: Mapping[str, Segmentation]) -> str:
    """As the table, the review page and the web page order them."""
    return min(looks, key=lambda key: min(row.certainty for row in rows_of(key, looks[key], 0)))


def by_chance(seed: str) -> Order:
    """The same at every call, whatever the pictures look like."""
    ranks: dict[str, float] = {}
    rng = random.Random(seed)

    def chosen(looks: Mapping[str, Segmentation]) -> str:
        for key in looks:
            ranks.setdefault(key, rng.random())
        return min(looks, key=ranks.__getitem__)

    return chosen


class Step(NamedTuple):
    """After a touch: which pictures were touched so far, and the IoU of every picture."""

    touched: tuple[str, ...]
    ious: dict[str, float]


@dataclass
class User:
    """Somebody who masks a folder; ``queries`` holds what was read of its pictures, whoever read them."""

    segmenter: FewShotSegmenter
    folder: Folder
    queries: dict[str, Query]
    whole: bool = False  # masks are drawn anew and not corrected
    rounds: int = ROUNDS
    spreads: bool = True  # strokes hold beyond where they are painted
    drawn: dict[str, Mask] = field(default_factory=dict)
    strokes: dict[str, Strokes] = field(default_factory=dict)
    sure: dict[str, NDArray[np.uint8]] = field(default_factory=dict)  # before the first stroke

    @property
    def touched(self) -> tuple[str, ...]:
        """In the order that they were."""
        return tuple({**self.drawn, **self.strokes})

    def work(self, first: str, order: Order, touches: int) -> list[Step]:
        """Touch so many pictures, ``first`` the first; a step after each."""
        self.segmenter = copy.copy(self.segmenter)
        self.segmenter.clear_supports()
        self.draw(first)
        looks = self.looks()
        steps = [Step(self.touched, self.ious(looks))]
        while len(steps) < min(touches, len(self.folder.images)):
            key = order({key: look for key, look in looks.items() if key not in self.touched})
            self.touch(key, looks[key])
            looks = self.looks()
            steps.append(Step(self.touched, self.ious(looks)))
        return steps

    def ious(self, looks: Mapping[str, Segmentation]) -> dict[str, float]:
        """Of every picture's mask as it is by now."""
        masks = {
            key: self.drawn[key] if key in self.drawn else self.mask(key, looks[key]) for key in self.folder.images
        }
        return {key: iou(mask, self.folder.truths[key]) for key, mask in masks.items()}

    def mask(self, key: str, look: Segmentation) -> Mask:
        """What the user sees of a picture."""
        return self.strokes[key].held(look.mask) if key in self.strokes else look.mask

    def draw(self, key: str) -> None:
        """The whole mask; of a picture without the object, that there is nothing."""
        image, mask = self.folder.images[key], self.folder.truths[key]
        if (mask == 1).any():
            self.segmenter.add_support(image, mask, LABEL)
        else:
            self.segmenter.add_counterexample(image, label=LABEL)
        self.drawn[key] = mask == 1

    def touch(self, key: str, look: Segmentation) -> None:
        """Correct one picture until it looks right, or some rounds are over; each shows its new mask at once."""
        truth = self.folder.truths[key]
        if self.whole or not (truth == 1).any():
            return self.draw(key)
        nothing = np.zeros(truth.shape, np.bool_)
        self.strokes[key], self.sure[key] = Strokes(nothing, nothing), corrected(look.probability, nothing, nothing)
        taught = self.segmenter
        for _ in range(self.rounds):
            more = correction(self.mask(key, look), truth, strokes=1)
            if not more.known.any():
                break
            self.strokes[key] = self.strokes[key].then(more)
            self.segmenter = copy.copy(taught)
            self.teach(key)
            look = self.look(key, self.tasks())

    def teach(self, key: str) -> None:
        """What was corrected of a picture, as the page takes it."""
        strokes, image = self.strokes[key], self.folder.images[key]
        if self.spreads:
            labels = corrected_and_spread(self.sure[key], strokes.marks, self.read_looks(key))
        else:
            labels = np.where(strokes.known, strokes.marks, self.sure[key])
        if (labels == 1).any():
            self.segmenter.add_support(image, labels == 1, LABEL, known=labels != IGNORE)
        else:
            self.segmenter.add_counterexample(image, labels == 0, LABEL)

    def looks(self) -> dict[str, Segmentation]:
        """Of all pictures without a drawn mask, by the supports of now."""
        tasks = self.tasks()
        return {key: self.look(key, tasks) for key in self.folder.images if key not in self.drawn}

    def tasks(self) -> list[TaskGroup]:
        """The supports of now."""
        bank = self.segmenter.supports
        states = [support.state for support in bank.of_label(LABEL)]
        tokens = [counterexample.tokens for counterexample in bank.counterexamples_of(LABEL)]
        return self.segmenter.torch_engine.prepare([as_task(states, self.segmenter.token_budget, tokens)])

    def look(self, key: str, tasks: Sequence[TaskGroup]) -> Segmentation:
        """One picture, its own strokes spread, if they are."""
        cut = Cut(absent_below=0.5 if len(self.folder.showing) < len(self.folder.images) else 0)
        segmented = self.segmenter.torch_engine.segment_read(self.read(key).features, tasks)
        if self.spreads and key in self.strokes:
            leads = spread(segmented.leads[0], self.strokes[key].marks, self.read_looks(key))[None]
            segmented = replace(segmented, leads=leads)
        return segmentation((LABEL,), segmented, image=self.folder.images[key], cut=cut, timings={})

    def read_looks(self, key: str) -> NDArray[np.float32]:
        """What a picture's places look like."""
        return self.segmenter.torch_engine.looks(self.read(key).features, SIDE)

    def read(self, key: str) -> Query:
        """A picture's features, read at the first call."""
        if key not in self.queries:
            image = self.folder.images[key]
            self.queries[key] = Query(self.segmenter.torch_engine.read(image), (image.shape[0], image.shape[1]))
        return self.queries[key]


ARMS = ("least sure first", "random order", "masks redrawn whole")
LEGEND = {
    ARMS[0]: "a few strokes, least sure first",
    ARMS[1]: "a few strokes, random order",
    ARMS[2]: "mask redrawn whole, least sure first",
}


def arms_of(user: Callable[..., User], first: str, touches: int, seed: str) -> dict[str, list[Step]]:
    """The same folder and first picture, by each way to go on."""
    orders = least_sure, by_chance(seed), least_sure
    return {
        name: user(whole=name == ARMS[2]).work(first, order, touches) for name, order in zip(ARMS, orders, strict=True)
    }


def figures(steps: Sequence[Step]) -> dict[str, list[float | None]]:
    """At each step, in percent: mean IoU of all pictures, of untouched ones, and of these same by the first mask."""
    values: dict[str, list[float | None]] = {"all": [], "untouched": [], "the same at first": []}
    for step in steps:
        untouched = [key for key in step.ious if key not in step.touched]
        values["all"].append(_mean(list(step.ious.values())))
        values["untouched"].append(_mean([step.ious[key] for key in untouched]))
        values["the same at first"].append(_mean([steps[0].ious[key] for key in untouched]))
    return values


def _mean(values: Sequence[float]) -> float | None:
    return round(100 * float(np.mean(values)), 2) if values else None


def curves(
    segmenter: FewShotSegmenter, folder: Folder, touches: int, seeds: Sequence[int], **habits: Any
) -> dict[str, Any]:
    """Of one folder: every seed's figures by the arm; a seed draws the first picture and the random order."""
    queries: dict[str, Query] = {}
    of_arms: dict[str, list[Any]] = {name: [] for name in ARMS}
    for seed in seeds:
        first = random.Random(f"{seed}/{folder.name}/first").choice(folder.showing)

        def user(whole: bool = False) -> User:
            return User(segmenter, folder, queries, whole, **habits)

        for name, steps in arms_of(user, first, touches, f"{seed}/{folder.name}/order").items():
            of_arms[name].append(figures(steps))
    return {"label": folder.label, "pictures": len(folder.images), "showing": len(folder.showing), "curves": of_arms}


def mean_curve(sets: Mapping[str, Any], arm: str, what: str) -> list[float]:
    """Mean over the sets, each the mean of its seeds, at every step that all sets have."""
    of_sets = [[seed[what] for seed in values["curves"][arm]] for values in sets.values()]
    length = min(len([v for v in seed if v is not None]) for of_set in of_sets for seed in of_set)
    means = [[float(np.mean([seed[i] for seed in of_set])) for i in range(length)] for of_set in of_sets]
    return [round(float(mean), 2) for mean in np.mean(means, 0)]


def table(sets: Mapping[str, Any]) -> str:
    """As Markdown: the means by pictures touched, then each set's after the last step."""
    curves_of = {arm: mean_curve(sets, arm, "all") for arm in ARMS}
    steps = range(1, len(curves_of[ARMS[0]]) + 1)
    lines = [f"| pictures touched | {' | '.join(map(str, steps))} |", f"|---|{'---|' * len(steps)}"]
    for arm, curve in curves_of.items():
        lines.append(f"| {arm}, all pictures | {' | '.join(f'{v:.1f}' for v in curve)} |")
    for arm in ARMS:
        now, then = (mean_curve(sets, arm, what) for what in ("untouched", "the same at first"))
        cells = [f"{n:.1f} ({n - t:+.1f})" for n, t in zip(now, then, strict=True)]
        lines.append(f"| {arm}, untouched alone (gain) | {' | '.join(cells)} |")
    lines += ["", f"| set | pictures | first mask | {' | '.join(ARMS)} |", f"|---|---|---|{'---|' * len(ARMS)}"]
    for name, values in sets.items():
        one = {name: values}
        ends = [mean_curve(one, arm, "all") for arm in ARMS]
        cells = " | ".join(f"{curve[-1]:.1f}" for curve in ends)
        lines.append(f"| {name}: {values['label']} | {values['pictures']} | {ends[0][0]:.1f} | {cells} |")
    return "\n".join(lines) + "\n"


def verdict(sets: Mapping[str, Any]) -> str:
    """The two bars."""
    sure, chance, _ = (mean_curve(sets, arm, "all") for arm in ARMS)
    place = min(5, len(sure)) - 1
    return (
        f"{len(sets)} sets: one picture touched {sure[0]:.1f}, {place + 1} touched {sure[place]:.1f} "
        f"({sure[place] - sure[0]:+.1f}; bar: 6); in random order {chance[place]:.1f} (bar: not better)"
    )


def draw(sets: Mapping[str, Any], path: Path) -> None:
    """Mean IoU of all pictures over the number of pictures touched."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), facecolor="white")
    for arm, colour in zip((ARMS[2], *ARMS[:2]), ("#d97706", "#2563eb", "#9ca3af"), strict=True):
        means = mean_curve(sets, arm, "all")
        axes.plot(range(1, len(means) + 1), means, "o-", color=colour, label=LEGEND[arm], markersize=4)
    axes.set(xlabel="pictures touched", ylabel="mean IoU of all pictures, %")
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


@click.command()
@click.argument("data", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the figures, table and plot.")
@click.option("--curve", type=click.Path(path_type=Path, exists=True), help="Figures to draw; nothing is measured.")
@click.option("--weights", help="Checkpoint name, file or folder; default: the embedded one.")
@click.option("--set", "names", multiple=True, help="A set of DATA; repeat. Default: all of them.")
@click.option("--pictures", "count", default=16, show_default=True, help="Of each set, at most.")
@click.option("--touches", default=6, show_default=True, help="Pictures touched, the first mask included.")
@click.option(
    "--seed", "seeds", multiple=True, default=(0,), show_default=True, help="Of first pictures and random order."
)
@click.option("--rounds", default=ROUNDS, show_default=True, help="Times that a touched picture is corrected, at most.")
@click.option("--spread/--no-spread", "spreads", default=True, help="Or strokes hold only where they are painted.")
@click.option("--threads", type=int, help="Default: what torch takes by itself.")
def main(
    data: tuple[Path, ...],
    out: Path,
    curve: Path | None,
    weights: str | None,
    names: tuple[str, ...],
    count: int,
    touches: int,
    seeds: tuple[int, ...],
    rounds: int,
    spreads: bool,
    threads: int | None,
) -> None:
    """Score all masks of a folder after each picture that its user touches."""
    out.mkdir(parents=True, exist_ok=True)
    if curve is not None:
        return draw(json.loads(curve.read_text(encoding="utf-8"))["sets"], out / "curve.png")
    warnings.simplefilter("ignore", IirWarning)
    segmenter, sets = FewShotSegmenter(weights, threads=threads), {}
    for pictures in (one for root in data for one in read_picture_sets(root) if not names or one.name in names):
        folder = folder_of(pictures, count, seed=0)
        sets[pictures.name] = curves(segmenter, folder, touches, seeds, rounds=rounds, spreads=spreads)
        document = {
            "sha256": segmenter.checkpoint.sha256,
            "seeds": seeds,
            "rounds": rounds,
            "spread": spreads,
            "sets": sets,
        }
        (out / "curve.json").write_text(json.dumps(document) + "\n", encoding="utf-8")
        print(verdict({pictures.name: sets[pictures.name]}).replace("1 sets", pictures.name), flush=True)
    (out / "curve.md").write_text(table(sets), encoding="utf-8")
    draw(sets, out / "curve.png")
    click.echo(verdict(sets))


if __name__ == "__main__":
    main()
