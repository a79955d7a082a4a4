"""The ``iir-sdk`` command. Heavy modules are imported by the command that needs them, so that help is instant."""

from __future__ import annotations

from typing import Any

import click

from iir_sdk.cli.ablate import ablate
from iir_sdk.cli.data import data
from iir_sdk.cli.demo import demo
from iir_sdk.cli.evaluate import calibrate, evaluate
from iir_sdk.cli.export import export
from iir_sdk.cli.segment import segment
from iir_sdk.cli.serve import serve
from iir_sdk.cli.train import bank, pretrain, train
from iir_sdk.cli.video import video
from iir_sdk.cli.web import web
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


for _command in (
    segment,
    video,
    web,
    serve,
    demo,
    data,
    weights,
    export,
    bank,
    train,
    calibrate,
    pretrain,
    evaluate,
    ablate,
):
    main.add_command(_command)
