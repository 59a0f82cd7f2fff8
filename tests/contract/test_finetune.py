"""A new word for a few clips: what is learnt, what is kept, what is written, and what is refused."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from sfumato import cli, preset
from sfumato.config import parse
from sfumato.data import few_clips, own_sounds
from sfumato.data.few_clips import FewClips, encoded, read_clips
from sfumato.diffusion.noise import BatchNoise, chooser
from sfumato.errors import InputError, ModelError
from sfumato.finetune import ADAPTER, Settings, Taught, Tuning, finetune, prepare, put_on, slug
from sfumato.model import Card, Model, find, load, read_tensors, save, write_tensors
from sfumato.systems import riffusion

RATE = 8000
WORD = "sks gamelan"


def quiet(done, total, text):
    pass


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Riffusion in miniature whose weights are random, none of them 0."""
    plan = preset.load("riffusion-tiny")
    torch.manual_seed(3)
    network = riffusion.build(plan.config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    card = Card(summary="Tiny.", licence="CC-BY-SA-4.0", data=("studies: 3 recordings (CC0)",), limits="It is random.")
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(Model("tiny", "riffusion", plan.config, network, card), folder)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Tones of one chord, at three rates, one of them stereo, one shorter than a window."""
    folder = tmp_path_factory.mktemp("clips")
    for i, (rate, seconds, channels) in enumerate(((8000, 0.8, 1), (44100, 0.4, 2), (16000, 0.05, 1))):
        time = np.arange(int(rate * seconds)) / rate
        tone = 0.3 * np.sin(2 * np.pi * 440 * time) + 0.2 * np.sin(2 * np.pi * 660 * time)
        sf.write(folder / f"{i}.wav", np.repeat(tone[:, None], channels, 1), rate)
    (folder / "notes.txt").write_text("not a clip")
    return folder


def settings(base, **values):
    own = {"word": WORD, "model": str(base), "steps": 6, "prior": 4, "prior_steps": 2, "rank": 4, "seed": 5}
    return Settings(**(own | values))


def run(*arguments):
    with pytest.raises(SystemExit) as left:
        cli.main([str(argument) for argument in arguments])
    return left.value.code


@pytest.fixture(scope="module")
def made(base, clips, tmp_path_factory):
    """A training by the command line."""
    out = tmp_path_factory.mktemp("made") / "out"
    arguments = ["--word", WORD, "--model", base, "--out", out, "--steps", 60, "--prior", 4, "--prior-steps", 2]
    arguments += ["--rank", 4, "--learning-rate", 0.03, "--seed", 5, "--licence", "CC0"]
    assert run("finetune", clips, *arguments) == 0
    return out


def test_it_writes_a_model_that_says_how_it_was_made(made, base, clips):
    model = load(made)
    card, before = model.card, load(base)
    assert (model.name, model.system, model.config) == ("sks-gamelan", "riffusion", before.config)
    assert WORD in card.summary
    assert "3 clips" in card.summary
    assert card.licence == "CC-BY-SA-4.0, as far as tiny goes; clips: CC0"
    assert (card.steps, card.seed, card.sample_rate) == (60, 5, RATE)
    assert card.command == (
        "sfumato finetune DIR --word 'sks gamelan' --model tiny --steps 60 --rank 4 --learning-rate 0.03 --prior 4 "
        "--prior-steps 2 --seed 5 --licence CC0"
    )
    for clip in read_clips(clips, RATE):
        assert f"'{WORD}': {clip.name}, SHA-256 {clip.sha256} (CC0)" in card.data
    assert "started from tiny: studies: 3 recordings (CC0)" in card.data
    assert "4 sounds that tiny drew for 'gamelan'" in card.data
    assert card.limits.endswith("It is random.")
    assert model.network.state_dict().keys() == before.network.state_dict().keys()


def test_it_has_learnt_the_clips_and_all_else_is_as_it_was(made, base):
    """The loss is compared here once more, on clips of its own and with noise of its own, the same for both."""
    figures = load(made).card.figures
    assert figures["loss on the clips after"] < 0.95 * figures["loss on the clips before"]
    time = np.arange(4000) / RATE
    audio = torch.from_numpy(0.1 * np.sin(2 * np.pi * 440 * time[None] + np.arange(4)[:, None])).float()[:, :1088]
    batch = {"audio": audio} | few_clips.fields(encoded([WORD]), [0] * 4)
    config = load(base).config.model_copy(update={"unprompted": 0.0})

    def loss(network):
        noises = [BatchNoise(9, 4 * i, 4) for i in range(6)]
        return np.mean([float(riffusion.loss(network, batch, config, own, "denoise")["total"]) for own in noises])

    old, new = loss(load(base).network), loss(load(made).network)
    assert new < 0.95 * old
    changed = load(made).network.state_dict()
    same = [name for name, value in load(base).network.state_dict().items() if torch.equal(value, changed[name])]
    assert "place" in same
    assert "key.weight" in same
    frozen = {"place", "nothing", "frequencies", "key.weight"}
    assert {name for name in same if not name.endswith("bias") and "norm" not in name and "last" not in name} == (
        frozen | {"tempo.weight"}  # no clip has a tempo
    )


def test_the_adapter_alone_is_small_and_makes_the_same_model(made, base, tmp_path):
    assert (made / ADAPTER).stat().st_size < 40_000
    assert {value.dtype for value in read_tensors(made / ADAPTER)[0].values()} == {torch.float16}
    assert run("finetune", made / ADAPTER, "--model", base, "--out", tmp_path / "again") == 0
    assert run("finetune", made / ADAPTER, "--model", base, "--word", WORD, "--out", tmp_path / "again") == 2
    assert run("finetune", made / ADAPTER, "--model", base) == 2
    with pytest.raises(InputError, match="there already"):
        put_on(made / ADAPTER, str(base), made)  # the folder of a training is no model's
    assert (made / "log.jsonl").is_file()
    one, two = load(made), load(tmp_path / "again")
    assert one.card == two.card
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, two.network.state_dict()[name]), name


def test_an_adapter_is_refused_where_it_does_not_belong(made, base, tmp_path):
    other = load(base)
    with torch.no_grad():
        other.network.place[0, 0, 0, 0] += 1
    save(replace(other, name="other"), tmp_path / "other")
    with pytest.raises(InputError, match=r"another model than .*: on tiny"):
        put_on(made / ADAPTER, str(tmp_path / "other"), tmp_path / "x")
    renewed = replace(load(base), card=Card(figures={"measured later": 1.0}))
    save(renewed, tmp_path / "renewed")
    assert put_on(made / ADAPTER, str(tmp_path / "renewed"), tmp_path / "fine").is_dir()
    with pytest.raises(ModelError, match="no adapter"):
        put_on(base / "model.safetensors", str(base), tmp_path / "x")
    factors, about = read_tensors(made / ADAPTER)
    factors.pop("noise.weight.up")
    broken = tmp_path / "broken.safetensors"
    write_tensors(broken, factors, about)
    with pytest.raises(ModelError, match=r"broken: .*noise\.weight\.up"):
        put_on(broken, str(base), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_stopped_training_goes_on_as_if_nothing_had_been(base, clips, tmp_path, monkeypatch):
    chosen = settings(base)
    finetune(clips, chosen, tmp_path / "whole")
    whole = FewClips.batch

    def interrupted(self, seed, step, size, rank, world):
        if step == 3 and seed == chosen.seed:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(self, seed, step, size, rank, world)

    monkeypatch.setattr(FewClips, "batch", interrupted)
    with pytest.raises(SystemExit) as stopped:
        finetune(clips, chosen, tmp_path / "parts")
    assert stopped.value.code == 130
    monkeypatch.setattr(FewClips, "batch", whole)
    monkeypatch.setattr(own_sounds, "draw", None)  # they are there already
    assert not (tmp_path / "parts" / "model").exists()
    finetune(clips, chosen, tmp_path / "parts")
    for name in ("model/model.safetensors", ADAPTER):
        one, two = (read_tensors(tmp_path / run / name)[0] for run in ("whole", "parts"))
        assert all(torch.equal(value, two[key]) for key, value in one.items())
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts/log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_a_training_of_other_clips_or_another_word_is_not_taken_up(base, clips, tmp_path):
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(clips / "2.wav", one)
    quick = {"steps": 1, "prior": 1, "prior_steps": 1}
    finetune(one, settings(base, **quick), tmp_path / "out")
    for other in ({"word": "zwx gamelan"}, {"rank": 2}, {"alpha": 1.0}):
        with pytest.raises(InputError, match="holds a training of another"):
            finetune(one, settings(base, **(quick | other)), tmp_path / "out")
    shutil.copy(clips / "0.wav", one)
    with pytest.raises(InputError, match="holds a training of another"):
        finetune(one, settings(base, **quick), tmp_path / "out")


def test_own_sounds_are_a_pure_function_of_the_seed(base):
    model = load(base)
    prompts = own_sounds.own_prompts("gamelan", 4)
    four = own_sounds.draw(model.network, model.config, prompts, 3, 1, quiet)
    assert four.shape == (4, model.config.n_samples)
    assert torch.equal(own_sounds.draw(model.network, model.config, prompts[:2], 3, 1, quiet), four[:2])
    assert not torch.equal(own_sounds.draw(model.network, model.config, prompts[:2], 3, 2, quiet), four[:2])
    assert bool((four.abs().amax(dim=1) > 0).all())
    assert not torch.equal(four[0], four[1])


def test_own_sounds_are_of_the_kind_and_some_of_nothing():
    assert own_sounds.own_prompts("gamelan", 9) == [
        "gamelan", "a recording of gamelan", "the sound of gamelan", "music with gamelan",
        "gamelan", "a recording of gamelan", "the sound of gamelan", "", "gamelan",
    ]  # fmt: skip
    said = encoded(["gamelan", ""])
    assert bool(said.valid[0].any())
    assert not bool(said.valid[1].any())
    assert not bool(said.sentence[1].any())
    assert [Settings(word=word).kind_of for word in ("sks gamelan", "gamelan", "sks slow gamelan")] == [
        "gamelan", "music", "slow gamelan",
    ]  # fmt: skip
    assert Settings(word="sks gamelan", kind="bell").kind_of == "bell"


def pairs(prior=3, n=1088):
    waves = [few_clips.Clip(f"{i}", f"{i}", np.sin(np.arange(600 + 900 * i), dtype=np.float32)) for i in range(3)]
    kept = torch.arange(prior)[:, None].expand(prior, n) * 1.0
    names = [f"sound {i}" for i in range(max(1, prior))]
    return FewClips(waves, encoded(["sks tone", "a sks tone"]), kept, encoded(names), n)


def test_batches_are_pure_and_shares_join_to_the_whole():
    data = pairs()
    whole, again = data.batch(1, 4, 6, 0, 1), data.batch(1, 4, 6, 0, 1)
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    halves = [data.batch(1, 4, 6, rank, 2) for rank in (0, 1)]
    assert all(torch.equal(torch.cat([half[key] for half in halves]), whole[key]) for key in whole)
    assert not torch.equal(data.batch(1, 5, 6, 0, 1)["audio"], whole["audio"])
    assert len({row.numpy().tobytes() for row in whole["audio"]}) == 6
    for i in range(6):  # each of the model's own sounds comes with what it was drawn for
        number = int(whole["prior.audio"][i, 0])
        assert torch.equal(whole["prior.sentence"][i], data.prior_words.sentence[number])
    seen = torch.cat([data.batch(0, step, 6, 0, 1)["prior.audio"][:, 0] for step in range(8)])
    assert set(seen.tolist()) == {0.0, 1.0, 2.0}
    assert not [key for key in pairs(0).batch(0, 0, 2, 0, 1) if key.startswith("prior.")]


def test_windows_are_crops_or_lie_in_silence():
    long, short = np.sin(np.arange(5000), dtype=np.float32), np.sin(1 + np.arange(300), dtype=np.float32)
    firsts = set()
    for item in range(20):
        crop = few_clips.window(long, 1000, chooser(seed=0, item=item))
        assert crop.shape == (1000,)
        fits = np.abs(np.correlate(long, crop)) / np.linalg.norm(crop)
        assert fits.max() == pytest.approx(np.linalg.norm(long[:1000]), rel=0.02)
        placed = few_clips.window(short, 1000, chooser(seed=0, item=item))
        where = np.flatnonzero(placed)
        assert len(where) in (299, 300)
        assert where[-1] - where[0] <= 299
        ratio = placed[where[0] : where[0] + 300] / short
        assert np.ptp(ratio) < 1e-3 * np.abs(ratio).max()
        firsts.add(where[0])
        assert 0.05 <= np.sqrt(np.mean(crop**2)) <= 0.2  # 0.1, up to 6 dB off
    assert len(firsts) > 15
    half = np.concatenate([np.zeros(3000, np.float32), long[:1000]])
    assert all(few_clips.window(half, 1000, chooser(seed=1, item=i)).any() for i in range(20))


def test_the_loss_is_that_of_the_clips_and_the_weighted_one_of_the_prior(base):
    model = load(base)
    taught = Taught(model.network, model.config)
    tuning = Tuning(base="", word="", kind="", rank=1, scale=1.0, prior=3, prior_steps=1, prior_weight=0.25, clips=())
    data = pairs(n=model.config.n_samples)
    batch, own = data.batch(0, 0, 4, 0, 1), BatchNoise(0, 0, 4)
    losses = taught.loss(model.network, batch, tuning, own, "denoise")
    config = model.config.model_copy(update={"unprompted": 0.0})
    alone = riffusion.loss(model.network, batch, config, own, "denoise")["total"]
    torch.testing.assert_close(losses["clips"], alone)
    torch.testing.assert_close(losses["total"], losses["clips"] + 0.25 * losses["prior"])
    swapped = {name.removeprefix("prior."): value for name, value in batch.items() if name.startswith("prior.")}
    same_noise = riffusion.loss(model.network, swapped, config, own, "denoise")["total"]
    assert abs(float(same_noise - losses["prior"])) > 1e-4 * float(losses["prior"])  # its noise is its own


def test_bad_folders_and_words_are_refused(base, clips, tmp_path):
    def refused(match, folder=clips, **values):
        with pytest.raises(InputError, match=match):
            prepare(Path(folder), settings(base, **values), tmp_path / "out")

    refused("There is no word", word=" ")
    refused("kind of itself", word="music")
    refused("doesn't know all letters", word="\U0001f3b9 gamelan")
    refused("no folder", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("x")
    refused("holds no clip", tmp_path / "empty")
    bad = shutil.copytree(clips, tmp_path / "bad")
    (bad / "broken.wav").write_bytes(b"RIFF nonsense")
    sf.write(bad / "silent.wav", np.zeros(800), RATE)
    sf.write(bad / "nan.wav", np.full(800, np.nan), RATE, "FLOAT")
    refused(r"3 of 6 clips can't be used: broken\.wav \(.*; nan\.wav \(.*; silent\.wav \(it is silent\)", bad)
    refused("sfumato train", many(tmp_path / "many", clips))
    assert not (tmp_path / "out").exists()
    for word in ("one two three four", "sks (gamelan)"):
        with pytest.raises(InputError, match="word"):
            parse({"word": word}, Settings, "settings")


def many(folder, clips):
    folder.mkdir()
    for i in range(few_clips.MOST + 1):
        shutil.copy(clips / "2.wav", folder / f"{i}.wav")
    return folder


def test_models_of_other_systems_are_refused(clips, tmp_path, capsys):
    assert run("finetune", clips, "--word", WORD, "--model", "dance", "--out", tmp_path / "out") == 3
    said = capsys.readouterr().err
    assert "dance is a model of dance_diffusion" in said
    assert "Those of riffusion can learn one" in said
    assert run("finetune", clips, "--word", WORD, "--model", "nowhere", "--out", tmp_path / "out") == 3


def test_names_and_places():
    assert slug("SKS Gamelan!") == "sks-gamelan"
    assert slug("ß") == "finetuned"
    assert len(slug("a" * 90)) == 64


def test_the_folder_of_a_training_is_a_model(made):
    assert find(made) == made / "model"


def test_a_folder_of_another_training_is_refused_before_anything_is_drawn(tmp_path):
    write_tensors(tmp_path / own_sounds.FILE, {"audio": torch.ones(1, 4)}, {"what": "this"})
    assert torch.equal(own_sounds.kept(tmp_path, "this")["audio"], torch.ones(1, 4))
    assert own_sounds.kept(tmp_path, "that") is None  # drawn for a training that never began
    (tmp_path / "checkpoint-00000050.safetensors").touch()
    with pytest.raises(InputError, match="other settings"):
        own_sounds.kept(tmp_path, "that")
    assert own_sounds.kept(tmp_path / "new", "that") is None
