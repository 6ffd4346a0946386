"""Who may stop what: fleets with a secret, without, with two; forgeries in the record; where a secret may not be."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from coord import Coordinator, RefusedError
from coord.coordinator import new_request
from coord.keys import job_keys
from coord.messages import AgentInfo, AgentReport, AgentState, Cause, dump
from coord.plan import Plan
from coord.record import Record
from tests.harness import kill, until
from tests.rings import NEXT, OTHERS, OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness import Lab, Started

SHOW = "import os,time;print(sorted(os.environ.items()),flush=True);time.sleep(600)"


@pytest.fixture
def raw(server: str) -> Iterator[redis.Redis]:
    """A plain connection, as anybody on the network might have one."""
    with redis.Redis.from_url(server, decode_responses=True) as raw:
        yield raw


@pytest.fixture
def secret(tmp_path: Path) -> Callable[..., str]:
    """Give the option and the path of a file with these secrets."""

    def make(*secrets: str, mode: int = 0o600) -> str:
        path = tmp_path / f"secret-{len(list(tmp_path.iterdir()))}"
        path.write_text("# made for a test\n\n" + "".join(f"{each}\n" for each in secrets))
        path.chmod(mode)
        return str(path)

    return make


def run_with(lab: Lab, job: str, path: str | None, *command: str, host: str = "here") -> Started:
    options = ("--secret-file", path, "--grace", "1s") if path else ("--grace", "1s")
    return lab.run(job, *(command or ("sleep", "600")), host=host, options=options)


def stop_with(lab: Lab, job: str, path: str | None, *options: str) -> Any:
    return lab.call("shutdown", "--job-id", job, *options, *(("--secret-file", path) if path else ()))


def logged(err: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in err.splitlines() if line.startswith("{")]


# -- fleets ------------------------------------------------------------------------------------------------------------


def test_a_fleet_with_a_secret(lab: Lab, job: str, secret: Callable[..., str]) -> None:
    """Agents and coordinator have it: the job is stopped and proved as ever."""
    path = secret(OURS)
    runs = [run_with(lab, job, path, host=host) for host in "ab"]
    ended = stop_with(lab, job, path, "--json")
    assert (ended.code, ended.json["verdict"], ended.json["refused"]) == (0, "clean", None)
    assert [run.end().code for run in runs] == [143, 143]


def test_a_failure_is_signed(lab: Lab, job: str, secret: Callable[..., str]) -> None:
    """A child's failure stops the other hosts as ever, with their own graces, and so does the death of an agent."""
    path = secret(OURS)
    other = run_with(lab, job, path, host="b")
    failing = run_with(lab, job, path, "sh", "-c", "sleep 0.3; exit 9", host="a")
    assert failing.end().code == 9
    assert other.end().code == 143
    ended = stop_with(lab, job, path, "--json")
    assert (ended.code, ended.json["verdict"], ended.json["first_failure"]["exit_code"]) == (0, "clean", 9)
    assert ended.json["request"]["plan"][0]["wait_s"] == 1.0


@pytest.mark.parametrize("how", ["file", "variable"])
def test_an_heir_signs(lab: Lab, job: str, secret: Callable[..., str], how: str) -> None:
    """When an agent is killed, its guardian's word is signed too, wherever the secret came from."""
    path = secret(OURS)
    if how == "variable":
        lab.environment["COORD_SECRET"] = OURS
    file = path if how == "file" else None
    other, dead = (run_with(lab, job, file, host=host) for host in "ba")
    kill(dead.agent_pid, lab.token)
    assert dead.end().code == 1
    assert other.end().code == 143
    ended = stop_with(lab, job, file, "--json")
    assert (ended.code, ended.json["verdict"], ended.json["first_failure"]["signal"]) == (0, "clean", "SIGKILL")


def test_a_coordinator_without_the_secret_changes_nothing(lab: Lab, job: str, secret: Callable[..., str]) -> None:
    """It is told why, with what to do; the job goes on, and can still be stopped by who has the secret."""
    path = secret(OURS)
    run = run_with(lab, job, path)
    for options in ((), ("--now",), ("--fence",)):
        ended = stop_with(lab, job, None, *options)
        assert ended.code == 7
        assert "obey signed requests only, and there is no secret here; nothing was changed" in ended.said[-1]
        assert "--secret-file or COORD_SECRET_FILE" in ended.said[-1]
    assert (run.running, lab.status(job)["state"]) == (True, "running")
    assert stop_with(lab, job, path).code == 0
    assert run.end().code == 143


def test_an_agent_without_the_secret_proves_nothing(lab: Lab, job: str, secret: Callable[..., str]) -> None:
    """An agent that has none obeys, but its word is not believed: the verdict says so, and what may be missing."""
    run = run_with(lab, job, None)
    ended = stop_with(lab, job, secret(OURS))
    assert run.end().code == 143
    assert ended.code == 5
    assert "is not believed: it is not signed; has it the secret?" in ended.out
    with_secret = run_with(lab, f"{job}-2", secret(OURS))
    joining = lab.call("run", "--job-id", f"{job}-2", "--", "true")
    assert joining.code == 7
    assert "have a secret, and there is none here: nothing was started" in joining.said[-1]
    assert stop_with(lab, f"{job}-2", secret(OURS)).code == 0
    assert with_secret.end().code == 143


def test_two_secrets_while_they_are_changed(lab: Lab, job: str, secret: Callable[..., str]) -> None:
    """Hosts that have the new secret already and hosts that still sign with the old one are one fleet."""
    old_first, new_first = secret(OURS, NEXT), secret(NEXT, OURS)
    runs = [run_with(lab, job, path, host=host) for host, path in (("a", old_first), ("b", new_first))]
    ended = stop_with(lab, job, new_first, "--json")
    assert (ended.code, ended.json["verdict"]) == (0, "clean")
    assert [run.end().code for run in runs] == [143, 143]
    assert stop_with(lab, job, old_first, "--json").json["verdict"] == "clean"


def test_another_secret_is_refused_and_said(lab: Lab, job: str, secret: Callable[..., str]) -> None:
    """A coordinator with another fleet's secret is not obeyed, and learns from the record whose agents refuse it."""
    path, wrong = secret(OURS), secret(OTHERS)
    run = run_with(lab, job, path)
    assert stop_with(lab, job, wrong, "--no-wait").code == 0
    until(lambda: lab.status(job)["agents"][0]["refused"].get("unknown-key"), "the agent to have refused it")
    assert run.running
    ended = stop_with(lab, job, path)
    assert ended.code == 7
    assert "signed with a secret that is not known here" in ended.said[-1]
    run.signal(15)
    refused = [line for line in logged(run.end().err) if line["event"] == "control.refused"]
    assert {line["kind"] for line in refused} == {"unknown-key"}


# -- forgeries in the record -------------------------------------------------------------------------------------------


def forge_request(raw: redis.Redis, job: str) -> None:
    """What somebody can do who may write to Redis."""
    wish = new_request(job, Cause.OPERATOR, "root@nowhere", "gotcha")
    now_us = int(raw.time()[0]) * 1_000_000
    mapping: dict[Any, Any] = {
        "request": wish.body(),
        "plan": dump(Plan.now().to_list()),
        "requested_us": str(now_us),
        "rev": "1",
    }
    raw.hset(job_keys(job)[0], mapping=mapping)


def test_a_forged_record_is_not_obeyed_and_is_said(
    lab: Lab, job: str, raw: redis.Redis, secret: Callable[..., str]
) -> None:
    """A request that was written into Redis by hand stops nothing; agent and commands say that it is there."""
    path = secret(OURS)
    run = run_with(lab, job, path)
    forge_request(raw, job)
    until(lambda: lab.status(job)["agents"][0]["refused"] == {"unsigned": 1}, "the agent to have found it")
    status = lab.call("status", "--job-id", job, "--json", "--secret-file", path)
    assert (status.code, status.json["state"], status.json["request"]) == (0, "running", None)
    assert status.json["refused"] == {"why": "unsigned", "claimed_by": "root@nowhere"}
    words = lab.call("status", "--job-id", job, "--secret-file", path).out
    assert "holds a request that nobody obeys: it is not signed (it claims to be from root@nowhere)" in words
    ended = stop_with(lab, job, path)
    assert (ended.code, run.running) == (7, True)
    assert "HDEL" in ended.said[-1]
    raw.hdel(job_keys(job)[0], "request")
    assert stop_with(lab, job, path).code == 0
    stopped = run.end()
    assert stopped.code == 143
    (refused,) = [line for line in logged(stopped.err) if line["event"] == "control.refused"]
    assert (refused["where"], refused["claimed_by"]) == ("in the record", "root@nowhere")


def test_control_without_a_secret_the_forged_record_is_obeyed(lab: Lab, job: str, raw: redis.Redis) -> None:
    """Negative control: an agent without a secret obeys what stands in the record."""
    run = run_with(lab, job, None)
    forge_request(raw, job)
    ended = run.end()
    assert ended.code == 137
    assert any("root@nowhere" in line for line in ended.said)


def test_a_forged_report_does_not_make_clean(lab: Lab, job: str, secret: Callable[..., str]) -> None:
    """A host that is cut off while somebody says in its name that it has stopped: who has the secret is not fooled."""
    path = secret(OURS)
    run = run_with(lab, job, path)
    agent = run.agent_pid
    with Frozen(agent):
        assert stop_with(lab, job, path, "--no-wait").code == 0
        found = lab.status(job)["agents"][0]
        info = AgentInfo(found["agent_id"], "here", "sleep", agent, "sleep 600")
        lab.ledger.run(Record(job).report(info, AgentReport(AgentState.STOPPED, "cgroup"), "agent.stopped"))
        assert lab.status(job)["verdict"] == "clean"  # the control: so it looks to who has no secret
        assert run.running
        ended = stop_with(lab, job, path)
        assert ended.code == 5
        assert "is not believed: it is not signed" in ended.out
    assert run.end().code == 143
    assert stop_with(lab, job, path, "--json").json["verdict"] == "clean"


class Frozen:
    """A process of ours that hears and does nothing for a while."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __enter__(self) -> None:
        os.kill(self._pid, 19)

    def __exit__(self, *error: object) -> None:
        os.kill(self._pid, 18)


# -- where a secret comes from, and where it may not be ----------------------------------------------------------------


def test_no_child_and_no_file_of_ours_has_the_secret(lab: Lab, job: str) -> None:
    """A secret in the environment is the agent's alone: not its child's, not on disk, not in a log or a record."""
    lab.environment["COORD_SECRET"] = OURS
    run = lab.run(job, sys.executable, "-c", SHOW)
    child = lab.status(job)["agents"][0]["processes"][0]["pid"]
    agent = run.agent_pid
    assert OURS.encode() in Path(f"/proc/{agent}/environ").read_bytes()
    assert OURS.encode() not in Path(f"/proc/{child}/environ").read_bytes()
    estates = list((Path(lab.environment["COORD_RUNTIME_DIR"]) / "agents").glob("*.json"))
    assert estates
    assert all(OURS not in each.read_text() for each in estates)
    assert OURS.encode() not in Path(f"/proc/{agent}/cmdline").read_bytes()
    assert stop_with(lab, job, None).code == 0
    ended = run.end()
    assert "COORD_JOB_ID" in ended.out
    assert OURS not in ended.out + ended.err


@pytest.mark.parametrize("command", ["run", "shutdown", "worker"])
def test_a_bad_secret_file_is_refused(lab: Lab, job: str, secret: Callable[..., str], command: str) -> None:
    """A file that others may read is no secret: nothing is started or asked. See `test_keyrings` for the rest."""
    words = {"run": ("--job-id", job, "--", "true"), "shutdown": ("--job-id", job), "worker": ()}[command]
    ended = lab.call(command, "--secret-file", secret(OURS, mode=0o644), *words)
    assert ended.code == 2
    assert "is open to others. Run chmod 600" in ended.said[-1]
    assert OURS not in ended.err


def test_a_program_has_secrets_too(lab: Lab, job: str, server: str, secret: Callable[..., str]) -> None:
    """`Coordinator(secret_file=)` signs; one without the secret is refused as the command is."""
    path = secret(OURS)
    run = run_with(lab, job, path)
    with Coordinator(server) as stranger, pytest.raises(RefusedError):
        stranger.request(job)
    with Coordinator(server, secret_file=path) as coordinator:
        coordinator.request(job)
        *_, (last, _events) = coordinator.follow(job)
    assert (last.verdict, last.exit_code) == ("clean", 0)
    assert run.end().code == 143
