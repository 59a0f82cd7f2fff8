"""Low-rank adapters: nothing at first, of small rank afterwards, and the same network once they are merged."""

import copy

import pytest
import torch
from torch import nn

from sfumato.networks import band_unet, lora
from sfumato.wanted import Wanted

CONFIG = band_unet.Config(bands=((4, 2), (2, 8)), widths=(16, 32), attending=1, head=16, embedding=16, words=24)
RANK = 2


def network(seed=0):
    """A band network none of whose weights is 0, float64."""
    torch.manual_seed(seed)
    made = band_unet.BandUNet(CONFIG).double().eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return made


def trained(base, seed=1):
    """Adapters that say something."""
    adapted = lora.adapt(base, RANK, 3.0).double()
    torch.manual_seed(seed)
    with torch.no_grad():
        for factor in adapted.parameters():
            factor.copy_(0.3 * torch.randn_like(factor))
    return adapted


def inputs(items=2):
    torch.manual_seed(5)
    words = Wanted(
        torch.randn(items, 24).double(),
        torch.randn(items, 3, 24).double(),
        torch.tensor([[True, True, False]] * items),
        torch.tensor([0.0, 90.0]).double()[:items],
        torch.tensor([0, 5])[:items],
    )
    return torch.randn(items, 2, CONFIG.n_bins, 8).double(), torch.rand(items).double(), words


def test_new_adapters_change_nothing():
    base = network()
    expected = base(*inputs())
    assert torch.equal(lora.adapt(base, RANK, 3.0).double()(*inputs()), expected)
    assert torch.equal(base(*inputs()), expected)


def test_the_merged_network_is_the_adapted_one():
    base = network()
    before = copy.deepcopy(base.state_dict())
    adapted = trained(base)
    plain, merged = base(*inputs()), lora.merge(adapted)
    assert type(merged) is band_unet.BandUNet
    assert merged.state_dict().keys() == before.keys()
    torch.testing.assert_close(merged(*inputs()), adapted(*inputs()), rtol=0, atol=1e-10)
    assert float((merged(*inputs()) - plain).abs().max()) > 0.1
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def as_maps(weight):
    """A weight as matrices, whatever kind it is."""
    return weight if weight.ndim == 3 else weight.flatten(1)[None]


def test_changes_have_the_rank_and_lie_where_they_should():
    base = network()
    merged = lora.merge(trained(base)).state_dict()
    changed = set()
    for name, weight in base.state_dict().items():
        difference = as_maps(merged[name] - weight) if weight.ndim > 1 else merged[name] - weight
        if not bool(difference.any()):
            continue
        changed.add(name)
        values = torch.linalg.svdvals(difference)
        allowed = min(RANK, max(1, min(difference.shape[1:]) // 8))
        assert bool((values[:, allowed - 1] > 1e-6).all()), name
        assert bool((values[:, allowed:] < 1e-9).all()), name
    kinds = (nn.Linear, nn.Conv2d)
    layers = {f"{place}.weight" for place, module in base.named_modules() if isinstance(module, kinds)}
    matrices = {name for name, weight in base.named_parameters() if weight.ndim == 3 and name != "nothing"}
    assert changed == layers | matrices
    assert matrices >= {f"{part}.{i}" for part in ("into", "out") for i in range(len(CONFIG.bands))}
    assert {"up.1.attention.qkv.weight", "down.0.block.conv1.weight"} <= changed


def test_band_matrices_are_changed_row_by_row():
    """A row's change is the product of its own factors: setting one row's to 0 changes that row alone."""
    base = network()
    adapted = trained(base)
    with torch.no_grad():
        adapted.up["into/0"][1] = 0.0
    merged = lora.merge(adapted)
    same = [torch.equal(merged.into[0][row], base.into[0][row]) for row in range(4)]
    assert same == [False, True, False, False]


def test_the_change_of_a_linear_layer_is_the_published_one():
    layer = nn.Sequential(nn.Linear(24, 16, bias=False))
    adapted = lora.adapt(layer, 2, 5.0)
    with torch.no_grad():
        adapted.up["0/weight"].normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 24, generator=torch.Generator().manual_seed(1))
    a, b = adapted.down["0/weight"], adapted.up["0/weight"]
    assert (a.shape, b.shape) == ((2, 24), (16, 2))
    torch.testing.assert_close(adapted(x), x @ layer[0].weight.T + 5.0 / 2 * ((x @ a.T) @ b.T))


def test_only_factors_are_trained():
    base = network()
    adapted = lora.adapt(base, RANK, 3.0).double()
    names = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert len(names) == len(list(adapted.parameters())) == 2 * len(lora.adaptable(base))
    assert all(name.startswith(("up.", "down.")) for name in names)
    assert set(adapted.state_dict()) == set(names)
    adapted(*inputs()).square().mean().backward()
    assert all(weight.grad is None for weight in base.parameters())
    # the factor that is 0 gets a gradient, so that training can begin; the other one can't have one yet
    grown = {name for name, weight in adapted.named_parameters() if bool(weight.grad.any())}
    assert grown == {f"up.{name.replace('.', '/')}" for name, rows in lora.adaptable(base).items() if not rows} | {
        f"down.{name.replace('.', '/')}" for name, rows in lora.adaptable(base).items() if rows
    }


def test_factors_alone_make_the_network_again():
    base, other = network(), network()
    adapted = trained(base)
    state = {name: value.clone() for name, value in lora.low_rank_state(adapted).items()}
    again = lora.adapt_as(other, state, 1.5)  # alpha 3 over rank 2
    torch.testing.assert_close(again.double()(*inputs()), adapted(*inputs()), rtol=0, atol=1e-5)
    with pytest.raises(KeyError, match="noise"):
        lora.adapt_as(other, {name: value for name, value in state.items() if name != "noise.weight.up"}, 1.5)
    with pytest.raises(KeyError, match="elsewhere"):
        lora.adapt_as(other, state | {"elsewhere.up": torch.zeros(2, 1)}, 1.5)
    with pytest.raises(RuntimeError, match="shape"):
        lora.adapt_as(other, state | {"noise.weight.up": torch.zeros(3, 2)}, 1.5)


def test_a_copy_and_a_conversion_take_the_frozen_network_along():
    base = network()
    adapted = trained(base)
    copied = copy.deepcopy(adapted)
    assert torch.equal(copied(*inputs()), adapted(*inputs()))
    assert copied.network is not base
    copied.float()
    assert copied.network.noise.weight.dtype == torch.float32
    assert base.noise.weight.dtype == torch.float64
