"""The embedded server: one per user, shared, kept up by its keeper, and gone when nobody needs it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from coord import embedded
from coord.embedded import ensure
from coord.ledger import Ledger
from tests.harness import COORD, until
from tests.record.desk import Desk
from tests.record.servers import raw, serving

if TYPE_CHECKING:
    from tests.embedded.conftest import Fence, Runtime

AT_ONCE = 8
ROUNDS = 10
LOOK = """
from coord.embedded import _is_kept
from coord.settings import runtime_dir
folder = runtime_dir()
print(flush=True)
while True: _is_kept(folder)
"""
ASK = "from coord.embedded import ensure; print(ensure())"


def test_commands_at_once_share_one_server(runtime: Runtime) -> None:
    """However many commands start at the same time, there is one keeper and one server, and all use it."""
    started = [
        subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(AT_ONCE)
    ]
    ended = [(process.communicate(timeout=60), process.returncode) for process in started]
    assert ended == [((f"unix://{runtime.socket}\n", ""), 0)] * AT_ONCE
    until(lambda: len(runtime.keepers) == len(runtime.servers) == 1, "one keeper and one server")


def test_asking_for_the_keeper_never_keeps_it_from_starting(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that looks whether there is a keeper is never taken for one: the first one started stays."""
    starts: list[Any] = []
    start = embedded._spawn_keeper

    def counted(*args: Any) -> None:
        starts.append(args)
        start(*args)

    monkeypatch.setattr(embedded, "_spawn_keeper", counted)
    with subprocess.Popen([sys.executable, "-c", LOOK], stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        asking.stdout.readline()  # it looks, again and again
        try:
            for _ in range(ROUNDS):
                ensure()
                runtime.close()
        finally:
            asking.kill()
    assert len(starts) == ROUNDS


def test_second_call_finds_the_first_server(runtime: Runtime) -> None:
    """A server that runs is used as it is: the second command starts nothing."""
    assert ensure() == ensure() == f"unix://{runtime.socket}"
    first = (runtime.info("run_id"), runtime.keepers, runtime.servers)
    assert ensure()
    assert (runtime.info("run_id"), runtime.keepers, runtime.servers) == first


def test_server_is_its_users_alone(runtime: Runtime) -> None:
    """Nobody else can reach it: no port is open, and the socket and its directory are closed to others."""
    ensure()
    assert runtime.folder.stat().st_mode & 0o077 == 0
    assert runtime.socket.stat().st_mode & 0o077 == 0
    assert runtime.info("tcp_port") == 0


def test_keeper_is_nobodys_child(runtime: Runtime) -> None:
    """The keeper and the server hang on none of our processes and sessions: an agent counts what is below it."""
    ensure()
    (keeper,) = runtime.keepers
    assert os.getsid(keeper) != os.getsid(0)
    assert parent_of(keeper) != os.getpid()
    assert [parent_of(server) for server in runtime.servers] == [keeper]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("watched", [False, True], ids=["just started", "watched"])
def test_killed_server_comes_back_with_the_fence(
    runtime: Runtime, fence: Fence, monkeypatch: pytest.MonkeyPatch, *, watched: bool
) -> None:
    """SIGKILL to the server loses nothing that was acknowledged: it is started again, and a forbidden job stays so."""
    monkeypatch.setenv("COORD_EMBEDDED_IDLE_S", "4")
    fence.put()
    before = runtime.info("run_id")
    if watched:
        looked(runtime, 1)
    (server,) = runtime.servers
    keepers = runtime.keepers
    runtime.kill(server)
    until(lambda: [pid for pid in runtime.servers if pid != server], "the keeper to start the server again")
    assert fence.holds
    assert runtime.info("run_id") != before
    assert runtime.keepers == keepers


@pytest.mark.parametrize(("appendonly", "word"), [("yes", "fenced"), ("no", "joined")])
def test_control_without_the_file_a_killed_server_forgets(job: str, appendonly: str, word: str) -> None:
    """Negative control: a server that appends to no file, and is killed as above, forgets the fence."""
    with TemporaryDirectory(prefix="coord-") as folder:
        for life in range(2):
            with serving("valkey", Path(folder), appendonly=appendonly) as url, raw(url) as client:  # ends with SIGKILL
                ledger = Ledger(url)
                desk = Desk(ledger, job, client)
                answer = desk.join("late") if life else desk.request(fence_unknown=True)
                ledger.close()
    assert answer.word == word


def test_killed_keeper_is_replaced_and_the_server_stays(runtime: Runtime, fence: Fence) -> None:
    """SIGKILL to the keeper ends nobody's work: the server goes on, and the next command starts a new keeper."""
    fence.put()
    before = (runtime.info("run_id"), runtime.servers)
    (keeper,) = runtime.keepers
    runtime.kill(keeper)
    assert runtime.servers == before[1]
    assert fence.holds
    assert (runtime.info("run_id"), runtime.servers) == before
    until(lambda: len(runtime.keepers) == 1, "one new keeper")
    assert runtime.keepers != [keeper]


def test_both_killed_come_back_with_the_fence(runtime: Runtime, fence: Fence) -> None:
    """With keeper and server both gone, the socket that is left behind stops nobody, and the fence is kept."""
    fence.put()
    runtime.close()
    assert runtime.socket.exists()
    assert fence.holds
    assert len(runtime.keepers) == len(runtime.servers) == 1


@pytest.mark.parametrize("took_over", [False, True], ids=["its own server", "a server it took over"])
def test_unused_server_goes_by_itself_and_keeps_the_fence(
    runtime: Runtime, fence: Fence, monkeypatch: pytest.MonkeyPatch, *, took_over: bool
) -> None:
    """Some time after its last client server and keeper are gone, the socket too; what was written is still there."""
    monkeypatch.setenv("COORD_EMBEDDED_IDLE_S", "0.4")
    fence.put()
    if took_over:
        for keeper in runtime.keepers:
            runtime.kill(keeper)
        ensure()
    until(lambda: not runtime.processes, "keeper and server to go by themselves")
    assert [path.name for path in runtime.folder.iterdir() if path.is_socket()] == []
    assert fence.holds
    assert len(runtime.keepers) == len(runtime.servers) == 1


def test_server_stays_while_a_client_is_connected(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that says nothing for many times the idle time keeps its server; without it the server goes."""
    monkeypatch.setenv("COORD_EMBEDDED_IDLE_S", "0.2")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(ensure().removeprefix("unix://"))
        before = (runtime.keepers, runtime.servers)
        time.sleep(6 * 0.2)  # time that has to pass: what should not happen has no other sign
        assert (runtime.keepers, runtime.servers) == before
        assert len(before[1]) == 1
        client.sendall(b"PING\r\n")
        assert client.recv(64).startswith(b"+PONG")
    until(lambda: not runtime.processes, "keeper and server to go, now that nobody is connected")


def looked(runtime: Runtime, times: int) -> None:
    """Wait until the keeper has looked at its server so often; it does four times within the idle time."""
    with raw(ensure()) as client:

        def connections() -> int:
            return int(client.info()["total_connections_received"])

        before = connections()
        until(lambda: connections() >= before + times, "the keeper to look at its server")
    assert runtime.keepers


def test_everything_is_in_the_runtime_directory(runtime: Runtime, tmp_path: Path) -> None:
    """Nothing is written anywhere else: not at home, not in the working directory, not among temporary files."""
    places = {name: tmp_path / name for name in ("home", "work", "tmp", "cache")}
    for place in places.values():
        place.mkdir()
    environment = {
        **os.environ,
        "HOME": str(places["home"]),
        "TMPDIR": str(places["tmp"]),
        "XDG_CACHE_HOME": str(places["cache"]),
    }
    subprocess.run([COORD, "jobs"], cwd=places["work"], env=environment, check=True, capture_output=True, timeout=60)
    assert [path for place in places.values() for path in place.rglob("*")] == []
    for pid in runtime.processes:
        assert written_by(pid) <= {str(path) for path in runtime.folder.rglob("*")}
        assert Path(f"/proc/{pid}/cwd").readlink() == runtime.folder


def written_by(pid: int) -> set[str]:
    """The files that a process has open; it may have devices, sockets and pipes too."""
    links = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()]
    return {str(link) for link in links if link.is_absolute() and not link.is_relative_to("/dev")}
