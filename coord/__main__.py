"""The command `coord`, and `python -m coord`. An agent gets its guardian here, before anything slow is imported."""

from __future__ import annotations

import os
import signal
import sys

GUARDED = ("run", "worker")


def main() -> None:
    """Run the command; under a guardian where it starts processes."""
    _open_standard_streams()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by who started us, no child could be waited for: wait(2)
    if sys.argv[1:2] and sys.argv[1] in GUARDED:
        from workers.guardian import guard

        code = guard()
        if code is not None:
            sys.exit(code)
    # a container may hold it back until somebody can take it (compose/Dockerfile); a guardian has seen to that itself
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    from coord import cli

    cli.main()


def _open_standard_streams() -> None:
    """Put /dev/null in the place of a standard stream that is closed, lest a socket takes its number."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003  # the lowest free number: this one
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115  # lives as long as the process


if __name__ == "__main__":
    main()
