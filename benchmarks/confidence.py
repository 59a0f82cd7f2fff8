"""Are the promises kept? Calibrations drawn again and again, and what their intervals do to clips nobody calibrated on.

    python benchmarks/confidence.py synthetic

Each subcommand prints the table that stands in docs/confidence.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from sfumato.errors import CalibrationError
from sfumato.interval import calibrate, family
from sfumato.interval.coverage import clopper_pearson

Array = NDArray[np.float64]
Rule = Callable[[Array], int]

ALPHA = DELTA = 0.1
CELLS = 100
"""Cells of a synthetic clip. A real one has more, which only makes the counting of cells worse."""
VALUES = np.concatenate([np.geomspace(1.2, 1.6, 8), np.geomspace(1.61, 2.1, 64), np.geomspace(2.15, 7.0, 28)])
"""Parameters tried: closest around the ideal one, 1.75, where a step is 0.4 %."""
DIFFICULTY = np.array([0.7, 1.0, 1.4])
"""Factors on a clip's errors that its raw bounds know nothing of, equally likely."""


def true_risk(values: Array) -> Array:
    """Mean loss of all clips of the population, for each parameter of the family: exact."""
    return np.asarray(np.mean(2 * norm.sf(values[:, None] / DIFFICULTY), axis=1))


def draw(rng: np.random.Generator, clips: int, shared: float) -> Array:
    """Losses of newly drawn calibration clips, shape (values, clips).

    A cell's error is normal; the share `shared` of its variance is common to all cells of its clip. Raw bounds are
    the point ± 1.
    """
    common = rng.standard_normal((clips, 1), np.float32)
    own = rng.standard_normal((clips, CELLS), np.float32)
    error = rng.choice(DIFFICULTY, (clips, 1)) * (np.sqrt(shared) * common + np.sqrt(1 - shared) * own)
    point = np.zeros_like(error, np.float64)
    return family.losses(family.scores(family.from_bounds(point - 1, point, point + 1), error), VALUES)


def counting(losses: Array, n: int) -> int:
    """The seed's rule: Bentkus' bound with floor for ceil, as if `n` independent losses had been seen."""
    mean = losses.mean(axis=1)
    p = np.e * binom.cdf(np.floor(n * mean), n, ALPHA)
    failed = np.flatnonzero((p > DELTA) | (mean >= ALPHA))
    if failed.size and failed[-1] == len(mean) - 1:
        raise CalibrationError("The widest interval fails.")
    return int(failed[-1]) + 1 if failed.size else 0


def rules(clips: int) -> dict[str, Rule]:
    """Each rule of the table by name."""
    return {
        "RCPS, Hoeffding–Bentkus": partial(calibrate.rcps, alpha=ALPHA, delta=DELTA, kind="hoeffding_bentkus"),
        "RCPS, WSR": partial(calibrate.rcps, alpha=ALPHA, delta=DELTA, kind="wsr"),
        "risk control (CRC)": partial(calibrate.crc, alpha=ALPHA),
        "seed: cells counted": partial(counting, n=clips * CELLS),
        "seed, but clips counted": partial(counting, n=clips),
    }


def outcome(found: list[int], calibrations: int, risk: Array, ideal: float) -> tuple[str, str]:
    """Table cells of one rule: how often the limit was broken; mean risk and mean width beside the ideal."""
    broken = int(np.sum(risk[found] > ALPHA))
    low, high = clopper_pearson(broken, calibrations)
    refused = f", {calibrations - len(found)} refused" if len(found) < calibrations else ""
    means = f"{np.mean(risk[found]):.4f}, × {np.mean(VALUES[found]) / ideal:.2f}" if found else "none"
    return f"{broken / calibrations:.1%} ({low:.1%}–{high:.1%}){refused}", means


def synthetic(calibrations: int, seed: int) -> None:
    """Print how often each rule's interval breaks the limit, over calibrations on synthetic exchangeable clips."""
    began = time.process_time()
    risk = true_risk(VALUES)
    ideal = float(np.interp(-ALPHA, -risk, VALUES))
    head = "| clips | error shared in a clip | " + " | ".join(rules(1)) + " |\n" + "|---" * (2 + len(rules(1))) + "|"
    broken, means = [head], [head]
    for clips in (50, 200, 500):
        for shared in (0.0, 0.5, 0.9):
            rng = np.random.default_rng([seed, clips, round(shared * 10)])
            chosen: dict[str, list[int]] = {name: [] for name in rules(clips)}
            for _ in range(calibrations):
                losses = draw(rng, clips, shared)
                for name, rule in rules(clips).items():
                    try:
                        chosen[name].append(rule(losses))
                    except CalibrationError:
                        continue
            cells = [outcome(found, calibrations, risk, ideal) for found in chosen.values()]
            for lines, texts in zip((broken, means), zip(*cells, strict=True), strict=True):
                lines.append(f"| {clips} | {shared:.0%} | " + " | ".join(texts) + " |")
    print(f"{calibrations} calibrations a row, {CELLS} cells a clip, limit {ALPHA}, delta {DELTA}, seed {seed}.\n")
    print("Calibrations whose true risk is over the limit, with exact 95 % binomial intervals:\n")
    print("\n".join(broken))
    print("\nMean true risk, and mean width beside that of the ideal interval, whose risk is the limit:\n")
    print("\n".join(means))
    print(f"\nComputed in {time.process_time() - began:.0f} s of one core.")


def main() -> None:
    """Run a subcommand."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("synthetic", help="exchangeable clips whose true risk is known exactly")
    command.add_argument("--calibrations", type=int, default=600)
    command.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    synthetic(chosen.calibrations, chosen.seed)


if __name__ == "__main__":
    main()
