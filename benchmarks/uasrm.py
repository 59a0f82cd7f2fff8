"""Spectrogram repair: UASRM beside Janssen, autoregressive draws and the diffusion, on STFT columns and boxes.

    python benchmarks/uasrm.py measure --data DIR --out runs/uasrm --families classical diffusion    # resumable
    python benchmarks/uasrm.py measure --data DIR --out runs/uasrm --families uasrm --model uasrm
    python benchmarks/uasrm.py table --data DIR --out runs/uasrm

Each clip is 7 s of one recording that nobody trained on, its channels averaged to mono, damaged near the middle.
Columns are cut out; as every sample in them is missing, "Janssen on STFT columns" is Janssen on the gap they leave.
Boxes are damaged by noise as loud as the clip in place of what was there; a method sees that clip and nothing else.
Janssen fills a box as it fills the whole stretch, which at these lengths is near silence: it is measured on columns
only. At these lengths `--method auto` is the diffusion.
"line" is UASRM without its network: levels bridged by a straight line, phases as UASRM makes them. What the network is
worth is what it adds to that. Intervals are 95 % percentile bootstraps over works: versions of a piece are drawn
together.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from repair import CLIP_S, clips, loaded
from repair_table import interval

DAMAGES = {
    "columns 150 ms": (0.15, 0.0, np.inf),
    "columns 500 ms": (0.5, 0.0, np.inf),
    "box 500 ms, 300–2000 Hz": (0.5, 300.0, 2000.0),
    "box 500 ms, 4–12 kHz": (0.5, 4000.0, 12000.0),
}
FAMILIES = ("classical", "diffusion", "uasrm")
METHODS = ("damaged", "janssen", "ar draw", "diffusion", "line", "uasrm")
FIGURES = {
    "snr": "SNR of the hole's bins, dB (higher is better; `damaged` is what doing nothing has)",
    "lsd": "Log-spectral distance in the hole, dB (lower is better; two draws of a spectrum heard everywhere: about 8)",
    "bias": "Bias of the hole's levels, dB (0 is best)",
    "within_1": "Bins within 1 dB, % (two draws of one spectrum: 11)",
    "within_3": "Bins within 3 dB, % (two draws of one spectrum: 33)",
    "within_6": "Bins within 6 dB, % (two draws of one spectrum: 60)",
    "leak": "What differs from the truth: its energy outside the box over all of it, dB (lower is better)",
    "seconds": "Seconds of one processor per fill of two draws, one for janssen",
}
MARGIN_S = 1.0


def measure_clip(job: tuple[Any, ...]) -> str:
    """Measure one family on one clip, all damages, and write its file, unless it is there."""
    import soundfile as sf
    import torch
    from threadpoolctl import threadpool_limits

    number, row, start, family, options = job
    path = options.out / f"clip-{number:04d}.{family}.json"
    if path.exists():
        return str(path.name)
    torch.set_num_threads(1)
    rate = row.sample_rate
    first = max(0, start - int(MARGIN_S * rate))
    audio, _ = sf.read(options.data / row.path, start=first, frames=int((CLIP_S + 2 * MARGIN_S) * rate), always_2d=True)
    clean = audio.mean(axis=1)[None]
    results = []
    with threadpool_limits(limits=1):
        for damage, (seconds, low, high) in DAMAGES.items():
            offset = int(np.random.default_rng([options.seed, number]).integers(-rate // 4, rate // 4))
            begin = start - first + int(CLIP_S * rate) // 2 - int(seconds * rate) // 2 + offset
            for name, fill, took in fills_of(clean, (begin, begin + int(seconds * rate)), (low, high), rate, job):
                figures = judge(clean, fill, (begin, begin + int(seconds * rate)), (low, high), rate)
                results.append({"damage": damage, "method": name, "seconds": took, **figures})
    body = {"clip": number, "source": row.source, "recording": row.recording, "start": start, "results": results}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(body))
    temporary.replace(path)
    return str(path.name)


def damaged_clip(clean: np.ndarray, box: Any, rate: int, seed: list[int]) -> np.ndarray:
    """The clip with silence in place of columns, or with noise as loud as itself in place of a box."""
    from sfumato.tasks.regions import all_bins, confine

    out = clean.copy()
    part = slice(box.start, box.stop)
    if all_bins([box], rate):
        out[:, part] = 0.0
    else:
        noise = np.sqrt(np.mean(clean**2)) * np.random.default_rng(seed).standard_normal((1, box.stop - box.start))
        out[:, part] += confine(noise - clean[:, part], [box], rate)
    return out


def fills_of(
    clean: np.ndarray, gap: tuple[int, int], band: tuple[float, float], rate: int, job: tuple[Any, ...]
) -> Iterator[tuple[str, np.ndarray, float]]:
    """(method, repaired clip, processor seconds) of a family."""
    from sfumato.tasks import fill as fills
    from sfumato.tasks import regions, spectrogram
    from sfumato.tasks.methods import choose
    from sfumato.tasks.repair import Settings
    from sfumato.tasks.windows import Clip

    number, _, _, family, options = job
    box, seed = regions.Box(*gap, *band), options.seed * 1_000_003 + number
    damaged = damaged_clip(clean, box, rate, [options.seed, number, 1])
    source = Clip(damaged, rate)

    def timed(name: str, make: Any) -> tuple[str, np.ndarray, float]:
        began = time.process_time()
        repaired = damaged.copy()
        repaired[:, gap[0] : gap[1]] = make()[0]
        return name, repaired, time.process_time() - began

    def by(fill: Any) -> Any:
        return lambda: regions.fill_boxes(source, [box], [], fill)

    if family == "classical":
        yield "damaged", damaged, 0.0
        if regions.all_bins([box], rate):
            yield timed("janssen", by(lambda window: fills.fill_janssen(window, 1, seed, None)))
        yield timed("ar draw", by(lambda window: fills.fill_ar(window, 2, seed, None)))
    elif family == "diffusion":
        settings = Settings(method="diffusion", draws=2, seed=seed)
        yield timed("diffusion", by(choose(settings, loaded(options.inpainter), (gap[1] - gap[0]) / rate)[1]))
    else:
        yield timed("line", lambda: spectrogram.fill_boxes(source, [box], [], 2, seed, without_network()))
        if options.model:
            model = loaded(options.model)
            yield timed("uasrm", lambda: spectrogram.fill_boxes(source, [box], [], 2, seed, model))


def without_network() -> Any:
    """UASRM whose network always says that the line is right."""
    import torch

    from sfumato.model import Card, Model
    from sfumato.systems import uasrm

    class Nothing(torch.nn.Module):
        """Says nothing."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Zeros."""
            return torch.zeros_like(x[:, :1])

    return Model("line", uasrm.NAME, uasrm.Config(view="honest"), Nothing(), Card())


def judge(
    clean: np.ndarray, fill: np.ndarray, gap: tuple[int, int], band: tuple[float, float], rate: int
) -> dict[str, float]:
    """Every figure of one fill."""
    from sfumato.metrics.log_spectral_distance import log_spectral_distance_db
    from sfumato.metrics.tolerance_accuracy import bin_errors_db, tolerance_accuracy
    from sfumato.tasks import regions

    box = regions.Box(*gap, *band)
    errors = bin_errors_db(clean, fill, gap, rate, band)
    shares = tolerance_accuracy(clean, fill, gap, rate, band_hz=band)
    grid = regions.Grid(0, clean.shape[1], rate)
    touched = ~grid.known([box])
    truth, repaired = (grid.forward(x)[0].numpy() for x in (clean, fill))
    whole = regions.all_bins([box], rate)
    # Columns: over their frames, as for every repair. Boxes: over their bins.
    lsd = log_spectral_distance_db(clean, fill, gap) if whole else np.nan
    if not whole and errors is not None:
        lsd = float(np.sqrt(np.mean(errors**2)))
    part = slice(gap[0], gap[1])
    out = {
        "snr": ratio_db(np.abs(truth[touched]) ** 2, np.abs(repaired - truth)[touched] ** 2),
        "lsd": lsd,
        "bias": np.nan if errors is None else float(errors.mean()),
        "leak": np.nan if whole else regions.leak_db((fill - clean)[:, part], [box], rate),
    }
    return out | {f"within_{name}": 100 * share for name, share in zip((1, 3, 6), shares, strict=True)}


def ratio_db(signal: np.ndarray, error: np.ndarray) -> float:
    """Power over power, in dB."""
    return float(10 * np.log10(max(float(signal.sum()), 1e-30) / max(float(error.sum()), 1e-30)))


def print_table(options: argparse.Namespace) -> None:
    """The benchmark as Markdown: a table a figure, and what UASRM adds, paired by clip."""
    from sfumato.data import manifest

    rows = manifest.read(options.data / "manifest.jsonl")
    work_of = {f"{row.source}/{row.recording}": row.work for row in rows}
    figures: dict[tuple[str, str, str], dict[int, float]] = {}
    recording: dict[int, str] = {}
    for path in sorted(options.out.glob("clip-*.json")):
        if not all(path.with_name(f"{path.name.split('.')[0]}.{family}.json").exists() for family in FAMILIES):
            continue
        body = json.loads(path.read_text())
        recording[body["clip"]] = f"{body['source']}/{body['recording']}"
        for result in body["results"]:
            for figure in FIGURES:
                figures.setdefault((figure, result["method"], result["damage"]), {})[body["clip"]] = result[figure]
    numbers = sorted(recording)
    works = [work_of[recording[number]] for number in numbers]

    def values(figure: str, method: str, damage: str) -> np.ndarray:
        own = figures.get((figure, method, damage), {})
        return np.array([own.get(number, np.nan) for number in numbers], dtype=np.float64)

    about = f"{len(works)} clips of {len(set(recording.values()))} recordings of {len(set(works))} works"
    print(f"n = {about}; mean [95 % bootstrap over works]\n")
    heading = "| | " + " | ".join(DAMAGES) + " |\n" + "|---" * (len(DAMAGES) + 1) + "|"
    for figure, title in FIGURES.items():
        print(f"### {title}\n\n{heading}")
        for method in METHODS:
            cells = [interval(values(figure, method, damage), works) for damage in DAMAGES]
            if set(cells) != {"–"}:
                print(f"| {method} | " + " | ".join(cells) + " |")
        print()
    print(f"### Differences, paired by clip\n\n{heading}")
    for figure, a, b in (
        ("lsd", "uasrm", "line"),
        ("lsd", "uasrm", "janssen"),
        ("lsd", "uasrm", "diffusion"),
        ("snr", "uasrm", "janssen"),
        ("snr", "uasrm", "diffusion"),
        ("within_3", "uasrm", "diffusion"),
        ("lsd", "line", "diffusion"),
    ):
        cells = [interval(values(figure, a, damage) - values(figure, b, damage), works) for damage in DAMAGES]
        if set(cells) != {"–"}:
            print(f"| {figure}: {a} − {b} | " + " | ".join(cells) + " |")


def keep_to(options: argparse.Namespace) -> None:
    """Refuse to mix results of different options in one folder."""
    for family in options.families:
        fixed = ["split", "seed", *{"uasrm": ["model"], "diffusion": ["inpainter"]}.get(family, [])]
        given = json.dumps({name: str(getattr(options, name)) for name in fixed}, indent=1)
        path = options.out / f"options.{family}.json"
        if path.exists() and path.read_text() != given:
            raise SystemExit(f"{options.out} holds results of other options ({path}). Choose another folder.")
        path.write_text(given)


def main() -> None:
    """Parse the command line and do it."""
    from pathlib import Path

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "table"))
    parser.add_argument("--data", type=Path, help="folder of a built manifest")
    parser.add_argument("--out", type=Path, required=True, help="folder for one result file per clip and family")
    parser.add_argument("--model", help="name or folder of a UASRM model; without one the family uasrm is the line")
    parser.add_argument("--inpainter", default="conffusion", help="name or folder of the diffusion's model")
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    parser.add_argument("--clips", type=int, default=44)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--seed", type=int, default=0, help="of clips, holes and fills")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if options.what == "table":
        print_table(options)
        return
    from sfumato.data import manifest

    options.out.mkdir(parents=True, exist_ok=True)
    keep_to(options)
    rows = [row for row in manifest.read(options.data / "manifest.jsonl") if row.split == options.split]
    rows = [row for row in rows if row.seconds > CLIP_S + 2 * MARGIN_S + 1 and not row.rendered]
    chosen = list(clips(rows, options.data, options.clips, options.seed))
    jobs = [(*clip, family, options) for clip in chosen for family in options.families]
    with ProcessPoolExecutor(options.processes) as pool:
        for done, name in enumerate(pool.map(measure_clip, jobs), start=1):
            print(f"{done}/{len(jobs)} {name}", flush=True)


if __name__ == "__main__":
    main()
