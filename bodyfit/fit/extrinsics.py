"""Where the sensors of a rig really are, and how late their clocks run, from the person that all of them see.

The first sensor stays where it was said to be. The others' places are solved for together with every pose and the
shape, from where they were said to be (a Gaussian prior), from the person (`bodyfit.fit.rig`), and from the floor that
they see: it is one plane, whoever looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
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
from bodyfit.fit.solver import solve
from bodyfit.fit.view import make_view
from bodyfit.observe.observation import Observation

LEAST_DENSE = 5
"""clocks are looked at where at least so many instants follow each other closely"""
SIGMAS_OFF = 2.5
"""a correction this many times what was expected is told as a big one"""

_refining = partial(Stage, sensor_noise=True, damping=1e-3)


@dataclass(frozen=True)
class RigConfig:
    """How roughly a rig is known, and the stages of finding it."""

    sigma_place_m: float = 0.05
    """standard deviation of where a sensor was said to be, each axis"""
    sigma_turn_deg: float = 3.0
    """and of how it was said to be turned, each axis"""
    sigma_clock_s: float = 0.02
    """and of its clock against the first sensor's: half a frame at 30 a second is 17 ms"""
    sigma_floor_m: float = 0.003
    """how well a sensor tells the floor's height at the person's feet"""
    sigma_floor_deg: float = 0.1
    """and its tilt"""
    stereo_floor: float = 3.0
    """a stereo matcher's floor is this many times worse: its errors grow with the square of the distance"""
    sensor_deg: float = 0.06
    """what a depth sensor's own slow errors, a millimetre or two that vary over the image, turn it by, each axis: the
    person does not show it, so it is added to what is told to be unknown"""
    sensor_m: float = 0.001
    """and shift it by, each axis"""
    sigma_form_m: float = 0.003
    """a body's own form, which the shape basis cannot make: standard deviation of the smooth bumps that stand for it.
    Without them a trunk that is thicker than the basis can make it turns and shifts the sensors that see it"""
    bumps: int = 80
    """how many, spread over the surface"""
    bump_m: float = 0.10
    """and their width"""
    coarse: tuple[Stage, ...] = field(
        default_factory=lambda: (
            _refining("rig", 2, 900, 10, 12, 0.12, 0.20, 0.10),
            _refining("rig fine", 1, 1600, 10, 24, 0.06, 0.12, 0.06, max_turn_rad=0.3, robust_floor_m=0.015),
        )
    )
    """from poses found with the sensors where they were said to be"""
    fine: tuple[Stage, ...] = field(
        default_factory=lambda: (
            _refining("rig last", 1, 2500, 8, 999, 0.04, 0.08, 0.03, max_turn_rad=0.1, robust_floor_m=0.015),
        )
    )
    """once more, when what is worn is known, with bumps"""


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


def bump_directions(model: BodyModel, count: int, width_m: float) -> NDArray[np.float32]:
    """(V, 3, K) how a metre of each bump moves the surface: along its normals, as a Gaussian about a vertex; the
    vertices are spread over the rest body, each the farthest from those before it."""
    from bodyfit.kernels.body import vertex_normals

    rest = model.v_template.astype(np.float32)
    normals = np.empty_like(rest)
    vertex_normals(rest, model.faces, normals)
    apart = np.full(len(rest), np.inf)
    out = np.empty((*rest.shape, count), np.float32)
    at = int(rest[:, 1].argmax())
    for k in range(count):
        square = ((rest - rest[at]) ** 2).sum(1)
        out[:, :, k] = normals * np.exp(-0.5 * square / width_m**2)[:, None]
        apart = np.minimum(apart, square)
        at = int(apart.argmax())
    return out


def beside(a: ShapeGaussian, b: ShapeGaussian) -> ShapeGaussian:
    """Two independent Gaussians as one over both."""
    n, m = len(a.mean), len(b.mean)
    precision = np.zeros((n + m, n + m))
    precision[:n, :n], precision[n:, n:] = a.precision, b.precision
    return ShapeGaussian(np.concatenate([a.mean, b.mean]), precision)


def rig_prior(config: RigConfig, layout: RigLayout, instants: Sequence[Instant], times: int) -> ShapeGaussian:
    """What is known of a rig (E,) without the person: where the sensors were said to be, and one floor for all.

    The floor is seen as often as the person is. What errs in both stays the same from instant to instant: they keep
    their proportion, however many instants there are.
    """
    turn, E = np.radians(config.sigma_turn_deg), layout.size
    precision, pull = np.zeros((E, E)), np.zeros(E)
    for k in range(1, len(layout.sensors)):
        at = layout.of(k).start
        # said of the sensor's own place, so that a turn about it shifts what it sees at the pivot
        away = layout.pivot - _sensor_place(instants, layout.sensors[k])
        G = np.zeros((6, 6))
        G[:3, :3] = np.eye(3) / turn
        G[3:, :3] = cross_matrix(away) / config.sigma_place_m
        G[3:, 3:] = np.eye(3) / config.sigma_place_m
        precision[at : at + 6, at : at + 6] = G.T @ G
        if layout.clocks:
            precision[at + 6, at + 6] = 1 / config.sigma_clock_s**2
    floors = floor_planes(instants)
    rows = [k for k, name in enumerate(layout.sensors) if name in floors]
    if len(rows) > 1:
        A, r = _floor_rows(layout, {k: floors[layout.sensors[k]] for k in rows})
        tilted, high = 1 / np.radians(config.sigma_floor_deg) ** 2, 1 / config.sigma_floor_m**2
        stereo = {o.sensor for i in instants for o in i.observations if o.noise is not None and o.noise.stereo}
        worse = [config.stereo_floor if layout.sensors[k] in stereo else 1.0 for k in rows]
        W = np.concatenate([np.array([tilted, tilted, high]) * times / w**2 for w in worse])
        # the floor that all agree on is unknown too: what is left when it is solved for (Schur's complement)
        shared = np.tile(np.eye(3), (len(rows), 1))
        P = np.diag(W) - (W[:, None] * shared) @ np.linalg.solve(shared.T @ (W[:, None] * shared), shared.T * W)
        precision += A.T @ P @ A
        pull -= A.T @ P @ r
    return ShapeGaussian(np.asarray(np.linalg.solve(precision, pull), np.float64), precision)


def _sensor_place(instants: Sequence[Instant], name: str) -> NDArray[np.float64]:
    return next(o.T_world_depth[:3, 3] for i in instants for o in i.observations if o.sensor == name)


def floor_planes(instants: Sequence[Instant]) -> Mapping[str, NDArray[np.float64]]:
    """For each sensor that sees the floor its plane (4,) in the world, n·x + d = 0, the mean over the instants."""
    seen: dict[str, list[NDArray[np.float64]]] = {}
    for i in instants:
        for o in i.observations:
            if o.floor_plane_world is not None:
                seen.setdefault(o.sensor, []).append(np.asarray(o.floor_plane_world, np.float64))
    out = {}
    for name, planes in seen.items():
        mean = np.mean(planes, axis=0)
        out[name] = mean / np.linalg.norm(mean[:3])
    return out


def _floor_rows(
    layout: RigLayout, floors: Mapping[int, NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two tilts and the height at the person of each sensor's floor: how they follow the rig's parameters (3K, E), and
    their values as given (3K,), radians and metres."""
    up = np.mean(list(floors.values()), axis=0)[:3]
    up /= np.linalg.norm(up)
    e1 = np.cross(up, [1.0, 0.0, 0.0] if abs(up[0]) < 0.9 else [0.0, 1.0, 0.0])
    e1 /= np.linalg.norm(e1)
    e2 = np.cross(up, e1)
    A, r = np.zeros((3 * len(floors), layout.size)), np.zeros(3 * len(floors))
    for row, (k, plane) in enumerate(sorted(floors.items())):
        n, d = plane[:3], plane[3]
        height = -(n @ layout.pivot + d) / (n @ up)
        r[3 * row : 3 * row + 3] = e1 @ n, e2 @ n, height
        if k > 0:
            at = layout.of(k).start
            tilt = -cross_matrix(n)  # ω × n
            A[3 * row, at : at + 3], A[3 * row + 1, at : at + 3] = e1 @ tilt, e2 @ tilt
            foot = height * up  # from the pivot
            A[3 * row + 2, at : at + 3] = up @ -cross_matrix(foot)
            A[3 * row + 2, at + 3 : at + 6] = up
    return A, r


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
