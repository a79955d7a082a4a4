"""The HTTP API as a client sees it: what comes back is what Python gives, and errors say what to do."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx2
import jsonschema
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from iir_sdk import FewShotSegmenter
from iir_sdk.demo.job import read_jobs
from iir_sdk.formats.rle import decode
from iir_sdk.results.painting import COLOURS
from iir_sdk.web.api.app import api_app
from iir_sdk.web.api.limits import Limits
from iir_sdk.web.api.support_sets import SupportSets
from tests.served import served

JOBS = {job.name: job for job in read_jobs()}
COINS, FLAG = JOBS["coins"], JOBS["flag"]


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def support(job=COINS, **fields) -> dict[str, object]:
    return {"image": text(job.support.read_bytes()), "mask": text(job.support_mask.read_bytes()), **fields}


def client_of(segmenter: FewShotSegmenter, **limits: float) -> TestClient:
    return TestClient(api_app(SupportSets(segmenter), Limits(**limits)), raise_server_exceptions=False)


@pytest.fixture
def client(tiny_segmenter: FewShotSegmenter) -> TestClient:
    return client_of(tiny_segmenter)


@pytest.fixture(scope="module")
def exact(embedded: FewShotSegmenter) -> Iterator[TestClient]:
    client = client_of(embedded)
    both = [support(label="coin"), support(FLAG, label="flag")]
    assert client.post("/supports", json={"name": "both", "supports": both}).status_code == 201
    yield client


@pytest.fixture(scope="module")
def plain(embedded: FewShotSegmenter) -> FewShotSegmenter:
    segmenter = FewShotSegmenter(embedded.engine)
    segmenter.add_support(COINS.support, COINS.support_mask, "coin")
    segmenter.add_support(FLAG.support, FLAG.support_mask, "flag")
    return segmenter


def test_answers_are_what_python_gives(exact, plain):
    result = plain.predict(COINS.query, threshold=0.4)
    form = exact.post(
        "/predict",
        data={"set": "both", "threshold": "0.4", "masks": "png", "labels": "flag,coin"},
        files={"image": COINS.query.read_bytes()},
    ).json()
    asked = {"image": text(COINS.query.read_bytes()), "set": "both", "threshold": 0.4}
    plainly = exact.post("/predict", json=asked).json()
    assert (plainly["height"], plainly["width"]) == result.image.shape[:2]
    assert [each["label"] for each in form["labels"]] == ["flag", "coin"]
    for one, other in zip(plainly["labels"], form["labels"][::-1], strict=True):
        expected = result[one["label"]]
        assert np.array_equal(decode(one["rle"], result.image.shape[:2]), expected.mask)
        png = Image.open(io.BytesIO(base64.b64decode(other["png"])))
        assert np.array_equal(np.asarray(png) > 0, expected.mask)
        assert (one["png"], other["rle"]) == (None, None)
        assert one["score"] == pytest.approx(expected.score) and one["confidence"] == pytest.approx(expected.confidence)
        assert one["area"] == expected.mask.sum()
        assert one["box"] == (list(map(int, expected.boxes()[0])) if one["area"] else None)


def test_a_label_map_for_who_accepts_png(exact, plain):
    result = plain.predict(FLAG.query)
    for labels in (("coin", "flag"), ("flag",)):
        data = {"set": "both", "labels": ",".join(labels)}
        asked = {"data": data, "files": {"image": FLAG.query.read_bytes()}}
        answer = exact.post("/predict", headers={"Accept": "image/png"}, **asked)
        assert answer.headers["content-type"] == "image/png"
        assert json.loads(answer.headers["IIR-Labels"]) == list(labels)
        image = Image.open(io.BytesIO(answer.content))
        expected = result.label_map if len(labels) == 2 else result["flag"].mask
        assert np.array_equal(np.asarray(image), expected)
        assert tuple(image.getpalette()[3:6]) == COLOURS[0]
    for accept in ("*/*", "application/json, image/png", "text/html"):
        assert exact.post("/predict", headers={"Accept": accept}, **asked).json()["labels"]


def test_supports_may_come_with_the_picture(exact, plain):
    result = plain.predict(COINS.query, labels=["coin"])
    image = COINS.query.read_bytes()
    files = {
        "image": image,
        "support_image": COINS.support.read_bytes(),
        "support_mask": COINS.support_mask.read_bytes(),
    }
    form = exact.post("/predict", files=files, data={"support_label": "coin", "absent_below": "0.5"}).json()
    asked = exact.post("/predict", json={"image": text(image), "supports": [support(label="coin")]}).json()
    for answer in (form, asked):
        (label,) = answer["labels"]
        assert label["label"] == "coin"
        assert np.array_equal(decode(label["rle"], result.image.shape[:2]), result.mask)
    assert [each["id"] for each in exact.get("/supports").json()["sets"]] == ["both"]


def test_many_at_once_get_what_each_would_alone(embedded):
    """Eight clients, each with a set of its own that it makes, asks and deletes."""
    jobs = [JOBS["coins"], JOBS["flag"], JOBS["eye"]]
    expected = {}
    for job in jobs:
        segmenter = FewShotSegmenter(embedded.engine)
        segmenter.add_support(job.support, job.support_mask)
        for query in jobs:
            expected[job.name, query.name] = segmenter.predict(query.query).mask

    def ask(i: int) -> None:
        job, name = jobs[i % len(jobs)], f"set{i}"
        assert client.post("/supports", json={"name": name, "supports": [support(job)]}).status_code == 201
        for query in (jobs[(i + 1) % len(jobs)], job):
            files = {"image": query.query.read_bytes()}
            (label,) = client.post("/predict", data={"set": name}, files=files).json()["labels"]
            truth = expected[job.name, query.name]
            assert np.array_equal(decode(label["rle"], truth.shape), truth)
        assert client.delete(f"/supports/{name}").status_code == 204

    with served(api_app(SupportSets(embedded))) as address, httpx2.Client(base_url=address, timeout=120) as client:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(8)))
        assert client.get("/health").json()["sets"] == 0


def test_a_prediction_does_not_keep_others_waiting(tiny_segmenter, monkeypatch):
    begun, go_on = Event(), Event()

    def slow(*given, **options):
        begun.set()
        assert go_on.wait(60)
        raise AssertionError("never answered in time")

    monkeypatch.setattr(FewShotSegmenter, "predict", slow)
    limits = Limits(seconds=1.5, threads=1, waiting=0)
    with served(api_app(SupportSets(tiny_segmenter), limits)) as address, ThreadPoolExecutor(1) as pool:
        asked = {"image": text(COINS.query.read_bytes()), "supports": [support()]}
        late = pool.submit(httpx2.post, f"{address}/predict", json=asked, timeout=60)
        assert begun.wait(60)
        assert httpx2.get(f"{address}/health").json()["status"] == "ready"
        busy = httpx2.post(f"{address}/predict", json=asked)
        assert (busy.status_code, busy.json()["code"]) == (503, "BusyError")
        assert int(busy.headers["Retry-After"]) > 0
        assert late.result().status_code == 503 and "1.5 seconds" in late.result().json()["message"]
        go_on.set()


def test_sets_over_http(client):
    files = {"image": COINS.support.read_bytes(), "mask": COINS.support_mask.read_bytes()}
    made = client.post("/supports", files=files, data={"label": "coin"})
    assert made.status_code == 201
    id = made.json()["id"]
    other = {"image": JOBS["grass"].query.read_bytes()}
    more = client.post(f"/supports/{id}", files=other, data={"label": "coin", "counterexample": "true"}).json()
    assert more["labels"] == [{"label": "coin", "supports": 1, "counterexamples": 1}]
    boxed = {"image": text(files["image"]), "box": [10, 10, 60, 60], "label": "münze"}
    more = client.post(f"/supports/{id}", json={"supports": [boxed]}).json()
    assert [each["label"] for each in more["labels"]] == ["coin", "münze"]
    assert client.get(f"/supports/{id}").json() == {**more, "warnings": []}
    assert client.get("/supports").json()["sets"] == [{**more, "warnings": []}]
    content = client.get(f"/supports/{id}/file").content
    assert content[8:9] == b"{" and b"iir_sdk.supports" in content[:4000]
    assert client.delete(f"/supports/{id}").status_code == 204
    assert client.get(f"/supports/{id}").status_code == 404


def test_what_is_doubtful_is_said(client):
    picture = np.asarray(Image.open(COINS.support).convert("RGB"))
    small = np.zeros(picture.shape[:2], np.uint8)
    small[10:14, 10:14] = 1
    content = io.BytesIO()
    Image.fromarray(small).save(content, "PNG")
    files = {"image": COINS.support.read_bytes(), "mask": content.getvalue()}
    for _ in range(2):  # each time, not once for each line of code
        (warning,) = client.post("/supports", files=files).json()["warnings"]
        assert "16 pixels" in warning


def test_errors_say_what_and_what_to_do_and_the_cures_work(client):
    image = {"image": COINS.query.read_bytes()}
    asked = client.post("/predict", files=image, data={"set": "coins"})
    assert (asked.status_code, asked.json()["code"]) == (404, "SupportSetNotFoundError")
    assert "POST /v1/supports" in asked.json()["cure"]
    other = {"image": JOBS["grass"].query.read_bytes()}
    client.post("/supports", files=other, data={"label": "coin", "counterexample": "1", "name": "coins"})
    asked = client.post("/predict", files=image, data={"set": "coins"})
    assert (asked.status_code, asked.json()["code"]) == (409, "NoSupportError")
    assert "POST /v1/supports/{id}" in asked.json()["cure"]
    wrong = {"image": COINS.support.read_bytes(), "mask": FLAG.support_mask.read_bytes()}
    added = client.post("/supports/coins", files=wrong, data={"label": "coin"})
    assert (added.status_code, added.json()["code"]) == (422, "MaskError")
    right = {"image": COINS.support.read_bytes(), "mask": COINS.support_mask.read_bytes()}
    assert client.post("/supports/coins", files=right, data={"label": "coin"}).status_code == 200
    assert client.post("/predict", files=image, data={"set": "coins"}).status_code == 200
    asked = client.post("/predict", files=image, data={"set": "coins", "labels": "flag"})
    assert (asked.status_code, asked.json()["code"]) == (422, "LabelError")
    made = client.post("/supports", files=right, data={"name": "coins"})
    assert (made.status_code, made.json()["code"]) == (409, "SupportSetError")


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({"set": "coins", "threshold": 2}, "threshold: Input should be less than or equal to 1"),
        ({"set": "coins", "treshold": 0.5}, "Extra inputs are not permitted"),
        ({"set": "coins", "image": "***"}, "image: '***' is not base64"),
        ({"set": "../coins"}, "set: String should match pattern"),
        ({"set": "coins", "tile": "large"}, "tile: "),
        ({}, "either set"),
        ({"set": "coins", "supports": [support()]}, "either set"),
        ({"supports": [{"image": text(b"x"), "box": [1, 2, 3]}]}, "supports.0.box"),
        ({"supports": [{"image": "/etc/passwd", "mask": "/etc/passwd"}]}, ""),
    ],
)
def test_fields_that_cannot_be(client, sent, words):
    answer = client.post("/predict", json={"image": text(COINS.query.read_bytes()), **sent})
    assert answer.status_code == 422 and words in answer.json()["message"]
    assert len(answer.text) < 1000


def test_requests_that_cannot_be(client):
    assert client.post("/predict", content=b"{", headers={"content-type": "application/json"}).status_code == 422
    assert "content-type" in client.post("/predict", content=b"x").json()["message"]
    form = client.post("/predict", data={"set": "x", "support_label": "coin"}, files={"image": b"x"})
    assert "support_label needs support_image" in form.json()["message"]
    for method, path, status in (("GET", "/none", 404), ("PUT", "/health", 405), ("GET", "/supports/..%2f..%2fx", 404)):
        answer = client.request(method, path)
        assert answer.status_code == status and set(answer.json()) == {"code", "message", "cure"}


def test_bounds(tiny_segmenter):
    client = client_of(tiny_segmenter, body_bytes=200_000, pixels=50_000, examples=2)
    shown = client.get("/health").json()["limits"]
    assert (shown["body_bytes"], shown["pixels"], shown["examples"]) == (200_000, 50_000, 2)
    large = io.BytesIO()
    Image.new("RGB", (300, 200)).save(large, "PNG")
    sent = [
        {"files": {"image": b"0" * 300_000}},
        {"content": iter([b"0" * 150_000] * 2), "headers": {"content-type": "application/json"}},
        {"json": {"supports": [support(), support(), support()]}},
        {"files": {"image": large.getvalue(), "mask": large.getvalue()}},
        {"files": {"image": COINS.support.read_bytes(), "mask": large.getvalue()}},
    ]
    words = ["200,000 bytes", "200,000 bytes", "at most 2", "image has 300 x 200 = 60,000", "mask has 300"]
    for each, expected in zip(sent, words, strict=True):
        answer = client.post("/supports", **each)
        assert (answer.status_code, answer.json()["code"]) == (413, "RequestTooLargeError")
        assert expected in answer.json()["message"]


def test_nothing_of_the_inside_is_told(client, monkeypatch):
    monkeypatch.setattr(SupportSets, "get", lambda self, name: 1 / 0)
    answer = client.get("/supports/coins")
    assert answer.status_code == 500 and "division" not in answer.text and "log" in answer.json()["cure"]


def test_the_document_says_what_is_answered(exact):
    document = exact.get("/openapi.json").json()
    assert set(document["paths"]) == {"/health", "/supports", "/supports/{id}", "/supports/{id}/file", "/predict"}

    def validate(answer: httpx2.Response, path: str, method: str) -> None:
        told = document["paths"][path][method]["responses"][str(answer.status_code)]
        schema = {**told["content"]["application/json"]["schema"], "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(answer.json())

    image = {"image": COINS.query.read_bytes()}
    validate(exact.get("/health"), "/health", "get")
    validate(exact.get("/supports"), "/supports", "get")
    validate(exact.get("/supports/both"), "/supports/{id}", "get")
    validate(exact.get("/supports/none"), "/supports/{id}", "get")
    for masks in ("rle", "png", "none"):
        validate(exact.post("/predict", files=image, data={"set": "both", "masks": masks}), "/predict", "post")
    validate(exact.post("/predict", files=image), "/predict", "post")
    files = {"image": COINS.support.read_bytes(), "mask": COINS.support_mask.read_bytes()}
    validate(made := exact.post("/supports", files=files), "/supports", "post")
    validate(exact.post(f"/supports/{made.json()['id']}", files=files), "/supports/{id}", "post")
    validate(exact.delete("/supports/none"), "/supports/{id}", "delete")
    exact.delete(f"/supports/{made.json()['id']}")
    # What may be sent, in both forms, is there as well, each field with its meaning.
    for path, method in (("/supports", "post"), ("/supports/{id}", "post"), ("/predict", "post")):
        for kind in document["paths"][path][method]["requestBody"]["content"].values():
            schema = document["components"]["schemas"][kind["schema"]["$ref"].rpartition("/")[2]]
            assert all(field["description"] for field in schema["properties"].values())
    asked = {"$ref": "#/components/schemas/PredictRequest", "components": document["components"]}
    sent = {"image": text(b"x"), "supports": [support(box=[1, 2, 3, 4])], "tile": "auto", "labels": ["coin"]}
    jsonschema.Draft202012Validator(asked).validate(sent)
    assert document["components"]["schemas"]["PredictForm"]["properties"]["image"]["format"] == "binary"
