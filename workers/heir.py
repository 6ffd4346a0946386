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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coord.errors import OWN_ERROR
from coord.keyrings import with_file
from coord.messages import Cause
from coord.plan import Plan
from workers.containment import taken_over
from workers.handles import signal_name
from workers.signals import have_pidfds
from workers.state import Phase
from workers.stop_file import StopFile
from workers.stopper import Manner, Stopper
from workers.tree import Tree

if TYPE_CHECKING:
    from workers.containment import Containment
    from workers.events import Key
    from workers.handles import Handle
    from workers.state import State

BLIND_LOOK_S = 0.02  # between two looks, where no handle says who has ended
TELL_S = 15.0  # how long the record may take to be told; then the host counts as not heard from


def inherit(told: dict[str, str], status: int, *, crashed: bool) -> int:
    """Stop what the agent left. `told`: its last message of each kind; `status`: its signal if `crashed`, else code."""
    watch: dict[str, Any] = json.loads(told["watch"])
    how = f"was killed by {signal_name(status)}" if crashed else f"exited with code {status}"
    death = {"signal": signal_name(status) if crashed else None, "exit_code": None if crashed else status, "how": how}
    tellers: set[int] = set()
    heir = Heir(watch, taken_over(watch["containment"], tellers), tellers)
    _say(watch, how, settle(heir, watch, json.loads(told.get("stopping", "null")), death))
    if watch["estate"]:
        Path(watch["estate"]).unlink(missing_ok=True)
    return OWN_ERROR


def settle(heir: Heir, watch: dict[str, Any], stopping: dict[str, Any] | None, death: dict[str, Any]) -> State:
    """Tell the record of the death, stop what is left, tell the record of that."""
    first = heir.tell({"watch": watch, "death": death})
    why = {"cause": Cause.FAILURE, "by": watch["by"], "reason": f"the agent {death['how']}"}
    state = heir.stop(_plan(watch, stopping), why)
    heir.wait_for(first)
    heir.wait_for(heir.tell({"watch": watch, "report": heir.report()}))
    return state


class Heir:
    """The dead agent's processes, stopped on a plain loop."""

    def __init__(self, watch: dict[str, Any], containment: Containment, tellers: set[int] | None = None) -> None:
        self._poll = select.poll()
        self._due_s = 0.0
        self._tellers = set() if tellers is None else tellers  # told to `containment`: they are none of the job's
        self._watched = watch
        self._stop_file = StopFile(watch["stop_file"])
        self._containment = containment
        self._tree = Tree(self._containment, self._watch, self._forget, label=watch["label"])

    def stop(self, plan: Plan, why: dict[str, str]) -> State:
        """Run the plan; bounded by its total. `why`: what the processes are told."""
        self._why = why
        manner = Manner(plan, *(self._watched[name] for name in ("ask_all", "term_again_s", "sweep_shm")))
        self._stopper = Stopper(manner, self._tree, self._stop_file, self)
        self._stopper.stop(plan)
        while self._stopper.state.phase is not Phase.OVER:
            wait_s = max(0.0, self._due_s - time.monotonic())
            self._poll.poll(1000 * (wait_s if have_pidfds() else min(wait_s, BLIND_LOOK_S)))
            self._stopper.collect(self._tree.held)
            if time.monotonic() >= self._due_s:
                self._stopper.due()
        self._tree.close()
        self._containment.close()
        self._stop_file.remove()
        return self._stopper.state

    def now_s(self) -> float:
        """Give the host's monotonic time."""
        return time.monotonic()

    def announce(self, state: State) -> None:
        """Tell the processes, before the signal does."""
        self._stop_file.write({**self._why, "kill_at_s": state.kill_at_s, "kill_max_s": state.kill_max_s})

    def note(self, before: State) -> None:
        """Nothing to note: the report at the end says it all."""

    def refused(self, key: Key, signal: str) -> None:
        """Nothing to note: who can't be signalled is a survivor."""

    def report(self) -> dict[str, Any]:
        """Give what the record is to be told of it."""
        stopper = self._stopper
        now_s = time.monotonic()
        return {
            "proof": stopper.proof,
            "left_behind": [each.to_dict() for each in stopper.left_behind],
            "survivors": [each.to_dict() for each in stopper.survivors],
            "processes": [process.to_dict() for process in stopper.state.reports()],
            "signal_age_s": None if stopper.first_signal_s is None else now_s - stopper.first_signal_s,
            "gone_age_s": now_s - stopper.all_gone_s if stopper.all_gone_s and stopper.state.proved else None,
        }

    def tell(self, what: dict[str, Any]) -> subprocess.Popen[bytes] | None:
        """Start a process that tells the record, if there is one; it is none of the job's."""
        if self._watched["redis_url"] is None:
            return None
        environment = with_file(os.environ, self._watched.get("secret_file"))
        argv = [sys.executable, "-P", "-m", "workers.obituary"]
        teller = subprocess.Popen(argv, stdin=subprocess.PIPE, env=environment)
        self._tellers.add(teller.pid)
        if teller.stdin:
            with suppress(BrokenPipeError):
                teller.stdin.write(json.dumps(what).encode())
                teller.stdin.close()
        return teller

    def wait_for(self, teller: subprocess.Popen[bytes] | None) -> None:
        """Give it its time, and no more."""
        if teller is None:
            return
        try:
            teller.wait(TELL_S)
        except subprocess.TimeoutExpired:
            teller.kill()

    def wake(self, at_s: float) -> None:
        """Have the stopper go on then."""
        self._due_s = at_s

    def _watch(self, handle: Handle) -> None:
        if handle.fd is not None:
            self._poll.register(handle.fd, select.POLLIN)

    def _forget(self, handle: Handle) -> None:
        if handle.fd is not None:
            self._poll.unregister(handle.fd)


def _plan(watch: dict[str, Any], stopping: dict[str, Any] | None) -> Plan:
    """The agent's own plan; what is left of it when it was already at it. The monotonic clock is one for the host."""
    plan = Plan.from_list(watch["plan"])
    if stopping is None:
        return plan
    now_s = time.monotonic()
    return Plan.of(max(0.0, stopping["kill_at_s"] - now_s), plan.kill_wait_s, stopping["kill_max_s"] - now_s)


def _say(watch: dict[str, Any], how: str, state: State) -> None:
    count = len(state.processes)
    rest = "nothing of it is left" if state.proved else "not all of it is gone"
    line = f"coord: the agent of {watch['label']} {how}; {count} of its processes were stopped, {rest}\n"
    with suppress(OSError):
        os.write(2, line.encode(errors="replace"))
