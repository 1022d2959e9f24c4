"""All instants of a recording as one problem: a start for each, then one shape and every pose together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.errors import InputError
from bodyfit.fit.collide import Spheres, spheres_of
from bodyfit.fit.config import CLOTHING, UNDECIDED, Clothing, FitConfig, Stage
from bodyfit.fit.initialize import Shape, Start, Starter, seen_stature, shape_of_height
from bodyfit.fit.learned_prior import learned_for
from bodyfit.fit.limbs import LimbStages, improve_limbs
from bodyfit.fit.mesh import GARMENTS, Mesh, garment_fields, held_mesh, mesh_for
from bodyfit.fit.pose_prior import PosePrior, pose_prior
from bodyfit.fit.problem import HELD, Linearization, Problem, ShapeGaussian, State
from bodyfit.fit.rig import motion_of, seen_late
from bodyfit.fit.sequence import is_sequence, refine_sequence
from bodyfit.fit.solver import Refiner, Solution, solve
from bodyfit.fit.view import Views, make_view
from bodyfit.fit.wear import judge_wear, without_prior
from bodyfit.observe.observation import Observation
from bodyfit.rotation import axis_angle_from_matrix
from bodyfit.watch import checkpoint

if TYPE_CHECKING:
    from bodyfit.fit.extrinsics import SensorPlace
    from bodyfit.fit.result import FitResult
    from bodyfit.fit.rig_prior import RigConfig

WARM_GAP_S = 0.2
"""frames nearer in time than this start from the one before"""
LOST = 2.0
"""a warm start that costs this many times the median of the frames before is searched again from nothing"""
SHAPE_INSTANTS = 16
"""at most this many instants, spread over the recording, decide the shape; the others then get their pose"""
STATURE_SIGMA_M = 0.03
AT_ONCE_S = 0.001
"""sensors whose stamps differ by less saw the person at once"""
OUT_OF_STEP_S = 0.004
"""a sensor that saw the person this much later saw a moving arm a centimetre away"""
CLOSE = 1.1
"""a rival whose cost is within this of the best start's may have the better limbs"""


@dataclass(frozen=True)
class Instant:
    """What all chosen sensors saw of the person at one index of a recording."""

    index: int
    timestamp_s: float
    observations: tuple[Observation, ...]


@dataclass(frozen=True)
class FitSetup:
    """Which body, which prior over shapes, which clothes (a name or auto), which settings, and what refines a start."""

    model: BodyModel
    sex: str
    clothing: str
    config: FitConfig
    refiner: Refiner = solve
    method: str = "lm"
    rig: RigConfig | None = None
    """how roughly the sensors' places are known, where they are to be found from the person"""


@dataclass(frozen=True)
class JointFit:
    """The joint solution: poses (T, J, 3, 3), transl (T, 3), the shape (S + garments,) about the prior's mean and its
    covariance, per
    instant the rivals' costs and the cost of its start, and which instants decided the shape."""

    rotations: NDArray[np.float64]
    transl: NDArray[np.float64]
    shape: NDArray[np.float64]
    shape_cov: NDArray[np.float64]
    pose_cov: NDArray[np.float64]
    cost: float
    solution: Solution
    mean: NDArray[np.float64]
    rivals: list[tuple[float, ...] | None]
    start_costs: list[float]
    chosen: NDArray[np.int64]


def prior_shape(setup: FitSetup) -> Shape:
    """The shape prior of the asked sex, widened."""
    prior = setup.model.priors.get(setup.sex) or setup.model.priors["neutral"]
    return Shape(prior.mean, prior.cov * setup.config.prior_widening**2)


def told_starter(
    setup: FitSetup, clothing: Clothing, instants: Sequence[Instant], cancelled: Callable[[], bool] | None
) -> tuple[Shape, Shape, Starter]:
    """The prior over shapes, the same told how tall the person was seen to be, and what starts instants with it."""
    shape = prior_shape(setup)
    prior = pose_prior(setup.model.joint_names)
    stature = seen_stature([o for i in instants for o in i.observations])
    told = shape
    if stature is not None and 1.0 < stature < 2.4:
        worn = clothing.hair_m[0] + clothing.shoes_m[0]
        told = shape_of_height(setup.model, shape, stature - worn, STATURE_SIGMA_M)
    return shape, told, Starter(setup.model, told, prior, clothing, setup.config, cancelled)


def solve_joint(
    setup: FitSetup,
    clothing: Clothing,
    instants: Sequence[Instant],
    progress: Callable[[str, float], None],
    cancelled: Callable[[], bool] | None,
) -> JointFit:
    """Starts every instant, refines all with one shape."""
    shape, told, starter = told_starter(setup, clothing, instants, cancelled)
    prior = starter.prior
    starts: list[Start] = []
    warm: list[bool] = []
    for n in range(len(instants)):
        start, is_warm = _start_of(starter, instants, starts, n)
        starts.append(start)
        warm.append(is_warm)
        progress("finding the pose", 0.1 + 0.5 * (n + 1) / len(instants))
    state = State(
        np.stack([s.rotations for s in starts]),
        np.stack([s.transl for s in starts]),
        np.zeros((1, setup.model.num_betas + len(GARMENTS))),
        np.zeros(len(starts), np.int64),
    )
    # the shape found so far is the conditioned mean: expressed about the prior's own mean
    state.shape[0, : setup.model.num_betas] = told.mean - shape.mean
    costs = np.array([s.cost for s in starts])
    good = np.flatnonzero(costs <= LOST * np.median(costs))
    state.shape[0, : len(starts[0].shape)] += np.mean([starts[i].shape for i in good], axis=0)
    rivals = [None if w else s.rivals for s, w in zip(starts, warm, strict=True)]
    return refine(setup, clothing, instants, state, shape, prior, rivals, [s.cost for s in starts], progress, cancelled)


def _start_of(starter: Starter, instants: Sequence[Instant], starts: Sequence[Start], n: int) -> tuple[Start, bool]:
    instant = instants[n]
    if n > 0 and starter.cancelled():
        return starts[-1], True  # not looked at: what the instants before have is all there will be
    if n > 0 and instant.timestamp_s - instants[n - 1].timestamp_s <= WARM_GAP_S:
        warm = starter.follow(instant.observations, starts[-1])
        usual = float(np.median([s.cost for s in starts]))
        if warm.cost <= LOST * usual:
            return warm, True
    known = [axis_angle_from_matrix(s.rotations) for s in starts[-2:]]
    return starter.start(instant.observations, known), False


def garment_directions(model: BodyModel, mean: NDArray[np.float64]) -> NDArray[np.float32]:
    """(V, 3, G) how a metre of each garment's thickness moves the seen surface: along the rest shape's normals."""
    from bodyfit.kernels.body import vertex_normals

    rest = model.rest_vertices(mean).astype(np.float32)
    normals = np.empty_like(rest)
    vertex_normals(rest, model.faces, normals)
    return normals[:, :, None] * garment_fields(model)[:, None, :]


def spheres_for(setup: FitSetup, stage: Stage) -> Spheres | None:
    """What tells how deep the usual body's parts lie in each other, where a stage asks for that."""
    wanted = setup.config.self_penetration and stage.solid
    return spheres_of(setup.model, prior_shape(setup).mean) if wanted else None


def garment_prior(clothing: Clothing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (G,) of the garments' thickness, metres."""
    rows = np.array([clothing.shirt_m, clothing.trousers_m, clothing.shoes_m, clothing.hair_m])
    return rows[:, 0], rows[:, 1]


def joint_gaussian(shape: Shape, clothing: Clothing, num_betas: int) -> ShapeGaussian:
    """The prior over [betas beyond the mean, garment thickness]."""
    mean, sd = garment_prior(clothing)
    n = min(num_betas, len(shape.mean))
    precision = np.zeros((n + len(mean), n + len(mean)))
    precision[:n, :n] = np.linalg.inv(shape.cov[:n, :n])
    precision[n:, n:] = np.diag(1 / sd**2)
    return ShapeGaussian(np.concatenate([np.zeros(n), mean]), precision)


def refine(
    setup: FitSetup,
    clothing: Clothing,
    instants: Sequence[Instant],
    state: State,
    shape: Shape,
    prior: PosePrior,
    rivals: list[tuple[float, ...] | None],
    start_costs: list[float],
    progress: Callable[[str, float], None],
    cancelled: Callable[[], bool] | None,
) -> JointFit:
    """One shape and all poses together, coarse mesh first; then the poses that had no say in the shape."""
    T, S = len(instants), setup.model.num_betas
    chosen = np.unique(np.linspace(0, T - 1, min(T, SHAPE_INSTANTS)).round().astype(int))
    directions = garment_directions(setup.model, shape.mean + state.shape[0, :S])
    mean, _ = garment_prior(clothing)
    state.shape[0, S:] = mean
    part = State(state.rotations[chosen], state.transl[chosen], state.shape, np.zeros(len(chosen), np.int64))
    velocity = motion_between(instants, state)
    problem = solution = None
    for k, stage in enumerate(setup.config.refine):
        n = min(stage.num_betas, S)
        mesh = mesh_for(setup.model, stage.level, n, shape.mean, directions)
        small = State(
            part.rotations, part.transl, np.concatenate([part.shape[:, :n], part.shape[:, S:]], 1), part.group
        )
        problem = _problem(
            setup, clothing, mesh, stage, [instants[i] for i in chosen], prior, joint_gaussian(shape, clothing, n),
            velocity[chosen],
        )  # fmt: skip
        solution = setup.refiner(problem, small, cancelled=cancelled)
        full = np.zeros((1, S + len(GARMENTS)))
        full[:, :n], full[:, S:] = solution.state.shape[:, :n], solution.state.shape[:, n:]
        if n < S:
            full[:, n:S] = expected_rest(shape.cov, full[0, :n], n)
        part = State(solution.state.rotations, solution.state.transl, full, part.group)
        progress(stage.name, 0.6 + 0.2 * (k + 1) / len(setup.config.refine))
    assert problem is not None and solution is not None
    rotations, transl = state.rotations.copy(), state.transl.copy()
    rotations[chosen], transl[chosen] = part.rotations, part.transl
    equations = replace(problem, shared_noise=True, break_ties=False).linearize(solution.state)
    shape_cov, pose_cov_part = covariances(equations)
    pose_cov = np.zeros((T, *pose_cov_part.shape[1:]))
    pose_cov[chosen] = pose_cov_part
    rest = [i for i in range(T) if i not in set(chosen.tolist())]
    if rest:
        followed = _poses_only(
            setup, clothing, [instants[i] for i in rest], rotations[rest], transl[rest], part.shape[0], prior,
            velocity[rest], cancelled,
        )  # fmt: skip
        rotations[rest], transl[rest] = followed.state.rotations, followed.state.transl
        pose_cov[rest] = np.linalg.inv(followed.equations.A)
    return JointFit(
        rotations, transl, part.shape[0], shape_cov, pose_cov, float(solution.cost[0]), solution, shape.mean, rivals,
        start_costs, chosen,
    )  # fmt: skip


def worn(setup: FitSetup, instants: Sequence[Instant], found: JointFit) -> Clothing:
    """What the person wears, judged after a fit that did not know."""
    S = setup.model.num_betas
    betas = found.mean + found.shape[:S]
    poses = axis_angle_from_matrix(found.rotations)
    use = found.chosen
    bodies = [setup.model.forward(betas, poses[t], found.transl[t])[0] for t in use]
    views = [instants[t].observations for t in use]
    used = covariances(found.solution.equations)[0][S:, S:]
    alone, _ = without_prior(found.shape[S:], used, *garment_prior(UNDECIDED))
    _, cov = without_prior(found.shape[S:], found.shape_cov[S:, S:], *garment_prior(UNDECIDED))
    return judge_wear(setup.model, alone, cov, bodies, views).clothing


def finish(
    setup: FitSetup,
    clothing: Clothing,
    instants: Sequence[Instant],
    found: JointFit,
    cancelled: Callable[[], bool] | None,
) -> JointFit:
    """The last stage once more, from where a fit ended, with what is now known to be worn."""
    last = replace(setup, config=replace(setup.config, refine=setup.config.refine[-1:]))
    state = State(found.rotations, found.transl, found.shape[None].copy(), np.zeros(len(instants), np.int64))
    return refine(
        last, clothing, instants, state, prior_shape(setup), pose_prior(setup.model.joint_names), found.rivals,
        found.start_costs, lambda _stage, _fraction: None, cancelled,
    )  # fmt: skip


def expected_rest(cov: NDArray[np.float64], head: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """The expected further betas given the first n."""
    return cov[n:, :n] @ np.linalg.solve(cov[:n, :n], head)


def _problem(
    setup: FitSetup,
    clothing: Clothing,
    mesh: Mesh,
    stage: Stage,
    instants: Sequence[Instant],
    prior: PosePrior,
    gaussian: ShapeGaussian,
    velocity: NDArray[np.float64],
) -> Problem:
    views, items, delays = [], [], []
    for n, instant in enumerate(instants):
        for observation in instant.observations:
            items.append((n, len(views)))
            views.append(make_view(observation, stage.pixels))
            delays.append(observation.timestamp_s - instant.timestamp_s)
    pose_mean = np.broadcast_to(prior.mean, (len(instants), *prior.mean.shape))
    plain = Problem(
        mesh, views, np.array(items, dtype=np.int64), stage, setup.config, prior, pose_mean, gaussian,
        clothing.sigma_behind_m, learned_prior=learned_for(setup.config, stage, mesh.joint_names),
        spheres=spheres_for(setup, stage),
    )  # fmt: skip
    return seen_late(plain, np.array(delays), velocity) if velocity.any() else plain


def motion_between(instants: Sequence[Instant], state: State) -> NDArray[np.float64]:
    """(T, Q) velocity of each pose where some sensor saw it at another time than the instant's; else zero."""
    late = any(abs(o.timestamp_s - i.timestamp_s) > AT_ONCE_S for i in instants for o in i.observations)
    if not late:
        return np.zeros((len(instants), 3 * state.rotations.shape[1] + 3))
    return motion_of(state.rotations, state.transl, [i.timestamp_s for i in instants], WARM_GAP_S)


def held_body(setup: FitSetup, level: int, found: NDArray[np.float64]) -> Mesh:
    """The body of a found shape (S + garments,) about the prior's mean, to be held still by its prior."""
    S, mean = setup.model.num_betas, prior_shape(setup).mean
    directions = garment_directions(setup.model, mean + found[:S])
    return held_mesh(mesh_for(setup.model, level, S, mean, directions), found)


def _limbs_again(
    setup: FitSetup,
    clothing: Clothing,
    instants: Sequence[Instant],
    found: JointFit,
    cancelled: Callable[[], bool] | None,
) -> list[JointFit]:
    """Limbs put elsewhere where that explains an instant better, now that shape and clothes are known; of several
    instants only those for which another start was nearly as good, and none that was followed from the one before.

    Returns what was found, unchanged where nothing helped, first; of a single instant then what explains it nearly as
    well with a limb elsewhere.
    """
    prior, c = pose_prior(setup.model.joint_names), setup.config
    stage = c.limbs_again
    spheres = spheres_for(setup, stage)
    mesh = held_body(setup, stage.level, found.shape)
    last, stop = replace(stage, iterations=4), cancelled or (lambda: False)
    how = LimbStages(stage, c.reach, last, 2, prior, stop, c.arms_tasted)
    rotations, transl = found.rotations.copy(), found.transl.copy()
    close: list[State] = []
    for t, instant in enumerate(instants):
        checkpoint()
        rivals = found.rivals[t]
        if rivals is None or how.cancelled():
            continue
        if len(instants) > 1 and min(rivals, default=np.inf) > CLOSE * found.start_costs[t]:
            continue

        seen = Views(instant.observations)

        def problem_of(stage: Stage, mean: NDArray[np.float64], seen: Views = seen) -> Problem:
            views = seen.at(stage.pixels)
            items = np.array([(i, v) for i in range(len(mean)) for v in range(len(views))], dtype=np.int64)
            learned = learned_for(c, stage, mesh.joint_names)
            return Problem(
                mesh, views, items, stage, c, prior, mean, HELD, clothing.sigma_behind_m, learned_prior=learned,
                spheres=spheres if stage.solid else None,
            )  # fmt: skip

        state = State(rotations[t : t + 1], transl[t : t + 1], np.zeros((1, 1)), np.zeros(1, np.int64))
        cost = float(problem_of(how.last, prior.mean[None]).linearize(state, want_rows=False).cost[0])
        better = improve_limbs(how, problem_of, state, cost)
        rotations[t], transl[t] = better.state.rotations[0], better.state.transl[0]
        if len(instants) == 1:
            close += better.rivals
    unchanged = np.array_equal(rotations, found.rotations)
    best = found if unchanged else replace(found, rotations=rotations, transl=transl)
    return [best, *(replace(found, rotations=s.rotations, transl=s.transl) for s in close)]


def together(
    setup: FitSetup,
    clothing: Clothing,
    instants: Sequence[Instant],
    found: JointFit,
    progress: Callable[[str, float], None],
    cancelled: Callable[[], bool] | None,
) -> JointFit:
    """The poses of a moving person solved together, where the instants follow each other closely enough."""
    terms = setup.config.sequence
    times = [i.timestamp_s for i in instants]
    if terms is None or setup.method != "lm" or not is_sequence(times, terms):
        return found
    if any(abs(o.timestamp_s - i.timestamp_s) > OUT_OF_STEP_S for i in instants for o in i.observations):
        # views are moved along the motion that was found before, which is held: good for a few milliseconds
        return found
    return refine_sequence(
        setup, clothing, instants, found, terms=terms, cancelled=cancelled,
        progress=lambda stage, fraction: progress(stage, 0.8 + 0.1 * fraction),
    )  # fmt: skip


def _poses_only(
    setup: FitSetup,
    clothing: Clothing,
    instants: Sequence[Instant],
    rotations: NDArray[np.float64],
    transl: NDArray[np.float64],
    found: NDArray[np.float64],
    prior: PosePrior,
    velocity: NDArray[np.float64],
    cancelled: Callable[[], bool] | None,
) -> Solution:
    """Each instant alone, with the shape held where the chosen instants put it."""
    stage = replace(setup.config.refine[-1], level=1, pixels=2000)
    held = held_body(setup, stage.level, found)
    n = len(instants)
    state = State(rotations, transl, np.zeros((n, 1)), np.arange(n))
    problem = _problem(setup, clothing, held, stage, instants, prior, HELD, velocity)
    return setup.refiner(problem, state, cancelled=cancelled)


def covariances(eq: Linearization) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Covariance of the shape (S, S), poses marginalised, and of each pose (N, Q, Q), the shape held."""
    A_inv = np.linalg.inv(eq.A + 1e-9 * np.eye(eq.A.shape[1]))
    C = eq.C[0] - (np.swapaxes(eq.B, 1, 2) @ A_inv @ eq.B).sum(0)
    return np.asarray(np.linalg.inv(0.5 * (C + C.T)), np.float64), np.asarray(A_inv, np.float64)


def garments_of(fit: JointFit, num_betas: int) -> Mapping[str, float]:
    """Estimated thickness by garment, metres."""
    return {g: float(x) for g, x in zip(GARMENTS, fit.shape[num_betas:], strict=True)}


def fit_instants(
    setup: FitSetup,
    instants: Sequence[Instant],
    *,
    skipped: Mapping[int, str] | None = None,
    progress: Callable[[str, float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> FitResult:
    """Fits instants that are already observations; `fit` reads them from a recording.

    Raises:
        InputError: no instants.
    """
    from bodyfit.fit.outcome import make_result

    if not instants:
        raise InputError("instants", "at least one", "none")
    say = progress or (lambda _stage, _fraction: None)
    sensors: tuple[SensorPlace, ...] = ()
    if setup.rig is not None:
        from bodyfit.fit.extrinsics import find_rig

        instants, clothing, found, sensors = find_rig(setup, setup.rig, instants, say, cancelled)
    else:
        clothing, found = find_joint(setup, instants, progress=say, cancelled=cancelled)
    found = together(setup, clothing, instants, found, say, cancelled)
    say("measuring", 0.9)
    result = make_result(setup, clothing, instants, found, skipped or {})
    if sensors:
        told = (*result.flags, *(flag for place in sensors for flag in place.flags))
        result = replace(result, sensors=sensors, flags=told)
    say("done", 1.0)
    return result


def find_joint(
    setup: FitSetup,
    instants: Sequence[Instant],
    *,
    progress: Callable[[str, float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[Clothing, JointFit]:
    """What is worn, and the joint solution: all of a fit but its measurements."""
    say = progress or (lambda _stage, _fraction: None)
    clothing = UNDECIDED if setup.clothing == "auto" else CLOTHING[setup.clothing]
    found = solve_joint(setup, clothing, instants, say, cancelled)
    return settle_joint(setup, clothing, instants, found, cancelled)


def settle_joint(
    setup: FitSetup,
    clothing: Clothing,
    instants: Sequence[Instant],
    found: JointFit,
    cancelled: Callable[[], bool] | None,
) -> tuple[Clothing, JointFit]:
    """What is worn where that was not said, limbs put elsewhere where that is better, and the last stage again."""
    checkpoint()
    if setup.clothing == "auto":
        clothing = worn(setup, instants, found)
    several = _limbs_again(setup, clothing, instants, found, cancelled)
    if setup.clothing == "auto" or len(several) > 1 or several[0] is not found:
        # which of them is right shows only when all of it is settled
        ends = [finish(setup, clothing, instants, s, cancelled) for s in several]
        found = min(ends, key=lambda end: end.cost)
    return clothing, found
