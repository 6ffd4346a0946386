"""Holds every process of an agent's trees; signals go through these handles alone. Decides nothing.

Where the processes are found, and what proves that nobody is left, is the business of `containment`.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from coord.plan import KILL
from workers.events import Exit, Found, Key, Left, Seen
from workers.handles import Handle, open_child, open_found
from workers.proc import read_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from workers.containment import Containment
    from workers.handles import Status
    from workers.proc import Stat

UNKNOWN = 0  # the start time of a process that nobody looked at in time
FREEZES_MAX = 50  # a tree that changes during so many looks in a row is killed as it is then


class Tree:
    """The processes of one agent. `watch(handle)` is called for each new one, `forget(handle)` before it is closed.

    `label`: of those that belong to no child.
    """

    def __init__(
        self,
        containment: Containment,
        watch: Callable[[Handle], None],
        forget: Callable[[Handle], None],
        *,
        label: str = "",
    ) -> None:
        self._containment = containment
        self._watch = watch
        self._forget = forget
        self._label = label
        self._handles: dict[Key, Handle] = {}
        self._labels: dict[int, str] = {}  # of the children, by number
        self._belongs: dict[Key, str] = {}  # the label of each process that is held
        self._exits: dict[int, Status] = {}
        self._killing = False
        self._told: set[int] = set()  # pids of those that were told to be gone since; the kernel may tell how later

    @property
    def proof(self) -> str | None:
        """What shows that nobody is left: `cgroup` or `subreaper`; None: nothing shows it for certain."""
        return self._containment.proof

    def adopt(self, pid: int, number: int, label: str, command: str) -> Seen:
        """Take in a child that was just started; what it runs is known, while /proc may not know it yet."""
        handle = open_child(pid)
        self._labels[number] = label
        if handle.key in self._handles:  # a look was faster
            self._belongs[handle.key] = label
            handle.close()
        else:
            self._hold(handle, label)
        return Seen((Found(handle.key, label, command, child=True),), complete=False)

    def name(self, number: int, label: str) -> None:
        """Give a child's tree its label, where the child itself is none of this process's."""
        self._labels[number] = label

    def look(self) -> Seen:
        """Find everything alive in the trees, and hold it. `complete` with nothing found is the proof."""
        for _ in range(self._containment.looks_max):
            self._exits |= self._containment.reap()
            if self._containment.empty():
                return Seen((), complete=True)
            found, whole = self._hold_all(self._containment.members())
            if found or not whole:
                return Seen(found, complete=whole)
        return Seen((), complete=False)

    def freeze(self) -> Seen:
        """Stop everybody in their tracks, parents first, until a look finds nobody new.

        So nobody reacts to another's death, or forks its way out of the sweep. A cgroup needs none of that.
        """
        newcomers: list[Found] = []
        frozen: set[Key] = set()
        for _ in range(FREEZES_MAX):
            found, _ = self._hold_all(self._containment.members())
            newcomers += [each for each in found if each.key not in frozen]
            if self._containment.kills_at_once or frozen.issuperset(self._handles):
                break
            self.send("SIGSTOP", [key for key in self._handles if key not in frozen])
            frozen.update(self._handles)
        return Seen(tuple(newcomers), complete=False)

    def kill(self, keys: Iterable[Key]) -> list[Key]:
        """Send SIGKILL to these, and to whatever is in their cgroup. Gives back those that may not be signalled."""
        self._killing = True
        self._containment.kill()
        return self.send("SIGKILL", keys)

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
        handles = [handle for key in keys if (handle := self._handles.get(key))]
        gone = [handle for handle in handles if handle.gone()]
        self._exits |= self._containment.reap()  # after that look: how they ended is known by now
        exits = []
        for handle in gone:
            if self._containment.decided(handle.key):
                exit_code, signal = self._exits.pop(handle.pid, (None, None))
                exits.append(Exit(handle.key, exit_code, signal))
                if self._killing:
                    self._told.add(handle.pid)
                self._drop(handle)
        return Left(tuple(exits))

    def strangers(self) -> Left:
        """Give those that were killed before anybody could hold them: a cgroup is killed as a whole.

        Forgets the exits of all others that nobody held: their pids can come to mean others.
        """
        held = {handle.pid for handle in self._handles.values()} if self._exits else set()
        strange = {pid: status for pid, status in self._exits.items() if pid not in held}
        self._exits = {pid: status for pid, status in self._exits.items() if pid in held}
        new = strange.keys() - self._told if self._killing else ()
        killed = [(pid, UNKNOWN) for pid in new if strange[pid] == (None, KILL)]
        label = self._first_label()
        return Left(tuple(Exit(key, None, KILL) for key in killed), tuple(Found(key, label, "") for key in killed))

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
        inside = {stat.pid for stat in stats}
        pids = inside | {os.getpid()}
        labels: dict[int, str] = {}
        found = []
        for stat in stats:  # parents come first, so a label is handed down
            label = labels[stat.pid] = self._belongs.get(stat.key) or self._label_of(stat, labels)
            orphan = stat.ppid not in inside
            if stat.key in self._handles:
                self._belongs[stat.key] = label  # a look may have been faster than who starts the child
                found.append(Found(stat.key, label, "", orphan=orphan))
                continue
            try:
                handle = open_found(stat, lambda again: self._containment.belongs(again, pids))
            except OSError as error:
                if error.errno not in {errno.EMFILE, errno.ENFILE}:
                    raise
                return tuple(found), False
            if handle:
                self._hold(handle, label)
                found.append(Found(stat.key, label, read_command(stat), orphan=orphan))
        return tuple(found), True

    def _label_of(self, stat: Stat, labels: dict[int, str]) -> str:
        number = self._containment.number(stat)
        if number in self._labels:
            return self._labels[number]
        return labels.get(stat.ppid) or self._first_label()

    def _first_label(self) -> str:
        return next(iter(self._labels.values()), self._label)

    def _hold(self, handle: Handle, label: str) -> None:
        self._handles[handle.key] = handle
        self._belongs[handle.key] = label
        self._watch(handle)

    def _drop(self, handle: Handle) -> None:
        del self._handles[handle.key]
        del self._belongs[handle.key]
        self._forget(handle)
        handle.close()
