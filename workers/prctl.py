"""Two settings of the kernel for this process: prctl(2). Standard library only."""

from __future__ import annotations

import os
import signal
from functools import cache
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37


def become_subreaper() -> None:
    """Make every orphan below this process its child, instead of PID 1's."""
    _set(PR_SET_CHILD_SUBREAPER, 1)


def stop_being_subreaper() -> None:
    """Let orphans go to PID 1 again, or to the next subreaper above."""
    _set(PR_SET_CHILD_SUBREAPER, 0)


def is_subreaper() -> bool:
    """Tell whether this process is one."""
    import ctypes

    found = ctypes.c_int()
    _set(PR_GET_CHILD_SUBREAPER, ctypes.byref(found))
    return bool(found.value)


def set_parent_death_signal() -> None:
    """Have the kernel send SIGTERM to this process when the thread that started it ends."""
    _set(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_with_parent(parent_pid: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent dies, and at once if that is dead already."""
    set_parent_death_signal()
    if os.getppid() != parent_pid:
        signal.raise_signal(signal.SIGTERM)


@cache
def libc() -> Any:
    """Give the C library."""
    import ctypes  # slow to import, so only where it is needed

    return ctypes.CDLL(None, use_errno=True)


def _set(option: int, value: Any) -> None:
    import ctypes

    if libc().prctl(option, value, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
