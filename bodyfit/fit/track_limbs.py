"""An arm that was left behind: tried in every everyday way while the rest of the body stays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bodyfit.fit.config import FitConfig, Stage
from bodyfit.fit.follow import Pose
from bodyfit.fit.hypotheses import ARMS, with_arm
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.pose_prior import PosePrior, log_rotation
from bodyfit.fit.problem import HELD, Problem, State
from bodyfit.fit.solver import solve
from bodyfit.fit.view import View
from bodyfit.rotation import matrix_from_axis_angle

FOLLOWED = 4
"""so many of the ways are followed some steps"""


def arms_elsewhere(
    mesh: Mesh,
    views: Sequence[View],
    pose: Pose,
    stage: Stage,
    config: FitConfig,
    prior: PosePrior,
    sigma_behind_m: float,
    *,
    iterations: int,
) -> Pose | None:
    """The pose with one arm elsewhere where that explains the views better; None where it does not."""
    theta = log_rotation(pose.rotations)[0]
    names = mesh.joint_names
    poses = [theta, *(with_arm(theta.copy(), names, side, arm) for side in ("left", "right") for arm in ARMS.values())]
    rotations = matrix_from_axis_angle(np.stack(poses))
    rotations[0] = pose.rotations
    n = len(poses)
    state = State(rotations, np.repeat(pose.transl[None], n, 0), np.zeros((n, 1)), np.arange(n))

    def problem(count: int) -> Problem:
        items = np.array([(i, v) for i in range(count) for v in range(len(views))], np.int64)
        mean = np.repeat(prior.mean[None], count, 0)
        return Problem(mesh, views, items, stage, config, prior, mean, HELD, sigma_behind_m)

    cost = problem(n).linearize(state, want_rows=False).cost
    keep = [0, *(int(k) for k in np.argsort(cost[1:], kind="stable")[:FOLLOWED] + 1)]
    found = solve(problem(len(keep)), state.take(keep), iterations=iterations)
    best = int(np.argmin(found.cost))
    if best == 0 or found.cost[best] > 0.97 * found.cost[0]:
        return None
    return Pose(found.state.rotations[best], found.state.transl[best])
