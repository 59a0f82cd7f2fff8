"""What an edit of a time-frequency region promises: its samples, its bins, and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfiltfilt
from scipy.signal import stft as scipy_stft

from sfumato.errors import InputError
from sfumato.tasks import fill as fills
from sfumato.tasks import regions
from sfumato.tasks.regions import Box, Grid, Region
from sfumato.tasks.windows import Clip

RATE = 16000


def noise(seconds: float, channels: int = 1, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((channels, round(seconds * RATE)))


def test_regions_are_read_as_they_are_typed() -> None:
    region = regions.parse("1.2:1.7:300:2000")
    assert region == Region(1.2, 1.7, 300.0, 2000.0) and str(region) == "1.2:1.7:300:2000"
    assert regions.check([region], 44100, 44100 * 3) == [Box(52920, 74970, 300.0, 2000.0)]
    assert regions.check([regions.parse("1:2:0:1e9")], RATE, RATE * 3) == [Box(RATE, 2 * RATE, 0.0, np.inf)]


@pytest.mark.parametrize("text", ["", "1:2", "1:2:3:x", "1:2:3:4:5", "a"])
def test_what_is_no_region_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"start:stop:f_low:f_high"):
        regions.parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2:1:0:100", "empty"),
        ("1:1:0:100", "empty"),
        ("1:2:500:400", "empty"),
        ("1:2:-5:400", "not inside"),
        ("2.5:3.5:0:400", "not inside"),
        ("1:2:9000:9500", "not inside"),
        ("nan:2:0:400", "not four numbers"),
        ("1:inf:0:400", "not four numbers"),
        ("0:2.9:0:400", "up to 2 s"),
        ("1:1.01:300:600", "no sound fits"),
        ("1:2:300:400", "100 Hz high"),
        ("1:2:7950:9000", "50 Hz high"),
    ],
)
def test_impossible_regions_are_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        regions.check([regions.parse(text)], RATE, 3 * RATE)


def test_overlapping_boxes_are_filled_together_and_may_not_chain_forever() -> None:
    boxes = [Box(0, 10, 0, 5), Box(20, 30, 0, 5), Box(5, 20, 8, 9)]
    assert [[(b.start, b.stop) for b in group] for group in regions.group(boxes, RATE)] == [
        [(0, 10), (5, 20)],
        [(20, 30)],
    ]
    chain = [Box(i * RATE, (i + 2) * RATE, 100, 900) for i in range(3)]
    with pytest.raises(InputError, match="together up to 2 s"):
        regions.group(chain, RATE)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000])
def test_the_transform_is_inverted_to_rounding(rate: int) -> None:
    hop = regions.uasrm.hop_length(rate)
    grid = Grid(3 * hop, 40 * hop, rate)
    x = np.random.default_rng(0).standard_normal((2, 37 * hop))
    error = np.abs(grid.backward(grid.forward(x)) - x).max()
    assert 20 * np.log10(error) < -280


@settings(max_examples=25)
@given(
    start=st.integers(5000, 9000),
    length=st.integers(100, 9000),
    low=st.floats(0, 7000),
    width=st.floats(50, 9000),
)
def test_a_known_bin_is_one_that_no_sample_of_the_box_reaches(
    start: int, length: int, low: float, width: float
) -> None:
    """Against scipy's transform: noise put between the times changes exactly the frames that are not known."""
    box = Box(start, start + length, low, low + width)
    hop = regions.uasrm.hop_length(RATE)
    grid = Grid(0, 128 * hop, RATE)
    x = np.zeros(128 * hop)
    x[start : start + length] = 1.0 + np.random.default_rng(length).random(length)
    frequency, _, bins = scipy_stft(x, RATE, "hann", 4 * hop, 3 * hop, padded=False)
    reached = np.abs(bins).max(axis=0) > 1e-12
    known = grid.known([box])
    inside = (frequency >= low) & (frequency <= low + width)
    np.testing.assert_array_equal(~known, np.outer(inside, reached[: known.shape[1]]))


@pytest.mark.parametrize(
    ("seconds", "low", "high", "fraction", "leak"),
    [
        (0.5, 300, 2000, 0.06, -50),
        (0.1, 300, 2000, 0.08, -48),
        (0.5, 0, 1000, 0.06, -50),
        (0.1, 1000, 1400, 0.4, -40),
        (0.1, 1000, 1200, 0.6, -38),
    ],
)
def test_a_confined_edit_stays_in_its_bins_and_is_near_the_wanted_one(
    seconds: float, low: float, high: float, fraction: float, leak: float
) -> None:
    """The leak is as low as stated; the share of the wanted bins' energy that is lost is that of the fading sides."""
    boxes = [Box(8000, 8000 + round(seconds * RATE), low, high)]
    edit = noise(seconds)
    d = regions.confine(edit, boxes, RATE)
    assert regions.leak_db(d, boxes, RATE) < leak
    grid = regions.grid_around(boxes, RATE)
    own = slice(8000 - grid.start, 8000 - grid.start + edit.shape[1])
    whole = np.zeros((2, grid.stop - grid.start))
    whole[0, own], whole[1, own] = edit[0], d[0]
    touched = ~grid.known(boxes)
    wanted, got = grid.forward(whole).numpy()[:, touched]
    assert np.sum(np.abs(got - wanted) ** 2) < fraction * np.sum(np.abs(wanted) ** 2)


def test_a_tone_in_the_box_is_wholly_replaced_and_one_beside_it_wholly_kept() -> None:
    """With frequencies as the ear has them, not as bins: a whistle at 1 kHz goes, a burst of noise at 3 kHz stays."""
    t = np.arange(3 * RATE) / RATE
    kept = butter(8, (2500, 6000), "bandpass", fs=RATE, output="sos")
    kept = sosfiltfilt(kept, 0.2 * np.random.default_rng(1).standard_normal(len(t)) * (np.abs(t - 1.3) < 0.1))
    whistle = np.where((t > 1.1) & (t < 1.4), np.sin(2 * np.pi * 1000 * t) * np.sin(np.pi * (t - 1.1) / 0.3) ** 2, 0.0)
    random = noise(3.0)[0] * 0.01
    source = Clip((kept + whistle + random)[None], RATE)
    boxes = regions.check([Region(1.0, 1.5, 600, 1400)], RATE, 3 * RATE)
    draws = regions.fill_boxes(source, boxes, [], lambda window: fills.fill_janssen(window, 1, 0, None))
    wanted = (kept + random)[RATE : RATE * 3 // 2]
    assert 10 * np.log10(np.mean((draws[0, 0] - wanted) ** 2) / np.mean(whistle**2)) < -30


@pytest.mark.parametrize("band", [(300.0, 2000.0), (0.0, np.inf)])
@pytest.mark.parametrize("method", ["ar", "janssen", "extrapolate"])
def test_every_classical_method_fills_boxes(method: str, band: tuple[float, float]) -> None:
    audio = noise(2.0, channels=2)
    boxes = [Box(14000, 16000, *band)]
    draws = regions.fill_boxes(Clip(audio, RATE), boxes, [], lambda w: fills.CLASSICAL[method](w, 2, 0, None))
    assert draws.shape[1:] == (2, 2000) and np.isfinite(draws).all()
    edit = draws - audio[:, 14000:16000]
    assert np.abs(edit).max() > 1e-3
    if band[1] == 2000.0:
        assert regions.leak_db(edit, boxes, RATE) < -45


def test_a_box_of_all_bins_is_a_gap() -> None:
    from sfumato.tasks.windows import fill_group

    audio = noise(2.0)
    audio[0, 14500] = np.nan

    def fill(window: fills.Window) -> fills.Fill:
        return fills.fill_janssen(window, 1, 0, None)

    as_box = regions.fill_boxes(Clip(audio, RATE), [Box(14000, 16000)], [], fill)
    as_gap = fill_group(Clip(audio, RATE), [(14000, 16000)], [(14000, 16000)], fill).draws
    np.testing.assert_allclose(as_box, as_gap, atol=1e-12)
    with pytest.raises(InputError, match="not finite"):
        regions.fill_boxes(Clip(audio, RATE), [Box(14000, 16000, 300, 2000)], [], fill)
