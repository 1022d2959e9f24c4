"""A person looked for in the whole picture: for the first time, or again with their shape known."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import FrameError, PersonNotFoundError, SeveralPeopleError
from bodyfit.fit.follow import Followed, Pose
from bodyfit.fit.hypotheses import stance_pose
from bodyfit.fit.initialize import Shape, Starter
from bodyfit.fit.joint import FitSetup, Instant, find_joint
from bodyfit.fit.pose_prior import PosePrior, log_rotation
from bodyfit.fit.track_config import TrackConfig
from bodyfit.fit.track_frame import FrameFit
from bodyfit.fit.track_recovery import LEAST_GAIN
from bodyfit.fit.track_sensors import person_pixels
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


@dataclass(frozen=True)
class WholeFound:
    """What a search of the whole picture ended with.

    Attributes:
        body: the best body, None where there is none.
        person: the person's pixels where it is.
        first: whether it is the first body of all.
        taken: whether it may be gone on from.
    """

    body: Followed | None = None
    person: float = 0.0
    first: bool = False
    taken: bool = False


class WholeSearch:
    """Looks for a person in the whole picture; what keeps it waiting is remembered."""

    def __init__(self, fit: FrameFit, person: PersonSearch) -> None:
        self.fit, self.person = fit, person
        self._at_border: float | None = None

    def find(
        self, frames: Sequence[Frame], now: float, last: Pose | None, told: list[str], times: dict[str, float],
        at_least: Followed | None = None,
    ) -> WholeFound:  # fmt: skip
        """A person of unknown shape where none is known yet, else the known one.

        Args:
            last: the pose last known, None where nobody was.
            at_least: a body that explains the picture no better than this is not taken.
        """
        fit = self.fit
        t0 = time.perf_counter()
        observations, reason = self.person.look(frames)
        times["observe"] = time.perf_counter() - t0
        if not observations:
            told.append(f"nobody found: {reason}")
            return WholeFound()
        first = fit.shape is None
        cut = any({"left", "right"} & o.cut_off for o in observations)
        if cut and not first and at_least is None:
            self._at_border = now if self._at_border is None else self._at_border
            if now - self._at_border < fit.config.wait_at_border_s:
                told.append("somebody at the picture's border: waiting for all of them")
                return WholeFound()
        self._at_border = None
        t0 = time.perf_counter()
        for o in observations:
            fit.sensors.meet(o, fit.effort.now.pixels)
        tries: Sequence[Callable[[], Pose]]
        if first:
            fit.shape, pose = self.person.first(observations, now)
            tries = [lambda: pose]
        else:
            assert last is not None
            tries = self.person.again(fit.known_shape, observations, last)
        out = self._best(frames, tries)
        times["search"] = time.perf_counter() - t0
        if first and (out is None or not fit.usual.is_anybody(*out[0].fits)):
            fit.shape = None  # nobody's
        if out is None:
            told.append("nobody found: the body is not in the picture")
            return WholeFound()
        found, person = out
        if at_least is not None and fit.usual.merit(*found.fits) < fit.usual.merit(*at_least.fits) + LEAST_GAIN:
            return WholeFound()
        if not fit.usual.is_anybody(*found.fits):
            told.append(
                f"nobody found: the best body lies {found.gap_m * 1e3:.0f} mm from the readings and overlaps "
                f"{found.overlap * 100:.0f} %"
            )
            return WholeFound(found, person)
        return WholeFound(found, person, first, taken=True)

    def _best(self, frames: Sequence[Frame], tries: Sequence[Callable[[], Pose]]) -> tuple[Followed, float] | None:
        """The first way to find them that does as well as usual, or the one that does best; and the person's pixels."""
        fit = self.fit
        out: tuple[Followed, float] | None = None
        for attempt in tries:
            start = attempt()
            seen = fit.look(frames, start)
            if not seen:
                continue
            found = fit.descend(seen, start, 3.0, 6)
            person = person_pixels(seen)
            if out is None or found.overlap > out[0].overlap:
                out = found, person
            if fit.usual.is_good(*found.fits) and not fit.usual.is_poor(found.overlap):
                break
        return out
