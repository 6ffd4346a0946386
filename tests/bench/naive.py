"""Contestant: the loop that everybody writes, `for p in procs: p.terminate(); p.join(timeout)`.

One process per host, all told at once through a pipe; no network. The children are `multiprocessing.Process`es that
became a plain `sleep`.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.bench.program import program
from tests.bench.site import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.measure import Case
    from tests.bench.site import Site

JOIN_S = 10.0
SETTLE_S = 30.0


class Naive:
    """Each host is a run of this file."""

    name = "naive terminate-and-join loop"

    def __init__(self, site: Site) -> None:
        self._site = site

    def takes(self, _case: Case) -> bool:
        """Any."""
        return True

    @contextmanager
    def start(self, case: Case, mark: str) -> Iterator[NaiveRound]:
        """Start the hosts."""
        argv = (sys.executable, "-m", "tests.bench.naive", str(case.each))
        with ExitStack() as stack:
            hosts = [
                stack.enter_context(program(argv, self._site.environment(mark), cwd=ROOT, stdin=subprocess.PIPE))
                for _ in range(case.hosts)
            ]
            yield NaiveRound(hosts)


class NaiveRound:
    """One set of hosts."""

    def __init__(self, hosts: list[subprocess.Popen[bytes]]) -> None:
        self._hosts = hosts

    def stop(self) -> None:
        """Tell each."""
        for host in self._hosts:
            assert host.stdin is not None
            host.stdin.write(b"stop\n")
            host.stdin.flush()

    def settle(self) -> dict[str, float]:
        """Wait for their ends."""
        for host in self._hosts:
            if host.wait(SETTLE_S) != 0:
                raise RuntimeError(f"the loop ended with {host.returncode}")
        return {}


def _be_host(count: int) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=os.execlp, args=("sleep", "sleep", "1000")) for _ in range(count)]
    for child in children:
        child.start()
    sys.stdin.readline()
    for child in children:
        child.terminate()
        child.join(JOIN_S)


if __name__ == "__main__":
    _be_host(int(sys.argv[1]))
