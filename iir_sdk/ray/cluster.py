"""The connection to Ray: an open one, a cluster's by its address, or a small one on this machine while it is needed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from iir_sdk import errors
from iir_sdk.errors import ConfigError, IirError, OutputError, needed_imports

_CURE = "Ray is not installed; run: pip install 'iir-sdk[ray]'"
_OBJECT_STORE = 1 << 28
"""Bytes of a small cluster's object store: pictures do not pass through it, paths and summaries do."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to Ray within; one that is open already stays open.

    Args:
        address: of a cluster, ``auto`` for the one that this machine belongs to; None or ``local`` starts Ray on this
            machine alone.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: no cluster is at the address, or another one is connected.
    """
    with needed_imports(_CURE):
        import ray
        import ray.data
    if ray.is_initialized():
        yield
        return
    # Its C++ side has a level of its own, and tells of every actor that it may have to start again.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    start: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address in (None, "local"):
        start.update(address="local", include_dashboard=False, object_store_memory=_OBJECT_STORE)
    else:
        start.update(address=address)
    try:
        ray.init(**start)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"address={address!r}: Ray does not answer ({error}). Name a cluster's address, ray://host:10001, or none "
            "to start Ray on this machine."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def resources() -> dict[str, float]:
    """What the cluster has in all: ``CPU``, ``GPU``, ..."""
    import ray

    return {name: float(count) for name, count in ray.cluster_resources().items()}


def quiet(dataset: Any) -> Any:
    """A dataset whose execution shows no bars of Ray's beside ours, and no log of its plan."""
    dataset.context.enable_progress_bars = False
    dataset.context.print_on_execution_start = False
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return dataset


def as_text(error: IirError) -> str:
    """An error as a worker's answer holds it: its kind and its message."""
    return f"{type(error).__name__}: {error}"


def from_text(text: str) -> IirError:
    """The error again; of a kind that this side does not know, an OutputError."""
    kind, _, message = text.partition(": ")
    known = getattr(errors, kind, OutputError)
    error: IirError = known(message)
    return error
