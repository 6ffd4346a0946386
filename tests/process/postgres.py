"""A PostgreSQL server in a folder of its own, on a Unix socket there: what starts it, its clients, and its own word."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.harness import until
from tests.process.programs import need

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "postgres"  # of Debian's package; the server refuses to run as root
PACKAGE = "postgresql"


class Postgres:
    """One data directory. Programs run as another user where this one is root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = folder / "data"
        self._prefix: tuple[str, ...] = ()
        if os.getuid() == 0:
            self._prefix = (need("setpriv", "util-linux"), f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
            shutil.chown(folder, USER)
        self._call("initdb", "-D", str(self._data), "-A", "trust", "-U", USER, "--no-sync", "--locale=C", "-E", "UTF8")

    @property
    def command(self) -> tuple[str, ...]:
        """What starts it in the foreground; with its logger, a process that is deaf to SIGTERM."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.folder,
            "logging_collector": "on",
            "log_directory": self.folder,
            "log_filename": "log",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return (*self._prefix, need("postgres", PACKAGE), "-D", str(self._data), *options)

    def ready(self) -> None:
        """Wait until it answers."""
        until(lambda: self._psql("select 1").returncode == 0, "PostgreSQL to answer")

    def ask(self, sql: str) -> str:
        """Give the answer to one statement, in a session of its own."""
        asked = self._psql(sql)
        assert asked.returncode == 0, asked.stderr
        return asked.stdout.strip()

    @contextmanager
    def session(self, sql: str) -> Iterator[subprocess.Popen[str]]:
        """Begin a session, and wait for the first line of its answer."""
        with subprocess.Popen(
            [*self._prefix, *self._psql_words()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
        ) as session:
            try:
                say(session, sql)
                yield session
            finally:
                session.kill()

    @property
    def log(self) -> str:
        """All that it has logged."""
        return (self.folder / "log").read_text()

    @property
    def state(self) -> str:
        """What the data directory says of how it was left."""
        lines = self._call("pg_controldata", str(self._data)).stdout.splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("Database cluster state"))

    @property
    def running(self) -> bool:
        """Tell whether its pid file is there: it is the last thing that a server takes away."""
        return (self._data / "postmaster.pid").exists()

    def _psql_words(self) -> tuple[str, ...]:
        return (need("psql", PACKAGE), "-h", str(self.folder), "-U", USER, "-XAtq")

    def _psql(self, sql: str) -> subprocess.CompletedProcess[str]:
        command = [*self._prefix, *self._psql_words(), "-c", sql]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)

    def _call(self, name: str, *args: str) -> subprocess.CompletedProcess[str]:
        command = [*self._prefix, need(name, PACKAGE), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=self.folder)


@contextmanager
def created() -> Iterator[Postgres]:
    """Give a server that has not been started; not in pytest's folders, which no other user can enter."""
    need("initdb", PACKAGE)
    with TemporaryDirectory(prefix="coord-postgres-") as folder:
        yield Postgres(Path(folder))


def say(session: subprocess.Popen[str], sql: str) -> str:
    """Send statements to a session, and give one line of what it answers."""
    assert session.stdin
    assert session.stdout
    session.stdin.write(f"{sql}\n")
    session.stdin.flush()
    return session.stdout.readline().strip()
