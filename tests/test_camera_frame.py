"""Cameras, rigid transforms, rotations and frames: right where accepted, refused by name where not."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bodyfit.camera import Camera, Distortion, check_rigid
from bodyfit.errors import BodyfitError, CameraError, FrameError, InputError, MissingExtraError, SeveralPeopleError
from bodyfit.frame import Frame, Keypoints
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle, nearest_rotation

CAMERA = Camera(64, 48, 60.0, 61.0, 31.2, 23.9)


def test_projection_is_opencvs_and_backprojection_its_inverse() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform((-1, -1, 0.5), (1, 1, 5), (50, 3))
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), CAMERA.K, None)[0][:, 0]
    np.testing.assert_allclose(CAMERA.project(points), expected, atol=1e-9)
    depth = rng.uniform(0.5, 5, (48, 64)).astype(np.float32)
    back = CAMERA.backproject(depth)
    assert back.shape == (48, 64, 3) and back.dtype == np.float32
    v, u = np.mgrid[:48, :64]
    np.testing.assert_allclose(CAMERA.project(back), np.stack([u, v], -1), atol=1e-3)
    np.testing.assert_array_equal(back[..., 2], depth)
    assert np.isnan(CAMERA.project(np.array([[0.1, 0.1, -1.0], [0.0, 0.0, 0.0]]))).all()


def test_a_stride_keeps_pixel_centres() -> None:
    small = CAMERA.every(3)
    assert (small.width, small.height) == (22, 16)
    points = np.array([[0.3, -0.2, 2.0], [-0.5, 0.1, 1.5]])
    np.testing.assert_allclose(small.project(points) * 3, CAMERA.project(points))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"width": 0}, "width"),
        ({"width": 100_000}, "width"),
        ({"height": 48.0}, "height"),
        ({"height": True}, "height"),
        ({"fx": math.nan}, "fx"),
        ({"fy": math.inf}, "fy"),
        ({"fx": 0.0}, "fx"),
        ({"fx": -60.0}, "fx"),
        ({"fy": 1e7}, "fy"),
        ({"fx": "60"}, "fx"),
        ({"cx": math.nan}, "cx"),
        ({"cx": 1e4}, "cx"),
        ({"cy": -49.0}, "cy"),
    ],
)
def test_absurd_intrinsics_are_refused(change: dict, field: str) -> None:
    with pytest.raises(CameraError, match=rf"camera\.{field}: expected") as refused:
        replace(CAMERA, **change)
    assert refused.value.exit_code == 2 and refused.value.field == f"camera.{field}"


def test_distortion_models_and_their_coefficients() -> None:
    with pytest.raises(CameraError, match=r"distortion\.model.*'fisheye'"):
        Distortion("fisheye", (0.0,) * 4)
    for model, count in (("none", 1), ("brown_conrady", 4), ("brown_conrady", 8), ("rational", 5)):
        with pytest.raises(CameraError, match=r"distortion\.coefficients"):
            Distortion(model, (0.1,) * count)
    with pytest.raises(CameraError, match="finite"):
        Distortion("brown_conrady", (0.1, math.nan, 0, 0, 0))
    assert Distortion("rational", (0.0,) * 8).is_none and not Distortion("brown_conrady", (0, 0, 1e-4, 0, 0)).is_none
    distorted = replace(CAMERA, distortion=Distortion("brown_conrady", (0.1, 0, 0, 0, 0)))
    assert distorted != CAMERA and distorted.pinhole == CAMERA


def rigid() -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = matrix_from_axis_angle(np.array([0.3, -1.2, 2.0]))
    T[:3, 3] = 1, -2, 3
    return T


def test_rigid_transforms_pass_and_others_say_why() -> None:
    np.testing.assert_array_equal(check_rigid("T", rigid().tolist()), rigid())
    reflected, scaled, sheared, nan, row, far = (rigid() for _ in range(6))
    reflected[:3, 0] *= -1
    scaled[:3, :3] *= 1000  # millimetres
    sheared[0, 1] += 0.1
    nan[1, 1] = math.nan
    row[3, 0] = 0.5
    far[0, 3] = 2500
    for matrix, found in (
        (reflected, "reflection"),
        (scaled, "scales"),
        (np.diag([1e200, 1e200, 1e200, 1]), "scales"),
        (sheared, "shears"),
        (nan, "NaN"),
        (row, "last row"),
        (far, "2500 m"),
        (np.eye(3), "shape"),
        ([[1, 2], [3]], "not numbers"),
        (np.zeros((4, 4)), "last row"),
    ):
        with pytest.raises(CameraError, match=found) as refused:
            check_rigid("T_world_depth", matrix)
        assert refused.value.field == "T_world_depth"


def test_rotations_are_scipys() -> None:
    rng = np.random.default_rng(1)
    direction = rng.normal(size=(200, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    angle = np.concatenate([[0, 1e-9, 1e-7, 1e-4, math.pi, math.pi - 1e-7], rng.uniform(0, math.pi, 194)])
    vectors = direction * angle[:, None]
    matrices = matrix_from_axis_angle(vectors)
    np.testing.assert_allclose(matrices, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-12)
    back = axis_angle_from_matrix(matrices)
    # at half a turn an axis and its opposite are the same rotation
    np.testing.assert_allclose(matrix_from_axis_angle(back), matrices, atol=1e-9)
    below = angle < math.pi - 1e-6
    np.testing.assert_allclose(back[below], vectors[below], atol=1e-8)
    noisy = matrices + rng.normal(scale=0.05, size=matrices.shape)
    nearest = nearest_rotation(noisy)
    np.testing.assert_allclose(nearest @ np.swapaxes(nearest, -1, -2) - np.eye(3), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(nearest), 1)
    np.testing.assert_allclose(nearest_rotation(matrices), matrices, atol=1e-12)
    mirrored = nearest_rotation(np.diag([1.0, 1.0, -1.0]))
    assert np.linalg.det(mirrored) == pytest.approx(1)


def test_frames_fit_their_cameras() -> None:
    depth = np.ones((48, 64), np.float32)
    frame = Frame(depth, CAMERA, np.eye(4))
    assert frame.color is None and frame.mask is None
    color = np.zeros((48, 64, 3), np.uint8)
    with pytest.raises(FrameError, match=r"depth: expected the camera's size \(48, 64\), found \(64, 48\)"):
        replace(frame, depth=depth.T)
    with pytest.raises(FrameError, match="mask"):
        replace(frame, mask=np.zeros((48, 63), bool))
    with pytest.raises(FrameError, match="color_camera"):
        replace(frame, color=color)
    with pytest.raises(FrameError, match="color_camera"):
        replace(frame, color=color, color_camera=CAMERA)
    with pytest.raises(FrameError, match="color"):
        replace(frame, color=color[:, :, 0], color_camera=CAMERA, T_color_depth=np.eye(4))
    assert replace(frame, color=color, color_camera=CAMERA, T_color_depth=np.eye(4)).color is color


def test_keypoints_are_as_many_as_their_names_and_finite() -> None:
    Keypoints(("nose",), np.zeros((1, 2)), np.ones(1))
    with pytest.raises(FrameError, match="2 points"):
        Keypoints(("nose", "left_eye"), np.zeros((1, 2)), np.ones(1))
    with pytest.raises(FrameError, match="1 points"):
        Keypoints(("nose",), np.zeros((1, 2)), np.ones(2))
    with pytest.raises(FrameError, match="finite"):
        Keypoints(("nose",), np.full((1, 2), np.nan), np.ones(1))


def test_errors_say_field_expected_found_and_what_to_do() -> None:
    error = InputError("depth", "metres", "millimetres", "set depth_unit_m")
    assert str(error) == "depth: expected metres, found millimetres (set depth_unit_m)"
    assert (error.field, error.expected, error.found, error.hint) == (
        "depth", "metres", "millimetres", "set depth_unit_m"
    )  # fmt: skip
    several = SeveralPeopleError("person", "one", "3", "choose with --person", count=3)
    assert several.count == 3 and several.exit_code == 2 and isinstance(several, BodyfitError)
    missing = MissingExtraError("smplx", "smplx", "handing results to smplx")
    assert missing.exit_code == 3 and "pip install 'bodyfit[smplx]'" in str(missing)


@pytest.mark.parametrize(
    "error",
    [
        InputError("--frames", "numbers", "'x'", "like 0,2"),
        SeveralPeopleError("depth", "one person", "two", count=2),
        MissingExtraError("av", "video", "a film"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_errors_come_whole_out_of_a_worker_process(error: BodyfitError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error) != {}
