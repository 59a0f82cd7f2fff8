"""Filling one window of one channel by CQT-Diff+, a diffusion model of waveforms at a rate and of a length of its own.

A draw of the AR posterior fills the gap first. The window is brought to the model's rate and level, the model fills
the gap there, and what its fill adds to the AR draw is brought back and added to it. So every other sample stays as
it is, the fill joins both sides, and above half the model's rate, where it knows nothing, the AR draw goes on.

One evaluation of the published networks takes half a minute on two CPU cores, one draw most of an hour, and keeps 8 GB
for its backward pass. So channels and draws take turns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from sfumato.errors import InputError
from sfumato.signal.autoregressive import runs
from sfumato.systems import cqtdiff
from sfumato.tasks.fill import Fill, Window, fill_ar

if TYPE_CHECKING:
    from sfumato.model import Model

Array = NDArray[np.float64]
Known = NDArray[np.bool_]

MAX_DRAWS = 1 << 16
"""Numbers of draws of one window that have noise of their own."""

SHORT_GAP_S = 0.1
"""Up to here the paper's settings for short gaps are used."""

_SPARE_S = 0.001
"""Known samples beside other damage that resampling may have smeared."""

_TURN = threading.Lock()


CONVERT = "`sfumato models convert FILE.pt FOLDER`"


def check(model: Model | None) -> Model:
    """`model`, if it is a CQT-Diff+.

    Raises
    ------
    InputError
        It is none; says how to come by one.
    """
    if model is not None and isinstance(model.config, cqtdiff.Config):
        return model
    given = "none was given" if model is None else f"{model.name} is of the system {model.system}"
    raise InputError(
        f"The method cqtdiff needs a CQT-Diff+, and {given}. Give its folder as the model; convert one with {CONVERT}."
    )


def window_samples(model: Model, sample_rate: int) -> int:
    """Samples of a window at `sample_rate` that fills the model's clip."""
    network = check(model).config.network  # type: ignore[attr-defined]
    return int(network.n_samples * sample_rate // network.sample_rate)


def fill_cqtdiff(
    window: Window,
    n_draws: int,
    seed: int,
    model: Model | None,
    tell: Callable[[str], None] = lambda text: None,
    sampling: cqtdiff.Sampling | None = None,
) -> Fill:
    """Draws of CQT-Diff+; draw k is the same however many there are.

    Parameters
    ----------
    window
        As long as `window_samples` says, or shorter.
    n_draws, seed
        How many fills, and the seed of their noise.
    model
        A converted checkpoint.
    tell
        Called after each step with what is done and how long the rest will take.
    sampling
        Default: the paper's, for short gaps or for long ones.
    """
    model = check(model)
    config: cqtdiff.Config = model.config  # type: ignore[assignment]
    sampling = sampling or (cqtdiff.SHORT_GAPS if window.length_s <= SHORT_GAP_S else cqtdiff.Sampling())
    rates = window.sample_rate, config.network.sample_rate
    ar = fill_ar(window, n_draws, seed, None)
    power = float(np.mean(window.x[window.known] ** 2))
    gain = config.sigma_data / np.sqrt(power) if power > 0.0 else 1.0
    draws = []
    with _TURN:
        began, done = time.perf_counter(), 0
        for number, first in enumerate(ar.draws):
            whole = window.x.copy()
            whole[window.own] = first
            low = _resampled(gain * whole, *rates)[: config.network.n_samples]
            observed = torch.from_numpy(low)[None, None]
            known = torch.from_numpy(_known_at(window, rates[1], len(low)))
            steps = cqtdiff.draw(
                model.network,  # type: ignore[arg-type]
                config,
                observed,
                known,
                sampling,
                seed=seed,
                items=[window.item * MAX_DRAWS + number],
            )
            for step in steps:
                done += 1
                left = (time.perf_counter() - began) / done * (sampling.steps * n_draws - done)
                tell(
                    f"draw {number + 1} of {n_draws}, step {step.i + 1} of {sampling.steps}, "
                    f"{_spoken(left)} left for this channel"
                )
            drawn = cqtdiff.paste(step.x.cpu(), observed, known, sampling.fade)
            added = _resampled((drawn - observed)[0, 0].numpy() / gain, *rates[::-1])
            n = min(len(added), len(whole))
            whole[:n] += added[:n]
            draws.append(whole[window.own])
    return Fill(np.stack(draws), ar.source)


def _resampled(x: Array, before: int, after: int) -> Array:
    return x if before == after else np.asarray(soxr.resample(x, before, after))


def _known_at(window: Window, sample_rate: int, n: int) -> Known:
    """Known samples at another rate: those that no missing one reaches into, with some to spare but beside the gap."""
    known = np.ones(n, dtype=bool)
    ratio, spare = sample_rate / window.sample_rate, round(_SPARE_S * sample_rate)
    for missing, margin in ((window.own, 0), (~window.known & ~window.own, spare)):
        for start, stop in runs(missing):
            known[max(int(np.floor(start * ratio)) - margin, 0) : int(np.ceil(stop * ratio)) + margin] = False
    return known


def _spoken(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
