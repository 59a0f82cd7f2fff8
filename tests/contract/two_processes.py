"""Train the miniature of `test_train` in one process, or in several under torchrun."""

import sys
from pathlib import Path
from types import SimpleNamespace

from test_train import SETTINGS, Config, Regression, loss
from torch import nn

from sfumato.train import fit


def build(config):
    return nn.Sequential(nn.Linear(4, config.width), nn.Tanh(), nn.Linear(config.width, 4))


system = SimpleNamespace(NAME="conffusion", TURNS=("denoise",), build=build, loss=loss)
fit(system, Config(), SETTINGS, Regression(), Path(sys.argv[1]))
