"""Programs that can't be started: 126 and 127 as in a shell, one line, and a job that nobody waits for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from coord.errors import NOT_EXECUTABLE, NOT_FOUND
from tests.cli.words import complaint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness import Ended, Lab


def run(lab: Lab, job: str, *command: str, **environment: str) -> Ended:
    return lab.call("run", "--job-id", job, "--log-level", "error", "--", *command, **environment)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """An executable file, with nothing in it yet."""
    path = tmp_path / "program"
    path.touch(0o755)
    return path


@pytest.mark.parametrize(
    "name",
    ["no-such-program", "./no-such-program", "/no/such/program", "", " ", "x" * 300, "/" + "x" * 5000, "/etc/passwd/x"],
    ids=lambda name: repr(name)[:20],
)
def test_missing_program(lab: Lab, job: str, name: str) -> None:
    """A program that is not there is 127, before Redis is asked, so nobody has to wait for it."""
    line = complaint(run(lab, job, name, COORD_REDIS_URL="unix:///nowhere"), NOT_FOUND)
    assert "not found" in line


def test_program_that_may_not_be_run(lab: Lab, job: str, tmp_path: Path) -> None:
    """A file that is not executable is 126, and the line says what to do."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    line = complaint(run(lab, job, str(program), COORD_REDIS_URL="unix:///nowhere"), NOT_EXECUTABLE)
    assert "not executable" in line
    assert f"chmod +x {program}" in line


def test_program_on_the_path_that_may_not_be_run(lab: Lab, job: str, tmp_path: Path) -> None:
    """A file on PATH that is not executable is 126 too: it is there, and that is what the person must know."""
    (tmp_path / "program").write_text("#!/bin/sh\n")
    assert "not executable" in complaint(run(lab, job, "program", PATH=str(tmp_path)), NOT_EXECUTABLE)


@pytest.mark.parametrize("name", ["/", ".", "/tmp/"])  # noqa: S108  # only its being a directory counts
def test_directory(lab: Lab, job: str, name: str) -> None:
    """A directory is no program: 126, and nobody is told to change its mode."""
    line = complaint(run(lab, job, name), NOT_EXECUTABLE)
    assert "chmod" not in line


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("#!/no/such/interpreter\n", NOT_FOUND),
        ("#!/usr/bin/env no-such-interpreter\n", NOT_FOUND),
        ("true\n", NOT_EXECUTABLE),
        ("", NOT_EXECUTABLE),
        ("\x7fELF junk", NOT_EXECUTABLE),
        ("#!\n", NOT_EXECUTABLE),
    ],
)
def test_program_that_the_kernel_refuses(lab: Lab, job: str, program: Path, *, text: str, code: int) -> None:
    """A file that the kernel can't run, or whose interpreter is not there, ends as in a shell, in one line of ours."""
    program.write_text(text)
    ended = run(lab, job, str(program))
    assert ended.code == code, ended.err
    said = [line for line in ended.err.splitlines() if line.startswith("coord: ")]
    assert len(said) == 1
    assert "Traceback" not in ended.err
    assert "defect" not in ended.err


def test_program_that_could_not_be_started_is_not_waited_for(lab: Lab, job: str, program: Path) -> None:
    """A job whose only command could not be started runs nowhere: no host is waited for, and none is called lost."""
    program.write_text("#!/no/such/interpreter\n")
    run(lab, job, str(program))
    document = lab.status(job)
    assert document["state"] == "stopped"
    assert [agent["state"] for agent in document["agents"]] in ([], ["stopped"])
    ended = lab.call("shutdown", "--job-id", job, "--timeout", "5s", "--json")
    assert (ended.code, ended.json["verdict"]) == (0, "clean")


def test_arguments_may_be_any_bytes(lab: Lab, job: str) -> None:
    """File names are bytes: a command whose arguments are no UTF-8 runs, gets them as they are, and is on record."""
    odd = os.fsdecode(b"\xff\xfe.txt")
    ended = run(lab, job, "printf", "%s", odd)
    assert (ended.code, ended.err) == (0, "")
    assert lab.status(job)["agents"][0]["state"] == "stopped"


def test_empty_arguments_are_kept(lab: Lab, job: str) -> None:
    """What stands after `--` is passed on word by word: empty ones, options of our own name, and another `--`."""
    ended = run(lab, job, "printf", "[%s]", "", "--help", "--", "--job-id", "*", "a b")
    assert (ended.code, ended.out) == (0, "[][--help][--][--job-id][*][a b]")


@pytest.mark.parametrize("code", [1, 3, 7, 126, 127, 255])
def test_own_exit_code_is_passed_on(lab: Lab, job: str, code: int) -> None:
    """A command that ran and failed ends `coord run` with its own code, whatever that means to us."""
    ended = run(lab, job, "sh", "-c", f"exit {code}")
    assert ended.code == code
    assert len(ended.said) == 1
