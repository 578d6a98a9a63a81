"""The body of a request, read within bounds of bytes and time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from edgeopt.serving.limits import Limits
from edgeopt.serving.values import RefusalError

_LISTEN_S = 2.0  # to the rest of a body that is too large: a connection that closes before is an error without words


class GoneError(Exception):
    """Whoever asked has hung up."""


@dataclass
class Bodies:
    """All bodies that are held at once; `held_bytes` counts theirs."""

    limits: Limits
    held_bytes: int = 0

    @contextmanager
    def room(self) -> Iterator[Room]:
        """Room for one body, given back at the end."""
        room = Room(self)
        try:
            yield room
        finally:
            self.held_bytes -= room.taken_bytes


@dataclass
class Room:
    """The room that one body takes."""

    bodies: Bodies
    taken_bytes: int = 0

    def take(self, count: int) -> None:
        """Takes room for more bytes. Raises `RefusalError` 413 for one body too large, 503 for all together."""
        limits = self.bodies.limits
        if self.taken_bytes + count > limits.image_bytes:
            raise _too_large(limits)
        if self.bodies.held_bytes + count > limits.held_bytes:
            raise RefusalError(503, "too many images are being read", "try again", 1)
        self.taken_bytes += count
        self.bodies.held_bytes += count


async def read_body(request: Request, room: Room) -> bytes:
    """The body of a request.

    Raises `RefusalError`: 400 for none, 408 for one that does not come to an end, 413 for one that is too large, 503
    where there is no room for it; and `GoneError`.
    """
    limits = room.bodies.limits
    try:
        said = int(request.headers.get("content-length", "0"))
    except ValueError:
        said = 0
    pieces = request.stream()
    body = bytearray()
    try:
        if said > limits.image_bytes:
            raise _too_large(limits)
        async for piece in _in_time(pieces, limits):
            room.take(len(piece))
            body += piece
    except RefusalError as refusal:
        if refusal.status != 408:
            await _listen_to_the_end(pieces)
        raise
    except ClientDisconnect as error:
        raise GoneError from error
    if not body:
        raise RefusalError(400, "the request has no body", "send the bytes of an image file as the body")
    return bytes(body)


async def _in_time(pieces: AsyncIterator[bytes], limits: Limits) -> AsyncIterator[bytes]:
    """The pieces of a body, none of them late."""
    end = time.monotonic() + limits.body_s
    while True:
        left_s = end - time.monotonic()
        try:
            async with asyncio.timeout(min(left_s, limits.pause_s)):
                piece = await anext(pieces, None)
        except TimeoutError:
            pause = f"for {limits.pause_s:g} s nothing came" if left_s > limits.pause_s else f"{limits.body_s:g} s"
            raise RefusalError(408, f"the image did not arrive in time: {pause}", "send it again") from None
        if piece is None:
            return
        yield piece


async def _listen_to_the_end(pieces: AsyncIterator[bytes]) -> None:
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(_LISTEN_S):
            async for _ in pieces:
                pass


def _too_large(limits: Limits) -> RefusalError:
    return RefusalError(413, f"an image has at most {limits.image_bytes:,} bytes here", "send a smaller one")
