"""Keeps one host's processes: watches them by their handles and has them stopped, on asyncio. Knows no Redis.

What to do is decided in `stopping`; who belongs to the job, and every signal, is in `tree`. An agent is a keeper that
obeys the record.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from coord.messages import Outcome
from coord.plan import Plan
from workers.events import Sealed
from workers.signals import have_pidfds
from workers.state import Phase, Process, State
from workers.stop_file import StopFile
from workers.stopper import Manner, Stopper
from workers.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from structlog.typing import FilteringBoundLogger

    from coord.messages import LeftBehind, Survivor
    from workers.containment import Containment
    from workers.events import Key
    from workers.handles import Handle
    from workers.link import Link

LOOK_MIN_S = 0.05  # soon after the start, when most programs start theirs; then less and less often
LOOK_MAX_S = 5.0
LOOK_SHARE = 0.02  # of the agent's time, where there are many processes
BLIND_LOOK_S = 0.02
ABORT_S = 10.0  # how long the end may take when the keeper itself failed
CANCEL_AGAIN_S = 0.05


class Keeper:
    """Use: `async with Keeper(...) as keeper`; then `adopt` children, then `await keeper.over()`.

    With `stop_on_failure`, the failure of a child stops them all.
    """

    def __init__(
        self,
        agent_id: str,
        manner: Manner,
        *,
        log: FilteringBoundLogger,
        containment: Containment,
        link: Link,
        stop_on_failure: bool,
    ) -> None:
        self.stop_file = self.new_stop_file(agent_id)
        self._log = log
        self._link = link
        self._stop_on_failure = stop_on_failure
        self._loop = asyncio.get_running_loop()
        self._tree = Tree(containment, self._watch, self._forget)
        self._stopper = Stopper(manner, self._tree, self.stop_file, self)
        self._tasks = asyncio.TaskGroup()
        self._background: set[asyncio.Task[Any]] = set()
        self._stirred: set[Key] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None  # called each time something happened

    async def __aenter__(self) -> Self:
        """Begin to watch."""
        await self._tasks.__aenter__()
        for work in self.works():
            self.later(work)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing behind: if the keeper itself failed, its processes are killed, since nobody else would."""
        if self.state.phase is not Phase.OVER:
            self.stop(Plan.now())
            with suppress(TimeoutError):
                async with asyncio.timeout(ABORT_S):
                    await self.over()
        while pending := [task for task in self._background if not task.done()]:
            # again and again: before Python 3.12, asyncio.wait_for can swallow a cancellation, and redis-py uses it
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
        if self._timer:
            self._timer.cancel()
        self._tree.close()
        self.stop_file.remove()
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            await self._tasks.__aexit__(kind, error, trace)
        else:  # an error of ours goes on as it is: in a group, its exit code would be hidden
            await self._tasks.__aexit__(None, None, None)

    def later(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Have something done beside; an error of it ends the keeper, which leaves nothing behind."""
        task = self._tasks.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def new_stop_file(self, agent_id: str) -> StopFile:
        """Choose where the processes are told that they are being stopped."""
        return StopFile.of(agent_id)

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """Give what is to be done all the time."""
        return [self._get_to_know(), *([] if have_pidfds() else [self._look_for_ends()])]

    # -- what comes in -------------------------------------------------------------------------------------------------

    def adopt(self, pid: int, number: int, label: str, command: str) -> Key:
        """Take in a child that was just started. A child that slipped in after the request is stopped at once."""
        seen = self._tree.adopt(pid, number, label, command)
        self._log.info("child.started", pid=pid, label=label, command=command)
        self._stopper.feed(seen)
        return seen.found[0].key

    @property
    def state(self) -> State:
        """What is known of the processes, and where their stopping is."""
        return self._stopper.state

    @property
    def survivors(self) -> tuple[Survivor, ...]:
        """Why processes are still there, once all is over."""
        return self._stopper.survivors

    @property
    def left_behind(self) -> tuple[LeftBehind, ...]:
        """What the killed left behind, once all is over."""
        return self._stopper.left_behind

    def may_start(self) -> bool:
        """Tell whether a child may still be started: refuse first, then signal."""
        return self.state.phase is Phase.RUNNING

    def wait_for_more(self) -> None:
        """Let children come: the work is not over when the last one has gone, before `seal`."""
        self._stopper.state = replace(self.state, sealed=False)

    def seal(self) -> None:
        """No more children will come; when the last one has gone, what is left of their trees is stopped."""
        self._stopper.feed(Sealed())

    def stop(self, plan: Plan) -> None:
        """Stop this agent's processes, and only these; once under way, it can only get more urgent."""
        self._stopper.stop(plan)

    def kill(self, key: Key) -> None:
        """Kill one process, which has become of no use; its tree is another affair."""
        self._tree.send("SIGKILL", [key])

    def look(self) -> None:
        """Look who is there, now."""
        self._stopper.feed(self._tree.look())

    async def over(self) -> None:
        """Wait until every process is gone or has survived the plan."""
        await self._over.wait()

    # -- what the stopper asks for -------------------------------------------------------------------------------------

    def now_s(self) -> float:
        """Give the loop's time: monotonic."""
        return self._loop.time()

    def wake(self, at_s: float) -> None:
        """Have the stopper go on then."""
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(at_s, self._stopper.due)

    def announce(self, state: State) -> None:
        """Tell the children before the signal does, and the guardian, who would have to go on from here."""
        self.stop_file.write({**self.why(), "kill_at_s": state.kill_at_s, "kill_max_s": state.kill_max_s})
        self._link.tell("stopping", kill_at_s=state.kill_at_s, kill_max_s=state.kill_max_s)

    def why(self) -> dict[str, str | None]:
        """Give what the children are told of the reason."""
        return {}

    def note(self, before: State) -> None:
        """Log what changed, and act on a failure."""
        for key, process in self.state.processes.items():
            was = before.processes.get(key)
            if process.outcome is not Outcome.RUNNING and (was is None or was.outcome is not process.outcome):
                self._note_end(process, before)
        if self.state.phase is Phase.OVER and before.phase is not Phase.OVER:
            self._log.info("agent.stopped", proved=self.state.proved, survivors=len(self.state.survivors))
            self._over.set()
        self.on_change()

    def refused(self, key: Key, signal: str) -> None:
        """Log a process that may not be signalled."""
        self._log.error("signal.refused", pid=key[0], signal=signal)

    def failed(self, process: Process) -> None:
        """Tell others of a child that failed; the stop of this host's processes is under way."""

    def _note_end(self, process: Process, before: State) -> None:
        # of a tree's other processes only what force took is worth a line; the report has them all
        loud = process.found.child or process.outcome in {Outcome.KILLED, Outcome.SURVIVED}
        say = self._log.info if loud else self._log.debug
        say(
            f"child.{process.outcome}",
            pid=process.found.key[0],
            label=process.found.label,
            exit_code=process.exit_code,
            signal=process.signal,
        )
        failing = process.exit_code != 0 or process.signal is not None
        if before.phase is Phase.RUNNING and process.found.child and failing and self._stop_on_failure:
            self._stopper.stop(self.state.plan)
            self.failed(process)

    # -- handles -------------------------------------------------------------------------------------------------------

    async def _get_to_know(self) -> None:
        """Look who is there before anybody asks: then the first signal reaches all at once, and not only the child."""
        wait_s = LOOK_MIN_S
        while self.state.phase is Phase.RUNNING:
            await asyncio.sleep(wait_s)
            began_s = self.now_s()
            if self.may_start():
                self.look()
            wait_s = max(min(LOOK_MAX_S, wait_s * 2), (self.now_s() - began_s) / LOOK_SHARE)

    def _watch(self, handle: Handle) -> None:
        if handle.fd is not None:
            self._loop.add_reader(handle.fd, self._stir, handle.key)

    def _forget(self, handle: Handle) -> None:
        if handle.fd is not None:
            self._loop.remove_reader(handle.fd)

    def _stir(self, key: Key) -> None:
        """Several often leave at once: take them together."""
        if not self._stirred:
            self._loop.call_soon(self._settle)
        self._stirred.add(key)

    def _settle(self) -> None:
        keys, self._stirred = self._stirred, set()
        self._stopper.collect(keys)

    def reap(self) -> None:
        """Reap orphans that nobody watches; call it on SIGCHLD."""
        if have_pidfds():
            self._stopper.collect(())
        else:
            self._stopper.collect(self._tree.held)

    async def _look_for_ends(self) -> None:
        """Ask again and again who has ended, where no handle says so by itself."""
        self._log.warning("pidfd.missing", hint="processes are held by pid and start time, and looked at often")
        while True:
            await asyncio.sleep(BLIND_LOOK_S)
            self._stopper.collect(self._tree.held)
