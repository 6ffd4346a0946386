"""What the guardian does when its agent died without a word: tells the record, stops what is left, reports on it.

Imported only then. Runs the same plan by the same rules as the agent (`stopper`), on a plain loop. Redis is left to a
process of its own (`obituary`), so that a server that hangs can't hold up the stopping.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from coord.errors import OWN_ERROR
from coord.messages import Cause
from coord.plan import Plan
from workers.events import Due
from workers.handles import signal_name
from workers.stop_file import StopFile
from workers.stopper import Stopper
from workers.stopping import Phase
from workers.tree import PROOF, Tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.handles import Handle
    from workers.stopping import State

TELL_S = 15.0  # how long the record may take to be told; then the host counts as not heard from


def inherit(told: dict[str, str], status: int, *, crashed: bool) -> int:
    """Stop what the agent left. `told`: its last message of each kind; `status`: its signal if `crashed`, else code."""
    watch: dict[str, Any] = json.loads(told["watch"])
    how = f"was killed by {signal_name(status)}" if crashed else f"exited with code {status}"
    death = {"signal": signal_name(status) if crashed else None, "exit_code": None if crashed else status, "how": how}
    heir = Heir(watch["label"])
    first = heir.tell({"watch": watch, "death": death})
    stop_file = StopFile(watch["stop_file"])
    why = {"cause": Cause.FAILURE, "by": watch["by"], "reason": f"the agent {how}"}
    state = heir.stop(
        _plan(watch, json.loads(told.get("stopping", "null"))),
        lambda state: stop_file.write({**why, "kill_at_s": state.kill_at_s}),
    )
    stop_file.remove()
    heir.wait_for(first)
    heir.wait_for(heir.tell({"watch": watch, "report": heir.report()}))
    _say(watch, how, state)
    return OWN_ERROR


class Heir:
    """The dead agent's processes, stopped on a plain loop."""

    def __init__(self, label: str) -> None:
        self._poll = select.poll()
        self._due_s = 0.0
        self._tellers: set[int] = set()
        self._tree = Tree(self._watch, self._forget, label=label, spare=self._tellers)

    def stop(self, plan: Plan, announce: Callable[[State], None]) -> State:
        """Run the plan; bounded by its total."""
        self._stopper = Stopper(
            plan,
            self._tree,
            clock=time.monotonic,
            wake=self._wake,
            announce=announce,
            note=lambda _: None,
            refused=lambda *_: None,
        )
        self._stopper.stop(plan)
        while self._stopper.state.phase is not Phase.OVER:
            self._poll.poll(max(0.0, self._due_s - time.monotonic()) * 1000)
            self._stopper.collect(self._tree.held)
            if time.monotonic() >= self._due_s:
                self._stopper.feed(Due())
        return self._stopper.state

    def report(self) -> dict[str, Any]:
        """Give what the record is to be told of it."""
        stopper = self._stopper
        now_s = time.monotonic()
        return {
            "proof": PROOF if stopper.state.proved else None,
            "processes": [process.to_dict() for process in stopper.state.reports()],
            "signal_age_s": None if stopper.first_signal_s is None else now_s - stopper.first_signal_s,
            "gone_age_s": now_s - stopper.all_gone_s if stopper.all_gone_s and stopper.state.proved else None,
        }

    def tell(self, what: dict[str, Any]) -> subprocess.Popen[bytes]:
        """Start a process that tells the record; it is none of the job's."""
        teller = subprocess.Popen([sys.executable, "-m", "workers.obituary"], stdin=subprocess.PIPE)
        self._tellers.add(teller.pid)
        if teller.stdin:
            with suppress(BrokenPipeError):
                teller.stdin.write(json.dumps(what).encode())
                teller.stdin.close()
        return teller

    def wait_for(self, teller: subprocess.Popen[bytes]) -> None:
        """Give it its time, and no more."""
        try:
            teller.wait(TELL_S)
        except subprocess.TimeoutExpired:
            teller.kill()

    def _wake(self, at_s: float) -> None:
        self._due_s = at_s

    def _watch(self, handle: Handle) -> None:
        self._poll.register(handle.fd, select.POLLIN)

    def _forget(self, handle: Handle) -> None:
        self._poll.unregister(handle.fd)


def _plan(watch: dict[str, Any], stopping: dict[str, Any] | None) -> Plan:
    """The agent's own plan; what is left of it when it was already at it. The monotonic clock is one for the host."""
    plan = Plan.from_list(watch["plan"])
    if stopping is None:
        return plan
    return Plan.of(max(0.0, stopping["kill_at_s"] - time.monotonic()), plan.kill_wait_s)


def _say(watch: dict[str, Any], how: str, state: State) -> None:
    count = len(state.processes)
    rest = "nothing of it is left" if state.proved else "not all of it is gone"
    line = f"coord: the agent of {watch['label']} {how}; {count} of its processes were stopped, {rest}\n"
    with suppress(OSError):
        os.write(2, line.encode(errors="replace"))
