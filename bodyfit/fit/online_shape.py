"""A shape that sharpens while a person is followed: information from frames that show something new is summed up.

A keyframe's pose is eliminated from its normal equations (Schur complement); what is left is a Gaussian factor over the
shape. Each keyframe counts once, however long it stood, and is linearised again now and then at the shape found since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.config import FitConfig, Stage
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.pose_prior import PosePrior
from bodyfit.fit.problem import Problem, ShapeGaussian, State
from bodyfit.fit.view import View
from bodyfit.rotation import matrix_from_axis_angle, nearest_rotation

TELLING = ("pelvis", "left_hip", "right_hip", "spine1", "spine2", "spine3", "left_shoulder", "right_shoulder")
"""joints whose turn shows other sides of the body"""
SAMPLE = 150
LOOKS = 3
"""a keyframe's pose and robust weights have settled after so many linearisations"""


def joint_mesh(mesh: Mesh, cov: NDArray[np.float64], free: int, rest: NDArray[np.float64]) -> Mesh:
    """A mesh whose first `free` betas take the others along as the prior (S, S) expects; rest (S - free,) is added."""
    S = mesh.num_betas
    follow = np.linalg.solve(cov[:free, :free], cov[:free, free:S]).T
    dirs, joints = mesh.shapedirs, mesh.jointdirs

    def folded(d: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([d[:, :, :free] + d[:, :, free:S] @ follow, d[:, :, S:]], 2)

    return replace(
        mesh,
        template=(mesh.template + dirs[:, :, free:S] @ rest).astype(np.float32),
        shapedirs=np.ascontiguousarray(folded(dirs.astype(np.float64)), np.float32),
        joint_template=mesh.joint_template + joints[:, :, free:S] @ rest,
        jointdirs=np.ascontiguousarray(folded(joints)),
        num_betas=free,
    )


@dataclass
class Keyframe:
    """A frame that told of the shape: its pose, its views, and its factor ½ xᵀΛx - ηᵀx."""

    rotations: NDArray[np.float64]
    transl: NDArray[np.float64]
    views: Sequence[View]
    information: NDArray[np.float64]
    vector: NDArray[np.float64]
    coupling: NDArray[np.float64]
    """(Q, X) how the pose gives way to the shape"""
    looks: int = 0
    """how often it was linearised"""


class OnlineShape:
    """The shape x (betas, then garments) of a followed person, and how well it is known."""

    def __init__(
        self,
        mesh: Mesh,
        x: NDArray[np.float64],
        cov: NDArray[np.float64],
        stage: Stage,
        config: FitConfig,
        prior: PosePrior,
        sigma_behind_m: float,
        most: int,
        novel_rad: float,
        frozen_m: float,
        effective: float,
    ) -> None:
        self.mesh, self.x = mesh, x.copy()
        self._base = np.linalg.inv(0.5 * (cov + cov.T))
        self._base_vector = self._base @ x
        self.keyframes: list[Keyframe] = []
        self.stage, self.config, self.prior, self.sigma_behind_m = stage, config, prior, sigma_behind_m
        self.most, self.novel_rad, self.frozen_m, self.effective = most, novel_rad, frozen_m, effective
        self._telling = [mesh.joint_names.index(n) for n in TELLING if n in mesh.joint_names]
        self._seen: list[NDArray[np.float64]] = []
        self.precision = self._base.copy()
        self.version = 0
        rng = np.random.default_rng(0)
        sample = rng.choice(len(mesh.template), min(SAMPLE, len(mesh.template)), replace=False)
        self._sample_dirs = mesh.shapedirs[sample][:, :, : mesh.num_betas].astype(np.float64)
        self._know()

    def _know(self) -> None:
        """How well the shape is known: cov (X, X) of x; vertex_sd_m, the median standard deviation of the rest shape's
        vertices, metres, without the clothes."""
        self.cov = np.asarray(np.linalg.inv(self.precision), np.float64)
        d, n = self._sample_dirs, self.mesh.num_betas
        self.vertex_sd_m = float(np.sqrt(np.median(((d @ self.cov[:n, :n]) * d).sum((1, 2)))))

    @property
    def frozen(self) -> bool:
        """Whether further frames no longer move the shape."""
        return len(self.keyframes) >= self.most or self.vertex_sd_m < self.frozen_m

    def begin(self, rotations: NDArray[np.float64]) -> None:
        """The pose of the frame that the first shape came from: another like it tells nothing new."""
        self._seen.append(rotations[self._telling])

    def is_new(self, rotations: NDArray[np.float64]) -> bool:
        """Whether a pose (J, 3, 3) shows the body as no frame before did."""
        if not self._seen:
            return True
        # angle of K'N by its trace; the largest of a pose's joints has to differ from every pose that is known
        trace = np.einsum("kjab,jab->kj", np.stack(self._seen), rotations[self._telling])
        angle = np.arccos(np.clip(0.5 * (trace - 1), -1, 1))
        return bool((angle.max(1) >= self.novel_rad).all())

    def add(self, rotations: NDArray[np.float64], transl: NDArray[np.float64], views: Sequence[View]) -> None:
        """Takes a frame in."""
        n = len(self.x)
        pose = 3 * len(rotations) + 3
        keyframe = Keyframe(
            rotations.copy(), transl.copy(), tuple(views), np.zeros((n, n)), np.zeros(n), np.zeros((pose, n))
        )
        self._linearize(keyframe)
        self.keyframes.append(keyframe)
        self._seen.append(rotations[self._telling])
        self._sum()

    def look_again(self) -> None:
        """One keyframe, each in its turn, at the shape and pose found since."""
        if not self.keyframes:
            return
        self._linearize(min(self.keyframes, key=lambda k: k.looks))
        self._sum()

    @property
    def settled(self) -> bool:
        """Whether every keyframe was linearised about a shape that the others had a say in."""
        return all(k.looks >= LOOKS for k in self.keyframes)

    def _linearize(self, k: Keyframe) -> None:
        items = np.array([(0, v) for v in range(len(k.views))], np.int64)
        n = len(self.x)
        none = ShapeGaussian(np.zeros(n), np.zeros((n, n)))
        problem = Problem(
            self.mesh, k.views, items, self.stage, self.config, self.prior, self.prior.mean[None], none,
            self.sigma_behind_m, break_ties=False, shared_noise=True,
        )  # fmt: skip
        state = State(k.rotations[None], k.transl[None], self.x[None], np.zeros(1, np.int64))
        eq = problem.linearize(state)
        A = eq.A[0] + 1e-6 * np.eye(eq.A.shape[1])
        X = np.linalg.solve(A, np.concatenate([eq.B[0], eq.pose_gradient[0][:, None]], 1))
        k.information = eq.C[0] - eq.B[0].T @ X[:, :n]
        k.information = 0.5 * (k.information + k.information.T)
        gradient = eq.shape_gradient[0] - eq.B[0].T @ X[:, n]
        k.vector = k.information @ self.x - gradient
        k.coupling, k.looks = X[:, :n], k.looks + 1
        self._move(k, -X[:, n])

    def _move(self, k: Keyframe, step: NDArray[np.float64]) -> None:
        joints = k.rotations.shape[0]
        turns = np.clip(step[: 3 * joints].reshape(joints, 3), -0.1, 0.1)
        k.rotations = nearest_rotation(k.rotations @ matrix_from_axis_angle(turns))
        k.transl = k.transl + np.clip(step[3 * joints :], -0.02, 0.02)

    def _sum(self) -> None:
        # the clothes and what the model cannot be are the same in every frame: their errors do not average out
        weight = min(1.0, self.effective / max(len(self.keyframes), 1))
        self.precision = self._base + weight * sum(k.information for k in self.keyframes)
        vector = self._base_vector + weight * sum(k.vector for k in self.keyframes)
        before, self.x = self.x, np.asarray(np.linalg.solve(self.precision, vector), np.float64)
        for k in self.keyframes:
            self._move(k, -k.coupling @ (self.x - before))
        self.version += 1
        self._know()
