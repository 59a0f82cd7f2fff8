"""A small folder of generated sounds: tones and noise, at a rate that is nobody's own."""

from pathlib import Path

import numpy as np
import soundfile as sf

RATE = 22050


def write(folder: Path, seed: int = 0, seconds: float = 1.5, n: int = 3) -> Path:
    """`n` tones with overtones and a little noise."""
    generator = np.random.default_rng(seed)
    folder.mkdir()
    at = np.arange(int(seconds * RATE)) / RATE
    for number in range(n):
        pitch = 150 * 2 ** generator.uniform(0, 2)
        tone = sum(np.sin(2 * np.pi * k * pitch * at) / k for k in range(1, 6)) * np.exp(-at)
        sf.write(folder / f"tone {number}.wav", 0.2 * tone + 0.003 * generator.standard_normal(len(at)), RATE)
    return folder
