"""Where the sensors of a rig really are, and how late their clocks run, from the person that all of them see.

The first sensor stays where it was said to be. The others' places are solved for together with every pose and the
shape, from where they were said to be (a Gaussian prior), from the person (`bodyfit.fit.rig`), and from the floor that
they see: it is one plane, whoever looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import InputError
from bodyfit.fit.config import CLOTHING, UNDECIDED, Clothing, Stage
from bodyfit.fit.hypotheses import STANCES, stance_pose
from bodyfit.fit.joint import (
    WARM_GAP_S,
    FitSetup,
    Instant,
    JointFit,
    covariances,
    expected_rest,
    finish,
    garment_directions,
    garment_prior,
    joint_gaussian,
    prior_shape,
    settle_joint,
    solve_joint,
    told_starter,
    worn,
)
from bodyfit.fit.mesh import GARMENTS, mesh_for
from bodyfit.fit.pose_prior import pose_prior
from bodyfit.fit.problem import ShapeGaussian, State
from bodyfit.fit.rig import RIGID, RigLayout, RigProblem, cross_matrix, motion_of
from bodyfit.fit.rig_prior import RigConfig, beside, bump_directions, rig_prior
from bodyfit.fit.solver import solve
from bodyfit.fit.view import make_view
from bodyfit.observe.observation import Observation

LEAST_DENSE = 5
"""clocks are looked at where at least so many instants follow each other closely"""
SIGMAS_OFF = 2.5
"""a correction this many times what was expected is told as a big one"""


@dataclass(frozen=True)
class SensorPlace:
    """Where a sensor was found to be.

    Attributes:
        name: the sensor.
        T_world_depth: (4, 4) as found; `given` as it was said to be.
        fixed: whether it is the sensor that the others were held against.
        moved_m, turned_deg: how far it was found from there; moved_sd_m, turned_sd_deg: one standard deviation of the
            distance and the angle that is left unknown.
        delay_s: how much later than its stamps say this sensor saw what it saw, by the first sensor's clock; None
            where clocks were not looked at. delay_sd_s: one standard deviation.
        flags: what is remarkable, one short sentence each.
    """

    name: str
    T_world_depth: NDArray[np.float64]
    given: NDArray[np.float64]
    fixed: bool
    moved_m: float
    turned_deg: float
    moved_sd_m: float
    turned_sd_deg: float
    delay_s: float | None = None
    delay_sd_s: float | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class RigFit:
    """A rig's parameters theta (E,), and the body that they were found with: rotations (T, J, 3, 3), transl (T, 3), one
    shape (S + garments,) about `mean` (S,), the bumps (metres, none where () ), and which instants have a say."""

    layout: RigLayout
    theta: NDArray[np.float64]
    rotations: NDArray[np.float64]
    transl: NDArray[np.float64]
    shape: NDArray[np.float64]
    mean: NDArray[np.float64]
    chosen: NDArray[np.int64]
    bumps: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def of(self, found: JointFit) -> RigFit:
        """The same rig with the body of a fit."""
        return replace(self, rotations=found.rotations, transl=found.transl, shape=found.shape, chosen=found.chosen)

    def into(self, found: JointFit) -> JointFit:
        """A fit with this body."""
        return replace(found, rotations=self.rotations, transl=self.transl, shape=self.shape)

    def moved(self, instants: Sequence[Instant]) -> list[Instant]:
        """The same instants with every sensor where it was found, seen when it was found to have seen them."""
        return [
            replace(i, observations=tuple(self._moved(o) for o in i.observations))
            for i in instants
        ]  # fmt: skip

    def with_clocks(self) -> RigFit:
        """The same with the sensors' clocks among the parameters."""
        layout = replace(self.layout, clocks=True)
        theta = np.zeros(layout.size)
        for k in range(1, len(layout.sensors)):
            theta[layout.of(k)][:RIGID] = self.theta[self.layout.of(k)][:RIGID]
        return replace(self, layout=layout, theta=theta)

    def _moved(self, o: Observation) -> Observation:
        k = self.layout.sensors.index(o.sensor)
        D, delay = self.layout.motion(self.theta, k), self.layout.delay(self.theta, k)
        return moved_observation(o, D, delay)


def moved_observation(o: Observation, D: NDArray[np.float64], delay_s: float = 0.0) -> Observation:
    """What a sensor saw, had it stood elsewhere by D (4, 4), and `delay_s` later; gravity is what it was."""
    if np.array_equal(D, np.eye(4)) and delay_s == 0.0:
        return o
    R, t = D[:3, :3], D[:3, 3]
    plane, height = o.floor_plane_world, o.floor_height_m
    if plane is not None:
        n = R @ plane[:3]
        plane = np.array([*n, plane[3] - n @ t])
        if o.up_world is not None and height is not None:
            # the floor's height under the same point of the person
            at = R @ _middle(o) + t
            height = float(o.up_world @ at - (n @ at + plane[3]) / (n @ o.up_world))
    return replace(
        o, T_world_depth=D @ o.T_world_depth, floor_plane_world=plane, floor_height_m=height,
        timestamp_s=o.timestamp_s + delay_s,
    )  # fmt: skip


def _middle(o: Observation) -> NDArray[np.float64]:
    """(3,) middle of the sensor's points on the person, world."""
    from bodyfit.fit.initialize import person_points_world

    return person_points_world(o).mean(0)


def check_sensors(names: Sequence[str]) -> None:
    """Refuses to look for the place of a single sensor: nothing says where it is but itself."""
    if len(names) < 2:
        raise InputError("refine_extrinsics", "a recording of two or more sensors", f"one ({', '.join(names)})")


def check_rig(instants: Sequence[Instant]) -> tuple[str, ...]:
    """The sensors that see the person, in the order in which they first do.

    Raises:
        InputError: fewer than two of them, or two sensors that never see the person at one instant.
    """
    names = tuple(dict.fromkeys(o.sensor for i in instants for o in i.observations))
    if len(names) < 2:
        only = f"one ({names[0]})" if names else "none"
        raise InputError("refine_extrinsics", "two or more sensors that see the person", only)
    linked = {names[0]}
    while True:
        together = {o.sensor for i in instants if linked & {p.sensor for p in i.observations} for o in i.observations}
        if together <= linked:
            break
        linked |= together
    alone = [n for n in names if n not in linked]
    if alone:
        expected = f"sensors that see the person at the same instants as {names[0]} or as one that does"
        raise InputError("refine_extrinsics", expected, f"{', '.join(alone)} never")
    return names


def dense(instants: Sequence[Instant]) -> bool:
    """Whether the instants are a sequence in which motion can be told."""
    gaps = np.diff([i.timestamp_s for i in instants])
    return len(instants) >= LEAST_DENSE and bool(np.median(gaps) <= 0.5 * WARM_GAP_S)


def find_rig(
    setup: FitSetup,
    config: RigConfig,
    instants: Sequence[Instant],
    progress: Callable[[str, float], None],
    cancelled: Callable[[], bool] | None,
) -> tuple[list[Instant], Clothing, JointFit, tuple[SensorPlace, ...]]:
    """The whole fit with the sensors' places unknown by a little: the instants as the moved sensors see them, what is
    worn, the joint solution (its covariance holds the sensors' uncertainty) and where the sensors are.

    Raises:
        InputError: see `check_rig`.
    """
    sensors = check_rig(instants)
    clothing = UNDECIDED if setup.clothing == "auto" else CLOTHING[setup.clothing]
    rig = sketch_rig(setup, config, clothing, instants, sensors, cancelled)
    found = solve_joint(setup, clothing, rig.moved(instants), progress, cancelled)
    progress("finding the sensors", 0.8)
    if dense(instants):
        rig = rig.with_clocks()
    rig = refine_rig(setup, config, config.coarse, clothing, instants, rig.of(found), cancelled)
    found = rig.into(found)
    if setup.clothing == "auto":
        clothing = worn(setup, rig.moved(instants), found)
    rig = replace(rig, bumps=np.zeros(config.bumps))
    rig = refine_rig(setup, config, config.fine, clothing, instants, rig, cancelled)
    moved = rig.moved(instants)
    found = rig.into(found)
    clothing, settled = settle_joint(setup, clothing, moved, found, cancelled)
    # the body as it was found with bumps is none of the model's
    found = finish(setup, clothing, moved, found, cancelled) if settled is found else settled
    rig = rig.of(found)
    shape_cov, covariance = rig_covariance(setup, config, clothing, instants, rig)
    found = replace(found, shape_cov=shape_cov)
    return moved, clothing, found, places_of(config, instants, rig, covariance)


def sketch_rig(
    setup: FitSetup,
    config: RigConfig,
    clothing: Clothing,
    instants: Sequence[Instant],
    sensors: tuple[str, ...],
    cancelled: Callable[[], bool] | None,
) -> RigFit:
    """Roughly where the sensors are, from the first of the instants that most of them see: sensors that disagree by
    centimetres would have every instant searched for poses that explain them."""
    t = max(range(len(instants)), key=lambda t: len(instants[t].observations))
    shape, told, starter = told_starter(setup, clothing, instants, cancelled)
    start = starter.search_poses(instants[t].observations, [stance_pose(starter.names, s) for s in STANCES])
    S = setup.model.num_betas
    full = np.zeros(S + len(GARMENTS))
    full[:S] = told.mean - shape.mean
    full[: len(start.shape)] += start.shape
    full[S:] = garment_prior(clothing)[0]
    layout = RigLayout(sensors, start.transl + setup.model.joints_at_rest(told.mean)[0])
    rig = RigFit(
        layout, np.zeros(layout.size), start.rotations[None], start.transl[None], full, shape.mean, np.array([0])
    )
    return refine_rig(setup, config, config.coarse[:1], clothing, [instants[t]], rig, cancelled)


def refine_rig(
    setup: FitSetup,
    config: RigConfig,
    stages: Sequence[Stage],
    clothing: Clothing,
    instants: Sequence[Instant],
    rig: RigFit,
    cancelled: Callable[[], bool] | None = None,
) -> RigFit:
    """Sensors, shape and the poses of the instants that decide the shape, all together, on a table of stages.

    Args:
        instants: with the sensors where they were said to be.
        rig: where to start.
    """
    S, G, K, chosen = setup.model.num_betas, len(GARMENTS), len(rig.bumps), rig.chosen
    for stage in stages:
        problem, state = rig_problem(setup, config, stage, clothing, instants, rig)
        best = solve(problem, state, cancelled=cancelled).state
        n, shared = problem.mesh.num_betas, best.shape[0]
        rotations, transl, shape = rig.rotations.copy(), rig.transl.copy(), rig.shape.copy()
        rotations[chosen], transl[chosen] = best.rotations, best.transl
        shape[:n], shape[S:] = shared[:n], shared[n : n + G]
        if n < S:
            shape[n:S] = expected_rest(prior_shape(setup).cov, shape[:n], n)
        rig = replace(
            rig,
            theta=shared[n + G + K :],
            bumps=shared[n + G : n + G + K],
            rotations=rotations,
            transl=transl,
            shape=shape,
        )
    return rig


def rig_problem(
    setup: FitSetup,
    config: RigConfig,
    stage: Stage,
    clothing: Clothing,
    instants: Sequence[Instant],
    rig: RigFit,
) -> tuple[RigProblem, State]:
    """The problem of one stage over the instants that have a say, and the state to start from."""
    layout, model, chosen = rig.layout, setup.model, rig.chosen
    S = model.num_betas
    n = min(stage.num_betas, S)
    prior_of_shape, prior = prior_shape(setup), pose_prior(model.joint_names)
    directions = garment_directions(model, rig.mean + rig.shape[:S])
    K = len(rig.bumps)
    if K:
        directions = np.concatenate([directions, bump_directions(model, K, config.bump_m)], 2)
    mesh = mesh_for(model, stage.level, n, rig.mean, directions)
    items, views, item_sensor, item_delay = [], [], [], []
    for row, t in enumerate(chosen):
        for o in instants[t].observations:
            items.append((row, len(views)))
            views.append(make_view(o, stage.pixels))
            item_sensor.append(layout.sensors.index(o.sensor))
            item_delay.append(o.timestamp_s - instants[t].timestamp_s)
    form = ShapeGaussian(np.zeros(K), np.eye(K) / config.sigma_form_m**2)
    known = beside(joint_gaussian(prior_of_shape, clothing, n), form)
    velocity = motion_of(rig.rotations, rig.transl, [i.timestamp_s for i in instants], WARM_GAP_S)[chosen]
    problem = RigProblem(
        mesh, views, np.array(items, np.int64), stage, setup.config, prior,
        np.broadcast_to(prior.mean, (len(chosen), *prior.mean.shape)),
        beside(known, rig_prior(config, layout, instants, len(chosen))), clothing.sigma_behind_m,
        layout=layout, item_sensor=np.array(item_sensor, np.int64), item_delay=np.array(item_delay), velocity=velocity,
    )  # fmt: skip
    shared = np.concatenate([rig.shape[:n], rig.shape[S:], rig.bumps, rig.theta])[None]
    return problem, State(rig.rotations[chosen], rig.transl[chosen], shared, np.zeros(len(chosen), np.int64))


def rig_covariance(
    setup: FitSetup, config: RigConfig, clothing: Clothing, instants: Sequence[Instant], rig: RigFit
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Covariances of the shape and of the rig (E, E), each with all else unknown."""
    found = []
    for stage, bumps in ((setup.config.refine[-1], np.zeros(0)), (config.fine[-1], rig.bumps)):
        problem, state = rig_problem(setup, config, stage, clothing, instants, replace(rig, bumps=bumps))
        shared, _ = covariances(replace(problem, shared_noise=True, break_ties=False).linearize(state))
        n = problem.mesh.num_shape
        found.append((shared[:n, :n], shared[n:, n:]))
    return found[0][0], found[1][1]


def places_of(
    config: RigConfig, instants: Sequence[Instant], rig: RigFit, covariance: NDArray[np.float64]
) -> tuple[SensorPlace, ...]:
    """What is to be told of each sensor."""
    layout, out = rig.layout, []
    for k, name in enumerate(layout.sensors):
        given = next(o.T_world_depth for i in instants for o in i.observations if o.sensor == name)
        D = layout.motion(rig.theta, k)
        found = D @ given
        clocks = layout.clocks
        if k == 0:
            delay = 0.0 if clocks else None
            out.append(SensorPlace(name, found, given, True, 0.0, 0.0, 0.0, 0.0, delay, delay))
            continue
        at = layout.of(k)
        slow = np.zeros(layout.each)
        slow[:3], slow[3:6] = np.radians(config.sensor_deg) ** 2, config.sensor_m**2
        cov = covariance[at, at] + np.diag(slow)
        moved = float(np.linalg.norm(found[:3, 3] - given[:3, 3]))
        turned = float(np.degrees(np.linalg.norm(rig.theta[at][:3])))
        G = np.concatenate([-cross_matrix(found[:3, 3] - layout.pivot - rig.theta[at][3:6]), np.eye(3)], 1)
        moved_sd = float(np.sqrt(np.trace(G @ cov[:6, :6] @ G.T)))
        turned_sd = float(np.degrees(np.sqrt(np.trace(cov[:3, :3]))))
        delay = layout.delay(rig.theta, k) if clocks else None
        delay_sd = float(np.sqrt(cov[6, 6])) if clocks else None
        flags = []
        if moved > SIGMAS_OFF * config.sigma_place_m or turned > SIGMAS_OFF * config.sigma_turn_deg:
            flags.append(f"sensor {name} stands {moved * 100:.0f} cm and {turned:.1f}° from where it was said to stand")
        if delay is not None and abs(delay) > SIGMAS_OFF * config.sigma_clock_s:
            flags.append(f"sensor {name} runs {delay * 1000:.0f} ms off the first sensor's clock")
        out.append(
            SensorPlace(
                name, found, given, False, moved, turned, moved_sd, turned_sd, delay, delay_sd, tuple(flags)
            )
        )  # fmt: skip
    return tuple(out)
