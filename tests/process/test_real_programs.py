"""Real programs as children of `coord run`: daemons, servers, pools. Each leaves when asked, and nothing of it stays.

SIGTERM comes to every process of the tree at once, so a master hears it together with its workers; unless the command
alone is to be asked.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from tests.harness import until
from tests.process import programs
from tests.process.postgres import Postgres, created, say
from tests.process.programs import need, need_module
from tests.process.stage import Onlooker, Stage, listens, main_pid, named
from tests.record.servers import free_port, raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Lab, Started


@pytest.fixture
def onlooker() -> Iterator[Onlooker]:
    """A test process to which every orphan falls."""
    with Onlooker() as onlooker:
        yield onlooker


@pytest.fixture
def stage(
    containment: str, onlooker: Onlooker, lab: Lab, job: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Stage:
    """Where the programs run: in a folder of their own, in each mode."""
    monkeypatch.chdir(tmp_path)
    return Stage(lab, job, ("--containment", containment), onlooker)


def born() -> int:
    """Count the workers that were ever started."""
    return len(list(Path().glob("born-*")))


# -- nginx -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    """A port, and a configuration of nginx for it."""
    port = free_port()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nginx.conf").write_text(programs.NGINX.replace("PORT", str(port)))
    return port


@pytest.mark.parametrize("daemon", [False, True])
def test_nginx(stage: Stage, port: int, *, daemon: bool) -> None:
    """Master and workers go, also as a daemon that a script started and outlives; no worker is started again."""
    nginx = [need("nginx"), "-p", str(Path.cwd()), "-c", "nginx.conf"]
    if daemon:
        run = stage.run("sh", "-c", '"$@"; exec sleep 600', "sh", *nginx)
    else:
        run = stage.run(*nginx, "-g", "daemon off;")
    named(run, "nginx: worker", 3)
    assert urlopen(f"http://127.0.0.1:{port}", timeout=30).read() == b"here"
    assert stage.stop_clean(run).new == {}
    assert not listens(port)
    assert not Path("nginx.pid").exists()
    assert Path("error.log").read_text().count("start worker process ") == 3


@pytest.mark.parametrize("program", ["nginx", "tmux"])
def test_what_only_starts_a_daemon_keeps_nothing(stage: Stage, port: int, program: str) -> None:
    """A command that ends and leaves a daemon has its own code; the daemon is stopped at once, and that is said."""
    commands = {
        "nginx": ("-p", str(Path.cwd()), "-c", "nginx.conf"),
        "tmux": ("-S", "socket", "-f", "/dev/null", "new-session", "-d", "sleep 600"),
    }
    ended = stage.run_out(need(program), *commands[program])
    assert ended.code == 0
    assert ended.said[-1].startswith(f"coord: {program} ended and left ")
    assert ended.said[-1].endswith(" more of its processes, which were stopped")
    (agent,) = stage.lab.status(stage.job)["agents"]
    assert {process["outcome"] for process in agent["processes"]} == {"exited", "terminated"}
    assert not listens(port)


def test_who_stays_is_seen(onlooker: Onlooker, lab: Lab, port: int) -> None:
    """The negative control: without coord, a daemon that cleared its environment stays; the mark is blind to it."""
    nginx = (need("nginx"), "-p", str(Path.cwd()), "-c", "nginx.conf")
    assert lab.call(*nginx[1:], program=nginx[0]).code == 0
    until(lambda: listens(port), "the daemon")
    until(lambda: not lab.left(), "the mark to be written over by its title")
    assert [command.split()[1] for command in onlooker.fallen().values()] == ["master"]
    assert lab.call(*nginx[1:], "-s", "stop", program=nginx[0]).code == 0
    until(lambda: not listens(port), "its end")


# -- PostgreSQL --------------------------------------------------------------------------------------------------------

OPEN = "create table rows (x int); insert into rows values (1); begin; insert into rows values (2) returning 'open';"
BUSY = "select 'open'; select pg_sleep(600);"
SLEEPERS = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
CUT_OFF = "terminating connection due to administrator command"
RECOVERED = "database system was not properly shut down"


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    """A server that was never started."""
    with created() as postgres:
        monkeypatch.chdir(postgres.folder)
        yield postgres


def serve(stage: Stage, postgres: Postgres, job: str) -> Started:
    """Start it, and see that it answers."""
    run = stage.run(*postgres.command, job=job)
    postgres.ready()
    return run


def test_postgres(stage: Stage, postgres: Postgres) -> None:
    """It ends its clients' sessions, shuts down in order, and needs no recovery; what was committed is there."""
    run = serve(stage, postgres, "first " + stage.job)
    with postgres.session(OPEN) as idle, postgres.session(BUSY) as busy:
        until(lambda: postgres.ask(SLEEPERS) == "1", "the query to run")
        new = stage.stop_clean(run, job="first " + stage.job).new
        # as long as clients are there, it replaces a background writer that left; that one goes when all go
        assert all("postgres" in command for command in new.values())
        assert CUT_OFF in busy.communicate()[0]
        assert CUT_OFF in idle.communicate("select 1;\n")[0]
    assert (postgres.running, postgres.state) == (False, "shut down")
    again = serve(stage, postgres, "second " + stage.job)
    assert RECOVERED not in postgres.log
    assert postgres.ask("select * from rows") == "1"
    stage.stop_clean(again, job="second " + stage.job)


def test_postgres_that_is_killed_has_to_recover(stage: Stage, postgres: Postgres) -> None:
    """The negative control: a stop without grace is one that the data directory and the next start tell of."""
    run = serve(stage, postgres, "first " + stage.job)
    assert stage.stop(run, "--now", job="first " + stage.job).verdict == "forced"
    assert (postgres.running, postgres.state) == (True, "in production")
    again = serve(stage, postgres, "second " + stage.job)
    assert RECOVERED in postgres.log
    stage.stop_clean(again, job="second " + stage.job)


def test_postgres_asked_alone_waits_for_its_clients(stage: Stage, postgres: Postgres) -> None:
    """Why its backends are asked too: SIGTERM to the main process alone lets a client go on for as long as it likes."""
    run = serve(stage, postgres, stage.job)
    with postgres.session(OPEN) as session:
        os.kill(main_pid(run), signal.SIGTERM)
        until(lambda: "received smart shutdown request" in postgres.log, "the server to be asked")
        assert say(session, "insert into rows values (3) returning 'more';") == "more"
        stage.stop_clean(run)
    assert (postgres.running, postgres.state) == (False, "shut down")


# -- servers and pools of Python ---------------------------------------------------------------------------------------


def test_gunicorn(stage: Stage) -> None:
    """Four workers: the request that one of them is at is answered, and the master starts none of them again."""
    need_module("gunicorn")
    Path("web.py").write_text(programs.WSGI)
    port = free_port()
    options = ("--workers", "4", "--bind", f"127.0.0.1:{port}", "--no-control-socket", "--log-file", "log")
    run = stage.run(sys.executable, "-m", "gunicorn", *options, "web:app")
    until(lambda: Path("log").exists() and Path("log").read_text().count("Booting worker") == 4, "the workers")
    until(lambda: listens(port), "the port")
    with ThreadPoolExecutor(1) as client:
        late = client.submit(lambda: urlopen(f"http://127.0.0.1:{port}/late", timeout=30).read())
        until(Path("asked").exists, "the request to be under way")
        assert stage.stop_clean(run).new == {}
        assert late.result() == b"here"
    assert not listens(port)
    assert Path("log").read_text().count("Booting worker") == 4


@pytest.mark.parametrize(
    ("kind", "ask", "state", "queued"),
    [("plain", "tree", "FAILURE", 0), ("late", "tree", None, 1), ("plain", "command", "SUCCESS", 0)],
)
def test_celery(stage: Stage, server: str, *, kind: str, ask: str, state: str | None, queued: int) -> None:
    """The task at hand fails when the pool is asked too, or is queued again (late); asked alone, Celery finishes it."""
    need_module("celery")
    Path("tasks.py").write_text(programs.CELERY)
    broker = f"redis+socket://{server.removeprefix('unix://')}?virtual_host=1"
    environment = (f"BROKER={broker}", f"QUEUE={stage.job}", f"KIND={kind}")
    run = stage.run(
        "env", *environment, sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "4", options=("--ask", ask)
    )
    until(lambda: born() == 4, "the pool")
    until(Path("working").exists, "the task to be under way")
    assert stage.stop_clean(run).new == {}
    assert born() == 4
    with raw(f"{server}?db=1") as redis:
        told = redis.get(f"celery-task-meta-{stage.job}")
        assert (json.loads(str(told))["status"] if told else None, redis.llen(stage.job)) == (state, queued)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("how", ["all", "main"])
def test_multiprocessing_pool(stage: Stage, method: str, how: str) -> None:
    """A pool goes at once; or, when its workers leave SIGTERM to the main process, after the work at hand."""
    Path("pool.py").write_text(programs.POOL)
    run = stage.run(sys.executable, "pool.py", method, how)
    until(Path("working").exists, "the pool to be at work")
    assert stage.stop_clean(run).new == {}
    assert Path("whole").exists() == (how == "main")
    assert born() == 4


def test_a_pool_is_not_lost_where_the_command_alone_is_asked(stage: Stage) -> None:
    """Workers that would die of SIGTERM get none: the main process has its work finished, and ends its pool itself."""
    Path("pool.py").write_text(programs.POOL)
    run = stage.run(sys.executable, "pool.py", "fork", "workers", options=("--ask", "command"))
    until(Path("working").exists, "the pool to be at work")
    assert stage.stop_clean(run).new == {}
    assert Path("whole").exists()
    assert born() == 4


def test_loky(stage: Stage) -> None:
    """Workers of joblib go; its resource trackers, deaf to SIGTERM, have the time to clean up after them."""
    need_module("joblib")
    before = set(Path("/dev/shm").iterdir())  # noqa: S108  # of who had the same pid, and was killed
    Path("parallel.py").write_text(programs.LOKY)
    run = stage.run(sys.executable, "parallel.py")
    until(lambda: born() == 4, "the workers")
    pid = main_pid(run)
    assert any(f"loky-{pid}-" in path.name for path in Path("/dev/shm").iterdir())  # noqa: S108
    assert stage.stop_clean(run).new == {}
    assert not [path for path in Path("/dev/shm").iterdir() if str(pid) in path.name and path not in before]  # noqa: S108
    assert born() == 4


# -- what forks, and what gets away ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fork", "daemon"])
def test_stress_ng(stage: Stage, kind: str) -> None:
    """What forks without a pause, children or daemons, is stopped all the same."""
    run = stage.run(need("stress-ng"), f"--{kind}", "2", "--timeout", "60s", "--temp-path", ".")
    named(run, f"stress-ng-{kind}", 2)
    stage.stop_clean(run)


def test_pipeline(stage: Stage) -> None:
    """A shell's pipelines, background jobs, and what runs under nohup or in another session."""
    run = stage.run("sh", "-c", programs.PIPELINE)
    for name, count in {"tail": 1, "sleep": 3, "cat": 2}.items():
        named(run, name, count)
    stopped = stage.stop_clean(run)
    assert stopped.new == {}
    assert len(stopped.outcomes) >= 7
    assert stopped.run.out == ""


def test_tmux(stage: Stage) -> None:
    """A tmux server, which is a daemon, goes with all its panes; also with a shell for people, deaf to SIGTERM."""
    tmux = f"{need('tmux')} -S socket -f /dev/null"
    script = f"{tmux} new-session -d 'sleep 600'; {tmux} new-window 'bash --norc -i'; exec sleep 600"
    run = stage.run("sh", "-c", script)
    named(run, "bash --norc -i", 1)
    stopped = stage.stop_clean(run)  # a server may start one more for each pane that ends, to log it out: utmp(5)
    assert len(stopped.outcomes) >= 4
    ended = subprocess.run(["tmux", "-S", "socket", "list-sessions"], capture_output=True, check=False)
    assert ended.returncode == 1
