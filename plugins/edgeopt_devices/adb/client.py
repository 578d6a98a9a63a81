"""The system's `adb`: a command on a phone, and files to it and from it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeopt.plugins import ConnectionLostError, DeviceError, Problem

_ENDED = "edgeopt-ended="
_NO_ADB = "install it (apt install adb, or the platform tools of the Android SDK) and see that it is in PATH"
_LOST = (
    ("unauthorized", "it does not know this computer", "unlock it and allow USB debugging"),
    ("no permissions", "this user may not use it", "see `adb devices` for what is missing"),
    ("cannot connect to daemon", "the server of adb does not start here", "see what `adb start-server` says"),
    ("", "the connection broke", "see that it is on, unlocked and attached, and that `adb devices` lists it"),
)


@dataclass(frozen=True)
class Said:
    """What a command on a phone ended with, and all that it printed."""

    code: int
    text: str


def adb(arguments: Sequence[str], limit_s: float) -> subprocess.CompletedProcess[str]:
    """Runs `adb`, with what it says in `stdout`. One that says nothing for `limit_s` is ended, with code 124.

    Raises `DeviceError` where there is none.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as said:  # no pipe, which a server that it starts might hold
        try:
            process = subprocess.Popen(["adb", *arguments], stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        except OSError as error:
            raise DeviceError(f"there is no adb here: {error.strerror}", hint=_NO_ADB) from error
        with process:
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                process.kill()
                code = 124
            except BaseException:
                process.kill()
                raise
        said.seek(0)
        return subprocess.CompletedProcess(process.args, code, said.read())


@dataclass(frozen=True)
class Client:
    """The way to one phone. `name` is for messages."""

    name: str
    serial: str
    limit_s: float

    def run(self, script: str, limit_s: float | None = None, *, input: IO[bytes] | int = subprocess.DEVNULL) -> Said:
        """Runs a script of the shell there.

        Raises `ConnectionLostError` where the connection broke before it ended, also where nothing is said for
        `limit_s`.
        """
        command = ["adb", *self.arguments(script)]
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            with subprocess.Popen(command, stdin=input, stdout=said, stderr=said, start_new_session=True) as process:
                try:
                    process.wait(limit_s or self.limit_s)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise self.lost("it says nothing") from None
                except BaseException:
                    process.kill()
                    raise
            said.seek(0)
            text, ended, code = said.read().rpartition(_ENDED)
        if not ended or not code.strip().isdigit():
            raise self.lost(text + ended + code)
        return Said(int(code), text.strip())

    def arguments(self, script: str) -> list[str]:
        """What `adb` is called with for a script; it ends with a line that says how the script did."""
        return ["-s", self.serial, "shell", "-T", f"(\n{script}\n) 2>&1\necho {_ENDED}$?"]

    def push(self, file: Path, target: str, limit_s: float) -> str | None:
        """Copies a file there; what was said where that failed, None where it did not."""
        done = adb(["-s", self.serial, "push", str(file.resolve()), target], limit_s)
        return done.stdout if done.returncode else None

    def pull(self, source: str, file: Path, limit_s: float) -> None:
        """Copies a file from there. Raises `ConnectionLostError` where that fails."""
        done = adb(["-s", self.serial, "pull", source, str(file)], limit_s)
        if done.returncode:
            raise self.lost(done.stdout)

    def lost(self, said: str) -> ConnectionLostError:
        """The error for a connection that broke, from what adb said of it."""
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        message, hint = next((message, hint) for words, message, hint in _LOST if words in said)
        last = f": {lines[-1]}" if lines else ""
        return ConnectionLostError(Problem(f"{self.name}: {message}{last}", hint))
