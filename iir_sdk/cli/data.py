"""``iir-sdk data``: which benchmarks there are, and whether a copy is the published one."""

from __future__ import annotations

from pathlib import Path

import click

from iir_sdk.cli.options import PATH


@click.group()
def data() -> None:
    """Datasets: which there are, and whether a copy is the published one."""


@data.command("list")
def list_benchmarks() -> None:
    """Name the benchmarks, with published counts and what lies where in a copy: {a,b} are both, <id> is any name."""
    from iir_sdk.data.registry import BENCHMARKS

    for name, known in BENCHMARKS.items():
        counts = [f"{count:,} {what}" for what, count in known.published.items()] or ["one set of your own"]
        folds = [f"{known.reader.FOLDS} folds"] if known.reader.FOLDS > 1 else []
        click.echo(f"{name:12} {', '.join([*counts, *folds, *(['to test on only'] if known.cross_domain else [])])}")
        for places in known.layout:
            click.echo(f"{'':12} {places}")


@data.command()
@click.argument("name")
@click.argument("root", type=PATH)
@click.option("--sheet", type=PATH, help="Where to draw it; default: NAME_sheet.png.")
def check(name: str, root: Path, sheet: Path | None) -> None:
    """Count benchmark NAME's copy in ROOT against the published numbers, and draw pictures with their masks."""
    from iir_sdk.data.registry import benchmark
    from iir_sdk.data.sheet import sheet_of_every_part
    from iir_sdk.pictures.save import check_picture_place, save_picture

    sheet = sheet or Path(f"{name}_sheet.png")
    check_picture_place(sheet)
    known = benchmark(name)
    counts = known.reader.census(root)
    differing = [what for what, count in counts.items() if count != known.published.get(what, count)]
    for what, count in counts.items():
        published = f"   published {known.published[what]:,}" if what in known.published else ""
        click.echo(f"{what:20} {count:8,}{published}{'   differs' if what in differing else ''}")
    missing = known.missing_files(root)
    click.echo(f"{'missing files':20} {len(missing):8,}" + (f"   the first: {missing[0]}" if missing else ""))
    if missing:
        raise click.ClickException(f"this copy of {name} is not complete.")
    click.echo(f"pictures with their masks: {save_picture(sheet_of_every_part(name, root), sheet)}")
    if differing:
        raise click.ClickException(f"this copy of {name} is not the published one.")
