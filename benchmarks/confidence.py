"""Are the promises kept? Calibrations drawn again and again, and what their intervals do to clips nobody calibrated on.

    python benchmarks/confidence.py synthetic
    python benchmarks/confidence.py cost

Each subcommand prints the table that stands in docs/confidence.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

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


def cost(draws: int, steps: int, seed: int) -> None:
    """What an interval costs: one pass beside sampling, a fill with a level beside one without, all in one run."""
    import soundfile as sf

    from sfumato.model import load
    from sfumato.systems import conffusion, n_conffusion
    from sfumato.tasks import looks
    from sfumato.tasks.confidence import promises
    from sfumato.tasks.gaps import GIVEN
    from sfumato.tasks.methods import choose
    from sfumato.tasks.repair import Settings, fill_gaps
    from sfumato.tasks.windows import Clip, fill_group

    audio, rate = sf.read(Path(__file__).parents[1] / "examples" / "only_300_stood.flac", always_2d=True)
    source = Clip(audio.T.copy(), rate)
    first = source.n_samples // 2
    gap = (first, first + round(0.3 * rate))
    source.audio[:, gap[0] : gap[1]] = 0.0
    fills, bounds = load("conffusion"), looks.bounds_model()
    settings = Settings(seed=seed, level=0.9)
    promised = promises(settings)
    filled = fill_group(source, [gap], [gap], choose(settings, fills, 0.3)[1], seed)
    picture = looks.picture_of(looks.view(source, gap, [gap], filled))

    def fill(level: bool) -> None:
        list(fill_gaps(source, [gap], [GIVEN], settings, fills, promised=promised if level else None))

    one = seconds(lambda: n_conffusion.bound_levels(bounds.network, bounds.config, [picture]), 9)
    many = seconds(
        lambda: conffusion.sample_bounds(
            fills.network, fills.config, picture, (0.05, 0.95), draws=draws, seed=seed, item=0, steps=steps
        ),
        1,
    )
    whole = seconds(lambda: promised.of(source, gap, [gap], filled, settings, fills), 5)
    pairs = [(seconds(lambda: fill(False), 1), seconds(lambda: fill(True), 1)) for _ in range(5)]
    plain, sure = np.median(pairs, axis=0)
    print(f"One gap of 300 ms, {source.channels} channels, {rate} Hz; median times, once loaded.\n")
    print("| what | seconds |\n|---|---|")
    print(f"| bounds in one pass | {one:.3f} |")
    print(f"| bounds over {draws} draws of {steps} steps | {many:.1f} (× {many / one:.0f}) |")
    print(f"| interval and bound on quality, all told | {whole:.2f} |")
    print(f"| fill, {settings.draws} draws | {plain:.2f} |")
    print(f"| fill, {settings.draws} draws, with a level | {sure:.2f} (+ {100 * (sure / plain - 1):.0f} %) |")


def seconds(work: Callable[[], object], times: int) -> float:
    """Median wall time."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def main() -> None:
    """Run a subcommand."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("synthetic", help="exchangeable clips whose true risk is known exactly")
    command.add_argument("--calibrations", type=int, default=600)
    command.add_argument("--seed", type=int, default=0)
    command = commands.add_parser("cost", help="one pass against sampling, and a fill with a level against one without")
    command.add_argument("--draws", type=int, default=200)
    command.add_argument("--steps", type=int, default=10)
    command.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.command == "cost":
        cost(chosen.draws, chosen.steps, chosen.seed)
    else:
        synthetic(chosen.calibrations, chosen.seed)


if __name__ == "__main__":
    main()
