"""Guides: wrappers that take denoisers and give a denoiser; they nest in any order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato.diffusion.precondition import Denoiser, spread
from sfumato.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def cfg(
    conditional: Denoiser,
    unconditional: Denoiser,
    scale: float,
    interval: tuple[float, float] | None = None,
    rescale: float = 0.0,
) -> Denoiser:
    """Classifier-free guidance: unconditional + scale * (conditional - unconditional).

    Parameters
    ----------
    conditional, unconditional
        The same network with and without its condition bound. A negative prompt is one more condition, bound in place
        of none: the guess then moves away from it.
    scale
        1 is no guidance (the unconditional one is then never evaluated), 0 is unconditional.
    interval
        Guide where low < sigma <= high alone; elsewhere the conditional guess is taken as it is, which saves an
        evaluation. None guides everywhere.
    rescale
        From 0 to 1: how far a guided guess is brought back to the conditional one's standard deviation over each item,
        which large scales exceed.

    References
    ----------
    Ho & Salimans, "Classifier-Free Diffusion Guidance", arXiv 2207.12598, eq. 6, with scale = 1 + w; Kynkäänniemi et
    al., "Applying Guidance in a Limited Interval", arXiv 2404.07724, eq. 5; Lin et al., "Common Diffusion Noise
    Schedules and Sample Steps are Flawed", arXiv 2305.08891, eqs. 15 and 16.
    """
    if interval is not None and not interval[0] < interval[1]:
        raise InputError(f"Guidance from sigma {interval[0]:g} to {interval[1]:g}. Give low < high.")
    if not 0 <= rescale <= 1:
        raise InputError(f"rescale = {rescale:g} is outside 0 … 1. Give 0 for none.")
    if scale == 1:
        return conditional

    def denoise(x: Tensor, sigma: Tensor, /) -> Tensor:
        active = torch.ones_like(sigma, dtype=torch.bool)
        if interval is not None:
            active = (sigma > interval[0]) & (sigma <= interval[1])
        wanted = conditional(x, sigma)
        if not bool(active.any()):
            return wanted
        base = unconditional(x, sigma)
        guided = base + scale * (wanted - base)
        if rescale:
            ratio = wanted.flatten(1).std(dim=1) / guided.flatten(1).std(dim=1).clamp_min(1e-12)
            guided = guided * spread(1 + rescale * (ratio - 1), x)
        return torch.where(spread(active, x), guided, wanted)

    return denoise


def keep(denoise: Denoiser, project: Callable[[Tensor], Tensor]) -> Denoiser:
    """Hard consistency: every guess goes through `project`, which makes it agree with what is known.

    A sampler's step to sigma 0 returns the guess itself, so its result satisfies the projection exactly.

    References
    ----------
    Song et al., "Score-Based Generative Modeling through SDEs", arXiv 2011.13456, App. I.2, in the form that
    replaces the denoised guess, as in Moliner & Välimäki, arXiv 2305.15266 ("data consistency").
    """

    def kept(x: Tensor, sigma: Tensor, /) -> Tensor:
        return project(denoise(x, sigma))

    return kept


def known_samples(observed: Float[Tensor, "b c *t"], known: Bool[Tensor, "b c *t"]) -> Callable[[Tensor], Tensor]:
    """The projection of a repair, for `keep`: `observed` where `known` is True, the guess elsewhere."""

    def project(denoised: Tensor) -> Tensor:
        return torch.where(known, observed.to(denoised), denoised)

    return project


def strength(
    denoise: Denoiser, source: Float[Tensor, "b c *t"], hold: Float[Tensor, "*any"], sigmas: Float[Tensor, " n"]
) -> Denoiser:
    """Graded change: each value stays tied to `source` for its own share of the walk, and is free after it.

    While it is tied, the guess is the source, so a deterministic walk that began at source + sigmas[0] * noise follows
    the noised source exactly, and step i begins there wherever hold > i / n. That is the published loop, which puts the
    noised source into the state before each step, with one difference: a hold of 1 gives the source itself at the end.

    Parameters
    ----------
    source
        What is to be changed.
    hold
        From 0, free from the start, to 1, kept; of a shape that goes with the state's.
    sigmas
        The grid that is walked, (n + 1,).

    References
    ----------
    Levin, Fried, "Differential diffusion", arXiv 2306.00950, algorithm 1.
    """
    levels, n = sigmas.flip(0), len(sigmas) - 1

    def held(x: Tensor, sigma: Tensor, /) -> Tensor:
        begun = n - torch.searchsorted(levels.to(sigma), sigma * (1 - 1e-5)).clamp(max=n)
        tied = (hold.to(x) > spread((begun + 1).to(x) / n, x)) | (hold.to(x) >= 1)
        return torch.where(tied, source.to(x), denoise(x, sigma))

    return held


def posterior(
    denoise: Denoiser,
    measure: Callable[[Tensor], Tensor],
    observed: Float[Tensor, "b ..."],
    strength: float,
) -> Denoiser:
    """Reconstruction guidance: each guess moves against the gradient of its measurement error.

    denoised - sigma * strength * sqrt(n) * g / ||g||, where g is the gradient with respect to x of
    ||observed - measure(denoised)||, and n the number of values of one item. Costs a backward pass through
    the denoiser per evaluation; works inside `torch.no_grad` and `torch.inference_mode`.

    Parameters
    ----------
    measure
        Differentiable map from a clean signal to what would have been observed, item by item.
    observed
        The measurement, of the shape that `measure` returns.
    strength
        Step's root mean square per unit of sigma (the paper's xi, 0.25 there). 0 is no guidance.

    References
    ----------
    Moliner & Välimäki, "Diffusion-Based Audio Inpainting", arXiv 2305.15266 (CQT-Diff+), reconstruction
    guidance; the normalised step is that of Moliner et al., arXiv 2210.15228 (CQTdiff).

    Notes
    -----
    The gradient of half the squared error is used: it points the same way and is 0, not undefined, where the
    measurement is met. The norm is each item's own, so a result doesn't depend on the batch. The step's
    length depends on sigma alone, so at high sigma it can overshoot: the paper starts at a sigma of 1.
    """

    def guided(x: Tensor, sigma: Tensor, /) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.detach().clone().requires_grad_(True)
            denoised = denoise(leaf, sigma.clone())
            error = (observed.clone() - measure(denoised)).square().sum() / 2
            (gradient,) = torch.autograd.grad(error, leaf)
        norm = spread(gradient.flatten(1).norm(dim=1), x)
        step = strength * math.sqrt(x[0].numel()) * spread(sigma, x) * gradient
        return denoised.detach() - torch.where(norm > 0, step / norm, 0.0)

    return guided


def windows(denoise: Denoiser, length: int, overlap: int) -> Denoiser:
    """Long audio as one state: each guess is made in windows along the last axis and crossfaded.

    Because every sampler's step sees the crossfaded guess, neighbours agree where they overlap. Audio no
    longer than a window goes to `denoise` whole. The last window is moved back to end with the audio.

    Parameters
    ----------
    denoise
        A denoiser whose condition, if any, holds for every window.
    length
        Samples (or frames) that `denoise` sees at once.
    overlap
        Samples shared by neighbours, in [0, length); crossfaded by raised cosines.

    References
    ----------
    Bar-Tal et al., "MultiDiffusion", arXiv 2302.08113, eq. 5, with weights that fade.
    """
    return windows_given(lambda given: denoise, torch.empty(0), length, overlap)


def windows_given(
    bind: Callable[[Tensor], Denoiser], given: Float[Tensor, "b ..."], length: int, overlap: int
) -> Denoiser:
    """As `windows`, where each window has its own part of what is given for the whole.

    Parameters
    ----------
    bind
        Takes a window's part of `given` and returns the denoiser for which it is known.
    given
        As long as the state along the last axis.
    length, overlap
        As for `windows`.
    """
    if not 0 <= overlap < length:
        raise InputError(f"Overlap {overlap} of windows of {length} samples. Give 0 ≤ overlap < length.")

    def joint(x: Tensor, sigma: Tensor, /) -> Tensor:
        total = x.shape[-1]
        if total <= length:
            return bind(given)(x, sigma)
        starts = [*range(0, total - length, length - overlap), total - length]
        fade = _fade(overlap, x)
        summed, weights = torch.zeros_like(x), x.new_zeros(total)
        for start in starts:
            weight = x.new_ones(length)
            if start > 0:
                weight[:overlap] *= fade
            if start < total - length:
                weight[length - overlap :] *= fade.flip(0)
            here = slice(start, start + length)
            summed[..., here] += weight * bind(given[..., here])(x[..., here], sigma)
            weights[here] += weight
        return summed / weights

    return joint


def follow(denoise: Denoiser, trail: Mapping[float, Float[Tensor, "b c *t"]]) -> Denoiser:
    """A stretch that goes on where another ended: each guess is made with the other's end before it.

    The other's end is seen as it was at the same noise level, so both are one state, and nothing of the first depends
    on the second: however many stretches follow, those before them stay what they were.

    Parameters
    ----------
    denoise
        Sees the end and the stretch at once, along the last axis.
    trail
        The end's states by noise level, for every level that is evaluated.
    """
    levels = sorted(trail)

    def following(x: Tensor, sigma: Tensor, /) -> Tensor:
        wanted = float(sigma[0])
        past = trail[min(levels, key=lambda level: abs(level - wanted))]
        return denoise(torch.cat([past.to(x), x], dim=-1), sigma)[..., past.shape[-1] :]

    return following


def circle(
    denoise: Denoiser, length: int, overlap: int, turn: Callable[[int], int] = lambda total: 0, grid: int = 1
) -> Denoiser:
    """A loop as one state, whose end goes on at its start: each guess is made in windows around it and crossfaded.

    Windows lie evenly around the circle, so no sample is an end. Where they begin is up to `turn`: if it is drawn
    uniformly, the seam is a place like every other. A loop shorter than a window is seen repeated in it.

    Parameters
    ----------
    denoise, length, overlap
        As for `windows`; neighbours share `overlap` samples or more.
    turn
        Called with the loop's samples at each guess; returns the sample at which the first window begins.
    grid
        Windows begin at multiples of this, which must divide the loop's samples.
    """
    return _around(lambda here: denoise, length, overlap, turn, grid)


def circle_given(
    bind: Callable[[Tensor], Denoiser],
    given: Float[Tensor, "b ..."],
    length: int,
    overlap: int,
    turn: Callable[[int], int] = lambda total: 0,
    grid: int = 1,
) -> Denoiser:
    """As `circle`, where each window has its own part of what is given for the whole, as for `windows_given`."""
    return _around(lambda here: bind(given[..., here]), length, overlap, turn, grid)


def _around(
    bind: Callable[[Tensor], Denoiser], length: int, overlap: int, turn: Callable[[int], int], grid: int
) -> Denoiser:
    """As `circle`; `bind` takes the places of a window, and returns the denoiser for it."""
    if not 0 <= overlap < length:
        raise InputError(f"Overlap {overlap} of windows of {length} samples. Give 0 ≤ overlap < length.")

    def joint(x: Tensor, sigma: Tensor, /) -> Tensor:
        total = x.shape[-1]
        count = -(-total // (length - overlap))
        weight, fade = x.new_ones(length), _fade(overlap, x)
        weight[:overlap] *= fade
        weight[length - overlap :] *= fade.flip(0)
        summed, weights, first = torch.zeros_like(x), x.new_zeros(total), turn(total)
        for k in range(count):
            start = (first + k * total // count) // grid * grid
            here = (torch.arange(length, device=x.device) + start) % total
            summed.index_add_(-1, here, weight * bind(here)(x[..., here], sigma))
            weights.index_add_(0, here, weight)
        return summed / weights

    return joint


def _fade(n: int, like: Tensor) -> Tensor:
    """From nearly 0 to nearly 1 in `n` steps of a raised cosine."""
    place = (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) / max(n, 1)
    return torch.sin(place * math.pi / 2).square()
