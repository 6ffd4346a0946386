"""Reads what `coord doctor` found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.harness import COORD

if TYPE_CHECKING:
    from tests.harness import Ended, Lab

STATUSES = ["fail", "warn", "unknown", "ok"]
HOST = {
    *("proof", "cgroup", "pidfd", "pid-1", "proc", "open-files", "processes", "runtime-dir", "shared-memory"),
    *("system", "clock"),
}
SERVER = {
    *(
        "redis",
        "record",
        "channel",
        "persistence",
        "eviction",
        "latency",
        "output-buffers",
        "connections",
        "topology",
        "rq",
    ),
}


def found(ended: Ended) -> dict[str, dict[str, Any]]:
    """Give the findings by name, after a look at what holds for all of them."""
    assert "Traceback" not in ended.err, ended.err
    findings = ended.json["findings"]
    for finding in findings:
        assert list(finding) == ["name", "status", "found", "advice"]
        assert finding["found"].isprintable()
        assert finding["found"]
    statuses = [finding["status"] for finding in findings]
    assert statuses == sorted(statuses, key=STATUSES.index), "the most important first"
    assert ended.code == int("fail" in statuses)
    return {finding["name"]: finding for finding in findings}


def doctor(
    lab: Lab, *words: str, under: tuple[str, ...] = (), given: dict[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Run it, under another program where one is given, and give what it found. `given`: its environment."""
    call = (*under, COORD, "doctor", "--json", *words)
    return found(lab.call(*call[1:], program=call[0], **(given or {})))
