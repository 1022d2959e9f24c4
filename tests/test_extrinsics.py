"""Sensors' places and clocks found from the person: derivatives, recovery on a small rig, refusals, repetition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.cli.fit import parse_sigma
from bodyfit.cli.screen import print_sensors
from bodyfit.errors import InputError
from bodyfit.export.tables import sensors_document
from bodyfit.fit.config import CLOTHING, FitConfig, Stage
from bodyfit.fit.extrinsics import (
    RigFit,
    SensorPlace,
    check_rig,
    moved_observation,
    places_of,
    refine_rig,
    rig_covariance,
    rig_problem,
)
from bodyfit.fit.fit import fit, stamped_delays
from bodyfit.fit.joint import FitSetup, Instant, prior_shape
from bodyfit.fit.keypoints import joint_places
from bodyfit.fit.problem import Problem, State
from bodyfit.fit.result import FitResult
from bodyfit.fit.rig import RigLayout, RigProblem, cross_matrix, left_jacobian, motion_of, seen_late
from bodyfit.fit.rig_prior import RigConfig, floor_planes, rig_prior
from bodyfit.observe.observation import observe
from bodyfit.recording import Sensor, write_recording
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle
from bodyfit.synthetic.clothing import dress
from bodyfit.synthetic.contact import both_feet_down
from bodyfit.synthetic.poses import everyday_pose
from bodyfit.synthetic.scene import Plane, Scene, place_camera
from bodyfit.synthetic.sensor import kinect_v2, noiseless
from bodyfit.synthetic.subject import sample_subject
from bodyfit.synthetic.take import Take, film, full_pose

NAMES = ("cam0", "cam1")
GAP_S = 1 / 30


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


def filmed(model: BodyModel, times_s: Sequence[float], delays_s: Sequence[float]) -> list[Take]:
    """Two noiseless sensors, a right angle apart, before a person who walks past and turns: one take a sensor."""
    rng = np.random.default_rng(5)
    subject = sample_subject(model, rng, "female", 0.0)
    worn = dress(model, subject, "tight", rng)
    places = [place_camera(rng, azimuth=a, distance=(2.4, 2.6)) for a in (0.3, 0.3 + np.pi / 2)]
    first, last = (
        matrix_from_axis_angle(both_feet_down(model, subject, full_pose(model, everyday_pose(name, rng, yaw=yaw))))
        for name, yaw in (("a_pose", 0.2), ("arms_down", 2.0))
    )
    way = axis_angle_from_matrix(np.swapaxes(first, 1, 2) @ last)
    takes = []
    for k, T in enumerate(places):
        at = [(t + delays_s[k]) for t in times_s]
        poses = [axis_angle_from_matrix(first @ matrix_from_axis_angle(s * way)) for s in at]
        ground = np.array([[0.5 * s - 0.2, 0.3 * s - 0.1] for s in at])
        sensor = replace(noiseless(kinect_v2()), name=NAMES[k])
        scene = Scene((Plane((0.0, 0.0, 1.0), 0.0, (150, 150, 150)),))
        takes.append(film(model, subject, worn, poses, ground, (sensor,), (T,), scene, np.random.default_rng(k)))
    return takes


def looked_at(takes: Sequence[Take], times_s: Sequence[float], said: Sequence[NDArray[np.float64]]) -> list[Instant]:
    out = []
    for t, seconds in enumerate(times_s):
        frames = [take.instants[t].frames[name] for take, name in zip(takes, NAMES, strict=True)]
        seen = [
            observe(replace(f, T_world_depth=T, timestamp_s=float(seconds)), gravity_world=takes[0].gravity_world)
            for f, T in zip(frames, said, strict=True)
        ]
        out.append(Instant(t, float(seconds), tuple(seen)))
    return out


def off_by(T: NDArray[np.float64], turn_deg: float = 1.0, shift_m: float = 0.02) -> NDArray[np.float64]:
    out = T.copy()
    out[:3, :3] = matrix_from_axis_angle(np.radians(turn_deg) * np.array([0.48, -0.6, 0.64])) @ T[:3, :3]
    out[:3, 3] += shift_m * np.array([0.6, 0.64, -0.48])
    return out


def true_rig(model: BodyModel, takes: Sequence[Take], clocks: bool = False) -> RigFit:
    """The truth's poses and shape, and a rig that was not moved yet."""
    setup = FitSetup(model, "neutral", "tight", FitConfig())
    mean = prior_shape(setup).mean
    instants = takes[0].instants
    subject = takes[0].subject
    transl = np.stack([i.transl for i in instants])
    layout = RigLayout(NAMES, transl.mean(0) + subject.rest_joints[0], clocks)
    clothes = CLOTHING["tight"]
    worn = [clothes.shirt_m[0], clothes.trousers_m[0], clothes.shoes_m[0], clothes.hair_m[0]]
    return RigFit(
        layout, np.zeros(layout.size), matrix_from_axis_angle(np.stack([i.pose for i in instants])), transl,
        np.concatenate([subject.betas - mean, worn]), mean, np.arange(len(instants)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def takes(model: BodyModel) -> list[Take]:
    return filmed(model, [0.0, 0.5, 1.0], (0.0, 0.0))


@pytest.fixture(scope="module")
def instants(takes: list[Take]) -> list[Instant]:
    """With the second sensor said to be 2 cm and 1° from where it is."""
    true = [t.T_world_depth[0] for t in takes]
    return looked_at(takes, [0.0, 0.5, 1.0], [true[0], off_by(true[1])])


STAGE = Stage("test", 2, 600, 4, 6, 0.06, 0.12, sensor_noise=True)
ONE = RigConfig(
    coarse=(),
    fine=(Stage("test fine", 1, 900, 6, 999, 0.06, 0.12, 0.06, sensor_noise=True, damping=1e-3),),
    bumps=24,
)


def any_rig_problem(model: BodyModel, instants: Sequence[Instant], rig: RigFit) -> tuple[RigProblem, State]:
    setup = FitSetup(model, "neutral", "tight", FitConfig(threads=1))
    return rig_problem(setup, RigConfig(), STAGE, CLOTHING["tight"], instants, rig)


def test_left_jacobian_is_the_derivative_of_the_exponential() -> None:
    for w in (np.array([0.3, -0.7, 0.4]), np.array([1e-6, 2e-6, 0.0])):
        d = np.array([1.0, 2.0, -0.5]) * 1e-6
        both = matrix_from_axis_angle(w + d) @ matrix_from_axis_angle(w - d).T
        assert axis_angle_from_matrix(both) / 2 == pytest.approx(left_jacobian(w) @ d, abs=1e-11)
    assert cross_matrix(np.array([1.0, 2, 3])) @ [4.0, 5, 6] == pytest.approx(np.cross([1, 2, 3], [4, 5, 6]))


def test_joints_follow_every_parameter_as_the_map_says(
    model: BodyModel, takes: list[Take], instants: list[Instant]
) -> None:
    """Differences in float64 of the joints that a sensor sees, over poses, shape, places and clocks."""
    rng = np.random.default_rng(0)
    rig = true_rig(model, takes, clocks=True)
    rig = replace(rig, theta=np.concatenate([rng.normal(0, 0.1, 6), [0.013]]))
    problem, state = any_rig_problem(model, instants, rig)
    problem.velocity = rng.normal(0, 1.0, problem.velocity.shape)
    mesh, S, J = problem.mesh, problem.mesh.num_shape, model.num_joints
    recorded, n, k = 0.004, 1, 1
    view = problem.views[3]

    def seen(s: State) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        theta = s.shape[0, S:]
        body, L = problem.seen_body(s, n, k, recorded + rig.layout.delay(theta, k), theta)
        places, D = joint_places(mesh, body.rotations[n], body.transl[n], body.shape[0], view.R_cw, view.t_cw)
        return places, D @ L

    _, analytic = seen(state)
    assert analytic.shape == (J, 3, 3 * J + 3 + S + 7)
    step = 1e-6
    for p in range(analytic.shape[2]):
        ends = []
        for sign in (1, -1):
            moved = state.copy()
            if p < 3 * J:
                turn = np.zeros(3)
                turn[p % 3] = sign * step
                moved.rotations[n, p // 3] = moved.rotations[n, p // 3] @ matrix_from_axis_angle(turn)
            elif p < 3 * J + 3:
                moved.transl[n, p - 3 * J] += sign * step
            else:
                moved.shape[0, p - 3 * J - 3] += sign * step
            ends.append(seen(moved)[0])
        assert analytic[:, :, p] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=2e-8), p


def test_equations_are_those_of_the_moved_sensor(model: BodyModel, takes: list[Take], instants: list[Instant]) -> None:
    """A rig that was moved costs what the same body costs with the sensors put there."""
    rig = true_rig(model, takes)
    rig = replace(rig, theta=np.array([0.01, -0.02, 0.015, 0.02, 0.01, -0.01]))
    problem, state = any_rig_problem(model, instants, rig)
    there = rig.moved(instants)
    still = replace(rig, theta=np.zeros(6))
    other, other_state = any_rig_problem(model, there, still)
    a, b = (p.linearize(s) for p, s in ((problem, state), (other, other_state)))
    assert a.stats[:, 0] == pytest.approx(b.stats[:, 0], rel=2e-3)
    n = problem.mesh.num_shape
    assert np.abs(a.shape_gradient[0, :n] - b.shape_gradient[0, :n]).max() < 2e-2 * np.abs(b.shape_gradient).max()
    # six parameters of the second sensor: none moves what the first one sees
    first = problem.item_equations(state, 0, problem._scratch[0], np.zeros(8), want_rows=True)[0]
    assert not first[:, -6:].any() and a.C[0][-6:, -6:].any()


def test_two_sensors_are_put_right(model: BodyModel, takes: list[Take], instants: list[Instant]) -> None:
    """2 cm and 1° off, from poses that are 1 cm and 2° off: found within 5 mm and 0.3°, and so within what is told."""
    rng = np.random.default_rng(1)
    rig = true_rig(model, takes)
    T, J = rig.rotations.shape[:2]
    start = replace(
        rig,
        rotations=rig.rotations @ matrix_from_axis_angle(rng.normal(0, np.radians(2), (T, J, 3))),
        transl=rig.transl + rng.normal(0, 0.01, (T, 3)),
        bumps=np.zeros(ONE.bumps),
    )
    setup = FitSetup(model, "neutral", "tight", FitConfig(threads=2))
    found = refine_rig(setup, ONE, ONE.fine, CLOTHING["tight"], instants, start)
    shape_cov, covariance = rig_covariance(setup, ONE, CLOTHING["tight"], instants, found)
    assert len(shape_cov) == model.num_betas + 4 and np.linalg.eigvalsh(covariance).min() > 0
    held, place = places_of(ONE, instants, found, covariance)
    true = takes[1].T_world_depth[0]
    assert held.fixed and np.array_equal(held.T_world_depth, takes[0].T_world_depth[0])
    assert np.linalg.norm(place.given[:3, 3] - true[:3, 3]) == pytest.approx(0.02)
    assert np.linalg.norm(place.T_world_depth[:3, 3] - true[:3, 3]) < 0.005
    turned = axis_angle_from_matrix(place.T_world_depth[:3, :3] @ true[:3, :3].T)
    assert np.degrees(np.linalg.norm(turned)) < 0.3
    assert place.moved_m == pytest.approx(0.02, abs=0.005) and place.turned_deg == pytest.approx(1.0, abs=0.3)
    assert 0.0005 < place.moved_sd_m < 0.02 and 0.01 < place.turned_sd_deg < 0.5
    assert place.delay_s is None and not place.flags
    again = refine_rig(setup, ONE, ONE.fine, CLOTHING["tight"], instants, start)
    assert again.theta.tobytes() == found.theta.tobytes() and again.shape.tobytes() == found.shape.tobytes()
    # the same correction is a big one where the places were said to be known to a millimetre
    sure = replace(ONE, sigma_place_m=0.001, sigma_turn_deg=0.1)
    assert "cm and" in places_of(sure, instants, found, covariance)[1].flags[0]


def test_a_late_clock_is_found(model: BodyModel) -> None:
    """The second sensor sees the person 12 ms later than it says."""
    times = np.arange(6) * GAP_S + 0.4
    takes = filmed(model, times.tolist(), (0.0, 0.012))
    true = [t.T_world_depth[0] for t in takes]
    instants = looked_at(takes, times.tolist(), true)
    rig = true_rig(model, takes, clocks=True)
    setup = FitSetup(model, "neutral", "tight", FitConfig(threads=2))
    config = replace(ONE, sigma_place_m=0.002, sigma_turn_deg=0.1, bumps=0)
    found = refine_rig(setup, config, config.fine, CLOTHING["tight"], instants, rig)
    assert found.layout.delay(found.theta, 1) == pytest.approx(0.012, abs=0.003)
    late = found.moved(instants)[0].observations
    assert late[0].timestamp_s == times[0] and late[1].timestamp_s == pytest.approx(times[0] + 0.012, abs=0.003)


def test_the_fit_moves_the_body_to_when_it_was_seen(
    model: BodyModel, takes: list[Take], instants: list[Instant]
) -> None:
    """With the delay in its stamps, a sensor's cost at the true poses is what a sensor in step has."""
    times = (np.arange(3) * GAP_S + 0.4).tolist()
    films = [filmed(model, times, (0.0, d)) for d in (0.0, 0.015)]
    costs = []
    for film_of, told in ((films[0], 0.0), (films[1], 0.015), (films[1], 0.0)):
        seen = looked_at(film_of, times, [t.T_world_depth[0] for t in film_of])
        rig = true_rig(model, film_of)
        problem, state = any_rig_problem(model, seen, rig)
        shape = State(state.rotations, state.transl, state.shape[:, : problem.mesh.num_shape], state.group)
        own = {f: getattr(problem, f) for f in Problem.__dataclass_fields__ if not f.startswith("_")}
        plain = Problem(**own)
        plain.shape_prior = type(plain.shape_prior)(
            plain.shape_prior.mean[: problem.mesh.num_shape],
            plain.shape_prior.precision[: problem.mesh.num_shape, : problem.mesh.num_shape],
        )
        delays = np.array([told if view % 2 else 0.0 for view in range(len(plain.views))])
        velocity = motion_of(rig.rotations, rig.transl, times, 0.2)
        shifted = seen_late(plain, delays, velocity)
        costs.append(shifted.linearize(shape, want_rows=False).stats[1::2, 0].sum())
    in_step, told_late, not_told = costs
    assert told_late == pytest.approx(in_step, rel=0.1) and not_told > 1.1 * told_late


def test_motion_is_the_difference_to_near_instants() -> None:
    R = matrix_from_axis_angle(np.array([[[0.0, 0, 0]], [[0.0, 0, 0.1]], [[0.0, 0, 0.4]], [[0.0, 0, 1.0]]]))
    x = np.array([[0.0, 0, 0], [0.1, 0, 0], [0.3, 0, 0], [1.0, 0, 0]])
    v = motion_of(R, x, [0.0, 0.1, 0.2, 5.0], 0.2)
    assert v[:, 2] == pytest.approx([1.0, 2.0, 3.0, 0.0]) and v[:, 3] == pytest.approx([1.0, 1.5, 2.0, 0.0])


def test_one_floor_for_all(takes: list[Take], instants: list[Instant]) -> None:
    """The floor alone says how far a sensor was tilted and lifted, and nothing of the rest."""
    pivot = np.array([0.0, 0.0, 0.9])
    layout = RigLayout(NAMES, pivot)
    assert set(floor_planes(instants)) == set(NAMES)
    config = RigConfig()
    told = rig_prior(config, layout, instants, 100)
    T = layout.motion(told.mean, 1) @ instants[0].observations[1].T_world_depth
    true = takes[1].T_world_depth[0]
    up = np.array([0.0, 0.0, 1.0])
    assert T[:3, :3].T @ up == pytest.approx(true[:3, :3].T @ up, abs=np.radians(0.1))
    # turning about the vertical stays as it was said
    left = axis_angle_from_matrix(T[:3, :3] @ true[:3, :3].T)
    assert np.degrees(abs(left[2])) == pytest.approx(0.64, abs=0.1)
    blind = [
        replace(i, observations=tuple(replace(o, floor_plane_world=None) for o in i.observations)) for i in instants
    ]
    assert rig_prior(config, layout, blind, 100).mean == pytest.approx(np.zeros(6))


def test_floor_counts_once_however_many_sensors_know_it(
    model: BodyModel, takes: list[Take], instants: list[Instant]
) -> None:
    rig = true_rig(model, takes)
    problem, _ = any_rig_problem(model, instants, rig)
    alone = [replace(i, observations=i.observations[:1]) for i in instants]
    one = replace(rig, layout=RigLayout(NAMES[:1], rig.layout.pivot), theta=np.zeros(0))
    single, _ = any_rig_problem(model, alone, one)
    from bodyfit.kernels.evidence import FLOOR_WEIGHT

    both, one = (p.settings(p.views[0])[FLOOR_WEIGHT] for p in (problem, single))
    assert one == pytest.approx(2 * both)


def test_a_moved_observation_sees_the_same_from_elsewhere(instants: list[Instant]) -> None:
    o = instants[0].observations[1]
    D = np.eye(4)
    D[:3, :3], D[:3, 3] = matrix_from_axis_angle(np.array([0.0, 0.0, 0.5])), [1.0, 2.0, 0.25]
    moved = moved_observation(o, D, 0.01)
    assert o.floor_plane_world is not None and moved.floor_plane_world is not None and o.floor_height_m is not None
    inverse = np.linalg.inv(D)
    assert moved.floor_plane_world == pytest.approx(o.floor_plane_world @ inverse)
    assert moved.floor_height_m == pytest.approx(o.floor_height_m + 0.25, abs=1e-6)
    assert moved.timestamp_s == o.timestamp_s + 0.01
    assert moved_observation(o, np.eye(4)) is o


def test_rigs_that_say_nothing_are_refused(instants: list[Instant]) -> None:
    first = [replace(i, observations=i.observations[:1]) for i in instants]
    second = [replace(i, observations=i.observations[1:]) for i in instants]
    with pytest.raises(InputError, match=r"refine_extrinsics: expected two or more sensors.*found one \(cam0\)"):
        check_rig(first)
    with pytest.raises(InputError, match=r"refine_extrinsics: expected sensors that see.*found cam1 never"):
        check_rig([first[0], second[1]])
    assert check_rig(instants) == NAMES


class Stamped:
    """What `stamped_delays` asks of a recording."""

    def __init__(self, times: Any, stamps: Any) -> None:
        self.timestamps_s, self.stream_timestamps_s = np.asarray(times, float), {"b.depth_s": np.asarray(stamps, float)}


def test_stamps_of_a_common_clock_and_of_another() -> None:
    times = np.arange(4) * GAP_S
    common: Any = Stamped(times, times + np.array([0.012, 0.011, np.nan, 0.012]))
    late = stamped_delays(common, ["a", "b"])
    assert late["a"] == pytest.approx(np.zeros(4)) and late["b"] == pytest.approx([0.012, 0.011, 0, 0.012])
    other: Any = Stamped(times, times + 1000.0 + np.array([0.0, 0.002, 0.0, -0.002]))
    assert stamped_delays(other, ["b"])["b"] == pytest.approx([0.0, 0.002, 0.0, -0.002], abs=1e-9)


@pytest.fixture(scope="module")
def recorded(takes: list[Take], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first instant on disk, both sensors, the second one said to be elsewhere."""
    true = [take.T_world_depth[0] for take in takes]
    said = [true[0], off_by(true[1])]
    frames = [
        replace(take.instants[0].frames[name], T_world_depth=T)
        for take, name, T in zip(takes, NAMES, said, strict=True)
    ]
    sensors = [Sensor(name, f.depth_camera, T) for name, f, T in zip(NAMES, frames, said, strict=True)]
    folder = tmp_path_factory.mktemp("rig") / "rec"
    return write_recording(folder, sensors, frames, tuple(takes[0].gravity_world.tolist()))


@pytest.mark.slow
def test_the_whole_fit_puts_a_sensor_right(recorded: Path, takes: list[Take], model: BodyModel) -> None:
    result: FitResult = fit(recorded, model=model, clothing="tight", refine_extrinsics=True)
    held, place = result.sensors
    assert held.fixed and result.converged
    person = np.array([0.0, 0.0, 0.9, 1.0])
    true = takes[1].T_world_depth[0]
    off = [np.linalg.norm((T @ np.linalg.inv(true) @ person - person)[:3]) for T in (place.given, place.T_world_depth)]
    assert off[0] > 0.02 and off[1] < 0.005
    assert np.array_equal(result.observations[0][1].T_world_depth, place.T_world_depth)
    joints = np.linalg.norm(result.joints_world(0) - takes[0].instants[0].joints_world, axis=1)
    assert joints.mean() < 0.015
    document = sensors_document(result)
    assert document["format"] == "bodyfit.sensors/1"
    assert document["sensors"][1]["moved_m"] == pytest.approx(place.moved_m, abs=1e-6)


def test_one_sensor_is_refused_before_anything_is_read(recorded: Path, model: BodyModel) -> None:
    with pytest.raises(
        InputError, match=r"refine_extrinsics: expected a recording of two or more .*found one \(cam1\)"
    ):
        fit(recorded, model=model, sensors=["cam1"], refine_extrinsics=True)
    with pytest.raises(InputError, match="refine_extrinsics: expected the solver lm"):
        fit(recorded, model=model, solver="gradient", refine_extrinsics=True)


def test_how_roughly_places_are_known_is_read_and_refused() -> None:
    assert parse_sigma(None, refine=False) is None and parse_sigma("10, 2.5", refine=True) == (10.0, 2.5)
    for text in ("5", "5,3,1", "a,b", "", "0,3", "5,-1", "nan,3", "500,3"):
        with pytest.raises(InputError, match="--extrinsics-sigma"):
            parse_sigma(text, refine=True)
    with pytest.raises(InputError, match="--refine-extrinsics beside it"):
        parse_sigma("5,3", refine=False)


def test_sensors_are_told_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    T = np.eye(4)
    places = (
        SensorPlace("left", T, T, True, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        SensorPlace("right", off_by(T), T, False, 0.02, 1.0, 0.004, 0.12, -0.0123, 0.0005),
    )
    result: Any = SimpleNamespace(sensors=places)
    print_sensors(result)
    said = " ".join(capsys.readouterr().out.split())
    assert "left held" in said and "right 2.0 ± 0.4 cm 1.00 ± 0.12° -12.3 ± 0.5 ms" in said
    first, second = sensors_document(result)["sensors"]
    assert first["held"] and second["delay_s"] == -0.0123 and np.shape(second["T_world_depth"]) == (4, 4)
