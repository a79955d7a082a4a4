"""A small Hub on this machine: it speaks the protocol that the real client speaks, and fails when told to."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"


@dataclass
class Repo:
    """Commits with their files, and branches."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        before = self.commits.get(self.refs.get(branch, ""), {})
        after = before | files
        listing = "".join(f"{n}{hashlib.sha1(c).hexdigest()}" for n, c in sorted(after.items()))
        oid = hashlib.sha1(f"{len(self.commits)}{listing}".encode()).hexdigest()
        self.commits[oid] = after
        self.refs[branch] = oid
        return oid


@dataclass
class Fault:
    """What goes wrong, for requests whose ``METHOD path`` a pattern matches, so many times."""

    pattern: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    stall_after: int | None = None
    delay: float = 0
    body: Callable[[bytes], bytes] | None = None
    times: int = 10**9


class HubServer:
    """The server, its repositories, its faults and the requests it has seen."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.agents: set[str] = set()
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # Another host, as the real one's storage is: credentials must not follow.
        self.storage_url = f"http://localhost:{self._server.server_port}/storage"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        self.repos, self.blobs, self.faults, self.requests = {}, {}, [], []

    def repo(self, repo_id: str) -> Repo:
        return self.repos.setdefault(repo_id, Repo())

    def fail(self, pattern: str, **what: Any) -> None:
        self.faults.append(Fault(pattern, **what))

    def downloads(self) -> list[str]:
        """Requests for the bytes of weights."""
        return [r for r in self.requests if r.startswith("GET /storage")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: HubServer

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self.path = unquote(urlsplit(self.path).path)
        self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = f"{self.command} {self.path}"
        self.server_hub.requests.append(request)
        self.server_hub.agents.add(self.headers.get("User-Agent", ""))
        self.fault = next((f for f in self.server_hub.faults if f.times > 0 and re.search(f.pattern, request)), None)
        if self.fault:
            self.fault.times -= 1
            time.sleep(self.fault.delay)
            if self.fault.status:
                return self._answer(self.fault.status, b"{}", self.fault.headers)
        for pattern, method in _ROUTES:
            if match := re.fullmatch(pattern, request):
                return method(self, *match.groups())
        return self._answer(404, b"", {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault and self.fault.stall_after is not None:
            self.wfile.write(body[: self.fault.stall_after])
            self.wfile.flush()
            time.sleep(60)
        if self.fault and self.fault.cut_after is not None:
            self.wfile.write(body[: self.fault.cut_after])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(body)

    def _json(self, value: object, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str) -> None:
        self._answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _may(self, repo: Repo | None) -> bool:
        """Whether the caller may see the repository; answers if not."""
        authorised = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo is None or (repo.private and not authorised):
            self._error(404 if authorised else 401, "RepoNotFound")
            return False
        if repo.gated and not authorised:
            self._error(403, "GatedRepo")
            return False
        return True

    def _resolve(self, repo_id: str, revision: str, filename: str) -> None:
        repo = self.server_hub.repos.get(repo_id)
        if not self._may(repo):
            return
        assert repo is not None
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            return self._error(404, "RevisionNotFound")
        content = repo.commits[commit].get(filename)
        if content is None:
            return self._error(404, "EntryNotFound")
        headers = {"X-Repo-Commit": commit}
        if not filename.endswith(".safetensors"):
            return self._send_file(content, headers | {"ETag": f'"{_oid(filename, content)}"'})
        oid = _oid(filename, content)
        self.server_hub.blobs[oid] = content
        headers |= {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        return self._answer(302, b"", headers | {"Location": f"{self.server_hub.storage_url}/{oid}"})

    def _storage(self, oid: str) -> None:
        if self.headers.get("Authorization"):
            return self._answer(400, b"credentials were sent to the storage host", {})
        return self._send_file(self.server_hub.blobs[oid], {"ETag": f'"{oid}"'})

    def _send_file(self, content: bytes, headers: dict[str, str]) -> None:
        if self.fault and self.fault.body:
            content = self.fault.body(content)
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
            headers |= {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            return self._answer(206, content[start:], headers)
        return self._answer(200, content, headers)

    def _create(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._error(401, "")
        asked = json.loads(self.content)
        repo_id = f"{asked['organization']}/{asked['name']}"
        if repo_id in self.server_hub.repos:
            exists = {"error": "You already created this model repo", "url": f"{self.server_hub.url}/{repo_id}"}
            return self._json(exists, 409)
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.server_hub.repos[repo_id] = Repo(private=private)
        return self._json({"url": f"{self.server_hub.url}/{repo_id}"})

    def _preupload(self, repo_id: str, revision: str) -> None:
        if not self._may(self.server_hub.repos.get(repo_id)):
            return
        repo = self.server_hub.repos[repo_id]
        held = repo.commits.get(repo.refs.get(revision, ""), {})
        files = [
            {
                "oid": _oid(f["path"], held[f["path"]]) if f["path"] in held else None,
                "path": f["path"],
                "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for f in json.loads(self.content)["files"]
        ]
        self._json({"files": files})

    def _lfs_batch(self, repo_id: str) -> None:
        objects = []
        for wanted in json.loads(self.content)["objects"]:
            upload = {"href": f"{self.server_hub.storage_url}/{wanted['oid']}", "header": {}}
            held = wanted["oid"] in self.server_hub.blobs
            objects.append(wanted if held else {**wanted, "actions": {"upload": upload}})
        self._json({"transfer": "basic", "objects": objects})

    def _put(self, oid: str) -> None:
        if hashlib.sha256(self.content).hexdigest() != oid:
            return self._answer(400, b"", {})
        self.server_hub.blobs[oid] = self.content
        return self._answer(200, b"", {})

    def _commit(self, repo_id: str, revision: str) -> None:
        repo = self.server_hub.repos.get(repo_id)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._error(403, "")
        assert repo is not None
        files = {}
        for line in self.content.splitlines():
            record = json.loads(line)
            value = record["value"]
            if record["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif record["key"] == "lfsFile":
                files[value["path"]] = self.server_hub.blobs[value["oid"]]
        oid = repo.commit(files)
        return self._json({"commitUrl": f"{self.server_hub.url}/{repo_id}/commit/{oid}", "commitOid": oid})

    def _info(self, repo_id: str, revision: str) -> None:
        repo = self.server_hub.repos.get(repo_id)
        if self._may(repo):
            assert repo is not None
            self._json({"id": repo_id, "sha": repo.refs.get(revision, revision), "siblings": []})

    def _validate_yaml(self) -> None:
        front_matter = json.loads(self.content)["content"].split("---")[1]
        errors = [] if "license:" in front_matter else [{"message": "no license"}]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)


def _oid(filename: str, content: bytes) -> str:
    """What the Hub knows a file by: its sha256 in the large storage, else git's hash of a blob."""
    if filename.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\x00" % len(content) + content).hexdigest()


_ROUTES: tuple[tuple[str, Callable[..., None]], ...] = (
    (r"(?:HEAD|GET) /([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler._resolve),
    (r"(?:HEAD|GET) /storage/(\w+)", _Handler._storage),
    (r"POST /api/repos/create", _Handler._create),
    (r"POST /api/models/([^/]+/[^/]+)/preupload/([^/]+)", _Handler._preupload),
    (r"POST /([^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler._lfs_batch),
    (r"PUT /storage/(\w+)", _Handler._put),
    (r"POST /api/models/([^/]+/[^/]+)/commit/([^/]+)", _Handler._commit),
    (r"POST /api/validate-yaml", _Handler._validate_yaml),
    (r"GET /api/models/([^/]+/[^/]+)/revision/([^/]+)", _Handler._info),
)
