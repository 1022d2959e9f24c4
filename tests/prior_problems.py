"""Problems of priors and keypoints alone, plausible and extreme: what a batch on a device is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.fit.collide import spheres_of
from bodyfit.fit.config import FitConfig
from bodyfit.fit.follow import Expected, Pose
from bodyfit.fit.hypotheses import ARMS, STANCES, stance_pose, with_arm
from bodyfit.fit.keypoints import JointTargets
from bodyfit.fit.learned_prior import learned_prior
from bodyfit.fit.mesh import mesh_for
from bodyfit.fit.pose_prior import pose_prior
from bodyfit.fit.problem import Problem, ShapeGaussian, State
from bodyfit.fit.view import View
from bodyfit.rotation import matrix_from_axis_angle

CONFIG = FitConfig()
S = 3
"""components of shape"""


def poses(model: BodyModel, count: int, seed: int, spread: float) -> NDArray[np.float64]:
    """(count, J, 3, 3): stances, varied; the root faces a sensor, half a turn away from rest."""
    rng = np.random.default_rng(seed)
    names = model.joint_names
    pose = np.stack([stance_pose(names, list(STANCES)[(seed + k) % len(STANCES)]) for k in range(count)])
    pose += rng.normal(0, spread, pose.shape)
    pose[:, 0] = np.array([0.0, 0.0, np.pi]) + rng.normal(0, [1e-3, 1e-3, 1e-9], (count, 3))
    return matrix_from_axis_angle(pose)


def extremes(model: BodyModel) -> NDArray[np.float64]:
    """Rest itself, turns of next to nothing and of nearly half a turn in every joint, limbs in each other."""
    rng = np.random.default_rng(5)
    names, J = model.joint_names, model.num_joints
    way = rng.normal(size=(J, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    angles = (0.0, 1e-13, 1e-9, 0.99e-4, 1.01e-4, 1e-3, 0.7, 2.5, np.pi - 1e-3, np.pi - 1e-5, np.pi)
    pose = np.array([way * a for a in angles])
    through = np.stack([stance_pose(names, s) for s in STANCES])
    for k in range(len(through)):
        through[k] = with_arm(through[k], names, "left", ARMS["before_belly"]._replace(swing=-20.0, twist=60.0))
        through[k, names.index("right_elbow")] = (0.0, 2.4, 0.0)
        through[k, names.index("left_hip"), 2] = -0.25
    # forearms and calves turned by nearly half a turn about themselves, at a bend
    twisted = matrix_from_axis_angle(through[:2])
    for name, axis in (("left_elbow", 0), ("right_elbow", 0), ("left_knee", 1), ("right_knee", 1)):
        twist = np.zeros(3)
        twist[axis] = 3.1 if name.startswith("left") else -3.1
        twisted[:, names.index(name)] = matrix_from_axis_angle(np.eye(3)[2] * 1.2) @ matrix_from_axis_angle(twist)
    return np.concatenate([matrix_from_axis_angle(pose), matrix_from_axis_angle(through), twisted])


def problem(model: BodyModel, instants: int, seed: int = 0, **other: Any) -> Problem:
    """Without views, a shape's prior of its own, the learned prior and spheres."""
    rng = np.random.default_rng(seed)
    mean, names = model.priors["neutral"].mean, model.joint_names
    base = pose_prior(names)
    root = rng.normal(size=(S, S))
    means = base.mean + rng.normal(0, 0.1, (instants, model.num_joints, 3))
    given: dict[str, Any] = {
        "mesh": mesh_for(model, 2, S, mean), "views": [], "items": np.zeros((0, 2), np.int64),
        "stage": CONFIG.settle[0], "config": CONFIG, "pose_prior": base, "pose_mean": means,
        "shape_prior": ShapeGaussian(rng.normal(size=S), root @ root.T + np.eye(S)), "sigma_behind_m": 0.01,
        "learned_prior": learned_prior(names), "spheres": spheres_of(model, mean),
    }  # fmt: skip
    kind = Expected if "expected" in other else Problem
    return kind(**(given | other))


def state(rotations: NDArray[np.float64], group: Sequence[int] | None = None, seed: int = 0) -> State:
    """At rotations (N, J, 3, 3), anywhere, with any shapes; without groups each instant is one of its own."""
    rng = np.random.default_rng(seed)
    n = len(rotations)
    each = np.arange(n) if group is None else np.array(group, np.int64)
    return State(rotations, rng.normal(0, 0.3, (n, 3)), rng.normal(0, 0.8, (each.max() + 1, S)), each)


def keypoint_view(model: BodyModel, seed: int, *, behind: bool = False, names: tuple[str, ...] | None = None) -> View:
    """A camera some metres before the body, or one that stands within it, so that some joints are behind it."""
    rng = np.random.default_rng(seed)
    some = names or tuple(rng.permutation(model.joint_names)[: 6 + seed % 5].tolist())
    R = matrix_from_axis_angle(rng.normal(0, 0.3, 3))
    targets = JointTargets(
        some, rng.uniform(0, 200, (len(some), 2)), rng.uniform(0.2, 1, len(some)), (182.0, 181.0, 127.5, 105.5),
        R, np.array([0.1, -0.1, 0.0 if behind else 2.5]), 70.0,
    )  # fmt: skip
    one = np.ones((1, 1), np.float32)
    return View(
        one, one.astype(np.uint8), one.astype(np.int32), np.ones(4, np.float32), R, np.zeros(3), np.zeros(4), 1, 0.0,
        1.0, 1, (0, 0), targets,
    )  # fmt: skip


def mixed(model: BodyModel) -> tuple[list[Problem], list[State]]:
    """Problems that differ in all that they may differ in."""
    mean, names = model.priors["neutral"].mean, model.joint_names
    wide = mean + np.random.default_rng(1).normal(0, 1, mean.shape)
    views = [keypoint_view(model, 1), keypoint_view(model, 2, behind=True), keypoint_view(model, 3)]
    items = np.array([(0, 0), (2, 1), (0, 2), (3, 0)])
    base = pose_prior(names)
    tight = replace(base, sigma=base.sigma * 0.7, low=base.low * 0.5)
    R = [poses(model, n, k, 0.4) for k, n in enumerate((4, 2, 3, 1, 1, 2))]
    problems = [
        problem(model, 4, 1, views=views, items=items),
        problem(model, 2, 2, stage=CONFIG.search, learned_prior=None, spheres=None, pose_prior=tight),
        problem(model, 3, 3, spheres=spheres_of(model, wide), stage=replace(CONFIG.settle[1], shape_prior=0.5)),
        problem(
            model, 1, 4, expected=Pose(R[3][0] @ matrix_from_axis_angle(np.full((24, 3), 0.05)), np.full(3, 0.1)),
            sigma_turn_rad=0.2, sigma_move_m=0.03,
        ),
        problem(model, 1, 5, expected=None, mesh=mesh_for(model, 1, S, wide), views=[views[0]], items=items[:1]),
        problem(model, 2, 6, break_ties=False),
    ]  # fmt: skip
    groups = ([0, 1, 0, 1], [1, 0], [0, 0, 0], [0], [0], [0, 1])
    return problems, [state(r, g, k) for k, (r, g) in enumerate(zip(R, groups, strict=True))]
