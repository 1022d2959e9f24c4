"""Whether two results are the same to the last bit, and where they are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from bodyfit.body.model import BodyModel


def difference(a: Any, b: Any, where: str = "it") -> str | None:
    """The first place in which two values differ in a bit, or None; a body model is told by its hash."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        same = np.shape(a) == np.shape(b) and a.dtype == b.dtype and a.tobytes() == b.tobytes()
        return None if same else f"{where}: {a!r:.200} and {b!r:.200}"
    if isinstance(a, BodyModel):
        return None if a.sha256 == b.sha256 else f"{where}: another body model"
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        if type(a) is not type(b):
            return f"{where}: {type(a)} and {type(b)}"
        pairs = [(f".{f.name}", getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a)]
    elif isinstance(a, Mapping):
        if not isinstance(b, Mapping) or list(a) != list(b):
            return f"{where}: {a!r:.200} and {b!r:.200}"
        pairs = [(f"[{key!r}]", a[key], b[key]) for key in a]
    elif isinstance(a, (tuple, list)):
        if type(a) is not type(b) or len(a) != len(b):
            return f"{where}: {a!r:.200} and {b!r:.200}"
        pairs = [(f"[{i}]", x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        both_nan = isinstance(a, float) and isinstance(b, float) and a != a and b != b
        return None if both_nan or a == b else f"{where}: {a!r} and {b!r}"
    return next((d for name, x, y in pairs if (d := difference(x, y, where + name))), None)
