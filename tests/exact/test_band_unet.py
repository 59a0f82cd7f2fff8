"""The U-Net of bands: what it was, what is given beside the noisy picture, and other shapes of picture."""

import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sfumato import checkpoint
from sfumato.networks import band_unet
from sfumato.wanted import Wanted, nothing

GOLDEN = Path(__file__).parent.parent / "golden" / "band_unet.npz"
SHAPE = {
    "bands": ((4, 2), (4, 4)), "widths": (8, 16), "attending": 1, "head": 8, "embedding": 16, "words": 6,
}  # fmt: skip


def fill(network):
    """Weights that are a function of their names."""
    with torch.no_grad():
        for name, value in network.named_parameters():
            generator = np.random.default_rng(zlib.crc32(name.encode()))
            value.copy_(torch.from_numpy(generator.standard_normal(value.shape) / np.sqrt(max(value[0].numel(), 4))))
    return network.eval()


def inputs():
    """Two noisy pictures, their noise labels, and what is wanted."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 2, 24, 16, generator=generator)
    told = Wanted(
        torch.randn(2, 6, generator=generator),
        torch.randn(2, 3, 6, generator=generator),
        torch.tensor([[True, True, False], [True, True, True]]),
        torch.tensor([0.0, 120.0]),
        torch.tensor([0, 7]),
    )
    return x, torch.tensor([0.2, 0.9]), told


def test_without_gains_and_anything_given_it_is_the_network_that_was_kept():
    kept = np.load(GOLDEN)
    network = fill(band_unet.BandUNet(band_unet.Config(**SHAPE)))
    x, label, told = inputs()
    plain = replace(told, sentence=told.sentence / 6**0.5)  # the kept one took sentences as they come
    with torch.no_grad():
        for gain in network.gain:
            gain.zero_()
        out = network(x, label, plain)
    np.testing.assert_allclose(out.numpy(), kept["out"], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_gain_of_one_adds_the_noisy_picture_itself():
    network = fill(band_unet.BandUNet(band_unet.Config(**SHAPE)))
    x, label, told = inputs()
    heard = []
    network.last.register_forward_hook(lambda module, given, out: heard.append(torch.ones_like(out)) or heard[-1])
    for matrix in (*network.gain, *network.out):
        matrix.zero_()
    for matrix in network.gain:  # silu(1) summed over the channels, times this, is 1
        matrix.fill_(1 / (8 * float(torch.nn.functional.silu(torch.ones(())))))
    torch.testing.assert_close(network(x, label, told), x)


@torch.no_grad()
def test_magnitudes_are_those_of_the_complex_numbers():
    x = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(band_unet._magnitudes(x)[:, 1], torch.complex(x[:, 2], x[:, 3]).abs())


def given_network():
    """The network with three more channels beside the noisy picture, which count for much."""
    network = band_unet.BandUNet(band_unet.Config(**SHAPE, given=3))
    return fill(network)


@torch.no_grad()
def test_what_is_given_matters_and_stands_at_its_own_place_in_time():
    network, (x, label, told) = given_network(), inputs()
    given = torch.zeros(2, 3, 24, 16)
    plain = network(x, label, told, given)
    torch.testing.assert_close(plain, network(x, label, told))
    rows = network._rows(given, network.beside)
    given[:, :, 8, 6] = 1.0
    moved = network._rows(given, network.beside) - rows
    assert (moved.abs().sum(dim=(0, 1)) > 0).nonzero().tolist() == [[4, 3]]  # the band of bins 8 … 11, frames 6 and 7
    assert (network(x, label, told, given) - plain).abs().max() > 1e-3


@torch.no_grad()
def test_moved_by_columns_that_all_levels_share_everything_moves():
    """On a circle there are no edges; GroupNorm and attention don't know places along time."""
    network = given_network()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.padding == (1, 1):
            module.padding_mode, module._reversed_padding_repeated_twice = "circular", [1, 1, 1, 1]
    x, label, told = inputs()
    given = torch.randn(2, 3, 24, 16, generator=torch.Generator().manual_seed(1))
    step = network.config.multiple
    moved = network(x.roll(step, -1), label, told, given.roll(step, -1))
    torch.testing.assert_close(moved, network(x, label, told, given).roll(step, -1), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_latents_are_pictures_whose_rows_are_bands_of_one_bin():
    shape = SHAPE | {"bands": ((8, 1),), "channels": 3, "frames": 1}
    network = fill(band_unet.BandUNet(band_unet.Config(**shape)))
    assert network.config.multiple == 2
    x = torch.randn(1, 3, 8, 6, generator=torch.Generator().manual_seed(2))
    assert network(x, torch.tensor([0.5]), nothing(1, 6)).shape == x.shape


def test_all_rows_weigh_the_same():
    weights = band_unet.band_weights(band_unet.Config(**SHAPE))
    assert len(weights) == 24 and abs(float(weights.mean()) - 1) < 1e-6
    np.testing.assert_allclose(weights[:8].reshape(4, 2).sum(1), weights[8:].reshape(4, 4).sum(1), rtol=1e-6)


def test_a_training_from_before_a_key_existed_is_taken_up():
    """Its configuration lacks what has its default here; another value, or another key, is another training."""
    old = band_unet.Config(**SHAPE).model_dump(mode="json")
    del old["given"], old["frames"]
    assert checkpoint._same_config(json.dumps(old), band_unet.Config(**SHAPE))
    assert not checkpoint._same_config(json.dumps(old), band_unet.Config(**SHAPE, given=3))
    assert not checkpoint._same_config(json.dumps(old | {"foreign": 1}), band_unet.Config(**SHAPE))
