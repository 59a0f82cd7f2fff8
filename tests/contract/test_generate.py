"""Generating: exact lengths, loops without a seam, and a sound that depends on its seed and number alone."""

import json
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf
import tiny_dance
import torch

import sfumato
from sfumato import cli
from sfumato.audio import open_recording
from sfumato.diffusion import guide
from sfumato.errors import InputError, ResourceError
from sfumato.systems import dance_diffusion
from sfumato.tasks import draw as task
from sfumato.tasks import provenance, takes
from sfumato.tasks.draw import Settings, denoiser, levels
from sfumato.tasks.generate import generate, generate_files


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_dance.folder(tmp_path_factory.mktemp("models") / "tiny")


def quick(**values):
    return Settings(**({"steps": 4, "seed": 5} | values))


def drawn(**values):
    return list(task.takes(tiny_dance.model(), quick(**values)))


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_2m_sde", "heun", "ancestral", "iplms"])
def test_a_sound_is_the_same_however_many_are_made(sampler):
    one, three = drawn(sampler=sampler), drawn(sampler=sampler, count=3)
    assert np.array_equal(one[0].audio, three[0].audio)
    assert not np.array_equal(three[0].audio, three[1].audio)
    assert not np.array_equal(one[0].audio, drawn(sampler=sampler, seed=6)[0].audio)


@pytest.mark.parametrize("seconds", [0.0005, 0.01, 0.064, 0.0641, 0.3])
def test_every_length_is_met_to_the_sample(seconds):
    assert drawn(seconds=seconds)[0].audio.shape == (1, round(8000 * seconds))


@pytest.mark.parametrize(("bpm", "bars", "beats"), [(96, 2, 4), (97.3, 3, 3), (174, None, 4)])
def test_a_loop_has_its_beats_exact_length(bpm, bars, beats):
    expected = round((bars or 1) * beats * 60 * 8000 / bpm)
    assert drawn(loop=True, bpm=bpm, bars=bars, beats=beats, steps=1)[0].audio.shape == (1, expected)


def test_a_short_sound_is_the_start_of_a_window_and_ends_in_silence():
    whole, cut = drawn()[0].audio, drawn(seconds=0.03)[0].audio
    n = cut.shape[1]
    assert np.array_equal(cut[:, : n - 40], whole[:, : n - 40])
    assert abs(cut[0, -1]) < 1e-9 < abs(whole[0, n - 1])


@pytest.mark.parametrize("values", [{"seconds": 0.0641}, {"seconds": 0.3}])
def test_a_sound_longer_than_a_window_fades_for_5_ms_and_a_loop_and_a_window_do_not(values, monkeypatch):
    made = drawn(**values)[0].audio
    monkeypatch.setattr(task, "faded", lambda audio, rate: audio)
    unfaded = drawn(**values)[0].audio
    assert np.array_equal(made[:, :-40], unfaded[:, :-40])
    ramp = np.cos(np.arange(1, 41) / 40 * np.pi / 2) ** 2
    np.testing.assert_allclose(made[:, -40:], unfaded[:, -40:] * ramp, atol=1e-12)
    assert np.abs(unfaded[:, -40:]).max() > 1e-4
    monkeypatch.setattr(task, "faded", lambda audio, rate: pytest.fail("faded"))
    drawn()
    drawn(loop=True, seconds=0.1)


def test_no_window_is_longer_than_the_model_s_however_long_the_sound():
    model, seen = tiny_dance.model(), []
    model.network.register_forward_hook(lambda module, given, out: seen.append(tuple(given[0].shape)))
    list(task.takes(model, quick(seconds=1.0, steps=1)))
    assert set(seen) == {(1, 1, 512)}
    assert len(seen) == -(-(8000 - 512) // 256) + 1


def test_windows_of_a_long_sound_and_a_short_one_are_told_apart():
    x, sigma = torch.randn(1, 1, 512, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3])
    model = tiny_dance.model()
    assert not torch.equal(denoiser(model, 0, True)(x, sigma), denoiser(model, 0, False)(x, sigma))


@pytest.mark.parametrize("turned", [256, 100, 1])
def test_a_loop_turned_is_the_loop_of_turned_noise_and_windows(turned):
    """By any number of samples, though windows lie 256 apart around 1024: the seam is nowhere."""
    model = tiny_dance.model()
    at = {first: denoiser(model, 0, False, lambda total, first=first: first) for first in (0, turned)}
    x = torch.randn(1, 1, 1024, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([0.5])
    found, expected = at[turned](x.roll(turned, -1), sigma), at[0](x, sigma).roll(turned, -1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    if turned != 256:  # of windows that stay it is not true
        assert (at[0](x.roll(turned, -1), sigma) - expected).abs().max() > 1e-3
    straight = guide.windows(denoiser(model, 0, False), 512, 256)(x, sigma)
    assert (straight - at[0](x, sigma)).abs()[..., -64:].max() > 1e-3


def test_every_place_of_a_loop_is_as_often_a_window_s_start(monkeypatch):
    """Each sound's windows lie elsewhere at each evaluation, evenly over the loop, always the same for its number."""
    model, starts = tiny_dance.model(), []
    whole = guide.circle

    def told(denoise, length, overlap, turn):
        return whole(denoise, length, overlap, lambda total: starts.append(turn(total)) or starts[-1])

    monkeypatch.setattr(guide, "circle", told)
    first = list(task.takes(model, quick(loop=True, seconds=0.128, steps=50, count=3)))
    assert len(starts) == 150
    assert len(set(starts)) > 120
    assert np.histogram(starts, 4, (0, 1024))[0].min() > 20
    again = list(task.takes(model, quick(loop=True, seconds=0.128, steps=50, count=1)))
    assert starts[150:] == starts[:50]
    assert np.array_equal(again[0].audio, first[0].audio)


def test_kinds_and_guidance_change_the_sound():
    plain, kick, snare = drawn()[0], drawn(kind="kick")[0], drawn(kind="snare")[0]
    assert not np.array_equal(plain.audio, kick.audio)
    assert not np.array_equal(kick.audio, snare.audio)
    assert not np.array_equal(kick.audio, drawn(kind="kick", cfg_scale=2.0)[0].audio)


@pytest.mark.parametrize("grid", ["karras", "crash", "cosine"])
def test_grids_have_the_model_s_ends(grid):
    sigmas = levels(grid, 10, tiny_dance.CONFIG, 20.0)
    assert float(sigmas[0]) == pytest.approx(20.0, rel=1e-6)
    assert float(sigmas[-2]) == pytest.approx(1e-3, rel=1e-6)


def test_a_sound_beyond_full_scale_is_turned_down_whole():
    audio = np.array([[0.1, -2.0, 1.0]])
    one = takes.take(audio, 8000, 3)
    assert np.abs(one.audio).max() == pytest.approx(takes.FULL_SCALE)
    np.testing.assert_allclose(one.audio, audio * one.gain)
    assert takes.take(audio / 4, 8000, 3).gain == 1.0


def test_files_and_their_record(tiny, tmp_path):
    out = tmp_path / "kick.wav"
    settings = {"steps": 4, "seed": 5, "count": 2, "kind": "kick", "seconds": 0.05}
    written = generate_files(out, tiny, settings)
    assert [path.name for path in written.files] == ["kick-1.wav", "kick-2.wav"]
    record = json.loads(written.json.read_text())
    assert written.json == tmp_path / "kick.wav.json"
    assert [row["file"] for row in record["takes"]] == ["kick-1.wav", "kick-2.wav"]
    assert record["takes"][1]["item"] == 1
    assert record["model"]["name"] == "tiny"
    again = next(iter(generate(tiny, record["settings"])))
    audio, rate = sf.read(tmp_path / "kick-1.wav", dtype="float64")
    assert rate == 8000
    np.testing.assert_allclose(audio, again.audio[0], atol=2**-23)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kick-1.wav", "kick-2.wav", "kick.wav.json"]


def told_in(path):
    with sf.SoundFile(path) as sound:
        return json.loads(sound.comment), sound.software


@pytest.mark.parametrize(("suffix", "steps"), [(".wav", 23), (".flac", 23), (".ogg", 6), (".m4a", 23)])
def test_a_sound_is_made_again_from_what_stands_in_its_file(tiny, tmp_path, suffix, steps):
    settings = {"steps": 4, "seed": 5, "count": 3, "kind": "kick", "seconds": 0.7, "grid": "crash"}
    written = generate_files(tmp_path / f"a{suffix}", tiny, settings)
    for item, path in enumerate(written.files):
        with open_recording(path) as recording:
            told = json.loads(recording.info.tags["comment"])
            audio = recording.read(0, recording.info.n_samples)
        assert told == {
            "sfumato": sfumato.__version__,
            "model": "tiny",
            "sha256": json.loads(written.json.read_text())["model"]["sha256"][:16],
            "seed": 5,
            "item": item,
            "settings": {"steps": 4, "kind": "kick", "seconds": 0.7, "grid": "crash"},
        }
        asked = {**told["settings"], "seed": told["seed"], "count": told["item"] + 1}
        made = list(generate(tiny, asked))
        np.testing.assert_allclose(audio, made[-1].audio, atol=2.0**-steps)
    if suffix != ".m4a":
        assert told_in(written.files[0])[1].startswith(f"sfumato {sfumato.__version__}")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".w64"])
def test_equal_commands_write_equal_files_whatever_they_are_called(tiny, tmp_path, suffix):
    settings = {"steps": 2, "seed": 5, "kind": "kick"}
    one = generate_files(tmp_path / f"a{suffix}", tiny, settings).files
    three = generate_files(tmp_path / f"b{suffix}", tiny, settings | {"count": 3}).files
    assert one[0].read_bytes() == three[0].read_bytes() != three[1].read_bytes()


def test_what_stands_in_a_file_is_json_however_much_was_asked_for():
    short = {"prompt": "ä" * 200, "negative": "drums/bass", "image": "mine/ü.jpg@3", "mask": "loudness"}
    long = {"prompt": "a\"b" * 5000}
    for values in (short, short | long):
        settings = SimpleNamespace(model_dump=lambda values=values, **how: values | {"count": 9, "seed": 3}, seed=3)
        made_by = provenance.provenance("tiny", "ab" * 32, settings, {"input": "some/where/in.wav"})
        line = made_by.line({"tuned_cents": 1.5}, item=2)
        told = json.loads(line)
        assert len(line) <= provenance.LONGEST
        assert line.isascii() and "\n" not in line
        assert (told["seed"], told["item"], told["input"], told["how"]) == (3, 2, "in.wav", {"tuned_cents": 1.5})
        expected = {"negative": "drums/bass", "image": "ü.jpg@3", "mask": "loudness"}
        assert told["settings"] == expected | ({"prompt": "ä" * 200} if values is short else {})
        assert told.get("left_out", []) == ([] if values is short else ["prompt"])
    many = provenance.Provenance("m" * 3000, "ab" * 32, 3, "ü" * 1000, {f"name{i}": "x" * 400 for i in range(9)})
    told = json.loads(many.line(item=2))
    assert (told["sha256"], told["seed"], told["item"]) == ("ab" * 8, 3, 2)
    assert {"model", "input", "name0"} <= {*told["left_out"]}


def stopped_after(made, count):
    """The first takes, then an interrupt."""
    for number, one in enumerate(made):
        if number == count:
            raise KeyboardInterrupt
        yield one


def test_the_record_tells_of_the_files_beside_it_wherever_a_run_is_stopped(tmp_path):
    model, out = tiny_dance.model(), tmp_path / "a.wav"

    def run(seed, stop):
        settings = quick(count=3, seed=seed, seconds=0.02, steps=1)
        made = stopped_after(task.takes(model, settings), stop)
        return takes.write_all(out, made, 3, model, settings, {})

    def record():
        return json.loads((tmp_path / "a.wav.json").read_text())

    with pytest.raises(KeyboardInterrupt):
        run(1, 0)
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        run(1, 2)
    assert [row["file"] for row in record()["takes"]] == ["a-1.wav", "a-2.wav"]
    assert len(run(2, 3).files) == 3
    before = (tmp_path / "a.wav.json").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(3, 0)  # before a file was replaced, all stays
    assert (tmp_path / "a.wav.json").read_bytes() == before
    with pytest.raises(KeyboardInterrupt):
        run(3, 1)
    assert record()["settings"]["seed"] == 3
    assert [row["file"] for row in record()["takes"]] == ["a-1.wav"]


def test_no_older_record_stands_beside_a_file_that_was_replaced(tmp_path):
    """Even of a process that is killed: at the moment a file is written, the older record is gone."""
    model, settings, there = tiny_dance.model(), quick(seconds=0.02, steps=1), []
    for _ in range(2):
        made = task.takes(model, settings)
        save = lambda path, one, tags: there.append(takes.record_of(path).exists())  # noqa: E731
        takes.write_all(tmp_path / "a.wav", made, 1, model, settings, {}, save)
    assert there == [False, False]


def test_one_sound_keeps_its_name(tiny, tmp_path):
    assert generate_files(tmp_path / "a.flac", tiny, {"steps": 4, "seed": 5}).files == (tmp_path / "a.flac",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loop": True}, "either bpm"),
        ({"loop": True, "bpm": 90, "seconds": 2}, "either bpm"),
        ({"bpm": 90}, "for a loop"),
        ({"loop": True, "seconds": 2, "bars": 2}, "bars and beats take a bpm"),
        ({"loop": True, "seconds": 2, "beats": 3}, "bars and beats take a bpm"),
        ({"beats": 3}, "beats are for a loop"),
        ({"cfg_scale": 2.0}, "ask for a kind"),
        ({"seconds": 0}, "greater than 0"),
        ({"count": 0}, "greater than or equal to 1"),
        ({"sampler": "magic"}, "dpmpp_2m"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Settings(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "banjo"}, "no kind 'banjo'. Possible are: kick, snare"),
        ({"loop": True, "seconds": 0.01}, "at least 0.02 s"),
        ({"seconds": 1e-5}, "0 samples"),
        ({"loop": True, "bpm": 0.1, "bars": 1000}, "samples at 8000 Hz"),
    ],
)
def test_what_the_model_can_not_do_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        drawn(**values)


def test_a_kind_is_refused_where_there_are_none():
    config = dance_diffusion.Config(**(tiny_dance.CONFIG.model_dump() | {"network": {"labels": ()}}))
    with pytest.raises(InputError, match="Possible are: none"):
        list(task.takes(tiny_dance.model(config), quick(kind="kick")))


def test_other_models_generate_nothing():
    with pytest.raises(InputError, match="conffusion and generates nothing"):
        generate("conffusion")
    with pytest.raises(InputError, match="no model 'nope'"):
        generate("nope")


def test_nothing_is_computed_for_a_file_that_can_not_be_written(tiny, tmp_path):
    with pytest.raises(ResourceError, match="does not exist"):
        generate_files(tmp_path / "no" / "a.wav", tiny)
    (tmp_path / "a-2.wav").mkdir()
    with pytest.raises(InputError, match="no ordinary file"):
        generate_files(tmp_path / "a.wav", tiny, {"count": 2})
    with pytest.raises(InputError):
        generate_files(tmp_path / "a.xyz", tiny)
    assert [path.name for path in tmp_path.iterdir()] == ["a-2.wav"]


def test_the_command(tiny, tmp_path, capsys):
    words = ["generate", tmp_path / "l.wav", "--model", tiny, "--loop", "--bpm", "480", "--steps", "2"]
    words += ["--class", "hat"]
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    assert not ended.value.code
    assert str(tmp_path / "l.wav") in capsys.readouterr().out
    assert sf.info(tmp_path / "l.wav").frames == round(4 * 60 * 8000 / 480)
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in [*words, "--seconds", "1"]])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: a --loop takes either --bpm, with bars, or --seconds.\n"
    with pytest.raises(SystemExit) as ended:
        cli.main(["generate", str(tmp_path / "l.wav"), "--cfg-scale", "2"])
    assert ended.value.code == 2
    assert "ask for a kind" in capsys.readouterr().err


def test_a_folder_is_no_file_to_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is a folder"):
        takes.check(pathlib.Path(), 1, 44100, 1, 100)
