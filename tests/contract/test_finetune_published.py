"""A new word for a published checkpoint: what is learnt, and that diffusers reads what is written."""

import json
from pathlib import Path

import diffusers
import numpy as np
import published_checkpoints
import pytest
import soundfile as sf
import torch
from safetensors import SafetensorError

from sfumato import cli
from sfumato.diffusion.noise import BatchNoise
from sfumato.errors import InputError, ModelError, ResourceError
from sfumato.finetune import Settings
from sfumato.finetune_published import RECORD, Taught, prepare, put_on, teach, write_folder
from sfumato.model import read_tensors, write_tensors
from sfumato.tasks.published_checkpoint import load_published

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
WORD = "sks gamelan"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return published_checkpoints.write(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Tones, one shorter than a window of .64 s, one longer."""
    folder = tmp_path_factory.mktemp("clips")
    for i, seconds in enumerate((0.5, 1.4)):
        at = np.arange(int(44100 * seconds)) / 44100
        sf.write(folder / f"{i}.wav", 0.3 * np.sin(2 * np.pi * 440 * 2**i * at), 44100)
    return folder


def settings(checkpoint: Path, **values) -> Settings:
    standard = {"word": WORD, "model": str(checkpoint), "steps": 12, "prior": 3, "prior_steps": 2, "rank": 2}
    return Settings(**standard | {"learning_rate": 2e-2} | values)


@pytest.fixture(scope="module")
def lesson(checkpoint, clips, tmp_path_factory):
    return prepare(clips, settings(checkpoint), tmp_path_factory.mktemp("out") / "tuned")


@pytest.fixture(scope="module")
def taught(lesson):
    return teach(lesson)


def test_clips_and_own_sounds_are_latents_of_a_window(lesson):
    batch = lesson.dataset.batch(0, 0, 4, 0, 1)
    assert batch["latents"].shape == batch["prior.latents"].shape == (4, *lesson.base.shape)
    assert batch["states"].shape[0] == 4 and batch["states"].shape == batch["prior.states"].shape
    again = lesson.dataset.batch(0, 0, 4, 0, 1)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert lesson.dataset.clips[0].shape[-1] >= lesson.base.shape[2] < lesson.dataset.clips[1].shape[-1]
    decoded = lesson.base.decode(lesson.dataset.clips[1][None])
    assert bool(torch.isfinite(decoded).all())


def test_the_loss_is_that_of_diffusers_noise_prediction(lesson):
    """Beside the scheduler's own noising and the U-Net's guess, as in the library's training example."""
    taught, noise = Taught(lesson.base), BatchNoise(3, 0, 2)
    batch = lesson.dataset.batch(0, 0, 2, 0, 1)
    ours = taught.loss(lesson.base.part("unet"), batch, lesson.tuning, noise, "denoise")
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, num_train_timesteps=1000
    )
    times = (noise.stratified(0) * 1000).long()
    drawn = noise(1, batch["latents"].shape[1:])
    noisy = scheduler.add_noise(batch["latents"], drawn, times)
    with torch.no_grad():
        guess = lesson.base.part("unet")(noisy, times, encoder_hidden_states=batch["states"]).sample
    assert float(ours["clips"]) == pytest.approx(float((guess - drawn).square().mean()), rel=2e-3)
    assert float(ours["total"]) == pytest.approx(float(ours["clips"] + ours["prior"]), rel=1e-6)


def test_the_word_is_learnt_and_diffusers_reads_the_folder(lesson, taught, checkpoint):
    assert taught.figures["loss on the clips after"] < taught.figures["loss on the clips before"]
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(taught.model, safety_checker=None)
    unet = diffusers.UNet2DConditionModel.from_pretrained(checkpoint / "unet")
    before, after = (dict(one.named_parameters()) for one in (unet, pipeline.unet))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.endswith("weight") and before[name].ndim in (2, 4) for name in moved)
    ours = load_published(taught.model)
    x, states = torch.randn(1, *ours.shape), ours.text([WORD])[0]
    theirs = pipeline.unet(x, torch.tensor([300]), encoder_hidden_states=states).sample
    own = ours.part("unet")(x, torch.tensor([300]), encoder_hidden_states=states).sample
    torch.testing.assert_close(own, theirs)
    record = json.loads((taught.model / RECORD).read_text())
    assert record["word"] == WORD and [clip["name"] for clip in record["clips"]] == ["0.wav", "1.wav"]
    assert not list(taught.model.rglob("*.bin")) and not list(taught.model.parent.glob(".*.part"))


def test_the_factors_alone_make_the_same_checkpoint_again(taught, checkpoint, tmp_path):
    made = load_published(put_on(taught.adapter, str(checkpoint), tmp_path / "again"))
    own = load_published(taught.model)
    for (name, one), (_, other) in zip(made.network.named_parameters(), own.network.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    with pytest.raises(InputError, match="there already"):
        put_on(taught.adapter, str(checkpoint), tmp_path / "again")
    with pytest.raises(InputError, match="another checkpoint"):
        put_on(taught.adapter, str(taught.model), tmp_path / "other")
    factors, about = read_tensors(taught.adapter)
    write_tensors(tmp_path / "broken.safetensors", dict(list(factors.items())[1:]), about)
    with pytest.raises(ModelError, match="broken"):
        put_on(tmp_path / "broken.safetensors", str(checkpoint), tmp_path / "third")


def test_a_finished_training_comes_to_the_same_again(lesson, taught):
    before = (taught.model / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    again = teach(lesson)
    assert again.figures == taught.figures
    assert (again.model / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: no space")])
def test_a_full_disk_is_said_and_what_was_there_stays(taught, tmp_path, error):
    class Full:
        def save_pretrained(self, folder, safe_serialization):
            raise error

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    with pytest.raises(ResourceError, match="can't be written"):
        write_folder(load_published(taught.model), Full(), tmp_path / "model", {})
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]


def test_the_command_takes_a_folder_of_diffusers(checkpoint, clips, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--word", WORD, "--model", str(checkpoint), "--steps", "2", "--prior", "0", "--rank", "1"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["finetune", str(clips), *flags])
    assert ended.value.code == 0
    assert "Step 2" in capsys.readouterr().out
    assert (tmp_path / "runs" / "sks-gamelan" / "model" / "model_index.json").is_file()


def test_a_word_that_says_nothing_new_is_refused(checkpoint, clips, tmp_path):
    with pytest.raises(InputError, match="kind of itself"):
        prepare(clips, settings(checkpoint, word="gamelan", kind="gamelan"), tmp_path / "x")
