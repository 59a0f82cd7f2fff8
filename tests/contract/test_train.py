"""The training loop: exact resume, signals, processes, and what it writes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pydantic import Field
from torch import nn

from sfumato.config import Settings
from sfumato.errors import InputError, SfumatoError
from sfumato.model import read_tensors
from sfumato.train import BatchNoise, TrainSettings, fit, learning_rate


class Config(Settings):
    width: int = Field(8, description="width of the hidden layer")
    sample_rate: int = Field(8000, description="Hz")


class Regression:
    """Learn y = 2 x from noisy inputs, with dropout so that torch's own generator matters."""

    def __init__(self, kill_at=None):
        self.kill_at = kill_at

    def batch(self, seed, step, size, rank, world):
        if step == self.kill_at:
            os.kill(os.getpid(), signal.SIGTERM)
        share = size // world
        x = BatchNoise(seed + 1, step * size + rank * share, share)(0, (4,))
        return {"x": x, "y": 2 * x}


def build(config):
    return nn.Sequential(nn.Linear(4, config.width), nn.Tanh(), nn.Dropout(0.1), nn.Linear(config.width, 4))


def loss(network, batch, config, noise, turn):
    noisy = batch["x"] + 0.1 * noise(0, (4,)) * noise.uniform(1, (1,))
    error = ((network(noisy) - batch["y"]) ** 2).mean()
    return {"total": error, "mse": error}


SYSTEM = SimpleNamespace(NAME="conffusion", TURNS=("denoise",), build=build, loss=loss)
SETTINGS = TrainSettings(steps=10, batch_size=4, warmup_steps=2, log_every=3, checkpoint_every=4, learning_rate=1e-2)


def state(folder, step=10):
    tensors, _ = read_tensors(folder / f"checkpoint-{step:08d}.safetensors")
    return tensors


def assert_same_state(left, right):
    assert left.keys() == right.keys()
    assert any(key.startswith("optimizer.") for key in left)
    assert any(key.startswith("average.") for key in left)
    for key in left:
        assert torch.equal(left[key], right[key]), key


def log_lines(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_ten_steps_equal_five_and_five(tmp_path):
    fit(SYSTEM, Config(), SETTINGS, Regression(), tmp_path / "whole")
    with pytest.raises(SystemExit) as stopped:
        fit(SYSTEM, Config(), SETTINGS, Regression(kill_at=5), tmp_path / "parts")
    assert stopped.value.code == 143
    (interrupted,) = [p.name for p in (tmp_path / "parts").glob("checkpoint-*")][-1:]
    assert interrupted != "checkpoint-00000010.safetensors"
    fit(SYSTEM, Config(), SETTINGS, Regression(), tmp_path / "parts")
    assert_same_state(state(tmp_path / "whole"), state(tmp_path / "parts"))
    assert log_lines(tmp_path / "whole") == log_lines(tmp_path / "parts")
