"""One-shots for training: trimmed, labelled, varied, placed; a pure function of seed and item; and a tiny training."""

import numpy as np
import pytest
import soundfile as sf
import tiny_dance
import torch

from sfumato import preset
from sfumato.data import examples, manifest, oneshots
from sfumato.errors import InputError
from sfumato.model import load
from sfumato.systems.dance_diffusion import ANYWHERE, KINDS, START, Config
from sfumato.tasks.generate import generate

CONFIG = tiny_dance.CONFIG
RATE = CONFIG.sample_rate


def row(name, path="a.wav", split="train", **labels):
    return manifest.Row(
        source="test", recording=name, work=f"test/{name}", path=path, sha256="0" * 64, seconds=1, sample_rate=RATE,
        channels=1, licence="CC0", labels=labels, split=split,
    )  # fmt: skip


def hit(n=300, seed=0):
    return np.exp(-np.arange(n) / 60) * np.random.default_rng(seed).uniform(-0.5, 0.5, n)


def sounds(count=6):
    return [
        oneshots.Sound(hit(200 + 40 * i, i)[None].astype(np.float32) * 2, i % 3 + 1, str(i)) for i in range(count)
    ]


def write(folder, name, audio, rate=RATE):
    sf.write(folder / name, audio, rate, subtype="FLOAT")
    return row(name.removesuffix(".wav"), name)


def test_batches_are_a_pure_function_of_seed_step_and_item():
    dataset = oneshots.OneShots(sounds(), CONFIG)
    whole = dataset.batch(1, 5, 8, 0, 1)
    parts = [dataset.batch(1, 5, 8, rank, 2) for rank in (0, 1)]
    for key in ("clean", "labels"):
        assert torch.equal(whole[key], torch.cat([part[key] for part in parts]))
        assert not torch.equal(whole[key], dataset.batch(2, 5, 8, 0, 1)[key])
    assert len({row.numpy().tobytes() for row in whole["clean"]}) == 8  # no item is another one's
    assert whole["clean"].shape == (8, 1, CONFIG.n_samples)
    with pytest.raises(InputError, match="can't be shared by 3"):
        dataset.batch(1, 5, 8, 0, 3)
    assert whole["clean"].dtype == torch.float32


def test_windows_keep_their_levels_and_places():
    dataset = oneshots.OneShots(sounds(), CONFIG)
    batch = dataset.batch(0, 0, 256, 0, 1)
    peaks = batch["clean"].abs().amax(dim=(1, 2))
    assert float(peaks.max()) <= oneshots.PEAK + 1e-6
    assert float(peaks.min()) >= oneshots.PEAK * 10 ** (-oneshots.GAIN_DB / 20) - 1e-6
    places = batch["labels"][:, 1]
    assert float((places == ANYWHERE).float().mean()) == pytest.approx(oneshots.ANYWHERE_SHARE, abs=0.1)
    onsets = (batch["clean"][:, 0].abs() > 0.05 * peaks[:, None]).float().argmax(dim=1)
    latest = round(oneshots.LATEST_S * RATE) + 3
    assert int(onsets[places == START].max()) <= latest
    assert int(onsets[places == ANYWHERE].max()) > 100
    assert set(batch["labels"][:, 0].tolist()) == {0, 1, 2, 3}
    assert set(batch["labels"][places == START, 0].tolist()) == {1, 2, 3}


def test_rare_kinds_are_heard_more_often_than_they_are_there():
    many = [oneshots.Sound(hit()[None].astype(np.float32), 1, "a")] * 30
    rare = oneshots.Sound(hit()[None].astype(np.float32), 2, "b")
    labels = oneshots.OneShots([*many, rare], CONFIG).batch(0, 0, 400, 0, 1)["labels"]
    alone = labels[labels[:, 1] == START, 0]
    assert float((alone == 2).float().mean()) == pytest.approx(0.25 + 0.5 / 31, abs=0.06)


def test_validation_windows_are_the_sounds_themselves():
    dataset = oneshots.OneShots(sounds(3), CONFIG, augment=False)
    batch = dataset.batch(0, 0, 4, 0, 1)
    for i, label in enumerate((1, 2, 3, 1)):
        sound = dataset.sounds[i % 3].audio
        n = sound.shape[1]
        np.testing.assert_allclose(batch["clean"][i, :, :n], oneshots.PEAK * sound, rtol=1e-6)
        assert not batch["clean"][i, :, n:].any()
        assert batch["labels"][i].tolist() == [label, START]


def test_a_sound_that_outlasts_its_window_fades_out():
    long = oneshots.Sound(np.ones((1, 2000), np.float32), 1, "long")
    window = oneshots.OneShots([long], CONFIG, augment=False).batch(0, 0, 1, 0, 1)["clean"][0, 0]
    assert float(window[0]) == pytest.approx(oneshots.PEAK)
    assert abs(float(window[-1])) < 1e-6
    assert bool((window[-100:].diff() <= 0).all())


def test_silence_around_a_sound_is_trimmed_and_its_level_is_one():
    audio = np.concatenate([np.zeros(500), 0.01 * hit(), np.zeros(700)])[None].astype(np.float32)
    found = oneshots.trimmed(audio)
    assert np.abs(found).max() == pytest.approx(1.0)
    assert 250 < found.shape[1] <= 310
    assert oneshots.trimmed(np.zeros((1, 400), np.float32)) is None
    assert oneshots.trimmed(np.full((1, 400), 0.25, np.float32)) is None  # an offset is no sound
    assert oneshots.trimmed(np.array([[0.5]], np.float32)) is None
    assert oneshots.trimmed(np.zeros((1, 0), np.float32)) is None


@pytest.mark.parametrize(
    ("name", "labels", "kind"),
    [
        ("BD_01", {}, "kick"),
        ("EE_Kick_Hard_1", {}, "kick"),
        ("PearlSnare-Med", {}, "snare"),
        ("HandClap-Soft", {}, "clap"),
        ("CHH_1", {}, "hat"),
        ("TomHigh-3", {}, "tom"),
        ("Crash18-0", {}, "cymbal"),
        ("tabla_ghe3", {}, "hand"),
        ("synth_acid01", {}, "tone"),
        ("xyz", {}, "other"),
        ("xyz", {"class": "hat"}, "hat"),
        ("Kick", {"class": "hat"}, "hat"),
        ("xyz", {"class": "loop"}, "break"),
        ("beats_05-18", {"class": "percussion"}, "break"),
    ],
)
def test_kinds_are_told_by_labels_and_names(name, labels, kind):
    assert KINDS[oneshots.kind_of(row(name, **labels), KINDS) - 1] == kind


def test_rates_and_channels_may_be_mixed_and_what_is_no_sound_is_left_out(tmp_path):
    stereo = np.stack([hit(), 0.5 * hit()], axis=1)
    rows = [
        write(tmp_path, "mono.wav", hit()),
        write(tmp_path, "stereo.wav", stereo),
        write(tmp_path, "fast.wav", hit(1200), 4 * RATE),
        write(tmp_path, "silent.wav", np.zeros(400)),
        write(tmp_path, "single.wav", np.array([0.5])),
    ]
    mono = oneshots.load_sounds(rows, tmp_path, CONFIG)
    assert [sound.name for sound in mono] == ["test/mono", "test/stereo", "test/fast"]
    assert all(sound.audio.shape[0] == 1 for sound in mono)
    assert 60 < mono[2].audio.shape[1] < 310
    two = Config(**(CONFIG.model_dump() | {"network": CONFIG.network.model_dump() | {"channels": 2}}))
    assert all(sound.audio.shape[0] == 2 for sound in oneshots.load_sounds(rows, tmp_path, two))


def test_a_folder_without_sounds_and_a_broken_file_are_refused(tmp_path):
    silent = write(tmp_path, "silent.wav", np.zeros(400))
    with pytest.raises(InputError, match="None of 1 recordings"):
        oneshots.load_sounds([silent], tmp_path, CONFIG)
    with pytest.raises(InputError, match="None of 0 recordings"):
        oneshots.load_sounds([], tmp_path, CONFIG)
    (tmp_path / "broken.wav").write_bytes(b"RIFF no audio")
    with pytest.raises(InputError, match=r"broken\.wav can't be read"):
        oneshots.load_sounds([row("broken", "broken.wav")], tmp_path, CONFIG)
    with pytest.raises(InputError, match="NaN or infinite"):
        oneshots.load_sounds([write(tmp_path, "nan.wav", np.full(400, np.nan))], tmp_path, CONFIG)
    with pytest.raises(InputError, match=r"gone\.wav"):
        oneshots.load_sounds([row("gone", "gone.wav")], tmp_path, CONFIG)


def test_the_tiny_preset_trains_draws_and_is_fine_tuned(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    rows = [write(data, f"kick{i}.wav", hit(seed=i)) for i in range(3)]
    rows.append(write(data, "snare.wav", hit(seed=9)).model_copy(update={"split": "validation"}))
    manifest.write(data / "manifest.jsonl", rows)
    plan = preset.load("dance-tiny", ["train.steps=4", "train.demo_every=4", "train.checkpoint_every=2"])
    preset.train(plan, data, tmp_path / "run")
    assert (tmp_path / "run" / "demos" / "00000004.wav").is_file()
    model = load(tmp_path / "run")
    assert model.card.sample_rate == 8000
    take = next(generate(tmp_path / "run", {"steps": 2, "kind": "kick"}))
    assert take.audio.shape == (1, 1024)
    tuned = preset.load("dance-tiny", ["train.steps=1", f"train.start_from={tmp_path / 'run' / 'model'}"])
    preset.train(tuned, data, tmp_path / "tuned")
    before, after = (dict(load(tmp_path / name).network.named_parameters()) for name in ("run", "tuned"))
    apart = max(float((before[name] - after[name]).abs().max()) for name in before)
    assert apart < 0.01  # a fresh start would be far from it
    (own,) = model.card.data
    assert load(tmp_path / "tuned").card.data == (own, f"started from dance-tiny: {own}")
    other = preset.load("dance-tiny", ["config.network.embedding=32", f"train.start_from={tmp_path / 'run' / 'model'}"])
    with pytest.raises(InputError, match="don't fit"):
        preset.train(other, data, tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("config.network.kernel=4", "kernel is 4"),
        ("config.network.widths=[12, 20]", "multiples of 8"),
        ("config.network.attention_heads=3", "attention_heads is 3"),
        ("config.network={attention: [false, true], widths: [0, 32]}", "1 or more"),
        ("config.network={attention: [true], widths: [8]}", "give 2 or more of each"),
    ],
)
def test_a_network_that_can_not_be_built_is_refused_in_one_line(change, message):
    with pytest.raises(InputError, match=message) as refused:
        preset.load("dance-tiny", [change])
    assert "\n" not in str(refused.value)


def test_a_batch_is_shared_without_gaps_and_overlaps():
    assert [list(examples.share(6, rank, 3)) for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert list(examples.share(4, 0, 1)) == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"batch of 5 can't be shared by 2"):
        examples.share(5, 0, 2)
