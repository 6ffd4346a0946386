"""What every command needs to know: flags, then environment, then defaults; validated once, here."""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from coord.errors import UsageError
from coord.plan import WAIT_MAX_S, format_duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

HOST_MAX = 64
RETAIN_MIN_S = 60
REPLICAS_MAX = 100
LOSS_MIN_S = 5.0  # more than an answer may take
LOSS_AFTER_S = 60.0
LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Settings:
    """`redis_url` None: the embedded server."""

    redis_url: str | None
    host: str
    retain_s: int
    log_level: str
    min_replicas: int = 0
    secret_file: str | None = None

    @property
    def by(self) -> str:
        """Who acts, as the record names it: `user@host`."""
        return acting_on(self.host)


def variable(name: str, check: Callable[[str], T]) -> T | None:
    """Give what an environment variable says, checked; None when it is unset or empty. Raises UsageError naming it."""
    text = os.environ.get(name)
    try:
        return check(text) if text else None
    except UsageError as error:
        raise UsageError(f"{name}: {error.message}", error.hint) from error


def acting_on(host: str) -> str:
    """Give the name under which this user acts on a host: `user@host`."""
    return f"{user_name()}@{host}"


def host_name() -> str:
    """Give the name of this host when nobody gave one."""
    return socket.gethostname() or "localhost"


def user_name() -> str:
    """Give the user's name; its number where the system has no name for it (containers)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def check_host(host: str) -> str:
    """Give the host's name back if it can be one; raises UsageError that says why not."""
    if not host or len(host) > HOST_MAX or not host.isprintable() or " " in host:
        raise UsageError(f"{host!r} is no host name", f"1 to {HOST_MAX} printable characters without spaces")
    return host


def parse_retain(text: str) -> int:
    """Read how long the record is kept, in seconds; raises UsageError."""
    return check_retain(parse_duration(text))


def check_retain(seconds: float) -> int:
    """Give whole seconds back if a record can be kept so long; raises UsageError that says why not."""
    if not seconds >= RETAIN_MIN_S:
        raise UsageError(
            f"the record is kept for at least {format_duration(RETAIN_MIN_S)}", "The fence lives as long as the record"
        )
    if seconds > WAIT_MAX_S:
        raise UsageError(f"the record is kept for at most {format_duration(WAIT_MAX_S)}")
    return round(seconds)


def parse_replicas(text: str) -> int:
    """Read a number of replicas; raises UsageError."""
    if not text.isdecimal():
        raise UsageError(f"{text!r} is no number of replicas", f"0 to {REPLICAS_MAX}")
    return check_replicas(int(text))


def check_replicas(count: int) -> int:
    """Give the number back if there can be so many replicas; raises UsageError that says why not."""
    if not 0 <= count <= REPLICAS_MAX:
        raise UsageError(f"{count} is no number of replicas", f"0 to {REPLICAS_MAX}")
    return count


def alone_after(on_loss: str, after_s: float) -> float | None:
    """Give after how long without Redis an agent stops by itself; None: it goes on. Raises UsageError."""
    if on_loss == "keep":
        return None
    if not LOSS_MIN_S <= after_s <= WAIT_MAX_S:
        raise UsageError(
            f"{format_duration(after_s)} without Redis is no reason to stop",
            f"Give {format_duration(LOSS_MIN_S)} to {format_duration(WAIT_MAX_S)}: a server may be restarted",
        )
    return after_s


def runtime_dir() -> Path:
    """Give this user's own directory for sockets and the embedded server; made with mode 700 if it is missing.

    `COORD_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/coord`, else `/tmp/coord-UID`. Raises UsageError when it is somebody
    else's: a directory in /tmp could have been put there to listen in.
    """
    if given := os.environ.get("COORD_RUNTIME_DIR"):
        path = Path(given).absolute()
    elif (xdg := os.environ.get("XDG_RUNTIME_DIR")) and Path(xdg).is_dir() and os.access(xdg, os.W_OK):
        path = Path(xdg) / "coord"
    else:
        path = Path("/tmp") / f"coord-{os.getuid()}"  # noqa: S108  # its owner and mode are checked below
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat(follow_symlinks=False)
    except OSError as error:
        raise UsageError(f"can't use {path}: {error.strerror}", "Set COORD_RUNTIME_DIR") from error
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UsageError(f"{path} is not this user's alone", f"Run chmod 700 {path}, or set COORD_RUNTIME_DIR")
    return path
