"""Do the promises hold on recordings nobody tuned on? Calibrates on one split, tests on another, prints the tables.

    python benchmarks/confidence_recordings.py measure --data DIR --split calibration --out runs/calibration
    python benchmarks/confidence_recordings.py calibrate --out runs/calibration --to calibrations
    python benchmarks/confidence_recordings.py measure --data DIR --split test --out runs/confidence
    python benchmarks/confidence_recordings.py measure --data DIR --split test --renders --out runs/shifted
    python benchmarks/confidence_recordings.py table --out runs/confidence --shifted runs/shifted

A clip is one gap in one recording: one recording gives one clip to each range of gap lengths. The gap's length is drawn
log-uniformly inside the range, its place at random. `--renders` takes renders of scores instead of recordings: another
kind of material than the calibration saw, for which nothing is promised.
"""

from __future__ import annotations

import argparse
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

GAP_EDGES_S = (0.02, 0.05, 0.12, 0.25, 0.5, 1.0)
FREQUENCY_EDGES_HZ = (0.0, 300.0, 2000.0, 24000.0)
LEVELS = (0.8, 0.9)
DELTA = 0.1
METHODS = ("auto", "ar")
BOUNDS = "n_conffusion"


def measure_clip(job: tuple[Any, ...]) -> str:
    """Fill one gap by every method, look at it, and keep what was seen and what was true."""
    import soundfile as sf
    import torch
    from threadpoolctl import threadpool_limits

    from sfumato.metrics.band_distance import band_distance_db
    from sfumato.model import load
    from sfumato.tasks.confidence import Measured, look, true_levels
    from sfumato.tasks.repair import Settings, choose
    from sfumato.tasks.windows import Clip, fill_group

    number, index, row, options = job
    path = options.out / f"clip-{number:03d}-{index}.pickle"
    if path.exists():
        return str(path.name)
    torch.set_num_threads(1)
    random = np.random.default_rng([options.seed, number, index])
    rate, clean, gap = row.sample_rate, None, (0, 0)
    length = round(rate * float(np.exp(random.uniform(*np.log(GAP_EDGES_S[index : index + 2])))))
    length = min(max(length, int(GAP_EDGES_S[index] * rate) + 1), int(GAP_EDGES_S[index + 1] * rate) - 1)
    for _ in range(200):  # silent places are passed over
        start = int(random.integers(0, int(row.seconds * rate) - 5 * rate))
        clean = sf.read(options.data / row.path, start=start, frames=5 * rate, always_2d=True)[0].T
        first = (5 * rate - length) // 2 + int(random.integers(-rate // 4, rate // 4))
        gap = (first, first + length)
        if np.sqrt(np.mean(clean[:, first - rate // 4 : first + length + rate // 4] ** 2)) > 3e-3:
            break
    else:
        raise SystemExit(f"{row.recording} is silent wherever it is cut.")
    damaged = clean.copy()
    damaged[:, gap[0] : gap[1]] = 0.0
    models, distances, predictions, seen = {name: load(name) for name in ("conffusion", BOUNDS)}, {}, {}, {}
    with threadpool_limits(limits=1):
        for method in METHODS:
            settings = Settings(method=method, draws=1, seed=options.seed * 1_000_003 + 10 * number + index)
            fill = choose(settings, models["conffusion"], length / rate)[1]
            filled = fill_group(Clip(damaged, rate), [gap], [gap], fill, settings.seed)
            repaired = clean.copy()
            repaired[:, gap[0] : gap[1]] = filled.draws[0]
            seen[method] = look(Clip(damaged, rate), gap, [gap], filled, models[BOUNDS])
            distances[method] = band_distance_db(clean, repaired, gap, rate)
            predictions[method] = seen[method].predicted_db
    first_seen = seen[METHODS[0]]
    truth = true_levels(Clip(clean, rate), gap, first_seen)
    name = f"{row.source}/{row.recording}"
    clip = Measured(name, row.sha256, rate, first_seen, truth, distances, predictions)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(pickle.dumps(clip))
    temporary.replace(path)
    return str(path.name)


def read(out: Path) -> list[Any]:
    """Every measured clip (files this script wrote itself)."""
    return [pickle.loads(path.read_bytes()) for path in sorted(out.glob("clip-*.pickle"))]


def calibrate(options: argparse.Namespace) -> None:
    """Write one record per level and domain."""
    from sfumato.config import dump_yaml
    from sfumato.model import load
    from sfumato.tasks.confidence import calibrate_interval, calibrate_quality
    from sfumato.tasks.repair import Settings

    clips, model = read(options.out), load(BOUNDS)
    options.to.mkdir(parents=True, exist_ok=True)
    for level in LEVELS:
        record = calibrate_interval(
            clips,
            model,
            level=level,
            delta=DELTA,
            kind="wsr",
            gap_edges_s=GAP_EDGES_S,
            frequency_edges_hz=FREQUENCY_EDGES_HZ,
        )
        dump_yaml(record, options.to / f"band_level_db-{100 * level:.0f}.yaml")
        print(f"interval {level}:", [(g.ranges, round(g.value, 2), g.n_clips) for g in record.groups])
        for method in METHODS:
            settings = Settings(method=method)
            record = calibrate_quality(clips, model, level=level, settings=settings, gap_edges_s=GAP_EDGES_S)
            dump_yaml(record, options.to / f"band_distance_db-{method}-{100 * level:.0f}.yaml")
            print(f"quality {method} {level}:", [(g.ranges, round(g.value, 2), g.n_clips) for g in record.groups])


def print_table(options: argparse.Namespace) -> None:
    """Coverage, widths and quality bounds, by range of gap lengths and by corpus, with exact intervals."""
    for title, folder in (("Held-out recordings", options.out), ("Renders: nothing is promised", options.shifted)):
        if folder is None:
            continue
        clips = read(folder)
        for level in LEVELS:
            print(f"\n### {title}, level {level:g}\n")
            print_intervals(clips, level)
            for method in METHODS:
                print_quality(clips, level, method)


def print_intervals(clips: list[Any], level: float) -> None:
    """Shares of cells inside, per range; and clips whose own share is at least the level."""
    from scipy.stats import spearmanr

    from sfumato.interval.record import values_at
    from sfumato.tasks.confidence import promises, widened
    from sfumato.tasks.repair import Settings

    promised = promises(level, Settings())
    print(
        "| gap, ms | clips | share of cells inside, mean over clips [95 % bootstrap] | median width, dB | raw share | "
        "Spearman(width, error) |\n|---|---|---|---|---|---|"
    )
    for index in [*range(len(GAP_EDGES_S) - 1), None]:
        low, high = (0.0, 9.0) if index is None else GAP_EDGES_S[index : index + 2]
        own = [clip for clip in clips if low <= clip.seen.gap_s < high]
        shares, raws, widths, links = [], [], [], []
        for clip in own:
            scale = values_at(promised.interval, {"gap_s": clip.seen.gap_s, "frequency_hz": clip.seen.frequency_hz})
            bounded, counts, raw = widened(clip.seen, scale, level), clip.seen.counts, clip.seen.raw
            inside = (bounded.lower <= clip.truth_db) & (clip.truth_db <= bounded.upper)
            shares.append(inside[counts].mean())
            raws.append(((raw.lower <= clip.truth_db) & (clip.truth_db <= raw.upper))[counts].mean())
            width = (bounded.upper - bounded.lower)[counts]
            widths.append(np.median(width))
            links.append(spearmanr(width, np.abs(clip.truth_db - raw.point)[counts]).statistic)
        names = [clip.recording for clip in own]
        what = "all" if index is None else f"{1e3 * low:.0f} to {1e3 * high:.0f}"
        print(
            f"| {what} | {len(own)} | {booted(shares, names)} | {np.median(widths):.1f} | {np.mean(raws):.3f} | "
            f"{np.nanmean(links):.2f} |"
        )


def print_quality(clips: list[Any], level: float, method: str) -> None:
    """How often the bound on the band distance held, with the exact binomial interval."""
    from sfumato.interval.coverage import clopper_pearson
    from sfumato.interval.record import values_at
    from sfumato.tasks.confidence import promises
    from sfumato.tasks.repair import Settings

    promised = promises(level, Settings(method=method))
    print(f"\nBand distance of `{method}` at most its bound:\n")
    print(
        "| gap, ms | held | share [95 % Clopper–Pearson] | median bound, dB | median distance, dB |\n"
        "|---|---|---|---|---|"
    )
    for index in range(len(GAP_EDGES_S) - 1):
        own = [clip for clip in clips if GAP_EDGES_S[index] <= clip.seen.gap_s < GAP_EDGES_S[index + 1]]
        bounds = np.array(
            [float(values_at(promised.quality, {"gap_s": c.seen.gap_s})) * c.predicted_db[method] for c in own]
        )
        true = np.array([clip.distance_db[method] for clip in own])
        held = int((true <= bounds).sum())
        lower, upper = clopper_pearson(held, len(own))
        span = f"{1e3 * GAP_EDGES_S[index]:.0f} to {1e3 * GAP_EDGES_S[index + 1]:.0f}"
        print(
            f"| {span} | {held} of {len(own)} | {held / len(own):.3f} [{lower:.3f}, {upper:.3f}] | "
            f"{np.median(bounds):.1f} | {np.median(true):.1f} |"
        )


def booted(values: list[float], recordings: list[str]) -> str:
    """Mean and bootstrap over recordings."""
    from sfumato.metrics.bootstrap import bootstrap

    e = bootstrap(np.array(values), recordings)
    return f"{e.value:.3f} [{e.lower:.3f}, {e.upper:.3f}]"


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "calibrate", "table"))
    parser.add_argument("--data", type=Path, help="folder of a built manifest")
    parser.add_argument("--split", choices=("calibration", "validation", "test"), default="calibration")
    parser.add_argument("--renders", action="store_true", help="renders of scores instead of recordings")
    parser.add_argument("--out", type=Path, required=True, help="folder for one file per clip")
    parser.add_argument("--shifted", type=Path, help="another such folder, for the table")
    parser.add_argument("--to", type=Path, default=Path("calibrations"), help="folder of the calibration records")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if options.what == "calibrate":
        calibrate(options)
    elif options.what == "table":
        print_table(options)
    else:
        from sfumato.data import manifest

        options.out.mkdir(parents=True, exist_ok=True)
        rows = manifest.select(manifest.read(options.data / "manifest.jsonl"), options.split, options.renders)
        rows = sorted((row for row in rows if row.seconds > 7), key=lambda row: (row.source, row.recording))
        jobs = [(n, i, row, options) for i in range(len(GAP_EDGES_S) - 1) for n, row in enumerate(rows)]
        with ProcessPoolExecutor(options.processes) as pool:
            for done, name in enumerate(pool.map(measure_clip, jobs), start=1):
                print(f"{done}/{len(jobs)} {name}", flush=True)


if __name__ == "__main__":
    main()
