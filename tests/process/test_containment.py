"""How a host's processes are kept together: the cgroup, the mark that they carry, and what is asked of the host."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness import COORD, MARK, surroundings, until
from tests.process.conftest import NO_CGROUP
from workers.cgroups import Cgroup, NoCgroupError, clear, home
from workers.marks import Mark, new_owner, put_on, read_mark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Lab

NEEDS_CGROUP = pytest.mark.skipif(NO_CGROUP is not None, reason=str(NO_CGROUP))
# gets away from its parent, its session and its environment; says its pid
ESCAPE = "(setsid env -i sh -c 'echo $$; exec sleep 600' &) ; "


def marked(command: str, mark: Mark) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, preexec_fn=lambda: put_on(mark))  # noqa: PLW1509


@pytest.fixture
def escaped() -> Iterator[list[int]]:
    """Pids of what a test let escape; they are ended by handle."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        handle = os.pidfd_open(pid)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)


def test_a_mark_is_handed_down_to_whatever_is_started(escaped: list[int]) -> None:
    """setsid, a double fork and an empty environment: the orphan still tells whose child it comes from."""
    mark = Mark(new_owner(), 7)
    with marked(ESCAPE, mark) as popen:
        assert popen.stdout
        escaped.append(int(popen.stdout.readline()))
        popen.stdout.close()
    assert read_mark(escaped[0]) == mark


def test_who_was_not_marked_has_no_mark() -> None:
    """An ordinary limit is no mark, nor is none."""
    assert read_mark(os.getpid()) is None
    assert Mark.of_limit(200_000) is None
    assert Mark.of_limit(-1) is None
    assert Mark.of_limit(Mark(3, 9).limit) == (3, 9)


@pytest.mark.usefixtures("containment")
def test_trees_of_several_children_are_told_apart(lab: Lab, job: str, tmp_path: Path) -> None:
    """What escaped from each of three children is reported under that child's label."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, time\n"
        "from workers import JobScope\n"
        f"with JobScope({job!r}, grace_s=5) as scope:\n"
        "    for name in 'abc':\n"
        f"        child = scope.popen(['sh', '-c', {ESCAPE + 'sleep 600'!r}], label=name, stdout=-1)\n"
        "        child.stdout.readline()\n"
        "        child.stdout.close()\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
    )
    run = lab.start(str(program), program=sys.executable)
    assert run.popen.stdout
    assert run.popen.stdout.readline() == b"ready\n"
    ended = lab.call("shutdown", "--job-id", job, "--json")
    assert ended.json["verdict"] == "clean"
    labels = Counter(process["label"] for process in ended.json["agents"][0]["processes"])
    assert labels.keys() == {"a", "b", "c"}
    assert min(labels.values()) >= 2, "each child, and what escaped from it"
    run.end()


@NEEDS_CGROUP
def test_the_cgroup_goes_with_the_job(lab: Lab, job: str) -> None:
    """An agent makes one folder, its child is in a folder below, and nothing of it is left in the end."""
    run = lab.run(job, "sleep", "600", options=("--containment", "cgroup"))
    agent = lab.status(job)["agents"][0]
    folder = Path(home(), f"coord-{agent['agent_id']}")
    assert (folder / "1" / "cgroup.procs").read_text().split() == [str(agent["processes"][0]["pid"])]
    assert lab.call("shutdown", "--job-id", job, "--json").json["agents"][0]["proof"] == "cgroup"
    run.end()
    assert not folder.exists()


@NEEDS_CGROUP
def test_empty_folders_of_the_dead_are_cleared_and_others_stay() -> None:
    """A folder that nobody holds goes, if it is empty; one that an agent holds stays, though it is empty still."""
    dead, held = (Cgroup.make(home(), f"coord-test-{secrets.token_hex(4)}") for _ in range(2))
    fd = held.hold()
    assert fd is not None
    clear(home())
    assert (Path(dead.path).exists(), Path(held.path).exists()) == (False, True)
    os.close(fd)
    clear(home())
    assert not Path(held.path).exists()


@NEEDS_CGROUP
@pytest.mark.parametrize("namespace", [(), ("unshare", "--cgroup")], ids=["shared", "of-its-own"])
def test_a_mount_from_outside_of_the_namespace_is_not_taken_for_its_own(
    lab: Lab, job: str, namespace: tuple[str, ...]
) -> None:
    """A container that sees the host's cgroups, but not which of them is its own, starts its child in no other."""
    folder = Cgroup.make(home(), f"test-{secrets.token_hex(4)}")  # not an agent's by its name: nobody clears it away
    command = [*namespace, COORD, "run", "--job-id", job, "--log-level", "debug", "--", "cat", "/proc/self/cgroup"]
    ended = subprocess.run(
        command,
        env={**surroundings(), **lab.environment, MARK: lab.token},
        preexec_fn=lambda: folder.take_in(0),  # it calls the kernel only
        capture_output=True,
        text=True,
        check=True,
    )
    folder.remove()
    (where,) = [line for line in ended.stdout.splitlines() if line.startswith("0::")]
    if namespace:
        assert where == "0::/"
        assert "not mounted where this process can see its own cgroup" in ended.stderr
    else:
        assert f"{folder.path.rpartition('/')[2]}/coord-" in where


@NEEDS_CGROUP
def test_what_leaves_its_cgroup_is_stopped_all_the_same(lab: Lab, job: str) -> None:
    """A process that moves itself out of its cgroup (it may, as root) is still below the agent, and found."""
    leave = f"echo 0 > {home()}/cgroup.procs; setsid sleep 600 & exec sleep 600"
    run = lab.run(job, "sh", "-c", leave, options=("--containment", "cgroup"))
    until(lambda: len([each for each in lab.left().values() if each == "sleep 600 "]) == 2, "both to run")
    ended = lab.call("shutdown", "--job-id", job, "--json")
    assert (ended.json["verdict"], len(ended.json["agents"][0]["processes"])) == ("clean", 2)
    run.end()


def as_nobody(*argv: str) -> list[str]:
    """Run as a user who may divide no cgroup; who may read what is installed here, wherever that is."""
    reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *reads, "--", *argv]


@pytest.mark.skipif(os.geteuid() != 0, reason="to become another user needs root")
@pytest.mark.parametrize(("choice", "code"), [("auto", 0), ("cgroup", 1), ("subreaper", 0)])
def test_without_delegation_a_cgroup_is_refused_or_done_without(
    lab: Lab, job: str, choice: str, code: int, tmp_path: Path
) -> None:
    """A user whose cgroup is not delegated gets the subreaper; one who insists gets one line that says why not."""
    tmp_path.chmod(0o755)
    program = [sys.executable, COORD, "run", "--job-id", job, "--containment", choice, "--log-level", "debug"]
    server = {"COORD_REDIS_URL": "", "COORD_RUNTIME_DIR": "/tmp/coord-test-nobody", "COORD_EMBEDDED_IDLE_S": "1"}  # noqa: S108
    ended = subprocess.run(
        as_nobody(*program, "--", "true"),
        env={**surroundings(), **server, MARK: lab.token},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == code, ended.stderr
    if choice == "cgroup":
        said = [line for line in ended.stderr.splitlines() if "cgroup" in line and not line.startswith("{")]
        assert "Have it delegated" in said[-1]
    if choice == "auto" and NO_CGROUP is None:
        events = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
        assert [each["containment"] for each in events if each["event"] == "containment.chosen"] == ["subreaper"]
    until(lambda: not lab.left(), "the server to go by itself")


@NEEDS_CGROUP
def test_a_cgroup_that_can_not_be_made_says_why() -> None:
    """The reason is one that a person can act on."""
    with pytest.raises(NoCgroupError, match="no cgroup can be made in /nowhere: No such file"):
        Cgroup.make("/nowhere", "x")


@pytest.mark.usefixtures("containment")
def test_an_agent_keeps_nothing_of_what_has_gone(lab: Lab, job: str) -> None:
    """After hundreds of orphans have come and gone, the agent holds no handle on them, and none is left a zombie."""
    come_and_go = "for i in $(seq 300); do (setsid sleep 0.1 &) ; done; sleep 0.5; echo done; exec sleep 600"
    run = lab.run(job, "sh", "-c", come_and_go)
    fds = Path(f"/proc/{run.agent_pid}/fd")
    at_first = len(list(fds.iterdir()))
    assert run.popen.stdout
    assert run.popen.stdout.readline() == b"done\n"
    until(lambda: len(list(fds.iterdir())) <= at_first + 1, "the handles to be closed")
    children = Path(f"/proc/{run.agent_pid}/task/{run.agent_pid}/children")
    until(lambda: len(children.read_text().split()) == 1, "all orphans to be reaped")
    assert lab.call("shutdown", "--job-id", job).code == 0
    run.end()
