"""A job on hosts that are about to have a bad day: real agents on a server of this test alone, and what they note."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coord.coordinator import new_request
from coord.keys import CONTROL_CHANNEL, JOB_KEYS, job_keys
from coord.ledger import Ledger, script_text
from coord.messages import Cause
from coord.record import LEASE_S, Record
from tests.harness import COORD, Lab, until
from tests.record.servers import raw
from tests.strait import Strait

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from redis.client import Pipeline

    from tests.harness import Ended, Started
    from tests.outage import Outage

RANK = str(Path(__file__).with_name("rank.py"))
DEAF = str(Path(__file__).with_name("deaf.py"))
TRACE = "Traceback"


@dataclass
class Rank:
    """One host's command."""

    host: str
    run: Started
    note: Path

    @property
    def asked_s(self) -> float | None:
        """When its child was asked to leave; None: it was not."""
        text = self.note.read_text() if self.note.exists() else ""
        return float(text) if text else None

    def obeyed(self, since_s: float) -> float:
        """Wait until its child was asked; give the seconds from `since_s` to that."""
        until(lambda: self.asked_s, f"host {self.host} to obey")
        assert self.asked_s
        return self.asked_s - since_s

    def end(self) -> Ended:
        """Wait for the end of its agent: no traceback, whatever happened."""
        ended = self.run.end()
        assert TRACE not in ended.err, ended.err
        return ended


@dataclass
class Stage:
    """One job, one server. `tell(name, value)`: keeps a figure."""

    lab: Lab
    outage: Outage
    job: str
    folder: Path
    tell: Callable[[str, object], None]
    ranks: list[Rank] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def redis(self) -> redis.Redis:
        """A connection that knows nothing of coord."""
        return self.stack.enter_context(raw(self.outage.url))

    def strait(self) -> Strait:
        """Have a way to the server that can be blocked."""
        strait = Strait(self.outage.url)
        self.stack.callback(strait.close)
        return strait

    def begin(
        self,
        host: str,
        *options: str,
        url: str = "",
        guards: str = "",
        within: tuple[str, ...] = (),
        lingers_s: float = 0.0,
    ) -> Rank:
        """Start a host's command; it runs, and the record has it.

        `guards`: what its agent goes without; `within`: a command that starts it; `lingers_s`: how long the child
        takes to leave.
        """
        note = self.folder / f"{host}.note"
        child = (sys.executable, RANK, str(note), str(lingers_s))
        words = [*within, *_coord(guards), "run", "--job-id", self.job, *options, "--", *child]
        run = self.lab.start(*words[1:], host=host, program=words[0], COORD_REDIS_URL=url or self.outage.url)
        self.ranks.append(Rank(host, run, note))
        until(lambda: not run.running or (note.exists() and self.agent(host).get("processes")), f"host {host} to begin")
        assert run.running, run.end().err
        return self.ranks[-1]

    def agent(self, host: str) -> dict[str, Any]:
        """What the record says of one host; empty when it says nothing."""
        document = self.lab.status(self.job) or {"agents": ()}
        return next((agent for agent in document["agents"] if agent["host"] == host), {})

    def follow(self, *options: str, guards: str = "") -> Started:
        """Start `coord shutdown` of the job."""
        words = [*_coord(guards), "shutdown", "--job-id", self.job, "--json", *options]
        return self.lab.start(*words[1:], host="there", program=words[0])

    def shutdown(self, *options: str, guards: str = "") -> Ended:
        """Shut the job down, and give what the caller was told: never a traceback."""
        return told(self.follow(*options, guards=guards))

    def followed(self) -> bool:
        """Tell whether somebody waits for the next event, as who follows does nearly all the time."""
        return any(client["cmd"] == "xread" for client in self.redis.client_list())

    def put_request(self, pipe: Pipeline) -> None:
        """Add the request to a transaction, as the script makes it."""
        call = Record(self.job).request(new_request(self.job, Cause.OPERATOR, "ann@desk", "bad day"), None)
        pipe.eval(script_text(call.script), len(call.keys), *call.keys, *call.args)

    def heard_by(self) -> int:
        """How many listen on the control channel now, as the server knows it."""
        ((_, count),) = self.redis.pubsub_numsub(CONTROL_CHANNEL)
        return int(count)

    def beaten_us(self, host: str) -> int:
        """Redis time of the host's last heartbeat, in microseconds."""
        leases = job_keys(self.job)[JOB_KEYS.index("leases")]
        ends_us = self.redis.zscore(leases, self.agent(host)["agent_id"])
        return round(float(ends_us or 0) - LEASE_S * 1e6)

    @property
    def requested_us(self) -> int:
        """Redis time of the request, in microseconds."""
        return int(self.redis.hget(job_keys(self.job)[0], "requested_us") or 0)

    def close(self) -> None:
        """Close the ways."""
        self.stack.close()


def _coord(guards: str) -> tuple[str, ...]:
    return (sys.executable, DEAF, guards) if guards else (COORD,)


def told(started: Started) -> Ended:
    """Wait for a command's end: never a traceback."""
    ended = started.end(60.0)
    assert TRACE not in ended.err, ended.err
    return ended


def now_s() -> float:
    """Give the time in which children note when they were asked."""
    return time.monotonic()


def wait_until(time_s: float) -> None:
    """Let time pass: how long a cut lasts is what a test is about."""
    time.sleep(max(0.0, time_s - now_s()))


def stage_on(
    outage: Outage, job: str, folder: Path, runtime: Path, tell: Callable[[str, object], None]
) -> tuple[Stage, Ledger]:
    """Make a stage on a server that runs."""
    ledger = Ledger(outage.url)
    environment = {"COORD_REDIS_URL": outage.url, "COORD_RUNTIME_DIR": str(runtime)}
    return Stage(Lab(environment, ledger), outage, job, folder, tell), ledger
