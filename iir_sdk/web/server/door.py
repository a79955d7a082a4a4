"""What every request passes before any route sees it: who asks, from where, and how much is sent.

A page of another site may send requests to a server on this machine, and by DNS that changes (rebinding) even read
the answers. So the ``Host`` is checked, what comes from other origins is refused, and where others than this machine's
users can connect, a token is asked for.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iir_sdk.errors import OutputError

COOKIE = "iir_token"
_READING = ("GET", "HEAD", "OPTIONS")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

MIB = 1 << 20


@dataclass(frozen=True)
class Door:
    """Who may enter, and with how much.

    Attributes:
        host: that the server is bound to.
        token: that each request must show; empty for none.
        limit: most bytes of a request's body.
        limits: the same of single paths, and of all below one that ends with a slash.
    """

    host: str = "127.0.0.1"
    token: str = field(default="", repr=False)
    limit: int = 48 * MIB
    limits: Mapping[str, int] = field(default_factory=lambda: {"/api/pictures": 1024 * MIB, "/v1/": 256 * MIB})

    @property
    def local(self) -> bool:
        """Whether only users of this machine can connect."""
        return is_loopback(self.host)

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason where a request may not enter."""
        headers = Headers(scope=scope)
        host = host_name(headers.get("host", ""))
        if self.local and host not in _LOOPBACK and host != self.host:
            return 421, f"this server answers on localhost alone, not as {host!r:.100}."
        if not _same_origin(scope, headers):
            return 403, "requests of other sites' pages are not answered."
        if self.token and not self._shows_token(headers):
            return 401, "open the address that the server printed, with its ?token=..., or send the token as Bearer."
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or len(length) > 18 or int(length) > self.limit_of(scope):
            return 413, f"more than the {self.limit_of(scope):,} bytes that one request may have here."
        return None

    def limit_of(self, scope: Scope) -> int:
        """Most bytes of the body."""
        path = str(scope["path"])
        fitting = (n for p, n in self.limits.items() if path == p or (p.endswith("/") and path.startswith(p)))
        return next(fitting, self.limit)

    def fits(self, token: str) -> bool:
        """Whether it is the token."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())

    def _shows_token(self, headers: Headers) -> bool:
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.fits(shown.strip())
        if kind.lower() == "basic":
            # Of clients that know no other kind: any name, and the token as password.
            try:
                _, _, password = base64.b64decode(shown, validate=True).decode().partition(":")
            except (binascii.Error, ValueError):
                return False
            return self.fits(password)
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and self.fits(cookie.value)


class Guarded:
    """An application behind a door, with headers that bind browsers."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            # Nothing here speaks over sockets; closed before it opens.
            await send({"type": "websocket.close", "code": 1008})
            return
        response = self._answered_here(scope)
        if response is not None:
            await response(scope, receive, _with_headers(send))
            return
        await self.app(scope, _bounded(receive, self.door.limit_of(scope)), _with_headers(send))

    def _answered_here(self, scope: Scope) -> Response | None:
        """A refusal, or the cookie for who comes with the token in the address."""
        tokens = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        if self.door.token and scope["path"] == "/" and scope["method"] == "GET" and any(map(self.door.fits, tokens)):
            redirect = RedirectResponse("/", 303)
            redirect.set_cookie(COOKIE, self.door.token, httponly=True, samesite="strict", path="/")
            return redirect
        refusal = self.door.refusal(scope)
        if refusal is None:
            return None
        return JSONResponse(_told(str(scope["path"]), refusal[1]), refusal[0])


def _told(path: str, reason: str) -> dict[str, str]:
    """A refusal, in the form that errors have under a path."""
    if path.startswith("/v1/"):
        return {"code": "RefusedError", "message": reason, "cure": "Send what the message asks for."}
    return {"error": reason}


def is_loopback(host: str) -> bool:
    """Whether a host to bind to is this machine's alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str:
    """The name in a ``Host`` header, without its port, in lower case."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.rpartition(":")[0].lower() if header.count(":") == 1 else header.lower()


def _same_origin(scope: Scope, headers: Headers) -> bool:
    site = headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none"):
        # A link on another page may lead here, and show no more than the start page.
        return scope["method"] == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
    origin = headers.get("origin")
    if scope["method"] in _READING or origin is None:
        return True
    # Behind a proxy the scheme that the browser sees may be another one.
    return origin in {f"{scheme}://{headers.get('host', '')}" for scheme in ("http", "https")}


def _bounded(receive: Receive, limit: int) -> Receive:
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise HTTPException(413, f"more than the {limit:,} bytes that one request may have here.")
        return message

    return counted


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sent


def shown_address(door: Door, port: int) -> str:
    """What a user opens in the browser."""
    anywhere: Any = door.host in ("0.0.0.0", "::", "")
    name = "localhost" if anywhere else f"[{door.host}]" if ":" in door.host else door.host
    return f"http://{name}:{port}/" + (f"?token={door.token}" if door.token else "")


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens; an OutputError where the port cannot be had. 0 is a free one."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        # Before the address is said: who opens it at once waits, and is not refused.
        listening.listen()
    except OSError as error:
        raise OutputError(
            f"cannot listen on {host}:{port} ({error}); choose another --port, or 0 for a free one."
        ) from error
    return listening
