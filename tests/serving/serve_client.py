"""A server as a user starts it, and what asks it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from served_runs import PLUGIN


@dataclass(frozen=True)
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    address: str
    log: Path

    @property
    def port(self) -> int:
        port = urlsplit(self.address).port
        assert port
        return port

    def ask(self, path: str, body: Any = None, method: str = "", headers: Any = None) -> Answered:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
            response = connection.getresponse()
            return Answered(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def predict(self, file: str, image: Any, **query: str) -> Answered:
        return self.ask(f"/v1/predict?{urlencode({'file': file, **query})}", image)

    def state(self, file: str) -> dict[str, Any]:
        return next(each for each in self.ask("/v1/files").json if each["name"] == file)

    def children(self) -> list[int]:
        """The processes of the files."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in pids.split()]

    def said(self) -> str:
        return self.log.read_text()


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.02)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "edgeopt", "serve", *map(str, arguments), "--plugin", str(PLUGIN)]


@contextmanager
def serving(*arguments: object, log: Path, opened: bool = True) -> Iterator[Server]:
    """`edgeopt serve ARGUMENTS` on any free port."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            command(*arguments, "--port", 0),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"COLUMNS": "300", "OMP_NUM_THREADS": "1"},
        )
    assert process.stdout
    try:
        line = process.stdout.readline()
        assert line, log.read_text()
        server = Server(process, next(word for word in line.replace(",", "").split() if word.startswith("http")), log)
        if opened:
            wait_for(lambda: all(each["state"] != "opening" for each in server.ask("/v1/files").json))
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
