"""Scores against truth: each is shown what it must find, made with known errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_body import tiny_body_arrays, write_tiny_body
from tiny_result import tiny_result

from bodyfit.bench.evaluate import Truth, joint_error, load_truth, medians, score_result, surface_error
from bodyfit.bench.girth_rules import GIRTHS, load_girth_rules
from bodyfit.bench.pose_solve import posed_onto
from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.camera import Camera
from bodyfit.errors import InputError, RecordingError
from bodyfit.recording import Sensor
from bodyfit.rotation import matrix_from_axis_angle


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BodyModel:
    body = load_body_model(write_tiny_body(tmp_path_factory.mktemp("body") / "tiny.npz"))
    return replace(body, anny_vertex_ids=np.arange(body.num_vertices, dtype=np.int32))


def front_sensor() -> Sensor:
    """Looks along the body's z axis from 3 m before it."""
    T = np.eye(4)
    T[:3, :3] = matrix_from_axis_angle(np.array([np.pi, 0, 0]))
    T[:3, 3] = [0, -0.2, 3.0]
    return Sensor("front", Camera(320, 288, 250.0, 250.0, 159.5, 143.5), T)


@pytest.mark.parametrize("angle_sd", [0.1, 0.5])
def test_a_pose_is_solved_away_whole(model: BodyModel, angle_sd: float) -> None:
    rng = np.random.default_rng(1)
    betas, pose = rng.normal(size=model.num_betas), rng.normal(0, angle_sd, (model.num_joints, 3))
    pose[0] = [2.2, 0.4, -1.0]
    target, _ = model.forward(betas, pose, np.array([3.0, -1.0, 0.5]))
    posed = posed_onto(model, model.rest_vertices(betas), target)
    np.testing.assert_allclose(posed, target, atol=2e-6)


def test_an_error_of_shape_stays(model: BodyModel) -> None:
    """A body 2 % larger cannot be posed onto the other."""
    rest = model.rest_vertices(np.zeros(model.num_betas))
    left = np.linalg.norm(posed_onto(model, rest * 1.02, rest) - rest, axis=1).mean()
    assert 0.002 < left < 0.01
    with pytest.raises(InputError, match="vertices"):
        posed_onto(model, rest[:-1], rest)


def test_surface_error_is_the_distance_where_a_sensor_looks(model: BodyModel) -> None:
    v, faces = model.v_template.astype(np.float64), model.faces
    sensors = [front_sensor()]
    assert surface_error(v, faces, v, faces, sensors) < 1e-6
    # the back is moved by 0.1 m, which a sensor before the body does not see
    dented = v - [0, 0, 0.1] * (v[:, [2]] < -0.02)
    assert surface_error(dented, faces, v, faces, sensors) < 1e-3
    outwards = model.shapedirs[:, :, 1] / np.linalg.norm(model.shapedirs[:, :, 1], axis=1, keepdims=True)
    assert surface_error(v + 0.01 * outwards, faces, v, faces, sensors) == pytest.approx(
        0.0094, abs=5e-4
    )  # faces lie inside
    turned_away = sensors[0].T_world_depth.copy()
    turned_away[:3, :3] = np.eye(3)
    assert np.isnan(surface_error(v, faces, v, faces, [replace(sensors[0], T_world_depth=turned_away)]))


def truth_of(model: BodyModel, vertices: np.ndarray, rest: np.ndarray, joints: np.ndarray) -> Truth:
    bones = ("root", "upperleg01.L", "head")
    ids = [0, 1, model.joint_names.index("head")]
    guess = {"mean_scaled": {"rest_v2v": {"mean": 7.5}, "girths_mm_fit_minus_truth": dict.fromkeys(GIRTHS, -40.0)}}
    subject = {"clothing": {"offset_mm_mean_covered": 1.5}}
    return Truth(vertices, model.faces.astype(np.int64), rest, joints[:, ids], bones, subject, guess)


class Two:
    """What a score asks of a recording: sensors, and at which instants its numbers stand."""

    sensors = (front_sensor(),)
    indices = np.array([1, 3, 5])


def test_a_perfect_fit_scores_nothing_and_a_shifted_one_its_shift(model: BodyModel) -> None:
    result = tiny_result(model, poses=np.zeros((2, model.num_joints, 3)), transl=np.zeros((2, 3)))
    vertices = np.stack([result.vertices_world(0)] * 3)
    joints = np.stack([result.joints_world(0)] * 3)
    truth = truth_of(model, vertices, result.rest_vertices(), joints)
    score = score_result(result, Two(), truth, "a", 1.0)  # type: ignore[arg-type]
    assert score.surface_mm < 1e-3
    assert score.rest_mm is not None
    assert score.rest_mm < 1e-3
    assert score.joints_mm == pytest.approx(0, abs=1e-3)
    assert (score.frames, score.cloth_mm, score.guess_rest_mm, score.guess_girth_mm) == (2, 1.5, 7.5, 40.0)
    assert (score.girth_mm, score.stature_mm) == (None, None)
    # the second fitted frame is number 5, the recording's third instant
    vertices[2] += [0, 0, 0.03]
    joints[2] += [0, 0, 0.03]
    moved = score_result(result, Two(), truth_of(model, vertices, result.rest_vertices(), joints), "a", 1.0)  # type: ignore[arg-type]
    assert moved.joints_mm == pytest.approx(15.0, abs=1e-3)
    assert moved.worst_frame_mm > 15
    assert moved.surface_mm == pytest.approx(moved.worst_frame_mm / 2, abs=1e-3)
    assert medians([score, moved])["joints_mm"] == pytest.approx(7.5, abs=1e-3)


def test_joints_of_another_skeleton_are_not_scored(model: BodyModel) -> None:
    joints = model.joint_template
    truth = truth_of(model, np.zeros((1, 1, 3)), np.zeros((1, 3)), joints[None])
    assert joint_error(model, joints, truth, 0) == pytest.approx(0)
    assert joint_error(replace(model, anny_vertex_ids=None), joints, truth, 0) is None


def test_missing_truth_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="truth"):
        load_truth(tmp_path)
    (tmp_path / "truth").mkdir()
    with pytest.raises(RecordingError, match="vertices_world"):
        load_truth(tmp_path)


def test_missing_rules_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--rules"):
        load_girth_rules(tmp_path)
    np.savez(tmp_path / "landmarks.npz", label=np.zeros(3))
    with pytest.raises(InputError, match="faces"):
        load_girth_rules(tmp_path)


def upright() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The tiny body z up, its front to -y, with the labels and landmarks that the rules ask for."""
    arrays = tiny_body_arrays()
    v = arrays["v_template"].astype(float)[:, [0, 2, 1]] * [1, -1, 1]
    parts = [str(arrays["part_names"][k]) for k in arrays["part_labels"]]
    arm = ("upper_arm", "forearm", "hand")
    label = np.array([
        2 + p.startswith("right") if p.endswith(arm) else 4 + p.startswith("right") if p[:5] in ("left_", "right")
        else int(p in ("neck", "head")) for p in parts
    ])  # fmt: skip

    def near(*place: float) -> np.ndarray:
        return np.argsort(np.linalg.norm(v - place, axis=1))[:3]

    points = {
        "waist": near(0, -0.12, -0.02), "nipple": near(0, -0.12, 0.13), "neck_base": near(0, 0, 0.26),
        "head_base": near(0, -0.05, 0.38), "shoulder_L": near(0.2, 0, 0.3), "shoulder_R": near(-0.2, 0, 0.3),
        "elbow_L": near(0.45, 0, 0.3), "elbow_R": near(-0.45, 0, 0.3),
    }  # fmt: skip
    # mirrored axes turn faces inside out, which no girth minds
    return v, {"label": label.astype(np.uint8), "faces": arrays["faces"].astype(np.uint16), **points}


def test_girths_are_those_of_a_tape(tmp_path: Path) -> None:
    v, arrays = upright()
    np.savez(tmp_path / "landmarks.npz", allow_pickle=False, **arrays)
    rules = load_girth_rules(tmp_path)
    measured = rules.measure(v)
    assert measured["stature"] == pytest.approx(np.ptp(v[:, 2]))
    # the arm half-way is a cone of radius 0.0525, cut by flat faces that lie a little inside of it
    assert measured["upper_arm"] == pytest.approx(2 * np.pi * 0.0525, rel=0.06)
    assert measured["neck"] == pytest.approx(2 * np.pi * 0.058, rel=0.1)
    assert 2 * np.pi * 0.12 < measured["waist"] < 2 * np.pi * 0.15
    larger = rules.measure(v * 1.1)
    for name, value in measured.items():
        assert larger[name] == pytest.approx(1.1 * value, rel=0.02)
    with pytest.raises(InputError, match="rest vertices"):
        rules.measure(v[1:])


def test_rules_and_truth_beside_the_checkout_agree(shared_recordings: Path) -> None:
    """The girths that the test recordings state are those that the rules find on their true meshes."""
    rules = load_girth_rules(shared_recordings.parent / "score")
    for recording in sorted(shared_recordings.glob("turn4_*")):
        stated = json.loads((recording / "truth" / "subject.json").read_text())["measurements_m"]
        measured = rules.measure(np.load(recording / "truth" / "rest_vertices.npy"))
        for name in (*GIRTHS, "stature"):
            assert measured[name] == pytest.approx(stated[name], abs=2e-4)
