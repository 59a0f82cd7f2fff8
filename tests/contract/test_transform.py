"""Transforming sounds: what is kept is kept to the bit, and more strength changes more."""

import json
import re

import numpy as np
import pytest
import soundfile as sf
import tiny_dance
import torch

from sfumato import cli
from sfumato.config import parse
from sfumato.diffusion import guide, sample
from sfumato.errors import InputError
from sfumato.model import load
from sfumato.systems import dance_diffusion
from sfumato.tasks import vary
from sfumato.tasks.draw import denoiser, levels
from sfumato.tasks.transform import WAYS, transform

RATE = 8000


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_dance.folder(tmp_path_factory.mktemp("models") / "tiny")


def hit(n=400, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return 0.5 * np.exp(-np.arange(n) / 90) * rng.uniform(-1, 1, (channels, n))


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "hit.wav"
    sf.write(path, hit().T, RATE, subtype="PCM_16")
    return path


def read(path):
    return sf.read(path, dtype="float64", always_2d=True)[0].T


def test_more_strength_is_farther_away_and_little_is_near(tiny, sound, tmp_path):
    distances = []
    for strength in (0.05, 0.2, 0.4, 0.6, 0.8, 1.0):
        written = transform(sound, tmp_path / "v.wav", tiny, {"strength": strength, "steps": 8, "seed": 3})
        distances.append(float(np.abs(read(written.files[0]) - read(sound)).mean()))
    assert distances == sorted(distances)
    assert distances[0] < 0.1 * distances[-1]


def test_a_variation_is_the_same_however_many_are_made(tiny, sound, tmp_path):
    one = transform(sound, tmp_path / "one.wav", tiny, {"steps": 4})
    many = transform(sound, tmp_path / "many.wav", tiny, {"steps": 4, "count": 3})
    assert np.array_equal(read(one.files[0]), read(many.files[0]))
    assert not np.array_equal(read(many.files[0]), read(many.files[1]))
    assert read(one.files[0]).shape == read(sound).shape
    record = json.loads(many.json.read_text())
    assert record["takes"][2]["item"] == 2
    assert record["takes"][0]["strength"] == 0.3
    assert record["takes"][0]["sigma"] == pytest.approx(vary.strength_sigma(0.3, tiny_dance.CONFIG))


def test_half_the_strength_is_noise_as_loud_as_the_model_s_sounds():
    found = [vary.strength_sigma(value, tiny_dance.CONFIG) for value in (0.25, 0.5, 0.75, 1.0)]
    np.testing.assert_allclose(found, tiny_dance.CONFIG.sigma_data * np.array([0.1, 1.0, 10.0, 100.0]))


def test_channels_rates_and_levels_are_dealt_with(tiny, tmp_path):
    stereo = hit(1800, channels=2) * 1e-3
    sf.write(tmp_path / "quiet.wav", stereo.T, 3 * RATE, subtype="FLOAT")
    written = transform(tmp_path / "quiet.wav", tmp_path / "v.wav", tiny, {"strength": 0.05, "steps": 3})
    made = read(written.files[0])
    assert made.shape == (2, 1800)
    assert sf.info(written.files[0]).samplerate == 3 * RATE
    assert 0.3 * np.abs(stereo).max() < np.abs(made).max() < 2 * np.abs(stereo).max()


@pytest.mark.parametrize(
    ("channels", "rate", "n"), [(1, 48000, 4801), (2, 8000, 399), (2, 11025, 3001), (3, 22050, 50)]
)
def test_variations_and_blends_have_the_recording_s_rate_channels_and_exact_length(tiny, tmp_path, channels, rate, n):
    sf.write(tmp_path / "a.wav", hit(n, channels).T, rate, subtype="FLOAT")
    sf.write(tmp_path / "short.wav", hit(40).T, RATE)
    two = tiny_dance.CONFIG.model_dump()
    two["network"]["channels"] = 2
    tiny_dance.folder(tmp_path / "two", dance_diffusion.Config(**two))
    for model in (tiny, tmp_path / "two"):
        other = {"other": str(tmp_path / "short.wav"), "steps_between": 1}
        for values, length in (({"strength": 0.05}, n), (other, max(n, -(-40 * rate // RATE)))):
            written = transform(tmp_path / "a.wav", tmp_path / "b.wav", model, {"steps": 2} | values)
            made, info = read(written.files[0]), sf.info(written.files[0])
            assert (info.samplerate, made.shape) == (rate, (channels, length))
            row = json.loads(written.json.read_text())["takes"][0]
            assert (row["samples"], row["seconds"]) == (made.shape[1], made.shape[1] / rate)


def test_a_faint_variation_of_another_rate_is_in_time_with_the_sound(tiny, tmp_path):
    """All that changed is what the model's rate can't hold, and noise 36 dB below the model's sounds."""
    n = np.arange(6000)
    tone = 0.5 * np.sin(2 * np.pi * 440 / 48000 * n) * np.hanning(6000)
    sf.write(tmp_path / "a.wav", tone, 48000, subtype="FLOAT")
    made = read(transform(tmp_path / "a.wav", tmp_path / "b.wav", tiny, {"strength": 0.05, "steps": 2}).files[0])[0]
    lags = [float(made[100 + lag : 5900 + lag] @ tone[100:5900]) for lag in range(-8, 9)]
    assert int(np.argmax(lags)) - 8 in (-1, 0, 1)


@pytest.mark.parametrize(("subtype", "rate"), [("PCM_16", RATE), ("FLOAT", 2 * RATE), ("PCM_24", 11025)])
@pytest.mark.parametrize("channels", [1, 2])
def test_outside_a_gap_every_sample_is_the_recording_s(tiny, tmp_path, subtype, rate, channels):
    whole = hit(2000, channels) + 0.1 * np.sin(np.arange(2000) / 9)
    path = tmp_path / "a.wav"
    sf.write(path, whole.T, rate, subtype=subtype)
    start, stop = 700, 905
    gap = {"gap": f"{start / rate}:{stop / rate}", "steps": 3, "count": 2, "sampler": "dpmpp_2m_sde"}
    written = transform(path, tmp_path / "b.wav", tiny, gap)
    before = read(path)
    for file in written.files:
        after = read(file)
        changed = (after != before).any(axis=0)
        assert not changed[:start].any()
        assert not changed[stop:].any()
        assert changed[start:stop].mean() > 0.9
        assert sf.info(file).subtype == subtype
    assert not np.array_equal(read(written.files[0]), read(written.files[1]))
    assert json.loads(written.json.read_text())["gap_samples"] == [start, stop]


@pytest.mark.parametrize(
    "settings",
    [
        {"strength": 0.4, "seed": 7, "count": 2},
        {"gap": "0.02:0.03", "count": 2},
        {"extend": 0.02, "seed": 7, "count": 2},
        {"other": "tone.wav", "steps_between": 2},
    ],
    ids=lambda settings: next(iter(settings)),
)
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_sound_is_made_again_from_what_stands_in_its_file(tiny, tmp_path, suffix, settings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with sf.SoundFile(tmp_path / f"in{suffix}", "w", RATE, 1, "PCM_16") as file:
        file.title, file.comment = "A hit", "old"
        file.write(hit().T)
    sf.write(tmp_path / "tone.wav", 0.4 * np.sin(np.arange(500) / 5), RATE)
    absolute = {"other": str(tmp_path / "tone.wav")} if "other" in settings else {}
    made = transform(tmp_path / f"in{suffix}", tmp_path / f"b{suffix}", tiny, {"steps": 3} | settings | absolute)
    assert len(made.files) == 2
    for item, path in enumerate(made.files):
        with sf.SoundFile(path) as file:
            told, title = json.loads(file.comment), file.title
        assert title == ("A hit" if "gap" in settings or "extend" in settings else "")
        assert (told["model"], told["item"], told["input"]) == ("tiny", item, f"in{suffix}")
        assert str(tmp_path) not in json.dumps(told)
        count = {} if "other" in settings else {"count": told["item"] + 1}
        again = transform(told["input"], f"c{suffix}", tiny, told["settings"] | {"seed": told["seed"]} | count)
        assert np.array_equal(read(again.files[item]), read(path))
        assert again.files[item].read_bytes() == path.read_bytes()


def test_a_fill_knows_what_is_around_and_nothing_of_what_was_there():
    model, audio, quiet = tiny_dance.model(), hit(512), lambda *_: None
    settings = vary.Settings(gap="0:1", steps=4)
    other = audio.copy()
    other[:, 200:300] = 0.3
    first, same = (next(vary.fills(model, a, RATE, (200, 300), settings, quiet)) for a in (audio, other))
    assert np.array_equal(first, same)
    another = next(vary.fills(model, audio, RATE, (200, 300), settings.model_copy(update={"seed": 1}), quiet))
    assert (first != another).mean() > 0.98  # all of it is drawn
    other[:, 320:] *= -1
    assert not np.array_equal(first, next(vary.fills(model, other, RATE, (200, 300), settings, quiet)))


SUBTYPES = [(".wav", name) for name in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")]
SUBTYPES += [(".flac", "PCM_16"), (".flac", "PCM_24"), (".aiff", "PCM_S8"), (".caf", "ALAC_16"), (".w64", "PCM_32")]


@pytest.mark.parametrize(("suffix", "subtype"), SUBTYPES)
def test_gaps_and_extensions_keep_the_recording_s_own_samples_and_their_type(tiny, tmp_path, suffix, subtype):
    """Of numbers that use every bit of it."""
    whole = np.random.default_rng(0).uniform(-1, 1, (2, 700))
    source, out = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    sf.write(source, whole.T, RATE, subtype=subtype)
    before = read(source)
    made = transform(source, out, tiny, {"extend": 0.1, "steps": 3})
    after = read(out)
    assert after.shape == (2, 1500)
    assert np.array_equal(after[:, :700], before)
    assert np.abs(after[:, 700:]).max() > 1e-4
    assert sf.info(out).subtype == subtype
    row = json.loads(made.json.read_text())["takes"][0]
    assert (row["samples"], row["seconds"]) == (1500, 1500 / RATE)
    transform(source, out, tiny, {"gap": "0.02:0.03", "steps": 3})
    after = read(out)
    assert np.array_equal(np.delete(after, np.s_[160:240], axis=1), np.delete(before, np.s_[160:240], axis=1))
    assert sf.info(out).subtype == subtype


def test_a_fill_beyond_full_scale_is_clipped_and_the_record_tells(tiny, sound, tmp_path, monkeypatch):
    fill = np.array([[0.5, 1.5, -2.0, 0.1]])
    monkeypatch.setattr(vary, "fills", lambda *_: iter([fill]))
    written = transform(sound, tmp_path / "b.wav", tiny, {"gap": f"{100 / RATE}:{104 / RATE}"})
    assert json.loads(written.json.read_text())["takes"][0]["clipped_values"] == 2
    np.testing.assert_allclose(read(written.files[0])[0, 100:104], [0.5, 1.0, -1.0, 0.1], atol=2**-14)


@pytest.mark.parametrize("gap", [(9000, 9600), (0, 400), (19000, 20000), (20000, 20500)])
def test_known_samples_beside_a_gap_are_the_recording_s_at_the_model_s_rate_too(gap, monkeypatch):
    """A cut to silence would ring through the resampler's long filter."""
    start, stop = gap
    n = np.arange(20500)
    whole = (0.3 * np.cos(2 * np.pi * 300 / 48000 * n) + 0.2)[None]  # far from zero at most cuts
    seen, keep = [], guide.known_samples
    monkeypatch.setattr(guide, "known_samples", lambda *both: seen.append(both) or keep(*both))
    audio = whole[:, :20000]
    next(vary.fills(tiny_dance.model(), audio, 48000, gap, vary.Settings(gap="0:1", steps=2), lambda *_: None))
    observed, known = (part[0, 0].numpy() for part in seen[0])
    expected = vary.resampled(whole, 48000, RATE)[0, : len(observed)]
    places = np.flatnonzero(known[: len(expected)])
    scale = vary.PEAK / np.abs(vary._bridged(audio, *gap)).max()
    error = np.abs(observed[places] / scale - expected[places])
    inside = (places > 40) & (places < len(expected) - 40)
    beside = inside & (np.minimum(abs(places - start / 6), abs(places - stop / 6)) < 40)
    assert beside.sum() >= 35
    assert error[beside].max() < 0.01


def test_each_of_two_sounds_is_followed_as_what_it_is(monkeypatch):
    """One starts its window, the other starts late: up they go each under its own label, down under both."""
    model, quiet, seen = tiny_dance.model(), lambda *_: None, []
    early = vary.clip_of(hit(512), RATE, tiny_dance.CONFIG)
    late = vary.clip_of(np.pad(hit(200), ((0, 0), (312, 0))), RATE, tiny_dance.CONFIG)
    assert (early.starts, late.starts) == (True, False)
    model.network.register_forward_hook(lambda module, given, out: seen.append(int(given[2][0, 1])))
    list(vary.between(model, early, late, vary.Settings(other="x", steps_between=1, steps=3), quiet))
    up = 2 * (3 - 1)  # heun, whose last level isn't 0
    assert seen[:up] == [dance_diffusion.START] * up
    assert seen[up : 2 * up] == [dance_diffusion.ANYWHERE] * up
    assert set(seen[2 * up :]) == {dance_diffusion.START, dance_diffusion.ANYWHERE}
    del seen[:]
    list(vary.between(model, late, late, vary.Settings(other="x", steps_between=1, steps=3), quiet))
    assert set(seen) == {dance_diffusion.ANYWHERE}


def test_up_and_down_again_is_where_it_began():
    """Heun's error goes with the square of the step: twice the steps, about a quarter of it."""
    model = tiny_dance.model()
    clip = vary.clip_of(hit(512), RATE, tiny_dance.CONFIG)
    denoise = denoiser(model, 0, True)
    errors = []
    for steps in (20, 40, 80):
        sigmas = levels("karras", steps, tiny_dance.CONFIG, 20.0)
        with torch.no_grad():
            up = sample.last(sample.heun(denoise, clip.x, sigmas[:-1].flip(0)))
            down = sample.last(sample.heun(denoise, up, sigmas[:-1]))
        errors.append(float((down - clip.x).norm() / clip.x.norm()))
    assert errors[2] < 0.2 * errors[0]
    assert errors[2] < 0.01


def test_slerp_goes_along_the_arc_for_each_channel():
    a, b = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[0.0, 8.0], [0.0, 3.0]]])
    half = vary.slerp(a, b, 0.5)
    torch.testing.assert_close(half[0, 0], torch.tensor([1.0, 1.0]) * 4 / 2**0.5)
    torch.testing.assert_close(half[0, 1], torch.tensor([0.0, 3.0**0.5]))
    torch.testing.assert_close(vary.slerp(a, b, 0.0), a)
    torch.testing.assert_close(vary.slerp(a, b, 1.0), b)
    angles = [float(torch.atan2(p[0, 0, 1], p[0, 0, 0])) for p in (vary.slerp(a, b, w) for w in (0.25, 0.5, 0.75))]
    np.testing.assert_allclose(angles, np.pi / 8 * np.arange(1, 4), rtol=1e-5)


def test_sounds_between_two_go_from_one_to_the_other(tiny, sound, tmp_path):
    other = tmp_path / "tone.wav"
    sf.write(other, 0.4 * np.sin(np.arange(500) / 5), RATE)
    written = transform(sound, tmp_path / "m.wav", tiny, {"other": str(other), "steps_between": 3, "steps": 12})
    assert [path.name for path in written.files] == ["m-1.wav", "m-2.wav", "m-3.wav"]
    made = np.stack([read(path)[0] for path in written.files])
    assert made.shape == (3, 500)
    start = np.pad(read(sound)[0], (0, 100))
    to_start = [float(np.linalg.norm(row - start)) for row in made]
    to_end = [float(np.linalg.norm(row - read(other)[0])) for row in made]
    assert to_start == sorted(to_start)
    assert to_end == sorted(to_end, reverse=True)
    record = json.loads(written.json.read_text())
    assert [row["weight"] for row in record["takes"]] == [0.25, 0.5, 0.75]
    assert (record["settings"]["sampler"], record["settings"]["steps_between"]) == ("heun", 3)  # what was used


def test_what_lies_between_two_clean_hits_is_no_rumble():
    """Hits without any noise of their own, which the shipped model was never trained on."""
    model = load("dance")
    rate, n = model.config.sample_rate, 16384
    t = np.arange(n) / rate
    kick = 0.8 * np.exp(-14 * t) * np.sin(2 * np.pi * (60 * t + 8 * (1 - np.exp(-30 * t))))
    burst = np.random.default_rng(0).standard_normal(n)
    snare = 0.24 * np.exp(-25 * t) * burst + 0.3 * np.exp(-20 * t) * np.sin(2 * np.pi * 190 * t)
    first, last = (vary.clip_of(sound[None], rate, model.config, n) for sound in (kick, snare))
    settings = vary.Settings(other="x", steps_between=1, steps=12)
    (made,) = vary.between(model, first, last, settings, lambda *_: None)
    power = np.abs(np.fft.rfft(made.audio[0])) ** 2
    assert power[np.fft.rfftfreq(n, 1 / rate) < 30].sum() < 0.02 * power.sum()
    assert abs(made.audio.mean()) < 0.01
    assert 0.1 < np.abs(made.audio).max() < 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strength": 0}, "strength = 0"),
        ({"gap": "0.01:0.02", "extend": 1}, "gap and extend are different"),
        ({"other": "b.wav", "count": 2}, "steps_between that says how many"),
        ({"other": "b.wav", "seed": 2}, "take no seed"),
        ({"other": "b.wav", "sampler": "ddim"}, "no sampler but heun"),
        ({"gap": "0.01:0.02", "strength": 0.3}, "strength is for variations, and gap"),
        ({"extend": 1, "strength": 0.5}, "strength is for variations, and extend"),
        ({"other": "b.wav", "strength": 0.5}, "strength is for variations, and other"),
        ({"steps_between": 3}, "steps_between is for sounds between two"),
        ({"cfg_scale": 2}, "ask for a kind"),
        ({"fidelity": 0.9}, "unknown setting 'fidelity'"),
        ({"gap": "1-2"}, "'1-2' is no gap"),
        ({"gap": "nan:0.2"}, "'nan:0.2' is no gap"),
        ({"gap": "0.02:0.02"}, "not inside the sound"),
        ({"gap": "0.02:5"}, "not inside the sound"),
        ({"gap": "0:0.05"}, "silent"),
        ({"extend": 1e-5}, "less than a sample"),
        ({"kind": "banjo"}, "no kind 'banjo'"),
        ({"other": "nope.wav"}, "nope.wav"),
    ],
)
def test_what_can_not_be_done_is_refused_before_anything_is_written(tiny, sound, tmp_path, values, message):
    with pytest.raises(InputError, match=message):
        transform(sound, tmp_path / "out.wav", tiny, values)
    assert [path.name for path in tmp_path.iterdir()] == ["hit.wav"]


@pytest.mark.parametrize(
    ("audio", "message"), [(np.zeros(400), "silent"), (np.array([0.5]), "too short"), (np.array([np.nan] * 9), "NaN")]
)
def test_sounds_that_are_none_are_refused(tiny, tmp_path, audio, message):
    sf.write(tmp_path / "a.wav", audio, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match=message):
        transform(tmp_path / "a.wav", tmp_path / "out.wav", tiny, {})
    assert not (tmp_path / "out.wav").exists()


def test_the_input_is_never_replaced(tiny, sound):
    before = sound.read_bytes()
    for values in ({}, {"gap": "0.01:0.02"}, {"extend": 0.1}):
        with pytest.raises(InputError, match="the input itself"):
            transform(sound, sound, tiny, values)
    assert sound.read_bytes() == before


def test_models_of_other_systems_transform_nothing(sound, tmp_path):
    with pytest.raises(InputError, match="conffusion and transforms nothing"):
        transform(sound, tmp_path / "out.wav", "conffusion")


def test_every_setting_is_a_flag_and_what_is_not_given_is_the_model_s_own():
    every = WAYS.fields()
    assert set(vary.Settings.model_fields) <= set(every)
    assert all(field.default is None for field in every.values())
    assert set(WAYS.flags) <= set(every)
    assert parse({}, vary.Settings, "here") == vary.Settings()


def test_the_command(tiny, sound, tmp_path, capsys):
    words = ["transform", sound, tmp_path / "v.wav", "--model", tiny, "--strength", "0.2", "--count", "2"]
    words += ["--steps", "2"]
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    assert not ended.value.code
    assert "v-2.wav" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in [*words[:5], *words[7:], "--gap", "7:8"]])
    assert ended.value.code == 3
    assert "not inside the sound" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in [*words, "--steps", "1"]])
    assert ended.value.code == 2
    assert "steps = 1" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in [*words, "--gap", "0.01:0.02"]])
    assert ended.value.code == 2
    assert "strength is for variations" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--bias", "0=1"), "tiny takes no --bias. It takes: --cfg-scale, --class, --count, --extend, --gap, "),
        (("--with", "b.wav", "--gap", "0.1:0.2"), "--with and --gap are different things to do"),
        (("--with", "b.wav", "--count", "2"), "it is --steps-between that says how many"),
        (("--with", "b.wav", "--strength", "0.2"), "--strength is for variations, and --with asks"),
        (("--steps-between", "0"), "--steps-between = 0: "),
        (("--cfg-scale", "2"), "--cfg-scale says how strictly a kind is kept to"),
    ],
)
def test_errors_name_flags_as_they_are_typed(tiny, sound, tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in ("transform", sound, tmp_path / "v.wav", "--model", tiny, *flags)])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_help_says_which_models_a_flag_is_for_and_its_range(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        cli.main(["transform", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "timbre transfer (rave)" in text
    first = "variations: 0.1 hardly changes it"
    for words in (first, "(above 0 and at most 1)", "(rave) axis=value", "(-10 to 10)"):
        assert words in text
    assert len(re.findall(r"\(dance[a-z, -]*\) ", text)) >= len(vary.Settings.model_fields)
    assert text.count("(rave) ") == 3
