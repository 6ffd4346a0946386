"""A scope in a program that has other processes of its own: pools and loaders beside it, and in its ranks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.harness import Lab

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed: pip install torch"
)

POOL = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from workers import JobScope, JobStopped

def square(number):
    return number * number

def rank(number):
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]

def fails():
    time.sleep(0.2)
    raise ValueError("no luck")

if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(square, range(3))) == [0, 1, 4]
        workers = set(pool._processes)
        with JobScope(sys.argv[1]) as scope:
            for number in range(2):
                scope.spawn(rank, number)
            assert list(pool.map(square, range(3))) == [0, 1, 4]
            scope.join()
        try:
            with JobScope(sys.argv[1] + "-2") as scope:
                scope.spawn(fails)
                scope.spawn(time.sleep, 600)
                scope.join()
        except JobStopped as stopped:
            assert "no luck" in str(stopped)
        assert list(pool.map(square, range(4))) == [0, 1, 4, 9]
        assert set(pool._processes) == workers, "nobody's workers were touched"
    print("well", flush=True)
"""

LOKY = """
import multiprocessing, sys
from joblib import Parallel, delayed
from workers import JobScope

if __name__ == "__main__":
    assert Parallel(n_jobs=2)(delayed(abs)(-each) for each in range(4)) == [0, 1, 2, 3]
    with JobScope(sys.argv[1], context=multiprocessing.get_context("spawn")) as scope:
        scope.spawn(print, "a rank", flush=True)
        assert Parallel(n_jobs=2)(delayed(abs)(-each) for each in range(4)) == [0, 1, 2, 3]
        scope.join()
    assert Parallel(n_jobs=2)(delayed(abs)(-each) for each in range(4)) == [0, 1, 2, 3]
    print("well", flush=True)
"""

LOKY_IN_A_RANK = """
import multiprocessing, os, sys, time
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from workers import JobScope, JobStopped

def rank():
    try:
        assert Parallel(n_jobs=2)(delayed(abs)(-each) for each in range(4)) == [0, 1, 2, 3]
    finally:
        get_reusable_executor().shutdown()

def works(folder):
    Parallel(n_jobs=2)(delayed(os.system)(f": > {folder}/{each}; exec sleep 300") for each in range(2))

def breaks(folder):
    while len(os.listdir(folder)) < 2:
        time.sleep(0.05)
    raise ValueError("no luck")

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    with JobScope(sys.argv[1], context=context) as scope:
        for _ in range(2):
            scope.spawn(rank)
        scope.join()
    try:
        with JobScope(sys.argv[1] + "-2", context=context, grace_s=10) as scope:
            scope.spawn(works, sys.argv[3])
            scope.spawn(breaks, sys.argv[3])
            scope.join()
    except JobStopped as stopped:
        assert "no luck" in str(stopped)
    outcomes = [each.outcome.value for each in scope._job.state.processes.values()]
    assert len(outcomes) >= 4, "ranks, and loky's workers"
    assert "killed" not in outcomes, outcomes
    print("well", flush=True)
"""

LOADER = """
import os, signal, sys, time
import torch
from torch.utils.data import DataLoader, Dataset
from workers import JobScope, JobStopped

class Rows(Dataset):
    def __len__(self):
        return 10_000
    def __getitem__(self, index):
        return torch.full((64,), float(index))

def epochs(started):
    torch.set_num_threads(1)
    for _ in range(1000):
        for batch in DataLoader(Rows(), batch_size=16, num_workers=2):
            open(started, "w").close()

def breaks(started):
    while not os.path.exists(started):
        time.sleep(0.05)
    raise ValueError("loss is NaN")

if __name__ == "__main__":
    torch.set_num_threads(1)
    started = sys.argv[2]
    mine = iter(DataLoader(Rows(), batch_size=16, num_workers=2))
    next(mine)
    try:
        with JobScope(sys.argv[1], grace_s=5, sweep_shm=True) as scope:
            scope.spawn(epochs, started)
            scope.spawn(breaks, started)
            scope.join()
    except JobStopped as stopped:
        assert "loss is NaN" in str(stopped), stopped
    outcomes = {key[0]: each.outcome.value for key, each in scope._job.state.processes.items()}
    assert "killed" not in outcomes.values(), outcomes
    assert len(next(mine)) == 16, "the program's own loader goes on"
    print("well", flush=True)
"""


def run(lab: Lab, program: str, job: str, folder: Path, *words: str) -> None:
    """Run a program to its end: it sees itself whether all is well."""
    path = folder / "program.py"
    path.write_text(program)
    ended = lab.start(str(path), job, *words, program=sys.executable).end(90)
    assert (ended.code, ended.out.splitlines()[-1:]) == (0, ["well"]), ended.err  # loky may say more


@pytest.mark.usefixtures("containment")
def test_an_executor_beside_a_scope_and_in_a_rank(lab: Lab, job: str, tmp_path: Path) -> None:
    """concurrent.futures: the program's own workers are not touched by a stop; a rank may have some of its own."""
    run(lab, POOL, job, tmp_path)


@pytest.mark.usefixtures("containment")
def test_joblib_beside_a_scope(lab: Lab, job: str, tmp_path: Path) -> None:
    """Loky's workers work on, before, beside and after a scope."""
    pytest.importorskip("joblib", reason="joblib is not installed")
    run(lab, LOKY, job, tmp_path)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.usefixtures("containment")
def test_joblib_in_a_rank(lab: Lab, job: str, tmp_path: Path, method: str) -> None:
    """Loky's workers in a rank end when it shuts them down, and go with it when it is stopped, without force."""
    pytest.importorskip("joblib", reason="joblib is not installed")
    (tmp_path / "started").mkdir()
    run(lab, LOKY_IN_A_RANK, job, tmp_path, method, str(tmp_path / "started"))


@needs_torch
@pytest.mark.usefixtures("containment")
def test_a_data_loader_beside_a_scope_and_in_a_rank(lab: Lab, job: str, tmp_path: Path) -> None:
    """PyTorch: loaders' workers go with their rank, without force, and leave no memory; the program's own work on."""
    before = torch_memory()
    run(lab, LOADER, job, tmp_path, str(tmp_path / "started"))
    assert torch_memory() <= before


def torch_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir() if path.name.startswith("torch_")}  # noqa: S108
