"""Does what `stopping` decides, on the processes of one agent. Knows no Redis and no event loop; its owner keeps time.

Two own one: the agent, on asyncio, and the guardian that takes over from a dead agent, on a plain loop.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from workers.aftermath import Aftermath
from workers.events import Action, Due, Event, Key, Kill, Look, Requested, Send, Wake
from workers.proc import survivor
from workers.state import Phase, State
from workers.stopping import step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coord.messages import LeftBehind, Survivor
    from coord.plan import Plan
    from workers.stop_file import StopFile
    from workers.tree import Tree


ALONE_MARGIN_S = 2.0  # for a host that is busy


@dataclass(frozen=True, slots=True)
class Manner:
    """How processes are stopped here: by which plan, with a second SIGTERM after how long (0: none); what is swept.

    `ask_all`: whole trees; else the children alone, and what is left of their trees when they have gone.
    `alone_after_s`: so long after Redis' last answer all is stopped here without being asked; None: never.
    """

    plan: Plan
    ask_all: bool = True
    term_again_s: float = 0.0
    sweep_shm: bool = False
    alone_after_s: float | None = None

    @property
    def alone_s(self) -> float | None:
        """How long after Redis' last answer all is over here, whatever happens; None: nobody can say."""
        return None if self.alone_after_s is None else self.alone_after_s + self.plan.total_s + ALONE_MARGIN_S


class Owner(Protocol):
    """Who has the processes stopped."""

    def now_s(self) -> float:
        """Monotonic seconds."""

    def wake(self, at_s: float) -> None:
        """Call `Stopper.due` then; replaces the time before."""

    def announce(self, state: State) -> None:
        """There is a new deadline, nobody has been signalled for it yet."""

    def note(self, before: State) -> None:
        """The state changed."""

    def refused(self, key: Key, signal: str) -> None:
        """A process may not be signalled."""


class Stopper:
    """Feed it events."""

    def __init__(self, manner: Manner, tree: Tree, stop_file: StopFile, owner: Owner) -> None:
        self.state = State(manner.plan, ask_all=manner.ask_all)
        self.first_signal_s: float | None = None
        self.all_gone_s: float | None = None
        self.survivors: tuple[Survivor, ...] = ()
        self.left_behind: tuple[LeftBehind, ...] = ()
        self._tree = tree
        self._stop_file = stop_file
        self._owner = owner
        self._manner = manner
        self._aftermath = Aftermath(sweep_shm=manner.sweep_shm)
        self._events: deque[Event] = deque()
        self._busy = False

    def feed(self, event: Event) -> None:
        """Let `stopping` decide on an event, and do what it says."""
        self._events.append(event)
        if self._busy:
            return  # what an action or a note brings up is put behind
        self._busy = True
        try:
            while self._events:
                self._decide(self._events.popleft())
        finally:
            self._busy = False

    def stop(self, plan: Plan, elapsed_s: float = 0.0, *, hurried: bool = False) -> None:
        """Have all stopped by this plan; once under way, it can only get more urgent."""
        self.feed(Requested(plan.asked_again(self._manner.term_again_s), elapsed_s, hurried))

    @property
    def proof(self) -> str | None:
        """What showed that nobody is left; None: nothing has."""
        return self._tree.proof if self.state.proved else None

    def due(self) -> None:
        """The time of the last `wake` has come."""
        self.feed(Due(self._stop_file.wanted_s()))

    def collect(self, keys: Iterable[Key]) -> None:
        """Take the exits of those among these that are gone."""
        for left in (self._tree.collect(keys), self._tree.strangers()):
            if left.exits:
                self.feed(left)

    def _decide(self, event: Event) -> None:
        before = self.state
        self.state, actions = step(before, event, self._owner.now_s())
        if self.state.deadline_s != before.deadline_s:
            self._owner.announce(self.state)
        for action in actions:
            self._do(action)
        if self.state.phase is Phase.OVER and before.phase is not Phase.OVER:
            self.all_gone_s = self._owner.now_s()
            self.survivors = tuple(survivor(process.found.key) for process in self.state.survivors)
            self.left_behind = self._aftermath.conclude()
        self._owner.note(before)

    def _do(self, action: Action) -> None:
        match action:
            case Send(signal, keys):
                if self._aftermath.sweep_shm and self.first_signal_s is None:
                    self._aftermath.note(pid for pid, _ in keys)  # who leaves when asked can leave something, too
                self.first_signal_s = self.first_signal_s or self._owner.now_s()
                self._refuse(self._tree.send(signal, keys), signal)
            case Kill(keys):
                self.first_signal_s = self.first_signal_s or self._owner.now_s()
                self._events.append(self._tree.freeze())
                self._aftermath.note(pid for pid, _ in keys)
                self._refuse(self._tree.kill(keys), "SIGKILL")
            case Look():
                left = self._tree.collect(self._tree.held)
                seen = self._tree.look()
                self._events += (each for each in (left, self._tree.strangers()) if each.exits)
                self._events.append(seen)
            case Wake(at_s):
                self._owner.wake(at_s)

    def _refuse(self, keys: Iterable[Key], signal: str) -> None:
        for key in keys:
            self._owner.refused(key, signal)
