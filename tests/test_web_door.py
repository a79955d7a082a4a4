"""The door of the page's server: who may enter, from where, and with how much."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from iir_sdk.web.server.door import COOKIE, Door, Guarded, is_loopback, shown_address

HERE = "http://127.0.0.1:8765"
TOKEN = "a-token-of-a-test"


def client(door: Door, base: str = HERE) -> TestClient:
    async def answer(request: Request) -> JSONResponse:
        return JSONResponse({"bytes": len(await request.body())})

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST", "DELETE"])])
    return TestClient(Guarded(app, door), base_url=base, follow_redirects=False)


LOCAL = client(Door())
ELSEWHERE = client(Door("0.0.0.0", TOKEN), "http://10.1.2.3:8765")


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST", "[::1]:8765", "127.0.0.1"])
def test_this_machines_names_are_answered(host):
    answer = LOCAL.get("/api/project", headers={"Host": host})
    assert answer.status_code == 200
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"


@given(st.text(string.ascii_lowercase + string.digits + ".-", min_size=1, max_size=30), st.integers(1, 65535))
@settings(max_examples=60, deadline=None)
def test_no_other_name_is_answered_whatever_it_leads_to(name, port):
    if name in ("localhost", "127.0.0.1"):
        return
    for host in (f"{name}:{port}", name, f"localhost.{name}", f"127.0.0.1.{name}:{port}", f"{name}@127.0.0.1.x"):
        assert LOCAL.get("/api/project", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_other_sites_pages_are_refused(site, method):
    assert LOCAL.request(method, "/api/labels", headers={"Sec-Fetch-Site": site}).status_code == 403
    image = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
    assert LOCAL.request(method, "/", headers=image).status_code == 403
    link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
    assert LOCAL.request(method, "/", headers=link).status_code == (200 if method == "GET" else 403)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40))
@settings(max_examples=60, deadline=None)
def test_changes_are_taken_from_this_origin_alone(origin):
    if origin == HERE:
        return
    for shown in (origin, f"http://{origin}", HERE + origin + "x", "null", "http://127.0.0.1:8766", "http://localhost"):
        assert LOCAL.post("/api/undo", headers={"Origin": shown}).status_code == 403
    assert LOCAL.post("/api/undo", headers={"Origin": HERE}).status_code == 200
    # No browser, as curl.
    assert LOCAL.post("/api/undo").status_code == 200


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
@settings(max_examples=60, deadline=None)
def test_elsewhere_a_token_is_asked_for_and_no_other_serves(wrong):
    if wrong.strip() == TOKEN:
        return
    basic = base64.b64encode(f"user:{wrong}".encode()).decode()
    for headers in (
        {},
        {"Authorization": f"Bearer {wrong}"},
        {"Authorization": f"Basic {basic}"},
        {"Authorization": f"Basic {wrong}"},
        {"Cookie": f"{COOKIE}={wrong}"},
        {"Cookie": wrong},
    ):
        for path in ("/", "/api/project", "/v1/health"):
            assert ELSEWHERE.get(path, headers=headers).status_code == 401
    assert ELSEWHERE.get("/", params={"token": wrong}).status_code == 401


def test_the_token_of_the_printed_address_becomes_a_cookie():
    door = Door("0.0.0.0", TOKEN)
    assert shown_address(door, 8765) == f"http://localhost:8765/?token={TOKEN}"
    answer = ELSEWHERE.get("/", params={"token": TOKEN})
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert ELSEWHERE.get("/api/project").status_code == 200
    ELSEWHERE.cookies.clear()
    for kind, shown in (("Bearer", TOKEN), ("Basic", base64.b64encode(f"x:{TOKEN}".encode()).decode())):
        assert ELSEWHERE.get("/v1/health", headers={"Authorization": f"{kind} {shown}"}).status_code == 200
    assert ELSEWHERE.get("/api/project", params={"token": TOKEN}).status_code == 401
    assert not Door("0.0.0.0", TOKEN).local and TOKEN not in repr(door)


def test_bodies_are_bounded_whether_they_say_their_length_or_not():
    small = client(Door(limit=1000, limits={"/api/pictures": 3000}))
    assert small.post("/api/labels", content=b"x" * 1000).json() == {"bytes": 1000}
    assert small.post("/api/pictures", content=b"x" * 3000).json() == {"bytes": 3000}
    for path, size in (("/api/labels", 1001), ("/api/pictures", 3001), ("/api/pictures/x/strokes", 1001)):
        assert small.post(path, content=b"x" * size).status_code == 413
        assert small.post(path, content=iter([b"x" * 500] * (size // 500 + 1))).status_code == 413
    for length in ("-1", "1e3", "9" * 40, "x"):
        assert small.post("/api/labels", content=b"", headers={"Content-Length": length}).status_code == 413


def test_loopback_is_what_the_machine_keeps_to_itself():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "192.168.1.2", "example.org", "")))
