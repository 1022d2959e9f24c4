"""Follows one person from frame to frame, faster than the sensor: each instant starts where the last one ended.

What is expected (the last pose, and most of its motion gone on) says which pixels can be the person's and where to
start; a few steps of Levenberg-Marquardt do the rest. The shape is held within a frame and sharpens between frames
(`bodyfit.fit.online_shape`). A person who is lost is told so, and searched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import SEXES, BodyModel
from bodyfit.body.skeleton import PART_NAMES
from bodyfit.errors import FrameError, InputError
from bodyfit.fit.blas import find_blas, one_blas_thread
from bodyfit.fit.config import CLOTHING
from bodyfit.fit.follow import Followed, Pose, Seen, descend
from bodyfit.fit.joint import FitSetup, prior_shape, spheres_for
from bodyfit.fit.pose_prior import log_rotation, pose_prior
from bodyfit.fit.solver import StopReason
from bodyfit.fit.track_config import EFFORTS, TrackConfig
from bodyfit.fit.track_estimate import TrackEstimate, TrackState, Usual
from bodyfit.fit.track_hidden import HiddenParts, names_of
from bodyfit.fit.track_limbs import arms_elsewhere
from bodyfit.fit.track_return import Comeback, Return
from bodyfit.fit.track_search import PersonSearch
from bodyfit.fit.track_sensors import LEAST_SEEN, WIDE_REACH_M, Sensors, person_pixels
from bodyfit.fit.track_shape import TrackShape
from bodyfit.fit.view import View
from bodyfit.frame import Frame
from bodyfit.observe.follow import REACH_M
from bodyfit.rotation import matrix_from_axis_angle, nearest_rotation

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

FRAME_S = 1 / 30
LATE = 1.6
"""a frame is late when it comes after so many times the usual time"""
MORE_WHEN_LATE = 2
"""and then takes so many steps more"""
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
        self._sensors = Sensors()
        self._person = PersonSearch(self.setup, self.config, self.prior, gravity_world, person)
        self._pose: Pose | None = None
        self._pose_sd = np.zeros((model.num_joints, 3))
        self._velocity: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        self._time = -np.inf
        self._good_time = -np.inf
        self._searched = -np.inf
        self._lost = True
        self._coasting = False
        self._usual = Usual(self.config)
        self._effort = self.config.effort
        self._slow, self._quick = 0, 0
        self._count = 0
        self.views: tuple[View, ...] = ()
        """what was seen of the person in the last frame, thinned; none where nothing was followed"""
        up = np.array([0.0, 0.0, 1.0]) if gravity_world is None else -np.asarray(gravity_world, np.float64)
        comeback = Comeback(self.config.regain, self.config.fit, self.prior, model.joint_names)
        self._return = Return(comeback, self._sensors, up / np.linalg.norm(up))
        self._parts = HiddenParts(model)
        self._poor = 0
        """how often nothing better was found since the body lay as well as usual"""
        self._covered = False
        """whether something stood before the person in the last frame"""
        self._step_s = np.inf
        """time between frames where none is missing"""
        self._odd = 0
        self._at_border: float | None = None
        self._last: Followed | None = None
        """the body that the last frame was held against; None where nothing was"""
        self._blas: ThreadpoolController | None = None

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
        for frame in frames:
            low, high = float(frame.depth.min()), float(frame.depth.max())
            if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
                found = "NaN or infinity" if not (np.isfinite(low) and np.isfinite(high)) else f"{low:g} m"
                raise FrameError(f"depth of {frame.sensor}", "finite metres, 0 for no reading", found)
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
            self._spend(times["all"])
        return self._estimate(self._count - 1 if index is None else index, now, state, steps, told, times)

    def _tell_hidden(self, state: TrackState, told: list[str]) -> None:
        """What of the body is not seen: that part is a guess."""
        if state not in (TrackState.FOUND, TrackState.TRACKED) or self._last is None or self.shape is None:
            return
        gone, back = self._parts.look(self.shape.mesh(self.config.regain.level), self._last.pose, self._last.views)
        if gone:
            told.append(f"not seen any more, and guessed: {names_of(gone)}")
        if back:
            told.append(f"seen again: {names_of(back)}")

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
        self._step_s = min(1.02 * self._step_s, dt)
        # frames that were missed bring the next ones nearer to being lost: what can wait waits
        late = dt > LATE * self._step_s
        expected = self._predict(dt)
        widen = max(1.0, dt / FRAME_S)
        t0 = time.perf_counter()
        seen = self._look(frames, expected, WIDE_REACH_M if widen > 2.5 else REACH_M)
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
        found = self._descend(seen, expected, widen, effort.evaluations + (MORE_WHEN_LATE if late else 0))
        steps = found.evaluations
        good = self._usual.is_good(*found.fits)
        leapt, odd = False, not good or self._usual.is_odd(*found.fits)
        self._odd = self._odd + 1 if odd else 0
        self._poor = self._poor if odd else 0
        unsure = self._return.rivals is not None
        turn = self._odd % c.odd_every
        if unsure and (odd or not late):
            t0 = time.perf_counter()
            other = self._weighed(frames, now, found, told, afresh=odd)
            if other is not None:
                (found, person, more), leapt = other, True
                steps += more
                good, odd = self._usual.is_good(*found.fits), self._usual.is_odd(*found.fits)
            times["search"] = time.perf_counter() - t0
        wider = odd and not unsure and not late and (turn == 1 or (turn == 2 and self._odd > c.arms_after))
        if not good or wider:
            for again in self._wider(frames, expected, found, uncovered=uncovered):
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
        if poor and now - self._searched > c.search_every_odd_s:
            self._odd, self._searched = 0, now
            back = self._come_back(frames, now, found.pose)
            if back is not None and self._usual.merit(*back[0].fits) > self._usual.merit(*found.fits) + LEAST_GAIN:
                told.append("stands otherwise than they were taken to")
                return self._accept(*back, now, told, first=False)
            self._return.rivals = None
            self._poor += 1
            if self._poor > 1 and not self._parts.hidden:
                state, more = self._search_whole(frames, now, told, times, at_least=found)
                if state is not TrackState.LOST:
                    told.append("stands otherwise than they were taken to")
                    return state, steps + more
        if not self._usual.is_good(*found.fits):
            told.append(
                f"the body lies {found.gap_m * 1e3:.0f} mm from the readings and overlaps {found.overlap * 100:.0f} %"
            )
            return self._coast(frames, seen, expected, now, told), steps
        self._take(found, now, dt)
        if leapt:
            self._walk_on()  # a limb that was put elsewhere did not fly there
        t0 = time.perf_counter()
        if not unsure:
            self._learn(found, seen, person)
        times["shape"] = time.perf_counter() - t0
        if now - self._good_time > 2.5 * FRAME_S and np.isfinite(self._good_time):
            told.append(f"followed again after {now - self._good_time:.2f} s")
        self._good_time, self._coasting = now, False
        return TrackState.TRACKED, steps

    def _predict(self, dt: float) -> Pose:
        assert self._pose is not None
        if self._velocity is None:
            return self._pose
        share = self.config.velocity_share * min(dt, self.config.longest_prediction_s)
        turn, move = self._velocity
        R = nearest_rotation(self._pose.rotations @ matrix_from_axis_angle(turn * share))
        return Pose(R, self._pose.transl + move * share)

    def _look(self, frames: Sequence[Frame], expected: Pose, reach_m: float = REACH_M) -> list[Seen]:
        assert self.shape is not None
        mesh = self.shape.mesh(self.config.stage.level)
        seen = self._sensors.look(mesh, frames, expected, EFFORTS[self._effort].pixels, reach_m)
        self._usual.noise_m = self._sensors.noise_m
        return seen

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
        self, frames: Sequence[Frame], expected: Pose, found: Followed, *, uncovered: bool
    ) -> Iterator[tuple[Followed, float, int]]:
        """The frame again: wider and coarser; then, where nothing is followed or what was hidden until now went on
        meanwhile, in every likely way; and, where that was tried before, with an arm elsewhere."""
        assert self.shape is not None and self._pose is not None
        c, shape = self.config, self.shape
        seen = self._sensors.look_coarsely(shape.mesh(c.regain.level), frames, expected, c.regain.pixels)
        if not seen:
            return
        good = self._usual.is_good(*found.fits)
        if not good or self._odd % c.odd_every == 1:
            again = self._regain(frames, seen, expected)
            if again is not None:
                yield again
                good = self._usual.is_good(*again[0].fits)
            if not good or uncovered:
                back = self._come_back(frames, float(frames[0].timestamp_s), expected)
                if back is not None:
                    yield *back, 0
            return
        moved = arms_elsewhere(
            shape.mesh(c.regain.level), [s.view for s in seen], found.pose, c.regain, c.fit, self.prior,
            shape.clothing.sigma_behind_m, iterations=3,
        )  # fmt: skip
        if moved is not None:
            settled = self._settled(frames, moved, 0)
            if settled is not None:
                yield settled

    def _regain(
        self, frames: Sequence[Frame], seen: Sequence[Seen], expected: Pose
    ) -> tuple[Followed, float, int] | None:
        """The frame once more, wider and coarser, from where the body was expected and from where it was."""
        c = self.config
        assert self._pose is not None and self.shape is not None
        best: Followed | None = None
        steps = 0
        for start in (expected,) if self._velocity is None else (expected, self._pose):
            coarse = descend(
                self.shape.mesh(c.regain.level), [s.view for s in seen], start, c.regain, c.fit, self.prior,
                self.shape.clothing.sigma_behind_m, evaluations=c.regain.iterations, expected=None,
            )  # fmt: skip
            steps += coarse.evaluations
            if best is None or coarse.equations.cost[0] < best.equations.cost[0]:
                best = coarse
        assert best is not None
        return self._settled(frames, best.pose, steps)

    def _settled(self, frames: Sequence[Frame], pose: Pose, steps: int) -> tuple[Followed, float, int] | None:
        """A pose that was come by otherwise, followed as usual: result, person pixels, steps."""
        near = self._look(frames, pose)
        if sum(s.followed.person for s in near) > 2 * EFFORTS[self._effort].pixels:
            near = self._look(frames, pose)  # they are nearer by now, and the grid was too fine
        if not near:
            return None
        fine = self._descend(near, pose, 3.0, 4)
        return fine, person_pixels(near), steps + fine.evaluations

    def _take(self, found: Followed, now: float, dt: float) -> None:
        assert self._pose is not None
        before = self._pose
        if now - self._good_time < self.config.longest_gap_s:
            turn = log_rotation(np.swapaxes(before.rotations, 1, 2) @ found.pose.rotations)[0] / dt
            self._velocity = (turn, (found.pose.transl - before.transl) / dt)
        else:
            self._velocity = None
        self._settle_pose(found)
        self.views = found.views

    def _walk_on(self) -> None:
        """Who comes back walks on; of their limbs' motion nothing is known yet."""
        travel = self._return.travel() if self._return.rivals is not None else None
        self._velocity = None if travel is None else (np.zeros((self.model.num_joints, 3)), travel)

    def _settle_pose(self, found: Followed) -> None:
        """The pose and how well it is known."""
        self._pose = Pose(nearest_rotation(found.pose.rotations), found.pose.transl)
        joints = len(self._pose.rotations)
        cov = np.linalg.inv(found.equations.A[0] + 1e-9 * np.eye(found.equations.A.shape[1]))
        self._pose_sd = np.sqrt(np.maximum(np.diagonal(cov)[: 3 * joints], 0)).reshape(joints, 3)

    def _learn(self, found: Followed, seen: Sequence[Seen], person: float) -> None:
        assert self.shape is not None and self._pose is not None
        if self._usual.is_odd(*found.fits):
            return
        self._usual.take(*found.fits, person)
        online = self.shape.online
        if online.frozen:
            return
        if self._usual.is_ordinary(*found.fits) and online.is_new(self._pose.rotations):
            online.add(self._pose.rotations, self._pose.transl, [s.view for s in seen])
        elif not online.settled or self._count % self.config.relinearize_every == 0:
            online.look_again()

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
        t0 = time.perf_counter()
        self._searched = now
        observations, reason = self._person.look(frames)
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
        for o in observations:
            self._sensors.meet(o, EFFORTS[self._effort].pixels)
        tries: Sequence[Callable[[], Pose]]
        if first:
            self.shape, pose = self._person.first(observations, now)
            tries = [lambda: pose]
        else:
            assert self.shape is not None and self._pose is not None
            tries = self._person.again(self.shape, observations, self._pose)
        out: tuple[Followed, float] | None = None
        for attempt in tries:
            start = attempt()
            seen = self._look(frames, start)
            if not seen:
                continue
            found = self._descend(seen, start, 3.0, 6)
            person = person_pixels(seen)
            if out is None or found.overlap > out[0].overlap:
                out = found, person
            if self._usual.is_good(*found.fits) and not self._usual.is_poor(found.overlap):
                break
        times["search"] = time.perf_counter() - t0
        if first and (out is None or not self._usual.is_anybody(*out[0].fits)):
            self.shape = None  # nobody's
        if out is None:
            told.append("nobody found: the body is not in the picture")
            return TrackState.LOST, 0
        found, person = out
        if at_least is not None and self._usual.merit(*found.fits) < self._usual.merit(*at_least.fits) + LEAST_GAIN:
            return TrackState.LOST, found.evaluations
        self._last = found
        if not self._usual.is_anybody(*found.fits):
            told.append(
                f"nobody found: the best body lies {found.gap_m * 1e3:.0f} mm from the readings and overlaps "
                f"{found.overlap * 100:.0f} %"
            )
            return TrackState.LOST, found.evaluations
        return self._accept(found, person, now, told, first=first)

    def _accept(
        self, found: Followed, person: float, now: float, told: list[str], *, first: bool
    ) -> tuple[TrackState, int]:
        """Goes on from a body that was found: followed again where the person was not lost yet."""
        assert self.shape is not None
        lost = self._lost
        last, self._good_time = self._good_time, now
        self._last = found
        self._pose = found.pose
        self.views = found.views
        self._settle_pose(found)
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

    def _come_back(self, frames: Sequence[Frame], now: float, expected: Pose) -> tuple[Followed, float] | None:
        """The person, where something stands before the room by now or where they were expected: in the pose that they
        had or a likely one, in any heading. None where they are not seen well enough."""
        assert self._pose is not None and self.shape is not None
        usual = self._usual.mean
        if usual is None:
            return None
        mesh = self.shape.mesh(self.config.regain.level)
        before = self._sensors.before
        ways = self._return.ways(frames, now, now - self._good_time, mesh, self._pose, expected)
        self._sensors.before = before
        if ways is None:
            return None
        best: tuple[Followed, float] | None = None
        chosen = 0
        for i in range(min(self.config.ways_tried, len(ways))):
            if ways.cost[i] > 2 * ways.cost[0]:
                break
            settled = self._settled(frames, ways.pose(i), 0)
            if settled is None or settled[1] < self.config.least_person * usual[2]:
                continue
            if best is None or self._usual.merit(*settled[0].fits) > self._usual.merit(*best[0].fits):
                best, chosen = (settled[0], settled[1]), i
            if self._usual.is_good(*settled[0].fits) and not self._usual.is_odd(*settled[0].fits):
                break
        if best is None or not self._usual.is_good(*best[0].fits):
            return None
        self._return.found(now, ways, chosen)
        return best

    def _weighed(
        self, frames: Sequence[Frame], now: float, found: Followed, told: list[str], *, afresh: bool
    ) -> tuple[Followed, float, int] | None:
        """The body as it stands more likely than as it was found at first; None where that is how it stands."""
        assert self._pose is not None and self.shape is not None
        mesh = self.shape.mesh(self.config.regain.level)
        rival = self._return.weigh(frames, now, mesh, found.pose, self._pose, afresh=afresh)
        settled = None if rival is None else self._settled(frames, rival, 0)
        if settled is None or self._usual.merit(*settled[0].fits) < self._usual.merit(*found.fits) + LEAST_GAIN:
            return None
        self._return.exchanged(found.pose)
        told.append("stands otherwise than they were taken to at first")
        return settled

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
        last = self._last
        how = (
            (float("inf"), 0.0, 0.0, StopReason.NO_EVIDENCE)
            if last is None
            else (*last.fits, last.covered, last.reason)
        )
        J = self.model.num_joints
        pose = np.zeros((J, 3)) if self._pose is None else log_rotation(self._pose.rotations)[0]
        transl = np.zeros(3) if self._pose is None else self._pose.transl
        return TrackEstimate(
            index, now, state, betas, np.sqrt(np.diagonal(cov)), pose, self._pose_sd.copy(), transl.copy(),
            self._joints(), garments, *how, steps, self.shape is not None and self.shape.frozen,
            tuple(told), times, hidden=self._parts.hidden if last is not None else PART_NAMES,
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
