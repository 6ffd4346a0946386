"""The children of a program's job, as the program has them: what multiprocessing and subprocess wait for them with.

Also what ranks say themselves of how they ended. Called from several threads.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from workers import forks
from workers.handles import signal_name
from workers.prctl import libc

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from workers.handles import Status

Owner: TypeAlias = "BaseProcess | subprocess.Popen[Any]"

WORD_MAX_BYTES = 256 * 1024
TELL_S = 1.0  # how long a server of forks may take to say how its ranks ended
LOOK_S = 0.005
STATUS = struct.Struct("q")  # how a forkserver says it
SPLICE_F_NONBLOCK = 2


@dataclass(slots=True)
class _Child:
    owner: Owner
    line: socket.socket | None
    told: dict[str, Any] = field(default_factory=dict)


class Children:
    """Use: `add`, then `ended`, `trace`, `gone` and `reap`, then `close`."""

    def __init__(self) -> None:
        self._all: dict[int, _Child] = {}
        self._gone: deque[int] = deque()
        self._traces: dict[int, str] = {}
        self._listening = threading.Lock()
        self._pause = threading.Event()

    def add(self, owner: Owner, line: socket.socket | None = None) -> None:
        """Add one. `line`: to a rank, which says at its end how it was."""
        self._all[owner.pid or 0] = _Child(owner, line)

    def has(self, owner: Owner) -> bool:
        """Tell whether it was added."""
        child = self._all.get(owner.pid or 0)
        return child is not None and child.owner is owner

    def ended(self, pid: int) -> Status | None:
        """Tell how one ended that is gone; None while its owner has not said so."""
        child = self._all.get(pid)
        if child is None:
            return None
        if isinstance(child.owner, subprocess.Popen):
            code = child.owner.poll()  # None: another thread is just about to know it
        else:
            popen = getattr(child.owner, "_popen", None)
            code = getattr(popen, "returncode", None)
            if code is None:
                code = self._word_of(child).get("exit_code")
            if code is None and getattr(popen, "method", "") == "forkserver":
                code = _said_by_forkserver(child.owner.sentinel)
        if code is None:
            return None
        return (None, signal_name(-code)) if code < 0 else (code, None)

    def trace(self, pid: int) -> str:
        """Give the traceback of a rank that failed; empty when there is none."""
        child = self._all.get(pid)
        return str(self._word_of(child).get("trace", "")) if child else self._traces.get(pid, "")

    def gone(self, pid: int) -> None:
        """Note that it is known how one ended."""
        self._gone.append(pid)

    def reap(self) -> None:
        """Have the exits of those that are gone taken, and let go of them: no zombie stays."""
        for _ in range(len(self._gone)):
            pid = self._gone.popleft()
            child = self._all.get(pid)
            if child and not _taken(child.owner):
                self._gone.append(pid)
            elif child:
                self._hang_up(child)
                del self._all[pid]
                if trace := child.told.get("trace"):
                    self._traces[pid] = trace

    def settle(self) -> None:
        """Have the exits of those that are gone taken; a server of forks may be late in saying how its ranks ended."""
        end_s = time.monotonic() + TELL_S
        self.reap()
        while self._gone and time.monotonic() < end_s:
            self._pause.wait(LOOK_S)
            self.reap()

    def close(self) -> None:
        """Let go of all."""
        self.settle()
        for child in self._all.values():
            self._hang_up(child)

    def _hang_up(self, child: _Child) -> None:
        self._word_of(child)
        if child.line:
            forks.close(child.line)
            child.line = None

    def _word_of(self, child: _Child) -> dict[str, Any]:
        with self._listening, suppress(OSError, ValueError):
            if child.line and not child.told:
                child.told = json.loads(child.line.recv(WORD_MAX_BYTES, socket.MSG_DONTWAIT) or b"{}")
        return child.told


def _taken(owner: Owner) -> bool:
    """Have its owner take its exit; False while a server of forks has not said it."""
    if isinstance(owner, subprocess.Popen):
        return owner.poll() is not None
    try:
        if owner.exitcode is None:
            return False
        owner.join(0)  # so that multiprocessing lets go of it, too
    except ValueError:  # the program has closed it
        pass
    return True


def _said_by_forkserver(sentinel: int) -> int | None:
    """Look what the server of forks said of a rank's end, and leave it for multiprocessing to read."""
    reader, writer = os.pipe()
    try:
        if libc().tee(sentinel, writer, STATUS.size, SPLICE_F_NONBLOCK) != STATUS.size:
            return None
        return int(STATUS.unpack(os.read(reader, STATUS.size))[0])
    finally:
        os.close(reader)
        os.close(writer)
