"""How well damage is found: seeded damage laid on real recordings, and false finds in the same recordings undamaged.

    python benchmarks/detection.py --data DIR --split test
    python benchmarks/detection.py --data DIR --split train --fit     # prints the click detector's weights

DIR holds `manifest.jsonl` (one JSON object a line: source, recording, path, split) and the WAV files it names.

A true gap counts as found if finds of any kind cover at least 90 % of its samples; a find counts as right if true
gaps, widened by 2 ms on either side, cover at least half of it. Recall is of true gaps of a kind, precision of finds
that call themselves that kind. Intervals are 95 % percentile bootstraps over recordings. False finds per ten minutes
are counted on whole, undamaged recordings.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from sfumato.data.damage import KINDS, damage
from sfumato.signal import clicks
from sfumato.signal.damage import Find, find_gaps

Audio = NDArray[np.float64]
MARGIN_S = 0.002
Detector = Callable[[Audio, int], list[Find]]


@dataclass
class Counts:
    """What one detector did on one recording."""

    seconds: float = 0.0
    spent: float = 0.0
    clean: Counter[str] = field(default_factory=Counter)
    laid: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)


def ours(audio: Audio, sample_rate: int) -> list[Find]:
    """Sfumato's detector, fed a second at a time."""
    n = audio.shape[1]
    blocks = ((a, audio[:, a : a + sample_rate]) for a in range(0, n, sample_rate))
    return find_gaps(blocks, sample_rate, len(audio))


def trivial(audio: Audio, sample_rate: int) -> list[Find]:
    """The baseline: runs of zeros, of one value, and of non-finite samples of 1 ms or more, and first differences
    over 12 times their RMS in the second around them. No dropouts.
    """
    finds: list[Find] = []
    join = round(0.005 * sample_rate)
    for x in audio:
        bad = ~np.isfinite(x)
        y = np.where(bad, 0.0, x)
        step = np.diff(y, prepend=y[:1])
        size = round(0.5 * sample_rate)
        blocks = np.sqrt([np.mean(step[a : a + size] ** 2) for a in range(0, len(step), size)])
        jump = np.abs(step) > 12 * np.repeat(blocks, size)[: len(step)] + 1e-4
        kinds = (("nan", bad, 1), ("zeros", (y == 0) & ~bad, 44), ("stuck", (step == 0) & (y != 0), 44))
        for kind, flags, shortest in kinds:
            runs = np.flatnonzero(np.diff(np.r_[False, flags, False])).reshape(-1, 2)
            finds += [Find(a, b, kind) for a, b in runs.tolist() if b - a >= shortest]
        at = np.flatnonzero(jump)
        if at.size:
            ends = np.flatnonzero(np.diff(at) > join)
            pairs = zip(at[np.r_[0, ends + 1]].tolist(), at[np.r_[ends, at.size - 1]].tolist(), strict=True)
            finds += [Find(a - 22, b + 22, "click") for a, b in pairs]
    return sorted(finds)


def measure(detector: Detector, audio: Audio, sample_rate: int, excerpt: tuple[Audio, Audio, list[Find]]) -> Counts:
    """What a detector does on a whole recording, and on its damaged excerpt (clean, damaged, true gaps)."""
    counts = Counts(seconds=audio.shape[1] / sample_rate)
    begin = time.process_time()
    counts.clean.update(find.kind for find in detector(audio, sample_rate))
    counts.spent = time.process_time() - begin
    _, damaged, gaps = excerpt
    finds = detector(damaged, sample_rate)
    covered = np.zeros(damaged.shape[1] + 1)
    for find in finds:
        covered[max(0, find.start) : find.stop] = 1
    total = np.r_[0, np.cumsum(covered)]
    near, margin = np.zeros(damaged.shape[1]), round(MARGIN_S * sample_rate)
    for gap in gaps:
        near[max(0, gap.start - margin) : gap.stop + margin] = 1
    for gap in gaps:
        counts.laid[gap.kind] += 1
        counts.found[gap.kind] += bool(total[gap.stop] - total[gap.start] >= 0.9 * (gap.stop - gap.start))
    for find in finds:
        counts.named[find.kind] += 1
        counts.right[find.kind] += bool(near[max(0, find.start) : find.stop].mean() >= 0.5)
    return counts


def rate(counts: list[Counts], kinds: tuple[str, ...]) -> tuple[float, float, float, float]:
    """Recall, precision, F1, and false finds per ten minutes of clean music."""

    def total(name: str) -> int:
        return sum(getattr(c, name)[kind] for c in counts for kind in kinds)

    recall = total("found") / max(1, total("laid"))
    precision = total("right") / total("named") if total("named") else float("nan")
    f1 = 2 * recall * precision / max(1e-12, recall + precision) if total("named") else float("nan")
    return recall, precision, f1, total("clean") / sum(c.seconds for c in counts) * 600


def table(counts: list[Counts], seed: int) -> Iterator[str]:
    """Lines of the table for one detector."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(counts), size=(1000, len(counts)))
    for kinds in (*((kind,) for kind in KINDS), KINDS):
        values = np.array(rate(counts, kinds))
        draws = np.array([rate([counts[i] for i in pick], kinds) for pick in picks])
        low, high = np.nanpercentile(np.where(np.isnan(draws).all(0), 0.0, draws), [2.5, 97.5], axis=0)
        cells = [
            f"{v:.3f} [{a:.3f}, {b:.3f}]" if np.isfinite(v) else "none"
            for v, a, b in zip(values, low, high, strict=True)
        ]
        laid = sum(c.laid[kind] for c in counts for kind in kinds)
        yield f"| {kinds[0] if len(kinds) == 1 else '**all**'} | {laid} | " + " | ".join(cells) + " |"


def recordings(data: Path, split: str) -> Iterator[tuple[str, Audio, int]]:
    """Name, audio and rate of every recording of a split."""
    for line in (data / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["split"] in split.split(",") and not row["rendered"]:
            audio, sample_rate = soundfile.read(data / row["path"], always_2d=True)
            yield f"{row['source']}/{row['recording']}", audio.T, sample_rate


def excerpt_of(audio: Audio, sample_rate: int, seed: int, n_gaps: int) -> tuple[Audio, Audio, list[Find]]:
    """A minute of the recording, the same damaged, and the true gaps."""
    length = min(audio.shape[1], 60 * sample_rate)
    start = int(np.random.default_rng(seed).integers(0, audio.shape[1] - length + 1))
    clean = audio[:, start : start + length]
    damaged, gaps = damage(clean, sample_rate, n_gaps, seed)
    return clean, damaged, gaps


def fit(data: Path, split: str, seed: int, minutes: float, false_per_ten: float) -> None:
    """Print the weights of the click detector: logistic regression of simulated clicks against all other suspects.

    The bias is then set to allow the given number of false finds per ten minutes of the same clean recordings.
    """
    rows: list[tuple[float, ...]] = []
    labels: list[int] = []
    moments: list[tuple[int, int]] = []
    seconds = 0.0
    for i, (name, audio, sample_rate) in enumerate(recordings(data, split)):
        audio = audio[:, : round(minutes * 60 * sample_rate)]
        seconds += audio.shape[1] / sample_rate
        clean = audio[:, : 40 * sample_rate]
        damaged, gaps = damage(clean, sample_rate, 25, seed + i, kinds=("click",))
        for x, y, hurt in zip(audio, clean, damaged, strict=True):
            for suspect in every_suspect(x, sample_rate):
                rows.append(suspect.evidence)
                labels.append(0)
                moments.append((i, suspect.start // sample_rate))
            for suspect in every_suspect(hurt, sample_rate):
                if any(suspect.start < g.stop and g.start < suspect.stop for g in gaps) and not np.array_equal(
                    hurt[suspect.start : suspect.stop], y[suspect.start : suspect.stop]
                ):
                    rows.append(suspect.evidence)
                    labels.append(1)
                    moments.append((-1, len(moments)))
        print(f"{name}: {len(labels)} suspects, {sum(labels)} of them clicks", file=sys.stderr, flush=True)
    x, y = np.array(rows), np.array(labels)
    centre, spread = x.mean(0), x.std(0)
    z = np.c_[np.ones(len(x)), (x - centre) / spread]
    w = np.zeros(z.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-np.clip(z @ w, -30, 30)))
        curvature = z.T @ (z * (p * (1 - p))[:, None]) + np.diag([0.0] + [1.0] * (len(w) - 1))
        w = w + np.linalg.solve(curvature, z.T @ (y - p) - np.r_[0.0, w[1:]])
    weights = w[1:] / spread
    scores = x @ weights
    worst: dict[tuple[int, int], float] = {}
    for score, label, moment in zip(scores, y, moments, strict=True):
        if not label:
            worst[moment] = max(worst.get(moment, -np.inf), score)
    allowed = int(false_per_ten * seconds / 600)
    threshold = sorted(worst.values(), reverse=True)[allowed]
    print(f"BIAS = {-threshold:.4f}\nWEIGHTS = np.array({np.round(weights, 4).tolist()})")
    print(f"# {seconds / 60:.0f} min, {int(y.sum())} clicks, kept {np.mean(scores[y == 1] > threshold):.4f}")


def every_suspect(x: Audio, sample_rate: int) -> list[clicks.Suspect]:
    """All suspects of a signal, in one go, in samples of the signal."""
    hop = clicks.hop_length(sample_rate)
    padded = np.r_[np.zeros(8 * hop), x, np.zeros(8 * hop + -len(x) % hop)]
    found = clicks.suspects(padded, 8 * hop, 8 * hop + len(x), sample_rate)
    return [replace(s, start=s.start - 8 * hop, stop=s.stop - 8 * hop) for s in found]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test", help="one or several, joined by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gaps", type=int, default=15, help="gaps laid on a minute of each recording")
    parser.add_argument("--list", action="store_true", help="name the recordings with false finds")
    parser.add_argument("--fit", action="store_true", help="print the weights of the click detector instead")
    parser.add_argument("--minutes", type=float, default=3.0, help="of each recording, for --fit")
    parser.add_argument("--allow", type=float, default=0.4, help="false finds per ten minutes, for --fit")
    settings = parser.parse_args()
    if settings.fit:
        fit(settings.data, settings.split, settings.seed, settings.minutes, settings.allow)
        return
    results: dict[str, list[Counts]] = {"sfumato": [], "trivial": []}
    for i, (name, audio, sample_rate) in enumerate(recordings(settings.data, settings.split)):
        excerpt = excerpt_of(audio, sample_rate, settings.seed + i, settings.gaps)
        for key, detector in (("sfumato", ours), ("trivial", trivial)):
            results[key].append(measure(detector, audio, sample_rate, excerpt))
        last = results["sfumato"][-1]
        if settings.list:
            note = {k: f"{last.found[k]}/{v}" for k, v in last.laid.items() if last.found[k] < v}
            print(
                f"{name} ({last.seconds:.0f} s): clean {dict(last.clean)}, missed {note}", file=sys.stderr, flush=True
            )
    for key, counts in results.items():
        seconds, spent = sum(c.seconds for c in counts), sum(c.spent for c in counts)
        print(
            f"\n**{key}**, {settings.split} split, {len(counts)} recordings, {seconds / 60:.0f} minutes, "
            f"seed {settings.seed}, {seconds / spent:.0f} times real time on one core\n"
        )
        print("| kind | gaps laid | recall | precision | F1 | false finds per 10 min of clean music |")
        print("|---|---|---|---|---|---|")
        print("\n".join(table(counts, settings.seed)))


if __name__ == "__main__":
    main()
