"""How fast sfumato repairs and how much memory it takes.

    python benchmarks/speed.py                          # repair, help, hour
    python benchmarks/speed.py repair help
    python benchmarks/speed.py cqtdiff CHECKOUT         # may follow others, as the last

Every command runs as its own process and is measured by what the kernel says of it when it ends (`wait4`): wall time
from start to end, user CPU time of the process and its decoder, and the peak resident memory of the larger of the two.

`cqtdiff` times one network evaluation of CQT-Diff+ (Moliner & Välimäki 2024, arXiv 2305.15266) at its published size
with random weights. It runs the authors' code where it lies and copies none of it:

    git clone https://github.com/eloimoliner/audio-inpainting-diffusion CHECKOUT
    pip install --no-deps --target LIBRARIES cqt-nsgt-pytorch==0.0.10
    PYTHONPATH=LIBRARIES python benchmarks/speed.py cqtdiff CHECKOUT
"""

# Nothing heavy is imported up here: a child's peak memory as the kernel counts it starts at its parent's.
import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

EXAMPLE = Path(__file__).parent.parent / "examples" / "only_300_stood.flac"
"""Real stereo music at 44.1 kHz, 12 s."""

GAP_S = 0.3
REPEATS = 3

CQTDIFF_NETWORK = "conf/network/paper_1912_unet_cqt_oct_attention_adaLN_2.yaml"
CQTDIFF_EXPERIMENT = "conf/exp/maestro22k_8s.yaml"
CQTDIFF_EVALUATIONS = 69
"""35 steps of Heun's method, as published."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    wall_s: float
    user_s: float | None = None
    peak_mb: float | None = None
    target: str = ""
    note: str = ""


@dataclass(frozen=True)
class Run:
    """What one process cost."""

    wall_s: float
    user_s: float
    peak_mb: float
    output: str


def run(*command: str) -> Run:
    """Run `python -m sfumato` or another module in its own process; fail if it fails."""
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        child = subprocess.Popen([sys.executable, *command], stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        wall_s = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read()
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {child.returncode}: {said}")
    return Run(wall_s, usage.ru_utime, usage.ru_maxrss / 1024, said)


def sfumato(*arguments: str) -> Run:
    """Run the command line."""
    return run("-c", "from sfumato.cli import main; main()", *arguments)


def repair() -> Iterator[Row]:
    """One 300 ms gap of a stereo file, four draws, default settings: the best of three and the slowest."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            sfumato("repair", str(EXAMPLE), f"{folder}/out.flac", "--gap", f"6.0:{6.0 + GAP_S}", "--draws", "4")
            for _ in range(REPEATS)
        ]
        timings = json.loads(Path(folder, "out.flac.json").read_text())["timings_s"]
    best, slowest = min(runs, key=lambda r: r.wall_s), max(r.wall_s for r in runs)
    note = f"slowest of {REPEATS}: {slowest:.1f} s; last: " + ", ".join(f"{k} {v:.2f} s" for k, v in timings.items())
    peak_mb = max(r.peak_mb for r in runs)
    yield Row("repair, 300 ms gap, stereo, 4 draws", best.wall_s, best.user_s, peak_mb, "≤ 5 s, ≤ 1500 MB", note)


def show_help() -> Iterator[Row]:
    """`sfumato --help`, and whether it imports torch."""
    runs = [sfumato("--help") for _ in range(2 * REPEATS)]
    best = min(runs, key=lambda r: r.wall_s)
    trace = run("-X", "importtime", "-c", "from sfumato.cli import main; main()", "--help").output
    names = {line.split("|")[-1].strip() for line in trace.splitlines() if line.startswith("import time:")}
    note = "torch is imported" if "torch" in names else "torch is not imported"
    yield Row("sfumato --help", best.wall_s, best.user_s, best.peak_mb, "≤ 0.3 s", note)


def hour() -> Iterator[Row]:
    """Ten gaps in ten minutes and in one hour of stereo FLAC, and finding damage in the ten minutes."""
    with tempfile.TemporaryDirectory() as folder:
        measured = {}
        for minutes in (10, 60):
            source = Path(folder, f"{minutes}.flac")
            tile(source, 60 * minutes)
            gaps = [f"--gap={start}:{start + GAP_S}" for start in range(3 * minutes, 60 * minutes, 6 * minutes)]
            measured[minutes] = sfumato("repair", str(source), f"{folder}/out.flac", *gaps)
            Path(folder, "out.flac").unlink()
            if minutes == 10:
                found = sfumato("repair", str(source), f"{folder}/out.flac", "--gaps", "auto", "--method", "janssen")
                timings = json.loads(Path(folder, "out.flac.json").read_text())["timings_s"]
            source.unlink()
    short, long = measured[10], measured[60]
    yield Row("10 minutes of stereo FLAC, 10 gaps", short.wall_s, short.user_s, short.peak_mb)
    ratio = f"memory × {long.peak_mb / short.peak_mb:.2f}"
    yield Row("1 hour of stereo FLAC, 10 gaps", long.wall_s, long.user_s, long.peak_mb, "memory × ≤ 1.2", ratio)
    note = f"undamaged; finding {timings['find']:.1f} s"
    yield Row("10 minutes, --gaps auto --method janssen", found.wall_s, found.user_s, found.peak_mb, "", note)


def tile(path: Path, seconds: int) -> None:
    """Write a FLAC file that repeats the example."""
    import soundfile

    audio, rate = soundfile.read(EXAMPLE, dtype="int16")
    left = seconds * rate
    with soundfile.SoundFile(path, "w", rate, audio.shape[1], "PCM_16", format="FLAC") as file:
        while left:
            file.write(audio[:left])
            left -= len(audio[:left])


def cqtdiff(checkout: Path) -> Iterator[Row]:
    """One network evaluation of CQT-Diff+ beside ours, and a whole fill of ours, in one process."""
    import torch

    from sfumato.audio import open_recording
    from sfumato.model import load
    from sfumato.signal.gap_levels import N_FRAMES
    from sfumato.tasks.repair import Settings
    from sfumato.tasks.repair import repair as fill

    torch.manual_seed(0)
    theirs, n_samples = cqtdiff_network(checkout)
    ours = load("conffusion").network
    with open_recording(EXAMPLE) as recording:
        audio, rate = recording.read(0, recording.info.n_samples), recording.info.sample_rate
    bands, sigma = 64, torch.ones(1, 1)
    noisy, condition = torch.randn(1, 1, bands, N_FRAMES), torch.randn(1, 7, bands, N_FRAMES)
    long = torch.randn(1, n_samples)
    with torch.no_grad():
        fills = best(lambda: fill(audio, [(6.0, 6.0 + GAP_S)], sample_rate=rate, settings=Settings(draws=4)))
        one = best(lambda: ours(noisy, sigma[:, 0], condition))
        other = best(lambda: theirs(long, sigma))
    yield Row("our network, one evaluation", *one, note=millions(ours))
    note = f"in a running process, model loaded each time; {fills[0] / other[0]:.2f} × one evaluation of CQT-Diff+"
    yield Row("our whole fill, 300 ms, stereo, 4 draws", *fills, note=note)
    note = (
        f"{millions(theirs)}; {n_samples} samples; {other[0] / one[0]:.0f} × ours in wall time, "
        f"{other[1] / one[1]:.0f} × in user time; a fill takes {CQTDIFF_EVALUATIONS} of them, each with a backward pass"
    )
    yield Row("CQT-Diff+ network, one evaluation", *other, note=note)


def best(function: Callable[[], Any]) -> tuple[float, float]:
    """Least wall time and least user CPU time in seconds, of three calls after one that doesn't count."""
    function()
    spent = []
    for _ in range(REPEATS):
        began, user = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
        function()
        spent.append((time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_utime - user))
    return min(wall for wall, _ in spent), min(user for _, user in spent)


def millions(network: Any) -> str:
    """Size of a network."""
    return f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters"


def cqtdiff_network(checkout: Path) -> tuple[Any, int]:
    """CQT-Diff+ in its 22 kHz configuration, random weights, and the samples it works on."""
    import numpy as np
    import yaml

    try:
        import cqt_nsgt_pytorch  # noqa: F401
    except ImportError:
        raise SystemExit("cqtdiff needs cqt-nsgt-pytorch 0.0.10: see the head of this file.") from None
    if not (checkout / CQTDIFF_NETWORK).is_file():
        raise SystemExit(f"{checkout} is no checkout of audio-inpainting-diffusion: it has no {CQTDIFF_NETWORK}.")
    # The package clips an integer array in place with a float bound, which newer NumPy refuses.
    clip = SimpleNamespace(clip=lambda a, low, high, out: np.clip(a, low, high, out=out, casting="unsafe"))
    sys.modules["cqt_nsgt_pytorch.nsgfwin"].np = SimpleNamespace(**vars(np) | vars(clip))  # type: ignore[attr-defined]
    sys.modules.setdefault("torchaudio", ModuleType("torchaudio"))  # imported there, never used
    sys.path.insert(0, str(checkout))
    from networks.unet_cqt_oct_with_projattention_adaLN_2 import Unet_CQT_oct_with_attention

    network, experiment = (
        json.loads(json.dumps(yaml.safe_load((checkout / name).read_text())), object_hook=attributes)
        for name in (CQTDIFF_NETWORK, CQTDIFF_EXPERIMENT)
    )
    with contextlib.redirect_stdout(io.StringIO()):
        built = Unet_CQT_oct_with_attention(SimpleNamespace(network=network, exp=experiment), "cpu")
    return built.eval(), experiment.audio_len


def attributes(settings: dict[str, Any]) -> SimpleNamespace:
    """Settings by attribute, as that code wants them."""
    return SimpleNamespace(**settings)


def hardware() -> str:
    """Where and under what load this runs."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return (
        f"{len(os.sched_getaffinity(0))} cores, {name}; Python {sys.version.split()[0]}, torch "
        f"{metadata.version('torch')}; OMP_NUM_THREADS {threads}, nice {os.nice(0)}; load average at start {load}"
    )


def main() -> None:
    """Measure what is asked for and print the table."""
    items: dict[str, Callable[[], Iterator[Row]]] = {"repair": repair, "help": show_help, "hour": hour}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", nargs="*", metavar="ITEM", help="repair, help, hour, or cqtdiff CHECKOUT as the last")
    given = parser.parse_args().items
    checkout = Path(given.pop()) if len(given) > 1 and given[-2] == "cqtdiff" else None
    chosen = given or list(items)
    if unknown := [name for name in chosen if name not in items and not (name == "cqtdiff" and checkout)]:
        parser.error(f"unknown: {' '.join(unknown)}" + (" (give cqtdiff its CHECKOUT)" if "cqtdiff" in unknown else ""))
    print(hardware(), end="\n\n")
    print("| what | wall s | user CPU s | peak MB | target | note |\n|---|---:|---:|---:|---|---|")
    for name in chosen:
        for row in cqtdiff(checkout) if name == "cqtdiff" and checkout else items[name]():
            user = "" if row.user_s is None else f"{row.user_s:.2f}"
            peak = "" if row.peak_mb is None else f"{row.peak_mb:.0f}"
            print(f"| {row.what} | {row.wall_s:.2f} | {user} | {peak} | {row.target} | {row.note} |", flush=True)


if __name__ == "__main__":
    main()
