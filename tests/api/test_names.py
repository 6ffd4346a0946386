"""What `import coord` offers: every public name, imported when it is first used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import coord


def test_every_public_name_is_there() -> None:
    """What `__all__` lists can be imported, and is listed by `dir`."""
    for name in coord.__all__:
        assert getattr(coord, name).__name__ == name
    assert set(coord.__all__) <= set(dir(coord))


def test_each_name_comes_alone() -> None:
    """The first use of a name finds it, whichever it is, in an interpreter that knows none of the others."""
    for name in coord.__all__:
        does = f"from coord import {name}; print({name}.__name__)"
        ended = subprocess.run([sys.executable, "-c", does], capture_output=True, text=True, check=True, timeout=60)
        assert ended.stdout == f"{name}\n"


def test_other_names_are_not_there() -> None:
    """A name that coord does not have is missing as everywhere, with the error that `hasattr` and `from` expect."""
    assert not hasattr(coord, "Coordinater")
    with pytest.raises(AttributeError, match="module 'coord' has no attribute 'ledgr'"):
        coord.ledgr  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError):
        from coord import ledgr  # type: ignore[attr-defined]  # noqa: F401
