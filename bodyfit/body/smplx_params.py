"""Parameters of imported SMPL-family bodies under the names that the `smplx` package gives them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.errors import InputError

_HAND_JOINTS = 15
# smplx's keyword -> first joint and number of joints
_POSES: dict[str, dict[str, tuple[int, int]]] = {
    "smpl": {"global_orient": (0, 1), "body_pose": (1, 23)},
    "smplh": {"global_orient": (0, 1), "body_pose": (1, 21), "left_hand_pose": (22, 15), "right_hand_pose": (37, 15)},
    "smplx": {
        "global_orient": (0, 1), "body_pose": (1, 21), "jaw_pose": (22, 1), "leye_pose": (23, 1), "reye_pose": (24, 1),
        "left_hand_pose": (25, 15), "right_hand_pose": (40, 15),
    },
}  # fmt: skip


def to_smplx_params(
    model: BodyModel,
    betas: NDArray[Any],
    poses: NDArray[Any],
    transl: NDArray[Any],
    expression: NDArray[Any] | None = None,
) -> dict[str, NDArray[Any]]:
    """A fit's parameters as keyword arguments of `smplx`'s SMPL, SMPLH or SMPLX for the same official file.

    The rotations are whole ones, hands included: make the smplx model with `num_betas=model.num_betas,
    batch_size=T, use_pca=False, flat_hand_mean=True` (the last two for SMPL-H and SMPL-X).

    Args:
        betas: (S,) or (T, S).
        poses: (T, J, 3) axis-angle, radians.
        transl: (T, 3) metres.
        expression: (E,) or (T, E), SMPL-X only.

    Returns:
        float32 arrays of T rows: betas, global_orient, body_pose, transl and what the family has besides.

    Raises:
        InputError: the model was not imported from an official file, so that its betas would be another person there;
            or a shape does not fit the model.
    """
    family = model.meta.get("family")
    if family not in _POSES:
        hint = "fit with a body made by: bodyfit models import FILE"
        raise InputError(f"model {model.name}", "an imported SMPL, SMPL-H or SMPL-X body", "another kind", hint)
    poses, transl = np.asarray(poses, dtype=np.float64), np.asarray(transl, dtype=np.float64)
    T = len(poses) if poses.ndim == 3 else 0
    if poses.shape != (T, model.num_joints, 3) or T == 0:
        raise InputError("poses", f"shape (T, {model.num_joints}, 3)", str(poses.shape))
    if transl.shape != (T, 3):
        raise InputError("transl", f"shape ({T}, 3)", str(transl.shape))
    params = {"betas": _rows(betas, T, model.num_betas, "betas"), "transl": transl}
    for keyword, (first, count) in _POSES[family].items():
        params[keyword] = poses[:, first : first + count].reshape(T, 3 * count)
    if family == "smplx":
        E = _exprdirs(model).shape[2]
        params["expression"] = _rows(np.zeros(E) if expression is None else expression, T, E, "expression")
    elif expression is not None:
        raise InputError("expression", "none for a body without expressions", f"shape {np.shape(expression)}")
    return {k: np.ascontiguousarray(a, dtype=np.float32) for k, a in params.items()}


def with_expression(model: BodyModel, expression: NDArray[Any]) -> BodyModel:
    """The SMPL-X body whose template wears an expression (E,); its joints follow, as in smplx.

    Raises:
        InputError: the model has no expressions, or not so many.
    """
    exprdirs = _exprdirs(model)
    weights = _rows(expression, 1, exprdirs.shape[2], "expression")[0]
    template = model.v_template + np.tensordot(exprdirs, weights.astype(np.float32), 1)
    return dataclasses.replace(model, v_template=template.astype(np.float32))


def hand_poses(
    model: BodyModel, left: NDArray[Any], right: NDArray[Any], *, flat_hand_mean: bool = False
) -> NDArray[np.float64]:
    """(30, 3) axis-angle of the finger joints, left hand first, from smplx's hand parameters.

    Args:
        left, right: (C,) coefficients of the first C principal components, or (45,) axis-angle where C is 45 and
            the model has no components.
        flat_hand_mean: leave the model's mean hand out, as smplx's option of that name.

    Raises:
        InputError: the model has no fingers, or no such components.
    """
    if model.meta.get("family") not in ("smplh", "smplx"):
        raise InputError(f"model {model.name}", "an imported SMPL-H or SMPL-X body", "one without fingers")
    whole = []
    for side, value in (("l", left), ("r", right)):
        value = np.asarray(value, dtype=np.float64)
        components = model.extras.get(f"hands_components{side}", np.eye(3 * _HAND_JOINTS)).astype(np.float64)
        if value.ndim != 1 or not 0 < len(value) <= len(components):
            raise InputError("hand pose", f"1 to {len(components)} coefficients", f"shape {value.shape}")
        pose = value @ components[: len(value)]
        mean = model.extras.get(f"hands_mean{side}")
        whole.append(pose if flat_hand_mean or mean is None else pose + mean)
    return np.concatenate(whole).reshape(2 * _HAND_JOINTS, 3)


def _exprdirs(model: BodyModel) -> NDArray[np.float32]:
    if "exprdirs" not in model.extras:
        raise InputError(f"model {model.name}", "a body with expressions (SMPL-X)", "one without")
    return model.extras["exprdirs"]


def _rows(values: NDArray[Any], T: int, n: int, field: str) -> NDArray[np.float64]:
    """(T, n) of (n,) or (T, n)."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape not in ((n,), (T, n)):
        raise InputError(field, f"shape ({n},) or ({T}, {n})", str(array.shape))
    return np.broadcast_to(array, (T, n))
