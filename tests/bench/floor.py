"""Contestant: the kernel and the server alone. Nobody who stops processes through Redis is faster than these."""

from __future__ import annotations

import signal
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.bench.measure import QUIET_S
from tests.bench.onlooker import children
from tests.bench.program import program, sleeps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.measure import Case
    from tests.bench.site import Site

ANSWER_S = 5.0
CHANNEL = b"bench:floor"


class Floor:
    """The pidfds are open already: a signal to each, and nothing else."""

    name = "floor: SIGTERM by pidfd, no network"

    def __init__(self, site: Site) -> None:
        self._site = site

    def takes(self, _case: Case) -> bool:
        """Any."""
        return True

    @contextmanager
    def start(self, case: Case, mark: str) -> Iterator[FloorRound]:
        """All children under one shell: here hosts make no difference."""
        with (
            program(sleeps(case.total), self._site.environment(mark)),
            children(mark, case.total) as pidfds,
        ):
            yield FloorRound(pidfds)


class FloorRound:
    """One set of children."""

    def __init__(self, pidfds: Sequence[int]) -> None:
        self._pidfds = pidfds

    def stop(self) -> None:
        """Signal them."""
        for pidfd in self._pidfds:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)

    def settle(self) -> dict[str, float]:
        """Nothing to wait for."""
        return {}


def publish_ms(site: Site) -> float:
    """Time a bare PUBLISH until a subscriber has it: two sockets, no client library."""
    with _connected(site) as ear, _connected(site) as mouth:
        ear.sendall(b"SUBSCRIBE %s\r\n" % CHANNEL)
        _read_until(ear, b":1\r\n")
        time.sleep(QUIET_S)  # as before a stop: asleep, the server takes ten times as long to wake as when it is busy
        began_s = time.monotonic()
        mouth.sendall(b"PUBLISH %s stop\r\n" % CHANNEL)
        _read_until(ear, b"stop\r\n")
        return (time.monotonic() - began_s) * 1000


def _read_until(connection: socket.socket, end: bytes) -> None:
    read = b""
    while not read.endswith(end):
        part = connection.recv(4096)
        if not part:
            raise RuntimeError(f"the server closed the connection after {read!r}")
        read += part


def _connected(site: Site) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(ANSWER_S)
    connection.connect(site.url.removeprefix("unix://"))
    return connection
