"""Memory and time of a picture beyond memory: ``python benchmarks/large.py --tile 1000``, by ``segment_folder``.

The demo's coins are laid side by side as a GeoTIFF, which is segmented by one of them in a process of its own, and
deleted. IoU is with the coins' true masks, laid likewise.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from iir_sdk import FewShotSegmenter, segment_folder
from iir_sdk.demo.job import Job, read_jobs
from iir_sdk.pictures.load import load_picture

ROWS = 256


def strips(pixels: NDArray[np.generic], side: int) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """Rows of a square of pictures side by side, a few at a time."""
    across = -(-side // pixels.shape[1])
    for top in range(0, side, ROWS):
        rows = np.arange(top, min(side, top + ROWS)) % len(pixels)
        yield top, np.tile(pixels[rows], (1, across, *[1] * (pixels.ndim - 2)))[:, :side]


def write_sheet(path: Path, pixels: NDArray[np.uint8], side: int) -> None:
    form = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": side, "width": side, "tiled": True}
    place = {"crs": "EPSG:32633", "transform": from_origin(300_000, 5_800_000, 0.2, 0.2)}
    with rasterio.open(path, "w", **form, **place) as file:
        for top, rows in strips(pixels, side):
            file.write(np.moveaxis(rows, 2, 0), window=((top, top + len(rows)), (0, side)))


def iou(path: Path, truth: NDArray[np.bool_], side: int) -> float:
    both = either = 0
    with rasterio.open(path) as file:
        for top, rows in strips(truth, side):
            mask = file.read(1, window=((top, top + len(rows)), (0, side))) == 1
            both, either = both + int((mask & rows).sum()), either + int((mask | rows).sum())
    return both / max(1, either)


def segment(sheet: str, out: str, tile: int | str | None, threads: int, network: int | None, answer: object) -> None:
    """In a process of its own: segment, and send peak megabytes with the loaded network, in all, and seconds."""
    job = coins()
    segmenter = FewShotSegmenter(threads=threads)
    segmenter.add_support(job.support, job.support_mask)
    segmenter.predict(job.query)
    loaded, start = peak(), time.perf_counter()
    if network is not None:
        answer_once(segmenter, network)
    report = segment_folder(sheet, out, segmenter=segmenter, formats=["geotiff", "masks", "overlay"], tile=tile)
    assert not report.errors, report.errors
    answer.send((loaded, peak(), time.perf_counter() - start))  # type: ignore[attr-defined]


def answer_once(segmenter: FewShotSegmenter, batches: int) -> None:
    """Let the network answer so many batches, and repeat its last answer then: to measure memory alone."""
    engine = segmenter.engine
    real, seen = engine.segment, []

    def repeated(pictures: list[NDArray[np.uint8]], tasks: object) -> object:
        if len(seen) < batches or len(pictures) > len(seen[-1][0]):
            seen.append(real(pictures, tasks))  # type: ignore[arg-type]
            return seen[-1]
        return seen[-1][0][: len(pictures)], seen[-1][1]

    engine.segment = repeated  # type: ignore[method-assign,assignment]


def peak() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def coins() -> Job:
    return next(job for job in read_jobs() if job.name == "coins")


@click.command(help=__doc__)
@click.option("--side", default=20_000, show_default=True, help="Of the GeoTIFF, in pixels.")
@click.option("--tile", default="auto", show_default=True, help="As of iir-sdk segment.")
@click.option("--threads", default=1, show_default=True)
@click.option("--network", type=int, help="Batches that the network answers; then its last answer is repeated.")
@click.option("--out", type=click.Path(path_type=Path), help="File to add a JSON line to.")
def main(side: int, tile: str, threads: int, network: int | None, out: Path | None) -> None:
    job = coins()
    with tempfile.TemporaryDirectory() as folder:
        sheet, masks = Path(folder) / "sheet.tif", Path(folder) / "out"
        write_sheet(sheet, load_picture(job.query).pixels, side)
        here, there = multiprocessing.get_context("spawn").Pipe()
        words = (str(sheet), str(masks), int(tile) if tile.isdecimal() else tile, threads, network, there)
        process = multiprocessing.get_context("spawn").Process(target=segment, args=words)
        process.start()
        process.join()
        loaded, peak_mb, seconds = here.recv()
        figures = {"side": side, "tile": tile, "threads": threads, "batches": network, "loaded MB": round(loaded)}
        figures |= {"peak MB": round(peak_mb), "seconds": round(seconds, 1)}
        figures["IoU"] = round(iou(masks / "geotiff" / "sheet.tif", job.truth(), side), 4)
    line = json.dumps(figures)
    print(line)
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
