"""The ``iir-sdk`` command. Heavy modules are imported by the command that needs them, so that help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from iir_sdk.errors import IirError


class _Commands(click.Group):
    """Turns a user's error into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except IirError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="iir-sdk")
def main() -> None:
    """Few-shot segmentation: one picture with a mask, and every other picture gets that thing masked."""


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="A set, or a folder of sets.")
@click.option("--cutouts", type=click.Path(path_type=Path), help="Folder of cut-outs with alpha to paste.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--exclude-fold", type=click.IntRange(0, 3), help="Leave out the masks of this COCO fold's classes.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting of the recipe.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--workers", default=2, show_default=True, help="Processes that augment pictures.")
def train(
    recipe: Path | None,
    data: Path,
    cutouts: Path | None,
    out: Path,
    exclude_fold: int | None,
    overrides: tuple[str, ...],
    resume: bool,
    device: str,
    workers: int,
) -> None:
    """Train a decoder by RECIPE (default: the embedded checkpoint's) on folders of pictures with masks."""
    from iir_sdk.training.config import read_recipe
    from iir_sdk.training.data.folder import coco_fold
    from iir_sdk.training.start import build_trainer

    config = read_recipe(recipe or Path(__file__).parent / "training/recipes/lite2.toml", overrides)
    novel = () if exclude_fold is None else coco_fold(exclude_fold)
    trainer = build_trainer(config, data, out, cutouts=cutouts, novel=novel, device=device, workers=workers)
    trainer.run(resume=resume)
    click.echo(f"trained {trainer.step} steps; the averaged decoder is in {out}/last.pt")


if __name__ == "__main__":
    main()
