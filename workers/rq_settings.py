"""Reads a module of RQ settings for the agent, in a process of its own: it is a user's code.

That process runs this file by its path and imports nothing of ours, lest a package of ours stands where the user's is.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from urllib.parse import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

READ_S = 30.0


class SettingsError(ValueError):
    """The module can't be used; says why."""


def read(module: str, paths: Iterable[str]) -> dict[str, Any]:
    """Give `url`, `queues` and `name`, where the module has them. Raises SettingsError that says why not."""
    argv = [sys.executable, "-P", __file__, module, *paths]
    try:
        ended = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=READ_S)
    except subprocess.TimeoutExpired as error:
        raise SettingsError(f"--config: {module!r} took more than {READ_S:.0f} s to import") from error
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or ["it said nothing"]
        raise SettingsError(f"--config: {module!r} can't be read: {lines[-1]}")
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def main() -> None:
    """Print what the module says."""
    module, *paths = sys.argv[1:]
    sys.path[:0] = paths
    helpers: Any = importlib.import_module("rq.cli.helpers")  # an agent has no use for it
    settings = helpers.read_config_file(module)
    if settings.get("SENTINEL"):
        sys.exit("SENTINEL: give coord an address of its own, with --redis-url")
    url = settings.get("REDIS_URL") or _url(helpers.get_redis_from_config(settings))
    print(json.dumps({"url": url, "queues": settings.get("QUEUES"), "name": settings.get("NAME")}))  # noqa: T201


def _url(connection: Any) -> str:
    about = connection.connection_pool.connection_kwargs
    scheme = "rediss" if "SSL" in connection.connection_pool.connection_class.__name__ else "redis"
    password = f":{quote(about['password'], safe='')}@" if about.get("password") else ""
    return f"{scheme}://{password}{about['host']}:{about['port']}/{about.get('db') or 0}"


if __name__ == "__main__":
    main()
