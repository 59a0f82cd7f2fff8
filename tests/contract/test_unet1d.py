"""The waveform U-Net: shapes, what its output may depend on, and that it learns."""

import pytest
import torch
from torch import nn

from sfumato.diffusion import precondition
from sfumato.errors import InputError
from sfumato.networks.unet1d import Config, UNet1d

TINY = Config(
    channels=1, condition_channels=1, patch=4, factor=2, kernel=3, widths=(8, 16, 16), attention_heads=2, embedding=16
)


def awake(config: Config = TINY) -> UNet1d:
    """A network whose zero-initialised layers have been woken, so that every path reaches the output."""
    torch.manual_seed(0)
    network = UNet1d(config).eval()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return network


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        Config(channels=2, condition_channels=0, patch=1, factor=4, widths=(8, 16)),
        Config(channels=2, condition_channels=3, blocks=2, widths=(8, 16, 24)),
    ],
)
def test_a_new_network_gives_zeros_of_the_input_s_shape(config):
    torch.manual_seed(0)
    x = torch.randn(2, config.channels, 3 * config.multiple)
    condition = torch.randn(2, config.condition_channels, x.shape[-1]) if config.condition_channels else None
    y = UNet1d(config)(x, torch.zeros(2), condition)
    assert y.shape == x.shape
    assert not y.any()


def test_a_length_that_does_not_divide_is_refused():
    assert TINY.multiple == 16
    with pytest.raises(InputError, match="multiple of 16"):
        UNet1d(TINY)(torch.zeros(1, 1, 40), torch.zeros(1), torch.zeros(1, 1, 40))


@torch.no_grad()
def test_items_of_a_batch_do_not_meet():
    network = awake()
    x, condition, label = torch.randn(3, 1, 64), torch.randn(3, 1, 64), torch.randn(3)
    together = network(x, label, condition)
    alone = torch.cat([network(x[i : i + 1], label[i : i + 1], condition[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("changed", ["x", "label", "condition"])
def test_every_input_matters(changed):
    network = awake()
    inputs = {"x": torch.randn(1, 1, 64), "label": torch.randn(1), "condition": torch.randn(1, 1, 64)}
    before = network(*inputs.values())
    inputs[changed] = inputs[changed] + 0.5
    assert (network(*inputs.values()) - before).abs().max() > 1e-3


@torch.no_grad()
def test_attention_carries_one_end_to_the_other():
    """Normalisation, which reaches far too, is taken out."""
    network = awake()
    for name, module in list(network.named_modules()):
        for child, layer in list(module.named_children()):
            if isinstance(layer, nn.GroupNorm) and name != "attention":
                setattr(module, child, nn.Identity())
    x = torch.randn(1, 1, 1024)
    changed = x.clone()
    changed[..., :32] += 1.0

    def reach():
        return (network(changed, torch.zeros(1), x) - network(x, torch.zeros(1), x)).abs()[0, 0, -256:].max()

    assert reach() > 1e-6
    network.attention.out.weight.zero_()
    assert reach() == 0.0


def test_patches_are_folded_in_order():
    """A network reduced to its first and last convolution, both the identity, is the identity on samples."""
    network = UNet1d(Config(channels=1, patch=8, factor=2, kernel=1, widths=(8,), attention_heads=1, embedding=8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.first.weight.copy_(torch.eye(8)[:, :, None])
        up = network.up[0].blocks[0]
        up.skip.weight[:, :8] = torch.eye(8)[:, :, None]
        network.last = nn.Conv1d(8, 8, 1, bias=False)
        network.last.weight.copy_(torch.eye(8)[:, :, None])
    x = torch.randn(2, 1, 64)
    torch.testing.assert_close(network(x, torch.zeros(2)), x)


def test_it_learns_to_read_its_condition():
    """Clean signals are told outright by the condition: after a few steps the denoiser errs far less than at first."""
    torch.manual_seed(0)
    network = UNet1d(TINY)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    errors = []
    for _ in range(40):
        clean = torch.randn(4, 1, 64)
        sigma = torch.full((4,), 3.0)
        denoised = precondition.edm(network, clean, 1.0)(clean + 3.0 * torch.randn_like(clean), sigma)
        loss = (denoised - clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(loss.detach()))
    assert sum(errors[-5:]) < 0.5 * sum(errors[:5])


RELATIVE = Config(patch=8, factor=2, kernel=3, widths=(8, 16), attention_heads=2, embedding=16, relative=True)


@torch.no_grad()
@pytest.mark.parametrize("sigma", [1e-3, 0.1, 1.0, 20.0])
def test_an_open_gate_takes_all_noise_out_of_silence(sigma):
    """With every gate wide open and nothing added, silence is denoised to silence, at any level of noise."""
    torch.manual_seed(0)
    network = UNet1d(RELATIVE).eval()
    network.last[-1].bias[8:] = 30.0
    noisy = sigma * torch.randn(2, 1, 64).clamp(-1.5, 1.5)
    denoised = precondition.v(network, None, 0.3)(noisy, torch.full((2,), sigma))
    assert denoised.abs().max() < 1e-5 * sigma
    network.last[-1].bias[8:] = -30.0
    shut = precondition.v(network, None, 0.3)(noisy, torch.full((2,), sigma))
    torch.testing.assert_close(shut, noisy * 0.09 / (0.09 + sigma**2))


@torch.no_grad()
def test_patches_become_bands_and_back():
    network = UNet1d(RELATIVE)
    torch.testing.assert_close(network.bands @ network.bands.T, torch.eye(8), atol=1e-6, rtol=0)
    slope = torch.arange(8.0) - 3.5
    assert (network.bands @ slope)[0].abs() < 1e-5  # the first band is the mean


@torch.no_grad()
def test_labels_matter_and_none_is_label_zero():
    config = RELATIVE.model_copy(update={"labels": (5, 2)})
    network = awake(config)
    x, time = torch.randn(2, 1, 64), torch.tensor([0.3, 0.6])
    none = network(x, time)
    assert torch.equal(none, network(x, time, torch.zeros(2, 2, dtype=torch.long)))
    kind = network(x, time, torch.tensor([[3, 0], [0, 1]]))
    assert (kind - none).abs().amax(dim=(1, 2)).min() > 1e-4


def test_labels_and_a_signal_are_not_both_conditions():
    with pytest.raises(ValueError, match="not both"):
        Config(labels=(3,), condition_channels=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kernel": 4}, "give an odd and an even number"),
        ({"embedding": 9}, "give an odd and an even number"),
        ({"widths": (32, 36)}, "widths are .32, 36.: give one or more multiples of 8"),
        ({"widths": ()}, "multiples of 8"),
        ({"widths": (0, 8)}, "multiples of 8"),
        ({"attention_heads": 5}, "give a divisor of 192"),
        ({"factor": 1}, "factor"),
        ({"patch": 0}, "patch"),
        ({"labels": (3, 0)}, "1 or more"),
    ],
)
def test_shapes_that_can_not_be_built_are_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        Config(**values)
