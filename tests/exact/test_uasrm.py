"""UASRM's network, pictures and loss against what they must be by construction."""

from itertools import pairwise

import librosa
import numpy as np
import pytest
import torch
from torch import nn

from sfumato import preset
from sfumato.diffusion.noise import BatchNoise
from sfumato.networks import uasrm_unet
from sfumato.networks.uasrm_unet import UasrmUNet
from sfumato.systems import uasrm

SHAPE = (uasrm.N_BINS, uasrm.N_FRAMES)
SEED = uasrm.Config()
HONEST = uasrm.Config(
    view="honest", network=uasrm_unet.Config(channels=5, widths=(8, 16), repaired=True, blocks=1, patch=(8, 8))
)
TWIN = uasrm_unet.Config(widths=(2, 4, 8, 16, 32, 64, 128))


def hole(start: int = 230, stop: int = 280, low: int = 0, high: int = SHAPE[0]) -> np.ndarray:
    missing = np.zeros(SHAPE, dtype=bool)
    missing[low:high, start:stop] = True
    return missing


def levels(seed: int) -> np.ndarray:
    return -40 + 8 * np.random.default_rng(seed).standard_normal(SHAPE)


def test_the_published_network_has_its_published_size() -> None:
    plan = preset.load("uasrm-faithful")
    assert isinstance(plan.config, uasrm.Config)
    with torch.device("meta"):
        network = uasrm.build(plan.config)
        out = network(torch.zeros(1, 1, *SHAPE))
    w = [1, 64, 128, 256, 512, 1024, 2048, 4096]
    pairs = 9 * sum(a * b for a, b in pairwise(w))
    count = 2 * pairs + sum(w[1:]) + sum(w[:-1]) + sum(9 * c * c + c for c in w[1:-1])
    assert sum(weight.numel() for weight in network.parameters()) == count == 251_614_145
    assert out.shape == (1, 1, *SHAPE)


def test_every_level_of_the_published_network_is_used_at_the_published_place() -> None:
    """An independent forward pass, written out, on a twin 1/32 as wide."""
    torch.manual_seed(0)
    network = UasrmUNet(TWIN)
    x = torch.randn(1, 1, 129, 65)
    conv, resize = nn.functional.conv2d, nn.functional.interpolate

    def replicate(h: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(h, (1, 1, 1, 1), mode="replicate")

    down = [x]
    for i, layer in enumerate(network.down):
        down.append(conv(replicate(down[-1]), layer.weight, layer.bias, stride=1 if i == 0 else 2))
    h = down[7]
    for level in range(5, -1, -1):
        up = nn.functional.conv_transpose2d(h, network.up[level].weight, network.up[level].bias, stride=2, padding=1)
        e = down[level + 1]
        skip = conv(replicate(e) if level >= 4 else e, network.skip[level].weight, network.skip[level].bias)
        h = up + resize(skip, size=up.shape[2:], mode="bilinear", align_corners=False)
    h = nn.functional.conv_transpose2d(h, network.last.weight, network.last.bias, stride=1, padding=1)
    assert h.shape == x.shape
    torch.testing.assert_close(network(x), h)


def test_a_twin_of_the_published_network_learns_in_the_published_view() -> None:
    """A few steps, as published: one picture, its hole at 0 dB, the error over all of it, the published optimizer."""
    config = uasrm.Config(network=TWIN, view="seed")
    known = np.ones(SHAPE, dtype=bool)
    known[:, 250:280] = False
    view = uasrm.picture(levels(0), known, ~known, config)
    batch = {key: torch.from_numpy(value)[None] for key, value in uasrm.example(levels(0), view, config).items()}
    torch.manual_seed(0)
    network = uasrm.build(config)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))
    totals = []
    for _ in range(6):
        total = uasrm.loss(network, batch, config, None, "repair")["total"]  # type: ignore[arg-type]
        optimizer.zero_grad()
        total.backward()
        assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in network.parameters())
        optimizer.step()
        totals.append(float(total.detach()))
    assert all(after < before for before, after in pairwise(totals))


def test_the_published_network_is_affine_and_the_repaired_one_is_not() -> None:
    torch.manual_seed(1)
    a, b = torch.randn(2, 1, 1, 65, 65).double()
    for config, affine in ((TWIN, True), (TWIN.model_copy(update={"widths": (8, 16, 24), "repaired": True}), False)):
        network = UasrmUNet(config).double()
        nn.init.normal_(network.last.weight)
        excess = network(a + b) - network(a) - network(b) + network(torch.zeros_like(a))
        assert (float(excess.detach().abs().max()) < 1e-9) is affine


@pytest.mark.parametrize("shape", [(64, 32), (72, 40), (8, 8)])
def test_the_repaired_network_keeps_every_size_its_patch_divides(shape: tuple[int, int]) -> None:
    assert UasrmUNet(HONEST.network)(torch.zeros(2, 5, *shape)).shape == (2, 1, *shape)


def test_folding_loses_nothing_and_keeps_neighbours() -> None:
    x = torch.arange(2 * 1 * 8 * 12.0).reshape(2, 1, 8, 12)
    folded = uasrm_unet._fold(x, 2, 3)
    assert torch.equal(folded[0, :, 1, 2], x[0, 0, 2:4, 6:9].reshape(-1))
    assert torch.equal(uasrm_unet._unfold(folded, 2, 3), x)


@pytest.mark.parametrize("config", [SEED, HONEST])
def test_nothing_that_is_not_known_reaches_the_network(config: uasrm.Config) -> None:
    missing = hole(low=100, high=300)
    outside = np.zeros(SHAPE, dtype=bool)
    outside[:, :40] = True
    clean = levels(0)
    spoilt = np.where(missing | outside, 500.0, clean)
    views = [uasrm.picture(x, ~missing & ~outside, missing, config) for x in (clean, spoilt)]
    np.testing.assert_array_equal(views[0].condition, views[1].condition)
    np.testing.assert_array_equal(views[0].base_db, views[1].base_db)


def test_the_seeds_picture_is_the_published_one() -> None:
    clean, missing = levels(1), hole(250, 272)
    view = uasrm.picture(clean, ~missing, missing, SEED)
    expected = librosa.amplitude_to_db(10 ** (clean / 20), ref=10 ** (clean[~missing].max() / 20), top_db=80.0)
    expected[missing] = 0.0
    np.testing.assert_allclose(view.condition[0], expected, atol=1e-4)


def test_an_honest_picture_does_not_depend_on_loudness_or_colour() -> None:
    missing = hole()
    tilt = np.linspace(3.0, -9.0, SHAPE[0])[:, None]
    clean = np.clip(levels(2), -60, -20)  # well within the range, so that nothing is floored
    a, b = (uasrm.picture(x, ~missing, missing, HONEST) for x in (clean, clean + tilt))
    np.testing.assert_allclose(a.condition[:3], b.condition[:3], atol=1e-5)
    np.testing.assert_allclose(b.base_db - a.base_db, np.broadcast_to(tilt, SHAPE), atol=1e-9)


def test_the_bridge_is_straight_and_flat_at_an_edge() -> None:
    missing = hole(200, 240, 0, 500) | hole(500, SHAPE[1], 600, 700)
    steps = np.where(np.arange(SHAPE[1]) < 220, -60.0, -20.0)[None] + np.zeros((SHAPE[0], 1))
    bridged = uasrm.bridge(np.where(missing, 99.0, steps), ~missing, missing)
    line = -60.0 + 40.0 * (np.arange(40) + 1) / 41
    np.testing.assert_allclose(bridged[:500, 200:240], np.broadcast_to(line, (500, 40)), atol=1e-6)
    np.testing.assert_allclose(bridged[600:700, 500:], -20.0, atol=1e-9)
    np.testing.assert_array_equal(bridged[~missing], steps[~missing])


class Constant(nn.Module):
    """A network that always says the same."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x[:, :1], self.value)


def test_honest_errors_count_in_the_holes_only_and_the_seeds_over_the_whole_picture() -> None:
    missing = hole(low=0, high=1024, start=100, stop=228)
    clean = np.full(SHAPE, -30.0)
    clean[0, 0] = 0.0
    for config, error in ((HONEST, 0.5), (SEED, 5.0)):
        view = uasrm.picture(clean, ~missing, missing, config)
        item = uasrm.example(clean, view, config)
        batch = {key: torch.from_numpy(value)[None] for key, value in item.items()}
        said = error if config.view == "honest" else -30.0 + error
        losses = uasrm.loss(Constant(said), batch, config, BatchNoise(0, 0, 1), "repair")
        expected = 0.25 if config.view == "honest" else 25.0 * missing.mean()
        assert float(losses["total"]) == pytest.approx(expected, rel=1e-4)
        assert float(losses["hole_db"]) == pytest.approx(5.0, rel=1e-4)


@pytest.mark.parametrize("config", [SEED, HONEST])
@pytest.mark.parametrize("n_bins", [513, 1025, 1200])
def test_a_perfect_network_gives_the_truth_back_at_any_rate(config: uasrm.Config, n_bins: int) -> None:
    random = np.random.default_rng(3)
    clean = -40 + 8 * random.standard_normal((n_bins, SHAPE[1]))
    missing = np.zeros(clean.shape, dtype=bool)
    missing[20:400, 200:300] = True
    view = uasrm.picture(clean, ~missing, missing, config)
    answer = torch.from_numpy(uasrm.example(clean, view, config)["clean"])[None]

    class Perfect(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[2:] == answer.shape[2:]
            return answer

    restored = uasrm.predict(Perfect(), config, [view])[0]
    np.testing.assert_allclose(restored, np.maximum(clean, clean[~missing].max() - 80), atol=1e-4)
