"""Break the code on purpose, one line at a time, and require that a named test notices.

Each line of `tests/mutations.d/*.txt` is `path ::: old text ::: new text ::: test id`; the old text must occur exactly
once in its file. Every named test must pass on the code as it is and fail (not crash at collection) on the mutant.
Works in temporary copies of the tree. Run with the interpreter that has the development dependencies.
"""

# ruff: noqa: T201
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2
LIMIT_S = 300
TAIL_LINES = 40
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis", "out", "runs", "dist", "build"
)


@dataclass(frozen=True)
class Mutation:
    """One line to break and the test that must notice."""

    path: str
    old: str
    new: str
    test: str


@dataclass(frozen=True)
class Run:
    """What one run of pytest came to."""

    code: int
    """Its exit status; -1 if it took too long."""
    seconds: float
    tail: str
    """The last lines it printed."""


def main() -> int:
    """Run all mutations, or those whose line contains an argument; 1 if one survived."""
    wanted = sys.argv[1:]
    mutations = [m for m in read_all() if not wanted or any(word in f"{m}" for word in wanted)]
    if not mutations:
        print("error: no mutation is listed", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="mutations-") as scratch:
        trees: SimpleQueue[Path] = SimpleQueue()
        for i in range(WORKERS):
            trees.put(Path(shutil.copytree(ROOT, Path(scratch) / f"tree{i}", ignore=LEFT_OUT)))
        with ThreadPoolExecutor(WORKERS) as pool:
            names = sorted({m.test for m in mutations})
            whole = run(trees, names)
            if whole.code != 0:  # name the culprits; those that pass alone are good enough for a verdict
                print(f"the named tests fail together (exit {whole.code}):\n{whole.tail}", flush=True)
                alone = list(pool.map(lambda name: run(trees, [name]), names))
                for name, own in zip(names, alone, strict=True):
                    if own.code != 0:
                        print(f"error: {name} fails on the code as it is (exit {own.code}):\n{own.tail}", flush=True)
                if any(own.code != 0 for own in alone):
                    return 1
            results = list(pool.map(lambda mutation: verdict(trees, mutation), mutations))
    survived = sum(text != "caught" for text, _ in results)
    for mutation, (text, seconds) in zip(mutations, results, strict=True):
        print(f"{text:<22} {seconds:5.1f} s  {mutation.path}: {mutation.old}  ->  {mutation.new}  [{mutation.test}]")
    print(f"{len(mutations) - survived} of {len(mutations)} mutations caught")
    return int(survived > 0)


def read_all() -> list[Mutation]:
    """Every listed mutation, its old text checked to occur once."""
    mutations = []
    for file in sorted((ROOT / "tests/mutations.d").glob("*.txt")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip() or line.startswith("#"):
                continue
            parts = [part.strip() for part in line.split(":::")]
            if len(parts) != 4:
                sys.exit(f"error: {file}, line {number}: write path ::: old ::: new ::: test")
            mutation = Mutation(*parts)
            count = (ROOT / mutation.path).read_text(encoding="utf-8").count(mutation.old)
            if count != 1:
                sys.exit(f"error: {file}, line {number}: the old text occurs {count} times in {mutation.path}")
            mutations.append(mutation)
    return mutations


def verdict(trees: "SimpleQueue[Path]", mutation: Mutation) -> tuple[str, float]:
    """What became of one mutation, and how long it took in seconds."""
    done = run(trees, [mutation.test], mutation)
    return {0: "SURVIVED", 1: "caught"}.get(done.code, f"NO VERDICT (exit {done.code})"), done.seconds


def run(trees: "SimpleQueue[Path]", tests: list[str], mutation: Mutation | None = None) -> Run:
    """Run pytest on `tests` in a tree of its own, mutated for that long."""
    tree = trees.get()
    target = tree / mutation.path if mutation else None
    before = target.read_text(encoding="utf-8") if target else ""
    began = time.monotonic()
    try:
        if target and mutation:
            target.write_text(before.replace(mutation.old, mutation.new), encoding="utf-8")
        environment = os.environ | {
            "PYTHONPATH": str(tree / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",  # a mutant of the same size and second would run the other's bytecode
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "pytest", "-x", "-p", "no:randomly", *tests]
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=LIMIT_S, check=False)
        text = (done.stdout + done.stderr).decode(errors="replace")
        return Run(done.returncode, time.monotonic() - began, "\n".join(text.splitlines()[-TAIL_LINES:]))
    except subprocess.TimeoutExpired:
        return Run(-1, time.monotonic() - began, f"not done after {LIMIT_S} s")
    finally:
        if target:
            target.write_text(before, encoding="utf-8")
        trees.put(tree)


if __name__ == "__main__":
    sys.exit(main())
