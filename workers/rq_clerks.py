"""Starts clerks: short-lived processes that speak RQ for an agent, which does not; they belong to nobody's tree."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from workers.signals import hold, send

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

MARGIN_S = 15.0  # beyond what it was given to do


class Clerks:
    """`spare`: where their pids are put down, for who looks at the agent's processes."""

    def __init__(self, spare: set[int], facts: dict[str, Any], log: FilteringBoundLogger) -> None:
        self._spare = spare
        self._facts = facts
        self._log = log

    async def do(self, what: str, within_s: float, **facts: object) -> dict[str, Any]:
        """Have it done; gives what the clerk says, nothing when it could not."""
        argv = [sys.executable, "-P", "-m", "workers.rq_clerk"]
        popen = _start(argv)
        self._spare.add(popen.pid)
        handle = hold(popen.pid)
        told = json.dumps({"do": what, **self._facts, **facts}).encode()
        try:
            async with asyncio.timeout(within_s + MARGIN_S):
                said = await asyncio.to_thread(_talk, popen, told)
        except TimeoutError:
            with suppress(ProcessLookupError):
                send(popen.pid, handle, 9)
            said = b""
        finally:
            self._spare.discard(popen.pid)
        try:
            return dict(json.loads(said))
        except ValueError:
            self._log.error("clerk.failed", what=what, **{k: v for k, v in facts.items() if k in {"job_id", "workers"}})
            return {}


def _start(argv: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)


def _talk(popen: subprocess.Popen[bytes], told: bytes) -> bytes:
    if popen.stdin:
        with suppress(BrokenPipeError):
            popen.stdin.write(told)
            popen.stdin.close()
    said = b""
    if popen.stdout:
        said = popen.stdout.read()
        popen.stdout.close()
    popen.returncode = 0  # the agent reaps all its children
    return said
