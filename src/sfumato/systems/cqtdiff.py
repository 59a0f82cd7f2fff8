"""CQT-Diff+: audio inpainting by a diffusion model of waveforms, guided at each step by what is known.

The network (`networks.cqt_unet`) denoises a clip of fixed length and knows nothing of gaps. They come in while
sampling: each guess is moved against the gradient of its error on the known samples (reconstruction guidance), then
replaced by them where they are known, softly over a few samples beside each gap (data consistency). Published
checkpoints go through `sfumato models convert` once; see `adopt` for their layout.

Where it departs from the paper's code: the recording's own samples are put back bit by bit at the end, and what the
soft replacement took from the context beside a gap is mirrored into the gap, so that there is no step at the join.
Guidance is normalised per item, without a constant beside the norm (it shortened steps by some 0.05 %), so that
batches of draws are possible. Noise is a function of seed and item.

References
----------
.. [1] E. Moliner, V. Välimäki, "Diffusion-based audio inpainting", JAES 72(3), 2024, arXiv 2305.15266.
.. [2] T. Karras et al., "Elucidating the design space of diffusion-based generative models", arXiv 2206.00364.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sfumato.config import Settings
from sfumato.diffusion import guide, noise, precondition, sample, schedule
from sfumato.errors import InputError, ModelError
from sfumato.model import Card
from sfumato.networks import cqt_unet
from sfumato.networks.cqt_unet import CQTUNet
from sfumato.signal.autoregressive import runs

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from sfumato.diffusion.noise import BatchNoise
    from sfumato.diffusion.precondition import Denoiser

NAME = "cqtdiff"
PAPER = {
    "title": "Diffusion-Based Audio Inpainting",
    "arxiv": "2305.15266",
    "code": "github.com/eloimoliner/audio-inpainting-diffusion",
    "licence": "MIT",
}
TURNS = ("denoise",)


class Config(Settings):
    """Network and noise levels of training; the defaults are those of the checkpoint for 22.05 kHz piano."""

    network: cqt_unet.Config = Field(cqt_unet.Config(), description="the U-Net over octaves")
    sigma_data: float = Field(0.063, gt=0, description="standard deviation of the recordings")
    trained_sigma_min: float = Field(1e-5, gt=0, description="lowest noise level of training")
    trained_sigma_max: float = Field(10.0, gt=0, description="highest noise level of training")
    trained_rho: float = Field(10.0, gt=0, description="exponent of the noise levels of training")


class Sampling(Settings):
    """How a gap is filled; the defaults are the paper's for long gaps."""

    steps: int = Field(35, ge=1, description="steps of the sampler, two evaluations each but for the last")
    sigma_max: float = Field(1.0, gt=0, description="first noise level")
    sigma_min: float = Field(1e-4, gt=0, description="last noise level above 0")
    rho: float = Field(13.0, gt=0, description="exponent of the noise levels")
    churn: float = Field(10.0, ge=0, description="noise added along the way (S_churn), 0 for none")
    guidance: float = Field(0.25, ge=0, description="strength of the reconstruction guidance (xi)")
    fade: int = Field(50, ge=0, description="samples beside a gap over which the known ones are trusted less")


SHORT_GAPS = Sampling(steps=70, fade=100)
"""The paper's settings for gaps up to some 100 ms."""

PUBLISHED = {
    "maestro_22k_8s": Config(),
    "musicnet_44k_4s": Config(
        network=cqt_unet.Config(
            sample_rate=44100,
            widths=(64, 64, 96, 96, 128, 128, 256, 256),
            dilations=(2, 3, 4, 5, 6, 7, 8, 8),
            attention=(False,) * 5 + (True,) * 4,
        )
    ),
}
"""Configurations of the two published checkpoints, by the beginning of their file names."""

PARTS = ("ema", "network", "model")
"""Entries of a checkpoint that may hold the weights, best first."""


def build(config: Config) -> CQTUNet:
    """The network with its initial weights."""
    return CQTUNet(config.network)


def loss(network: CQTUNet, batch: dict[str, Tensor], config: Config, noise: BatchNoise, turn: str) -> dict[str, Tensor]:
    """Squared error of the network's own output, noise levels uniform on the sampler's scale [1]_.

    `batch` holds "clean" ``(b, 1, n_samples)``.
    """
    clean = batch["clean"]
    high, low = (s ** (1 / config.trained_rho) for s in (config.trained_sigma_max, config.trained_sigma_min))
    sigma = (high + noise.uniform(0) * (low - high)) ** config.trained_rho
    noisy = clean + precondition.spread(sigma, clean) * noise(1, clean.shape[1:])
    error = precondition.edm(network, None, config.sigma_data)(noisy, sigma) - clean
    squared = error.square().mean(dim=(1, 2))
    return {"total": (precondition.edm_weight(sigma, config.sigma_data) * squared).mean(), "squared": squared.mean()}


def denoiser(network: CQTUNet, config: Config) -> Denoiser:
    """The denoiser of waveforms ``(b, 1, n_samples)``, its guesses free of what the transform leaves out."""
    return guide.keep(precondition.edm(network, None, config.sigma_data), network.transform.covered)


def draw(
    network: CQTUNet,
    config: Config,
    observed: Float[Tensor, "b 1 n"],
    known: Bool[Tensor, " n"],
    sampling: Sampling,
    *,
    seed: int,
    items: Sequence[int],
) -> Iterator[sample.Step]:
    """The sampler's steps towards draws of a clip, one per item; the state of the last is the argument of `paste`.

    Parameters
    ----------
    observed
        The damaged clip at the model's rate, full scale 1, as often as there are items, or once for all; what isn't
        known in it may be anything. A shorter clip is continued by the model.
    known
        Observed samples.
    seed, items
        Name the noise of each draw, whatever its place in the batch.

    Raises
    ------
    InputError
        The clip is longer than the model's, nothing in it is known, or a known sample is not finite.
    """
    given, n = observed.shape[-1], config.network.n_samples
    if given > n:
        rate = config.network.sample_rate
        raise InputError(f"A clip of {given} samples. This model fills clips of up to {n} ({n / rate:.2f} s).")
    if not bool(known.any()):
        raise InputError("Nothing in the clip is known. Give at least some context beside the gap.")
    if not bool(torch.isfinite(observed[..., known]).all()):
        raise InputError("Known samples of the clip are not finite. Mark them as not known.")
    device = network.embed.frequencies.device
    known = torch.cat([known, known.new_zeros(n - given)]).to(device)
    whole = torch.cat([observed.float(), observed.new_zeros(*observed.shape[:-1], n - given).float()], dim=-1)
    whole = torch.where(known, whole.to(device), 0.0).expand(len(items), 1, n)

    stream = noise.walk((1, n), seed=seed, items=items)
    sigmas = schedule.karras(sampling.steps, sampling.sigma_min, sampling.sigma_max, sampling.rho)
    guided = denoiser(network, config)
    if sampling.guidance > 0:
        guided = guide.posterior(guided, lambda x: x * known, whole, sampling.guidance)
    consistent = guide.keep(guided, _trusting(whole, _trust(known, sampling.fade)))
    # The paper's code spreads the churn over the steps and one more.
    churn = sampling.churn * sampling.steps / (sampling.steps + 1)
    yield from sample.heun(consistent, stream(0).to(device) * sampling.sigma_max, sigmas, stream, churn=churn)


def paste(
    drawn: Float[Tensor, "b 1 n"], observed: Float[Tensor, "b 1 m"], known: Bool[Tensor, " m"], fade: int
) -> Float[Tensor, "b 1 m"]:
    """`observed`, bit by bit, with what is not known taken from `drawn`.

    What a draw lacks of the context up to `fade` samples beside a gap is mirrored into the gap, fading out, so that
    the sound goes on without a step.

    Raises
    ------
    ModelError
        The draw is not finite.
    """
    if not bool(torch.isfinite(drawn).all()):
        raise ModelError("The model's fill is not finite. Its weights don't fit its configuration.")
    drawn = drawn[..., : observed.shape[-1]].to(observed)
    lack = torch.where(known, observed - drawn, 0.0)
    filled = drawn.clone()
    for start, stop in runs(~known.cpu().numpy()):
        before, after = min(fade, start, stop - start), min(fade, len(known) - stop, stop - start)
        filled[..., start : start + before] += lack[..., start - before : start].flip(-1) * _fading(before, lack)
        filled[..., stop - after : stop] += (lack[..., stop : stop + after] * _fading(after, lack)).flip(-1)
    return torch.where(known, observed, filled)


def inpaint(
    network: CQTUNet,
    config: Config,
    observed: Float[Tensor, "b 1 n"],
    known: Bool[Tensor, " n"],
    sampling: Sampling,
    *,
    seed: int,
    items: Sequence[int],
) -> Float[Tensor, "b 1 n"]:
    """`observed` with its gaps filled, one draw per item; parameters and errors as for `draw`."""
    drawn = sample.last(draw(network, config, observed, known, sampling, seed=seed, items=items))
    return paste(drawn.to(observed.device), observed, known, sampling.fade)


def _trust(known: Bool[Tensor, " n"], fade: int) -> Float[Tensor, " n"]:
    """1 in the context, 0 in gaps, half a raised cosine over `fade` samples on either side of a gap."""
    flags = known.cpu().numpy()
    place = np.arange(len(flags))
    trust = flags.astype(np.float64)
    for start, stop in runs(~flags):
        distance = np.where(place < start, start - place, place - stop)
        trust = np.minimum(trust, np.sin(np.pi / 2 * np.clip(distance / max(fade, 1), 0.0, 1.0)) ** 2)
    return torch.from_numpy(trust if fade else flags.astype(np.float64)).float().to(known.device)


def _trusting(observed: Tensor, trust: Tensor) -> Callable[[Tensor], Tensor]:
    """The projection of data consistency."""
    return lambda denoised: trust * observed + (1 - trust) * denoised


def _fading(n: int, like: Tensor) -> Tensor:
    """From nearly 1 to nearly 0 in `n` steps of a raised cosine."""
    place = (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) / max(n, 1)
    return (place * math.pi / 2).cos().square()


_RENAMES = tuple(
    (re.compile(published), own)
    for published, own in (
        (r"^embedding\.RFF_freq$", "embed.frequencies"),
        (r"^embedding\.MLP\.", "embed.layers."),
        (r"^downsamplerT\.", "decimate."),
        (r"^upsamplerT\.", "interpolate."),
        (r"^downs\.(\d+)\.0\.", r"down.\1.enter."),
        (r"^downs\.(\d+)\.1\.", r"down.\1.pyramid."),
        (r"^downs\.(\d+)\.2\.", r"down.\1.block."),
        (r"^middle\.0\.0\.", "middle_out."),
        (r"^middle\.0\.1\.", "middle."),
        (r"^ups\.(\d+)\.0\.", r"up.\1.leave."),
        (r"^ups\.(\d+)\.1\.", r"up.\1.block."),
        (r"\.norm2\.gamma$", ".attention.modulation.gamma"),
        (r"\.(affine|gate)2\.", r".attention.modulation.\1."),
        (r"\.attn_block\.proj_in\.", ".attention.enter."),
        (r"\.attn_block\.proj_out\.", ".attention.leave."),
        (r"\.attn_block\.qk\.", ".attention.queries_keys."),
        (r"\.norm\.(\d+)\.gamma$", r".layers.\1.modulation.gamma"),
        (r"\.(affine|gate)\.(\d+)\.", r".layers.\2.modulation.\1."),
        (r"\.H\.(\d+)\.", r".layers.\1.conv."),
        (r"\.proj_in\.", ".enter."),
        (r"\.proj_out\.", ".leave."),
        (r"\.res_conv\.", ".skip."),
    )
)


def adopt(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `Config` holds, as far as a published checkpoint tells, and its weights under the names used here.

    A checkpoint is a dictionary: "it" (steps done), "network" and "ema" (weights, and their average over training,
    which is the one to use), "optimizer", "args" (the training's configuration). The weights are those of a list of
    levels on the way down, "downs", and one back up, "ups", deepest first, each level a list of parts told apart by
    number; see the table above this function. Neither rate nor length of a clip are in them: None, but for networks of
    seven and of eight octaves, which are the published ones.

    Raises
    ------
    ModelError
        These are not weights of CQT-Diff+; names what is missing.
    """

    def shape(key: str, dimensions: int) -> tuple[int, ...]:
        if key not in tensors:
            raise ModelError(f"The weight {key} is missing: this is no checkpoint of CQT-Diff+.")
        if tensors[key].ndim != dimensions:
            raise ModelError(f"The weight {key} has {tensors[key].ndim} dimensions, expected {dimensions}.")
        return tuple(tensors[key].shape)

    shape("downs.0.1.weight", 4)
    levels = _count(tensors, "downs.", "1.weight")
    blocks = [*(f"downs.{level}.2." for level in range(levels)), "middle.0.1."]
    attention = [block + "norm2.gamma" in tensors for block in blocks]
    network: dict[str, Any] = {
        "widths": [shape(f"downs.{level}.1.weight", 4)[0] for level in range(levels)],
        "dilations": [_count(tensors, f"{block}H.", "weight") for block in blocks[:-1]],
        "attention": attention,
        "embedding": shape("embedding.MLP.2.weight", 2)[0],
    }
    if any(attention):
        last = max(level for level, present in enumerate(attention) if present)
        heads = shape(blocks[last] + "attn_block.proj_in.weight", 4)[0]
        bands = shape(blocks[last] + "attn_block.qk.weight", 3)[1] // max(heads, 1)
        network |= {"heads": heads, "bins_per_octave": bands // min(last + 1, levels)}
    network |= {"sample_rate": None, "n_samples": None}
    for known in PUBLISHED.values():
        if known.network.n_octaves == levels:
            network |= {"sample_rate": known.network.sample_rate, "n_samples": known.network.n_samples}
    renamed = {}
    for key, value in tensors.items():
        name = key
        for published, own in _RENAMES:
            name = published.sub(own, name)
        renamed[name] = value
    return {"network": network}, renamed


def card(config: Config) -> Card:
    """What can be said of a converted checkpoint."""
    length_s = config.network.n_samples / config.network.sample_rate
    return Card(
        summary=f"CQT-Diff+: fills gaps in clips of up to {length_s:.2f} s.",
        licence="as its makers say; the published checkpoints are MIT",
        data=("as its makers say; the published ones: MAESTRO (22.05 kHz), MusicNet (44.1 kHz)",),
        sample_rate=config.network.sample_rate,
        limits="One channel. Nothing below its lowest band is drawn. A fill costs two evaluations a step, each with a "
        "backward pass: most of an hour on two CPU cores.",
    )


def _count(tensors: Mapping[str, Tensor], before: str, after: str) -> int:
    """How many numbers from 0 on there are with a weight of this name around them."""
    number = 0
    while f"{before}{number}.{after}" in tensors:
        number += 1
    return number
