"""A person looked for in the whole picture: for the first time, or again with their shape known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import FrameError, PersonNotFoundError, SeveralPeopleError
from bodyfit.fit.follow import Pose
from bodyfit.fit.hypotheses import stance_pose
from bodyfit.fit.initialize import Shape, Starter
from bodyfit.fit.joint import FitSetup, Instant, find_joint
from bodyfit.fit.pose_prior import PosePrior, log_rotation
from bodyfit.fit.track_config import TrackConfig
from bodyfit.fit.track_shape import TrackShape
from bodyfit.frame import Frame
from bodyfit.observe.observation import Observation, observe

LIKELY_STANCES = ("arms_down", "walk_left", "walk_right")
"""how a person comes back, beside as they went"""


@dataclass
class PersonSearch:
    """Searches for one person; person: which one, from left to right, where several stand there."""

    setup: FitSetup
    config: TrackConfig
    prior: PosePrior
    gravity_world: NDArray[np.float64] | None
    person: int | None

    def look(self, frames: Sequence[Frame]) -> tuple[list[Observation], str]:
        """The frames in which somebody is seen, and why not in the last of the others."""
        found: list[Observation] = []
        reason = "nobody found"
        for frame in frames:
            try:
                found.append(observe(frame, gravity_world=self.gravity_world, person=self.person))
            except (PersonNotFoundError, SeveralPeopleError, FrameError) as error:
                reason = str(error)
        return found, reason

    def first(self, observations: Sequence[Observation], now: float) -> tuple[TrackShape, Pose]:
        """Shape and pose of somebody who is not known: a whole fit."""
        clothing, found = find_joint(self.setup, [Instant(0, now, tuple(observations))])
        shape = TrackShape(self.setup, self.config, self.prior, clothing, found.shape, found.shape_cov)
        return shape, Pose(found.rotations[0], found.transl[0])

    def again(self, shape: TrackShape, observations: Sequence[Observation], last: Pose) -> Sequence[Callable[[], Pose]]:
        """Ways to find the person again, the quick one first: the last pose and likely ones in every heading; and a
        cold start, but for the shape."""
        known = log_rotation(last.rotations)[0]

        def quick() -> Pose:
            names = self.setup.model.joint_names
            poses = [known, *(stance_pose(names, s) for s in LIKELY_STANCES)]
            start = self._starter(shape, 0).search_poses(observations, poses)
            return Pose(start.rotations, start.transl)

        def whole() -> Pose:
            start = self._starter(shape, self.config.search.limb_rounds).start(observations, [known])
            return Pose(start.rotations, start.transl)

        return quick, whole

    def _starter(self, shape: TrackShape, limb_rounds: int) -> Starter:
        betas, cov = shape.betas()
        known = Shape(betas, cov + 1e-6 * np.eye(len(cov)))
        config = replace(self.config.search, limb_rounds=limb_rounds)
        return Starter(self.setup.model, known, self.prior, shape.clothing, config)
