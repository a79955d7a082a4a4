"""The API from two replicas on a cluster of this machine's processes: one for all tests here."""

from __future__ import annotations

import base64
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.web.api.app import api_app
from iir_sdk.web.api.limits import Limits
from iir_sdk.web.api.support_sets import SupportSets
from iir_sdk.web.server.door import Door
from tests.served import served

pytest.importorskip("ray", reason="the extra ray")

from ray import serve

from iir_sdk.serving.batching import Batching
from iir_sdk.serving.cluster import cluster, deployed
from iir_sdk.serving.front import front
from iir_sdk.serving.settings import Replicas, Settings, marked

JOBS = {job.name: job for job in read_jobs()}
NAME = f"iir-test-{os.getpid()}"
HELD = 5


@pytest.fixture(scope="module")
def plain() -> TestClient:
    """The server of one process."""
    return TestClient(api_app(SupportSets(FewShotSegmenter("iir-lite0", threads=1))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sets")


@pytest.fixture(scope="module")
def http(plain: TestClient, folder: Path) -> Iterator[httpx2.Client]:
    size = plain.post("/supports", json={"name": "sized", "supports": [support("coins")]}).json()["bytes"]
    limits = Limits(set_bytes=int((HELD + 0.5) * size))
    settings = Settings(
        sets=str(folder),
        mark=marked(folder),
        weights="iir-lite0",
        threads=1,
        limits=limits,
        batching=Batching(most=4, seconds=0.05),
    )
    replicas = Replicas(2, 2)
    with cluster(None, replicas, store_bytes=100 << 20), deployed(NAME, settings, replicas) as handle:
        app, _ = front(handle, limits, Door())
        with served(app) as address, httpx2.Client(base_url=address, timeout=120) as client:
            yield client


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def support(name: str) -> dict[str, str]:
    job = JOBS[name]
    return {"image": text(job.support.read_bytes()), "mask": text(job.support_mask.read_bytes()), "label": name}


def predict(http: Any, of_set: str, query: str = "coins", path: str = "/v1/predict", **fields: Any) -> Any:
    files = {"image": JOBS[query].query.read_bytes()}
    return http.post(path, data={"set": of_set, **fields}, files=files)


def same(one: Any, other: Any) -> None:
    """Answers but for the time they took, and scores' last digits."""
    for answer in (one, other):
        answer.pop("milliseconds", None)
        for label in answer.get("labels", ()):
            label.update({key: pytest.approx(label[key], abs=1e-4) for key in ("score", "confidence") if key in label})
    assert one == other


def figures(http: httpx2.Client, name: str) -> dict[str, float]:
    """What the metrics say, by replica or by bucket."""
    told = http.get("/metrics").text
    return {key: float(value) for key, value in re.findall(rf'^{name}{{\w+="([^"]+)"}} (\S+)$', told, re.M)}


def pids() -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if f"ServeReplica:{NAME}:Predictor".encode() in command:
            found.append(int(process.name))
    return found


def test_answers_are_those_of_the_server_of_one_process(http, plain):
    both = {"name": "both", "supports": [support("coins"), support("flag")]}
    same(http.post("/v1/supports", json=both).json(), plain.post("/supports", json=both).json())
    for fields in ({}, {"labels": "flag", "masks": "png"}, {"absent_below": "0.5", "sharpen": "true"}):
        there, here = predict(http, "both", **fields), predict(plain, "both", path="/predict", **fields)
        assert there.status_code == here.status_code == 200
        same(there.json(), here.json())
    accept = {"Accept": "image/png"}
    files = {"image": JOBS["flag"].query.read_bytes()}
    there = http.post("/v1/predict", data={"set": "both"}, files=files, headers=accept)
    here = plain.post("/predict", data={"set": "both"}, files=files, headers=accept)
    assert (there.content, there.headers["IIR-Labels"]) == (here.content, here.headers["IIR-Labels"])
    for path in ("/supports/both", "/supports/none", "/supports/none/file", "/none"):
        there, here = http.get("/v1" + path), plain.get(path)
        assert there.status_code == here.status_code
        assert {**there.json(), "message": ""} == {**here.json(), "message": ""}
    for body in (both, {"supports": []}, {"name": "../up", "supports": [support("coins")]}):
        there, here = http.post("/v1/supports", json=body), plain.post("/supports", json=body)
        assert (there.status_code, there.json()) == (here.status_code, here.json())
        assert there.status_code in (409, 422)
    health = http.get("/v1/health").json()
    assert (health["weights"], health["sets"]) == ("iir-lite0", 1)


def test_requests_of_several_sets_together_and_a_broken_one_among_them(http, plain):
    for name in ("coins", "flag", "eye"):
        for client, path in ((http, "/v1/supports"), (plain, "/supports")):
            assert client.post(path, json={"name": name, "supports": [support(name)]}).status_code == 201
    asked = [("coins", "coins"), ("flag", "coins"), ("eye", "flag"), ("coins", "flag")] * 3
    expected = {pair: predict(plain, *pair, path="/predict").json() for pair in asked[:4]}

    def ask(i: int) -> None:
        if i == 5:
            broken = http.post("/v1/predict", data={"set": "coins"}, files={"image": b"\xff\xd8 no picture"})
            assert (broken.status_code, broken.json()["code"]) == (422, "ImageError")
            return
        same(predict(http, *asked[i]).json(), dict(expected[asked[i]]))

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(ask, range(12)))
    alone = figures(http, "iir_pictures_together_bucket")["1.0"]
    assert alone < figures(http, "iir_pictures_together_bucket")["+Inf"]
    # Made by one replica, predicted by both.
    assert len(figures(http, "iir_pictures_total")) == 2


def test_fifty_sets_of_which_five_fit_into_memory(http, folder):
    content = http.get("/v1/supports/coins/file").content
    names = [f"set{i}" for i in range(50)]
    for name in names:
        (folder / f"{name}.safetensors").write_bytes(content)
    masks = {name: predict(http, name, masks="rle").json()["labels"][0]["rle"]["counts"] for name in names}
    assert len(set(masks.values())) == 1
    held, evicted = figures(http, "iir_sets_in_memory"), figures(http, "iir_set_evictions_total")
    assert max(held.values()) <= HELD and sum(evicted.values()) >= 50 - 2 * HELD - 4
    # From now on who holds a set is asked first: it is not read again for each request.
    time.sleep(0.5)
    before = sum(figures(http, "iir_set_loads_total").values())
    for _ in range(6):
        assert predict(http, "set49").status_code == 200
    assert sum(figures(http, "iir_set_loads_total").values()) <= before + 1
    assert http.delete("/v1/supports/set49").status_code == 204
    for _ in range(4):
        assert predict(http, "set49").status_code == 404


def test_a_replica_that_is_killed_costs_nobody_the_answer(http):
    present = pids()
    assert len(present) == 2

    def ask(i: int) -> int:
        if i == 4:
            os.kill(present[0], signal.SIGKILL)
        return predict(http, "both").status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, range(16)))
    assert set(statuses) <= {200, 503} and statuses.count(200) >= 12
    until = time.monotonic() + 180
    while serve.status().applications[NAME].deployments["Predictor"].replica_states != {"RUNNING": 2}:
        assert time.monotonic() < until, serve.status()
        time.sleep(0.2)
    assert predict(http, "both").status_code == 200
    # A process has its name a little after it runs.
    while len(now := pids()) < 2:
        assert time.monotonic() < until, now
        time.sleep(0.2)
    assert len(now) == 2 and present[0] not in now
