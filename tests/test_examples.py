"""Every Python example that a reader finds is run: what is fenced as ```python in a document or in a docstring.

Each is a program of its own, in a scratch folder, with a server of its own; it has to end with 0. What it says that it
prints (`# -> clean 0` behind the line), it has to print. An example that can't stand alone has an HTML comment in front
of its fence, `<!-- example: WORDS`, then perhaps lines of Python to put before it, then `-->`. WORDS:

    job NAME runs      a `coord run --job-id NAME` runs meanwhile
    run by coord       it is the command of a `coord run`
    needs              it needs the lines that follow, and nothing else
    not run: WHY       it shows what not to do
"""

from __future__ import annotations

import ast
import inspect
import re
import signal
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness import COORD, private_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness import Ended, Lab

ROOT = Path(__file__).parent.parent
WORDS = re.compile(r"(?:job (?P<runs>\S+) runs|(?P<child>run by coord)|needs|not run: (?P<not_run>\S.*))")
PRINTS = re.compile(r"# -> (.*)$", re.MULTILINE)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Example:
    """One fenced block: where it stands, what it needs, and the program."""

    where: str
    words: str
    code: str

    def run(self, lab: Lab, job: str, folder: Path) -> Ended:
        """Run it to its end."""
        how = WORDS.fullmatch(self.words)
        beside = lab.run(how["runs"], "sleep", "600") if how and how["runs"] else None
        (folder / "example.py").write_text(self.code)
        under = (COORD, "run", "--job-id", job, "--") if how and how["child"] else ()
        # -C: in its folder; Lab starts everything where the tests run
        ended = lab.call("-C", str(folder), *under, sys.executable, "example.py", program="env")
        if beside and beside.running:
            beside.signal(signal.SIGTERM)
        if beside:
            beside.end()
        return ended

    def check(self, lab: Lab, job: str, folder: Path) -> None:
        """Run it, and compare with what it says."""
        ended = self.run(lab, job, folder)
        assert ended.code == 0, f"{self.where} ended with {ended.code}:\n{ended.err}"
        said = iter(ended.out.splitlines())
        missing = [line for line in PRINTS.findall(self.code) if line not in said]
        assert not missing, f"{self.where} does not print, in this order: {missing}, but\n{ended.out}"


def examples_in(text: str, where: str) -> Iterator[Example]:
    """Give the fenced Python blocks of a text, each with the comment in front of it; raises ValueError."""
    words, before = "", ""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if line.strip().startswith("<!-- example: "):
            words, _, before = _until("-->", line, lines).partition("\n")
            words = words.strip().removeprefix("<!-- example: ").strip()
            if not WORDS.fullmatch(words):
                raise ValueError(f"{where}:{number}: {words!r} is not what an example can need")
        elif line.strip() == "```python":
            code = _until("```", "", lines)
            parts = (textwrap.dedent(part).strip("\n") for part in (before, code) if part.strip())
            yield Example(f"{where}:{number}", words, "\n".join(parts))
            words, before = "", ""
        elif line.strip():
            words, before = "", ""


def _until(end: str, first: str, lines: Iterator[tuple[int, str]]) -> str:
    """Give the lines from the first up to the one that ends with `end`, which is cut off."""
    text = first
    while not text.rstrip().endswith(end):
        text += "\n" + next(lines)[1]
    return text.rstrip().removesuffix(end).lstrip("\n")


def all_examples() -> Iterator[Example]:
    """Give the examples of all documents and docstrings."""
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("compose/**/*.md")]):
        yield from examples_in(path.read_text(), str(path.relative_to(ROOT)))
    for path in sorted([*ROOT.glob("coord/**/*.py"), *ROOT.glob("workers/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, DOCUMENTED):
                name = getattr(node, "name", "")
                told = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
                yield from examples_in(told, f"{path.relative_to(ROOT)}{':' * bool(name)}{name}")


EXAMPLES = list(all_examples())
RUN = [example for example in EXAMPLES if not example.words.startswith("not run")]


@pytest.fixture
def server() -> Iterator[str]:
    """A server of one example alone: each may call its job as it likes."""
    with private_server() as url:
        yield url


@pytest.mark.parametrize("example", RUN, ids=lambda example: example.where)
def test_example(example: Example, lab: Lab, job: str, tmp_path: Path) -> None:
    """What a document shows works as it stands there."""
    example.check(lab, job, tmp_path)


def test_examples_are_found() -> None:
    """The README's examples and those in docstrings are among those that are run."""
    places = {example.where.partition(":")[0] for example in RUN}
    assert {"README.md", "coord/coordinator.py"} <= places


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("", "raise SystemExit(3)", "ended with 3"),
        ("", "import no_such_module", "No module named"),
        ("", "print('clean 1')  # -> clean 0", "does not print"),
        ("", "print(2)  # -> 2\nprint(1)\n# -> 1\n# -> 1", "does not print"),
        ("run by coord", "import os; raise SystemExit(5 * ('COORD_JOB_ID' in os.environ))", "ended with 5"),
        ("job j1 runs", "from coord import Coordinator; exit(Coordinator().status('j1').state)", "running"),
    ],
)
def test_control_an_example_that_is_wrong_fails(
    lab: Lab, job: str, tmp_path: Path, words: str, code: str, says: str
) -> None:
    """Negative control: an example that fails, or prints something else than it says, is found."""
    with pytest.raises(AssertionError, match=says):
        Example("here", words, code).check(lab, job, tmp_path)


def test_what_is_an_example() -> None:
    """Fences of other languages are left alone; the comment right before a fence is its own, and no other fence's."""
    text = """
        <!-- example: needs
        a = 1
        -->

        ```python
        print(a)
        ```
        ```python
        if True:
            pass
        ```
        <!-- example: job j1 runs -->
        Words in between.
        ```python
        ```
        <!-- example: not run: it is wrong -->
        ```python
        fork()
        ```
        <!-- another comment -->
        ```console
        $ print(a)
        ```
    """
    found = [(example.where, example.words, example.code) for example in examples_in(inspect.cleandoc(text), "x")]
    assert found == [
        ("x:5", "needs", "a = 1\nprint(a)"),
        ("x:8", "", "if True:\n    pass"),
        ("x:14", "", ""),
        ("x:17", "not run: it is wrong", "fork()"),
    ]


@pytest.mark.parametrize("words", ["", "a job", "job runs", "not run", "not run: ", "run by cord"])
def test_unknown_words_are_refused(words: str) -> None:
    """A comment that nobody understands is an error, and not an example that silently runs without its setup."""
    with pytest.raises(ValueError, match="x:1"):
        list(examples_in(f"<!-- example: {words} -->\n```python\n```", "x"))
