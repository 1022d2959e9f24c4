"""How the kernels are compiled."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from typing import Any

import pytest
from numba.core.dispatcher import Dispatcher

import bodyfit.kernels

KERNELS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": kernel
    for module in (
        importlib.import_module(f"bodyfit.kernels.{info.name}")
        for info in pkgutil.iter_modules(bodyfit.kernels.__path__)
    )
    for name, kernel in vars(module).items()
    if isinstance(kernel, Dispatcher) and kernel.py_func.__module__ == module.__name__
}


def called_kernels(kernel: Any) -> set[str]:
    """Names of the kernels that a kernel calls."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kernel.py_func)))
    names = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return {n for n in names if isinstance(kernel.py_func.__globals__.get(n), Dispatcher)}


def test_there_are_kernels_that_call_kernels() -> None:
    assert {"surface_row", "add_products", "draw_faces"} <= called_kernels(KERNELS["evidence.linearize_view"])


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_a_kernel_has_no_call_that_the_linker_may_bind_to_another_copy(name: str) -> None:
    kernel = KERNELS[name]
    for callee in called_kernels(kernel):
        options = kernel.py_func.__globals__[callee].targetoptions
        assert options.get("forceinline") or options.get("inline") == "always", callee
