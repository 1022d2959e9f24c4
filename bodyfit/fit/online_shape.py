"""A shape that sharpens while a person is followed: information from frames that show something new is summed up.

A keyframe's pose is eliminated from its normal equations (Schur complement); what is left is a Gaussian factor over the
shape. It is linearised again now and then at the shape found since. How much all of them tell together follows from
what errs alike in them: the clothes in all, how a pose is seen in those of that pose, a sensor's noise in none.
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
MOST_ALIKE = 5
"""so many frames of one pose tell of the shape where the sensor is noisy"""
NOISY = 1.0
"""a sensor's noise, as a variance, from which on it is most of what errs in a frame"""
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


@dataclass(frozen=True)
class AlikeErrors:
    """How frames err together as evidence of the shape: variances; 1 is all of a frame's but its sensor's noise.

    Not derived: chosen so that the shape of some seconds is as far off as its standard deviations say.
    """

    always: float = 0.4
    """what is the same in all frames: the clothes, what the model cannot be"""
    posed: float = 0.6
    """what is the same in frames of a like pose"""
    noise: float = 0.3
    """how much of the sensor's noise a depth residual's share is: outlines and soles have none of it"""
    most_noise: float = 20.0
    """noisier than this no frame is taken to be"""

    def noise_of(self, view: View, config: FitConfig, sharing: float) -> float:
        """The variance that the sensor's noise has in a view; sharing: see `Problem.sharing`."""
        return min(self.most_noise, self.noise * (sharing * view.noise_m / config.sigma_depth_m) ** 2)

    def weights(self, anchors: NDArray[np.int64], noise: float) -> NDArray[np.float64]:
        """(K,) what each frame counts of what it would count alone, so that together they know as much as their mean.

        Args:
            anchors: (K,) which pose each shows.
            noise: the sensor's in one frame, see `noise_of`.
        """
        _, pose, alike = np.unique(anchors, return_inverse=True, return_counts=True)
        say = 1 / (self.posed + noise / alike)
        together = (self.always + self.posed + noise) / (self.always + 1 / say.sum())
        return np.asarray(together * (say / say.sum() / alike)[pose], np.float64)


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
    anchor: int
    """which of the poses that are known this one is or is like"""
    at: NDArray[np.float64]
    """(X,) the shape that its pose belongs to"""
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
        alike: AlikeErrors,
        known: ShapeGaussian,
    ) -> None:
        self.mesh, self.x = mesh, x.copy()
        self._known, self._known_vector = known.precision, known.precision @ known.mean
        first = np.linalg.inv(0.5 * (cov + cov.T))
        self._first, self._first_vector = first - self._known, first @ x - self._known_vector
        self._noises: list[float] = []
        self.keyframes: list[Keyframe] = []
        self.stage, self.config, self.prior, self.sigma_behind_m = stage, config, prior, sigma_behind_m
        self.most, self.novel_rad, self.frozen_m, self.alike = most, novel_rad, frozen_m, alike
        self._telling = [mesh.joint_names.index(n) for n in TELLING if n in mesh.joint_names]
        self._seen: list[NDArray[np.float64]] = []
        self.precision = first
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
    def noise(self) -> float:
        """The sensor's noise in a frame (`AlikeErrors.noise_of`); 0 before any told of the shape."""
        return float(np.median(self._noises)) if self._noises else 0.0

    @property
    def frozen(self) -> bool:
        """Whether further frames no longer move the shape."""
        return len(self._seen) > self.most or self.vertex_sd_m < self.frozen_m

    def begin(self, rotations: NDArray[np.float64]) -> None:
        """The pose of the frame that the first shape came from: another like it tells nothing new."""
        self._seen.append(rotations[self._telling])

    def is_new(self, rotations: NDArray[np.float64]) -> bool:
        """Whether a pose (J, 3, 3) shows the body as no frame before did."""
        return bool((self._angles(rotations) >= self.novel_rad).all())

    def lessens_noise(self, rotations: NDArray[np.float64]) -> bool:
        """Whether a frame of a known pose (J, 3, 3) lessens the noise of those that show it. One of them tells how much
        noise there is."""
        angle = self._angles(rotations)
        again = len(self.keyframes) - max(0, len(self._seen) - 1)
        if not len(angle) or again >= self.most or (self._noises and self.noise < NOISY):
            return False
        anchor = int(angle.argmin())
        return sum(k.anchor == anchor for k in self.keyframes) < MOST_ALIKE

    def _angles(self, rotations: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K,) how far a pose is from each that is known: the turn of the joint that differs most."""
        if not self._seen:
            return np.zeros(0)
        # angle of K'N by its trace
        trace = np.einsum("kjab,jab->kj", np.stack(self._seen), rotations[self._telling])
        return np.arccos(np.clip(0.5 * (trace - 1), -1, 1)).max(1)

    def add(self, rotations: NDArray[np.float64], transl: NDArray[np.float64], views: Sequence[View]) -> None:
        """Takes a frame in."""
        n = len(self.x)
        pose = 3 * len(rotations) + 3
        angle = self._angles(rotations)
        if not len(angle) or angle.min() >= self.novel_rad:
            self._seen.append(rotations[self._telling])
            anchor = len(self._seen) - 1
        else:
            anchor = int(angle.argmin())
        none, still = np.zeros((n, n)), np.zeros((pose, n))
        keyframe = Keyframe(
            rotations.copy(), transl.copy(), tuple(views), none, np.zeros(n), still, anchor, self.x
        )  # fmt: skip
        self._linearize(keyframe)
        self.keyframes.append(keyframe)
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
        if not k.looks:
            noises = [self.alike.noise_of(v, self.config, problem.sharing(v)) for v in k.views]
            self._noises.append(float(np.mean(noises)))
        self._move(k, -k.coupling @ (self.x - k.at))
        k.at = self.x
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
        # the first frame is one like the others, of the first pose
        anchors = np.array([0, *(k.anchor for k in self.keyframes)])
        weights = self.alike.weights(anchors, self.noise)
        self.precision = self._known + weights[0] * self._first
        vector = self._known_vector + weights[0] * self._first_vector
        for w, k in zip(weights[1:], self.keyframes, strict=True):
            self.precision = self.precision + w * k.information
            vector = vector + w * k.vector
        self.x = np.asarray(np.linalg.solve(self.precision, vector), np.float64)
        self.version += 1
        self._know()
