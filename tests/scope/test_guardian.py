"""The guardian beside a program: it hears of the program's death, is replaced, and what it leaves is swept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from tests.harness import WAIT_S, kill, until
from tests.process.conftest import NO_CGROUP
from tests.scope.conftest import UNCHANGED
from tests.scope.ranks import LONG_S
from workers import beside
from workers.cgroups import home
from workers.proc import children_of, read_command, read_stat

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tests.harness import Lab
    from tests.scope.conftest import Program

RUNS = int(os.environ.get("COORD_TEST_DEATHS", "4"))
GRACE_S = 0.3
CONTEXTS = ["fork", "spawn", "forkserver"]


def guardian(run: Program) -> int | None:
    """Give the guardian's pid; None while there is none."""
    stats = [stat for pid in children_of(run.started.popen.pid) if (stat := read_stat(pid)) and stat.alive]
    return next((stat.pid for stat in stats if "workers.scope_guard" in read_command(stat)), None)


def alive(run: Program) -> list[int]:
    """Give who is left of those that told something; nobody else has got their numbers so soon."""
    pids = {each["pid"] for what in ("ready", "daemon") for each in run.told(what)}
    return [pid for pid in pids if (stat := read_stat(pid)) and stat.alive]


def verdict(lab: Lab, job: str) -> dict[str, Any]:
    found: dict[str, Any] = until(lambda: (found := lab.status(job))["verdict"] and found, "the verdict")
    return found


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_a_dead_programs_ranks_are_stopped_and_told(
    program: Callable[..., Program], lab: Lab, job: str, containment: str, context: str
) -> None:
    """The guardian runs the plan on all; the record says no more than is true."""
    ranks = [["sleeper"], ["deaf"], ["parent"], ["daemon"]]
    scope = {"job_id": job, "grace_s": 1, "label": "train"}
    run = program("blocked", context=context, where="sleep", scope=scope, ranks=ranks)
    run.until("blocked")
    run.started.popen.kill()
    until(lambda: not lab.left() and not alive(run), "everything to be gone")
    status = verdict(lab, job)
    assert status["verdict"] == ("forced" if containment == "cgroup" else "incomplete")
    assert status["first_failure"]["label"] == "agent of train"
    (agent,) = status["agents"]
    assert agent["proof"] == ("cgroup" if containment == "cgroup" else None)
    assert Counter(each["outcome"] for each in agent["processes"])["killed"] >= 1
    assert NO_CGROUP or not Path(home(), f"coord-{agent['agent_id']}").exists()


def test_a_guardian_without_pidfds_hears_the_end_of_its_link(
    program: Callable[..., Program], lab: Lab, job: str
) -> None:
    """A forked rank has no copy of the program's end."""
    die_beside_a_deaf_rank(program, job, "pidfd")
    until(lambda: not lab.left(), "everything to be gone")


def test_a_copy_of_the_programs_end_keeps_it_waiting(program: Callable[..., Program], lab: Lab, job: str) -> None:
    """Negative control: what a forked rank has of the program is not closed; as long as it lives, nothing happens."""
    run = die_beside_a_deaf_rank(program, job, "pidfd and fork hook")
    with pytest.raises(AssertionError, match="nobody"):
        until(lambda: not alive(run), "nobody to be left", 8 * GRACE_S)
    (deaf,) = alive(run)
    kill(deaf, lab.token)
    until(lambda: not lab.left(), "the guardian to have heard, and to be gone")


def die_beside_a_deaf_rank(program: Callable[..., Program], job: str, off: str) -> Program:
    scope = {"job_id": job, "local": True, "grace_s": GRACE_S}
    run = program("blocked", off=off, where="sleep", scope=scope, ranks=[["deaf"], ["sleeper"]])
    run.until("blocked")
    run.started.popen.kill()
    run.started.popen.wait()
    return run


async def test_one_that_has_lived_is_replaced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile nobody guards. One that dies soon after its start, the negative control, is not: it would never end."""

    def start(theirs: socket.socket) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["cat"], stdin=theirs.fileno(), stdout=subprocess.DEVNULL)

    monkeypatch.setattr(beside, "_start", start)
    monkeypatch.setattr(beside, "AGAIN_S", LONG_S)
    monkeypatch.setattr("workers.estate.declare", lambda *_, **__: None)
    ours = beside.Beside(set(), structlog.get_logger())
    ours.start({"agent_id": "here-1-x"}, None)
    ours.again_if_it_dies()
    ours._began_s -= LONG_S
    first = popen_of(ours)
    first.kill()
    await until_async(lambda: ours.link.end and popen_of(ours) is not first)
    popen_of(ours).kill()
    await until_async(lambda: ours.link.end is None)
    with pytest.raises(TimeoutError):
        await until_async(lambda: ours.link.end, 0.2)
    ours.close()


def popen_of(ours: beside.Beside) -> subprocess.Popen[bytes]:
    assert ours._popen
    return ours._popen


async def until_async(fact: Callable[[], object], wait_s: float = WAIT_S) -> None:
    async with asyncio.timeout(wait_s):
        while not fact():  # noqa: ASYNC110  # what it waits for has no events
            await asyncio.sleep(0.005)


def test_a_dead_guardian_leaves_no_trace(program: Callable[..., Program], lab: Lab, job: str) -> None:
    """The program goes on to its normal end, and has no more descriptors, zombies or threads than before."""
    run = program("ranks", scope={"job_id": job}, ranks=[["brief", 3]])
    run.until("ready")
    kill(until(lambda: guardian(run), "the guardian"), lab.token)
    assert run.ended["error"] is None
    assert run.until("traces")[0].keys() == UNCHANGED
    out = run.end()
    assert out.code == 0
    assert out.err.count("guardian.lost") == len(out.err.splitlines()) == 1


@pytest.mark.parametrize("sweeper", ["command", "scope"])
@pytest.mark.parametrize("local", [True, False], ids=["local", "redis"])
def test_what_both_leave_is_swept_by_the_next_agent(
    program: Callable[..., Program], lab: Lab, job: str, tmp_path: Path, containment: str, sweeper: str, *, local: bool
) -> None:
    """Killed at one instant, program and guardian: who can goes by the kernel's hand, the rest by the next agent's."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    lab.environment["COORD_RUNTIME_DIR"] = str(runtime)  # nobody else's estate is seen to meanwhile
    scope = {"job_id": job, "local": local, "grace_s": 0.5}
    run = program("blocked", where="sleep", scope=scope, ranks=[["sleeper"], ["deaf"], ["daemon"]])
    run.until("blocked")
    guard = guardian(run) or 0
    with contextlib.closing(Handle(guard)) as handle:
        handle.send(signal.SIGSTOP)  # it can't act on the death of the program any more
        run.started.popen.kill()
        run.started.popen.wait()
        handle.send(signal.SIGKILL)
    until(lambda: len(alive(run)) == 2, "only what does not go when asked to be left")
    if sweeper == "command":
        lab.run(f"{job}-next", "true").end()
    else:
        program("ranks", scope={"job_id": f"{job}-next", "local": local}, host="next", ranks=[["brief"]]).end()
    until(lambda: not alive(run) and not lab.left(), "the next agent to have swept")
    until(lambda: not list((runtime / "agents").iterdir()), "nothing to be left to see to")
    if local:
        assert lab.status(job) is None, "a local job is nobody else's affair"
    else:
        assert verdict(lab, job)["verdict"] == ("forced" if containment == "cgroup" else "incomplete")


class Handle:
    """Holds a process that is no child of the test."""

    def __init__(self, pid: int) -> None:
        self._fd = os.pidfd_open(pid)

    def send(self, number: signal.Signals) -> None:
        signal.pidfd_send_signal(self._fd, number)

    def close(self) -> None:
        os.close(self._fd)


@pytest.mark.usefixtures("containment")
@pytest.mark.parametrize("seed", range(RUNS))
def test_a_death_at_any_instant_leaves_nothing(program: Callable[..., Program], lab: Lab, job: str, seed: int) -> None:
    """The program, or its guardian first, killed at a random instant of starting, working or stopping."""
    chance = random.Random(seed)
    scope = {"job_id": job, "grace_s": 0.3, "local": chance.random() < 0.5}
    run = program("living", context=chance.choice(CONTEXTS), seed=seed, scope=scope)
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.started.popen.wait(chance.uniform(0, 3))  # the instant is what this varies
    if chance.random() < 0.3 and not scope["local"]:
        lab.start("shutdown", "--job-id", job, "--no-wait").end()
    if chance.random() < 0.3 and (pid := guardian(run)):
        kill(pid, lab.token)
        until(lambda: guardian(run) not in {None, pid} or not run.started.running, "another guardian")
    run.started.popen.kill()
    until(lambda: not lab.left() and not alive(run), "everything to be gone, our own processes too")
