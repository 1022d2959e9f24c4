"""Body measurements as a tape takes them, on the body in a neutral standing pose, with standard deviations.

Definitions are in `measure_definitions.py`. The pose is fixed, so posed points are an affine function of betas:
standard deviations come from differences along that function's columns, without posing a body for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.measure_definitions import DEFINITIONS, MODEL_ERROR_M
from bodyfit.body.model import BodyModel
from bodyfit.body.standing import standing
from bodyfit.body.tape import Lines, Tape
from bodyfit.errors import InputError
from bodyfit.watch import checkpoint

_STEP = 0.05  # of one standard deviation of betas: far above rounding, far below where girths bend

_TOGETHER = 16
"""bodies that are measured at once: calling numpy costs little then, and they stay in a core's cache"""

_JUMP_M = 0.02  # per standard deviation of a beta: slopes to both sides that differ by more than this hide a jump


@dataclass(frozen=True)
class Measurement:
    """One measured value and how far to trust it.

    Attributes:
        name: a key of `DEFINITIONS`.
        value_m: the value, in `unit`.
        sd_m: one standard deviation, in `unit`.
        seen: whether the sensor saw the body parts that the value is about.
        definition: the definition in one line.
        unit: "m", "m3" or "kg".
    """

    name: str
    value_m: float
    sd_m: float
    seen: bool
    definition: str
    unit: str = "m"


def measure(model: BodyModel, betas: NDArray[Any]) -> dict[str, float]:
    """Every measurement of the body with these betas (S,), by name: metres, cubic metres (volume), kilograms (mass)."""
    return measure_vertices(model, *model.forward(betas, standing(model).pose))


def measure_vertices(
    model: BodyModel, vertices: NDArray[Any], joints: NDArray[Any] | None = None, *, lines: Lines | None = None
) -> dict[str, float]:
    """Every measurement of a body that stands already.

    Args:
        model: tells which vertices are which.
        vertices: (V, 3) metres in the neutral standing pose (`stand`), y up, z to the front.
        joints: (J, 3) metres in that pose; by the model's regressor where not given, which is less exact once posed.
        lines: where given, filled with what was measured: name to polylines (K, 3).

    Raises:
        InputError: the arrays have not the model's shape or are not finite.
    """
    v = _checked("vertices", vertices, (model.num_vertices, 3))
    j = model.J_regressor @ v if joints is None else _checked("joints", joints, (model.num_joints, 3))
    points = np.ascontiguousarray(np.concatenate([v, j]), np.float64)
    taken = Tape(standing(model), points[None], model.faces, lines).take_all()
    return {name: float(taken[name][0]) for name in DEFINITIONS}


def stand(model: BodyModel, rest_vertices: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Stands up any unposed body of the model's topology, one outside its shape space included.

    rest_vertices (V, 3) metres in the zero pose; returns vertices (V, 3) and joints (J, 3) for `measure_vertices`.
    """
    from bodyfit.kernels import body as kernel
    from bodyfit.rotation import matrix_from_axis_angle

    rest = _checked("rest_vertices", rest_vertices, (model.num_vertices, 3))
    R = matrix_from_axis_angle(standing(model).pose)
    joints = model.J_regressor.astype(np.float64) @ rest
    if model.posedirs is not None:
        rest = rest + np.tensordot(model.posedirs, (R[1:] - np.eye(3)).reshape(-1).astype(np.float32), 1)
    G, posed = np.empty((model.num_joints, 3, 3)), np.empty((model.num_joints, 3))
    kernel.joint_motions(R, joints, model.parents, np.eye(3), np.zeros(3), np.zeros(3), G, posed)
    vertices = np.empty(rest.shape, np.float32)
    kernel.skin(rest.astype(np.float32), *model.sparse_weights, G, posed, joints, vertices)
    return vertices.astype(np.float64), posed


def measure_with_sd(
    model: BodyModel,
    betas: NDArray[Any],
    betas_cov: NDArray[Any],
    seen: Mapping[str, float] | None = None,
    model_error: Mapping[str, float] = MODEL_ERROR_M,
    *,
    sides: Mapping[str, float] | None = None,
) -> dict[str, Measurement]:
    """Every measurement with one standard deviation: sqrt(J cov Jᵀ + model_error²), J by differences.

    Args:
        model: the body model.
        betas: (S,).
        betas_cov: (S, S), the fit's covariance of betas.
        seen: body part to whether, how often or to what share it was seen (above 0 counts); None: everything was.
        model_error: standard deviation, by name, of what the covariance does not know; left out means none.
        sides: the trunk's "front" and "back" to the share that was seen; girths of the trunk need both.

    Raises:
        InputError: betas or betas_cov have not the model's shape or are not finite.
    """
    S = model.num_betas
    b = _checked("betas", betas, (S,))
    cov = _checked("betas_cov", betas_cov, (S, S))
    values, J = _values_and_slopes(model, b)
    variance = np.einsum("ms,st,mt->m", J, cov, J)
    out = {}
    for name, value, var in zip(DEFINITIONS, values.tolist(), variance, strict=True):
        d = DEFINITIONS[name]
        sd = float(np.sqrt(max(var, 0.0) + model_error.get(name, 0.0) ** 2)) if np.isfinite(var) else float("nan")
        out[name] = Measurement(name, value, sd, d.was_seen(seen, sides), d.text, d.unit)
    return out


def measurement_jacobian(model: BodyModel, betas: NDArray[Any]) -> NDArray[np.float64]:
    """(M, S) change of each measurement, in the order of `DEFINITIONS`, per unit of each beta, at betas (S,)."""
    return _values_and_slopes(model, betas)[1]


def _values_and_slopes(model: BodyModel, betas: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Every measurement (M,) at betas (S,), and its change (M, S) per unit of each."""
    prepared, basis = standing(model), standing_basis(model)
    points = np.concatenate(model.forward(betas, prepared.pose))

    def taken(betas: NDArray[np.int64], step: float) -> NDArray[np.float64]:
        """(M, n) of the bodies a step of each of these betas (n,) away."""
        out = np.empty((len(DEFINITIONS), len(betas)))
        for first in range(0, len(betas), _TOGETHER):
            checkpoint()
            some = slice(first, first + _TOGETHER)
            values = Tape(prepared, points + step * basis[betas[some]], model.faces).take_all()
            out[:, some] = [values[name] for name in DEFINITIONS]
        return out

    checkpoint()
    values = Tape(prepared, points[None], model.faces).take_all()
    here = np.array([values[name] for name in DEFINITIONS])
    metres = np.array([d.unit == "m" for d in DEFINITIONS.values()])
    # where no slope is as steep as a jump, measurements are straight to so short a step: one side tells all
    J = (taken(np.arange(model.num_betas), _STEP) - here) / _STEP
    steep = np.flatnonzero(~(np.abs(J[metres]).max(0) <= _JUMP_M))
    if len(steep):
        ahead, behind = J[:, steep], (here - taken(steep, -_STEP)) / _STEP
        # a level that slips over a fold (an armpit, a breast) makes a girth jump to one side: that is no slope
        calmer = np.where(np.abs(ahead) < np.abs(behind), ahead, behind)
        jumps = np.abs(ahead - behind) > _JUMP_M + 2 * np.abs(calmer)
        J[:, steep] = np.where(jumps, calmer, 0.5 * (ahead + behind))
    return here[:, 0], J


@lru_cache(maxsize=2)
def standing_basis(model: BodyModel) -> NDArray[np.float64]:
    """(S, V + J, 3) metres: how each beta moves the standing body's vertices and joints; kept for the last models."""
    pose, S = standing(model).pose, model.num_betas
    middle = np.concatenate(model.forward(np.zeros(S), pose))
    return np.stack([np.concatenate(model.forward(one, pose)) - middle for one in np.eye(S)])


def _checked(field: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float64]:
    a = np.asarray(array, dtype=np.float64)
    if a.shape != shape:
        raise InputError(field, f"shape {shape}", str(a.shape))
    if not np.isfinite(a).all():
        raise InputError(field, "finite numbers", f"{int((~np.isfinite(a)).sum())} that are not")
    return a
