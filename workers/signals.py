"""Opens pidfds and sends signals; the only file that does either. Decides nothing. Standard library only.

Where the kernel or a sandbox (seccomp) refuses pidfds, a signal goes to a pid. Who calls must know that the number is
nobody else's: a child of its own that it has not waited for yet, or a process that it has just looked at.
"""

from __future__ import annotations

import errno
import os
import signal
from functools import cache

NO_MORE_FDS = frozenset({errno.EMFILE, errno.ENFILE})


def hold(pid: int) -> int | None:
    """Give a pidfd; None where there are none. Raises ProcessLookupError; OSError when descriptors run out."""
    return os.pidfd_open(pid) if have_pidfds() else None


def send(pid: int, pidfd: int | None, number: int) -> None:
    """Send a signal, through the pidfd where there is one. Raises ProcessLookupError and PermissionError."""
    if pidfd is not None:
        signal.pidfd_send_signal(pidfd, number)
    elif pid > 1:  # 0, -1 and less are groups and everybody: kill(2)
        os.kill(pid, number)
    else:
        raise ValueError(f"refused to signal {pid}: it is no process's number")


def send_to_group(leader_pid: int, number: int) -> None:
    """Send a signal to a process group other than our own. Raises ProcessLookupError and PermissionError.

    Who calls holds its leader: a child of its own that it has not waited for yet.
    """
    if leader_pid <= 1 or leader_pid == os.getpgrp():
        raise ValueError(f"refused to signal the group {leader_pid}: it is not a child's")
    os.killpg(leader_pid, number)


def have_pidfds() -> bool:
    """Tell whether pidfds can be opened and signalled here; one alone is of no use."""
    return not refusals()


@cache
def refusals() -> dict[str, str]:
    """Tell which of the two calls are refused here, and in which words; a sandbox may forbid either."""
    found = {}
    pidfd = -1
    try:
        pidfd = os.pidfd_open(os.getpid())
    except OSError as error:
        if error.errno not in NO_MORE_FDS:
            found["pidfd_open"] = os.strerror(error.errno or 0)
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except OSError as error:
        if error.errno != errno.EBADF:  # the call is there; it was given nothing to signal
            found["pidfd_send_signal"] = os.strerror(error.errno or 0)
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    return found
