"""A server that a test takes away and brings back: paused, or killed and started again with what it kept."""

from __future__ import annotations

import os
import select
import signal
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.record.servers import raw, redis_server, serving

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

START_S = 20.0
DURABLE = {"appendonly": "yes", "appendfsync": "always"}
EVERY_SECOND = {"appendonly": "yes", "appendfsync": "everysec"}
FORGETFUL: dict[str, str] = {}


@dataclass
class Outage:
    """One server on a Unix socket in a folder."""

    folder: Path
    kind: str = "valkey"
    config: Mapping[str, str] = field(default_factory=lambda: DURABLE)
    within: tuple[str, ...] = ()  # a command that starts it; it is Redis, then
    _stack: ExitStack = field(default_factory=ExitStack)
    _process: int = -1  # a pidfd: a number could be somebody else's by now

    @property
    def url(self) -> str:
        """The same before and after."""
        return f"unix://{self.folder}/server.sock"

    def start(self) -> None:
        """Start it, with what it wrote before."""
        (self.folder / "server.sock").unlink(missing_ok=True)
        if self.within:
            self._stack.enter_context(redis_server(self.folder / "server.sock", self.config, self.within))
        else:
            self._stack.enter_context(serving(self.kind, self.folder, **self.config))
        with raw(self.url) as client:
            info: Any = client.info("server")
        self._let_go()
        self._process = os.pidfd_open(int(info["process_id"]))

    def pause(self) -> None:
        """Let it hang: connections stay, and nobody gets an answer."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Take it away: connections break, and new ones are refused."""
        self._signal(signal.SIGKILL)
        assert select.select([self._process], [], [], START_S)[0], "the server to be gone"

    def close(self) -> None:
        """End it, also one that hangs."""
        if self._process >= 0 and not select.select([self._process], [], [], 0)[0]:
            self.resume()
        self._stack.close()
        self._let_go()

    def _signal(self, number: signal.Signals) -> None:
        signal.pidfd_send_signal(self._process, number)

    def _let_go(self) -> None:
        if self._process >= 0:
            os.close(self._process)
            self._process = -1
