"""RAVE trains on a plain folder of sounds, through both phases, to a model that loads."""

import json

import numpy as np
import pytest
import soundfile as sf
import torch

from sfumato import model, preset
from sfumato.data.loaders import AUDIO_ENDINGS
from sfumato.errors import InputError


def test_a_folder_of_sounds_of_any_rate_and_format_is_enough(tmp_path):
    generator = np.random.default_rng(0)
    sounds = tmp_path / "my sounds"
    sounds.mkdir()
    for name, rate, channels in (("a.wav", 44100, 1), ("b.flac", 48000, 2), ("c.ogg", 22050, 1)):
        sf.write(sounds / name, 0.1 * generator.standard_normal((rate, channels)), rate)
    plan = preset.load("rave-tiny")
    preset.train(plan, sounds, tmp_path / "out", command="sfumato train rave-tiny")
    trained = model.load(tmp_path / "out")
    assert trained.config.judges is None
    assert torch.linalg.matrix_norm(trained.network.codec.latent_basis, 2) == pytest.approx(1.0, abs=2e-3)
    assert trained.card.data[0].startswith("my sounds: ")
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert "discriminator/total" not in lines[0] and "discriminator/total" in lines[-1]


def test_a_folder_without_sounds_says_what_it_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("no sound")
    with pytest.raises(InputError, match="holds no recording"):
        preset.train(preset.load("rave-tiny"), tmp_path, tmp_path / "out")
    assert ".wav" in AUDIO_ENDINGS
