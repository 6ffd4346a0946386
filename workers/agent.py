"""One host's agent of a job: joins it, watches its children, obeys its request, and reports. An asyncio shell.

What to do is decided in `stopping`; who belongs to the job, and every signal, is in `tree`; the record is in Redis.
Signals to processes never wait for Redis: reports leave through a queue of their own.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from coord.channel import Channel
from coord.messages import (
    AgentInfo,
    Outcome,
    ShutdownRequest,
    Survivor,
)
from coord.plan import Plan
from workers import link
from workers.handles import have_pidfds
from workers.membership import Membership
from workers.outbox import Outbox
from workers.reporter import Reporter
from workers.stop_file import StopFile
from workers.stopper import Stopper
from workers.stopping import Phase, Process, State
from workers.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from structlog.typing import FilteringBoundLogger

    from coord.ledger import AsyncLedger
    from coord.record import Answer, Call, Record
    from workers.containment import Subreaper
    from workers.events import Key
    from workers.handles import Handle

REPORT_S = 10.0  # how long the last report may take when Redis is away; then the host counts as not heard from
URGENT_S = 300.0  # and when other hosts have to be stopped: nobody else would tell them
CANCEL_AGAIN_S = 0.05
LOOK_MIN_S = 0.05  # soon after the start, when most programs start theirs; then less and less often
LOOK_MAX_S = 5.0
KNOWN_MAX = 200  # with more of them, looking all the time costs more than it saves
BLIND_LOOK_S = 0.02
ABORT_S = 10.0  # how long the end may take when the agent itself failed


class Agent:
    """Use: `async with Agent(...) as agent` joins the job; then `adopt` children, then `await agent.over()`.

    With `failed`, a child's failure stops all: here at once, elsewhere by the call that `failed(process)` makes.
    Raises RefusedError when the job is fenced, UnreachableError when Redis can't be used at the start.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        record: Record,
        info: AgentInfo,
        *,
        plan: Plan,
        log: FilteringBoundLogger,
        containment: Subreaper,
        failed: Callable[[Process], Coroutine[Any, Any, Call[Answer]]] | None = None,
        term_again_s: float = 0.0,
    ) -> None:
        self.info = info
        self.stop_file = StopFile.of(info.agent_id)
        self.request: ShutdownRequest | None = None
        self.told = False  # the record has all that this agent had to tell
        self._record = record
        self._log = log
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._membership = Membership(
            ledger, record, info, plan=plan, log=log, heard=self.hear, rejoined=self.report, proof=containment.proof
        )
        self._channel = Channel(ledger, self.hear, self._membership.beat, log)
        self._tree = Tree(containment, self._watch, self._forget)
        self._stopper = Stopper(plan, self._tree, self.stop_file, self, term_again_s=term_again_s)
        self._tasks = asyncio.TaskGroup()
        self._background: list[asyncio.Task[None]] = []
        self._outbox = Outbox(ledger, self.hear, log)
        self._reporter = Reporter(record, info, self._stopper, self._outbox)
        self._stirred: set[Key] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()
        self._patience_s = REPORT_S

    async def __aenter__(self) -> Self:
        """Subscribe, then join: a request made after the join is heard, one made before it refuses the join."""
        try:
            await self._membership.join(self._channel)
        except BaseException:
            await self._channel.close()
            raise
        await self._tasks.__aenter__()
        works = [self._channel.listen(), self._membership.keep(), self._outbox.send(), self._get_to_know()]
        if not have_pidfds():
            works.append(self._look_for_ends())
        self._background += [self._tasks.create_task(work) for work in works]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing behind: if the agent itself failed, its processes are killed, since nobody else would."""
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
        await self._channel.close()

    # -- what comes in -------------------------------------------------------------------------------------------------

    def adopt(self, pid: int, number: int, label: str, command: str) -> None:
        """Take in a child that was just started. A child that slipped in after the request is stopped at once."""
        seen = self._tree.adopt(pid, number, label, command)
        self._log.info("child.started", pid=pid, label=label, command=command)
        self._stopper.feed(seen)

    @property
    def state(self) -> State:
        """What is known of the processes, and where their stopping is."""
        return self._stopper.state

    @property
    def survivors(self) -> tuple[Survivor, ...]:
        """Why processes are still there, once all is over."""
        return self._stopper.survivors

    def may_start(self) -> bool:
        """Tell whether a child may still be started: refuse first, then signal."""
        return self.state.phase is Phase.RUNNING

    def hear(self, request: ShutdownRequest) -> None:
        """Obey a request for this job; one that is known changes nothing."""
        if request.job_id != self.job_id:
            return
        known = self.request
        if known and known.id == request.id and known.rev >= request.rev:
            return
        self.request = request
        self._stopper.stop(request.plan, request.elapsed_s, hurried=request.rev > 1)  # signals first, words later
        self._log.info(
            "shutdown.requested", request=request.id, cause=request.cause, by=request.by, reason=request.reason
        )

    def stop(self, plan: Plan) -> None:
        """Stop this agent's processes, and only these; once under way, it can only get more urgent."""
        self._stopper.stop(plan)

    # -- what goes out -------------------------------------------------------------------------------------------------

    async def over(self) -> None:
        """Wait until every process is gone or has survived the plan, and the record knows it."""
        await self._over.wait()
        self.told = await self._outbox.empty(self._patience_s)

    def ask(self, call: Call[Answer]) -> None:
        """Send a call to the record when those before it are through; the request in its answer is heard."""

        async def made() -> Call[Answer]:
            return call

        self._patience_s = URGENT_S
        self._outbox.put(made)

    @property
    def job_id(self) -> str:
        """The job that this agent works for."""
        return self._record.job_id

    def now_s(self) -> float:
        """Give the loop's time: monotonic."""
        return self._loop.time()

    def announce(self, state: State) -> None:
        """Tell the children before the signal does, and the guardian, who would have to go on from here."""
        facts = {name: getattr(self.request, name, None) for name in ("id", "cause", "by", "reason")}
        self.stop_file.write({**facts, "kill_at_s": state.kill_at_s, "kill_max_s": state.kill_max_s})
        link.tell("stopping", kill_at_s=state.kill_at_s, kill_max_s=state.kill_max_s)

    def note(self, before: State) -> None:
        """Log and report what changed."""
        for key, process in self.state.processes.items():
            was = before.processes.get(key)
            if process.outcome is not Outcome.RUNNING and (was is None or was.outcome is not process.outcome):
                self._note_end(process, before)
        if self.state.phase is before.phase:
            return
        if self.state.phase is Phase.OVER:
            self._membership.over = True
            self._log.info("agent.stopped", proved=self.state.proved, survivors=len(self.state.survivors))
            self._over.set()
        self.report()

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
        if before.phase is Phase.RUNNING and process.found.child and failing and self._failed:
            self._stopper.stop(self.state.plan)
            self._patience_s = URGENT_S
            self._outbox.put(partial(self._failed, process))

    def report(self) -> None:
        """Tell the record what the processes are doing."""
        self._reporter.report()

    async def _get_to_know(self) -> None:
        """Look who is there before anybody asks: then the first signal reaches all at once, and not only the child."""
        wait_s = LOOK_MIN_S
        while self.state.phase is Phase.RUNNING:
            await asyncio.sleep(wait_s)
            wait_s = min(LOOK_MAX_S, wait_s * 2)
            if self.may_start() and len(self._tree.held) < KNOWN_MAX:
                self._stopper.feed(self._tree.look())

    # -- handles -------------------------------------------------------------------------------------------------------

    def wake(self, at_s: float) -> None:
        """Have the stopper go on then."""
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(at_s, self._stopper.due)

    def refused(self, key: Key, signal: str) -> None:
        """Log a process that may not be signalled."""
        self._log.error("signal.refused", pid=key[0], signal=signal)

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
            self._tree.collect(())
        else:
            self._stopper.collect(self._tree.held)

    async def _look_for_ends(self) -> None:
        """Ask again and again who has ended, where no handle says so by itself."""
        self._log.warning("pidfd.missing", hint="processes are held by pid and start time, and looked at often")
        while True:
            await asyncio.sleep(BLIND_LOOK_S)
            self._stopper.collect(self._tree.held)
