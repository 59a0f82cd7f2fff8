"""Published Dance Diffusion checkpoints become models, in either layout; broken and foreign ones are refused."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato import cli
from sfumato.convert import convert
from sfumato.diffusion import precondition
from sfumato.errors import InputError, ModelError
from sfumato.model import load
from sfumato.systems import dance_diffusion
from sfumato.tasks.generate import generate

sys.path.insert(0, str(Path(__file__).parent.parent / "equivalence"))
from test_dance_unet import GOLDEN, golden_weights, theirs

GIVEN = ("sample_rate=16000", "n_samples=512")


@pytest.fixture(scope="module")
def weights():
    with np.load(GOLDEN) as arrays:
        return golden_weights(json.loads(str(arrays["names"])))


@pytest.fixture(scope="module")
def checkpoint(weights, tmp_path_factory):
    """As the published trainer's library writes one: the network, its average, and the rest of the training."""
    state = {f"diffusion.{name}": value + 1 for name, value in weights.items()}
    state |= {f"diffusion_ema.{name}": value for name, value in weights.items()}
    rest = {"epoch": 3, "global_step": 99, "optimizer_states": [{"state": {}}], "callbacks": {"Saver": {"best": None}}}
    path = tmp_path_factory.mktemp("published") / "training.ckpt"
    torch.save({"state_dict": state, **rest}, path)
    return path


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A folder as diffusers writes it."""
    folder = tmp_path_factory.mktemp("published") / "pipeline"
    upstream = theirs()
    upstream.register_to_config(sample_rate=16000)
    upstream.save_pretrained(folder / "unet")
    (folder / "model_index.json").write_text('{"_class_name": "DanceDiffusionPipeline"}')
    return folder


@torch.no_grad()
def test_a_training_s_checkpoint_becomes_a_model(checkpoint, tmp_path):
    done = convert(checkpoint, tmp_path / "out", "dance_diffusion", GIVEN)
    assert done.part == "state_dict"
    model = load(tmp_path / "out")
    with np.load(GOLDEN) as arrays:
        x, time, expected = arrays["x"], arrays["time"], arrays["v"]
    found = model.network(torch.from_numpy(x), torch.from_numpy(time)).numpy()
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert (model.config.sample_rate, model.config.n_samples, model.card.sample_rate) == (16000, 512, 16000)


@torch.no_grad()
def test_a_pipeline_s_folder_becomes_a_model_that_draws(pipeline, tmp_path):
    convert(pipeline, tmp_path / "out", "dance_diffusion")
    model, upstream = load(tmp_path / "out"), theirs()
    x, sigma = torch.randn(1, 2, 512, generator=torch.Generator().manual_seed(1)), torch.tensor([0.7])
    time = torch.atan(sigma) * 2 / torch.pi
    alpha, level = torch.cos(time * torch.pi / 2), torch.sin(time * torch.pi / 2)
    v = upstream(alpha * x, time).sample  # their state is ours times alpha; theirs guesses clean as alpha x - sigma v
    clean = dance_diffusion.denoiser(model.network, model.config)(x, sigma)
    torch.testing.assert_close(clean, alpha * alpha * x - level * v, rtol=1e-4, atol=1e-5)
    take = next(generate(tmp_path / "out", {"steps": 2, "sampler": "iplms", "grid": "crash", "seconds": 0.05}))
    assert take.audio.shape == (2, 800)


def test_its_denoiser_is_plain_v(checkpoint, tmp_path):
    convert(checkpoint, tmp_path / "out", "dance_diffusion", GIVEN)
    model = load(tmp_path / "out")
    x, sigma = torch.randn(1, 2, 512, generator=torch.Generator().manual_seed(0)), torch.tensor([2.0])
    plain = precondition.v(model.network)(x, sigma)
    assert torch.equal(dance_diffusion.denoiser(model.network, model.config)(x, sigma), plain)


def test_what_a_checkpoint_does_not_tell_must_be_given(checkpoint, tmp_path):
    with pytest.raises(InputError, match="sample_rate and n_samples"):
        convert(checkpoint, tmp_path / "out", "dance_diffusion")
    with pytest.raises(InputError, match="multiple of the network's 16"):
        convert(checkpoint, tmp_path / "out", "dance_diffusion", ("sample_rate=16000", "n_samples=100"))


def test_broken_and_foreign_checkpoints_are_refused(checkpoint, pipeline, weights, tmp_path):
    def refused(path, message):
        with pytest.raises(ModelError, match=message):
            convert(path, tmp_path / "out", "dance_diffusion", GIVEN)
        assert not (tmp_path / "out").exists()

    short = tmp_path / "short.ckpt"
    short.write_bytes(checkpoint.read_bytes()[:5000])
    refused(short, "damaged")
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, foreign)
    refused(foreign, "no checkpoint of Dance Diffusion")
    program = tmp_path / "program.ckpt"
    torch.save({"state_dict": weights, "hyper_parameters": Namespace(run=print)}, program)
    refused(program, "more than plain data")
    partial = tmp_path / "partial.ckpt"
    torch.save({"state_dict": {k: v for k, v in weights.items() if "net.5." not in k}}, partial)
    refused(partial, "outward.0.blocks.1")
    refused(tmp_path, "holds no diffusion_pytorch_model")
    with pytest.raises(ModelError, match="of the system cqtdiff"):
        convert(pipeline, tmp_path / "out", "cqtdiff")


@pytest.mark.parametrize("text", ["[1]", "{", '{"sample_rate": "fast"}', '{"sample_rate": -1, "sample_size": 512}'])
def test_a_pipeline_with_a_wrong_description_is_refused(pipeline, tmp_path, text):
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(
        (pipeline / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    )
    with pytest.raises(ModelError, match=r"config\.json"):
        convert(folder, tmp_path / "out", "dance_diffusion")
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        convert(folder, tmp_path / "out", "dance_diffusion")


def test_the_command(checkpoint, tmp_path, capsys):
    words = ["models", "convert", str(checkpoint), str(tmp_path / "out"), "--system", "dance_diffusion"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, *(word for value in GIVEN for word in ("--set", value))])
    assert not ended.value.code
    assert "state_dict" in capsys.readouterr().out
