"""The GPU's kernels compiled for the CPU: the same functions, one thread that does all items, at real sizes.

numba's simulator runs a kernel in Python, some hundred thousand times slower than a GPU: good for the smallest body. A
kernel that strides over its items is also a plain loop, if asked as the only thread; that is compiled here, with what
it needs of `numba.cuda` replaced by what means the same in one thread.
"""

from __future__ import annotations

import types as python_types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit

from bodyfit.fit.cuda_tensors import HostTensors
from bodyfit.kernels.cuda_jit import Kernel


@njit(inline="always")
def _grid(_dimensions):
    return 0


@njit(inline="always")
def _gridsize(_dimensions):
    return 1


@njit(inline="always")
def _array(shape, kind):
    return np.empty(shape, kind)


@njit
def _max(array, place, value):
    old = array[place]
    if value > old:
        array[place] = value
    return old


@njit
def _float_as_int(number):
    return np.float32(number).view(np.int32)


@njit
def _int_as_float(bits):
    return np.int32(bits).view(np.float32)


def _module(name: str, **members: Any) -> Any:
    module: Any = python_types.ModuleType(name)
    module.__dict__.update(members)
    return module


_cuda = _module(
    "one_thread",
    grid=_grid,
    gridsize=_gridsize,
    local=_module("local", array=_array),
    atomic=_module("atomic", max=_max),
)
_COMPILED: dict[str, Callable[..., None]] = {}


def compiled(kernel: Kernel) -> Callable[..., None]:
    """The kernel as one compiled loop over all of its items."""
    if kernel.name not in _COMPILED:
        function = kernel.function
        names = {"cuda": _cuda, "float_as_int": _float_as_int, "int_as_float": _int_as_float}
        known = {**function.__globals__, **{n: v for n, v in names.items() if n in function.__globals__}}
        plain = python_types.FunctionType(function.__code__, known, function.__name__)
        _COMPILED[kernel.name] = njit(plain)
    return _COMPILED[kernel.name]


class CompiledTensors(HostTensors):
    """In the host's memory, with the kernels compiled."""

    def launch(self, kernel: Kernel, items: int, *arguments: Any) -> None:
        """Runs it in this thread."""
        del items
        compiled(kernel)(*(a.numpy() if isinstance(a, torch.Tensor) else a for a in arguments))
