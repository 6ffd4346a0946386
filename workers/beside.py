"""The program's end of its guardian: starts `scope_guard` beside the program, and again if it dies."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from workers import estate
from workers.link import Link

if TYPE_CHECKING:
    from workers.estate import Estate


class Beside:
    """Use: `start`, then `again_if_it_dies` in the agent's loop, then `over` or `close`.

    `spare`: takes the guardian's pid, since it is none of the job's. `watch`: what it has to know.
    """

    def __init__(self, spare: set[int]) -> None:
        self.link = Link()
        self._spare = spare
        self._popen: subprocess.Popen[bytes] | None = None
        self._estate: Estate | None = None

    def start(self, watch: dict[str, Any], redis_url: str | None) -> None:
        """Start it; what it is told waits for it, and is there even if this program dies before it listens."""
        self._watch, self._redis_url = watch, redis_url
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._popen = subprocess.Popen([sys.executable, "-m", "workers.scope_guard"], stdin=theirs.fileno())
        self._spare.add(self._popen.pid)
        self.link.end = ours
        self._estate = estate.declare(watch, keepers=(os.getpid(), self._popen.pid))
        written = str(self._estate.path) if self._estate else None
        self.link.tell("watch", **watch, redis_url=redis_url, estate=written)

    def again_if_it_dies(self) -> None:
        """Watch it, in the agent's loop."""
        if self.link.end:
            asyncio.get_running_loop().add_reader(self.link.end, self._start_again, self.link.end)

    def _start_again(self, end: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(end)
        if self._popen and self.link.end:
            self.link.end.close()
            self._popen.wait()
            self.start(self._watch, self._redis_url)
            self.again_if_it_dies()

    def over(self, *, proved: bool) -> None:
        """Nothing is left for it to do."""
        self.link.tell("over")
        if self._estate and proved:
            self._estate.remove()

    def close(self) -> None:
        """Let it see to what is left, if anything is."""
        if self.link.end:
            self.link.end.close()
            self.link.end = None
        if self._popen:
            self._popen.wait()
