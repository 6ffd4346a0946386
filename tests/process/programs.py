"""The real programs that tests run: where they are, and what they are given to do."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

POSTGRES_FOLDERS = "/usr/lib/postgresql/*/bin"  # Debian keeps them off the PATH


def need(name: str, package: str = "") -> str:
    """Give a program's path. Where it is missing, the test is skipped; not in CI, which installs it."""
    folders = sorted(Path("/").glob(POSTGRES_FOLDERS[1:]), reverse=True)
    path = shutil.which(name, path=os.pathsep.join(map(str, [*os.get_exec_path(), *folders])))
    return path or _missing(f"{name} is not installed: apt-get install {package or name}")


def need_module(name: str) -> None:
    """See to it that a Python package is there, by the same rule."""
    if not find_spec(name):
        _missing(f"{name} is not installed: it is in the dev group of pyproject.toml")


def _missing(why: str) -> str:
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


# all that it writes goes to its own folder, `-p`; the log says of each worker when it was started
NGINX = """
worker_processes 3;
pid nginx.pid;
error_log error.log notice;
events {}
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server { listen 127.0.0.1:PORT; location / { return 200 "here"; } }
}
"""

# answers /late only once it is being stopped: such a request is under way when the signal comes
WSGI = """
import time
from pathlib import Path
from coord.child import stop

def app(environ, start_response):
    if environ["PATH_INFO"] == "/late":
        Path("asked").touch()
        while not stop.requested:
            time.sleep(0.01)
        time.sleep(0.3)
    start_response("200 OK", [])
    return [b"here"]
"""

# a worker that gives itself a task once it is ready, and notes each process of its pool; KIND: plain, late (queued
# again when it was cut off)
CELERY = """
import os, time
from pathlib import Path
from celery import Celery
from celery.signals import worker_process_init, worker_ready
from coord.child import stop

app = Celery("tasks", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.task_default_queue = os.environ["QUEUE"]
KIND = os.environ["KIND"]

@app.task(acks_late=KIND == "late", reject_on_worker_lost=KIND == "late")
def work():
    Path("working").touch()
    while not stop.requested:
        time.sleep(0.01)
    time.sleep(0.3)

@worker_process_init.connect
def begin(**_):
    Path(f"born-{os.getpid()}").touch()

@worker_ready.connect
def give(**_):
    work.apply_async(task_id=os.environ["QUEUE"])
"""

# argv: start method, and who takes SIGTERM: `all` die of it; `main` alone does, after the work at hand; the `workers`
# would die of it, and the main process takes it after the work at hand
POOL = """
import itertools, multiprocessing, os, signal, sys, time
from contextlib import nullcontext
from pathlib import Path
from coord.child import stop

METHOD, HOW = sys.argv[1:]

def begin():
    signal.signal(signal.SIGTERM, signal.SIG_IGN if HOW == "main" else signal.SIG_DFL)
    Path(f"born-{os.getpid()}").touch()

def work(number):
    time.sleep(0.02)
    return number

if __name__ == "__main__":
    with nullcontext() if HOW == "all" else stop.deferred():
        pool = multiprocessing.get_context(METHOD).Pool(4, begin)
        for _ in stop.until_requested(itertools.count()):
            pool.map(work, range(8))
            Path("working").touch()
        pool.close()
        pool.join()
        Path("whole").touch()
"""

LOKY = """
import os, time
from pathlib import Path
from joblib import Parallel, delayed

def work():
    Path(f"born-{os.getpid()}").touch()
    time.sleep(600)

if __name__ == "__main__":
    Parallel(n_jobs=4)(delayed(work)() for _ in range(8))
"""

# what gets away from a terminal, from a process group, from its parent, and all at once
PIPELINE = """
tail -f /dev/null | nohup cat > out &
nohup sleep 600 &
(setsid nohup sleep 601 &)
sleep 602 | cat
echo never
"""
