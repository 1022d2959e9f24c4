"""What a request asks for, as the library's own keyword arguments."""

from __future__ import annotations

from typing import Any

from bodyfit.errors import InputError
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.enums import CLOTHING, SEXES
from bodyfit_service.models import check_name

MOST_PEOPLE = 64


def _person(field: str, number: int) -> int | None:
    if number > MOST_PEOPLE:
        raise InputError(field, f"1 to {MOST_PEOPLE}, or 0 where there is one", str(number))
    return number or None


def fit_arguments(options: pb.FitOptions) -> dict[str, Any]:
    """Keyword arguments of `bodyfit.fit`, all but model.

    Raises:
        InputError: an option that does not exist.
    """
    return {
        "sex": SEXES.name("options.sex", options.sex),
        "clothing": CLOTHING.name("options.clothing", options.clothing),
        "person": _person("options.person", options.person),
        "refine_extrinsics": options.refine_extrinsics,
    }


def track_arguments(start: pb.TrackStart) -> dict[str, Any]:
    """Keyword arguments of `Tracker`, all but model and gravity.

    Raises:
        InputError: an option that does not exist.
    """
    return {
        "sex": SEXES.name("start.sex", start.sex),
        "clothing": CLOTHING.name("start.clothing", start.clothing),
        "person": _person("start.person", start.person),
    }


def check_outputs(outputs: pb.FitOutputs) -> None:
    """Refuses a mesh format that does not exist.

    Raises:
        InputError: with the field's name.
    """
    if outputs.mesh not in pb.MeshFormat.values():
        raise InputError("outputs.mesh", "PLY, GLB or none", f"the unknown number {outputs.mesh}")


def check_options(options: pb.FitOptions, outputs: pb.FitOutputs) -> None:
    """Refuses options that do not exist.

    Raises:
        InputError: with the field's name.
    """
    check_name(options.model, "options.model")
    fit_arguments(options)
    check_outputs(outputs)
