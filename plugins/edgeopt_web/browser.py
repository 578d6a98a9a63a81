"""Chromium without a window, driven through a pipe by its DevTools protocol: https://chromedevtools.github.io/devtools-protocol/

A pipe needs no port and no library, and Chromium ends by itself when this process does. Light: the standard library.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from tempfile import TemporaryFile, gettempdir, mkdtemp
from typing import IO, Any, Self

from edgeopt.plugins import ExportError, Problem

BROWSER = "EDGEOPT_BROWSER"
"""Names the browser in the environment, a Chromium or Chrome, where it is not found by one of its usual names."""

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
_FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--js-flags=--no-memory-reducer",
)
# Chromium reads what it is asked from descriptor 3 and answers on 4; a shell gives it ours, 0 and 1, under these names.
# It also removes the profile when the browser has ended, which it does when this process dies in whatever way.
_WITH_PIPE = 'profile=$1; shift; "$@" 3<&0 4>&1 0</dev/null 1>&2; code=$?; rm -rf "$profile"; exit $code'
_LONGEST_FOLDER = 36  # Chromium aborts where the path of its socket below the profile has more than 108 characters
_PATIENCE_S = 10
_PIECE_BYTES = 1 << 16
_LAST_BYTES = 2_000  # of what Chromium said, for an error


class BrowserError(Exception):
    """The browser ended, or a page of it did, or what was asked of the page failed there."""


def _folder_of_profiles() -> str | None:
    """Where profiles stand; None is the usual folder for temporary files, which must not be deep."""
    return "/tmp" if len(gettempdir()) > _LONGEST_FOLDER else None  # noqa: S108 - mkdtemp's folders are private


def find_browser() -> str | None:
    """The browser that `BROWSER` names, or the first of the usual names that is there, or None."""
    named = os.environ.get(BROWSER)
    return shutil.which(named) if named else next(filter(None, map(shutil.which, _NAMES)), None)


def require_browser() -> str:
    """What `find_browser` finds. Raises `ExportError` where there is none."""
    executable = find_browser()
    if executable is None:
        raise ExportError(no_browser())
    return executable


def no_browser() -> Problem:
    """The problem of a machine without a browser."""
    named = os.environ.get(BROWSER)
    return Problem(
        f"{BROWSER} names {named!r}, which is no program" if named else "there is no Chromium or Chrome here",
        f"install one (`apt-get install chromium`), or let {BROWSER} name one",
    )


class Browser:
    """A headless browser with one page, from `start` to `close`."""

    def __init__(self, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        self._process, self._said = process, said
        self._number = 0
        self._unread = bytearray()
        self._session: str | None = None

    @staticmethod
    def start(executable: str) -> Browser:
        """Starts `executable`. Raises `BrowserError` when it cannot be started."""
        profile = mkdtemp(prefix="edgeopt-browser-", dir=_folder_of_profiles())
        said = TemporaryFile()  # noqa: SIM115 - closed with the browser
        # Chromium's own sandbox refuses to work for root, who is the only user of many containers
        root = ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
        flags = (*_FLAGS, *root, f"--user-data-dir={profile}", "about:blank")
        process = subprocess.Popen(
            ["/bin/sh", "-c", _WITH_PIPE, "sh", profile, executable, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=os.environ | {"TMPDIR": profile},  # where it makes a socket, which goes with the profile
            start_new_session=True,  # Ctrl-C is for us: the browser ends with the pipe
        )
        browser = Browser(process, said)
        try:
            targets = browser._ask("Target.getTargets")["targetInfos"]
            page = next(each["targetId"] for each in targets if each["type"] == "page")
            attached = browser._ask("Target.attachToTarget", targetId=page, flatten=True)
        except BaseException:
            browser.close()
            raise
        browser._session = attached["sessionId"]
        return browser

    def go(self, address: str) -> None:
        """Opens an address in the page; what is asked next waits until it is there."""
        self._ask("Page.enable")
        moved = self._ask("Page.navigate", url=address)
        if "errorText" in moved:
            raise BrowserError(f"{address} does not open: {moved['errorText']}")
        while self._message().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, awaited where it is a promise.

        Raises `BrowserError` with what the page throws, or when it ends.
        """
        answered = self._ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if thrown := answered.get("exceptionDetails"):
            raised = thrown.get("exception", {})
            text = raised.get("description") or raised.get("value") or thrown.get("text", "")
            raise BrowserError(str(text).split("\n    at ")[0])
        return answered["result"].get("value")

    def version(self) -> str:
        """The browser's name and version."""
        return str(self._ask("Browser.getVersion", of_page=False)["product"])

    def page_processes(self) -> tuple[int, ...]:
        """The numbers of the processes that run pages."""
        found = self._ask("SystemInfo.getProcessInfo", of_page=False)["processInfo"]
        return tuple(each["id"] for each in found if each["type"] == "renderer")

    def _ask(self, method: str, *, of_page: bool = True, **parameters: object) -> dict[str, Any]:
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session and of_page:
            message["sessionId"] = self._session
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\0")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        while (answered := self._message()).get("id") != self._number:
            if answered.get("method") in ("Inspector.targetCrashed", "Target.targetCrashed"):
                raise BrowserError(f"the page ended, as one does that has no memory left: {self._last_words()}")
        if "error" in answered:
            raise BrowserError(f"{method}: {answered['error'].get('message', '')}")
        result: dict[str, Any] = answered["result"]
        return result

    def _message(self) -> dict[str, Any]:
        """The next message of the browser. They end in a zero byte each."""
        assert self._process.stdout is not None
        while (end := self._unread.find(b"\0")) < 0:
            piece = os.read(self._process.stdout.fileno(), _PIECE_BYTES)
            if not piece:
                raise self._ended()
            self._unread += piece
        message: dict[str, Any] = json.loads(self._unread[:end])
        del self._unread[: end + 1]
        return message

    def _ended(self) -> BrowserError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_S)
        return BrowserError(f"the browser ended with code {self._process.returncode}: {self._last_words()}")

    def _last_words(self) -> str:
        """What the browser said last, in one line, without the date and place that it puts before everything."""
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - _LAST_BYTES))
        lines = self._said.read().decode(errors="replace").splitlines()
        return "; ".join(line.rpartition("] ")[2].strip() for line in lines[-3:]) or "it said nothing"

    def close(self) -> None:
        """Ends the browser and removes what it kept."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()  # which is how a browser on a pipe is told to end
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
