"""The Redis behind the URL: what it is, how fast it answers, and which of its settings endanger the record."""

from __future__ import annotations

import re
import statistics
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from coord.errors import CoordError
from coord.finding import fail, ok, warn
from coord.messages import MESSAGE_MAX_BYTES
from coord.record import BEAT_S, Record
from coord.redis_errors import shown
from coord.render.text import milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from coord.finding import Finding
    from coord.ledger import Ledger

OLDEST = (6, 2)
ASKED = 20  # times
ASKING_S = 2.0  # what asking so often may take in all; a slow server is asked less often
SLOW_S = 0.1
STALL_S = 1.0
NOBODY = "coord-doctor"  # a job that nobody starts
IN_ITS_FILE = "and in its configuration file"
LOOK = "Look where the server is configured"


class Server:
    """Asks one server. What it does not tell raises CoordError."""

    def __init__(self, ledger: Ledger, url: str) -> None:
        self._ledger = ledger
        self._url = url

    def reach(self) -> None:
        """Raise CoordError unless it answers."""
        self._ledger.ask("TIME")

    def kind(self) -> Finding:
        """Name the server and its version."""
        name = "Valkey" if "valkey_version" in self._info else "Redis"
        version = self._told(f"{name.lower()}_version")
        mode = self._info.get("redis_mode", "standalone")
        found = f"{name} {version}{'' if mode == 'standalone' else f', {mode}'} at {shown(self._url)}"
        if name == "Redis" and tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST:
            return fail(f"{found} is too old", "Use Redis 6.2 or newer, or Valkey")
        if self._info.get("role") == "slave":
            return fail(f"{found} is a replica", "Give the address of the primary")
        return ok(found)

    def persistence(self) -> Finding:
        """Tell what a crash of the server would lose: with a request, its fence is lost, too."""
        if self._info.get("aof_enabled"):
            return _append_only(self._config_or_none("appendfsync"))
        saves = self._config_or_none("save")
        advice = f"CONFIG SET appendonly yes, {IN_ITS_FILE}"
        if saves is None:
            saved = "no append-only file (snapshots: unknown)"
        elif saves:
            saved = f"only snapshots (save {saves})"
        else:
            saved = "nothing is saved"
        return warn(f"{saved}: after a crash of the server, jobs that were shut down may start again", advice)

    def eviction(self) -> Finding:
        """Tell whether the server may drop keys of ours when its memory is full; all of ours have a lifetime."""
        limit, policy = int(self._told("maxmemory")), self._told("maxmemory_policy")
        found = f"{policy}, {'no maxmemory' if not limit else f'maxmemory {limit >> 20:,} MiB'}"
        if policy == "noeviction":
            return ok(found)
        gone = int(self._info.get("evicted_keys", 0))
        danger = "it may drop" if limit else "with a maxmemory, it would drop"
        return warn(
            f"{found}: {danger} a job's record and its fence{f' ({gone:,} keys are gone already)' if gone else ''}",
            f"CONFIG SET maxmemory-policy noeviction, {IN_ITS_FILE}; or a server of its own for coord",
        )

    def latency(self) -> Finding:
        """Time a round trip and a script; a request reaches the agents no faster."""
        snapshot = Record(NOBODY).snapshot()
        pings, scripts = _timed(lambda: self._ledger.ask("PING")), _timed(lambda: self._ledger.run(snapshot))
        found = f"PING {_spread(pings)}; a script {_spread(scripts)}"
        if statistics.median(pings) > SLOW_S or max(pings) > STALL_S:
            return warn(
                f"{found}: every signal waits for that", "Look for the cause on the way, or use a nearer server"
            )
        return ok(found)

    def output_buffers(self) -> Finding:
        """Tell when the server cuts off an agent that does not read what it is sent."""
        words = self._config("client-output-buffer-limit").split()
        hard, soft, seconds = map(int, words[words.index("pubsub") + 1 :][:3])
        found = f"pubsub {_mib(hard)}, or {_mib(soft)} for {seconds} s"
        if any(0 < limit < MESSAGE_MAX_BYTES for limit in (hard, soft)):
            return warn(
                f"{found}: agents are cut off by one long request, and read it from the record seconds later",
                f"CONFIG SET client-output-buffer-limit 'pubsub 32mb 8mb 60', {IN_ITS_FILE}",
            )
        return ok(f"{found}: more than enough for agents")

    def connections(self) -> Finding:
        """Tell whether the server ends connections that are quiet, and notices dead ones."""
        timeout_s, keepalive_s = int(self._config("timeout")), int(self._config("tcp-keepalive"))
        found = f"timeout {timeout_s} s, tcp-keepalive {keepalive_s} s"
        if 0 < timeout_s <= 2 * BEAT_S:
            return warn(f"{found}: agents are cut off between two heartbeats", f"CONFIG SET timeout 0, {IN_ITS_FILE}")
        if keepalive_s == 0 and not self._url.startswith("unix:"):
            return warn(f"{found}: dead agents stay connected", f"CONFIG SET tcp-keepalive 300, {IN_ITS_FILE}")
        return ok(found)

    def ahead_s(self) -> float:
        """Give how far this host's clock is ahead of the server's, by the quickest of some answers."""
        return min((self._compared() for _ in range(5)), key=lambda each: each[0])[1]

    def _compared(self) -> tuple[float, float]:
        sent_s = time.monotonic()
        seconds, micros = self._ledger.ask("TIME")
        here_s, took_s = time.time(), time.monotonic() - sent_s
        return took_s, here_s - took_s / 2 - (int(seconds) + int(micros) / 1e6)

    @cached_property
    def _info(self) -> dict[str, Any]:
        return self._asked("INFO")

    def _told(self, name: str) -> str:
        if name not in self._info:
            raise CoordError(f"INFO does not tell {name}", LOOK)
        return str(self._info[name])

    def _config(self, name: str) -> str:
        answer = self._asked("CONFIG GET", name)
        if name not in answer:
            raise CoordError(f"CONFIG GET does not tell {name}", LOOK)
        return str(answer[name])

    def _asked(self, question: str, *words: str) -> dict[str, Any]:
        """Raises CoordError where it may not be asked, as CONFIG on most managed servers."""
        try:
            answer: dict[str, Any] = self._ledger.ask(question, *words)
        except CoordError as error:
            raise CoordError(f"{' '.join((question, *words))} was not answered: {error.message}", LOOK) from error
        return answer

    def _config_or_none(self, name: str) -> str | None:
        try:
            return self._config(name)
        except CoordError:
            return None


def _append_only(fsync: str | None) -> Finding:
    loses = {
        "always": "a crash of the server loses nothing",
        "everysec": "a crash of its machine loses at most a second",
        None: "how often it is written to the disk is unknown",
    }.get(fsync)
    if loses is None:
        return warn(
            f"append-only file, fsync {fsync}: a crash of its machine loses as much as the system had not written",
            f"CONFIG SET appendfsync everysec, {IN_ITS_FILE}",
        )
    return ok(f"append-only file{f', fsync {fsync}' if fsync else ''}: {loses}")


def _timed(ask: Callable[[], object]) -> list[float]:
    times: list[float] = []
    while len(times) < ASKED and sum(times) < ASKING_S:
        began_s = time.monotonic()
        ask()
        times.append(time.monotonic() - began_s)
    return times


def _spread(times: list[float]) -> str:
    return f"{_ms(statistics.median(times))}, at most {_ms(max(times))}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds < 0.001 else milliseconds(seconds * 1000)


def _mib(count: int) -> str:
    if count == 0:
        return "no limit"
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count:,} bytes"
