"""Who belongs to the children: everything below this agent, which is a subreaper, so that no orphan leaves the tree.

Holds a handle on every process it has seen; signals go through these alone. Decides nothing.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from workers.events import Exit, Found, Key, Left, Seen
from workers.handles import Handle, childless, open_child, open_found, reap
from workers.prctl import become_subreaper
from workers.proc import Stat, descendants, read_command

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

PROOF = "subreaper"
LOOKS_MAX = 50  # a tree that hides or changes during so many looks in a row is looked at again later


class Tree:
    """The processes of one agent. `watch(handle)` is called for each new one, `forget(handle)` before it is closed.

    `label`: of those that belong to no child. `spare`: pids of our own helpers, which belong to nobody's tree.
    """

    def __init__(
        self,
        watch: Callable[[Handle], None],
        forget: Callable[[Handle], None],
        *,
        label: str = "",
        spare: Collection[int] = (),
    ) -> None:
        become_subreaper()
        self._watch = watch
        self._forget = forget
        self._label = label
        self._spare = spare
        self._handles: dict[Key, Handle] = {}
        self._labels: dict[int, str] = {}  # of the children, by pid
        self._exits: dict[int, tuple[int | None, str | None]] = {}

    def adopt(self, pid: int, label: str, command: str) -> Seen:
        """Take in a child that was just started; what it runs is known, while /proc may not know it yet."""
        handle = open_child(pid)
        self._labels[pid] = label
        self._hold(handle)
        return Seen((Found(handle.key, label, command, child=True),), complete=False)

    def look(self) -> Seen:
        """Find everything alive in the tree, and hold it.

        `complete` with nothing found is the proof, and it is the kernel's word, not that of a list that ran empty:
        below a subreaper, whoever has no child has no descendant.
        """
        for _ in range(LOOKS_MAX):
            self._exits |= reap()
            if childless(self._spare):
                return Seen((), complete=True)
            found, whole = self._hold_all(descendants(os.getpid(), self._spare))
            if found or not whole:
                return Seen(found, complete=whole)
        return Seen((), complete=False)

    def send(self, signal: str, keys: Iterable[Key]) -> list[Key]:
        """Signal these; who is gone needs none. Gives back those that may not be signalled: another user's."""
        refused = []
        for key in keys:
            handle = self._handles.get(key)
            try:
                if handle:
                    handle.send(signal)
            except PermissionError:
                refused.append(key)
        return refused

    def collect(self, keys: Iterable[Key]) -> Left:
        """Reap, and close the handles of those among `keys` that are gone."""
        self._exits |= reap()
        exits = []
        for key in keys:
            handle = self._handles.get(key)
            if handle and handle.gone():
                exit_code, signal = self._exits.pop(handle.pid, (None, None))
                exits.append(Exit(key, exit_code, signal))
                self._drop(handle)
        held = {handle.pid for handle in self._handles.values()}
        self._exits = {pid: status for pid, status in self._exits.items() if pid in held}
        return Left(tuple(exits))

    @property
    def held(self) -> tuple[Key, ...]:
        """Processes seen and not yet known to be gone."""
        return tuple(self._handles)

    def close(self) -> None:
        """Let go of all handles."""
        for handle in list(self._handles.values()):
            self._drop(handle)

    def _hold_all(self, stats: list[Stat]) -> tuple[tuple[Found, ...], bool]:
        """Hold these; and False when the descriptors ran out: the others have their turn when some have gone."""
        pids = {stat.pid for stat in stats} | {os.getpid()}
        labels = dict(self._labels)
        found = []
        for stat in stats:  # parents come first, so a label is handed down
            label = labels.setdefault(stat.pid, labels.get(stat.ppid, self._first_label()))
            if stat.key in self._handles:
                found.append(Found(stat.key, label, ""))
                continue
            try:
                handle = open_found(stat, lambda again: again.ppid in pids)
            except OSError as error:
                if error.errno not in {errno.EMFILE, errno.ENFILE}:
                    raise
                return tuple(found), False
            if handle:
                self._hold(handle)
                found.append(Found(stat.key, label, read_command(stat)))
        return tuple(found), True

    def _first_label(self) -> str:
        return next(iter(self._labels.values()), self._label)

    def _hold(self, handle: Handle) -> None:
        self._handles[handle.key] = handle
        self._watch(handle)

    def _drop(self, handle: Handle) -> None:
        del self._handles[handle.key]
        self._forget(handle)
        handle.close()
