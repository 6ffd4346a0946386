"""Does what `stopping` decides, on the processes of one tree. Knows no Redis and no event loop; its owner keeps time.

Two own one: the agent, on asyncio, and the guardian that takes over from a dead agent, on a plain loop.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from workers.events import Action, Event, Key, Look, Requested, Send, Wake
from workers.stopping import Phase, State, step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from coord.plan import Plan
    from workers.tree import Tree


class Stopper:
    """Feed it events. `clock()`: monotonic seconds; `wake(at_s)`: feed Due then.

    `announce(state)`: there is a new deadline, nobody has been signalled for it yet; `note(before)`: the state changed.
    """

    def __init__(
        self,
        plan: Plan,
        tree: Tree,
        *,
        clock: Callable[[], float],
        wake: Callable[[float], None],
        announce: Callable[[State], None],
        note: Callable[[State], None],
        refused: Callable[[Key, str], None],
    ) -> None:
        self.state = State(plan)
        self.first_signal_s: float | None = None
        self.all_gone_s: float | None = None
        self._tree = tree
        self._clock = clock
        self._wake = wake
        self._announce = announce
        self._note = note
        self._refused = refused
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
        self.feed(Requested(plan, elapsed_s, hurried))

    def collect(self, keys: Iterable[Key]) -> None:
        """Take the exits of those among these that are gone."""
        left = self._tree.collect(keys)
        if left.exits:
            self.feed(left)

    def _decide(self, event: Event) -> None:
        before = self.state
        self.state, actions = step(before, event, self._clock())
        if self.state.deadline_s != before.deadline_s:
            self._announce(self.state)
        for action in actions:
            self._do(action)
        if self.state.phase is Phase.OVER and before.phase is not Phase.OVER:
            self.all_gone_s = self._clock()
        self._note(before)

    def _do(self, action: Action) -> None:
        match action:
            case Send(signal, keys):
                self.first_signal_s = self.first_signal_s or self._clock()
                for key in self._tree.send(signal, keys):
                    self._refused(key, signal)
            case Look():
                left = self._tree.collect(self._tree.held)
                if left.exits:
                    self._events.append(left)
                self._events.append(self._tree.look())
            case Wake(at_s):
                self._wake(at_s)
