"""A process that has imported what several workers need, and forks itself into each of them.

`python -m edgeopt.workers.nursery CONTROL MODULE...`: the modules are imported once, and every packet on the socket
`CONTROL`, a file descriptor, asks for a worker. It brings the worker's standard input, output and error output, and a
pipe on which its process ID is told and, at the end, its exit code. The process ends when the socket does.

A fork is safe only as long as there is one thread: where a module has started others, the process ends at once, and
workers begin as processes of their own.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from edgeopt.workers.process import leave, work

#: Standard input, output, error output, and the pipe on which the process is told.
_DESCRIPTORS = 4
_PACKET_BYTES = 1 << 20


@dataclass(frozen=True)
class Job:
    """What a fork is to be: the worker `module` with the job that `file` holds, in the working directory `folder`.

    `environment` is its own; what libraries read of it while they are imported is that of the nursery.
    """

    module: str
    file: str
    environment: Mapping[str, str]
    folder: str = ""


@dataclass
class _Nursery:
    control: socket.socket
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    told_on: dict[int, int] = field(default_factory=dict)
    """By process ID, the pipe on which each worker is told."""

    def tend(self) -> Job | None:
        """Forks for each job, and tells of each fork that ends. Returns the job in a fork, None when no more is asked
        for.
        """
        self.selector.register(self.control, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is not self.control:
                    self._end(key.fd, key.data)
                    continue
                packet, descriptors, _, _ = socket.recv_fds(self.control, _PACKET_BYTES, _DESCRIPTORS)
                if not packet:
                    return None
                if self._fork(descriptors):
                    return Job(**json.loads(packet))

    def _fork(self, descriptors: list[int]) -> bool:
        """True in the fork, whose standard streams are those of `descriptors`."""
        told_on = descriptors.pop()
        if pid := os.fork():
            for each in descriptors:
                os.close(each)
            self.told_on[pid] = told_on
            self.selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
            return False
        os.setpgid(0, 0)  # as the parent ends a worker with all that it started
        for standard, descriptor in enumerate(descriptors):
            os.dup2(descriptor, standard)
        _tell(told_on, os.getpid())
        watched = [key.fd for key in self.selector.get_map().values() if key.data]
        self.selector.close()
        self.control.close()
        for each in (*descriptors, told_on, *watched, *self.told_on.values()):
            os.close(each)
        return True

    def _end(self, watched: int, pid: int) -> None:
        self.selector.unregister(watched)
        os.close(watched)
        _, status = os.waitpid(pid, 0)
        told_on = self.told_on.pop(pid)
        _tell(told_on, os.waitstatus_to_exitcode(status))
        os.close(told_on)


def _tell(pipe: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        os.write(pipe, b"%d\n" % number)


def main() -> int:
    """Tends the nursery; in a fork, the worker's own work. Returns the exit code."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        import_module(module)
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        return 1
    gc.collect()
    gc.freeze()  # so that no collection in a fork writes to memory that it shares
    job = _Nursery(control).tend()
    if job is None:
        return 0
    os.environ.clear()
    os.environ.update(job.environment)
    if job.folder:
        os.chdir(job.folder)
    sys.argv[1:] = [job.file]
    return work(import_module(job.module).main)


if __name__ == "__main__":
    leave(main())
