"""The HTTP side without a cluster: what it does where replicas end, are too slow or too busy; its door and its end."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import httpx2
import pytest
import uvicorn
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from iir_sdk import FewShotSegmenter
from iir_sdk.cli.main import main
from iir_sdk.errors import BusyError, ConfigError, DeviceError, IirError, MaskError, OutputError, ServingError
from iir_sdk.serving.settings import Replicas, Settings, marked
from iir_sdk.serving.this_machine import keep_ray_to_this_machine, keep_replica_to_this_machine
from iir_sdk.web.api.limits import Limits
from iir_sdk.web.api.messages import CreateSet, SetsOut
from iir_sdk.web.api.worker import Worker
from iir_sdk.web.server.door import Door, bound

pytest.importorskip("ray", reason="the extra ray")

from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError

from iir_sdk.serving.deployment import Reply
from iir_sdk.serving.front import Draining, RemoteService, front
from iir_sdk.serving.metrics import Metrics
from iir_sdk.serving.replica import Figures
from iir_sdk.serving.server import _Server, serve_here

FIGURES = Figures(sets=3, set_bytes=100, loads=7, evictions=0, batches=2, pictures=5)


class Handle:
    """Answers in turn what a test says; exceptions are raised, and at the end nothing is answered any more."""

    def __init__(self, *turns: Any) -> None:
        self.turns, self.asked, self.routed = list(turns), 0, []
        self.call = self

    def options(self, *, multiplexed_model_id: str) -> Handle:
        self.routed.append(multiplexed_model_id)
        return self

    def remote(self, *given: Any) -> Handle:
        return self

    def cancel(self) -> None:
        self.turns.append("cancelled")

    def __await__(self) -> Any:
        return self._answer().__await__()

    async def _answer(self) -> Reply:
        self.asked += 1
        if not self.turns:
            await asyncio.sleep(60)
        turn = self.turns.pop(0)
        if isinstance(turn, BaseException) and not isinstance(turn, MaskError):
            raise turn
        return Reply(turn, "replica", FIGURES)


def service(handle: Handle, **limits: float) -> RemoteService:
    return RemoteService(handle, Limits(**limits), Metrics())  # type: ignore[arg-type]


def test_another_replica_is_asked_where_one_ended():
    handle = Handle(ActorDiedError(), ActorDiedError(), SetsOut(sets=[]))
    assert asyncio.run(service(handle).listed()) == SetsOut(sets=[])
    assert handle.asked == 3


def test_what_changes_sets_is_asked_for_once():
    handle = Handle(ActorDiedError(), SetsOut(sets=[]))
    with pytest.raises(BusyError, match="see what there is"):
        asyncio.run(service(handle).create(CreateSet.model_construct(supports=[])))
    assert handle.asked == 1


def test_nothing_waits_for_ever():
    handle = Handle()
    with pytest.raises(BusyError, match=r"0\.05 seconds"):
        asyncio.run(service(handle, seconds=0.05).listed())
    assert handle.turns == ["cancelled"]
    with pytest.raises(BusyError, match="ended"):
        asyncio.run(service(Handle(*[ActorDiedError()] * 9)).listed())
    with pytest.raises(BusyError, match="too many"):
        asyncio.run(service(Handle(BackPressureError(1, 1))).listed())
    with pytest.raises(MaskError, match="as the replica says"):
        asyncio.run(service(Handle(MaskError("as the replica says"))).listed())


def client(door: Door, handle: Any = None) -> TestClient:
    app, _ = front(handle, Limits(), door)
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


def test_the_door_is_before_everything():
    http = client(Door("0.0.0.0", "secret"))
    for path in ("/metrics", "/v1/health", "/v1/supports", "/elsewhere"):
        assert http.get(path).status_code == 401
        assert http.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
    told = http.get("/metrics", headers={"Authorization": "Bearer secret"}).text
    assert 'iir_requests_total{method="GET",path="/v1/supports",status="401"} 2.0' in told
    assert 'iir_errors_total{code="RefusedError"} 4.0' in told
    local = client(Door())
    assert local.get("/metrics", headers={"Host": "evil.example"}).status_code == 421
    assert local.post("/v1/supports", headers={"Origin": "http://evil.example"}).status_code == 403


def test_paths_are_counted_by_their_kind_and_replicas_by_what_they_say():
    http = client(Door(), Handle(*[SetsOut(sets=[])] * 3))
    for name in ("coins", "flag"):
        http.get(f"/v1/supports/{name}")
    assert http.get("/v1/supports").json() == {"sets": []}
    told = http.get("/metrics").text
    assert 'iir_requests_total{method="GET",path="/v1/supports/{id}"' in told and "coins" not in told
    assert 'iir_sets_in_memory{replica="replica"} 3.0' in told
    assert 'iir_set_loads_total{replica="replica"} 7.0' in told


def test_requests_in_flight_are_answered_at_the_end_and_new_ones_refused():
    begun, go_on = threading.Event(), threading.Event()

    async def slow(request: Request) -> Response:
        begun.set()
        await asyncio.to_thread(go_on.wait, 60)
        return Response("answered")

    draining = Draining(Starlette(routes=[Route("/", slow)]))
    listening = bound("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = _Server(uvicorn.Config(draining, log_level="warning", lifespan="off"), draining, seconds=60)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(httpx2.get(address, timeout=60)))
    asking.start()
    assert begun.wait(60)
    server.handle_exit(signal.SIGTERM, None)
    refused = httpx2.get(address, timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (503, "BusyError")
    assert refused.headers["Retry-After"] and refused.headers["Connection"] == "close"
    assert thread.is_alive()
    go_on.set()
    for each in (asking, thread):
        each.join(60)
        assert not each.is_alive()
    assert answers[0].text == "answered"


def test_the_end_comes_within_its_bound():
    draining = Draining(Starlette())
    draining.at_work = 1  # a request that never ends
    server = _Server(uvicorn.Config(draining), draining, seconds=0.2)
    start = time.monotonic()
    server.handle_exit(signal.SIGTERM, None)
    while not server.should_exit:
        time.sleep(0.01)
    assert time.monotonic() - start >= 0.2
    assert not server.force_exit
    server.handle_exit(signal.SIGTERM, None)
    assert server.force_exit


def test_without_ray_the_command_says_how_to_have_it(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith("iir_sdk.serving.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    told = CliRunner().invoke(main, ["serve", "--address", "auto", "--sets", str(tmp_path)])
    assert told.exit_code == 1 and "pip install 'iir-sdk[ray,web]'" in told.output
    assert CliRunner().invoke(main, ["serve", "--help"]).exit_code == 0


def test_a_cluster_of_its_own_is_reached_from_this_machine_and_with_its_token_alone(monkeypatch):
    with pytest.raises(ServingError, match="imported before"):
        keep_ray_to_this_machine()
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    code = (
        "from iir_sdk.serving.this_machine import keep_ray_to_this_machine as keep; keep();"
        "from ray._private.services import get_node_ip_address as ip;"
        "from ray._private.authentication.authentication_utils import is_token_auth_enabled as secret;"
        "print(ip(), secret())"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.split() == ["127.0.0.1", "True"]


def test_a_replica_of_such_a_cluster_listens_on_this_machine_alone(monkeypatch):
    from ray.serve._private import replica

    asked: list[str] = []
    monkeypatch.setattr(replica, "add_port_to_grpc_server", lambda server, address: asked.append(address))
    for kept in ("1", "0"):
        monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", kept)
        keep_replica_to_this_machine()
        replica.add_port_to_grpc_server(None, "[::]:0")
    assert asked == ["[::]:0", "127.0.0.1:0"]


def test_a_busy_error_of_the_work_itself_is_told_as_it_is():
    def busy() -> None:
        raise BusyError("changed by others")

    with pytest.raises(BusyError, match="changed by others"):
        asyncio.run(Worker(1, 1, 60).run(busy))


def test_on_a_cluster_sets_need_a_folder():
    told = CliRunner().invoke(main, ["serve", "--address", "auto"])
    assert told.exit_code == 1 and "--sets FOLDER" in told.output


def test_who_takes_requests_loads_no_network():
    code = "import sys, iir_sdk.serving.server; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_wrong_weights_are_told_before_ray_starts_as_segment_tells_them(monkeypatch, tmp_path):
    def started(*given: object, **settings: object) -> None:
        raise AssertionError("Ray was started")

    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    monkeypatch.setattr("iir_sdk.serving.server.cluster", started)
    for weights in ("iir-lite9", str(tmp_path / "damaged.safetensors")):
        settings = Settings(sets=str(tmp_path), mark=marked(tmp_path), weights=weights)
        with pytest.raises(IirError) as segmenting:
            FewShotSegmenter(weights)
        for here in (True, False):
            with pytest.raises(IirError, match=re.escape(str(segmenting.value))):
                settings.check(here=here)
    with pytest.raises(IirError, match=re.escape(str(segmenting.value))):
        serve_here(settings, Replicas(), Door(), port=0, say=print)
    # A device that this machine lacks is an error of this machine's replicas alone.
    elsewhere = Settings(sets=str(tmp_path), mark=marked(tmp_path), weights="iir-lite0", device="cuda:77")
    elsewhere.check(here=False)
    with pytest.raises(DeviceError):
        elsewhere.check(here=True)


def test_replicas_in_words():
    assert Replicas.of("3") == Replicas(3, 3) and Replicas.of("1-4") == Replicas(1, 4)
    for wrong in ("0", "4-1", "many", "-1"):
        with pytest.raises(ConfigError, match="1-4"):
            Replicas.of(wrong)
    with pytest.raises(ConfigError, match=r"0\.5"):
        Replicas.of("1", num_gpus=1.5)


def test_replicas_that_see_another_folder_do_not_start(tmp_path):
    mark = marked(tmp_path / "shared")
    assert mark and marked(tmp_path / "shared") == mark
    (tmp_path / "local").mkdir()
    with pytest.raises(OutputError, match="--sets"):
        Settings(sets=str(tmp_path / "local"), mark=mark).opened()
