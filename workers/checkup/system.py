"""The system below: Python, the kernel, the clock."""

from __future__ import annotations

import ctypes
import platform
from typing import TYPE_CHECKING

from coord.finding import ok, warn
from workers.prctl import libc

if TYPE_CHECKING:
    from coord.finding import Finding

AHEAD_MAX_S = 1.0
STA_UNSYNC = 0x40  # adjtimex(2)


def system() -> Finding:
    """Name Python and the kernel."""
    return ok(f"Python {platform.python_version()}, {platform.system()} {platform.release()}, {platform.machine()}")


def clock(ahead_s: float | None = None) -> Finding:
    """Tell how far the clock is from Redis', and whether somebody keeps it. coord goes by Redis' clock alone."""
    kept = _kept()
    by = "" if kept is None else ", kept in time (NTP)" if kept else ", not kept in time (no NTP)"
    if ahead_s is None:
        return ok(f"this host's clock{by or ' runs'}")
    if abs(ahead_s) > AHEAD_MAX_S:
        side = "ahead of" if ahead_s > 0 else "behind"
        return warn(
            f"{abs(ahead_s):,.1f} s {side} Redis' clock{by}: times in logs and in the record do not agree",
            "Have both clocks kept in time: NTP, chrony",
        )
    return ok(f"{abs(ahead_s) * 1000:.1f} ms off Redis' clock{by}")


class _Timex(ctypes.Structure):
    """The beginning of struct timex, and more room than the rest of it takes."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def _kept() -> bool | None:
    """Tell what the kernel thinks of its clock; None: it does not say."""
    answer = _Timex(modes=0)  # asks, and sets nothing
    if libc().adjtimex(ctypes.byref(answer)) < 0:
        return None
    return not answer.status & STA_UNSYNC
