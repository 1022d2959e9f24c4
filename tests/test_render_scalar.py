"""Every `_vjp` of the scalar kernels against central differences in float64."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numba import typeof

from bodyfit.kernels import scalar, scalar_shading

RNG = np.random.default_rng(7)


def unit(n: int = 1) -> list[float]:
    """n unit vectors in the half space z > 0.2, one after the other."""
    out: list[float] = []
    while len(out) < 3 * n:
        v = RNG.normal(size=3)
        v /= np.linalg.norm(v)
        if v[2] > 0.2:
            out += v.tolist()
    return out


def numbers(n: int, low: float = -1.0, high: float = 1.0) -> list[float]:
    """n numbers, evenly distributed."""
    return RNG.uniform(low, high, n).tolist()


def triangle() -> list[float]:
    """Six coordinates of a triangle with some area."""
    return (np.array([0.1, 0.2, 3.0, 0.4, 0.9, 2.5]) + np.array(numbers(6, -0.3, 0.3))).tolist()


def placed_triangle(low: float, high: float) -> list[float]:
    """Three screen points (u, v, q)."""
    flat = triangle()
    return [x for k in range(3) for x in (*flat[2 * k : 2 * k + 2], *numbers(1, low, high))]


# Arguments of each function.
CASES: dict[str, Any] = {
    "project": lambda: [*numbers(2), 1.5, 500.0, 480.0, 320.0, 240.0, True],
    "project orthographic": lambda: [*numbers(2), 1.5, 500.0, 480.0, 320.0, 240.0, False],
    "barycentrics": lambda: [1.2, 1.1, *triangle()],
    "surface_weights": lambda: [*numbers(3, 0.2, 0.6), *numbers(3, 0.3, 2.0), True],
    "surface_weights orthographic": lambda: [*numbers(3, 0.2, 0.6), *numbers(3, -2.0, -0.3), False],
    "blend": lambda: numbers(6),
    "surface_depth": lambda: [1.2, 1.1, *placed_triangle(0.3, 2.0), True],
    "surface_depth orthographic": lambda: [1.2, 1.1, *placed_triangle(-2.0, -0.3), False],
    "plane_sum": lambda: [*placed_triangle(0.3, 2.0), *numbers(3, -1.0, 2.0)],
    "unit": lambda: numbers(3, 0.3, 2.0),
    "area_normal": lambda: numbers(9),
    "diffuse_harmonics": lambda: unit(),
    "toward": lambda: [*numbers(3), *numbers(3, 1.5, 3.0)],
    "glossy_lobe": lambda: [*unit(3), 0.3],
    "glossy_lobe from the side": lambda: [0.0, 0.0, 1.0, 0.6, 0.0, 0.8, -0.8, 0.6, -0.1, 0.4],
    "bilinear": lambda: numbers(6, 0.1, 0.9),
}
# What a vjp leaves out, by position: places that stay, switches.
FIXED = {
    "project": (7,),
    "barycentrics": (0, 1),
    "surface_weights": (6,),
    "surface_depth": (0, 1, 11),
    "plane_sum": (9, 10, 11),
    "toward": (0, 1, 2),
}
CONSTANT_OUTPUTS = {"diffuse_harmonics": 1}


def module_of(name: str) -> ModuleType:
    return scalar if hasattr(scalar, name) else scalar_shading


def as_array(value: Any) -> np.ndarray:
    return np.array(value if isinstance(value, tuple) else (value,), dtype=np.float64)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("draw", range(5))
def test_vjp_is_the_derivative(case: str, draw: int) -> None:
    name = case.split()[0]
    function, vjp = getattr(module_of(name), name), getattr(module_of(name), name + "_vjp")
    arguments = [float(a) if not isinstance(a, bool) else a for a in CASES[case]()]
    if name == "surface_weights":  # the screen's weights need not sum to one for the derivative to hold
        arguments[2] = 1.0 - arguments[0] - arguments[1]
    out = as_array(function(*arguments))
    cotangents = RNG.normal(size=len(out) - CONSTANT_OUTPUTS.get(name, 0)).tolist()
    ours = as_array(vjp(*arguments, *cotangents))
    moving = [k for k in range(len(arguments)) if k not in FIXED.get(name, ())]
    assert len(ours) == len(moving)
    for gradient, k in zip(ours, moving, strict=True):
        step = 1e-6 * max(1.0, abs(arguments[k]))
        sides = []
        for sign in (1, -1):
            at = list(arguments)
            at[k] += sign * step
            sides.append(as_array(function(*at))[CONSTANT_OUTPUTS.get(name, 0) :])
        difference = float(np.dot(cotangents, (sides[0] - sides[1]) / (2 * step)))
        assert gradient == pytest.approx(difference, rel=2e-6, abs=2e-6), (case, k)


def test_every_vjp_is_tested() -> None:
    names = {n for m in (scalar, scalar_shading) for n in vars(m) if n.endswith("_vjp")}
    assert names == {case.split()[0] + "_vjp" for case in CASES}


@pytest.mark.parametrize(
    "name", sorted({n for m in (scalar, scalar_shading) for n in vars(m) if n + "_vjp" in vars(m)})
)
@pytest.mark.parametrize("ending", ["", "_vjp"])
def test_float32_stays_float32(name: str, ending: str) -> None:
    function = getattr(module_of(name), name + ending)
    parameters = list(inspect.signature(function.py_func).parameters)
    arguments = [True if p == "perspective" else np.float32(0.3 + 0.17 * k) for k, p in enumerate(parameters)]
    function(*arguments)
    compiled = function.overloads[tuple(typeof(a) for a in arguments)]
    assert "float32" in str(compiled.signature.return_type) and "float64" not in str(compiled.signature.return_type)


@pytest.mark.parametrize("size,repeat,place,expected", [
    (4, False, 0.5, (1, 2, 0.5)),
    (4, False, 0.0, (0, 0, 0.5)),
    (4, False, 1.2, (3, 3, 0.3)),
    (4, True, 0.0, (3, 0, 0.5)),
    (4, True, 1.375, (1, 2, 0.0)),
])  # fmt: skip
def test_texel(size: int, repeat: bool, place: float, expected: tuple[int, int, float]) -> None:
    first, second, share = scalar_shading.texel(place, size, repeat)
    assert (first, second) == expected[:2]
    assert share == pytest.approx(expected[2], abs=1e-6)


def test_harmonics_are_lamberts_of_a_uniform_sky() -> None:
    # radiance 1 from everywhere is the coefficient sqrt(4 pi) of Y00: a white surface sends 1 back, whatever its normal
    for _ in range(3):
        assert scalar_shading.diffuse_harmonics(*unit())[0] * np.sqrt(4 * np.pi) == pytest.approx(1.0, abs=1e-6)


def test_glossy_lobe_reflects_no_more_than_comes() -> None:
    # the integral over the half sphere of the lobe with F = 1 stays under 1, and comes near it for a smooth surface
    directions = np.linspace(0.0005, 0.9995, 1000)
    angles = np.linspace(0, 2 * np.pi, 121)[:-1]
    for roughness, least in ((0.3, 0.95), (0.8, 0.5)):
        eye = (0.6, 0.0, 0.8)
        total = 0.0
        for cosine in directions:
            sine = np.sqrt(1 - cosine**2)
            for angle in angles:
                lobe, _ = scalar_shading.glossy_lobe(
                    0.0, 0.0, 1.0, sine * np.cos(angle), sine * np.sin(angle), cosine, *eye, roughness**2
                )
                total += lobe
        total *= 2 * np.pi / (len(directions) * len(angles))
        assert least < total < 1.01, (roughness, total)
