"""The backend for Label Studio, against a server that speaks as Label Studio 1.23 does."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI, Request, Response
from PIL import Image
from starlette.responses import JSONResponse, RedirectResponse
from starlette.testclient import TestClient

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.errors import LabelStudioError, RequestError
from iir_sdk.formats.brush import decode_brush, encode_brush
from iir_sdk.web.label_studio.app import label_studio_app
from iir_sdk.web.label_studio.backend import PER_LABEL, Backend
from iir_sdk.web.label_studio.config import read_config
from iir_sdk.web.label_studio.connection import LabelStudio
from iir_sdk.web.label_studio.regions import drawn_in
from tests.served import served

JOBS = {job.name: job for job in read_jobs()}
BRUSH = """<View><Image name="image" value="$picture" zoom="true"/>
<BrushLabels name="brush" toName="image"><Label value="coin" background="red"/><Label value="flag"/></BrushLabels>
</View>"""
POLYGON = BRUSH.replace("BrushLabels", "PolygonLabels")
KEY = "0123456789abcdef"
TRUTH = np.array(Image.open(JOBS["coins"].support_mask)) > 0


class Studio:
    """Label Studio, as far as the backend asks it."""

    def __init__(self) -> None:
        self.tasks: list[dict[str, Any]] = []
        self.authorizations: list[str] = []
        self.refreshed = 0
        self.pictures = 0
        self.app = FastAPI()
        self.app.add_api_route("/api/projects/{number}/export", self.export)
        self.app.add_api_route("/api/token/refresh", self.refresh, methods=["POST"])
        self.app.add_api_route("/data/{path:path}", self.data)
        self.app.add_api_route("/elsewhere", lambda: RedirectResponse("http://127.0.0.1:1/bucket.png"))

    def export(self, number: int, request: Request) -> Response:
        self.authorizations.append(request.headers.get("authorization", ""))
        if self.authorizations[-1] not in (f"Token {KEY}", f"Bearer access{self.refreshed}"):
            return JSONResponse({"detail": "Invalid token."}, 401)
        return JSONResponse(self.tasks)

    async def refresh(self, request: Request) -> dict[str, str]:
        assert (await request.json())["refresh"].count(".") == 2
        self.refreshed += 1
        return {"access": f"access{self.refreshed}"}

    def data(self, path: str, request: Request) -> Response:
        assert request.headers.get("authorization")
        self.pictures += 1
        name = request.query_params.get("d") or path
        kind = name.rpartition("/")[2].partition(".")[0]
        if kind not in JOBS:
            return JSONResponse({}, 404)
        return Response((JOBS[kind].query if "query" in name else JOBS[kind].support).read_bytes())

    def annotate(self, id: int, picture: str, results: list[dict[str, Any]], updated: str = "2026-01-01") -> None:
        annotation = {"id": 10 * id, "result": results, "was_cancelled": False, "updated_at": updated}
        self.tasks.append({"id": id, "data": {"picture": picture}, "annotations": [annotation]})


def brushed(mask: np.ndarray, label: str) -> dict[str, Any]:
    value = {"format": "rle", "rle": encode_brush(mask), "brushlabels": [label]}
    return region("brushlabels", value, mask.shape)


def region(kind: str, value: dict[str, Any], size: tuple[int, ...], name: str = "brush") -> dict[str, Any]:
    sizes = {"original_height": size[0], "original_width": size[1], "image_rotation": 0}
    return {"id": "x", "from_name": name, "to_name": "image", "type": kind, "value": value, **sizes}


def setup_of(config: str = BRUSH, key: str = KEY) -> dict[str, Any]:
    """As ``MLApi.setup`` of Label Studio sends it."""
    project = {"project": "7.1764200000", "schema": config, "hostname": "http://other.example"}
    return {**project, "access_token": key, "extra_params": None}


def asked_for(*pictures: str, config: str = BRUSH) -> dict[str, Any]:
    """As ``MLApi.make_predictions`` sends it."""
    tasks = [{"id": i, "data": {"picture": p}, "project": 7, "annotations": []} for i, p in enumerate(pictures)]
    params = {"login": None, "password": None, "context": None}
    return {"tasks": tasks, "project": "7.1764200000", "label_config": config, "params": params}


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Annotations are read before a setup is answered, however busy the machine is."""
    monkeypatch.setattr("iir_sdk.web.label_studio.backend._SETUP_SECONDS", 100.0)


@pytest.fixture
def studio() -> Iterator[tuple[Studio, str]]:
    studio = Studio()
    with served(studio.app) as address:
        yield studio, address


def client_of(segmenter: FewShotSegmenter, address: str, key: str = "", hosts: tuple[str, ...] = ()) -> TestClient:
    backend = Backend(FewShotSegmenter(segmenter.engine), LabelStudio(address, key, hosts))
    return TestClient(label_studio_app(backend), raise_server_exceptions=False)


def test_what_annotators_brushed_finds_the_rest(studio, embedded):
    server, address = studio
    client = client_of(embedded, address)
    assert client.get("/health").json()["status"] == "UP"
    first = client.post("/setup", json=setup_of()).json()["model_version"]
    assert client.post("/predict", json=asked_for("/data/upload/7/coins.query.jpg")).json()["results"] == [[]]
    server.annotate(1, "/data/upload/7/coins.jpg", [brushed(TRUTH, "coin")])
    version = client.post("/setup", json=setup_of()).json()["model_version"]
    assert version != first and version == client.post("/setup", json=setup_of()).json()["model_version"]
    pictures = ("/data/local-files/?d=photos/coins.query.jpg", "/data/upload/7/grass.query.jpg", "/data/none.jpg")
    answer = client.post("/predict", json=asked_for(*pictures)).json()
    assert answer["model_version"] == version
    (coins, grass, none) = answer["results"]
    assert none == [] and grass["result"] == [] and 0.5 < grass["score"] <= 1
    (found,) = coins["result"]
    assert (found["from_name"], found["to_name"], found["type"]) == ("brush", "image", "brushlabels")
    plain = FewShotSegmenter(embedded.engine)
    plain.add_support(JOBS["coins"].support, JOBS["coins"].support_mask, "coin")
    result = plain.predict(JOBS["coins"].query)
    size = (found["original_height"], found["original_width"])
    assert np.array_equal(decode_brush(found["value"]["rle"], size), result.mask)
    assert found["value"]["brushlabels"] == ["coin"] and coins["score"] == pytest.approx(result.confidence)
    for params in ({"project": "7.1764200000"}, {}):
        assert client.get("/versions", params=params).json() == {"versions": [version]}
    # Whose supports change gets another version, so that Label Studio asks anew.
    server.annotate(2, "/data/upload/7/flag.jpg", [brushed(flag_mask(), "flag")], "2026-01-02")
    assert client.post("/setup", json=setup_of()).json()["model_version"] not in (first, version)


def test_new_annotations_have_their_version_before_they_are_learnt_from(studio, tiny_segmenter, monkeypatch):
    server, address = studio
    learning = Event()
    taught = Backend._taught
    monkeypatch.setattr(Backend, "_taught", lambda *args: learning.wait(60) and taught(*args))
    client = client_of(tiny_segmenter, address)
    server.annotate(1, "/data/upload/7/coins.jpg", [brushed(TRUTH, "coin")])
    version = client.post("/setup", json=setup_of()).json()["model_version"]
    assert version == client.post("/setup", json=setup_of()).json()["model_version"] != "iir-tiny-supports"
    learning.set()
    answer = client.post("/predict", json=asked_for("/data/upload/7/coins.query.jpg")).json()
    assert answer["model_version"] == version and answer["results"] != [[]]


def flag_mask() -> np.ndarray:
    return np.array(Image.open(JOBS["flag"].support_mask)) > 0


def test_polygons_in_and_out(studio, embedded):
    server, address = studio
    height, width = TRUTH.shape
    rows, columns = np.flatnonzero(TRUTH.any(1)), np.flatnonzero(TRUTH.any(0))
    x0, x1, y0, y1 = (
        100 * columns[0] / width,
        100 * columns[-1] / width,
        100 * rows[0] / height,
        100 * rows[-1] / height,
    )
    points = [[x0, (y0 + y1) / 2], [(x0 + x1) / 2, y0], [x1, (y0 + y1) / 2], [(x0 + x1) / 2, y1]]
    server.annotate(
        1,
        "/data/upload/coins.jpg",
        [region("polygonlabels", {"points": points, "polygonlabels": ["coin"]}, TRUTH.shape)],
    )
    client = client_of(embedded, address)
    client.post("/setup", json=setup_of(POLYGON))
    (answer,) = client.post("/predict", json=asked_for("/data/coins.query.jpg", config=POLYGON)).json()["results"]
    assert answer["result"]
    for found in answer["result"]:
        assert found["type"] == "polygonlabels" and found["value"]["closed"]
        assert all(0 <= edge <= 100 for point in found["value"]["points"] for edge in point)
    # Read back, they are the mask that was predicted.
    size = (answer["result"][0]["original_height"], answer["result"][0]["original_width"])
    mask = drawn_in(answer["result"], read_config(POLYGON), size).masks["coin"]
    assert 0.1 < mask.mean() < 0.9


def test_supports_may_come_from_a_file_alone(studio, tiny_segmenter):
    _, address = studio
    tiny_segmenter.add_support(JOBS["coins"].support, JOBS["coins"].support_mask, "coin")
    backend = Backend(tiny_segmenter, LabelStudio(address, "wrong"))
    client = TestClient(label_studio_app(backend))
    assert client.post("/setup", json=setup_of()).json() == {"model_version": "tiny-supports"}


def test_keys(studio, tiny_segmenter):
    server, address = studio
    refused = client_of(tiny_segmenter, address, "wrong").post("/setup", json=setup_of())
    assert refused.status_code >= 400 and "LABEL_STUDIO_API_KEY" in refused.json()["message"]
    personal = client_of(tiny_segmenter, address, "header.payload.signature")
    assert personal.post("/setup", json=setup_of()).status_code == 200
    server.refreshed += 1  # the access token is no longer valid
    assert personal.post("/setup", json=setup_of()).status_code == 200
    assert [a.partition(" ")[0] for a in server.authorizations] == ["Token", "Bearer", "Bearer", "Bearer"]


def test_nothing_is_fetched_from_elsewhere(studio, tiny_segmenter):
    server, address = studio
    server.annotate(1, "/data/coins.jpg", [brushed(TRUTH, "coin")])
    client = client_of(tiny_segmenter, address)
    client.post("/setup", json=setup_of())
    port = address.rpartition(":")[2]
    for url in (
        "http://169.254.169.254/latest/meta-data",
        f"http://localhost:{port}/data/coins.jpg",
        "file:///etc/passwd",
        "/elsewhere",
        "//example.org/x.png",
        "ftp://example.org/x.png",
    ):
        answer = client.post("/predict", json=asked_for(url))
        assert answer.status_code >= 400 and "--picture-host" in answer.json()["message"], url
    assert client.post("/predict", json=asked_for(f"{address}/data/coins.jpg")).status_code == 200
    # The cure works, and the key stays at home.
    with pytest.raises(LabelStudioError, match="cannot be fetched"):
        LabelStudio(address, KEY, ["127.0.0.1:1"]).picture("http://127.0.0.1:1/x.png")
    with pytest.raises(LabelStudioError, match="no address"):
        LabelStudio("localhost")


def test_annotations_that_cannot_be_used_cost_no_other(studio, tiny_segmenter):
    server, address = studio
    server.annotate(1, "/data/coins.jpg", [brushed(TRUTH, "coin")])
    server.annotate(2, "/data/none.jpg", [brushed(TRUTH, "coin")], "2026-01-02")
    server.annotate(3, "/data/coins.jpg", [brushed(TRUTH[:5], "coin")], "2026-01-03")
    server.annotate(4, "/data/coins.jpg", [{**brushed(TRUTH, "coin"), "value": {}}], "2026-01-04")
    server.tasks.append({"id": 5, "annotations": [{"id": 50, "result": [], "was_cancelled": False}]})
    client = client_of(tiny_segmenter, address)
    client.post("/setup", json=setup_of())
    (answer,) = client.post("/predict", json=asked_for("/data/coins.jpg")).json()["results"]
    assert "score" in answer


def test_rectangles_teach_and_interfaces_without_masks_are_refused():
    config = read_config(
        BRUSH.replace(
            "</View>", '<RectangleLabels name="r" toName="image"><Label value="coin"/></RectangleLabels></View>'
        )
    )
    value = {"x": 10, "y": 20, "width": 90.0001, "height": 40, "rotation": 0, "rectanglelabels": ["coin"]}
    drawn = drawn_in([region("rectanglelabels", value, (50, 200), "r")], config, (50, 200))
    assert drawn.boxes == {"coin": [(20, 10, 200, 30)]}
    for text in (
        "<View",
        "<View><Image name='i' value='$x'/></View>",
        "<!DOCTYPE x [<!ENTITY a 'b'>]><View>&a;</View>",
    ):
        with pytest.raises(RequestError, match="labelling interface"):
            read_config(text)


def test_what_is_said_without_an_answer_is_accepted(studio, tiny_segmenter):
    client = client_of(tiny_segmenter, studio[1])
    assert client.post("/webhook", json={"action": "ANNOTATION_CREATED", "project": {"id": 7}}).status_code == 200
    assert client.post("/train", json={}).status_code == 200
    assert client.post("/setup", json={"project": "7"}).status_code == 422


def box_region(mask: np.ndarray) -> dict[str, Any]:
    """A rectangle around a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = 100 * columns[0] / mask.shape[1], 100 * rows[0] / mask.shape[0]
    width, height = 100 * np.ptp(columns) / mask.shape[1], 100 * np.ptp(rows) / mask.shape[0]
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": ["coin"]}
    return region("rectanglelabels", value, mask.shape, "box")


BOXES = BRUSH.replace(
    "</View>", '<RectangleLabels name="box" toName="image"><Label value="coin"/></RectangleLabels></View>'
)


def test_every_box_of_a_label_counts(studio, tiny_segmenter):
    """A picture with two boxes of a label taught nothing."""
    server, address = studio
    halves = [TRUTH.copy(), TRUTH.copy()]
    halves[0][:, TRUTH.shape[1] // 2 :] = False
    halves[1][:, : TRUTH.shape[1] // 2] = False
    server.annotate(1, "/data/upload/coins.jpg", [box_region(half) for half in halves])
    backend = Backend(tiny_segmenter, LabelStudio(address, KEY))
    backend.setup("7.1", BOXES)
    backend._reading["7.1"].project.result()
    (support,) = backend._projects["7.1"].segmenter.supports
    assert all((support.mask & half).any() for half in halves)


def test_a_rare_label_does_not_fetch_every_picture(studio, tiny_segmenter):
    server, address = studio
    for i in range(40):
        server.annotate(i, f"/data/upload/{i}/coins.jpg", [brushed(TRUTH, "coin")], f"2026-02-{i + 10}")
    server.annotate(99, "/data/upload/99/flag.jpg", [brushed(flag_mask(), "flag")], "2026-01-01")
    for i in range(40, 80):
        server.annotate(i, f"/data/upload/{i}/gone.jpg", [brushed(flag_mask(), "flag")], f"2026-03-{i}")
    backend = Backend(tiny_segmenter, LabelStudio(address, KEY))
    backend.setup("7.1", BRUSH)
    backend._reading["7.1"].project.result()
    supports = backend._projects["7.1"].segmenter.supports
    assert len(supports.of_label("coin")) == PER_LABEL
    assert server.pictures <= 3 * PER_LABEL


def test_projects_that_are_forgotten_hold_no_supports(studio, tiny_segmenter):
    server, address = studio
    server.annotate(1, "/data/upload/coins.jpg", [brushed(TRUTH, "coin")])
    backend = Backend(tiny_segmenter, LabelStudio(address, KEY))
    for number in range(34):
        backend.setup(f"{number}.1", BRUSH)
        backend._reading[f"{number}.1"].project.result()
    assert len(backend._projects) == len(backend._reading) == 32 and "0.1" not in backend._reading
    assert backend.predict("0.1", BRUSH, asked_for("/data/coins.query.jpg")["tasks"])[0]["result"] is not None


def test_polygons_hold_the_centres_of_pixels():
    """Corners were rounded to whole pixels."""
    config, size = read_config(POLYGON), (40, 60)
    points = [[10.6, 12.1], [71.3, 33.9], [44.4, 88.2]]
    result = region("polygonlabels", {"points": points, "polygonlabels": ["coin"]}, size)
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    corners = np.array(points) * (size[1] / 100, size[0] / 100)
    sides = [
        (bx - ax) * (y - ay) - (by - ay) * (x - ax)
        for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, 0), strict=True)
    ]
    assert (drawn_in([result], config, size).masks["coin"] == (np.array(sides) > 0).all(0)).all()
