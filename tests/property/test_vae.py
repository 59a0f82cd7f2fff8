"""The causal network: pieces give what the whole gives; its layers are strided convolutions in disguise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sfumato.networks import vae

SMALL = vae.Config(
    capacity=4,
    capacity_max=8,
    ratios=(4, 2),
    latent=3,
    encoder_dilations=((1, 3), ()),
    decoder_dilations=((1,), (1, 3)),
)


def networks(channels=1):
    torch.manual_seed(3)
    config = SMALL.model_copy(update={"channels": channels})
    return config, vae.FilterBank(config), vae.Encoder(config).eval(), vae.Decoder(config).eval()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(1, 2))
def test_pieces_give_what_the_whole_gives(pieces, channels):
    config, bank, encoder, decoder = networks(channels)
    hop = config.hop_length
    audio = torch.randn(2, channels, hop * sum(pieces), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        bands, _ = bank.analyse(audio, bank.init(2))
        raw, _ = encoder(bands)
        whole, _ = bank.synthesise(decoder(raw[:, :3])[0], bank.init(2))
        states = [bank.init(2), encoder.init(2), decoder.init(2), bank.init(2)]
        made = []
        for piece in audio.split([hop * n for n in pieces], dim=-1):
            x, states[0] = bank.analyse(piece, states[0])
            x, states[1] = encoder(x, states[1])
            x, states[2] = decoder(x[:, :3], states[2])
            x, states[3] = bank.synthesise(x, states[3])
            made.append(x)
    torch.testing.assert_close(torch.cat(made, dim=-1), whole, atol=1e-5, rtol=0)


def test_no_output_sees_the_future():
    config, bank, encoder, _ = networks()
    audio = torch.zeros(1, 1, 4 * config.hop_length)
    changed = audio.clone()
    changed[..., 2 * config.hop_length :] = 1.0
    with torch.no_grad():
        latents = [encoder(bank.analyse(x, bank.init(1))[0])[0] for x in (audio, changed)]
        torch.testing.assert_close(latents[0][..., :2], latents[1][..., :2], atol=0, rtol=0)
        assert not torch.equal(latents[0][..., 2:], latents[1][..., 2:])


@pytest.mark.parametrize("factor", [2, 4])
def test_down_is_a_strided_convolution(factor):
    torch.manual_seed(0)
    layer = vae.Down(3, 5, factor)
    x = torch.randn(2, 3, 8 * factor)
    y, _ = layer(x, layer.init(2))
    # weight (out, factor * channels, 2): frame by frame, then sample by sample, then channel by channel
    kernel = layer.folded.conv.weight.reshape(5, factor, 3, 2).permute(0, 2, 3, 1).reshape(5, 3, 2 * factor)
    padded = functional.pad(functional.leaky_relu(x, vae.SLOPE), (factor, 0))
    torch.testing.assert_close(y, functional.conv1d(padded, kernel, layer.folded.conv.bias, stride=factor))


@pytest.mark.parametrize("factor", [2, 4])
def test_up_is_a_transposed_convolution(factor):
    torch.manual_seed(0)
    layer = vae.Up(3, 5, factor)
    torch.nn.init.zeros_(layer.folded.conv.bias)
    x = torch.randn(2, 3, 8)
    y, _ = layer(x, layer.init(2))
    weight = layer.folded.conv.weight.reshape(factor, 5, 3, 2).flip(-1).permute(2, 1, 3, 0).reshape(3, 5, 2 * factor)
    wanted = functional.conv_transpose1d(functional.leaky_relu(x, vae.SLOPE), weight, stride=factor)
    torch.testing.assert_close(y, wanted[..., : 8 * factor])


def test_folding_is_undone():
    x = torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(vae.unfold(vae.fold(x, 4), 4), x, atol=0, rtol=0)
    assert vae.fold(x, 4)[0, 2 * 6 + 5, 1] == x[0, 5, 4 + 2]
