"""A Dance Diffusion of a few weights, all of them at work, as a folder."""

import torch
from torch import nn

from sfumato.model import Card, Model, save
from sfumato.networks import unet1d
from sfumato.systems import dance_diffusion

CONFIG = dance_diffusion.Config(
    network=unet1d.Config(
        patch=8, factor=2, kernel=3, widths=(8, 16), attention_heads=2, embedding=16, labels=(14, 2), relative=True
    ),
    sample_rate=8000,
    n_samples=512,
    sigma_max=20.0,
    sigma_min=1e-3,
)


def model(config=CONFIG, seed=0):
    torch.manual_seed(seed)
    network = dance_diffusion.build(config).eval()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return Model("tiny", "dance_diffusion", config, network.requires_grad_(False), Card(sample_rate=config.sample_rate))


def folder(path, config=CONFIG, seed=0):
    save(model(config, seed), path)
    return path
