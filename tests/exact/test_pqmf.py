"""The filter bank against a plain polyphase-free implementation, and what it promises: quality, delay, separation."""

import numpy as np
import pytest
from scipy.signal import upfirdn

from sfumato.errors import InputError
from sfumato.signal import pqmf

BANDS, TAPS = 16, 305


def analyse(bank, x):
    frames = np.pad(x.reshape(-1, BANDS), ((bank.analysis.shape[-1] - 1, 0), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(frames, bank.analysis.shape[-1], axis=0)
    return np.einsum("tid,kid->tk", windows, bank.analysis)


def synthesise(bank, bands):
    frames = np.pad(bands, ((bank.synthesis.shape[-1] - 1, 0), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(frames, bank.synthesis.shape[-1], axis=0)
    return np.einsum("tkd,ikd->ti", windows, bank.synthesis).reshape(-1)


def test_noise_comes_back_within_60_db_and_7_ms():
    bank = pqmf.bank(BANDS, TAPS, 80.0)
    x = np.random.default_rng(0).standard_normal(16 * 2000)
    y = synthesise(bank, analyse(bank, x))
    error = y[bank.delay :] - x[: -bank.delay]
    inner = slice(2000, -2000)
    assert 10 * np.log10(np.sum(x[inner] ** 2) / np.sum(error[inner] ** 2)) > 60
    assert bank.delay / 44100 <= 7e-3


def test_analysis_is_filtering_and_keeping_every_sixteenth_sample():
    bank = pqmf.bank(BANDS, TAPS, 80.0)
    x = np.random.default_rng(1).standard_normal(16 * 50)
    filters = bank.analysis[:, ::-1, ::-1].transpose(0, 2, 1).reshape(BANDS, -1)  # in order of time again
    plain = np.stack([upfirdn(taps, x)[BANDS - 1 :: BANDS][:50] for taps in filters], axis=1)
    np.testing.assert_allclose(analyse(bank, x), plain, atol=1e-12)


@pytest.mark.parametrize("band", [0, 5, 15])
def test_a_tone_lands_in_its_band(band):
    bank = pqmf.bank(BANDS, TAPS, 80.0)
    frequency = (band + 0.5) * np.pi / BANDS
    levels = np.square(analyse(bank, np.sin(frequency * np.arange(16 * 1000)))[100:]).mean(axis=0)
    others = np.delete(levels, band)
    assert levels.argmax() == band
    assert 10 * np.log10(levels[band] / others.max()) > 60


def test_an_impossible_bank_is_refused():
    with pytest.raises(InputError, match="Give at least 2 bands"):
        pqmf.bank(16, 304, 80.0)
