"""Repair: fill the gaps of a damaged recording and leave every other sample as it is.

This file owns what every method shares: filling gap by gap and region by region, pasting back, and the record of how it
was done. What is to be filled is in `tasks.gaps`, by what in `tasks.methods`, cutting windows in `tasks.windows`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sfumato import __version__
from sfumato.config import Settings as BaseSettings
from sfumato.decode_child import SAMPLE_RATES
from sfumato.errors import InputError
from sfumato.tasks import looks, routing, spectrogram
from sfumato.tasks.gaps import GIVEN, Skipped, Wanted, beside, wanted_of
from sfumato.tasks.looks import Domain
from sfumato.tasks.methods import Tell, check_model, choose, load_model, window_samples
from sfumato.tasks.regions import Box, fill_boxes, leak_db, stretch
from sfumato.tasks.windows import Clip, Filled, Gap, Source, fill_group, plan

if TYPE_CHECKING:
    from sfumato.model import Model
    from sfumato.tasks.confidence import Bounded, Promises, Quality

Array = NDArray[np.float64]
Progress = Callable[[int, int, str], None]

NAME = "repair"
BLOCK = 1 << 16

REGION = "region"
"""Kind of what is not a gap."""

Method = Literal["auto", "ar", "janssen", "aspain", "diffusion", "uasrm", "cqtdiff"]

Guarantee = Literal["crc", "wsr", "hoeffding_bentkus"]


class Settings(BaseSettings):
    """How to repair."""

    method: Method = Field(
        "auto",
        description="auto picks per gap by measured risk; ar: a draw of the autoregressive posterior; janssen, aspain:"
        " classical interpolation; diffusion: the learned inpainter; uasrm: levels"
        " of the spectrogram by a network, phases made consistent; cqtdiff: a converted CQT-Diff+, most of an hour a"
        " draw and channel",
    )
    draws: int = Field(4, ge=1, le=256, description="fills per gap; the first is the one pasted")
    seed: int = Field(0, ge=0, lt=2**63, description="seed of every random number; same seed, same bytes")
    model: str | None = Field(
        None, description="a shipped model, or a folder; by default the method's own: conffusion, or for uasrm uasrm"
    )
    level: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="also say how sure the fill is, at this level, such as 0.9: docs/confidence.md",
    )
    domain: Domain = Field(
        "band_level_db",
        description="what the interval bounds: levels of 64 bands, levels of single bins, or for gaps up to 50 ms the"
        " waveform",
    )
    guarantee: Guarantee = Field(
        "crc",
        description="crc: the level holds on average over calibrations; wsr, hoeffding_bentkus: in each group of cells"
        " with chance 90 % for the calibration that ships, which takes wider intervals",
    )
    steps: int = Field(10, ge=1, le=1000, description="sampler steps of the diffusion")
    temperature: float = Field(
        0.0,
        ge=0,
        le=2,
        description="how far the levels of a draw depart from their expectation: 1 is the model's full posterior;"
        " at 0 draws differ in their sound, not in their levels, and one network evaluation is enough",
    )


@dataclass(frozen=True)
class Repaired:
    """One gap, or some regions that overlap in time, and how they were filled."""

    start: int
    stop: int
    kind: str
    method: str
    seconds: float
    draws: Array = field(repr=False)
    """``(draws, channels, stop - start)``; the first is in the result."""
    interval: Bounded | None = field(default=None, repr=False)
    """Where the true levels lie, if a level was asked for and can be promised."""
    quality: Quality | None = None
    """How far the fill may be from the truth, likewise."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why there is no "interval", or no "quality", if a level was asked for."""
    boxes: tuple[Box, ...] = ()
    """The regions, where only those were filled."""
    leak_db: float | None = None
    """What changed outside the regions: energy over that of the whole change. None: nothing at all."""


@dataclass(frozen=True)
class Result:
    """A repaired recording."""

    audio: Array
    """``(channels, samples)``, bit-identical to the input outside the gaps and the times of the regions."""
    sample_rate: int
    gaps: tuple[Repaired, ...]
    regions: tuple[Repaired, ...]
    skipped: tuple[Skipped, ...]
    provenance: dict[str, Any]


def fill_all(
    source: Source,
    wanted: Wanted,
    settings: Settings,
    model: Model | None,
    progress: Progress = lambda done, total, text: None,
    promised: Promises | None = None,
) -> Iterator[Repaired | Skipped]:
    """Each gap filled, then each group of regions; none learns from another."""
    yield from fill_gaps(source, wanted.gaps, wanted.kinds, settings, model, progress, wanted.elsewhere, promised)
    for i, boxes in enumerate(wanted.regions):
        at = f"{boxes[0].start / source.sample_rate:.2f} s"
        tell = functools.partial(_tell, progress, i, len(wanted.regions), at)
        progress(i, len(wanted.regions), at)
        yield _fill_regions(source, boxes, [*wanted.gaps, *wanted.elsewhere], settings, model, promised, tell)


def _fill_regions(
    source: Source,
    boxes: Sequence[Box],
    unknown: Sequence[Gap],
    settings: Settings,
    model: Model | None,
    promised: Promises | None,
    tell: Tell,
) -> Repaired:
    """One group of regions."""
    began, rate = time.perf_counter(), source.sample_rate
    start, stop = own = stretch(boxes)
    others = sorted(gap for gap in unknown if gap != own)
    if settings.method == "uasrm":
        name = str(settings.method)
        draws = spectrogram.fill_boxes(source, boxes, others, settings.draws, settings.seed, model)
    else:
        name, fill = choose(settings, model, (stop - start) / rate, tell)
        draws = fill_boxes(source, boxes, others, fill, window_samples(settings, model, rate))
    leak = leak_db(np.nan_to_num(draws[0] - source.read(start, stop)), boxes, rate)
    why = "promises are calibrated for whole gaps, not for regions"
    refused = {} if promised is None else dict.fromkeys(("interval", "quality"), why)
    made: dict[str, Any] = {"refused": refused, "leak_db": leak if np.isfinite(leak) else None}
    return Repaired(*own, REGION, name, time.perf_counter() - began, draws, boxes=tuple(boxes), **made)


def fill_gaps(
    source: Source,
    gaps: Sequence[Gap],
    kinds: Sequence[str],
    settings: Settings,
    model: Model | None,
    progress: Progress = lambda done, total, text: None,
    damaged: Sequence[Gap] = (),
    promised: Promises | None = None,
) -> Iterator[Repaired | Skipped]:
    """Each gap filled, in order of time; one that was found, not given, and can't be filled is skipped.

    `damaged` stretches beyond the gaps are not learned from either.
    """
    kind_of = dict(zip(gaps, kinds, strict=True))
    unknown = sorted([*gaps, *damaged])
    done = 0
    for neighbours in plan(gaps, source.sample_rate):
        filled: list[Repaired | Skipped] = []
        for group in _routed(neighbours, settings, model, source.sample_rate):
            at = f"{group[0][0] / source.sample_rate:.2f} s"
            progress(done, len(gaps), at)
            tell = functools.partial(_tell, progress, done, len(gaps), at)
            filled += _fill_group(source, group, unknown, kind_of, settings, model, promised, tell)
            done += len(group)
        yield from sorted(filled, key=lambda gap: gap.start)
    progress(done, len(gaps), "done")


def _routed(neighbours: Sequence[Gap], settings: Settings, model: Model | None, sample_rate: int) -> list[list[Gap]]:
    """Neighbouring gaps by the way they are filled: a click beside a long dropout is still a click."""
    if settings.method == "uasrm":
        return [[gap] for gap in neighbours]
    groups: dict[str, list[Gap]] = {}
    for gap in neighbours:
        groups.setdefault(choose(settings, model, (gap[1] - gap[0]) / sample_rate)[0], []).append(gap)
    return list(groups.values())


def _fill_group(
    source: Source,
    group: Sequence[Gap],
    unknown: Sequence[Gap],
    kind_of: Mapping[Gap, str],
    settings: Settings,
    model: Model | None,
    promised: Promises | None,
    tell: Tell,
) -> Iterator[Repaired | Skipped]:
    """Gaps that are filled together."""
    began = time.perf_counter()
    lengths = [stop - start for start, stop in group]
    n = window_samples(settings, model, source.sample_rate)
    try:
        if settings.method == "uasrm":
            name = str(settings.method)
            filled = spectrogram.fill_gap(source, group[0], unknown, settings.draws, settings.seed, model)
        else:
            name, fill = choose(settings, model, max(lengths) / source.sample_rate, tell)
            routed = settings.method == "auto" and routing.concerns(name, group, source.sample_rate)
            seed = settings.seed if routed or promised is not None else None
            filled = fill_group(source, group, unknown, fill, seed, n)
            if routed:
                others: dict[str, Callable[[], Filled]] = {
                    method: functools.partial(_filled_by, source, group[0], unknown, settings, model, method)
                    for method in routing.OTHERS
                }
                bounds = looks.bounds_model()
                name, filled = routing.better(source, group[0], unknown, name, filled, others, bounds)
    except InputError as error:
        if any(kind_of[gap] == GIVEN for gap in group):
            raise
        yield from (Skipped(*gap, kind_of[gap], str(error)) for gap in group)
        return
    seconds, at = time.perf_counter() - began, 0
    for gap, length in zip(group, lengths, strict=True):
        part = filled.cut(at, at + length)
        at += length
        sure: dict[str, Any] = {}
        if promised is not None:
            damage = sorted([*unknown, *_beside(source, gap, part)]) if kind_of[gap] == GIVEN else unknown
            sure = vars(promised.of(source, gap, damage, part, settings, model))
        yield Repaired(*gap, kind_of[gap], name, seconds * length / sum(lengths), part.draws, **sure)


def _beside(source: Source, gap: Gap, filled: Filled) -> list[Gap]:
    """Damage near a gap that was given: nobody has looked for it, and it voids a promise."""
    return beside(source, gap, looks.stretch(source.sample_rate, gap), filled.draws[0])


def _filled_by(
    source: Source, gap: Gap, unknown: Sequence[Gap], settings: Settings, model: Model | None, method: Method
) -> Filled:
    """One gap filled by another method, all else as set."""
    fill = choose(settings.model_copy(update={"method": method}), model, (gap[1] - gap[0]) / source.sample_rate)[1]
    return fill_group(source, [gap], unknown, fill, settings.seed)


def _tell(progress: Progress, done: int, total: int, at: str, text: str) -> None:
    """What a slow method says while it fills the gap at `at`."""
    progress(done, total, f"{at}: {text}")


def provenance(settings: Settings, model: Model | None, promised: Promises | None = None) -> dict[str, Any]:
    """How a result was made: versions, settings, and the models' names and hashes."""
    from sfumato.model import digest

    def named(model: Model | None) -> dict[str, str] | None:
        return None if model is None else {"name": model.name, "sha256": digest(model)}

    made: dict[str, Any] = {
        "sfumato": __version__,
        "versions": {name: version(name) for name in ("numpy", "scipy", "torch")},
        "settings": settings.model_dump(mode="json"),
        "model": named(model),
    }
    if promised is not None or (settings.method == "auto" and model is not None):
        made["bounds"] = named(looks.bounds_model() if promised is None else promised.bounds)
    return made


def load_promises(settings: Settings) -> Promises | None:
    """What the level asked for needs, or None where none was asked for."""
    if settings.level is None:
        return None
    from sfumato.tasks.confidence import promises

    return promises(settings)


def _blocks(audio: Array) -> Iterator[tuple[int, Array]]:
    for start in range(0, audio.shape[1], BLOCK):
        yield start, audio[:, start : start + BLOCK]


def repair(
    audio: str | Path | NDArray[np.floating[Any]],
    gaps: Sequence[tuple[float, float]] | None = None,
    *,
    regions: Sequence[tuple[float, float, float, float]] = (),
    sample_rate: int | None = None,
    settings: Settings | None = None,
    seed: int | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Result:
    """A recording with its gaps filled.

    Parameters
    ----------
    audio
        Path of a file, or an array ``(channels, samples)`` or ``(samples,)``, full scale 1; then `sample_rate` too.
    gaps
        Half-open (start, stop) in seconds; None finds them, unless regions are given.
    regions
        Rectangles of time and frequency, (start, stop, f_low, f_high) in seconds and Hz: only what sounds inside is
        replaced. They may overlap each other, but no gap.
    sample_rate
        In Hz, for an array.
    settings
        How to repair; the defaults suit most recordings.
    seed
        Short for ``settings.seed``.
    progress
        Called with gaps done, gaps in all, and a word.

    Returns
    -------
    Result
        Outside the gaps and the times of the regions, samples are bit-identical to the input.

    Raises
    ------
    InputError
        The audio, a gap or a region can't be used.

    Examples
    --------
    >>> import numpy as np
    >>> tone = np.sin(np.arange(44100) * 0.05)
    >>> result = repair(tone, [(0.5, 0.51)], sample_rate=44100, settings=Settings(method="janssen"))
    >>> result.audio.shape, bool(abs(result.audio[0] - tone).max() < 1e-3)
    ((1, 44100), True)
    """
    settings = settings or Settings()
    if seed is not None:
        settings = Settings(**(settings.model_dump() | {"seed": seed}))
    if isinstance(audio, str | Path):
        from sfumato.audio import open_recording

        with open_recording(audio) as recording:
            whole, sample_rate = recording.read(0, recording.info.n_samples), recording.info.sample_rate
    else:
        given = np.asarray(audio)
        if given.dtype.kind != "f":
            raise InputError(
                f"Audio of type {given.dtype} has no full scale. Give floating-point samples within ±1."
            )
        whole = np.atleast_2d(np.array(given, dtype=np.float64))
        slowest, fastest = SAMPLE_RATES
        if sample_rate is None or not slowest <= sample_rate <= fastest:
            raise InputError(f"An array needs its sample_rate, {slowest} to {fastest} Hz; given was {sample_rate}.")
        if whole.ndim != 2 or whole.shape[1] < whole.shape[0]:
            raise InputError(f"Audio of shape {np.shape(audio)} is not (channels, samples).")
    source = Clip(whole, sample_rate)
    wanted = wanted_of(source, gaps, regions, _blocks(whole))
    check_model(settings)
    promised = load_promises(settings)
    model = load_model(settings) if wanted.gaps or wanted.regions else None
    out = whole.copy()
    done, skipped = [], wanted.skipped.copy()
    for filled in fill_all(source, wanted, settings, model, progress, promised):
        if isinstance(filled, Skipped):
            skipped.append(filled)
        else:
            out[:, filled.start : filled.stop] = filled.draws[0]
            done.append(filled)
    whole_gaps, parts = (tuple(part for part in done if bool(part.boxes) is boxed) for boxed in (False, True))
    return Result(out, sample_rate, whole_gaps, parts, tuple(skipped), provenance(settings, model, promised))
