"""A phone that is held for one user: edgeopt's own folder there, files by their sha256, and jobs that end with us."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from edgeopt.plugins import ConnectionLostError, DeviceError
from edgeopt_devices.adb.client import Client, Said

OWN = "edgeopt-device"
"""The folder below the one that the options name."""

_END_S = 10.0
_PUSH_S = 600.0
_SHA256 = re.compile(r"^[0-9a-f]{64}")
#: Holds the lock until its input ends, however that comes, and leaves nothing that is there by half. It says whether
#: somebody else has it. (Android's shell hands no descriptor on that `exec` opens, hence the block.)
_HOLD = """mkdir -p {own}/files {own}/work || exit 1
{{
  flock -n 9 || {{ echo edgeopt-waiting; flock 9 || exit 1; }}
  rm -rf {own}/work/* {own}/files/*.part
  echo edgeopt-held
  cat >/dev/null
  {last}
  rm -rf {own}/work/* {own}/files/*.part
}} 9>{own}/lock"""
#: Runs a script in a group of processes of its own, which is killed when the connection ends. adbd waits for all that
#: hold what a command reads and prints, so that the guard and what it waits with must end with the script.
_GUARDED = """cd {own}/work || exit 1
exec 3<&0
setsid sh {own}/work/job.sh </dev/null 3<&- & job=$!
setsid sh -c "cat; kill -9 -$job" <&3 >/dev/null 2>&1 3<&- & guard=$!
wait $job; code=$?
kill -9 -$guard 2>/dev/null || kill -9 $guard
exit $code"""


class FullError(DeviceError):
    """The phone's storage is full, for all files alike."""


class Phone:
    """A phone, which others wait for.

    `last` is a command of its shell for the end of the session, however it ends. `waiting` is told why it takes time.
    """

    def __init__(self, client: Client, folder: str, last: str, waiting: Callable[[str], None]) -> None:
        self.client = client
        self.own = f"{folder}/{OWN}"
        self._last = last or "true"
        self._waiting = waiting
        self._holder: subprocess.Popen[bytes] | None = None
        self._files: set[str] = set()

    # ---- whose it is

    def hold(self) -> None:
        """Waits until nobody else has it.

        Raises `DeviceError` where its folder cannot be made, and `ConnectionLostError` where the connection breaks.
        """
        if self._holder is not None and self._holder.poll() is None:
            return
        self.release()
        script = _HOLD.format(own=self.own, last=self._last)
        command = ["adb", *self.client.arguments(script)]
        self._holder = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends the other in order
        )
        heard = b""
        limit_s: float | None = self.client.limit_s
        while b"edgeopt-held" not in heard:
            piece = self._piece(limit_s)
            heard += piece
            if b"edgeopt-waiting" in heard and limit_s is not None:
                self._waiting(f"{self.client.name}: another run has it")
                limit_s = None
            if not piece:
                self.release()
                raise self._refused(heard.decode(errors="replace"))
        self._files = set(self.run(f"ls {self.own}/files").text.split())

    def release(self) -> None:
        """Lets the next user have it."""
        holder, self._holder = self._holder, None
        if holder is None:
            return
        with contextlib.suppress(OSError):
            if holder.stdin is not None:
                holder.stdin.close()
        try:
            holder.wait(_END_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(holder.pid, signal.SIGKILL)
            holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()

    def _piece(self, limit_s: float | None) -> bytes:
        """What the holder says next; nothing where it ended or says nothing for so long."""
        holder = self._holder
        assert holder is not None  # both are set
        assert holder.stdout is not None
        ready, _, _ = select.select([holder.stdout], [], [], limit_s)
        return os.read(holder.stdout.fileno(), 4096) if ready else b""

    def _refused(self, said: str) -> DeviceError:
        name = self.client.name
        text = said.rpartition("edgeopt-ended=")[0].strip()
        if "edgeopt-ended=" not in said:
            return self.client.lost(said)
        if "flock" in text:
            return DeviceError(f"{name}: its Android has no flock", hint="Android 8 or newer is needed")
        if "No space" in text:
            return self.full()
        hint = f"let the user of adb's shell write below {self.own}, or name another folder with the option folder"
        return DeviceError(f"{name}: its folder cannot be made: {text}", hint=hint)

    # ---- commands

    def run(self, script: str, limit_s: float | None = None) -> Said:
        """Runs a script of the shell there. Raises `ConnectionLostError`."""
        return self.client.run(script, limit_s)

    def job(self, script: str, limit_s: float) -> Said:
        """Runs a script in the folder for work, which ends with this process, and with all that it started.

        Raises `ConnectionLostError`; where it does not end within `limit_s`, it is ended, and `DeviceError` is raised.
        """
        text = script.replace("'", "'\\''")
        self.require(self.run(f"printf '%s' '{text}' > {self.own}/work/job.sh"))
        ours, theirs = os.pipe()
        started = time.monotonic()
        try:
            with os.fdopen(ours, "rb") as alive:
                return self.client.run(_GUARDED.format(own=self.own), limit_s, input=alive)
        except ConnectionLostError:
            if time.monotonic() - started >= limit_s:
                raise DeviceError(f"no sign of life for {limit_s:g} s, so it was ended") from None
            raise
        finally:
            os.close(theirs)

    def require(self, said: Said) -> Said:
        """What was said of a command that must succeed. Raises `DeviceError`."""
        if said.code == 0:
            return said
        if "No space left" in said.text:
            raise self.full()
        raise DeviceError(f"{self.client.name}: {said.text.splitlines()[-1] if said.text else f'code {said.code}'}")

    def full(self) -> FullError:
        """The error for a phone whose storage is full."""
        hint = f"free some space on it, or remove what edgeopt left with `edgeopt devices clean` ({self.own})"
        return FullError(f"{self.client.name}: its storage is full", hint=hint)

    # ---- files

    def put(self, file: Path, sha256: str) -> str:
        """Takes a file there, unless one of the same bytes is there; where it lies.

        It arrives under another name and gets its own when its bytes are right. Raises `DeviceError` where the file
        has other bytes than those of `sha256`, and where it cannot be taken.
        """
        name = self.client.name
        self.hold()
        try:
            with file.open("rb") as stream:
                own = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise DeviceError(f"{name}: {file} cannot be read: {error.strerror}") from error
        if own != sha256 or not _SHA256.match(sha256):
            hint = "it changed since it was made: run the recipe again"
            raise DeviceError(f"{name}: {file} has another sha256 than {sha256[:12]}…", hint=hint)
        kept = f"{sha256}{file.suffix}"
        target = f"{self.own}/files/{kept}"
        if kept in self._files:
            return target
        said = self.client.push(file, f"{target}.part", _PUSH_S)
        if said is not None:
            raise self._push_failed(file, f"{target}.part", said)
        script = f"set -- $(sha256sum {target}.part) && [ $1 = {sha256} ] && chmod 755 {target}.part && "
        done = self.run(f"{script} mv {target}.part {target} || {{ rm -f {target}.part; exit 1; }}", _PUSH_S)
        if done.code:
            hint = "try again, and see whether its cable is sound"
            raise DeviceError(f"{name}: {file.name} arrived with other bytes: {done.text or 'no word'}", hint=hint)
        self._files.add(kept)
        return target

    def _push_failed(self, file: Path, part: str, said: str) -> DeviceError:
        room = self.run(f"rm -f {part}; df -k {self.own} | tail -n 1").text.split()
        free = int(room[3]) * 1024 if len(room) > 3 and room[3].isdigit() else None
        if "No space left" in said or (free is not None and free < file.stat().st_size):
            return self.full()
        reason = next((line for line in said.splitlines() if "error:" in line), said.strip() or "no word")
        return DeviceError(f"{self.client.name}: {file.name} could not be taken there: {reason}")

    def send(self, name: str, file: Path) -> None:
        """Takes a file into the folder for work, for the job that comes next. Raises as `put` does."""
        said = self.client.push(file, f"{self.own}/work/{name}", _PUSH_S)
        if said is not None:
            raise self._push_failed(file, f"{self.own}/work/{name}", said)

    def fetch(self, name: str, file: Path) -> bytes:
        """The bytes of a file in the folder for work; they come by way of `file`."""
        self.client.pull(f"{self.own}/work/{name}", file, _PUSH_S)
        return file.read_bytes()

    def clean(self) -> None:
        """Takes the folder away."""
        self.run(f"rm -rf {self.own}")
        self._files = set()
        self.release()
