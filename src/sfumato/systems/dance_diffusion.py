"""Dance Diffusion: sounds drawn as waveforms by a network that predicts v.

A network guesses v of a noisy waveform; the v-objective [1]_ and samplers make sounds of noise. Nothing else is in it:
no codec, no text. What a user does with it is done to the waist: `tasks.generate` draws sounds, longer ones in windows
denoised jointly, and loops on a circular axis; `tasks.transform` varies, blends, extends and fills given ones.

Where it departs from the published code [2]_:

- Its crash schedule is one choice of two for the noise levels of training and sampling. The other, the default, is
  normal in log sigma, wide enough for decays down to 70 dB below full scale, which the crash schedule visits rarely.
- Timesteps are the radical inverse of an item's number (1-D Sobol) with a random shift: a pure function of seed and
  item, so that a resumed training, or one on several processes, sees the same ones. Upstream draws from an engine's
  state.
- Clean signals have a stated standard deviation `sigma_data`; upstream's are taken as they come (1).
- The network is a small one of our own (`networks.unet1d`); upstream's is `networks.dance_unet`, for its checkpoints.
- Two labels condition the small network: the kind of sound, left out at times so that guidance [3]_ is possible and
  nothing need be said; and whether the sound starts the window or lies anywhere in it, as in windows of a longer one.

References
----------
.. [1] T. Salimans, J. Ho, "Progressive distillation for fast sampling of diffusion models", arXiv 2202.00512.
.. [2] Harmonai, sample-generator: https://github.com/Harmonai-org/sample-generator
.. [3] J. Ho, T. Salimans, "Classifier-free diffusion guidance", arXiv 2207.12598.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Discriminator, Field, Tag, model_validator
from torch import Tensor, nn

from sfumato.config import Settings
from sfumato.diffusion import guide, noise, precondition, sample, schedule
from sfumato.errors import ModelError
from sfumato.model import Card
from sfumato.networks import dance_unet, unet1d

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Float, Int

    from sfumato.diffusion.noise import BatchNoise
    from sfumato.diffusion.precondition import Denoiser

NAME = "dance_diffusion"
PAPER = {
    "title": "Dance Diffusion",
    "arxiv": "2202.00512",
    "code": "github.com/Harmonai-org/sample-generator",
    "licence": "MIT",
}
TURNS = ("denoise",)

KINDS = (
    "kick", "snare", "clap", "tom", "hat", "cymbal", "hand", "percussion", "break", "bass", "tone", "effect", "other",
)  # fmt: skip
"""Kinds of one-shots, in the order of their labels; label 0 is none given."""

PARTS = ("state_dict",)
"""Entries of a published checkpoint that may hold the weights."""

_NETWORKS = ("diffusion_ema.", "diffusion.")
"""Beginnings of the network's names in a training's checkpoint, best first: the average of the weights, the weights."""

START, ANYWHERE = 0, 1
"""The second label: the sound starts at the window's start, or the window is a stretch of something longer."""


def _network_of(value: Any) -> str:
    """Which network a configuration is of: the published one says which levels attend."""
    published = "attention" in value if isinstance(value, dict) else isinstance(value, dance_unet.Config)
    return "dance_unet" if published else "unet1d"


Network = Annotated[
    Annotated[unet1d.Config, Tag("unet1d")] | Annotated[dance_unet.Config, Tag("dance_unet")],
    Discriminator(_network_of),
]


class Config(Settings):
    """The network, what it makes, and its noise levels."""

    network: Network = Field(
        unet1d.Config(patch=32, widths=(128, 192, 256), labels=(len(KINDS) + 1, 2), relative=True),
        description="the U-Net over samples",
    )
    sample_rate: int = Field(44100, ge=1000, le=384_000, description="sample rate, Hz")
    n_samples: int = Field(32768, ge=1, description="length of the training window, samples")
    kinds: tuple[str, ...] = Field(KINDS, description="kinds of sounds that can be asked for")
    sigma_data: float = Field(0.09, gt=0, description="standard deviation of the sounds, full scale 1")
    levels: Literal["crash", "lognormal"] = Field("lognormal", description="noise levels of training")
    sigma_mean: float = Field(-2.5, description="lognormal: mean of ln(sigma)")
    sigma_std: float = Field(2.2, gt=0, description="lognormal: standard deviation of ln(sigma)")
    sigma_max: float = Field(40.0, gt=0, description="first noise level of the sampler")
    sigma_min: float = Field(3e-4, gt=0, description="last noise level above 0 of the sampler")
    unlabelled: float = Field(0.2, ge=0, le=1, description="share of items trained without their kind")

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.n_samples % self.network.multiple:
            raise ValueError(f"n_samples is {self.n_samples}, no multiple of the network's {self.network.multiple}")
        if self.network.labels not in ((), (len(self.kinds) + 1, 2)):
            raise ValueError(f"{len(self.kinds)} kinds take labels of sizes {len(self.kinds) + 1} and 2, or none")
        return self


def build(config: Config) -> nn.Module:
    """The network with its initial weights."""
    if isinstance(config.network, dance_unet.Config):
        return dance_unet.DanceUNet(config.network)
    return unet1d.UNet1d(config.network)


def training_sigma(u: Float[Tensor, " b"], config: Config) -> Float[Tensor, " b"]:
    """Noise levels of training for uniform numbers `u` inside (0, 1)."""
    if config.levels == "crash":
        return config.sigma_data * schedule.crash_sigma(u)
    return precondition.lognormal_sigma(u, config.sigma_mean, config.sigma_std)


def loss(
    network: nn.Module, batch: dict[str, Tensor], config: Config, noise: BatchNoise, turn: str
) -> dict[str, Tensor]:
    """Mean squared error of v [1]_, which is the denoiser's error weighted as `precondition.edm_weight`.

    `batch` holds "clean" ``(b, channels, n_samples)`` and "labels" ``(b, 2)``: kind and place.
    """
    clean, labels = batch["clean"], batch["labels"].clone()
    labels[:, 0] *= noise.uniform(2) >= config.unlabelled
    sigma = training_sigma(noise.stratified(0), config).float()
    noisy = clean + precondition.spread(sigma, clean) * noise(1, clean.shape[1:])
    denoised = precondition.v(network, _condition(labels, config), config.sigma_data)(noisy, sigma).float()
    squared = (denoised - clean).square().mean(dim=(1, 2))
    return {
        "total": (precondition.edm_weight(sigma, config.sigma_data) * squared).mean(),
        "squared": squared.mean().detach(),
    }


def _condition(labels: Int[Tensor, "b 2"], config: Config) -> Tensor | None:
    """What the network takes as its condition."""
    return labels if config.network.labels else None


def denoiser(
    network: nn.Module,
    config: Config,
    kinds: Int[Tensor, " b"] | None = None,
    place: int = START,
    cfg_scale: float = 1.0,
) -> Denoiser:
    """The denoiser of windows ``(b, channels, n_samples)``.

    Parameters
    ----------
    kinds
        Label of each item's kind, 0 for none; None for none at all.
    place
        `START` or `ANYWHERE`.
    cfg_scale
        Scale of the guidance towards the kind; 1 is none, and needs one evaluation rather than two.
    """

    def bound(kinds: Tensor | None) -> Denoiser:
        def denoise(x: Tensor, sigma: Tensor, /) -> Tensor:
            own = torch.zeros(len(x), dtype=torch.long, device=x.device) if kinds is None else kinds.to(x.device)
            labels = torch.stack([own, torch.full_like(own, place)], dim=1)
            return precondition.v(network, _condition(labels, config), config.sigma_data)(x, sigma)

        return denoise

    if kinds is None or not config.network.labels:
        return bound(None)
    return guide.cfg(bound(kinds), bound(None), cfg_scale)


def demo(network: nn.Module, config: Config, settings: Settings, folder: Path, step: int) -> None:
    """Write one sound of each kind, one after another, as ``<step>.wav``: always of the same noise."""
    from sfumato.audio import write

    shape = (config.network.channels, config.n_samples)
    items = range(len(config.kinds) if config.network.labels else 4)
    stream = noise.walk(shape, seed=0, items=items)
    kinds = torch.arange(1, len(items) + 1) if config.network.labels else None
    sigmas = schedule.karras(20, config.sigma_min, config.sigma_max).float()
    device = next(network.parameters()).device
    x = stream(0).to(device) * config.sigma_max
    drawn = sample.last(sample.dpmpp_2m(denoiser(network, config, kinds), x, sigmas)).cpu()
    loudest = max(1.0, float(drawn.abs().max()))
    write(folder / f"{step:08d}.wav", (drawn.transpose(0, 1).flatten(1) / loudest).double().numpy(), config.sample_rate)


def adopt(
    tensors: Mapping[str, Tensor], told: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `Config` holds, as far as a published checkpoint tells, and its weights under the names used here.

    Parameters
    ----------
    tensors
        Of a training's checkpoint, or of a network in diffusers' layout.
    told
        The ``config.json`` beside the latter, which knows the sample rate and the length of a window. Otherwise they
        are None.

    Raises
    ------
    ModelError
        These are not weights of Dance Diffusion.
    """
    for beginning in _NETWORKS:
        own = {name.removeprefix(beginning): value for name, value in tensors.items() if name.startswith(beginning)}
        if own:
            tensors = own
            break
    network, weights = dance_unet.adopt(tensors)
    rate, n_samples = ((told or {}).get(name) for name in ("sample_rate", "sample_size"))
    if not all(value is None or (type(value) is int and value > 0) for value in (rate, n_samples)):
        raise ModelError(f"config.json says sample_rate {rate} and sample_size {n_samples}: expected whole numbers.")
    published = {"kinds": (), "sigma_data": 1.0, "levels": "crash", "sigma_max": 150.0, "sigma_min": 2.5e-4}
    return {"network": network, "sample_rate": rate, "n_samples": n_samples, **published}, weights


def card(config: Config) -> Card:
    """What can be said of a converted checkpoint."""
    length_s = config.n_samples / config.sample_rate
    return Card(
        summary=f"Dance Diffusion: draws sounds in windows of {length_s:.2f} s.",
        licence="as its makers say",
        data=("as its makers say",),
        sample_rate=config.sample_rate,
        limits="It knows no kinds of sounds. At the published size one evaluation of a window takes seconds on a CPU.",
    )
