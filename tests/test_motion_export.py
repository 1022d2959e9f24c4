"""A motion's files, read back as others would read them: the same person, at the same places, at the same times."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bvh_reader import read_bvh
from glb_reader import Glb, to_world
from tiny_body import write_tiny_body
from tiny_result import tiny_result

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.body.skeleton import SMPLH_JOINTS
from bodyfit.errors import InputError
from bodyfit.export.bvh import bvh_text, zxy_angles
from bodyfit.export.folder import motion_files, png_bytes, write_fit_folder
from bodyfit.export.glb_skinned import Texture, glb_bytes
from bodyfit.export.joint_csv import joint_csv_text
from bodyfit.export.motion import is_motion, motion_of, on_an_even_clock
from bodyfit.export.motion_npz import motion_npz_bytes
from bodyfit.fit.result import FitResult
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle

RATE = 30.0
MOTION_FILES = {"motion.npz", "joints.csv", "motion.bvh", "motion.glb"}


def moving(model: BodyModel, T: int = 9, **changes: object) -> FitResult:
    """Somebody who turns on the spot more than once, waving all joints, three metres from the origin."""
    rng = np.random.default_rng(11)
    J = model.num_joints
    t = np.arange(T) / RATE
    swing = np.sin(2 * np.pi * (t[:, None, None] * rng.uniform(1, 3, (J, 1)) + rng.random((J, 1))))
    poses = swing * rng.normal(0, 0.7, (J, 3))
    upright = matrix_from_axis_angle(np.array([np.pi / 2, 0, 0]))
    turn = np.zeros((T, 3))
    turn[:, 2] = np.linspace(0, 8, T)
    poses[:, 0] = axis_angle_from_matrix(matrix_from_axis_angle(turn) @ upright)
    first = tiny_result(model)
    result = replace(
        first, poses=poses, pose_sd=np.full_like(poses, 0.02), transl=np.array([3.0, -1.0, 0.9]) + 0.3 * turn,
        frame_indices=tuple(range(5, 5 + T)), timestamps_s=tuple((2.5 + t).tolist()), frames=(first.frames[0],) * T,
    )  # fmt: skip
    return replace(result, **changes)  # type: ignore[arg-type]


def without(result: FitResult, *left_out: int) -> FitResult:
    """The same motion as seen with frames missing."""
    kept = [t for t in range(result.num_frames) if t not in left_out]
    return replace(
        result, poses=result.poses[kept], pose_sd=result.pose_sd[kept], transl=result.transl[kept],
        frame_indices=tuple(result.frame_indices[t] for t in kept),
        timestamps_s=tuple(result.timestamps_s[t] for t in kept), frames=tuple(result.frames[t] for t in kept),
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BodyModel:
    return load_body_model(write_tiny_body(tmp_path_factory.mktemp("body") / "tiny.npz"))


@pytest.fixture(scope="module")
def result(model: BodyModel) -> FitResult:
    return moving(model)


def npz(result: FitResult) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(motion_npz_bytes(result)), allow_pickle=False) as z:
        return dict(z)


def test_a_motion_is_told_from_stills(result: FitResult) -> None:
    assert is_motion(result)
    assert is_motion(without(result, 3, 4, 5))
    assert not is_motion(tiny_result(result.model))
    assert not is_motion(without(result, *range(1, 9)))
    stills = tuple(0.5 * t for t in range(9))
    assert not is_motion(replace(result, timestamps_s=stills))


def test_joints_of_a_motion_are_those_of_the_result(result: FitResult) -> None:
    places = motion_of(result).joints_world()
    for t in range(result.num_frames):
        np.testing.assert_allclose(places[t], result.joints_world(t), atol=1e-9)


def test_npz_has_the_keys_and_shapes_of_amass(result: FitResult) -> None:
    z, T = npz(result), result.num_frames
    shapes = {"trans": (T, 3), "poses": (T, 156), "betas": (16,), "dmpls": (T, 8), "gender": (), "mocap_framerate": ()}
    assert {key: z[key].shape for key in shapes} == shapes
    assert float(z["mocap_framerate"]) == float(z["mocap_frame_rate"]) == pytest.approx(RATE, abs=1e-4)
    assert str(z["gender"]) == "female"
    assert all(a.dtype.kind in "fiUb" for a in z.values())


def test_npz_gives_the_body_of_each_frame_back(result: FitResult) -> None:
    z = npz(result)
    for t in range(result.num_frames):
        pose = z["model_poses"][t].reshape(-1, 3)
        vertices, joints = result.model.forward(z["model_betas"], pose, z["trans"][t])
        np.testing.assert_allclose(vertices, result.vertices_world(t), atol=2e-6)
        np.testing.assert_allclose(joints, z["joints_world"][t], atol=1e-9)
        np.testing.assert_allclose(z["root_world"][t], joints[0], atol=1e-9)
    assert z["frame_indices"].tolist() == list(result.frame_indices)
    assert z["observed"].all()


def test_npz_has_the_rotations_at_smplh_s_joints(result: FitResult) -> None:
    z = npz(result)
    R = matrix_from_axis_angle(z["poses"].reshape(-1, 52, 3))
    ours = dict(zip(result.model.joint_names, np.swapaxes(matrix_from_axis_angle(result.poses), 0, 1), strict=True))
    for k, name in enumerate(SMPLH_JOINTS):
        if name in ours:
            np.testing.assert_allclose(R[:, k], ours[name], atol=1e-9)
        elif name.endswith(("index1", "middle1", "ring1", "pinky1")):
            np.testing.assert_allclose(R[:, k], ours[f"{name.split('_')[0]}_hand"], atol=1e-9)
        else:
            assert (z["poses"].reshape(-1, 52, 3)[:, k] == 0).all()


def test_npz_names_no_other_person_by_betas(result: FitResult) -> None:
    z = npz(result)
    assert not z["betas"].any() and not z["betas_are_smplh"]
    np.testing.assert_array_equal(z["model_betas"], result.betas)
    smplh = npz(replace(result, model=replace(result.model, meta={"family": "smplh"})))
    np.testing.assert_array_equal(smplh["betas"][:6], result.betas)
    assert smplh["betas_are_smplh"]


def test_csv_is_read_back_to_a_micrometre(result: FitResult) -> None:
    rows = list(csv.DictReader(joint_csv_text(result).splitlines()))
    assert len(rows) == result.num_frames
    for t, row in enumerate(rows):
        assert int(row["frame_index"]) == result.frame_indices[t]
        assert float(row["timestamp_s"]) == pytest.approx(result.timestamps_s[t], abs=1e-6)
        joints = [[float(row[f"{name}_{axis}_m"]) for axis in "xyz"] for name in result.model.joint_names]
        np.testing.assert_allclose(joints, result.joints_world(t), atol=1e-6)
        assert len(row) == 2 + 3 * result.model.num_joints


def test_bvh_posed_by_its_channels_is_the_same_skeleton(result: FitResult) -> None:
    bvh = read_bvh(bvh_text(result))
    assert bvh.frame_time == pytest.approx(1 / RATE, abs=1e-6)
    assert len(bvh.rows) == result.num_frames
    for t in range(result.num_frames):
        joints = bvh.joints(t)
        places = to_world(np.stack([joints[name] for name in result.model.joint_names]))
        np.testing.assert_allclose(places, result.joints_world(t), atol=1e-5)  # 0.01 mm


def test_bvh_stands_on_the_person_s_own_bones(result: FitResult) -> None:
    bvh = read_bvh(bvh_text(result))
    rest = dict(zip(result.model.joint_names, result.model.joints_at_rest(result.betas), strict=True))
    for bone in bvh.bones:
        if bone.parent >= 0 and not bone.name.endswith("*"):
            np.testing.assert_allclose(bone.offset, rest[bone.name] - rest[bvh.bones[bone.parent].name], atol=1e-6)
    ends = {b.name.rstrip("*"): b.offset for b in bvh.bones if b.name.endswith("*")}
    assert set(ends) == {"head", "left_hand", "right_hand", "left_foot", "right_foot"}
    assert ends["head"][1] > 0.03 and ends["left_hand"][0] > 0.03 and ends["right_foot"][2] > 0.02


def test_euler_angles_are_exact_and_do_not_jump() -> None:
    rng = np.random.default_rng(5)
    spin = np.linspace(0, 14, 200)[:, None] * np.array([0.2, 0.3, 1.0])
    for R in (matrix_from_axis_angle(spin), matrix_from_axis_angle(rng.normal(0, 2, (50, 3)))):
        z, x, y = np.moveaxis(zxy_angles(R[:, None]), -1, 0)[:, :, 0]
        about = [
            matrix_from_axis_angle(np.stack([a * (k == i) for k in range(3)], -1)) for a, i in ((z, 2), (x, 0), (y, 1))
        ]
        np.testing.assert_allclose(about[0] @ about[1] @ about[2], R, atol=1e-12)
    angles = zxy_angles(matrix_from_axis_angle(spin)[:, None])
    assert np.abs(np.diff(angles, axis=0)).max() < 0.5
    locked = matrix_from_axis_angle(np.array([[0.0, 0, 0.3], [np.pi / 2, 0, 0], [0, 0, 0.4]]))
    locked[1] = locked[0] @ locked[1]
    angles = zxy_angles(locked[:, None])[:, 0]
    assert angles[1] == pytest.approx([0.3, np.pi / 2, 0], abs=1e-9)


def test_glb_posed_from_its_bytes_is_the_result_s_mesh(result: FitResult) -> None:
    glb = Glb.of(glb_bytes(result))
    np.testing.assert_allclose(glb.times(), np.array(result.timestamps_s) - result.timestamps_s[0], atol=1e-6)
    np.testing.assert_array_equal(glb.faces, result.model.faces)
    for t, seconds in enumerate(glb.times()):
        np.testing.assert_allclose(to_world(glb.vertices_at(seconds)), result.vertices_world(t), atol=1e-5)
    still = {n["name"]: n for n in glb.document["nodes"]}
    np.testing.assert_allclose(still["pelvis"]["translation"], result.joints_world(0)[0], atol=1e-9)


def test_glb_s_weights_and_rotations_are_as_the_format_wants_them(result: FitResult) -> None:
    glb = Glb.of(glb_bytes(result))
    a = glb.attributes
    weights = np.concatenate([a[k] for k in sorted(a) if k.startswith("WEIGHTS")], 1)
    joints = np.concatenate([a[k] for k in sorted(a) if k.startswith("JOINTS")], 1)
    np.testing.assert_allclose(weights.sum(1, dtype=np.float64), 1, atol=2e-7)
    assert (weights >= 0).all() and not joints[weights == 0].any()
    np.testing.assert_allclose(np.linalg.norm(a["NORMAL"], axis=1), 1, atol=1e-5)
    for channel in glb.document["animations"][0]["channels"]:
        if channel["target"]["path"] == "rotation":
            q = glb.array(glb.document["animations"][0]["samplers"][channel["sampler"]]["output"])
            np.testing.assert_allclose(np.linalg.norm(q, axis=1), 1, atol=1e-6)
            assert ((q[1:] * q[:-1]).sum(1) > 0).all()


def test_shipped_body_needs_its_second_set_of_weights() -> None:
    """Seven joints move some of its vertices: with four of them the worst is centimetres off, with all of them none."""
    result = moving(load_body_model(), T=3)
    worst = {}
    for influences in (4, 8):
        glb = Glb.of(glb_bytes(result, influences=influences))
        assert ("JOINTS_1" in glb.attributes) == (influences == 8)
        gaps = [
            np.linalg.norm(to_world(glb.vertices_at(s)) - result.vertices_world(t), axis=1).max()
            for t, s in enumerate(glb.times())
        ]
        worst[influences] = max(gaps)
    assert worst[8] < 1e-5
    assert 0.002 < worst[4] < 0.08


def test_glb_opens_elsewhere(result: FitResult, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    (tmp_path / "motion.glb").write_bytes(glb_bytes(result))
    (mesh,) = trimesh.load(tmp_path / "motion.glb").geometry.values()
    assert len(mesh.faces) == len(result.model.faces)


def test_glb_carries_colours(result: FitResult) -> None:
    colors = np.random.default_rng(0).random((result.model.num_vertices, 3))
    glb = Glb.of(glb_bytes(result, colors=colors))
    np.testing.assert_allclose(glb.attributes["COLOR_0"][:, :3] / 65535, colors, atol=1e-5)
    accessor = glb.document["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]
    assert glb.document["accessors"][accessor]["normalized"] is True


def test_glb_carries_a_texture_with_its_seams(result: FitResult) -> None:
    model = result.model
    rng = np.random.default_rng(1)
    image = png_bytes(rng.integers(0, 255, (4, 8, 3)).astype(np.uint8))
    F = len(model.faces)
    uv = rng.random((model.num_vertices + 3, 2))
    corners = model.faces.copy()
    corners[0] = model.num_vertices + np.arange(3)  # the first face has a patch of its own
    glb = Glb.of(glb_bytes(result, texture=Texture(image, uv, corners)))
    np.testing.assert_allclose(glb.attributes["TEXCOORD_0"][glb.faces], uv[corners], atol=1e-6)
    posed = to_world(glb.vertices_at(glb.times()[4]))
    np.testing.assert_allclose(posed[glb.faces], result.vertices_world(4)[model.faces], atol=1e-5)
    assert len(glb.faces) == F and len(posed) == model.num_vertices + 3
    view = glb.document["bufferViews"][glb.document["images"][0]["bufferView"]]
    assert glb.binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]] == image


def test_missing_frames_are_bridged_where_the_clock_must_be_even(result: FitResult) -> None:
    gap = without(result, 4, 5)
    z = npz(gap)
    assert z["observed"].tolist() == [True] * 4 + [False] * 2 + [True] * 3
    assert z["frame_indices"].tolist() == [5, 6, 7, 8, -1, -1, 11, 12, 13]
    np.testing.assert_allclose(z["timestamps_s"], result.timestamps_s, atol=1e-6)
    whole = npz(result)
    for key in ("trans", "poses", "model_poses", "joints_world"):
        np.testing.assert_allclose(z[key][z["observed"]], whole[key][z["observed"]], atol=1e-9)
    before, after, between = (result.transl[t] for t in (3, 6, 4))
    np.testing.assert_allclose(z["trans"][4], before + (after - before) / 3, atol=1e-6)
    assert np.linalg.norm(z["trans"][4] - between) < 0.05
    # a third of the way of the turn from frame 3 to frame 6
    R = matrix_from_axis_angle(z["model_poses"].reshape(9, -1, 3))
    third = axis_angle_from_matrix(np.swapaxes(R[3], 1, 2) @ R[4])
    np.testing.assert_allclose(third * 3, axis_angle_from_matrix(np.swapaxes(R[3], 1, 2) @ R[6]), atol=1e-7)
    assert len(read_bvh(bvh_text(gap)).rows) == 9
    assert len(joint_csv_text(gap).splitlines()) == 1 + 7
    assert len(Glb.of(glb_bytes(gap)).times()) == 7


def test_a_trembling_clock_is_left_alone_and_a_long_absence_out(result: FitResult) -> None:
    jitter = np.random.default_rng(2).uniform(-0.003, 0.003, 9)
    trembling = replace(result, timestamps_s=tuple((np.array(result.timestamps_s) + jitter).tolist()))
    motion = motion_of(trembling)
    assert on_an_even_clock(motion) is motion
    times = np.array(result.timestamps_s)
    times[5:] += 1e9
    away = npz(replace(result, timestamps_s=tuple(times.tolist())))
    assert away["observed"].all() and len(away["observed"]) == 9
    np.testing.assert_allclose(away["timestamps_s"], times)


def test_poses_in_any_order_come_out_in_the_order_of_time(result: FitResult) -> None:
    back = np.arange(result.num_frames)[::-1]
    reverse = replace(
        result, poses=result.poses[back], transl=result.transl[back],
        timestamps_s=result.timestamps_s[::-1], frame_indices=result.frame_indices[::-1],
    )  # fmt: skip
    for write in (motion_npz_bytes, joint_csv_text, bvh_text, glb_bytes):
        assert write(reverse) == write(result)


def spoiled(result: FitResult, name: str) -> FitResult:
    poses, transl = result.poses.copy(), result.transl.copy()
    if name == "poses":
        poses[2, 3, 1] = np.nan
    elif name == "transl":
        transl = transl[:-1]
    times = list(result.timestamps_s)
    if name == "timestamps_s":
        times[3] = times[2]
    return replace(result, poses=poses, transl=transl, timestamps_s=tuple(times))


@pytest.mark.parametrize("write", [motion_npz_bytes, joint_csv_text, bvh_text, glb_bytes])
@pytest.mark.parametrize("name", ["poses", "transl", "timestamps_s"])
def test_a_broken_motion_is_refused_by_name(
    result: FitResult, write: Callable[[FitResult], bytes | str], name: str
) -> None:
    with pytest.raises(InputError, match=name) as caught:
        write(spoiled(result, name))
    assert caught.value.field == name


def test_what_does_not_fit_the_body_is_refused_by_name(result: FitResult) -> None:
    model, image = result.model, png_bytes(np.zeros((2, 2, 3), np.uint8))
    uv = np.zeros((model.num_vertices, 2))
    with pytest.raises(InputError, match="influences"):
        glb_bytes(result, influences=5)
    for colors in (np.zeros((3, 3)), np.full((model.num_vertices, 3), np.nan)):
        with pytest.raises(InputError, match="colors"):
            glb_bytes(result, colors=colors)
    for field, texture in {
        "image": Texture(b"GIF89a", uv, model.faces),
        "uv": Texture(image, uv + np.inf, model.faces),
        "faces": Texture(image, uv, model.faces + 1),
    }.items():
        with pytest.raises(InputError, match=f"texture.{field}"):
            glb_bytes(result, texture=texture)
    with pytest.raises(InputError, match="joint_names"):
        motion_npz_bytes(replace(result, model=replace(model, joint_names=())))


def test_a_body_without_names_still_has_a_skeleton(result: FitResult) -> None:
    nameless = replace(result, model=replace(result.model, joint_names=()))
    assert read_bvh(bvh_text(nameless)).bones[0].name == "joint_00"


def test_folder_of_a_motion(result: FitResult, tmp_path: Path) -> None:
    films: list[Path] = []

    def film(path: Path) -> None:
        films.append(path)
        path.write_bytes(b"film")

    names = write_fit_folder(result, tmp_path / "a", films=[("overlay.mp4", film)], meshes=False)
    assert set(names) == MOTION_FILES | {"fit.npz", "measurements.json", "measurements.csv", "rest.ply", "overlay.mp4"}
    assert films[0].parent != tmp_path / "a" and not films[0].exists()
    assert (tmp_path / "a" / "overlay.mp4").read_bytes() == b"film"
    one = without(result, *range(1, 9))
    assert not MOTION_FILES & set(write_fit_folder(one, tmp_path / "one"))
    assert set(write_fit_folder(tiny_result(result.model), tmp_path / "asked", motion=True)) >= MOTION_FILES
    write_fit_folder(one, tmp_path / "a", force=True)
    left = {p.name for p in (tmp_path / "a").iterdir()}
    assert not left & (MOTION_FILES | {"overlay.mp4"})


def test_a_film_that_fails_leaves_no_folder(result: FitResult, tmp_path: Path) -> None:
    def film(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_fit_folder(result, tmp_path / "out", films=[("overlay.mp4", film)])
    assert list(tmp_path.iterdir()) == []


def test_equal_motions_are_equal_bytes(model: BodyModel) -> None:
    assert dict(motion_files(moving(model))) == dict(motion_files(moving(model)))
