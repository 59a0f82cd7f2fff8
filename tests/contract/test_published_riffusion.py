"""Published Riffusion checkpoints: a tiny random one in the same layout, against diffusers' own pipelines."""

import json
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import published_checkpoints
import pytest
import soundfile as sf
import torch
from PIL import Image
from published_checkpoints import ROWS, WINDOW
from safetensors.torch import load_file, save_file

from sfumato.diffusion import noise
from sfumato.errors import InputError, MissingExtraError, ModelError
from sfumato.model import digest
from sfumato.signal import spectrogram_image
from sfumato.tasks import images
from sfumato.tasks.images import Picture
from sfumato.tasks.published_checkpoint import PublishedRiffusion, is_published, load_published
from sfumato.tasks.published_pictures import Drawn, parameters_of
from sfumato.tasks.published_riffusion import Settings, change, draw, files, pictures, riffuse, transform

# Their schedulers pass a tensor to numpy in a way that numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FACTOR, STEP_S = 8, 0.01
SHAPE = (4, ROWS // FACTOR, WINDOW)
QUICK = {"steps": 6, "sampler": "ddim", "iterations": 2}
WORDS = "slow jazz on a piano"


def quiet(done: int, total: int, text: str) -> None:
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_checkpoints.write(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def published(folder: Path) -> PublishedRiffusion:
    return load_published(folder)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy to be broken."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def pipeline_of(folder: Path, kind: Any, **scheduler: Any) -> Any:
    """diffusers' own pipeline of a checkpoint, with DDIM that ends at no noise."""
    made = kind.from_pretrained(folder, safety_checker=None, requires_safety_checker=False, low_cpu_mem_usage=False)
    options = {"set_alpha_to_one": True, "clip_sample": False, **scheduler}
    made.scheduler = diffusers.DDIMScheduler.from_config(made.scheduler.config, **options)
    made.set_progress_bar_config(disable=True)
    return made


def start(seed: int = 3, item: int = 0, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return noise.normal(shape, seed=seed, item=item, step=0)[None]


def a_picture(columns: int = ROWS, seed: int = 1, loudest: float | None = 0.25) -> Picture:
    """A smooth grey picture."""
    waves = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 1, ROWS // 8, max(2, columns // 8))))
    grey = 128 + 60 * torch.nn.functional.interpolate(waves, (ROWS, columns), mode="bilinear")[0, 0]
    pixels = np.repeat(grey.clamp(0, 255).numpy().astype(np.uint8)[..., None], 3, axis=2)
    return Picture(pixels, replace(images.Parameters(), n_mels=ROWS), loudest, tagged=True)


def encoded(published: PublishedRiffusion, picture: Picture) -> torch.Tensor:
    """A picture's latents, by the VAE itself."""
    pixels = torch.from_numpy(picture.pixels.transpose(2, 0, 1).copy()).float()[None] / 127.5 - 1
    with torch.no_grad():
        return published.part("vae").config.scaling_factor * published.part("vae").encode(pixels).latent_dist.mode()


def differ(a: Drawn, b: Drawn) -> float:
    return float((a.latents - b.latents).abs().max())


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_drawing_is_stable_diffusions(copied: Path, prediction: str, spacing: str) -> None:
    told = {"prediction_type": prediction, "timestep_spacing": spacing}
    edit(copied / "scheduler" / "scheduler_config.json", **told)
    theirs = pipeline_of(copied, diffusers.StableDiffusionPipeline)(
        WORDS, ROWS, ROWS, 5, guidance_scale=7.0, negative_prompt="drums", latents=start(), output_type="latent"
    ).images
    settings = Settings(prompt=WORDS, negative="drums", seed=3, steps=5, sampler="ddim")
    ours = riffuse(load_published(copied), settings, columns=ROWS).latents
    assert close(ours, theirs) and float(theirs.std()) > 0.1


def test_starting_from_a_picture_is_image_to_image(
    folder: Path, published: PublishedRiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img.randn_tensor"
    monkeypatch.setattr(module, lambda *a, **k: start())
    source = a_picture()
    theirs = pipeline_of(folder, diffusers.StableDiffusionImg2ImgPipeline)(
        WORDS, encoded(published, source), 0.6, 10, guidance_scale=7.0, negative_prompt="x", output_type="latent"
    ).images
    settings = Settings(prompt=WORDS, negative="x", seed=3, strength=0.6, steps=10, sampler="ddim")
    assert close(riffuse(published, settings, source).latents, theirs)


def test_the_blend_is_the_published_one_without_its_lag(folder: Path, published: PublishedRiffusion) -> None:
    pipe, source, hold = pipeline_of(folder, diffusers.StableDiffusionPipeline), a_picture(), np.zeros((ROWS, ROWS))
    hold[:, :24], hold[:, 24:40] = 1.0, 0.4
    coarse = torch.from_numpy(hold[4::8, 4::8]).float()
    settings = Settings(prompt=WORDS, seed=3, cfg_scale=1, strength=1.0, steps=5)
    found = riffuse(published, settings, source, hold).latents
    latents = encoded(published, source)
    pipe.scheduler.set_timesteps(5)
    times = [*pipe.scheduler.timesteps, None]
    with torch.no_grad():
        states = pipe.encode_prompt(WORDS, "cpu", 1, False)[0]
        x = pipe.scheduler.add_noise(latents, start(), times[0][None])
        for t, following in pairwise(times):
            x = pipe.scheduler.step(pipe.unet(x, t, states).sample, t, x).prev_sample
            level = latents if following is None else pipe.scheduler.add_noise(latents, start(), following[None])
            x = coarse * level + (1 - coarse) * x
    assert close(found, x)
    assert torch.equal(found[..., :3], latents[..., :3])


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "heun", "dpmpp_2m_sde"])
def test_every_sampler_walks_and_graded_maps_hold(published: PublishedRiffusion, sampler: str) -> None:
    hold = np.zeros((ROWS, ROWS))
    hold[:, :16] = 1
    settings = Settings(prompt=WORDS, strength=0.9, steps=8, blend="graded", sampler=sampler)
    found, source = riffuse(published, settings, a_picture(), hold), a_picture()
    latents = encoded(published, source)
    assert torch.equal(found.latents[..., :2], latents[..., :2])
    assert np.array_equal(found.picture.pixels[:, :16], source.pixels[:, :16])
    assert float((found.latents[..., 2:] - latents[..., 2:]).abs().max()) > 0.1


@pytest.mark.parametrize("blend", ["published", "graded"])
def test_what_is_held_throughout_is_the_source_itself(published: PublishedRiffusion, blend: str) -> None:
    source = a_picture(columns=100)
    settings = Settings(prompt=WORDS, blend=blend, steps=4)
    found = riffuse(published, settings, source, np.ones((3, 5))).picture
    assert np.array_equal(found.pixels, source.pixels)
    assert (found.parameters, found.loudest) == (source.parameters, source.loudest)


def test_the_ends_are_the_prompts_alone(published: PublishedRiffusion) -> None:
    source = a_picture()
    there = {"then": "techno", "then_seed": 9, "then_strength": 0.9, "then_cfg_scale": 3.0}
    both = Settings(prompt=WORDS, seed=3, strength=0.5, alpha=0.5, **there, **QUICK)
    a = Settings(prompt=WORDS, seed=3, strength=0.5, **QUICK)
    b = Settings(prompt="techno", seed=9, strength=0.9, cfg_scale=3.0, **QUICK)
    begun, ended = (riffuse(published, both, source, alpha=alpha) for alpha in (0.0, 1.0))
    assert torch.equal(begun.latents, riffuse(published, a, source).latents)
    assert torch.equal(ended.latents, riffuse(published, b, source).latents)
    middle = riffuse(published, both, source, alpha=0.5)
    assert min(differ(begun, middle), differ(middle, ended)) > 0.05


def test_frames_go_from_end_to_end(published: PublishedRiffusion) -> None:
    way = Settings(prompt=WORDS, then="techno", frames=3, alpha_power=2.0, **QUICK)
    alphas, drawn = zip(*pictures(published, way, quiet), strict=True)
    assert alphas == (0.0, 0.25, 1.0)
    last = riffuse(published, Settings(prompt="techno", **QUICK), columns=ROWS)
    assert torch.equal(drawn[-1].latents, last.latents)
    assert [take.how for take in draw(published, way, quiet)] == [{"alpha": alpha} for alpha in alphas]


def test_negative_prompt_and_guidance_matter(published: PublishedRiffusion) -> None:
    plain = {"prompt": WORDS, **QUICK}
    first, negative, unguided = (
        riffuse(published, Settings(**plain, **more), columns=ROWS)
        for more in ({}, {"negative": "drums"}, {"cfg_scale": 1})
    )
    assert differ(first, negative) > 0.01 and differ(first, unguided) > 0.01


def test_a_sounds_seed_holds_however_many_are_made(published: PublishedRiffusion) -> None:
    three, two = (list(draw(published, Settings(count=n, seed=5, **QUICK), quiet)) for n in (3, 2))
    for a, b in zip(three, two, strict=False):
        assert np.array_equal(a.audio, b.audio)
    assert not np.allclose(three[0].audio, three[1].audio) and [take.item for take in three] == [0, 1, 2]


def test_text_is_the_encoders_own(folder: Path, published: PublishedRiffusion) -> None:
    pipe = pipeline_of(folder, diffusers.StableDiffusionPipeline)
    plain, empty = published.text([WORDS, ""])
    with torch.no_grad():
        theirs = pipe.encode_prompt(WORDS, "cpu", 1, True, negative_prompt="")
    assert torch.allclose(plain, theirs[0], atol=1e-6) and torch.allclose(empty, theirs[1], atol=1e-6)


def test_weights_scale_the_states_and_keep_their_mean(published: PublishedRiffusion) -> None:
    plain, weighted = published.text(["a b c d", "a (b:2) [c] d"])
    weights = torch.ones(77)
    weights[2], weights[3] = 2.0, 1 / 1.1  # after the beginning mark and "a"
    expected = plain * weights[:, None]
    assert torch.allclose(weighted, expected * plain.mean() / expected.mean(), rtol=1e-4, atol=1e-6)
    assert float((weighted - plain).abs().max()) > 0.1


def test_long_prompts_are_read_in_chunks(published: PublishedRiffusion) -> None:
    letters = [chr(97 + i % 25) for i in range(100)]
    (long, short), (first,), (second,) = (
        published.text(prompts)
        for prompts in ([" ".join(letters), "a"], [" ".join(letters[:75])], [" ".join(letters[75:])])
    )
    assert torch.allclose(long, torch.cat([first, second], dim=1), atol=1e-6) and short.shape == long.shape
    with pytest.raises(InputError, match="225"):
        published.text([" ".join(["a"] * 226)])


def test_long_sounds_are_one_state_seen_in_windows(published: PublishedRiffusion) -> None:
    widths: list[int] = []
    hook = published.part("unet").register_forward_pre_hook(lambda module, given: widths.append(given[0].shape[-1]))
    (take,) = draw(published, Settings(prompt=WORDS, seconds=2.0, **QUICK), quiet)
    hook.remove()
    assert take.audio.shape == (1, 88200) and set(widths) == {WINDOW}
    wide = riffuse(published, Settings(prompt=WORDS, **QUICK), columns=201)
    assert wide.latents.shape == (1, 4, 8, 26) and wide.picture.pixels.shape == (ROWS, 201, 3)
    assert np.array_equal(wide.picture.pixels[..., 0], wide.picture.pixels[..., 2])


def test_wide_pictures_are_coded_in_windows_that_cross(published: PublishedRiffusion) -> None:
    """With a VAE that only averages and repeats, nothing may be seen of the windows."""

    class Averaging(torch.nn.Module):
        config = SimpleNamespace(scaling_factor=0.5, block_out_channels=(1,) * 4)

        def encode(self, pixels: torch.Tensor) -> Any:
            assert pixels.shape[-1] <= WINDOW * FACTOR
            pooled = torch.nn.functional.avg_pool2d(pixels, FACTOR)
            return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: pooled))

        def decode(self, latents: torch.Tensor) -> Any:
            assert latents.shape[-1] <= WINDOW
            return SimpleNamespace(sample=latents.repeat_interleave(FACTOR, 2).repeat_interleave(FACTOR, 3))

    networks = torch.nn.ModuleDict({"vae": Averaging(), "unet": published.part("unet")})
    simple = replace(published, network=networks)
    pixels = torch.randn(1, 3, ROWS, 27 * FACTOR, generator=torch.Generator().manual_seed(0))
    latents = simple.encode(pixels)
    assert torch.allclose(latents, 0.5 * torch.nn.functional.avg_pool2d(pixels, FACTOR), atol=1e-6)
    assert torch.allclose(torch.nn.functional.avg_pool2d(simple.decode(latents), FACTOR), 2 * latents, atol=1e-6)


@pytest.mark.parametrize(("rate", "channels", "seconds"), [(44100, 2, 1.5), (48000, 1, 0.3), (22050, 2, 0.9)])
def test_a_changed_recording_is_as_long_and_as_loud(
    published: PublishedRiffusion, rate: int, channels: int, seconds: float
) -> None:
    time = np.arange(round(seconds * rate)) / rate
    audio = 0.25 * np.sin(2 * np.pi * np.outer(np.full(channels, 440.0), time))
    settings = Settings(prompt=WORDS, steps=3, iterations=16)
    kept = change(published, audio, rate, settings, np.ones((1, 1)), quiet)
    assert kept.audio.shape == audio.shape and kept.sample_rate == rate
    wide = images.draw(np.pad(audio, ((0, 0), (0, rate))), rate, parameters_of(published, settings))
    shown = images.sound_of(wide, n_iter=16)[:, : round(44100 * seconds)]
    assert abs(20 * np.log10(kept.audio.std() / shown.std())) < 1
    changed, quieter = (change(published, share * audio, rate, settings, None, quiet) for share in (1.0, 0.125))
    assert changed.audio.shape == audio.shape and not np.allclose(changed.audio, kept.audio, atol=0.01)
    assert np.allclose(0.125 * changed.audio, quieter.audio, atol=1e-4) or changed.gain < 1


@pytest.mark.parametrize(
    ("seconds", "kept", "free"), [(2.0, slice(10, 80), slice(120, 190)), (0.36, slice(4, 13), slice(22, 31))]
)
def test_what_a_map_holds_of_a_recording_stays_in_its_place(
    published: PublishedRiffusion, seconds: float, kept: slice, free: slice
) -> None:
    """The first half is kept: its spectrum stays, and that of the second half doesn't; columns are of 10 ms."""
    time = np.arange(round(seconds * 44100)) / 44100
    audio = 0.25 * np.sin(2 * np.pi * 440 * time)[None]
    settings = Settings(prompt=WORDS, strength=1.0, steps=4, iterations=16)
    made = change(published, audio, 44100, settings, np.array([[1.0, 0.0]]), quiet).audio
    parameters = parameters_of(published, settings)
    heard, given = (spectrogram_image.mel_amplitudes(torch.from_numpy(x).float(), parameters)[0] for x in (made, audio))
    alike = [float(torch.corrcoef(torch.stack([heard[:, at].flatten(), given[:, at].flatten()]))[0, 1])
             for at in (kept, free)]  # fmt: skip
    assert alike[0] > 0.9 > alike[1] + 0.2


def test_pictures_in_files_are_used(published: PublishedRiffusion, tmp_path: Path) -> None:
    source = a_picture(columns=80)
    images.write_picture(tmp_path / "seed.png", source)
    keep = np.full((ROWS, 80), 255, np.uint8)
    keep[:, :40] = 0
    Image.fromarray(keep).save(tmp_path / "mask.png")
    files = {"seed_image": str(tmp_path / "seed.png"), "mask_image": str(tmp_path / "mask.png")}
    ((_, drawn),) = pictures(published, Settings(prompt=WORDS, **files, **QUICK), quiet)
    assert np.array_equal(drawn.picture.pixels[:, :40], source.pixels[:, :40])
    assert not np.array_equal(drawn.picture.pixels[:, 40:], source.pixels[:, 40:])
    assert drawn.picture.loudest == pytest.approx(0.25)


def test_files_and_their_record(folder: Path, published: PublishedRiffusion, tmp_path: Path) -> None:
    assert is_published(folder) and not is_published(tmp_path)
    way = Settings(prompt=WORDS, then="techno", frames=2, **QUICK)
    drawn = files(published, tmp_path / "drawn.wav", way, quiet)
    changed = transform(published, drawn.files[0], tmp_path / "changed.flac", Settings(count=2, **QUICK), quiet)
    lengths = {sf.info(path).frames for path in (*drawn.files, *changed.files)}
    assert lengths == {(ROWS - 1) * 441} and len(drawn.files) == len(changed.files) == 2
    record = json.loads(changed.json.read_text())
    assert record["model"] == {"name": "model", "system": "published_riffusion", "sha256": digest(published)}
    first, second = (sf.read(path)[0] for path in changed.files)
    assert not np.allclose(first, second) and [row["item"] for row in record["takes"]] == [0, 1]


def test_progress_ends_at_its_end(published: PublishedRiffusion) -> None:
    seen: list[tuple[int, int]] = []
    list(draw(published, Settings(count=2, **QUICK), lambda done, total, text: seen.append((done, total))))
    assert seen == [(done, 12) for done in range(1, 13)]


@pytest.mark.parametrize(
    "values",
    [
        {"alpha": 0.5},
        {"then": "techno"},
        {"then": "techno", "frames": 3, "count": 2},
        {"seed_image": "seed.png", "seconds": 3},
        {"seconds": 3600},
        {"sampler": "pndm"},
        {"alpha": 2, "then": "techno"},
    ],
)
def test_settings_that_dont_go_together_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Settings(**values)


def test_bad_pictures_maps_and_recordings_are_refused(published: PublishedRiffusion, tmp_path: Path) -> None:
    def refused(said: str, act: Callable[[], Any]) -> None:
        with pytest.raises(InputError, match=said):
            act()

    source, settings = a_picture(), Settings(**QUICK)
    tall = Picture(np.zeros((128, 64, 3), np.uint8), replace(source.parameters, n_mels=128), None, tagged=True)
    refused("there is none", lambda: riffuse(published, settings, None, np.ones((4, 4))))
    refused("128 rows", lambda: riffuse(published, settings, tall))
    refused("from 0 to 1", lambda: riffuse(published, settings, source, np.full((4, 4), 1.5)))
    refused("from 0 to 1", lambda: riffuse(published, settings, source, np.full((4, 4), np.nan)))
    refused("Frequencies", lambda: parameters_of(published, Settings(max_frequency=30_000)))
    published_blend = Settings(sampler="dpmpp_2m", blend="published")
    refused("ddim", lambda: riffuse(published, published_blend, source, np.ones((4, 4))))
    refused("no partner", lambda: riffuse(published, Settings(prompt="(a", **QUICK)))
    refused("steps", lambda: riffuse(published, Settings(steps=900)))
    refused("doesn't exist", lambda: list(draw(published, Settings(seed_image=str(tmp_path / "no.png")), quiet)))
    refused("strength", lambda: list(draw(published, Settings(strength=0.5), quiet)))
    refused("not finite", lambda: change(published, np.full((1, 9000), np.nan), 44100, settings, None, quiet))
    refused("too long", lambda: change(published, np.zeros((1, 250_000)), 1000, settings, None, quiet))
    refused("seconds", lambda: change(published, np.zeros((1, 9000)), 8000, Settings(seconds=2), None, quiet))


def test_nothing_is_fetched_and_all_is_float32(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **named: Any) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    published = load_published(folder)
    assert {weight.dtype for weight in published.network.parameters()} == {torch.float32}
    assert (published.rows, published.shape, published.factor) == (ROWS, SHAPE, FACTOR)


def test_half_precision_files_are_read(published: PublishedRiffusion, copied: Path) -> None:
    path = copied / "unet" / "diffusion_pytorch_model.safetensors"
    halves = {key: value.half() for key, value in load_file(path).items()}
    save_file(halves, path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert digest(load_published(copied)) == digest(published)  # the other file is there still
    path.unlink()
    half = load_published(copied)
    found, expected = half.part("unet").conv_in.weight, published.part("unet").conv_in.weight
    assert digest(half) != digest(published)
    assert found.dtype == torch.float32 and torch.equal(found, expected.half().float())


def test_weights_by_their_names_of_2022_are_read(published: PublishedRiffusion, copied: Path) -> None:
    """As in Riffusion's own checkpoint: the VAE's attention, the text encoder's prefix and its places' numbers."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    path = copied / "vae" / "diffusion_pytorch_model.safetensors"
    renamed = {}
    for key, value in load_file(path).items():
        for new, before in old.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        renamed[key] = value
    assert sum(".query." in key for key in renamed) == 4
    save_file(renamed, path)
    path = copied / "text_encoder" / "model.safetensors"
    given = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in load_file(path).items()}
    save_file(given | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, path)
    assert digest(load_published(copied)) == digest(published)


def rename(path: str, to: str) -> Callable[[Path], Any]:
    return lambda root: (root / path).rename(root / to)


def without_weight(root: Path) -> None:
    path = root / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if k != "conv_in.weight"}, path)


def with_nan(root: Path) -> None:
    path = root / "text_encoder" / "model.safetensors"
    save_file({k: v * torch.nan if v.is_floating_point() else v for k, v in load_file(path).items()}, path)


def disguised(root: Path) -> None:
    torch.save({"a": torch.zeros(1)}, root / "vae" / "diffusion_pytorch_model.safetensors")


UNET = "unet/diffusion_pytorch_model"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (rename("model_index.json", "other.json"), "model_index.json"),
        (rename("vae", "other"), "no folder vae"),
        (rename("scheduler", "other"), "scheduler_config.json is missing"),
        (rename("unet/config.json", "unet/other.json"), "config.json is missing"),
        (rename("tokenizer/vocab.json", "tokenizer/other.json"), "vocab.json"),
        (rename(f"{UNET}.safetensors", f"{UNET}.bin"), "diffusion_pytorch_model.bin alone, a pickle"),
        (rename(f"{UNET}.safetensors", "unet/other"), "no weights"),
        (disguised, "pickle or an archive"),
        (without_weight, "conv_in.weight is missing"),
        (with_nan, "not finite"),
        (lambda root: (root / "unet" / "config.json").write_text("[1"), "no JSON"),
        (lambda root: edit(root / "model_index.json", unet=["diffusers", "SD3"]), "possible is UNet2DConditionModel"),
        (lambda root: edit(root / "scheduler/scheduler_config.json", prediction_type="sample"), "prediction_type"),
        (lambda root: edit(root / "scheduler/scheduler_config.json", trained_betas=[0.1, 0.2]), "trained_betas"),
        (lambda root: edit(root / "scheduler/scheduler_config.json", beta_end=2.0), "Betas"),
    ],
)
def test_broken_checkpoints_are_refused(copied: Path, damage: Callable[[Path], Any], said: str) -> None:
    damage(copied)
    with pytest.raises(ModelError, match=said):
        load_published(copied)


def test_parts_that_dont_fit_are_refused(copied: Path) -> None:
    wide = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=9, out_channels=4, layers_per_block=1, block_out_channels=(8,), norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), cross_attention_dim=16,
    )  # fmt: skip
    wide.save_pretrained(copied / "unet")
    with pytest.raises(ModelError, match="inpainting"):
        load_published(copied)


@pytest.mark.parametrize("library", ["diffusers", "transformers"])
def test_the_missing_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"{library}.*sfumato\[hub\]"):
        load_published(folder)
