"""Make-An-Audio from a folder of sounds to sounds: trained, drawn, guided, changed and painted in miniature."""

import json
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import sklearn.datasets
import soundfile as sf
import tiny_sounds
import torch
import turned
from PIL import Image
from scipy.signal.windows import blackmanharris

from sfumato import model, preset
from sfumato.data import mel_latents
from sfumato.data.examples import DataSettings
from sfumato.errors import InputError, ModelError
from sfumato.networks.mel_vae import STEP
from sfumato.signal.log_mel import HOP, SILENCE, log_mel
from sfumato.systems import make_an_audio
from sfumato.tasks import latent_change, latent_music
from sfumato.tasks.latent_change import Settings as Changing
from sfumato.tasks.latent_music import Drawn, Settings
from sfumato.wanted import Wanted, nothing

RATE = 16000
QUICK = {"steps": 3, "vocoder_steps": 2, "seconds": 0.4}
ONCE = ["train.steps=3", "train.batch_size=2", "data.validation_examples=0"]


def quiet(done, total, text):
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The generator and what it needs, each trained for three steps on a folder of tones."""
    root = tmp_path_factory.mktemp("make-an-audio")
    sounds = tiny_sounds.write(root / "sounds")
    for part in ("mel-vae", "mel-vocoder"):
        preset.train(preset.load(f"{part}-tiny", ONCE), sounds, root / part)
    given = [f"config.vae={root / 'mel-vae'}", f"config.vocoder={root / 'mel-vocoder'}"]
    preset.train(preset.load("make-an-audio-tiny", [*ONCE, *given]), sounds, root / "out")
    return root


@pytest.fixture(scope="module")
def generator(trained):
    """The same with weights that make it say something."""
    loaded = model.load(trained / "out")
    torch.manual_seed(2)
    with torch.no_grad():
        for weight in loaded.network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return loaded


def told(seed: int, n: int = 1) -> Wanted:
    g = torch.Generator().manual_seed(seed)
    return Wanted(
        torch.randn(n, 384, generator=g) / 384**0.5,
        torch.randn(n, 3, 384, generator=g),
        torch.ones(n, 3, dtype=torch.bool),
        torch.zeros(n),
        torch.zeros(n, dtype=torch.long),
    )


def test_it_trains_on_latents_of_unit_size_and_is_bound_to_its_autoencoder(trained):
    loaded = model.load(trained / "out")
    vae = model.load(trained / "mel-vae")
    assert loaded.config.vae_digest == make_an_audio.digest_of(vae)
    measured = replace(vae, card=vae.card.model_copy(update={"figures": {"error_db": 3.0}}))
    assert make_an_audio.digest_of(measured) == make_an_audio.digest_of(vae)
    plan = preset.load("make-an-audio-tiny", [f"config.vae={trained / 'mel-vae'}"])
    rows = preset.recordings(trained / "sounds")
    data = mel_latents.examples(
        rows, trained / "sounds", trained, "train", plan.config, DataSettings(examples=6), quiet
    )
    batch = data.batch(0, 0, 6, 0, 1)
    assert batch["latents"].shape == (6, *plan.config.shape) and batch["sentence"].shape == (6, 384)
    assert 0.3 < float(batch["latents"].std()) < 3
    again = data.batch(0, 1, 6, 0, 1)
    assert torch.equal(again["latents"], batch["latents"]) and torch.equal(again["sentence"], batch["sentence"])
    audio, *_ = data.sounds.item(0, 3)
    mel = log_mel(torch.from_numpy(audio)[None], RATE)[..., 2 : 2 + plan.config.n_frames * STEP]
    torch.testing.assert_close(batch["latents"][3], vae.network.encode(mel)[0], atol=2e-3, rtol=2e-3)


def test_another_autoencoder_a_missing_and_a_wrong_one_are_refused(trained):
    config = model.load(trained / "out").config
    with pytest.raises(ModelError, match="another one than this generator"):
        make_an_audio.vae_of(config.model_copy(update={"vae_digest": "0" * 64}))
    with pytest.raises(ModelError, match=r"not here.*config\.vae"):
        make_an_audio.vae_of(config.model_copy(update={"vae": "/no/such/folder"}))
    with pytest.raises(ModelError, match="give a mel_vocoder"):
        make_an_audio.vocoder_of(config.model_copy(update={"vocoder": config.vae}))


@torch.no_grad()
def test_guidance_leads_on_from_the_unconditional_guess_to_the_conditional_one(generator):
    network, config = generator.network, generator.config
    x, sigma = torch.randn(2, *config.shape), torch.tensor([0.5, 2.0])
    wanted, unwanted = told(1), told(2)

    def guess(*how):
        return make_an_audio.denoiser(network, config, *how)(x, sigma)

    conditional, free, away = guess(wanted), guess(), guess(unwanted)
    assert float((conditional - free).abs().max()) > 1e-3
    assert torch.equal(guess(wanted, None, 1.0), conditional)
    torch.testing.assert_close(guess(wanted, None, 3.0), free + 3 * (conditional - free), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(guess(wanted, unwanted, 3.0), away + 3 * (conditional - away), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(guess(nothing(2, 384)), free)


def test_sounds_are_as_long_as_asked_and_the_same_however_many_are_drawn(generator):
    several = list(latent_music.takes(generator, Settings(**QUICK, prompt="a bell", count=2, seed=4)))
    alone = next(latent_music.takes(generator, Settings(**QUICK, prompt="a bell", seed=4)))
    long = next(latent_music.takes(generator, Settings(**QUICK | {"seconds": 1.9}, prompt="a bell", seed=4)))
    assert several[0].audio.shape == (1, 6400) and long.audio.shape == (1, 30_400) and several[0].sample_rate == RATE
    np.testing.assert_array_equal(several[0].audio, alone.audio)
    assert np.abs(several[1].audio - alone.audio).max() > 1e-4 < np.abs(alone.audio).max()


def test_what_is_drawn_depends_on_the_prompt_and_on_the_seed(generator):
    parts = latent_music.parts_of(generator)

    def latents(**said):
        settings = Drawn(steps=3, **said)
        chosen = latent_music.how(generator, parts, settings, 8, 1)
        return latent_music.drawn(generator, settings, chosen, 8, 0)

    bell = latents(prompt="a bell")
    assert torch.equal(latents(prompt="a bell"), bell)
    for other in ({"prompt": "rain on a roof"}, {"prompt": "a bell", "seed": 1}, {"prompt": "a bell", "key": "Am"}):
        assert float((latents(**other) - bell).abs().max()) > 1e-3


def test_by_default_a_sound_takes_one_window(generator):
    config = generator.config
    n = latent_music.length_of(Settings(), config)
    assert latent_music.frames_of(n, config) == config.n_frames < latent_music.frames_of(n + HOP, config)
    assert log_mel(torch.zeros(1, n), RATE).shape[2] == config.n_frames * STEP


@pytest.mark.parametrize("length", [{"bpm": 174.0}, {"bpm": 290.0, "bars": 2, "beats": 3}, {"seconds": 0.777}])
def test_a_loop_has_its_exact_length_and_is_the_same_however_many_are_drawn(generator, length):
    asked = {"steps": 2, "vocoder_steps": 2, "loop": True, "seed": 4, **length}
    several = list(latent_music.takes(generator, Settings(**asked, count=2)))
    alone = next(latent_music.takes(generator, Settings(**asked)))
    seconds = asked.get("bars", 1) * asked.get("beats", 4) * 60 / asked["bpm"] if "bpm" in asked else asked["seconds"]
    n = round(seconds * RATE)
    assert [one.audio.shape for one in several] == [(1, n)] * 2
    drawn = round(n / 1024) * 1024  # whole latent frames
    assert alone.how["tuned_cents"] == pytest.approx(1200 * np.log2(drawn / n))
    np.testing.assert_array_equal(several[0].audio, alone.audio)
    assert np.abs(several[1].audio - alone.audio).max() > 1e-4


def test_a_loop_turned_is_the_loop_of_turned_noise_and_windows(generator, monkeypatch):
    """So its wrap is a place like every other, for generator, decoder, vocoder and levelling; a mere sound has ends."""
    asked = {"steps": 3, "vocoder_steps": 2, "seconds": 0.64}
    loop = turned.largest_difference(monkeypatch, latent_music, generator, Settings(**asked, loop=True))
    sound = turned.largest_difference(monkeypatch, latent_music, generator, Settings(**asked))
    assert loop < 1e-4 < 0.1 < sound


def test_a_loop_s_file_says_how_it_was_tuned(generator, tmp_path):
    settings = Settings(steps=2, vocoder_steps=2, loop=True, seconds=0.6, pictures=True)
    written = latent_music.files(generator, tmp_path / "loop.wav", settings, quiet)
    record = json.loads(written.json.read_text())
    assert sf.info(written.files[0]).frames == record["loop_samples"] == 9600
    assert f"{record['takes'][0]['tuned_cents']:+.0f} cents" in written.notes[-1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loop": True}, "either bpm, with bars, or seconds"),
        ({"loop": True, "bpm": 90, "seconds": 2}, "either bpm, with bars, or seconds"),
        ({"bars": 2, "bpm": 90}, "bars and beats are for a loop"),
        ({"loop": True, "seconds": 2, "prompt": "a", "then": "b"}, "a loop arrives nowhere"),
    ],
)
def test_loops_that_mean_nothing_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Settings(**settings)


def test_a_loop_that_is_too_short_or_too_long_is_refused(generator):
    with pytest.raises(InputError, match=r"at least 0\.5 s"):
        next(latent_music.takes(generator, Settings(loop=True, seconds=0.3)))
    with pytest.raises(InputError, match="to 300 s"):
        next(latent_music.takes(generator, Settings(loop=True, bpm=60, bars=1000)))


def test_files_and_their_record(generator, tmp_path):
    settings = Settings(**QUICK, prompt="a bell", negative="noise", budget="30s", pictures=True)
    written = latent_music.files(generator, tmp_path / "bell.wav", settings, quiet)
    assert sf.info(written.files[0]).frames == 6400 and len(written.pictures) == 1
    with pytest.raises(InputError, match="too few"):
        next(latent_music.takes(generator, Settings(**QUICK, budget="1ms")))


def sound(seconds: float) -> np.ndarray:
    at = np.arange(int(seconds * RATE)) / RATE
    return 0.3 * np.sin(2 * np.pi * 300 * at)[None] + 0.1 * np.random.default_rng(0).standard_normal((1, len(at)))


def test_a_small_strength_changes_little_of_a_picture_and_a_full_one_all(generator):
    parts, config = latent_music.parts_of(generator), generator.config
    mel = log_mel(torch.from_numpy(sound(1.2)).float(), RATE)
    source = latent_change.latents_of(parts, mel, config)
    settings = Drawn(steps=20, vocoder_steps=2, cfg_scale=1.0)
    chosen = latent_music.how(generator, parts, settings, source.shape[3], 1)
    made = {
        strength: latent_music.drawn(
            generator, settings, chosen, source.shape[3], 0, source=source, strength=strength
        )
        for strength in (0.05, 0.5, 1.0)
    }
    change = {strength: float((latents - source).abs().mean()) for strength, latents in made.items()}
    assert change[0.05] < 0.1 and change[0.05] < change[0.5] < change[1.0]
    free = latent_music.drawn(generator, settings, chosen, source.shape[3], 0)
    assert torch.equal(made[1.0], free)  # of the sound nothing is left


def test_what_becomes_of_a_sound_keeps_its_length_and_about_its_level(generator):
    settings = Changing(steps=3, vocoder_steps=2, prompt="a bell", strength=0.5)
    quieter = next(latent_change.changed(generator, 0.02 * sound(0.5), RATE, settings))
    louder = next(latent_change.changed(generator, 2 * 0.02 * sound(0.5), RATE, settings))
    assert quieter.audio.shape == (1, 8000)
    np.testing.assert_allclose(louder.audio, 2 * quieter.audio, atol=1e-3 * np.abs(louder.audio).max())
    with pytest.raises(InputError, match="silent"):
        next(latent_change.changed(generator, np.zeros((2, 4000)), RATE, settings))
    with pytest.raises(InputError, match="NaN"):
        next(latent_change.changed(generator, np.full((1, 4000), np.nan), RATE, settings))


def test_painting_keeps_known_cells_and_samples_and_draws_the_rest(generator):
    parts = latent_music.parts_of(generator)
    audio = 1.8 * sound(1.5)
    audio /= np.abs(audio).max()  # at full scale: what is kept is not turned down, whatever is drawn
    mel = log_mel(torch.from_numpy(audio).float(), RATE)
    known = torch.ones(mel.shape[1:], dtype=torch.bool)
    known[:, 40:56] = False
    known[60:, :12] = False
    settings = Drawn(steps=3, vocoder_steps=2, cfg_scale=1.0)
    chosen = latent_music.how(generator, parts, settings, 1, 1)
    made = latent_change.paint(generator, parts, mel, known, settings, chosen, 0)
    assert torch.equal(made[:, known], mel[:, known])
    assert float((made - mel)[:, ~known].abs().mean()) > 0.05
    assert float(made.min()) >= SILENCE
    hidden = torch.where(known, mel, 7.0)
    assert torch.equal(latent_change.paint(generator, parts, hidden, known, settings, chosen, 0), made)
    boxes = "0.65:0.88, 0:0.18@3500:8000"
    changing = Changing(steps=3, vocoder_steps=2, cfg_scale=1.0, mask=boxes)
    two = next(latent_change.changed(generator, audio, RATE, changing)).audio
    own = slice((12 + 3) * HOP, (40 - 3) * HOP)
    np.testing.assert_allclose(two[:, own], audio[:, own], atol=1e-5)
    drawn = slice(45 * HOP, 51 * HOP)
    assert np.abs(two - audio)[:, drawn].max() > 1e-3 and np.abs(two[:, drawn]).max() > 1e-6
    with pytest.raises(InputError, match="keeps everything"):
        next(latent_change.changed(generator, audio, RATE, Changing(mask="0:1.5=0.1")))


def test_what_a_mask_keeps_of_the_frequencies_stays(generator):
    audio = sound(2.0)
    changing = Changing(steps=3, vocoder_steps=2, cfg_scale=1.0, mask="0:9@1000:3000")
    made = next(latent_change.changed(generator, audio, RATE, changing)).audio
    inside = slice(2000, -2000)  # the first and the last sample are steps, whose spectrum is everywhere
    window = blackmanharris(audio[0, inside].size)
    before, change = (np.abs(np.fft.rfft(x[0, inside] * window)) ** 2 for x in (audio, made - audio))
    hertz = np.fft.rfftfreq(window.size, 1 / RATE)
    kept = (hertz < 1000) | (hertz > 3000)
    assert 10 * np.log10(change[kept].sum() / before[kept].sum()) < -60
    assert change[~kept].sum() > 0.1 * before[~kept].sum()


def test_a_mask_that_is_narrower_than_its_margins_is_refused(generator):
    with pytest.raises(InputError, match=r"94 Hz and 64 ms.*Open more than 188 Hz and 128 ms"):
        next(latent_change.changed(generator, sound(1.0), RATE, Changing(mask="0:1@5100:5200")))


def test_a_mask_s_cells_are_those_of_its_seconds_and_hertz(generator):
    own = torch.from_numpy(sound(1.0)).float()
    kept = latent_change.kept_by(Changing(mask="0.25:0.5@1000:2000"), own, generator.config)
    centre = librosa.mel_frequencies(82, fmin=0, fmax=RATE / 2)[1:-1]
    seconds = np.arange(kept.shape[1]) * HOP / RATE
    inside = np.outer((centre > 1050) & (centre < 1950), (seconds >= 0.25) & (seconds <= 0.5))
    outside = np.outer((centre < 950) | (centre > 2050), np.ones_like(seconds, bool)) | (seconds < 0.25)[None]
    assert not kept.numpy()[inside].any() and kept.numpy()[outside].all() and inside.any()
    turned = latent_change.kept_by(Changing(mask="0.25:0.5@1000:2000", invert=True), own, generator.config)
    assert turned.numpy()[inside].all() and not turned.numpy()[outside].any()


def test_a_box_between_the_bands_centres_is_drawn_all_the_same(generator):
    own = torch.from_numpy(sound(1.0)).float()
    kept = latent_change.kept_by(Changing(mask="0:1@5100:5200"), own, generator.config)
    centre = librosa.mel_frequencies(82, fmin=0, fmax=RATE / 2)[1:-1]
    drawn = np.flatnonzero(~kept.numpy().all(axis=1))
    assert 1 <= len(drawn) <= 2 and (np.abs(centre[drawn] - 5150) < 200).all()


def test_a_picture_that_leads_is_never_written_over(generator, tmp_path):
    photo = tmp_path / "bell.png"
    with Image.open(Path(sklearn.datasets.__file__).parent / "images" / "flower.jpg") as picture:
        picture.save(photo)
    before = photo.read_bytes()
    asked = {"image": str(photo), "pictures": True, "steps": 2, "vocoder_steps": 2}
    with pytest.raises(InputError, match="input itself"):
        latent_music.files(generator, tmp_path / "bell.wav", Settings(seconds=0.2, **asked), quiet)
    sf.write(tmp_path / "in.wav", 0.1 * sound(0.3)[0], RATE)
    with pytest.raises(InputError, match="input itself"):
        latent_change.transform(generator, tmp_path / "in.wav", tmp_path / "bell.wav", Changing(**asked), quiet)
    assert photo.read_bytes() == before
    written = latent_music.files(generator, tmp_path / "else.wav", Settings(prompt="a", seconds=0.2, **asked), quiet)
    record = json.loads(written.json.read_text())
    assert record["image"] == str(photo) and record["prompt_beside_the_image"] == "a"
    assert record["settings"]["prompt"] == "a (daisy:1.00)"


@pytest.mark.parametrize("n", [0, 1])
def test_a_sound_that_is_none_at_the_model_s_rate_is_refused(generator, n):
    with pytest.raises(InputError, match=f"has {n} samples"):
        next(latent_change.changed(generator, np.full((1, n), 0.5), 48_000, Changing()))


def test_a_sound_that_is_not_finite_is_never_written(generator, monkeypatch):
    monkeypatch.setattr(latent_change, "sound_of", lambda parts, mel, n, settings, item: np.full((1, n), np.nan))
    with pytest.raises(ModelError, match="not finite"):
        next(latent_change.changed(generator, sound(0.5), RATE, Changing(steps=2)))


def test_a_file_is_transformed_to_one_channel_at_the_model_s_rate_and_says_so(generator, tmp_path):
    sf.write(tmp_path / "in.wav", np.repeat(0.1 * sound(0.5), 2, axis=0).T, 22_050)
    settings = Changing(steps=2, vocoder_steps=2, prompt="a bell")
    written = latent_change.transform(generator, tmp_path / "in.wav", tmp_path / "out.wav", settings, quiet)
    info = sf.info(written.files[0])
    assert (info.samplerate, info.channels, info.frames) == (RATE, 1, round(8000 * RATE / 22_050))
    assert any("one channel at 16000 Hz" in note for note in written.notes)


def test_latents_of_known_cells_are_held_in_the_walk(generator):
    """The guess keeps them at every noise level, so what is drawn beside them is drawn to fit."""
    parts, config = latent_music.parts_of(generator), generator.config
    source = torch.randn(1, *config.shape)
    known = torch.zeros(config.shape[1:], dtype=torch.bool)
    known[:, :5] = True
    settings = Drawn(steps=3, cfg_scale=1.0)
    chosen = latent_music.how(generator, parts, settings, 1, 1)
    made = latent_music.drawn(generator, settings, chosen, config.n_frames, 0, source=source, known=known)
    assert torch.equal(made[..., :5], source[..., :5])
    other = latent_music.drawn(generator, settings, chosen, config.n_frames, 0, source=-source, known=known)
    assert float((made - other)[..., 5:].abs().max()) > 1e-3


def test_then_takes_a_place_between_the_prompts():
    with pytest.raises(ValueError, match="alpha"):
        Settings(prompt="a", then="b")
