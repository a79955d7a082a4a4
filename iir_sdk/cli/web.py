"""``iir-sdk web``: see and correct, in the browser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from iir_sdk.cli.options import ENGINE, PATH
from iir_sdk.errors import needed_imports


@click.command()
@click.argument("folder", required=False, type=PATH)
@click.option("--project", type=PATH, help="Where all that is done is kept; default: FOLDER.iir-project, beside it.")
@click.option("--host", default="127.0.0.1", show_default=True, help="To bind to; others than this machine's: a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 for a free one.")
@click.option("--open/--no-open", "opens", default=True, show_default=True, help="Open the page in the browser.")
@click.option(
    "--memory", type=click.IntRange(16), default=1024, show_default=True, help="MB to keep read pictures in, 4 MB each."
)
@click.option(
    "--supports",
    "support_files",
    type=PATH,
    multiple=True,
    help="File that save_supports wrote: a set for /v1/predict, by the file's name; repeat.",
)
@click.option("--label-studio", metavar="URL", help="Serve as its backend, at /label-studio; see docs/label_studio.md.")
@click.option(
    "--picture-host", "picture_hosts", multiple=True, help="Fetch tasks' pictures from this host as well; repeat."
)
@ENGINE
def web(
    folder: Path | None,
    project: Path | None,
    host: str,
    port: int,
    opens: bool,
    memory: int,
    support_files: tuple[Path, ...],
    label_studio: str | None,
    picture_hosts: tuple[str, ...],
    **opening: Any,
) -> None:
    """See and correct: a page on which one mask becomes masks of all pictures in FOLDER, and what was dropped in.

    \b
    iir-sdk web photos/

    Paint the thing on one picture, and every other one is masked, least sure first; correct, accept, export. All of it
    is kept at every action, and is there when the page is opened again.
    """
    with needed_imports("the page needs a web server; run: pip install 'iir-sdk[web]'"):
        from iir_sdk.web.api.app import api_app
        from iir_sdk.web.label_studio.app import label_studio_app
        from iir_sdk.web.server.serve import serve
    from iir_sdk.segmenter import FewShotSegmenter
    from iir_sdk.web.api.support_sets import SupportSets
    from iir_sdk.web.label_studio.backend import Backend
    from iir_sdk.web.label_studio.connection import LabelStudio
    from iir_sdk.web.project.opening import opened_desk

    segmenter = FewShotSegmenter(opening.pop("weights"), **opening)
    sets = SupportSets(segmenter)
    for file in support_files:
        sets.preload(file)
    mounted = {"/v1": api_app(sets)}
    if label_studio is not None:
        studio = LabelStudio(label_studio, os.environ.get("LABEL_STUDIO_API_KEY", ""), picture_hosts)
        mounted["/label-studio"] = label_studio_app(Backend(sets.joined(), studio))
    desk = opened_desk(segmenter.engine, folder, project, features=memory << 20)
    try:
        serve(desk, host=host, port=port, opens=opens, say=click.echo, mounted=mounted)
    finally:
        desk.close()
