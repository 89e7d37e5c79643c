"""Checks before a request is accepted: rejects pages and names of other hosts, and bodies that are too large.

It also tells browsers what the page may load. Even if the server listens only on this machine, any page that its user
visits can send requests to it: to the server's own address (rejected by `Origin`), or to a name that the page's owner
points here (DNS rebinding, rejected by `Host`).
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class Guard:
    """ASGI middleware: the checks of host, origin and size, and the headers of every response."""

    def __init__(self, app: ASGIApp, body_bytes: int, of_path: Mapping[str, int], names: frozenset[str], remote: bool):
        """Set the limits.

        Args:
            body_bytes: limit of a request's body, except for the paths in `of_path`, which have their own limits.
            names: host names of the server, besides localhost.
            remote: whether other machines may use this machine's address. An address cannot be rebound.
        """
        self.names = LOCAL | {name.lower() for name in names}
        self.remote = remote
        self.app = app
        self.body_bytes = body_bytes
        self.of_path = of_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject with 400 (host), 403 (origin) or 413 (size), or pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.of_path.get(scope["path"].removeprefix(scope.get("root_path", "")), self.body_bytes)
        too_large = f"the body has more than {limit} bytes"
        received = 0

        async def receive_at_most() -> Message:
            """Enforce the limit, because a body may come without its length."""
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, too_large)
            return message

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], headers)
        length = headers.get("content-length", "0")
        if refusal is None and length.isdecimal() and int(length) > limit:
            refusal = JSONResponse({"error": too_large}, 413)
        await (refusal or self.app)(scope, receive_at_most, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(host):
            expected = ", ".join(sorted(self.names))
            return JSONResponse({"error": f"the host must be one of {expected}, not {host[:100]!r}"}, 400)
        # Programs send no Origin; browsers do, except with GET and HEAD.
        if method in ("GET", "HEAD") or origin in (None, f"http://{host}"):
            return None
        # A proxy in front of the page may terminate TLS, and may pass on another host.
        if _name_of(origin or "") in self.names - LOCAL:
            return None
        return JSONResponse({"error": f"pages of other origins may not send requests: {(origin or '')[:100]!r}"}, 403)

    def _is_ours(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname, parts.port  # raises ValueError for a port that is not a number
        except ValueError:
            return False
        plain = f"[{name}]" if name and ":" in name else name
        if name is None or host.lower() not in (plain, f"{plain}:{port}"):
            return False
        return name in self.names or (self.remote and _is_address(name))


def _name_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
