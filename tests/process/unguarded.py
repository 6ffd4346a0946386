"""`coord` without one of its guards, for negative controls: `python unguarded.py GUARD run ...`."""

from __future__ import annotations

import os
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from coord.__main__ import main
from workers import containment, handles, keeper, prctl, proc, stopper, stopping
from workers.events import Due, Look, Seen, Wake
from workers.state import Phase, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def no_subreaper() -> None:
    """Orphans fall to whoever is above us."""
    put(prctl, "become_subreaper", lambda: None)
    put(containment, "become_subreaper", lambda: None)


def no_kill() -> None:
    """Who was asked and stays, stays."""
    not_sending("SIGKILL")


def no_wake_up() -> None:
    """SIGTERM alone, as most send it."""
    not_sending("SIGCONT")


def no_second_look() -> None:
    """Who was known when the stop began is all there is."""
    do = stopper.Stopper._do

    def do_without(self: stopper.Stopper, action: Any) -> None:
        if isinstance(action, Look):
            left = self._tree.collect(self._tree.held)
            self._events.extend(([left] if left.exits else []) + [Seen((), complete=True)])
        else:
            do(self, action)

    put(stopper.Stopper, "_do", do_without)


def word_of_proc() -> None:
    """Nobody is there when /proc shows nobody."""

    def childless(spare: Collection[int] = ()) -> bool:
        return not proc.descendants(os.getpid(), spare)

    put(containment, "childless", childless)


def leaders_alone() -> None:
    """A zombie by its looks is dead."""
    put(proc.Stat, "alive", property(lambda self: self.state not in proc.DEAD))
    put(keeper, "LOOK_MIN_S", 3600.0)  # no look beforehand, which could have met it with its main thread


def endless() -> None:
    """After SIGKILL, wait until all are gone."""

    def sweep(state: State, _event: Due, now_s: float) -> stopping.Result:
        return state, (Wake(now_s + stopping.SWEEP_S), Look())

    put(stopping, "_TABLE", MappingProxyType({**stopping._TABLE, (Phase.KILLING, Due): sweep}))


def not_sending(signal: str) -> None:
    send = handles.Handle.send
    put(handles.Handle, "send", lambda self, name: name == signal or send(self, name))


def put(owner: object, name: str, value: object) -> None:
    patch.object(owner, name, value).start()


GUARDS: dict[str, Callable[[], None]] = {
    each.__name__.replace("_", "-"): each
    for each in (no_subreaper, no_kill, no_wake_up, no_second_look, word_of_proc, leaders_alone, endless)
}

if __name__ == "__main__":
    GUARDS[sys.argv.pop(1)]()
    main()
