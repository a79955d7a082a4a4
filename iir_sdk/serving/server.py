"""One command's server: it listens here, and its replicas work wherever Ray has room."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from iir_sdk.errors import ServingError
from iir_sdk.serving.cluster import cluster, deployed
from iir_sdk.serving.front import Draining, front
from iir_sdk.serving.settings import Replicas, Settings
from iir_sdk.web.server.door import Door, bound, shown_address

_LOOK = 0.05
"""Seconds after which it is looked again whether requests in flight are done."""
_CLOSE = 2
"""Seconds that connections have to close, once their answers were sent."""


class _Server(uvicorn.Server):
    """Stops in two steps: no further requests; and when those in flight are answered, or time is up, the end."""

    def __init__(self, config: uvicorn.Config, draining: Draining, seconds: float) -> None:
        super().__init__(config)
        self._draining, self._seconds = draining, seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal asks for the end, a second one makes it."""
        if self._draining.stopping:
            self.should_exit = self.force_exit = True
            return
        self._draining.stopping = True
        threading.Thread(target=self._end, name="iir-drain", daemon=True).start()

    def _end(self) -> None:
        until = time.monotonic() + self._seconds
        while self._draining.at_work and time.monotonic() < until:
            time.sleep(_LOOK)
        self.should_exit = True


def serve_here(
    settings: Settings,
    replicas: Replicas,
    door: Door,
    *,
    port: int,
    say: Callable[[str], object],
    address: str | None = None,
    name: str = "iir-sdk",
    drain: float = 30.0,
    store_bytes: int = 1 << 30,
) -> None:
    """Answer requests until SIGTERM or SIGINT; those in flight are answered first.

    Args:
        settings: of the replicas.
        replicas: how many.
        door: who may enter; its host is bound to.
        port: 0 for a free one.
        say: is told the address when replicas are ready.
        address: of a Ray cluster, as ``auto``; None for processes of this machine.
        name: of the application in the cluster; servers of the same name and settings share its replicas.
        drain: seconds for requests in flight at the end.
        store_bytes: of shared memory, on this machine's own cluster.

    Raises:
        OutputError: the port cannot be had.
        ServingError, ConfigError: see :mod:`iir_sdk.serving.cluster`.
        IirError: the weights cannot be opened.
    """
    # Before all that takes long: a port that is taken is told of at once, and wrong weights in seconds.
    listening = bound(door.host, port)
    _check(settings, here=address is None)
    with cluster(address, replicas, store_bytes=store_bytes), deployed(name, settings, replicas) as handle:
        app, draining = front(handle, settings.limits, door)
        say(f"{shown_address(door, listening.getsockname()[1])}  (sets in {settings.sets}; stop with Ctrl+C)")
        _Server(_config(app), draining, drain).run(sockets=[listening])


def _check(settings: Settings, *, here: bool) -> None:
    """See :meth:`Settings.check`; by a process of its own, since who takes requests loads no network."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        try:
            process.submit(settings.check, here=here).result()
        except BrokenProcessPool as error:
            raise ServingError(
                "the process that tried the weights was killed, as where memory does not suffice: give it more, or "
                "take smaller weights."
            ) from error


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        timeout_graceful_shutdown=_CLOSE,
    )
