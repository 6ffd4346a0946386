"""Finds processes by a mark in their environment, which every child inherits. Asks /proc alone, and nothing of coord.

It does not see other users' processes, nor a process that was started with a new environment.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def marked(*marks: str) -> list[int]:
    """Find the processes with one of these in their environment or command line."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if has_mark(pid, marks)]


def has_mark(pid: int, marks: tuple[str, ...]) -> bool:
    """Tell whether a process has one of these; one that is gone, or another user's, has none."""
    text = b""
    for name in ("environ", "cmdline"):
        with suppress(OSError):
            text += Path(f"/proc/{pid}/{name}").read_bytes() + b"\0"
    return any(mark.encode() in text for mark in marks)


def kill(pid: int, marks: tuple[str, ...]) -> None:
    """Kill through a handle: between a look and a signal the number alone could become somebody else's."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if has_mark(pid, marks):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
