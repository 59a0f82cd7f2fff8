"""The calibration file: round trip, refusal of every other use, groups, and leakage."""

import hashlib

import numpy as np
import pytest

from sfumato.config import dump_yaml, load_yaml
from sfumato.errors import CalibrationError, InputError
from sfumato.interval.groups import Axis, merge, place
from sfumato.interval.record import Calibration, Group, check, disjoint, values_at


def sha(name):
    return hashlib.sha256(name.encode()).hexdigest()


GAP = Axis(name="gap_s", edges=(0.02, 0.1, 0.3))
FREQUENCY = Axis(name="frequency_hz", edges=(60, 1000, 8000))
VALUES = {
    "model": sha("model"),
    "made_with": {"method": "diffusion", "draws": 4},
    "domain": "band_level_db",
    "precision": "float32",
    "sample_rate_min": 22050,
    "sample_rate_max": 48000,
    "gap_min_s": 0.02,
    "gap_max_s": 0.3,
    "kind": "wsr",
    "level": 0.9,
    "delta": 0.1,
    "family": "scale",
    "floor": 0.5,
    "axes": (GAP, FREQUENCY),
    "groups": (
        Group(ranges=(0, 0), value=1.5, n_clips=40),
        Group(ranges=(0, 1), value=2.0, n_clips=40),
        Group(ranges=(1, 1), value=3.25, n_clips=30),
    ),
    "n_clips": 40,
    "recordings": {f"recording {i}": sha(str(i)) for i in range(40)},
    "seed": 7,
}
USE = {
    "model": sha("model"),
    "sample_rate": 44100,
    "domain": "band_level_db",
    "gap_s": 0.2,
    "precision": "float32",
    "made_with": {"method": "diffusion", "draws": 4},
}


@pytest.fixture(scope="module")
def calibration():
    return Calibration(**VALUES)


def test_a_record_comes_back_from_its_file(calibration, tmp_path):
    dump_yaml(calibration, tmp_path / "calibration.yaml")
    assert load_yaml(tmp_path / "calibration.yaml", Calibration) == calibration


def test_its_own_use_is_served(calibration):
    check(calibration, **USE)
    for edge in ({"gap_s": 0.02}, {"gap_s": 0.3}, {"sample_rate": 22050}, {"sample_rate": 48000}):
        check(calibration, **(USE | edge))


@pytest.mark.parametrize(
    ("other", "given", "possible"),
    [
        ({"model": sha("other")}, sha("other")[:12], sha("model")[:12]),
        ({"sample_rate": 96000}, "96000 Hz", "22050 to 48000 Hz"),
        ({"sample_rate": 8000}, "8000 Hz", "22050 to 48000 Hz"),
        ({"domain": "waveform"}, "waveform", "band_level_db"),
        ({"gap_s": 0.31}, "310 ms", "20 to 300 ms"),
        ({"gap_s": 0.0199}, "19.9 ms", "20 to 300 ms"),
        ({"gap_s": float("nan")}, "nan ms", "20 to 300 ms"),
        ({"precision": "bfloat16"}, "bfloat16", "float32"),
        ({"made_with": {"method": "diffusion", "draws": 1}}, "draws = 1", "4"),
        ({"made_with": {"method": "diffusion"}}, "draws = unset", "4"),
        ({"made_with": {"method": "diffusion", "draws": 4, "steps": 9}}, "steps = 9", "unset"),
    ],
)
def test_any_other_use_is_refused_in_one_line(calibration, other, given, possible):
    with pytest.raises(CalibrationError) as refusal:
        check(calibration, **(USE | other))
    message = str(refusal.value)
    assert f"{given}" in message and possible in message and "without an interval" in message and "\n" not in message
    assert refusal.value.exit_code == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delta": None}, "without|with a delta"),
        ({"kind": "crc"}, "without a delta"),
        ({"gap_min_s": 0.4}, "ends before it begins"),
        ({"n_clips": 41}, "not independent"),
        ({"recordings": {f"copy {i}": sha("same") for i in range(40)}}, "not independent"),
        ({"groups": (Group(ranges=(0,), value=1.0, n_clips=1),)}, "isn't on the axes"),
        ({"groups": (Group(ranges=(0, 2), value=1.0, n_clips=1),)}, "isn't on the axes"),
        ({"groups": (Group(ranges=(0, 0), value=1.0, n_clips=41),)}, "more clips"),
        ({"groups": (Group(ranges=(0, 0), value=1.0, n_clips=1),) * 2}, "stands twice"),
        ({"model": "latest"}, "model"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(calibration, change, message, tmp_path):
    import yaml

    raw = calibration.model_dump(mode="json") | {
        key: [g.model_dump(mode="json") for g in value] if key == "groups" else value for key, value in change.items()
    }
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(InputError, match=message):
        load_yaml(tmp_path / "bad.yaml", Calibration)


def test_each_cell_gets_the_value_of_its_group(calibration):
    values = values_at(calibration, {"gap_s": 0.05, "frequency_hz": [60, 999, 1000, 8000]})
    assert values.tolist() == [1.5, 1.5, 2.0, 2.0]
    assert values_at(calibration, {"gap_s": 0.1, "frequency_hz": 2000}) == 3.25
    plain = Calibration(**(VALUES | {"axes": (), "groups": (Group(ranges=(), value=2.5, n_clips=40),)}))
    assert values_at(plain, {}) == 2.5


def test_a_group_that_was_not_calibrated_is_refused(calibration):
    with pytest.raises(CalibrationError, match=r"1 of 2 cells .* too few calibration clips"):
        values_at(calibration, {"gap_s": 0.2, "frequency_hz": [500, 2000]})
    with pytest.raises(CalibrationError, match="frequency_hz 9000 was not calibrated; possible: 60 to 8000"):
        values_at(calibration, {"gap_s": 0.2, "frequency_hz": 9000})
    with pytest.raises(InputError, match="gap_s"):
        values_at(calibration, {"frequency_hz": 2000})


def test_ranges_are_half_open_and_the_last_is_closed():
    axis = Axis(name="edge_s", edges=(0, 1, 2, 5))
    assert place(axis, [0, 0.99, 1, 2, 4.9, 5]).tolist() == [0, 0, 1, 2, 2, 2]
    for bad in (-0.1, 5.1, np.nan):
        with pytest.raises(CalibrationError, match="edge_s"):
            place(axis, bad)


def members(*counts):
    """Clips that lie in one range each."""
    return np.repeat(np.eye(len(counts), dtype=bool), counts, axis=1)


@pytest.mark.parametrize(
    ("counts", "edges"),
    [
        ((30, 30, 30, 30), (0, 1, 2, 3, 4)),
        ((5, 30, 30, 30), (0, 2, 3, 4)),
        ((30, 30, 30, 5), (0, 1, 2, 4)),
        ((5, 5, 5, 30), (0, 4)),
        ((10, 10, 10, 10), (0, 4)),
        ((0, 30, 0, 30), (0, 2, 4)),
        ((22, 21, 1, 0), (0, 1, 4)),
    ],
)
def test_small_ranges_join_the_next(counts, edges):
    assert merge(Axis(name="gap_s", edges=(0, 1, 2, 3, 4)), members(*counts), 22).edges == edges


def test_a_clip_with_cells_in_two_ranges_counts_once_when_they_merge():
    both = np.ones((2, 20), bool)
    with pytest.raises(CalibrationError, match="0 to 2 has 20 calibration clips; 22 are needed"):
        merge(Axis(name="edge_s", edges=(0, 1, 2)), both, 22)


def test_small_ranges_can_be_refused_instead():
    axis = Axis(name="gap_s", edges=(0.02, 0.1, 0.3))
    with pytest.raises(CalibrationError, match=r"gap_s 0\.1 to 0\.3 has 7 calibration clips; 22 are needed"):
        merge(axis, members(30, 7), 22, small="refuse")
    assert merge(axis, members(30, 22), 22, small="refuse") == axis


def test_leakage_is_refused_by_content_and_named():
    train = {"a": sha("a"), "b": sha("b")}
    disjoint(train, {"c": sha("c"), "c again": sha("c")}, {"d": sha("d")})
    with pytest.raises(CalibrationError, match=r"1 recordings .* b \(training\) = renamed \(calibration\)"):
        disjoint(train, {"renamed": sha("b")}, {"d": sha("d")})
    with pytest.raises(CalibrationError, match=r"a \(training\) = x \(test\)"):
        disjoint(train, {"c": sha("c")}, {"x": sha("a")})
    with pytest.raises(CalibrationError, match=r"c \(calibration\) = y \(test\)"):
        disjoint(train, {"c": sha("c")}, {"y": sha("c")})
    many = {str(i): sha(str(i)) for i in range(9)}
    with pytest.raises(CalibrationError, match=r"9 recordings .* and 6 more\."):
        disjoint(many, many, {})
