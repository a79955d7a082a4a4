"""``iir-sdk serve``: the HTTP API from several processes or machines, on Ray."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from iir_sdk.cli.options import ENGINE, PATH
from iir_sdk.errors import ConfigError, needed_imports
from iir_sdk.serving.this_machine import keep_ray_to_this_machine


@click.command()
@click.option(
    "--sets", type=PATH, help="Folder of named sets, NAME.safetensors; default: one that ends with the server."
)
@click.option(
    "--replicas", default="1", show_default=True, help="Processes that predict; 1-4: as many as there is to do."
)
@click.option("--num-gpus", type=click.FloatRange(0), default=0.0, show_default=True, help="Of each, as 1 or 0.5.")
@click.option("--address", help="Of a Ray cluster to run on, as auto; default: this machine alone.")
@click.option("--name", default="iir-sdk", show_default=True, help="Of the application on that cluster.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Most pictures computed at once.")
@click.option(
    "--wait",
    type=click.FloatRange(0, 1000),
    default=5.0,
    show_default=True,
    help="Most milliseconds for others to come.",
)
@click.option(
    "--set-memory", type=click.IntRange(1), default=1024, show_default=True, help="MB of sets in a replica's memory."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="To bind to; others than this machine's: a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 for a free one.")
@click.option("--token", envvar="IIR_TOKEN", help="That requests must show; default beyond this machine: a random one.")
@click.option(
    "--drain",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Seconds for requests in flight at the end.",
)
@ENGINE
def serve(
    sets: Path | None,
    replicas: str,
    num_gpus: float,
    address: str | None,
    name: str,
    batch: int,
    wait: float,
    set_memory: int,
    host: str,
    port: int,
    token: str | None,
    drain: float,
    **opening: Any,
) -> None:
    """Serve the HTTP API from as many processes as it needs, on this machine or on a Ray cluster.

    \b
    iir-sdk serve --sets sets/ --replicas 2

    Requests that come together are computed together, whatever their sets. See docs/serving.md.
    """
    if sets is None and address is not None:
        raise ConfigError("replicas on a cluster need one folder that all its machines share: pass --sets FOLDER.")
    if address is None:
        keep_ray_to_this_machine()
    with needed_imports("serving needs Ray; run: pip install 'iir-sdk[ray,web]'"):
        from iir_sdk.serving.server import serve_here
    from iir_sdk.serving.batching import Batching
    from iir_sdk.serving.settings import Replicas, Settings, marked
    from iir_sdk.web.api.limits import Limits
    from iir_sdk.web.server.door import Door, is_loopback

    opening["threads"] = opening["threads"] or _threads(Replicas.of(replicas).most, num_gpus, address)
    token = token or ("" if is_loopback(host) else secrets.token_urlsafe(24))
    with ExitStack() as stack:
        folder = sets or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iir-sets-")))
        folder = folder.absolute()
        settings = Settings(
            sets=str(folder),
            mark=marked(folder),
            limits=replace(Limits(), set_bytes=set_memory << 20),
            batching=Batching(batch, wait / 1000),
            **opening,
        )
        serve_here(
            settings,
            Replicas.of(replicas, num_gpus=num_gpus, num_cpus=opening["threads"]),
            Door(host, token),
            port=port,
            say=click.echo,
            address=address,
            name=name,
            drain=drain,
        )


def _threads(replicas: int, num_gpus: float, address: str | None) -> int:
    """Of each replica, where nobody says: this machine's cores shared out, on a cluster or beside a GPU one."""
    return 1 if address is not None or num_gpus else max(1, (os.cpu_count() or 1) // replicas)
