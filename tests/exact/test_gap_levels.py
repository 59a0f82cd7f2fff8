"""The picture of levels around a gap against what it must be by construction."""

import numpy as np

from sfumato.signal import gap_levels
from sfumato.signal.levels import N_BANDS, Grid

FRAMES = gap_levels.N_FRAMES


def levels(seed: int) -> np.ndarray:
    return -40 + 10 * np.random.default_rng(seed).standard_normal((N_BANDS, FRAMES))


def flags(start: int = 100, stop: int = 120) -> tuple[np.ndarray, np.ndarray]:
    touched = np.zeros(FRAMES, dtype=bool)
    touched[start:stop] = True
    return ~touched, touched


def test_a_picture_does_not_depend_on_loudness_or_colour() -> None:
    known, touched = flags()
    mean, draw = levels(0), levels(1)
    tilt = np.linspace(0, -20, N_BANDS)[:, None] + 3.0
    a = gap_levels.picture(mean, draw, known, touched)
    b = gap_levels.picture(mean + tilt, draw + tilt, known, touched)
    np.testing.assert_allclose(a.condition[:6], b.condition[:6], atol=1e-4)
    np.testing.assert_allclose(b.base_db - a.base_db, np.broadcast_to(tilt, a.base_db.shape), atol=1e-6)


def test_the_base_is_a_straight_line_between_the_edges() -> None:
    known, touched = flags()
    ramp = np.linspace(-60, -20, FRAMES)[None] + np.zeros((N_BANDS, 1))
    view = gap_levels.picture(np.where(known, ramp, -90), np.where(known, ramp, -90), known, touched)
    np.testing.assert_allclose(view.base_db, ramp, atol=0.3)
    np.testing.assert_allclose(gap_levels.target(ramp, view), 0.0, atol=0.03)


def test_nothing_of_the_truth_in_the_gap_reaches_the_network() -> None:
    known, touched = flags()
    mean, draw = levels(2), levels(3)
    view = gap_levels.picture(mean, draw, known, touched)
    assert (view.condition[0][:, touched] == 0).all()
    assert (view.condition[3:6][:, :, ~touched] == 0).all()


def test_a_target_restores_the_clean_levels() -> None:
    known, touched = flags()
    clean = levels(4)
    view = gap_levels.picture(np.where(known, clean, -60), np.where(known, clean, -50), known, touched)
    restored = view.base_db + gap_levels.SCALE_DB * gap_levels.target(clean, view)[0]
    np.testing.assert_allclose(restored[:, touched], clean[:, touched], atol=1e-4)


def test_frames_of_a_gap_and_of_a_recordings_edge() -> None:
    n = gap_levels.window_samples(44100)
    grid = Grid(n, 44100)
    assert grid.n_frames == FRAMES
    inside = np.ones(n, dtype=bool)
    inside[:30000] = False
    known = inside.copy()
    known[60000:70000] = False
    own = inside & ~known
    k, t = gap_levels.frames_of(known, inside, own, grid)
    assert not (k & t).any()
    assert not k[: 30000 // 512 + 1].any() and not t[: 30000 // 512 + 1].any()
    assert t[60000 // 512 + 3 : 70000 // 512 - 3].all()
