"""What a worker process takes from its configuration, and from the project that it works for."""

from __future__ import annotations

import textwrap
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from tests.harness import until
from tests.rq.agent_end import HERE, hosted

if TYPE_CHECKING:
    from pathlib import Path


def project(folder: Path, **files: str) -> Path:
    """Write a project: `package__module=text`."""
    root = folder / "project"
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent != root:
            (path.parent / "__init__.py").touch()
        path.write_text(textwrap.dedent(text))
    return root


WORKERS_TASKS = """
    import multiprocessing
    import workers, workers.helpers

    def whose():
        return [workers.__file__, workers.helpers.NAME]

    def spawned(queue):
        queue.put(whose())

    def spawn():
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        child = context.Process(target=spawned, args=(queue,))
        child.start()
        found = queue.get(timeout=30)
        child.join()
        return found

    def stop_is_ours():
        import coord, coord.child
        return [coord.__file__, coord.child.stop.requested]
"""


@pytest.mark.parametrize("function", ["whose", "spawn"])
def test_a_project_has_a_package_that_is_called_as_ours(server: str, tmp_path: Path, function: str) -> None:
    """`workers.tasks` of the project in the current folder is executed, also in what a job spawns."""
    root = project(tmp_path, workers__tasks=WORKERS_TASKS, workers__helpers="NAME = 'theirs'")
    with hosted(server, tmp_path, paths=["."], cwd=root) as site:
        job = site.queue.enqueue(f"workers.tasks.{function}")
        assert site.agent.hear("written")["status"] == "finished", site.agent.log()
        assert job.return_value() == [str(root / "workers" / "__init__.py"), "theirs"]
        job = site.queue.enqueue("workers.tasks.stop_is_ours")
        site.agent.hear("written", rq_job=job.id)
        home, requested = job.return_value() or ("", None)
        assert requested is False
        assert str(tmp_path) not in home


@pytest.mark.parametrize("stepped", [True, False])
def test_a_project_has_a_package_coord_too(server: str, tmp_path: Path, *, stepped: bool) -> None:
    """Both names are theirs, and stops work as ever. Did we not step aside, their functions were not found."""
    tasks = "import sys, time\ndef wait(path):\n    open(path, 'w').write('begun')\n    time.sleep(60)\n"
    root = project(tmp_path, coord__tasks=tasks, workers__tasks=tasks)
    environment = {} if stepped else {"PYTHONPATH": str(unable_to_step(tmp_path))}
    with hosted(server, tmp_path, paths=[str(root)], environment=environment) as site:
        for name in ("coord.tasks.wait", "workers.tasks.wait"):
            path = site.note()
            site.agent.stop_file.unlink(missing_ok=True)
            site.queue.enqueue(name, str(path))
            if not stepped:
                assert site.agent.hear("written")["status"] == "failed"
                continue
            forked = site.agent.begun(path)
            site.agent.stop(forked["execution"], "stopped")
            site.agent.signal(forked["pid"])
            assert site.agent.hear("ended")["exit_code"] == 143
            site.agent.settle(forked["execution"])
            assert site.agent.hear("written")["status"] == "stopped"
        other = site.queue.enqueue("math.sqrt", 4)  # a failure, a requeue, the end: nothing of ours is imported late
        site.agent.hear("written", rq_job=other.id)
        site.agent.tell("drain")
        assert site.agent.hear("bye")["clean"] is True
        assert site.agent.end() == 0


def unable_to_step(folder: Path) -> Path:
    """Give a folder for PYTHONPATH in which nobody steps aside: the negative control."""
    hook = folder / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text("import workers.rq_aside as aside, sys\naside.NAMES = ()\n")
    return hook


def test_settings_are_those_of_a_module(server: str, tmp_path: Path) -> None:
    """`-c settings`: where Redis is, which queues, and how to log, as RQ's command has them."""
    root = project(
        tmp_path,
        settings=f"""
            REDIS_URL = {server!r}
            QUEUES = ["from-settings"]
            DICT_CONFIG = {{"version": 1, "disable_existing_loggers": False}}
        """,
    )
    with hosted(server, tmp_path, config="settings", url=None, queues=[], paths=[str(root)]) as site:
        register = site.register()
        assert register
        assert register.queue_names() == ["from-settings"]


def test_redis_is_where_the_environment_says(server: str, tmp_path: Path) -> None:
    """Neither a URL nor settings: RQ_REDIS_URL, and the classes that RQ_* name."""
    environment = {"RQ_REDIS_URL": server, "RQ_JOB_CLASS": "projects_classes.OwnJob"}
    root = project(
        tmp_path,
        projects_classes="from rq.job import Job\nclass OwnJob(Job):\n    pass\n",
        own="""
        from rq import get_current_job
        def kind():
            return type(get_current_job()).__name__
    """,
    )
    with hosted(server, tmp_path, url=None, environment=environment, paths=[str(root)]) as site:
        job = site.queue.enqueue("own.kind")
        site.agent.hear("written")
        assert job.return_value() == "OwnJob"


OWN_CLASSES = """
    from rq.worker import Worker, SimpleWorker, SpawnWorker
    from workers.rq_worker import CoordWorker

    class Theirs(Worker):
        def execute_job(self, job, queue):
            self.connection.set("theirs", job.id)
            super().execute_job(job, queue)

    class Ours(CoordWorker):
        def execute_job(self, job, queue):
            self.connection.set("theirs", job.id)
            super().execute_job(job, queue)

    class Simple(SimpleWorker):
        pass

    class Spawn(SpawnWorker):
        pass
"""


@pytest.mark.parametrize("name", ["Theirs", "Ours"])
def test_a_worker_class_of_the_project_is_combined_with_ours(server: str, tmp_path: Path, name: str) -> None:
    """It does what it does, and stops as ours."""
    root = project(tmp_path, own_classes=OWN_CLASSES)
    options = {"worker_class": f"own_classes.{name}"}
    with hosted(server, tmp_path, options=options, paths=[str(root), HERE]) as site:
        path = site.note()
        job = site.queue.enqueue("errands.wait", str(path))
        forked = site.agent.begun(path)
        assert site.redis.get("theirs") == job.id.encode()
        site.agent.stop(forked["execution"], "stopped")
        site.agent.signal(forked["pid"])
        site.agent.hear("ended")
        site.agent.settle(forked["execution"])
        assert site.agent.hear("written")["status"] == "stopped"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"options": {"worker_class": "own_classes.Simple"}}, "no work-horse"),
        ({"options": {"worker_class": "own_classes.Spawn"}}, "afresh"),
        ({"options": {"worker_class": "own_classes.Nobody"}}, "Nobody"),
        ({"options": {"job_class": "nowhere.Job"}}, "nowhere"),
        ({"options": {"dequeue_strategy": "best"}}, "best"),
        ({"options": {"exception_handlers": ["nowhere.handler"]}}, "nowhere"),
        ({"config": "no_such_settings"}, "no_such_settings"),
        ({"url": "http://nowhere"}, "URL"),
    ],
)
def test_what_can_not_be_is_said_in_one_line(server: str, tmp_path: Path, config: dict[str, Any], words: str) -> None:
    """A worker that can't begin says why, once, and exits with 2."""
    root = project(tmp_path, own_classes=OWN_CLASSES)
    with hosted(server, tmp_path, wait=False, **config, paths=[str(root)]) as site:
        assert site.agent.end() == 2
        lines = site.agent.log().strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("coord worker: ")
        assert words in lines[0]


def test_an_unknown_rq_is_refused_in_one_line(server: str, tmp_path: Path) -> None:
    """What it overrides is not as it was: it says what, and does not begin."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import rq.worker.worker_classes as classes\nclasses.Worker.monitor_work_horse = lambda self, job: None\n"
    )
    with hosted(server, tmp_path, wait=False, environment={"PYTHONPATH": str(hook)}) as site:
        assert site.agent.end() == 2
        assert site.agent.log().strip().endswith("other than there: Worker.monitor_work_horse")


def test_the_rq_that_is_installed_is_known() -> None:
    """The list of what we override and call is right."""
    from workers.rq_fits import misfit

    assert misfit() is None


def test_a_job_finds_where_it_belongs_in_its_environment(server: str, tmp_path: Path) -> None:
    """As any child of an agent; and it does not find our link."""
    with hosted(server, tmp_path) as site:
        path = site.note()
        site.queue.enqueue("errands.tell", str(path), meta={"coord_job_id": "train-42"})
        site.agent.hear("written")
        told = eval(path.read_text())  # noqa: S307  # what our own function wrote
        assert told["COORD_JOB_ID"] == "train-42"
        assert told["COORD_AGENT_ID"] == "agent-1"
        assert told["COORD_STOP_FILE"] == str(site.agent.stop_file)
        assert told["COORD_REDIS_URL"] == server
        assert told["COORD_LABEL"].startswith("errands.tell(")
        assert told["COORD_RQ_LINK"] is None


def test_a_horse_does_not_look_up_its_library(server: str, tmp_path: Path) -> None:
    """Each job has a connection of its own: it does not read redis-py's version from a file, nor tell the server."""
    with hosted(server, tmp_path) as site:
        job = site.queue.enqueue("errands.library")
        site.agent.hear("written")
        assert job.return_value() == ""
        with Redis.from_url(server) as stock:
            assert stock.client_info()["lib-name"] != ""


@pytest.mark.parametrize("how", ["drain", "SIGTERM", "hang up", "burst"])
def test_the_scheduler_is_a_process_that_ends_when_it_is_to(server: str, tmp_path: Path, how: str) -> None:
    """It enqueues what is due, gives its locks back, and leaves at once."""
    with hosted(server, tmp_path, wait=False, role="scheduler", burst=how == "burst") as site:
        if how != "burst":
            site.agent.hear("up")
            job = site.queue.enqueue_in(timedelta(seconds=0.1), "errands.add", 1, 2)
            until(lambda: site.queue.get_job_ids() == [job.id], "the job to be enqueued")
        if how == "drain":
            site.agent.tell("drain")
        elif how == "SIGTERM":
            site.agent.popen.terminate()
        elif how == "hang up":
            site.agent.hang_up()
        if how != "hang up":
            bye = site.agent.hear("bye")
            assert (bye["why"], bye["clean"]) == ("burst" if how == "burst" else "drained", True)
        assert site.agent.end() == 0
        assert not site.redis.exists(f"rq:scheduler-lock:{site.queue.name}")
