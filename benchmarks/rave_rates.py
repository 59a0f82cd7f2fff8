"""Rate and distortion of `.sfz` files beside Opus: `benchmarks/rave.py rates`, its table and its picture.

A file's rate is all of its bytes, header and checksums too; Opus is counted without its container.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from rave import FIDELITIES, METRICS, OPUS_KBPS, SECONDS, excerpts, opus, score, through

STEPS = (0.05, 0.1, 0.3, 1.0)
INKS = ("#2b2d42", "#118ab2", "#8ac6d9", "#f6bd60")
OPUS_INK, PAPER, GREY = "#ef476f", "#fbfaf8", "#888888"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "rave-rates.png"


def rates(options: argparse.Namespace) -> None:
    """Encode and decode every test work's excerpt at each fidelity and step, and by Opus; writes rates.json."""
    from sfumato import player
    from sfumato.tasks import codec

    model, rows = player.load(options.model), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "excerpt.sfz"
        for work, audio, rate in excerpts(options.data, SECONDS, options.seed, options.limit):
            rows.append({"work": work, "way": "not stored", "kbps": 0.0, **score(audio, through(model, audio), rate)})
            for fidelity in FIDELITIES:
                for step in STEPS:
                    how = codec.Settings(model=options.model, fidelity=fidelity, step=step)
                    done = codec.encode(audio[None], path, sample_rate=rate, settings=how)
                    back = codec.decode(path, model=options.model).audio
                    assert back is not None
                    at = {"way": f"fidelity {fidelity:g}", "step": step, "dims": done.dims, "kbps": done.kbit_s}
                    rows.append({"work": work, **at, **score(audio, back[0], rate)})
            for kbps in OPUS_KBPS:
                made, real = opus(audio, rate, kbps)
                rows.append({"work": work, "way": "Opus", "step": kbps, "kbps": real, **score(audio, made, rate)})
            print(work, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rates.json").write_text(json.dumps(rows, indent=1))


def points(out: Path) -> dict[tuple[str, float], list[dict[str, Any]]]:
    """(way, step or Opus's nominal rate) -> its rows."""
    found: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in json.loads((out / "rates.json").read_text()):
        found.setdefault((row["way"], row.get("step", 0.0)), []).append(row)
    return found


def table(out: Path) -> None:
    """Print rate and distortion of each way, where they were measured."""
    from sfumato.metrics.bootstrap import bootstrap

    if not (out / "rates.json").exists():
        return
    found = points(out)
    n = len(next(iter(found.values())))
    print(f"\nRate and distortion of .sfz files, n = {n} works, {SECONDS:g} s of each; mean [95 % bootstrap]\n")
    print(f"| way | step | numbers a frame | kbit/s | {' | '.join(METRICS.values())} |\n|{'---|' * (len(METRICS) + 4)}")
    for (way, step), rows in found.items():
        works, cells = [row["work"] for row in rows], []
        for name in ("kbps", *METRICS):
            got = bootstrap(np.array([row[name] for row in rows]), works)
            digits = 4 if name == "zimtohrli" else 2
            cells.append(f"{got.value:.{digits}f} [{got.lower:.{digits}f}, {got.upper:.{digits}f}]")
        stored = f"{step:g} | {rows[0]['dims']}" if "dims" in rows[0] else "– | –"
        rate = "–" if way == "not stored" else cells[0]
        name = f"Opus, {step:g} kbit/s" if way == "Opus" else way
        print(f"| {name} | {stored} | {rate} | {' | '.join(cells[1:])} |")


def picture(options: argparse.Namespace) -> None:
    """Draw distortion over rate: docs/images/rave-rates.png."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = points(options.out)
    figure = Figure(figsize=(11, 3.2), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    lines = dict(zip((f"fidelity {fidelity:g}" for fidelity in FIDELITIES), INKS, strict=True)) | {"Opus": OPUS_INK}
    for plot, (metric, title) in zip(figure.subplots(1, len(METRICS)), METRICS.items(), strict=True):
        for way, ink in lines.items():
            rows = [rows for (own, _), rows in found.items() if own == way]
            middle = [[float(np.mean([row[name] for row in group])) for group in rows] for name in ("kbps", metric)]
            plot.plot(*middle, color=ink, marker="o", ms=3, lw=1.2, label=way)
        bound = float(np.mean([row[metric] for row in found["not stored", 0.0]]))
        plot.axhline(bound, color=GREY, lw=0.8, ls=":", label="the codec, not stored")
        plot.set_xscale("log")
        plot.set_xticks([0.5, 1, 5, 10, 50], labels=["0.5", "1", "5", "10", "50"])
        plot.minorticks_off()
        plot.set_xlabel("kbit/s")
        better = "more" if metric == "si_sdr" else "less"
        plot.set_title(f"{title} ({better} is better)", fontsize=9)
        plot.set_facecolor(PAPER)
    figure.axes[0].legend(fontsize=6, frameon=False)
    figure.savefig(PICTURE, dpi=110)
    print(PICTURE.name)
