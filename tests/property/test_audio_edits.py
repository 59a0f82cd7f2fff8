"""Outside the edits, a copy holds the recording's stored values bit for bit; inside, the edits' nearest values."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.audio import open_recording, write_edited

# container, subtype, suffix, NumPy type that soundfile reads the stored values in, bits
FORMATS = [
    ("WAV", "PCM_16", ".wav", "int16", 16),
    ("WAV", "PCM_24", ".wav", "int32", 24),
    ("WAV", "PCM_32", ".wav", "int32", 32),
    ("WAV", "FLOAT", ".wav", "float32", 0),
    ("WAV", "DOUBLE", ".wav", "float64", 0),
    ("FLAC", "PCM_16", ".flac", "int16", 16),
    ("FLAC", "PCM_24", ".flac", "int32", 24),
    ("AIFF", "PCM_24", ".aiff", "int32", 24),
]


@st.composite
def cases(draw):
    channels = draw(st.sampled_from([1, 2, 5]))
    n_samples = draw(st.sampled_from([1, 2, 1_000, 65_536, 65_537, 140_000]))
    cuts = sorted(draw(st.lists(st.integers(0, n_samples), min_size=0, max_size=6, unique=True)))
    gaps = list(zip(cuts[::2], cuts[1::2], strict=False))
    return channels, n_samples, draw(st.permutations(gaps)), draw(st.integers(0, 2**32 - 1))


def stored_noise(rng, shape, dtype, bits):
    if not bits:
        return (rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 3)).astype(dtype)
    steps = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape)
    return (steps << (8 * np.dtype(dtype).itemsize - bits)).astype(dtype)


@pytest.mark.parametrize(("container", "subtype", "suffix", "dtype", "bits"), FORMATS)
@settings(max_examples=5)
@given(case=cases())
def test_only_the_edits_change(container, subtype, suffix, dtype, bits, case):
    channels, n_samples, gaps, seed = case
    rng = np.random.default_rng(seed)
    stored = stored_noise(rng, (n_samples, channels), dtype, bits)
    edits = [(start, rng.uniform(-0.9, 0.9, (channels, stop - start))) for start, stop in gaps]
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / f"a{suffix}", Path(folder) / f"b{suffix}"
        soundfile.write(source, stored, 44_100, subtype, format=container)
        with open_recording(source) as recording:
            write_edited(recording, out, edits)
        copy = soundfile.read(out, dtype=dtype, always_2d=True)[0]
        with soundfile.SoundFile(out) as file:
            assert (file.format, file.subtype, file.samplerate) == (container, subtype, 44_100)
    expected = stored.copy()
    for start, edit in edits:
        if bits:
            steps = np.rint(edit.T * 2 ** (bits - 1)).astype(np.int64)
            expected[start : start + edit.shape[1]] = steps << (8 * expected.itemsize - bits)
        else:
            expected[start : start + edit.shape[1]] = edit.T
    assert copy.tobytes() == expected.tobytes()
