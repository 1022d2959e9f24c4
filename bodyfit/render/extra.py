"""torch, or the error that says how to get it: `from bodyfit.render.extra import torch`."""

from __future__ import annotations

from bodyfit.errors import MissingExtraError

try:
    import torch
    from torch import Tensor
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingExtraError("torch", "render", "the differentiable renderer") from None

__all__ = ["Tensor", "torch"]
