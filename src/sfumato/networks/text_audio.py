"""Two small towers that put sounds and words into one space: log-mels and sentence states to unit vectors.

The audio tower is a residual convolutional network on a log-mel picture; the text tower reads the states of a frozen
sentence encoder, which is not part of it: a few learned queries pool them beside the sentence vector.

Log-mels are taken relative to a sound's loudest cell, so its level doesn't count: a sound and the same sound made
softer are one point. What lies 80 dB below that cell, or beyond a sound's end, counts as silence.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import soxr
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings
from sfumato.errors import InputError
from sfumato.signal.mel import mel_filters
from sfumato.signal.stft import stft

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from numpy.typing import NDArray

QUIETEST_DB = -80.0
"""Of a cell, below the loudest cell of the sound."""
SILENT_WINDOW_DB = -60.0
"""Windows whose loudest cell lies further below the sound's are not listened to."""
TINY = 1e-20
"""Power below which a sound is silence."""


class Config(Settings):
    """Sizes of the two towers, and the picture of sound they are given."""

    sample_rate: int = Field(32000, ge=8000, description="rate that sounds are brought to, Hz")
    n_fft: int = Field(1024, ge=64, description="window of the spectrum, samples")
    hop_length: int = Field(1280, ge=16, description="samples between frames")
    n_mels: int = Field(64, ge=16, multiple_of=8, description="mel bands")
    n_frames: int = Field(125, ge=8, description="frames of one window; longer sounds are averaged over windows")
    widths: tuple[int, ...] = Field((24, 48, 96, 192), min_length=1, description="channels; each halves both axes")
    blocks: tuple[int, ...] = Field((0, 0, 1, 1), description="residual blocks after each halving")
    text_width: int = Field(384, ge=1, description="width of the sentence encoder's states")
    queries: int = Field(4, ge=0, description="learned queries over a text's states; 0 for the sentence vector alone")
    hidden: int = Field(512, ge=1, description="hidden units of each tower's last layers")
    width: int = Field(256, ge=2, description="dimensions of the common space")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of hidden units left out in training")

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if len(self.blocks) != len(self.widths):
            raise ValueError(f"blocks has {len(self.blocks)} numbers for {len(self.widths)} widths")
        return self

    @property
    def window_s(self) -> float:
        """Length of one window in seconds."""
        return self.n_frames * self.hop_length / self.sample_rate


class _Block(nn.Module):
    """Two 3 x 3 convolutions around which the input is carried."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(x + self.layers(x))


class AudioTower(nn.Module):
    """A log-mel picture ``(b, n_mels, frames)`` to a vector ``(b, width)`` of unit length."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width, blocks in zip(config.widths, config.blocks, strict=True):
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.GELU()]
            layers += [_Block(width) for _ in range(blocks)]
            before = width
        self.body = nn.Sequential(*layers)
        bands = math.ceil(config.n_mels / 2 ** len(config.widths))
        self.across = nn.Conv1d(before * bands, config.hidden, 1)
        self.head = nn.Sequential(nn.GELU(), nn.Dropout(config.dropout), nn.Linear(2 * config.hidden, config.width))

    def forward(self, log_mel: Float[Tensor, "b m t"]) -> Float[Tensor, "b d"]:
        """Return the vector of each picture: mean and maximum over time of what every instant shows."""
        x = self.body(log_mel[:, None] / -QUIETEST_DB + 0.5)
        x = self.across(x.flatten(1, 2))
        pooled = torch.cat([x.mean(dim=-1), x.amax(dim=-1)], dim=1)
        return functional.normalize(self.head(pooled), dim=-1)


class TextTower(nn.Module):
    """Sentence vector and word states to a vector ``(b, width)`` of unit length."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.queries = nn.Linear(config.text_width, config.queries, bias=False) if config.queries else None
        self.head = nn.Sequential(
            nn.Linear((1 + config.queries) * config.text_width, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.width),
        )

    def forward(
        self, sentence: Float[Tensor, "b e"], tokens: Float[Tensor, "b n e"], valid: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b d"]:
        """Return the vector of each text; states that are not valid have no part in it."""
        x = functional.normalize(sentence, dim=-1)
        if self.queries is not None:
            scores = self.queries(tokens).masked_fill(~valid[..., None], -torch.inf)
            pooled = torch.einsum("bnq,bne->bqe", scores.softmax(dim=1), tokens)
            x = torch.cat([x, functional.normalize(pooled, dim=-1).flatten(1)], dim=1)
        return functional.normalize(self.head(x * math.sqrt(sentence.shape[-1])), dim=-1)


class TextAudio(nn.Module):
    """Both towers and the temperature of their comparison."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.audio = AudioTower(config)
        self.text = TextTower(config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def scale(self) -> Tensor:
        """What cosines are multiplied by before the softmax, at most 100."""
        return self.log_scale.exp().clamp(max=100.0)


def log_mel(audio: NDArray[np.floating], sample_rate: float, config: Config) -> Float[Tensor, "m t"]:
    """The picture of a sound: mel powers in dB below its loudest cell, from -80 to 0; silence is -80 throughout.

    Parameters
    ----------
    audio
        (channels, samples); channels are averaged.
    sample_rate
        Hz.

    Raises
    ------
    InputError
        The audio is empty, not of this shape, or not finite.
    """
    if audio.ndim != 2 or audio.size == 0:
        raise InputError(f"Audio of shape {audio.shape} can't be embedded. Give (channels, samples), not empty.")
    mono = audio.mean(axis=0, dtype=np.float64)
    if not bool(np.isfinite(mono).all()):
        raise InputError("The audio holds samples that are NaN or infinite. Repair them first.")
    x = torch.from_numpy(np.ascontiguousarray(soxr.resample(mono, sample_rate, config.sample_rate))).float()
    x = functional.pad(x, (0, max(0, config.n_fft - len(x))))
    filters = mel_filters(config.sample_rate, config.n_fft, config.n_mels).float()
    power = filters @ stft(x, config.n_fft, config.hop_length).abs().square()
    loudest = float(power.max())
    if loudest < TINY:
        return torch.full_like(power, QUIETEST_DB)
    return (10 * torch.log10(power / loudest + 1e-12)).clamp(min=QUIETEST_DB)


def windows(picture: Float[Tensor, "m t"], config: Config) -> Float[Tensor, "w m n"]:
    """A picture in windows of `n_frames`, side by side, the last one ending with it; a short one goes on in silence.

    Windows in which hardly anything sounds (60 dB below the rest) are left out. Each is relative to its own loudest
    cell.
    """
    n, total = config.n_frames, picture.shape[-1]
    if total <= n:
        picture = functional.pad(picture, (0, n - total), value=QUIETEST_DB)
        return picture[None]
    starts = [*range(0, total - n, n), total - n]
    cut = torch.stack([picture[:, start : start + n] for start in starts])
    loudest = cut.amax(dim=(1, 2), keepdim=True)
    heard = loudest.flatten() >= SILENT_WINDOW_DB
    if not bool(heard.any()):
        return cut[:1]
    return (cut - loudest)[heard].clamp(min=QUIETEST_DB)


@torch.no_grad()
def embed_audio(network: TextAudio, audio: NDArray[np.floating], sample_rate: float) -> Float[Tensor, " d"]:
    """The unit vector of a sound of any length: the mean over its windows. See `log_mel` for arguments and errors."""
    config = network.config
    pictures = windows(log_mel(audio, sample_rate, config), config)
    device = network.log_scale.device
    return functional.normalize(network.audio(pictures.to(device)).mean(dim=0), dim=-1).cpu()
