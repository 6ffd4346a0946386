"""A shutdown on two hosts, one of which holds out: its grace is the time in which a test does what it does to Redis."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.harness import NASTY, until

if TYPE_CHECKING:
    from tests.harness import Ended, Lab, Started

GRACE_S = 3.0
LATE_S = 10.0  # far more than a loaded machine needs; far less than any lease, plan and failover in a row


@dataclass
class Stop:
    """A shutdown under way: host b was asked, and has not left."""

    lab: Lab
    job: str
    runs: list[Started]
    caller: Started

    def end(self) -> Ended:
        """Wait for the verdict and for the hosts."""
        ended = self.caller.end(60)
        for run in self.runs:
            run.end(60)
        return ended


def begin(lab: Lab, job: str, *options: str) -> list[Started]:
    """Start a command that obeys on host a, and one that holds out on host b."""
    deaf = (sys.executable, NASTY, "deaf", "")
    plan = ("--grace", f"{GRACE_S:g}s", "--kill-wait", "2s", *options)
    runs = [lab.run(job, "sleep", "600", host="a", options=plan), lab.run(job, *deaf, host="b", options=plan)]
    assert runs[1].popen.stdout
    assert runs[1].popen.stdout.readline() == b"ready\n", "before, it is not deaf yet"
    return runs


def stop(lab: Lab, job: str, *options: str) -> Stop:
    """Shut it down; gives it once the record has the request, and host b's word that it was asked."""
    runs = begin(lab, job)
    caller = lab.start("shutdown", "--job-id", job, "--json", *options, host="there")
    until(lambda: not caller.running or state(lab, job, "b") == "stopping", "host b to have been asked")
    return Stop(lab, job, runs, caller)


def state(lab: Lab, job: str, host: str) -> str:
    """Give what the record says of a host."""
    return str(agent(lab.status(job), host)["state"])


def agent(document: Any, host: str) -> Any:
    """Give a host's part of the document."""
    return next(each for each in document["agents"] if each["host"] == host)


def all_is_told(ended: Ended) -> None:
    """The caller was told all: what was asked left, what held out was killed when it was due, and all are gone."""
    assert ended.code == 0, (ended.out, ended.err)
    document = ended.json
    assert (document["verdict"], document["state"]) == ("forced", "stopped")
    a, b = agent(document, "a"), agent(document, "b")
    assert [each["outcome"] for each in a["processes"]] == ["terminated"]
    assert [each["outcome"] for each in b["processes"]] == ["killed"]
    assert GRACE_S * 1000 <= b["all_gone_ms"] < (GRACE_S + LATE_S) * 1000, "its signals waited for Redis"
