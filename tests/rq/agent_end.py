"""A small agent for tests of one worker process: holds the other end of its link, and speaks the contract."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis import Redis
from rq import Queue
from rq.worker import Worker

from tests.harness import MARK, WAIT_S, end_with_all, surroundings, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rq.executions import Execution
    from rq.job import Job

MESSAGE_MAX_BYTES = 32768
HERE = str(Path(__file__).parent)


class AgentEnd:
    """Starts a worker process; answers "go" to each question, unless told otherwise."""

    def __init__(self, url: str, folder: Path, /, **config: Any) -> None:
        self.heard: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _asked: {"word": "go"}
        self.token = secrets.token_hex(8)
        self.name = config.pop("name", f"worker-{self.token}")
        self.stop_file = folder / f"stop-{self.token}.json"
        self.host_stop_file = folder / f"stop-host-{self.token}.json"
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {
            **surroundings(),
            MARK: self.token,
            "COORD_RQ_LINK": str(theirs.fileno()),
            "PYTHONUNBUFFERED": "1",
        }
        environment |= config.pop("environment", {})
        self._log = (folder / f"log-{self.token}").open("w+b")
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "workers.rq_main"],
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            cwd=config.pop("cwd", folder),
        )
        theirs.close()
        self.tell(
            "config",
            **{
                "role": "worker",
                "name": self.name,
                "queues": ["default"],
                "url": url,
                "config": None,
                "paths": ["."],
                "stop_file": str(self.stop_file),
                "host_stop_file": str(self.host_stop_file),
                "agent_id": "agent-1",
                "record_url": url,
                "warm_s": 0.0,
                "on_stop": "requeue",
                "burst": False,
                "options": {},
            }
            | config,
        )

    def begun(self, path: Path) -> dict[str, Any]:
        """Wait until a job's function has begun; gives what the worker told of its horse."""
        forked = self.hear("forked")
        until(lambda: path.exists() and "begun" in path.read_text(), f"a job to begin; log:\n{self.log()}")
        return forked

    def tell(self, kind: str, **fields: Any) -> None:
        """Send a message; who is gone hears nothing."""
        with suppress(OSError):
            self._link.send(json.dumps({"kind": kind, **fields}).encode())

    def hear(self, kind: str, wait_s: float = WAIT_S, **fields: Any) -> dict[str, Any]:
        """Give the first message of a kind, and with these fields, that was not given yet."""
        end_s = time.monotonic() + wait_s
        while True:
            for message in self.heard:
                if message["kind"] == kind and fields.items() <= message.items():
                    self.heard.remove(message)
                    return message
            self._link.settimeout(max(0.001, end_s - time.monotonic()))
            try:
                data = self._link.recv(MESSAGE_MAX_BYTES)
            except TimeoutError:
                data = b""
            if not data:
                raise AssertionError(f"no {kind} {fields} within {wait_s:g} s; heard {self.heard}; log:\n{self.log()}")
            message = json.loads(data)
            self.heard.append(message)
            if message["kind"] == "may" and (answer := self.answer(message)):
                self.tell("answer", **{"ticket": message["ticket"], "words": "", **answer})

    def stop(self, execution: str, outcome: str, words: str = "by a test", seconds: float = 20.0) -> None:
        """Have an intent noted, and write the stop file."""
        self.tell("stop", execution=execution, **{"as": outcome, "words": words, "until_s": time.monotonic() + seconds})
        self.hear("noted", execution=execution)
        self.stop_file.write_text(json.dumps({"as": outcome, "reason": words}))

    def settle(self, execution: str) -> None:
        """Say that the tree is gone and the record knows."""
        self.tell("settled", execution=execution)

    def signal(self, pid: int, number: int = signal.SIGTERM) -> None:
        """Signal a process of ours."""
        handle = os.pidfd_open(pid)
        signal.pidfd_send_signal(handle, number)
        os.close(handle)

    def log(self) -> str:
        """Give what the worker printed."""
        self._log.flush()
        return Path(self._log.name).read_text(errors="replace")

    def end(self, wait_s: float = WAIT_S) -> int:
        """Wait for the worker's end; gives its exit code."""
        return self.popen.wait(wait_s)

    def dismiss(self, how: str) -> None:
        """Have the worker leave: told to (`drain`), by `SIGTERM`, or since its agent is gone (`hang up`)."""
        {"drain": lambda: self.tell("drain"), "SIGTERM": self.popen.terminate, "hang up": self.hang_up}[how]()

    def hang_up(self) -> None:
        """Be gone, as an agent that was killed."""
        self._link.close()

    def close(self) -> None:
        """End whatever is left."""
        self._link.close()
        end_with_all(self.popen, self.token)
        self._log.close()


class Site:
    """A hosted worker, its queues, and what RQ knows of both; `url` is the way that the test itself has to Redis."""

    def __init__(self, url: str, folder: Path, /, names: tuple[str, ...] = ("high", "low"), **config: Any) -> None:
        self.folder = folder
        self.redis = Redis.from_url(url)
        token = secrets.token_hex(4)
        self.queues = [Queue(f"{name}-{token}", connection=self.redis) for name in names]
        self.queue = self.queues[0]
        self.agent = AgentEnd(
            config.pop("worker_url", url),
            folder,
            **{"queues": [queue.name for queue in self.queues], "paths": [HERE]} | config,
        )

    def note(self) -> Path:
        """Give the path of a file that a job says something in."""
        return self.folder / f"note-{secrets.token_hex(4)}"

    def places(self, job: Job) -> list[str]:
        """Give each place where a job is: a queue, a hand, an execution, an end."""
        found = []
        for queue in self.queues:
            found += [f"queue {queue.name}"] * queue.get_job_ids().count(job.id)
            hand = self.redis.lrange(f"coord:rq:hand:{self.agent.name}:{queue.name}", 0, -1)
            found += ["hand"] * hand.count(job.id.encode())
            found += ["stuck"] * queue.intermediate_queue.get_job_ids().count(job.id)
            running = queue.started_job_registry.get_job_and_execution_ids(cleanup=False)
            found += ["execution"] * sum(job.id == running_id for running_id, _ in running)
        status = job.get_status()
        return (
            [*found, status.value]
            if status and status.value in {"finished", "failed", "stopped", "canceled"}
            else found
        )

    def register(self) -> Worker | None:
        """Give what RQ knows of the worker."""
        found = Worker.find_by_key(f"rq:worker:{self.agent.name}", connection=self.redis)
        assert found is None or isinstance(found, Worker)
        return found

    def executions(self, job: Job) -> list[Execution]:
        """Give the executions of a job that RQ counts as running."""
        return job.get_executions()


@contextmanager
def hosted(url: str, folder: Path, /, **config: Any) -> Iterator[Site]:
    """Give a site with a worker that is up; whatever it left is ended afterwards."""
    wait = config.pop("wait", True)
    site = Site(url, folder, **config)
    try:
        if wait:
            site.agent.hear("up")
        yield site
    finally:
        site.agent.close()
        site.redis.close()
