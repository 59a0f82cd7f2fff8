"""Music of a sound: what is kept stays, strengths rank, the published mask is the published one."""

import json

import numpy as np
import pytest
import soundfile as sf
import tiny_riffusion
import torch
from PIL import Image
from scipy.stats import spearmanr

from sfumato import cli
from sfumato.diffusion import guide
from sfumato.errors import InputError
from sfumato.signal import complex_spectrogram, strength_map
from sfumato.systems import everyday
from sfumato.tasks import images, restyle, strength
from sfumato.tasks.restyle import Settings, given, mapped, restyled
from sfumato.tasks.transform import transform

TINY, CONFIG = tiny_riffusion.model(), tiny_riffusion.CONFIG
RATE, HALF = CONFIG.sample_rate, CONFIG.half


def sound(seconds=1.0, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    tone = 0.2 * np.sin(2 * np.pi * 440 * time) * (1 + np.sin(2 * np.pi * 3 * time))
    return np.stack([tone + 0.02 * rng.standard_normal(len(time)) for _ in range(channels)])


def changed(audio=None, **values):
    audio = sound() if audio is None else audio
    settings = Settings(**({"steps": 6, "cfg_scale": 1.0, "seed": 3} | values))
    return next(restyled(TINY, audio, RATE, settings))


def test_what_is_kept_in_time_stays_to_the_last_bit_that_counts():
    audio = sound(2.0)
    take = changed(audio, mask="1:1.6", strength=1.0)
    assert take.gain == 1.0
    difference = np.abs(take.audio - audio)[0]
    assert difference[: int(0.99 * RATE)].max() < 1e-6 and difference[int(1.62 * RATE) :].max() < 1e-6
    assert difference[int(1.2 * RATE) : int(1.4 * RATE)].max() > 0.01


def test_what_is_kept_in_frequency_stays_60_db_below():
    audio = 0.3 * sound(2.0)
    take = changed(audio, mask="0:9@2000:4000", strength=0.6)
    assert take.how["least_gain"] == 1.0
    low = np.abs(np.fft.rfft((take.audio - audio * take.gain)[0] * np.hanning(len(audio[0]))))
    before = np.abs(np.fft.rfft(audio[0] * np.hanning(len(audio[0]))))
    kept = np.fft.rfftfreq(len(audio[0]), 1 / RATE) < 1950
    assert 10 * np.log10((low[kept] ** 2).sum() / (before[kept] ** 2).sum()) < -60
    assert (low[~kept] ** 2).sum() > 10 * (low[kept] ** 2).sum()


def test_level_and_length_and_channels_are_kept():
    audio = 0.2 * np.concatenate([sound(), 0.01 * sound(seed=1), np.zeros((1, RATE))])
    for mask in (None, "high"):
        take = changed(audio, strength=0.6, mask=mask)
        assert take.audio.shape == audio.shape and take.how["least_gain"] == 1.0
        before, after = (np.sqrt(np.mean(x**2, axis=1)) for x in (audio, take.audio))
        np.testing.assert_allclose(after, before, rtol=0.02 if mask is None else 0.2)
        assert not take.audio[2].any()


def test_what_would_go_beyond_full_scale_is_turned_down_slowly():
    time = np.arange(2 * RATE) / RATE
    audio, change = np.zeros((2, len(time))), 0.4 * np.sin(2 * np.pi * 1000 * time)[None].repeat(2, axis=0)
    audio[0, 8000:8100] = 0.9
    factor = strength_map.room(audio, change, RATE)
    assert np.abs(audio + factor * change).max() <= 1 + 1e-12
    assert factor.min() == pytest.approx(0.1 / np.abs(change[0, 8000:8100]).max(), rel=0.05)
    assert (factor[: 8000 - 900] > 1 - 1e-9).all() and (factor[8100 + 900 :] > 1 - 1e-9).all()
    spectrum = np.abs(np.fft.rfft((factor * change)[0] * np.hanning(len(time)))) ** 2
    far = np.abs(np.fft.rfftfreq(len(time), 1 / RATE) - 1000) > 130  # beyond the margin of what is kept
    assert 10 * np.log10(spectrum[far].sum() / spectrum.sum()) < -60
    assert (strength_map.room(audio, 0.1 * change, RATE) == 1).all()
    audio[1, 100] = -1.5  # is beyond full scale by itself, which turning down what is new wouldn't mend
    assert (strength_map.room(audio, 0.1 * change, RATE) == 1).all()


def test_a_loud_sound_changes_as_much_as_a_quiet_one():
    """As mastered records are: hardly a sample is far from full scale, so what is drawn has to be turned down."""
    quiet = 0.1 * sound(2.0)
    loud = 0.99 * np.tanh(quiet / np.sqrt(np.mean(quiet**2)))
    for audio in (quiet, loud):
        take = changed(audio, strength=1.0)
        assert np.abs(take.audio).max() <= 1 + 1e-9 and take.how["clipped_values"] == 0
        assert abs(np.corrcoef(audio[0], take.audio[0])[0, 1]) < 0.1
    assert 0.1 < take.how["least_gain"] < 1


def test_what_is_beyond_full_scale_by_itself_is_counted(tmp_path):
    audio = sound(1.5)
    audio[0, 200:203] = (1.2, -1.3, 1.4)
    take = changed(audio, mask="0.5:1", strength=1.0)
    assert take.how["clipped_values"] == 3 and take.how["least_gain"] == 1.0


def test_channels_that_cancel_out_still_have_a_map():
    one = sound(1.0)
    take = changed(np.concatenate([one, -one]), mask="harmonic")
    assert take.how["mean_strength"] > 0.05
    with pytest.raises(InputError, match="NaN"):
        changed(np.full((1, RATE), np.nan))


@pytest.mark.parametrize(("audio", "said"), [(np.full((1, RATE), 0.3), "constant"), (sound()[:, :3], "3 samples")])
def test_a_sound_that_says_nothing_is_refused(audio, said):
    with pytest.raises(InputError, match=said):
        changed(audio)


def test_another_rate_comes_back_at_its_own():
    audio = np.random.default_rng(1).standard_normal((1, 11025)) * 0.1
    take = next(restyled(TINY, audio, 11025, Settings(steps=3, cfg_scale=1.0, mask="0.5:0.7")))
    assert take.audio.shape == audio.shape and take.sample_rate == 11025
    assert np.abs(take.audio - audio)[0, :5000].max() < 1e-4


def test_more_strength_changes_more():
    audio, strengths = sound(1.0), np.linspace(0.1, 1.0, 9)
    far = [float(np.abs(changed(audio, strength=s, steps=8).audio - audio).mean()) for s in strengths]
    assert spearmanr(strengths, far).statistic >= 0.95


def test_a_release_is_where_the_curve_says_and_0_is_never():
    curve = (0.1, 1.0, 10.0)
    found = everyday.release(torch.tensor([0.0, 0.5, 0.75, 1.0]), curve)
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 10**0.5, 10.0]))


def test_a_place_is_free_from_its_level_on_whatever_the_number_of_steps():
    for steps in (5, 12, 40):
        sigmas = torch.cat([torch.logspace(2, -2, steps), torch.zeros(1)])
        release = torch.tensor([0.0, 0.05, 1.0, 30.0, 100.0])
        hold = everyday.hold(release, sigmas)
        source, asked = torch.zeros(1, 5), []

        def denoise(x, sigma, /, asked=asked):
            asked.append(float(sigma[0]))
            return torch.ones_like(x)

        held = guide.strength(denoise, source, hold, sigmas)
        for sigma in sigmas[:-1].tolist():
            free = held(torch.zeros(1, 5), torch.tensor([sigma]))[0] == 1
            assert free.tolist() == [False, *(sigma <= level * (1 + 1e-5) for level in release[1:].tolist())]


def test_the_published_mask_is_that_of_the_picture():
    audio = sound(2.0)
    settings = Settings(mask="loudness", downshift=100, brightness=0.08, contrast=50)
    where = mapped(given(audio, RATE, CONFIG), settings, 10, CONFIG)
    own = given(audio, RATE, CONFIG).audio.mean(dim=0).numpy()[None]
    grey = images.draw(own, RATE, restyle.spectrogram_image.Parameters()).pixels[..., 0]
    expected = strength_map.loudness(grey, 0.08, 50, 100)
    assert set(np.unique((where.hold.numpy() * 255).round())) <= set(np.unique(expected))
    assert float(where.hold.max()) == pytest.approx((255 - 100) / 255, abs=1e-6)
    assert where.about["levels"] == len(np.unique(expected))
    tone = int(440 / (RATE / 2) * HALF)
    assert where.hold[tone].mean() > where.hold[-10:].mean()


@pytest.mark.parametrize("name", strength.SELECTORS)
def test_every_selector_gives_strengths(name):
    bins = complex_spectrogram.bins(torch.from_numpy(sound(2.0)), HALF)[0]
    found = strength.selected(name, bins, RATE)
    assert found.shape == tuple(bins.shape) and found.min() >= 0 and found.max() <= 1 and found.max() > 0.9


def test_selectors_select_what_they_say():
    time = np.arange(2 * RATE) / RATE
    tone = 0.2 * np.sin(2 * np.pi * 1000 * time)
    clicks = np.zeros_like(tone)
    clicks[RATE // 4 :: RATE // 2] = 1.0
    bins = complex_spectrogram.bins(torch.from_numpy((tone + clicks)[None]), HALF)[0]
    row, column = int(1000 / (RATE / 2) * HALF), round(RATE / 4 / HALF)
    quiet = column + round(0.12 * RATE / HALF)
    maps = {name: strength.selected(name, bins, RATE) for name in strength.SELECTORS}
    assert maps["harmonic"][row, quiet] > 0.95 and maps["harmonic"][50, column] < 0.2
    assert maps["percussive"][row, quiet] < 0.05 and maps["percussive"][50, column] > 0.8
    assert maps["onset"][0, column] > 0.9 and maps["onset"][0, quiet] < 0.1
    assert maps["loud"][row, quiet] > maps["loud"][50, quiet]
    np.testing.assert_allclose(maps["quiet"], 1 - maps["loud"])
    np.testing.assert_allclose(maps["low"] + maps["high"], 1)
    assert maps["low"][2, 0] == 1 and maps["gradient"][0, -1] == 1


def test_boxes_are_painted_the_later_over_the_earlier():
    found = strength.boxes("0.5:1=0.4, 0.6:0.8@1000:2000", HALF, 126, RATE)
    frame, row = round(0.7 * RATE / HALF), int(1500 / (RATE / 2) * HALF)
    assert found[row, frame] == 1.0 and found[2, frame] == 0.4 and found[2, 0] == 0
    assert strength.boxes(":", HALF, 20, RATE).min() == 1


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("m.jpg", "'m.jpg' is no PNG. A mask file is a grey PNG"),
        ("banjo", "no mask 'banjo'. Give one of all, loud"),
        ("1:2@", "is no box"),
        ("9:10", "holds nothing of the sound"),
        ("0:1=3", "strength of 3"),
        ("no.png", "can't be read as a picture"),
        ("0:1=0", "keeps everything"),
    ],
)
def test_masks_that_can_not_be_used_are_refused(mask, message):
    with pytest.raises(InputError, match=message):
        changed(mask=mask)


def test_a_picture_is_a_mask_white_kept(tmp_path):
    path = tmp_path / "m.png"
    grey = np.full((50, 40), 255, np.uint8)
    grey[:, 20:] = 0
    Image.fromarray(grey).save(path)
    audio = sound(2.0)
    take = changed(audio, mask=str(path), strength=1.0)
    difference = np.abs(take.audio - take.gain * audio)[0]
    assert difference[: int(0.9 * RATE)].max() < 1e-6 < difference[int(1.2 * RATE) :].max()
    turned = changed(audio, mask=str(path), strength=1.0, invert=True)
    assert np.abs(turned.audio - turned.gain * audio)[0, int(1.1 * RATE) :].max() < 1e-6
    Image.fromarray(np.stack([grey, grey // 2, grey], axis=-1)).save(path)
    with pytest.raises(InputError, match="in colours"):
        changed(audio, mask=str(path))
    Image.fromarray(grey).save(tmp_path / "m.jpg.png", format="JPEG")
    with pytest.raises(InputError, match="is a JPEG"):
        changed(audio, mask=str(tmp_path / "m.jpg.png"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"downshift": 3}, "downshift is for the mask loudness"),
        ({"invert": True}, "invert turns a mask"),
        ({"prompt": "a", "then": "b"}, "then takes alpha"),
        ({"strength": 0}, "greater than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Settings(**values)


def test_silence_is_refused_and_a_second_is_enough():
    with pytest.raises(InputError, match="silent"):
        changed(np.zeros((1, RATE)))
    assert changed(sound(0.05)).audio.shape[1] == round(0.05 * RATE)


def test_limited_changes_end_before_what_is_kept_and_pieces_are_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    n = 16 * 2048
    change = torch.from_numpy(rng.standard_normal((1, n)))
    free = torch.zeros(256, n // 256 + 1, dtype=torch.bool)
    free[60:160, 30:90] = True
    whole = strength_map.limited(change, free)
    monkeypatch.setattr(strength_map, "SEGMENT", 16)
    torch.testing.assert_close(strength_map.limited(change, free), whole)
    assert not whole[:, : 28 * 256 - 512].any()
    torch.testing.assert_close(strength_map.limited(change, torch.ones_like(free)), change)


def test_files_and_the_command(tmp_path, capsys):
    folder = tiny_riffusion.folder(tmp_path / "tiny")
    sf.write(tmp_path / "in.wav", sound(1.0, channels=2).T, RATE)
    before = (tmp_path / "in.wav").read_bytes()
    words = ["transform", tmp_path / "in.wav", tmp_path / "out.wav", "--model", folder, "--prompt", "lo-fi piano"]
    words += ["--mask", "harmonic", "--steps", "3", "--count", "2", "--pictures"]
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    assert not ended.value.code
    assert "out-sheet.png" in capsys.readouterr().out
    assert sf.info(tmp_path / "out-2.wav").channels == 2
    record = json.loads((tmp_path / "out.wav.json").read_text())
    assert record["settings"]["mask"] == "harmonic" and 0 < record["takes"][0]["mean_strength"] < 1
    assert (tmp_path / "in.wav").read_bytes() == before
    with pytest.raises(InputError, match="input itself"):
        transform(tmp_path / "in.wav", tmp_path / "in.wav", folder)
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(InputError, match=r"m\.png is the input itself"):
        asked = {"mask": str(tmp_path / "m.png"), "pictures": True}
        transform(tmp_path / "in.wav", tmp_path / "m.wav", folder, asked)
