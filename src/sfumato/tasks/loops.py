"""Loops that are as long as their bars to the sample, and whose end goes on at their start.

A loop is drawn on a circle (`diffusion.guide.circle`) of whole frames, as many as their phases take to repeat, and then
resampled, periodically, to its exact length. That tunes it a little.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.signal
from pydantic import Field, model_validator

from sfumato.errors import InputError
from sfumato.signal.complex_spectrogram import TURN
from sfumato.tasks.draw import BEATS, LONGEST_S
from sfumato.tasks.prompts import Asked
from sfumato.tasks.takes import Array

SHORTEST_S = 0.5
HEARD_CENTS = 8.0
"""Detuning that a user is told of."""


class Looped(Asked):
    """How long it is to last, and whether it goes round."""

    seconds: float | None = Field(
        None, gt=0, le=LONGEST_S, description="length in seconds; by default the model's window"
    )
    loop: bool = Field(False, description="make loops: as long as their bars, their end going on at their start")
    bars: int | None = Field(None, ge=1, le=1000, description="bars of a loop; by default 1")
    beats: int | None = Field(None, ge=1, le=64, description=f"beats of a bar of a loop; by default {BEATS}")

    @model_validator(mode="after")
    def _length(self) -> Looped:
        if self.loop and (self.bpm is None) == (self.seconds is None):
            raise ValueError("a loop takes either bpm, with bars, or seconds")
        if not self.loop and (self.bars, self.beats) != (None, None):
            raise ValueError("bars and beats are for a loop: ask for one, or give seconds")
        if (self.bars is not None or self.beats is not None) and self.bpm is None:
            raise ValueError("bars and beats take a bpm")
        if self.loop and self.then is not None and self.alpha is None:
            raise ValueError("a loop arrives nowhere: give alpha, a place between the two prompts")
        return self


def length_of(settings: Looped, rate: int, otherwise: int, longest_s: float = LONGEST_S) -> int:
    """Samples of each sound; a loop's are its beats' duration, rounded once, for the whole.

    Parameters
    ----------
    otherwise
        What they are where nothing is asked for.

    Raises
    ------
    InputError
        There would be none, too many, or too few for a loop.
    """
    if settings.loop and settings.bpm is not None:
        n = round((settings.bars or 1) * (settings.beats or BEATS) * 60 * rate / settings.bpm)
    else:
        n = otherwise if settings.seconds is None else round(settings.seconds * rate)
    if not 1 <= n <= longest_s * rate:
        raise InputError(f"{n} samples at {rate} Hz were asked for. Give from one sample to {longest_s:g} s.")
    if settings.loop and n < SHORTEST_S * rate:
        raise InputError(f"A loop of {n} samples is too short for this model; give at least {SHORTEST_S:g} s.")
    return n


def frames_of(hop: int, n: float) -> int:
    """Frames, `hop` samples from one to the next, of a loop that is then tuned to `n` samples."""
    return max(TURN, round(n / hop / TURN) * TURN)


def windows_of(frames: int, window: int) -> int:
    """Windows that are evaluated at each step of a loop."""
    return -(-frames // (window // 2))


def cents_of(drawn: float, n: float) -> float:
    """By how much a loop that is drawn so long is tuned to last `n`."""
    return 1200 * math.log2(drawn / n)


def resampled(audio: Array, n: int) -> Array:
    """The loop ``(channels, samples)`` as `n` samples."""
    return audio if audio.shape[1] == n else np.asarray(scipy.signal.resample(audio, n, axis=1))


def notes_on_tuning(cents: float) -> tuple[str, ...]:
    """That a loop is out of tune, where that can be heard."""
    if abs(cents) < HEARD_CENTS:
        return ()
    return (f"to be exactly as long as it should, the loop is tuned by {cents:+.0f} cents; a longer one needs less",)
