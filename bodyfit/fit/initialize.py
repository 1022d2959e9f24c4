"""Cold start: from a mask, depth and gravity to a body that is near enough to refine; any heading, no network.

Many headings and stances are tried on a coarse mesh; the best of each heading survive, their arms are searched again,
since an arm in the wrong place is what a descent cannot repair; the best few are settled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.fit.collide import spheres_of
from bodyfit.fit.config import Clothing, FitConfig, Stage
from bodyfit.fit.hypotheses import ARMS, RARER_STANCES, STANCES, mutate, stance_pose, with_arm
from bodyfit.fit.learned_prior import learned_for
from bodyfit.fit.limbs import LimbStages, improve_limbs, with_pose
from bodyfit.fit.mesh import mesh_for
from bodyfit.fit.pose_prior import PosePrior
from bodyfit.fit.problem import Problem, ShapeGaussian, State
from bodyfit.fit.solver import solve
from bodyfit.fit.view import Views
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle

if TYPE_CHECKING:
    from bodyfit.observe.observation import Observation

SAME_HEADING_RAD = 0.5
ARM_CHOICES = 3
WORTH_TRYING = 1.6
"""a second hypothesis whose cost is within this of the best one's has its limbs tried too"""
BESIDE_THE_NECK_M = 0.12
RAISED_ARM_M = 0.04
"""something this much higher than what is above the trunk is no head"""
HALF_DEPTH_M, HALF_WIDTH_M = 0.105, 0.19
"""from the middle of what is seen of a trunk to the root joint, from before or behind and from the side"""
USUAL_MISFIT = 0.08
"""cost per effective pixel of a good start without sensor noise"""
NOISE_SHARE = 0.2
"""and per effective pixel and unit of noise variance: the robustifier takes more than half"""
PLAINLY_WRONG = 1.5
"""a start that costs this many times the usual has parts in wrong places"""
ELSEWHERE_M = 0.10
"""two poses that put every joint within this of each other are one"""


@dataclass(frozen=True)
class Shape:
    """What is believed about the shape before a fit: mean (S,) betas and covariance (S, S)."""

    mean: NDArray[np.float64]
    cov: NDArray[np.float64]

    def gaussian(self, num_betas: int) -> ShapeGaussian:
        """The prior of the first betas, as offsets from the mean."""
        n = min(num_betas, len(self.mean))
        return ShapeGaussian(np.zeros(n), np.asarray(np.linalg.inv(self.cov[:n, :n]), np.float64))


@dataclass(frozen=True)
class Start:
    """A found start: pose (J, 3, 3), transl (3,), first betas beyond the starter's mean, cost, and the costs of the
    hypotheses that were settled too."""

    rotations: NDArray[np.float64]
    transl: NDArray[np.float64]
    shape: NDArray[np.float64]
    cost: float
    rivals: tuple[float, ...]


def person_points_world(observation: Observation) -> NDArray[np.float64]:
    """(N, 3) the sensor's points on the person, world coordinates, metres."""
    camera = observation.camera
    v, u = np.nonzero((observation.label == 1) & (observation.depth > 0))
    z = observation.depth[v, u].astype(np.float64)
    points = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], 1)
    T = observation.T_world_depth
    return points @ T[:3, :3].T + T[:3, 3]


def up_of(observation: Observation) -> NDArray[np.float64]:
    """(3,) unit vector against gravity in the world; the camera's up where nothing is known."""
    if observation.up_world is not None:
        return np.asarray(observation.up_world, dtype=np.float64)
    return -observation.T_world_depth[:3, 1]


def shape_of_height(model: BodyModel, shape: Shape, stature_m: float, sigma_m: float) -> Shape:
    """The prior told how tall the person is: a Gaussian conditioned on one linear measure."""
    y = model.v_template[:, 1]
    top, low = int(y.argmax()), int(y.argmin())
    d = (model.shapedirs[top, 1] - model.shapedirs[low, 1]).astype(np.float64)
    expected = float(y[top] - y[low]) + float(d @ shape.mean)
    gain = shape.cov @ d / (d @ shape.cov @ d + sigma_m**2)
    return Shape(shape.mean + gain * (stature_m - expected), shape.cov - np.outer(gain, d @ shape.cov))


def seen_stature(observations: Sequence[Observation]) -> float | None:
    """Height of the head's top above the floor, metres; None where it is cut off, no floor is known, or a raised arm
    may be what is highest."""
    heights = []
    for o in observations:
        if o.floor_plane_world is None or "top" in o.cut_off:
            continue
        points = person_points_world(o)
        plane = np.asarray(o.floor_plane_world)
        above = points @ plane[:3] + plane[3]
        top = float(np.percentile(above, 99.8))
        across = points @ o.T_world_depth[:3, 0]
        trunk = (above > 0.5 * top) & (above < 0.8 * top)
        centre = np.median(across[trunk]) if trunk.any() else np.median(across)
        over_trunk = above[np.abs(across - centre) < BESIDE_THE_NECK_M]
        if len(over_trunk) and top - float(np.percentile(over_trunk, 99.5)) < RAISED_ARM_M:
            heights.append(top)
    return float(np.median(heights)) if heights else None


def root_frame(up: NDArray[np.float64], toward: NDArray[np.float64], yaw: float) -> NDArray[np.float64]:
    """(3, 3) rotation of a body that stands along `up` and faces `toward` (both world), turned left by yaw."""
    front = toward - up * (toward @ up)
    front /= np.linalg.norm(front)
    front = matrix_from_axis_angle(up * yaw) @ front
    return np.stack([np.cross(up, front), up, front], 1)


def place_pelvis(
    model: BodyModel, betas: NDArray[np.float64], observations: Sequence[Observation], up: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(3,) the root joint's place, guessed from the points' middle, the floor or the head; at the depth of what is seen
    where there is but one view."""
    points = np.concatenate([person_points_world(o) for o in observations])
    # rows of unequal density: the middle of the range is steadier than the mean
    height = points @ up
    low, high = np.percentile(height, [2, 98])
    trunk = points[(height > low + 0.45 * (high - low)) & (height < low + 0.85 * (high - low))]
    middle = np.median(trunk if len(trunk) else points, axis=0)
    rest = model.rest_vertices(betas)
    pelvis = float(model.joints_at_rest(betas)[0, 1])
    o = observations[0]
    if o.floor_plane_world is not None:
        plane = np.asarray(o.floor_plane_world)
        target = pelvis - rest[:, 1].min() - 0.01
        return middle + plane[:3] * (target - (middle @ plane[:3] + plane[3]))
    target = float(np.percentile(height, 99.8)) - (rest[:, 1].max() - pelvis)
    return middle + up * (target - middle @ up)


class Starter:
    """Cold starts of one person: the meshes and the prior are made once."""

    def __init__(
        self, model: BodyModel, shape: Shape, prior: PosePrior, clothing: Clothing, config: FitConfig,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.shape, self.prior, self.clothing, self.config = model, shape, prior, clothing, config
        self.cancelled = cancelled or (lambda: False)
        self.names = model.joint_names
        self._meshes = {}
        self._views = Views(())
        self.spheres = spheres_of(model, shape.mean) if config.self_penetration else None

    def problem(self, stage: Stage, observations: Sequence[Observation], pose_mean: NDArray[np.float64]) -> Problem:
        """One group for each row of pose_mean (N, J, 3), all looking at the same views."""
        key = (stage.level, stage.num_betas)
        if key not in self._meshes:
            self._meshes[key] = mesh_for(self.model, stage.level, stage.num_betas, self.shape.mean)
        views = self._views_of(observations).at(stage.pixels)
        n = len(pose_mean)
        items = np.array([(i, v) for i in range(n) for v in range(len(views))], dtype=np.int64)
        return Problem(
            self._meshes[key], views, items, stage, self.config, self.prior, pose_mean,
            self.shape.gaussian(stage.num_betas), self.clothing.sigma_behind_m,
            learned_prior=learned_for(self.config, stage, self.names),
            spheres=self.spheres if stage.solid else None,
        )  # fmt: skip

    def _views_of(self, observations: Sequence[Observation]) -> Views:
        """The views of the instant that is looked at; those of the one before are let go."""
        views = self._views
        if views.observations is not observations:
            views = self._views = Views(observations)
        return views

    def limb_stages(self) -> LimbStages:
        """How the limbs of a start are searched."""
        c = self.config
        return LimbStages(c.limbs, c.reach, c.settle[-1], c.limb_rounds, self.prior, self.cancelled)

    def start(self, observations: Sequence[Observation], known_poses: Sequence[NDArray[np.float64]] = ()) -> Start:
        """The best start for one instant; known_poses (J, 3) of the same person are tried beside the stances.

        A start that leaves more unexplained than the sensor's noise can is searched again: headings in between,
        rarer stances.
        """
        poses = [stance_pose(self.names, s) for s in STANCES] + [np.asarray(p).copy() for p in known_poses]
        first = self._search(observations, poses, 0.0)
        if self.cancelled() or first.cost <= self._usual_cost(observations):
            return first
        poses += [stance_pose(self.names, s) for s in RARER_STANCES]
        second = self._search(observations, poses, np.pi / self.config.headings)
        best = min(first, second, key=lambda s: s.cost)
        if self.cancelled() or best.cost <= PLAINLY_WRONG * self._usual_cost(observations):
            return best
        third = self._evolve(observations, [first, second])
        return min(best, third, key=lambda s: s.cost)

    def search_poses(self, observations: Sequence[Observation], poses: Sequence[NDArray[np.float64]]) -> Start:
        """The best start among a few poses (J, 3), in every heading, with the arms searched: quick, and not proven."""
        return self._search(observations, poses, 0.0)

    def _evolve(self, observations: Sequence[Observation], parents: Sequence[Start]) -> Start:
        """Starts changed by chance and settled, the best of them changed again: for what no table of stances holds.

        The chance is the same in every run.
        """
        stage, last = self.config.settle
        rng = np.random.default_rng(0)
        n_shape = min(stage.num_betas, self.model.num_betas)
        population = _resized(
            State(
                np.stack([p.rotations for p in parents]), np.stack([p.transl for p in parents]),
                np.stack([p.shape for p in parents]), np.arange(len(parents)),
            ), n_shape,
        )  # fmt: skip
        up = up_of(observations[0])
        cost = np.full(len(parents), np.inf)
        for _ in range(self.config.generations):
            if self.cancelled() and np.isfinite(cost).all():
                break
            chosen = rng.integers(len(cost), size=self.config.offspring)
            child = population.take(chosen)
            mutate(child.rotations, child.transl, self.names, up, population.rotations, rng)
            together = State(
                np.concatenate([population.rotations, child.rotations]),
                np.concatenate([population.transl, child.transl]),
                np.concatenate([population.shape, child.shape]),
                np.arange(len(cost) + len(chosen)),
            )  # fmt: skip
            general = np.broadcast_to(self.prior.mean, (len(together.group), *self.prior.mean.shape))
            problem = self.problem(stage, observations, general)
            settled = solve(problem, together, iterations=5, cancelled=self.cancelled)
            keep = self._distinct(settled.state, settled.cost, self.config.survivors, up, poses_too=True)
            population, cost = settled.state.take(keep), settled.cost[keep]
        general = np.broadcast_to(self.prior.mean, (len(cost), *self.prior.mean.shape))
        fine = solve(
            self.problem(last, observations, general), _resized(population, min(last.num_betas, self.model.num_betas)),
            cancelled=self.cancelled,
        )  # fmt: skip
        return self._finished(observations, fine.state, fine.cost)

    def _usual_cost(self, observations: Sequence[Observation]) -> float:
        """What a good start may cost: the body's own misfit and the sensor's noise, over all views."""
        noise = [v.noise_m for v in self._views_of(observations).at(self.config.settle[-1].pixels)]
        pixels = self.config.effective_pixels
        return sum(USUAL_MISFIT * pixels + NOISE_SHARE * pixels * (n / self.config.sigma_depth_m) ** 2 for n in noise)

    def _search(
        self, observations: Sequence[Observation], poses: Sequence[NDArray[np.float64]], first_yaw: float
    ) -> Start:
        up = up_of(observations[0])
        pelvis = place_pelvis(self.model, self.shape.mean, observations, up)
        toward = observations[0].T_world_depth[:3, 3] - pelvis
        yaws = first_yaw + np.arange(self.config.headings) * (2 * np.pi / self.config.headings)
        body = np.stack([p for _ in yaws for p in poses])
        body[:, 0] = 0
        R = matrix_from_axis_angle(body)
        R[:, 0] = np.repeat(np.stack([root_frame(up, toward, y) for y in yaws]), len(poses), 0)
        n = len(body)
        root = self.model.joints_at_rest(self.shape.mean)[0]
        places = np.repeat(pelvis[None], n, 0)
        if len(observations) == 1:
            # the middle of a person lies behind what is seen of them, further behind an arm and a hip than a chest
            away = -toward + up * (toward @ up)
            side = np.repeat(np.sin(yaws) ** 2, len(poses))
            depth = HALF_DEPTH_M + (HALF_WIDTH_M - HALF_DEPTH_M) * side
            places += depth[:, None] * away / np.linalg.norm(away)
        mesh_betas = min(self.config.search.num_betas, self.model.num_betas)
        state = State(R, places - root, np.zeros((n, mesh_betas)), np.arange(n))
        # a third of the steps tell the better half of the hypotheses from the rest
        search = self.problem(self.config.search, observations, body)
        found = solve(search, state, iterations=2, cancelled=self.cancelled)
        first = np.argsort(found.cost, kind="stable")[: max(8, n // 2)]
        search = self.problem(self.config.search, observations, body[first])
        found = solve(search, found.state.take(first), cancelled=self.cancelled)
        keep = self._distinct(found.state, found.cost, self.config.survivors + 1, up)
        keep += [
            k
            for k in self._distinct(found.state, found.cost, 2 * self.config.survivors, up, poses_too=True)
            if k not in keep
        ][: self.config.survivors]
        state, mean, cost = self._search_arms(observations, found.state.take(keep))
        keep = self._distinct(state, cost, self.config.survivors, up, poses_too=True)
        state, mean = state.take(keep), mean[keep]
        for stage in self.config.settle:
            state = _resized(state, min(stage.num_betas, self.model.num_betas))
            general = np.broadcast_to(self.prior.mean, mean.shape)
            solution = solve(self.problem(stage, observations, general), state, cancelled=self.cancelled)
            state, cost = solution.state, solution.cost
        return self._finished(observations, state, cost)

    def _finished(self, observations: Sequence[Observation], state: State, cost: NDArray[np.float64]) -> Start:
        """The best of some settled states and, where it may be better, the next one, with their limbs improved."""
        order = np.argsort(cost, kind="stable")
        b = int(order[0])
        rivals = tuple(float(cost[i]) for i in order[1:] if self._elsewhere(state, b, int(i)))
        others = [int(i) for i in order[1:] if self._elsewhere(state, b, int(i))]
        how = self.limb_stages()

        def problem_of(stage: Stage, mean: NDArray[np.float64]) -> Problem:
            return self.problem(stage, observations, mean)

        best = improve_limbs(how, problem_of, state.take([b]), float(cost[b]))
        for i in others[:1]:
            if cost[i] < WORTH_TRYING * best.cost:
                other = improve_limbs(how, problem_of, state.take([i]), float(cost[i]))
                best = min(best, other, key=lambda improved: improved.cost)
        found = best.state
        return Start(found.rotations[0], found.transl[0], found.shape[0], best.cost, rivals)

    def follow(self, observations: Sequence[Observation], before: Start) -> Start:
        """A start from the instant before, which was a moment ago."""
        state = State(before.rotations[None], before.transl[None], before.shape[None], np.zeros(1, np.int64))
        cost = np.zeros(1)
        for stage in self.config.settle:
            state = _resized(state, min(stage.num_betas, self.model.num_betas))
            problem = self.problem(stage, observations, self.prior.mean[None])
            solution = solve(problem, state, cancelled=self.cancelled)
            state, cost = solution.state, solution.cost
        return Start(state.rotations[0], state.transl[0], state.shape[0], float(cost[0]), ())

    def _elsewhere(self, state: State, a: int, b: int) -> bool:
        """Whether two states put a joint in different places."""
        return bool(np.linalg.norm(self._joints(state, a) - self._joints(state, b), axis=1).max() > ELSEWHERE_M)

    def _joints(self, state: State, i: int) -> NDArray[np.float64]:
        from bodyfit.kernels.body import joint_motions

        joints = self.model.joints_at_rest(self.shape.mean)
        G, posed = np.empty((len(joints), 3, 3)), np.empty((len(joints), 3))
        joint_motions(state.rotations[i], joints, self.model.parents, np.eye(3), np.zeros(3), state.transl[i], G, posed)
        return posed

    def _search_arms(
        self, observations: Sequence[Observation], state: State
    ) -> tuple[State, NDArray[np.float64], NDArray[np.float64]]:
        """Each arm tried in every configuration; the best of both together, beside what was there."""
        stage = self.config.arms
        wide = _resized(state, min(stage.num_betas, self.model.num_betas))
        base = axis_angle_from_matrix(state.rotations)
        trials = [
            (i, side, with_arm(pose, self.names, side, arm))
            for i, pose in enumerate(base)
            for side in ("left", "right")
            for arm in ARMS.values()
        ]
        poses = np.stack([t[2] for t in trials])
        owners = np.array([t[0] for t in trials])
        tried = with_pose(wide.take(owners), poses)
        cost = self.problem(stage, observations, poses).linearize(tried, want_rows=False).cost
        pairs, starts = [], []
        for i, pose in enumerate(base):
            pairs.append(pose)
            starts.append(i)
            ranked = {}
            for side in ("left", "right"):
                mine = [k for k, t in enumerate(trials) if t[0] == i and t[1] == side]
                ranked[side] = sorted(mine, key=lambda k: (cost[k], k))[:ARM_CHOICES]
            # the best of one arm with the best of the other, and with the other's next best ones
            for a in range(ARM_CHOICES):
                for b in range(ARM_CHOICES - a):
                    both = trials[ranked["left"][a]][2].copy()
                    for joint in ("collar", "shoulder", "elbow", "wrist"):
                        if f"right_{joint}" in self.names:
                            j = self.names.index(f"right_{joint}")
                            both[j] = trials[ranked["right"][b]][2][j]
                    pairs.append(both)
                    starts.append(i)
        poses = np.stack(pairs)
        paired = with_pose(wide.take(np.array(starts)), poses)
        arms = self.problem(stage, observations, poses)
        solution = solve(arms, paired, iterations=2, cancelled=self.cancelled)
        first = np.argsort(solution.cost, kind="stable")[: max(6, len(poses) // 3)]
        arms = self.problem(stage, observations, poses[first])
        solution = solve(arms, solution.state.take(first), cancelled=self.cancelled)
        return solution.state, poses[first], solution.cost

    def _distinct(
        self, state: State, cost: NDArray[np.float64], count: int, up: NDArray[np.float64], *, poses_too: bool = False
    ) -> list[int]:
        """The cheapest states that differ in heading (or, when asked, in an arm)."""
        front = state.rotations[:, 0, :, 2]
        front = front - (front @ up)[:, None] * up
        front /= np.maximum(np.linalg.norm(front, axis=1, keepdims=True), 1e-9)
        keep: list[int] = []
        for i in np.argsort(cost, kind="stable"):
            near = [k for k in keep if front[i] @ front[k] > np.cos(SAME_HEADING_RAD)]
            if poses_too:
                near = [k for k in near if self._same_pose(state.rotations[i], state.rotations[k])]
            if not near:
                keep.append(int(i))
            if len(keep) == count:
                break
        return keep

    def _same_pose(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
        turn = axis_angle_from_matrix(np.swapaxes(a[1:], 1, 2) @ b[1:])
        return bool(np.linalg.norm(turn, axis=1).max() < SAME_HEADING_RAD)


def _resized(state: State, num_shape: int) -> State:
    """The state with fewer or more shape components; new ones start at the mean."""
    shape = np.zeros((len(state.shape), num_shape))
    n = min(num_shape, state.shape.shape[1])
    shape[:, :n] = state.shape[:, :n]
    return State(state.rotations, state.transl, shape, state.group)
