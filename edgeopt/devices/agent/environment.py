"""Environments of Python on the device: made once for a set of packages, whole or not at all."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edgeopt.devices.agent.messages import AgentError, Message
from edgeopt.devices.agent.processes import Processes

_READY = "ready.json"
_NO_NETWORK = (
    "name resolution",
    "Name or service not known",
    "NewConnectionError",
    "Network is unreachable",
    "Connection refused",
    "ConnectTimeoutError",
    "Max retries exceeded",
)


def environment(folder: Path, packages: Sequence[str], wheels: Path | None, processes: Processes) -> Message:
    """The Python of the environment in `folder`, and the versions of its packages; made where it is not there.

    With `wheels`, a folder, nothing is asked of the network. Raises `AgentError` when it cannot be made.
    """
    python = folder / "bin" / "python"
    if not (folder / _READY).exists():
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _make(folder, python, packages, wheels, processes)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return {"python": str(python), "versions": json.loads((folder / _READY).read_text())}


def found(python: str, packages: Sequence[str]) -> Message:
    """This Python itself, by the name that it was started by, and its versions of the packages: none is installed.

    Raises `AgentError` for those that are missing.
    """
    from importlib.metadata import PackageNotFoundError, version

    versions, missing = {}, []
    for package in packages:
        name = package.partition("==")[0]
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        raise AgentError("missing", f"{python} has no {', '.join(missing)}")
    return {"python": python, "versions": versions}


def versions_below(folder: Path) -> dict[str, str]:
    """The versions of the packages of all environments below a folder."""
    versions: dict[str, str] = {}
    for ready in sorted(folder.glob(f"*/{_READY}")):
        versions |= json.loads(ready.read_text())
    return versions


def _make(folder: Path, python: Path, packages: Sequence[str], wheels: Path | None, processes: Processes) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    said = _run([sys.executable, "-m", "venv", str(folder)], processes)
    if said is not None:
        raise AgentError("venv" if "ensurepip" in said else _kind(said), said)
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]
    command += ["--only-binary", ":all:", "--progress-bar", "off"]
    command += ["--no-index", "--find-links", str(wheels)] if wheels else []
    said = _run([*command, *packages], processes)
    if said is not None:
        kind = _kind(said)
        where = f"Python {platform.python_version()} on {platform.machine()}"
        raise AgentError(kind, f"{_last(said)} ({where})" if kind == "wheel" else _last(said))
    names = [package.partition("==")[0] for package in packages]
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {names!r}}}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    (folder / _READY).write_text(done.stdout)


def _run(command: Sequence[str], processes: Processes) -> str | None:
    """What a command said where it failed, None where it did not."""
    process = processes.start(["/bin/sh", "-c", '"$@" 2>&1', "sh", *command])
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdin.close()
    said = process.stdout.read()
    code = process.wait()
    processes.done(process)
    return said if code else None


def _kind(said: str) -> str:
    if "No space left" in said or "Disk quota" in said:
        return "full"
    return "network" if any(words in said for words in _NO_NETWORK) else "wheel"


def _last(said: str) -> str:
    """The line that says why pip failed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    wrong = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: No matching")]
    wrong = wrong or [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    return (wrong or lines or ["pip failed"])[-1]
