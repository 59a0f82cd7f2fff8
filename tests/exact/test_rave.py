"""RAVE's losses against closed forms, its two phases, and the analysis of its latent space."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from sfumato import preset
from sfumato.diffusion.noise import BatchNoise
from sfumato.metrics.multiscale_spectral import multiscale_spectral
from sfumato.systems import rave

TINY = preset.load("rave-tiny").config


def noise(step=0, size=2):
    return BatchNoise(0, step * size, size, "cpu", step)


def sound(size=2, config=TINY):
    return {"clean": 0.1 * torch.randn(size, 1, config.n_samples, generator=torch.Generator().manual_seed(0))}


def network(config=TINY):
    torch.manual_seed(0)
    return rave.build(config)


def test_spectral_distance_of_a_change_of_level():
    x = torch.randn(3, 1, 8192, generator=torch.Generator().manual_seed(1))
    assert multiscale_spectral(x, x) == 0
    halved = multiscale_spectral(x, 0.5 * x)  # convergence 1/2, logarithms ln 2, but for the floor
    assert abs(float(halved) - (0.5 + math.log(2))) < 2e-3


def test_a_silent_reference_costs_no_more_than_a_quiet_one():
    noise_ = torch.randn(2, 1, 32768, generator=torch.Generator().manual_seed(1))
    made = 10 ** (-50 / 20) * noise_[:1]
    silent, quiet = (float(multiscale_spectral(10 ** (level / 20) * noise_[1:], made)) for level in (-200, -70))
    assert quiet < silent < 5 * quiet
    assert 5 < silent < 25
    louder = [10 ** (level / 20) * noise_[1:] for level in (-40, -20)]  # far above the floor, only ratios count
    a, b = (float(multiscale_spectral(x, 0.5 * x)) for x in louder)
    assert abs(a - b) < 2e-2


def test_silence_has_a_finite_gradient():
    x = torch.zeros(1, 1, 4096, requires_grad=True)
    multiscale_spectral(torch.randn(1, 1, 4096, generator=torch.Generator().manual_seed(1)), x).backward()
    assert torch.isfinite(x.grad).all()


def test_prior_is_the_divergence_from_a_standard_normal():
    net, batch = network(), sound()
    losses = rave.loss(net, batch, TINY, noise(), "codec")
    bands, _ = net.codec.bank.analyse(batch["clean"], net.codec.bank.init(2))
    mean, spread = net.codec.posterior(net.codec.encoder(bands)[0])
    wanted = kl_divergence(Normal(mean, spread), Normal(torch.zeros(()), torch.ones(()))).sum(dim=1).mean()
    torch.testing.assert_close(losses["prior"], wanted)


def test_the_prior_warms_up():
    net, batch = network(), sound()
    warm = TINY.model_copy(update={"prior_weight": 1.0, "prior_warmup": 100, "adversarial_from": 1000})
    for step, rise in ((0, 1e-4), (50, 1e-2), (100, 1.0), (500, 1.0)):
        losses = rave.loss(net, batch, warm, noise(step), "codec")
        rest = losses["total"] - losses["spectral"] - losses["bands"]
        torch.testing.assert_close(rest, rise * losses["prior"], rtol=1e-3, atol=1e-5)


def test_phase_one_leaves_the_judges_alone():
    assert rave.loss(network(), sound(), TINY, noise(0), "discriminator") == {}


def test_phase_two_trains_the_decoder_but_not_the_encoder():
    net = network()
    losses = rave.loss(net, sound(), TINY, noise(TINY.adversarial_from), "codec")
    losses["total"].backward()
    assert all(p.grad is None for p in net.codec.encoder.parameters())
    assert all(p.grad.abs().sum() > 0 for p in net.codec.decoder.parameters())
    net.zero_grad()
    rave.loss(net, sound(), TINY, noise(TINY.adversarial_from), "discriminator")["total"].backward()
    assert all(p.grad is None for p in net.codec.parameters())
    assert any(p.grad.abs().sum() > 0 for p in net.discriminator.parameters())


def test_phase_two_leaves_the_codebooks_alone():
    config = TINY.model_copy(update={"bottleneck": "discrete", "codebook_size": 4, "n_codebooks": 2})
    net = network(config).train()
    rave.loss(net, sound(config=config), config, noise(), "codec")  # the first batch is where codebooks start from
    for step, moves in ((0, True), (config.adversarial_from, False)):
        before = {name: value.clone() for name, value in net.codec.quantiser.state_dict().items()}
        for turn in rave.TURNS:
            rave.loss(net, sound(config=config), config, noise(step), turn)
        after = net.codec.quantiser.state_dict()
        assert any(not torch.equal(value, after[name]) for name, value in before.items()) == moves


@pytest.mark.parametrize("name", [name for name in preset.names() if preset.load(name).preset.system == "rave"])
def test_every_preset_reaches_its_second_phase(name):
    plan = preset.load(name)
    assert 0 < plan.config.adversarial_from < plan.preset.train.steps


def test_every_weight_counts_once():
    """Feature matching and the verdict enter the total with their weights, not their squares."""
    net, batch = network(), sound()
    config = TINY.model_copy(update={"matching_weight": 3.0, "adversarial_weight": 5.0})
    losses = rave.loss(net, batch, config, noise(config.adversarial_from), "codec")
    wanted = losses["spectral"] + losses["bands"] + 3.0 * losses["matching"] + 5.0 * losses["verdict"]
    torch.testing.assert_close(losses["total"], wanted)


def test_hinge_is_zero_for_judges_that_are_sure():
    genuine, forged = [(torch.full((2, 1, 4), 2.0), [])], [(torch.full((2, 1, 4), -2.0), [])]
    assert rave._verdicts(genuine, forged)["total"] == 0
    assert rave._verdicts(forged, genuine)["total"] == 6


def test_discrepancy_tells_distributions_apart():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 6, 128, generator=generator) for _ in range(2))
    same, shifted, wider = rave.discrepancy(a, b), rave.discrepancy(a, b + 1), rave.discrepancy(a, 2 * b)
    assert abs(float(same)) < 0.02
    assert min(float(shifted), float(wider)) > 0.1


@pytest.mark.parametrize("bottleneck", ["gaussian", "wasserstein", "spherical"])
def test_every_bottleneck_trains(bottleneck):
    config = TINY.model_copy(update={"bottleneck": bottleneck})
    net = network(config)
    losses = rave.loss(net, sound(), config, noise(), "codec")
    losses["total"].backward()
    assert torch.isfinite(losses["total"])
    assert net.codec.encoder.layers[0].conv.weight.grad.abs().sum() > 0


def test_spherical_frames_lie_on_a_sphere():
    config = TINY.model_copy(update={"bottleneck": "spherical"})
    mean, spread = network(config).codec.posterior(torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0)))
    assert spread is None
    torch.testing.assert_close(mean.square().sum(dim=1), torch.full((2, 5), 8.0))


def test_codes_stand_for_the_latent():
    config = TINY.model_copy(update={"bottleneck": "discrete", "n_codebooks": 3, "codebook_size": 8})
    net = network(config)
    losses = rave.loss(net, sound(), config, noise(), "codec")  # the first batch makes the codebooks
    assert torch.isfinite(losses["total"])
    net.eval()
    latent = torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(0))
    codes = net.codec.codes_of(latent)
    assert codes.shape == (2, 3, 20) and int(codes.max()) < 8
    errors = [float((net.codec.latent_of(codes[:, : n + 1]) - latent).square().mean()) for n in range(3)]
    assert errors[2] < errors[0]


def test_the_analysis_finds_the_principal_directions():
    net = network()
    batches = [sound(4)]
    shipped, config = rave.finish(net, TINY, batches)
    codec = shipped.codec
    assert config.judges is None and not hasattr(shipped, "discriminator")
    bands, _ = codec.bank.analyse(batches[0]["clean"], codec.bank.init(4))
    with torch.no_grad():
        mean, _ = codec.posterior(codec.encoder(bands)[0])
    frames = mean.transpose(1, 2).flatten(0, 1).double().numpy()
    covariance = np.cov(frames.T, bias=True)
    basis = codec.latent_basis.double().numpy()
    np.testing.assert_allclose(basis @ basis.T, np.eye(8), atol=1e-5)
    turned = basis @ covariance @ basis.T
    variances = np.diag(codec.latent_scale.double().numpy() ** 2)
    np.testing.assert_allclose(turned, variances, atol=1e-5 * turned.max() + 1e-9)
    assert (np.diff(codec.latent_scale.numpy()) <= 0).all()


@pytest.mark.parametrize("n_frames", [1, 2, 5])
def test_fewer_frames_than_dimensions_are_analysed_too(n_frames):
    hop = TINY.network.hop_length
    codec = rave.finish(network(), TINY, [{"clean": sound(n_frames)["clean"][..., :hop]}])[0].codec
    basis, scale = codec.latent_basis.double().numpy(), codec.latent_scale.numpy()
    np.testing.assert_allclose(basis @ basis.T, np.eye(8), atol=1e-5)
    assert (scale[: n_frames - 1] > 1e-5).all() and (scale[n_frames - 1 :] < 1e-7).all()


@pytest.mark.parametrize(("name", "millions"), [("rave-v2", 31.54), ("rave-v2-small", 7.60), ("rave-piano", 2.94)])
def test_presets_have_the_size_of_their_models(name, millions):
    config = preset.load(name).config
    with torch.device("meta"):
        codec = rave.Codec(config)
    weights = sum(p.numel() for part in (codec.encoder, codec.decoder) for p in part.parameters())
    assert round(weights / 1e6, 2) == millions
