"""What encoding and decoding came to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Encoded:
    """What encoding came to."""

    output: Path
    model: str
    digest: str
    sample_rate: int
    channels: int
    n_samples: int
    frames: int
    dims: int
    share: float
    """What the last dimension kept was multiplied by, so that fidelity is continuous."""
    fidelity: float | None
    """Share of the sum of singular values; None for codes."""
    fidelity_of_variance: float | None
    step: float
    """Quantiser's step, over the standard deviation of the strongest dimension; 0 for codes."""
    duration_s: float
    """Length of the recording."""
    bytes: int
    kbit_s: float
    """Of the whole file."""
    kl_nats: tuple[float, ...] | None
    """Mean divergence from the prior, per dimension of the latent and frame; None where there is no spread."""
    kl_dims: int | None
    """Dimensions with more than 0.1 of it."""
    took_s: float
    """Time it took to encode."""


@dataclass(frozen=True)
class Decoded:
    """What decoding came to."""

    output: Path | None
    audio: NDArray[np.float32] | None
    """(channels, samples) where no file was asked for."""
    model: str
    sample_rate: int
    channels: int
    n_samples: int
    duration_s: float
    """Length of the recording."""
    took_s: float


def as_dict(result: Encoded | Decoded) -> dict[str, Any]:
    """What `--json` prints."""
    shown = {key: value for key, value in asdict(result).items() if key != "audio"}
    found: dict[str, Any] = json.loads(json.dumps(shown, default=str))
    return found
