"""The best that a number of seconds allows: how many steps, and at how many of them guidance."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sfumato.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

ASIDE = 0.85
"""Share of a budget that evaluations may take; the rest is for the way to sound and for surprises."""
FEWEST, MOST = 3, 64
"""Steps that are worth drawing with, and beyond which nothing is gained."""
GUIDED_FROM = 8
"""Evaluations from which on some go to guidance."""


def parsed(text: str) -> float:
    """Seconds of a budget such as "2s", "500ms", "1.5".

    Raises
    ------
    ValueError
        It is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(s|ms|min)?\s*", text)
    seconds = float(match[1]) * {"ms": 1e-3, "min": 60.0}.get(match[2], 1.0) if match else 0.0
    if not seconds > 0:
        raise ValueError(f"'{text}' is no time: give one such as 2s or 500ms")
    return seconds


def seconds_of(evaluate: Callable[[], None]) -> float:
    """What an evaluation takes: the quicker of two, after one to warm up."""
    evaluate()
    return min(_timed(evaluate) for _ in range(2))


def _timed(evaluate: Callable[[], None]) -> float:
    began = time.perf_counter()
    evaluate()
    return time.perf_counter() - began


def evaluations(budget_s: float, evaluation_s: float, stretches: int, spent_s: float = 0.0) -> int:
    """Evaluations of each stretch that a budget allows once `spent_s` is set aside for what else is computed.

    Raises
    ------
    InputError
        They are too few for anything to be heard.
    """
    allowed = int((ASIDE * budget_s - spent_s) / evaluation_s / stretches)
    if allowed < FEWEST:
        least = (FEWEST * evaluation_s * stretches + spent_s) / ASIDE
        raise InputError(f"{budget_s:g} s are too few: it takes {least:.1f} s here. Give more, or a shorter sound.")
    return allowed


def cost(steps: int, guided: tuple[float, float] | None, sigmas: Callable[[int], Tensor]) -> int:
    """Evaluations that so many steps take: two for those at noise levels of guidance."""
    if guided is None:
        return steps
    levels = sigmas(steps)[:-1]
    return steps + int(((levels > guided[0]) & (levels <= guided[1])).sum())


def share(
    allowed: int, guidance: bool, guided: tuple[float, float], sigmas: Callable[[int], Tensor]
) -> tuple[int, tuple[float, float] | None]:
    """Steps, and the noise levels of guidance: as many steps as are left when its part of them is evaluated twice.

    With few evaluations there is none: steps count for more.
    """
    if not guidance or allowed < GUIDED_FROM:
        return min(allowed, MOST), None

    possible = range(FEWEST, min(allowed, MOST) + 1)
    steps = max(steps for steps in possible if steps == FEWEST or cost(steps, guided, sigmas) <= allowed)
    return steps, guided
