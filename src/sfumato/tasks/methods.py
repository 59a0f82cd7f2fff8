"""Which method fills what: by the settings and a gap's length, with which model, in how long a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sfumato.errors import InputError
from sfumato.systems import conffusion
from sfumato.tasks import fill as fills
from sfumato.tasks import waveform
from sfumato.tasks.fill import Fill, Window

if TYPE_CHECKING:
    from sfumato.model import Model
    from sfumato.tasks.repair import Settings

Tell = Callable[[str], None]

LEARNED = {"auto": "conffusion", "diffusion": "conffusion", "uasrm": "uasrm", "cqtdiff": None}
"""Methods that need a model, and the one they take unless told otherwise; none for what can't be shipped."""


def choose(
    settings: Settings, model: Model | None, length_s: float, tell: Tell = lambda text: None
) -> tuple[str, Callable[[Window], Fill]]:
    """How a gap of `length_s` seconds is filled, in words and as a function of the window."""
    n_draws, seed = settings.draws, settings.seed
    if settings.method == "cqtdiff":
        return settings.method, lambda window: waveform.fill_cqtdiff(window, n_draws, seed, model, tell)
    if settings.method not in ("auto", "diffusion"):
        return settings.method, lambda window: fills.CLASSICAL[settings.method](window, n_draws, seed, model)
    if model is None:
        raise InputError(f"The method {settings.method} needs a model.")
    spread = conffusion.spread(model.card.figures, length_s) if settings.method == "auto" else 1.0
    name = {0.0: "ar mean", 1.0: "diffusion"}.get(spread, f"mixture {spread:.0%}")
    return name, lambda window: fills.fill_diffusion(
        window,
        n_draws,
        seed,
        model,
        steps=settings.steps,
        temperature=settings.temperature,
        spread=spread,
    )


def window_samples(settings: Settings, model: Model | None, sample_rate: int) -> int | None:
    """Samples of the window that the method fills best; None: the usual one."""
    return waveform.window_samples(model, sample_rate) if model and settings.method == "cqtdiff" else None


SYSTEM = {"auto": "conffusion", "diffusion": "conffusion", "uasrm": "uasrm", "cqtdiff": "cqtdiff"}
"""Whose models a method fills with."""


def check_model(settings: Settings) -> None:
    """Refuse a model that isn't there, or that the method can't use, before anything is computed.

    Raises
    ------
    InputError
        Says which models there are, or which method the model is for.
    """
    if settings.model is None:
        return
    from sfumato.model import find, read_header

    header = read_header(find(settings.model))
    wanted = SYSTEM.get(settings.method)
    if wanted in (None, header.system):
        return
    able = next((method for method, system in SYSTEM.items() if system == header.system), None)
    what = f"{settings.model} is a model of the system {header.system}"
    if able is None:
        raise InputError(f"{what}, which fills nothing. Give one of {', '.join(sorted(set(SYSTEM.values())))}.")
    needs = f"and the method {settings.method} needs one of {wanted}"
    if wanted == "cqtdiff":
        needs += f" ({waveform.CONVERT})"
    raise InputError(f"{what}, {needs}. Add --method {able}.")


def load_model(settings: Settings) -> Model | None:
    """The model the settings ask for, or None where the method needs none."""
    if settings.method not in LEARNED:
        return None
    from sfumato.model import load

    name = settings.model or LEARNED[settings.method]
    model = None if name is None else load(name)
    return waveform.check(model) if settings.method == "cqtdiff" else model
