"""One rank of a batch pipeline: indexes its share of a tree of Python files, with a pool of worker processes.

    python rank.py --rank 0 --ranks 6 --out DIR

For each file: which identifier stands on which lines, and a MinHash signature (Broder 1997) of every function, so that
functions that look alike are found without comparing the text of all with all. Writes DIR/index-RANK.json when
everything is done, or nothing: a file that can't be parsed fails the rank, since an index with holes would mislead.

It knows nothing of what runs it: its function `index_share` is an RQ job as it stands. `--poison` and `--stubborn` make
it the two guests that every operator meets.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import signal
import sysconfig
import zlib
from array import array
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

STDLIB = Path(sysconfig.get_paths()["stdlib"])
SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages"}  # tests hold broken files on purpose
SHINGLE = 4  # syntax nodes in a row
SHINGLES_MIN = 40  # shorter functions look alike by nature
PRIME = 2**31 - 1
BAND = 16  # hashes that must agree before two functions are compared
ALIKE = 0.9
POISON_AFTER = 16  # it comes after this part of the share: all ranks are at work then, and none is near its end
PROGRESS = 5  # lines per run


@dataclass(frozen=True)
class FileIndex:
    """One file. `names`: identifier -> lines. `functions`: `path:line name` -> MinHash signature."""

    path: str
    names: dict[str, list[int]] = field(default_factory=dict)
    functions: dict[str, array[int]] = field(default_factory=dict)


def main() -> None:
    """Do what the command line says."""
    options = parse_options()
    if options.stubborn:
        ignore_sigterm()
    index_share(**vars(options))


def index_share(
    rank: int,
    ranks: int,
    out: Path,
    *,
    source: Path = STDLIB,
    workers: int = 2,
    hashes: int = 256,
    poison: Path | None = None,
    stubborn: bool = False,
) -> int:
    """Index one share with a pool of `workers` processes, then write; gives the number of files."""
    files = share(source, rank, ranks)
    if poison:
        files.insert(len(files) // POISON_AFTER, poison)
    done: list[FileIndex] = []
    work = partial(index_file, source=source, hashes=hash_functions(hashes))
    with pool_of(workers, stubborn=stubborn) as pool:
        for each in pool.map(work, files):
            done.append(each)
            if len(done) % max(1, len(files) // PROGRESS) == 0:
                print(f"rank {rank}: {len(done)} of {len(files)} files", flush=True)
    write(out / f"index-{rank}.json", rank, done)
    return len(done)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="One rank of a pipeline that indexes Python files.")
    parser.add_argument("--rank", type=int, required=True, help="which share, from 0")
    parser.add_argument("--ranks", type=int, required=True, help="how many shares there are")
    parser.add_argument("--out", type=Path, required=True, help="directory for index-RANK.json")
    parser.add_argument("--source", type=Path, default=STDLIB, help="what to index")
    parser.add_argument("--workers", type=int, default=2, help="processes in the pool")
    parser.add_argument("--hashes", type=int, default=256, help="per signature: 256 are right to 6 %%, 1024 to 3 %%")
    guest = parser.add_mutually_exclusive_group()
    guest.add_argument("--stubborn", action="store_true", help="ignore SIGTERM, in the pool's processes too")
    guest.add_argument("--poison", type=Path, help="one more input file, a broken one")
    options = parser.parse_args()
    if not 0 <= options.rank < options.ranks:
        parser.error(f"--rank must be 0 to {options.ranks - 1}")
    return options


@contextmanager
def pool_of(workers: int, *, stubborn: bool) -> Iterator[ProcessPoolExecutor]:
    """Give a pool that who is stopped, or fails, does not wait for: a pool itself finishes first what it was given."""
    pool = ProcessPoolExecutor(workers, initializer=ignore_sigterm if stubborn else None)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def ignore_sigterm() -> None:
    """Be the one that does not leave when asked."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def share(source: Path, rank: int, ranks: int) -> list[Path]:
    """Every rank sees the same sorted list, so the shares fit together without a word between ranks."""
    files = sorted(path for path in source.rglob("*.py") if not SKIPPED & set(path.relative_to(source).parts))
    return files[rank::ranks]


def hash_functions(count: int) -> list[tuple[int, int]]:
    """Make factors and terms of `count` hash functions; seeded, so that the signatures of all ranks can be compared."""
    source = random.Random(0)  # noqa: S311  # nothing here is secret
    return [(source.randrange(1, PRIME), source.randrange(PRIME)) for _ in range(count)]


def index_file(path: Path, source: Path, hashes: list[tuple[int, int]]) -> FileIndex:
    """Parse one file and take down what is in it. Raises SyntaxError when it is no Python."""
    name = str(path.relative_to(source)) if path.is_relative_to(source) else str(path)
    tree = ast.parse(path.read_bytes(), filename=str(path))
    names: defaultdict[str, set[int]] = defaultdict(set)
    functions: dict[str, array[int]] = {}
    for node in ast.walk(tree):
        if identifier := identifier_of(node):
            names[identifier].add(getattr(node, "lineno", 0))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            shingles = shingles_of(node)
            if len(shingles) >= SHINGLES_MIN:
                functions[f"{name}:{node.lineno} {node.name}"] = signature(shingles, hashes)
    return FileIndex(name, {each: sorted(lines) for each, lines in names.items()}, functions)


def identifier_of(node: ast.AST) -> str | None:
    """Give the name that a node defines or uses."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.alias(name=name):
            return name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
    return None


def shingles_of(function: ast.AST) -> set[int]:
    """Give every run of SHINGLE node types: what a function looks like when names and values are left out."""
    kinds = [type(node).__name__ for node in ast.walk(function)]
    runs = (" ".join(kinds[start : start + SHINGLE]) for start in range(len(kinds) - SHINGLE + 1))
    return {zlib.crc32(run.encode()) for run in runs}


def signature(shingles: set[int], hashes: list[tuple[int, int]]) -> array[int]:
    """Give the smallest value of each hash function: two signatures agree in as many places as their sets do."""
    return array("I", [min([(factor * each + term) % PRIME for each in shingles]) for factor, term in hashes])


def alike(functions: dict[str, array[int]]) -> list[tuple[str, str, float]]:
    """Give pairs of functions with the same look, and how alike. Only those that agree in a whole band are compared."""
    bands: defaultdict[tuple[int, bytes], list[str]] = defaultdict(list)
    for function, values in functions.items():
        for start in range(0, len(values), BAND):
            bands[start, values[start : start + BAND].tobytes()].append(function)
    candidates = {pair for band in bands.values() for pair in combinations(sorted(band), 2)}
    pairs = []
    for one, other in sorted(candidates):
        agreeing = sum(a == b for a, b in zip(functions[one], functions[other], strict=True))
        if agreeing >= ALIKE * len(functions[one]):
            pairs.append((one, other, round(agreeing / len(functions[one]), 3)))
    return pairs


def write(path: Path, rank: int, done: list[FileIndex]) -> None:
    """Merge the files and write the index under its name only when it is whole."""
    names: defaultdict[str, dict[str, list[int]]] = defaultdict(dict)
    functions: dict[str, array[int]] = {}
    for each in sorted(done, key=lambda each: each.path):
        functions |= each.functions
        for name, lines in each.names.items():
            names[name][each.path] = lines
    index = {"rank": rank, "files": len(done), "names": names, "alike": alike(functions)}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".tmp")
    part.write_text(json.dumps(index, sort_keys=True))
    part.replace(path)
    print(f"rank {rank}: {path.name}: {len(names)} names in {len(done)} files", flush=True)


if __name__ == "__main__":
    main()
