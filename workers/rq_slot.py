"""One worker process of a host, as its agent sees it: the link to it, and what it is working on."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workers.keeper import Keeper
from workers.link import Link
from workers.stop_file import StopFile

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from coord.messages import ShutdownRequest
    from workers.events import Key
    from workers.rq_trees import WorkerTree
    from workers.stopper import Manner

MESSAGE_MAX_BYTES = 32 * 1024
# of two stops of one execution, the stronger says what becomes of its RQ job: who was stopped is not retried
STRENGTH = {"": 0, "requeued": 1, "failed": 2, "killed": 2, "stopped": 3}
NOTE_S = 1.0  # how long a worker may take to note what is meant by the signal that follows


@dataclass(frozen=True, slots=True)
class Intent:
    """What becomes of an RQ job whose processes are stopped: `stopped`, `requeued`, `failed` or `killed`; and why."""

    ends_as: str
    words: str
    why: dict[str, str | None]  # what the processes are told


@dataclass(eq=False, slots=True)
class Execution:
    """One try of one RQ job on a worker. `ids`: the job ids that it can be stopped by."""

    rq_job: str
    queue: str
    label: str
    job_id: str | None  # the job that it says it belongs to
    ids: tuple[str, ...]
    stop_on_failure: bool
    slot: Slot
    id: str | None = None  # RQ's, once there is a horse
    horse_pid: int = 0
    intent: Intent | None = None
    keeper: ExecutionKeeper | None = None
    first: asyncio.Task[None] | None = None  # to be done before RQ's state may be written
    awaited: bool = False  # somebody sees its end, and tells its worker that RQ's state may be written
    refused: str | None = None  # it was not to start: the job whose request forbade it
    forked: asyncio.Event = field(default_factory=asyncio.Event)
    noted: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # RQ's state is written, or it never began


class ExecutionKeeper(Keeper):
    """Has one execution's tree stopped; its worker stays."""

    def __init__(self, execution: Execution, intent: Intent, manner: Manner, log: FilteringBoundLogger) -> None:
        slot = execution.slot
        # what a job that has ended left behind is not told: the worker's next job would find that file
        self._file = slot.stop_file if intent.ends_as else StopFile(None)
        self._intent = intent
        super().__init__(slot.name, manner, log=log, containment=slot.tree, link=Link(), stop_on_failure=False)
        self._tree.name(slot.tree.entry().mark.number, execution.label)

    def new_stop_file(self, agent_id: str) -> StopFile:
        """Choose where the processes are told that they are being stopped."""
        del agent_id
        return self._file

    def why(self) -> dict[str, str | None]:
        """Give what the processes are told of the reason, and the horse of what is meant by it."""
        return {**self._intent.why, "as": self._intent.ends_as}

    def hurry(self, request: ShutdownRequest) -> None:
        """Hear that the request was made more urgent."""
        self._stopper.stop(request.plan, request.elapsed_s, hurried=request.rev > 1)

    @property
    def first_signal_s(self) -> float | None:
        """When the first signal was sent."""
        return self._stopper.first_signal_s

    @property
    def all_gone_s(self) -> float | None:
        """When it was over."""
        return self._stopper.all_gone_s

    def told(self) -> None:
        """Take in what the worker said of its horse."""
        self._stopper.collect(self._tree.held)
        self.look()


class Slot:
    """A running worker process. `heard(slot, message)` is called for each message of it."""

    def __init__(
        self,
        name: str,
        tree: WorkerTree,
        ours: socket.socket,
        *,
        stop_file: StopFile,
        heard: Callable[[Slot, dict[str, Any]], None],
        scheduler: bool = False,
    ) -> None:
        self.name = name
        self.tree = tree
        self.stop_file = stop_file
        self.scheduler = scheduler
        self.pid = 0
        self.key: Key = (0, 0)
        self.up = False
        self.bye: str | None = None  # why it left by itself
        self.born_s = 0.0
        self.execution: Execution | None = None
        self._link = ours
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        ours.settimeout(0)
        self._loop.add_reader(ours.fileno(), self._read)

    def tell(self, kind: str, **facts: object) -> None:
        """Tell the worker; one that has died can't be told."""
        with suppress(OSError):
            self._link.send(json.dumps({"kind": kind, **facts}).encode())

    def close(self) -> None:
        """Read what it said last, and hang up."""
        if self._link.fileno() >= 0:
            self._read()
            self._loop.remove_reader(self._link.fileno())
            self._link.close()

    async def note(self, execution: Execution, intent: Intent, until_s: float) -> bool:
        """Have the worker note what is meant, before any signal; False when it does not answer."""
        if execution.intent and STRENGTH[execution.intent.ends_as] > STRENGTH[intent.ends_as]:
            intent = execution.intent
        execution.intent = intent
        execution.noted.clear()
        self.tell("stop", execution=execution.id, words=intent.words, until_s=until_s, **{"as": intent.ends_as})
        try:
            async with asyncio.timeout(NOTE_S):
                await execution.noted.wait()
        except TimeoutError:
            return execution.ended.is_set()
        return True  # though another stop at the same time may have cleared it again

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while True:
                try:
                    data = self._link.recv(MESSAGE_MAX_BYTES)
                except ConnectionResetError:
                    data = b""
                if not data:
                    self._loop.remove_reader(self._link.fileno())
                    return
                self._heard(self, json.loads(data))


class Board:
    """Who of a host's workers is at work."""

    def __init__(self) -> None:
        self._busy: set[Slot] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def executions(self) -> list[Execution]:
        """Give what runs now, or is about to."""
        return [slot.execution for slot in self._busy if slot.execution]

    def begin(self, execution: Execution) -> None:
        """Something is about to run."""
        execution.slot.execution = execution
        self._busy.add(execution.slot)
        self._idle.clear()

    def end(self, execution: Execution) -> None:
        """It is over, or it never began."""
        execution.forked.set()
        execution.ended.set()
        if execution.slot.execution is execution:
            execution.slot.execution = None
            self._busy.discard(execution.slot)
        if not self._busy:
            self._idle.set()

    async def idle(self, wait_s: float) -> None:
        """Wait until nothing runs, or as long as that."""
        if wait_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._idle.wait()
