"""What tiles bring: ``python benchmarks/tiles.py --out FOLDER``; with ``--data TRAIN`` also on mosaics of sets.

Sheets and strips are made of the demo's coins. A mosaic is of 40 pictures of a set, each of which is segmented by
itself for comparison (by hand). Enlarged pictures show their object so large that tiles bring nothing: ``auto`` is to
leave them as they are.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.engines.base import Engine
from iir_sdk.errors import IirWarning
from iir_sdk.pictures.load import load_picture

Shown = tuple[NDArray[np.uint8], NDArray[np.bool_]]
Figures = dict[str, float | int | str]

SIDE, ROWS, COLUMNS = 400, 5, 8


def iou(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((mask & truth).sum() / max(1, (mask | truth).sum()))


def compared(segmenter: FewShotSegmenter, shown: Shown, tiles: tuple[int | str | None, ...]) -> Figures:
    """IoU and seconds of a picture, by the tile asked for."""
    figures: Figures = {}
    for tile in tiles:
        start = time.perf_counter()
        result = segmenter.predict(shown[0], tile=tile)
        figures[f"{tile} IoU"] = round(iou(result.mask, shown[1]), 4)
        figures[f"{tile} s"] = round(time.perf_counter() - start, 1)
        figures[f"{tile} score"] = round(result.score, 3)
    return figures


def coins(engine: Engine) -> Iterator[Figures]:
    """A sheet of 16 pictures, and a strip of 20."""
    job = next(job for job in read_jobs() if job.name == "coins")
    segmenter = FewShotSegmenter(engine)
    segmenter.add_support(job.support, job.support_mask)
    pixels, truth = load_picture(job.query).pixels, job.truth()
    for name, rows, columns in (("one picture", 1, 1), ("sheet of 16", 4, 4), ("strip of 20", 1, 20)):
        shown = np.tile(pixels, (rows, columns, 1)), np.tile(truth, (rows, columns))
        yield {"name": f"coins, {name}", **compared(segmenter, shown, (None, 300, "auto"))}


def pictures_of(folder: Path) -> Iterator[Shown]:
    """Pictures and masks of ``SET/masks/CLASS``, in an order of their own."""
    files = sorted(folder.glob("*.png"))
    np.random.default_rng(0).shuffle(files)  # type: ignore[arg-type]
    for file in files:
        (picture,) = folder.parent.parent.joinpath("images").glob(f"{file.stem}.*")
        yield load_picture(picture).pixels, np.asarray(Image.open(file).convert("L")) > 127


def square(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """The first ``SIDE`` rows and columns, mirrored where there are fewer."""
    cut = array[:SIDE, :SIDE]
    return np.pad(cut, [(0, SIDE - s) for s in cut.shape[:2]] + [(0, 0)] * (cut.ndim - 2), mode="symmetric")


def mosaic(engine: Engine, folder: Path) -> Figures:
    """40 pictures of a set as one, the support being a further one."""
    (support, mask), *queries = [
        shown for shown, _ in zip(pictures_of(folder), range(1 + ROWS * COLUMNS), strict=False)
    ]
    queries = [queries[i % len(queries)] for i in range(ROWS * COLUMNS)]
    segmenter = FewShotSegmenter(engine)
    segmenter.add_support(support, mask)
    pixels, truths = ([square(array) for array in arrays] for arrays in zip(*queries, strict=True))
    by_hand = [result.mask for result in segmenter.predict_many(pixels)]
    joined = [
        np.concatenate([np.concatenate(arrays[r * COLUMNS :][:COLUMNS], 1) for r in range(ROWS)])
        for arrays in (pixels, truths, by_hand)
    ]
    name = f"{folder.parent.parent.name}/{folder.name}, mosaic of {ROWS * COLUMNS}"
    figures = {"name": name, "by hand IoU": round(iou(joined[2], joined[1]), 4)}
    return figures | compared(segmenter, (joined[0], joined[1]), (None, "auto"))


def enlarged(engine: Engine, folder: Path, count: int, factor: float) -> Figures:
    """Single pictures, many times larger than the support's: the means of whole and ``auto``."""
    (support, mask), *queries = [shown for shown, _ in zip(pictures_of(folder), range(1 + count), strict=False)]
    segmenter = FewShotSegmenter(engine)
    segmenter.add_support(support, mask)
    pairs = []
    for pixels, truth in queries:
        size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
        large = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
        shown = large, np.asarray(Image.fromarray(truth).resize(size, Image.Resampling.NEAREST))
        pairs.append(compared(segmenter, shown, (None, "auto")))
    means = {key: round(float(np.mean([float(p[key]) for p in pairs])), 4) for key in pairs[0]}
    return {"name": f"{folder.parent.parent.name}/{folder.name}, {len(pairs)} enlarged {factor:g} times", **means}


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path), help="Folder of sets in the layout of docs/training.md.")
@click.option("--mosaics", multiple=True, help="SET/CLASS to make a mosaic of.")
@click.option("--enlarge", multiple=True, help="SET/CLASS whose pictures are enlarged.")
@click.option("--count", default=4, help="Enlarged pictures a set.")
@click.option("--factor", default=3.0, help="How many times they are enlarged.")
@click.option("--out", type=click.Path(path_type=Path), help="File to add a JSON line a row to.")
@click.option("--no-coins", is_flag=True, help="Leave out the demo's coins.")
def main(
    data: Path | None,
    mosaics: tuple[str, ...],
    enlarge: tuple[str, ...],
    count: int,
    factor: float,
    out: Path | None,
    no_coins: bool,
) -> None:
    warnings.simplefilter("ignore", IirWarning)
    if (mosaics or enlarge) and data is None:
        raise click.UsageError("--mosaics and --enlarge need --data.")
    engine = FewShotSegmenter().engine
    rows = iter(()) if no_coins else coins(engine)
    folders = [(data or Path()) / name.split("/")[0] / "masks" / name.split("/")[1] for name in (*mosaics, *enlarge)]
    for figures in rows:
        report(figures, out)
    for i, folder in enumerate(folders):
        report(mosaic(engine, folder) if i < len(mosaics) else enlarged(engine, folder, count, factor), out)


def report(figures: Figures, out: Path | None) -> None:
    line = json.dumps(figures)
    print(line, flush=True)
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
