"""compose/redis/users.acl: each user can do its part, and nothing else. Promise: closed."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import redis

from coord.keys import CONTROL_CHANNEL, JOBS_INDEX, job_keys
from coord.ledger import Ledger, script_text
from coord.record import Record
from tests.harness import Lab, until
from tests.record.desk import PLAN, info
from tests.record.servers import REDIS, raw, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

REDIS_FOLDER = Path(__file__).parents[2] / "compose" / "redis"
USERS = ("coordinator", "agent", "observer")
ADMIN = "user admin on >admin ~* &* +@all"
JOB = "held"
KEYS = job_keys(JOB)


@dataclass
class Site:
    """A server with these users, where job `held` was joined."""

    url: str

    def of(self, user: str) -> str:
        """Give the URL as this user's clients have it."""
        password = "admin" if user == "admin" else f"REPLACE-{user}"
        return f"{self.url}?username={user}&password={password}"


@pytest.fixture(scope="module", params=["redis", "valkey"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Debian's Redis and the embedded Valkey, with the file as it is, and a user of this test."""
    with TemporaryDirectory(prefix="coord-") as name:
        users = Path(name) / "users.acl"
        users.write_text("user default on nopass ~* &* +@all\n")
        with serving(request.param, Path(name), aclfile=str(users)) as url:
            users.write_text((REDIS_FOLDER / "users.acl").read_text() + ADMIN + "\n")
            # who loads them may be cut off by that, before the answer is read
            with raw(url) as client, suppress(redis.ConnectionError):
                client.execute_command("ACL LOAD")  # type: ignore[no-untyped-call]
            made = Site(url)
            ledger = Ledger(made.of("agent"))
            ledger.remember(JOB)
            ledger.run(Record(JOB).join(info("a"), PLAN, 3600))
            ledger.close()
            yield made


@pytest.fixture
def lab(site: Site, tmp_path: Path) -> Iterator[Lab]:
    """Commands that are told their URL each."""
    ledger = Ledger(site.of("admin"))
    lab = Lab({"COORD_RUNTIME_DIR": str(tmp_path / "run")}, ledger)
    yield lab
    left = lab.left()
    lab.close()
    ledger.close()
    assert not left


def refusals(site: Site) -> set[tuple[str, str]]:
    """Give which user was refused what, since this was last asked."""
    with raw(site.of("admin")) as client:
        found = {(str(entry["username"]), str(entry["object"])) for entry in client.acl_log()}
        client.acl_log_reset()
    return found


def test_each_user_can_do_its_part(site: Site, lab: Lab, job: str) -> None:
    """A job runs, fails nobody, is listed, looked at and shut down, each by the user for it; nothing is refused."""
    refusals(site)
    agent = lab.start("run", "--job-id", job, "--", "sleep", "60", COORD_REDIS_URL=site.of("agent"))
    until(lambda: (lab.status(job) or {"agents": ()})["agents"], "the agent to join")
    until(lambda: lab.status(job)["agents"][0]["processes"], "its report")
    for command in (("jobs",), ("agents",), ("status",), ("status", "--job-id", job)):
        ended = lab.call(*command, "--json", COORD_REDIS_URL=site.of("observer"))
        assert (ended.code, ended.said, job in ended.out) == (0, [], True), ended.err
    for args in ((), ("--now",)):
        ended = lab.call("shutdown", "--job-id", job, *args, "--json", COORD_REDIS_URL=site.of("coordinator"))
        assert (ended.code, ended.json["verdict"]) == (0, "clean"), ended.err
    assert agent.end().code == 143
    ended = lab.call("run", "--job-id", f"{job}-2", "--", "false", COORD_REDIS_URL=site.of("agent"))
    assert (ended.code, lab.status(f"{job}-2")["request"]["cause"]) == (1, "failure")
    ended = lab.call("shutdown", "--fence", "--job-id", f"{job}-3", COORD_REDIS_URL=site.of("coordinator"))
    assert ended.code == 0
    assert {(user, what) for user, what in refusals(site) if not what.startswith("rq:")} == set()


def test_doctor_says_what_each_user_may(site: Site, lab: Lab) -> None:
    """To an agent's host, the doctor says that all is well but what it may not ask; to others, what they may not do."""
    found = {}
    for user in USERS:
        ended = lab.call("doctor", "--json", COORD_REDIS_URL=site.of(user))
        found[user] = {each["name"]: each["status"] for each in ended.json["findings"]}
    assert (found["agent"]["record"], found["agent"]["channel"]) == ("ok", "ok")
    assert (found["coordinator"]["record"], found["coordinator"]["channel"]) == ("ok", "fail")
    assert found["observer"]["record"] == "fail"


def test_observer_follows_to_its_end_what_others_stop(site: Site, lab: Lab, job: str) -> None:
    """Who may only read sees the verdict; who tries to stop is refused, and nothing is changed."""
    agent = lab.start("run", "--job-id", job, "--", "sleep", "60", COORD_REDIS_URL=site.of("agent"))
    until(lambda: (lab.status(job) or {"agents": ()})["agents"], "the agent to join")
    refused = lab.call("shutdown", "--job-id", job, COORD_REDIS_URL=site.of("observer"))
    assert (refused.code, "forbids this user" in refused.err) == (4, True)
    assert lab.status(job)["request"] is None
    assert agent.running
    assert lab.call("shutdown", "--job-id", job, COORD_REDIS_URL=site.of("coordinator")).code == 0
    agent.end()
    seen = lab.call("status", "--job-id", job, "--json", COORD_REDIS_URL=site.of("observer"))
    assert seen.json["verdict"] == "clean"


# What nobody of them may, whatever the key; and other keys than coord's, and other channels.
NOBODY_MAY: tuple[tuple[str, ...], ...] = (
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("RANDOMKEY",),
    ("DBSIZE",),
    ("SHUTDOWN", "NOSAVE"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "agent", "+@all"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("CLIENT", "PAUSE", "1"),
    ("MONITOR",),
    ("REPLICAOF", "NO", "ONE"),
    ("SAVE",),
    ("BGSAVE",),
    ("MODULE", "LIST"),
    ("SCRIPT", "FLUSH"),
    ("FUNCTION", "FLUSH"),
    ("SLOWLOG", "GET"),
    ("LATENCY", "RESET"),
    ("SWAPDB", "0", "1"),
    ("SELECT", "1"),
    ("MULTI",),
    ("GET", "other"),
    ("SET", "other", "1"),
    ("SET", KEYS[0], "1"),
    ("GET", KEYS[0]),
    ("DEL", KEYS[0]),
    ("UNLINK", KEYS[0]),
    ("RENAME", KEYS[0], KEYS[1]),
    ("DUMP", KEYS[0]),
    ("RESTORE", f"{KEYS[0]}2", "0", "x"),
    ("COPY", KEYS[0], KEYS[1]),
    ("PERSIST", KEYS[0]),
    ("SORT", KEYS[6]),
    ("HGETALL", "other"),
    ("HSET", "other", "a", "1"),
    ("HSET", "coord:job", "a", "1"),
    ("HGETALL", "rq:job:1"),
    ("ZRANGE", "rq:wip:default", "0", "-1"),
    ("SMEMBERS", "coord:rq:workers"),
    ("LPUSH", "rq:queue:default", "1"),
    ("EVAL", "return redis.call('GET', KEYS[1])", "1", "other"),
    ("EVAL", "return redis.call('DEL', KEYS[1])", "1", KEYS[0]),
    ("EVAL", "return redis.call('FLUSHALL')", "0"),
    ("EVAL", "return redis.call('DBSIZE')", "0"),
    ("EVAL", "return redis.call('HGETALL', 'other')", "0"),
    ("PUBLISH", "rq:pubsub:w", "stop"),
    ("SUBSCRIBE", "rq:pubsub:w"),
    ("PSUBSCRIBE", "*"),
    ("SPUBLISH", CONTROL_CHANNEL, "x"),
    ("PUBSUB", "CHANNELS"),
)
OBSERVER_MAY_NOT: tuple[tuple[str, ...], ...] = (
    ("PUBLISH", CONTROL_CHANNEL, "x"),
    ("SUBSCRIBE", CONTROL_CHANNEL),
    ("HSET", KEYS[0], "request", "{}"),
    ("HDEL", KEYS[0], "request"),
    ("ZADD", KEYS[3], "1", "x"),
    ("ZREM", KEYS[3], "a"),
    ("SADD", KEYS[4], "a"),
    ("XADD", KEYS[-1], "*", "a", "1"),
    ("XTRIM", KEYS[-1], "MAXLEN", "0"),
    ("EXPIRE", KEYS[0], "1"),
    ("ZADD", JOBS_INDEX, "1", "x"),
    ("ZREM", JOBS_INDEX, JOB),
    ("EXPIRE", JOBS_INDEX, "1"),
    ("INFO",),
    ("EVAL", "return 1", "0"),
    ("EVAL_RO", "return redis.call('HSET', KEYS[1], 'a', '1')", "1", KEYS[0]),
    ("EVAL_RO", "return redis.call('PUBLISH', 'coord:control', 'x')", "0"),
    ("EVAL_RO", script_text("beat"), str(len(KEYS)), *KEYS, "1", CONTROL_CHANNEL, "a", "1"),
)
COORDINATOR_MAY_NOT: tuple[tuple[str, ...], ...] = (("SUBSCRIBE", CONTROL_CHANNEL),)
AGENT_MAY_NOT: tuple[tuple[str, ...], ...] = (("BZPOPMIN", KEYS[3], "0.01"), ("XGROUP", "CREATE", KEYS[-1], "g", "0"))
REFUSED = [
    pytest.param(user, words, id=f"{user}-{' '.join(words)[:40]}")
    for user, more in zip(USERS, (COORDINATOR_MAY_NOT, AGENT_MAY_NOT, OBSERVER_MAY_NOT), strict=True)
    for words in (*NOBODY_MAY, *more)
]


def refused(site: Site, user: str, words: tuple[str, ...]) -> bool:
    """Tell whether the server refuses it because of who asks, and not for another reason."""
    with raw(f"{site.of(user)}&protocol=2") as client:
        connection = client.connection_pool.get_connection()
        try:
            connection.send_command(*words)  # type: ignore[no-untyped-call]
            connection.read_response()
        except redis.ResponseError as error:
            text = str(error)
            signs = (
                "no permissions",
                "No permissions",
                "can't run this command",
                "can't access",
                "Write commands are not",
            )
            return isinstance(error, redis.exceptions.NoPermissionError) or any(sign in text for sign in signs)
        finally:
            connection.disconnect()  # type: ignore[no-untyped-call]
    return False


@pytest.mark.parametrize(("user", "words"), REFUSED)
def test_users_can_do_nothing_else(site: Site, user: str, words: tuple[str, ...]) -> None:
    """What is not a user's part is refused by the server, and the job stays as it is."""
    assert refused(site, user, words)


def test_control_others_are_not_refused_it(site: Site) -> None:
    """Negative control: the same commands by somebody who may are not seen as refused; so this test does look."""
    harmless = [words for words in (*NOBODY_MAY, *OBSERVER_MAY_NOT) if words[0] in {"KEYS", "INFO", "SUBSCRIBE", "GET"}]
    assert not any(refused(site, "admin", words) for words in harmless)
    assert not refused(site, "agent", ("SUBSCRIBE", CONTROL_CHANNEL))
    assert not refused(site, "coordinator", ("PUBLISH", CONTROL_CHANNEL, "x"))
    assert not refused(site, "observer", ("HGETALL", KEYS[0]))


def test_job_was_not_touched(site: Site) -> None:
    """After all that was tried, the job is as it was joined."""
    ledger = Ledger(site.of("observer"))
    snapshot = ledger.run(Record(JOB).snapshot())
    ledger.close()
    assert snapshot is not None
    assert (snapshot.request, [agent.info for agent in snapshot.agents]) == (None, [info("a")])


def test_redis_starts_with_the_passwords_it_is_given(tmp_path: Path) -> None:
    """The compose file's Redis takes passwords from the environment, keeps only hashes, and wants each."""
    if shutil.which(REDIS) is None:
        pytest.skip("redis-server is not on PATH: apt-get install redis-server")
    made, start = tmp_path / "users.acl", ["sh", str(REDIS_FOLDER / "start.sh"), "--port", "0"]
    words = subprocess.run(["sh", REDIS_FOLDER / "passwords.sh"], check=True, capture_output=True, text=True).stdout
    passwords = dict(line.split("=") for line in words.split())
    assert sorted(passwords) == ["AGENT_PASSWORD", "COORDINATOR_PASSWORD", "OBSERVER_PASSWORD"]
    environment = {"PATH": os.environ["PATH"], "MADE": str(made), **passwords}
    lacking = {**environment, "AGENT_PASSWORD": ""}
    ended = subprocess.run(start, env=lacking, check=False, capture_output=True, text=True, timeout=20)
    assert (ended.returncode, "AGENT_PASSWORD is not set" in ended.stderr) == (78, True)
    path = tmp_path / "r.sock"
    server = subprocess.Popen([*start, "--unixsocket", str(path)], env=environment, stdout=subprocess.DEVNULL)
    try:
        until(path.exists, "the server to listen")
        for user in USERS:
            url = f"unix://{path}?username={user}&password={passwords[user.upper() + '_PASSWORD']}"
            with raw(url) as client:
                assert until(client.ping, f"{user} to be let in")
        with (
            raw(f"unix://{path}?username=agent&password=REPLACE-agent") as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()
        with raw(f"unix://{path}") as client, pytest.raises(redis.AuthenticationError):
            client.ping()
    finally:
        server.kill()
        server.wait()
    text = made.read_text()
    assert made.stat().st_mode & 0o077 == 0
    assert "REPLACE" not in text
    assert not any(password in text for password in passwords.values())
