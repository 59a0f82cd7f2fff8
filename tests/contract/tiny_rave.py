"""A small codec of random weights, for tests of what is done with one."""

from pathlib import Path

import torch

from sfumato.model import Card, Model, save
from sfumato.networks import vae
from sfumato.systems import rave

RATE = 8000


def make(folder: Path, seed: int = 0, bottleneck: str = "gaussian", channels: int = 1) -> Path:
    """A small codec of random weights with an analysis of its latent that fits them."""
    torch.manual_seed(seed)
    shape = vae.Config(
        channels=channels,
        bands=4,
        taps=41,
        capacity=6,
        capacity_max=12,
        ratios=(2, 4),
        latent=6,
        encoder_dilations=((1, 3), (1,)),
        decoder_dilations=((1, 3), (1,)),
    )
    config = rave.Config(
        sample_rate=RATE, judges=None, network=shape, bottleneck=bottleneck, n_codebooks=3, codebook_size=10
    )
    built = rave.build(config).eval()
    with torch.no_grad():
        for parameter in built.codec.parameters():
            parameter.mul_(0.7).add_(0.05 * torch.randn(parameter.shape))
        built.codec.decoder.layers[-1].conv.bias[4 * channels :] = 0.5  # loud enough to tell sounds apart
        for book in built.codec.quantiser.layers if bottleneck == "discrete" else ():
            book._codebook.embed.normal_(0, 0.3)
            book._codebook.initted.fill_(True)
    clean = torch.randn(2, channels, 8000) * torch.linspace(0, 0.5, 8000)
    finished, config = rave.finish(built, config, [{"clean": clean}])
    save(Model("random", "rave", config, finished, Card(sample_rate=RATE)), folder)
    return folder
