"""The renderers by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bodyfit.errors import InputError

if TYPE_CHECKING:
    from bodyfit.render.rendered import Renderer

RENDERERS = ("native", "redner", "mitsuba")


def make_renderer(name: str) -> Renderer:
    """The renderer of that name, with its usual settings.

    Raises:
        InputError: there is none of that name.
        MissingExtraError: what it needs is not installed.
    """
    if name == "native":
        from bodyfit.render.render import NativeRenderer

        return NativeRenderer()
    if name == "redner":
        from bodyfit.render.redner import RednerRenderer

        return RednerRenderer()
    if name == "mitsuba":
        from bodyfit.render.mitsuba import MitsubaRenderer

        return MitsubaRenderer()
    raise InputError("renderer", f"one of {', '.join(RENDERERS)}", repr(name))
