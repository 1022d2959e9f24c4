"""Follows one person from frame to frame, faster than the sensor: each instant starts where the last one ended.

What is expected (the last pose and half of its motion) says which pixels can be the person's and where to start; a few
steps of Levenberg-Marquardt do the rest. The shape is held within a frame and sharpens between frames
(`bodyfit.fit.online_shape`). A person who is lost is told so, and searched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import SEXES, BodyModel
from bodyfit.errors import FrameError, InputError, PersonNotFoundError, SeveralPeopleError
from bodyfit.fit.blas import find_blas, one_blas_thread
from bodyfit.fit.config import CLOTHING
from bodyfit.fit.follow import Followed, Looker, Pose, Seen, descend
from bodyfit.fit.hypotheses import stance_pose
from bodyfit.fit.initialize import HALF_DEPTH_M, Shape, Starter
from bodyfit.fit.joint import FitSetup, Instant, find_joint, prior_shape, spheres_for
from bodyfit.fit.pose_prior import log_rotation, pose_prior
from bodyfit.fit.track_config import EFFORTS, TrackConfig
from bodyfit.fit.track_estimate import TrackEstimate, TrackState, Usual
from bodyfit.fit.track_limbs import arms_elsewhere
from bodyfit.fit.track_shape import TrackShape
from bodyfit.fit.view import View, depth_noise
from bodyfit.frame import Frame
from bodyfit.observe.follow import Follower, follower_of
from bodyfit.observe.observation import Observation, observe
from bodyfit.rotation import matrix_from_axis_angle, nearest_rotation

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

FRAME_S = 1 / 30
LEAST_SEEN = 40
"""grid pixels of the person, over all sensors, below which a frame says nothing of them"""
WIDE_REACH_M = 0.6
LIKELY_STANCES = ("arms_down", "walk_left", "walk_right")
"""how a person comes back, beside as they went"""
LEAST_GAIN = 0.02
"""a body that was found in the whole picture replaces the followed one when it explains this much more"""


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
        if sex not in SEXES:
            raise InputError("sex", f"one of {', '.join(SEXES)}", repr(sex))
        if clothing not in (*CLOTHING, "auto"):
            raise InputError("clothing", f"one of auto, {', '.join(CLOTHING)}", repr(clothing))
        self.model, self.config = model, config or TrackConfig()
        self.setup = FitSetup(model, sex, clothing, self.config.fit)
        self.gravity_world, self.person = gravity_world, person
        self.prior = pose_prior(model.joint_names)
        self.shape: TrackShape | None = None
        """None until somebody was found"""
        self._followers: dict[str, Follower] = {}
        self._strides: dict[str, int] = {}
        self._noise: dict[str, float] = {}
        self._looker = Looker()
        self._pose: Pose | None = None
        self._pose_sd = np.zeros((model.num_joints, 3))
        self._velocity: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        self._time = -np.inf
        self._good_time = -np.inf
        self._searched = -np.inf
        self._lost = True
        self._usual = Usual()
        self._effort = self.config.effort
        self._slow, self._quick = 0, 0
        self._count = 0
        self.views: tuple[View, ...] = ()
        """what was seen of the person in the last frame, thinned; none where nothing was followed"""
        self._odd = 0
        self._at_border: float | None = None
        self._before = 0
        self._gap = (float("inf"), 0.0)
        self._blas: ThreadpoolController | None = None

    # what is asked for

    def update(self, frames: Sequence[Frame], *, index: int | None = None) -> TrackEstimate:
        """Takes the frames of one instant, one of each sensor that has one.

        Raises:
            InputError: no frames, or an instant that is not later than the one before.
        """
        if not frames:
            raise InputError("frames", "at least one sensor's frame", "none")
        now = float(frames[0].timestamp_s)
        if now <= self._time:
            raise InputError("frames", f"an instant after {self._time:.4f} s", f"{now:.4f} s")
        started = time.perf_counter()
        self.views = ()
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
        times["all"] = time.perf_counter() - started
        if state is TrackState.TRACKED:
            self._spend(times["all"])
        return self._estimate(self._count - 1 if index is None else index, now, state, steps, told, times)

    @property
    def effort(self) -> str:
        """How much is done for a frame at present: a name of `track_config.EFFORTS`."""
        return EFFORTS[self._effort].name

    # one frame

    def _follow(
        self, frames: Sequence[Frame], now: float, told: list[str], times: dict[str, float]
    ) -> tuple[TrackState, int]:
        assert self._pose is not None and self.shape is not None
        c, effort = self.config, EFFORTS[self._effort]
        dt = now - self._time
        expected = self._predict(dt)
        widen = max(1.0, dt / FRAME_S)
        fast = widen > 2.5
        t0 = time.perf_counter()
        seen = self._look(frames, expected, WIDE_REACH_M if fast else None, effort.pixels, times)
        times["label"] = time.perf_counter() - t0
        person = sum(s.followed.person * s.view.stride**2 for s in seen)
        usual = self._usual.mean
        if sum(s.followed.person for s in seen) < LEAST_SEEN or (
            usual is not None and person < c.least_person * usual[2]
        ):
            before = self._before
            back = self._is_back(frames) if self._count % c.odd_every == 0 else None
            if back is not None:
                return self._accept(*back, now, told, first=False)
            self._before = before
            return self._coast(frames, seen, expected, now, told), 0
        t0 = time.perf_counter()
        found = self._descend(seen, expected, widen, effort.evaluations)
        steps = found.evaluations
        good = self._is_good(found, person)
        leapt, odd = False, not good or self._is_odd(found)
        self._odd = self._odd + 1 if odd else 0
        if not good or (odd and self._odd % c.odd_every == 1):
            for again in self._wider(frames, seen, expected, found, effort.pixels):
                steps += again[2]
                if not good or self._merit(again[0]) > self._merit(found):
                    found, person, _ = again
                    leapt = True
                    good = self._is_good(found, person)
                if good and not self._is_odd(found):
                    break
        times["solve"] = time.perf_counter() - t0
        self._gap = (found.gap_m, found.overlap)
        if self._odd >= c.search_when_odd and self._is_poor(found) and now - self._searched > c.search_every_odd_s:
            self._odd = 0
            state, more = self._search_whole(frames, now, told, times, at_least=found)
            if state is TrackState.FOUND:
                return state, steps + more
        if not self._is_good(found, person):
            told.append(
                f"the body lies {found.gap_m * 1e3:.0f} mm from the readings and overlaps {found.overlap * 100:.0f} %"
            )
            return self._coast(frames, seen, expected, now, told), steps
        self._take(found, now, dt)
        if leapt:
            self._velocity = None  # a limb that was put elsewhere did not fly there
        t0 = time.perf_counter()
        self._learn(found, seen, person)
        times["shape"] = time.perf_counter() - t0
        if now - self._good_time > 2.5 * FRAME_S and np.isfinite(self._good_time):
            told.append(f"followed again after {now - self._good_time:.2f} s")
        self._good_time = now
        return TrackState.TRACKED, steps

    def _predict(self, dt: float) -> Pose:
        assert self._pose is not None
        if self._velocity is None:
            return self._pose
        share = self.config.velocity_share * min(dt, self.config.longest_prediction_s)
        turn, move = self._velocity
        R = nearest_rotation(self._pose.rotations @ matrix_from_axis_angle(turn * share))
        return Pose(R, self._pose.transl + move * share)

    def _look(
        self, frames: Sequence[Frame], expected: Pose, reach_m: float | None, pixels: int, times: dict[str, float]
    ) -> list[Seen]:
        assert self.shape is not None
        mesh = self.shape.mesh(self.config.stage.level)
        self._before = 0
        out = []
        for frame in frames:
            follower = self._followers.get(frame.sensor)
            if follower is None or frame.depth.shape != (follower.camera.height, follower.camera.width):
                continue
            stride = self._strides.get(frame.sensor, 4)
            reach = {} if reach_m is None else {"reach_m": reach_m}
            seen = self._looker.look(
                mesh, expected, frame, follower, stride, self._noise[frame.sensor], **{"reach_m": 0.30, **reach}
            )
            if seen is None:
                continue
            full = seen.followed.person * stride**2
            if full:
                share = pixels / max(len(self._followers), 1)
                wanted = max(1, int(np.sqrt(full / max(share, 1)) + 0.35))
                self._strides[frame.sensor] = wanted
            self._before += seen.followed.before
            if seen.followed.person >= LEAST_SEEN // 2:
                out.append(seen)
        return out

    def _descend(self, seen: Sequence[Seen], expected: Pose, widen: float, evaluations: int) -> Followed:
        c = self.config
        assert self.shape is not None
        return descend(
            self.shape.mesh(c.stage.level), [s.view for s in seen], expected, c.stage, c.fit, self.prior,
            self.shape.clothing.sigma_behind_m, evaluations=evaluations, expected=expected,
            sigma_turn_rad=c.sigma_turn_rad * widen, sigma_move_m=c.sigma_move_m * widen,
            still_rad=c.still_rad, still_m=c.still_m, spheres=spheres_for(self.setup, c.stage),
        )  # fmt: skip

    def _wider(
        self, frames: Sequence[Frame], seen: Sequence[Seen], expected: Pose, found: Followed, pixels: int
    ) -> Iterator[tuple[Followed, float, int]]:
        """The frame again: wider and coarser; and, where that was tried before, with an arm elsewhere."""
        again = self._regain(frames, seen, expected, pixels)
        if again is not None:
            yield again
            found = again[0]
        if self._odd < self.config.arms_after:
            return
        c, shape = self.config, self.shape
        assert shape is not None
        moved = arms_elsewhere(
            shape.mesh(c.regain.level), [s.view for s in seen], found.pose, c.regain, c.fit, self.prior,
            shape.clothing.sigma_behind_m, iterations=5,
        )  # fmt: skip
        if moved is not None:
            settled = self._settled(frames, moved, pixels, 0)
            if settled is not None:
                yield settled

    def _regain(
        self, frames: Sequence[Frame], seen: Sequence[Seen], expected: Pose, pixels: int
    ) -> tuple[Followed, float, int] | None:
        """The frame once more, wider and coarser, from where the body was expected and from where it was."""
        c = self.config
        assert self._pose is not None and self.shape is not None
        best: Followed | None = None
        steps = 0
        wide = self._look(frames, expected, WIDE_REACH_M, pixels, {}) or list(seen)
        for start in (expected, self._pose):
            coarse = descend(
                self.shape.mesh(c.regain.level), [s.view for s in wide], start, c.regain, c.fit, self.prior,
                self.shape.clothing.sigma_behind_m, evaluations=c.regain.iterations, expected=None,
            )  # fmt: skip
            steps += coarse.evaluations
            if best is None or coarse.equations.cost[0] < best.equations.cost[0]:
                best = coarse
        assert best is not None
        return self._settled(frames, best.pose, pixels, steps)

    def _settled(
        self, frames: Sequence[Frame], pose: Pose, pixels: int, steps: int
    ) -> tuple[Followed, float, int] | None:
        """A pose that was come by otherwise, followed as usual: result, person pixels, steps."""
        near = self._look(frames, pose, None, pixels, {})
        if not near:
            return None
        fine = self._descend(near, pose, 3.0, 4)
        return fine, float(sum(s.followed.person * s.view.stride**2 for s in near)), steps + fine.evaluations

    def _merit(self, found: Followed) -> float:
        """How well a body explains a frame: an arm that is followed again shows in the outline first."""
        return found.overlap - found.gap_m / self.config.worst_gap_m

    def _is_good(self, found: Followed, person: float) -> bool:
        c, usual = self.config, self._usual
        if found.gap_m > c.worst_gap_m or found.overlap < c.least_overlap:
            return False
        if usual.mean is None or usual.count < 5:
            return True
        mean, spread = usual.mean, usual.deviation
        return bool(
            found.gap_m < max(0.02, mean[0] + c.unusual * spread[0])
            and found.overlap > min(0.75, mean[1] - c.unusual * spread[1])
        )

    def _take(self, found: Followed, now: float, dt: float) -> None:
        assert self._pose is not None
        before = self._pose
        if now - self._good_time < 2.5 * FRAME_S:
            turn = log_rotation(np.swapaxes(before.rotations, 1, 2) @ found.pose.rotations)[0] / dt
            self._velocity = (turn, (found.pose.transl - before.transl) / dt)
        else:
            self._velocity = None
        self._settle_pose(found)
        self.views = found.views

    def _is_odd(self, found: Followed) -> bool:
        """Whether a limb may have been left behind: less is explained than usual, but more than where nobody is."""
        usual = self._usual
        if usual.mean is None or usual.count < 5:
            return False
        mean, spread = usual.mean, usual.deviation
        return bool(
            found.overlap < mean[1] - self.config.odd * spread[1] - 0.01
            or found.gap_m > mean[0] + self.config.odd * spread[0] + 0.001
        )

    def _is_poor(self, found: Followed) -> bool:
        """Whether so much less is explained than usual that the body may stand quite otherwise."""
        mean = self._usual.mean
        return mean is not None and found.overlap < mean[1] - self.config.poor

    def _settle_pose(self, found: Followed) -> None:
        """The pose and how well it is known."""
        self._pose = Pose(nearest_rotation(found.pose.rotations), found.pose.transl)
        joints = len(self._pose.rotations)
        cov = np.linalg.inv(found.equations.A[0] + 1e-9 * np.eye(found.equations.A.shape[1]))
        self._pose_sd = np.sqrt(np.maximum(np.diagonal(cov)[: 3 * joints], 0)).reshape(joints, 3)

    def _learn(self, found: Followed, seen: Sequence[Seen], person: float) -> None:
        assert self.shape is not None and self._pose is not None
        if self._is_odd(found):
            return
        self._usual.take((found.gap_m, found.overlap, person))
        online = self.shape.online
        if online.frozen:
            return
        usual = self._usual.mean
        ordinary = usual is not None and found.gap_m < 1.5 * usual[0] and found.overlap > 0.9 * usual[1]
        if ordinary and online.is_new(self._pose.rotations):
            online.add(self._pose.rotations, self._pose.transl, [s.view for s in seen])
        elif not online.settled or self._count % self.config.relinearize_every == 0:
            online.look_again()

    def _coast(
        self, frames: Sequence[Frame], seen: Sequence[Seen], expected: Pose, now: float, told: list[str]
    ) -> TrackState:
        """Nothing to follow in this frame: the body stays where it was expected."""
        gone = now - self._good_time
        readings = sum(int((f.depth[::16, ::16] > 0).sum()) for f in frames)
        if not readings:
            told.append("no depth in this frame")
        elif self._before > sum(s.followed.person for s in seen):
            told.append("something stands before the person")
        else:
            told.append("too little of the person is in sight")
        if self._velocity is not None:
            turn, move = self._velocity
            self._velocity = (0.5 * turn, 0.9 * move)  # who walks walks on; limbs are not thrown about
        self._pose = expected
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
            back = self._is_back(frames)
            times["solve"] = time.perf_counter() - t0
            if back is not None:
                return self._accept(*back, now, told, first=False)
            if not self._worth_searching(frames, now):
                return TrackState.LOST, 0
        return self._search_whole(frames, now, told, times)

    def _search_whole(
        self, frames: Sequence[Frame], now: float, told: list[str], times: dict[str, float],
        at_least: Followed | None = None,
    ) -> tuple[TrackState, int]:  # fmt: skip
        """Looks for the person in the whole picture; a body that explains it no better than `at_least` is not taken."""
        t0 = time.perf_counter()
        self._searched = now
        observations: list[Observation] = []
        reason = "nobody found"
        for frame in frames:
            try:
                observations.append(observe(frame, gravity_world=self.gravity_world, person=self.person))
            except (PersonNotFoundError, SeveralPeopleError, FrameError) as error:
                reason = str(error)
        times["observe"] = time.perf_counter() - t0
        if not observations:
            told.append(f"nobody found: {reason}")
            return TrackState.LOST, 0
        first = self.shape is None
        cut = any({"left", "right"} & o.cut_off for o in observations)
        if cut and not first and at_least is None:
            self._at_border = now if self._at_border is None else self._at_border
            if now - self._at_border < self.config.wait_at_border_s:
                told.append("somebody at the picture's border: waiting for all of them")
                return TrackState.LOST, 0
        self._at_border = None
        t0 = time.perf_counter()
        pose = self._first(observations, now) if first else self._pose
        assert pose is not None
        for o in observations:
            self._meet(o)
        tries: list[Callable[[], Pose]] = (
            [lambda: pose]
            if first
            else [lambda: self._quick_search(observations), lambda: self._search_all(observations)]
        )
        out: tuple[Followed, float] | None = None
        for attempt in tries:
            start = attempt()
            seen = self._look(frames, start, None, EFFORTS[self._effort].pixels, times)
            if not seen:
                continue
            found = self._descend(seen, start, 3.0, 6)
            person = float(sum(s.followed.person * s.view.stride**2 for s in seen))
            if out is None or found.overlap > out[0].overlap:
                out = found, person
            if self._is_good(found, person) and not self._is_poor(found):
                break
        times["search"] = time.perf_counter() - t0
        if out is None:
            told.append("nobody found: the body is not in the picture")
            return TrackState.LOST, 0
        found, person = out
        if at_least is not None and self._merit(found) < self._merit(at_least) + LEAST_GAIN:
            return TrackState.LOST, found.evaluations
        self._gap = (found.gap_m, found.overlap)
        if found.gap_m > self.config.worst_gap_m or found.overlap < self.config.least_overlap:
            told.append(
                f"nobody found: the best body lies {found.gap_m * 1e3:.0f} mm from the readings and overlaps "
                f"{found.overlap * 100:.0f} %"
            )
            return TrackState.LOST, found.evaluations
        return self._accept(found, person, now, told, first=first)

    def _accept(
        self, found: Followed, person: float, now: float, told: list[str], *, first: bool
    ) -> tuple[TrackState, int]:
        """Goes on from a body that was found."""
        assert self.shape is not None
        last, self._good_time = self._good_time, now
        self._gap = (found.gap_m, found.overlap)
        self._pose = found.pose
        self.views = found.views
        self._settle_pose(found)
        self._velocity = None
        if not self._is_poor(found):
            self._usual.take((found.gap_m, found.overlap, person))
        if first:
            self.shape.online.begin(found.pose.rotations)
        self._lost = False
        if np.isfinite(last):
            told.append(f"found again after {now - last:.2f} s")
        return TrackState.FOUND, found.evaluations

    def _is_back(self, frames: Sequence[Frame]) -> tuple[Followed, float] | None:
        """Whether the person stands where they were lost, as after something passed before them, or where something
        stands before the room by now; in the pose that they had."""
        assert self._pose is not None
        pixels, usual, last = EFFORTS[self._effort].pixels, self._usual.mean, self._pose
        if usual is None:
            return None
        for pose in (last, self._moved_to_readings(frames, last)):
            if pose is None:
                continue
            seen = self._look(frames, pose, WIDE_REACH_M, pixels, {})
            if not seen or sum(s.followed.person * s.view.stride**2 for s in seen) < 0.5 * usual[2]:
                continue
            self._pose = pose
            again = self._regain(frames, seen, pose, pixels)
            self._pose = last
            if again is not None and self._is_good(again[0], again[1]):
                return again[0], again[1]
        return None

    def _moved_to_readings(self, frames: Sequence[Frame], pose: Pose) -> Pose | None:
        """The pose over the middle of what stands before the room; None where too little does, or it is there."""
        assert self.shape is not None
        points, area, eye = [], 0.0, np.zeros(3)
        for frame in frames:
            follower = self._followers.get(frame.sensor)
            if follower is not None and frame.depth.shape == follower.background.shape:
                size, here = follower.standing_out(frame)
                area, eye = area + size, frame.T_world_depth[:3, 3]
                points.append(here)
        if area < self.config.standing_out_m2:
            return None
        middle = np.median(np.concatenate(points), axis=0)
        root = self.shape.mesh(self.config.stage.level).joint_template[0] + pose.transl
        up = np.array([0.0, 0.0, 1.0]) if self.gravity_world is None else -np.asarray(self.gravity_world)
        shift = middle - root
        shift -= up * (shift @ up)
        # a body's middle lies behind what is seen of it
        away = middle - eye
        away -= up * (away @ up)
        shift += HALF_DEPTH_M * away / max(float(np.linalg.norm(away)), 1e-6)
        if float(np.linalg.norm(shift)) < 0.1:
            return None
        return Pose(pose.rotations, pose.transl + shift)

    def _worth_searching(self, frames: Sequence[Frame], now: float) -> bool:
        """Whether somebody may stand there: a search takes as long as many frames."""
        if now - self._searched < self.config.search_every_s:
            return False
        for frame in frames:
            follower = self._followers.get(frame.sensor)
            if follower is None or not follower.sees(frame, frame.mask is not None):
                return True
            if follower.standing_out(frame)[0] > self.config.standing_out_m2:
                return True
        return False

    def _first(self, observations: list[Observation], now: float) -> Pose:
        instant = Instant(0, now, tuple(observations))
        clothing, found = find_joint(self.setup, [instant])
        self.shape = TrackShape(self.setup, self.config, self.prior, clothing, found.shape, found.shape_cov)
        return Pose(found.rotations[0], found.transl[0])

    def _starter(self, *, limb_rounds: int) -> Starter:
        assert self.shape is not None
        betas, cov = self.shape.betas()
        config = replace(self.config.search, limb_rounds=limb_rounds)
        return Starter(self.model, Shape(betas, cov + 1e-6 * np.eye(len(cov))), self.prior, self.shape.clothing, config)

    def _quick_search(self, observations: list[Observation]) -> Pose:
        """The last pose and an ordinary one, in every heading, where the person is seen."""
        assert self._pose is not None
        names = self.model.joint_names
        poses = [log_rotation(self._pose.rotations)[0], *(stance_pose(names, s) for s in LIKELY_STANCES)]
        start = self._starter(limb_rounds=0).search_poses(observations, poses)
        return Pose(start.rotations, start.transl)

    def _search_all(self, observations: list[Observation]) -> Pose:
        """A cold start, but for the shape, which is known."""
        assert self._pose is not None
        known = [log_rotation(self._pose.rotations)[0]]
        start = self._starter(limb_rounds=self.config.search.limb_rounds).start(observations, known)
        return Pose(start.rotations, start.transl)

    def _meet(self, observation: Observation) -> None:
        """What is known of a sensor from now on; its room is kept, where it was seen before, behind the person."""
        new = follower_of(observation)
        old = self._followers.get(observation.sensor)
        if old is not None and np.array_equal(old.T_world_depth, new.T_world_depth):
            unseen = (new.background == 0) & (old.background > 0)
            new.background[unseen] = old.background[unseen]
        self._followers[observation.sensor] = new
        person = int(observation.person.sum())
        share = EFFORTS[self._effort].pixels / max(len(self._followers), 1)
        self._strides[observation.sensor] = max(1, int(np.sqrt(person / max(share, 1)) + 0.35))
        noise = depth_noise(observation.depth, observation.person)
        if observation.noise is not None and observation.noise.stereo:
            noise = observation.noise.sigma(float(np.median(observation.depth[observation.person])))
        self._noise[observation.sensor] = noise

    # time

    def _spend(self, seconds: float) -> None:
        """Less is done for a frame after three that took too long, more after thirty that took half."""
        budget = self.config.budget_s
        if budget is None:
            return
        self._slow = self._slow + 1 if seconds > budget else 0
        self._quick = self._quick + 1 if seconds < 0.55 * budget else 0
        if self._slow >= 3 and self._effort < len(EFFORTS) - 1:
            self._effort, self._slow, self._quick = self._effort + 1, 0, 0
        elif self._quick >= 30 and self._effort > self.config.effort:
            self._effort, self._slow, self._quick = self._effort - 1, 0, 0

    def _estimate(
        self, index: int, now: float, state: TrackState, steps: int, told: list[str], times: dict[str, float]
    ) -> TrackEstimate:
        if self.shape is None:
            prior = prior_shape(self.setup)
            betas, cov, garments = prior.mean, prior.cov, {}
        else:
            (betas, cov), garments = self.shape.betas(), self.shape.garments()
        J = self.model.num_joints
        pose = np.zeros((J, 3)) if self._pose is None else log_rotation(self._pose.rotations)[0]
        transl = np.zeros(3) if self._pose is None else self._pose.transl
        return TrackEstimate(
            index, now, state, betas, np.sqrt(np.diagonal(cov)), pose, self._pose_sd.copy(), transl.copy(),
            self._joints(), garments, *self._gap, steps, self.shape is not None and self.shape.frozen,
            tuple(told), times,
        )  # fmt: skip

    def _joints(self) -> NDArray[np.float64]:
        from bodyfit.kernels.body import joint_motions

        J = self.model.num_joints
        if self._pose is None or self.shape is None:
            return np.zeros((J, 3))
        joints = self.shape.mesh(self.config.stage.level).joint_template
        G, posed = np.empty((J, 3, 3)), np.empty((J, 3))
        joint_motions(
            self._pose.rotations, joints, self.model.parents, np.eye(3), np.zeros(3), self._pose.transl, G, posed
        )
        return posed
