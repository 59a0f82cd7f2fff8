"""The published network = diffusers' and the published code's, with the same random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.diffusion import noise
from sfumato.errors import InputError, ModelError
from sfumato.model import fill_network
from sfumato.networks import dance_unet

GOLDEN = Path(__file__).parent.parent / "golden" / "dance_unet.npz"


def theirs(widths=(32, 64, 64, 64), attending=1, seed=0):
    """diffusers' network in the shape of its Dance Diffusion pipeline."""
    from diffusers import UNet1DModel

    plain = len(widths) - 1 - attending
    torch.manual_seed(seed)
    return UNet1DModel(
        sample_size=512,
        extra_in_channels=16,
        time_embedding_dim=16,
        block_out_channels=widths,
        down_block_types=("DownBlock1DNoSkip",) + ("DownBlock1D",) * plain + ("AttnDownBlock1D",) * attending,
        up_block_types=("AttnUpBlock1D",) * attending + ("UpBlock1D",) * plain + ("UpBlock1DNoSkip",),
    ).eval()


def ours(tensors):
    config, weights = dance_unet.adopt(tensors)
    network = dance_unet.DanceUNet(dance_unet.Config(**config)).eval()
    fill_network(network, weights, Path("checkpoint"))
    return network


@torch.no_grad()
@pytest.mark.parametrize(("widths", "attending"), [((32, 64, 64, 64), 1), ((32, 32, 32), 2)])
def test_it_is_diffusers_network(widths, attending):
    upstream = theirs(widths, attending)
    for parameter in upstream.parameters():
        parameter.mul_(1.5)
    network = ours(upstream.state_dict())
    assert network.config.attention[-1 - attending :] == (True,) * (attending + 1)
    x, time = torch.randn(2, 2, 512, generator=torch.Generator().manual_seed(1)), torch.tensor([0.2, 0.9])
    expected = upstream(x, time).sample
    assert expected.std() > 0.1
    assert (network(x, time) - expected).abs().max() < 1e-5 * expected.abs().max()


def golden_weights(names):
    """Weights that are a function of their names' order: what the published code was given, too."""
    tensors = {}
    for number, (name, shape) in enumerate(names.items()):
        fan = int(np.prod(shape[1:])) or 1
        scale = 1.0 if len(shape) == 1 or name == "timestep_embed.weight" else 1.5 / fan**0.5
        tensors[name] = scale * noise.normal(shape, seed=11, item=number, step=0)
        if name.endswith("kernel"):
            factor = 2.0 if ".14." in f".{name}" else 1.0
            tensors[name] = factor * torch.tensor(dance_unet.KERNEL)
    return tensors


@torch.no_grad()
def test_it_is_the_published_code_s_network():
    with np.load(GOLDEN) as arrays:
        names, x, time, expected = json.loads(str(arrays["names"])), arrays["x"], arrays["time"], arrays["v"]
    network = ours(golden_weights(names))
    assert network.config.widths == (32, 32, 64, 64, 96)
    assert network.config.attention == (False, False, True, True, True)
    found = network(torch.from_numpy(x), torch.from_numpy(time)).numpy()
    assert expected.std() > 0.1
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_published_shape_has_the_published_number_of_weights():
    """Counted in the published code at its default depth with 4 layers of attention, by the script that wrote v."""
    with torch.device("meta"):
        found = sum(weight.numel() for weight in dance_unet.DanceUNet(dance_unet.PUBLISHED).parameters())
    with np.load(GOLDEN) as arrays:
        assert found + 8 == int(arrays["published_weights"])


def test_foreign_and_partial_weights_are_refused():
    whole = dict(theirs().state_dict())
    for removed in ("time_proj.weight", "up_blocks.3.resnets.2.conv_2.weight", "mid_block.attentions.0.key.weight"):
        with pytest.raises(ModelError):
            ours({name: value for name, value in whole.items() if name != removed})
    with pytest.raises(ModelError, match="not part of"):
        ours(whole | {"text.weight": torch.zeros(3)})
    with pytest.raises(ModelError, match="another kernel"):
        ours(whole | {"mid_block.down.kernel": torch.ones(8) / 8})
    with pytest.raises(ModelError, match="no checkpoint"):
        ours({"weight": torch.zeros(3)})


def test_lengths_that_do_not_fit_are_refused():
    network = dance_unet.DanceUNet(dance_unet.Config(channels=1, widths=(8, 8, 8), attention=(False,) * 3))
    for n in (18, 12):
        with pytest.raises(InputError, match="multiple of 4, at least 16"):
            network(torch.zeros(1, 1, n), torch.zeros(1))


@pytest.mark.parametrize(
    "values",
    [
        {"widths": (8, 8), "attention": (False,)},
        {"widths": (8, 8), "attention": (False, True)},
        {"widths": (32, 32), "attention": (True, True)},
        {"widths": (32,), "attention": (False,)},
    ],
)
def test_impossible_shapes_are_refused(values):
    with pytest.raises(ValueError, match=r"levels|level"):
        dance_unet.Config(**values)
