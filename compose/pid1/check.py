"""Is `coord run` good as PID 1 of a container? Tried in a real Docker Engine, beside the same program without coord.

    docker compose build coordinator      # the image that both run in; in compose/
    python pid1/check.py

A program makes 1,000 orphans and goes on working (orphans.py); `docker exec` leaves 100 more. In one container it runs
under coord, in the other it is PID 1 itself. Both are watched until all that was to end has ended, then `docker stop`.

Exits 0 only when all was as promised. Needs Python 3.11 and the command `docker` alone. REDIS_IMAGE as in compose.yaml.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = "coord-demo"
REDIS_IMAGE = os.environ.get("REDIS_IMAGE", "redis:7")
SOURCE = Path(__file__).with_name("orphans.py").read_text()
URL = "COORD_REDIS_URL=redis://redis:6379/0"
MADE, STAYING, ENTERED = 1000, 50, 100
STOP_S = 20  # what `docker stop` waits before it kills
END_MAX_S = 90.0  # for the orphans, on a machine that is very busy; a quiet one needs some five seconds
READY_MAX_S = 30.0
LOOK_S = 0.2
LINES_AFTER = 5  # of the program, from the end of the last orphan on


@dataclass(frozen=True)
class Seen:
    """What one container did. `zombies_max`: in any line of the program; `zombies`: when all that was to end had."""

    zombies_max: int
    zombies: int
    stop_s: float
    exit_code: int


def main() -> int:
    """Try both, say what was seen; gives the exit code."""
    try:
        with stage() as name:
            coord, control = observe(f"{name}-coord"), observe(f"{name}-control")
            network = ("--network", name, "--env", URL)
            said = json.loads(docker("run", "--rm", *network, IMAGE, "status", "--job-id", name, "--json"))
    except subprocess.CalledProcessError as error:
        print(f"docker {' '.join(error.cmd[1:3])}: {error.stderr.strip()}", file=sys.stderr)
        return 1
    show(coord, control, said)
    holding = promises(coord, control, said)
    for promise, holds in holding.items():
        print(f"{'yes' if holds else 'NO '}  {promise}")
    return 0 if all(holding.values()) else 1


def docker(*args: str) -> str:
    """Run `docker ARGS`; gives what it printed. Raises CalledProcessError."""
    done = subprocess.run(["docker", *args], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@contextmanager
def stage() -> Iterator[str]:
    """Start Redis and both containers on a network of their own; gives its name, which is the job's too."""
    name = f"pid1-{secrets.token_hex(3)}"
    containers = [f"{name}-{which}" for which in ("redis", "coord", "control")]
    try:
        docker("network", "create", "--internal", name)
        network = ("--network", name)
        redis = ("--network-alias", "redis", REDIS_IMAGE, "redis-server", "--protected-mode", "no")
        docker("run", "--detach", "--name", containers[0], *network, *redis)
        until_ready(containers[0])
        run = (IMAGE, "run", "--job-id", name, "--", "python", "-c", SOURCE, str(MADE), str(STAYING))
        docker("run", "--detach", "--name", containers[1], *network, "--env", URL, *run)
        bare = ("--entrypoint", "python", IMAGE, "-c", SOURCE, str(MADE), str(STAYING))
        docker("run", "--detach", "--name", containers[2], *network, *bare)
        yield name
    finally:
        for last in (["rm", "--force", "--volumes", *containers], ["network", "rm", name]):
            subprocess.run(["docker", *last], check=False, capture_output=True)  # some may never have been


def until_ready(redis: str) -> None:
    """Wait until Redis answers. Raises CalledProcessError when it does not."""
    end_s = time.monotonic() + READY_MAX_S
    while True:
        try:
            docker("exec", redis, "redis-cli", "-e", "ping")
        except subprocess.CalledProcessError:
            if time.monotonic() > end_s:
                raise
            time.sleep(LOOK_S)
        else:
            return


def observe(container: str) -> Seen:
    """Wait until all orphans that were to end have ended, then stop it."""
    until_settled(container, 0)
    # their parent is a process of the engine's, so they fall to PID 1 alone
    docker("exec", container, "python", "-c", SOURCE, str(ENTERED), "0", "0")
    until_settled(container, len(lines(container)))
    told = lines(container)
    begun_s = time.monotonic()
    docker("stop", "-t", str(STOP_S), container)
    return Seen(
        zombies_max=max(line["zombies"] for line in told),
        zombies=told[-1]["zombies"],
        stop_s=time.monotonic() - begun_s,
        exit_code=int(docker("inspect", "--format", "{{.State.ExitCode}}", container)),
    )


def until_settled(container: str, after: int) -> None:
    """Wait for some lines, later than the first `after`, that show no other orphans than those that stay."""
    end_s = time.monotonic() + END_MAX_S
    while time.monotonic() < end_s:
        if [line["alive"] for line in lines(container)[after + 1 :]].count(STAYING + 1) >= LINES_AFTER:
            return
        time.sleep(LOOK_S)
    sys.exit(f"{container}: its orphans did not end within {END_MAX_S:g} s")


def lines(container: str) -> list[dict[str, int]]:
    """Give what the program has said."""
    return [json.loads(line) for line in docker("logs", container).splitlines()]


def outcomes(said: dict[str, Any]) -> Counter[str]:
    """Count how the job's processes ended."""
    return Counter(process["outcome"] for agent in said["agents"] for process in agent["processes"])


def show(coord: Seen, control: Seen, said: dict[str, Any]) -> None:
    """Print what was seen, side by side."""
    ended = ", ".join(f"{count} {outcome}" for outcome, count in outcomes(said).items())
    rows = [
        ("PID 1", "coord run", "the program"),
        ("orphans", f"{MADE} + {ENTERED}", f"{MADE} + {ENTERED}"),
        ("zombies, at most", coord.zombies_max, control.zombies_max),
        ("zombies, at the end", coord.zombies, control.zombies),
        ("docker stop took", f"{coord.stop_s:.2f} s", f"{control.stop_s:.2f} s"),
        ("exit code", coord.exit_code, control.exit_code),
        ("the record", f"{said['verdict']}: {ended}", "-"),
    ]
    for what, *both in rows:
        print(f"{what:22}{both[0]!s:24}{both[1]}")


def promises(coord: Seen, control: Seen, said: dict[str, Any]) -> dict[str, bool]:
    """Give each promise, and whether it was kept; and whether the control shows that it could have been broken."""
    return {
        "no zombie is left": coord.zombies == 0,
        "docker stop ended before it had to kill": coord.exit_code == 143 and coord.stop_s < STOP_S,
        "the verdict is clean, with proof": said["verdict"] == "clean" and all(a["proof"] for a in said["agents"]),
        "all that lived on was asked to leave, and left": outcomes(said) == {"terminated": STAYING + 1},
        "without coord, zombies pile up": control.zombies == MADE - STAYING + ENTERED,
        "without coord, docker stop has to kill": control.exit_code == 137 and control.stop_s >= STOP_S,
    }


if __name__ == "__main__":
    sys.exit(main())
