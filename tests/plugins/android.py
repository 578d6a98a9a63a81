"""A small adbd of the tests' own: the protocol of adb over TCP, with commands of /bin/sh in the root of a phone.

It serves what `adb` asks of a phone: `shell` (version 2), `sync` (STAT, SEND, RECV) and the handshake, in which it may
refuse to know the computer. Paths below /data, /sdcard and /sys/class/thermal are those below the phone's root, where
also its own commands are (`getprop`, `am`, `pm` and so on). The protocol is that of `docs/dev/protocol.md` and
`docs/dev/sync.md` of https://android.googlesource.com/platform/packages/modules/adb.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_MOVED = re.compile(r"(?<![\w/.-])(/data/|/sdcard/|/sys/class/thermal/)")
_VERSION, _MOST = 0x01000001, 1 << 18
_STDIN, _STDOUT, _EXIT, _CLOSE_STDIN = 0, 1, 3, 4
_TOKEN, _PUBLIC_KEY = 1, 3


@dataclass
class Android:
    """A phone at an address of this machine. `capacity` is what a file may hold that is taken to it, bytes."""

    root: Path
    properties: Mapping[str, str] = field(default_factory=dict)
    known: bool = True
    capacity: int | None = None
    on_command: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        for folder in ("bin", "data/local/tmp", "sdcard", "sys/class/thermal"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self._sockets: set[socket.socket] = set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.pids: set[int] = set()
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self, name: str, text: str) -> None:
        """Puts a command of the phone's own into its PATH."""
        (self.root / "bin" / name).write_text(text)
        (self.root / "bin" / name).chmod(0o755)

    def drop(self) -> None:
        """Every connection breaks, as when a cable is pulled for a moment."""
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """It is switched off."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.drop()

    def place(self, path: str) -> Path:
        """Where a path of the phone is on this machine."""
        return Path(self.moved(path))

    def moved(self, text: str) -> str:
        return _MOVED.sub(lambda found: f"{self.root}{found[1]}", text)

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.add(connection)
            threading.Thread(target=_Transport(self, connection).serve, daemon=True).start()

    def forget(self, connection: socket.socket) -> None:
        self._sockets.discard(connection)
        connection.close()


class _Transport:
    """One connection of an adb server."""

    def __init__(self, phone: Android, connection: socket.socket) -> None:
        self.phone = phone
        self._connection = connection
        self._lock = threading.Lock()
        self._streams: dict[int, _Stream] = {}
        self._next = 0

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        number = int.from_bytes(command, "little")
        header = struct.pack("<6I", number, first, second, len(data), 0, number ^ 0xFFFFFFFF)
        with self._lock, contextlib.suppress(OSError):
            self._connection.sendall(header + data)

    def serve(self) -> None:
        try:
            while header := self._exactly(24):
                number, first, second, length, _, _ = struct.unpack("<6I", header)
                self._message(number.to_bytes(4, "little"), first, second, self._exactly(length) if length else b"")
        except OSError:
            pass
        finally:
            for stream in list(self._streams.values()):
                stream.end()
            self.phone.forget(self._connection)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._connection.recv(count - len(data))
            if not piece:
                raise ConnectionError
            data += piece
        return data

    def _message(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command in (b"CNXN", b"AUTH"):
            if self.phone.known:
                told = b"device::ro.product.name=test;ro.product.model=Test_Phone;ro.product.device=test;"
                self.send(b"CNXN", _VERSION, _MOST, told + b"features=shell_v2,cmd")
            elif (command, first) != (b"AUTH", _PUBLIC_KEY):  # else it waits for somebody to press a button
                self.send(b"AUTH", _TOKEN, 0, bytes(20))
        elif command == b"OPEN":
            self._next += 1
            stream = _Stream(self, self._next, first)
            self._streams[self._next] = stream
            self.send(b"OKAY", self._next, first)
            service = data.rstrip(b"\0").decode()
            serve = self._sync if service == "sync:" else self._shell
            threading.Thread(target=serve, args=(stream, service), daemon=True).start()
        elif stream := self._streams.get(second):
            if command == b"WRTE":
                stream.take(data)
                self.send(b"OKAY", second, first)
            elif command == b"OKAY":
                stream.ready.release()
            elif command == b"CLSE":
                del self._streams[second]
                stream.end()

    # ---- shell

    def _shell(self, stream: _Stream, service: str) -> None:
        script = self.phone.moved(service.partition(":")[2])
        self.phone.on_command(script)
        ours, theirs = socket.socketpair()  # input and output are one, as adbd has it: it waits for all that hold it
        with theirs:
            process = subprocess.Popen(
                ["/bin/sh", "-c", script],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                cwd=self.phone.root,
                env={"PATH": f"{self.phone.root}/bin:{os.environ['PATH']}", "PHONE": str(self.phone.root)},
            )
        self.phone.pids.add(process.pid)
        threading.Thread(target=self._type, args=(stream, ours), daemon=True).start()
        with contextlib.suppress(OSError):
            while piece := ours.recv(32768):
                stream.write(struct.pack("<BI", _STDOUT, len(piece)) + piece)
        code = process.wait()
        ours.close()
        self.phone.pids.discard(process.pid)
        stream.write(struct.pack("<BIB", _EXIT, 1, code & 255))
        stream.close()

    def _type(self, stream: _Stream, there: socket.socket) -> None:
        """What comes is typed; the end of the connection is the end of the input, and of all that is heard."""
        try:
            while True:
                kind, length = struct.unpack("<BI", stream.read(5))
                piece = stream.read(length)
                if kind == _STDIN:
                    there.sendall(piece)
                elif kind == _CLOSE_STDIN:
                    there.shutdown(socket.SHUT_WR)
        except EOFError:
            with contextlib.suppress(OSError):
                there.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    # ---- files

    def _sync(self, stream: _Stream, _: str) -> None:
        with contextlib.suppress(EOFError):
            while True:
                request, length = struct.unpack("<4sI", stream.read(8))
                if request == b"QUIT":
                    break
                path = stream.read(length).decode()
                if request == b"STAT":
                    self._stat(stream, self.phone.place(path))
                elif request == b"SEND":
                    self._receive(stream, self.phone.place(path.rpartition(",")[0]))
                elif request == b"RECV":
                    self._give(stream, self.phone.place(path))
        stream.close()

    def _stat(self, stream: _Stream, path: Path) -> None:
        try:
            told = path.stat()
        except OSError:
            stream.write(b"STAT" + bytes(12))
        else:
            stream.write(b"STAT" + struct.pack("<III", told.st_mode, told.st_size, int(told.st_mtime)))

    def _receive(self, stream: _Stream, path: Path) -> None:
        most = self.phone.capacity
        failed = ""
        with contextlib.ExitStack() as stack:
            target = None
            try:
                target = stack.enter_context(path.open("wb"))
            except OSError as error:
                failed = f"couldn't create file: {error.strerror}"
            taken = 0
            while True:
                kind, length = struct.unpack("<4sI", stream.read(8))
                if kind == b"DONE":
                    break
                piece = stream.read(length)
                taken += length
                if most is not None and taken > most:
                    failed = failed or "write failed: No space left on device"
                if target is not None and not failed:
                    target.write(piece)
        stream.write(struct.pack("<4sI", b"FAIL", len(failed)) + failed.encode() if failed else b"OKAY" + bytes(4))

    def _give(self, stream: _Stream, path: Path) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            told = (error.strerror or "it cannot be read").encode()
            stream.write(struct.pack("<4sI", b"FAIL", len(told)) + told)
            return
        for start in range(0, len(data), 1 << 16):
            piece = data[start : start + (1 << 16)]
            stream.write(struct.pack("<4sI", b"DATA", len(piece)) + piece)
        stream.write(struct.pack("<4sI", b"DONE", 0))


class _Stream:
    """One service that was asked for."""

    def __init__(self, transport: _Transport, own: int, other: int) -> None:
        self._transport = transport
        self._own = own
        self._other = other
        self._pieces: queue.Queue[bytes | None] = queue.Queue()
        self._rest = b""
        self._over = False
        self.ready = threading.Semaphore(1)  # one piece is on its way until the other side says that it has it

    def take(self, data: bytes) -> None:
        self._pieces.put(data)

    def read(self, count: int) -> bytes:
        while len(self._rest) < count:
            piece = self._pieces.get()
            if piece is None:
                self._pieces.put(None)
                raise EOFError
            self._rest += piece
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), _MOST):
            self._say(b"WRTE", data[start : start + _MOST])

    def close(self) -> None:
        self._say(b"CLSE", b"")

    def _say(self, command: bytes, data: bytes) -> None:
        if not self._over:
            self.ready.acquire()
        if not self._over:
            self._transport.send(command, self._own, self._other, data)

    def end(self) -> None:
        """The other side is gone."""
        self._over = True
        self._pieces.put(None)
        self.ready.release()


def wait_for(what: Callable[[], object], limit_s: float = 10.0) -> None:
    until = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)
