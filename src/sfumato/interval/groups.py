"""Groups that are calibrated on their own (Mondrian): by gap length, distance to the gap's edge, or frequency."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from sfumato.config import Settings
from sfumato.errors import CalibrationError, InputError


class Axis(Settings):
    """A quantity, cut into neighbouring ranges; each range is a group."""

    name: str = Field(description="what is cut: gap_s, edge_s or frequency_hz", pattern=r"^[a-z][a-z0-9_]*$")
    edges: tuple[float, ...] = Field(
        description="increasing ends of the ranges, in the name's unit; ranges are half-open, the last is closed",
        min_length=2,
    )

    @model_validator(mode="after")
    def _increases(self) -> Self:
        """Refuse edges out of order."""
        if not all(a < b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("edges must increase")
        return self


def place(axis: Axis, values: ArrayLike) -> NDArray[np.intp]:
    """Number of the range each value lies in, from 0.

    Raises
    ------
    CalibrationError
        A value lies outside all ranges.
    """
    x = np.asarray(values, np.float64)
    wrong = ~((x >= axis.edges[0]) & (x <= axis.edges[-1]))
    if wrong.any():
        raise CalibrationError(
            f"{axis.name} {x[wrong].flat[0]:.6g} was not calibrated; possible: {_range(axis.edges)}. "
            "Calibrate for it, or repair without an interval."
        )
    return np.asarray(np.searchsorted(axis.edges[1:-1], x, side="right"))


def merge(axis: Axis, members: ArrayLike, needed: int, small: Literal["merge", "refuse"] = "merge") -> Axis:
    """The axis with ranges of enough clips each, fixed by counts alone, so before any loss is seen.

    From the first range on, a range with fewer than `needed` clips joins the next; what is left at the end joins the
    range before it.

    Parameters
    ----------
    axis
        The ranges wanted.
    members
        Which clips have something in each range, bool, shape (ranges, clips).
    needed
        Fewest clips of a range, as `calibrate.clips_needed` says.
    small
        "refuse" raises for a range with too few clips instead.

    Raises
    ------
    CalibrationError
        Too few clips: in a range that may not be merged, or in all together.
    """
    table = np.asarray(members, bool)
    if table.ndim != 2 or len(table) != len(axis.edges) - 1:
        raise InputError(f"{axis.name} has {len(axis.edges) - 1} ranges; the members have the shape {table.shape}.")
    counts = table.sum(axis=1)
    if small == "refuse":
        for i in np.flatnonzero(counts < needed):
            raise CalibrationError(
                f"{axis.name} {_range(axis.edges[i : i + 2])} has {counts[i]} calibration clips; "
                f"{needed} are needed. Calibrate on more clips, or merge ranges."
            )
    edges, group = [axis.edges[0]], np.zeros(table.shape[1], bool)
    for row, stop in zip(table, axis.edges[1:], strict=True):
        group = group | row
        if group.sum() >= needed:
            edges.append(stop)
            group = np.zeros_like(group)
    if len(edges) == 1:
        raise CalibrationError(
            f"All of {axis.name} {_range(axis.edges)} has {table.any(axis=0).sum()} calibration clips; "
            f"{needed} are needed. Calibrate on more clips."
        )
    return Axis(name=axis.name, edges=(*edges[:-1], axis.edges[-1]))


def _range(edges: tuple[float, ...]) -> str:
    """First and last edge for a message."""
    return f"{edges[0]:.6g} to {edges[-1]:.6g}"
