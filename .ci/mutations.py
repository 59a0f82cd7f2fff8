"""Break the code on purpose, one line at a time, and require that a named test notices.

Each line of `tests/mutations.d/*.txt` is `path ::: old text ::: new text ::: test id`; the old text must occur exactly
once in its file. Every named test must pass on the code as it is and fail (not crash at collection) on the mutant.
Works in temporary copies of the tree. Run with the interpreter that has the development dependencies.

Every run of pytest is a fork of this process, which has imported the heavy libraries and nothing of sfumato, so that
importing them is paid once.
"""

# ruff: noqa: T201
import contextlib
import gc
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2
LIMIT_S = 300
TAIL_LINES = 40
OUTPUT = "pytest-output.txt"
FIRST = ("numpy", "scipy.signal", "scipy.optimize", "torch", "pydantic", "yaml", "typer", "rich", "soundfile", "pytest")
FIRST += ("safetensors.torch", "hypothesis", "torch.fx.experimental.symbolic_shapes", "matplotlib.pyplot")
"""Imported once, before any fork."""
FLAGS = ("-x", "-p", "no:randomly", "-p", "no:anyio", "-p", "no:cacheprovider")
FLAGS += ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")
"""A plugin of pytest that is imported first can't have its assertions rewritten: nothing here needs that."""
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
class Job:
    """Tests to run, and what to break first."""

    tests: tuple[str, ...]
    mutation: Mutation | None = None


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
    for name in FIRST:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # no fork goes through what is imported once more, each time it collects
    with tempfile.TemporaryDirectory(prefix="mutations-") as scratch:
        trees = [Path(scratch) / f"tree{i}" for i in range(WORKERS)]
        for tree in trees:
            shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        names = sorted({m.test for m in mutations})
        share = -(-len(names) // WORKERS)
        together = list(run(trees, [Job(tuple(names[i : i + share])) for i in range(0, len(names), share)]))
        if any(done.code != 0 for done in together):  # name the culprits; those that pass alone will do for a verdict
            for done in together:
                print(f"the named tests, run together: exit {done.code}\n{done.tail}", flush=True)
            alone = list(run(trees, [Job((name,)) for name in names]))
            for name, own in zip(names, alone, strict=True):
                if own.code != 0:
                    print(f"error: {name} fails on the code as it is (exit {own.code}):\n{own.tail}", flush=True)
            if any(own.code != 0 for own in alone):
                return 1
        survivors = []
        for mutation, done in zip(mutations, run(trees, [Job((m.test,), m) for m in mutations]), strict=True):
            text = {0: "SURVIVED", 1: "caught"}.get(done.code, f"NO VERDICT (exit {done.code})")
            change = f"{mutation.path}: {mutation.old}  ->  {mutation.new}  [{mutation.test}]"
            verdict = f"{text:<22} {done.seconds:5.1f} s  {change}"
            print(verdict, flush=True)
            if text != "caught":
                survivors.append(f"{verdict}\n{done.tail}")
    print(*survivors, f"{len(mutations) - len(survivors)} of {len(mutations)} mutations caught", sep="\n")
    return int(len(survivors) > 0)


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


def run(trees: Sequence[Path], jobs: Sequence[Job]) -> Iterator[Run]:
    """Run pytest on each job, as many at a time as there are trees; results in the jobs' order, as they come."""
    free, waiting, results = list(trees), list(enumerate(jobs)), dict[int, Run]()
    running: dict[int, tuple[int, Path, float]] = {}
    """Process -> number of its job, its tree, when it began."""
    following = 0
    try:
        while following < len(jobs):
            while free and waiting:
                number, job = waiting.pop(0)
                tree = free.pop()
                if job.mutation:
                    target = tree / job.mutation.path
                    mutant = target.read_text(encoding="utf-8").replace(job.mutation.old, job.mutation.new)
                    target.write_text(mutant, encoding="utf-8")
                running[start(tree, job)] = number, tree, time.monotonic()
            for child, (number, tree, began) in list(running.items()):
                took = time.monotonic() - began
                ended, status = os.waitpid(child, os.WNOHANG)
                late = not ended and took > (LIMIT_S if jobs[number].mutation else LIMIT_S * WORKERS)
                if not ended and not late:
                    continue
                stop(child)
                if late:
                    os.waitpid(child, 0)
                del running[child]
                free.append(tree)
                mutation = jobs[number].mutation
                if mutation:
                    shutil.copy(ROOT / mutation.path, tree / mutation.path)
                text = (tree / OUTPUT).read_text(encoding="utf-8", errors="replace")
                tail = "\n".join(text.splitlines()[-TAIL_LINES:])
                results[number] = Run(-1 if late else os.waitstatus_to_exitcode(status), took, tail)
            while following in results:
                yield results[following]
                following += 1
            time.sleep(0.02)
    finally:
        for child in running:
            stop(child)


def start(tree: Path, job: Job) -> int:
    """Fork a process that runs a job in a tree; returns its number."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = -1
    try:
        os.setpgid(0, 0)
        os.chdir(tree)
        output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.path[:0] = [str(tree / "src"), str(tree)]
        sys.dont_write_bytecode = True  # a mutant of the same size and second would run the other's bytecode
        os.environ |= {"PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        code = int(sys.modules["pytest"].main([*FLAGS, *job.tests]))
    finally:
        if sys.exc_info()[0]:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)


def stop(child: int) -> None:
    """End a process and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
