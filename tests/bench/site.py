"""Where a run takes place: a directory, a server and a mark of its own. The user's own server is never touched."""

from __future__ import annotations

import compileall
import os
import secrets
import signal
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from coord.embedded import keep
from tests.bench.onlooker import MARK, kill_marked
from tests.bench.program import program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PACKAGES = ("coord", "workers", "tests/bench")
START_S = 20.0
IDLE_S = 60.0  # the server ends by itself after this long without us, even if we were killed


@dataclass(frozen=True, slots=True)
class Site:
    """`token` marks everything that this run starts, so that all of it is found again."""

    folder: Path
    token: str

    @property
    def url(self) -> str:
        """The server's address, the same for every contestant."""
        return f"unix://{self.folder}/valkey.sock"

    def environment(self, mark: str = "", **more: str) -> dict[str, str]:
        """Give the environment of a program: without the user's settings of coord, with a mark."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("COORD_")}
        own = {"COORD_RUNTIME_DIR": str(self.folder), MARK: mark or self.token}
        return {**inherited, **own, **more}


@contextmanager
def site() -> Iterator[Site]:
    """Start the server that `coord` embeds, as a child; end it, and whatever else is left of this run."""
    _compile()
    with tempfile.TemporaryDirectory(prefix="coord-bench-") as name:
        made = Site(Path(name), f"{os.getpid()}-{secrets.token_hex(4)}")
        try:
            with program([sys.executable, "-m", "tests.bench.site", name], made.environment(), cwd=ROOT) as keeper:
                _wait_for_server(made.url, keeper)
                yield made
        finally:
            kill_marked(made.token)


def _compile() -> None:
    """Do what pip did for the peers: where Python may write no bytecode, coord would be compiled at every start."""
    for package in PACKAGES:
        if not compileall.compile_dir(ROOT / package, quiet=1):
            raise RuntimeError(f"{package} could not be compiled")


def _wait_for_server(url: str, keeper: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_S
    with redis.Redis.from_url(url) as connection:
        while time.monotonic() < deadline_s and keeper.poll() is None:
            with suppress(redis.ConnectionError):
                connection.ping()
                return
            time.sleep(0.02)
    raise RuntimeError(f"the server did not start: its exit code is {keeper.poll()}")


if __name__ == "__main__":
    # leave by an exception, so that the keeper takes its server with it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    keep(Path(sys.argv[1]), IDLE_S)
