"""A virtual network: TCP connections between programs and the server, with their bad days.

A connection delivers its bytes in order or not at all: what is drawn is when they arrive, whether they stall, whether
both ends are told when it breaks, or nobody is (half-open).
"""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tests.sim.clock import WHERE, Program, StuckError

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.sim.clock import VirtualLoop

URL = "redis://server:6379"
NEVER_S = 1e9


class Session(Protocol):
    """The server's end of a connection."""

    def feed(self, data: bytes) -> None:
        """Take bytes."""

    def gone(self) -> None:
        """The connection has ended."""


@dataclass
class Link:
    """The way between one host and the server."""

    slow_s: float = 0.0005  # one way, the middle of what is drawn
    loss: float = 0.0  # share of requests with which the connection breaks, before or after they are carried out
    stalled_until_s: float = 0.0  # what is sent arrives after that
    cut_until_s: float = 0.0  # nothing arrives, and what was open never works again
    troubled_s: float = -NEVER_S  # until when something was wrong with it, or will be


class Network:
    """All links."""

    def __init__(self, loop: VirtualLoop, rng: Random) -> None:
        self.loop = loop
        self.rng = rng
        self.links: dict[str, Link] = {}
        self.wires: list[Wire] = []
        self.open: Callable[[Wire], Session] | None = None  # None: nobody listens
        self.nowhere = copy_context()  # the context of what belongs to no program
        loop.connect = self.connect

    def link(self, host: str) -> Link:
        """Give a host's link."""
        return self.links.setdefault(host, Link())

    async def connect(self, factory: Callable[[], Any], _host: str, _port: int) -> tuple[Wire, Any]:
        """Connect the program that asks. Raises ConnectionRefusedError; hangs while the link is cut."""
        program = WHERE.get()
        if program is None or program.dead:
            raise ConnectionRefusedError(111, "no such program any more")
        link = self.link(program.host)
        await asyncio.sleep(self._delay_s(link) * 2 + max(0.0, link.stalled_until_s - self.loop.now_s))
        if link.cut_until_s > self.loop.now_s:
            await asyncio.sleep(NEVER_S)
        if self.open is None:
            raise ConnectionRefusedError(111, "Connection refused")
        wire = Wire(self, link, program, factory())
        self.wires.append(wire)
        program.wires.append(wire)
        wire.session = self.open(wire)
        return wire, wire.protocol

    def delay_s(self, link: Link) -> float:
        """Draw how long something takes one way, from now."""
        return max(0.0, link.stalled_until_s - self.loop.now_s) + self._delay_s(link)

    def _delay_s(self, link: Link) -> float:
        return link.slow_s * (0.5 + self.rng.random())


class Wire(asyncio.Transport):
    """One connection, and the client's end of it."""

    def __init__(self, network: Network, link: Link, program: Program, protocol: Any) -> None:
        super().__init__()
        self.network = network
        self.link = link
        self.program = program
        self.protocol = protocol
        self.session: Session | None = None
        self.deaf = False  # half-open: nothing passes any more, and nobody is told
        self.closed = False
        self._context: Context = copy_context()
        self._up_s = self._down_s = 0.0  # when the last bytes arrive, so that no later ones overtake them
        protocol.connection_made(self)

    # -- the client's end ----------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        """Send to the server."""
        if self.closed or self._passes_nothing():
            return
        data = bytes(data)
        rng = self.network.rng
        before = after = False
        if self.link.loss and rng.random() < self.link.loss:
            before, after = rng.choice(((True, False), (False, True)))
        self._up_s = self._arrival_s(self._up_s)
        self._at(self._up_s, self.network.nowhere, self._arrive, data, before, after)

    def writelines(self, list_of_data: Any) -> None:
        """Send to the server."""
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """End it in order."""
        if not self.closed:
            self._over(None, told=not self._passes_nothing())

    abort = close

    def is_closing(self) -> bool:
        """Tell whether it ended."""
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """There is nothing to know."""
        del name
        return default

    def pause_reading(self) -> None:
        """Nothing here is that large."""

    def resume_reading(self) -> None:
        """Nothing was paused."""

    # -- the server's end ----------------------------------------------------------------------------------------------

    def answer(self, data: bytes, extra_s: float = 0.0, *, in_order: bool = True) -> None:
        """Send to the client. `in_order` False: it may overtake (a message of its own, not a part of a stream)."""
        if self.closed or self._passes_nothing():
            return
        arrival_s = self._arrival_s(self._down_s if in_order else 0.0) + extra_s
        self._down_s = max(self._down_s, arrival_s) if in_order else self._down_s
        self._at(arrival_s, self._context, self._receive, data)

    def break_off(self, error: Exception | None = None) -> None:
        """End it from the server's side, or in the middle; both ends are told."""
        if not self.closed:
            self._over(error or ConnectionResetError(104, "Connection reset by peer"), told=True)

    # -- what is between -----------------------------------------------------------------------------------------------

    def _passes_nothing(self) -> bool:
        if self.link.cut_until_s > self.network.loop.now_s:
            self.deaf = True
        return self.deaf

    def _arrival_s(self, last_s: float) -> float:
        return max(last_s, self.network.loop.now_s + self.network.delay_s(self.link))

    def _at(self, true_s: float, context: Context, callback: Any, *args: Any) -> None:
        loop = self.network.loop
        loop.after(true_s - loop.now_s, context, callback, *args)

    def _arrive(self, data: bytes, lost_before: bool, lost_after: bool) -> None:
        if self.closed or self._passes_nothing() or self.session is None:
            return
        if lost_before:
            self.break_off()
            return
        self.session.feed(data)
        if lost_after:
            self.break_off()

    def _receive(self, data: bytes) -> None:
        if not self.closed and not self._passes_nothing():
            self.protocol.data_received(data)

    def _over(self, error: Exception | None, *, told: bool) -> None:
        self.closed = True
        network = self.network
        if self in network.wires:
            network.wires.remove(self)
        network.loop.after(0.0, self._context, self.protocol.connection_lost, error)
        if told and self.session:
            network.loop.after(network.delay_s(self.link), network.nowhere, self.session.gone)


def no_context_of_a_program() -> None:
    """Raise when called from within a program: the world must not run on a host's clock."""
    if WHERE.get() is not None:
        raise StuckError("the world ran in a program's context")
