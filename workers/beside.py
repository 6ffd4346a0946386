"""The program's end of its guardian: starts `scope_guard` beside the program, and again if it dies."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from workers import estate, forks
from workers.link import Link
from workers.signals import hold
from workers.starting import signals_held

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from workers.estate import Estate

AGAIN_S = 1.0  # not more often: something may be wrong with it


class Beside:
    """Use: `start`, then `again_if_it_dies` in the agent's loop, then `over` or `close`.

    `spare`: takes the guardian's pid, since it is none of the job's.
    """

    def __init__(self, spare: set[int], log: FilteringBoundLogger) -> None:
        self.link = Link()
        self._spare = spare
        self._log = log
        self._popen: subprocess.Popen[bytes] | None = None
        self._estate: Estate | None = None

    def start(self, watch: dict[str, Any], redis_url: str | None) -> None:
        """Start it; what it is told waits for it, and is there even if this program dies before it listens.

        `watch`: what it has to know. Raises OSError.
        """
        self._watch, self._redis_url = watch, redis_url
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        forks.private.add(ours)
        written = estate.path_of(watch["agent_id"])
        Link(ours).tell("watch", **watch, redis_url=redis_url, estate=str(written) if written else None)
        try:
            with theirs:
                self._popen = _start(theirs)
        except OSError:
            forks.close(ours)
            raise
        self._began_s = time.monotonic()  # as the loop's time
        self._spare.add(self._popen.pid)
        self.link.end = ours
        self._estate = estate.declare(watch, keepers=(os.getpid(), self._popen.pid))

    def again_if_it_dies(self) -> None:
        """Watch it, in the agent's loop."""
        if self.link.end:
            asyncio.get_running_loop().add_reader(self.link.end, self._died, self.link.end)

    def _died(self, end: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(end)
        if self._popen and self.link.end:
            self._log.warning("guardian.lost", pid=self._popen.pid, hint="it is started again")
            forks.close(end)
            self.link.end = None
            self._popen.wait()
            self._spare.discard(self._popen.pid)
            loop.call_at(max(loop.time(), self._began_s + AGAIN_S), self._start_again)

    def _start_again(self) -> None:
        try:
            self.start(self._watch, self._redis_url)
        except OSError:  # out of memory, processes or descriptors: perhaps not for long
            asyncio.get_running_loop().call_later(AGAIN_S, self._start_again)
        else:
            self.again_if_it_dies()

    def over(self, *, proved: bool) -> None:
        """Nothing is left for it to do."""
        if self._popen:
            self._popen.kill()
        if self._estate and proved:
            self._estate.remove()

    def close(self) -> None:
        """Let it see to what is left, if anything is."""
        if self.link.end:
            forks.close(self.link.end)
            self.link.end = None
        if self._popen:
            self._popen.wait()


def _start(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """Start it in a session of its own, deaf to all signals from the start: what ends the program is not for it."""
    handles = [pidfd for pidfd in (hold(os.getpid()),) if pidfd is not None]
    try:
        with signals_held():
            return subprocess.Popen(
                # -P: whatever the program's folder holds, it is not what we mean
                [sys.executable, "-P", "-m", "workers.scope_guard", *map(str, handles)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                pass_fds=handles,
                start_new_session=True,
            )
    finally:
        for fd in handles:
            os.close(fd)
