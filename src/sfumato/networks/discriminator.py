"""Discriminators of waveforms: at several resolutions of time, of period and of frequency.

Each returns its score over time and the features of its layers, which feature matching compares.

References
----------
.. [1] K. Kumar et al., "MelGAN", arXiv 1910.06711, sec. 2.2: waveforms at several scales.
.. [2] J. Kong, J. Kim, J. Bae, "HiFi-GAN", arXiv 2010.05646, sec. 2.3: samples that lie a period apart.
.. [3] A. Défossez et al., "High fidelity neural audio compression", arXiv 2210.13438, sec. 3.4: complex spectrograms.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings

if TYPE_CHECKING:
    from jaxtyping import Float

SLOPE = 0.2


class Config(Settings):
    """Which discriminators judge, and their size."""

    scales: int = Field(0, ge=0, description="waveform discriminators, each at half the rate of the last [MelGAN]")
    periods: tuple[int, ...] = Field((), description="periods in samples, one discriminator each [HiFi-GAN]")
    n_ffts: tuple[int, ...] = Field((1024, 256), description="windows of the spectrogram discriminators, samples")
    capacity: int = Field(8, ge=1, description="channels of the first layers")


class Discriminator(nn.Module):
    """All discriminators; called with audio (batch, channels, samples)."""

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        self.config = config
        c = config.capacity
        self.waveform = nn.ModuleList(_waveform(channels, c) for _ in range(config.scales))
        self.period = nn.ModuleList(_period(channels, c) for _ in config.periods)
        self.spectrogram = nn.ModuleList(_spectrogram(2 * channels, c) for _ in config.n_ffts)

    def forward(self, audio: Float[Tensor, "b c t"]) -> list[tuple[Tensor, list[Tensor]]]:
        """Of each discriminator: its scores, and the features of its layers."""
        results = []
        halved = audio
        for layers in self.waveform:
            results.append(_judge(layers, halved))
            halved = functional.avg_pool1d(halved, 4, 2, 1)
        for period, layers in zip(self.config.periods, self.period, strict=True):
            padded = functional.pad(audio, (0, -audio.shape[-1] % period))
            results.append(_judge(layers, padded.reshape(*audio.shape[:2], -1, period)))
        for n_fft, layers in zip(self.config.n_ffts, self.spectrogram, strict=True):
            results.append(_judge(layers, _picture(audio, n_fft)))
        return results


def _judge(layers: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Scores and features of one discriminator."""
    features = []
    *hidden, last = layers.children()
    for layer in hidden:
        x = functional.leaky_relu(layer(x), SLOPE)
        features.append(x)
    return last(x), features


def _picture(audio: Tensor, n_fft: int) -> Tensor:
    """Complex spectrogram as real and imaginary channels (batch, 2 * channels, frames, bins)."""
    with torch.autocast(audio.device.type, enabled=False):
        flat = audio.float().reshape(-1, audio.shape[-1])
        window = torch.hann_window(n_fft, device=audio.device)
        spectrum = torch.stft(flat, n_fft, n_fft // 4, window=window, pad_mode="constant", return_complex=True)
        parts = torch.view_as_real(spectrum / window.sum().sqrt()).permute(0, 3, 2, 1)
    return parts.reshape(len(audio), -1, *parts.shape[2:])


def _waveform(channels: int, c: int) -> nn.Sequential:
    """Long strided kernels over samples, in groups [1]_."""
    widths = [2 * c, 8 * c, 16 * c, 16 * c]
    layers: list[nn.Module] = [nn.Conv1d(channels, widths[0], 15, padding=7)]
    for before, after in pairwise(widths):
        layers.append(nn.Conv1d(before, after, 41, stride=4, padding=20, groups=max(1, before // 4)))
    layers.append(nn.Conv1d(widths[-1], widths[-1], 5, padding=2))
    return nn.Sequential(*layers, nn.Conv1d(widths[-1], 1, 3, padding=1))


def _period(channels: int, c: int) -> nn.Sequential:
    """Kernels along one phase of a period [2]_."""
    widths = [channels, c, 4 * c, 8 * c, 8 * c]
    pairs = pairwise(widths)
    layers = [nn.Conv2d(before, after, (5, 1), (3, 1), (2, 0)) for before, after in pairs]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))


def _spectrogram(channels: int, c: int) -> nn.Sequential:
    """Kernels over time and frequency; each layer halves the frequencies [3]_."""
    widths = [channels, c, 2 * c, 4 * c, 4 * c]
    pairs = pairwise(widths)
    layers = [nn.Conv2d(before, after, (3, 9), (1, 2), (1, 4)) for before, after in pairs]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))
