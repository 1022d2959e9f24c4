"""Bodies do not pass through themselves or the floor: arms kept out of the trunk, feet on the ground."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.kernels.body import joint_motions, vertex_normals
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle
from bodyfit.synthetic.subject import Subject

_TRUNK = ("pelvis", "left_hip", "right_hip", "spine1", "spine2", "spine3", "neck", "head")
_TRIES_DEG = (
    tuple(  # turns of the shoulder (about the chest's axes, then the arm's own) and of the elbow that may free an arm
        (joint, axis, sign * 6.0)
        for joint, axes in (("shoulder", (0, 1, 2)), ("elbow", (1,)))
        for axis in axes
        for sign in (-1, 1)
    )
)


def on_floor(
    surface: NDArray[np.float64], joints: NDArray[np.float64], place: NDArray[Any], floor_z: float = 0.0
) -> NDArray[np.float64]:
    """Translation (3,) that stands a posed surface (V, 3) on the floor, its root joint above `place` (2,) metres."""
    return np.array([place[0] - joints[0, 0], place[1] - joints[0, 1], floor_z - surface[:, 2].min()])


def both_feet_down(model: BodyModel, subject: Subject, pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """The pose (J, 3), in a world with z up, with the knee of the lower foot bent until both feet reach the floor.

    A long step lifts the rear heel, so ankles may differ by an eighth of the step.
    """
    names = {name: i for i, name in enumerate(model.joint_names)}
    ankles = [names["left_ankle"], names["right_ankle"]]

    def joints_of(candidate: NDArray[np.float64]) -> NDArray[np.float64]:
        G, joints = np.empty((model.num_joints, 3, 3)), np.empty((model.num_joints, 3))
        R, zero = matrix_from_axis_angle(candidate), np.zeros(3)
        joint_motions(R, subject.rest_joints, model.parents, np.eye(3), zero, zero, G, joints)
        return joints

    def turned(candidate: NDArray[np.float64], joint: int, radians: float) -> None:
        bend = matrix_from_axis_angle(np.array([radians, 0.0, 0.0]))
        candidate[joint] = axis_angle_from_matrix(matrix_from_axis_angle(candidate[joint]) @ bend)

    at = joints_of(pose)[ankles]
    low = int(at[1, 2] < at[0, 2])
    front = matrix_from_axis_angle(pose[0])[:2, 2]  # the model looks along its own z
    step = abs((at[0, :2] - at[1, :2]) @ front) / max(float(np.linalg.norm(front)), 1e-6)
    excess = float(abs(at[0, 2] - at[1, 2]) - step / 8)
    if excess < 0.003:
        return pose
    hip, knee, ankle = (names[f"{('left', 'right')[low]}_{n}"] for n in ("hip", "knee", "ankle"))
    least, most, bent = 0.0, np.radians(40.0), pose
    for _ in range(8):
        angle = (least + most) / 2
        bent = pose.copy()
        for joint, share in ((hip, -1), (knee, 2), (ankle, -1)):
            turned(bent, joint, share * angle)
        rise = joints_of(bent)[ankles[low], 2] - at[low, 2]
        least, most = (angle, most) if rise < excess else (least, angle)
    return bent


def free_arms(
    model: BodyModel, subject: Subject, pose: NDArray[np.float64], allowed_m: float = 0.006, rounds: int = 8
) -> NDArray[np.float64]:
    """The pose (J, 3) with forearms and hands turned out of the trunk as far as a few small turns can.

    A wide body in a slim body's pose has its hands inside the hips. Each round tries small turns of the shoulder and
    the elbow and keeps the one that leaves the least inside.

    Args:
        allowed_m: depth that counts as touching (flesh gives way).
    """
    from scipy.spatial import KDTree

    names = {name: i for i, name in enumerate(model.joint_names)}
    main = model.lbs_weights.argmax(1)
    trunk = np.nonzero(np.isin(main, [names[n] for n in _TRUNK]))[0][::5]
    vertices, _ = subject.posed(model, pose, np.zeros(3))
    normals = _normals(vertices, model)
    tree = KDTree(vertices[trunk])
    trunk_points, trunk_normals = vertices[trunk], normals[trunk]

    def inside(points: NDArray[np.float64]) -> float:
        distance, at = (np.asarray(a) for a in tree.query(points, distance_upper_bound=0.15))
        near = np.isfinite(distance)
        gap = ((points[near] - trunk_points[at[near]]) * trunk_normals[at[near]]).sum(1)
        return float(np.maximum(-gap - allowed_m, 0).sum())

    pose = pose.copy()
    for side in ("left", "right"):
        arm = [names[f"{side}_{n}"] for n in ("elbow", "wrist", "hand")]
        part = np.nonzero(np.isin(main, arm) | ((main == names[f"{side}_shoulder"]) & _far_half(model, subject, side)))[
            0
        ][::5]
        few = _ArmChain(model, subject, pose, side, part)
        now = inside(few.points(pose))
        for _ in range(rounds):
            if now <= 0:
                break
            for reach in (1.0, 3.0):  # a hand deep inside may see no way out at its doorstep
                options = [few.turned(pose, joint, axis, reach * degrees) for joint, axis, degrees in _TRIES_DEG]
                scores = [inside(few.points(option)) for option in options]
                best = int(np.argmin(scores))
                if scores[best] < 0.97 * now:
                    break
            else:
                break
            pose, now = options[best], scores[best]
    return pose


class _ArmChain:
    """The vertices of one arm, moved by its shoulder and elbow while all else stays."""

    def __init__(
        self, model: BodyModel, subject: Subject, pose: NDArray[np.float64], side: str, part: NDArray[np.int64]
    ) -> None:
        names = {name: i for i, name in enumerate(model.joint_names)}
        self.chain = [names[f"{side}_{n}"] for n in ("shoulder", "elbow", "wrist", "hand")]
        self.index = {"shoulder": self.chain[0], "elbow": self.chain[1]}
        self.rest_joints = subject.rest_joints[self.chain]
        self.rest = subject.rest_vertices[part]
        weights = model.lbs_weights[part][:, self.chain].astype(np.float64)
        self.weights = weights / np.maximum(weights.sum(1, keepdims=True), 1e-6)
        R = matrix_from_axis_angle(pose)
        parent = int(model.parents[self.chain[0]])
        line = [parent]
        while model.parents[line[-1]] >= 0:
            line.append(int(model.parents[line[-1]]))
        self.base = np.eye(3)
        for j in reversed(line):
            self.base = self.base @ R[j]
        _, joints = subject.posed(model, pose, np.zeros(3))
        self.start = joints[self.chain[0]]

    def points(self, pose: NDArray[np.float64]) -> NDArray[np.float64]:
        """The arm's vertices (N, 3) in this pose."""
        local = matrix_from_axis_angle(pose[self.chain])
        rotation, at = self.base, self.start
        out = np.zeros_like(self.rest)
        for k in range(len(self.chain)):
            if k:
                at = at + rotation @ (self.rest_joints[k] - self.rest_joints[k - 1])
            rotation = rotation @ local[k]
            out += self.weights[:, k : k + 1] * ((self.rest - self.rest_joints[k]) @ rotation.T + at)
        return out

    def turned(self, pose: NDArray[np.float64], joint: str, axis: int, degrees: float) -> NDArray[np.float64]:
        """The pose with one joint turned about an axis of its parent's."""
        i = self.index[joint]
        turn = np.zeros(3)
        turn[axis] = np.radians(degrees)
        out = pose.copy()
        out[i] = axis_angle_from_matrix(matrix_from_axis_angle(turn) @ matrix_from_axis_angle(pose[i]))
        return out


def _far_half(model: BodyModel, subject: Subject, side: str) -> NDArray[np.bool_]:
    """Vertices nearer to the elbow than to the shoulder: the upper half of an upper arm may touch the chest."""
    names = list(model.joint_names)
    shoulder, elbow = (subject.rest_joints[names.index(f"{side}_{n}")] for n in ("shoulder", "elbow"))
    return (subject.rest_vertices - shoulder) @ (elbow - shoulder) > 0.5 * (elbow - shoulder) @ (elbow - shoulder)


def _normals(vertices: NDArray[np.float64], model: BodyModel) -> NDArray[np.float32]:
    local = np.ascontiguousarray(vertices - vertices.mean(0), np.float32)
    out = np.empty_like(local)
    vertex_normals(local, model.faces, out)
    return out
