"""Tables of `benchmarks/inpainted.py`, and the trivial detectors that stand beside ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter, uniform_filter1d
from scipy.stats import beta, rankdata

from sfumato.signal.traces import HOP, INNOVATION_HZ, RATE, Traces
from sfumato.tasks.detect import EDGE_S, SMOOTHED, Detector, Reference, segments_of

Array = NDArray[np.float64]

ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2)
ALPHA = 0.05
IOU = 0.5
LENGTHS_MS = ((50, 100), (100, 250), (250, 500))
BASELINES = ("centre", "energy", "flux", "innovation")
RESAMPLES = 300


def baselines(x: Array, seen: Traces) -> dict[str, Array]:
    """Scores per frame of detectors that know nothing: the centre is guessed; the level, or the spectrum, changes; the
    prediction error of a linear model is low. Each is smoothed, and passes over the ends, as ours does."""
    n_frames = x.shape[1] // HOP + 1
    padded = np.pad(x.mean(axis=0), (2 * HOP, 3 * HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 4 * HOP)[::HOP][:n_frames] * np.hanning(4 * HOP)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-10)
    spectrum = np.log(np.abs(np.fft.rfft(frames)) + 1e-4)
    found = {
        "centre": -np.abs(np.arange(n_frames) - n_frames / 2),
        "energy": np.abs(level - median_filter(level, 87, mode="nearest")),
        "flux": np.abs(np.diff(spectrum, axis=0, prepend=spectrum[:1])).mean(axis=1),
        "innovation": -seen[-len(INNOVATION_HZ) : -1].mean(axis=0),
    }
    edge = round(EDGE_S * RATE / HOP)
    for name, values in found.items():
        found[name] = uniform_filter1d(values.astype(float), SMOOTHED, mode="nearest")
        found[name][:edge] = found[name][n_frames - edge :] = -np.inf
    return found


class Look:
    """Scores of one clip and its true gaps in seconds."""

    def __init__(self, scores: Array, gaps: Array) -> None:
        self.scores, self.gaps = scores, gaps
        self.seen = np.isfinite(scores)
        self.inside = self.frames(gaps)

    def frames(self, gaps: Array) -> NDArray[np.bool_]:
        """Frames centred in one of the gaps."""
        at = np.arange(len(self.scores)) * HOP / RATE
        inside = np.zeros(len(at), dtype=bool)
        for start, stop in gaps:
            inside |= (at >= start) & (at < stop)
        return inside


def auc(bad: Array, good: Array) -> float:
    """Chance that a bad one scores above a good one, ties counting half."""
    ranks = rankdata(np.concatenate([bad, good]))
    return float((ranks[: len(bad)].sum() - len(bad) * (len(bad) + 1) / 2) / (len(bad) * len(good)))


def error_rate(bad: Array, good: Array) -> float:
    """Share of errors of both kinds at the threshold where they are equal (EER)."""
    thresholds = np.unique(bad)
    missed = np.searchsorted(np.sort(bad), thresholds, side="left") / len(bad)
    false = 1 - np.searchsorted(np.sort(good), thresholds, side="left") / len(good)
    at = int(np.argmin(np.abs(missed - false)))
    return float(0.5 * (missed[at] + false[at]))


def exact(k: int, n: int) -> str:
    """A share with its exact 95 % binomial interval."""
    low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
    high = beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
    return f"{k / n:.1%} ({low:.1%}–{high:.1%})"


def split(looks: Sequence[Look]) -> tuple[Array, Array]:
    """Scores of frames in gaps, and of the others."""
    inside = np.concatenate([look.scores[look.seen & look.inside] for look in looks])
    outside = np.concatenate([look.scores[look.seen & ~look.inside] for look in looks])
    return inside, outside


def interval(looks: Sequence[Look]) -> str:
    """Frame AUC with its 95 % bootstrap over clips, each of another work."""
    random = np.random.default_rng(0)
    draws = [
        auc(*split([looks[i] for i in random.integers(len(looks), size=len(looks))])) for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{auc(*split(looks)):.3f} ({low:.3f}–{high:.3f})"


def found_in(look: Look, reference: Reference) -> list[tuple[float, float]]:
    """Segments at `ALPHA`."""
    return [(one.start, one.stop) for one in segments_of(look.scores, reference, ALPHA)]


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two stretches."""
    both = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return both / (a[1] - a[0] + b[1] - b[0] - both)


def f1(looks: Sequence[Look], reference: Reference) -> tuple[float, float, float]:
    """F1, precision and recall of segments, each right if its overlap with a gap is at least `IOU`."""
    right = named = true = 0
    for look in looks:
        segments = found_in(look, reference)
        named, true = named + len(segments), true + len(look.gaps)
        right += sum(any(overlap(gap, segment) >= IOU for segment in segments) for gap in look.gaps)
    precision, recall = right / max(1, named), right / max(1, true)
    return 2 * right / max(1, named + true), precision, recall


def row(name: str, looks: Sequence[Look], clean: Sequence[Look], reference: Reference) -> str:
    """One line: how well frames, segments and clips are told."""
    inside, outside = split(looks)
    tops, clean_tops = (np.array([look.scores.max() for look in group]) for group in (looks, clean))
    alarms = int((reference.p(tops) <= ALPHA + 1e-12).sum())
    value, precision, recall = f1(looks, reference)
    cells = [name, str(len(looks)), interval(looks), f"{error_rate(inside, outside):.3f}", f"{value:.2f}"]
    cells += [f"{precision:.2f}", f"{recall:.2f}", f"{auc(tops, clean_tops):.3f}", exact(alarms, len(looks))]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| {} | clips | frame AUC | frame EER | F1 | precision | recall | clip AUC | clips with p ≤ 0.05 |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def print_table(out: Path, detector: Detector) -> None:
    """All tables."""
    stored = [dict(np.load(path)) for path in sorted(out.glob("scores-*.npz"), key=lambda p: int(p.stem[7:]))]
    about = json.loads((out / "settings.json").read_text())
    whole = json.loads((out / "whole.json").read_text())
    if len(whole) != len(stored):
        raise SystemExit(f"{out} holds {len(stored)} clips and {len(whole)} whole recordings. Measure both.")
    works = [one["work"] for one in whole]
    clip = {channels: detector.reference(channels, 10.0) for channels in (1, 2)}
    sizes = ", ".join(f"{len(table)} of {length:g} s" for length, table in detector.clean.stereo.items())
    print(f"{about['split']} split, {len(stored)} recordings of {len(set(works))} works; clean windows: {sizes}\n")

    def looks(way: str, process: str = "as it is", kind: str = "score") -> list[Look]:
        """One clip of each work that has such a one: versions of a work aren't independent."""
        key = f"score|{way}|{process}" if kind == "score" else f"{kind}|{way}"
        own = {work: one for work, one in reversed(list(zip(works, stored, strict=True))) if key in one}
        return [Look(one[key], one[f"gaps|{way}|{process}"]) for one in reversed(own.values())]

    names = [key.split("|") for one in stored for key in one if key.startswith("score|")]
    ways = [way for way in dict.fromkeys(way for _, way, _ in names) if way != "clean"]
    processes = list(dict.fromkeys(process for *_, process in names))
    print("By way of filling:\n\n" + HEAD.format("way"))
    for way in ways:
        print(row(way, looks(way), looks("clean"), clip[2]))
    print("\nFills of `auto`, then processed, beside the clean clip processed alike:\n\n" + HEAD.format("then"))
    for process in processes:
        print(row(process, looks("auto", process), looks("clean", process), clip[1 if process == "mono" else 2]))
    print_lengths(ways, looks, clip[2])
    print_baselines(ways, looks)
    print_alarms(stored, whole, looks, processes, detector)


def print_lengths(ways: Sequence[str], looks: Any, reference: Reference) -> None:
    """Frame AUC, and the share of fills that a segment overlaps, by length of the fill."""
    titles = [f"{low}–{high} ms" for low, high in LENGTHS_MS]
    print("\nBy length: frame AUC; share of fills that a segment at alpha 0.05 overlaps:\n")
    print("| way | " + " | ".join(titles) + " |\n|---|" + "---|" * len(titles))
    for way in ways:
        cells = []
        for low, high in LENGTHS_MS:
            inside, hit, count = [], 0, 0
            for look in looks(way):
                own = [gap for gap in look.gaps if low <= 1e3 * (gap[1] - gap[0]) < high]
                inside.append(look.scores[look.frames(np.array(own).reshape(-1, 2)) & look.seen])
                count += len(own)
                hit += sum(any(overlap(gap, segment) > 0 for segment in found_in(look, reference)) for gap in own)
            bad = np.concatenate(inside)
            cells.append(f"{auc(bad, split(looks(way))[1]):.3f}; {hit / count:.0%}" if len(bad) else "")
        print(f"| {way} | " + " | ".join(cells) + " |")


def print_baselines(ways: Sequence[str], looks: Any) -> None:
    """The trivial detectors, calibrated on the clean test clips themselves, which favours them."""
    print("\nTrivial detectors on the same clips: frame AUC; clip AUC; F1\n")
    print("| way | " + " | ".join(BASELINES) + " |\n|---|" + "---|" * len(BASELINES))
    for way in ways:
        cells = []
        for name in BASELINES:
            own, clean = looks(way, kind=name), looks("clean", kind=name)
            tops, clean_tops = (np.array([look.scores.max() for look in group]) for group in (own, clean))
            value = f1(own, Reference([[top] for top in clean_tops]))[0]
            cells.append(f"{auc(*split(own)):.3f}; {auc(tops, clean_tops):.2f}; {value:.2f}")
        print(f"| {way} | " + " | ".join(cells) + " |")


def print_alarms(
    stored: Sequence[Any], whole: Sequence[Any], looks: Any, processes: Sequence[str], detector: Detector
) -> None:
    """How often clean recordings are accused; one of each work, and all of them where they are looked at whole."""
    print("\nClean recordings that get any segment, exact 95 % intervals:\n")
    print("| clean | recordings | " + " | ".join(f"alpha {alpha:g}" for alpha in ALPHAS) + " |")
    print("|---|---|" + "---|" * len(ALPHAS))
    firsts = [number for number, one in enumerate(whole) if one["work"] not in [had["work"] for had in whole[:number]]]
    groups = {}
    for process in processes:
        reference = detector.reference(1 if process == "mono" else 2, 10.0)
        groups[f"10 s, {process}"] = [float(reference.p(look.scores.max())) for look in looks("clean", process)]
    short = [float(detector.reference(2, float(one["short_s"])).p(one["short"].max())) for one in stored]
    groups["3 s, as it is"] = [short[i] for i in firsts]
    own = [detector.reference(2, one["seconds"]) for one in whole]
    p = [float(reference.p(np.array(max(one["tops"])))) for reference, one in zip(own, whole, strict=True)]
    groups["whole, as it is"] = [p[i] for i in firsts]
    for name, values in groups.items():
        cells = [exact(int((np.array(values) <= alpha + 1e-12).sum()), len(values)) for alpha in ALPHAS]
        print(f"| {name} | {len(values)} | " + " | ".join(cells) + " |")
    cells = [f"{sum(value <= alpha + 1e-12 for value in p)} of {len(p)}" for alpha in ALPHAS]
    print(f"| whole, all versions | {len(p)} | " + " | ".join(cells) + " |")
    cells = [f"{sum(reference.least_p <= alpha + 1e-12 for reference in own)} of {len(p)}" for alpha in ALPHAS]
    print(f"| of these short enough for that alpha | {len(p)} | " + " | ".join(cells) + " |")
