"""Sounds and words in one space, learnt from sounds with captions.

An audio tower and a text tower are trained so that a sound lies nearer to its own caption than to the others of the
batch, and a caption nearer to its own sound: symmetric InfoNCE with a learned temperature [1]_ [2]_. What comes of it
is a measure of how well a sound fits a text, used to rank captions, to look for sounds, and to score what other
systems generate; a proxy for a listener, as far as the captions it was trained on go.

Where it departs from the papers: both towers are small (`networks.text_audio`); the text tower reads a frozen sentence
encoder (`networks.text`), which knows the words that no caption of ours holds; pairs of one group (the same facts,
other words) are never each other's negatives; sounds are compared without their level.

References
----------
.. [1] Q. Huang et al., "MuLan: a joint embedding of music audio and natural language", arXiv 2208.12415.
.. [2] Y. Wu et al., "Large-scale contrastive language-audio pretraining with feature fusion and keyword-to-caption
       augmentation", arXiv 2211.06687; B. Elizalde et al., "CLAP", arXiv 2206.04769.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings
from sfumato.networks import text, text_audio
from sfumato.networks.text_audio import embed_audio

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from jaxtyping import Float
    from numpy.typing import NDArray

    from sfumato.diffusion.noise import BatchNoise

NAME = "text_audio"
PAPER = {
    "title": "MuLan: A Joint Embedding of Music Audio and Natural Language; "
    "CLAP: Learning Audio Concepts from Natural Language Supervision",
    "arxiv": "2208.12415, 2206.04769, 2211.06687",
    "code": "github.com/LAION-AI/CLAP and github.com/microsoft/CLAP (never opened); MuLan's is unpublished",
    "licence": "CC0-1.0 and MIT (the code; none of it is here)",
}
TURNS = ("contrast",)

__all__ = ["Config", "build", "embed_audio", "embed_text", "loss", "similarity"]


class Config(Settings):
    """The two towers."""

    network: text_audio.Config = Field(text_audio.Config(), description="audio tower, text tower and their space")

    @property
    def sample_rate(self) -> int:
        """Rate that sounds are brought to, Hz."""
        return self.network.sample_rate


def build(config: Config) -> nn.Module:
    """The network with its initial weights."""
    return text_audio.TextAudio(config.network)


def loss(
    network: nn.Module, batch: dict[str, Tensor], config: Config, noise: BatchNoise, turn: str
) -> dict[str, Tensor]:
    """Symmetric InfoNCE [1]_, eq. 1; nothing is compared with another member of its own group.

    `batch` holds "log_mel" ``(b, n_mels, n_frames)``, "sentence" ``(b, e)``, "tokens" ``(b, n, e)``, "valid" ``(b, n)``
    and "group" ``(b,)``. Each process of a training compares its own share of a batch.
    """
    assert isinstance(network, text_audio.TextAudio)
    sounds = network.audio(batch["log_mel"]).float()
    words = network.text(batch["sentence"], batch["tokens"], batch["valid"]).float()
    total, right = contrast(sounds, words, network.scale().float(), batch["group"])
    return {"total": total, "right": right, "scale": network.scale().detach()}


def contrast(
    sounds: Float[Tensor, "b d"], words: Float[Tensor, "b d"], scale: Tensor, group: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean of the cross-entropies of a sound among texts and of a text among sounds; share of both that are right."""
    alike = (group[:, None] == group) & ~torch.eye(len(group), dtype=torch.bool, device=group.device)
    logits = (scale * sounds @ words.T).masked_fill(alike, -torch.inf)
    own = torch.arange(len(group), device=group.device)
    total = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
    right = torch.cat([logits.argmax(dim=1) == own, logits.argmax(dim=0) == own]).float().mean()
    return total, right.detach()


@torch.no_grad()
def embed_text(network: nn.Module, texts: Sequence[str]) -> Float[Tensor, "b d"]:
    """The unit vector of each text.

    Raises
    ------
    InputError
        A text can't be read.
    MissingExtraError
        The sentence encoder isn't installed.
    """
    assert isinstance(network, text_audio.TextAudio)
    device = network.log_scale.device
    vectors = []
    for one in texts:  # one by one, so that no vector depends on its neighbours
        encoded = text.load().encode([one])
        vectors.append(network.text(*(x.to(device) for x in (encoded.sentence, encoded.tokens, encoded.valid)))[0])
    return torch.stack(vectors).cpu()


def similarity(
    network: nn.Module, audio: NDArray[np.floating], sample_rate: float, texts: Sequence[str]
) -> Float[Tensor, " n"]:
    """Cosine between a sound, (channels, samples), and each text: from -1 to 1, higher fits better.

    Raises
    ------
    InputError
        The audio is empty or not finite, or a text can't be read.
    MissingExtraError
        The sentence encoder isn't installed.
    """
    assert isinstance(network, text_audio.TextAudio)
    return embed_text(network, texts) @ embed_audio(network, audio, sample_rate)
