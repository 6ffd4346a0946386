"""What a program and its ranks tell a test: JSON lines in the file that FACTS names, whole ones, whoever writes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

FACTS = "FACTS"
WAIT_S = 60.0


def tell(what: str, **facts: Any) -> None:
    """Add a line."""
    always = {"what": what, "host": os.environ["COORD_HOST"], "pid": os.getpid(), "at_s": time.monotonic()}
    line = json.dumps(always | facts) + "\n"
    fd = os.open(os.environ[FACTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def told(what: str, path: str | None = None) -> list[dict[str, Any]]:
    """Give all lines of one kind."""
    file = Path(path or os.environ[FACTS])
    lines = file.read_text().splitlines() if file.exists() else []
    return [fact for line in lines if (fact := json.loads(line))["what"] == what]


def wait_for(what: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait until so many lines of one kind are there; bounded."""
    end_s = time.monotonic() + WAIT_S
    while len(found := told(what)) < count:
        if time.monotonic() > end_s:
            raise TimeoutError(f"{len(found)} of {count} {what}")
        time.sleep(0.01)
    return found
