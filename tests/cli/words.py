"""What a person reads when the command can't do what it was told: one line, and an exit code that is documented."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.harness import Ended


def complaint(ended: Ended, code: int) -> str:
    """Give the one line on stderr; fails when there is another one, a traceback, or anything on stdout."""
    assert ended.code == code, ended.err
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    (line,) = lines
    assert line.startswith("coord: ")
    assert line.isprintable()
    assert "Traceback" not in line
    assert "defect of coord" not in line
    return line
