"""One user's session on a device: it holds the device's folder, keeps files there, and does jobs.

Requests and answers are lines of JSON. Whatever happens to the user, this process ends with everything that it started:
when its standard input ends, and when nobody has said anything for a minute.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
import time
import traceback
from pathlib import Path

from edgeopt.cores import usable_cores
from edgeopt.devices.agent.environment import environment, found, versions_below
from edgeopt.devices.agent.messages import AgentError, Message, Output, input_lines
from edgeopt.devices.agent.processes import Processes
from edgeopt.devices.agent.work import Work
from edgeopt.measure.state import governor, machine_state, memory_bytes, processor

_SILENCE_S = 60.0
_LOOK_S = 0.2
_OLD_S = 86_400.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


def session(folder: str) -> int:
    """Serves one user; the exit code."""
    return _Session(Path(folder).expanduser()).serve()


class _Session:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = Output()
        self.files = folder / "files"
        self.wheels = folder / "wheels"
        self.processes = Processes(folder / "log.txt")
        self.versions: dict[str, str] = {}
        self.holds = False

    def serve(self) -> int:
        requests = input_lines(self._leave, _SILENCE_S)
        try:
            for place in (self.files, self.wheels):
                place.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("w")
        except OSError as error:
            self._failed(error)
            return 2
        self._wait(lock.fileno())
        self.holds = True
        self._sweep()
        self.output.send({"event": "here", **self._facts(), "folder": str(self.folder), "files": self._kept()})
        for line in requests:
            request = json.loads(line)
            try:
                answer = self._do(request)
            except (AgentError, OSError) as error:
                self._failed(error)
                continue
            if answer is not None:
                self.output.send(answer)
            if request["do"] in ("clean", "leave"):
                break
        self.processes.end()
        return 0

    def _do(self, request: Message) -> Message | None:
        match request["do"]:
            case "facts":
                return {"event": "facts", **self._facts()}
            case "place":
                (self.folder / request["place"]).mkdir(parents=True, exist_ok=True)
                return {"event": "placed"}
            case "keep":
                self._keep(request["place"], request["name"], request["sha256"])
                return {"event": "kept"}
            case "drop":
                (self.folder / request["place"] / f"{request['name']}.part").unlink(missing_ok=True)
                return {"event": "dropped", "free_bytes": shutil.disk_usage(self.folder).free}
            case "environment":
                return {"event": "environment", **self._environment(request)}
            case "run":
                Work(self._located(request["job"]), self._job(request), self.processes, self.output.send).run()
            case "forget":
                shutil.rmtree(self._job(request), ignore_errors=True)
            case "clean":
                shutil.rmtree(self.folder)
                return {"event": "cleaned"}
        return None

    def _job(self, request: Message) -> Path:
        return self.folder / "jobs" / str(request["key"])

    def _located(self, job: Message) -> Message:
        """A job with the places of its files in full; names of files count from the folder."""
        files = [{**file, "file": str(self.folder / file["file"])} for file in job["files"]]
        whole = job["whole"] and {**job["whole"], "image": str(self.folder / job["whole"]["image"])}
        return {**job, "images": str(self.folder / job["images"]), "files": files, "whole": whole}

    def _environment(self, request: Message) -> Message:
        if not request["install"]:
            made = found(request["python"], request["packages"])
        else:
            wheels = self.folder / request["wheels"] if request["wheels"] else None
            known = json.dumps([sys.version, request["packages"], request["wheels"]])
            name = hashlib.sha256(known.encode()).hexdigest()[:16]
            made = environment(self.folder / "environments" / name, request["packages"], wheels, self.processes)
        self.versions |= made["versions"]
        return made

    def _keep(self, place: str, name: str, sha256: str) -> None:
        """Makes a file of what was sent, if that is what it should be."""
        pending = self.folder / place / f"{name}.part"
        with pending.open("rb") as stream:
            arrived = hashlib.file_digest(stream, "sha256").hexdigest()
        if arrived != sha256:
            pending.unlink()
            raise AgentError("digest", f"{name} arrived with other bytes than it was sent with")
        pending.replace(pending.with_suffix(""))

    def _kept(self) -> list[str]:
        kept = (file for place in (self.files, self.wheels) for file in place.rglob("*") if file.is_file())
        return [file.relative_to(self.folder).as_posix() for file in kept]

    def _facts(self) -> Message:
        state = machine_state()
        return {
            "processor": processor(),
            "machine": platform.machine(),
            "cores": usable_cores(),
            "system": _system(),
            "python": platform.python_version(),
            "governor": governor(),
            "clock_mhz": state.clock_mhz,
            "memory_bytes": memory_bytes(),
            "free_bytes": shutil.disk_usage(self.folder).free,
            "temperature_c": state.temperature_c,
            "versions": versions_below(self.folder / "environments") | self.versions,
        }

    def _wait(self, lock: int) -> None:
        """Waits until nobody else has the folder. The system lets go of it when a process dies, however it dies."""
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if not told:
                    self.output.send({"event": "waiting"})
                told = True
                time.sleep(_LOOK_S)
            else:
                return

    def _sweep(self) -> None:
        """Removes what killed sessions left by half, and jobs that nobody came back for."""
        self._remove_parts()
        for agent in self.folder.glob("agent-*"):
            if agent.resolve() != Path(sys.argv[0]).resolve():
                agent.unlink(missing_ok=True)
        for job in (self.folder / "jobs").glob("*"):
            if time.time() - job.stat().st_mtime > _OLD_S:
                shutil.rmtree(job, ignore_errors=True)
        (self.folder / "log.txt").unlink(missing_ok=True)

    def _remove_parts(self) -> None:
        for place in (self.files, self.wheels):
            for part in place.rglob("*.part"):
                part.unlink(missing_ok=True)

    def _leave(self) -> None:
        """The user is gone: everything ends at once."""
        self.processes.end()
        if self.holds:
            self._remove_parts()
        os._exit(1)

    def _failed(self, error: Exception) -> None:
        traceback.print_exception(error)
        kind = error.kind if isinstance(error, AgentError) else "storage"
        if isinstance(error, OSError) and error.errno in _FULL:
            kind = "full"
        self.output.send({"event": "error", "kind": kind, "message": str(error)})


def _system() -> str:
    try:
        return str(platform.freedesktop_os_release()["PRETTY_NAME"])
    except (OSError, KeyError):
        return platform.platform()
