"""Filling one window of one channel: every method behind one signature, `fill(window, settings, model) -> Fill`.

A window is nearly three seconds around one gap (or a few close ones). Short lengths below are in seconds, so that
every sample rate gets the same treatment; at 44.1 kHz the longest model has 2048 coefficients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfumato.diffusion import noise
from sfumato.errors import InputError
from sfumato.signal import gap_levels, sparse
from sfumato.signal.autoregressive import (
    GapPosterior,
    burg,
    extrapolate,
    feasible_order,
    janssen,
    order_of,
    posterior,
    runs,
)
from sfumato.signal.levels import Grid
from sfumato.systems import conffusion

if TYPE_CHECKING:
    from sfumato.model import Model

Array = NDArray[np.float64]
Known = NDArray[np.bool_]

CONTEXT_S = 8192 / 44100
JANSSEN_CONTEXT_S = 4096 / 44100
JANSSEN_ORDER_S = 1024 / 44100


@dataclass(frozen=True)
class Window:
    """One channel around a gap."""

    x: Array
    """``(n,)``, 0 where not known."""
    known: Known
    """Observed samples."""
    inside: Known
    """Samples of the recording."""
    own: Known
    """Missing samples that are to be filled; other missing samples are only not known."""
    sample_rate: int
    item: int
    """Number of the window's own stream of noise."""

    @property
    def length_s(self) -> float:
        """Length of the longest gap to be filled, in seconds."""
        return max(stop - start for start, stop in runs(self.own)) / self.sample_rate

    def near(self, context_s: float) -> slice:
        """The stretch from `context_s` before the first to `context_s` after the last missing sample."""
        missing, inside = np.flatnonzero(self.own), np.flatnonzero(self.inside)
        context = round(context_s * self.sample_rate)
        start = max(int(missing[0]) - context, int(inside[0]))
        return slice(start, min(int(missing[-1]) + context, int(inside[-1])) + 1)


@dataclass(frozen=True)
class Fill:
    """The missing samples of a window, several times."""

    draws: Array
    """``(n_draws, missing)``."""
    source: Array | None = None
    """``(2, missing)``: the AR posterior's mean and one of its draws, where the method made them."""


def fill_janssen(window: Window, n_draws: int, seed: int, model: Model | None) -> Fill:
    """Gap-wise Janssen, order 1024 and 4096 samples of context at 44.1 kHz; one fill, whatever `n_draws`.

    Up to 10 iterations; 3 beyond 200 ms, where the fill has long decayed towards silence.
    """
    near, iterations = window.near(JANSSEN_CONTEXT_S), 10 if window.length_s <= 0.2 else 3
    order = order_of(JANSSEN_ORDER_S, window.sample_rate)
    filled = janssen(window.x[near], window.known[near], order, iterations)
    return Fill(filled[window.own[near]][None])


def fill_extrapolate(window: Window, n_draws: int, seed: int, model: Model | None) -> Fill:
    """Cross-faded AR extrapolation from both sides; one fill."""
    near = window.near(JANSSEN_CONTEXT_S)
    filled = extrapolate(window.x[near], window.known[near], order_of(JANSSEN_ORDER_S, window.sample_rate))
    return Fill(filled[window.own[near]][None])


def fill_aspain(window: Window, n_draws: int, seed: int, model: Model | None) -> Fill:
    """A-SPAIN with its published settings; one fill."""
    near = window.near(2 * JANSSEN_CONTEXT_S)
    filled = sparse.aspain(window.x[near], window.known[near])
    return Fill(filled[window.own[near]][None])


def fill_ar(window: Window, n_draws: int, seed: int, model: Model | None) -> Fill:
    """Draws of the AR posterior."""
    sources = _sources(window, n_draws, seed)
    return Fill(np.stack([source.draw for source in sources]), sources[0].both)


def source_of(window: Window, seed: int) -> Array:
    """``(2, missing)``: the mean and a draw of the AR posterior, the first that `fill_ar` makes."""
    return _sources(window, 1, seed)[0].both


def fill_ar_mean(window: Window, n_draws: int, seed: int, model: Model | None) -> Fill:
    """The mean of the AR posteriors that `fill_ar` draws from; one fill."""
    sources = _sources(window, n_draws, seed)
    return Fill(np.mean([source.mean for source in sources], axis=0)[None], sources[0].both)


def fill_diffusion(
    window: Window, n_draws: int, seed: int, model: Model | None, *, steps: int, temperature: float, spread: float = 1.0
) -> Fill:
    """Draws of the AR posterior, their random part shaped to band levels drawn by the diffusion model.

    `spread` scales the shaped random part: 1 is a full draw, 0 the AR posterior's mean; then there is but one fill for
    each order of the AR models, however many draws are wanted.
    """
    if model is None or not isinstance(model.config, conffusion.Config):
        raise InputError("The method diffusion needs a model of the system conffusion.")
    sources = _sources(window, n_draws, seed)
    if spread == 0.0:
        means = [source.mean for source in sources[::2]][: len(conffusion.orders_s(window.length_s))]
        return Fill(np.stack(means), sources[0].both)
    grid = Grid(len(window.x), window.sample_rate)
    known, touched = gap_levels.frames_of(window.known, window.inside, window.own, grid)
    wholes: list[tuple[Array, Array]] = []
    for source in sources:
        mean, draw = window.x.copy(), window.x.copy()
        mean[window.own], draw[window.own] = source.mean, source.draw
        wholes.append((mean, draw))
    # Both draws of a mirrored pair are shaped to the same levels, so that their mean stays the AR posterior's.
    views = [gap_levels.picture(grid.levels(mean), grid.levels(draw), known, touched) for mean, draw in wholes[::2]]
    levels = conffusion.draw_levels(
        model.network, model.config, views, seed=seed, item=window.item, steps=steps, temperature=temperature
    )
    kept = ~window.own
    shaped = [
        conffusion.apply_levels(mean, draw, kept, level, grid)[window.own]
        for (mean, draw), level in zip(wholes, np.repeat(levels, 2, axis=0), strict=False)
    ]
    draws = np.stack([s.mean + spread * (d - s.mean) for s, d in zip(sources, shaped, strict=True)])
    return Fill(draws, sources[0].both)


def posterior_of(window: Window) -> tuple[GapPosterior, Known]:
    """The AR posterior of a window's first source, and which of its missing samples are to be filled."""
    near = window.near(CONTEXT_S)
    return _posterior(window, conffusion.orders_s(window.length_s)[0]), window.own[near][~window.known[near]]


def _posterior(window: Window, order_s: float) -> GapPosterior:
    """The AR posterior around a gap, under a model that spans `order_s` seconds."""
    near = window.near(CONTEXT_S)
    x, known = window.x[near], window.known[near]
    order = feasible_order(known, order_of(order_s, window.sample_rate))
    return posterior(x, known, *burg([x[i:j] for i, j in runs(known)], order))


@dataclass(frozen=True)
class _Source:
    mean: Array
    draw: Array

    @property
    def both(self) -> Array:
        return np.stack([self.mean, self.draw])


def _sources(window: Window, n_draws: int, seed: int) -> list[_Source]:
    """AR posterior draws in mirrored pairs: draw 2k + 1 is draw 2k reflected at the mean.

    Each is an exact draw; the mean over whole pairs is the posterior's mean itself. Pairs take turns over the orders
    of `conffusion.orders_s`, so the draws also tell how far the choice of the order matters.
    """
    near = window.near(CONTEXT_S)
    wanted = window.own[near][~window.known[near]]
    orders_s = conffusion.orders_s(window.length_s)
    sources: list[_Source] = []
    posteriors: dict[float, GapPosterior] = {}
    for pair in range(-(-n_draws // 2)):
        order_s = orders_s[pair % len(orders_s)]
        if order_s not in posteriors:
            posteriors[order_s] = _posterior(window, order_s)
        fill = posteriors[order_s]
        z = noise.normal((len(fill.mean),), seed=seed, item=window.item, step=2 * pair).double().numpy()
        sources += [_Source(fill.mean[wanted], fill.draw(sign * z)[wanted]) for sign in (1.0, -1.0)]
    return sources[:n_draws]


CLASSICAL: dict[str, Callable[[Window, int, int, Model | None], Fill]] = {
    "ar": fill_ar,
    "janssen": fill_janssen,
    "aspain": fill_aspain,
    "extrapolate": fill_extrapolate,
}
