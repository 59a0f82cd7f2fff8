"""Our classical fills beside the published ones, on the recordings of the authors of the comparison.

    python benchmarks/classical.py --audio docs/audio      # of a checkout of ondrejmokry/InpaintingAutoregressive

Its folder holds three recordings (violin, clarinet, piano), clean and as filled by the authors' methods, for gaps of
20, 50 and 80 ms. Where their fill differs from the clean file is where the gaps are. Printed is the SDR pooled over the
gaps of a recording, in dB.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf

from sfumato.signal.autoregressive import extrapolate, janssen, order_of, runs
from sfumato.tasks import fill as fills
from sfumato.tasks.fill import Fill, Window
from sfumato.tasks.windows import Clip, fill_group

LENGTHS_MS = (20, 50, 80)
LONGER_S, LONGER_CONTEXT_S = 2048 / 44100, 8192 / 44100


def longer(
    method: Callable[..., np.ndarray], window: Window, n_draws: int, seed: int, model: None, **settings: int
) -> Fill:
    """A fill of twice the order and context that `sfumato.tasks.fill` gives it: dense low partials need them."""
    near = window.near(LONGER_CONTEXT_S)
    order = order_of(LONGER_S, window.sample_rate)
    return Fill(method(window.x[near], window.known[near], order, **settings)[window.own[near]][None])


METHODS = (
    ("janssen", "gap-wise Janssen", fills.fill_janssen),
    (None, "gap-wise Janssen, order 2048", partial(longer, janssen, iterations=10)),
    ("extrapolation", "extrapolation", fills.fill_extrapolate),
    (None, "extrapolation, order 2048", partial(longer, extrapolate)),
    ("aspain", "A-SPAIN", fills.fill_aspain),
    (None, "mean of the AR posterior", fills.fill_ar_mean),
)


def gaps_of(clean: np.ndarray, restored: np.ndarray, length: int) -> list[tuple[int, int]]:
    """Gaps, from where a restored file differs; holes of a few equal samples are closed."""
    differs = np.abs(clean - restored) > 1e-6
    joined: list[list[int]] = []
    for start, stop in runs(differs):
        if joined and start - joined[-1][1] < 200:
            joined[-1][1] = stop
        else:
            joined.append([start, stop])
    return [(start, stop) for start, stop in joined if stop - start > length // 2]


def pooled_sdr(clean: np.ndarray, filled: np.ndarray, gaps: list[tuple[int, int]]) -> float:
    """Energy of the truth over that of the error, over all gaps, in dB."""
    inside = np.zeros(len(clean), dtype=bool)
    for start, stop in gaps:
        inside[start:stop] = True
    return float(10 * np.log10(np.sum(clean[inside] ** 2) / np.sum((clean - filled)[inside] ** 2)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True)
    folder: Path = parser.parse_args().audio
    names = sorted(path.name.removesuffix("_clean.wav") for path in folder.glob("*_clean.wav"))
    print(
        "| method | "
        + " | ".join(f"{name.split('_')[-1]} {'/'.join(map(str, LENGTHS_MS))} ms" for name in names)
        + " |"
    )
    print("|---" * (len(names) + 1) + "|")
    for theirs, title, method in METHODS:
        rows: dict[str, list[str]] = {"authors'": [], "ours": []}
        for name in names:
            ours, published = [], []
            clean, rate = sf.read(folder / f"{name}_clean.wav")
            for length_ms in LENGTHS_MS:
                restored, _ = sf.read(folder / f"{name}_{length_ms}_{theirs or 'janssen'}.wav")
                gaps = gaps_of(clean, restored, round(length_ms * rate / 1000))
                filled = clean.copy()
                for start, stop in gaps:
                    draws = fill_group(
                        Clip(clean[None], rate), [(start, stop)], gaps, partial(method, n_draws=4, seed=0, model=None)
                    ).draws
                    filled[start:stop] = draws[0, 0]
                ours.append(f"{pooled_sdr(clean, filled, gaps):.2f}")
                published.append(f"{pooled_sdr(clean, restored, gaps):.2f}")
            rows["ours"].append(" / ".join(ours))
            rows["authors'"].append(" / ".join(published))
        if theirs:
            print(f"| {title}, authors' | " + " | ".join(rows["authors'"]) + " |")
        print(f"| {title}, ours | " + " | ".join(rows["ours"]) + " |", flush=True)


if __name__ == "__main__":
    main()
