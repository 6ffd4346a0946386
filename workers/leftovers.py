"""What is still there when those who had it are dead. Looks again; changes nothing."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from workers.inspection import DELETED, OutOfTimeError, segments, within
from workers.proc import all_pids, read_pieces
from workers.sockets import tcp_sockets, unix_sockets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workers.belongings import Belonging, Inventory

    _Table = dict[str, dict[int, str]]  # ends -> inode -> state

LOOK_S = 5.0
HELD = "another process has it"
UNKNOWN = "not looked at again"
_LOCKED_INODE = re.compile(rb" [0-9a-f]+:[0-9a-f]+:(\d+) ")
_LAST = ("deleted-file", "lock")  # their file system may hang


def still_there(inventory: Inventory, budget_s: float = LOOK_S) -> tuple[Belonging, ...]:
    """Look for these again, now that the processes are gone; `note` says what is known of each.

    A connection may need some milliseconds more: the kernel says goodbye for the dead. What could not be looked at in
    time is given back with a note that says so. Raises nothing.
    """
    again = _Again(sorted(inventory.items, key=lambda item: item.kind in _LAST), time.monotonic() + budget_s)
    within(budget_s, again.run)
    judged = list(again.left)
    rest = (replace(item, note=UNKNOWN) for item in again.items[len(judged) :])
    return (*filter(None, judged), *rest)


class _Again:
    """A second look, at all that the first one found."""

    def __init__(self, items: Sequence[Belonging], end_s: float) -> None:
        self.items = items
        self.left: list[Belonging | None] = []  # as far as it got; only appended to
        self._end_s = end_s
        self._tables: dict[str, _Table] = {}

    def run(self) -> None:
        with suppress(OutOfTimeError):
            for item in self.items:
                self._in_time()
                try:
                    self.left.append(self._judge(item))
                except (FileNotFoundError, ProcessLookupError):
                    self.left.append(None)
                except OSError as error:
                    self.left.append(replace(item, note=f"{UNKNOWN}: {os.strerror(error.errno or 0).lower()}"))

    def _judge(self, item: Belonging) -> Belonging | None:
        if item.kind == "deleted-file":
            return self._deleted(item)
        if item.namespace and item.namespace not in self._folders:
            return None  # nobody lives there any more
        if item.kind == "connection" or (item.kind == "listener" and item.ends != item.name):
            return self._socket(item)
        if item.namespace:
            return replace(item, note=UNKNOWN)
        if item.kind == "sysv-shm":
            return item if (found := segments().get(item.inode)) and found.size == item.size else None
        if not same_file(os.stat(item.name, follow_symlinks=False), item):
            return None
        return None if self._used(item) else item

    def _used(self, item: Belonging) -> bool:
        """Tell whether somebody alive uses what the dead had: it is a leftover no more, or never was one."""
        if item.kind == "listener":
            return item.ends in self._table("")
        return item.kind == "lock" and (item.inode in self._locked or self._holder(item) is not None)

    def _socket(self, item: Belonging) -> Belonging | None:
        """It is the same one while another process has it, or while the kernel says goodbye for the dead."""
        rows = self._table(item.namespace).get(item.ends, {})
        if item.inode in rows:
            return replace(item, note=HELD)
        return replace(item, note=rows[0]) if 0 in rows else None

    def _deleted(self, item: Belonging) -> Belonging | None:
        pid = self._holder(item)
        return replace(item, note=f"process {pid} has it") if pid else None

    def _holder(self, item: Belonging) -> int | None:
        return self._holders.get((item.device, item.inode))

    def _table(self, space: str) -> _Table:
        if space not in self._tables:
            net = f"{self._folders[space] if space else '/proc/self'}/net"
            wanted = {item.ends for item in self.items if item.ends}
            table: _Table = {}
            for rows in chain(unix_sockets(net), tcp_sockets(net, wanted)):
                self._in_time()
                for row in rows:
                    table.setdefault(row.ends, {})[row.inode] = row.state
            self._tables[space] = table
        return self._tables[space]

    @cached_property
    def _folders(self) -> dict[str, str]:
        """Where to look into the namespaces that are not ours: a process that lives there."""
        spaces = {item.namespace for item in self.items if item.namespace}
        kinds = {space.partition(":")[0] for space in spaces}
        found: dict[str, str] = {}
        for pid in all_pids():
            self._in_time()
            with suppress(OSError):
                found |= {os.readlink(f"/proc/{pid}/ns/{kind}"): f"/proc/{pid}" for kind in kinds}
        return found

    @cached_property
    def _holders(self) -> dict[tuple[int, int], int]:
        """Who alive has one of the deleted files or lock files open: device and inode -> pid."""
        names = {item.name + DELETED * (item.kind == "deleted-file") for item in self.items if item.kind in _LAST}
        found: dict[tuple[int, int], int] = {}
        for pid in all_pids():
            self._in_time()
            with suppress(OSError):
                for number in os.listdir(f"/proc/{pid}/fd"):
                    with suppress(FileNotFoundError):
                        path = f"/proc/{pid}/fd/{number}"
                        if os.readlink(path) in names:
                            status = os.stat(path)
                            found[status.st_dev, status.st_ino] = pid
        return found

    @cached_property
    def _locked(self) -> set[int]:
        """What is locked, as far as it is shown, by inode alone: some file systems have two device numbers."""
        return {int(inode) for inode in _LOCKED_INODE.findall(b"\n".join(read_pieces("/proc/locks")))}

    def _in_time(self) -> None:
        if time.monotonic() > self._end_s:
            raise OutOfTimeError


def same_file(status: os.stat_result, item: Belonging) -> bool:
    """Tell whether this is the file that was found, and not another one by its name."""
    return (status.st_dev, status.st_ino) == (item.device, item.inode)
