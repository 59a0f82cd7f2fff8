"""Music from words: lengths, loops, one seed whatever the length and the number, and what prompts are refused."""

import json
import math

import numpy as np
import pytest
import soundfile as sf
import tiny_riffusion
import torch
from PIL import Image

from sfumato import cli
from sfumato.diffusion import guide, noise, sample
from sfumato.errors import InputError
from sfumato.signal import complex_spectrogram
from sfumato.systems import riffusion
from sfumato.tasks import budget, loops, music, stretches
from sfumato.tasks.generate import generate, generate_files
from sfumato.tasks.music import How, Settings, denoiser_of, sigmas_of
from sfumato.tasks.prompts import Asked, notes_on, wanted_of
from sfumato.tasks.stretches import Walk

TINY = tiny_riffusion.model()
CONFIG = tiny_riffusion.CONFIG
RATE, HALF = CONFIG.sample_rate, CONFIG.half


def drawn(**values):
    return list(generate(TINY, {"steps": 3, "seed": 5, "cfg_scale": 1.0} | values))


def test_a_sound_is_the_same_however_many_are_made_and_however_long_it_is():
    one, three = drawn(seconds=0.1), drawn(seconds=0.1, count=3)
    assert np.array_equal(one[0].audio, three[0].audio)
    assert not np.array_equal(three[0].audio, three[1].audio)
    long = drawn(seconds=1.3)[0]
    n = one[0].audio.shape[1] - round(0.005 * RATE)  # its end fades
    assert np.array_equal(one[0].audio[:, :n] / one[0].gain, long.audio[:, :n] / long.gain)
    assert not np.array_equal(one[0].audio, drawn(seconds=0.1, seed=6)[0].audio)


@pytest.mark.parametrize("seconds", [0.001, 0.1, 0.1001, 1.7])
def test_every_length_is_met_to_the_sample(seconds):
    assert drawn(seconds=seconds, steps=2)[0].audio.shape == (1, round(seconds * RATE))


def test_memory_is_a_window_s_however_long_the_sound():
    seen = []
    hook = TINY.network.register_forward_hook(lambda module, given, out: seen.append(given[0].shape[-1]))
    drawn(seconds=3.0, steps=2)
    hook.remove()
    assert set(seen) == {CONFIG.window}


def gaussian(x, sigma, /):
    """The exact denoiser of independent numbers of variance 1."""
    return x / (1 + sigma[:, None, None, None] ** 2)


def test_stretches_are_one_walk_where_places_do_not_see_each_other():
    sigmas = sigmas_of(CONFIG, 5)
    walk = Walk(lambda second: gaussian, sigmas, "dpmpp_2m", 3, 1)
    whole = torch.cat(list(stretches.pictures(CONFIG, walk, 40)), dim=-1)
    x = noise.scroll((2, HALF), 0, whole.shape[-1], seed=3, item=1)(0) * float(sigmas[0])
    torch.testing.assert_close(whole, sample.last(sample.dpmpp_2m(gaussian, x, sigmas)))


def test_a_stretch_sees_the_end_before_it_as_it_was_at_its_noise_level():
    seen = []

    def denoise(x, sigma, /):
        seen.append((float(sigma[0]), x.clone()))
        return gaussian(x, sigma) + 0.1 * x.roll(1, dims=-1) / (1 + sigma[:, None, None, None])

    overlap = stretches.overlap_of(CONFIG)
    first, second = (
        dict(list(guided)) for guided in _halves(seen, stretches.pictures(CONFIG, _walk(denoise), CONFIG.window + 1))
    )
    assert first.keys() == second.keys()
    for level in first:
        assert second[level].shape[-1] == CONFIG.window
        torch.testing.assert_close(second[level][..., :overlap], first[level][..., -overlap:])


def _walk(denoise):
    return Walk(lambda second: denoise, sigmas_of(CONFIG, 4), "dpmpp_2m", 0, 0)


def _halves(seen, made):
    """What was seen in the first stretch, and in the second."""
    made = iter(made)
    next(made)
    n = len(seen)
    next(made)
    return seen[:n], seen[n:]


def test_the_sound_of_stretches_is_the_sound_of_their_whole():
    walk = Walk(lambda second: gaussian, sigmas_of(CONFIG, 3), "euler", 2, 0)
    pieces = list(stretches.pictures(CONFIG, walk, 60))
    whole = torch.cat(pieces, dim=-1).double()
    bins = complex_spectrogram.unpicture(whole, RATE)
    expected = complex_spectrogram.sound(bins, (whole.shape[-1] - 1) * HALF)
    np.testing.assert_allclose(np.concatenate(list(stretches.sounds(pieces, CONFIG)), axis=1), expected, atol=1e-12)


@pytest.mark.parametrize("settings", [{"bpm": 97.3, "bars": 2}, {"bpm": 174.0}, {"seconds": 1.234}])
def test_a_loop_has_its_exact_length_and_says_how_it_was_tuned(settings):
    take = drawn(loop=True, steps=2, **settings)[0]
    n = round(settings.get("bars", 1) * 4 * 60 * RATE / settings["bpm"]) if "bpm" in settings else round(1.234 * RATE)
    assert take.audio.shape == (1, n)
    assert 1200 * math.log2(round(n / HALF / 4) * 4 * HALF / n) == pytest.approx(take.how["tuned_cents"])


def test_a_loop_turned_is_the_loop_of_turned_noise_and_windows():
    frames, turned = 32, 8
    sigmas = sigmas_of(CONFIG, 3)
    plain = stretches.loop(CONFIG, Walk(lambda s: denoiser_of(TINY), sigmas, "euler", 1, 0), frames, lambda n: 3)

    class Turned(Walk):
        def noise(self, shape, first, n, second):
            own = super().noise(shape, first, n, second)
            return lambda step: own(step).roll(turned, dims=-1)

    walk = Turned(lambda s: denoiser_of(TINY), sigmas, "euler", 1, 0)
    moved = stretches.loop(CONFIG, walk, frames, lambda n: (3 + turned) % n)
    torch.testing.assert_close(moved, plain.roll(turned, dims=-1), rtol=1e-4, atol=1e-4)


def test_windows_of_a_loop_begin_where_phases_repeat():
    starts = []

    def denoise(x, sigma, /):
        starts.append(int(x[0, 0, 0, 0].real))
        return torch.zeros_like(x)

    x = torch.arange(36.0).expand(1, 2, 3, 36)
    guide.circle(denoise, 16, 8, lambda n: 8, grid=4)(x, torch.ones(1))
    assert all(start % 4 == 0 for start in starts)
    assert len(set(starts)) == len(starts)


def test_words_tempo_and_key_change_what_is_drawn_and_guidance_does():
    plain = drawn(seconds=0.2)[0].audio
    others = [{"prompt": "piano"}, {"prompt": "drums"}, {"bpm": 90.0}, {"key": "Am"}, {"key": "A"}]
    strict = {"prompt": "piano", "cfg_scale": 4.0}
    others += [{"negative": "drums", "cfg_scale": 4.0}, strict, strict | {"negative": "drums"}]
    made = [plain, *(drawn(seconds=0.2, **other)[0].audio for other in others)]
    for i, a in enumerate(made):
        assert not any(np.allclose(a, b, atol=1e-6) for b in made[i + 1 :])


def test_the_way_to_another_prompt_has_both_ends():
    start, end = (drawn(seconds=0.2, prompt=p)[0].audio for p in ("piano", "drums"))
    at = {a: drawn(seconds=0.2, prompt="piano", then="drums", alpha=a)[0].audio for a in (0.0, 0.5, 1.0)}
    assert np.array_equal(at[0.0], start) and np.array_equal(at[1.0], end)
    assert not np.allclose(at[0.5], start) and not np.allclose(at[0.5], end)
    other = drawn(seconds=0.2, prompt="drums", seed=9)[0].audio
    there = drawn(seconds=0.2, prompt="piano", then="drums", alpha=1.0, then_seed=9)[0].audio
    np.testing.assert_allclose(there, other, atol=1e-5)


def test_a_journey_begins_at_the_first_prompt_and_ends_at_the_second():
    ways = []
    settings = Settings(prompt="a", then="b", seconds=3.0)
    frames = stretches.frames_of(round(3 * RATE), CONFIG)
    count = stretches.n_stretches(CONFIG, frames)
    more = CONFIG.window - stretches.overlap_of(CONFIG)
    last = (count - 1) * more * HALF / RATE
    for k in range(count):
        second = (0 if k == 0 else CONFIG.window + (k - 1) * more) * HALF / RATE
        ways.append(music._way(settings, last, second))
    assert ways[0] == 0.0 and ways[-1] == 1.0 and ways == sorted(ways)


def test_guidance_outside_its_noise_levels_costs_nothing():
    calls = []
    hook = TINY.network.register_forward_hook(lambda *_: calls.append(1))
    low = denoiser_of(TINY, Asked(prompt="piano"), How(3, 3.0, (1.0, 5.0)))
    x = torch.zeros(1, 2, HALF, CONFIG.window)
    with torch.no_grad():
        low(x, torch.tensor([10.0]))
        outside = len(calls)
        low(x, torch.tensor([3.0]))
    hook.remove()
    assert (outside, len(calls)) == (1, 3)


def test_a_budget_spends_what_it_has_and_no_more():
    levels = lambda steps: sigmas_of(CONFIG, steps)  # noqa: E731
    for allowed in range(budget.GUIDED_FROM, 60):
        steps, guided = budget.share(allowed, True, (0.3, 20.0), levels)
        inside = int(((levels(steps)[:-1] > 0.3) & (levels(steps)[:-1] <= 20)).sum())
        assert guided == (0.3, 20.0) and steps + inside <= allowed
    assert budget.share(5, True, (0.3, 20.0), levels) == (5, None)
    assert budget.share(500, False, (0.3, 20.0), levels) == (budget.MOST, None)
    assert budget.evaluations(2.0, 0.1, 1) == 17
    with pytest.raises(InputError, match=r"too few: it takes 7\.1 s"):
        budget.evaluations(2.0, 0.2, 10)
    assert [budget.parsed(text) for text in ("2s", "500ms", "1.5", ".5 min")] == [2.0, 0.5, 1.5, 30.0]


def test_a_budget_draws_of_the_same_noise(monkeypatch):
    monkeypatch.setattr(budget, "seconds_of", lambda evaluate: 0.1)
    take = drawn(seconds=0.1, budget="1s")[0]
    assert take.how["steps"] == 8
    assert np.array_equal(take.audio, drawn(seconds=0.1, steps=8)[0].audio)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"then": "drums"}, "give a prompt, too"),
        ({"prompt": "a", "alpha": 0.5}, "give then"),
        ({"prompt": "a", "then": "b", "loop": True, "bpm": 90}, "a loop arrives nowhere"),
        ({"then_seed": 3}, "then_seed goes with then"),
        ({"key": "H"}, "there is no key 'H'"),
        ({"bpm": 5}, "greater than or equal to 30"),
        ({"bpm": 900}, "less than or equal to 300"),
        ({"budget": "soon"}, "no time"),
        ({"budget": "0s"}, "no time"),
        ({"loop": True}, "either bpm, with bars, or seconds"),
        ({"guided": (3.0, 1.0)}, "lower one first"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        drawn(**values)


def test_an_empty_prompt_is_none():
    assert wanted_of(Asked(prompt="   ")) is None
    assert np.array_equal(drawn(seconds=0.1, prompt="")[0].audio, drawn(seconds=0.1)[0].audio)


def test_what_is_not_read_of_a_prompt_is_said():
    assert notes_on(Asked(prompt="piano")) == ()
    (note,) = notes_on(Asked(prompt="piano " * 2000))
    assert "only the first 254 word pieces" in note
    with pytest.raises(InputError, match="Write it in English"):
        notes_on(Asked(prompt="ᚠᚢᚦ ᚨᚱᚲ"))
    with pytest.raises(InputError, match="characters is too long"):
        notes_on(Asked(prompt="x" * 100_001))


@pytest.mark.parametrize("prompt", ["тихое пианино", "ήσυχο πιάνο", "بيانو هادئ", "しずかなピアノ", "piano тихо"])
def test_letters_that_are_not_latin_are_noted_where_every_piece_is_known(prompt):
    """All but one of these have no unknown piece: the encoder's vocabulary has their letters one by one."""
    for asked in (Asked(prompt=prompt), Asked(prompt="rain", then=prompt), Asked(prompt="rain", negative=prompt)):
        notes = notes_on(asked)
        assert len([note for note in notes if "letters" in note and "write it in English" in note]) == 1


@pytest.mark.parametrize("prompt", ["a piano's é, naïve café", "piano in π", "120 ♩ ♪", "piano ля", "klavier für zwei"])
def test_latin_letters_and_single_signs_are_not_noted(prompt):
    assert not [note for note in notes_on(Asked(prompt=prompt)) if "letters" in note]


@pytest.mark.parametrize("prompt", ["<rain & start>@<bell", "rain > bell", "(<rain:1.2) & later>", "<rain start>"])
def test_an_order_that_can_not_be_read_is_refused(prompt):
    with pytest.raises(InputError, match="<rain & start>@<bell & end>"):
        drawn(seconds=0.1, prompt=prompt)


def test_an_order_may_hold_weights_and_stand_beside_words():
    assert notes_on(Asked(prompt="<(rain:1.3) & start>@<bell & end> (drum) (gong:0.41)")) == ()


def test_files_their_record_and_their_pictures(tmp_path):
    folder = tiny_riffusion.folder(tmp_path / "tiny")
    out = tmp_path / "a.wav"
    settings = {"steps": 2, "count": 2, "prompt": "piano", "bpm": 96.0, "seconds": 0.3, "pictures": True}
    written = generate_files(out, folder, settings)
    record = json.loads(written.json.read_text())
    assert record["settings"]["prompt"] == "piano" and record["model"]["system"] == "riffusion"
    again = next(iter(generate(folder, record["settings"])))
    np.testing.assert_allclose(sf.read(tmp_path / "a-1.wav")[0], again.audio[0], atol=2**-23)
    assert [path.name for path in written.pictures] == ["a-1.png", "a-2.png", "a-sheet.png"]
    for path in written.pictures:
        with Image.open(path) as image:
            assert image.size[0] > 300 and len(np.unique(np.asarray(image.convert("L")))) > 50
            assert image.text["Software"] == "sfumato"
            told = json.loads(image.text["sfumato"])
        if path.stem == "a-sheet":
            assert told["count"] == 2 and "item" not in told
        else:
            with sf.SoundFile(path.with_suffix(".wav")) as sound:
                assert json.loads(sound.comment) == told
        assert told["settings"] == {"steps": 2, "prompt": "piano", "bpm": 96.0, "seconds": 0.3}


def test_the_command(tmp_path, capsys):
    folder = tiny_riffusion.folder(tmp_path / "tiny")
    words = ["generate", tmp_path / "l.wav", "--model", folder, "--prompt", "drums", "--loop", "--bpm", "120"]
    words += ["--steps", "2", "--key", "Cm"]
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    assert not ended.value.code
    assert sf.info(tmp_path / "l.wav").frames == 2 * RATE
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in [*words, "--class", "kick"]])
    assert ended.value.code == 2
    assert "takes no --class. It takes: --alpha, --bars" in capsys.readouterr().err


def test_the_loss_is_that_of_v_with_bands_alike():
    """With a network that guesses 0, v's error is v itself: alpha noise - sigma clean, by hand."""
    batch_noise = noise.BatchNoise(1, 0, 3)
    audio = torch.randn(3, CONFIG.n_samples, generator=torch.Generator().manual_seed(2)) * 0.1
    words = torch.zeros(3, 384), torch.zeros(3, 1, 384), torch.zeros(3, 1, dtype=torch.bool)
    batch = dict(zip(("sentence", "tokens", "valid"), words, strict=True))
    batch |= {"audio": audio, "bpm": torch.zeros(3), "key": torch.zeros(3, dtype=torch.long)}
    network = lambda x, label, wanted: torch.zeros_like(x)  # noqa: E731
    found = riffusion.loss(network, batch, CONFIG, batch_noise, "denoise")["total"]
    clean = complex_spectrogram.picture(complex_spectrogram.bins(audio, HALF, ends=False), RATE)
    sigma = torch.exp(CONFIG.sigma_mean + CONFIG.sigma_std * torch.special.ndtri(batch_noise.stratified(0))).float()
    alpha, own = (1 / (1 + sigma**2).sqrt())[:, None, None, None], (sigma / (1 + sigma**2).sqrt())[:, None, None, None]
    v = alpha * batch_noise(1, clean.shape[1:]) - own * clean
    rows = [block.mean() for width, start, stop in _rows() for block in [(v[:, :, start:stop] ** 2)] if width]
    torch.testing.assert_close(found, torch.stack(rows).mean(), rtol=1e-4, atol=1e-5)


def _rows():
    """Width and bins of each row."""
    start = 0
    for count, width in CONFIG.network.bands:
        for _ in range(count):
            yield width, start, start + width
            start += width


def test_what_a_stretch_leaves_is_no_more_than_its_end():
    kept = []
    original = guide.follow

    def follow(denoise, trail):
        kept.extend(state.untyped_storage().nbytes() / (state.numel() * 4) for state in trail.values())
        return original(denoise, trail)

    stretches.guide.follow, before = follow, stretches.guide.follow
    try:
        list(stretches.pictures(CONFIG, _walk(gaussian), CONFIG.window + 1))
    finally:
        stretches.guide.follow = before
    assert kept and max(kept) == 1.0


def test_a_budget_counts_windows_and_evaluations(monkeypatch):
    counted = []
    monkeypatch.setattr(budget, "seconds_of", lambda evaluate: 0.1)
    monkeypatch.setattr(budget, "evaluations", lambda b, s, windows: counted.append((s, windows)) or 8)
    drawn(seconds=0.1, budget="9s", sampler="heun")
    drawn(seconds=2.0, loop=True, budget="9s")
    assert counted[0] == (0.2, 1)
    assert counted[1] == (0.1, -(-round(2 * RATE / HALF / 4) * 4 // (CONFIG.window // 2)))


def test_a_way_to_another_prompt_takes_more_than_a_stretch():
    with pytest.raises(InputError, match="Give more seconds, or alpha"):
        drawn(seconds=0.1, prompt="a", then="b")


def test_a_loop_that_is_out_of_tune_says_so(tmp_path):
    folder = tiny_riffusion.folder(tmp_path / "tiny")
    written = generate_files(tmp_path / "l.wav", folder, {"loop": True, "seconds": 0.57, "steps": 2})
    cents = json.loads(written.json.read_text())["takes"][0]["tuned_cents"]
    assert abs(cents) > loops.HEARD_CENTS and f"{cents:+.0f} cents" in written.notes[0]
