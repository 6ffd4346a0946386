"""Steps aside for packages of the user's project that are called as ours are: `workers` and `coord`.

A project's job functions are imported by name, `workers.tasks.train`, and so are its settings and handlers. Once all
of ours that this process needs is imported, the names are given up: what was imported lives on, since it is used, and
an import of the name finds the project's. So nothing of ours may be imported late in such a process.

A name that the project does not have stays ours: `coord.child` is there for job functions.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ("workers", "coord")


def step_aside(paths: Sequence[str]) -> tuple[str, ...]:
    """Add the project's paths, as RQ's command does; gives the names that are theirs from now on.

    Theirs come before the folder that ours were imported from, and else where RQ has them: last.
    """
    folders = [str(Path(path).absolute()) for path in paths]
    theirs = tuple(name for name in NAMES if _is_in(name, folders))
    at = min((sys.path.index(home) for name in theirs if (home := _home(name)) in sys.path), default=len(sys.path))
    sys.path[at:at] = [folder for folder in folders if folder not in sys.path[:at]]
    for name in theirs:
        for loaded in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
            del sys.modules[loaded]
    importlib.invalidate_caches()
    return theirs


def hide_main() -> None:
    """Let no process that a job spawns take our program for the project's main module, as multiprocessing would."""
    main = sys.modules["__main__"]
    main.__spec__ = None
    main.__dict__.pop("__file__", None)


def _is_in(name: str, folders: Sequence[str]) -> bool:
    """Tell whether a project has a package or module of this name that is not ours."""
    found = PathFinder.find_spec(name, folders)
    if found is None:
        return False
    if found.origin is None:
        return any(_has_code(place) for place in found.submodule_search_locations or ())
    return Path(found.origin).resolve() != Path(sys.modules[name].__file__ or "").resolve()


def _has_code(place: str) -> bool:
    """Tell whether a folder without __init__.py is a package of modules, and not just a folder called so."""
    return any(Path(place).glob("*.py"))


def _home(name: str) -> str:
    """Give the entry of sys.path that ours came from."""
    return str(Path(sys.modules[name].__file__ or "").parent.parent)
