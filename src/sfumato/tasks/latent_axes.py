"""What to do to a codec's latent between encoding and decoding, and no torch.

The latent stands on its principal axes, in standard deviations: each can be moved (bias) and stretched (scale), and
those that a fidelity leaves out are put to their mean.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator

from sfumato.config import Settings as BaseSettings
from sfumato.errors import InputError
from sfumato.player import axes
from sfumato.player.weights import Array, Weights

FARTHEST = 10.0
"""Standard deviations that an axis may be moved by: further out no sound of the training lies."""
LARGEST = 100.0
"""Factor that an axis may be stretched by."""


class Settings(BaseSettings):
    """What to do to the latent."""

    fidelity: float = Field(1.0, gt=0, le=1, description="share of the latent's singular values kept")
    bias: list[str] | None = Field(
        None,
        description="axis=value, such as 0=1.5: moves an axis, 0 the strongest, by standard deviations (-10 to 10)",
    )
    scale: list[str] | None = Field(
        None, description="axis=value, such as 1=2: stretches an axis about its mean (-100 to 100)"
    )

    @field_validator("bias")
    @classmethod
    def _moves(cls, given: list[str] | None) -> list[str] | None:
        pairs(given, FARTHEST)
        return given

    @field_validator("scale")
    @classmethod
    def _stretches(cls, given: list[str] | None) -> list[str] | None:
        pairs(given)
        return given


def pairs(given: list[str] | None, largest: float = LARGEST) -> dict[int, float]:
    """Axis -> value, from texts such as 0=1.5, with values of at most `largest` either way.

    Raises
    ------
    ValueError
        A text is no such pair.
    """
    found = {}
    for text in given or ():
        axis, equals, value = text.partition("=")
        try:
            found[int(axis)] = float(value)
        except ValueError:
            equals = ""
        if not equals or int(axis) < 0 or not abs(float(value)) <= largest:
            raise ValueError(f"'{text}' is no axis=value, such as 0=1.5, with a value from {-largest:g} to {largest:g}")
    return found


def alter(
    weights: Weights, latent: Array, fidelity: float, bias: Mapping[int, float], scale: Mapping[int, float]
) -> Array:
    """A latent (batch, latent, frames) with its axes moved, stretched and left out.

    Raises
    ------
    InputError
        There is no such axis.
    """
    n = len(weights.scale)
    for axis in {*bias, *scale}:
        if not 0 <= axis < n:
            raise InputError(f"There is no axis {axis}: {weights.name} has 0 to {n - 1}.")
    kept = axes.keep(weights, fidelity)
    places = axes.coordinates(weights, latent)
    for axis, factor in scale.items():
        places[:, axis] *= factor
    for axis, deviations in bias.items():
        places[:, axis] += deviations * weights.scale[axis]
    places[:, kept.dims - 1] *= kept.share
    return axes.latent(weights, places[:, : kept.dims])
