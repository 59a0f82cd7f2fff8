"""How sure a fill is: calibrated bounds inside the gap, and on the quality of this very fill.

Two promises, both tested on recordings nobody tuned on (docs/confidence.md):

- **Interval.** Of the true cells of its domain (`tasks.looks`), at least the share `level` lies between `lower` and
  `upper`, on average over clips. Raw bounds are scaled about their point by a calibration whose unit is the clip.
- **Quality.** The band distance between this fill and the truth is at most `upper` dB with chance `level`: a conformal
  bound on its ratio to a prediction made from the interval's widths and the fill's own levels.

A promise that the calibration doesn't cover is refused with a `CalibrationError` that says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from sfumato.config import load_yaml
from sfumato.errors import CalibrationError
from sfumato.interval import conformal, family
from sfumato.interval.conformal import Score
from sfumato.interval.family import Family
from sfumato.interval.record import Calibration, check, values_at
from sfumato.model import Model, digest, shipped_folder
from sfumato.tasks import looks, routing
from sfumato.tasks.calibration import QUALITY
from sfumato.tasks.looks import Raw
from sfumato.tasks.windows import Filled, Gap, Source

if TYPE_CHECKING:
    from sfumato.tasks.repair import Settings

Array = NDArray[np.float64]

INTERVAL, BOUND = "interval", "quality"
"""The two promises, which are refused each on its own."""


@dataclass(frozen=True)
class Bounded:
    """A calibrated interval."""

    domain: str
    level: float
    guarantee: str
    """How it is promised: see `interval.calibrate`."""
    lower: Array
    """In the domain's unit, as are `point` and `upper`; NaN where the promise is about nothing."""
    point: Array
    upper: Array
    axes: Mapping[str, Array]
    """What stands at the rows and columns: `time_s`, and `edges_hz` of bands or `frequency_hz` of bins."""


@dataclass(frozen=True)
class Quality:
    """A calibrated bound on the quality of a fill."""

    metric: str
    upper: float
    level: float
    guarantee: str


@dataclass(frozen=True)
class Sure:
    """What can be promised of one fill."""

    interval: Bounded | None = None
    quality: Quality | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why there is no interval, or no quality, by these words."""


@dataclass(frozen=True)
class Promises:
    """Model and calibrations behind the promises of one level."""

    level: float
    bounds: Model
    interval: Calibration
    qualities: tuple[Calibration, ...]
    """One for each way of filling that was calibrated."""
    bounds_sha256: str
    """Hash of the bounds model."""

    def of(
        self, source: Source, gap: Gap, unknown: Sequence[Gap], filled: Filled, settings: Settings, model: Model | None
    ) -> Sure:
        """Interval of one gap and the bound on its fill's quality.

        Parameters
        ----------
        source, gap, unknown, filled
            See `looks.view`.
        settings, model
            What the gap was filled with.
        """
        rate, of = source.sample_rate, self.interval.domain
        gap_s = (gap[1] - gap[0]) / rate
        use: dict[str, Any] = {
            "model": self.bounds_sha256,
            "sample_rate": rate,
            "precision": precision_of(self.bounds),
            "gap_s": gap_s,
        }
        try:
            seen = looks.view(source, gap, unknown, filled)
            bands = looks.band_bounds(seen, self.bounds)
            if not bands.counts.any():
                raise CalibrationError("Next to nothing is heard around the gap, so there is nothing to bound.")
        except CalibrationError as error:
            return Sure(refused=dict.fromkeys((INTERVAL, BOUND), str(error)))
        refused, bounded, quality = {}, None, None
        try:
            if settings.domain == "waveform":
                looks.check_phase(gap_s)
            check(self.interval, domain=settings.domain, **use)
            raw = bands
            if of == "bin_level_db":
                raw = looks.bin_bounds(seen, bands)
            elif of == "waveform":
                raw = looks.waveform_bounds(source, gap, unknown)
            if not raw.counts.any():
                raise CalibrationError("Next to nothing is heard around the gap, so there is nothing to bound.")
            bounded = widened(raw, self.interval)
        except CalibrationError as error:
            refused[INTERVAL] = str(error)
        try:
            quality = self._quality(use, bands, seen.levels(filled.draws[0]), made_with(settings, model))
        except CalibrationError as error:
            refused[BOUND] = str(error)
        return Sure(bounded, quality, refused)

    def _quality(
        self, use: Mapping[str, Any], bands: Raw, filled_db: Array, made: Mapping[str, str | int | float]
    ) -> Quality:
        """The bound on one fill's quality; CalibrationError where its kind or length was not calibrated."""
        record = next((record for record in self.qualities if record.made_with == made), None)
        if record is None:
            possible = ", ".join(sorted({str(record.made_with["method"]) for record in self.qualities})) or "none"
            raise CalibrationError(
                f"the quality of fills by {made['method']} with these settings was not calibrated; calibrated methods, "
                f"with their shipped model and defaults: {possible}"
            )
        check(record, domain=QUALITY, made_with=made, **use)
        value = float(values_at(record, {"gap_s": use["gap_s"]}))
        predicted = looks.predicted_distance_db(bands, filled_db)
        upper = float(conformal.quality_bound(value, predicted, cast(Score, record.family)))
        return Quality(QUALITY, upper, self.level, record.kind)


def widened(raw: Raw, calibration: Calibration) -> Bounded:
    """The raw interval, each cell scaled by the value of its group."""
    heard = raw.counts.any(axis=1)
    where = {axis.name: np.broadcast_to(raw.where[axis.name], raw.counts.shape)[heard] for axis in calibration.axes}
    scale = np.full(raw.counts.shape, np.nan)
    scale[heard] = values_at(calibration, where)
    kind = cast(Family, calibration.family)
    scaled = family.widen(raw.interval, np.where(np.isnan(scale), 1.0, scale), kind, calibration.floor)
    lower, point, upper = (
        np.where(raw.counts, np.maximum(part, raw.floor), np.nan) for part in (scaled.lower, scaled.point, scaled.upper)
    )
    axes = {**raw.axes, "floor_db": np.asarray(raw.floor)} if np.isfinite(raw.floor) else raw.axes
    return Bounded(calibration.domain, calibration.level, calibration.kind, lower, point, upper, axes)


def precision_of(model: Model) -> str:
    """Arithmetic of a model's network, as calibration records name it."""
    return str(next(model.network.parameters()).dtype).removeprefix("torch.")


def made_with(settings: Settings, model: Model | None) -> dict[str, str | int | float]:
    """What the quality of a fill depends on; seed and number of draws are no part of it."""
    kept: dict[str, str | int | float] = {"method": settings.method}
    if model is not None:
        kept |= {"fills": digest(model)}
    if settings.method in ("auto", "diffusion"):
        kept |= {"temperature": settings.temperature}
        if settings.temperature > 0.0:
            kept |= {"steps": settings.steps}
    if settings.method == "auto":
        kept |= {"waveform_db": routing.WAVEFORM_DB, "margin_db": routing.MARGIN_DB}
    return kept


def promises(settings: Settings, bounds: Model | None = None, folder: Path | None = None) -> Promises:
    """What can be promised at the level, in the domain and by the guarantee that the settings ask for.

    Raises
    ------
    CalibrationError
        There is no such calibration; says which there are.
    """
    root = folder or shipped_folder("calibrations")
    records = [load_yaml(path, Calibration) for path in sorted(root.glob("*.yaml"))] if root else []
    of_domain = [record for record in records if record.domain == settings.domain]
    wanted = (settings.level, settings.guarantee)
    interval = next((record for record in of_domain if (record.level, record.kind) == wanted), None)
    if interval is None:
        known = ", ".join(sorted({f"{record.level:g} by {record.kind}" for record in of_domain})) or "none"
        raise CalibrationError(
            f"There is no calibration of {settings.domain} for the level {settings.level or 0:g} by "
            f"{settings.guarantee}. Calibrated levels: {known}."
        )
    qualities = tuple(r for r in records if r.domain == QUALITY and r.level == settings.level)
    loaded = bounds or looks.bounds_model()
    return Promises(interval.level, loaded, interval, qualities, digest(loaded))
