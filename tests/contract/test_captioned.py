"""Captioned sounds for training: who is in a batch, what captions are, and a tiny training through its preset."""

import json

import numpy as np
import pytest
import soundfile as sf
import torch

from sfumato import preset
from sfumato.data import captioned, manifest
from sfumato.errors import InputError
from sfumato.model import load
from sfumato.networks.text_audio import Config, embed_audio

RATE = 8000
SMALL = Config(sample_rate=RATE, n_fft=256, hop_length=160, n_mels=16, n_frames=32)


def row(i, split="train", **labels):
    return manifest.Row(
        source="test", recording=f"r{i}", work=f"test/{i}", path=f"{i}.wav", sha256=f"{i:064d}", seconds=1,
        sample_rate=RATE, channels=1, licence="CC0", labels=labels, split=split,
    )  # fmt: skip


def dataset(groups=(0, 0, 0, 1, 2, 3, 4), captions=None, augment=True, frames=80):
    pictures = [-80 * torch.rand(16, frames, generator=torch.Generator().manual_seed(i)) for i in range(len(groups))]
    captions = captions or [[g, 10 + g] for g in groups]
    n = 1 + max(max(own) for own in captions)
    states = torch.from_numpy(np.random.default_rng(0).standard_normal((n, 6, 384))).half()
    tokens = tuple(states[i, : 2 + i % 4] for i in range(n))
    texts = captioned.Texts(tuple(map(str, range(n))), states.float().mean(1), tokens)
    return captioned.Captioned(pictures, captions, groups, texts, SMALL, augment)


def test_a_batch_takes_no_group_and_no_caption_twice():
    data = dataset()
    for step in range(50):
        pairs = data.pairs(0, step, 5)
        assert len({data.groups[sound] for sound, _ in pairs}) == 5
        assert len({caption for _, caption in pairs}) == 5
    assert {sound for step in range(50) for sound, _ in data.pairs(0, step, 5)} == set(range(7))


def test_a_caption_shared_by_groups_is_taken_once_where_others_are_left():
    data = dataset((0, 1, 2, 3), [[5], [5, 6], [5], [7]])
    for step in range(30):
        captions = [caption for _, caption in data.pairs(0, step, 3)]
        assert sorted(captions) in ([5, 6, 7], [5, 5, 7]), captions
    assert any(5 not in [c for _, c in data.pairs(0, s, 2)] for s in range(30))


def test_too_few_groups_still_fill_a_batch():
    batch = dataset((0, 0, 1)).batch(0, 3, 8, 0, 1)
    assert len(batch["group"]) == 8
    assert set(batch["group"].tolist()) == {0, 1}


def test_full_groups_are_drawn_as_the_root_of_their_size():
    data = dataset((0,) * 16 + (1, 2, 3))
    first = [data.groups[data.pairs(0, step, 1)[0][0]] for step in range(700)]
    assert first.count(0) / 700 == pytest.approx(4 / 7, abs=0.06)


def test_batches_are_pure_and_shares_join_to_the_whole():
    data = dataset()
    whole, again = data.batch(1, 4, 4, 0, 1), data.batch(1, 4, 4, 0, 1)
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    halves = [data.batch(1, 4, 4, rank, 2) for rank in (0, 1)]
    for key in ("log_mel", "sentence", "group"):
        assert torch.equal(torch.cat([half[key] for half in halves]), whole[key])
    assert not torch.equal(data.batch(1, 5, 4, 0, 1)["log_mel"], whole["log_mel"])
    assert whole["log_mel"].shape == (4, 16, 32)
    for i, (_, caption) in enumerate(data.pairs(1, 4, 4)):
        own = data.texts.tokens[caption].float()
        assert torch.equal(whole["tokens"][i, : len(own)], own)
        assert whole["valid"][i].sum() == len(own)
    with pytest.raises(InputError, match="shared"):
        data.batch(0, 0, 5, 0, 2)


def test_crops_are_relative_to_their_loudest_cell_and_short_sounds_go_on_in_silence():
    for augment in (True, False):
        data = dataset(frames=20, augment=augment)
        for number in range(20):
            x = data.picture(0, 0, number)
            assert x.shape == (16, 32)
            assert bool((x[:, 20:] == -80).all())
            assert float(x.min()) >= -80
            assert float(x.max()) == 0 or augment
    still = dataset(augment=False)
    assert torch.equal(still.picture(1, 0, 0), still.picture(1, 5, 9))
    moving = dataset()
    assert len({float(moving.picture(1, 0, number).sum()) for number in range(8)}) == 8


def test_captions_come_from_the_file_or_else_from_labels(tmp_path):
    rows = [row(0, sound="wolf growl", **{"class": "animal"}), row(1, title="x"), row(2, title="03 - Calm_Night")]
    plain = captioned.captions_of(rows, tmp_path)
    assert plain[0] == ["wolf growl", "wolf growl, animal", "sound: wolf growl, class: animal"]
    assert plain[2] == ["Calm Night"]
    lines = [
        {"recording": "r1", "caption": "a slow waltz", "parts": {}},
        {"recording": "r1", "caption": "a slow waltz"},
        {"recording": "test/r1", "caption": "a waltz"},
        {"recording": "elsewhere", "caption": "noise"},
    ]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = captioned.captions_of(rows, tmp_path)
    assert found == [plain[0], ["a waltz"], plain[2]]
    assert captioned.captions_of([rows[1].model_copy(update={"source": "other"})], tmp_path) == [["a slow waltz"]]
    for broken in ('{"recording": "r1"}', "nonsense", '{"recording": "r1", "caption": " "}', "[]"):
        (tmp_path / "captions.jsonl").write_text(broken + "\n")
        with pytest.raises(InputError, match="line 1"):
            captioned.captions_of(rows, tmp_path)


def test_recordings_of_the_same_facts_are_one_group():
    rows = [row(0, **{"class": "tom", "kit": "a"}), row(1, **{"class": "tom", "kit": "b"}), row(2, **{"class": "hat"})]
    rows += [row(3, title="a"), row(4, title="b")]
    a, b, c, d, e = captioned.group_numbers(rows, captioned.captions_of(rows, preset.Path("nowhere")))
    assert a == b
    assert len({a, c, d, e}) == 4
    assert sorted({a, c, d, e}) == [0, 1, 2, 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sounds")
    rows = []
    for i in range(8):
        n = 2400 + 800 * i
        tone = 0.3 * np.sin(2 * np.pi * 150 * (i + 1) * np.arange(n) / RATE)
        sf.write(root / f"{i}.wav", tone, RATE)
        rows.append(row(i, "validation" if i > 5 else "train", instrument=f"tone {i}"))
    manifest.write(root / "manifest.jsonl", rows)
    return root


def test_a_tiny_training_through_its_preset_gives_a_model_that_embeds(folder, tmp_path):
    plan = preset.load("text-audio-tiny", ["train.steps=6", "train.checkpoint_every=3"])
    fitted = preset.train(plan, folder, tmp_path / "run")
    model = load(fitted.model)
    assert model.system == "text_audio"
    assert model.card.sample_rate == RATE
    audio, rate = sf.read(folder / "3.wav", always_2d=True)
    vector = embed_audio(model.network, audio.T, rate)
    assert float(vector.norm()) == pytest.approx(1.0, abs=1e-5)
    kept = sorted((tmp_path / "run" / "bank" / "train").glob("pictures-*"))
    assert len(kept) == 1
    losses = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert any("validation/total" in line for line in losses)


def test_kept_pictures_are_read_again_and_are_the_sounds(folder, tmp_path):
    rows = manifest.read(folder / "manifest.jsonl")
    words = []
    made = captioned.pictures_of(rows, folder, tmp_path, SMALL, lambda *word: words.append(word))
    again = captioned.pictures_of(rows, tmp_path / "gone", tmp_path, SMALL, lambda *word: words.append(word))
    assert len(words) == len(rows)
    assert all(torch.equal(a, b) for a, b in zip(made, again, strict=True))
    loudest = [int(picture.mean(dim=1).argmax()) for picture in made]
    assert loudest == sorted(loudest)
    assert loudest[-1] > loudest[0]
