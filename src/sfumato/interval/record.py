"""The calibration file: what was calibrated on what, for which use, and the refusal of any other.

Stored with `config.dump_yaml(calibration, path)`, atomically, and read with `config.load_yaml(path, Calibration)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from sfumato.config import Settings
from sfumato.errors import CalibrationError, InputError
from sfumato.interval.calibrate import Kind
from sfumato.interval.conformal import Score
from sfumato.interval.family import Family
from sfumato.interval.groups import Axis, place

Array = NDArray[np.float64]
SHA256 = r"^[0-9a-f]{64}$"


class Group(Settings):
    """One range of each axis, and what was calibrated there."""

    ranges: tuple[int, ...] = Field(description="number of the range on each axis, from 0")
    value: float = Field(description="parameter of the family, or quantile of the score")
    n_clips: int = Field(ge=1, description="calibration clips with something in this group")


class Calibration(Settings):
    """Everything one calibration promises, and for what."""

    model: str = Field(pattern=SHA256, description="SHA-256 of the model's weights and configuration")
    made_with: dict[str, str | int | float] = Field(
        default_factory=dict, description="settings of the fill the promise depends on, such as method, steps, draws"
    )
    domain: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        description="what is bounded, unit last: band_level_db, bin_db, waveform, or a quality: band_distance_db",
    )
    precision: Literal["float64", "float32", "float16", "bfloat16"] = Field(description="arithmetic of the network")
    sample_rate_min: int = Field(gt=0, description="lowest sample rate of the calibration clips, Hz")
    sample_rate_max: int = Field(gt=0, description="highest sample rate of the calibration clips, Hz")
    gap_min_s: float = Field(gt=0, description="shortest gap calibrated, s")
    gap_max_s: float = Field(gt=0, description="longest gap calibrated, s")
    kind: Kind = Field(description="how the promise is made: RCPS with a bound, crc, or a conformal quantile")
    level: float = Field(gt=0, lt=1, description="share of cells, or chance of a clip, that lies inside: 1 - alpha")
    delta: float | None = Field(
        default=None, gt=0, lt=1, description="chance that the calibration fails, of each group; RCPS only"
    )
    family: Family | Score = Field(description="what the value does to the raw interval or the predicted quality")
    floor: float = Field(default=0.0, ge=0, description="added to raw half-widths before scaling, unit of the domain")
    axes: tuple[Axis, ...] = Field(default=(), description="what the groups are cut by; none: one group for all")
    groups: tuple[Group, ...] = Field(min_length=1, description="calibrated values; other combinations are refused")
    n_clips: int = Field(ge=1, description="calibration clips")
    recordings: dict[str, str] = Field(description="calibration recordings, name -> SHA-256 of the file")
    seed: int = Field(ge=0, description="seed of gaps, fills and order of clips in the calibration")

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        """Refuse contradictions."""
        if self.sample_rate_min > self.sample_rate_max or self.gap_min_s > self.gap_max_s:
            raise ValueError("a range ends before it begins")
        if (self.delta is None) == (self.kind in ("hoeffding_bentkus", "wsr")):
            raise ValueError(f"{self.kind} goes {'with' if self.delta is None else 'without'} a delta")
        sizes = [len(axis.edges) - 1 for axis in self.axes]
        for group in self.groups:
            if len(group.ranges) != len(sizes) or not all(0 <= i < n for i, n in zip(group.ranges, sizes, strict=True)):
                raise ValueError(f"group {group.ranges} isn't on the axes")
            if group.n_clips > self.n_clips:
                raise ValueError(f"group {group.ranges} has more clips than there are")
        if len({group.ranges for group in self.groups}) < len(self.groups):
            raise ValueError("a group stands twice")
        if len(set(self.recordings.values())) < self.n_clips:
            raise ValueError("more clips than recordings: clips of one recording are not independent")
        return self


def check(
    calibration: Calibration,
    *,
    model: str,
    sample_rate: int,
    domain: str,
    gap_s: float,
    precision: str,
    made_with: Mapping[str, str | int | float] | None = None,
) -> None:
    """Raise CalibrationError unless the calibration was made for this very use.

    Parameters
    ----------
    calibration
        The record.
    model
        SHA-256 of the model that fills.
    sample_rate
        Of the audio, Hz.
    domain
        Of the interval wanted.
    gap_s
        Length of the gap, s.
    precision
        Arithmetic of the network.
    made_with
        Settings of the fill; none where the calibration has none.
    """
    again = "Calibrate for it, or repair without an interval."
    if model != calibration.model:
        raise CalibrationError(
            f"The model {model[:12]}… was not calibrated; possible: {calibration.model[:12]}…. {again}"
        )
    for given, possible, what in (
        (domain, calibration.domain, "The domain"),
        (precision, calibration.precision, "Precision"),
    ):
        if given != possible:
            raise CalibrationError(f"{what} {given} was not calibrated; possible: {possible}. {again}")
    if not calibration.sample_rate_min <= sample_rate <= calibration.sample_rate_max:
        rates = sorted({calibration.sample_rate_min, calibration.sample_rate_max})
        possible = " to ".join(f"{rate}" for rate in rates)
        raise CalibrationError(
            f"A sample rate of {sample_rate} Hz was not calibrated; possible: {possible} Hz. Resample, "
            "or repair without an interval."
        )
    if not calibration.gap_min_s <= gap_s <= calibration.gap_max_s:
        raise CalibrationError(
            f"A gap of {gap_s * 1000:.4g} ms was not calibrated; possible: {calibration.gap_min_s * 1000:.4g} to "
            f"{calibration.gap_max_s * 1000:.4g} ms. {again}"
        )
    settings = dict(made_with or {})
    for name in sorted(settings.keys() | calibration.made_with.keys()):
        if settings.get(name) != calibration.made_with.get(name):
            raise CalibrationError(
                f"Fills with {name} = {settings.get(name, 'unset')} were not calibrated; possible: "
                f"{calibration.made_with.get(name, 'unset')}. {again}"
            )


def values_at(calibration: Calibration, where: Mapping[str, ArrayLike]) -> Array:
    """Calibrated value for each cell.

    Parameters
    ----------
    calibration
        The record.
    where
        For each axis by name, where the cells lie on it; broadcast against each other.

    Raises
    ------
    InputError
        An axis is missing, or there is none of that name.
    CalibrationError
        A cell lies outside the axes, or in a combination of ranges with too few clips to be calibrated.
    """
    names = {axis.name for axis in calibration.axes}
    if where.keys() != names:
        raise InputError(f"The calibration is grouped by {sorted(names)}; given: {sorted(where)}. Give each of them.")
    if not calibration.axes:
        return np.asarray(calibration.groups[0].value)
    table = np.full([len(axis.edges) - 1 for axis in calibration.axes], np.nan)
    for group in calibration.groups:
        table[group.ranges] = group.value
    found = table[tuple(np.broadcast_arrays(*(place(axis, where[axis.name]) for axis in calibration.axes)))]
    if np.isnan(found).any():
        raise CalibrationError(
            f"{np.count_nonzero(np.isnan(found))} of {found.size} cells lie in a group of {', '.join(sorted(names))} "
            "that had too few calibration clips. Calibrate on more clips, or with fewer groups."
        )
    return np.asarray(found)


def disjoint(train: Mapping[str, str], calibration: Mapping[str, str], test: Mapping[str, str]) -> None:
    """Raise CalibrationError, naming recordings, if any content stands in two of the three splits.

    Parameters
    ----------
    train, calibration, test
        Name of each recording -> SHA-256 of its content.
    """
    splits = {"training": train, "calibration": calibration, "test": test}
    seen: dict[str, tuple[str, str]] = {}
    leaks = []
    for split, recordings in splits.items():
        for name, content in recordings.items():
            other, first = seen.setdefault(content, (split, name))
            if other != split:
                leaks.append(f"{first} ({other}) = {name} ({split})")
    if leaks:
        more = f" and {len(leaks) - 3} more" if len(leaks) > 3 else ""
        raise CalibrationError(
            f"{len(leaks)} recordings stand in two splits: {', '.join(leaks[:3])}{more}. Take each out of one of them."
        )
