"""Errors that a person meets: each has a message, a hint and an exit code.

Foreign errors (Redis, the operating system) are mapped to these at one boundary each, with `from` kept.
"""

from __future__ import annotations

OK = 0  # all gone, with proof
OWN_ERROR = 1  # a defect of ours
USAGE = 2  # the call's words are off
NO_SUCH_JOB = 3  # nobody ever joined it
UNREACHABLE = 4  # Redis can't be used: not reachable, wrong password, read-only
INCOMPLETE = 5  # a survivor, or a host that nobody has heard from
STILL_RUNNING = 6  # --timeout ended first
REFUSED = 7  # fenced, signature, policy
NOT_EXECUTABLE = 126  # as in a shell
NOT_FOUND = 127  # as in a shell


class CoordError(Exception):
    """What went wrong (`message`), what to do about it (`hint`), and how the process ends (`exit_code`)."""

    exit_code = OWN_ERROR

    def __init__(self, message: str, hint: str = "", *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        """Give the one line that a person reads."""
        return f"{self.message}. {self.hint}" if self.hint else self.message


class UsageError(CoordError):
    """An argument, an option or an environment variable is not what it must be."""

    exit_code = USAGE


class NoSuchJobError(CoordError):
    """Nobody ever joined the job, so there is nothing to stop: most likely a typing error."""

    exit_code = NO_SUCH_JOB


class UnreachableError(CoordError):
    """Redis can't be used now; what was recorded before stays recorded."""

    exit_code = UNREACHABLE


class UnansweredError(UnreachableError):
    """Redis did not answer, or is not there: what it was asked may have been done all the same."""


class RefusedError(CoordError):
    """The record says no: the job is fenced."""

    exit_code = REFUSED
