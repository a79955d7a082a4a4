"""``iir-sdk segment``: masks for whole folders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iir_sdk.cli.options import (
    ENGINE,
    LABELS,
    OVERWRITE,
    PATH,
    SUPPORT_FILE,
    THRESHOLD,
    absent_below,
    format_names,
)

if TYPE_CHECKING:
    from iir_sdk.ray import Workers
    from iir_sdk.segmenting.run import FolderReport

_FAILED = 1
_INTERRUPTED = 130


def _tile(text: str) -> int | str:
    if text != "auto" and not text.isdecimal():
        raise click.BadParameter(f"{text!r} is neither 'auto' nor a tile's side in pixels.")
    return text if text == "auto" else int(text)


def _address(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    if text is not None and text not in ("local", "auto") and ":" not in text:
        raise click.BadParameter(
            f"{text!r} is no address of a cluster (HOST:PORT, ray://HOST:PORT or auto); put --ray behind the pictures."
        )
    return text


def _count(_context: click.Context, _option: click.Parameter, text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    least, dash, most = text.partition("-")
    if not least.isdecimal() or (dash and not most.isdecimal()):
        raise click.BadParameter(f"{text!r} is neither a number of workers nor the least and the most, such as 1-64.")
    return (int(least), int(most)) if dash else int(least)


def _cluster(address: str | None, workers: int | tuple[int, int] | None, num_gpus: float | None) -> Workers | None:
    """Ray's workers; None for this process alone."""
    if address is None:
        if workers is not None or num_gpus is not None:
            raise click.UsageError("--workers and --num-gpus are of Ray: say --ray, too.")
        return None
    from iir_sdk.ray import Workers

    return Workers(None if address == "local" else address, workers, num_gpus=num_gpus or 0.0)


@click.command()
@click.argument("queries", nargs=-1, metavar="QUERIES...")
@click.option(
    "--support",
    "supports",
    nargs=2,
    multiple=True,
    metavar="PHOTO MASK[:LABEL]",
    help="A picture and its mask; of a mask of classes MASK:LABEL=NUMBER; repeat for more.",
)
@click.option("--support-set", type=PATH, help="Folder of images/ and masks/LABEL/, all of which is shown.")
@click.option(
    "--annotations", type=PATH, help="COCO's or LabelMe's json, or YOLO's labels, of pictures that are supports."
)
@click.option("--images", type=PATH, help="Folder of these pictures; default: where the annotations say, or beside.")
@SUPPORT_FILE
@click.option(
    "--counterexample",
    "counterexamples",
    multiple=True,
    metavar="PHOTO[:LABEL]",
    help="A picture that does not show the object; repeat for more.",
)
@LABELS
@click.option("--out", type=PATH, required=True, help="Folder for everything that is written; a rerun goes on there.")
@click.option("-r", "--recursive", is_flag=True, help="Folders with all the folders in them.")
@click.option("--list", "lists", type=PATH, multiple=True, help="Queries of a text file, a path a line; also @FILE.")
@click.option(
    "--format",
    "formats",
    default="masks,overlay",
    show_default=True,
    callback=format_names,
    metavar="NAME,...",
    help="What to write: masks, map, overlay, coco, coco-polygons, yolo, labelme, voc, geojson, geotiff.",
)
@click.option("--review", type=PATH, help="Page (.html) of all overlays, those first that need a look.")
@THRESHOLD
@absent_below("pictures")
@click.option(
    "--tile",
    type=_tile,
    metavar="auto|PIXELS",
    help="Look at large pictures in tiles of this side; auto: as closely as supports say, where it brings something.",
)
@click.option(
    "--overlap", type=click.FloatRange(0, 0.5), default=0.25, show_default=True, help="Of tiles, as a share of a side."
)
@click.option("--sharpen/--no-sharpen", default=False, show_default=True, help="Draw edges to those of the picture.")
@click.option("--fill-holes", is_flag=True, help="Fill the background that a mask encloses.")
@click.option(
    "--min-area",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Drop smaller parts: in pixels from 1 on, below 1 a share of the picture.",
)
@click.option("--keep-largest", is_flag=True, help="Keep the largest part of each mask alone.")
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Pictures computed together.")
@click.option(
    "--ray",
    "address",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    callback=_address,
    help="Let Ray's workers do it, on this machine or on the cluster at HOST:PORT, ray://HOST:PORT or auto.",
)
@click.option("--workers", callback=_count, metavar="N|N-M", help="How many, with --ray; default: one a core.")
@click.option("--num-gpus", type=click.FloatRange(0), help="Graphics cards of each, with --ray, such as 0.5.")
@OVERWRITE
@ENGINE
def segment(
    queries: tuple[str, ...],
    supports: tuple[tuple[str, str], ...],
    counterexamples: tuple[str, ...],
    labels: tuple[str, ...],
    lists: tuple[Path, ...],
    address: str | None,
    workers: int | tuple[int, int] | None,
    num_gpus: float | None,
    **settings: Any,
) -> None:
    """Mask the same thing in many pictures: QUERIES are files, folders, globs, @list.txt, or - for paths on stdin.

    \b
    iir-sdk segment photos/ --support photo.jpg mask.png --out masks

    Everything lies in --out: a folder a format, and results.csv, whose first rows need a look most. The same command
    again goes on where a run ended. Pictures that cannot be used are listed; the exit code is then 1.
    """
    from iir_sdk.segmenting.folder import segment_folder
    from iir_sdk.segmenting.supports import Shown, split_label

    cluster = _cluster(address, workers, num_gpus)
    if cluster is not None and settings["threads"] is None:
        # Each worker has a core.
        settings["threads"] = 1
    try:
        report = segment_folder(
            [*queries, *(f"@{file}" for file in lists)],
            supports=[Shown.from_text(*pair) for pair in supports],
            counterexamples=[split_label(text)[:2] for text in counterexamples],
            labels=labels or None,
            progress=True,
            cluster=cluster,
            **settings,
        )
    except KeyboardInterrupt:
        click.echo("stopped; what is written is whole, and the same command goes on behind it.", err=True)
        sys.exit(_INTERRUPTED)
    _print(report, settings["review"])
    if report.errors:
        raise click.exceptions.Exit(_FAILED)


def _print(report: FolderReport, review: Path | None) -> None:
    before = f", {report.present} were done before" if report.present else ""
    click.echo(f"{report.segmented} pictures segmented{before}: {report.out / 'results.csv'}")
    if review is not None:
        click.echo(f"to look them over: {review}")
    for file, error in report.errors.items():
        click.echo(f"{file}: left out. {error}", err=True)
    if report.errors:
        click.echo(f"{len(report.errors)} pictures were left out.", err=True)
