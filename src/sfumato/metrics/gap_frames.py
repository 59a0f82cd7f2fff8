"""Short-time power spectra around a gap: the ground that every spectral metric of a fill stands on."""

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import InputError

Gap = tuple[int, int]
Array = NDArray[np.float64]


def as_clip(audio: NDArray[np.floating]) -> Array:
    """Return audio as float64 (channels, samples); a 1-D array counts as one channel."""
    clip = np.atleast_2d(np.asarray(audio, dtype=np.float64))
    if clip.ndim != 2:
        raise InputError(f"Audio has {clip.ndim} dimensions. Give (channels, samples).")
    return clip


def as_pair(reference: NDArray[np.floating], fill: NDArray[np.floating], gap: Gap) -> tuple[Array, Array]:
    """Return reference and fill as equally shaped float64 clips that hold the gap.

    Raises
    ------
    InputError
        If the shapes differ, a sample isn't finite or the gap is empty or outside the clip.
    """
    clips = as_clip(reference), as_clip(fill)
    if clips[0].shape != clips[1].shape:
        raise InputError(
            f"Reference {clips[0].shape} and fill {clips[1].shape} differ in shape. Give the same clip twice."
        )
    check_gap(gap, clips[0].shape[1])
    if not (np.isfinite(clips[0]).all() and np.isfinite(clips[1]).all()):
        raise InputError("Audio holds NaN or infinite samples. Metrics need finite audio.")
    return clips


def check_gap(gap: Gap, n_samples: int) -> None:
    """Raise InputError unless 0 ≤ start < stop ≤ n_samples."""
    start, stop = gap
    if not 0 <= start < stop <= n_samples:
        raise InputError(f"Gap {start}–{stop} is not inside the clip of {n_samples} samples. Give 0 ≤ start < stop.")


def gap_power(clip: Array, gap: Gap, n_fft: int = 2048, hop_length: int = 512) -> Array:
    """Return the power spectra of Hann frames around the gap.

    Parameters
    ----------
    clip : ndarray, shape (channels, samples)
        Averaged to mono.
    gap : tuple of int
        (start, stop), samples, half-open.
    n_fft, hop_length : int
        Frame length and step, samples.

    Returns
    -------
    ndarray, shape (frames, n_fft // 2 + 1)
        Squared magnitude of the windowed DFT, unnormalised. The first frame begins n_fft/2 samples before the
        gap; frames end at most n_fft/2 after it. Beyond the clip's ends there are zeros.
    """
    start, stop = gap
    half = n_fft // 2
    mono = np.pad(clip.mean(axis=0)[max(0, start - half) : stop + half], (max(0, half - start), 0))
    mono = np.pad(mono, (0, stop - start + n_fft - mono.size))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frames = np.lib.stride_tricks.sliding_window_view(mono, n_fft)[::hop_length]
    power: Array = np.abs(np.fft.rfft(frames * window, axis=-1)) ** 2
    return power


def floored_db(reference: Array, fill: Array, floor_db: float) -> tuple[Array, Array] | None:
    """Return both powers in dB, floored `floor_db` below the reference's peak; None if it is silent."""
    loudest = float(reference.max())
    if loudest <= 0.0:
        return None
    floor = loudest * 10 ** (-floor_db / 10)
    return 10 * np.log10(np.maximum(reference, floor)), 10 * np.log10(np.maximum(fill, floor))
