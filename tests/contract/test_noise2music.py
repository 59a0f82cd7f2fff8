"""Noise2Music from a folder of sounds to sounds: every kind of stage trained in miniature, and cascades of them."""

import json

import numpy as np
import pytest
import soundfile as sf
import soxr
import tiny_sounds
import torch
import turned

from sfumato import model, preset
from sfumato.data import prompted
from sfumato.data.examples import DataSettings
from sfumato.diffusion import noise
from sfumato.diffusion.noise import BatchNoise
from sfumato.errors import InputError, ModelError
from sfumato.model import Model
from sfumato.signal import complex_spectrogram
from sfumato.systems import noise2music
from sfumato.tasks import budget, cascade
from sfumato.tasks.cascade import Settings

ONCE = ["train.steps=3", "train.batch_size=2", "data.validation_examples=0"]
SECOND = ["config.network.bands=[[16, 2], [8, 4], [8, 8]]", "config.network.given=3", "config.network.magnitudes=true"]
SECOND += ["config.sample_rate=12800", "config.given_rate=3200"]
THIRD = ["config.network.bands=[[16, 8], [8, 8]]", "config.network.given=3", "config.unprompted=1"]
THIRD += ["config.sample_rate=19200", "config.given_rate=12800"]
LEVELS = ["config.draws=levels", "config.network.bands=[[80, 1]]", "config.network.channels=1"]
LEVELS += ["config.network.frames=4", "config.sample_rate=16000"]
QUICK = {"seconds": 0.6, "steps": 3, "later_steps": (2, 2), "prompt": "a bell"}


def quiet(done, total, text):
    pass


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each kind of stage, trained for three steps on tones, and given weights that make it say something."""
    root = tmp_path_factory.mktemp("noise2music")
    sounds = tiny_sounds.write(root / "sounds")
    kinds = {"third": THIRD, "second": SECOND, "levels": LEVELS, "first": []}
    for kind, settings in kinds.items():
        preset.train(preset.load("noise2music-tiny", [*ONCE, *settings]), sounds, root / kind)
    preset.train(preset.load("mel-vocoder-tiny", ONCE), sounds, root / "vocoder")
    torch.manual_seed(1)
    for kind in kinds:
        loaded = model.load(root / kind)
        with torch.no_grad():
            for weight in loaded.network.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
        then = {"first": ("awake second", "awake third"), "levels": ("vocoder",)}.get(kind, ())
        config = loaded.config.model_copy(update={"then": tuple(str(root / name) for name in then)})
        model.save(Model(kind, loaded.system, config, loaded.network, loaded.card), root / f"awake {kind}")
    return root


@pytest.fixture(scope="module")
def first(folders):
    return model.load(folders / "awake first")


def config_of(*settings) -> noise2music.Config:
    return preset.load("noise2music-tiny", [*ONCE, *settings]).config


def tones(rate: float, seconds: float, seed: int = 0) -> np.ndarray:
    """Partials from 100 Hz to near half the rate, and some noise."""
    generator = np.random.default_rng(seed)
    at = np.arange(int(seconds * rate)) / rate
    partials = sum(np.sin(2 * np.pi * f * at + f) for f in np.arange(110, 0.48 * rate, 230.0))
    return 0.02 * (partials + generator.standard_normal(len(at)))[None]


def test_each_stage_is_trained_and_remembers_what_it_is(folders):
    for kind, rate in (("first", 3200), ("second", 12800), ("third", 19200), ("levels", 16000)):
        lines = [json.loads(line) for line in (folders / kind / "log.jsonl").read_text().splitlines()]
        assert all(np.isfinite(list(line.values())).all() for line in lines if "total" in line)
        assert model.load(folders / kind).card.sample_rate == rate


@pytest.mark.parametrize("settings", [[], SECOND, LEVELS], ids=["sound", "given", "levels"])
def test_training_brings_the_loss_down(settings):
    """On one batch of tones, at the same noise."""
    torch.manual_seed(0)
    config = config_of(*settings)
    network = noise2music.build(config)
    rate, n = config.sample_rate, 4
    audio = np.concatenate([tones(rate, config.n_samples / rate + 0.01, seed) for seed in range(n)])
    batch = {"audio": torch.from_numpy(audio[:, : config.n_samples]).float()}
    batch |= {"sentence": torch.zeros(n, 384), "tokens": torch.zeros(n, 1, 384), "bpm": torch.zeros(n)}
    batch |= {"valid": torch.zeros(n, 1, dtype=torch.bool), "key": torch.zeros(n, dtype=torch.long)}
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    totals = []
    for _ in range(30):
        losses = noise2music.loss(network, batch, config, BatchNoise(0, 0, n), "denoise")
        losses["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
        totals.append(float(losses["total"].detach()))
    assert totals[-1] < 0.8 * totals[0]


def test_a_training_picture_lies_within_its_crop():
    """Its frames are those of the whole sound from the third on: none of them reaches beyond."""
    config = config_of(*SECOND)
    audio = torch.from_numpy(tones(config.sample_rate, config.n_samples / config.sample_rate + 0.01)).float()
    audio = audio[:, : config.n_samples]
    made = noise2music.training_picture(audio, config)
    whole = complex_spectrogram.picture(complex_spectrogram.bins(audio, config.hop), config.sample_rate)
    torch.testing.assert_close(made.abs(), whole[..., 2 : 2 + config.n_frames].abs())


def test_what_a_stage_is_given_in_use_is_what_it_was_given_in_training():
    """A recording brought down to the lower rate and up again, beside the recording's own lower band."""
    config = config_of(*SECOND)
    audio = tones(config.sample_rate, 1.0)
    low = soxr.resample(audio[0], config.sample_rate, config.given_rate, quality="VHQ")
    raised = soxr.resample(low, config.given_rate, config.sample_rate, quality="VHQ")[None]
    frames = noise2music.frames_of(audio.shape[1], config)
    over = noise.walk((2, config.hop, frames), seed=3, items=[0])
    used = noise2music.given_of(torch.from_numpy(raised).float(), 0.25, config, over)
    bins = complex_spectrogram.bins(torch.from_numpy(audio).float(), config.hop)
    whole = complex_spectrogram.picture(bins, config.sample_rate)
    t = whole.shape[3]
    trained = noise2music.beside(whole, torch.tensor([0.25]), config, over(0)[..., :t])
    inside = slice(8, t - 8)
    difference = (used[..., :t] - trained)[..., inside]
    assert float(difference.square().mean()) < 1e-3 * float(trained[:, :2, :, inside].square().mean())
    edge = 0.9 * config.given_rate / config.sample_rate * config.hop
    assert not trained[:, :2, round(edge) + 1 :].any() and trained[:, :2, : round(edge) - 1].abs().amin() > 0
    assert (trained[:, 2] == 0.25).all()


def test_what_is_given_is_disturbed_as_far_as_its_strength_says_and_the_network_is_told():
    config = config_of(*SECOND)
    whole, over = 0.4 * torch.randn(3, 2, config.hop, 16), torch.randn(3, 2, config.hop, 16)
    strength = torch.tensor([0.0, 0.5, 1.0])
    clean = noise2music.beside(whole, torch.zeros(3), config, over)
    given = noise2music.beside(whole, strength, config, over)
    assert torch.equal(clean[:, :2, : int(0.85 * config.hop / 4)], whole[:, :, : int(0.85 * config.hop / 4)])
    assert torch.equal(given[0], clean[0])
    error = (given - clean)[:, :2].square().mean(dim=(1, 2, 3))
    assert error[0] == 0 < error[1] < error[2]
    torch.testing.assert_close(given[:, 2, 0, 0], strength)
    still = noise2music.beside(whole, strength, config, torch.zeros_like(over))[:, :2]
    kept = still.square().sum(dim=(0, 1, 3)) / clean[:, :2].square().sum(dim=(0, 1, 3)).clamp(min=1e-9)
    low, high = kept[:4].mean(), kept[10 : int(0.9 * config.hop / 4)].mean()
    assert low > 0.95 > high  # the blur is a low-pass


@torch.no_grad()
def test_a_band_that_is_exact_stays_what_it_is(folders):
    stage = model.load(folders / "awake second")
    low = tones(3200, 0.6)
    settings = Settings(**QUICK | {"later_roughness": (0.0, 0.0)})
    made = cascade.continued(stage, 1, torch.from_numpy(low), settings, 0).double().numpy()
    back = soxr.resample(made[0], 12800, 3200, quality="VHQ")[None]
    spectra = [np.fft.rfft(one[0, 160:-160] * np.hanning(low.shape[1] - 320)) for one in (low, back)]
    inside = slice(0, int(0.85 * len(spectra[0])))
    error, sound = np.abs(spectra[1] - spectra[0])[inside], np.abs(spectra[0])[inside]
    assert np.sum(error**2) < 1e-3 * np.sum(sound**2)
    assert np.abs(soxr.resample(made[0], 12800, 3200) - made[0, ::4]).max() > 1e-2  # and above it there is something
    rough = cascade.continued(stage, 1, torch.from_numpy(low), Settings(**QUICK | {"later_roughness": (0.5, 0.0)}), 0)
    assert float((rough - torch.from_numpy(made)).abs().max()) > 1e-3


def test_sounds_are_as_long_as_asked_and_the_same_however_many_are_drawn(first):
    several = list(cascade.takes(first, Settings(**QUICK, count=2, seed=4)))
    alone = next(cascade.takes(first, Settings(**QUICK, seed=4)))
    assert several[0].audio.shape == (1, 11_520) and several[0].sample_rate == 19_200
    np.testing.assert_array_equal(several[0].audio, alone.audio)
    loudest = np.abs(alone.audio).max()
    assert np.abs(several[1].audio - alone.audio).max() > 0.1 * loudest > 0
    other = next(cascade.takes(first, Settings(**QUICK | {"prompt": "rain"}, seed=4)))
    assert np.abs(other.audio - alone.audio).max() > 1e-3 * loudest


@pytest.mark.parametrize("length", [{"bpm": 174.0}, {"seconds": 0.63}])
@pytest.mark.parametrize(("stages", "rate"), [(1, 3200), (3, 19_200)])
def test_a_loop_has_its_exact_length_and_is_the_same_however_many_are_drawn(first, stages, rate, length):
    asked = {"steps": 2, "later_steps": (2, 2), "loop": True, "seed": 4, "stages": stages, **length}
    several = list(cascade.takes(first, Settings(**asked, count=2)))
    alone = next(cascade.takes(first, Settings(**asked)))
    n, low = (round(length.get("seconds", 4 * 60 / 174) * r) for r in (rate, 3200))
    assert [one.audio.shape for one in several] == [(1, n)] * 2
    drawn = round(low / 128) * 128 / 3200  # frames of 32 samples, in fours
    assert alone.how["tuned_cents"] == pytest.approx(1200 * np.log2(drawn / (n / rate)))
    np.testing.assert_array_equal(several[0].audio, alone.audio)
    assert np.abs(several[1].audio - alone.audio).max() > 1e-4


@pytest.mark.parametrize(("kind", "seconds"), [("first", 0.6), ("levels", 0.64)])
def test_a_loop_turned_is_the_loop_of_turned_noise_and_windows(folders, monkeypatch, kind, seconds):
    """So its wrap is a place like every other, for each stage and between them; a mere sound has ends."""
    whole, asked = model.load(folders / f"awake {kind}"), QUICK | {"seconds": seconds}
    loop = turned.largest_difference(monkeypatch, cascade, whole, Settings(**asked, loop=True))
    sound = turned.largest_difference(monkeypatch, cascade, whole, Settings(**asked))
    assert loop < 1e-4 < 0.1 < sound


@pytest.mark.parametrize("kind", ["first", "levels"])
def test_a_loop_whose_stages_have_other_frames_has_its_exact_length(folders, kind, tmp_path):
    written = cascade.files(
        model.load(folders / f"awake {kind}"), tmp_path / "loop.wav", Settings(loop=True, seconds=0.53, steps=2), quiet
    )
    record = json.loads(written.json.read_text())
    rate = {"first": 19_200, "levels": 16_000}[kind]
    assert sf.info(written.files[0]).frames == record["loop_samples"] == round(0.53 * rate)
    assert f"{record['takes'][0]['tuned_cents']:+.0f} cents" in written.notes[-1]


def test_fewer_stages_are_a_preview_of_the_same_piece(first):
    rates = {1: 3200, 2: 12_800, 3: 19_200}
    made = {stages: next(cascade.takes(first, Settings(**QUICK, stages=stages))) for stages in rates}
    assert {stages: one.sample_rate for stages, one in made.items()} == rates
    assert made[2].how["steps"] == [3, 2]
    settings = Settings(**QUICK)
    stages = cascade.stages_of(first, None)
    chosen = cascade.how(stages, settings)
    np.testing.assert_array_equal(
        cascade.sound(stages[:1], settings, chosen, 0)[:, :1500], made[1].audio[:, :1500] / made[1].gain
    )


def test_levels_get_their_sound_from_a_vocoder(folders):
    levels = model.load(folders / "awake levels")
    made = next(cascade.takes(levels, Settings(**QUICK)))
    assert made.sample_rate == 16_000 and made.audio.shape == (1, 9600)
    other = next(cascade.takes(levels, Settings(**QUICK, seed=1)))
    assert np.abs(other.audio - made.audio).max() > 0.1 * np.abs(made.audio).max() > 0
    with pytest.raises(InputError, match="at least 2"):
        next(cascade.takes(levels, Settings(**QUICK, stages=1)))


@torch.no_grad()
def test_a_long_sound_is_one_state_in_windows_each_with_its_part_of_what_is_given(folders):
    """Where a window is alone, the guess is that of a sound that ends with it; in between, of neither."""
    stage = model.load(folders / "awake second")
    config, sigma = stage.config, torch.tensor([2.0])
    window, overlap = config.n_frames, config.n_frames // 4 // 2 * 2
    torch.manual_seed(3)
    total = 2 * window - overlap
    x, given = torch.randn(1, 2, config.hop, total), torch.randn(1, 3, config.hop, total)

    def guess(part):
        return noise2music.denoiser(stage.network, config, given=given[..., part])(x[..., part], sigma)

    whole = guess(slice(None))
    first, last = guess(slice(0, window)), guess(slice(total - window, total))
    torch.testing.assert_close(whole[..., : window - overlap], first[..., : window - overlap])
    torch.testing.assert_close(whole[..., window:], last[..., overlap:])
    between = whole[..., window - overlap : window]
    fade = torch.sin((torch.arange(overlap) + 0.5) / overlap * torch.pi / 2).square()
    torch.testing.assert_close(between, (1 - fade) * first[..., window - overlap :] + fade * last[..., :overlap])


@pytest.mark.parametrize("settings", [SECOND, []], ids=["given", "sound"])
def test_a_stage_is_trained_where_its_batch_is(settings):
    """No tensor of its own stays behind on another device: on none at all here, so that shapes alone are computed."""
    config = config_of(*settings)
    with torch.device("meta"):
        network = noise2music.build(config)
    audio = torch.zeros(2, config.n_samples, device="meta")
    clean = torch.zeros(2, *config.shape, config.n_frames, device="meta")
    if config.given_rate:
        given = noise2music.beside(clean, torch.zeros(2, device="meta"), config, clean)
        assert given.device.type == "meta" and given.shape == (2, 3, config.hop, config.n_frames)
    assert noise2music.training_picture(audio, config).shape == clean.shape
    assert sum(parameter.numel() for parameter in network.parameters()) > 0


def test_files_and_their_record(first, tmp_path):
    settings = Settings(**QUICK, negative="noise", pictures=True, count=2)
    written = cascade.files(first, tmp_path / "bell.wav", settings, quiet)
    assert [sf.info(file).frames for file in written.files] == [11_520] * 2 and len(written.pictures) == 3
    record = json.loads(written.json.read_text())
    stages = cascade.stages_of(first, None)
    assert [stage["sha256"] for stage in record["stages"]] == [model.digest(stage) for stage in stages]
    assert len({stage["sha256"] for stage in record["stages"]}) == 3


def test_a_budget_pays_for_the_later_stages_first(first, monkeypatch):
    """Every evaluation takes a second, so the budget counts them."""
    monkeypatch.setattr(budget, "seconds_of", lambda evaluate: 1.0)
    monkeypatch.setattr(budget, "ASIDE", 1.0)
    stages = cascade.stages_of(first, None)
    windows = [cascade._windows(stage, Settings(**QUICK)) for stage in stages]

    def steps(seconds, **settings):
        asked = {"cfg_scale": 1.0, "later_cfg": (1.0, 1.0)} | settings
        return cascade.how(stages, Settings(**QUICK | asked, budget=f"{seconds}s")).steps

    later = 2 * windows[1] + 2 * windows[2]
    assert steps(later + 20 * windows[0]) == 20
    assert steps(later + 20 * windows[0], later_steps=(2, 5)) == 20 - 3 * windows[2] // windows[0]
    assert steps(later + 20 * windows[0], sampler="heun") == 20 // 2 - later // 2 // windows[0]
    assert steps(later + 20 * windows[0], later_cfg=(3.0, 3.0), guided=(1e-3, 1e3)) == 20 - 2 * windows[1] // windows[0]
    with pytest.raises(InputError, match=rf"it takes {later + 3 * windows[0]}\.0 s"):
        steps(later)


def test_stages_that_do_not_follow_are_refused(first, folders):
    def with_then(*names):
        config = first.config.model_copy(update={"then": tuple(map(str, names))})
        return Model("first", first.system, config, first.network, first.card)

    with pytest.raises(ModelError, match=r"not here.*config\.then"):
        cascade.stages_of(with_then("/no/such/folder"), None)
    with pytest.raises(ModelError, match="does not go on from sound at 3200 Hz"):
        cascade.stages_of(with_then(folders / "third"), None)
    with pytest.raises(ModelError, match="does not go on from sound at 3200 Hz"):
        cascade.stages_of(with_then(folders / "vocoder"), None)
    with pytest.raises(InputError, match="has 2 stages"):
        cascade.stages_of(with_then(folders / "second"), 3)
    with pytest.raises(InputError, match="needs a sound"):
        cascade.stages_of(model.load(folders / "second"), None)
    levels = model.load(folders / "levels")
    config = levels.config.model_copy(update={"then": (str(folders / "second"),)})
    with pytest.raises(ModelError, match="no mel_vocoder"):
        cascade.stages_of(Model("levels", levels.system, config, levels.network, levels.card), None)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["config.given_rate=3200"], "lower rate"),
        (["config.given_rate=1600"], "network.given is 3"),
        (["config.draws=levels"], "levels one of 80"),
        (["config.n_frames=33"], "multiple"),
    ],
)
def test_configurations_that_fit_nothing_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        config_of(*settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"later_steps": (1, 4)}, "takes 2 to 1000 steps"),
        ({"later_roughness": (0.4, 1.5)}, "takes two numbers from 0 to 1"),
        ({"later_cfg": (0.4, 21)}, "takes scales from 0 to 20"),
        ({"rho": (7, 0.5, 7)}, "takes three numbers from 1 to 100"),
        ({"prompt": "a", "then": "b"}, "then takes alpha"),
        ({"loop": True}, "either bpm, with bars, or seconds"),
        ({"loop": True, "bpm": 90, "prompt": "a", "then": "b"}, "a loop arrives nowhere"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Settings(**settings)


def test_a_prompt_of_which_nothing_is_read_is_refused_by_every_way_in(first):
    with pytest.raises(InputError, match="Nothing of the prompt"):
        next(cascade.takes(first, Settings(**QUICK | {"prompt": "ᚠᚢᚦ ᚨᚱᚲ"})))


def test_levels_are_those_of_the_whole_sound_whatever_a_stage_s_rate(tmp_path):
    """A low tone beside a loud high one: the first stage hears the low one as soft as it is."""
    at = np.arange(2 * 16_000) / 16_000
    (tmp_path / "sounds").mkdir()
    two = 0.02 * np.sin(2 * np.pi * 440 * at) + 0.2 * np.sin(2 * np.pi * 5000 * at)
    sf.write(tmp_path / "sounds" / "two.wav", two, 16_000)
    rows = preset.recordings(tmp_path / "sounds")
    config = config_of("config.n_frames=16")
    data = prompted.examples(rows, tmp_path / "sounds", tmp_path, "train", config, DataSettings(), quiet)
    audio = data.batch(0, 0, 8, 0, 1)["audio"]
    assert audio.shape == (8, config.n_samples)
    rms = audio.square().mean(dim=1).sqrt()
    assert (rms < 0.1 * 0.1 * 10 ** (prompted.LEVELS_DB / 20) * 1.1).all() and (rms > 0.1 * 0.1 / 2.3).all()
