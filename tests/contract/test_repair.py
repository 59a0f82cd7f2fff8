"""What every repair promises, whatever the method: untouched samples, lengths, seeds, order, errors."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfumato import preset
from sfumato.errors import InputError, ResourceError
from sfumato.model import SYSTEMS, Card, Model, save
from sfumato.networks import unet2d
from sfumato.systems import conffusion, uasrm
from sfumato.tasks.gaps import check_gaps
from sfumato.tasks.repair import Result, Settings, repair
from sfumato.tasks.repair_file import repair_file
from sfumato.tasks.windows import plan
from sfumato.wanted import nothing

RATE = 22050
CLASSICAL = ("ar", "janssen", "aspain")
METHODS = (*CLASSICAL, "diffusion", "auto")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights and measured risks."""
    torch.manual_seed(0)
    network = unet2d.Config(channels=1, condition_channels=7, widths=(8, 16), embedding=16, attention_heads=2)
    config = conffusion.Config(network=network)
    module = conffusion.build(config).eval()
    torch.nn.init.normal_(module.last[-1].weight[:1], std=0.02)
    torch.nn.init.constant_(module.last[-1].bias[1], -8.0)  # sure of itself: no lift
    figures = {"risk_0_20ms": 1.0, "risk_1_20ms": 2.0, "risk_0_200ms": 2.0, "risk_1_200ms": 1.0}
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save(Model("tiny", "conffusion", config, module, Card(figures=figures)), folder)
    return folder


def music(seconds: float, channels: int = 2, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Partials and noise, the channels related but not equal."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    partials = [np.sin(2 * np.pi * 220 * k * t + random.uniform(0, 6)) / k for k in (1, 2, 3, 5)]
    mixed = random.uniform(0.2, 1.0, (channels, len(partials))) @ np.stack(partials)
    return 0.2 * mixed + 0.01 * random.standard_normal((channels, len(t)))


def run(audio: np.ndarray, gaps: list[tuple[float, float]], tiny: Path, rate: int = RATE, **how: object) -> Result:
    return repair(audio, gaps, sample_rate=rate, settings=Settings(model=str(tiny), draws=2, **how))


def missing(result: Result) -> np.ndarray:
    out = np.zeros(result.audio.shape[1], dtype=bool)
    for gap in result.gaps:
        out[gap.start : gap.stop] = True
    return out


@pytest.mark.parametrize("method", METHODS)
def test_outside_the_gaps_nothing_changes_and_inside_it_does(method: str, tiny: Path) -> None:
    clean = music(2.0)
    damaged = clean.copy()
    damaged[:, 20000:22000] = 0.0
    damaged[:, 30000:30100] = 7.0
    gaps = [(20000 / RATE, 22000 / RATE), (30000 / RATE, 30100 / RATE)]
    result = run(damaged, gaps, tiny, method=method)
    gone = missing(result)
    assert gone.sum() == 2100
    np.testing.assert_array_equal(result.audio[:, ~gone], damaged[:, ~gone])
    assert np.isfinite(result.audio).all()
    error = np.sqrt(np.mean((result.audio - clean)[:, gone] ** 2))
    assert error < 0.7 * np.sqrt(np.mean(clean[:, gone] ** 2)), "closer to the truth than silence is"
    assert result.provenance["settings"]["method"] == method


@pytest.mark.parametrize("method", ["ar", "diffusion"])
def test_seeds(method: str, tiny: Path) -> None:
    audio, gaps = music(2.0), [(0.8, 1.0)]
    one, again, other = (run(audio, gaps, tiny, method=method, seed=seed).audio for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3


def test_more_draws_do_not_change_the_first(tiny: Path) -> None:
    audio, gaps = music(2.0), [(0.8, 1.0)]
    few, many = (
        repair(audio, gaps, sample_rate=RATE, settings=Settings(model=str(tiny), method="diffusion", draws=n))
        for n in (1, 6)
    )
    assert many.gaps[0].draws.shape == (6, 2, round(0.2 * RATE))
    np.testing.assert_allclose(few.audio, many.audio, atol=1e-5)


def test_a_gap_does_not_depend_on_far_away_ones(tiny: Path) -> None:
    audio = music(6.0)
    alone = run(audio, [(1.0, 1.1)], tiny, method="ar")
    both = run(audio, [(1.0, 1.1), (5.0, 5.2)], tiny, method="ar")
    np.testing.assert_array_equal(alone.gaps[0].draws, both.gaps[0].draws)


def test_mirrored_draws_average_to_the_autoregressive_mean(tiny: Path) -> None:
    audio, gaps = music(2.0, channels=1), [(0.8, 1.0)]
    ar, diffusion = (run(audio, gaps, tiny, method=method).gaps[0].draws for method in ("ar", "diffusion"))
    np.testing.assert_allclose(ar.mean(axis=0), diffusion.mean(axis=0), atol=1e-6)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations([(0.5, 0.52), (0.51, 0.56), (1.2, 1.21), (0.5, 0.52)]))
def test_order_duplicates_and_overlaps_do_not_matter(order: list[tuple[float, float]]) -> None:
    audio = music(2.0, channels=1)
    settings_ = Settings(method="janssen")
    expected = repair(audio, [(0.5, 0.56), (1.2, 1.21)], sample_rate=RATE, settings=settings_).audio
    np.testing.assert_array_equal(repair(audio, order, sample_rate=RATE, settings=settings_).audio, expected)


@pytest.mark.parametrize("rate", [8000, 44100, 96000, 192000])
def test_any_sample_rate(rate: int, tiny: Path) -> None:
    result = run(music(1.5, rate=rate), [(0.7, 0.75)], tiny, rate=rate, method="diffusion")
    assert result.audio.shape == (2, round(1.5 * rate))
    inside, whole = result.gaps[0].draws[0], result.audio
    assert 0.3 < np.sqrt(np.mean(inside**2) / np.mean(whole**2)) < 3.0


@pytest.mark.parametrize("channels", [1, 2, 6, 32])
def test_any_number_of_channels(channels: int, tiny: Path) -> None:
    result = run(music(1.0, channels=channels), [(0.4, 0.45)], tiny, method="ar")
    assert result.audio.shape[0] == channels


def test_the_stereo_image_is_kept(tiny: Path) -> None:
    random = np.random.default_rng(1)
    middle, side = random.standard_normal((2, 2 * RATE))
    audio = 0.1 * np.stack([middle + 0.2 * side, middle - 0.2 * side])
    result = run(audio, [(0.9, 1.2)], tiny, method="diffusion")
    fill = result.gaps[0].draws[0]
    assert np.corrcoef(fill)[0, 1] == pytest.approx(np.corrcoef(audio)[0, 1], abs=0.05)
    mono = run(np.repeat(audio[:1], 2, axis=0), [(0.9, 1.2)], tiny, method="ar").gaps[0].draws[0]
    np.testing.assert_allclose(mono[0], mono[1], atol=1e-9)


@pytest.mark.parametrize("gap", [(0.0, 0.1), (1.9, 2.0)])
@pytest.mark.parametrize("method", METHODS)
def test_gaps_at_the_edges(gap: tuple[float, float], method: str, tiny: Path) -> None:
    result = run(music(2.0, channels=1), [gap], tiny, method=method)
    assert np.isfinite(result.audio).all()
    assert np.abs(result.audio).max() < 2.0


def test_silence_stays_silent(tiny: Path) -> None:
    for method in METHODS:
        result = run(np.zeros((2, RATE)), [(0.4, 0.5)], tiny, method=method)
        assert np.abs(result.audio).max() < 1e-6


def test_values_inside_a_gap_do_not_matter_even_nan(tiny: Path) -> None:
    audio = music(2.0)
    poisoned = audio.copy()
    poisoned[:, round(0.8 * RATE) : round(0.9 * RATE)] = np.nan
    a, b = (run(signal, [(0.8, 0.9)], tiny, method="diffusion").audio for signal in (audio, poisoned))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        ((1.0, 0.5), "ends before it starts"),
        ((1.0, 1.0), "holds no sample"),
        ((-0.1, 0.5), "not inside the audio"),
        ((1.9, 2.5), "not inside the audio"),
        ((float("nan"), 1.0), "not a pair of numbers"),
        ((0.0, 2.0), "to go by"),
    ],
)
def test_bad_gaps(gap: tuple[float, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        repair(music(2.0), [gap], sample_rate=RATE, settings=Settings(method="janssen"))


def test_a_gap_that_is_too_long() -> None:
    with pytest.raises(InputError, match="up to 2 s can be filled"):
        check_gaps([(1.0, 3.5)], RATE, 10 * RATE)


def test_bad_arrays() -> None:
    with pytest.raises(InputError, match="sample_rate"):
        repair(music(1.0), [(0.1, 0.2)])
    with pytest.raises(InputError, match=r"not \(channels, samples\)"):
        repair(music(1.0).T, [(0.1, 0.2)], sample_rate=RATE)


def test_neighbouring_gaps_are_filled_together_and_far_ones_apart() -> None:
    near, far = [(100, 200), (300, 310)], [(50000, 50010)]
    assert plan([*near, *far], 44100) == [near, far]


def test_routing_follows_the_measured_risk() -> None:
    figures = {"risk_0_20ms": 1.0, "risk_1_20ms": 2.0, "risk_0_200ms": 2.0, "risk_1_200ms": 1.0, "other": 3.0}
    assert conffusion.spread(figures, 0.01) == 0.0
    assert conffusion.spread(figures, 0.5) == 1.0
    assert conffusion.spread(figures, np.sqrt(0.02 * 0.2)) == pytest.approx(0.5)
    assert conffusion.spread({}, 0.1) == 1.0


def test_a_file_and_its_report(tiny: Path, tmp_path: Path) -> None:
    import hashlib
    import json

    import soundfile as sf

    audio = music(2.0)
    audio[:, 20000:21000] = 0.0
    source, out = tmp_path / "in.wav", tmp_path / "out.wav"
    sf.write(source, audio.T, RATE, subtype="PCM_16")
    before = source.read_bytes()
    settings_ = Settings(model=str(tiny), draws=2, method="diffusion")
    outcome = repair_file(source, out, None, settings_, tmp_path / "report")
    assert source.read_bytes() == before
    body = json.loads(outcome.json.read_text())
    assert outcome.json.name == "out.wav.json"
    (gap,) = body["gaps"]
    assert gap["kind"] == "zeros" and gap["method"] == "diffusion"
    assert gap["start"] <= 20000 / RATE and gap["stop"] >= 21000 / RATE
    assert body["provenance"]["model"]["name"] == "tiny"
    assert body["input_sha256"] == hashlib.sha256(before).hexdigest()
    written, read = sf.read(out, dtype="int16")[0], sf.read(source, dtype="int16")[0]
    start, stop = round(gap["start"] * RATE), round(gap["stop"] * RATE)
    np.testing.assert_array_equal(written[:start], read[:start])
    np.testing.assert_array_equal(written[stop:], read[stop:])
    assert np.abs(written[start:stop]).max() > 100
    assert outcome.picture is not None and outcome.picture.read_bytes()[:4] == b"\x89PNG"
    assert len(outcome.draws) == 2 and all(path.exists() for path in outcome.draws)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "out.wav", "out.wav.json", "report"]


def test_a_missing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="does not exist"):
        repair_file(tmp_path / "in.wav", tmp_path / "nowhere" / "out.wav", [(0.1, 0.2)])


PICTURE = (64, 256)
"""Bands and frames of a window's levels."""
SHAPES = {
    "conffusion": (((1, 1, *PICTURE), (1,), (1, 7, *PICTURE)), (1, 2, *PICTURE)),
    "fill_detector": (((1, 82, 100),), (1, 1, 100)),
    "n_conffusion": (((1, 1, *PICTURE), (1,), (1, 7, *PICTURE)), (1, 3, *PICTURE)),
    "uasrm seed": (((1, 1, uasrm.N_BINS, uasrm.N_FRAMES),), (1, 1, uasrm.N_BINS, uasrm.N_FRAMES)),
    "uasrm honest": (((1, 5, uasrm.N_BINS - 1, uasrm.N_FRAMES - 1),), (1, 1, uasrm.N_BINS - 1, uasrm.N_FRAMES - 1)),
}
"""What a system calls its network with (state, noise level, condition; or a picture), and what it needs back."""


def calls(found: preset.Plan) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """What the network of a preset is given, and the shape it gives back."""
    config = found.config
    if found.preset.system == "dance_diffusion":
        sound = (2, config.network.channels, config.n_samples)
        return (sound, (2,)), sound
    if found.preset.system == "rave_prior":
        latents = (2, config.dims, config.frames)
        return (latents, (2,)), latents
    return SHAPES[" ".join([found.preset.system, *([config.view] if found.preset.system == "uasrm" else [])])]


@pytest.mark.parametrize("name", preset.names())
def test_every_preset_builds_its_network(name: str) -> None:
    found = preset.load(name)
    with torch.inference_mode(), torch.device("cpu" if found.preset.system == "dance_diffusion" else "meta"):
        network = importlib.import_module(SYSTEMS[found.preset.system]).build(found.config)
        if found.preset.system == "rave":
            shape = found.config.network
            bands = torch.zeros(2, shape.channels * shape.bands, 3 * shape.hop_length // shape.bands)
            latent = network.codec.posterior(network.codec.encoder(bands)[0])[0]
            assert latent.shape == (2, shape.latent, 3)
            assert network.codec.decoder(latent)[0].shape == bands.shape
            return
        if found.preset.system == "text_audio":
            shape = found.config.network
            heard = network.audio(torch.zeros(2, shape.n_mels, shape.n_frames))
            states = torch.zeros(2, 5, shape.text_width)
            read = network.text(states[:, 0], states, torch.ones(2, 5, dtype=torch.bool))
            assert heard.shape == read.shape == (2, shape.width)
            return
        if found.preset.system == "mel_vae":
            heard = torch.zeros(2, found.config.network.rows, 4 * 6)
            latent = network.encode(heard)
            assert latent.shape[-1] == 6 and network.decode(latent).shape == heard.shape
            return
        if found.preset.system in ("riffusion", "mel_vocoder", "make_an_audio", "noise2music"):
            shape = found.config.network
            x = torch.zeros(2, shape.channels, shape.n_bins, 2 * shape.multiple)
            beside = (torch.zeros(2, shape.given, *x.shape[2:]),) if shape.given else ()
            assert network(x, torch.zeros(2), nothing(2, shape.words), *beside).shape == x.shape
            return
        given, expected = calls(found)
        assert network(*map(torch.zeros, given)).shape == expected


def test_drawn_levels_leave_the_mean_of_a_pair_alone(tiny: Path) -> None:
    audio, gaps = music(2.0, channels=1), [(0.8, 1.0)]
    cold, hot = (
        run(audio, gaps, tiny, method="diffusion", temperature=temperature, steps=4).gaps[0].draws
        for temperature in (0.0, 1.0)
    )
    assert np.abs(hot - cold).max() > 1e-3
    np.testing.assert_allclose(hot.mean(axis=0), cold.mean(axis=0), atol=1e-6)


def test_a_found_gap_that_cannot_be_filled_is_skipped_and_a_given_one_refused(tiny: Path) -> None:
    audio = music(1.0, channels=1)
    audio[:, 200:-200] = np.nan
    result = repair(audio, None, sample_rate=RATE, settings=Settings(model=str(tiny), method="janssen"))
    assert not result.gaps and "to go by" in result.skipped[0].reason


def test_absurd_values_give_a_finite_fill_or_a_typed_error() -> None:
    audio = 1e200 * music(1.0, channels=1)
    result = repair(audio, [(0.4, 0.45)], sample_rate=RATE, settings=Settings(method="janssen"))
    assert np.isfinite(result.audio).all()
    with pytest.raises(InputError, match="not a pair of numbers"):
        check_gaps([(0.0, 1e308)], RATE, RATE)


def test_alike_fills_are_made_once(tiny: Path) -> None:
    """Without a random part, draws differ by the order of the AR model at most."""
    audio, gaps = music(2.0, channels=1), [(0.8, 0.815)]
    few, many = (
        repair(audio, gaps, sample_rate=RATE, settings=Settings(model=str(tiny), draws=n)).gaps[0] for n in (2, 9)
    )
    assert few.method == many.method == "ar mean"
    assert len(few.draws) == 1 and len(many.draws) == 2
    np.testing.assert_array_equal(few.draws[0], many.draws[0])
    assert np.abs(many.draws[0] - many.draws[1]).max() > 1e-9


def test_the_destination_is_checked_before_the_work(tiny: Path, tmp_path: Path) -> None:
    import soundfile as sf

    source = tmp_path / "in.wav"
    sf.write(source, music(1.0).T, RATE)
    for destination, words in ((source, "input itself"), (tmp_path / "out.xyz", "does not say how")):
        with pytest.raises(InputError, match=words):
            repair_file(source, destination, [(0.4, 0.45)], Settings(model="nowhere"))


@pytest.mark.parametrize("name", ["gap-01-draw-1.wav", "repair.png"])
def test_a_report_never_replaces_the_input_or_the_output(tmp_path: Path, name: str) -> None:
    import soundfile as sf

    report = tmp_path / "report"
    report.mkdir()
    source = report / "gap-02-draw-1.wav"
    sf.write(source, music(1.0).T, RATE)
    before = source.read_bytes()
    settings_ = Settings(method="janssen")
    with pytest.raises(InputError, match="another folder for the report"):
        repair_file(source, tmp_path / "out.wav", [(0.5, 0.51)], settings_, report)
    other = tmp_path / "in.wav"
    source.replace(other)
    with pytest.raises(InputError):
        repair_file(other, report / name, [(0.5, 0.51)], settings_, report)
    assert other.read_bytes() == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in.wav", "report"]


def test_auto_fills_a_click_beside_a_dropout_as_a_click(tiny: Path) -> None:
    audio = music(2.0, channels=1)
    result = run(audio, [(0.6, 0.61), (0.7, 0.95)], tiny, method="auto")
    alone = [run(audio, [gap], tiny, method="auto").gaps[0] for gap in ((0.6, 0.61), (0.7, 0.95))]
    assert [gap.method for gap in result.gaps] == [gap.method for gap in alone] == ["ar mean", "diffusion"]


@pytest.mark.parametrize(
    "audio, rate, gaps",
    [
        (np.zeros((1, 4000), np.int16), 8000, [(0.1, 0.2)]),
        (np.zeros((1, 4000)), 10, [(0.1, 0.2)]),
        (np.zeros((1, 4000)), 8000, [("a", "b")]),
        (np.zeros((1, 4000)), 8000, [(0.1, 0.2, 0.3)]),
    ],
)
def test_arrays_that_make_no_sense_are_refused(audio: np.ndarray, rate: int, gaps: list) -> None:
    with pytest.raises(InputError):
        repair(audio, gaps, sample_rate=rate, settings=Settings(method="janssen"))


@pytest.mark.parametrize("method", ["ar", "janssen"])
def test_sound_with_an_empty_band_is_filled_at_its_level(method: str) -> None:
    """Band-limited recordings without a floor of noise: resampled, decoded from a lossy format, synthetic."""
    import soxr

    whole = soxr.resample(music(3.0).T, RATE, 2 * RATE).T
    tone = np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)[None]
    for audio, rate, loss in ((whole, 2 * RATE, 0.3), (tone, RATE, 1e-3)):
        start, stop = round(1.5 * rate), round(1.53 * rate)
        damaged = audio.copy()
        damaged[:, start:stop] = 0.0
        settings_ = Settings(method=method, draws=1)
        fill = repair(damaged, [(1.5, 1.53)], sample_rate=rate, settings=settings_).audio[:, start:stop]
        truth = audio[:, start:stop]
        assert np.mean((fill - truth) ** 2) < loss * np.mean(truth**2)
