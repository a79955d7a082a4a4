"""The replicas' life: Ray here or there, Ray Serve in it, and our application in that."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from iir_sdk import errors
from iir_sdk.errors import ConfigError, IirError, ServingError
from iir_sdk.serving.deployment import predictors
from iir_sdk.serving.settings import Replicas, Settings

_STORE_BYTES = 1 << 30
"""Of shared memory, through which pictures go to replicas of this machine; taken as it is used."""
_JOIN_SECONDS = 60.0


@contextmanager
def cluster(address: str | None, replicas: Replicas, *, store_bytes: int = _STORE_BYTES) -> Iterator[None]:
    """Ray, as long as the block runs: that at an address, or one of this machine's processes alone.

    Raises:
        ServingError: there is none at the address.
    """
    # A server calls nobody unless it is told to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"address": address}
    if address is None:
        # Ray has its workers wait behind all other programs; a server answers while somebody waits.
        os.environ.setdefault("RAY_worker_niceness", "0")
        options = {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": max(os.cpu_count() or 1, int(replicas.most * replicas.num_cpus)),
            "object_store_memory": store_bytes,
        }
    try:
        ray.init(**options, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        place = "on this machine" if address is None else f"at {address!r}"
        raise ServingError(f"Ray {place} cannot be had: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def deployed(name: str, settings: Settings, replicas: Replicas) -> Iterator[DeploymentHandle[Any]]:
    """Replicas under a name, as long as the block runs; those of another server that runs the same are joined.

    Raises:
        ServingError: replicas cannot be started.
        ConfigError: others run under this name, with other settings.
        IirError: what a replica raised when it started, as of weights that are not there.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location="Disabled", logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False))
    present = serve.status().applications.get(name)
    if present is not None and present.status == "RUNNING":
        yield _joined(name, settings)
        return
    try:
        handle = serve.run(predictors(settings, replicas), name=name, route_prefix=None)
    except RuntimeError as error:
        told = _told_of(name)
        serve.delete(name)
        raise told from error
    try:
        yield handle
    finally:
        serve.delete(name)


def _joined(name: str, settings: Settings) -> DeploymentHandle[Any]:
    handle: DeploymentHandle[Any] = serve.get_app_handle(name)
    running = handle.settings.remote().result(timeout_s=_JOIN_SECONDS)
    if running != settings:
        raise ConfigError(
            f"an application {name!r} runs on this cluster with other settings ({running}): pass --name of another."
        )
    return handle


def _told_of(name: str) -> IirError:
    """Why an application could not be started: the error that its replicas raised, where it is one of ours."""
    application = serve.status().applications.get(name)
    messages = (
        [] if application is None else [application.message, *(d.message for d in application.deployments.values())]
    )
    text = "\n".join(messages)
    raised = re.findall(r"iir_sdk\.errors\.(\w+): (.+)", text)
    kind = getattr(errors, raised[-1][0], ServingError) if raised else ServingError
    return kind(raised[-1][1]) if raised else ServingError(f"the replicas cannot be started: {text}")
