"""A worker without any framework, for tests of how workers begin and end: `python -m small_worker JOB.json`."""

from __future__ import annotations

import atexit
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgeopt.errors import ExportError
from edgeopt.json_values import from_text
from edgeopt.workers.process import Events, die_with_parent, leave, work


@dataclass(frozen=True)
class SmallJob:
    """What it is to do; `folder` is where it leaves its process ID."""

    module: ClassVar[str] = "small_worker"

    do: str
    folder: Path


def main(events: Events) -> None:
    job = from_text(SmallJob, Path(sys.argv[1]).read_text())
    die_with_parent()
    (job.folder / f"{os.getpid()}.pid").touch()
    events.send(
        {
            "event": "here",
            "pid": os.getpid(),
            "group": os.getpgrp(),
            "folder": str(Path.cwd()),
            "imported": "sqlite3" in sys.modules,
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "threads_of_numpy": os.environ.get("OMP_NUM_THREADS"),
        }
    )
    print("to the log")
    match job.do:
        case "mistake":
            raise ExportError("operator 'frobnicate' is unknown")
        case "bug":
            raise ZeroDivisionError("a bug")
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "leave-work-behind":
            atexit.register((job.folder / f"{os.getpid()}.atexit").touch)
            threading.Timer(0.1, (job.folder / f"{os.getpid()}.thread").touch).start()
            print("unfinished", end="")
        case "hang-twice":
            events.send({"event": "child", "pid": subprocess.Popen(["sleep", "1000"]).pid})
            time.sleep(1000)
        case "hang":
            time.sleep(1000)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "full-disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "gone":
            (Path(sys.argv[1]).parent / "plan.pickle").read_bytes()
        case "no-memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")
        case "no-memory-natively":
            os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
            os.abort()
        case "compute":
            while time.process_time() < float(job.folder.joinpath("seconds").read_text()):
                pass


if __name__ == "__main__":
    leave(work(main))
