"""Training examples of the detector of fills: crops with a few fills in them, each processed as files are.

A crop is a pure function of (recordings, seed, index). Most fills are this library's own, at several settings; what
else the detector may meet (Janssen, A-SPAIN, pasted copies) is kept from it, so that it can be measured on them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from numpy.typing import NDArray
from scipy.signal import resample_poly

from sfumato.data.manifest import Row
from sfumato.errors import InputError
from sfumato.model import Model
from sfumato.tasks.methods import choose
from sfumato.tasks.repair import Settings
from sfumato.tasks.windows import Clip, Gap, fill_group

Array = NDArray[np.float64]

CROP_S = 8.0
GAP_S = (0.03, 0.7)
EDGE_S = 0.4
"""Clean sound before the first and after the last fill, and between two."""

SEVERAL = 4
"""A crop has one to this many fills."""

WAYS: dict[str, tuple[float, dict[str, Any]]] = {
    "auto": (0.4, {}),
    "diffusion": (0.15, {"method": "diffusion"}),
    "diffusion, drawn levels": (0.15, {"method": "diffusion", "temperature": 0.7}),
    "ar": (0.2, {"method": "ar"}),
    "extrapolate": (0.1, {"method": "extrapolate"}),
}
"""How crops are filled: name -> share of the crops, settings of the repair that differ from the usual."""

_QUIETEST, _ATTEMPTS = 3e-3, 200


@dataclass(frozen=True)
class Crop:
    """A stretch of a recording with fills in it."""

    clean: Array
    """``(channels, samples)``, full scale 1, as are the samples of `filled`."""
    filled: Array
    gaps: tuple[Gap, ...]
    sample_rate: int
    way: str


def random_of(seed: int, index: int) -> np.random.Generator:
    """The numbers behind one example."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))


def excerpt(rows: Sequence[Row], root: Path, random: np.random.Generator) -> tuple[Array, int]:
    """A stretch of `CROP_S` of one recording at random, and its sample rate."""
    weights = np.sqrt([row.seconds for row in rows])
    for _ in range(_ATTEMPTS):
        row = rows[int(random.choice(len(rows), p=weights / weights.sum()))]
        n, total = round(CROP_S * row.sample_rate), int(row.seconds * row.sample_rate)
        if total < n:
            continue
        start = int(random.integers(0, total - n + 1))
        try:
            audio, _ = sf.read(root / row.path, start=start, frames=n, always_2d=True)
        except sf.LibsndfileError as error:
            raise InputError(f"{root / row.path} is in the manifest but can't be read: {error.error_string}") from error
        if len(audio) == n:
            return np.ascontiguousarray(audio.T), row.sample_rate
    raise InputError(f"None of {len(rows)} recordings lasts {CROP_S:g} s. Give longer ones.")


def crop(rows: Sequence[Row], root: Path, model: Model, seed: int, index: int) -> Crop:
    """One crop with its fills, by a method and with settings drawn at random; rounded to 16 bits, as in a file."""
    random = random_of(seed, index)
    for _ in range(_ATTEMPTS):
        audio, rate = excerpt(rows, root, random)
        gaps = places(audio, rate, random)
        if gaps:
            way = str(random.choice(list(WAYS), p=[share for share, _ in WAYS.values()]))
            return filled(audio, rate, gaps, way, int(random.integers(2**31)), model)
    raise InputError(f"{len(rows)} recordings are silent wherever they are cut.")


def places(audio: Array, sample_rate: int, random: np.random.Generator) -> list[Gap]:
    """Up to `SEVERAL` gaps at random places that aren't silent, apart from each other; none if the crop is silent."""
    gaps: list[Gap] = []
    edge, n = round(EDGE_S * sample_rate), audio.shape[1]
    for _ in range(int(random.integers(1, SEVERAL + 1))):
        length = round(sample_rate * float(np.exp(random.uniform(*np.log(GAP_S)))))
        start = int(random.integers(edge, n - edge - length))
        apart = all(start - edge >= stop or start + length + edge <= first for first, stop in gaps)
        if apart and np.sqrt(np.mean(audio[:, start : start + length] ** 2)) > _QUIETEST:
            gaps.append((start, start + length))
    return sorted(gaps)


def filled(
    audio: Array, sample_rate: int, gaps: Sequence[Gap], way: str, seed: int, model: Model, **changes: Any
) -> Crop:
    """`audio` with its gaps filled in one of the `WAYS`, its settings changed by `changes`."""
    settings = Settings.model_construct(**{**Settings(draws=1, seed=seed).model_dump(), **WAYS[way][1], **changes})
    out = audio.copy()
    for gap in gaps:
        _, fill = choose(settings, model, (gap[1] - gap[0]) / sample_rate)
        out[:, gap[0] : gap[1]] = fill_group(Clip(audio, sample_rate), [gap], gaps, fill).draws[0]
    return Crop(audio, np.round(np.clip(out, -1.0, 32767 / 32768) * 32768) / 32768, tuple(gaps), sample_rate, way)


def _through(audio: Array, sample_rate: int, container: str, subtype: str) -> Array:
    """Encoded and decoded again at libsndfile's usual quality."""
    file = io.BytesIO()
    sf.write(file, np.clip(audio.T, -1.0, 1.0), sample_rate, format=container, subtype=subtype)
    file.seek(0)
    back, _ = sf.read(file, always_2d=True)
    return np.asarray(back.T)


def _by_rate(audio: Array, sample_rate: int, other: int) -> Array:
    """Resampled to `other` Hz, from the rate it has."""
    shared = int(np.gcd(sample_rate, other))
    return np.asarray(resample_poly(audio, other // shared, sample_rate // shared, axis=1))


def _opus(audio: Array, sample_rate: int) -> tuple[Array, int]:
    return _through(_by_rate(audio, sample_rate, 48000), 48000, "OGG", "OPUS"), 48000


PROCESSES: dict[str, Callable[[Array, int], tuple[Array, int]]] = {
    "as it is": lambda audio, rate: (audio, rate),
    "FLAC 16 bit": lambda audio, rate: (_through(audio, rate, "FLAC", "PCM_16"), rate),
    "MP3": lambda audio, rate: (_through(audio, rate, "MP3", "MPEG_LAYER_III"), rate),
    "Opus": _opus,
    "Vorbis": lambda audio, rate: (_through(audio, rate, "OGG", "VORBIS"), rate),
    "48 kHz": lambda audio, rate: (_by_rate(audio, rate, 48000), 48000),
    "22.05 kHz": lambda audio, rate: (_by_rate(audio, rate, 22050), 22050),
    "mono": lambda audio, rate: (audio.mean(axis=0, keepdims=True), rate),
}
"""What may happen to a recording after a fill: name -> ``(audio, sample rate)`` to ``(audio, sample rate)``."""
