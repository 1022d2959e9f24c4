"""One frame's body from a start: what the sensors see near it, and the steps from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.follow import Expected, Followed, Pose, Seen, descend, instant_problem
from bodyfit.fit.joint import FitSetup, spheres_for
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.pose_prior import PosePrior
from bodyfit.fit.problem import State
from bodyfit.fit.track_config import TrackConfig
from bodyfit.fit.track_effort import EffortLevel
from bodyfit.fit.track_estimate import Usual
from bodyfit.fit.track_sensors import Sensors, person_pixels
from bodyfit.fit.track_shape import TrackShape
from bodyfit.fit.view import View
from bodyfit.frame import Frame
from bodyfit.observe.follow import REACH_M

Settled = tuple[Followed, float, int]
"""a body that was followed, the person's pixels, and how often the normal equations were set up"""


@dataclass
class FrameFit:
    """Fits one followed person, their shape held, to single frames.

    Attributes:
        effort: how much is done for a frame at present.
        usual: what frames are by those before them; it hears of the noise of each that is looked at.
        shape: the person's; None until somebody was found.
    """

    setup: FitSetup
    config: TrackConfig
    prior: PosePrior
    sensors: Sensors
    effort: EffortLevel
    usual: Usual
    shape: TrackShape | None = None

    @property
    def known_shape(self) -> TrackShape:
        """The person's shape, where there is one."""
        assert self.shape is not None
        return self.shape

    @property
    def coarse_mesh(self) -> Mesh:
        """The body that is looked for where much is tried."""
        return self.known_shape.mesh(self.config.regain.level)

    def look(self, frames: Sequence[Frame], expected: Pose, reach_m: float = REACH_M) -> list[Seen]:
        """What each sensor sees of a body that is expected at a pose, where it sees any of it."""
        mesh = self.known_shape.mesh(self.config.stage.level)
        seen = self.sensors.look(mesh, frames, expected, self.effort.now.pixels, reach_m)
        self.usual.noise_m = self.sensors.noise_m
        return seen

    def descend(self, seen: Sequence[Seen], expected: Pose, widen: float, evaluations: int) -> Followed:
        """Steps from the expected pose; what is expected is `widen` times as loose as in 1/30 s."""
        c, shape = self.config, self.known_shape
        return descend(
            shape.mesh(c.stage.level), [s.view for s in seen], expected, c.stage, c.fit, self.prior,
            shape.clothing.sigma_behind_m, evaluations=evaluations, expected=expected,
            sigma_turn_rad=c.sigma_turn_rad * widen, sigma_move_m=c.sigma_move_m * widen,
            still_rad=c.still_rad, still_m=c.still_m, spheres=spheres_for(self.setup, c.stage),
        )  # fmt: skip

    def descend_coarsely(self, seen: Sequence[Seen], start: Pose) -> Followed:
        """Steps from a pose that may be far off, on the coarse mesh; nothing is expected."""
        c = self.config
        return descend(
            self.coarse_mesh, [s.view for s in seen], start, c.regain, c.fit, self.prior,
            self.known_shape.clothing.sigma_behind_m, evaluations=c.regain.iterations, expected=None,
        )  # fmt: skip

    def settled(self, frames: Sequence[Frame], pose: Pose, steps: int) -> Settled | None:
        """A pose that was come by otherwise in so many steps, followed as usual; None where nothing is seen of it."""
        near = self.look(frames, pose)
        if sum(s.followed.person for s in near) > 2 * self.effort.now.pixels:
            near = self.look(frames, pose)  # they are nearer by now, and the grid was too fine
        if not near:
            return None
        fine = self.descend(near, pose, 3.0, 4)
        return fine, person_pixels(near), steps + fine.evaluations

    def problem(self, found: Followed, expected: Pose, widen: float) -> Expected:
        """What was minimised in a frame that was followed."""
        return self._problem(found.views, expected, widen)

    def _problem(self, views: Sequence[View], expected: Pose | None, widen: float) -> Expected:
        c, shape = self.config, self.known_shape
        return instant_problem(
            shape.mesh(c.stage.level), views, c.stage, c.fit, self.prior, shape.clothing.sigma_behind_m,
            expected=expected, sigma_turn_rad=c.sigma_turn_rad * widen, sigma_move_m=c.sigma_move_m * widen,
            spheres=spheres_for(self.setup, c.stage),
        )  # fmt: skip

    def priors(self, pose: Pose) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What is known of a pose beforehand, and what besides it was minimised that is no knowledge (see `Problem`):
        products (Q, Q) of both."""
        state = State(pose.rotations[None], pose.transl[None], np.zeros((1, 1)), np.zeros(1, np.int64))
        every = self._problem((), None, 1.0)
        known = replace(every, break_ties=False).prior_equations(state).A[0]
        return known, every.prior_equations(state).A[0] - known

    def learn_shape(self, frames: Sequence[Frame], found: Followed, pose: Pose, count: int) -> None:
        """Sharpens the shape, every so-manieth frame: from this one where it shows something new or lessens the noise,
        else by a keyframe that is looked at again."""
        c, online = self.config, self.known_shape.online
        ordinary = self.usual.is_ordinary(*found.fits)
        at_once = ordinary and not self.effort.short and len(online.keyframes) < c.tell_at_once
        at_once = at_once and online.lessens_noise(pose.rotations)
        # a look at the full mesh takes as long as following does
        if count % c.tell_every and not at_once:
            return
        # of the others every other turn is for looking again
        again = count % (2 * c.tell_every) == 0 and online.lessens_noise(pose.rotations)
        if ordinary and (at_once or again or online.is_new(pose.rotations)):
            near = self.sensors.look_closer(self.known_shape.mesh(c.stage.level), frames, pose, c.tell.pixels)
            if near:
                online.add(pose.rotations, pose.transl, [s.view for s in near])
        elif not online.settled or count % c.relinearize_every == 0:
            online.look_again()
