"""Parts of fakeredis as a simulation needs them: in one order, and in bytes."""

from __future__ import annotations

from typing import Any

from fakeredis._core import Database
from fakeredis._helpers import SimpleError, SimpleString


class InOrder(dict[Any, None]):
    """A set that is walked through in the order in which it was filled."""

    def add(self, each: Any) -> None:
        """Add one."""
        self[each] = None

    def remove(self, each: Any) -> None:
        """Take one out."""
        del self[each]

    def discard(self, each: Any) -> None:
        """Take one out, if it is there."""
        self.pop(each, None)


class Data(Database):
    """A database that nobody watches, and that tells who is blocked on it in one order."""

    def __init__(self) -> None:
        super().__init__(None)
        self._change_callbacks: Any = InOrder()

    def notify_watch(self, key: bytes) -> None:
        """Tell who is blocked."""
        del key
        for callback in list(self._change_callbacks):
            callback()


def encoded(value: Any, protocol: int) -> bytes:
    """Give a reply as bytes."""
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if value is None:
        return b"_\r\n" if protocol == 3 else b"$-1\r\n"
    if isinstance(value, SimpleString):
        return b"+%b\r\n" % value.value
    if isinstance(value, SimpleError):
        return b"-%b\r\n" % value.value.encode()
    if isinstance(value, bool):
        raise TypeError("no reply is a truth value")
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, float):
        return b",%b\r\n" % repr(value).encode()
    if isinstance(value, str):
        return encoded(value.encode(), protocol)
    if isinstance(value, dict):
        flat = [word for pair in value.items() for word in pair]
        head = b"%%%d\r\n" % len(value) if protocol == 3 else b"*%d\r\n" % len(flat)
        return head + b"".join(encoded(each, protocol) for each in flat)
    return b"*%d\r\n" % len(value) + b"".join(encoded(each, protocol) for each in value)
