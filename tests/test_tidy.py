"""The rules of the house that no other tool checks. A rule that no machine checks is dropped."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from coord.keys import JOB_KEYS

ROOT = Path(__file__).parent.parent
FILE_LINES_MAX = 300
FUNCTION_LINES_MAX = 50
ARCHITECTURE_LINES_MAX = 150
# what each may do, and who alone may do it
ALONE = {
    r"\bos\.kill(pg)?\(|os\.pidfd_open\(|pidfd_send_signal\(|\.send_signal\(": {"workers/signals.py"},
    r"\bPopen\(|posix_spawn\(|subprocess\.run\(|os\.fork\(": {
        "coord/embedded.py",
        "workers/beside.py",
        "workers/cgroups.py",
        "workers/checkup/orphan.py",
        "workers/guardian.py",
        "workers/heir.py",
        "workers/rq_clerks.py",
        "workers/rq_settings.py",
        "workers/starter.py",
        "workers/starting.py",
        "workers/sweep.py",
    },
    r"create_task\(|ensure_future\(": {"workers/keeper.py"},
    r"\btime\.sleep\(": {
        "coord/blocking.py",
        "coord/embedded.py",
        "coord/routed.py",
        "workers/checkup/orphan.py",
        "workers/obituary.py",
        "workers/outlet.py",
        "workers/stderr_tail.py",
    },
}


def tracked(*endings: str) -> list[Path]:
    """Give the files of the project: tracked by git, or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    return [ROOT / name for name in listed if name.endswith(endings) and (ROOT / name).is_file()]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


PYTHON = tracked(".py")
OURS = [path for path in PYTHON if path.parts[len(ROOT.parts)] in {"coord", "workers"}]


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_files_and_functions_are_short(path: Path) -> None:
    """A stranger reads a file at one sitting and a function without scrolling."""
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX
    long = {f.name: n for f in functions(path) if (n := (f.end_lineno or 0) - f.lineno + 1) > FUNCTION_LINES_MAX}
    assert not long


@pytest.mark.parametrize("pattern", ALONE)
def test_what_is_dangerous_stands_in_one_place(pattern: str) -> None:
    """Signals, starts of processes, tasks and sleeps stand in the files that are for them, and nowhere else."""
    found = {name(path) for path in OURS if re.search(pattern, path.read_text())}
    assert found <= ALONE[pattern]
    assert found, "the rule finds nothing any more: drop it"


@pytest.mark.parametrize("path", [path for path in PYTHON if path.name.startswith("test_")], ids=name)
def test_every_test_says_which_promise_it_keeps(path: Path) -> None:
    """A person reads a test's one sentence and knows what it is for."""
    silent = [f.name for f in functions(path) if f.name.startswith("test_") and not ast.get_docstring(f)]
    assert not silent


def test_scripts_and_keys_agree_on_their_order() -> None:
    """Each script gets all keys of a job in the order of `keys.JOB_KEYS`."""
    prelude = (ROOT / "coord/lua/prelude.lua").read_text()
    named = re.search(r"^local ([A-Z, ]+) = unpack\(KEYS\)", prelude, re.MULTILINE)
    assert named
    assert tuple(named[1].lower().split(", ")) == JOB_KEYS


def test_nothing_names_a_registry_or_a_machine() -> None:
    """What is pinned is pinned by version and hash alone, and no path of a developer's machine stands anywhere."""
    for path in tracked("ci.txt", ".toml", "Dockerfile", ".yaml", ".cfg"):
        assert not re.search(r"https?://[^\s\"]*(simple|packages/|registry|\.whl)|index-url", path.read_text()), path
    for path in tracked(".py", ".md", ".lua", ".toml", ".yaml", "Makefile", "Procfile"):
        assert not re.search(r"(^|[\s\"'=(])/(root|work|home)/", path.read_text()), path


def test_the_architecture_stays_short() -> None:
    """ARCHITECTURE.md is read in one go."""
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= ARCHITECTURE_LINES_MAX


def test_every_log_event_is_documented() -> None:
    """Event names are a contract: what the code logs or records is in README.md, and what README.md lists exists."""
    code = "\n".join(path.read_text() for path in [*OURS, *(ROOT / "coord/lua").glob("*.lua")])
    used = set(re.findall(r"""(?:log\.\w+|event)\(\s*["']([a-z]+\.[a-z]+)["']""", code))
    used |= {f"child.{outcome}" for outcome in ("exited", "terminated", "killed", "survived")}
    used |= {f"agent.{state}" for state in ("running", "stopping", "killing", "stopped")}
    documented = set(re.findall(r"^\| `([a-z]+\.[a-z]+)`", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert used == documented
