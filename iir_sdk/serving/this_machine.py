"""Ray as it is to run where nobody else is to use it; imports none of it, since Ray reads this when it is imported."""

from __future__ import annotations

import os
import secrets
import sys
from typing import Any

from iir_sdk.errors import ServingError

_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's own switch, off: its processes bind to 127.0.0.1, whatever the system, and not to all addresses."""


def keep_ray_to_this_machine() -> None:
    """Have a cluster that this process starts be reached from this machine alone, and by none without its token.

    Who reaches Ray's ports may run anything. What the environment says already stays.

    Raises:
        ServingError: Ray was imported before.
    """
    if "ray" in sys.modules:
        raise ServingError("Ray was imported before it could be kept to this machine: start iir-sdk serve by itself.")
    os.environ.setdefault(_CLUSTERS, "0")
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))


def keep_replica_to_this_machine() -> None:
    """In a replica of such a cluster: Ray Serve has each listen at all addresses, and run what it is sent, unasked."""
    if os.environ.get(_CLUSTERS) != "0":
        return
    from ray.serve._private import replica

    listen = replica.add_port_to_grpc_server

    def listen_here(server: Any, address: str) -> Any:
        return listen(server, address.replace("[::]", "127.0.0.1"))

    replica.add_port_to_grpc_server = listen_here
