"""A runtime directory of one test alone, and an end to whatever it started there."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from coord.embedded import ensure
from coord.ledger import Ledger
from tests.harness import WAIT_S, leftovers_in, until
from tests.record.desk import Desk
from tests.record.servers import raw

if TYPE_CHECKING:
    from collections.abc import Iterator

KEEPER = "coord.embedded"


@dataclass(frozen=True)
class Runtime:
    """One user's runtime directory."""

    folder: Path

    @property
    def socket(self) -> Path:
        return self.folder / "valkey.sock"

    @property
    def keepers(self) -> list[int]:
        return [pid for pid in self.processes if KEEPER in _words(pid)]

    @property
    def servers(self) -> list[int]:
        return [pid for pid in self.processes if KEEPER not in _words(pid)]

    @property
    def processes(self) -> list[int]:
        """Every process that has to do with this directory."""
        return leftovers_in(str(self.folder))

    def info(self, name: str) -> Any:
        """What the server says of itself; starts it if it is not there."""
        with raw(ensure()) as client:
            return client.info()[name]

    def kill(self, pid: int) -> None:
        """SIGKILL one of our processes: held first, looked at again, killed, and seen dead with all its locks."""
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                assert pid in self.processes
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                # its command line is gone earlier than its files are
                assert select.select([handle], [], [], WAIT_S)[0]
            finally:
                os.close(handle)

    def close(self) -> None:
        """End the keeper first, or it starts the server again."""
        for pids in (self.keepers, self.servers):
            for pid in pids:
                with contextlib.suppress(AssertionError):
                    self.kill(pid)
        until(lambda: not self.processes, "everything in the runtime directory to be gone")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """A runtime directory where nothing runs yet; its path is short, since a socket's must be."""
    with TemporaryDirectory(prefix="coord-") as folder:
        monkeypatch.setenv("COORD_RUNTIME_DIR", folder)
        monkeypatch.setenv("COORD_EMBEDDED_IDLE_S", "60")
        monkeypatch.delenv("COORD_REDIS_URL", raising=False)
        runtime = Runtime(Path(folder))
        try:
            yield runtime
        finally:
            runtime.close()


@pytest.fixture
def fence(runtime: Runtime, job: str) -> Fence:
    """A job that can be forbidden, and asked for whether it still is, whatever became of the server."""
    del runtime
    return Fence(job)


@dataclass(frozen=True)
class Fence:
    """Each call is a command of its own: it finds the server, or has it started."""

    job: str

    def put(self) -> None:
        with self._desk() as desk:
            assert desk.request(fence_unknown=True).word == "created"

    @property
    def holds(self) -> bool:
        with self._desk() as desk:
            return desk.join("late").word == "fenced"

    @contextlib.contextmanager
    def _desk(self) -> Iterator[Desk]:
        url = ensure()
        ledger = Ledger(url)
        with raw(url) as client:
            yield Desk(ledger, self.job, client)
        ledger.close()


def _words(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
