"""Where was this recording filled in?

A recording is read in stretches of up to a minute. In each, the detector (`systems.fill_detector`) scores every
frame, and the largest score is compared with the largest scores of clean recordings, read in windows as long: its rank
among them is the p-value, and every segment that scores as high as its p-value demands is reported with its own. So of
clean stretches no more than the share alpha gets any segment, however many frames were looked at. The unit is the piece
of music: clean windows of one piece share one vote (`interval.pvalues.voted_p`).

A recording of several stretches is judged as a whole by Bonferroni's rule: `clip_p` is the least of their p-values
times their number. Segments keep the p-value of their stretch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import uniform_filter1d

from sfumato import __version__
from sfumato.config import Settings as BaseSettings
from sfumato.config import load_yaml
from sfumato.decode_child import SAMPLE_RATES
from sfumato.errors import CalibrationError, InputError, ModelError
from sfumato.interval.pvalues import voted_p
from sfumato.model import Model, digest, find, load
from sfumato.signal.autoregressive import runs
from sfumato.signal.traces import HOP, RATE, Traces, at_rate, traces
from sfumato.systems import fill_detector
from sfumato.tasks.windows import Clip, Source

if TYPE_CHECKING:
    from sfumato.audio import Recording

Array = NDArray[np.float64]
Progress = Callable[[int, int, str], None]

NAME = "detect"
CLEAN_FILE = "clean.yaml"

STRETCH_S = 60.0
LENGTHS_S = (2.0, 10.0, STRETCH_S)
"""Lengths of the clean windows. A stretch is compared with the next longer ones, whose largest scores are no less."""

SHORTEST_S = 2.0
EDGE_S = 0.25
"""Nothing is looked for this close to the ends of a recording: a fill is told by what is on both sides."""

SMOOTHED = 5
"""Frames over which scores are averaged: 58 ms."""

FALL = 1.5
"""A segment reaches from its peak to where the score has fallen by this much below what its alarm takes."""


class Settings(BaseSettings):
    """How to look."""

    alpha: float = Field(0.05, gt=0, lt=1, description="share of clean stretches that may get any segment")
    model: str = Field("detect", description="name or folder of the detector")


class Clean(BaseSettings):
    """The largest scores of clean recordings, as `benchmarks/inpainted.py calibrate` measured them."""

    model: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the detector's weights and configuration")
    recordings: dict[str, str] = Field(description="recordings, name -> SHA-256 of the file")
    stereo: dict[float, dict[str, tuple[float, ...]]] = Field(
        description="length of the windows in s -> piece -> largest score of each of its windows"
    )
    mono: dict[float, dict[str, tuple[float, ...]]] = Field(description="the same, channels averaged")


@dataclass(frozen=True)
class Segment:
    """One part that seems filled in."""

    start: float
    """In seconds, as is `stop`."""
    stop: float
    p: float
    """Chance that a clean stretch as long has a segment as suspicious."""


@dataclass(frozen=True)
class Detection:
    """What was found in one recording."""

    clip_p: float
    """Chance that a clean recording is as suspicious, anywhere."""
    segments: tuple[Segment, ...]
    least_p: float
    """The smallest p-value there can be: one over the number of clean pieces, plus one."""
    n_stretches: int
    provenance: dict[str, Any]


def as_dict(found: Detection) -> dict[str, Any]:
    """What `--json` prints; times in seconds."""
    return {
        "clip_p": found.clip_p,
        "segments": [{"start": s.start, "stop": s.stop, "p": s.p} for s in found.segments],
        "least_p": found.least_p,
        "stretches": found.n_stretches,
        **found.provenance,
    }


@dataclass(frozen=True)
class Detector:
    """The network and what clean recordings score."""

    model: Model
    clean: Clean

    def scores(self, audio: Array, sample_rate: int) -> Array:
        """Score of each frame of one stretch ``(channels, samples)``, smoothed; minus infinity close to its ends."""
        return self.scores_of(traces(at_rate(audio, sample_rate)))

    def scores_of(self, found: Traces) -> Array:
        """The same, of its traces."""
        logits = fill_detector.logits(self.model.network, found)
        scores = uniform_filter1d(logits, SMOOTHED, mode="nearest")
        edge = round(EDGE_S * RATE / HOP)
        scores[:edge] = scores[len(scores) - edge :] = -np.inf
        return np.asarray(scores)

    def votes(self, channels: int, length_s: float) -> list[tuple[float, ...]]:
        """Largest scores of clean windows at least `length_s` long, by piece."""
        table = self.clean.stereo if channels == 2 else self.clean.mono
        longer = [known for known in sorted(table) if known >= length_s - 1e-6]
        if not longer:
            raise CalibrationError(f"No clean window lasts {length_s:g} s; the longest lasts {max(table):g} s.")
        return list(table[longer[0]].values())


def detect(
    audio: str | Path | NDArray[np.floating[Any]],
    *,
    sample_rate: int | None = None,
    alpha: float | None = None,
    settings: Settings | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Detection:
    """Where a recording was filled in, with p-values that clean recordings vouch for.

    Parameters
    ----------
    audio
        Path of a file, or an array ``(channels, samples)`` or ``(samples,)``, full scale 1; then `sample_rate` too.
    sample_rate
        In Hz, for an array.
    alpha
        Short for ``settings.alpha``: the share of clean stretches that may get any segment.
    settings
        How to look.
    progress
        Called with stretches done, stretches in all, and a word.

    Raises
    ------
    InputError
        The audio can't be used, or lasts less than `SHORTEST_S`.
    CalibrationError
        `alpha` is smaller than any p-value there can be.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).normal(0, 0.1, 5 * 44100)
    >>> found = detect(noise, sample_rate=44100)
    >>> found.clip_p >= found.least_p
    True
    """
    settings = settings or Settings()
    if alpha is not None:
        settings = Settings(**(settings.model_dump() | {"alpha": alpha}))
    detector = load_detector(settings.model)
    if isinstance(audio, str | Path):
        from sfumato.audio import open_recording

        with open_recording(audio) as recording:
            if recording.info.nonfinite:
                raise InputError(f"{recording.info.nonfinite} samples are NaN or infinite. Repair the recording first.")
            return look(_Source(recording), detector, settings, progress)
    return look(_clip_of(np.asarray(audio), sample_rate), detector, settings, progress)


def look(source: Source, detector: Detector, settings: Settings, progress: Progress) -> Detection:
    """What the detector finds in `source`, stretch by stretch."""
    parts = stretches(source.n_samples, source.sample_rate)
    votes = detector.votes(source.channels, max(stop - start for start, stop in parts) / source.sample_rate)
    least_p = 1.0 / (1 + len(votes))
    if settings.alpha < least_p:
        raise CalibrationError(
            f"alpha {settings.alpha:g} takes {int(np.ceil(1 / settings.alpha)) - 1} clean pieces of music to compare "
            f"with; there are {len(votes)}. Give an alpha of {np.ceil(least_p * 1e3) / 1e3:g} or more."
        )
    segments: list[Segment] = []
    least = 1.0
    for number, (start, stop) in enumerate(parts):
        progress(number, len(parts), f"{start / source.sample_rate:.0f} s")
        audio = source.read(start, stop)
        if not audio.any():
            continue
        scores = detector.scores(audio, source.sample_rate)
        least = min(least, float(voted_p(scores.max(), votes)))
        own = segments_of(scores, votes, settings.alpha)
        segments += [_moved(segment, start / source.sample_rate) for segment in own]
    progress(len(parts), len(parts), "done")
    return Detection(
        clip_p=min(1.0, len(parts) * least),
        segments=tuple(_apart(segments)),
        least_p=least_p,
        n_stretches=len(parts),
        provenance={
            "sfumato": __version__,
            "settings": settings.model_dump(mode="json"),
            "model": {"name": detector.model.name, "sha256": digest(detector.model)},
            "clean_pieces": len(votes),
        },
    )


def stretches(n_samples: int, sample_rate: int) -> list[tuple[int, int]]:
    """Equal stretches of up to `STRETCH_S`, overlapping by twice `EDGE_S`, so that only a recording's ends are passed
    over.

    Raises
    ------
    InputError
        The recording is shorter than `SHORTEST_S`.
    """
    if n_samples < SHORTEST_S * sample_rate:
        raise InputError(
            f"The recording lasts {n_samples / sample_rate:.2f} s; {SHORTEST_S:g} s are needed, as a fill is told by "
            "what is around it."
        )
    overlap, most = round(2 * EDGE_S * sample_rate), int(STRETCH_S * sample_rate)
    count = max(1, -(-(n_samples - overlap) // (most - overlap)))
    starts = np.linspace(0, n_samples - overlap, count + 1).astype(int)
    return [(int(a), int(b) + overlap) for a, b in itertools.pairwise(starts)]


def segments_of(scores: Array, votes: Sequence[Sequence[float]], alpha: float) -> list[Segment]:
    """Runs of frames around each peak whose p-value is at most `alpha`, in seconds of the stretch.

    A run reaches as far as scores stay within `FALL` of the least score that makes an alarm.
    """
    alarms = voted_p(np.where(np.isfinite(scores), scores, -1e9), votes) <= alpha
    if not alarms.any():
        return []
    out = []
    for start, stop in runs(scores >= scores[alarms].min() - FALL):
        if alarms[start:stop].any():
            p = float(voted_p(scores[start:stop].max(), votes))
            out.append(Segment((start - 0.5) * HOP / RATE, (stop - 0.5) * HOP / RATE, p))
    return out


def load_detector(name_or_folder: str | Path) -> Detector:
    """The detector of a shipped name or a folder, with what clean recordings score.

    Raises
    ------
    ModelError
        It is no detector.
    CalibrationError
        It comes without clean scores, or with those of another detector.
    """
    model = load(name_or_folder)
    if not isinstance(model.config, fill_detector.Config):
        raise ModelError(f"{model.name} is of the system {model.system} and detects nothing. Give a fill_detector.")
    path = find(name_or_folder) / CLEAN_FILE
    if not path.is_file():
        raise CalibrationError(f"{path} is missing: without clean scores there is no p-value. Calibrate the detector.")
    clean = load_yaml(path, Clean)
    if clean.model != digest(model):
        raise CalibrationError(f"{path} was measured with another detector. Calibrate this one.")
    return Detector(model, clean)


@dataclass(frozen=True)
class _Source:
    """A decoded file as a source."""

    recording: Recording

    @property
    def sample_rate(self) -> int:
        return self.recording.info.sample_rate

    @property
    def channels(self) -> int:
        return self.recording.info.channels

    @property
    def n_samples(self) -> int:
        return self.recording.info.n_samples

    def read(self, start: int, stop: int) -> Array:
        return self.recording.read(start, stop)


def _clip_of(given: NDArray[Any], sample_rate: int | None) -> Clip:
    """An array as a source, checked."""
    if given.dtype.kind != "f":
        raise InputError(f"Audio of type {given.dtype} has no full scale. Give floating-point samples within ±1.")
    slowest, fastest = SAMPLE_RATES
    if sample_rate is None or not slowest <= sample_rate <= fastest:
        raise InputError(f"An array needs its sample_rate, {slowest} to {fastest} Hz; given was {sample_rate}.")
    audio = np.atleast_2d(given.astype(np.float64))
    if audio.ndim != 2 or audio.shape[1] < audio.shape[0]:
        raise InputError(f"Audio of shape {given.shape} is not (channels, samples).")
    if not np.isfinite(audio).all():
        raise InputError("Some samples are NaN or infinite. Repair the recording first.")
    return Clip(audio, sample_rate)


def _moved(segment: Segment, by: float) -> Segment:
    return Segment(segment.start + by, segment.stop + by, segment.p)


def _apart(segments: Sequence[Segment]) -> list[Segment]:
    """Segments in order; those that two stretches share are one, with the smaller p-value."""
    out: list[Segment] = []
    for segment in sorted(segments, key=lambda one: one.start):
        if out and segment.start <= out[-1].stop:
            last = out.pop()
            segment = Segment(last.start, max(last.stop, segment.stop), min(last.p, segment.p))
        out.append(segment)
    return out
