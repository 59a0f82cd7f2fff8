"""`auto` in short gaps: which fill suits this very gap, by the quality that is expected of each.

The measured risks in a model's card say how much of the random part a gap of some length should keep on average. Where
the autoregressive mean doesn't predict the waveform of *this* gap, there is no waveform to keep, and the fill with the
least band distance expected (`looks.predicted_distance_db`, the prediction behind the bound on quality) is taken
instead: the card's mixture, a whole draw of the inpainter, or a draw of the autoregressive posterior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import CalibrationError
from sfumato.model import Model
from sfumato.tasks import looks
from sfumato.tasks.windows import Filled, Gap, Source

Array = NDArray[np.float64]

SHORTEST_S = 0.02
"""Gaps below are left to the card's mixture: nothing about them was measured."""

WAVEFORM_DB, MARGIN_DB = 0.0, 0.5
"""Power of the autoregressive mean over that of its error, from which on the waveform counts; and by how much a fill
must be expected to be better than the mixture. Chosen on validation recordings, such that the signal-to-distortion
ratio falls by about 0.1 dB at most."""

OTHERS: tuple[Literal["diffusion", "ar"], ...] = ("diffusion", "ar")
"""Methods that may be expected to do better than a mixture."""


def concerns(name: str, group: Sequence[Gap], sample_rate: int) -> bool:
    """Whether there is something to choose: a gap on its own that is not filled by a whole draw anyway."""
    return name != "diffusion" and len(group) == 1 and group[0][1] - group[0][0] >= SHORTEST_S * sample_rate


def better(
    source: Source,
    gap: Gap,
    unknown: Sequence[Gap],
    name: str,
    mixture: Filled,
    others: Mapping[str, Callable[[], Filled]],
    bounds: Model,
) -> tuple[str, Filled]:
    """Name and fill that suit the gap best.

    Parameters
    ----------
    source, gap, unknown
        The recording; a gap of it, filled on its own; and every damaged stretch.
    name, mixture
        What the card's risks choose, with its source.
    others
        What else can be had, made only where it may be wanted.
    bounds
        Model of the system n_conffusion.
    """
    offset = looks.around(source, gap).mean(axis=1, keepdims=True)
    if mixture.source is None or predictability_db(mixture, offset) >= WAVEFORM_DB:
        return name, mixture
    try:
        seen = looks.view(source, gap, unknown, mixture)
    except CalibrationError:  # near an end, or beside other damage
        return name, mixture
    bands = looks.band_bounds(seen, bounds)
    if not bands.counts.any():
        return name, mixture

    def expected_db(filled: Filled) -> float:
        return looks.predicted_distance_db(bands, seen.levels(filled.draws[0]))

    made = {other: fill() for other, fill in others.items()}
    best = min(made, key=lambda other: expected_db(made[other]))
    if expected_db(made[best]) < expected_db(mixture) - MARGIN_DB:
        return best, made[best]
    return name, mixture


def predictability_db(filled: Filled, offset: Array) -> float:
    """Power of the autoregressive posterior's mean over that of its deviation, from one draw, all channels together.

    `offset` ``(channels, 1)`` is what the sound around has of direct current, which predicts no waveform.
    """
    if filled.source is None:
        return float("inf")
    mean, draw = filled.source
    error = float(np.sum((draw - mean) ** 2))
    return float(10.0 * np.log10(max(float(np.sum((mean - offset) ** 2)), 1e-30) / max(error, 1e-30)))
