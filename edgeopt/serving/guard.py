"""What every answer says to browsers, and whom none is given: pages of other sites."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


class Guard:
    """An ASGI application in front of another.

    `hosts` are the names by which the server may be addressed; any where it is empty. A page of another site that
    gives its own name the server's address (DNS rebinding) addresses it by that name.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(raw=message["headers"])
                for name, value in _HEADERS.items():
                    answered.setdefault(name, value)
            await send(message)

        app = self._app
        if self._hosts and _host(headers.get("host", "")) not in self._hosts:
            hint = "address it by one of: " + ", ".join(sorted(self._hosts))
            app = JSONResponse({"error": "this server has another name", "hint": hint}, 421, {"connection": "close"})
        elif headers.get("sec-fetch-site") == "cross-site" and scope["method"] == "POST":
            app = JSONResponse(
                {"error": "pages of other sites are not answered", "hint": None}, 403, {"connection": "close"}
            )
        await app(scope, receive, guarded)


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    return header.lower() if header.endswith("]") else header.lower().rpartition(":")[0] or header.lower()
