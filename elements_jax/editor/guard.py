"""What is refused before a request is taken in: other hosts' pages and names, and bodies that are too large.

It also tells browsers what the page may load. The server listens on this machine alone, but any page that its user
visits can send requests there: under the server's own address (refused by `Origin`), or under a name that the page's
owner lets point here (DNS rebinding, refused by `Host`).
"""

import re
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
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

    def __init__(self, app: ASGIApp, body_bytes: int, of_path: Mapping[str, int]):
        """`body_bytes` is the most of a request's body, but for those paths that have a limit of their own."""
        self.app = app
        self.body_bytes = body_bytes
        self.of_path = of_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse with 400 (host), 403 (origin) or 413 (size), or pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.of_path.get(scope["path"], self.body_bytes)
        too_large = f"the body has more than {limit} bytes"
        received = 0

        async def receive_at_most() -> Message:
            """A body may come without its length."""
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
        refusal = _refusal(scope["method"], headers)
        length = headers.get("content-length", "0")
        if refusal is None and length.isdecimal() and int(length) > limit:
            refusal = JSONResponse({"error": too_large}, 413)
        await (refusal or self.app)(scope, receive_at_most, send_with_headers)


def _refusal(method: str, headers: Headers) -> JSONResponse | None:
    host, origin = headers.get("host", ""), headers.get("origin")
    if not HOST.fullmatch(host):
        return JSONResponse({"error": f"the host must be localhost or its address, not {host[:100]!r}"}, 400)
    # Programs send no Origin; browsers do with all that is not GET or HEAD.
    if method not in ("GET", "HEAD") and origin not in (None, f"http://{host}"):
        return JSONResponse({"error": f"requests of pages of other origins are refused: {origin[:100]!r}"}, 403)
    return None
