"""Takes system calls away from a program, as a sandbox does: `python tests/seccomp.py pidfd_open=EPERM -- PROGRAM...`.

A real seccomp filter, put on this process, which then becomes the program: all that it starts has the filter too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

# asm-generic/unistd.h: since Linux 5.1, new calls have one number on all machines
NUMBERS = {"pidfd_send_signal": 424, "pidfd_open": 434}
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h: AUDIT_ARCH_*
WHY_NOT = None if platform.machine() in MACHINES else f"no filter is written for {platform.machine()}"

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
RET_ALLOW = 0x7FFF0000
RET_ERRNO = 0x00050000
LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K
AT_NUMBER, AT_MACHINE = 0, 4  # struct seccomp_data


def words(*rules: str) -> tuple[str, ...]:
    """Give the words to put before a program's own: what this Python is to run."""
    return (__file__, *rules, "--")


def program(refused: dict[int, int]) -> bytes:
    """Make the filter: system call number -> errno; everything else is allowed, on a foreign machine everything."""
    lines = [
        (LOAD_WORD, 0, 0, AT_MACHINE),
        (JUMP_IF_EQUAL, 1, 0, MACHINES[platform.machine()]),
        (RETURN, 0, 0, RET_ALLOW),
        (LOAD_WORD, 0, 0, AT_NUMBER),
    ]
    for number, code in refused.items():
        lines += [(JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, RET_ERRNO | code)]
    lines.append((RETURN, 0, 0, RET_ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


class _Filter(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("lines", ctypes.c_char_p))


def put_on(rules: list[str]) -> None:
    """Put the filter on this process, for good. A rule: `pidfd_open=EPERM`."""
    refused = {NUMBERS[name]: getattr(errno, code) for name, _, code in (rule.partition("=") for rule in rules)}
    code = program(refused)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    given = _Filter(len(code) // 8, code)
    for args in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(given), 0, 0),
    ):
        if prctl(*args):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    end = sys.argv.index("--")
    put_on(sys.argv[1:end])
    os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])
