"""`sfumato conffusion split | extract | finetune | test`: the steps of Conffusion-Audio, for its users."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfumato.cli.command import Debug
from sfumato.screen import progress_bar, say, show, table_of

if TYPE_CHECKING:
    from sfumato.pipeline.excerpts import Recordings
    from sfumato.pipeline.finetune import Lesson
    from sfumato.pipeline.seed_config import SeedConfig

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="one of the project's JSON files; default: its own values")
]
Data = Annotated[Path | None, typer.Option(help="MAESTRO's folder, with the list of `split`; before what CONFIG says")]
GapLength = Annotated[
    list[float] | None, typer.Option("--gap-length", help="ms; may be repeated; default: what CONFIG says")
]
Seed = Annotated[int | None, typer.Option(min=0, help="default: what CONFIG says, or 0")]


def split(
    root: Annotated[Path, typer.Argument(metavar="FOLDER", help="MAESTRO v3, as it was unpacked", show_default=False)],
    calibration_year: Annotated[
        list[str] | None, typer.Option(help="year that is calibrated on; may be repeated; default: the project's six")
    ] = None,
    debug: Debug = False,
) -> None:
    """List which recording belongs to which part, in FOLDER/manifest.jsonl; nothing is moved."""
    from sfumato.data.manifest import minutes
    from sfumato.pipeline.split import CALIBRATION_YEARS, LIST
    from sfumato.pipeline.split import split as splitting

    with progress_bar() as progress:
        rows = splitting(root, calibration_year or CALIBRATION_YEARS, progress)
    table = table_of("part", "recordings", "hours")
    for part, (count, total) in minutes(rows)["maestro"].items():
        table.add_row(part, str(count), f"{total / 60:.1f}")
    show(table)
    say(f"{root / LIST}: {len(rows)} recordings")


def extract(
    config: Config = None,
    part: Annotated[
        Literal["train", "validation", "calibration", "test"], typer.Option("--part", "-p", help="which part")
    ] = "calibration",
    data: Data = None,
    gap_length: GapLength = None,
    draws: Annotated[
        int, typer.Option("--draws", "--n_soch_samples", min=0, max=4096, help="draws of each gap; 0: no bounds")
    ] = 50,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="steps of a draw of the shipped inpainter")] = 10,
    model: Annotated[str | None, typer.Option(help="folder of the model that draws; before path.resume_state")] = None,
    seed: Seed = None,
    worker: Annotated[
        int, typer.Option("--worker", "--distributed_worker_id", min=0, help="this one takes the worker-th data_len")
    ] = 0,
    debug: Debug = False,
) -> None:
    """Fill each excerpt's gap many times and keep quantiles of the draws; goes on where it was stopped."""
    from sfumato.pipeline.excerpts import locate
    from sfumato.pipeline.extract import Sampling, model_of
    from sfumato.pipeline.extract import extract as extracting
    from sfumato.systems import cqtdiff

    asked = _read(config)
    recordings = locate(asked, part, data, worker)
    loaded = model_of(model or asked.path.resume_state)
    if draws and isinstance(loaded.config, cqtdiff.Config):
        count = len(recordings.rows) * max(len(gap_length or ()), 1) * draws
        say(f"{loaded.name}: {count} draws, each most of an hour on two cores. It can be stopped at any time.")
    sampling = Sampling(loaded, draws, steps, _seed(asked, seed))
    with progress_bar() as progress:
        counts = extracting(recordings, gap_length or [recordings.gap_ms], sampling, progress)
    say(f"{recordings.bounds}: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count))


def finetune(
    config: Config = None,
    target: Annotated[
        Literal["pinball", "sampled", "quantile_regression", "l2"] | None,
        typer.Option("--target", "--finetune_loss", help="pinball (N-Conffusion), or the sampled bounds (DM_SBA)"),
    ] = None,
    part: Annotated[Literal["train", "validation"], typer.Option("--part", "-p", help="part to teach")] = "train",
    data: Data = None,
    gap_length: GapLength = None,
    start_from: Annotated[str, typer.Option(help="inpainter whose weights to start from")] = "conffusion",
    out: Annotated[Path | None, typer.Option(help="folder of the training; default: path.base_dir/name")] = None,
    seed: Seed = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="key=value of the training, such as steps=500; may be repeated")
    ] = None,
    debug: Debug = False,
) -> None:
    """Teach the network that gives bounds in one pass; an interrupted training goes on where it stopped."""
    from sfumato.pipeline.excerpts import locate
    from sfumato.pipeline.finetune import TARGETS, Lesson, settings_of
    from sfumato.pipeline.finetune import finetune as teaching

    asked = _read(config)
    wanted = TARGETS[target or asked.train.finetune_loss]
    train, validation = locate(asked, part, data), locate(asked, "validation", data)
    lesson = Lesson(wanted, tuple(gap_length or [train.gap_ms]), start_from)
    settings = settings_of(asked, start_from, _seed(asked, seed), assignments or [])
    folder = out or Path(asked.path.base_dir) / asked.name
    _tell_missing([train], lesson.gaps_ms)
    fitted = teaching(train, validation, lesson, settings, folder, _recorded(lesson, part, assignments or []))
    say(f"Step {fitted.step}, stopped by {fitted.stopped_by}. Model: {fitted.model}")


def test(
    config: Config = None,
    data: Data = None,
    gap_length: GapLength = None,
    bounds: Annotated[
        str | None, typer.Option(help="the fine-tuned model; before path.bounds_resume_state; default: the shipped one")
    ] = None,
    level: Annotated[float, typer.Option(min=0.01, max=0.999, help="share of cells that the bounds promise")] = 0.9,
    delta: Annotated[float, typer.Option(min=0.001, max=0.999, help="chance that a calibration fails")] = 0.1,
    seed: Seed = None,
    to: Annotated[Path | None, typer.Option(help="folder for the calibrations")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    debug: Debug = False,
) -> None:
    """Calibrate the bounds on one part and see on another whether they hold."""
    from sfumato.model import find, load
    from sfumato.pipeline import assess
    from sfumato.pipeline.excerpts import locate
    from sfumato.pipeline.finetune import taught_on

    asked = _read(config)
    name = bounds or asked.path.bounds_resume_state or "n_conffusion"
    model, taught = load(name), taught_on(find(name))
    parts = locate(asked, "calibration", data), locate(asked, "test", data)
    promise, trials = assess.Promise(level, delta), []
    drawn = _seed(asked, seed)
    for gap_ms in gap_length or [parts[0].gap_ms]:
        _tell_missing(parts, [gap_ms])
        with progress_bar() as progress:
            known, unseen = (assess.measure(part, gap_ms, model, progress, drawn) for part in parts)
        found, record = assess.assess(known, unseen, gap_ms, model, promise, drawn, taught)
        trials += found
        if to is not None:
            assess.write_record(record, gap_ms, to)
    if as_json:
        say(json.dumps([asdict(trial) for trial in trials], indent=2))
        return
    table = table_of("gap", "bounds", "counted", "clips", "cells inside", "clips that hold", "width", "narrow to wide")
    for trial in trials:
        table.add_row(
            f"{trial.gap_ms:g} ms",
            trial.bounds,
            trial.rule,
            f"{trial.n_calibration} + {trial.n_test}",
            f"{trial.covered:.1%} ({trial.covered_low:.0%}–{trial.covered_high:.0%})",
            f"{trial.held} ({trial.held_low:.0%}–{trial.held_high:.0%})",
            f"{trial.width_db:.1f} dB",
            " ".join(f"{stratum.coverage:.0%}" for stratum in trial.strata),
        )
    show(table)


def _read(path: Path | None) -> SeedConfig:
    """The configuration; keys without a meaning are named on standard error."""
    from sfumato.pipeline.seed_config import SeedConfig, read, unused

    if path is None:
        return SeedConfig()
    config = read(path)
    if idle := unused(config):
        sys.stderr.write(f"{path}: no meaning here (docs/conffusion.md): {', '.join(idle)}\n")
    return config


def _tell_missing(parts: Sequence[Recordings], gaps_ms: Sequence[float]) -> None:
    """Say on standard error how many recordings have no excerpt, where some have."""
    for part in parts:
        for gap_ms in gaps_ms:
            made, wanted = len(part.made(gap_ms)), len(part.rows)
            if 0 < made < wanted:
                sys.stderr.write(
                    f"{part.part}, {gap_ms:g} ms: {wanted - made} of {wanted} recordings have no excerpt in "
                    f"{part.bounds} (too short, too quiet, or not extracted yet)\n"
                )


def _recorded(lesson: Lesson, part: str, changes: Sequence[str]) -> str:
    """The command for the model's card, without folders: where they lie says nothing to others."""
    words = ["sfumato", "conffusion", "finetune", "--data", "DIR", "--part", part, "--target", lesson.target]
    words += [word for gap_ms in lesson.gaps_ms for word in ("--gap-length", f"{gap_ms:g}")]
    words += ["--start-from", Path(lesson.start_from).name]
    return shlex.join([*words, *(word for change in changes for word in ("--set", change))])


def _seed(config: SeedConfig, given: int | None) -> int:
    return max(config.seed, 0) if given is None else given
