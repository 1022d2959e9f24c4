"""The fit. `bodyfit.fit` is this package and, called, the function of that name: `bodyfit.fit(recording)`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Fit(ModuleType):
    """The import system binds `bodyfit.fit` to this package as soon as anything in it was used; it stays callable."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from bodyfit.fit.fit import fit

        return fit(*args, **kwargs)


sys.modules[__name__].__class__ = _Fit
