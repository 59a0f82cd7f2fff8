"""Do the promises hold on recordings nobody tuned on? Calibrates on one split, tests on another, prints the tables.

    python benchmarks/confidence_recordings.py measure --data DIR --split calibration --out runs/calibration
    python benchmarks/confidence_recordings.py calibrate --data DIR --out runs/calibration --to calibrations
    python benchmarks/confidence_recordings.py measure --data DIR --split test --out runs/confidence
    python benchmarks/confidence_recordings.py measure --data DIR --renders --out runs/shifted
    python benchmarks/confidence_recordings.py table --data DIR --out runs/confidence --shifted runs/shifted
    python benchmarks/confidence_recordings.py sampled --data DIR --split calibration --out runs/calibration
    python benchmarks/confidence_recordings.py sampled --data DIR --split test --out runs/confidence
    python benchmarks/confidence_recordings.py rivals --out runs/confidence --calibration runs/calibration
    python benchmarks/confidence_recordings.py draw --out runs/confidence --shifted runs/shifted

A clip is one gap in one recording: one recording of each work gives one clip to each range of gap lengths. The gap's
length is drawn log-uniformly inside the range, its place at random, where there is sound on both sides. `--renders`
takes renders of scores, of all splits, instead of recordings: another kind of material than models and calibration
saw, for which nothing is promised. `sampled` adds the bounds over draws, and those of the student that learnt them
(`--student FOLDER`), to clips that were measured.
"""

from __future__ import annotations

import argparse
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np

from confidence_tables import draw, print_rivals, print_table

GAP_EDGES_S = (0.02, 0.05, 0.12, 0.25, 0.5, 1.0)
FREQUENCY_EDGES_HZ = (0.0, 300.0, 2000.0, 24000.0)
EDGE_EDGES_S = (0.0, 0.03, 1.0)
SAMPLE_EDGE_EDGES_S = (0.0, 0.002, 0.03)
LEVELS = (0.8, 0.9)
DELTA = 0.1
KINDS = ("crc", "wsr", "hoeffding_bentkus")
METHODS = ("auto", "diffusion", "ar", "janssen")
JANSSEN_S = 0.12
"""Longest gap that Janssen's fill is measured for: it decays to silence in longer ones."""
DOMAINS = ("band_level_db", "bin_level_db", "waveform")
BOUNDS = "n_conffusion"
SAMPLED_RANGES, DRAWS, STEPS = (2,), 12, 6
"""Ranges of gap lengths that bounds are sampled for, with how many draws of how many steps: 72 network evaluations."""


def cut(number: int, index: int, row: Any, options: argparse.Namespace) -> tuple[np.ndarray, tuple[int, int]]:
    """Five seconds of a recording, and a gap in them; places with next to no sound around the gap are passed over."""
    import soundfile as sf

    from sfumato.tasks import looks
    from sfumato.tasks.windows import Clip

    random = np.random.default_rng([options.seed, number, index])
    rate = row.sample_rate
    length = round(rate * float(np.exp(random.uniform(*np.log(GAP_EDGES_S[index : index + 2])))))
    length = min(max(length, int(GAP_EDGES_S[index] * rate) + 1), int(GAP_EDGES_S[index + 1] * rate) - 1)
    for _ in range(200):
        start = int(random.integers(0, int(row.seconds * rate) - 5 * rate))
        clean = sf.read(options.data / row.path, start=start, frames=5 * rate, always_2d=True)[0].T
        first = (5 * rate - length) // 2 + int(random.integers(-rate // 4, rate // 4))
        if looks.around(Clip(clean, rate), (first, first + length)).std() > looks.QUIET:
            return clean, (first, first + length)
    raise SystemExit(f"{row.recording} is silent wherever it is cut.")


def measure_clip(job: tuple[Any, ...]) -> str:
    """Fill one gap by every method, look at it, and keep what was seen and what was true."""
    import torch
    from threadpoolctl import threadpool_limits

    from sfumato.metrics.band_distance import band_distance_db
    from sfumato.model import digest, load
    from sfumato.tasks import looks
    from sfumato.tasks.calibration import Measured
    from sfumato.tasks.gaps import GIVEN
    from sfumato.tasks.methods import choose
    from sfumato.tasks.repair import Settings, fill_gaps
    from sfumato.tasks.windows import Clip, fill_group

    number, index, row, options = job
    path = options.out / f"clip-{number:03d}-{index}.pickle"
    if path.exists():
        return str(path.name)
    torch.set_num_threads(1)
    clean, gap = cut(number, index, row, options)
    rate, length_s = row.sample_rate, (gap[1] - gap[0]) / row.sample_rate
    damaged = clean.copy()
    damaged[:, gap[0] : gap[1]] = 0.0
    source = Clip(damaged, rate)
    fills, bounds, distances, predictions = load("conffusion"), load(BOUNDS), {}, {}
    seen: dict[str, looks.Raw] = {}
    with threadpool_limits(limits=1):
        settings = Settings(draws=1, seed=options.seed * 1_000_003 + 10 * number + index)

        def filled_by(method: str) -> Any:
            fill = choose(settings.model_copy(update={"method": method}), fills, length_s)[1]
            return fill_group(source, [gap], [gap], fill, settings.seed)

        mixture = filled_by("auto")
        view = looks.view(source, gap, [gap], mixture)
        seen["band_level_db"] = looks.band_bounds(view, bounds)
        seen["bin_level_db"] = looks.bin_bounds(view, seen["band_level_db"])
        (routed,) = fill_gaps(source, [gap], [GIVEN], settings, fills)
        samples = {"auto": routed.draws[0], "ar": mixture.source[1]}  # the first draw of `ar` is the others' source
        whole = choose(settings, fills, length_s)[0] == "diffusion"
        samples["diffusion"] = mixture.draws[0] if whole else filled_by("diffusion").draws[0]
        if length_s <= JANSSEN_S:
            samples["janssen"] = filled_by("janssen").draws[0]
        for method, fill in samples.items():
            repaired = clean.copy()
            repaired[:, gap[0] : gap[1]] = fill
            distances[method] = band_distance_db(clean, repaired, gap, rate)
            predictions[method] = looks.predicted_distance_db(seen["band_level_db"], view.levels(fill))
        if length_s <= looks.PHASE_S:
            seen["waveform"] = looks.waveform_bounds(source, gap, [gap])
    truth = {domain: looks.truth(Clip(clean, rate), gap, raw) for domain, raw in seen.items()}
    name = f"{row.source}/{row.recording}"
    models = {"bounds": digest(bounds), "fills": digest(fills)}
    keep(path, Measured(name, row.sha256, rate, length_s, seen, truth, distances, predictions, models))
    return str(path.name)


def sample_clip(job: tuple[Any, ...]) -> str:
    """Add the bounds over draws, and the student's, to a clip that was measured."""
    import dataclasses

    import torch
    from threadpoolctl import threadpool_limits

    from sfumato.model import load
    from sfumato.systems import conffusion, n_conffusion
    from sfumato.tasks import fill, looks
    from sfumato.tasks.windows import Clip, fill_group

    number, index, row, options = job
    path = options.out / f"clip-{number:03d}-{index}.pickle"
    clip = pickle.loads(path.read_bytes())
    if "dm_sb" in clip.seen and (options.student is None or "dm_sba" in clip.seen):
        return str(path.name)
    torch.set_num_threads(1)
    clean, gap = cut(number, index, row, options)
    clean[:, gap[0] : gap[1]] = 0.0
    source, seed = Clip(clean, row.sample_rate), options.seed * 1_000_003 + 10 * number + index
    with threadpool_limits(limits=1):
        filled = fill_group(source, [gap], [gap], lambda part: fill.fill_ar(part, 1, seed, None), seed)
        view = looks.view(source, gap, [gap], filled)
        picture = looks.picture_of(view)
        seen = dict(clip.seen)
        if "dm_sb" not in seen:
            model = load("conffusion")
            quantiles = conffusion.sample_bounds(
                model.network, model.config, picture, (0.05, 0.5, 0.95), draws=DRAWS, seed=seed, item=0, steps=STEPS
            )
            seen["dm_sb"] = looks.band_interval(view, *quantiles)
        if options.student is not None:
            student = load(options.student)
            (learnt,) = n_conffusion.bound_levels(student.network, student.config, [picture])
            seen["dm_sba"] = looks.band_interval(view, learnt.lower_db, learnt.point_db, learnt.upper_db)
    keep(path, dataclasses.replace(clip, seen=seen))
    return str(path.name)


def keep(path: Path, clip: Any) -> None:
    """Write one clip's file, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(pickle.dumps(clip))
    temporary.replace(path)


def calibrate(options: argparse.Namespace) -> None:
    """Write one record per domain, level and guarantee, and per method and level of quality."""
    from confidence_tables import read
    from sfumato.config import dump_yaml
    from sfumato.data import manifest
    from sfumato.errors import CalibrationError
    from sfumato.interval.groups import Axis
    from sfumato.interval.record import disjoint
    from sfumato.model import digest, load
    from sfumato.tasks.calibration import calibrate_interval, calibrate_quality
    from sfumato.tasks.confidence import made_with
    from sfumato.tasks.repair import Settings

    clips, model, fills = read(options.out), digest(load(BOUNDS)), load("conffusion")
    rows = manifest.read(options.data / "manifest.jsonl")
    seen = contents_of([row for row in rows if row.split in ("train", "validation")])
    disjoint(seen, {clip.recording: clip.sha256 for clip in clips}, contents_of(manifest.select(rows, "test")))
    if any(clip.models != {"bounds": model, "fills": digest(fills)} for clip in clips):
        raise SystemExit(f"Clips in {options.out} were measured with other models. Measure them anew.")
    options.to.mkdir(parents=True, exist_ok=True)
    gap_axis = Axis(name="gap_s", edges=GAP_EDGES_S)
    axes = {
        domain: (
            gap_axis,
            Axis(name="frequency_hz", edges=FREQUENCY_EDGES_HZ),
            Axis(name="edge_s", edges=EDGE_EDGES_S),
        )
        for domain in DOMAINS[:2]
    } | {"waveform": (Axis(name="gap_s", edges=GAP_EDGES_S[:2]), Axis(name="edge_s", edges=SAMPLE_EDGE_EDGES_S))}
    for level in LEVELS:
        for domain in DOMAINS:
            for kind in KINDS:
                made = {"level": level, "kind": kind, "delta": None if kind == "crc" else DELTA, "model": model}
                try:
                    record = calibrate_interval(clips, domain, axes[domain], **made)
                except CalibrationError as error:
                    print(f"{domain} {level} {kind}: {error}")
                    continue
                dump_yaml(record, options.to / f"{domain}-{100 * level:.0f}-{kind}.yaml")
                print(f"{domain} {level} {kind}:", [(g.ranges, round(g.value, 2), g.n_clips) for g in record.groups])
        for method in METHODS:
            settings = Settings(method=method)
            used = made_with(settings, fills if method in ("auto", "diffusion") else None)
            record = calibrate_quality(clips, method, gap_axis, level=level, model=model, made_with=used)
            dump_yaml(record, options.to / f"band_distance_db-{100 * level:.0f}-{method}.yaml")
            print(f"quality {method} {level}:", [(g.ranges, round(g.value, 2), g.n_clips) for g in record.groups])


def contents_of(rows: list[Any]) -> dict[str, str]:
    """Recordings by name, with the hash of their content."""
    return {f"{row.source}/{row.recording}": row.sha256 for row in rows}


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "sampled", "calibrate", "table", "rivals", "draw"))
    parser.add_argument("--data", type=Path, help="folder of a built manifest")
    parser.add_argument("--split", choices=("calibration", "validation", "test"), default="calibration")
    parser.add_argument("--renders", action="store_true", help="renders of scores instead of recordings")
    parser.add_argument("--out", type=Path, required=True, help="folder for one file per clip")
    parser.add_argument("--shifted", type=Path, help="another such folder, for the table")
    parser.add_argument("--calibration", type=Path, help="another such folder, for the rivals")
    parser.add_argument("--student", help="model that learnt the sampled bounds")
    parser.add_argument("--to", type=Path, default=Path("calibrations"), help="folder of the calibration records")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if options.what == "calibrate":
        calibrate(options)
    elif options.what == "table":
        print_table(options)
    elif options.what == "draw":
        draw(options)
    elif options.what == "rivals":
        print_rivals(options)
    else:
        from sfumato.data import manifest

        options.out.mkdir(parents=True, exist_ok=True)
        rows = manifest.read(options.data / "manifest.jsonl")
        splits = get_args(manifest.Split) if options.renders else (options.split,)  # nothing was made with renders
        rows = [row for split in splits for row in manifest.select(rows, split, options.renders)]
        rows = sorted((row for row in rows if row.seconds > 7), key=lambda row: (row.source, row.recording))
        works = [row.work for row in rows]
        chosen = [(n, row) for n, row in enumerate(rows) if row.work not in works[:n]]  # versions aren't independent
        sampled = options.what == "sampled"
        ranges = SAMPLED_RANGES if sampled else range(len(GAP_EDGES_S) - 1)
        jobs = [(n, i, row, options) for i in ranges for n, row in chosen]
        with ProcessPoolExecutor(options.processes) as pool:
            for done, name in enumerate(pool.map(sample_clip if sampled else measure_clip, jobs), start=1):
                print(f"{done}/{len(jobs)} {name}", flush=True)


if __name__ == "__main__":
    main()
