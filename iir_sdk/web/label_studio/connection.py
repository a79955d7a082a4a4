"""Asks Label Studio for annotations and pictures: of its own address and of hosts that were named, and no other."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import SplitResult, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from iir_sdk.errors import LabelStudioError

_SECONDS = 20.0


class LabelStudio:
    """A Label Studio server.

    Args:
        url: its address.
        key: of an account: a personal access token, or a legacy token; empty for the one that ``/setup`` brings.
        hosts: further hosts that pictures may be fetched from, as ``images.example.org`` or ``localhost:9000``.
        most: bytes of an answer.
    """

    def __init__(self, url: str, key: str = "", hosts: Collection[str] = (), most: int = 256 << 20) -> None:
        self._base = urlsplit(url.rstrip("/") + "/")
        if self._base.scheme not in ("http", "https") or not self._base.hostname:
            raise LabelStudioError(f"{url!r} is no address of Label Studio; name it as http://localhost:8080.")
        self._key, self._hosts, self._most = key, frozenset(host.lower() for host in hosts), most
        self._brought = ""
        self._opener = build_opener(_Redirects(self))
        self._access = ""
        self._renewing = threading.Lock()

    def bring(self, key: str) -> None:
        """Use the token of a ``/setup``, where none was given at the start."""
        self._brought = key

    def export(self, project: str) -> list[dict[str, Any]]:
        """A project's annotated tasks, with their annotations."""
        path = f"api/projects/{int(project)}/export?exportType=JSON"
        content = self.fetch(urljoin(self._base.geturl(), path))
        try:
            answer = json.loads(content)
        except ValueError as error:
            raise LabelStudioError(f"{path} gave no JSON ({error}): is --label-studio its address?") from error
        if not isinstance(answer, list):
            raise LabelStudioError(f"{path} gave no list of tasks.")
        return answer

    def picture(self, source: object) -> bytes:
        """A picture that a task names: an address, or a path of Label Studio, as ``/data/upload/...``."""
        if not isinstance(source, str) or not source:
            raise LabelStudioError(f"a task's picture {str(source)[:80]!r} is no address.")
        return self.fetch(urljoin(self._base.geturl(), source))

    def fetch(self, url: str) -> bytes:
        """What lies at an address.

        Raises:
            LabelStudioError: it may not be asked, does not answer, or refuses.
        """
        try:
            return self._got(url)
        except LabelStudioError:
            raise
        except HTTPError as error:
            if error.code != 401 or not self._access:
                raise _refused(url, error) from error
        except (OSError, HTTPException, ValueError, KeyError) as error:
            raise _refused(url, error) from error
        # An access token lives for minutes: once more, by a new one.
        self._access = ""
        try:
            return self._got(url)
        except (OSError, HTTPException, ValueError, KeyError) as error:
            raise _refused(url, error) from error

    def _got(self, url: str) -> bytes:
        self.check(url)
        request = Request(url, headers=self._headers(urlsplit(url)))
        with self._opener.open(request, timeout=_SECONDS) as answer:
            content: bytes = answer.read(self._most + 1)
        if len(content) > self._most:
            raise LabelStudioError(f"{_shown(url)} is of more than {self._most:,} bytes.")
        return content

    def check(self, url: str) -> None:
        """Refuse, by a LabelStudioError, an address that is not Label Studio's, nor of the named hosts."""
        parts = urlsplit(url)
        if self.at_home(parts):
            return
        known = {(parts.hostname or "").lower(), parts.netloc.rpartition("@")[2].lower()} & self._hosts
        if parts.scheme not in ("http", "https") or not known:
            raise LabelStudioError(
                f"{_shown(url)} is not of Label Studio ({self._base.netloc}): to fetch pictures from there, start with "
                f"--picture-host {parts.netloc.rpartition('@')[2] or 'HOST'}."
            )

    def at_home(self, parts: SplitResult) -> bool:
        """Whether an address is Label Studio's own."""
        return (parts.scheme, parts.netloc.lower()) == (self._base.scheme, self._base.netloc.lower())

    def _headers(self, parts: SplitResult) -> dict[str, str]:
        """The key, for Label Studio alone."""
        key = self._key or self._brought
        if not key or not self.at_home(parts):
            return {}
        if key.count(".") != 2:
            return {"Authorization": f"Token {key}"}
        with self._renewing:
            if not self._access:
                self._access = self._renewed(key)
            return {"Authorization": f"Bearer {self._access}"}

    def _renewed(self, key: str) -> str:
        """An access token, for a personal access token."""
        body = json.dumps({"refresh": key}).encode()
        url = urljoin(self._base.geturl(), "api/token/refresh")
        request = Request(url, data=body, headers={"Content-Type": "application/json"})
        with self._opener.open(request, timeout=_SECONDS) as answer:
            return str(json.loads(answer.read(1 << 20))["access"])


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to what may be asked, as to a bucket of a named host; the key stays at home."""

    def __init__(self, studio: LabelStudio) -> None:
        self.studio = studio

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        self.studio.check(newurl)
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and not self.studio.at_home(urlsplit(newurl)):
            request.remove_header("Authorization")
        return request


def _refused(url: str, error: Exception) -> LabelStudioError:
    status = getattr(error, "code", None)
    cure = ""
    if status in (401, 403):
        cure = (
            " Start the server with LABEL_STUDIO_API_KEY set to a token of an account that may read the project: "
            "in Label Studio, Account & Settings, Personal Access Token."
        )
    return LabelStudioError(f"{_shown(url)} cannot be fetched: {error}.{cure}")


def _shown(url: str) -> str:
    """An address without what it may say in confidence."""
    parts = urlsplit(url)
    return repr(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:200])
