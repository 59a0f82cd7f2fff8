"""Where was this recording filled in?

A recording is read in stretches of up to a minute. In each, the detector (`systems.fill_detector`) scores every frame.
A score is compared with the largest scores of clean recordings, read in windows: its rank among them is the p-value of
one such window, and what is read is as many windows as cover it, so by Bonferroni's rule that p-value is multiplied by
their number (`Reference`). Segments are listed where this is at most alpha: of clean recordings no more than the share
alpha gets any segment, however long they are and however many frames were looked at. The unit is the piece of music:
clean windows of one piece share one vote (`interval.pvalues.voted_p`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import uniform_filter1d

from sfumato import __version__
from sfumato.config import Settings as BaseSettings
from sfumato.config import load_yaml, parse
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
"""Longest part that is read at once."""

LENGTHS_S = (2.0, 10.0, 60.0, 110.0)
"""Lengths of the clean windows. The longest was chosen by how many clean pieces last so long: with 60, three windows
reach a p-value of 0.05."""

SHORTEST_S = 2.0
EDGE_S = 0.25
"""Nothing is looked for this close to the ends of a recording: a fill is told by what is on both sides."""

LOUDEST = 1e6
"""Largest sample: beyond, squares of single precision have no room."""

SMOOTHED = 5
"""Frames over which scores are averaged: 58 ms."""

FALL = 1.5
"""A segment reaches from its peak to where the score has fallen by this much below what its alarm takes."""


class Settings(BaseSettings):
    """How to look."""

    alpha: float = Field(0.05, gt=0, lt=1, description="share of clean recordings that may get any segment")
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
    """Chance that a clean recording as long has a segment as suspicious, anywhere."""


@dataclass(frozen=True)
class Detection:
    """What was found in one recording."""

    clip_p: float
    """Chance that a clean recording is as suspicious, anywhere."""
    segments: tuple[Segment, ...]
    least_p: float
    """The smallest p-value there can be for a recording as long. Above alpha, nothing can be listed."""
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
class Reference:
    """What scores are compared with: clean windows, of which so many cover what is looked at."""

    pieces: Sequence[Sequence[float]]
    """Largest scores of the windows of each piece."""
    windows: int = 1

    def p(self, scores: Array) -> Array:
        """P-value of scores, none of which may be of another recording; by Bonferroni's rule over the windows."""
        finite = np.where(np.isfinite(scores), scores, -1e9)
        return np.asarray(np.minimum(1.0, self.windows * voted_p(finite, self.pieces)))

    @property
    def least_p(self) -> float:
        """The smallest p-value there can be."""
        return min(1.0, self.windows / (1.0 + len(self.pieces)))


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

    def reference(self, channels: int, length_s: float) -> Reference:
        """What a recording of this length is compared with: clean windows as long or longer, or several that cover it.

        Of the lengths that were measured, the one that reaches the smallest p-value; scores have no say in it.
        """
        table = self.clean.stereo if channels == 2 else self.clean.mono
        possible = [
            Reference(list(pieces.values()), covering(length_s, known)) for known, pieces in sorted(table.items())
        ]
        return min(possible, key=lambda one: one.windows / (1.0 + len(one.pieces)))


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
        Short for ``settings.alpha``: the share of clean recordings that may get any segment.
    settings
        How to look.
    progress
        Called with stretches done, stretches in all, and a word.

    Raises
    ------
    InputError
        The audio can't be used, lasts less than `SHORTEST_S`, or `alpha` is not between 0 and 1.
    CalibrationError
        `alpha` is smaller than any p-value there can be, however short the recording.

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
        settings = parse(settings.model_dump() | {"alpha": alpha}, Settings, "detect")
    detector = load_detector(settings.model)
    if isinstance(audio, str | Path):
        from sfumato.audio import open_recording

        with open_recording(audio) as recording:
            recording.must_be_finite()
            return look(_Source(recording), detector, settings, progress)
    return look(_clip_of(np.asarray(audio), sample_rate), detector, settings, progress)


def look(source: Source, detector: Detector, settings: Settings, progress: Progress) -> Detection:
    """What the detector finds in `source`, stretch by stretch."""
    n_stretches = len(stretches(source.n_samples, source.sample_rate))
    reference = detector.reference(source.channels, source.n_samples / source.sample_rate)
    pieces = len(reference.pieces)
    if settings.alpha < 1.0 / (1 + pieces):
        raise CalibrationError(
            f"alpha {settings.alpha:g} takes {int(np.ceil(1 / settings.alpha)) - 1} clean pieces of music to compare "
            f"with; there are {pieces}. Give an alpha of {np.ceil(1e3 * reference.least_p) / 1e3:g} or more."
        )
    segments: list[Segment] = []
    clip_p = 1.0
    for start_s, scores in scored(source, detector, progress):
        clip_p = min(clip_p, float(reference.p(scores.max())))
        segments += [_moved(segment, start_s) for segment in segments_of(scores, reference, settings.alpha)]
    return Detection(
        clip_p=clip_p,
        segments=tuple(_apart(segments)),
        least_p=reference.least_p,
        n_stretches=n_stretches,
        provenance={
            "sfumato": __version__,
            "settings": settings.model_dump(mode="json"),
            "model": {"name": detector.model.name, "sha256": digest(detector.model)},
            "clean_pieces": pieces,
            "windows": reference.windows,
        },
    )


def scored(source: Source, detector: Detector, progress: Progress = lambda *_: None) -> Iterator[tuple[float, Array]]:
    """Where each stretch starts, in s, and the scores of its frames; silent stretches are passed over.

    Raises
    ------
    InputError
        A sample is beyond `LOUDEST`.
    """
    parts, rate = stretches(source.n_samples, source.sample_rate), source.sample_rate
    for number, (start, stop) in enumerate(parts):
        progress(number, len(parts), f"{start / rate:.0f} s")
        audio = source.read(start, stop)
        if (loudest := float(np.abs(audio).max())) > LOUDEST:
            raise InputError(f"A sample is {loudest:.3g}; full scale is 1, and {LOUDEST:g} the most that is looked at.")
        if loudest > 0:
            yield start / rate, detector.scores(audio, rate)
    progress(len(parts), len(parts), "done")


def covering(length_s: float, window_s: float) -> int:
    """How many windows cover so much, overlapping by twice `EDGE_S`, since nothing is looked for at their ends."""
    overlap = 2 * EDGE_S
    return max(1, int(np.ceil((length_s - overlap) / (window_s - overlap) - 1e-6)))


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


def segments_of(scores: Array, reference: Reference, alpha: float) -> list[Segment]:
    """Runs of frames around each peak whose p-value is at most `alpha`, in seconds of the stretch.

    A run reaches as far as scores stay within `FALL` of the least score that makes an alarm.
    """
    alarms = reference.p(scores) <= alpha + 1e-12  # 3 / 60 is 0.05
    if not alarms.any():
        return []
    out = []
    for start, stop in runs(scores >= scores[alarms].min() - FALL):
        if alarms[start:stop].any():
            p = float(reference.p(scores[start:stop].max()))
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
    """Segments in order; those that two stretches share are one, with the smaller p-value.

    That is the p-value of the higher of their peaks, and so of the joined segment's: both were compared with the same.
    """
    out: list[Segment] = []
    for segment in sorted(segments, key=lambda one: one.start):
        if out and segment.start <= out[-1].stop:
            last = out.pop()
            segment = Segment(last.start, max(last.stop, segment.stop), min(last.p, segment.p))
        out.append(segment)
    return out
