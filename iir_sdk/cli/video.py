"""``iir-sdk video``: masks for the frames of a video."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

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

_INTERRUPTED = 130


@click.command()
@click.argument("video", type=PATH, metavar="VIDEO")
@click.option(
    "--mask",
    "masks",
    multiple=True,
    metavar="[FRAME=]MASK[:LABEL]",
    help="Mask of a frame of it, by its number; without one of the first frame; repeat for more.",
)
@click.option(
    "--support",
    "supports",
    nargs=2,
    multiple=True,
    metavar="PHOTO MASK[:LABEL]",
    help="A picture from elsewhere and its mask; repeat for more.",
)
@SUPPORT_FILE
@LABELS
@click.option("--out", type=PATH, required=True, help="Folder for everything that is written.")
@click.option(
    "--format",
    "formats",
    default="masks,video",
    show_default=True,
    callback=format_names,
    metavar="NAME,...",
    help="What to write: video, masks, map, overlay, coco, coco-polygons, yolo, labelme, voc.",
)
@THRESHOLD
@absent_below("frames")
@click.option(
    "--memory",
    type=click.IntRange(0, 100),
    default=0,
    show_default=True,
    help="Frames with sure masks that are further supports of each label.",
)
@click.option(
    "--steady",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="How much a place keeps of what it was in the frame before; 0: each frame by itself.",
)
@OVERWRITE
@ENGINE
def video(
    video: Path,
    masks: tuple[str, ...],
    supports: tuple[tuple[str, str], ...],
    labels: tuple[str, ...],
    **settings: Any,
) -> None:
    """Mask the same thing in all frames of a VIDEO, by a mask of one frame or several.

    \b
    iir-sdk video clip.mp4 --mask first_frame.png --out masks

    In --out lie overlay.mp4 to look at, a folder a format, and results.csv.
    """
    from iir_sdk.segmenting.supports import Shown
    from iir_sdk.video.frames import FrameMask
    from iir_sdk.video.segment import segment_video

    try:
        report = segment_video(
            video,
            masks=[FrameMask.from_text(text) for text in masks],
            supports=[Shown.from_text(*pair) for pair in supports],
            labels=labels or None,
            progress=True,
            **settings,
        )
    except KeyboardInterrupt:
        click.echo("stopped; the frames so far are written, and whole.", err=True)
        sys.exit(_INTERRUPTED)
    before = " were done before" if report.present else " segmented"
    click.echo(f"{report.frames} frames{before}: {report.out / 'results.csv'}")
