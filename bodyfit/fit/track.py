"""Follows one person from frame to frame, faster than the sensor: each instant starts where the last one ended.

What is expected (the last pose, and most of its motion gone on) says which pixels can be the person's and where to
start; a few steps of Levenberg-Marquardt do the rest. The shape is held within a frame and sharpens between frames
(`bodyfit.fit.online_shape`). A person who is lost is told so, and searched.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.body.skeleton import PART_NAMES
from bodyfit.errors import InputError
from bodyfit.fit.blas import find_blas, one_blas_thread
from bodyfit.fit.fit import check_options
from bodyfit.fit.follow import Followed, Pose, Seen
from bodyfit.fit.joint import FitSetup, prior_shape
from bodyfit.fit.pose_prior import log_rotation, pose_prior
from bodyfit.fit.solver import StopReason
from bodyfit.fit.track_certainty import Certainty
from bodyfit.fit.track_color import TrackColors
from bodyfit.fit.track_config import TrackConfig
from bodyfit.fit.track_effort import EffortLevel
from bodyfit.fit.track_estimate import TrackEstimate, TrackState, Usual
from bodyfit.fit.track_frame import FrameFit
from bodyfit.fit.track_hidden import HiddenParts
from bodyfit.fit.track_motion import Velocity
from bodyfit.fit.track_recovery import LEAST_GAIN, Recovery
from bodyfit.fit.track_return import Comeback, Return
from bodyfit.fit.track_search import PersonSearch, WholeSearch
from bodyfit.fit.track_sensors import LEAST_SEEN, WIDE_REACH_M, Sensors, check_depth, person_pixels
from bodyfit.fit.track_shape import TrackShape
from bodyfit.fit.view import View
from bodyfit.frame import Frame
from bodyfit.observe.follow import REACH_M

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

    from bodyfit.fit.blas import Unheld

FRAME_S = 1 / 30
LATE = 1.6
"""a frame is late when it comes after so many times the usual time"""
MORE_WHEN_LATE = 2
"""and then takes so many steps more"""


class Tracker:
    """Follows one person; give it each instant's frames in the order of time.

    Args:
        model: the body.
        sex: whose shapes are usual: female, male or neutral.
        clothing: tight, casual, loose or auto.
        config: settings.
        gravity_world: (3,) direction of gravity, or None where unknown.
        person: which one, from left to right, where several stand in the first frame.

    Raises:
        InputError: an option that does not exist.
    """

    def __init__(
        self,
        model: BodyModel,
        *,
        sex: str = "neutral",
        clothing: str = "auto",
        config: TrackConfig | None = None,
        gravity_world: NDArray[np.float64] | None = None,
        person: int | None = None,
    ) -> None:
        check_options(sex, clothing, "cpu")
        self.model, self.config = model, config or TrackConfig()
        self.setup = FitSetup(model, sex, clothing, self.config.fit)
        self.gravity_world, self.person = gravity_world, person
        self.prior = pose_prior(model.joint_names)
        self._sensors = Sensors()
        self._usual = Usual(self.config)
        self._effort = EffortLevel(self.config.effort)
        self._fit = FrameFit(self.setup, self.config, self.prior, self._sensors, self._effort, self._usual)
        self._certainty = Certainty(self._fit)
        self._whole = WholeSearch(self._fit, PersonSearch(self.setup, self.config, self.prior, gravity_world, person))
        self._pose: Pose | None = None
        self._velocity: Velocity | None = None
        self._time = -np.inf
        self._good_time = -np.inf
        self._searched = -np.inf
        self._tried = -np.inf
        """when the ways to stand were tried for a body that lay badly"""
        self._lost = True
        self._coasting = False
        self._count = 0
        self.views: tuple[View, ...] = ()
        """what was seen of the person in the last frame, thinned; none where nothing was followed"""
        up = np.array([0.0, 0.0, 1.0]) if gravity_world is None else -np.asarray(gravity_world, np.float64)
        comeback = Comeback(self.config.regain, self.config.fit, self.prior, model.joint_names)
        self._return = Return(comeback, self._sensors, up / np.linalg.norm(up))
        self._recovery = Recovery(self._fit, self._return)
        self._parts = HiddenParts(model)
        self._poor = 0
        """how often nothing better was found since the body lay as well as usual"""
        self._covered = False
        """whether something stood before the person in the last frame"""
        self._step_s = np.inf
        """time between frames where none is missing"""
        self._odd = 0
        self.colors = TrackColors(model, self.config.color) if self.config.color is not None else None
        """what was learnt of the person's colours; None where they are not asked for"""
        self._last: Followed | None = None
        """the body that the last frame was held against; None where nothing was"""
        self._blas: ThreadpoolController | Unheld | None = None

    # what is asked for

    def update(self, frames: Sequence[Frame], *, index: int | None = None) -> TrackEstimate:
        """Takes the frames of one instant, one of each sensor that has one.

        Raises:
            InputError: no frames, or an instant that is not later than the one before.
            FrameError: depth that is negative or not finite. After either the tracker is as it was.
        """
        if not frames:
            raise InputError("frames", "at least one sensor's frame", "none")
        now = float(frames[0].timestamp_s)
        if now <= self._time:
            raise InputError("frames", f"an instant after {self._time:.4f} s", f"{now:.4f} s")
        check_depth(frames)
        started = time.perf_counter()
        self.views, self._last = (), None
        times: dict[str, float] = {}
        told: list[str] = []
        if self._blas is None:
            self._blas = find_blas()
        with one_blas_thread(self._blas):
            if self._lost or self._pose is None:
                state, steps = self._search(frames, now, told, times)
            else:
                state, steps = self._follow(frames, now, told, times)
        self._time = now
        self._count += 1
        self._tell_hidden(state, told)
        times["all"] = time.perf_counter() - started
        if state is TrackState.TRACKED:
            self._effort.spent(times["all"], self.config.budget_s)
        return self._estimate(self._count - 1 if index is None else index, now, state, steps, told, times)

    def _tell_hidden(self, state: TrackState, told: list[str]) -> None:
        """What of the body is not seen: that part is a guess."""
        if state not in (TrackState.FOUND, TrackState.TRACKED) or self._last is None or self.shape is None:
            return
        told += self._parts.look(self.shape.mesh(self.config.regain.level), self._last.pose, self._last.views)

    @property
    def shape(self) -> TrackShape | None:
        """The followed person's shape; None until somebody was found."""
        return self._fit.shape

    @property
    def effort(self) -> str:
        """How much is done for a frame at present: a name of `track_config.EFFORTS`."""
        return self._effort.now.name

    # one frame

    def _follow(
        self, frames: Sequence[Frame], now: float, told: list[str], times: dict[str, float]
    ) -> tuple[TrackState, int]:
        assert self._pose is not None and self.shape is not None
        c, effort = self.config, self._effort.now
        dt = now - self._time
        self._step_s = min(1.02 * self._step_s, dt)
        # frames that were missed bring the next ones nearer to being lost: what can wait waits
        late = dt > LATE * self._step_s
        expected = self._predict(dt)
        widen = max(1.0, dt / FRAME_S)
        t0 = time.perf_counter()
        seen = self._fit.look(frames, expected, WIDE_REACH_M if widen > 2.5 else REACH_M)
        times["label"] = time.perf_counter() - t0
        uncovered, self._covered = self._covered, self._sensors.before >= LEAST_SEEN
        uncovered = uncovered and not self._covered
        person = person_pixels(seen)
        usual = self._usual.mean
        if sum(s.followed.person for s in seen) < LEAST_SEEN or (
            usual is not None and person < c.least_person * usual[2]
        ):
            back = self._come_back(frames, now, expected)
            if back is not None:
                return self._accept(*back, now, told, first=False)
            return self._coast(frames, seen, expected, now, told), 0
        if self._coasting and now - self._good_time > c.search_after_s:
            # limbs went on in the meantime: legs are easily taken for each other
            t0 = time.perf_counter()
            back = self._come_back(frames, now, expected)
            times["search"] = time.perf_counter() - t0
            if back is not None:
                return self._accept(*back, now, told, first=False)
        t0 = time.perf_counter()
        found = self._fit.descend(seen, expected, widen, effort.evaluations + (MORE_WHEN_LATE if late else 0))
        steps = found.evaluations
        good = self._usual.is_good(*found.fits)
        leapt, odd = False, not good or self._usual.is_odd(*found.fits)
        self._odd = self._odd + 1 if odd else 0
        self._poor = self._poor if odd else 0
        unsure = self._return.rivals is not None
        turn = self._odd % c.odd_every
        if unsure and (odd or not late):
            t0 = time.perf_counter()
            other = self._recovery.weighed(frames, now, found, self._pose, told, afresh=odd)
            if other is not None:
                (found, person, more), leapt = other, True
                steps += more
                good, odd = self._usual.is_good(*found.fits), self._usual.is_odd(*found.fits)
            times["search"] = time.perf_counter() - t0
        wider = odd and not unsure and not late and (turn == 1 or (turn == 2 and self._odd > c.arms_after))
        if not good or wider:
            for again in self._recovery.wider(
                frames, now - self._good_time, self._pose, expected, found,
                regain=self._odd % c.odd_every == 1, uncovered=uncovered,
            ):  # fmt: skip
                steps += again[2]
                if not good or self._usual.merit(*again[0].fits) > self._usual.merit(*found.fits):
                    found, person, _ = again
                    leapt = True
                    good = self._usual.is_good(*found.fits)
                if good and not self._usual.is_odd(*found.fits):
                    break
        times["solve"] = time.perf_counter() - t0
        self._last = found
        poor = not late and self._odd >= c.search_when_odd and self._usual.is_poor(found.overlap)
        bad = self._odd >= c.search_when_bad and self._usual.is_poor(found.overlap, 2.0)
        whole = poor and now - self._searched > c.search_every_odd_s
        if whole or (bad and now - self._tried > c.search_every_bad_s):
            self._tried = now
            if whole:
                self._odd, self._searched = 0, now
            back = self._come_back(frames, now, found.pose)
            if back is not None and self._usual.merit(*back[0].fits) > self._usual.merit(*found.fits) + LEAST_GAIN:
                self._odd = 0
                told.append("stands otherwise than they were taken to")
                return self._accept(*back, now, told, first=False)
            if whole or back is not None:
                self._return.rivals = None  # they are those of a body that was not taken
            self._poor += whole
            if whole and self._poor > 1 and not self._parts.obstructed:
                state, more = self._search_whole(frames, now, told, times, at_least=found)
                if state is not TrackState.LOST:
                    told.append("stands otherwise than they were taken to")
                    return state, steps + more
        if not self._usual.is_good(*found.fits):
            told.append(
                f"the body lies {found.gap_m * 1e3:.0f} mm from the readings and overlaps {found.overlap * 100:.0f} %"
            )
            return self._coast(frames, seen, expected, now, told), steps
        if self.colors is not None and leapt:
            self.colors.interrupt()
        elif self.colors is not None:
            t0 = time.perf_counter()
            found = self._last = self._with_colors(frames, found, expected, widen)
            times["color"] = time.perf_counter() - t0
        if leapt:
            self._certainty.forget()
        self._take(found, now, dt)
        if leapt:
            self._walk_on()  # a limb that was put elsewhere did not fly there
        t0 = time.perf_counter()
        if not unsure:
            self._learn(found, frames, person)
        times["shape"] = time.perf_counter() - t0
        if self.colors is not None:
            t0 = time.perf_counter()
            self._learn_colors(frames, found, steady=not leapt)
            times["color"] = times.get("color", 0.0) + time.perf_counter() - t0
        if now - self._good_time > 2.5 * FRAME_S and np.isfinite(self._good_time):
            told.append(f"followed again after {now - self._good_time:.2f} s")
        self._good_time, self._coasting = now, False
        return TrackState.TRACKED, steps

    def _predict(self, dt: float) -> Pose:
        assert self._pose is not None
        if self._velocity is None:
            return self._pose
        share = self.config.velocity_share * min(dt, self.config.longest_prediction_s)
        return self._velocity.from_here(self._pose, share)

    def _with_colors(self, frames: Sequence[Frame], found: Followed, expected: Pose, widen: float) -> Followed:
        """The pose that depth found, moved by what the person's colours say."""
        assert self.colors is not None
        if self._effort.short:
            self.colors.interrupt()
            return found
        problem = self._fit.problem(found, expected, widen)
        return self.colors.polish(frames, found, problem.mesh, found.held, problem)

    def _learn_colors(self, frames: Sequence[Frame], found: Followed, *, steady: bool) -> None:
        assert self.colors is not None and self.shape is not None and self._pose is not None
        ordinary = steady and self._usual.is_ordinary(*found.fits) and not self._usual.is_odd(*found.fits)
        if self._effort.short:
            return
        self.colors.learn(frames, self._pose, self.shape.mesh(self.config.stage.level), ordinary=ordinary)

    def _take(self, found: Followed, now: float, dt: float) -> None:
        assert self._pose is not None
        steady = now - self._good_time < self.config.longest_gap_s
        self._velocity = Velocity.between(self._pose, found.pose, dt) if steady else None
        self._pose = found.settled()
        self._certainty.take(found)
        self.views = found.views

    def _walk_on(self) -> None:
        """Who comes back walks on; of their limbs' motion nothing is known yet."""
        travel = self._return.travel() if self._return.rivals is not None else None
        self._velocity = None if travel is None else Velocity(np.zeros((self.model.num_joints, 3)), travel)

    def _learn(self, found: Followed, frames: Sequence[Frame], person: float) -> None:
        assert self.shape is not None and self._pose is not None
        if self._usual.is_odd(*found.fits):
            return
        self._usual.take(*found.fits, person)
        if not self.shape.frozen:
            self._fit.learn_shape(frames, found, self._pose, self._count)

    def _coast(
        self, frames: Sequence[Frame], seen: Sequence[Seen], expected: Pose, now: float, told: list[str]
    ) -> TrackState:
        """Nothing to follow in this frame: the body stays where it was expected."""
        gone, self._coasting = now - self._good_time, True
        readings = sum(int((f.depth[::16, ::16] > 0).sum()) for f in frames)
        if not readings:
            told.append("no depth in this frame")
        elif self._sensors.before > sum(s.followed.person for s in seen):
            told.append("something stands before the person")
        else:
            told.append("too little of the person is in sight")
        if self.colors is not None:
            self.colors.interrupt()
        if self._velocity is not None:
            self._velocity = self._velocity.unseen
        self._pose = expected
        self._certainty.go_on(expected, max(1.0, (now - self._time) / FRAME_S))
        if gone > self.config.lost_after_s and readings:
            self._lost = True
            self._velocity = None
            self._searched = now
            told.append(f"lost: nobody was followed for {gone:.2f} s")
            return TrackState.LOST
        return TrackState.COASTING

    # the whole picture

    def _search(
        self, frames: Sequence[Frame], now: float, told: list[str], times: dict[str, float]
    ) -> tuple[TrackState, int]:
        t0 = time.perf_counter()
        if self._pose is not None:
            back = self._come_back(frames, now, self._pose)
            times["search"] = time.perf_counter() - t0
            if back is not None:
                return self._accept(*back, now, told, first=False)
            # a search of the whole picture takes as long as many frames
            since = self._return.standing_since
            waits = since is None or now - since < self.config.whole_after_s
            early = now - self._searched < self.config.search_every_s
            if early or (waits and self._sensors.know_their_rooms(frames)):
                return TrackState.LOST, 0
        return self._search_whole(frames, now, told, times)

    def _search_whole(
        self, frames: Sequence[Frame], now: float, told: list[str], times: dict[str, float],
        at_least: Followed | None = None,
    ) -> tuple[TrackState, int]:  # fmt: skip
        """Looks for the person in the whole picture; a body that explains it no better than `at_least` is not taken."""
        self._searched = now
        out = self._whole.find(frames, now, self._pose, told, times, at_least)
        if out.body is None:
            return TrackState.LOST, 0
        self._last = out.body
        if not out.taken:
            return TrackState.LOST, out.body.evaluations
        return self._accept(out.body, out.person, now, told, first=out.first)

    def _come_back(self, frames: Sequence[Frame], now: float, expected: Pose) -> tuple[Followed, float] | None:
        """The person in any likely way to stand; None where they are not seen well enough."""
        assert self._pose is not None
        return self._recovery.come_back(frames, now, now - self._good_time, self._pose, expected)

    def _accept(
        self, found: Followed, person: float, now: float, told: list[str], *, first: bool
    ) -> tuple[TrackState, int]:
        """Goes on from a body that was found: followed again where the person was not lost yet."""
        assert self.shape is not None
        lost = self._lost
        if self.colors is not None:
            self.colors.interrupt()
        last, self._good_time = self._good_time, now
        self._last = found
        self.views = found.views
        self._pose = found.settled()
        self._certainty.forget()
        self._certainty.take(found)
        self._walk_on()
        if not self._usual.is_poor(found.overlap):
            self._usual.take(*found.fits, person)
        if first:
            self.shape.online.begin(found.pose.rotations)
        self._lost = self._coasting = False
        if lost and np.isfinite(last):
            told.append(f"found again after {now - last:.2f} s")
        elif now - last > 2.5 * FRAME_S and np.isfinite(last):
            told.append(f"followed again after {now - last:.2f} s")
        return TrackState.FOUND if lost else TrackState.TRACKED, found.evaluations

    def _estimate(
        self, index: int, now: float, state: TrackState, steps: int, told: list[str], times: dict[str, float]
    ) -> TrackEstimate:
        if self.shape is None:
            prior = prior_shape(self.setup)
            betas, cov, garments = prior.mean, prior.cov, {}
        else:
            (betas, cov), garments = self.shape.betas(), self.shape.garments()
        last = self._last
        how = (
            (float("inf"), 0.0, 0.0, StopReason.NO_EVIDENCE)
            if last is None
            else (*last.fits, last.covered, last.reason)
        )
        J = self.model.num_joints
        pose = np.zeros((J, 3)) if self._pose is None else log_rotation(self._pose.rotations)[0]
        transl = np.zeros(3) if self._pose is None else self._pose.transl
        joints = np.zeros((J, 3))
        if self._pose is not None and self.shape is not None:
            joints = self.shape.joints(self._pose.rotations, self._pose.transl, self.config.stage.level)
        return TrackEstimate(
            index, now, state, betas, np.sqrt(np.diagonal(cov)), pose, self._certainty.sd(J), transl.copy(),
            joints, garments, *how, steps, self.shape is not None and self.shape.frozen,
            tuple(told), times, 0 if self.colors is None else self.colors.pulled,
            self._parts.hidden if last is not None else PART_NAMES,
            self._parts.behind_body if last is not None else (),
        )  # fmt: skip
