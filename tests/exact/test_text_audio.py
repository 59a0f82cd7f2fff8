"""The text-audio embedding: its objective in closed form, what counts of a sound and of a text, and its scores."""

import math

import numpy as np
import pytest
import torch

from sfumato.diffusion.noise import BatchNoise
from sfumato.errors import InputError
from sfumato.metrics import tag_agreement
from sfumato.metrics.text_score import text_scorer
from sfumato.model import Card, Model, save
from sfumato.networks import text, text_audio
from sfumato.signal.mel import mel_spectrogram
from sfumato.systems import text_audio as system

NETWORK = text_audio.Config(
    sample_rate=8000, n_fft=256, hop_length=160, n_mels=16, n_frames=32, widths=(8, 16), blocks=(0, 1), queries=2,
    hidden=32, width=16,
)  # fmt: skip
CONFIG = system.Config(network=NETWORK)
RATE = 8000


def made(seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return system.build(CONFIG).eval()


def sound(n=5120, seed=0):
    """Band-limited noise that swells, (1, n)."""
    drawn = np.random.default_rng(seed).standard_normal(n)
    return (np.convolve(drawn, np.ones(4) / 4, "same") * np.linspace(0.1, 1, n))[None] * 0.1


def states(n=3, longest=5, seed=1):
    drawn = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, longest, 384))).float()
    valid = torch.arange(longest) < torch.tensor([[longest], [3], [2]])[:n]
    tokens = drawn * valid[..., None]
    return torch.nn.functional.normalize(tokens.sum(1), dim=1), tokens, valid


def by_hand(sounds, words, scale, group):
    """InfoNCE written out pair by pair."""
    total = 0.0
    for i in range(len(group)):
        others = [j for j in range(len(group)) if j == i or group[j] != group[i]]
        for rows, columns in ((sounds, words), (words, sounds)):
            own = [math.exp(scale * float(rows[i] @ columns[j])) for j in others]
            total -= math.log(own[others.index(i)] / sum(own))
    return total / (2 * len(group))


@pytest.mark.parametrize("group", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 1], [7, 7, 7, 7, 7]])
def test_the_loss_is_infonce_without_pairs_of_one_group(group):
    drawn = torch.from_numpy(np.random.default_rng(3).standard_normal((2, 5, 8)))
    sounds, words = torch.nn.functional.normalize(drawn, dim=-1)
    total, _ = system.contrast(sounds, words, torch.tensor(6.0), torch.tensor(group))
    assert float(total) == pytest.approx(by_hand(sounds, words, 6.0, group), rel=1e-9, abs=1e-12)


def test_orthonormal_pairs_have_the_closed_form():
    n, scale = 6, torch.tensor(4.0)
    total, right = system.contrast(torch.eye(n), torch.eye(n), scale, torch.arange(n))
    assert float(total) == pytest.approx(math.log(1 + (n - 1) * math.exp(-4.0)), rel=1e-5)
    assert float(right) == 1.0
    _, right = system.contrast(torch.eye(n), torch.eye(n).roll(1, 0), scale, torch.arange(n))
    assert float(right) == 0.0


def test_the_system_s_loss_is_the_contrast_of_its_towers_at_the_learned_scale():
    network = made()
    drawn = [text_audio.log_mel(sound(seed=i), RATE, NETWORK) for i in range(3)]
    pictures = torch.stack([text_audio.windows(picture, NETWORK)[0] for picture in drawn])
    sentence, tokens, valid = states()
    batch = {"log_mel": pictures, "sentence": sentence, "tokens": tokens, "valid": valid, "group": torch.arange(3)}
    losses = system.loss(network, batch, CONFIG, BatchNoise(0, 0, 3), "contrast")
    towers = network.audio(pictures).detach(), network.text(sentence, tokens, valid).detach()
    expected = by_hand(*towers, 1 / 0.07, [0, 1, 2])
    assert float(losses["total"].detach()) == pytest.approx(expected, rel=1e-4)
    losses["total"].backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in network.parameters())
    with torch.no_grad():
        network.log_scale.fill_(9.0)
    assert float(network.scale().detach()) == 100.0


@pytest.mark.parametrize("gain", [1e-4, 0.3, 50.0])
def test_level_does_not_count(gain):
    network = made()
    plain, changed = (text_audio.embed_audio(network, sound() * g, RATE) for g in (1.0, gain))
    torch.testing.assert_close(plain, changed, atol=2e-5, rtol=0)
    assert float(plain.norm()) == pytest.approx(1.0, abs=1e-6)
    other = text_audio.embed_audio(network, np.diff(sound(), axis=1), RATE)
    assert float((plain - other).norm()) > 1e-3


def test_pictures_are_mel_powers_below_the_loudest_cell():
    x = torch.from_numpy(sound()[0]).float()
    power = mel_spectrogram(x, RATE, 256, 160, 16)
    expected = 10 * torch.log10(power / power.max())
    found = text_audio.log_mel(sound(), RATE, NETWORK)
    torch.testing.assert_close(found, expected.float().clamp(min=-80), atol=1e-3, rtol=0)
    stereo = np.concatenate([2 * sound(), 0 * sound()])
    torch.testing.assert_close(text_audio.log_mel(stereo, RATE, NETWORK), found, atol=1e-3, rtol=0)


def test_silence_is_one_point_and_one_sample_is_heard():
    assert bool((text_audio.log_mel(np.zeros((2, 4000)), RATE, NETWORK) == -80).all())
    for short in (np.zeros((1, 4000)), np.full((1, 1), 0.5)):
        vector = text_audio.embed_audio(made(), short, RATE)
        assert float(vector.norm()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("bad", [np.zeros((1, 0)), np.zeros(100), np.full((1, 100), np.nan)])
def test_what_is_no_sound_is_refused(bad):
    with pytest.raises(InputError):
        text_audio.embed_audio(made(), bad, RATE)


def test_long_sounds_are_the_mean_of_their_windows():
    network, n = made(), NETWORK.n_frames
    picture = text_audio.log_mel(sound(160 * (2 * n + 10)), RATE, NETWORK)
    cut = text_audio.windows(picture, NETWORK)
    total = picture.shape[1]
    assert [int((w - w.max() == p - p.max()).float().mean() > 0.9) for w, p in zip(
        cut, (picture[:, :n], picture[:, n : 2 * n], picture[:, total - n :]), strict=True)] == [1, 1, 1]  # fmt: skip
    mean = network.audio(cut).mean(dim=0)
    torch.testing.assert_close(
        text_audio.embed_audio(network, sound(160 * (2 * n + 10)), RATE), (mean / mean.norm()).detach()
    )


def test_silent_stretches_of_a_long_sound_are_not_listened_to():
    n = 160 * NETWORK.n_frames
    alone = sound(n - 256)
    followed = np.concatenate([alone, np.zeros((1, 6 * n))], axis=1)
    network = made()
    assert len(text_audio.windows(text_audio.log_mel(followed, RATE, NETWORK), NETWORK)) == 1
    close = text_audio.embed_audio(network, alone, RATE) @ text_audio.embed_audio(network, followed, RATE)
    assert float(close) > 0.999


def test_states_that_are_no_words_have_no_part_in_a_text():
    network, (sentence, tokens, valid) = made().requires_grad_(False), states()
    found = network.text(sentence, tokens, valid)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    longer = torch.cat([tokens, torch.full((3, 4, 384), 7.0)], dim=1)
    kept = torch.cat([valid, torch.zeros(3, 4, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(network.text(sentence, longer, kept), found)
    swapped = tokens.clone()
    swapped[0, 1] += 1.0
    assert float((network.text(sentence, swapped, valid) - found)[0].norm()) > 1e-4


def test_the_sentence_encoder_is_no_part_of_the_model():
    weights = sum(weight.numel() for weight in system.build(system.Config()).parameters())
    assert 2_000_000 < weights < 4_000_000
    assert not [key for key in made().state_dict() if "words" in key or key.startswith("text.layers")]


def test_the_score_is_the_cosine_that_the_system_gives(tmp_path):
    network, texts = made(), ["a drum", "rain"]
    expected = system.similarity(network, sound(), RATE, texts)
    saved = Model("tiny", "text_audio", CONFIG, network, Card())
    save(saved, tmp_path / "tiny", dtype=torch.float32)
    found = text_scorer(tmp_path / "tiny")(sound(), RATE, texts)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    assert found.shape == (2,)
    assert np.all(np.abs(found) <= 1 + 1e-6)
    alone = text_scorer(tmp_path / "tiny")(sound(), RATE, texts[1:])
    assert alone[0] == found[1]


def test_a_model_of_another_system_scores_nothing():
    with pytest.raises(InputError, match="text_audio"):
        text_scorer("detect")


def test_agreement_weighs_tags_by_how_much_they_stand_out():
    vectors, texts = np.eye(3), np.array([[1.0, 0, 0], [0, 0, 2.0]])
    shares = np.array([0.9, 0.3, 0.3])
    plain = tag_agreement.agreement(shares, vectors, texts)
    np.testing.assert_allclose(plain, np.array([0.9, 0.3]) / np.sqrt(0.99))
    usual = tag_agreement.usual([np.array([0.9, 0.4, 0.0]), np.array([0.9, 0.4, 0.2])])
    np.testing.assert_allclose(tag_agreement.agreement(shares, vectors, texts, usual), [0, 1])
    np.testing.assert_allclose(tag_agreement.agreement(usual, vectors, texts, usual), [0, 0])
    with pytest.raises(InputError, match="usual"):
        tag_agreement.usual([])


def test_a_tagger_that_hears_drums_agrees_with_drums(monkeypatch):
    def heard(audio, sample_rate):
        assert audio.ndim == 1
        return np.array([0.0, 0.9, 0.1])

    monkeypatch.setitem(tag_agreement.TAGGERS, "made-up", lambda: (("piano", "drums", "opera"), heard))
    score = tag_agreement.tag_scorer("made-up")
    drums, piano = score(sound(), RATE, ["drum kit", "grand piano"])
    assert drums > piano + 0.2
    encoder = text.load()
    mean = (0.9 * encoder.encode(["drums"]).sentence + 0.1 * encoder.encode(["opera"]).sentence)[0]
    assert drums == pytest.approx(float(mean @ encoder.encode(["drum kit"]).sentence[0] / mean.norm()), abs=1e-6)
    with pytest.raises(InputError, match="shape"):
        score(sound()[0], RATE, ["drum kit"])
    with pytest.raises(InputError, match="musicnn"):
        tag_agreement.tag_scorer("shazam")


def test_yamnet_s_patches_have_its_published_shape_and_filters():
    """Peaks of 1, on the HTK scale, by librosa's own filters."""
    import librosa

    audio = sound(16000)[0]
    patches = tag_agreement.yamnet_patches(audio, 16000)
    assert patches.shape == (1, 1, 96, 64)
    assert tag_agreement.yamnet_patches(audio[:10], 16000).shape == (1, 1, 96, 64)
    assert tag_agreement.yamnet_patches(np.tile(audio, 2), 16000).shape == (3, 1, 96, 64)
    filters = librosa.filters.mel(sr=16000, n_fft=512, n_mels=64, fmin=125, fmax=7500, htk=True, norm=None)
    window = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400), 56)
    spectrum = np.abs(np.fft.rfft(audio[480 : 480 + 512] * window))
    np.testing.assert_allclose(patches[0, 0, 3], np.log(filters @ spectrum + 1e-3), atol=1e-4)
