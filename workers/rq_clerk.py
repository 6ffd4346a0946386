"""The clerk: speaks RQ for an agent, which never imports it. A short-lived process with one duty.

Reads one JSON object from stdin, `{"do": "sweep" or "settle", ...}` (see `coord.rq.duties`), and prints one
line of JSON: what came of it; or `{"error": ..., "exit_code": ...}`, with which it then ends.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from coord.errors import OK, CoordError
from coord.rq import duties

DUTIES = {"sweep": duties.sweep, "settle": duties.settle}


def main() -> int:
    """Do it."""
    answer = os.dup(1)
    os.dup2(2, 1)  # what a user's settings module prints is no answer of ours
    what: dict[str, Any] = json.load(sys.stdin)
    sys.path += what.get("paths") or []  # behind ours: a user's project may have a package `workers`, too
    code = OK
    try:
        said = DUTIES[what["do"]](what)
    except CoordError as error:
        code = error.exit_code
        said = {"error": str(error), "exit_code": code}
    os.write(answer, json.dumps(said).encode() + b"\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
