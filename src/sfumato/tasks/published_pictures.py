"""What published Riffusion checkpoints make: sounds from words, between two prompts, and out of other sounds.

A sound is drawn as a picture of its spectrogram (`signal.spectrogram_image`), whose latents are the state of a walk
like any other: noise by seed and item, sfumato's samplers, guidance, windows over time. So a sound of any length is one
state, and no row of clips.

Where upstream [1]_ errs, this doesn't:

- The negative prompt, which its server drops, is used.
- The kept area is put back at the level of noise that the step came to; upstream's level is that before it, so that a
  rest of noise stays in what is kept, at the end too.
- The source is noised to the level at which the walk begins; upstream's is one step higher.
- A walk ends at no noise; upstream's checkpoints stop at the first trained level.
- Sounds keep the level that their picture tells; upstream brings each clip to the same peak.

References
----------
.. [1] S. Forsgren, H. Martiros, "Riffusion", 2022, github.com/riffusion/riffusion-hobby (MIT): riffusion_pipeline.py.
.. [2] E. Levin, O. Fried, "Differential diffusion", arXiv 2306.00950: graded blending.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from sfumato.config import Settings as BaseSettings
from sfumato.diffusion import guide, noise, sample
from sfumato.errors import InputError, ModelError
from sfumato.networks.text import lerp
from sfumato.signal.spectrogram_image import Parameters
from sfumato.tasks import images
from sfumato.tasks.images import Picture, checked
from sfumato.tasks.published_checkpoint import PublishedRiffusion

if TYPE_CHECKING:
    from jaxtyping import Float

    from sfumato.diffusion.noise import Noise
    from sfumato.diffusion.precondition import Denoiser

Map = NDArray[np.floating]
"""How much of a picture (rows, columns) is kept: 1 all, 0 nothing; the first row is the highest sound's."""
Sampler = Literal["dpmpp_2m", "dpmpp_2m_sde", "heun", "euler", "ancestral", "ddim", "iplms"]
Blend = Literal["published", "graded"]

DRAWN_STRENGTH, CHANGED_STRENGTH = 0.75, 0.55
"""Upstream's, for seed pictures and for recordings."""
LONGEST_S = 239.0
WHITE = 255
"""Silence in a picture."""


class Settings(BaseSettings):
    """What a published checkpoint is to make, and how; defaults are upstream's."""

    prompt: str | None = Field(None, description="what it is to sound like; (word:1.3) weighs more, [word] less")
    negative: str | None = Field(None, description="what it is not to sound like")
    then: str | None = Field(None, description="prompt at the other end; alpha or frames say how far to go there")
    alpha: float | None = Field(
        None, ge=0, le=1, description="how far towards the other end: 0 not at all, 1 all the way"
    )
    frames: int | None = Field(None, ge=2, le=1000, description="sounds on the way to the other end, with both ends")
    alpha_power: float = Field(1.0, gt=0, le=10, description="power that the frames' way is raised to; 1 is even")
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description=f"share of the steps that a source is drawn anew in; {DRAWN_STRENGTH} for a picture, "
        f"{CHANGED_STRENGTH} for a recording unless given",
    )
    then_strength: float | None = Field(None, gt=0, le=1, description="strength at the other end")
    cfg_scale: float = Field(7.0, ge=0, le=20, description="how strictly prompts are kept to; costs twice unless 1")
    then_cfg_scale: float | None = Field(None, ge=0, le=20, description="the same at the other end")
    seed: int = Field(0, ge=0, lt=2**63, description="seed: sound 3 of a seed is the same however many are made")
    then_seed: int | None = Field(None, ge=0, lt=2**63, description="seed at the other end")
    count: int = Field(1, ge=1, le=10_000, description="how many sounds")
    steps: int = Field(50, ge=1, le=1000, description="steps from noise; from a source its strength's share of them")
    sampler: Sampler | None = Field(None, description="sampler; dpmpp_2m unless given, ddim for the published blend")
    seconds: float | None = Field(None, gt=0, le=LONGEST_S, description="length in seconds; a window unless given")
    seed_image: str | None = Field(None, description="picture of a sound to start from, a PNG file")
    mask_image: str | None = Field(None, description="picture of what to draw anew (white) and to keep (black)")
    blend: Blend | None = Field(
        None,
        description="how greys are blended: at every step (published) or held for their share of the steps (graded); "
        "published for mask_image, graded for other maps unless given",
    )
    stereo: bool = Field(False, description="two channels, for checkpoints that were trained on such pictures")
    max_frequency: int = Field(10_000, gt=0, description="highest frequency of the pictures, Hz; 20000 for stereo ones")
    iterations: int = Field(32, ge=1, le=1000, description="iterations of the search for phases")

    @model_validator(mode="after")
    def _ends(self) -> Settings:
        other = (self.then, self.then_strength, self.then_cfg_scale, self.then_seed)
        on_the_way = self.alpha is not None or self.frames is not None
        if on_the_way != any(end is not None for end in other):
            raise ValueError("alpha or frames go towards another end: give both, such as then and alpha")
        if self.frames is not None and (self.alpha is not None or self.count > 1):
            raise ValueError("frames say how many sounds and how far each goes: leave out alpha and count")
        if self.seed_image is not None and self.seconds is not None:
            raise ValueError("a seed_image says how long the sound is: leave out seconds")
        return self


@dataclass(frozen=True)
class Drawn:
    """A sound as a picture, and what it was decoded from."""

    picture: Picture
    latents: Tensor
    """``(1, channels, rows, columns)``; may reach beyond the picture's end."""


@dataclass(frozen=True)
class _Source:
    """A picture as latents, and what is kept of it."""

    picture: Picture
    latents: Tensor
    hold: Tensor | None
    """(rows, columns) of latents."""


def parameters_of(published: PublishedRiffusion, settings: Settings) -> Parameters:
    """How a checkpoint's pictures are drawn and read.

    Raises
    ------
    InputError
        There is no such picture.
    """
    return checked(Parameters(stereo=settings.stereo, n_mels=published.rows, f_max=settings.max_frequency))


@torch.no_grad()
def riffuse(
    published: PublishedRiffusion,
    settings: Settings,
    source: Picture | None = None,
    hold: Map | None = None,
    columns: int = 512,
    alpha: float = 0.0,
    item: int = 0,
    told: Callable[[int], None] = lambda done: None,
    map_columns: int | None = None,
) -> Drawn:
    """One picture, `alpha` of the way between two ends.

    Words go from end to end on the line, noise on the arc, strength and guidance on the line, as published.

    Parameters
    ----------
    source
        What to start from; its parameters are the result's. None draws out of noise, with the settings' parameters.
    hold
        How much of the source is kept; scaled to its size. Where it is 1, the source's own pixels stay.
    columns
        Width without a source, pixels.
    told
        Called with the steps done of `settings.steps`.
    map_columns
        Columns of the source that `hold` is of, if not all; it goes on as it ends.

    Raises
    ------
    InputError
        The source's height isn't the checkpoint's, or settings don't go together.
    ModelError
        The checkpoint gives what is no picture.
    """
    blend = settings.blend or "published"
    stepwise = hold is not None and blend == "published"
    if stepwise and settings.sampler not in (None, "ddim"):
        raise InputError(
            f"The published blend is made between steps of ddim, not of {settings.sampler}. Leave the sampler out, or "
            "ask for the graded blend."
        )
    if hold is not None and source is None:
        raise InputError("A map says how much of a source is kept, and there is none. Give one.")
    start = None if source is None else _source(published, source, hold, map_columns)
    said = settings.prompt or ""
    prompts = (said, said if settings.then is None else settings.then)
    first, second, avoided = published.text([*prompts, settings.negative or ""])
    scale = _between(settings.cfg_scale, settings.then_cfg_scale, alpha)
    strength = _between(settings.strength or DRAWN_STRENGTH, settings.then_strength, alpha)
    sigmas = published.schedule.sigmas(settings.steps, 1.0 if start is None else strength)
    blocks = max(published.shape[2], math.ceil(columns / published.factor))
    shape = (*published.shape[:2], blocks) if start is None else tuple(start.latents.shape[1:])
    stream = _noise(settings, shape, item, alpha)
    denoise = published.denoiser(lerp(first, second, alpha), avoided, scale)
    if start is None:
        x = stream(0) * float(1 + sigmas[0] ** 2) ** 0.5  # as published: noise alone is the variance-preserving state
    else:
        x = start.latents + float(sigmas[0]) * stream(0)
    if start is not None and start.hold is not None and stepwise:
        states = _blended(denoise, x, sigmas, start.latents, start.hold, stream(0))
    else:
        if start is not None and start.hold is not None:
            denoise = guide.strength(denoise, start.latents, start.hold, sigmas)
        states = (s.x for s in sample.SAMPLERS[settings.sampler or "dpmpp_2m"](denoise, x, sigmas, stream))
    for done, x in enumerate(states, settings.steps - len(sigmas) + 2):  # noqa: B007
        told(done)
    return Drawn(_picture(published, settings, x, start, columns), x)


def _blended(
    denoise: Denoiser, x: Tensor, sigmas: Tensor, source: Tensor, hold: Tensor, drawn: Tensor
) -> Iterator[Tensor]:
    """States after steps of DDIM, into each of which the source is blended at the level of noise it has come to."""
    for i in range(len(sigmas) - 1):
        x = sample.last(sample.ddim(denoise, x, sigmas[i : i + 2]))
        x = hold * (source + float(sigmas[i + 1]) * drawn) + (1 - hold) * x
        yield x


def _between(first: float, second: float | None, alpha: float) -> float:
    """A number on the line; where the other end has none it is the same."""
    return first if second is None else (1 - alpha) * first + alpha * second


def _noise(settings: Settings, shape: tuple[int, ...], item: int, alpha: float) -> Noise:
    """Noise `alpha` of the way on the arc between the ends' seeds."""
    first = noise.walk(shape, seed=settings.seed, items=[item])
    if settings.then_seed is None or alpha == 0:
        return first
    second = noise.walk(shape, seed=settings.then_seed, items=[item])
    if alpha == 1:
        return second
    return lambda step: noise.slerp(first(step).flatten(1), second(step).flatten(1), alpha).reshape(1, *shape)


def _fitted(hold: Map, rows: int, columns: int) -> Map:
    """A map scaled to a picture, each pixel as its nearest.

    Raises
    ------
    InputError
        It isn't flat, or has values outside 0 … 1.
    """
    if hold.ndim != 2 or not hold.size or not bool(((hold >= 0) & (hold <= 1)).all()):
        raise InputError(f"A map of what to keep, {hold.shape}, isn't (rows, columns) of numbers from 0 to 1.")
    return np.asarray(Image.fromarray(hold.astype(np.float32)).resize((columns, rows), Image.Resampling.NEAREST))


def _source(
    published: PublishedRiffusion, picture: Picture, hold: Map | None, map_columns: int | None
) -> _Source:
    """A picture's latents, with silence after its end up to whole ones and to a window."""
    rows, columns = picture.pixels.shape[:2]
    if rows != published.rows or picture.parameters.n_mels != rows:
        raise InputError(
            f"The picture has {rows} rows for {picture.parameters.n_mels} bands; this checkpoint draws "
            f"{published.rows}. Draw it with --num-frequencies {published.rows}."
        )
    if columns > images.WIDEST:
        raise InputError(f"The picture is {columns} columns wide. Give up to {images.WIDEST}.")
    factor, kept = published.factor, None
    missing = _missing(published, columns)
    if hold is not None:
        own = map_columns or columns
        whole = np.pad(_fitted(hold, rows, own), ((0, 0), (0, columns + missing - own)), mode="edge")
        kept = torch.from_numpy(whole[factor // 2 :: factor, factor // 2 :: factor].copy())
    return _Source(picture, latents_of(published, picture), kept)


def latents_of(published: PublishedRiffusion, picture: Picture) -> Float[Tensor, "1 c h w"]:
    """A picture's latents, with silence after its end up to whole ones and to a window."""
    missing = _missing(published, picture.pixels.shape[1])
    pixels = np.pad(picture.pixels, ((0, 0), (0, missing), (0, 0)), constant_values=WHITE)
    return published.encode(torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float()[None] / 127.5 - 1)


def _missing(published: PublishedRiffusion, columns: int) -> int:
    """Columns that a picture lacks up to whole latents and to a window."""
    return max(published.shape[2], math.ceil(columns / published.factor)) * published.factor - columns


def _picture(
    published: PublishedRiffusion, settings: Settings, latents: Tensor, start: _Source | None, columns: int
) -> Picture:
    """The picture of latents, cut to its width, where all is kept with the source's pixels."""
    decoded = published.decode(latents)[0]
    if not bool(torch.isfinite(decoded).all()):
        raise ModelError(f"{published.folder} gives a picture that isn't finite. Its weights are broken.")
    parameters = parameters_of(published, settings) if start is None else start.picture.parameters
    shades = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round()
    if parameters.stereo:
        shades[0] = 0
    else:
        shades = shades.mean(dim=0, keepdim=True).round().expand(3, -1, -1)
    pixels = shades.permute(1, 2, 0).to(torch.uint8).numpy()
    if start is None:
        return Picture(pixels[:, :columns], parameters, None, tagged=True)
    pixels = pixels[:, : start.picture.pixels.shape[1]]
    if start.hold is not None:
        whole = (start.hold >= 1).numpy().repeat(published.factor, axis=0).repeat(published.factor, axis=1)
        pixels = np.where(whole[:, : pixels.shape[1], None], start.picture.pixels, pixels)
    return Picture(pixels, parameters, start.picture.loudest, start.picture.tagged)
