"""How well a followed pose is known: what its frame says of it, and what is still known of the pose before it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.follow import Followed, Pose
from bodyfit.fit.track_frame import FrameFit

LEAST_KNOWN = 0.1
"""nothing is known less than by this, 1/rad² or 1/m²: without any evidence a turn is any of the circle's"""


class Certainty:
    """The covariance of a followed pose, from frame to frame, as a filter has it.

    A frame is solved with the pose held near where it was expected, as if that were known. A limb that nobody sees
    would so be known to 0.06 rad, however long it has not been seen. Here what was expected is as uncertain as the pose
    that it was expected from, and what a joint may turn in a frame comes on top: an unseen limb is known less from
    frame to frame, down to what is known of people's poses. The solution itself has no part in it.

    Attributes:
        cov: (Q, Q) of right perturbations of the joints and of the translation; None where nothing is known.
    """

    def __init__(self, fit: FrameFit) -> None:
        self.fit = fit
        self.cov: NDArray[np.float64] | None = None

    def forget(self) -> None:
        """The next pose is known by its own frame alone: it did not come from the last one."""
        self.cov = None

    def take(self, found: Followed) -> None:
        """A frame's pose; one that came from the last was held at what was expected from there."""
        _, no_knowledge = self.fit.priors(found.pose)
        solved = found.equations.A[0]
        before = self._went_on(1.0 / found.held) if found.held.all() else 0.0
        A = solved - np.diag(found.held) - no_knowledge + before
        try:
            np.linalg.cholesky(A)
        except np.linalg.LinAlgError:
            # the equations are of the last pose that was looked at: what parts that touch say may differ by now
            A = solved
        self.cov = _inverse(A)

    def go_on(self, pose: Pose, widen: float) -> None:
        """A frame that shows nothing of the pose; it may have turned and moved `widen` times as far as in 1/30 s."""
        if self.cov is None:
            return
        c, joints = self.fit.config, len(pose.rotations)
        moved = np.repeat([(c.sigma_turn_rad * widen) ** 2, (c.sigma_move_m * widen) ** 2], [3 * joints, 3])
        self.cov = _inverse(self.fit.priors(pose)[0] + self._went_on(moved))

    def sd(self, joints: int) -> NDArray[np.float64]:
        """(J, 3) one standard deviation of each joint's turn, radians; zeros before anything was taken."""
        if self.cov is None:
            return np.zeros((joints, 3))
        return np.sqrt(np.maximum(np.diagonal(self.cov)[: 3 * joints], 0)).reshape(joints, 3)

    def _went_on(self, moved: NDArray[np.float64]) -> NDArray[Any] | float:
        """What the last pose says of one from which it differs by variances (Q,)."""
        return 0.0 if self.cov is None else np.linalg.inv(self.cov + np.diag(moved))


def _inverse(A: NDArray[np.float64]) -> NDArray[Any]:
    return np.linalg.inv(A + LEAST_KNOWN * np.eye(len(A)))
