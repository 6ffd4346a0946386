"""Contestant: the kernel and the server alone. Nobody who stops processes through Redis is faster than these."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.measure import QUIET_S, SIGNAL_TO_GONE
from tests.bench.program import program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.measure import Case
    from tests.bench.site import Site

SOURCE = Path(__file__).with_suffix(".c")
COMPILER = "gcc"
COMPILE_S = 60.0
ANSWER_S = 5.0
SETTLE_S = 30.0
CHANNEL = b"bench:floor"


class Floor:
    """Each host is a run of floor.c: its pidfds are open already, and all hosts are told at once through a pipe."""

    name = "floor: pidfds in C, no network"

    def __init__(self, site: Site, binary: Path) -> None:
        self._site = site
        self._binary = binary

    @classmethod
    def compiled(cls, site: Site) -> Floor | None:
        """Compile floor.c for this run; None where there is no gcc."""
        compiler = shutil.which(COMPILER)
        if compiler is None:
            return None
        binary = site.folder / "floor"
        subprocess.run([compiler, "-std=gnu11", "-O2", "-o", binary, SOURCE], check=True, timeout=COMPILE_S)
        return cls(site, binary)

    def takes(self, _case: Case) -> bool:
        """Any."""
        return True

    @contextmanager
    def start(self, case: Case, mark: str) -> Iterator[FloorRound]:
        """Start the hosts."""
        argv = (str(self._binary), str(case.each))
        with ExitStack() as stack:
            hosts = [
                stack.enter_context(
                    program(argv, self._site.environment(mark), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                )
                for _ in range(case.hosts)
            ]
            yield FloorRound(hosts)


class FloorRound:
    """One set of hosts."""

    def __init__(self, hosts: list[subprocess.Popen[bytes]]) -> None:
        self._hosts = hosts
        for host in hosts:
            assert host.stdout is not None
            if host.stdout.readline() != b"ready\n":
                raise RuntimeError("the floor did not start its children")

    def stop(self) -> None:
        """Tell each."""
        for host in self._hosts:
            assert host.stdin is not None
            host.stdin.write(b"stop\n")
            host.stdin.flush()

    def settle(self) -> dict[str, float]:
        """Take their word; an end that was not by SIGTERM is an error of theirs."""
        taken_us = []
        for host in self._hosts:
            assert host.stdout is not None
            taken_us.append(float(host.stdout.readline() or "nan"))
            if host.wait(SETTLE_S) != 0:
                raise RuntimeError(f"the floor ended with {host.returncode}")
        return {SIGNAL_TO_GONE: max(taken_us) / 1000}


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
