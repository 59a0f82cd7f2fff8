"""The closed-form posterior of a gap against dense Gaussian conditioning, and estimators against known processes."""

import mpmath
import numpy as np
import pytest
from scipy.linalg import toeplitz
from scipy.signal import lfilter

from sfumato.signal import autoregressive as ar

COEFFICIENTS = np.array([1.0, -1.6, 0.9, -0.1])
N = 300


def process(n: int, seed: int) -> np.ndarray:
    return lfilter([1.0], COEFFICIENTS, np.random.default_rng(seed).standard_normal(n + 2000))[2000:]


def covariance() -> np.ndarray:
    impulse = np.zeros(4000)
    impulse[0] = 1.0
    response = lfilter([1.0], COEFFICIENTS, impulse)
    return toeplitz([response[: len(response) - k] @ response[k:] for k in range(N)])


GAPS = {
    "inside": [(100, 140)],
    "at the start": [(0, 30)],
    "at the end": [(260, 300)],
    "one sample": [(150, 151)],
    "several, both ends": [(0, 20), (22, 23), (150, 200), (299, 300)],
}


@pytest.mark.parametrize("gaps", GAPS.values(), ids=GAPS.keys())
def test_posterior_is_gaussian_conditioning(gaps: list[tuple[int, int]]) -> None:
    x, known, full = process(N, 1), np.ones(N, dtype=bool), covariance()
    for start, stop in gaps:
        known[start:stop] = False
    cross = full[np.ix_(~known, known)] @ np.linalg.inv(full[np.ix_(known, known)])
    fill = ar.posterior(x, known, COEFFICIENTS, 1.0)
    np.testing.assert_allclose(fill.mean, cross @ x[known], atol=1e-5)
    expected = full[np.ix_(~known, ~known)] - cross @ full[np.ix_(known, ~known)]
    np.testing.assert_allclose(fill.covariance(), expected, atol=1e-4)


def test_draws_have_the_posterior_mean_and_covariance() -> None:
    x, known = process(N, 2), np.ones(N, dtype=bool)
    known[100:108] = False
    fill = ar.posterior(x, known, COEFFICIENTS, 1.0)
    normal = np.random.default_rng(3).standard_normal((20000, 8))
    draws = np.stack([fill.draw(z) for z in normal])
    np.testing.assert_allclose(draws.mean(axis=0), fill.mean, atol=0.06)
    np.testing.assert_allclose(np.cov(draws.T), fill.covariance(), atol=0.05 * fill.covariance().max())
    np.testing.assert_allclose(fill.draw(normal[0]) + fill.draw(-normal[0]), 2 * fill.mean, atol=1e-9)


def test_missing_values_do_not_matter() -> None:
    x, known = process(N, 4), np.ones(N, dtype=bool)
    known[50:90] = False
    other = np.where(known, x, 1e3)
    a, b = (ar.posterior(signal, known, COEFFICIENTS, 1.0).mean for signal in (x, other))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("estimator", [ar.burg, ar.lpc])
def test_estimators_find_the_process(estimator: ar.Estimator) -> None:
    x = process(40000, 5)
    coefficients, variance = estimator([x[:15000], x[18000:]], 3)
    np.testing.assert_allclose(coefficients, COEFFICIENTS, atol=0.05)
    assert variance == pytest.approx(1.0, rel=0.03)


def test_burg_is_stable_and_silence_gives_no_model() -> None:
    tone = np.sin(0.3 * np.arange(600))
    coefficients, _ = ar.burg([tone[:250], tone[350:]], 40)
    assert np.abs(np.roots(coefficients)).max() <= 1.0 + 1e-6
    coefficients, variance = ar.burg([np.zeros(100)], 8)
    assert variance == 0.0
    np.testing.assert_array_equal(coefficients, np.eye(9)[0])


def test_fills_of_a_sum_of_sines() -> None:
    n = np.arange(3000)
    x = np.sin(0.05 * n) + 0.5 * np.sin(0.31 * n + 1.0) + 0.2 * np.sin(1.1 * n)
    x += 1e-4 * np.random.default_rng(6).standard_normal(3000)
    known = np.ones(3000, dtype=bool)
    known[1400:1600] = False
    for fill in (ar.janssen(x, known, 128), ar.extrapolate(x, known, 512)):
        np.testing.assert_array_equal(fill[known], x[known])
        error = np.linalg.norm((fill - x)[~known]) / np.linalg.norm(x[~known])
        assert 20 * np.log10(error) < -25


def test_janssen_lowers_the_residual_it_minimises() -> None:
    x, known = process(4000, 7), np.ones(4000, dtype=bool)
    known[2000:2100] = False
    filled = ar.janssen(x, known, 8)
    coefficients, _ = ar.burg([filled], 8)

    def residual(signal: np.ndarray) -> float:
        return float(np.sum(np.convolve(signal, coefficients, mode="valid") ** 2))

    best = residual(filled)
    bump = np.random.default_rng(8).standard_normal(100)
    for scale in (1e-2, 1e-1, 1.0):
        moved = filled.copy()
        moved[~known] += scale * bump
        assert residual(moved) > best


def test_extrapolation_at_an_edge_is_one_sided() -> None:
    x = np.sin(0.2 * np.arange(2000))
    known = np.ones(2000, dtype=bool)
    known[:50] = False
    np.testing.assert_allclose(ar.extrapolate(x, known, 64)[:50], x[:50], atol=0.05)


def test_strong_partials_over_a_low_floor_are_not_damped() -> None:
    """The posterior mean against the same least squares in 60 digits: a ridge would damp what is strongest."""
    poles = 0.99999 * np.exp(2j * np.pi * np.array([0.02, 0.05, 0.11]))
    a = np.real(np.poly(np.concatenate([poles, poles.conj()])))
    n, p = 120, len(a) - 1
    x = lfilter([1.0], a, 1e-6 * np.random.default_rng(0).standard_normal(40_000))[-n:]
    known = np.ones(n, dtype=bool)
    known[50:70] = False
    with mpmath.workdps(60):
        residuals, right = mpmath.zeros(n - p, 20), mpmath.zeros(n - p, 1)
        for i in range(n - p):
            for k in range(p + 1):
                at, weight = i + p - k, mpmath.mpf(float(a[k]))
                if known[at]:
                    right[i] -= weight * mpmath.mpf(float(x[at]))
                else:
                    residuals[i, at - 50] += weight
        wanted = np.array([float(value) for value in mpmath.lu_solve(residuals, right)])
    mean = ar.posterior(np.where(known, x, 0.0), known, a, 1e-12).mean
    np.testing.assert_allclose(mean, wanted, rtol=0, atol=1e-3 * np.abs(x).max())


def test_the_deviation_is_the_root_of_the_covariance_diagonal() -> None:
    x, known = process(N, 5), np.ones(N, dtype=bool)
    known[N // 3 : N // 2] = False
    fill = ar.posterior(x, known, COEFFICIENTS, 0.25)
    np.testing.assert_allclose(fill.deviation(), np.sqrt(np.diag(fill.covariance())), rtol=1e-8)
