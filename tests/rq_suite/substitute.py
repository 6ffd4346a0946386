"""A plugin for pytest: puts the class that RQ_WORKER_CLASS names in place of RQ's `Worker`, wherever RQ refers to it.

The processes that RQ's tests start, `rq worker`, take their class from the same variable, by RQ's own option.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import tomllib
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import pytest
from rq.utils import import_attribute
from rq.worker.worker_classes import Worker

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVIATIONS = Path(__file__).with_name("deviations.toml")
KEPT = "rq.worker.worker_classes"  # where SpawnWorker and others, which are RQ's own, have their base from


def pytest_configure() -> None:
    """Put it in place before RQ's tests are imported."""
    if name := os.environ.get("RQ_WORKER_CLASS"):
        for all_of_it in ("rq.cli", "rq.local", "rq.worker_pool"):
            importlib.import_module(all_of_it)
        ours: Any = import_attribute(name)
        replace(ours)


def replace(ours: type[Worker]) -> None:
    """Change what RQ's modules call `Worker`, and defaults of their functions that are it."""
    for module in [module for name, module in sys.modules.items() if name.startswith("rq") and name != KEPT]:
        for name, value in list(vars(module).items()):
            if value is Worker:
                setattr(module, name, ours)
            for function in functions(value):
                function.__defaults__ = tuple(ours if each is Worker else each for each in function.__defaults__ or ())


def functions(value: Any) -> Iterator[FunctionType]:
    """Give a function of RQ, or those of a class of RQ."""
    found = vars(value).values() if isinstance(value, type) else (value,)
    for each in found:
        if isinstance(each, FunctionType) and each.__module__.startswith("rq") and each.__defaults__:
            yield each


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect the listed ones to fail; one that passes is an error: the list stays true."""
    if "RQ_WORKER_CLASS" not in os.environ:
        return
    reasons = tomllib.loads(DEVIATIONS.read_text())
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        if name in reasons:
            item.add_marker(pytest.mark.xfail(reason=reasons[name], strict=True))


def pytest_unconfigure() -> None:
    """End pool workers that a failed test left: Python would wait for them without end."""
    for process in multiprocessing.active_children():
        process.kill()
