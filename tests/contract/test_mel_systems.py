"""Log-mel autoencoder and vocoder: from a plain folder of sounds to models that load, encode, decode and sound."""

import json

import librosa
import numpy as np
import pytest
import soundfile as sf
import tiny_sounds
import torch

from sfumato import model, preset
from sfumato.data import unprompted
from sfumato.data.examples import DataSettings
from sfumato.diffusion import noise
from sfumato.diffusion.noise import BatchNoise
from sfumato.networks import mel_vae as network_of
from sfumato.signal import log_mel
from sfumato.systems import mel_vae, mel_vocoder

RATE = 16000
SMALL = network_of.Config(latent=2, widths=(16, 32), blocks=(1, 1), last=8)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return tiny_sounds.write(tmp_path_factory.mktemp("mel") / "sounds")


@pytest.mark.parametrize("name", ["mel-vae-tiny", "mel-vocoder-tiny"])
def test_a_folder_of_sounds_is_enough(name, sounds, tmp_path):
    plan = preset.load(name, ["train.steps=3", "train.batch_size=2", "data.validation_examples=0"])
    preset.train(plan, sounds, tmp_path / "out")
    trained = model.load(tmp_path / "out")
    assert trained.card.steps == 3 and trained.card.sample_rate == RATE
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(list(line.values())).all() for line in lines if "total" in line)


def pitch(audio: np.ndarray, rate: int) -> float:
    """Frequency of the strongest partial."""
    return float(np.abs(np.fft.rfft(audio, 1 << 18)).argmax() * rate / (1 << 18))


def test_crops_are_at_the_configuration_s_rate_whatever_the_recordings_is(sounds):
    config = mel_vae.Config(n_frames=32)
    rows = preset.recordings(sounds)
    data = unprompted.examples(rows, sounds, sounds, "train", config, DataSettings(), lambda *_: None)
    audio = data.batch(3, 5, 2, 0, 1)["audio"]
    assert audio.shape == (2, config.n_samples)
    assert torch.equal(audio, data.batch(3, 5, 2, 0, 1)["audio"])
    row = data.sounds.long[0]
    whole, rate = sf.read(sounds / row.path, dtype="float32")
    pitches = np.array([pitch(*sf.read(sounds / one.path)) for one in data.sounds.long])
    assert all(np.min(np.abs(np.log2(pitch(one.numpy(), RATE) / pitches))) < 0.02 for one in audio)
    at_rate = librosa.resample(whole, orig_sr=rate, target_sr=RATE)
    made = unprompted.prompted.crop(row, sounds, 4000, 8000, 1, RATE)[0]
    np.testing.assert_allclose(made, at_rate[4000:12000], atol=2e-3)


def test_levels_are_librosa_s_between_floor_and_full_scale():
    audio = np.random.default_rng(0).standard_normal(8000) * np.linspace(0, 0.3, 8000)
    theirs = librosa.feature.melspectrogram(
        y=audio, sr=RATE, n_fft=1024, hop_length=256, n_mels=80, center=True, pad_mode="constant"
    )
    ours = log_mel.log_mel(torch.from_numpy(audio)[None], RATE)[0].numpy()
    level_db = np.maximum(librosa.power_to_db(theirs, amin=1e-20, top_db=None), -70)
    n = theirs.shape[1]
    np.testing.assert_allclose(ours[:, : n - 1] * 20 - 29, level_db[:, : n - 1], atol=1e-3)
    assert float(log_mel.log_mel(torch.zeros(1, 500), RATE).max()) == pytest.approx(log_mel.SILENCE)


def test_levels_over_bins_stand_at_the_bands_centres_and_at_their_frames():
    mel = torch.zeros(1, 80, 8)
    mel[0, 40, 5] = 1.0
    bins = log_mel.over_bins(mel, 512, RATE)
    assert bins.shape == (1, 2, 512, 4)
    where = (bins > 0).nonzero()
    assert set(where[:, 3].tolist()) == {2} and set(where[:, 1].tolist()) == {1}  # frame 5 = 2 * 2 + 1
    centre = librosa.mel_frequencies(82, fmin=0, fmax=RATE / 2)[41]
    loudest = int(bins[0, 1, :, 2].argmax())
    assert abs((loudest + 0.5) * RATE / 1024 - centre) < RATE / 1024


def tones(n: int, samples: int) -> torch.Tensor:
    at = torch.arange(samples) / RATE
    pitches = 200.0 * 2 ** (torch.arange(n) / n * 3)
    return 0.14 * torch.sin(2 * np.pi * pitches[:, None] * at)


def test_the_autoencoder_learns_tones_and_its_latents_are_normalised():
    torch.manual_seed(0)
    config = mel_vae.Config(network=SMALL, n_frames=32)
    network = mel_vae.build(config)
    batch = {"audio": tones(6, config.n_samples)}
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    distances = []
    for step in range(60):
        losses = mel_vae.loss(network, batch, config, BatchNoise(0, 6 * step, 6), "reconstruct")
        losses["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
        distances.append(float(losses["distance"]))
    mel = mel_vae.picture(batch["audio"], config)
    still = float((mel - mel.mean()).abs().mean())
    assert distances[-1] < 0.5 * still < distances[0]
    shipped, _ = mel_vae.finish(network.eval(), config, [batch])
    with torch.no_grad():
        latent = shipped.encode(mel)
        made = shipped.decode(latent)
    assert latent.shape == (6, 2, 20, 8)
    torch.testing.assert_close(latent.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(latent.std(dim=(0, 2, 3)), torch.ones(2), atol=1e-3, rtol=0)
    assert float((made - mel).abs().mean()) < 0.5 * still


@torch.no_grad()
def test_pictures_of_any_length_and_their_pieces_have_the_same_latents():
    torch.manual_seed(0)
    network = mel_vae.build(mel_vae.Config(network=SMALL)).eval()
    mel = torch.randn(1, 80, 120)
    whole = network.encode(mel)
    assert whole.shape == (1, 2, 20, 30) and network.encode(mel[..., :117]).shape == whole.shape
    piece = network.encode(mel[..., 40:])
    torch.testing.assert_close(piece[..., 5:], whole[..., 15:], atol=1e-5, rtol=1e-4)
    made = network.decode(whole)
    assert made.shape == mel.shape
    torch.testing.assert_close(network.decode(whole[..., 10:])[..., 20:], made[..., 60:], atol=1e-5, rtol=1e-4)


def vocoder(seed: int = 0):
    """A tiny vocoder of random weights that listens to its picture."""
    config = preset.load("mel-vocoder-tiny").config
    torch.manual_seed(seed)
    network = mel_vocoder.build(config).eval()
    with torch.no_grad():
        for matrix in network.out:
            matrix.normal_(0, 0.1)
    return network, config


def test_a_training_picture_is_blurred_by_a_gaussian_of_its_own():
    point = torch.zeros(2, 80, 40)
    point[:, 40, 20] = 1.0
    made = mel_vocoder.blurred(point, torch.tensor([0.0, 1.2]))
    torch.testing.assert_close(made[0], point[0])
    along = made[1].sum(dim=0)
    at = torch.arange(40) - 20
    assert float(along.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float((along * at**2).sum()) == pytest.approx(1.2**2, rel=0.02)


@torch.no_grad()
def test_what_is_given_is_in_time_with_what_is_drawn():
    """A click lies in the middle of its frame of the spectrogram, and of the picture that training gives beside it."""
    config = preset.load("mel-vocoder-tiny").config
    seen = {}

    class Spy(torch.nn.Module):
        def forward(self, x, c_noise, wanted, given):
            seen.update(x=x, given=given)
            return torch.zeros_like(x)

    audio = torch.zeros(1, config.n_samples)
    audio[0, 12 * config.hop] = 1.0
    still = config.model_copy(update={"sigma_mean": -12.0, "sigma_std": 1e-3})  # hardly any noise
    mel_vocoder.loss(Spy(), {"audio": audio}, still, BatchNoise(0, 0, 1), "denoise")
    assert int(seen["x"].square().sum(dim=(1, 2)).argmax()) == 10  # the first frame is centred on 2 half
    assert int(seen["given"][:, 0].sum(dim=1).argmax()) == 10
    whole = mel_vocoder.complex_spectrogram.bins(audio, config.hop)  # as it is used: from the sound's start on
    assert int(whole.abs().sum(dim=1).argmax()) == 12
    assert int(log_mel.log_mel(audio, RATE).sum(dim=1).argmax()) == 12 * config.hop // log_mel.HOP


@torch.no_grad()
def test_sounds_have_the_length_asked_for_and_depend_on_their_picture(monkeypatch):
    monkeypatch.setattr(mel_vocoder, "levelled", lambda drawn, *_: drawn)  # it would bring the picture in by itself
    network, config = vocoder()
    n = 20_000  # longer than a window
    t = mel_vocoder.frames_of(n, config)
    assert t > config.n_frames
    walk = noise.walk((2, config.hop, t), seed=1, items=[0])
    mel = log_mel.log_mel(tones(1, n), RATE)
    first = mel_vocoder.vocode(network, config, mel, n, walk, steps=2)
    again = mel_vocoder.vocode(network, config, mel, n, walk, steps=2)
    other = mel_vocoder.vocode(network, config, mel - 1, n, walk, steps=2)
    assert first.shape == (1, n) and torch.equal(first, again)
    assert float((first - other).abs().max()) > 1e-4
    late = mel.clone()
    late[..., 60:] = -1
    changed = mel_vocoder.vocode(network, config, late, n, walk, steps=2)
    part = 8 * config.hop  # the last window begins after this, and GroupNorm sees the whole of one
    torch.testing.assert_close(changed[:, :part], first[:, :part])


def test_a_configuration_whose_picture_doesn_t_fit_is_refused():
    network = preset.load("mel-vocoder-tiny").config.network
    with pytest.raises(ValueError, match="given = 2"):
        mel_vocoder.Config(network=network.model_copy(update={"given": 3}), n_frames=32)


def test_levelling_brings_a_sound_to_the_levels_of_another_and_leaves_one_that_has_them():
    """A recording through a filter, with a hum and a dip: its bands come back; silence stays silence."""
    generator = np.random.default_rng(2)
    at = np.arange(RATE) / RATE
    audio = 0.1 * generator.standard_normal(RATE) * (1 + np.sin(2 * np.pi * 3 * at)) + 0.05 * np.sin(2000 * at)
    wanted = torch.from_numpy(audio)[None].float()
    mel = log_mel.log_mel(wanted, RATE)
    spectrum = np.fft.rfft(audio) * np.interp(np.arange(RATE // 2 + 1), [0, 500, 2000, 8000], [2, 0.4, 1, 0.2])
    off = torch.from_numpy(np.fft.irfft(spectrum))[None].float()

    def error_db(sound):
        return float((log_mel.log_mel(sound, RATE) - mel)[..., 2:-2].abs().mean()) * log_mel.SCALE_DB

    made = [log_mel.levelled(off, mel, RATE, times) for times in (1, 4)]
    assert error_db(off) > 3 > 2 * error_db(made[0]) and error_db(made[1]) < 0.6 * error_db(made[0])
    torch.testing.assert_close(log_mel.levelled(wanted, mel, RATE), wanted, atol=2e-4, rtol=1e-3)
    louder = np.corrcoef(wanted[0, 500:-500], made[1][0, 500:-500])[0, 1]
    assert louder > 0.98  # phases, and what lies within a band, stay what they are
    silent = torch.full_like(mel, log_mel.SILENCE)
    assert float(log_mel.levelled(off, silent, RATE, 4).square().mean()) < 1e-6 * float(off.square().mean())


def test_a_vocoder_s_sound_has_its_picture_s_levels():
    """Whatever an untrained network draws, its levels are about those that were asked for, where there is sound."""
    torch.manual_seed(0)
    plan = preset.load("mel-vocoder-tiny")
    network = mel_vocoder.build(plan.config)
    mel = log_mel.log_mel(0.1 * torch.randn(1, 8000, generator=torch.Generator().manual_seed(1)), RATE)
    walk = noise.walk((2, plan.config.hop, mel_vocoder.frames_of(8000, plan.config)), seed=1, items=[0])
    made = mel_vocoder.vocode(network, plan.config, mel, 8000, walk, steps=6)
    error = (log_mel.log_mel(made, RATE) - mel)[:, 4:76, 2:-2].abs().mean() * log_mel.SCALE_DB
    assert float(error) < 3
