"""A model of the system riffusion that draws in milliseconds; its weights are random, but every path is awake."""

from pathlib import Path

import torch
from torch import nn

from sfumato import preset
from sfumato.model import Card, Model, save
from sfumato.systems import riffusion

CONFIG = preset.load("riffusion-tiny").config


def model(config=CONFIG):
    torch.manual_seed(0)
    network = riffusion.build(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return Model("tiny", riffusion.NAME, config, network, Card())


def folder(path: Path) -> Path:
    save(model(), path)
    return path
