"""`bodyfit evaluate`: fits recordings whose truth is known and says how far off they are."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bodyfit.cli.fit import (
    NOT_BELIEVED,
    Clothing,
    ClothingOption,
    FitRequest,
    FramesOption,
    JsonOption,
    ModelOption,
    Sex,
    SexOption,
    parse_frames,
    run_fit,
    write_result,
)
from bodyfit.errors import BodyfitError, InputError

if TYPE_CHECKING:
    from bodyfit.bench.evaluate import Score
    from bodyfit.bench.girth_rules import GirthRules
    from bodyfit.fit.result import FitResult

COLUMNS = (
    ("recording", "name"), ("s", "seconds"), ("surface", "surface_mm"), ("cloth", "cloth_mm"), ("joints", "joints_mm"),
    ("rest", "rest_mm"), ("guess", "guess_rest_mm"), ("girths", "girth_mm"), ("guess", "guess_girth_mm"),
    ("stature", "stature_mm"), ("", "flags"),
)  # fmt: skip


def evaluate_command(
    recordings: Annotated[list[Path], typer.Argument(metavar="RECORDING...", help="Recordings with truth/ in them.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="OUT", help="Keep each fit in a folder of OUT.")
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where landmarks.npz is, for girths; else ../score beside the recordings."),
    ] = None,
    model: ModelOption = None,
    sex: SexOption = Sex.neutral,
    clothing: ClothingOption = Clothing.auto,
    frames: FramesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit recordings whose truth is known and score the fits, in millimetres.

    The fit never reads truth/. surface: median distance from the true skin to the fit where a sensor saw it; cloth:
    how far clothes stand off on average; rest: vertex error of the unposed body; guess: what guessing the average
    adult of the true stature scores. A recording that cannot be fitted is named, the others are scored, and the exit
    code is 4, as it is where a fit is not to be believed.
    """
    from bodyfit.bench.evaluate import evaluate_recording, load_truth, medians
    from bodyfit.bench.girth_rules import load_girth_rules
    from bodyfit.body.model import load_body_model
    from bodyfit.cli.screen import print_json
    from bodyfit.export.folder import check_out_folder

    wanted = parse_frames(frames)
    for recording in recordings:
        load_truth(recording)
    names = [r.resolve().name for r in recordings]
    if out is not None:
        if len(set(names)) != len(names):
            raise InputError("RECORDING", "folders of different names, to keep their fits apart", ", ".join(names))
        for name in names:
            check_out_folder(out / name)
    found = _find_rules(recordings, rules)
    girths = load_girth_rules(found) if found else None
    body = load_body_model(model)

    def fit(path: Path) -> FitResult:
        request = FitRequest(path, model=body, sex=sex.value, clothing=clothing.value, frames=wanted)
        return run_fit(request, quiet=as_json)

    scores, failed = [], {}
    for recording, name in zip(recordings, names, strict=True):
        if not as_json and sys.stderr.isatty():
            sys.stderr.write(f"{len(scores) + len(failed) + 1} of {len(recordings)}: {name}\n")
        try:
            score, result = evaluate_recording(recording, fit, girths)
            if out is not None:
                write_result(result, out / name, force=False)
            scores.append(score)
        except BodyfitError as e:
            failed[name] = str(e)
    middle = medians(scores)
    if as_json:
        rows = [asdict(score) for score in scores]
        print_json({"recordings": rows, "medians": middle, "failed": failed, "girth_rules": girths is not None})
    else:
        _show(scores, middle, failed, girths)
    if failed or not all(score.converged for score in scores):
        raise typer.Exit(NOT_BELIEVED)


def _find_rules(recordings: list[Path], rules: Path | None) -> Path | None:
    """The folder of the girth rules: as asked for, or `score` beside the folder that holds the recordings."""
    from bodyfit.bench.girth_rules import FILE_NAME

    if rules is not None:
        return rules
    beside = [r.resolve().parent.parent / "score" for r in recordings]
    return next((folder for folder in beside if (folder / FILE_NAME).is_file()), None)


def _show(scores: list[Score], middle: dict[str, float], failed: dict[str, str], girths: GirthRules | None) -> None:
    from bodyfit.cli.screen import print_lines, print_table

    def cell(row: dict[str, Any], key: str) -> str:
        value = row.get(key)
        if key == "flags":
            note = [] if row.get("converged", True) else ["NOT BELIEVED"]
            return ", ".join([*note, *([f"{len(value)} flags"] if value else [])])
        return "" if value is None else value if isinstance(value, str) else f"{value:.1f}"

    rows = [[cell(asdict(score), key) for _, key in COLUMNS] for score in scores]
    if len(scores) > 1:
        rows.append([cell({"name": "median", **middle}, key) for _, key in COLUMNS])
    sides = ["left", *["right"] * (len(COLUMNS) - 2), "left"]
    print_table([(heading, side) for (heading, _), side in zip(COLUMNS, sides, strict=True)], rows)
    print_lines("errors in mm")
    if girths is None and any(score.rest_mm is not None and score.girth_mm is None for score in scores):
        print_lines("no girths: landmarks.npz was not found; say where it is with --rules")
    print_lines(*(f"{name}: FAILED: {why}" for name, why in failed.items()))
