"""The tables of `benchmarks/confidence_recordings.py`, out of the clips it measured and the records it calibrated."""

from __future__ import annotations

import argparse
import itertools
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

LEVEL = 0.9
UNITS = {"band_level_db": "dB", "bin_level_db": "dB", "waveform": "of the sound's own level"}


def read(out: Path) -> list[Any]:
    """Every measured clip (files this script wrote itself)."""
    return [pickle.loads(path.read_bytes()) for path in sorted(out.glob("clip-*.pickle"))]


def print_table(options: argparse.Namespace) -> None:
    """Coverage, widths and quality bounds, by range of gap lengths and by corpus."""
    from confidence_recordings import contents_of
    from sfumato.config import load_yaml
    from sfumato.data import manifest
    from sfumato.interval.record import Calibration, disjoint

    records = [load_yaml(path, Calibration) for path in sorted(options.to.glob("*.yaml"))]
    rows = manifest.read(options.data / "manifest.jsonl")
    seen = contents_of([row for split in ("train", "validation") for row in manifest.select(rows, split, False)])
    tested = {c.recording: c.sha256 for f in (options.out, options.shifted) if f for c in read(f)}
    for record in records:
        disjoint(seen, record.recordings, tested)
    for title, folder in (("Held-out recordings", options.out), ("Renders of scores", options.shifted)):
        if folder is None:
            continue
        own = read(folder)
        print(f"\n## {title}: {len(own)} clips of {len({clip.recording for clip in own})} recordings")
        for domain in UNITS:
            print_domain(own, {r.kind: r for r in records if (r.domain, r.level) == (domain, LEVEL)}, domain)
        qualities = [r for r in records if r.domain == "band_distance_db" and r.level == LEVEL]
        print_quality(own, qualities)


def print_domain(clips: Sequence[Any], by_kind: dict[str, Any], domain: str) -> None:
    """One domain: ranges of gap lengths, corpora, guarantees, widths."""
    own = [clip for clip in clips if domain in clip.seen]
    edges = by_kind["crc"].axes[0].edges
    scored = [Scored(clip, domain, by_kind["crc"]) for clip in own]
    unit = UNITS[domain]
    print(f"\n### {domain}, level {LEVEL:g}, on average over calibrations (crc)\n")
    head = (
        "clips | share of cells inside, mean over clips | recordings of which one random cell lies inside "
        f"[exact 95 %] | median width, {unit} | Spearman(width, error)"
    )
    print(f"| gap, ms | {head} |\n|---|---|---|---|---|---|")
    for low, high in [*itertools.pairwise(edges), (0.0, 9.0)]:
        what = "all" if high == 9.0 else f"{1e3 * low:.0f} to {1e3 * high:.0f}"
        print_row(what, [s for s in scored if low <= s.gap_s < high])
    print(f"\n| corpus | {head} |\n|---|---|---|---|---|---|")
    for corpus in sorted({s.corpus for s in scored}):
        print_row(corpus, [s for s in scored if s.corpus == corpus])
    print(f"\n| guarantee | {head} |\n|---|---|---|---|---|---|")
    for kind, record in by_kind.items():
        print_row(kind, [Scored(clip, domain, record) for clip in own])
    print("\n| cells by width: fifth | widths | share inside ± standard error over clips |\n|---|---|---|")
    for number, stratum in enumerate(strata(scored), start=1):
        span = f"{stratum.width_min:.3g} to {stratum.width_max:.3g}"
        print(f"| {number} | {span} | {stratum.coverage:.3f} ± {stratum.standard_error:.3f} |")


class Scored:
    """A clip with its calibrated interval: which cells are inside, and how wide they are."""

    def __init__(self, clip: Any, name: str, record: Any) -> None:
        from sfumato.errors import CalibrationError
        from sfumato.interval.coverage import spearman
        from sfumato.tasks.confidence import widened

        raw = clip.seen[name]
        truth = clip.truth[raw.domain]
        self.recording, self.gap_s, self.corpus = clip.recording, clip.gap_s, clip.recording.split("/")[0]
        try:
            bounded = widened(raw, record)
        except CalibrationError:
            self.inside = None
            return
        counts = raw.counts
        level = np.sqrt(np.mean(truth**2)) + 1e-9 if raw.domain == "waveform" else 1.0
        self.inside = ((bounded.lower <= truth) & (truth <= bounded.upper))[counts]
        self.widths = (bounded.upper - bounded.lower)[counts] / level
        self.spearman = spearman(self.widths, np.abs(truth - raw.interval.point)[counts])


def covered(scored: Sequence[Scored]) -> list[Scored]:
    """Those that the calibration covers."""
    return [s for s in scored if s.inside is not None]


def print_row(what: str, scored: Sequence[Scored]) -> None:
    """Coverage and width of some clips."""
    from sfumato.interval.coverage import clopper_pearson

    own = covered(scored)
    if not own:
        print(f"| {what} | none of {len(scored)} covered | – | – | – | – |")
        return
    single = one_of_each(own)
    hits = sum(bool(random.choice(s.inside)) for random, s in single)
    lower, upper = clopper_pearson(hits, len(single))
    shares = booted([s.inside.mean() for s in own], [s.recording for s in own])
    left = "" if len(own) == len(scored) else f" of {len(scored)}"
    print(
        f"| {what} | {len(own)}{left} | {shares} | {hits} of {len(single)} [{lower:.3f}, {upper:.3f}] | "
        f"{np.median([np.median(s.widths) for s in own]):.3g} | {np.mean([s.spearman for s in own]):.2f} |"
    )


def one_of_each(clips: Sequence[Any]) -> list[tuple[np.random.Generator, Any]]:
    """A random clip of each recording: exact intervals need independent clips. Each with its own random numbers."""
    chosen = []
    for i, name in enumerate(sorted({clip.recording for clip in clips})):
        random, own = np.random.default_rng([0, i]), [clip for clip in clips if clip.recording == name]
        chosen.append((random, own[int(random.integers(len(own)))]))
    return chosen


def strata(scored: Sequence[Scored], most: int = 2000) -> list[Any]:
    """Coverage by fifths of width, each clip with the same number of its cells at most."""
    from sfumato.interval.coverage import size_stratified

    random, parts = np.random.default_rng(0), []
    for i, s in enumerate(covered(scored)):
        chosen = random.permutation(len(s.widths))[:most]
        parts.append((s.widths[chosen], s.inside[chosen], np.full(len(chosen), i)))
    return size_stratified(*(np.concatenate(column) for column in zip(*parts, strict=True)), n_strata=5)


def print_quality(clips: Sequence[Any], records: Sequence[Any]) -> None:
    """How often the bound on the band distance held, with the exact binomial interval."""
    from sfumato.interval.coverage import clopper_pearson, spearman
    from sfumato.interval.record import values_at

    print(f"\n### Band distance of a fill at most its bound, level {LEVEL:g}\n")
    print(
        "| method | gap, ms | held | share [exact 95 %] | median bound, dB | median distance, dB | "
        "Spearman(bound, distance) |\n|---|---|---|---|---|---|---|"
    )
    for record in records:
        method, edges = record.made_with["method"], record.axes[0].edges
        spans = list(itertools.pairwise(edges))
        for low, high in [*spans, (edges[0], edges[-1])]:
            own = [c for c in clips if method in c.distance_db and low <= c.gap_s < high]
            if not own:
                continue
            whole = (low, high) == (edges[0], edges[-1])
            if whole:
                own = [clip for _, clip in one_of_each(own)]
            ratios = [float(values_at(record, {"gap_s": c.gap_s})) for c in own]
            bounds = np.array([r * c.predicted_db[method] for r, c in zip(ratios, own, strict=True)])
            true = np.array([clip.distance_db[method] for clip in own])
            held = int((true <= bounds).sum())
            lower, upper = clopper_pearson(held, len(own))
            what = "all, one of each recording" if whole else f"{1e3 * low:.0f} to {1e3 * high:.0f}"
            print(
                f"| {method} | {what} | {held} of {len(own)} | {held / len(own):.3f} [{lower:.3f}, {upper:.3f}] | "
                f"{np.median(bounds):.1f} | {np.median(true):.1f} | {spearman(bounds, true):.2f} |"
            )


RIVALS = {"band_level_db": "N-Conffusion, one pass", "dm_sba": "DM_SBA, one pass", "dm_sb": "DM_SB, sampled"}


def print_rivals(options: argparse.Namespace) -> None:
    """One-pass bounds beside sampled ones, each calibrated on the same clips for the same level."""
    from confidence_recordings import FREQUENCY_EDGES_HZ, GAP_EDGES_S, SAMPLED_RANGES
    from sfumato.interval.groups import Axis
    from sfumato.tasks.calibration import calibrate_interval

    axes = (Axis(name="gap_s", edges=GAP_EDGES_S), Axis(name="frequency_hz", edges=FREQUENCY_EDGES_HZ))
    clips, tested = ([c for c in read(f) if set(RIVALS) <= c.seen.keys()] for f in (options.calibration, options.out))
    records = {
        name: calibrate_interval(clips, name, axes, level=LEVEL, kind="crc", delta=None, model="0" * 64)
        for name in RIVALS
    }
    print(
        f"{len(clips)} calibration clips, {len(tested)} test clips, level {LEVEL:g} (crc).\n\n"
        "| gap, ms | bounds | raw share inside | share inside, calibrated | mean width, dB | width ÷ sampled's |\n"
        "|---|---|---|---|---|---|"
    )
    for index in SAMPLED_RANGES:
        low, high = GAP_EDGES_S[index : index + 2]
        own = [clip for clip in tested if low <= clip.gap_s < high]
        names = [clip.recording for clip in own]
        scored = {name: [Scored(clip, name, records[name]) for clip in own] for name in RIVALS}
        sampled = np.array([s.widths.mean() for s in scored["dm_sb"]])
        for name, title in RIVALS.items():
            raws = [raw_share(clip, name) for clip in own]
            widths = np.array([s.widths.mean() for s in scored[name]])
            print(
                f"| {1e3 * low:.0f} to {1e3 * high:.0f} | {title} | {np.mean(raws):.3f} | "
                f"{booted([s.inside.mean() for s in scored[name]], names)} | {widths.mean():.1f} | "
                f"{booted(widths, names, against=sampled)} |"
            )


def raw_share(clip: Any, name: str) -> float:
    """Share of cells inside before calibration."""
    raw, truth = clip.seen[name], clip.truth["band_level_db"]
    return float(((raw.interval.lower <= truth) & (truth <= raw.interval.upper))[raw.counts].mean())


def booted(values: Any, recordings: list[str], against: Any = None) -> str:
    """Mean, or ratio of means, and its bootstrap interval over recordings."""
    from sfumato.metrics.bootstrap import bootstrap

    if against is None:
        e = bootstrap(np.asarray(values, float), recordings)
    else:
        pairs = np.stack([values, against], axis=1)
        e = bootstrap(pairs, recordings, lambda rows: float(rows[:, 0].mean() / rows[:, 1].mean()))
    return f"{e.value:.3f} [{e.lower:.3f}, {e.upper:.3f}]"


def draw(options: argparse.Namespace) -> None:
    """Picture of coverage and width by gap length, and of coverage by width: docs/images/confidence.png."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from sfumato.config import load_yaml
    from sfumato.interval.record import Calibration

    records = [load_yaml(path, Calibration) for path in sorted(options.to.glob("*-crc.yaml"))]
    figure = Figure(figsize=(11, 3.6), layout="constrained", facecolor="#fbfaf8")
    FigureCanvasAgg(figure)
    cover, wide, strat = figure.subplots(1, 3)
    for folder, dashes, what in ((options.out, "-", "recordings"), (options.shifted, ":", "renders")):
        clips = read(folder) if folder else []
        for domain, ink in zip(UNITS, ("#118ab2", "#ef476f", "#2b2d42"), strict=True):
            record = next((r for r in records if (r.domain, r.level) == (domain, LEVEL)), None)
            own = [Scored(clip, domain, record) for clip in clips if domain in clip.seen]
            if not own or record is None:
                continue
            spans = list(itertools.pairwise(record.axes[0].edges))
            groups = [[s for s in covered(own) if low <= s.gap_s < high] for low, high in spans]
            at = [1e3 * float(np.sqrt(low * high)) for low, high in spans]
            shares = [np.array([s.inside.mean() for s in group]) for group in groups]
            error = [1.96 * share.std(ddof=1) / np.sqrt(len(share)) for share in shares]
            label = f"{domain}, {what}"
            cover.errorbar(at, [s.mean() for s in shares], error, color=ink, ls=dashes, marker="o", ms=3, label=label)
            if domain != "waveform":
                widths = [np.median([np.median(s.widths) for s in group]) for group in groups]
                wide.plot(at, widths, color=ink, ls=dashes, marker="o", ms=3)
            if folder is options.out:
                parts = strata(own)
                strat.plot(range(1, len(parts) + 1), [part.coverage for part in parts], color=ink, marker="o", ms=3)
    for axis in (cover, strat):
        axis.axhline(LEVEL, color="#888888", lw=0.8)
        axis.set_ylim(0.7, 1.0)
    for axis in (cover, wide):
        axis.set_xscale("log")
        axis.set_xticks([20, 50, 100, 200, 500, 1000], labels=["20", "50", "100", "200", "500", "1000"])
        axis.minorticks_off()
        axis.set_xlabel("gap, ms")
    cover.set_title(f"share of the truth inside, level {LEVEL:g}", fontsize=9)
    cover.legend(fontsize=6, frameon=False)
    wide.set_title("median width, dB", fontsize=9)
    strat.set_title("share inside, by fifths of width", fontsize=9)
    strat.set_xlabel("narrowest to widest")
    path = Path(__file__).parents[1] / "docs" / "images" / "confidence.png"
    figure.savefig(path, dpi=110)
    print(path.name)
