"""A server of this machine for one page: the runtime, a file, what the file is fed and what it answers.

Its headers isolate the page from others, without which browsers give it neither threads nor a clock finer than 0.1 ms.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

_TYPES = {".js": "text/javascript", ".wasm": "application/wasm", ".html": "text/html; charset=utf-8"}
_PAGE = b'<!doctype html><meta charset="utf-8"><title>edgeopt</title><link rel="icon" href="data:,">'
_ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class LocalServer:
    """A server of `files`, by their addresses, from `start` to `close`.

    `/input` is what `given` holds, and what the page posts to `/output` is in `returned`.
    """

    def __init__(self, files: Mapping[str, Path | bytes]) -> None:
        self.files = dict(files)
        self.given = b""
        self.returned = b""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            def do_POST(self) -> None:
                server.returned = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        """Where its page is."""
        return f"http://127.0.0.1:{self._http.server_port}/"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answers a GET."""
        name = request.path.partition("?")[0]
        content = _PAGE if name == "/" else self.given if name == "/input" else self.files.get(name)
        if content is None:
            request.send_error(404)
            return
        body = content.read_bytes() if isinstance(content, Path) else content
        request.send_response(200)
        for header, value in _ISOLATED.items():
            request.send_header(header, value)
        suffix = ".html" if name == "/" else Path(name).suffix
        request.send_header("Content-Type", _TYPES.get(suffix, "application/octet-stream"))
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Cache-Control", "no-store")
        request.end_headers()
        with suppress(ConnectionError):
            request.wfile.write(body)

    def close(self) -> None:
        """Ends the server."""
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
