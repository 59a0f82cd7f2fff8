"""The tables of `benchmarks/repair.py`, out of the files it measured: metrics, differences, and the router's risks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

SPREADS = (0.0, 0.1, 0.2, 0.5, 1.0)
WAVEFORM_DB, PROMISE_DB = 3.0, 0.1
"""Where the AR mean predicts the waveform this well, `method auto` may not fall further than this behind it."""

METHODS = (
    "zero",
    "extrapolation",
    "janssen",
    "aspain",
    "ar draw",
    "straight line",
    "diffusion",
    "auto",
    "auto, mean of 16",
)

LISTENED_MS = (100, 200, 300, 500, 750)
"""Lengths at which the slow perceptual figures are taken."""


def read(out: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Every clip's body, its families joined, and its recording."""
    bodies: dict[int, dict[str, Any]] = {}
    for path in sorted(out.glob("clip-*.json")):
        body = json.loads(path.read_text())
        joined = bodies.setdefault(body["clip"], body)
        if joined is not body:
            joined["results"] += body["results"]
    return list(bodies.values()), [f"{body['source']}/{body['recording']}" for body in bodies.values()]


def column(bodies: list[dict[str, Any]], length_ms: int, method: str, figure: str) -> np.ndarray:
    """One figure over clips."""
    return np.array(
        [
            next(
                (r.get(figure, np.nan) for r in b["results"] if (r["length_ms"], r["method"]) == (length_ms, method)),
                np.nan,
            )
            for b in bodies
        ],
        dtype=np.float64,
    )


def interval(values: np.ndarray, recordings: list[str], **how: Any) -> str:
    """``mean [lower, upper]``; clips without the figure are left out."""
    from sfumato.metrics.bootstrap import bootstrap

    rows = np.isfinite(values if values.ndim == 1 else values.sum(axis=1))
    if rows.sum() < 2 or len(set(np.array(recordings)[rows])) < 2:
        return "–"
    e = bootstrap(values[rows], list(np.array(recordings)[rows]), **how)
    digits = 2 if np.abs(values[rows]).max() > 0.5 else 4
    n = "" if rows.all() else f" (n = {rows.sum()})"
    return f"{e.value:.{digits}f} [{e.lower:.{digits}f}, {e.upper:.{digits}f}]{n}"


def print_table(out: Path) -> None:
    """The benchmark as Markdown."""
    from sfumato.metrics.bootstrap import reduction

    bodies, recordings = read(out)
    lengths = sorted({r["length_ms"] for b in bodies for r in b["results"]})
    found = list(dict.fromkeys(r["method"] for r in bodies[0]["results"]))
    methods = [m for m in METHODS if m in found] + [m for m in found if m not in METHODS]
    print(f"n = {len(bodies)} clips of {len(set(recordings))} recordings; mean [95 % bootstrap over recordings]\n")
    titles = {
        "sdr": "SDR in the gap, dB (higher is better)",
        "band": "Band distance, dB (lower is better)",
        "bias": "Bias of the band levels, dB (0 is best)",
        "lsd": "Bin-wise log-spectral distance, dB (lower is better; two draws of one spectrum differ by about 8)",
        "zimtohrli": "Zimtohrli distance (lower is better)",
        "high": "Energy above 11 kHz, fill over truth, dB (0 is best; full-band clips only)",
        "jump": "Seam: sample jump, percentile of natural variation (50 is natural)",
        "spike": "Seam: high-band spike, percentile of natural variation (50 is natural)",
        "step": "Seam: spectral step, percentile of natural variation (50 is natural)",
    }
    for figure, title in titles.items():
        print(f"### {title}\n\n| method | " + " | ".join(f"{ms} ms" for ms in lengths) + " |")
        print("|---" * (len(lengths) + 1) + "|")
        for method in methods:
            cells = [interval(column(bodies, ms, method, figure), recordings) for ms in lengths]
            print(f"| {method} | " + " | ".join(cells) + " |")
        print()
    print("### Differences, paired by clip\n\n| | " + " | ".join(f"{ms} ms" for ms in lengths) + " |")
    print("|---" * (len(lengths) + 1) + "|")
    for title, a, b, figure in (
        ("SDR: mean of 16 draws − Janssen, dB", "auto, mean of 16", "janssen", "sdr"),
        ("SDR: auto − Janssen, dB", "auto", "janssen", "sdr"),
        ("band distance: diffusion − AR draw, dB", "diffusion", "ar draw", "band"),
        ("band distance: diffusion − straight line, dB", "diffusion", "straight line", "band"),
        ("log-spectral distance: diffusion − AR draw, dB", "diffusion", "ar draw", "lsd"),
        ("Zimtohrli: diffusion − AR draw", "diffusion", "ar draw", "zimtohrli"),
    ):
        cells = [interval(column(bodies, ms, a, figure) - column(bodies, ms, b, figure), recordings) for ms in lengths]
        print(f"| {title} | " + " | ".join(cells) + " |")
    pairs = [np.stack([column(bodies, ms, m, "band") for m in ("diffusion", "ar draw")], axis=1) for ms in lengths]
    shares = [interval(100 * p, recordings, statistic=lambda v: 100 * reduction(v)) for p in pairs]
    print("| band distance: diffusion below AR draw, % | " + " | ".join(shares) + " |\n")
    print_frechet(out, bodies, methods, lengths)


def print_frechet(out: Path, bodies: list[dict[str, Any]], methods: list[str], lengths: list[int]) -> None:
    """Fréchet distances of the embeddings to those of the clean clips."""
    from sfumato.metrics.frechet import frechet_distance, gaussian

    stored = {
        body["clip"]: {
            key: value
            for path in sorted(out.glob(f"clip-{body['clip']:04d}.*.npz"))
            for key, value in np.load(path).items()
        }
        for body in bodies
    }
    if not all("clean" in embeddings for embeddings in stored.values()):
        return
    longer = [ms for ms in lengths if ms in LISTENED_MS]
    print("### Fréchet distance of musicnn embeddings to the clean clips (lower is better)\n")
    print("| method | " + " | ".join(f"{ms} ms" for ms in longer) + " |")
    print("|---" * (len(longer) + 1) + "|")
    for method in methods:
        cells = []
        for ms in longer:
            own = [e for e in stored.values() if f"{ms}|{method}" in e]
            if len(own) < 2:
                break
            fill, clean = (gaussian(np.concatenate([e[key] for e in own])) for key in (f"{ms}|{method}", "clean"))
            n = "" if len(own) == len(bodies) else f" (n = {len(own)})"
            cells.append(f"{frechet_distance(*fill, *clean):.4f}{n}")
        if cells:
            print(f"| {method} | " + " | ".join(cells) + " |")
    print()


def print_risk(out: Path) -> None:
    """Figures by spread on the validation split, and the lines for the model's card."""
    bodies, recordings = read(out)
    lengths = sorted({r["length_ms"] for b in bodies for r in b["results"]})
    print(f"n = {len(bodies)} clips of {len(set(recordings))} recordings")
    names = [f"spread {spread:g}" for spread in SPREADS] + ["ar draw"]
    for figure in ("zimtohrli", "sdr", "band", "bias", "lsd"):
        print(f"{figure:10}" + "".join(f"{ms:>9} ms" for ms in lengths))
        for name in names:
            values = [np.nanmean(column(bodies, ms, name, figure)) for ms in lengths]
            print(f"{name:10}" + "".join(f"{value:12.4f}" for value in values))
    print(f"\n# spreads within {PROMISE_DB} dB of the AR mean's SDR, where that is {WAVEFORM_DB} dB or more")
    for name, value in risks(bodies).items():
        print(f"{name}: {value:.6f}")


def risks(bodies: list[dict[str, Any]]) -> dict[str, float]:
    """Mean Zimtohrli distance of each spread at each length, as `conffusion.spread` reads it off a card."""
    found = {}
    for ms in sorted({r["length_ms"] for b in bodies for r in b["results"]}):
        best = np.nanmean(column(bodies, ms, "spread 0", "sdr"))
        for spread in SPREADS:
            lost = best - np.nanmean(column(bodies, ms, f"spread {spread:g}", "sdr"))
            if best < WAVEFORM_DB or lost <= PROMISE_DB:
                value = np.nanmean(column(bodies, ms, f"spread {spread:g}", "zimtohrli"))
                found[f"risk_{spread:g}_{ms}ms"] = round(float(value), 6)
    return found
