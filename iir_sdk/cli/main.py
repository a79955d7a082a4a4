"""The ``iir-sdk`` command. Heavy modules are imported by the command that needs them, so that help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from iir_sdk.cli.ablate import ablate
from iir_sdk.cli.data import data
from iir_sdk.cli.evaluate import calibrate, evaluate
from iir_sdk.cli.export import export
from iir_sdk.cli.train import bank, pretrain, train
from iir_sdk.cli.weights import weights
from iir_sdk.errors import IirError


class _Commands(click.Group):
    """Turns a user's error into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an ``IirError`` becomes click's own kind."""
        try:
            return super().invoke(ctx)
        except IirError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="iir-sdk")
def main() -> None:
    """Few-shot segmentation: one picture with a mask, and every other picture gets that thing masked."""


for _command in (data, weights, export, bank, train, calibrate, pretrain, evaluate, ablate):
    main.add_command(_command)


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("iir_demo.png"), show_default=True)
@click.option("--weights", help="Checkpoint name, file or folder; default: the embedded one.")
@click.option("--failures", is_flag=True, help="Jobs that go wrong, instead: thin, tiny, camouflaged things, letters.")
@click.option("--device", default="auto", show_default=True)
def demo(out: Path, weights: str | None, failures: bool, device: str) -> None:
    """Run few-shot jobs on real pictures; write a sheet and print IoU and milliseconds."""
    from iir_sdk.cli.demo_jobs import run_jobs
    from iir_sdk.cli.demo_sheet import draw_sheet
    from iir_sdk.demo.job import FAILURES, PICTURES, read_jobs
    from iir_sdk.pictures.save import check_picture_place, save_picture
    from iir_sdk.segmenter import FewShotSegmenter

    check_picture_place(out)
    segmenter = FewShotSegmenter(weights, device=device)
    click.echo(f"{segmenter.engine.name} on {segmenter.device}\n")
    click.echo(f"{'job':12} {'IoU':>5} {'add_support':>12} {'predict':>9}")
    results = []
    for result in run_jobs(segmenter, read_jobs(FAILURES if failures else PICTURES)):
        results.append(result)
        click.echo(
            f"{result.job.name:12} {result.iou:5.2f} {result.add_support_ms:9.0f} ms {result.predict_ms:6.0f} ms"
        )
    click.echo(f"{'mean':12} {sum(r.iou for r in results) / len(results):5.2f}")
    sheet = draw_sheet(results)
    click.echo(f"\nsupport, query, prior and result side by side: {save_picture(sheet, out)}")


if __name__ == "__main__":
    main()
