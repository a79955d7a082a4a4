"""The server as one Ray Serve application, for those who deploy by ``serve run`` or on Kubernetes by a RayService.

    import_path: iir_sdk.serving.application:build
    args: {sets: /shared/sets, replicas: 1-4, num_gpus: 0.5}

Requests come by Ray Serve's own HTTP servers, which bind and drain as Ray's configuration says; the token is taken
from the environment variable ``IIR_TOKEN`` of the replicas.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from iir_sdk.errors import ConfigError
from iir_sdk.serving.deployment import predictors
from iir_sdk.serving.front import front
from iir_sdk.serving.settings import Replicas, Settings, marked
from iir_sdk.web.server.door import Door

TOKEN = "IIR_TOKEN"
_ENGINE = ("weights", "backend", "device", "dtype", "threads")


def build(args: Mapping[str, Any]) -> Application:
    """The application of these arguments: ``sets``; and ``replicas``, ``num_gpus``, ``num_cpus``, ``weights``...

    Raises:
        ConfigError: an argument is missing, unknown or out of its range.
    """
    known = ("sets", "replicas", "num_gpus", "num_cpus", *_ENGINE)
    if "sets" not in args or set(args) - set(known):
        raise ConfigError(f"args={dict(args)} must have sets, a folder that all machines share; known: {known}.")
    folder = Path(str(args["sets"])).absolute()
    settings = Settings(sets=str(folder), mark=marked(folder), **{name: args[name] for name in _ENGINE if name in args})
    replicas = Replicas.of(
        str(args.get("replicas", 1)),
        num_gpus=float(args.get("num_gpus", 0)),
        num_cpus=float(args.get("num_cpus", args.get("threads") or 1)),
    )
    # Anyone may reach a cluster's addresses: without a token the door opens to this machine's own users alone.
    limits = settings.limits

    def app() -> Any:
        token = os.environ.get(TOKEN, "")
        door = Door("0.0.0.0" if token else "127.0.0.1", token)
        handle = serve.get_deployment_handle("Predictor", app_name=serve.get_replica_context().app_name)
        return front(handle, limits, door)[0]

    http = serve.deployment(
        name="Http",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=limits.waiting + 16 * replicas.most,
        graceful_shutdown_timeout_s=limits.seconds,
    )
    return http(serve.ingress(app)()).bind(predictors(settings, replicas))
