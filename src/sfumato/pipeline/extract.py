"""`extract`: fill the gap of each excerpt many times, and keep the quantiles of its band levels over the draws (DM_SB).

One file for each recording and gap length, written whole. A run that was stopped goes on where it was; with CQT-Diff+,
whose draws take long, at the draw where it was.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.data.manifest import Row
from sfumato.errors import InputError
from sfumato.files import write_atomically
from sfumato.model import Model, digest, find, load
from sfumato.pipeline.excerpts import QUANTILES, Excerpt, Extracted, Recordings, cut, keep, kept, number
from sfumato.systems import conffusion, cqtdiff
from sfumato.tasks import fill as fills
from sfumato.tasks import looks, waveform
from sfumato.tasks.fill import Fill, Window
from sfumato.tasks.windows import Filled, fill_group

Array = NDArray[np.float64]
Progress = Callable[[int, int, str], None]

MADE, THERE, SHORT, QUIET = "made", "there already", "left out, too short", "left out, too quiet around the gap"


@dataclass(frozen=True)
class Sampling:
    """What makes the draws."""

    model: Model
    draws: int
    """0: only what the pinball loss needs."""
    steps: int
    """Of the sampler, for the shipped inpainter; CQT-Diff+ has the paper's."""
    seed: int


def model_of(name: str | None) -> Model:
    """The model that a `resume_state` names: a folder, or none for the shipped inpainter.

    Raises
    ------
    InputError
        It is a checkpoint that isn't converted yet, there is none, or it doesn't fill gaps.
    """
    if name is None:
        return load("conffusion")
    path = Path(name)
    for pickle in (path, path.with_name(path.name + ".pt")):
        if pickle.is_file():
            raise InputError(
                f"{pickle} is a pickle, which is not loaded. Convert it once with `sfumato models convert {pickle} "
                f"{pickle.with_suffix('')}`, and name that folder."
            )
    model = load(find(name))
    if not isinstance(model.config, conffusion.Config | cqtdiff.Config):
        raise InputError(f"{name} is of the system {model.system}, which fills no gaps. Possible: conffusion, cqtdiff.")
    return model


def extract(
    recordings: Recordings, gaps_ms: Sequence[float], sampling: Sampling, progress: Progress = lambda *_: None
) -> dict[str, int]:
    """Make the files of a part; how many were made, were there already, or were left out.

    Raises
    ------
    InputError
        A file is there that was made otherwise, or a recording can't be read.
    """
    counts = dict.fromkeys((MADE, THERE, SHORT, QUIET), 0)
    jobs = [(row, gap_ms) for gap_ms in gaps_ms for row in recordings.rows]
    for done, (row, gap_ms) in enumerate(jobs):
        said = f"{row.recording}, {gap_ms:g} ms"
        progress(done, len(jobs), said)
        tell = _teller(progress, done, len(jobs), said)
        counts[_one(recordings, row, gap_ms, sampling, tell)] += 1
    progress(len(jobs), len(jobs), "done")
    return counts


def _teller(progress: Progress, done: int, total: int, said: str) -> Callable[[str], None]:
    return lambda text: progress(done, total, f"{said}: {text}")


def _one(recordings: Recordings, row: Row, gap_ms: float, sampling: Sampling, tell: Callable[[str], None]) -> str:
    path = recordings.file(row, gap_ms)
    made_with = _made_with(recordings, row, gap_ms, sampling)
    if path.exists():
        if (was := kept(path).made_with) != made_with:
            raise InputError(f"{path} was made with {was}; now asked for: {made_with}. Choose another folder.")
        return THERE
    excerpt = cut(recordings, row, gap_ms)
    if excerpt is None:
        return SHORT
    if looks.around(excerpt.damaged, excerpt.gap).std() < looks.QUIET:  # nothing is promised there
        return QUIET
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.draws.npz")
    painted = sampling.draws > 0 and isinstance(sampling.model.config, cqtdiff.Config)
    if painted:
        filled = _painted(excerpt, row, sampling, unfinished, made_with, tell)
    else:
        filled = _drawn(excerpt, row, sampling)
    seen = looks.view(excerpt.damaged, excerpt.gap, [excerpt.gap], filled)
    clean = looks.window(excerpt.clean, excerpt.gap, [excerpt.gap])[0]
    levels = np.stack([seen.grid.levels(samples) for samples in (clean, seen.mean, seen.draw)])
    sampled = np.zeros((len(QUANTILES) if sampling.draws else 0, *levels.shape[1:]))
    if painted:
        over_draws = np.quantile([seen.levels(draw) for draw in filled.draws], QUANTILES, axis=0)
        sampled[:, :, seen.touched] = over_draws
    elif sampling.draws:
        sampled = conffusion.sample_bounds(
            sampling.model.network,
            sampling.model.config,  # type: ignore[arg-type]
            looks.picture_of(seen),
            QUANTILES,
            draws=sampling.draws,
            seed=number(row, sampling.seed),
            item=0,
            steps=sampling.steps,
        )
    flags = np.stack([seen.known, seen.touched])
    keep(path, Extracted(levels, flags, sampled, filled.draws[0], np.asarray(filled.source), made_with))
    unfinished.unlink(missing_ok=True)
    return MADE


def _made_with(recordings: Recordings, row: Row, gap_ms: float, sampling: Sampling) -> str:
    """Everything a file depends on, as JSON."""
    made = recordings.place(row, gap_ms) | {"draws": sampling.draws, "seed": sampling.seed}
    if sampling.draws:
        made |= {"model": digest(sampling.model), "steps": sampling.steps}
    return json.dumps(made, sort_keys=True)


def _drawn(excerpt: Excerpt, row: Row, sampling: Sampling) -> Filled:
    """One fill: the shipped inpainter's, or the AR posterior's where nothing is to be drawn."""
    seed, model = number(row, sampling.seed), sampling.model

    def fill(window: Window) -> Fill:
        if sampling.draws == 0:
            return fills.fill_ar(window, 1, seed, None)
        return fills.fill_diffusion(window, 1, seed, model, steps=sampling.steps, temperature=0.0)

    return fill_group(excerpt.damaged, [excerpt.gap], [excerpt.gap], fill, seed)


def _painted(
    excerpt: Excerpt, row: Row, sampling: Sampling, unfinished: Path, made_with: str, tell: Callable[[str], None]
) -> Filled:
    """Every draw of CQT-Diff+, each kept in `unfinished` as soon as it is there."""
    draws, source = [], None
    if unfinished.exists():
        with np.load(unfinished, allow_pickle=False) as stored:
            if str(stored["made_with"]) == made_with:
                draws, source = list(stored["draws"]), stored["source"]
    n = waveform.window_samples(sampling.model, excerpt.clean.sample_rate)
    while len(draws) < sampling.draws:
        seed, said = number(row, sampling.seed, len(draws)), f"{len(draws) + 1} of {sampling.draws}, "

        def fill(window: Window, seed: int = seed, said: str = said) -> Fill:
            return waveform.fill_cqtdiff(window, 1, seed, sampling.model, lambda text: tell(said + text))

        filled = fill_group(excerpt.damaged, [excerpt.gap], [excerpt.gap], fill, seed, n)
        draws.append(filled.draws[0])
        source = filled.source if source is None else source
        buffer = io.BytesIO()
        np.savez(buffer, draws=np.stack(draws), source=np.asarray(source), made_with=np.array(made_with))
        write_atomically(unfinished, buffer.getvalue())
    return Filled(np.stack(draws), source)
