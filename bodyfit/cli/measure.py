"""`bodyfit measure`: the measurements of a fit that was saved, computed anew from its shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bodyfit.cli.fit import JsonOption
from bodyfit.errors import InputError, ModelFileError

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.export.result_npz import SavedFit


def measure_command(
    fit: Annotated[Path, typer.Argument(metavar="FIT", help="A folder written by bodyfit fit, or its fit.npz.")],
    model: Annotated[
        str | None, typer.Option("--model", metavar="M", help="The fit's body model, where it is not installed.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compute and show the measurements of a fit again, from its shape and the shape's covariance."""
    from bodyfit.body.measure import measure_with_sd
    from bodyfit.body.measure_definitions import model_errors
    from bodyfit.cli.screen import print_json, print_lines, print_measurements
    from bodyfit.export.result_npz import read_fit_npz
    from bodyfit.export.tables import measurement_records

    saved = read_fit_npz(fit)
    body = body_of(saved, model)
    measured = measure_with_sd(
        body,
        saved.betas,
        saved.betas_cov,
        saved.quality.get("coverage"),
        model_error=model_errors(saved.clothing),
    )
    # what was seen is the fit's to say: it knew from which sides the trunk was looked at
    seen = {name: record["seen"] for name, record in saved.measurements.items()}
    measurements = {name: replace(m, seen=seen.get(name, m.seen)) for name, m in measured.items()}
    if as_json:
        provenance = {**saved.provenance, "fit": saved.path.name}
        records = measurement_records(measurements)
        print_json({"measurements": records, "quality": saved.quality, "provenance": provenance})
        return
    print_measurements(measurements)
    if not saved.converged:
        print_lines(
            "", f"NOT TO BE BELIEVED: the fit ended with “{saved.quality.get('stop_message', saved.stop_reason)}”"
        )


def body_of(saved: SavedFit, model: str | None) -> BodyModel:
    """The body model that a saved fit belongs to, by its hash.

    Raises:
        ModelFileError: no model of that name, or none with that hash.
    """
    from bodyfit.body.files import list_models
    from bodyfit.body.model import load_body_model

    if model is not None:
        body = load_body_model(model)
        if body.sha256 == saved.model_sha256:
            return body
        raise _other(f"--model {model}", saved, body.sha256)
    named = [e.path for e in list_models() if e.problem is None]
    named.sort(key=lambda path: path.stem != saved.model_name)
    for path in named:
        body = load_body_model(path)
        if body.sha256 == saved.model_sha256:
            return body
    hint = "name its file with --model"
    raise ModelFileError(
        f"body model {saved.model_name}", f"a model with sha256 {saved.model_sha256[:12]}…", "none installed", hint
    )


def _other(field: str, saved: SavedFit, sha256: str) -> InputError:
    expected = f"the model of the fit, {saved.model_name} with sha256 {saved.model_sha256[:12]}…"
    return ModelFileError(field, expected, f"sha256 {sha256[:12]}…", "the same betas would be another body")
