"""The server: an address, a process for each file, and an orderly end."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import uvicorn

from edgeopt.errors import Problem, UserError
from edgeopt.plugins.declarations import TaskPlugin
from edgeopt.plugins.handed import hand_over
from edgeopt.plugins.registry import Registry
from edgeopt.plugins.use import Use
from edgeopt.report.finished_files import Catalogue, FinishedFile
from edgeopt.serving.api import Api, opened
from edgeopt.serving.guard import Guard
from edgeopt.serving.job import AnswerJob
from edgeopt.serving.limits import FORMATS, Limits
from edgeopt.serving.own_folder import own_folder
from edgeopt.serving.patience import ImpatientProtocol
from edgeopt.serving.process import AnsweringProcess
from edgeopt.serving.served_tasks import task_uses
from edgeopt.serving.turns import Turns
from edgeopt.serving.values import FileState

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_CONNECTIONS = 1_000
_BACKLOG = 2_048
_GRACE_S = 5  # for answers that are being made when the server ends
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class ServerSettings:
    """Where to listen, the threads of each file's runtime, and the limits."""

    host: str = "127.0.0.1"
    port: int = 8000
    threads: int = 1
    limits: Limits = field(default_factory=Limits)


def serve(
    catalogue: Catalogue,
    registry: Registry,
    settings: ServerSettings,
    tell: Callable[[str], None],
    at_address: Callable[[str], None],
) -> None:
    """Serves until the process is told to end. `tell` hears what happens, `at_address` where the server is.

    Raises `UserError` when the address cannot be had, and when no file can be opened.
    """
    uses = task_uses(catalogue.files, registry)
    with _listening(settings) as listener, own_folder() as folder:
        address = _address(listener)
        jobs = [
            write_job(file, uses[file.name], registry, settings, folder / f"{n}.pickle")
            for n, file in enumerate(catalogue.files)
        ]
        turns = {
            file.name: Turns(
                partial(AnsweringProcess.start, job, settings.threads), settings.limits, _teller(tell, file.name)
            )
            for file, job in zip(catalogue.files, jobs, strict=True)
        }
        api = Api(catalogue, turns, settings.limits, folder)
        hosts = _LOOPBACK if _is_loopback(listener) else ()
        server = _Server(
            uvicorn.Config(
                Guard(api.app(), hosts),
                http=ImpatientProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=_CONNECTIONS,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        asyncio.run(_run(server, listener, turns, lambda: at_address(address)))


class _Server(uvicorn.Server):
    """uvicorn's server, ended by `should_exit` alone: signals are ours, because the files' processes come after it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _run(
    server: _Server, listener: socket.socket, turns: dict[str, Turns], at_address: Callable[[], None]
) -> None:
    loop = asyncio.get_running_loop()

    def end() -> None:
        server.should_exit = True

    for number in _SIGNALS:
        loop.add_signal_handler(number, end)
    files = [asyncio.create_task(each.run()) for each in turns.values()]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    opening = asyncio.create_task(opened(turns))
    try:
        at_address()
        await asyncio.wait([serving, opening, *files], return_when=asyncio.FIRST_COMPLETED)
        if opening.done() and not any(each.state is FileState.READY for each in turns.values()):
            problems = [Problem(f"{name} does not open: {each.reason}") for name, each in turns.items()]
            raise UserError(*problems)
        await asyncio.wait([serving, *files], return_when=asyncio.FIRST_COMPLETED)
    finally:
        end()
        await asyncio.wait([serving])
        for task in (opening, *files):
            task.cancel()
        outcomes = await asyncio.gather(*files, return_exceptions=True)
    for outcome in (*outcomes, serving.exception()):
        if outcome is not None and not isinstance(outcome, asyncio.CancelledError):
            raise outcome


def write_job(
    file: FinishedFile, task_use: Use[TaskPlugin], registry: Registry, settings: ServerSettings, target: Path
) -> Path:
    """What the file's process is told, written to `target`, in whose folder outputs are kept."""
    job = AnswerJob(
        exporter=file.exporter,
        path=file.path,
        card=file.card,
        task_use=task_use,
        threads=settings.threads,
        formats=FORMATS,
        pixels=settings.limits.pixels,
        folder=target.parent,
    )
    hand_over(job, target, registry)
    return target


def _teller(tell: Callable[[str], None], name: str) -> Callable[[str], None]:
    return lambda text: tell(f"{name}: {text}")


@contextmanager
def _listening(settings: ServerSettings) -> Iterator[socket.socket]:
    """A socket that listens. Raises `UserError` where it cannot."""
    host, port = settings.host, settings.port
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # the protocol must be named: asyncio sends answers at once on sockets alone that say that they are TCP's
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, OverflowError) as error:
        raise UserError(_cannot_listen(host, port, error)) from error
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of a server that has just ended
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise UserError(_cannot_listen(host, port, error)) from error
        listener.setblocking(False)
        yield listener


def _cannot_listen(host: str, port: int, error: Exception) -> Problem:
    if isinstance(error, socket.gaierror):
        return Problem(f"there is no host {host!r}", "--host 127.0.0.1 is this machine alone, 0.0.0.0 all its networks")
    match getattr(error, "errno", None):
        case errno.EADDRINUSE:
            hint = f"end what listens there, or choose another: --port {port + 1}, or 0 for any that is free"
            return Problem(f"port {port} of {host} is in use", hint)
        case errno.EACCES:
            return Problem(f"port {port} is not for everybody", "choose one above 1023 with --port")
        case errno.EADDRNOTAVAIL:
            return Problem(f"{host} is no address of this machine", "--host 0.0.0.0 listens on all that it has")
        case _:
            return Problem(f"cannot listen on {host}, port {port}: {error}", "choose others with --host and --port")


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _is_loopback(listener: socket.socket) -> bool:
    host = str(listener.getsockname()[0])
    return host == "::1" or host.startswith("127.")
