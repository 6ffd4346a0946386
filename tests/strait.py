"""A way to Redis that tests can block: a proxy between whom they choose and the server, on a port or socket of its own.

It drops connections, refuses new ones, lets nothing pass in either direction, is late, or forgets the server's side of
a connection without a word to the client (half-open): for every connection, or for the ear alone, which subscribed.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    Which = Callable[["Crossing"], bool]

UP, DOWN = "up", "down"  # to the server, to the client
BOTH = (UP, DOWN)
CHUNK = 65536
ANSWER_S = 30.0


@dataclass(eq=False)
class Crossing:
    """One connection: the client's end, and the server's."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    ear: bool = False  # it subscribed to something
    said: bytes = b""  # by the client, last
    forgotten: bool = False  # the server's side is gone, and the client does not know
    over: asyncio.Event = field(default_factory=asyncio.Event)
    due_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(BOTH, 0.0))

    def part(self) -> None:
        """Close it."""
        self.client.transport.abort()
        self.server.transport.abort()


def anybody(_crossing: Crossing) -> bool:
    """Choose every connection."""
    return True


def ears(crossing: Crossing) -> bool:
    """Choose what subscribed."""
    return crossing.ear


def scripts(crossing: Crossing) -> bool:
    """Choose what ran a script, last."""
    return b"EVAL" in crossing.said


class Strait:
    """Give `url` to what is to be cut off. What is done to it lasts until `open`.

    Listens on a Unix socket in `folder`, else on a port of the loopback.
    """

    def __init__(self, server: str, folder: Path | None = None) -> None:
        self._server = server
        self._path = folder / "strait.sock" if folder else None
        self._port = 0
        self._crossings: set[Crossing] = set()
        self._frozen: tuple[Which, tuple[str, ...]] | None = None
        self._late_s = 0.0
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._begin())

    @property
    def url(self) -> str:
        """The same before and after a cut."""
        return f"unix://{self._path}" if self._path else f"redis://127.0.0.1:{self._port}/0"

    @property
    def listening(self) -> int:
        """How many connections subscribed and are whole."""
        return sum(crossing.ear and not crossing.forgotten for crossing in self._crossings.copy())

    def freeze(self, which: Which = anybody, ways: tuple[str, ...] = BOTH) -> None:
        """Let nothing pass: connections stay, also new ones, and say nothing; not even that an end was closed."""
        self._do(self._freeze(which, ways))

    def drop(self, which: Which = anybody) -> None:
        """Close them; new ones pass."""
        self._do(self._drop(which))

    def forget(self, which: Which = anybody) -> None:
        """Have them half open: the server's side is gone without a word; what the client says goes nowhere."""
        self._do(self._forget(which))

    def cut(self) -> None:
        """Close everything, and refuse new connections."""
        self._do(self._cut())

    def delay(self, seconds: float) -> None:
        """Let everything pass so much later, in each direction."""
        self._late_s = seconds

    def open(self) -> None:
        """Let all pass again, at once."""
        self._late_s = 0.0
        self._do(self._open())

    def close(self) -> None:
        """End the proxy."""
        self._do(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, what: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(ANSWER_S)

    # -- on the proxy's own thread -------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        self._opened = asyncio.Condition()
        await self._listen()

    async def _listen(self) -> None:
        if self._listener:
            return
        if self._path:
            self._listener = await asyncio.start_unix_server(self._cross, self._path)
        else:
            self._listener = await asyncio.start_server(self._cross, "127.0.0.1", self._port)
            self._port = self._listener.sockets[0].getsockname()[1]

    async def _cross(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            answers, server = await self._to_server()
        except OSError:
            client.transport.abort()
            return
        crossing = Crossing(client, server)
        self._crossings.add(crossing)
        await asyncio.gather(self._pass(crossing, UP, reader), self._pass(crossing, DOWN, answers))
        self._crossings.discard(crossing)
        crossing.over.set()

    async def _to_server(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self._server)
        if parts.scheme == "unix":
            return await asyncio.open_unix_connection(parts.path)
        return await asyncio.open_connection(parts.hostname, parts.port)

    async def _pass(self, crossing: Crossing, way: str, reader: asyncio.StreamReader) -> None:
        to = crossing.server if way == UP else crossing.client
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if way == UP:
                    crossing.said = data
                    crossing.ear = crossing.ear or b"SUBSCRIBE" in data
                await self._may_pass(crossing, way)
                if not to.is_closing():
                    self._later(crossing, way, to, data)
                    await to.drain()
        if crossing.forgotten and way == DOWN:
            return
        await self._may_pass(crossing, way)
        if not crossing.client.is_closing():
            await asyncio.sleep(crossing.due_s[way] - self._loop.time())
        crossing.part()

    async def _may_pass(self, crossing: Crossing, way: str) -> None:
        async with self._opened:
            await self._opened.wait_for(lambda: crossing.client.is_closing() or not self._holds(crossing, way))

    def _holds(self, crossing: Crossing, way: str) -> bool:
        return self._frozen is not None and way in self._frozen[1] and self._frozen[0](crossing)

    def _later(self, crossing: Crossing, way: str, to: asyncio.StreamWriter, data: bytes) -> None:
        """Write in order, each as late as it has to be; a microsecond apart, so that none overtakes another."""
        crossing.due_s[way] = max(crossing.due_s[way] + 1e-6, self._loop.time() + self._late_s)
        self._loop.call_at(crossing.due_s[way], _write, to, data)

    async def _freeze(self, which: Which, ways: tuple[str, ...]) -> None:
        self._frozen = (which, ways)

    async def _drop(self, which: Which) -> None:
        chosen = [each for each in self._crossings if which(each)]
        for crossing in chosen:
            crossing.part()
        async with self._opened:
            self._opened.notify_all()
        for crossing in chosen:
            await crossing.over.wait()

    async def _forget(self, which: Which) -> None:
        for crossing in [each for each in self._crossings if which(each)]:
            crossing.forgotten = True
            crossing.server.transport.abort()

    async def _cut(self) -> None:
        if self._listener:
            self._listener.close()
            self._listener = None
            if self._path:
                self._path.unlink(missing_ok=True)
        await self._drop(anybody)

    async def _open(self) -> None:
        self._frozen = None
        async with self._opened:
            self._opened.notify_all()
        await self._listen()


def _write(to: asyncio.StreamWriter, data: bytes) -> None:
    if not to.is_closing():
        to.write(data)
