"""The noise behind a result depends on (seed, item, step) alone."""

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.diffusion import noise
from sfumato.errors import InputError

WORDS = st.integers(0, 2**64 - 1)
KEYS = st.tuples(WORDS, WORDS, WORDS)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=5), WORDS, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_an_items_noise_knows_nothing_of_its_batch_or_of_order(seed, items, step, random):
    batch = noise.walk((2, 3), seed=seed, items=items)(step)
    order = list(range(len(items)))
    random.shuffle(order)
    for i in order:
        assert torch.equal(batch[i], noise.normal((2, 3), seed=seed, item=items[i], step=step))
    shuffled = noise.walk((2, 3), seed=seed, items=[items[i] for i in order])(step)
    assert torch.equal(shuffled, batch[order])


@given(KEYS, KEYS)
@settings(max_examples=100)
def test_noise_differs_by_seed_item_and_step(one, other):
    def draw(key):
        return noise.normal((8,), seed=key[0], item=key[1], step=key[2])

    assert torch.equal(draw(one), draw(other)) == (one == other)


def test_neighbouring_streams_share_no_numbers_and_do_not_correlate():
    """A long draw never runs into the next step's stream; 4.5 standard errors of 0 correlation."""
    n = 50_000
    draws = [
        noise.normal((n,), seed=seed, item=item, step=step)
        for seed, item, step in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1)]
    ]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert float(correlation.abs().max()) < 4.5 / n**0.5
    assert len(set(draws[0].tolist()) & set(draws[1].tolist())) < 0.05 * n


def test_numbers_have_the_distribution_they_claim():
    z = noise.normal((100_000,), seed=7, item=1, step=2)
    u = noise.uniform((100_000,), seed=7, item=1, step=2)
    assert z.dtype == torch.float32
    assert scipy.stats.kstest(z.numpy(), "norm").pvalue > 0.01
    assert scipy.stats.kstest(u.numpy(), "uniform").pvalue > 0.01
    assert abs(float(torch.corrcoef(torch.stack([z.double(), u]))[0, 1])) < 4.5 / 100_000**0.5
    assert 0 < float(u.min()) < float(u.max()) < 1


def test_the_streams_themselves_are_a_promise():
    """Stored results name a seed: these numbers must be the same in every version and on every machine."""
    z = noise.normal((4,), seed=1, item=2, step=3)
    assert z.tolist() == pytest.approx([-1.793929577, -0.147456229, 2.251194954, 0.513256609], abs=1e-7)
    assert noise.uniform((2,), seed=1, item=2, step=3).tolist() == pytest.approx(
        [0.6844765152749289, 0.0721188140161183], abs=1e-15
    )


@pytest.mark.parametrize("key", [{"seed": -1}, {"item": 2**64}, {"step": -5}])
def test_a_key_outside_64_bits_is_an_input_error(key):
    with pytest.raises(InputError, match=f"{next(iter(key))} -?\\d+ is outside"):
        noise.normal((2,), **{"seed": 0, "item": 0, "step": 0, **key})


@pytest.mark.parametrize("first", [0, 48, 2**40])
def test_stratified_numbers_visit_each_part_of_the_interval_once(first):
    drawn = noise.BatchNoise(seed=3, first=first, n_items=16).stratified(0)
    assert sorted(((drawn - drawn.min() + 1e-9) * 16).floor().tolist()) == list(range(16))


def test_stratified_numbers_belong_to_their_item_seed_and_tag():
    whole = noise.BatchNoise(seed=3, first=8, n_items=8).stratified(0)
    halves = [noise.BatchNoise(seed=3, first=first, n_items=4).stratified(0) for first in (8, 12)]
    assert torch.equal(whole, torch.cat(halves))
    assert not torch.equal(whole, noise.BatchNoise(seed=4, first=8, n_items=8).stratified(0))
    assert not torch.equal(whole, noise.BatchNoise(seed=3, first=8, n_items=8).stratified(1))


def test_stratified_numbers_are_the_first_dimension_of_sobol_s_sequence_shifted():
    found = noise.BatchNoise(seed=0, first=0, n_items=64).stratified(0)
    theirs = torch.quasirandom.SobolEngine(1).draw(64)[:, 0].double()  # in the order of Gray's code
    shifted = (found - found[0]) % 1.0
    torch.testing.assert_close(shifted.sort().values, theirs.sort().values, atol=1e-12, rtol=0)
    expected = torch.tensor([0.0, 0.5, 0.25, 0.75], dtype=torch.float64)
    torch.testing.assert_close(shifted[:4], expected, atol=1e-12, rtol=0)
