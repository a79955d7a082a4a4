"""The replicas, as Ray Serve runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve import Application

from iir_sdk.errors import IirError
from iir_sdk.serving.replica import Figures
from iir_sdk.serving.settings import Replicas, Settings
from iir_sdk.serving.this_machine import keep_replica_to_this_machine
from iir_sdk.web.api.messages import PredictRequest

_TYPICAL_BYTES = 2 << 20
"""Of memory, of a set of one support: how many a replica tells Ray of that it holds, follows from it."""
_HEALTH_SECONDS = 5
_BUSY = 4
"""Requests at work or waiting, of a replica, above which autoscaling adds another."""
_RETRIES = 3


@dataclass(frozen=True)
class Reply:
    """What a replica answers.

    Attributes:
        outcome: of the method; an IirError is one, too, so that no trace of it travels.
        replica: its name.
        figures: its own, as they are now.
        together: of a prediction, how many pictures were computed at once.
    """

    outcome: Any
    replica: str
    figures: Figures
    together: int = 0


class Predictor:
    """A replica: a process with the network, and the sets that it used last."""

    def __init__(self, settings: Settings) -> None:
        keep_replica_to_this_machine()
        self._settings, self._replica = settings, settings.opened()
        self._name = str(serve.get_replica_context().replica_id.unique_id)
        most = max(1, settings.limits.set_bytes // _TYPICAL_BYTES)
        self._tell_held = serve.multiplexed(max_num_models_per_replica=most)(_same)

    async def call(self, what: str, *given: Any) -> Reply:
        """Do what the method of :class:`Replica` does."""
        together = 0
        try:
            outcome = await getattr(self._replica, what)(*given)
            if what == "predict":
                outcome, together = outcome
                await self._told(given[0])
        except IirError as error:
            outcome = error
        return Reply(outcome, self._name, self._replica.figures, together)

    async def settings(self) -> Settings:
        """What it was started with."""
        return self._settings

    async def check_health(self) -> None:
        """Ray starts another process in place of one that raises here, or does not answer."""
        if self._replica.stuck:
            raise RuntimeError("a batch of predictions does not end.")

    async def _told(self, asked: PredictRequest) -> None:
        """Tell Ray's routers that this replica holds the set.

        The sets themselves are bounded by their bytes, which Ray's own cache of models, by number, does not know.
        """
        if asked.set is not None:
            await self._tell_held(asked.set)


async def _same(name: str) -> str:
    return name


def predictors(settings: Settings, replicas: Replicas) -> Application:
    """The deployment of all replicas."""
    limits, batching = settings.limits, settings.batching
    # As many as make the next batch while one is computed, and not all that wait: others may have less to do.
    ongoing = 2 * batching.most
    scaling: dict[str, Any] = {"num_replicas": replicas.least}
    if replicas.most > replicas.least:
        bounds = {"min_replicas": replicas.least, "max_replicas": replicas.most}
        scaling = {"autoscaling_config": {**bounds, "target_ongoing_requests": _BUSY}}
    deployment = serve.deployment(
        name="Predictor",
        ray_actor_options={"num_cpus": replicas.num_cpus, "num_gpus": replicas.num_gpus},
        max_ongoing_requests=ongoing,
        max_queued_requests=limits.waiting + ongoing * replicas.most,
        health_check_period_s=_HEALTH_SECONDS,
        health_check_timeout_s=limits.seconds,
        graceful_shutdown_timeout_s=limits.seconds,
        graceful_shutdown_wait_loop_s=0.1,
        max_constructor_retry_count=_RETRIES,
        **scaling,
    )
    return deployment(Predictor).bind(settings)
