"""`test`: calibrate bounds on one part, see on another whether they hold, and how wide they are.

The unit is the clip: one excerpt of one recording of each work. Beside it stands the project's own rule, which counts
every cell of every clip as an independent observation, on the same bounds and the same clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.config import dump_yaml
from sfumato.data.manifest import Row
from sfumato.errors import CalibrationError, InputError
from sfumato.interval import family
from sfumato.interval.bounds import hoeffding_bentkus_p
from sfumato.interval.coverage import Stratum, clopper_pearson, mean_loss_interval, size_stratified
from sfumato.interval.groups import Axis
from sfumato.interval.record import Calibration, disjoint, values_at
from sfumato.model import Model, digest
from sfumato.pipeline.excerpts import Recordings, cut, kept, made_alike, number
from sfumato.tasks import looks
from sfumato.tasks.calibration import Measured, calibrate_interval

Array = NDArray[np.float64]
Progress = Callable[[int, int, str], None]

ONE_PASS, SAMPLED = "one pass", "sampled"
SPLIT_HZ = (0.0, 300.0, 2000.0)
"""Lower ends of the bands of frequency that are calibrated on their own."""


@dataclass(frozen=True)
class Promise:
    """What is asked of the bounds."""

    level: float = 0.9
    delta: float = 0.1


@dataclass(frozen=True)
class Trial:
    """How bounds of one kind did on the test clips of one gap length."""

    gap_ms: float
    bounds: str
    """"one pass" or "sampled"."""
    rule: str
    """What was counted: clips or cells."""
    n_calibration: int
    n_test: int
    covered: float
    """Share of a clip's cells inside, mean over clips, with its 95 % interval (Hoeffding–Bentkus)."""
    covered_low: float
    covered_high: float
    held: int
    """Clips of which at least `level` of the cells lie inside, with the exact 95 % interval of their share."""
    held_low: float
    held_high: float
    width_db: float
    """Median over clips of the median width."""
    strata: tuple[Stratum, ...]
    """Coverage of narrow to wide intervals."""


def measure(
    recordings: Recordings, gap_ms: float, model: Model, progress: Progress = lambda *_: None, seed: int = 0
) -> list[Measured]:
    """The bounds of one excerpt of each work, in one pass and as sampled if there are draws, and the truth.

    Performances of one work resemble each other, so one of them is drawn by `seed`.

    Raises
    ------
    InputError
        `extract` has made nothing of this part and gap length, or not all of it as the configuration says and alike.
    """
    clips = []
    settings = made_alike(recordings, [gap_ms])
    rows = one_of_each_work(recordings.made(gap_ms), seed)
    if not rows:
        raise InputError(
            f"{recordings.bounds} holds nothing of {recordings.part} with gaps of {gap_ms:g} ms. Make it with "
            f"`sfumato conffusion extract -p {recordings.part} --gap-length {gap_ms:g}`."
        )
    for done, row in enumerate(rows):
        progress(done, len(rows), row.recording)
        extracted, excerpt = kept(recordings.file(row, gap_ms)), cut(recordings, row, gap_ms)
        if excerpt is None:
            raise InputError(f"{row.recording} is shorter than when its excerpt was made. Run `split` again.")
        view = looks.view(excerpt.damaged, excerpt.gap, [excerpt.gap], extracted.filled)
        seen = {ONE_PASS: looks.band_bounds(view, model)}
        if len(extracted.sampled_db):
            seen[SAMPLED] = looks.band_interval(view, *extracted.sampled_db)
        raw = seen[ONE_PASS]
        if raw.counts.any():
            truth: dict[str, Array] = {raw.domain: looks.truth(excerpt.clean, excerpt.gap, raw)}
            name = f"{row.source}/{row.recording}"
            made = {"fills": settings}
            clips.append(
                Measured(name, row.sha256, row.sample_rate, gap_ms / 1000, seen, truth, {}, {}, made, row.work)
            )
    return clips


def one_of_each_work(rows: Sequence[Row], seed: int) -> list[Row]:
    """One recording of each work, drawn by the seed, in the order of `rows`."""
    drawn: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: number(row, seed)):
        drawn.setdefault(row.work, row)
    return [row for row in rows if drawn[row.work] is row]


def assess(
    calibration: Sequence[Measured],
    test: Sequence[Measured],
    gap_ms: float,
    model: Model,
    promise: Promise,
    seed: int = 0,
    taught: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[list[Trial], Calibration]:
    """Each kind of bounds calibrated by clips and by cells, and tried; and the record of those of one pass.

    Parameters
    ----------
    calibration, test
        From `measure`.
    taught
        Recordings that the bounds model has learnt from, as `finetune.taught_on` gives them.

    Raises
    ------
    CalibrationError
        There are too few clips, the parts were made otherwise, or the same recording or work stands in two parts.
    """
    both = calibration, test
    for of in ("sha256", "work"):  # performances of one work are no copies, but no strangers either
        learnt = {name: one[of] for name, one in (taught or {}).items() if one[of]}
        parts = [{clip.recording: of_clip for clip in clips if (of_clip := getattr(clip, of))} for clips in both]
        disjoint(learnt, *parts)
    if len(made := {clip.models.get("fills", "") for clips in both for clip in clips}) > 1:
        raise CalibrationError(f"The parts were made with {' and '.join(sorted(made))}. Make them alike.")
    trials, records = [], []
    for kind in (ONE_PASS, SAMPLED):
        own, held_out = ([clip for clip in clips if kind in clip.seen] for clips in (calibration, test))
        if not own or not held_out:
            continue
        top = max(clip.sample_rate for clip in (*own, *held_out)) / 2
        axes = (
            Axis(name="gap_s", edges=(0.9 * gap_ms / 1000, 1.1 * gap_ms / 1000)),
            Axis(name="frequency_hz", edges=(*(edge for edge in SPLIT_HZ if edge < top), top)),
        )
        record = calibrate_interval(
            own, kind, axes, level=promise.level, kind="wsr", delta=promise.delta, model=digest(model), seed=seed
        )
        records.append(record)
        by_cells = count_cells(own, kind, promise)

        def by_clips(clip: Measured, kind: str = kind, record: Calibration = record) -> family.Interval:
            where = clip.seen[kind].where
            return _widened(clip, kind, values_at(record, {name: where[name] for name in ("gap_s", "frequency_hz")}))

        def as_counted(clip: Measured, kind: str = kind, scale: float = by_cells) -> family.Interval:
            return _widened(clip, kind, np.asarray(scale))

        for rule, interval_of in (("clips", by_clips), ("cells", as_counted)):
            trials.append(_trial(held_out, kind, rule, interval_of, gap_ms, len(own), promise.level))
    if not records:
        raise CalibrationError(
            f"There are {len(calibration)} clips to calibrate on and {len(test)} to test on with gaps of {gap_ms:g} "
            "ms; some of each are needed."
        )
    return trials, records[0]


def count_cells(clips: Sequence[Measured], kind: str, promise: Promise) -> float:
    """The scale that the project's rule picks: every cell an independent observation, all clips in one pot.

    Its bound is the one of `interval.bounds`, so that nothing but what is counted differs.
    """
    scores = []
    for clip in clips:
        raw = clip.seen[kind]
        scores.append(family.scores(raw.interval, clip.truth[raw.domain])[raw.counts])
    pool = np.sort(np.concatenate(scores))
    scales = np.geomspace(0.02, 50.0, 800)
    missed = pool.size - np.searchsorted(pool, scales, side="right")
    passed = hoeffding_bentkus_p(missed, pool.size, 1.0 - promise.level) <= promise.delta
    if not passed.any():
        raise CalibrationError("No scale of the bounds passes, even with every cell counted.")
    return float(scales[np.flatnonzero(passed)[0]])


def _widened(clip: Measured, kind: str, scale: Array) -> family.Interval:
    """The raw interval scaled about its point, cell by cell, no lower than the floor."""
    raw = clip.seen[kind]
    inner = raw.interval
    lower, upper = (
        np.maximum(inner.point + scale * (side - inner.point), raw.floor) for side in (inner.lower, inner.upper)
    )
    return family.Interval(lower, inner.point, upper)


def _trial(
    clips: Sequence[Measured],
    kind: str,
    rule: str,
    interval_of: Callable[[Measured], family.Interval],
    gap_ms: float,
    n_calibration: int,
    level: float,
) -> Trial:
    shares, widths, cells = [], [], []
    for i, clip in enumerate(clips):
        raw, interval = clip.seen[kind], interval_of(clip)
        truth = clip.truth[raw.domain]
        inside = ((interval.lower <= truth) & (truth <= interval.upper))[raw.counts]
        width = (interval.upper - interval.lower)[raw.counts]
        shares.append(float(inside.mean()))
        widths.append(float(np.median(width)))
        cells.append((width, inside, np.full(width.size, i)))
    low, high = mean_loss_interval(1.0 - np.asarray(shares))
    held = sum(share >= level for share in shares)
    width_of, inside_of, clip_of = (np.concatenate(part) for part in zip(*cells, strict=True))
    strata = size_stratified(width_of, inside_of, clip_of)
    return Trial(
        gap_ms, kind, rule, n_calibration, len(clips), float(np.mean(shares)), 1.0 - high, 1.0 - low,
        held, *clopper_pearson(held, len(clips)), float(np.median(widths)), tuple(strata),
    )  # fmt: skip


def write_record(record: Calibration, gap_ms: float, folder: Path) -> None:
    """The calibration as YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    dump_yaml(record, folder / f"{record.domain}-{gap_ms:g}ms-{100 * record.level:g}.yaml")
