"""Who is weighed: each a supervisor with one `sleep` under it, set up as its own manual shows it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from rq import Queue

from tests.bench.onlooker import MARK, children, kill_marked, marked, sleeps_of
from tests.bench.program import program
from tests.bench.rq_workers import PROJECT
from tests.bench.site import BIN, ROOT
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.site import Site

# with the control socket that `supervisorctl` needs: coord's agent can be reached, too
SUPERVISORD = """
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile={folder}/supervisord.pid
[unix_http_server]
file={folder}/supervisord.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[program:sleep]
command=sleep 1000
"""
CIRCUSD = """
[circus]
endpoint=ipc://{folder}/circus
pubsub_endpoint=ipc://{folder}/circus-events
[watcher:sleep]
cmd=sleep 1000
copy_env=True
"""
SPAWN = "import os; os.spawnlp(os.P_WAIT, 'sleep', 'sleep', '1000')"


@dataclass(frozen=True, slots=True)
class Supervisor:
    """`roles`: what its processes are, the one that a person starts first. `argv(site, mark)` makes the command."""

    name: str
    roles: tuple[str, ...]
    command: str  # what must be installed
    argv: Callable[[Site, str], tuple[str, ...]]

    @property
    def installed(self) -> bool:
        """Tell whether it is here."""
        return (BIN / self.command).exists()

    @contextmanager
    def start(self, site: Site, mark: str) -> Iterator[dict[str, int]]:
        """Start it, wait for its sleep, give its own processes: role -> pid. The sleep is not among them."""
        argv = (str(BIN / self.command), *self.argv(site, mark))
        environment = site.environment(mark, COORD_REDIS_URL=site.url, COORD_HOST="h0")
        with program(argv, environment, cwd=ROOT) as started:
            try:
                with children(mark, 1) as pidfds:
                    del pidfds  # it runs: that is all
                # what a killed run before it left is seen to by a short-lived process of its own
                until(lambda: len(self._others(started.pid, mark)) == len(self.roles) - 1, "its processes alone")
                yield dict(zip(self.roles, (started.pid, *self._others(started.pid, mark)), strict=True))
            finally:
                kill_marked(mark)  # asked to leave, RQ's worker would wait for the sleep's end

    def _others(self, pid: int, mark: str) -> list[int]:
        return sorted(set(marked(mark)) - {pid, *sleeps_of(mark)})


def _coord(_site: Site, mark: str) -> tuple[str, ...]:
    return ("run", "--job-id", mark, "--", "sleep", "1000")


def _rq(site: Site, mark: str) -> tuple[str, ...]:
    with redis.Redis.from_url(site.url) as connection:
        Queue(mark, connection=connection).enqueue("bench_jobs.sleeps", MARK, mark)
    return ("worker", "--quiet", "--url", site.url, "--path", str(PROJECT), mark)


def _supervisord(site: Site, _mark: str) -> tuple[str, ...]:
    path = site.folder / "supervisord.conf"
    path.write_text(SUPERVISORD.format(folder=site.folder))
    return ("--configuration", str(path))


def _circusd(site: Site, _mark: str) -> tuple[str, ...]:
    path = site.folder / "circus.ini"
    path.write_text(CIRCUSD.format(folder=site.folder))
    return (str(path),)


def _interpreter(_site: Site, _mark: str) -> tuple[str, ...]:
    return ("-c", SPAWN)


SUPERVISORS = (
    Supervisor("coord", ("guardian", "agent"), "coord", _coord),
    Supervisor("supervisord", ("supervisord",), "supervisord", _supervisord),
    Supervisor("circusd", ("circusd",), "circusd", _circusd),
    Supervisor("coord worker", ("guardian", "agent", "worker", "work-horse"), "coord", _rq),
    Supervisor("rq worker", ("worker", "work-horse"), "rq", _rq),
    Supervisor("floor: an interpreter that waits", ("python",), Path(sys.executable).name, _interpreter),
)
