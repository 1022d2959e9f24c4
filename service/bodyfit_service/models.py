"""Body models by their names. A request's name is looked up among those that are there, and never opened as a path."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bodyfit.body.files import ModelEntry
    from bodyfit.body.model import BodyModel


def usable_models() -> list[ModelEntry]:
    """The bodies that can be fitted: shipped ones first."""
    from bodyfit.body.files import list_models

    return [entry for entry in list_models() if entry.problem is None]


def default_name(configured: str) -> str:
    """What an empty name means."""
    from bodyfit.body.model import DEFAULT_MODEL

    return configured or DEFAULT_MODEL


def check_name(name: str, field: str) -> None:
    """Refuses a name that no model has.

    Raises:
        InputError: no such model; the message lists those there are.
    """
    from bodyfit.errors import InputError

    if not name:
        return
    names = [entry.name for entry in usable_models()]
    if name not in names:
        raise InputError(field, f"one of {', '.join(names)}", repr(name)[:80])


def named_model(name: str) -> BodyModel:
    """The model of that name.

    Raises:
        InputError: no such model.
        ModelFileError: its file is broken.
    """
    from bodyfit.body.model import load_body_model

    check_name(name, "options.model")
    return load_body_model(next(entry.path for entry in usable_models() if entry.name == name))
