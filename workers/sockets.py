"""Reads the kernel's tables of sockets, /proc/PID/net: one set of tables for each network namespace. See proc(5)."""

from __future__ import annotations

import os
import re
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.proc import read_pieces

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

LISTENS = "LISTEN"
# include/net/tcp_states.h; with TIME_WAIT and CLOSE a connection is over, and NEW_SYN_RECV is nobody's yet
_STATES = {
    b"01": "ESTABLISHED",
    b"02": "SYN_SENT",
    b"03": "SYN_RECV",
    b"04": "FIN_WAIT1",
    b"05": "FIN_WAIT2",
    b"08": "CLOSE_WAIT",
    b"09": "LAST_ACK",
    b"0A": LISTENS,
    b"0B": "CLOSING",
}
# number, references, protocol, flags, type, state, inode, path; a path may hold anything, also what looks like a row
_UNIX = re.compile(rb"(?m)^\S+: [0-9A-F]+ [0-9A-F]+ ([0-9A-F]{8}) [0-9A-F]+ [0-9A-F]+ +([0-9]+)(?: (.+))?$")
_ACCEPTS = 0x10000  # __SO_ACCEPTCON: a unix socket that listens
_MAPPED = bytes(10) + b"\xff\xff"  # an IPv4 address in IPv6's clothes


@dataclass(frozen=True, slots=True)
class Socket:
    """A row of a table. `inode` is 0 when no process has it any more, but the kernel still does.

    `ends`: local and remote address as the table has them: they tell a connection from any other. For a unix socket:
    the path it listens on, or nothing.
    """

    inode: int
    ends: str
    state: str

    @property
    def name(self) -> str:
        """Say where it listens, or what it is connected to: `10.0.0.5:5432`."""
        local, _, remote = self.ends.partition(" ")
        return address(local if self.state == LISTENS else remote)


def tcp_sockets(net: str, wanted: Container[int | str]) -> Iterator[list[Socket]]:
    """Give, piece by piece, what listens or is connected, of those whose inode or ends are wanted.

    `net`: `/proc/PID/net`. Raises OSError.
    """
    for table in ("tcp", "tcp6"):
        if table == "tcp6" and not os.path.exists(f"{net}/tcp6"):
            return  # a kernel without IPv6
        for piece in read_pieces(f"{net}/{table}"):
            rows = (line.split(None, 10) for line in piece.splitlines())
            yield [each for row in rows if (each := _tcp(row, wanted))]


def unix_sockets(net: str) -> Iterator[list[Socket]]:
    """Give all of them, piece by piece; those that listen on a path of the file system have it as `ends`."""
    for piece in read_pieces(f"{net}/unix"):
        yield [_unix(*row.groups(b"")) for row in _UNIX.finditer(piece)]


def address(text: str) -> str:
    """`0500000A:1538` -> `10.0.0.5:5432`; the kernel prints an address as 32-bit numbers of this machine."""
    digits, _, port = text.partition(":")
    raw = b"".join(int(digits[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(digits), 8))
    raw = raw.removeprefix(_MAPPED)
    if len(raw) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, raw)}:{int(port, 16)}"
    return f"[{socket.inet_ntop(socket.AF_INET6, raw)}]:{int(port, 16)}"


def _tcp(row: list[bytes], wanted: Container[int | str]) -> Socket | None:
    state = _STATES.get(row[3])
    if state is None:
        return None  # over, or the head of the table
    inode, ends = int(row[9]), f"{row[1].decode()} {row[2].decode()}"
    return Socket(inode, ends, state) if inode in wanted or ends in wanted else None


def _unix(flags: bytes, inode: bytes, path: bytes) -> Socket:
    listens = int(flags, 16) & _ACCEPTS
    on_disk = listens and not path.startswith(b"@")  # @: an abstract name, which goes with the last who has it
    return Socket(int(inode), os.fsdecode(path) if on_disk else "", LISTENS if listens else "")
