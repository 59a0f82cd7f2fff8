"""How well fills are found: planted in recordings nobody trained on, and what clean recordings are accused of.

    python benchmarks/inpainted.py calibrate --data DIR --model runs/detect/model --to weights/detect
    python benchmarks/inpainted.py fill --data DIR --out runs/inpainted           # resumable; one file per clip and way
    python benchmarks/inpainted.py measure --data DIR --out runs/inpainted
    python benchmarks/inpainted.py whole --data DIR --out runs/inpainted
    python benchmarks/inpainted.py table --out runs/inpainted

A clip is ten seconds of one test recording with three fills, one of 50 to 100, one of 100 to 250 and one of 250 to
500 ms, at random places. Each way of filling gets the same places. The same clip unfilled is the negative. `whole`
looks at the clean recordings from end to end, as `sfumato detect` does. `calibrate` reads recordings of the
calibration split, and those of the training split that the detector was not trained on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch
from numpy.typing import NDArray

from inpainted_table import baselines, print_table
from sfumato.config import dump_yaml
from sfumato.data import fills, manifest
from sfumato.data.fill_traces import fitted
from sfumato.data.fills import PROCESSES
from sfumato.model import digest, load, save
from sfumato.signal.traces import at_rate, traces
from sfumato.tasks.detect import CLEAN_FILE, LENGTHS_S, Clean, Detector, load_detector, scored
from sfumato.tasks.windows import Clip

Array = NDArray[np.float64]

CLIP_S = 10.0
GAPS_S = ((0.05, 0.1), (0.1, 0.25), (0.25, 0.5))
APART_S = 1.0
PROCESSED = ("as it is", "MP3", "Opus", "22.05 kHz", "mono")
"""Processes that are measured; FLAC of 16 bits changes no sample of a 16-bit file."""

OTHER_SEED = 1_000_003
UNSEEN: dict[str, dict[str, Any]] = {
    "auto, other seed": {"method": "auto"},
    "diffusion, 4 steps": {"method": "diffusion", "temperature": 1.0, "steps": 4},
    "janssen": {"method": "janssen"},
    "aspain": {"method": "aspain"},
}
"""Ways the detector was not trained on -> settings; a pasted copy is another."""

WAYS = ("auto", "ar", *UNSEEN, "copy")
EVERY = {"auto": 1, "copy": 1, "ar": 2}
"""Of how many clips a way fills one, if not of four."""

SHORT_ONLY = ("janssen", "aspain")
"""Iterative methods take a minute for a long gap and are at their best in short ones: they fill the shortest alone."""

FADE_S = 0.01
SHORT_S = 3.0
"""A clean recording so short is looked at too."""


def read(row: Any, root: Path, start: int, stop: int) -> Array:
    """Samples of a recording, ``(channels, samples)``."""
    audio, _ = sf.read(root / row.path, start=start, stop=stop, always_2d=True)
    return np.ascontiguousarray(audio.T)


def clip_of(row: Any, root: Path, number: int) -> tuple[Array, list[tuple[int, int]]]:
    """Ten seconds that aren't silent, and three places in them."""
    random = np.random.default_rng([0xDE7EC7, number])
    rate, n = row.sample_rate, round(CLIP_S * row.sample_rate)
    for _ in range(200):
        start = int(random.integers(0, int(row.seconds * rate) - n + 1))
        audio = read(row, root, start, start + n)
        lengths = [round(rate * float(np.exp(random.uniform(*np.log(limits))))) for limits in GAPS_S]
        random.shuffle(lengths)
        room = n - 2 * round(APART_S * rate) - sum(lengths) - 2 * round(APART_S * rate)
        cuts = np.sort(random.integers(0, room, size=3))
        gaps, at = [], round(APART_S * rate)
        for cut, length in zip(cuts, lengths, strict=True):
            gaps.append((int(at + cut), int(at + cut + length)))
            at += length + round(APART_S * rate)
        if all(np.sqrt(np.mean(audio[:, a:b] ** 2)) > 3e-3 for a, b in gaps):
            return audio, gaps
    raise SystemExit(f"{row.recording} is silent wherever it is cut.")


def pasted(audio: Array, gaps: list[tuple[int, int]], rate: int, random: np.random.Generator) -> Array:
    """Each gap covered by another part of the clip, cross-faded over 10 ms on both sides, as an editor would."""
    out, fade = audio.copy(), round(FADE_S * rate)
    for start, stop in gaps:
        a, b = start - fade, stop + fade
        sources = [i for i in range(0, audio.shape[1] - (b - a), rate // 50) if i + b - a <= a or i >= b]
        at = int(random.choice(sources))
        share = np.clip(np.minimum(np.arange(b - a) + 1, np.arange(b - a, 0, -1)) / (fade + 1), 0.0, 1.0)
        share = np.sin(0.5 * np.pi * share) ** 2
        out[:, a:b] = (1.0 - share) * audio[:, a:b] + share * audio[:, at : at + b - a]
    return np.round(out * 32768) / 32768


def fill_one(job: tuple[int, Any, Path, Path, str]) -> None:
    """One clip filled in one way, as a file of 16-bit samples."""
    number, row, root, out, way = job
    path = out / f"{number}-{way}.npz"
    if path.exists() or number % EVERY.get(way, 4):
        return
    audio, gaps = clip_of(row, root, number)
    rate = row.sample_rate
    if way in SHORT_ONLY:
        gaps = sorted(gaps, key=lambda gap: gap[1] - gap[0])[:1]
    if way == "copy":
        made = pasted(audio, gaps, rate, np.random.default_rng([0xC0B1, number]))
    else:
        seed = number + (0 if way in fills.WAYS else OTHER_SEED)
        known, changes = (way, {}) if way in fills.WAYS else ("auto", UNSEEN[way])
        made = fills.filled(audio, rate, gaps, known, seed, load("conffusion"), **changes).filled
    np.savez(path, audio=np.round(made * 32768).astype(np.int16), gaps=gaps, rate=rate)


def detector_of(options: argparse.Namespace) -> Detector:
    """The calibrated detector."""
    torch.set_num_threads(1)
    return load_detector(options.model or "detect")


def measure_one(job: tuple[int, Any, argparse.Namespace]) -> Path:
    """Scores of one recording: its clip filled in every way, processed in every way, clean, and the first 3 s of it."""
    number, row, options = job
    path = options.out / f"scores-{number}.npz"
    if path.exists():
        return path
    detector = detector_of(options)
    clean, _ = clip_of(row, options.data, number)
    found: dict[str, Any] = {}

    def look(name: str, audio: Array, gaps: Any, process: str) -> None:
        processed, rate = PROCESSES[process](audio, row.sample_rate)
        seen = traces(at_rate(processed, rate))
        found[f"score|{name}|{process}"] = detector.scores_of(seen)
        found[f"gaps|{name}|{process}"] = np.asarray(gaps, float).reshape(-1, 2) / row.sample_rate
        if process == "as it is":
            for key, values in baselines(at_rate(audio, row.sample_rate), seen).items():
                found[f"{key}|{name}"] = values

    for process in PROCESSED:
        look("clean", clean, [], process)
    for way in WAYS:
        file = options.out / f"{number}-{way}.npz"
        if file.exists():
            with np.load(file) as stored:
                for process in PROCESSED if way == "auto" else PROCESSED[:1]:
                    look(way, stored["audio"] / 32768, stored["gaps"], process)
    found["short"] = detector.scores(clean[:, : int(SHORT_S * row.sample_rate)], row.sample_rate)
    found["short_s"] = SHORT_S
    np.savez(path, **found)
    return path


def whole_one(job: tuple[int, Any, argparse.Namespace]) -> dict[str, Any]:
    """Length of one clean recording, and the largest score of each of its stretches."""
    _, row, options = job
    audio = read(row, options.data, 0, int(row.seconds * row.sample_rate))
    tops = [float(scores.max()) for _, scores in scored(Clip(audio, row.sample_rate), detector_of(options))]
    seconds = audio.shape[1] / row.sample_rate
    return {"recording": f"{row.source}/{row.recording}", "work": row.work, "seconds": seconds, "tops": tops}


def calibrate_one(job: tuple[int, Any, Path, Path]) -> dict[str, list[tuple[float, float]]]:
    """(length, largest score) of one clean window of each of `LENGTHS_S`, in stereo and in mono."""
    number, row, root, model = job
    torch.set_num_threads(1)
    detector = Detector(load(model), None)  # type: ignore[arg-type]
    random = np.random.default_rng([0xCA11B, number])
    out: dict[str, list[tuple[float, float]]] = {"stereo": [], "mono": []}
    for length in LENGTHS_S:
        n, total = round(length * row.sample_rate), int(row.seconds * row.sample_rate)
        if total < n:
            continue
        start = int(random.integers(0, max(1, total - n)))
        audio = read(row, root, start, start + n)
        for name, heard in (("stereo", audio), ("mono", audio.mean(axis=0, keepdims=True))):
            top = max(float(scores.max()) for _, scores in scored(Clip(heard, row.sample_rate), detector))
            out[name].append((length, round(top, 4)))
    return out


def clean_rows(rows: list[Any]) -> list[Any]:
    """Recordings that tell what clean music scores."""
    held_out = [row for row in manifest.select(rows, "train", False) if not fitted(row.work)]
    return held_out + manifest.select(rows, "calibration", False)


def calibrate(options: argparse.Namespace) -> None:
    """Write the detector and what clean recordings score with it."""
    rows = clean_rows(manifest.read(options.data / "manifest.jsonl"))
    tables: dict[str, dict[float, dict[str, list[float]]]] = {
        name: {length: {} for length in LENGTHS_S} for name in ("stereo", "mono")
    }
    jobs = [(number, row, options.data, options.model) for number, row in enumerate(rows)]
    for row, scores in zip(rows, each(calibrate_one, jobs, options.processes), strict=True):
        for name, table in tables.items():
            for length, score in scores[name]:
                table[length].setdefault(row.work, []).append(score)
    model = load(options.model)
    save(model, options.to)
    named = {f"{row.source}/{row.recording}": row.sha256 for row in rows}
    clean = Clean(model=digest(load(options.to)), recordings=named, **tables)
    dump_yaml(clean, options.to / CLEAN_FILE)
    print(f"{len(rows)} recordings of {len(tables['stereo'][LENGTHS_S[0]])} pieces; {options.to / CLEAN_FILE}")


def each(function: Callable[[Any], Any], jobs: list[Any], processes: int) -> Iterator[Any]:
    """Results in order, by so many processes."""
    if processes == 1:
        yield from map(function, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(function, jobs)


def main() -> None:
    """One step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("calibrate", "fill", "measure", "whole", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/inpainted"))
    parser.add_argument("--model", help="the detector; default: the shipped one")
    parser.add_argument("--to", type=Path, default=Path("weights/detect"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.step == "table":
        print_table(options.out, detector_of(options))
        return
    if options.step == "calibrate":
        calibrate(options)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    rows = manifest.select(manifest.read(options.data / "manifest.jsonl"), options.split, False)
    rows = sorted((row for row in rows if row.seconds > CLIP_S + 1), key=lambda row: (row.source, row.recording))
    if options.step == "fill":
        todo = [(i, row, options.data, options.out, way) for way in options.ways for i, row in enumerate(rows)]
        for done, _ in enumerate(each(fill_one, todo, options.processes), start=1):
            print(f"{done}/{len(todo)}", end="\r", flush=True)
        return
    if options.step == "whole":
        jobs = [(i, row, options) for i, row in enumerate(rows)]
        found = list(each(whole_one, jobs, options.processes))
        (options.out / "whole.json").write_text(json.dumps(found, indent=1))
        return
    (options.out / "settings.json").write_text(json.dumps({"split": options.split, "recordings": len(rows)}))
    for path in each(measure_one, [(i, row, options) for i, row in enumerate(rows)], options.processes):
        print(path, flush=True)


if __name__ == "__main__":
    main()
