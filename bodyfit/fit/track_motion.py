"""How a followed person moves from one instant to the next, and where that takes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.follow import Pose
from bodyfit.fit.pose_prior import log_rotation
from bodyfit.rotation import matrix_from_axis_angle, nearest_rotation


@dataclass(frozen=True)
class Velocity:
    """turn (J, 3) axis-angle a second, each joint in its own axes; move (3,) metres a second."""

    turn: NDArray[np.float64]
    move: NDArray[np.float64]

    @staticmethod
    def between(before: Pose, after: Pose, dt: float) -> Velocity:
        """The one that takes a pose to another in dt seconds."""
        turn = log_rotation(np.swapaxes(before.rotations, 1, 2) @ after.rotations)[0] / dt
        return Velocity(turn, (after.transl - before.transl) / dt)

    def from_here(self, pose: Pose, seconds: float) -> Pose:
        """The pose after so long."""
        R = nearest_rotation(pose.rotations @ matrix_from_axis_angle(self.turn * seconds))
        return Pose(R, pose.transl + self.move * seconds)

    @property
    def unseen(self) -> Velocity:
        """What is believed of it where nothing is seen: who walks walks on; limbs are not thrown about."""
        return Velocity(0.5 * self.turn, 0.9 * self.move)
