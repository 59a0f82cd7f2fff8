"""Transform, network and sampler of CQT-Diff+ against numbers that its published code computed.

`tests/golden/write_cqt.py` wrote them: a tiny network with random weights, and samples of the transform at both
published sizes.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.diffusion import guide, noise, sample
from sfumato.model import fill_network
from sfumato.networks.cqt_unet import Config, CQTUNet
from sfumato.signal.cqt import ConstantQ
from sfumato.systems import cqtdiff

GOLDEN = Path(__file__).parent.parent / "golden" / "cqt.npz"
N_SAMPLES, STEPS, FADE, GAP = 2048, 4, 20, (900, 1100)
PUBLISHED = {"22k": (7, 64, 22050, 184184), "44k": (8, 64, 44100, 184184)}


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return {
            key: torch.from_numpy(value.astype(np.float32) if value.dtype == np.float16 else value)
            for key, value in arrays.items()
        }


@pytest.fixture(scope="module")
def published(golden):
    return {key.removeprefix("weight/"): value for key, value in golden.items() if key.startswith("weight/")}


@pytest.fixture(scope="module")
def model(published):
    values, weights = cqtdiff.adopt(published)
    config = cqtdiff.Config.model_validate(
        {"network": {**values["network"], "sample_rate": 22050, "n_samples": N_SAMPLES}}
    )
    network = cqtdiff.build(config)
    fill_network(network, weights, GOLDEN)
    return network.requires_grad_(False), config


def relative(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


def test_the_transform_is_the_published_one(golden):
    transform = ConstantQ(3, 8, 22050, N_SAMPLES)
    octaves = transform(golden["x"][:1])
    assert len(octaves) == 3
    for i, octave in enumerate(octaves):
        assert relative(octave, golden[f"octave/{i}"]) < 1e-6
    turned = transform.inverse([1j * octave.flip(-1) for octave in octaves])
    assert relative(turned, golden["inverse"]) < 1e-6
    assert relative(transform.covered(golden["x"][:1]), golden["covered"]) < 1e-6


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_transform_is_the_published_one_at_published_sizes(golden, size):
    transform = ConstantQ(*PUBLISHED[size])
    n = transform.n_samples
    x = torch.from_numpy(np.cos(0.3 * (np.arange(n) % 1009) ** 2.0).astype(np.float32))[None]
    octaves = transform(x)
    for i, octave in enumerate(octaves):
        assert relative(octave[0, ::9, :: octave.shape[-1] // 8], golden[f"{size}/{i}"]) < 1e-5
    turned = transform.inverse([1j * octave.flip(-1) for octave in octaves])
    assert relative(turned[0, ::997], golden[f"{size}/inverse"]) < 1e-5
    assert relative(transform.covered(x)[0, ::997], golden[f"{size}/covered"]) < 1e-5


def test_a_checkpoint_tells_the_shape_of_its_network(model):
    assert model[1].network == Config(
        n_samples=N_SAMPLES,
        bins_per_octave=8,
        widths=(8, 8, 16),
        dilations=(1, 2, 2),
        attention=(False, False, True, True),
        heads=2,
        embedding=16,
    )


def test_the_network_is_the_published_one(golden, model):
    y = model[0](golden["x"][:, None], golden["c_noise"])
    assert golden["y"].std() > 0.1
    assert relative(y[:, 0], golden["y"]) < 1e-5


def test_every_weight_of_the_network_matters_to_that_test(golden, model):
    """Any weight of the golden network that were ignored, or put in another's place, would go unnoticed otherwise."""
    network = model[0]
    x, c_noise = golden["x"][:1, None], golden["c_noise"][:1]
    with torch.enable_grad():
        parameters = {name: value.clone().requires_grad_(True) for name, value in network.named_parameters()}
        y = torch.func.functional_call(network, parameters, (x, c_noise))
        y.square().sum().backward()
    for name, value in parameters.items():
        assert value.grad.norm() * value.norm() > 1e-4 * y.square().sum(), name


def with_constant(denoise, measure, observed, strength):
    """Reconstruction guidance as the published code has it: one item, 1e-6 beside the gradient's norm."""

    def guided(x, sigma):
        leaf = x.detach().requires_grad_(True)
        denoised = denoise(leaf, sigma)
        (gradient,) = torch.autograd.grad(torch.linalg.norm(observed - measure(denoised)), leaf)
        step = sigma[0] * strength / (gradient.norm() / x.numel() ** 0.5 + 1e-6)
        return denoised.detach() - step * gradient

    return guided


@pytest.mark.parametrize(("guidance", "tolerance"), [(with_constant, 1e-5), (guide.posterior, 2e-3)])
def test_an_inpainting_goes_as_the_published_one(golden, model, monkeypatch, guidance, tolerance):
    """The same start and the same noise along the way: the same fill, but for that constant, before it is pasted."""
    network, config = model
    draws = golden["noise"]
    monkeypatch.setattr(noise, "walk", lambda shape, *, seed, items: lambda step: draws[step][None])
    monkeypatch.setattr(guide, "posterior", guidance)
    known = torch.ones(N_SAMPLES, dtype=torch.bool)
    known[slice(*GAP)] = False
    sampling = cqtdiff.Sampling(steps=STEPS, fade=FADE)
    for step in cqtdiff.draw(network, config, golden["clip"][None], known, sampling, seed=0, items=[0]):
        drawn = step.x[:, 0]
    assert relative(drawn[:, slice(*GAP)], golden["filled"][:, slice(*GAP)]) < tolerance
    assert relative(drawn, golden["filled"]) < tolerance


def test_churn_is_spread_over_the_steps_and_one_more(model, monkeypatch):
    """As in the published sampler, whose grid has one step more; few steps, as above, churn as much as can be."""
    network, config = model
    given = []

    def heun(denoise, x, sigmas, noise, churn):
        given.append(churn / (len(sigmas) - 1))
        yield sample.Step(0, float(sigmas[0]), x, x)

    monkeypatch.setattr(sample, "heun", heun)
    known = torch.ones(N_SAMPLES, dtype=torch.bool)
    known[slice(*GAP)] = False
    sampling = cqtdiff.Sampling(steps=30, fade=FADE, churn=10.0)
    list(cqtdiff.draw(network, config, torch.zeros(1, N_SAMPLES), known, sampling, seed=0, items=[0]))
    assert given == [pytest.approx(10 / 31)]


def test_the_published_configurations_have_the_published_sizes():
    counts = {}
    for name, config in cqtdiff.PUBLISHED.items():
        with torch.device("meta"):
            counts[name] = sum(value.numel() for value in CQTUNet(config.network).state_dict().values())
    assert round(counts["maestro_22k_8s"] / 1e6, 1) == 186.3
    assert counts["musicnet_44k_4s"] > counts["maestro_22k_8s"]
