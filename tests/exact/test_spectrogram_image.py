"""Riffusion's picture of a sound: its amplitudes, its pixels, and the way back."""

import librosa
import numpy as np
import pytest
import torch

from sfumato.signal import spectrogram_image as images
from sfumato.signal.spectrogram_image import Parameters

SHORT = Parameters(padded_ms=100, n_mels=128)


def chord(seconds: float = 1.5, rate: int = 44100, channels: int = 1) -> torch.Tensor:
    time = np.arange(round(seconds * rate)) / rate
    tones = [np.exp(-time) * np.sin(2 * np.pi * f * time + f) for f in (220.0, 277.2, 329.6, 880.0)]
    return torch.from_numpy(np.stack([sum(tones[i:]) * 0.1 for i in range(channels)])).float()


def convergence_db(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(20 * torch.log10(torch.linalg.norm(found - wanted) / torch.linalg.norm(wanted)))


def test_the_published_sizes():
    p = Parameters()
    assert (p.n_fft, p.win_length, p.hop_length) == (17640, 4410, 441)
    assert images.mel_amplitudes(chord(), p).shape == (1, 512, 151)


def test_amplitudes_are_librosas():
    p, audio = SHORT, chord()
    magnitude = np.abs(librosa.stft(audio[0].numpy(), n_fft=4410, hop_length=441, pad_mode="reflect"))
    filters = librosa.filters.mel(sr=44100, n_fft=4410, n_mels=128, fmin=0, fmax=10000, htk=True, norm=None)
    np.testing.assert_allclose(images.mel_amplitudes(audio, p)[0], filters @ magnitude, rtol=1e-3, atol=1e-2)


def test_long_sounds_are_drawn_in_parts(monkeypatch):
    whole = images.mel_amplitudes(chord(), SHORT)
    monkeypatch.setattr(images, "COLUMNS", 40)
    torch.testing.assert_close(images.mel_amplitudes(chord(), SHORT), whole)


def test_the_spread_is_the_pseudo_inverse():
    filters = images._filters(SHORT).double()
    np.testing.assert_allclose(images._spread(SHORT), torch.linalg.pinv(filters), atol=1e-5)


def test_mel_amplitudes_survive_the_spectrum():
    mel = images.mel_amplitudes(chord(), Parameters())
    again = images._filters(Parameters()) @ images.linear_amplitudes(mel, Parameters())
    assert convergence_db(again, mel) < -40


@pytest.mark.parametrize("momentum", [0.0, 0.99])
def test_griffin_lim_is_librosas(momentum):
    magnitude = np.abs(librosa.stft(chord(0.5)[0].numpy(), n_fft=1024, hop_length=256))
    wanted = librosa.griffinlim(magnitude, n_iter=8, hop_length=256, n_fft=1024, momentum=momentum, init=None)
    start = torch.ones(1, *magnitude.shape, dtype=torch.complex64)
    found = images.griffin_lim(torch.from_numpy(magnitude)[None], 1024, 256, start, 8, momentum)
    np.testing.assert_allclose(found[0], wanted, atol=2e-3 * np.abs(wanted).max())


def test_a_sound_comes_back():
    p = Parameters()
    mel = images.mel_amplitudes(chord(), p)
    heard = images.audio_of(mel, p, seed=0, n_iter=16)
    assert heard.shape == (1, 150 * 441)
    assert convergence_db(images.mel_amplitudes(heard, p), mel) < -15
    assert torch.equal(heard, images.audio_of(mel, p, seed=0, n_iter=16))
    assert not torch.equal(heard, images.audio_of(mel, p, seed=1, n_iter=16))


@pytest.mark.parametrize("stereo", [False, True])
def test_pixels_hold_the_amplitudes_to_their_steps(stereo):
    p = Parameters(stereo=stereo)
    mel = images.mel_amplitudes(chord(channels=2 if stereo else 1), p)
    picture, loudest = images.image_of(mel, p)
    assert picture.dtype == np.uint8 and picture.shape == (512, 151, 3)
    assert picture.min() == 0 and loudest == pytest.approx(float(mel.max()))
    if stereo:
        assert not picture[..., 0].any() and (picture[..., 1] != picture[..., 2]).any()
    else:
        assert (picture == picture[..., :1]).all()
    loud = np.unravel_index(int(np.argmin(picture[..., 1])), picture.shape[:2])
    assert 511 - loud[0] == int(mel[0].flatten().argmax()) // 151  # low sounds at the bottom
    back = images.amplitudes_of(picture, p, loudest)
    steps = (back / loudest) ** 0.25 - (mel / loudest) ** 0.25
    assert float(steps.min()) > -1e-4 and float(steps.max()) < 1 / 255 + 1e-4  # drawn darker by less than one step


def test_silence_is_white():
    picture, loudest = images.image_of(torch.zeros(1, 512, 4), Parameters())
    assert loudest == 0 and (picture == 255).all()
    assert not images.amplitudes_of(picture, Parameters(), loudest).any()
