"""The sentence encoder against the library transformers' BERT, whose results are kept in a file."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sfumato import errors
from sfumato.networks import text

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "text.npz")
PROMPTS = [str(prompt) for prompt in GOLDEN["prompts"]]


@pytest.fixture(scope="module")
def encoder():
    return text.load()


def test_word_pieces_are_those_of_the_published_tokenizer(encoder):
    for i, prompt in enumerate(PROMPTS):
        assert encoder.pieces(prompt).ids == tuple(GOLDEN[f"ids_{i}"])


def test_states_and_sentence_vectors_equal_an_independent_encoder_s(encoder):
    encoded = encoder.encode(PROMPTS)
    np.testing.assert_allclose(encoded.sentence.numpy(), GOLDEN["sentences"], atol=1e-5)
    for i in (0, 5):
        states = GOLDEN[f"states_{i}"]
        np.testing.assert_allclose(encoded.tokens[i, : len(states)].numpy(), states, atol=2e-5)


def test_shapes_validity_and_length(encoder):
    encoded = encoder.encode(PROMPTS)
    lengths = [len(GOLDEN[f"ids_{i}"]) for i in range(len(PROMPTS))]
    assert encoded.tokens.shape == (len(PROMPTS), 256, 384)
    assert encoded.valid.sum(dim=1).tolist() == lengths
    assert all(bool(valid[:n].all()) for valid, n in zip(encoded.valid, lengths, strict=True))
    assert not bool(encoded.tokens[~encoded.valid].any())
    torch.testing.assert_close(encoded.sentence.norm(dim=1), torch.ones(len(PROMPTS)))


def test_a_prompt_s_states_do_not_depend_on_its_neighbours(encoder):
    alone, together = encoder.encode([PROMPTS[1]]), encoder.encode([PROMPTS[3], PROMPTS[1], PROMPTS[6]])
    assert torch.equal(alone.sentence[0], together.sentence[1])
    assert torch.equal(alone.tokens[0], together.tokens[1, : alone.tokens.shape[1]])


def test_loading_draws_no_random_numbers_and_weights_are_frozen(encoder):
    state = torch.get_rng_state()
    network = text.load.__wrapped__().network
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(weight.requires_grad for weight in network.parameters())
    assert not network.training
    assert sum(weight.numel() for weight in network.parameters()) == 22_565_376


def test_long_unknown_and_empty_prompts_are_counted(encoder):
    long = encoder.pieces("drum " * 400)
    assert (len(long.ids), long.cut) == (256, 146)
    assert long.ids[-1] == encoder.pieces("drum").ids[-1]
    assert encoder.pieces("drum " * 254).cut == 0
    assert encoder.pieces("🎹 waltz").unknown == 1
    assert len(encoder.pieces("  \n ").ids) == len(encoder.pieces("").ids) == 2


@pytest.mark.parametrize("prompt", ["\ud800 waltz", "a" * 100_001, 7, None])
def test_what_is_no_prompt_is_refused(encoder, prompt):
    with pytest.raises(errors.InputError):
        encoder.encode([prompt])


@pytest.mark.parametrize("prompts", [[], "a waltz"])
def test_prompts_come_as_a_list(encoder, prompts):
    with pytest.raises(errors.InputError, match="list"):
        encoder.encode(prompts)


def test_without_the_package_its_extra_is_named(monkeypatch):
    monkeypatch.setattr(text, "find_spec", lambda name: None)
    with pytest.raises(errors.MissingExtraError, match=r"sfumato\[text\]"):
        text.load.__wrapped__()


def test_a_checkpoint_without_a_weight_is_named(encoder):
    with pytest.raises(KeyError, match="word_embeddings"):
        text.adopt({})


def test_weighted_words_pull_the_sentence_their_way(encoder):
    plain = encoder.encode(["piano and drums"])
    same = encoder.encode(["piano and drums"], weighted=True)
    assert torch.equal(plain.sentence, same.sentence)
    assert torch.equal(plain.tokens, same.tokens)
    ends = encoder.encode(["piano", "drums"]).sentence
    weighted = encoder.encode(["(piano:2) and [[[[drums]]]]", "[[[[piano]]]] and (drums:2)"], weighted=True)
    nearer = weighted.sentence @ ends.T
    assert nearer[0, 0] > (plain.sentence @ ends.T)[0, 0] > nearer[1, 0]
    assert nearer[1, 1] > (plain.sentence @ ends.T)[0, 1] > nearer[0, 1]


def test_a_weight_multiplies_the_states_of_its_words_alone(encoder):
    plain = encoder.encode(["a slow waltz"]).tokens[0]
    weighted = encoder.encode(["a (slow:3) waltz"], weighted=True)
    ratio = weighted.tokens[0] / plain
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ratio[:, 0] / ratio[0, 0], torch.tensor([1.0, 1, 3, 1, 1]))
    torch.testing.assert_close(weighted.tokens[0].square().mean(), plain.square().mean())
    mean = (plain * torch.tensor([1.0, 1, 3, 1, 1])[:, None]).mean(dim=0)
    torch.testing.assert_close(weighted.sentence[0], nn.functional.normalize(mean, dim=0))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", [("", 1.0)]),
        ("a slow waltz", [("a slow waltz", 1.0)]),
        ("(a:1.3)", [("a", 1.3)]),
        ("(a : 1.3 ) b", [("a ", 1.3), (" b", 1.0)]),
        ("(a) [b]", [("a", 1.1), (" ", 1.0), ("b", 1 / 1.1)]),
        ("((a) b:2)", [("a", 2.2), (" b", 2.0)]),
        (r"\(a\) \\ \[b\]", [(r"(a) \ [b]", 1.0)]),
        ("at 4:4 (in 3:4 time)", [("at 4:4 ", 1.0), ("in 3:4 time", 1.1)]),
        ("[a (b:.5)]", [("a ", 1 / 1.1), ("b", 0.5 / 1.1)]),
        ("key: c", [("key: c", 1.0)]),
    ],
)
def test_brackets_are_weights(prompt, expected):
    found = text.parts(prompt)
    assert [part for part, _ in found] == [part for part, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])


@pytest.mark.parametrize("prompt", ["(a", "a)", "[a)", "(a]", "a:1.3)", "(a:11)", "(((a:3):3):2)"])
def test_brackets_without_partner_and_absurd_weights_are_refused(prompt):
    with pytest.raises(errors.InputError):
        text.parts(prompt)


@pytest.mark.parametrize("weight", ["-3", "1e9", "11", "10.01", "-.5", "1,3", "1E+2"])
def test_a_weight_out_of_its_range_is_no_text(weight):
    with pytest.raises(errors.InputError, match=rf"can't weigh '{re.escape(weight)}'. Give 0 to 10"):
        text.parts(f"soft (piano:{weight})")


def test_weights_may_be_written_in_every_way_and_reach_both_ends():
    assert text.parts("(a:+2)(b:1e1) (c:0)") == [("a", 2.0), ("b", 10.0), (" ", 1.0), ("c", 0.0)]


def test_morphing_goes_from_one_prompt_to_the_other(encoder):
    a, b = encoder.encode(["a slow piano waltz", "rain"]), encoder.encode(["techno", "a brass band marching by"])
    assert text.morph(a, b, 0) is a
    assert text.morph(a, b, 1) is b
    halves = text.morph(a, b, 0.5)
    torch.testing.assert_close((halves.sentence * a.sentence).sum(1), (halves.sentence * b.sentence).sum(1))
    torch.testing.assert_close(halves.sentence.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(halves.tokens[0, 1], (a.tokens[0, 1] + b.tokens[0, 1]) / 2)
    last = a.tokens[1, a.valid[1].sum() - 1]
    torch.testing.assert_close(halves.tokens[1, 6], (last + b.tokens[1, 6]) / 2)
    assert halves.valid.sum(dim=1).tolist() == [6, 7]
    near = text.morph(a, b, 1e-4)
    torch.testing.assert_close(near.sentence, a.sentence, atol=1e-3, rtol=0)
    for t in (-0.1, 1.1):
        with pytest.raises(errors.InputError):
            text.morph(a, b, t)
    with pytest.raises(errors.InputError, match="prompts"):
        text.morph(a, encoder.encode(["techno"]), 0.5)


def test_lerp_keeps_both_ends_exactly():
    a, b = torch.tensor([1e8, 1.0]), torch.tensor([-3.0, 2.0])
    assert torch.equal(text.lerp(a, b, 0), a)
    assert torch.equal(text.lerp(a, b, 1), b)
    assert torch.equal(text.lerp(a, b, 0.5), (a + b) / 2)
