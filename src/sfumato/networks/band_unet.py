"""A U-Net over complex spectrograms that reads words: bands as rows, frames as columns.

The bins of a spectrogram are gathered into bands, narrow ones below and wide ones above [1]_, and a band's bins over
two frames become one place of a picture by a matrix of its own; so phases, which turn otherwise in each bin, are read
by the matrices, and the U-Net above [2]_ sees rows about as far apart as the ear's. Words act twice: the sentence
modulates every block beside the noise level [3]_, and coarse levels attend to the word pieces [4]_. What comes out is
a picture of the matrices' and the noisy picture itself times a gain for each place, as in Wiener's filter: a band's
matrix is too narrow to pass all of a wide band on, and where there is nothing but noise, a gain takes it off. A second
picture of the same bins and frames may be given beside the noisy one, such as the levels that a sound is to have.
Pictures of other kinds, such as latents, are drawn by the same network: a band of one bin is a row.

References
----------
.. [1] Y. Luo, J. Yu, "Music source separation with band-split RNN", arXiv 2209.15174: one matrix a band.
.. [2] J. Ho, A. Jain, P. Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020.
.. [3] P. Dhariwal, A. Nichol, "Diffusion models beat GANs on image synthesis", NeurIPS 2021.
.. [4] R. Rombach et al., "High-resolution image synthesis with latent diffusion models", CVPR 2022, section 3.3.
.. [5] J. Ho, T. Salimans, "Classifier-free diffusion guidance", arXiv 2207.12598.
.. [6] T. Salimans, J. Ho, "Progressive distillation for fast sampling of diffusion models", arXiv 2202.00512.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings
from sfumato.diffusion import guide, precondition
from sfumato.wanted import FASTEST_BPM, SLOWEST_BPM, Wanted, nothing

if TYPE_CHECKING:
    from jaxtyping import Float

    from sfumato.diffusion.noise import BatchNoise
    from sfumato.diffusion.precondition import Denoiser


class Config(Settings):
    """Shape of the network."""

    bands: tuple[tuple[int, int], ...] = Field(
        ((64, 2), (32, 4), (32, 8), (16, 32)), description="rows from low to high: how many, and bins of each"
    )
    widths: tuple[int, ...] = Field((64, 128, 192, 224), description="channels of each level, finest first")
    attending: int = Field(2, ge=1, description="coarsest levels that attend to words and to themselves")
    head: int = Field(32, ge=8, description="channels of a head of attention")
    embedding: int = Field(256, ge=8, description="width of what modulates the blocks")
    words: int = Field(384, ge=1, description="width of the sentence encoder's states")
    keys: int = Field(25, ge=1, description="keys that can be asked for, one of them none")
    channels: int = Field(2, ge=1, description="channels of the picture: a complex spectrogram's are 2")
    frames: int = Field(2, ge=1, description="frames that one column stands for")
    given: int = Field(0, ge=0, description="channels of the picture that is given beside the noisy one; 0 for none")
    magnitudes: bool = Field(False, description="channels come in pairs, real and imaginary: their sizes go in, too")

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.n_rows % 2 ** (len(self.widths) - 1):
            raise ValueError(f"{self.n_rows} rows can't be halved {len(self.widths) - 1} times")
        if self.attending > len(self.widths) or any(width % self.head for width in self.widths[-self.attending :]):
            raise ValueError(f"levels that attend take multiples of {self.head} channels")
        if self.magnitudes and self.channels % 2:
            raise ValueError(f"magnitudes are of pairs of channels, and there are {self.channels}")
        if any(width % GROUPS for width in self.widths) or self.embedding % 2:
            raise ValueError(f"widths are multiples of {GROUPS}, and the embedding's is even")
        return self

    @property
    def n_rows(self) -> int:
        """Rows of the picture."""
        return sum(rows for rows, _ in self.bands)

    @property
    def n_bins(self) -> int:
        """Bins of the spectrogram."""
        return sum(rows * width for rows, width in self.bands)

    @property
    def multiple(self) -> int:
        """Numbers of frames must be divisible by this."""
        return int(self.frames * 2 ** (len(self.widths) - 1))


GROUPS = 8
"""Groups of a normalisation."""


class BandUNet(nn.Module):
    """Maps ``(x, c_noise, wanted)`` to a picture ``(b, channels, n_bins, t)``; `multiple` must divide its t frames."""

    frequencies: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths, width = config.widths, config.embedding
        self.register_buffer("frequencies", torch.exp(torch.linspace(math.log(0.1), math.log(8.0), width // 2)))
        self.noise = nn.Linear(width, width)
        self.sentence = nn.Linear(config.words, width)
        self.tempo = nn.Linear(TEMPO_FEATURES, width)
        self.key = nn.Embedding(config.keys, width)
        self.embed = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.nothing = nn.Parameter(torch.zeros(1, 1, config.words))
        self.into = _matrices(config, config.channels + config.channels // 2 * config.magnitudes)
        self.place = nn.Parameter(0.3 * torch.randn(1, widths[0], config.n_rows, 1))
        self.down = nn.ModuleList(_Level(config, level) for level in range(len(widths)))
        self.up = nn.ModuleList(_Level(config, level) for level in range(len(widths)))
        self.coarser = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.finer = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.join = nn.ModuleList(nn.Conv2d(2 * a, a, 1) for a in widths)
        self.last = nn.GroupNorm(GROUPS, widths[0])
        self.out, self.gain = (
            nn.ParameterList(torch.zeros(rows, widths[0], k * config.frames * bins) for rows, bins in config.bands)
            for k in (config.channels, 1)
        )
        self.beside = _matrices(config, config.given) if config.given else None

    def forward(
        self,
        x: Float[Tensor, "b c f t"],
        c_noise: Float[Tensor, " b"],
        wanted: Wanted,
        given: Float[Tensor, "b g f t"] | None = None,
    ) -> Tensor:
        """The network's raw output, before preconditioning; `given` stands beside `x`, if the network takes it."""
        angle = c_noise[:, None] * self.frequencies
        said = self.noise(torch.cat([angle.cos(), angle.sin()], dim=1))
        sentence = math.sqrt(self.config.words) * wanted.sentence
        said = said + self.sentence(sentence) + self.tempo(tempo_features(wanted.bpm)) + self.key(wanted.key)
        said = self.embed(said)
        words = torch.cat([self.nothing.expand(len(x), -1, -1), wanted.tokens], dim=1)
        heard = functional.pad(wanted.valid, (1, 0), value=True)[:, None, None]
        rows = self._rows(torch.cat([x, _magnitudes(x)], dim=1) if self.config.magnitudes else x, self.into)
        if self.beside is not None and given is not None:
            rows = rows + self._rows(given, self.beside)
        h = (rows + self.place).contiguous(memory_format=torch.channels_last)
        passed = []
        for level, blocks in enumerate(self.down):
            h = blocks(self.coarser[level - 1](h) if level else h, said, words, heard)
            passed.append(h)
        for level in reversed(range(len(self.up))):
            if level < len(self.up) - 1:
                h = functional.interpolate(self.finer[level](h), scale_factor=2.0, mode="nearest")
            h = self.up[level](self.join[level](torch.cat([h, passed.pop()], dim=1)), said, words, heard)
        h = functional.silu(self.last(h))
        return self._bins(h, self.out).to(x.dtype) + self._bins(h, self.gain).to(x.dtype) * x

    def _rows(self, x: Float[Tensor, "b k f t"], matrices: nn.ParameterList) -> Float[Tensor, "b c rows columns"]:
        """Each band's bins over a column's frames, through its matrix."""
        b, k, _, t = x.shape
        rows, first, frames = [], 0, self.config.frames
        for (count, width), matrix in zip(self.config.bands, matrices, strict=True):
            band = x[:, :, first : first + count * width].reshape(b, k, count, width, t // frames, frames)
            patches = band.permute(2, 0, 4, 1, 3, 5).reshape(count, b * (t // frames), -1)
            rows.append(torch.bmm(patches, matrix).reshape(count, b, t // frames, -1))
            first += count * width
        return torch.cat(rows).permute(1, 3, 0, 2)

    def _bins(self, h: Float[Tensor, "b c rows columns"], matrices: nn.ParameterList) -> Float[Tensor, "b k f t"]:
        """The way back."""
        b, c, _, columns = h.shape
        frames = self.config.frames
        bins, first = [], 0
        for (count, width), matrix in zip(self.config.bands, matrices, strict=True):
            k = matrix.shape[2] // (width * frames)
            patches = h[:, :, first : first + count].permute(2, 0, 3, 1).reshape(count, b * columns, c)
            band = torch.bmm(patches, matrix).reshape(count, b, columns, k, width, frames)
            bins.append(band.permute(1, 3, 0, 4, 2, 5).reshape(b, k, count * width, columns * frames))
            first += count
        return torch.cat(bins, dim=2)


def _magnitudes(x: Float[Tensor, "b c f t"]) -> Float[Tensor, "b h f t"]:
    """Magnitudes of channels that come in pairs, real and imaginary."""
    pairs = x.reshape(len(x), -1, 2, *x.shape[2:])
    return torch.sqrt(pairs.square().sum(dim=2) + 1e-12)


def _matrices(config: Config, channels: int) -> nn.ParameterList:
    """One matrix per row, from a picture's places to the finest level's channels."""
    place = channels * config.frames
    return nn.ParameterList(
        torch.randn(rows, place * bins, config.widths[0]) / math.sqrt(place * bins) for rows, bins in config.bands
    )


class _Level(nn.Module):
    """A residual block and, on coarse levels, attention to the words and to all places."""

    def __init__(self, config: Config, level: int) -> None:
        super().__init__()
        width = config.widths[level]
        self.block = _Block(width, config.embedding)
        attends = level >= len(config.widths) - config.attending
        self.attention = _Attention(width, config.head, config.words) if attends else None

    def forward(self, x: Tensor, said: Tensor, words: Tensor, heard: Tensor) -> Tensor:
        x = self.block(x, said)
        return x if self.attention is None else self.attention(x, words, heard)


class _Block(nn.Module):
    """Two convolutions beside a straight way; what is wanted scales and shifts what goes into the first."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.modulate = nn.Linear(embedding, 2 * width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, said: Tensor) -> Tensor:
        scale, shift = self.modulate(said)[:, :, None, None].chunk(2, dim=1)
        h = functional.silu(self.norm(x) * (1 + scale) + shift)
        out: Tensor = x + self.conv2(functional.silu(self.conv1(h)))
        return out


class _Attention(nn.Module):
    """Each place looks at the word pieces and at all places, in one go."""

    def __init__(self, width: int, head: int, words: int) -> None:
        super().__init__()
        self.head = head
        self.norm = nn.GroupNorm(GROUPS, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.words = nn.Linear(words, 2 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, words: Tensor, heard: Tensor) -> Tensor:
        b, c, f, t = x.shape
        places = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = (self._heads(part) for part in self.qkv(places).chunk(3, dim=2))
        told = [self._heads(part) for part in self.words(words).chunk(2, dim=2)]
        seen = functional.pad(heard, (0, k.shape[2]), value=True)
        h = functional.scaled_dot_product_attention(
            q, torch.cat([told[0], k], dim=2), torch.cat([told[1], v], dim=2), attn_mask=seen
        )
        out: Tensor = x + self.out(h.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(b, c, f, t)
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """(b, n, c) as (b, heads, n, head)."""
        return x.reshape(*x.shape[:2], -1, self.head).transpose(1, 2)


TEMPO_FEATURES = 13


def tempo_features(bpm: Float[Tensor, " b"]) -> Float[Tensor, "b 13"]:
    """Whether a tempo is given, and six pairs of waves of its logarithm; all 0 for none."""
    place = (bpm.clamp(SLOWEST_BPM, FASTEST_BPM) / SLOWEST_BPM).log() / math.log(FASTEST_BPM / SLOWEST_BPM)
    angle = math.pi * place[:, None] * 2.0 ** torch.arange(6, device=bpm.device)
    given = (bpm > 0)[:, None].to(place.dtype)
    return torch.cat([given, given * angle.cos(), given * angle.sin()], dim=1)


def band_weights(config: Config) -> Float[Tensor, " n_bins"]:
    """Weight of each bin in a loss, 1 in the mean, so that all rows weigh the same."""
    weights = torch.cat([torch.full((rows * width,), 1 / width) for rows, width in config.bands])
    return weights / weights.mean()


def loss(
    network: nn.Module,
    config: Config,
    clean: Float[Tensor, "b c f t"],
    wanted: Wanted,
    noise: BatchNoise,
    level: tuple[float, float],
    given: Float[Tensor, "b g f t"] | None = None,
) -> dict[str, Tensor]:
    """Mean squared error of v [6]_, every row weighing the same.

    Parameters
    ----------
    clean
        The pictures to be drawn, of about unit variance.
    noise
        Draws the noise levels by its numbers 0, and the noise by 1.
    level
        Mean and standard deviation of ln(sigma).
    """
    sigma = precondition.lognormal_sigma(noise.stratified(0), *level).float()
    noisy = clean + precondition.spread(sigma, clean) * noise(1, clean.shape[1:])
    denoised = precondition.v(_given(network, given), wanted)(noisy, sigma).float()
    weights = band_weights(config).to(clean)
    squared = ((denoised - clean).square().mean(dim=(1, 3)) * weights).mean(dim=1)
    return {"total": (precondition.edm_weight(sigma, 1.0) * squared).mean(), "squared": squared.mean().detach()}


def denoiser(
    network: nn.Module,
    words: int,
    wanted: Wanted | None = None,
    unwanted: Wanted | None = None,
    cfg_scale: float = 1.0,
    interval: tuple[float, float] | None = None,
    given: Float[Tensor, "b g f t"] | None = None,
) -> Denoiser:
    """The denoiser of pictures ``(b, channels, n_bins, t)`` by a `BandUNet` that predicts v.

    Parameters
    ----------
    words
        Width of the sentence encoder's states.
    wanted
        What they are to be: of one item, which holds for all, or of as many as there are pictures. None for anything.
    unwanted
        What guidance leads away from: a negative prompt; None for nothing in particular.
    cfg_scale
        Scale of the guidance [5]_; 1 is none, and needs one evaluation rather than two.
    interval
        Noise levels that guidance is limited to, as for `guide.cfg`.
    given
        The pictures that stand beside them, for networks that take any.
    """

    def bound(what: Wanted | None) -> Denoiser:
        def denoise(x: Tensor, sigma: Tensor, /) -> Tensor:
            told = nothing(len(x), words) if what is None else what
            told = told if len(told.bpm) == len(x) else told.rows(len(x))
            return precondition.v(_given(network, given), told)(x, sigma)

        return denoise

    if wanted is None and unwanted is None:
        return bound(None)
    return guide.cfg(bound(wanted), bound(unwanted), cfg_scale, interval)


def _given(network: nn.Module, given: Tensor | None) -> Callable[..., Tensor]:
    """The network with what it is given."""
    return network if given is None else partial(network, given=given)
