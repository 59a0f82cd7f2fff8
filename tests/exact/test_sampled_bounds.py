"""Examples with a teacher's bounds: the bounds are the teacher's, and what was made is not made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.data import inpainting, sampled_bounds
from sfumato.data.examples import DataSettings
from sfumato.errors import InputError
from sfumato.model import Card, Model
from sfumato.networks import unet2d
from sfumato.signal.gap_levels import N_FRAMES, SCALE_DB
from sfumato.signal.levels import N_BANDS
from sfumato.systems import conffusion, n_conffusion

TINY = unet2d.Config(condition_channels=7, widths=(8, 16), embedding=16, attention_heads=2)
CONFIG = n_conffusion.Config(network=TINY, target="sampled", draws=4, steps=3)


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Model:
    torch.manual_seed(0)
    config = conffusion.Config(network=TINY)
    network = conffusion.build(config).eval()
    torch.nn.init.normal_(network.last[-1].weight, std=0.05)
    model = Model("teacher", "conffusion", config, network, Card())
    monkeypatch.setattr(sampled_bounds, "load", lambda name: model)
    random, flags = np.random.default_rng(0), np.zeros((3, 2, N_FRAMES), dtype=np.int8)
    flags[:, 0], flags[:, 0, 90:120], flags[:, 1, 90:120] = 1, 0, 1
    levels = (-40 + 10 * random.standard_normal((3, 3, N_BANDS, N_FRAMES))).astype(np.float16)
    np.savez(tmp_path / "shard.npz", levels=levels, flags=flags)
    bank = inpainting.Bank([tmp_path / "shard.npz"])
    monkeypatch.setattr(inpainting, "examples", lambda *given: bank)
    return model


def build(folder: Path, seen: list[int]) -> object:
    settings = DataSettings(seed=7)
    return sampled_bounds.examples([], folder, folder, "train", CONFIG, settings, lambda i, n, text: seen.append(i))


def test_the_bounds_are_the_teachers(teacher: Model, tmp_path: Path) -> None:
    seen: list[int] = []
    batch = build(tmp_path, seen).batch(seed=0, step=1, size=2, rank=0, world=1)  # examples 2 and 0
    assert seen == [1, 2, 3]
    bank = inpainting.Bank([tmp_path / "shard.npz"], augment=False)
    for row, index in enumerate((2, 0)):
        view = bank.view(index)
        expected = conffusion.sample_bounds(
            teacher.network, teacher.config, view, (0.05, 0.95), draws=4, seed=7, item=index, steps=3
        )
        for key, part in zip(("lower", "upper"), expected, strict=True):
            wanted = np.where(view.touched, part - view.base_db, 0.0) / SCALE_DB
            np.testing.assert_allclose(batch[key][row, 0], wanted, atol=2e-3)
        np.testing.assert_array_equal(batch["clean"][row], bank.item(index)["clean"])
        assert (batch["lower"][row] <= batch["upper"][row]).all()


def test_bounds_once_made_are_read_back(teacher: Model, tmp_path: Path) -> None:
    first, again = [], []
    one, two = (build(tmp_path, seen).batch(0, 0, 3, 0, 1) for seen in (first, again))
    assert first == [1, 2, 3] and again == []
    torch.testing.assert_close(one, two)


def test_only_an_inpainter_can_teach(teacher: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = Model("bounds", "n_conffusion", CONFIG, n_conffusion.build(CONFIG), Card())
    monkeypatch.setattr(sampled_bounds, "load", lambda name: bounds)
    with pytest.raises(InputError, match="bounds can't teach"):
        build(tmp_path, [])
