"""What is refused before a request is read: other hosts' pages and names. It also tells browsers what they may load.

The server listens on this machine alone, but any page that its user visits can send requests there: under the server's
own address (refused by `Origin`), or under a name that the page's owner lets point here (DNS rebinding, refused by
`Host`).
"""

import re

from starlette.datastructures import Headers, MutableHeaders
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
    """ASGI middleware: the checks of host and origin, and the headers of every response."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse with 400 (host) or 403 (origin), or pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        app = _refusal(scope["method"], Headers(scope=scope)) or self.app
        await app(scope, receive, send_with_headers)


def _refusal(method: str, headers: Headers) -> JSONResponse | None:
    host, origin = headers.get("host", ""), headers.get("origin")
    if not HOST.fullmatch(host):
        return JSONResponse({"error": f"the host must be localhost or its address, not {host[:100]!r}"}, 400)
    # Programs send no Origin; browsers do with all that is not GET or HEAD.
    if method not in ("GET", "HEAD") and origin not in (None, f"http://{host}"):
        return JSONResponse({"error": f"requests of pages of other origins are refused: {origin[:100]!r}"}, 403)
    return None
