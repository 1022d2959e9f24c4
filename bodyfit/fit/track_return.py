"""A person who comes back: every likely way to stand where the readings are, and which of them goes on fitting.

Their shape is known, so that poses alone are looked for, on a coarse mesh and few pixels: tens of milliseconds, where
a cold start takes a second in which a live stream goes on without us.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.config import FitConfig, Stage
from bodyfit.fit.follow import Pose, Seen, posed_joints
from bodyfit.fit.hypotheses import stance_pose
from bodyfit.fit.initialize import ELSEWHERE_M, HALF_DEPTH_M, HALF_WIDTH_M, root_frame
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.pose_prior import PosePrior
from bodyfit.fit.problem import HELD, Problem, State
from bodyfit.fit.solver import solve
from bodyfit.fit.track_sensors import Sensors, StandingOut, seen_area_m2, seen_points
from bodyfit.fit.view import View
from bodyfit.frame import Frame
from bodyfit.rotation import matrix_from_axis_angle

LIKELY_STANCES = ("arms_down", "walk_left", "walk_right")
"""how a person comes back, beside as they went"""
HEADINGS = 8
TASTED, FOLLOWED, KEPT = 10, 2, 4
"""of all ways so many are followed, so many steps, and so many of those that differ are kept"""
FACES_WHERE_THEY_GO = 0.15
"""by this share a body costs more that goes backwards: who walks looks where they walk, nearly always"""


PIXELS = 300
"""of the person, over all sensors, are enough for that"""
LEAST_BACK_M2, MOST_BACK_M2 = 0.15, 1.5
"""how large somebody who comes back looks, square metres face on"""
MOST_CUT_M, ENTERS_S = 0.3, 0.6
"""whom the picture's border cuts over more than this is waited for so long: half a body may face either way"""
AGAIN_S, SAME_AGAIN_S = 0.1, 1.0
"""so long after nobody was found nobody is looked for; and so long where nothing has changed since"""
TURNS_ROUND_S = 0.7
"""who was gone for less has not turned round, nor has who is seen walking: the headings behind them are left out"""
PATH_S, WALKS_M_S = 0.3, 0.4
"""who got on faster than this over so long walks"""
LEAST_LEAP_M, RUNS_M_S = 0.25, 4.0
"""nobody gets further in a while than both together say, and the middle of what is seen of them hardly does"""
OPEN_S = 1.0
"""so long the other ways are followed too"""
HOPELESS, SOME_FRAMES = 2.0, 3
"""a way that costs so many times the chosen one's after some frames is given up"""
ASTRAY_M = 1.0
"""a way whose root is further from the readings than this left the picture, where nothing speaks against it"""
PLAINLY_BETTER = 0.9
"""and one that costs this share of it is looked at closely"""


@dataclass
class Ways:
    """Ways to stand: state (N), each an instant and a group of its own, the best first, and what each costs (N,)."""

    state: State
    cost: NDArray[np.float64]

    def pose(self, i: int) -> Pose:
        """One of them."""
        return Pose(self.state.rotations[i], self.state.transl[i])

    def poses(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Rotations (J, 3, 3) and transl (3,) of each."""
        return zip(self.state.rotations, self.state.transl, strict=True)

    def take(self, chosen: Sequence[int]) -> Ways:
        """Some of them, in that order."""
        return Ways(self.state.take(list(chosen)), self.cost[list(chosen)])

    def __len__(self) -> int:
        return len(self.cost)


@dataclass
class Place:
    """Where somebody may stand: root (3,) metres, up and toward (3,) unit vectors, toward the sensor and level; travel
    (3,) metres a second, level, None where it is not known; gone_s: for so long the person was not seen."""

    root: NDArray[np.float64]
    up: NDArray[np.float64]
    toward: NDArray[np.float64]
    travel: NDArray[np.float64] | None = None
    gone_s: float = np.inf


def level_unit(v: NDArray[np.float64], up: NDArray[np.float64]) -> NDArray[np.float64]:
    """A vector without its part along up, as a unit vector (zeros stay so)."""
    v = v - up * (v @ up)
    return v / max(float(np.linalg.norm(v)), 1e-9)


def yaw_of(front: NDArray[np.float64], toward: NDArray[np.float64], up: NDArray[np.float64]) -> float:
    """By how much a front is turned left about up from `toward`, radians."""
    front = level_unit(front, up)
    return float(np.arctan2(np.cross(toward, front) @ up, toward @ front))


class Comeback:
    """Looks for a known person's pose.

    Args:
        stage: how ways are refined: wide, coarse.
    """

    def __init__(self, stage: Stage, config: FitConfig, prior: PosePrior, names: tuple[str, ...]) -> None:
        # one thread: a frame's work is too little to share
        self.stage, self.config, self.prior = stage, replace(config, threads=1), prior
        self._likely = [matrix_from_axis_angle(stance_pose(names, s)) for s in LIKELY_STANCES]

    def search(self, mesh: Mesh, views: Sequence[View], last: Pose, place: Place, others: Sequence[Pose] = ()) -> Ways:
        """The likeliest ways to stand there that differ, the best first, if any; `others` are tried as they are."""
        ways = self.starts(mesh, last, place, others)
        ways = self.improved(mesh, views, ways, 0, place)
        ways = self.improved(mesh, views, ways.take(range(min(TASTED, len(ways)))), FOLLOWED, place)
        away = np.linalg.norm(mesh.joint_template[0] + ways.state.transl - place.root, axis=1)
        return self.distinct(mesh, ways.take(np.flatnonzero(away < ASTRAY_M).tolist()), KEPT)

    def starts(self, mesh: Mesh, last: Pose, place: Place, others: Sequence[Pose] = ()) -> Ways:
        """As the person went and in likely stances, in every heading, the first one that in which they go."""
        up, toward = place.up, place.toward
        known = last.rotations[0]
        last_yaw = yaw_of(known[:, 2], toward, up)
        first = last_yaw if place.travel is None else yaw_of(place.travel, toward, up)
        around = np.arange(HEADINGS) * (2 * np.pi / HEADINGS)
        if place.travel is not None or place.gone_s < TURNS_ROUND_S:
            around = around[np.cos(around) > -0.1]
        yaws = first + around
        poses: list[Pose] = []
        for yaw in yaws:
            as_they_went = last.rotations.copy()
            as_they_went[0] = matrix_from_axis_angle(up * (yaw - last_yaw)) @ known
            root = place.root - toward * (HALF_WIDTH_M - HALF_DEPTH_M) * np.sin(yaw) ** 2
            transl = root - mesh.joint_template[0]
            poses.append(Pose(as_they_went, transl))
            poses += self._stances(transl, place, yaw)
        return ways_of([*poses, *others])

    def stances_at(self, pose: Pose, place: Place) -> list[Pose]:
        """Likely stances where a body stands, in its heading."""
        return self._stances(pose.transl, place, yaw_of(pose.rotations[0, :, 2], place.toward, place.up))

    def _stances(self, transl: NDArray[np.float64], place: Place, yaw: float) -> list[Pose]:
        out = []
        for stance in self._likely:
            rotations = stance.copy()
            rotations[0] = root_frame(place.up, place.toward, yaw)
            out.append(Pose(rotations, transl))
        return out

    def problem(self, mesh: Mesh, views: Sequence[View], count: int) -> Problem:
        """So many ways, all looking at the same views."""
        items = np.array([(i, v) for i in range(count) for v in range(len(views))], np.int64)
        mean = np.repeat(self.prior.mean[None], count, 0)
        return Problem(mesh, views, items, self.stage, self.config, self.prior, mean, HELD, 0.02)

    def improved(
        self, mesh: Mesh, views: Sequence[View], ways: Ways, steps: int, place: Place, *, ordered: bool = True
    ) -> Ways:
        """The ways some steps on, the best first unless not `ordered`; no steps: only what they cost."""
        problem = self.problem(mesh, views, len(ways))
        if steps:
            found = solve(problem, ways.state, iterations=steps)
            ways = Ways(found.state, found.cost)
        else:
            ways = Ways(ways.state, problem.linearize(ways.state, want_rows=False).cost)
        if place.travel is not None:
            ahead = ways.state.rotations[:, 0, :, 2] @ level_unit(place.travel, place.up)
            ways.cost = ways.cost * (1 + FACES_WHERE_THEY_GO * (1 - ahead) / 2)
        return ways.take(np.argsort(ways.cost, kind="stable").tolist()) if ordered else ways

    def distinct(self, mesh: Mesh, ways: Ways, count: int) -> Ways:
        """The best of them that put some joint elsewhere than the better ones."""
        keep: list[int] = []
        joints: list[NDArray[np.float64]] = []
        for i in range(len(ways)):
            mine = posed_joints(mesh, ways.state.rotations[i], ways.state.transl[i])
            if all(np.linalg.norm(mine - other, axis=1).max() > ELSEWHERE_M for other in joints):
                keep.append(i)
                joints.append(mine)
            if len(keep) == count:
                break
        return ways.take(keep)


class Return:
    """Where a person who is not followed may be by now, and the ways that are still open once they were found.

    Args:
        up: (3,) unit vector against gravity in the world.
    """

    def __init__(self, comeback: Comeback, sensors: Sensors, up: NDArray[np.float64]) -> None:
        self.comeback, self.sensors, self.up = comeback, sensors, up
        self.rivals: Ways | None = None
        """other ways in which a person who was found again may stand; None where it is clear"""
        self.place: Place | None = None
        self.standing_since: float | None = None
        """since when somebody may stand there who is not followed; None where nobody does"""
        self._found_at = -np.inf
        self._path: list[tuple[float, NDArray[np.float64]]] = []
        self._looked_at: tuple[StandingOut, int] | None = None
        self._looked_s = -np.inf
        self._tasted = 0

    def forget(self) -> None:
        """Nothing is open any more: the person is followed, or lost."""
        self.rivals, self.place, self._path, self._looked_at = None, None, [], None

    def note(self, now: float, middle: NDArray[np.float64]) -> None:
        """Where the person's middle was seen at a time: it tells where they go. Where it leaps, something else stood
        there until then."""
        self._path = [(t, p) for t, p in self._path if now - t <= PATH_S]
        if not np.isfinite(middle).all():
            return
        if self._path:
            then, before = self._path[-1]
            if float(np.linalg.norm(middle - before)) > LEAST_LEAP_M + RUNS_M_S * (now - then):
                self._path = []
        self._path.append((now, middle))

    def travel(self) -> NDArray[np.float64] | None:
        """(3,) metres a second over the last moments, level; None where the person hardly moves or it is not known."""
        if len(self._path) < 3:
            return None
        (t0, p0), (t1, p1) = self._path[0], self._path[-1]
        velocity = (p1 - p0) / max(t1 - t0, 1e-6)
        velocity = velocity - self.up * (velocity @ self.up)
        return velocity if t1 - t0 >= PATH_S / 3 and float(np.linalg.norm(velocity)) > WALKS_M_S else None

    def ways(
        self, frames: Sequence[Frame], now: float, gone_s: float, mesh: Mesh, last: Pose, expected: Pose
    ) -> Ways | None:
        """How the person may stand in a frame, the likeliest first; None where nobody is there whom it is worth looking
        at, or where nothing has changed since nobody was found."""
        out = self.sensors.standing_out(frames)
        if out.area_m2 > LEAST_BACK_M2:
            self.note(now, out.middle)
            self.standing_since = now if self.standing_since is None else self.standing_since
        else:
            self.standing_since = None
        if out.cut_m > MOST_CUT_M:
            since = self.standing_since
            if since is None or now - since < ENTERS_S:
                return None
        near = self.sensors.look_coarsely(mesh, frames, expected, PIXELS)
        there = sum(s.followed.person for s in near)
        if self._looked_at is not None:
            before, then = self._looked_at
            same = out.is_like(before) and abs(there - then) <= max(10, 0.15 * then)
            if now - self._looked_s < (SAME_AGAIN_S if same else AGAIN_S):
                return None
        self._looked_at, self._looked_s = (out, there), now
        seen = near
        if out.area_m2 > LEAST_BACK_M2:
            level = out.middle - posed_root(mesh, last)
            moved = Pose(last.rotations, last.transl + level - self.up * (level @ self.up))
            elsewhere = self.sensors.look_coarsely(mesh, frames, moved, PIXELS)
            if sum(s.followed.person for s in elsewhere) > there:
                seen = elsewhere
        if not LEAST_BACK_M2 < seen_area_m2(seen) < MOST_BACK_M2:
            return None
        self.place = self.place_of(frames, mesh, seen, last, gone_s)
        ways = self.comeback.search(mesh, [s.view for s in seen], last, self.place, (expected,))
        return ways if len(ways) else None

    def place_of(self, frames: Sequence[Frame], mesh: Mesh, seen: Sequence[Seen], last: Pose, gone_s: float) -> Place:
        """Where the readings say that the person is: a body's middle lies behind what is seen of it."""
        middle = np.median(seen_points(seen), axis=0)
        toward = level_unit(frames[0].T_world_depth[:3, 3] - middle, self.up)
        root = posed_root(mesh, last)
        shift = middle - root
        shift -= self.up * (shift @ self.up)
        return Place(root + shift - HALF_DEPTH_M * toward, self.up, toward, self.travel(), gone_s)

    def found(self, now: float, ways: Ways, chosen: int) -> None:
        """One of the ways was taken: the others stay open for a while."""
        others = [i for i in range(len(ways)) if i != chosen]
        self._found_at, self._tasted, self._looked_at, self.standing_since = now, 0, None, None
        self.rivals = ways.take(others) if others else None

    def weigh(
        self, frames: Sequence[Frame], now: float, mesh: Mesh, found: Pose, before: Pose, *, afresh: bool
    ) -> Pose | None:
        """The other ways followed one step in a frame in which the person was found at a pose: one that explains it
        plainly better, or None.

        Args:
            before: the pose in the frame before.
            afresh: likely stances at the found place and heading are tried too, and followed further.
        """
        ways, place = self.rivals, self.place
        assert ways is not None and place is not None
        self.note(now, posed_root(mesh, found))
        travel = self.travel()
        place = self.place = replace(place, travel=place.travel if travel is None else travel)
        seen = self.sensors.look_coarsely(mesh, frames, found, PIXELS)
        if not seen or now - self._found_at > OPEN_S:
            self.rivals = None
            return None
        poses = [found, *(Pose(R, t + found.transl - before.transl) for R, t in ways.poses())]
        if afresh:
            poses += self.comeback.stances_at(found, place)
        every = ways_of(poses)
        every = self.comeback.improved(
            mesh, [s.view for s in seen], every, FOLLOWED if afresh else 1, place, ordered=False
        )  # fmt: skip
        self._tasted += 1
        worst = every.cost[0] * (HOPELESS if self._tasted >= SOME_FRAMES else 2 * HOPELESS)
        near = np.linalg.norm(every.state.transl - found.transl, axis=1) < ASTRAY_M
        order = [
            0,
            *(int(i) for i in np.argsort(every.cost[1:], kind="stable") + 1 if every.cost[i] < worst and near[i]),
        ]
        open_ways = self.comeback.distinct(mesh, every.take(order), KEPT)
        mine = open_ways.cost[0]
        self.rivals = open_ways.take(range(1, len(open_ways))) if len(open_ways) > 1 else None
        if self.rivals is None or self.rivals.cost[0] > PLAINLY_BETTER * mine:
            return None
        return self.rivals.pose(0)

    def exchanged(self, left: Pose) -> None:
        """The best rival was taken, and what it took the place of is one now."""
        assert self.rivals is not None
        state = self.rivals.state
        state.rotations[0], state.transl[0] = left.rotations, left.transl


def ways_of(poses: Sequence[Pose]) -> Ways:
    """Poses of which it is not known yet what they cost."""
    n = len(poses)
    rotations, transl = np.stack([p.rotations for p in poses]), np.stack([p.transl for p in poses])
    return Ways(State(rotations, transl, np.zeros((n, 1)), np.arange(n)), np.full(n, np.inf))


def posed_root(mesh: Mesh, pose: Pose) -> NDArray[np.float64]:
    """(3,) where a pose's root joint is, metres."""
    return mesh.joint_template[0] + pose.transl
