"""The prior's data are the codec's coordinates, of unit variance; it trains on them."""

import numpy as np
import pytest
import soundfile as sf
import torch

from sfumato import model as models
from sfumato import player, preset
from sfumato.data import latents, loaders, manifest
from sfumato.errors import InputError, ModelError
from sfumato.systems import rave, rave_prior
from sfumato.tasks import draw, generate


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with sounds and a codec whose latent space was analysed on them."""
    home = tmp_path_factory.mktemp("prior")
    (home / "sounds").mkdir()
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        sf.write(home / "sounds" / f"{name}.wav", 0.1 * generator.standard_normal(44100), 44100)
    config = preset.load("rave-tiny").config
    torch.manual_seed(0)
    audio = torch.from_numpy(np.stack([sf.read(home / "sounds" / f"{n}.wav", dtype="float32")[0] for n in "ab"]))
    batch = {"clean": audio[:, None, : 344 * 128]}
    network, finished = rave.finish(rave.build(config), config, [batch])
    models.save(models.Model("tiny", "rave", finished, network, models.Card()), home / "codec", torch.float32)
    return home


def rows(home):
    return list(loaders.folder(home / "sounds", "mine"))


def config(home, **changes):
    return rave_prior.Config(codec=str(home / "codec"), dims=4, frames=16, widths=(8, 16), **changes)


def build(home, settings, out):
    asked = preset.load("rave-piano-prior").preset.data
    return latents.examples(rows(home), home / "sounds", out, "train", settings, asked, lambda *_: None)


def test_coordinates_have_unit_variance_and_are_those_of_the_torch_codec(home, tmp_path):
    data = build(home, config(home), tmp_path)
    together = np.concatenate(data.sequences, axis=1)
    np.testing.assert_allclose(together.var(axis=1), 1, rtol=0.05)
    codec = models.load(home / "codec").network.codec
    audio = torch.from_numpy(sf.read(home / "sounds" / "a.wav", dtype="float32")[0])[None, None, : 344 * 128]
    bands, _ = codec.bank.analyse(audio, codec.bank.init(1))
    mean, _ = codec.posterior(codec.encoder(bands)[0])
    turned = codec.latent_basis[:4] @ (mean[0] - codec.latent_mean[:, None]) / codec.latent_scale[:4, None]
    np.testing.assert_allclose(data.sequences[0], turned.numpy(), atol=2e-3)


def test_latents_are_made_once(home, tmp_path):
    first = build(home, config(home), tmp_path)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(made) == 2
    again = build(home, config(home), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == made
    assert torch.equal(first.batch(0, 3, 4, 0, 1)["clean"], again.batch(0, 3, 4, 0, 1)["clean"])
    assert torch.equal(first.batch(0, 3, 4, 1, 2)["clean"], first.batch(0, 3, 4, 0, 1)["clean"][2:])


def test_too_many_coordinates_and_too_short_sounds_are_refused(home, tmp_path):
    with pytest.raises(ModelError, match="8 coordinates"):
        build(home, config(home).model_copy(update={"dims": 9}), tmp_path)
    with pytest.raises(InputError, match="s long"):
        build(home, config(home).model_copy(update={"frames": 100_000}), tmp_path)


def test_it_trains(home, tmp_path):
    text = (
        f"system: rave_prior\nconfig: {{codec: {home / 'codec'}, dims: 4, frames: 16, widths: [8, 16]}}\n"
        "train: {steps: 30, batch_size: 8, warmup_steps: 2, learning_rate: 0.003, log_every: 10}\n"
    )
    (tmp_path / "prior.yaml").write_text(text)
    fitted = preset.train(preset.load(str(tmp_path / "prior.yaml")), home / "sounds", tmp_path / "out")
    done = models.load(fitted.model)
    assert done.config.codec_digest == player.load(home / "codec").digest
    network = done.network
    clean = build(home, config(home), tmp_path).batch(9, 0, 32, 0, 1)["clean"]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    for sigma in (0.3, 3.0):  # better than the noisy state is, better than nothing is
        denoised = rave_prior.denoiser(network)(clean + sigma * noise, torch.full((32,), sigma))
        assert (denoised - clean).square().mean() < min(sigma**2, 1.1)




@pytest.fixture(scope="module")
def prior(home):
    torch.manual_seed(1)
    _, settings = rave_prior.finish(None, config(home, sigma_max=5.0), [])
    made = models.Model("prior", "rave_prior", settings, rave_prior.build(settings), models.Card())
    models.save(made, home / "prior", torch.float32)
    return home / "prior"


def test_sounds_have_their_length_and_depend_on_seed_and_item_alone(prior):
    asked = {"seconds": 0.5, "count": 2, "steps": 2, "seed": 3}
    two = list(generate.generate(prior, asked))
    assert [one.audio.shape for one in two] == [(1, 22050)] * 2
    assert not np.array_equal(two[0].audio, two[1].audio)
    alone = next(generate.generate(prior, asked | {"count": 1}))
    assert np.array_equal(alone.audio, two[0].audio)
    assert np.isfinite(two[0].audio).all() and two[0].audio.std() > 0


def drawn(prior, **changes):
    """The first sound of the prior with another configuration."""
    made = models.load(prior)
    changed = models.Model("prior", made.system, made.config.model_copy(update=changes), made.network, made.card)
    return next(draw.takes(changed, draw.Settings(seconds=0.1, steps=1)))


def test_a_prior_draws_for_its_own_codec_alone(home, prior, tmp_path):
    made = models.load(home / "codec")
    with torch.no_grad():
        made.network.codec.latent_mean.add_(1.0)
    models.save(made, tmp_path / "other", torch.float32)
    missing = str(tmp_path / "missing")
    assert drawn(prior).audio.shape == (1, 4410)
    for changes, words in (
        ({"codec": str(tmp_path / "other")}, "another one than this prior was trained with"),
        ({"codec": missing}, "is not here.*config.codec"),
        ({"codec": "rave-nowhere"}, "is not here"),
        ({"codec_digest": ""}, f"codec_digest: {player.load(home / 'codec').digest}"),
        ({"sample_rate": 48000}, "44100 Hz"),
        ({"dims": 9}, "8 coordinates"),
    ):
        with pytest.raises(ModelError, match=words):
            drawn(prior, **changes)
    with pytest.raises(ModelError, match="is not here"):
        build(home, config(home).model_copy(update={"codec": missing}), tmp_path)


def test_a_shipped_codec_is_bound_by_its_name():
    folder = models.find("rave-piano")
    settings = rave_prior.Config(codec=str(folder), dims=4)
    _, bound = rave_prior.finish(None, settings, [])
    assert bound.codec == "rave-piano" and bound.codec_digest == player.load(folder).digest


def test_loops_and_kinds_are_refused(prior):
    for extra in ({"loop": True}, {"kind": "kick"}):
        with pytest.raises(InputError, match="knows no loops, kinds"):
            next(generate.generate(prior, {"seconds": 0.5, "steps": 2} | extra))


def test_recordings_of_unstated_licence_are_left_out_where_the_preset_says_so(home, tmp_path):
    licences = ("CC0-1.0", "score: unstated; soundfont: MIT")
    listed = [
        row.model_copy(update={"licence": licence, "split": "train"})
        for row, licence in zip(rows(home), licences, strict=True)
    ]
    for row in listed:
        (tmp_path / row.path).write_bytes((home / "sounds" / row.path).read_bytes())
    manifest.write(tmp_path / "manifest.jsonl", listed)
    small = ("config.dims=4", "config.frames=16", "config.widths=[8,16]")
    few = ("train.steps=1", f"config.codec={home / 'codec'}", *small)
    for unstated, used in ((False, 1), (True, 2)):
        plan = preset.load("rave-piano-prior", [*few, f"data.unstated={str(unstated).lower()}"])
        done = preset.train(plan, tmp_path, tmp_path / f"{unstated}")
        said = " ".join(models.read_header(done.model).card.data)
        assert f"{used} recordings" in said and ("unstated" in said) == unstated
