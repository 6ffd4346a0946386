"""`python -m tests.rq_suite [--class stock] [pytest arguments]`: what `make rq-suite` runs.

RQ's tests come from the source package of the version that is installed. They want a Redis on localhost:6379, so they
get one of their own: in private network, mount and pid namespaces, which takes root. Where the tests can't run, this
says why and ends with 0. Tests that can't hold for our class are in deviations.toml, each with the reason.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
OURS = "workers.rq_worker.CoordWorker"
STOCK = "stock"
CONTROL, CONTROL_TESTS = "broken.Spares", "tests/test_commands.py"  # kills nobody, and must fail
FILES = (
    *("test_worker", "test_spawn_worker", "test_commands", "test_worker_pool", "test_worker_registration"),
    *("test_executions", "test_intermediate_queue", "test_timeouts", "test_retry", "test_callbacks"),
    *("test_job_dependency", "test_dependencies", "test_job_lifecycle", "test_registry", "test_results", "test_repeat"),
    *("test_group", "test_rate_limit", "test_scheduler", "test_cli"),
)
NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
# PID 1 must reap what RQ's tests orphan, or they see it as alive; a shell does, as long as it has a child to wait for
PID_ONE = ("sh", "-c", '"$@" & wait $!; exit $?', "sh")


def main() -> int:
    """Fetch, run; give pytest's exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.rq_suite", description="Run RQ's tests with our worker.")
    parser.add_argument("--class", dest="chosen", default=OURS, metavar="CLASS", help=f"a worker class, or `{STOCK}`")
    given, arguments = parser.parse_known_args()
    if why := missing():
        sys.stderr.write(f"rq-suite: skipped: {why}\n")
        return 0
    suite = fetched(importlib.metadata.version("rq"))
    if any(argument.startswith("tests/") for argument in arguments):
        return run(suite, given.chosen, *arguments).returncode
    if not run(suite, CONTROL, "-q", CONTROL_TESTS, stdout=subprocess.DEVNULL).returncode:
        sys.stderr.write(f"rq-suite: {CONTROL} passes {CONTROL_TESTS}: another class was tested than was meant\n")
        return 1
    return run(suite, given.chosen, *arguments, *(f"tests/{name}.py" for name in FILES)).returncode


def run(suite: Path, chosen: str, *arguments: str, stdout: int | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run RQ's tests in the folder `suite` with a class, in namespaces of their own."""
    command = [*NAMESPACES, *PID_ONE, sys.executable, str(HERE / "inside.py"), *arguments]
    return subprocess.run(command, cwd=suite, env=environment(chosen), stdout=stdout, check=False)


def missing() -> str:
    """Give what this machine lacks; empty where the suite can run."""
    if os.geteuid() != 0:
        return "private namespaces need root"
    absent = [program for program in ("unshare", "redis-server") if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def environment(chosen: str) -> dict[str, str]:
    """Give what RQ's tests and the worker processes that they start find in theirs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("COORD_", "RQ_"))}
    own = {"PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1", "RUN_SLOW_TESTS_TOO": "1"}
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"  # RQ's tests start `rqworker`
    ours = {} if chosen == STOCK else {"RQ_WORKER_CLASS": chosen}
    return {**inherited, **own, **ours, "PATH": path}


def fetched(version: str) -> Path:
    """Give the folder with RQ's tests of a version; fetched once for this environment."""
    folder = Path(sys.prefix) / f"rq-suite-{version}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory(dir=sys.prefix) as scratch:
        options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", "rq", "--no-build-isolation")
        pip = (sys.executable, "-m", "pip", "download", *options, "--dest", scratch, f"rq=={version}")
        subprocess.run(pip, check=True)
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(scratch, filter="data")
        source = Path(scratch) / f"rq-{version}"
        shutil.rmtree(source / "rq")  # the installed one is tested
        source.rename(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main())
