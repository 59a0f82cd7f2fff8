"""Loops drawn from noise and windows that are turned: if a loop has no end, what comes of it is the loop, turned."""

import numpy as np

from sfumato.diffusion import noise

TURNED = 2 / 5
"""Of a loop's length: whole frames of every state of the loops that are drawn here."""


def largest_difference(monkeypatch, task, model, settings) -> float:
    """Between a turned sound and the sound of turned noise and windows, as a share of its largest sample."""
    plain = next(task.takes(model, settings)).audio
    scroll, turns = noise.scroll, task.turns

    def turned_noise(shape, first, n, **key):
        own = scroll(shape, first, n, **key)
        return lambda step: own(step).roll(round(TURNED * n), dims=-1)

    def turned_windows(seed, item):
        own = turns(seed, item)
        return lambda n: (own(n) + round(TURNED * n)) % n

    monkeypatch.setattr(noise, "scroll", turned_noise)
    monkeypatch.setattr(task, "turns", turned_windows)
    made = next(task.takes(model, settings)).audio
    monkeypatch.undo()
    difference = made - np.roll(plain, round(TURNED * plain.shape[1]), axis=1)
    return float(np.abs(difference).max() / np.abs(plain).max())
