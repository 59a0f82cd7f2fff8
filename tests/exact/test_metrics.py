"""Metrics against closed forms and independent computations."""

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import scipy.stats

from sfumato.errors import InputError
from sfumato.metrics.band_distance import band_distance_db, band_errors_db, band_matrix
from sfumato.metrics.bootstrap import bootstrap, reduction
from sfumato.metrics.frechet import frechet_distance, gaussian
from sfumato.metrics.high_band import high_band_bias_db
from sfumato.metrics.log_spectral_distance import log_spectral_distance_db
from sfumato.metrics.sdr import sdr_db
from sfumato.metrics.seam import seam

RATE = 44100
GAP = (20000, 33230)


def noise(seed: int, n_samples: int = 60000, channels: int = 2) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((channels, n_samples))


def refill(clip: np.ndarray, fill: np.ndarray, gap: tuple[int, int] = GAP) -> np.ndarray:
    out = clip.copy()
    out[:, gap[0] : gap[1]] = fill[:, gap[0] : gap[1]]
    return out


def band_distance_by_hand(reference: np.ndarray, fill: np.ndarray, gap: tuple[int, int], rate: float) -> float:
    """The written definition, frame by frame and bin by bin."""
    slices = [clip.mean(axis=0)[gap[0] - 1024 : gap[1] + 1024] for clip in (reference, fill)]
    edges = [60 * (0.45 * rate / 60) ** (i / 40) for i in range(41)]
    window = scipy.signal.get_window("hann", 2048)
    tables = []
    for x in slices:
        rows = []
        for at in range(0, len(x) - 2048 + 1, 512):
            power = np.abs(np.fft.fft(window * x[at : at + 2048])) ** 2
            sums: dict[int, float] = {}
            for k in range(1025):
                for band in range(40):
                    if edges[band] <= k * rate / 2048 < edges[band + 1]:
                        sums[band] = sums.get(band, 0.0) + power[k]
            rows.append([sums[band] for band in sorted(sums)])
        tables.append(np.array(rows))
    floor = tables[0].max() / 1e7
    difference = [10 * np.log10(np.maximum(table, floor)) for table in tables]
    return float(np.sqrt(np.mean((difference[0] - difference[1]) ** 2)))


@pytest.mark.parametrize("rate", [8000, 44100])
def test_band_distance_is_its_written_definition(rate):
    gap = (3000, 5500)
    sections = scipy.signal.butter(4, 0.1, output="sos")
    clip = scipy.signal.sosfilt(sections, noise(0, 9000))
    fill = refill(clip, noise(1, 9000), gap)
    assert band_distance_db(clip, fill, gap, rate) == pytest.approx(band_distance_by_hand(clip, fill, gap, rate))


def test_bands_are_forty_and_disjoint_at_high_rate_and_never_empty():
    bands = band_matrix(44100, 2048)
    assert (bands.sum(axis=0) <= 1).all()
    assert (bands.sum(axis=1) >= 1).all()
    frequencies = np.fft.rfftfreq(2048, 1 / 44100)
    used = frequencies[bands.any(axis=0)]
    assert used.min() >= 60
    assert used.max() < 0.45 * 44100


def test_gain_inside_a_long_gap_shows_as_bias_of_that_many_db():
    clip = noise(0)
    errors = band_errors_db(clip, refill(clip, 2 * clip), GAP, RATE)
    assert errors is not None
    # Frames 4 to -4 lie wholly in the gap.
    assert errors[4:-4] == pytest.approx(20 * np.log10(2))


def test_perfect_fill_has_no_distance():
    clip = noise(0)
    assert band_distance_db(clip, clip, GAP, RATE) == 0
    assert log_spectral_distance_db(clip, clip, GAP) == 0
    assert sdr_db(clip, clip, GAP) == pytest.approx(-20 * np.log10(np.finfo(float).eps), abs=1e-6)


def test_silence_scores_zero_sdr_and_at_most_the_floor():
    clip = noise(0)
    empty = refill(clip, np.zeros_like(clip))
    assert sdr_db(clip, empty, GAP) == 0
    assert 40 < band_distance_db(clip, empty, GAP, RATE) < 70


def test_sdr_of_known_error_pools_channels():
    clip = noise(0)
    fill = clip.copy()
    fill[0, GAP[0] : GAP[1]] *= 0.9
    power = (clip[:, GAP[0] : GAP[1]] ** 2).sum(axis=1)
    assert sdr_db(clip, fill, GAP) == pytest.approx(10 * np.log10(power.sum() / (0.01 * power[0])))


def test_sdr_sees_nothing_outside_the_gap():
    clip = noise(0)
    fill = refill(clip, 0.5 * clip)
    changed = fill.copy()
    changed[:, : GAP[0]] = changed[:, GAP[1] :] = 0
    assert sdr_db(clip, changed, GAP) == sdr_db(clip, fill, GAP)


def test_two_draws_of_white_noise_differ_by_the_logistic_law():
    # The log ratio of two independent exponentials is logistic with standard deviation π/√3 nepers (power).
    clip, other = noise(0, 200000, 1), noise(1, 200000, 1)
    gap = (4000, 196000)
    expected = 10 / np.log(10) * np.pi / np.sqrt(3)
    assert log_spectral_distance_db(clip, refill(clip, other, gap), gap) == pytest.approx(expected, rel=0.02)


def test_log_spectral_distance_floors_seventy_db_below_the_loudest_bin():
    n = np.arange(60000)
    tone = np.sin(2 * np.pi * 64 * n / 2048)[None]
    faint, fainter = (tone + level * noise(2, 60000, 1) for level in (1e-6, 1e-8))
    assert log_spectral_distance_db(tone, fainter, GAP) < 1e-6
    assert log_spectral_distance_db(tone, faint, GAP) < 1e-6
    assert log_spectral_distance_db(tone, tone + 0.3 * noise(2, 60000, 1), GAP) > 1


@pytest.mark.parametrize("metric", [lambda r, f, g: band_distance_db(r, f, g, RATE), sdr_db, log_spectral_distance_db])
def test_silent_reference_is_undefined_and_bad_input_is_refused(metric):
    clip = noise(0)
    assert np.isnan(metric(np.zeros_like(clip), clip, GAP))
    for gap in ((5, 5), (-1, 4), (10, 60001), (9, 3)):
        with pytest.raises(InputError, match="not inside the clip"):
            metric(clip, clip, gap)
    with pytest.raises(InputError, match="differ in shape"):
        metric(clip, clip[:1], GAP)
    with pytest.raises(InputError, match="NaN"):
        metric(clip, refill(clip, np.full_like(clip, np.nan)), GAP)


@pytest.mark.parametrize("gap", [(0, 500), (59000, 60000), (0, 60000)])
def test_gaps_at_the_ends_are_measured(gap):
    clip, other = noise(0), noise(1)
    assert 1 < band_distance_db(clip, refill(clip, other, gap), gap, RATE) < 12
    assert 3 < log_spectral_distance_db(clip, refill(clip, other, gap), gap) < 12


def test_frechet_of_diagonal_gaussians_is_the_sum_over_axes():
    rng = np.random.default_rng(0)
    mu1, mu2 = rng.standard_normal((2, 5))
    s1, s2 = rng.uniform(0.1, 2, (2, 5))
    expected = ((mu1 - mu2) ** 2 + (s1 - s2) ** 2).sum()
    assert frechet_distance(mu1, np.diag(s1**2), mu2, np.diag(s2**2)) == pytest.approx(expected)


def test_frechet_equals_the_matrix_square_root_formula_and_is_symmetric():
    rng = np.random.default_rng(1)
    (mu1, cov1), (mu2, cov2) = (gaussian(rng.standard_normal((50, 6)) @ rng.standard_normal((6, 6))) for _ in "ab")
    root = scipy.linalg.sqrtm(cov1 @ cov2).real
    expected = ((mu1 - mu2) ** 2).sum() + np.trace(cov1 + cov2 - 2 * root)
    assert frechet_distance(mu1, cov1, mu2, cov2) == pytest.approx(expected)
    assert frechet_distance(mu2, cov2, mu1, cov1) == pytest.approx(expected)


def test_frechet_works_with_fewer_embeddings_than_dimensions():
    rows = np.random.default_rng(2).standard_normal((5, 20))
    shifted = rows + 3.0
    assert frechet_distance(*gaussian(rows), *gaussian(rows)) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(*gaussian(rows), *gaussian(shifted)) == pytest.approx(20 * 9.0)


def test_gaussian_is_mean_and_unbiased_covariance():
    mean, covariance = gaussian(np.array([[0.0, 0.0], [2.0, 4.0]]))
    assert mean == pytest.approx([1, 2])
    assert covariance == pytest.approx(np.array([[2, 4], [4, 8]]))
    for bad in (np.zeros((1, 3)), np.zeros(3), np.array([[0.0], [np.nan]])):
        with pytest.raises(InputError):
            gaussian(bad)


def test_high_band_bias_is_the_gain_of_the_high_band_alone():
    clip = noise(3)
    low = scipy.signal.sosfiltfilt(scipy.signal.butter(8, 6000, fs=RATE, output="sos"), clip)
    high = scipy.signal.sosfiltfilt(scipy.signal.butter(8, 15000, "highpass", fs=RATE, output="sos"), clip)
    fill = refill(low + high, 3 * low + 0.5 * high)
    assert high_band_bias_db(low + high, fill, GAP, RATE) == pytest.approx(20 * np.log10(0.5), abs=0.1)


def test_high_band_of_dull_material_is_undefined_and_of_a_silent_fill_finite():
    clip = noise(3)
    dull = scipy.signal.sosfiltfilt(scipy.signal.butter(12, 4000, fs=RATE, output="sos"), clip)
    assert np.isnan(high_band_bias_db(dull, dull, GAP, RATE))
    assert np.isnan(high_band_bias_db(clip, clip, GAP, 22050))
    assert np.isnan(high_band_bias_db(np.zeros_like(clip), clip, GAP, RATE))
    silent = high_band_bias_db(clip, refill(clip, 0 * clip), GAP, RATE)
    assert silent == pytest.approx(-70 - 10 * np.log10(1 - 11000 / (RATE / 2)), abs=0.1)


def test_high_band_ignores_a_click_at_the_gaps_edge():
    clip = noise(3)
    clicked = clip.copy()
    clicked[:, GAP[0]] += 10.0
    assert high_band_bias_db(clip, clicked, GAP, RATE) == pytest.approx(0, abs=0.01)


def test_true_audio_has_uniform_seams():
    clip = scipy.signal.lfilter([1], [1, -0.9], noise(4, 120000))
    rng = np.random.default_rng(5)
    found = [seam(clip, clip, (int(i), int(i) + 5000), RATE, n_places=400) for i in rng.integers(3000, 110000, 40)]
    for name in ("jump", "spike", "step"):
        percentiles = np.array([getattr(one, name) for one in found])
        assert scipy.stats.kstest(percentiles / 100, "uniform").pvalue > 0.001
        assert percentiles.max() <= 100


def test_clicks_and_level_steps_are_found_at_either_edge():
    clip = scipy.signal.lfilter([1], [1, -0.97], noise(6, 200000))
    silent = seam(clip, refill(clip, 0 * clip), GAP, RATE)
    assert silent.step == 100
    for edge in (GAP[0], GAP[1] - 1):
        clicked = clip.copy()
        clicked[:, edge] += 3.0
        found = seam(clip, clicked, GAP, RATE)
        assert found.jump > 99.5
        assert found.spike > 99.5
    quieter = seam(clip, refill(clip, 0.2 * clip), GAP, RATE)
    assert quieter.step > 99


def test_seams_ignore_level_and_count_only_edges_inside():
    clip = noise(7, 100000)
    fill = refill(clip, noise(8, 100000))
    assert seam(1e-3 * clip, 1e-3 * fill, GAP, RATE) == seam(clip, fill, GAP, RATE)
    start = (0, 5000)
    assert 0 <= seam(clip, clip, start, RATE).jump <= 100
    assert np.isnan(seam(clip, clip, (0, 100000), RATE).step)


def test_bootstrap_of_independent_normal_means_has_the_closed_form_width():
    values = np.random.default_rng(0).standard_normal(400)
    found = bootstrap(values, range(400), n_resamples=2000)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.lower == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.upper == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_bootstrap_draws_whole_recordings():
    # Ten equal clips of each recording carry no more information than one.
    values = np.random.default_rng(1).standard_normal(30)
    once = bootstrap(values, range(30))
    ten_times = bootstrap(np.repeat(values, 10), np.repeat(np.arange(30), 10))
    assert ten_times.lower == pytest.approx(once.lower)
    assert ten_times.upper == pytest.approx(once.upper)


def test_bootstrap_keeps_pairs_together():
    first = np.random.default_rng(2).uniform(1, 100, 50)
    found = bootstrap(np.stack([0.8 * first, first], axis=1), range(50), reduction, n_resamples=200)
    assert (found.value, found.lower, found.upper) == pytest.approx((0.2, 0.2, 0.2))


def test_bootstrap_refuses_undefined_values_and_single_recordings():
    with pytest.raises(InputError, match="undefined"):
        bootstrap(np.array([1.0, np.nan]), "ab")
    with pytest.raises(InputError, match="at least 2"):
        bootstrap(np.array([1.0, 2.0]), "aa")
    with pytest.raises(InputError, match="recordings"):
        bootstrap(np.array([1.0, 2.0]), "abc")
