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

from bodyfit.body.model import BodyModel
from bodyfit.body.skeleton import PART_NAMES
from bodyfit.errors import InputError
from bodyfit.fit.blas import find_blas, one_blas_thread
from bodyfit.fit.fit import check_options
from bodyfit.fit.follow import Followed, Pose, Seen, descend, instant_problem
from bodyfit.fit.joint import FitSetup, prior_shape, spheres_for
from bodyfit.fit.pose_prior import log_rotation, pose_prior
from bodyfit.fit.solver import StopReason
from bodyfit.fit.track_color import TrackColors
from bodyfit.fit.track_config import TrackConfig
from bodyfit.fit.track_effort import EffortLevel
from bodyfit.fit.track_estimate import TrackEstimate, TrackState, Usual
from bodyfit.fit.track_hidden import UNSEEN, HiddenParts, names_of
from bodyfit.fit.track_limbs import arms_elsewhere
from bodyfit.fit.track_motion import Velocity
from bodyfit.fit.track_return import Comeback, Return
from bodyfit.fit.track_search import PersonSearch
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
        check_options(sex, clothing, "cpu")
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
        self._velocity: Velocity | None = None
        self._time = -np.inf
        self._good_time = -np.inf
        self._searched = -np.inf
        self._tried = -np.inf
        """when the ways to stand were tried for a body that lay badly"""
        self._lost = True
        self._coasting = False
        self._usual = Usual(self.config)
        self._effort = EffortLevel(self.config.effort)
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
        gone, back = self._parts.look(self.shape.mesh(self.config.regain.level), self._last.pose, self._last.views)
        if gone:
            told.append(f"{UNSEEN}: {names_of(gone)}")
        if back:
            told.append(f"seen again: {names_of(back)}")

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
            if whole and self._poor > 1 and not self._parts.hidden:
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

    def _look(self, frames: Sequence[Frame], expected: Pose, reach_m: float = REACH_M) -> list[Seen]:
        assert self.shape is not None
        mesh = self.shape.mesh(self.config.stage.level)
        seen = self._sensors.look(mesh, frames, expected, self._effort.now.pixels, reach_m)
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

    def _with_colors(self, frames: Sequence[Frame], found: Followed, expected: Pose, widen: float) -> Followed:
        """The pose that depth found, moved by what the person's colours say."""
        assert self.colors is not None and self.shape is not None
        c, mesh = self.config, self.shape.mesh(self.config.stage.level)
        if self._effort.short:
            self.colors.interrupt()
            return found
        turn, move = c.sigma_turn_rad * widen, c.sigma_move_m * widen
        problem = instant_problem(
            mesh, found.views, c.stage, c.fit, self.prior, self.shape.clothing.sigma_behind_m, expected=expected,
            sigma_turn_rad=turn, sigma_move_m=move, spheres=spheres_for(self.setup, c.stage),
        )  # fmt: skip

        held = np.repeat([turn**-2, move**-2], [3 * self.model.num_joints, 3])
        return self.colors.polish(frames, found, mesh, held, problem)

    def _learn_colors(self, frames: Sequence[Frame], found: Followed, *, steady: bool) -> None:
        assert self.colors is not None and self.shape is not None and self._pose is not None
        ordinary = steady and self._usual.is_ordinary(*found.fits) and not self._usual.is_odd(*found.fits)
        if self._effort.short:
            return
        self.colors.learn(frames, self._pose, self.shape.mesh(self.config.stage.level), ordinary=ordinary)

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
        if sum(s.followed.person for s in near) > 2 * self._effort.now.pixels:
            near = self._look(frames, pose)  # they are nearer by now, and the grid was too fine
        if not near:
            return None
        fine = self._descend(near, pose, 3.0, 4)
        return fine, person_pixels(near), steps + fine.evaluations

    def _take(self, found: Followed, now: float, dt: float) -> None:
        assert self._pose is not None
        steady = now - self._good_time < self.config.longest_gap_s
        self._velocity = Velocity.between(self._pose, found.pose, dt) if steady else None
        self._pose, self._pose_sd = found.settled()
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
        c, online = self.config, self.shape.online
        # a look at the full mesh takes as long as following does
        if online.frozen or self._count % c.tell_every:
            return
        if self._usual.is_ordinary(*found.fits) and online.is_new(self._pose.rotations):
            near = self._sensors.look_closer(self.shape.mesh(c.stage.level), frames, self._pose, c.tell.pixels)
            if near:
                online.add(self._pose.rotations, self._pose.transl, [s.view for s in near])
        elif not online.settled or self._count % c.relinearize_every == 0:
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
        if self.colors is not None:
            self.colors.interrupt()
        if self._velocity is not None:
            self._velocity = self._velocity.unseen
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
            self._sensors.meet(o, self._effort.now.pixels)
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
        if self.colors is not None:
            self.colors.interrupt()
        last, self._good_time = self._good_time, now
        self._last = found
        self._pose = found.pose
        self.views = found.views
        self._pose, self._pose_sd = found.settled()
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
            index, now, state, betas, np.sqrt(np.diagonal(cov)), pose, self._pose_sd.copy(), transl.copy(),
            joints, garments, *how, steps, self.shape is not None and self.shape.frozen,
            tuple(told), times, 0 if self.colors is None else self.colors.pulled,
            self._parts.hidden if last is not None else PART_NAMES,
        )  # fmt: skip
