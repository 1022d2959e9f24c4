"""Colour in a track: what a followed person looks like, learnt while depth is sure, and what it says about their pose.

Depth finds every frame's pose first, as it does without colour. Then colours may move that pose within what depth
leaves open: the depth's cost stands as its second-order model, limbs whose colours would raise it by more than its
noise are held back, and the true cost of the result is looked at before it is taken. So colours cannot hold what depth
refutes in one frame. What pulls one way for many frames is refuted too: depth finds the pose anew in each of them, so a
shift that does not average out says that the colours were learnt in another pose; those limbs' colours are forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.fit.appearance import Appearance
from bodyfit.fit.follow import Followed, Pose, agreement_of
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.photometric import ColorPull, ColorTerm, photometric_equations
from bodyfit.fit.problem import Problem, State
from bodyfit.fit.solver import moved
from bodyfit.fit.track_config import ColorTracking
from bodyfit.frame import Frame

LIMBS = ("trunk", "head", "left_arm", "right_arm", "left_leg", "right_leg")
LEG_JOINTS = ("hip", "knee", "ankle", "foot", "toe")
HEAD_JOINTS = ("neck", "head", "jaw", "eye")
FREE_TURN_RAD = 1.0
"""a joint that depth says nothing of is not known better than this"""


def limb_of_joints(names: Sequence[str]) -> NDArray[np.int64]:
    """(J,) the number in `LIMBS` of each joint."""
    out = []
    for name in names:
        side = next((s for s in ("left_", "right_") if name.startswith(s)), "")
        if side and "eye" not in name:
            limb = side + ("leg" if any(j in name for j in LEG_JOINTS) else "arm")
        else:
            limb = "head" if any(j in name for j in HEAD_JOINTS) else "trunk"
        out.append(LIMBS.index(limb))
    return np.array(out)


class TrackColors:
    """A followed person's colours, and their pull on each frame's pose.

    Attributes:
        appearance: what was learnt; None before.
        pulled: how many points pulled in the last frame.
        frames: frames in which colours moved the pose; refused: in which the depth's cost rose too much.
        forgotten: how often a limb's colours were.
    """

    def __init__(self, model: BodyModel, config: ColorTracking) -> None:
        self.model, self.config = model, config
        self.appearance: Appearance | None = None
        self.pulled, self.frames, self.refused, self.forgotten = 0, 0, 0, 0
        self._limbs = limb_of_joints(model.joint_names)
        # which limb each pose parameter belongs to; the translation goes with the trunk
        self._of_parameter = np.concatenate([np.repeat(self._limbs, 3), np.zeros(3, np.int64)])
        self.pull: ColorPull | None = None
        """what the last frame's colours say about the pose that was found with them"""
        self._steady = 0
        self._count = 0
        self._pull = np.zeros(len(self._of_parameter))
        self._pulls = 0

    def report(self) -> dict[str, int]:
        """How colours were used: frames that they moved, that they were refused in, limbs that were learnt anew."""
        return {"frames": self.frames, "refused": self.refused, "limbs_forgotten": self.forgotten}

    # pulling

    def polish(
        self, frames: Sequence[Frame], found: Followed, mesh: Mesh, expected_precision: NDArray[np.float64],
        depth: Problem,
    ) -> Followed:  # fmt: skip
        """The pose that depth found, moved by colours within what depth leaves open.

        Args:
            frames: of the instant that `found` was found for.
            mesh: the body that it was found with.
            expected_precision: (Q,) how firmly each pose parameter was held at its expected value.
            depth: the instant's cost without colours.
        """
        self.pulled, self.pull = 0, None
        terms = self._terms(frames, found.pose, mesh)
        if not terms:
            return found
        c = self.config
        A = found.equations.A[0]
        shift = looked = np.zeros(len(A))
        H, g = np.zeros_like(A), np.zeros(len(A))
        for _ in range(c.rounds):
            H, g = self._pull_at(terms, mesh, found.pose, shift)
            looked, shift = shift, self._bounded(A, np.linalg.solve(A + H, H @ shift - g))
        pose = _shifted(found.pose, shift)
        eq = depth.linearize(_state_of(pose))
        if not eq.cost[0] < found.equations.cost[0] + c.most_real_rise:
            self.refused += 1
            return found
        self.pulled = sum(len(t.targets) for t in terms)
        self.frames += 1
        self.pull = ColorPull(
            pose.rotations, pose.transl, H.astype(np.float32), (g + H @ (shift - looked)).astype(np.float32)
        )  # fmt: skip
        self._watch(A, shift, expected_precision)
        gap, overlap, covered = agreement_of(eq)
        return replace(found, pose=pose, equations=eq, gap_m=gap, overlap=overlap, covered=covered)

    def _terms(self, frames: Sequence[Frame], pose: Pose, mesh: Mesh) -> list[ColorTerm]:
        appearance, terms = self.appearance, []
        if appearance is None:
            return terms
        appearance.reshape(mesh)
        for frame in frames:
            sight = appearance.look(frame, pose.rotations, pose.transl)
            term = None if sight is None else appearance.term(sight)
            if term is not None:
                terms.append(term)
        return terms

    def _pull_at(
        self, terms: Sequence[ColorTerm], mesh: Mesh, base: Pose, shift: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Products (Q, Q) and gradient (Q,) of the colours at a pose that is shifted by so much."""
        pose, Q, S = _shifted(base, shift), len(shift), mesh.num_shape
        H, g = np.zeros((Q + S, Q + S)), np.zeros(Q + S)
        for term in terms:
            photometric_equations(term, mesh, pose.rotations, pose.transl, np.zeros(S), H, g)
        return H[:Q, :Q], g[:Q]

    def _bounded(self, A: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
        """The shift with every limb's share cut to what raises the depth's cost by `most_rise` at most."""
        out = shift.copy()
        for limb in range(len(LIMBS)):
            i = np.flatnonzero(self._of_parameter == limb)
            rise = 0.5 * float(out[i] @ A[np.ix_(i, i)] @ out[i])
            if rise > self.config.most_rise:
                out[i] *= np.sqrt(self.config.most_rise / rise)
        whole = 0.5 * float(out @ A @ out)
        return out * np.sqrt(min(1.0, len(LIMBS) * self.config.most_rise / max(whole, 1e-12)))

    def _watch(self, A: NDArray[np.float64], shift: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
        """Forgets the colours of limbs that were pulled one way for long.

        Depth had come back but for what the expected pose holds, so the force A shift on depth's own precision is by
        how much it prefers another pose.
        """
        c = self.config
        share = max(1 / c.memory_frames, 1 / (self._pulls + 1))
        self._pull += share * (A @ shift - self._pull)
        self._pulls += 1
        if self._pulls < c.memory_frames:
            return
        own = A - np.diag(expected) + np.eye(len(A)) / FREE_TURN_RAD**2
        wrong = []
        for limb in range(len(LIMBS)):
            i = np.flatnonzero(self._of_parameter == limb)
            block = own[np.ix_(i, i)]
            low = np.linalg.eigvalsh(block)[0]
            if low <= 0:
                block = block + (1e-3 - low) * np.eye(len(i))
            if 0.5 * float(self._pull[i] @ np.linalg.solve(block, self._pull[i])) > c.most_bias:
                wrong.append(limb)
        for limb in wrong:
            self.forget(limb)

    def forget(self, limb: int) -> None:
        """Learns a limb's colours (number in `LIMBS`) anew."""
        self._pull[self._of_parameter == limb] = 0
        self.forgotten += 1
        if self.appearance is None:
            return
        points = self._limbs[self.appearance.cloud.weight_joints[:, 0]] == limb
        self.appearance.weight[points] = 0

    # learning

    def interrupt(self) -> None:
        """The pose leapt, was held, or was lost: nothing is learnt until it has been steady again."""
        self._steady = 0
        self.pulled, self.pull = 0, None

    def learn(self, frames: Sequence[Frame], pose: Pose, mesh: Mesh, *, ordinary: bool) -> None:
        """Takes an instant's colours where the pose has been found as well as usual for some frames."""
        c = self.config
        self._count += 1
        self._steady = self._steady + 1 if ordinary else 0
        if self._steady < c.settle_frames or self._count % c.learn_every:
            return
        if self.appearance is None:
            self.appearance = Appearance.begin(self.model, mesh, c.color)
        appearance = self.appearance
        appearance.reshape(mesh)
        for frame in frames:
            sight = appearance.look(frame, pose.rotations, pose.transl)
            if sight is not None:
                appearance.update(sight)


def _state_of(pose: Pose) -> State:
    return State(pose.rotations[None], pose.transl[None], np.zeros((1, 1)), np.zeros(1, np.int64))


def _shifted(pose: Pose, shift: NDArray[np.float64]) -> Pose:
    to = moved(_state_of(pose), shift[None], np.zeros((1, 1)), 0.5)
    return Pose(to.rotations[0], to.transl[0])
