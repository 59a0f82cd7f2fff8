"""Make the damaged demo recording from the clean one, and the clean one from the track it is an excerpt of.

    python examples/make_damaged.py                      # only_300_stood.flac -> only_300_stood_damaged.flac
    python examples/make_damaged.py Only_300_Stood.ogg     # cut the excerpt first

Every number is fixed, so the same input gives the same samples.
"""

import sys
from pathlib import Path

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

HERE = Path(__file__).parent
CLEAN, DAMAGED = HERE / "only_300_stood.flac", HERE / "only_300_stood_damaged.flac"
SEED = 3

EXCERPT_S = (101.0, 113.0)
FADE_S = 0.02
CLICKS_S = (2.400, 2.408)
"""A burst of clicks over the music."""
SHORT_S = (5.200, 5.260)
"""A dropout of 60 ms: exact zeros, as from a lost packet."""
LONG_S = (8.000, 8.300)
"""A dropout of 300 ms: the music 60 dB down, as from a fold in a tape."""

TAGS = {
    "title": "Only 300 Stood (excerpt)",
    "artist": "Wildfire Games",
    "album": "0 A.D.",
    "copyright": "(c) Wildfire Games, CC BY-SA 3.0, http://creativecommons.org/licenses/by-sa/3.0/",
    "comment": "See examples/README.md for the changes made.",
}


def excerpt(track: Path) -> None:
    """Write seconds 101 to 113 of the track, with fades of 20 ms at both ends, as 16-bit FLAC."""
    audio, rate = sf.read(track, start=round(EXCERPT_S[0] * 44100), stop=round(EXCERPT_S[1] * 44100))
    fade = np.linspace(0.0, 1.0, round(FADE_S * rate))[:, None]
    audio[: len(fade)] *= fade
    audio[-len(fade) :] *= fade[::-1]
    write(CLEAN, np.round(np.clip(audio, -1.0, 1.0 - 2**-15) * 32768).astype(np.int16), rate)


def damage(audio: NDArray[np.int16], rate: int) -> NDArray[np.int16]:
    """The audio, shape (samples, 2), with a click burst, a 60 ms and a 300 ms dropout in both channels."""
    damaged = audio.astype(np.float64)
    rng = np.random.default_rng(SEED)
    start, stop = (round(s * rate) for s in CLICKS_S)
    for at in np.sort(rng.integers(start, stop, size=12)):
        width = int(rng.integers(2, 14))
        pulse = np.sin(np.pi * (np.arange(width) + 0.5) / width) * rng.choice([-1, 1]) * rng.uniform(0.3, 0.8)
        damaged[at : at + width] += 32768 * pulse[:, None]
    start, stop = (round(s * rate) for s in SHORT_S)
    damaged[start:stop] = 0.0
    start, stop = (round(s * rate) for s in LONG_S)
    damaged[start:stop] *= 10 ** (-60 / 20)
    return np.clip(np.round(damaged), -32768, 32767).astype(np.int16)


def write(path: Path, audio: NDArray[np.int16], rate: int) -> None:
    """Write 16-bit FLAC at its strongest compression, with tags."""
    with sf.SoundFile(path, "w", rate, 2, "PCM_16", format="FLAC", compression_level=1.0) as file:
        for name, value in TAGS.items():
            setattr(file, name, value)
        file.write(audio)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        excerpt(Path(sys.argv[1]))
    clean, sample_rate = sf.read(CLEAN, dtype="int16")
    write(DAMAGED, damage(clean, sample_rate), sample_rate)
