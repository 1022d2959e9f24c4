"""What a request asks for, as the library's own keyword arguments."""

from __future__ import annotations

from typing import Any

from bodyfit.errors import InputError
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.models import check_name

SEXES = {pb.SEX_UNSPECIFIED: "neutral", pb.SEX_FEMALE: "female", pb.SEX_MALE: "male", pb.SEX_NEUTRAL: "neutral"}
CLOTHING = {
    pb.CLOTHING_UNSPECIFIED: "auto",
    pb.CLOTHING_AUTO: "auto",
    pb.CLOTHING_TIGHT: "tight",
    pb.CLOTHING_CASUAL: "casual",
    pb.CLOTHING_LOOSE: "loose",
}
MOST_PEOPLE = 64


def _chosen(field: str, names: dict[Any, str], value: int) -> str:
    if value not in names:
        raise InputError(field, f"one of {', '.join(dict.fromkeys(names.values()))}", f"the unknown number {value}")
    return names[value]


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
        "sex": _chosen("options.sex", SEXES, options.sex),
        "clothing": _chosen("options.clothing", CLOTHING, options.clothing),
        "person": _person("options.person", options.person),
        "refine_extrinsics": options.refine_extrinsics,
    }


def track_arguments(start: pb.TrackStart) -> dict[str, Any]:
    """Keyword arguments of `Tracker`, all but model and gravity.

    Raises:
        InputError: an option that does not exist.
    """
    return {
        "sex": _chosen("start.sex", SEXES, start.sex),
        "clothing": _chosen("start.clothing", CLOTHING, start.clothing),
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
