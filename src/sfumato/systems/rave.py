"""RAVE: a variational autoencoder of waveforms, fast enough to be played.

Audio becomes bands, bands a latent sequence at a few dozen frames a second, and back (`networks.vae`). Training has two
phases [1]_: first both halves learn to keep the spectrogram at several scales, while the latent is pulled
towards a Gaussian; then the encoder is frozen and the decoder also learns to pass for the real sound before
discriminators (`networks.discriminator`), which gives it the phases that no spectral distance asks for. Then the latent
space is analysed: its principal directions, strongest first, so that whoever encodes may keep as many as a
fidelity needs.

Four bottlenecks: `gaussian` [1]_, `wasserstein` (the whole batch is pulled towards a Gaussian, each frame has no spread
of its own [2]_), `spherical` (frames lie on a sphere [3]_) and `discrete` (residual vector quantisation [4]_), on which
language models can stand.

Where it departs from the paper: convolutions are causal, in training too; no weight normalisation; the spectral
distance also compares bands with their own short windows, and its second term is a mean of logarithms (see
`metrics.multiscale_spectral`); the penalty warms up; feature matching is relative to the features' size and
weighted once; encoding is deterministic unless noise is given.

References
----------
.. [1] A. Caillon, P. Esling, "RAVE: a variational autoencoder for fast and high-quality neural audio synthesis",
       arXiv 2111.05011.
.. [2] I. Tolstikhin et al., "Wasserstein auto-encoders", arXiv 1711.01558, algorithm 2.
.. [3] T. Davidson et al., "Hyperspherical variational auto-encoders", arXiv 1804.00891.
.. [4] N. Zeghidour et al., "SoundStream", arXiv 2107.03312, sec. III-C.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings
from sfumato.errors import MissingExtraError
from sfumato.metrics.multiscale_spectral import multiscale_spectral
from sfumato.networks import discriminator, vae

if TYPE_CHECKING:
    from jaxtyping import Float

    from sfumato.diffusion.noise import BatchNoise

NAME = "rave"
PAPER = {
    "title": "RAVE: A variational autoencoder for fast and high-quality neural audio synthesis",
    "arxiv": "2111.05011",
    "code": "github.com/acids-ircam/RAVE (never opened)",
    "licence": "CC BY-NC 4.0 (the code; none of it is here)",
}
TURNS = ("codec", "discriminator")

CERTAIN = -4.0
"""First bias of the posterior's spread, before softplus: latents begin nearly without noise, so that they are used."""

Bottleneck = Literal["gaussian", "wasserstein", "spherical", "discrete"]


class Config(Settings):
    """The two networks, the bottleneck between them, and the training's two phases."""

    sample_rate: int = Field(44100, gt=0, description="sample rate of the audio, Hz")
    network: vae.Config = Field(vae.Config(), description="encoder and decoder")
    bottleneck: Bottleneck = Field("gaussian", description="kind of the latent")
    n_codebooks: int = Field(8, ge=1, le=64, description="codebooks of the discrete bottleneck")
    codebook_size: int = Field(1024, ge=2, le=1 << 16, description="codes of each codebook")
    judges: discriminator.Config | None = Field(
        discriminator.Config(), description="judges of phase two; none in a finished model"
    )
    seconds: float = Field(1.5, gt=0, description="length of a training crop")
    prior_weight: float = Field(5e-3, ge=0, description="weight of the latent's distance from its prior, per frame")
    prior_warmup: int = Field(2000, ge=0, description="steps over which that weight rises from a ten-thousandth")
    adversarial_from: int = Field(20_000, ge=0, description="first step of phase two")
    adversarial_weight: float = Field(1.0, ge=0, description="weight of the discriminators' verdict")
    matching_weight: float = Field(10.0, ge=0, description="weight of feature matching")
    band_scales: tuple[int, ...] = Field((128, 64, 32), description="windows on the bands, in their own samples")

    @property
    def n_samples(self) -> int:
        """Samples of a training crop, whole latent frames."""
        hop = self.network.hop_length
        return max(1, round(self.seconds * self.sample_rate / hop)) * hop


class Codec(nn.Module):
    """Filter bank, encoder, bottleneck, decoder, and what the analysis of the latent space found."""

    latent_mean: Tensor
    latent_basis: Tensor
    latent_scale: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        spread = config.bottleneck == "gaussian"
        network = config.network.model_copy(update={"outputs": 2 if spread else 1})
        self.bank = vae.FilterBank(network)
        self.encoder = vae.Encoder(network)
        self.decoder = vae.Decoder(network)
        if spread:
            with torch.no_grad():
                self.encoder.layers[-1].conv.bias[network.latent :] = CERTAIN  # type: ignore[union-attr,operator]
        self.quantiser = _quantiser(config) if config.bottleneck == "discrete" else None
        self.register_buffer("latent_mean", torch.zeros(network.latent))
        self.register_buffer("latent_basis", torch.eye(network.latent))
        self.register_buffer("latent_scale", torch.ones(network.latent))

    def posterior(self, raw: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and spread of each latent number, (batch, latent, frames); no spread unless Gaussian."""
        if self.config.bottleneck == "gaussian":
            mean, spread = raw.chunk(2, dim=1)
            return mean, functional.softplus(spread) + 1e-4
        if self.config.bottleneck == "spherical":
            return functional.normalize(raw, dim=1) * math.sqrt(raw.shape[1]), None
        return raw, None

    def codes_of(self, latent: Float[Tensor, "b d s"]) -> Tensor:
        """Whole numbers (batch, codebooks, frames) of the discrete bottleneck."""
        assert self.quantiser is not None
        codes: Tensor = self.quantiser(latent.transpose(1, 2))[1]
        return codes.transpose(1, 2)

    def latent_of(self, codes: Tensor) -> Tensor:
        """The latent that codes (batch, codebooks, frames) stand for; fewer codebooks give a coarser one."""
        assert self.quantiser is not None
        latent: Tensor = self.quantiser.get_output_from_indices(codes.transpose(1, 2))
        return latent.transpose(1, 2)


class Rave(nn.Module):
    """The codec, and while it is trained its judges."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.codec = Codec(config)
        if config.judges is not None:
            self.discriminator = discriminator.Discriminator(config.judges, config.network.channels)


def _quantiser(config: Config) -> Any:
    """Residual vector quantiser: k-means start, moving averages, dead codes replaced."""
    try:
        from vector_quantize_pytorch import ResidualVQ
    except ImportError:
        raise MissingExtraError("vector_quantize_pytorch", "discrete") from None
    return ResidualVQ(
        dim=config.network.latent,
        codebook_dim=min(8, config.network.latent),
        num_quantizers=config.n_codebooks,
        codebook_size=config.codebook_size,
        kmeans_init=True,
        kmeans_iters=10,
        threshold_ema_dead_code=2,
        quantize_dropout=True,
    )


def build(config: Config) -> nn.Module:
    """The network with its initial weights."""
    return Rave(config)


def start(network: nn.Module, trained: nn.Module) -> None:
    """Take over a trained codec; judges, if any, start afresh."""
    network.get_submodule("codec").load_state_dict(trained.get_submodule("codec").state_dict())


def loss(
    network: nn.Module, batch: dict[str, Tensor], config: Config, noise: BatchNoise, turn: str
) -> dict[str, Tensor]:
    """What the codec, or in phase two the discriminators, have to make small; nothing for a turn that rests."""
    adversarial = noise.training_step >= config.adversarial_from and config.judges is not None
    if turn == "discriminator" and not adversarial:
        return {}
    assert isinstance(network, Rave)
    codec, audio = network.codec, batch["clean"]
    with torch.autocast(audio.device.type, enabled=False):
        bands, _ = codec.bank.analyse(audio, codec.bank.init(len(audio)))
    with torch.set_grad_enabled(torch.is_grad_enabled() and turn == "codec"):
        latent, prior = _latent(codec, bands, noise, frozen=adversarial)
        made_bands, _ = codec.decoder(latent)
        with torch.autocast(audio.device.type, enabled=False):
            made, _ = codec.bank.synthesise(made_bands.float(), codec.bank.init(len(audio)))
    delay = config.network.delay
    real, made = audio[..., : audio.shape[-1] - delay], made[..., delay:]
    if turn == "discriminator":
        return _verdicts(network.discriminator(real), network.discriminator(made))
    distance = multiscale_spectral(real, made)
    of_bands = multiscale_spectral(bands, made_bands, config.band_scales)
    losses = {"spectral": distance.detach(), "bands": of_bands.detach(), "prior": prior.detach()}
    total = distance + of_bands
    if not adversarial:
        rise = min(1.0, 1e-4 ** (1 - noise.training_step / max(1, config.prior_warmup)))
        total = total + config.prior_weight * rise * prior
    else:
        with torch.no_grad():
            genuine = network.discriminator(real)
        forged = network.discriminator(made)
        verdict = torch.stack([-score.float().mean() for score, _ in forged]).mean()
        matching = torch.stack([_mismatch(a, b) for (_, a), (_, b) in zip(genuine, forged, strict=True)]).mean()
        total = total + config.adversarial_weight * verdict + config.matching_weight * matching
        losses |= {"verdict": verdict.detach(), "matching": matching.detach()}
    return {"total": total} | losses


def _latent(codec: Codec, bands: Tensor, noise: BatchNoise, frozen: bool) -> tuple[Tensor, Tensor]:
    """A latent as the decoder will be given it, and its distance from the prior per frame."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
        raw, _ = codec.encoder(bands)
        mean, spread = codec.posterior(raw.float())
        if spread is not None:
            divergence = 0.5 * (mean.square() + spread.square() - 1) - spread.log()
            return mean + spread * noise(0, mean.shape[1:]), divergence.sum(dim=1).mean()
        if codec.config.bottleneck == "wasserstein":
            return mean, discrepancy(mean, noise(0, mean.shape[1:]))
        if codec.quantiser is not None:
            codec.quantiser.train(codec.training and not frozen)  # codebooks would move by themselves
            latent, _, commitment = codec.quantiser(mean.transpose(1, 2))
            return latent.transpose(1, 2), commitment.sum()
        return mean, mean.new_zeros(())


def discrepancy(x: Float[Tensor, "b d s"], y: Float[Tensor, "b d s"]) -> Tensor:
    """Maximum mean discrepancy of two sets of frames, with inverse multiquadratic kernels [2]_; at most 512 frames."""
    a, b = (frames.transpose(1, 2).flatten(0, 1)[:512] for frames in (x, y))

    def kernel(p: Tensor, q: Tensor) -> Tensor:
        squared = torch.cdist(p, q).square()
        return torch.stack([2 * c * p.shape[1] / (2 * c * p.shape[1] + squared) for c in (0.1, 1.0, 10.0)]).sum(dim=0)

    def within(p: Tensor) -> Tensor:
        n = len(p)
        return (kernel(p, p).sum() - 3 * n) / (n * max(1, n - 1))

    return within(a) + within(b) - 2 * kernel(a, b).mean()


Judged = list[tuple[Tensor, list[Tensor]]]


def _verdicts(genuine: Judged, forged: Judged) -> dict[str, Tensor]:
    """Hinge loss of the discriminators: real sounds should score above 1, made ones below -1."""
    real = torch.stack([functional.relu(1 - score.float()).mean() for score, _ in genuine]).mean()
    made = torch.stack([functional.relu(1 + score.float()).mean() for score, _ in forged]).mean()
    return {"total": real + made, "real": real.detach(), "made": made.detach()}


def _mismatch(genuine: list[Tensor], forged: list[Tensor]) -> Tensor:
    """Mean over layers of the L1 distance of features, relative to the genuine ones' size."""
    pairs = zip(genuine, forged, strict=True)
    parts = [(a.float() - b.float()).abs().mean() / a.float().abs().mean().clamp_min(1e-6) for a, b in pairs]
    return torch.stack(parts).mean()


@torch.no_grad()
def finish(network: nn.Module, config: Config, batches: list[dict[str, Tensor]]) -> tuple[nn.Module, Config]:
    """A trained network as it is shipped: without judges, and with its latent space analysed [1]_, sec. 3.3.

    `latent_basis` holds the principal directions of the means over `batches` as rows, strongest first, and
    `latent_scale` their singular values over the root of the number of frames: standard deviations. Fewer frames than
    directions leave the last ones at 0.
    """
    assert isinstance(network, Rave)
    codec = network.codec
    frames = []
    for batch in batches:
        bands, _ = codec.bank.analyse(batch["clean"], codec.bank.init(len(batch["clean"])))
        mean, _ = codec.posterior(codec.encoder(bands)[0])
        frames.append(mean.transpose(1, 2).flatten(0, 1))
    latents = torch.cat(frames).double()
    centre = latents.mean(dim=0)
    missing = max(0, latents.shape[1] - len(latents))  # rows of zeros change no direction, but complete the basis
    padded = functional.pad(latents - centre, (0, 0, 0, missing))
    _, singular, basis = torch.linalg.svd(padded, full_matrices=False)
    finished = config.model_copy(update={"judges": None})
    shipped = Rave(finished)
    shipped.codec.load_state_dict(codec.state_dict())
    shipped.codec.latent_mean.copy_(centre)
    shipped.codec.latent_basis.copy_(basis)
    shipped.codec.latent_scale.copy_(singular / math.sqrt(len(latents)))
    return shipped, finished
