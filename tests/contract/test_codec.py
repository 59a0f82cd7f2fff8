"""encode, decode, transform with a codec, models latency and export: what they promise and what they refuse."""

import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_rave import RATE, make

import sfumato
from sfumato import cli, entropy, player
from sfumato.errors import InputError, ModelError
from sfumato.model import load, save
from sfumato.player import axes
from sfumato.tasks import codec as task
from sfumato.tasks import export, latency, sfz, timbre
from sfumato.tasks.codec import Settings


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("codecs")
    kinds = {"gaussian": {}, "stereo": {"channels": 2}, "discrete": {"bottleneck": "discrete"}, "other": {"seed": 1}}
    return {kind: make(root / kind, **how) for kind, how in kinds.items()}


@pytest.fixture
def run(capsys, monkeypatch):
    """Run sfumato in this process: (exit code, stdout, stderr)."""

    def command(*arguments):
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        return ended.value.code or 0, *capsys.readouterr()

    return command


def noise(channels: int, n: int, seed: int = 0) -> np.ndarray:
    return 0.2 * np.random.default_rng(seed).standard_normal((channels, n))


# Entropy coding


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1 - entropy.LARGEST, entropy.LARGEST - 1)), max_size=60))
def test_numbers_come_back(values):
    coder, numbers = entropy.Encoder(), entropy.Numbers()
    for line, value in values:
        numbers.number(coder, line, value)
    back, numbers = entropy.Decoder(coder.finish()), entropy.Numbers()
    assert [(line, numbers.number(back, line)) for line, _ in values] == values


@given(st.lists(st.integers(0, 999), max_size=200))
def test_codes_come_back(values):
    coder, numbers = entropy.Encoder(), entropy.Numbers()
    for value in values:
        numbers.code(coder, 0, 10, value)
    back, numbers = entropy.Decoder(coder.finish()), entropy.Numbers()
    assert [numbers.code(back, 0, 10) for _ in values] == values


def bits_of(values) -> float:
    coder, numbers = entropy.Encoder(), entropy.Numbers()
    for value in values:
        numbers.number(coder, 0, int(value))
    return 8 * len(coder.finish()) / len(values)


@pytest.mark.parametrize("deviation", [0.3, 1.0, 8.0, 60.0])
def test_bits_come_near_the_entropy(deviation):
    values = np.rint(np.random.default_rng(0).normal(0, deviation, 6000)).astype(int)
    _, counts = np.unique(values, return_counts=True)
    entropy_bits = -(counts / len(values) * np.log2(counts / len(values))).sum()
    assert bits_of(values) < 1.04 * entropy_bits + 0.05


def test_what_is_foreseen_costs_less():
    random, values = np.random.default_rng(0), [0.0]
    for _ in range(4000):
        values.append(0.95 * values[-1] + np.sqrt(1 - 0.95**2) * random.normal(0, 10))
    shuffled = random.permutation(np.rint(values))
    assert bits_of(np.rint(values)) < bits_of(shuffled) - 1.2  # log2 of 1/sqrt(1 - 0.95²) is 1.68


# The verbs


@pytest.mark.parametrize("kind", ["gaussian", "stereo", "discrete"])
@pytest.mark.parametrize(("channels", "rate", "n"), [(1, RATE, 5000), (2, 11_025, 3001), (3, RATE, 1), (1, 5000, 777)])
def test_rate_channels_and_length_come_back(kind, channels, rate, n, folders, tmp_path):
    audio = noise(channels, n)
    done = sfumato.encode(audio, tmp_path / "a.sfz", sample_rate=rate, model=folders[kind])
    back = sfumato.decode(tmp_path / "a.sfz", model=folders[kind])
    assert back.audio.shape == audio.shape and back.sample_rate == rate
    assert np.isfinite(back.audio).all()
    assert done.bytes == (tmp_path / "a.sfz").stat().st_size
    assert done.kbit_s == pytest.approx(8e-3 * done.bytes / (n / rate))


def test_a_fine_step_and_full_fidelity_decode_what_the_codec_makes(folders, tmp_path):
    codec = player.load(folders["gaussian"])
    audio = noise(2, 6000)
    how = Settings(model=str(folders["gaussian"]), fidelity=1.0, step=1e-4)
    done = sfumato.encode(audio, tmp_path / "a.sfz", sample_rate=RATE, settings=how)
    back = sfumato.decode(tmp_path / "a.sfz", model=str(folders["gaussian"]))
    delay, hop = codec.recipe.network.delay, codec.hop_length
    padded = np.pad(audio, ((0, 0), (0, delay + (-(6000 + delay)) % hop)))[:, None].astype(np.float32)
    made, _ = codec.step(padded, codec.init(2, block=padded.shape[-1]))
    assert np.abs(back.audio - made[:, 0, delay : delay + 6000]).max() < 1e-3 * np.abs(made).max()
    assert done.dims == 6 and done.share == 1 and done.fidelity == pytest.approx(1)
    coarse = Settings(model=str(folders["gaussian"]), fidelity=1.0, step=1.0)
    assert sfumato.encode(audio, tmp_path / "b.sfz", sample_rate=RATE, settings=coarse).bytes < done.bytes / 2


def test_coordinates_are_rounded_and_the_last_is_scaled(folders, tmp_path):
    codec, audio = player.load(folders["gaussian"]), noise(1, 3000)
    how = Settings(model=str(folders["gaussian"]), fidelity=0.8, step=0.05)
    done = sfumato.encode(audio, tmp_path / "a.sfz", sample_rate=RATE, settings=how)
    with (tmp_path / "a.sfz").open("rb") as file:
        header, crc = sfz.read_header(file, tmp_path / "a.sfz")
        ((n_frames, data),) = sfz.read_chunks(file, tmp_path / "a.sfz", done.frames, crc)
    stored = task._unpack(codec, entropy.Numbers(), data, done.dims, n_frames).T * header.step
    delay = codec.recipe.network.delay
    padded = np.pad(audio, ((0, 0), (0, delay + (-(3000 + delay)) % codec.hop_length)))[None].astype(np.float32)
    latent, _ = codec.encode(padded, codec.init(1, block=padded.shape[-1]))
    places = axes.coordinates(codec.weights, latent)[0, : done.dims]
    places[-1] *= done.share
    assert 0 < done.share < 1 and header.step == pytest.approx(0.05 * codec.weights.scale[0], rel=1e-6)
    error = np.abs(stored - places)
    assert error.max() < 0.501 * header.step and error[:-1].max() > 0.4 * header.step


def test_fidelity_is_the_papers_and_continuous(folders):
    weights = player.load(folders["gaussian"]).weights
    scale = weights.scale.astype(float)
    for f in np.linspace(0.05, 1, 60):
        kept = axes.keep(weights, fidelity=float(f))
        first = int(np.argmax(np.cumsum(scale) / scale.sum() >= f - 1e-9)) + 1
        assert kept.dims == first  # the fewest whose singular values' share of the sum is f
        assert kept.fidelity == pytest.approx(f, abs=1e-6) and 0 < kept.share <= 1
        squares = scale[: first - 1] @ scale[: first - 1] + (kept.share * scale[first - 1]) ** 2
        assert kept.of_variance == pytest.approx(squares / (scale @ scale))
    edge = float(scale[:2].sum() / scale.sum())
    below, above = axes.keep(weights, edge - 1e-6), axes.keep(weights, edge + 1e-6)
    assert (below.dims, above.dims) == (2, 3) and below.share > 0.999 and above.share < 1e-3
    assert axes.keep(weights, dims=3).share == 1
    latent = np.random.default_rng(0).standard_normal((1, 6, 9)).astype(np.float32)
    assert np.allclose(axes.latent(weights, axes.coordinates(weights, latent)), latent, atol=1e-5)


def test_dimensions_left_out_are_at_their_mean_or_drawn_by_a_seed(folders, tmp_path):
    model = str(folders["gaussian"])
    sfumato.encode(noise(1, 4000), tmp_path / "a.sfz", sample_rate=RATE, settings=Settings(model=model, dims=2))
    mean, again = (sfumato.decode(tmp_path / "a.sfz", model=model).audio for _ in range(2))
    one, same, two = (sfumato.decode(tmp_path / "a.sfz", model=model, seed=seed).audio for seed in (1, 1, 2))
    assert np.array_equal(mean, again) and np.array_equal(one, same)
    assert not np.allclose(one, mean, atol=1e-4) and not np.allclose(one, two, atol=1e-4)


def test_the_same_bytes_every_time_and_from_a_file(folders, tmp_path):
    audio = noise(2, 3000)
    sf.write(tmp_path / "a.wav", audio.T, RATE, subtype="DOUBLE")
    for name, source, rate in (("a", audio, RATE), ("b", tmp_path / "a.wav", None)):
        sfumato.encode(source, tmp_path / f"{name}.sfz", sample_rate=rate, model=folders["gaussian"])
    assert (tmp_path / "a.sfz").read_bytes() == (tmp_path / "b.sfz").read_bytes()


def test_divergence_is_reported_per_dimension(folders, tmp_path):
    codec, audio = player.load(folders["gaussian"]), noise(1, 4000)
    done = sfumato.encode(audio, tmp_path / "a.sfz", sample_rate=RATE, model=folders["gaussian"])
    delay = codec.recipe.network.delay
    padded = np.pad(audio, ((0, 0), (0, delay + (-(4000 + delay)) % codec.hop_length)))[None].astype(np.float32)
    mean, spread, _ = codec.posterior(padded, codec.init(1, block=padded.shape[-1]))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(torch.from_numpy(mean), torch.from_numpy(spread)), torch.distributions.Normal(0, 1)
    )
    assert np.allclose(done.kl_nats, expected.mean(dim=(0, 2)), rtol=1e-3)
    assert done.kl_dims == sum(np.array(done.kl_nats) > 0.1)
    assert sfumato.encode(audio, tmp_path / "b.sfz", sample_rate=RATE, model=folders["discrete"]).kl_nats is None


def test_fewer_codebooks_are_fewer_bytes(folders, tmp_path):
    model = str(folders["discrete"])
    sizes = [
        sfumato.encode(
            noise(1, 20_000), tmp_path / "a.sfz", sample_rate=RATE, settings=Settings(model=model, dims=dims)
        ).bytes
        for dims in (1, 2, 3)
    ]
    assert sizes == sorted(set(sizes))
    with pytest.raises(InputError, match="fidelity"):
        how = Settings(model=model, fidelity=0.5)
        sfumato.encode(noise(1, 100), tmp_path / "a.sfz", sample_rate=RATE, settings=how)
    with pytest.raises(InputError, match="3 codebooks, not 4"):
        sfumato.encode(noise(1, 100), tmp_path / "a.sfz", sample_rate=RATE, settings=Settings(model=model, dims=4))


def test_a_file_damaged_or_cut_at_any_byte_is_refused(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(sfz, "FRAMES", 40)
    path, broken = tmp_path / "a.sfz", tmp_path / "b.sfz"
    sfumato.encode(noise(1, 4000), path, sample_rate=RATE, model=folders["gaussian"])
    codec = player.load(folders["gaussian"])
    monkeypatch.setattr(task, "load", lambda name: codec)
    assert sfumato.decode(path, model="given").n_samples == 4000
    data = path.read_bytes()
    cases = [data[:stop] for stop in range(0, len(data), 3)] + [data + b"\0"]
    cases += [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(0, len(data), 3)]
    for case in cases:
        broken.write_bytes(case)
        with pytest.raises((InputError, ModelError)):
            sfumato.decode(broken, tmp_path / "out.wav", model="given")
        assert not (tmp_path / "out.wav").exists()
    broken.write_text("<region> sample=piano.wav key=60\n")
    with pytest.raises(InputError, match="no sound that sfumato encoded"):
        sfumato.decode(broken)


def test_another_model_is_refused(folders, tmp_path):
    sfumato.encode(noise(1, 500), tmp_path / "a.sfz", sample_rate=RATE, model=folders["gaussian"])
    with pytest.raises(ModelError, match="another model"):
        sfumato.decode(tmp_path / "a.sfz", model=folders["other"])
    with pytest.raises(InputError, match="no model 'random'"):
        sfumato.decode(tmp_path / "a.sfz")
    with pytest.raises(ModelError, match="conffusion"):
        sfumato.encode(noise(1, 500), tmp_path / "b.sfz", sample_rate=RATE, model="conffusion")


@pytest.mark.parametrize("audio", [np.zeros(9), np.zeros((1, 0)), np.full((1, 9), np.nan)])
def test_what_cannot_be_encoded_is_refused(audio, folders, tmp_path):
    with pytest.raises(InputError):
        sfumato.encode(audio, tmp_path / "a.sfz", sample_rate=RATE, model=folders["gaussian"])
    assert not list(tmp_path.iterdir())


def test_what_a_file_cannot_hold_is_refused(folders, tmp_path):
    how = {"model": folders["gaussian"]}
    audio = noise(1, 500)
    many = np.zeros((70_000, 1))
    for values, rate in ((audio, 44100.0), (audio, "8000"), (audio, None), (audio, 0), (audio, 1 << 32), (many, RATE)):
        with pytest.raises(InputError):
            sfumato.encode(values, tmp_path / "a.sfz", sample_rate=rate, **how)
    assert sfumato.encode(audio, tmp_path / "a.sfz", sample_rate=np.int64(RATE), **how).sample_rate == RATE


def test_a_coordinate_that_does_not_fit_is_refused(folders, tmp_path, monkeypatch):
    how = Settings(model=str(folders["gaussian"]), fidelity=1.0, step=1e-3)
    args = (noise(1, 500), tmp_path / "a.sfz")
    sfumato.encode(*args, sample_rate=RATE, settings=how)
    (tmp_path / "a.sfz").unlink()
    monkeypatch.setattr(task, "LARGEST", 1000)
    with pytest.raises(InputError, match="too fine"):
        sfumato.encode(*args, sample_rate=RATE, settings=how)
    assert not list(tmp_path.iterdir())
    finest = Settings(model=str(folders["gaussian"]), fidelity=1e-3, step=1e-4)
    monkeypatch.undo()
    sfumato.encode(*args, sample_rate=RATE, settings=finest)
    assert np.isfinite(sfumato.decode(tmp_path / "a.sfz", model=folders["gaussian"]).audio).all()


@pytest.mark.parametrize("name", ["\x1b[2J", "/etc", "../codec", "", "a" * 65, "a\n"])
def test_a_header_with_a_strange_name_is_refused(name, folders, tmp_path):
    codec = player.load(folders["gaussian"])
    with (tmp_path / "a.sfz").open("wb") as file:
        sfz.write_header(file, sfz.Header(name, codec.digest, RATE, 1, 100, 6, 1.0, 1.0))
    with pytest.raises(InputError, match="names no model"):
        sfumato.decode(tmp_path / "a.sfz")


def test_a_folder_that_happens_to_be_called_like_the_model_is_not_read(folders, tmp_path, monkeypatch):
    sfumato.encode(noise(1, 500), tmp_path / "a.sfz", sample_rate=RATE, model=folders["gaussian"])
    (tmp_path / "random").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="Give its folder"):
        sfumato.decode("a.sfz")


def test_editing_a_figure_leaves_files_decodable(folders, tmp_path):
    sfumato.encode(noise(1, 500), tmp_path / "a.sfz", sample_rate=RATE, model=folders["gaussian"])
    made = load(folders["gaussian"])
    save(replace(made, card=made.card.model_copy(update={"figures": {"mel": 1.0}})), tmp_path / "edited")
    assert sfumato.decode(tmp_path / "a.sfz", model=tmp_path / "edited").audio.shape == (1, 500)


@pytest.mark.parametrize(("n", "rate", "channels"), [(1, RATE, 1), (31, RATE, 1), (65_546, RATE, 1), (3000, 48_000, 2)])
@pytest.mark.parametrize("kind", ["gaussian", "discrete"])
def test_transfer_of_blocks_that_complete_no_frame(kind, n, rate, channels, folders, tmp_path):
    sf.write(tmp_path / "a.wav", noise(channels, n).T, rate)
    timbre.transform(load(folders[kind]), tmp_path / "a.wav", tmp_path / "b.wav", timbre.Settings(), lambda *_: None)
    with sf.SoundFile(tmp_path / "b.wav") as sound:
        assert (sound.frames, sound.channels) == (n, channels)
        assert json.loads(sound.comment)["input"] == "a.wav"


def test_an_interrupted_transfer_leaves_no_older_record(folders, tmp_path):
    sf.write(tmp_path / "a.wav", noise(1, 3000).T, RATE)
    made = load(folders["gaussian"])
    written = timbre.transform(made, tmp_path / "a.wav", tmp_path / "b.wav", timbre.Settings(), lambda *_: None)
    assert written.json.exists()

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        timbre.transform(made, tmp_path / "a.wav", tmp_path / "b.wav", timbre.Settings(fidelity=0.5), interrupted)
    assert not written.json.exists()


def test_memory_does_not_grow_with_length(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(sfz, "FRAMES", 64)
    codec = player.load(folders["gaussian"])
    monkeypatch.setattr(task, "load", lambda name: codec)
    monkeypatch.setattr(entropy.Numbers, "number", lambda self, coder, line, value=0: value)
    peaks = []
    for seconds in (20, 80):
        blocks = (noise(1, RATE) for _ in range(seconds))
        how = Settings(model="any")
        tracemalloc.start()
        task._encode(blocks, RATE, 1, seconds * RATE, tmp_path / "a.sfz", codec, how, lambda *_: None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


# The command line


def test_the_commands(run, folders, tmp_path):
    sf.write(tmp_path / "a.wav", noise(2, 3000).T, 11_025)
    model = folders["gaussian"]
    code, out, _ = run("encode", tmp_path / "a.wav", tmp_path / "a.sfz", "--model", model, "--fidelity", 0.9, "--json")
    found = json.loads(out)
    assert code == 0 and found["fidelity"] == pytest.approx(0.9) and len(found["kl_nats"]) == 6
    assert {"kbit_s", "dims", "fidelity_of_variance", "kl_dims", "took_s"} <= found.keys()
    assert found["step"] == 0.1 and found["duration_s"] == found["n_samples"] / found["sample_rate"]
    code, out, _ = run("decode", tmp_path / "a.sfz", tmp_path / "b.wav", "--model", model)
    assert code == 0 and "b.wav" in out
    assert sf.info(tmp_path / "b.wav").frames == 3000 and sf.info(tmp_path / "b.wav").samplerate == 11_025
    both = ("--fidelity", 1, "--dims", 2)
    code, _, error = run("encode", tmp_path / "a.wav", tmp_path / "c.sfz", "--model", model, *both)
    assert code == 2 and "give one" in error
    assert run("encode", tmp_path / "a.wav", tmp_path / "c.sfz")[0] == 2
    for flags in (("--step", 1e-5), ("--step", 11), ("--fidelity", 1e-4), ("--fidelity", 2), ("--dims", 0)):
        assert run("encode", tmp_path / "a.wav", tmp_path / "c.sfz", "--model", model, *flags)[0] == 2
    code, _, error = run("encode", tmp_path / "missing.wav", tmp_path / "a.sfz", "--model", model)
    assert code == 3 and "missing.wav" in error
    assert run("encode", tmp_path / "a.wav", tmp_path / "a.wav", "--model", model)[0] == 3
    assert run("decode", tmp_path / "a.wav", tmp_path / "c.wav")[0] == 3
    code, _, error = run("encode", tmp_path / "a.wav", tmp_path / "c.wav", "--model", model)
    assert code == 3 and "Name it c.sfz" in error and not (tmp_path / "c.wav").exists()


def test_transform_moves_and_stretches_axes(run, folders, tmp_path):
    sf.write(tmp_path / "a.wav", noise(1, 3000).T, RATE, subtype="DOUBLE")
    made = {}
    for name, flags in {"plain": (), "moved": ("--bias", "0=2"), "less": ("--fidelity", 0.5)}.items():
        code, _, error = run(
            "transform", tmp_path / "a.wav", tmp_path / f"{name}.wav", "--model", folders["gaussian"], *flags
        )
        assert code == 0, error
        made[name] = sf.read(tmp_path / f"{name}.wav")[0]
        assert len(made[name]) == 3000
    assert not np.allclose(made["plain"], made["moved"], atol=1e-3)
    assert not np.allclose(made["plain"], made["less"], atol=1e-3)
    record = json.loads((tmp_path / "less.wav.json").read_text())
    assert record["settings"]["fidelity"] == 0.5 and record["dims"] < 6
    wrong = {("--bias", "6=1"): 3, ("--scale", "x"): 2, ("--bias", "0=nan"): 2, ("--strength", "0.3"): 2}
    for flags, expected in wrong.items():
        code, *_ = run("transform", tmp_path / "a.wav", tmp_path / "c.wav", "--model", folders["gaussian"], *flags)
        assert code == expected and not (tmp_path / "c.wav").exists()


def test_values_beyond_full_scale_are_counted_and_told_of(run, folders, tmp_path, monkeypatch):
    sf.write(tmp_path / "a.wav", noise(1, 300).T, RATE)
    words = ("transform", tmp_path / "a.wav", tmp_path / "b.wav", "--model", folders["gaussian"])
    code, _, error = run(*words, "--fidelity", 0.5)
    takes = json.loads((tmp_path / "b.wav.json").read_text())["takes"]
    assert (code, error, takes[0]["clipped_values"]) == (0, "", 0)
    loud = [np.float32([[0.5] * 99 + [1.5]]), np.float32([[-2.0] * 200])]
    monkeypatch.setattr(timbre, "_transferred", lambda *_: iter(loud))
    code, _, error = run(*words)
    takes = json.loads((tmp_path / "b.wav.json").read_text())["takes"]
    assert (code, takes[0]["clipped_values"], error.count("\n")) == (0, 201, 1)
    assert "201 values lay beyond full scale" in error
    code, _, error = run(*words, "--bias", "0=50")
    assert code == 2 and "from -10 to 10" in error


def test_bias_and_scale_are_in_standard_deviations(folders):
    weights = player.load(folders["gaussian"]).weights
    latent = np.random.default_rng(0).standard_normal((1, 6, 20)).astype(np.float32)
    altered = timbre.alter(weights, latent, 1.0, {1: 1.5}, {2: -2.0})
    before, after = axes.coordinates(weights, latent), axes.coordinates(weights, altered)
    assert np.allclose(after[:, 1], before[:, 1] + 1.5 * weights.scale[1], atol=1e-5)
    assert np.allclose(after[:, 2], -2 * before[:, 2], atol=1e-5)
    assert np.allclose(np.delete(after, (1, 2), axis=1), np.delete(before, (1, 2), axis=1), atol=1e-5)


def test_the_ledger_adds_up(run, folders):
    codec = player.load(folders["gaussian"])
    whole = latency.measure(codec, 2 * codec.hop_length, seconds=0.01)
    odd = latency.measure(codec, 5, seconds=0.01)
    assert (whole.queue, odd.queue) == (0, codec.hop_length - 1)
    for found in (whole, odd):
        assert found.filter_bank == 41 - 4 and found.total == found.block + found.queue + found.filter_bank
        assert 0 < found.compute_median_ms <= found.compute_worst_ms
    code, out, _ = run("models", "latency", folders["gaussian"], "--block", 64, "--json")
    assert code == 0 and json.loads(out)["hop"] == codec.hop_length


def test_a_pulse_comes_back_after_the_latency(folders):
    """Reconstruction is causal: nothing before the input's frame, and the filter bank alone delays by what is said."""
    codec = player.load(folders["gaussian"])
    x = np.zeros((1, 1, 40 * codec.hop_length), np.float32)
    silent, _ = codec.step(x, codec.init())
    at = 20 * codec.hop_length
    x[..., at] = 1
    heard, _ = codec.step(x, codec.init())
    assert np.abs(heard - silent)[..., :at].max() == 0 and np.abs(heard - silent).max() > 0


@pytest.mark.parametrize("kind", ["gaussian", "stereo"])
def test_the_exported_file_plays_in_plain_torch(kind, run, folders, tmp_path):
    codec = player.load(folders[kind])
    x = np.random.default_rng(0).normal(0, 0.3, (2, codec.channels, 24 * codec.hop_length)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assert run("models", "export", folders[kind], tmp_path / "codec.ts")[0] == 0
    script = (
        "import sys, warnings, numpy as np, torch\n"
        "warnings.simplefilter('ignore')\n"
        "codec = torch.jit.load('codec.ts')\n"
        "x = torch.from_numpy(np.load('x.npy'))\n"
        f"blocks = x.split({4 * codec.hop_length}, dim=-1)\n"
        "with torch.no_grad():\n"
        "    played = torch.cat([codec(block) for block in blocks], dim=-1)\n"
        "    codec.reset()\n"
        "    again = codec.decode(codec.encode(x))\n"
        "    codec.reset()\n"
        "    assert codec.set_fidelity(0.5) == 0 and abs(codec.get_fidelity() - 0.5) < 1e-6\n"
        "    assert codec.set_fidelity(0.0) == -1 and codec.set_fidelity(2.0) == -1\n"
        "    less = codec(x)\n"
        "    one = codec(x[:1])\n"
        "params = {k: v.tolist() for k, v in codec.named_buffers() if k.endswith('_params')}\n"
        "assert codec.get_methods() == ['encode', 'decode', 'forward'] and codec.get_attributes() == ['fidelity']\n"
        "assert not [m for m in sys.modules if m.startswith('sfumato')]\n"
        "np.savez('out.npz', played=played, again=again, less=less, **params)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    out = np.load(tmp_path / "out.npz")
    ours, _ = codec.step(x, codec.init(2, block=x.shape[-1]))
    half, _ = codec.step(
        x, codec.init(2, block=x.shape[-1]), alter=lambda latent: timbre.alter(codec.weights, latent, 0.5, {}, {})
    )
    assert np.abs(out["played"] - ours).max() < 1e-5 and np.abs(out["again"] - ours).max() < 1e-5
    assert np.abs(out["less"] - half).max() < 1e-5 and np.abs(half - ours).max() > 1e-3
    hop, channels = codec.hop_length, codec.channels
    assert out["encode_params"].tolist() == [channels, 1, 6, hop]
    assert out["decode_params"].tolist() == [6, hop, channels, 1]
    assert out["forward_params"].tolist() == [channels, 1, channels, 1]


def test_what_cannot_be_exported_is_refused(folders, tmp_path):
    with pytest.raises(InputError, match="discrete"):
        export.export(load(folders["discrete"]), tmp_path / "a.ts")
    with pytest.raises(ModelError, match="conffusion"):
        export.export(load("conffusion"), tmp_path / "a.ts")
    assert not list(tmp_path.iterdir())


def test_encoding_loads_no_torch(folders, tmp_path):
    code = (
        "import sys, numpy as np, sfumato\n"
        f"sfumato.encode(np.zeros((1, 99)), 'a.sfz', sample_rate=8000, model={str(folders['gaussian'])!r})\n"
        f"sfumato.decode('a.sfz', 'a.wav', model={str(folders['gaussian'])!r})\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
