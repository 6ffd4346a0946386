"""`coord doctor` on this host: what it finds is so, whatever is wrong is found, and no check hides another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import seccomp
from tests.cli.diagnosis import HOST, SERVER, doctor, found
from tests.harness import COORD, MARK, NASTY, surroundings, until
from tests.process.conftest import NO_CGROUP
from tests.record.servers import free_port

if TYPE_CHECKING:
    from tests.harness import Lab

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
# where this Python lies in root's own directory: one more right, which lets nobody write or signal anything
READING = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
TRY = (sys.executable, "-c", "import redis.asyncio")
LIMITED = ("sh", "-c", 'ulimit -n 40; exec "$@"', "sh")


@pytest.fixture
def nobody() -> tuple[str, ...]:
    """The words that make a program an unprivileged user's."""
    if os.geteuid() != 0:
        return ()
    for words in (NOBODY, (*NOBODY, *READING)):
        if subprocess.run([*words, *TRY], check=False, capture_output=True).returncode == 0:
            return words
    pytest.skip("no unprivileged user can run this Python")


@pytest.fixture
def theirs(tmp_path: Path, nobody: tuple[str, ...]) -> dict[str, str]:
    """The environment of an unprivileged user, who has a runtime directory and no Redis."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    if nobody:
        os.chown(folder, 65534, 65534)
    return {"COORD_RUNTIME_DIR": str(folder), "COORD_REDIS_URL": f"redis://127.0.0.1:{free_port()}"}


def as_root_in_a_namespace(*words: str) -> tuple[str, ...]:
    """The words that give a program a pid namespace of its own."""
    if os.geteuid() != 0:
        pytest.skip("a pid namespace needs root")
    return ("unshare", "--pid", "--fork", *words)


def test_the_document(lab: Lab) -> None:
    """One document with a finding for each thing that is looked at, and advice wherever something is to be done."""
    ended = lab.call("doctor", "--json", host="b")
    assert set(ended.json) == {"schema", "host", "findings"}
    assert (ended.json["schema"], ended.json["host"], ended.err) == (1, "b", "")
    findings = found(ended)
    assert set(findings) == HOST | SERVER
    for finding in findings.values():
        assert finding["status"] in {"ok", "unknown"} or finding["advice"], finding


@pytest.mark.parametrize("choice", ["auto", "subreaper", "cgroup"])
def test_the_proof_is_the_one_that_is_given(lab: Lab, job: str, choice: str) -> None:
    """What it says of the proof is what a shutdown on this host then shows."""
    proof = doctor(lab, "--containment", choice)["proof"]
    if choice == "cgroup" and NO_CGROUP:
        assert (proof["status"], proof["advice"] is not None) == ("fail", True)
        return
    started = lab.run(job, "sleep", "600", options=("--containment", choice))
    document = lab.call("shutdown", "--job-id", job, "--json").json
    started.end()
    assert proof["status"] == "ok"
    assert proof["found"].startswith(f"{document['agents'][0]['proof']}, ")


def test_it_leaves_nothing_behind(lab: Lab) -> None:
    """No cgroup, no process, no job in any list; what its trial left in the record goes by itself within a minute."""
    before = {entry.name for entry in Path(lab.environment["COORD_RUNTIME_DIR"]).iterdir()}
    doctor(lab)
    for mount in Path("/proc/self/mounts").read_text().splitlines():
        if mount.split()[2] == "cgroup2":
            assert not list(Path(mount.split()[1]).glob("**/coord-doctor-*"))
    assert {entry.name for entry in Path(lab.environment["COORD_RUNTIME_DIR"]).iterdir()} == before
    assert "coord-doctor" not in lab.call("jobs").out + lab.call("agents").out
    client = lab.ledger._redis
    trial_keys = list(client.scan_iter("coord:{coord-doctor-*"))
    assert trial_keys
    assert all(0 < client.ttl(key) <= 60 for key in trial_keys)
    assert lab.left() == {}


def test_an_unprivileged_user(lab: Lab, nobody: tuple[str, ...], theirs: dict[str, str]) -> None:
    """Who may not divide a cgroup gets the other proof, is told why, and how it could be had."""
    findings = doctor(lab, under=nobody, given=theirs)
    if findings["cgroup"]["status"] == "ok":
        pytest.skip("a cgroup is delegated to this user")
    assert (findings["proof"]["status"], findings["cgroup"]["status"]) == ("ok", "warn")
    assert findings["proof"]["found"].startswith("subreaper, since ")
    reason = findings["proof"]["found"].rpartition("since ")[2]
    assert "cgroup" in reason
    assert reason in findings["cgroup"]["found"]
    assert findings["cgroup"]["advice"]
    asked = doctor(lab, "--containment", "cgroup", under=nobody, given=theirs)["proof"]
    assert asked["status"] == "fail"
    assert reason in asked["found"]


@pytest.mark.skipif(seccomp.WHY_NOT is not None, reason=str(seccomp.WHY_NOT))
@pytest.mark.parametrize("rules", [("pidfd_open=ENOSYS",), ("pidfd_send_signal=EPERM",), ("both",), ()], ids=str)
def test_pidfds(lab: Lab, rules: tuple[str, ...]) -> None:
    """Each call that a sandbox forbids is named; the negative control is a filter that forbids none."""
    rules = ("pidfd_open=EPERM", "pidfd_send_signal=EPERM") if rules == ("both",) else rules
    finding = doctor(lab, under=(sys.executable, *seccomp.words(*rules)))["pidfd"]
    assert finding["status"] == ("warn" if rules else "ok")
    for call in ("pidfd_open", "pidfd_send_signal"):
        refused = any(rule.startswith(call) for rule in rules)
        assert (f"{call} is refused" in finding["found"]) == refused
        assert (call in (finding["advice"] or "")) == refused


def test_few_descriptors(lab: Lab, job: str) -> None:
    """How many processes an agent can hold is as many as one then holds, however many there are."""
    finding = doctor(lab, under=LIMITED)["open-files"]
    assert (finding["status"], "ulimit -n" in finding["advice"]) == ("warn", True)
    said = int(finding["found"].partition("can hold ")[2].split()[0])
    command = (COORD, "run", "--job-id", job, "--grace", "0", "--", sys.executable, NASTY, "deaf_family", "60")
    started = lab.start(*LIMITED[1:], *command, program=LIMITED[0])

    def held() -> int:
        links = [os.readlink(entry) for entry in Path(f"/proc/{started.agent_pid}/fd").iterdir()]  # noqa: PTH115
        return links.count("anon_inode:[pidfd]")

    assert started.popen.stdout
    assert started.popen.stdout.readline() == b"ready\n"
    until(lambda: held() >= said, f"the agent to hold {said}")
    assert said <= held() <= said + 2
    assert lab.call("shutdown", "--job-id", job).code == 0
    assert started.end().code == 137


def test_no_descriptors(lab: Lab) -> None:
    """Where nothing can be held, it fails, and says so without a traceback."""
    finding = doctor(lab, under=("sh", "-c", 'ulimit -n 18; exec "$@"', "sh"))["open-files"]
    assert finding["status"] == "fail"


def test_no_more_processes(lab: Lab, nobody: tuple[str, ...], theirs: dict[str, str]) -> None:
    """Where the user may have no more processes, it fails, and what needs one is unknown; all the rest is found."""
    findings = doctor(lab, under=(*nobody, "prlimit", "--nproc=1"), given=theirs)
    assert (findings["processes"]["status"], "ulimit -u" in findings["processes"]["advice"]) == ("fail", True)
    assert findings["pid-1"]["status"] == "unknown"
    assert set(findings) == HOST | {"redis"}


@pytest.mark.parametrize(
    ("first", "status", "says"),
    [
        ((sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"), "warn", "PID 1"),
        ((COORD, "run", "--job-id", "J", "--"), "ok", "coord"),
        ((), "ok", "this process is PID 1"),
    ],
    ids=["a careless PID 1", "coord run", "itself"],
)
def test_pid_1(lab: Lab, job: str, first: tuple[str, ...], status: str, says: str) -> None:
    """Whether PID 1 reaps orphans is tried; `coord run` in its place does."""
    first = tuple(job if word == "J" else word for word in first)
    under = as_root_in_a_namespace("--mount-proc", *first)
    finding = doctor(lab, under=under, given={MARK: lab.token})["pid-1"]
    assert finding["status"] == status
    assert says in finding["found"]
    if status == "warn":
        assert "init: true" in finding["advice"]
        assert "coord run" in finding["advice"]


def test_proc_of_another_namespace(lab: Lab) -> None:
    """A /proc in which our own pids mean others is found before anything is trusted to it."""
    finding = doctor(lab, under=as_root_in_a_namespace())["proc"]
    assert (finding["status"], "another pid namespace" in finding["found"]) == ("fail", True)


def test_proc_that_hides(lab: Lab, nobody: tuple[str, ...], theirs: dict[str, str]) -> None:
    """Under hidepid, an unprivileged user is told what is hidden; without it, that all is shown."""
    script = 'mount -t proc -o "$1" proc /proc; shift; "$@"; exit $?'
    for option, status in (("hidepid=2", "warn"), ("hidepid=0", "ok")):
        under = as_root_in_a_namespace("--mount", "sh", "-c", script, "sh", option, *nobody)
        finding = doctor(lab, under=under, given=theirs)["proc"]
        assert finding["status"] == status
        assert ("hides other users' processes" in finding["found"]) == (status == "warn")


def test_runtime_directory(lab: Lab, server: str, tmp_path: Path) -> None:
    """A directory that others may read, or none at all, is a failure that says what to do; one of our own is fine."""
    (tmp_path / "file").touch()
    tmp_path.chmod(0o755)
    given = {"COORD_REDIS_URL": server}
    shared = doctor(lab, given={**given, "COORD_RUNTIME_DIR": str(tmp_path)})["runtime-dir"]
    assert (shared["status"], "chmod 700" in shared["advice"]) == ("fail", True)
    assert doctor(lab, given={**given, "COORD_RUNTIME_DIR": str(tmp_path / "file")})["runtime-dir"]["status"] == "fail"
    tmp_path.chmod(0o700)
    assert doctor(lab, given={**given, "COORD_RUNTIME_DIR": str(tmp_path)})["runtime-dir"]["status"] == "ok"


def test_a_check_that_breaks_hides_no_other(server: str) -> None:
    """What can't be found out is said to be unknown, with the error; everything else is found as ever."""
    breaks = (
        "import coord.cli, workers.checkup.limits as limits\n"
        "def broken(): raise RuntimeError('no such\\nluck')\n"
        "limits.open_files = broken\n"
        f"raise SystemExit(coord.cli.run(['doctor', '--json', '--redis-url', {server!r}]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", breaks], capture_output=True, text=True, check=False, env=surroundings(), timeout=60
    )
    findings = {finding["name"]: finding for finding in json.loads(ended.stdout)["findings"]}
    assert (ended.returncode, ended.stderr) == (0, "")
    assert findings["open-files"]["status"] == "unknown"
    assert "RuntimeError: no such luck" in findings["open-files"]["found"]
    assert set(findings) == HOST | SERVER
