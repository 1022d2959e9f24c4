"""The synthetic sensor: bodies, poses, clothes, noise and masks are what they say; the same seed, the same bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import KDTree

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.errors import InputError, OutputError
from bodyfit.recording.formats import open_recording
from bodyfit.synthetic import demo, poses, sensor
from bodyfit.synthetic.clothing import dress, wear
from bodyfit.synthetic.contact import both_feet_down, free_arms, on_floor
from bodyfit.synthetic.subject import make_subject, sample_subject, smooth_offsets
from bodyfit.synthetic.take import Take, full_pose, sample_take
from bodyfit.synthetic.write import write_take


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


@pytest.fixture(scope="module")
def take(model: BodyModel) -> Take:
    return sample_take(
        model, 11, pose_names=("arms_down", "hands_on_hips"), headings_deg=(20, 200), clothing="casual", color=True
    )


# --- subjects


def test_a_subject_without_offsets_is_posed_as_the_model_poses_it(model: BodyModel) -> None:
    rng = np.random.default_rng(0)
    subject = make_subject(model, rng.normal(0, 1, model.num_betas), "male")
    pose = full_pose(model, poses.everyday_pose("mid_walk", rng, yaw=1.0))
    transl = np.array([0.3, -2.0, 1.0])
    vertices, joints = subject.posed(model, pose, transl)
    expected_vertices, expected_joints = model.forward(subject.betas, pose, transl)
    assert np.abs(vertices - expected_vertices).max() < 2e-5
    assert np.abs(joints - expected_joints).max() < 2e-5


def test_offsets_are_three_millimetres_smooth_and_nothing_that_betas_make(model: BodyModel) -> None:
    subject = sample_subject(model, np.random.default_rng(1), "female", 3.0)
    assert subject.sex == "female"
    assert subject.off_model_mm_rms == pytest.approx(3.0, rel=1e-6)
    basis = model.shapedirs.reshape(-1, model.num_betas).astype(float)
    flat = subject.rest_offsets.ravel()
    cosine = basis.T @ flat / np.linalg.norm(basis, axis=0) / np.linalg.norm(flat)
    assert np.abs(cosine).max() < 1e-5
    edges = np.concatenate([model.faces[:, [0, 1]], model.faces[:, [1, 2]]])
    length = np.linalg.norm(np.diff(model.v_template[edges], axis=1)[:, 0], axis=1)
    change = np.linalg.norm(np.diff(subject.rest_offsets[edges], axis=1)[:, 0], axis=1)
    assert change[length > 0.005].max() < 0.004  # neighbours move together
    assert not smooth_offsets(model, subject.betas, np.random.default_rng(1), 0.0).any()


def test_subjects_follow_the_priors_of_their_sex(model: BodyModel) -> None:
    rng = np.random.default_rng(2)
    betas = {
        sex: np.array([sample_subject(model, rng, sex, 0.0).betas for _ in range(60)]) for sex in ("female", "male")
    }
    for sex, drawn in betas.items():
        spread = np.sqrt(np.diag(model.priors[sex].cov))
        assert (np.abs(drawn.mean(0) - model.priors[sex].mean) < 5 * spread / np.sqrt(60)).all()


# --- poses


@pytest.mark.parametrize("name", list(poses.POSES))
def test_poses_stand_on_both_feet_with_their_arms_outside_of_the_trunk(model: BodyModel, name: str) -> None:
    rng = np.random.default_rng(sum(map(ord, name)))
    names = {n: i for i, n in enumerate(model.joint_names)}
    main = model.lbs_weights.argmax(1)
    trunk = np.nonzero(np.isin(main, [names[n] for n in ("pelvis", "spine1", "spine2", "spine3", "neck", "head")]))[0]
    arms = np.isin(main, [names[f"{s}_{n}"] for s in ("left", "right") for n in ("elbow", "wrist", "hand")])
    deep = []
    for _ in range(4):
        subject = sample_subject(model, rng, off_model_mm_rms=0.0)
        pose = both_feet_down(model, subject, full_pose(model, poses.everyday_pose(name, rng, yaw=rng.uniform(-3, 3))))
        pose = free_arms(model, subject, pose)
        vertices, joints = subject.posed(model, pose, np.zeros(3))
        vertices = vertices + on_floor(vertices, joints, np.zeros(2))
        assert vertices[:, 2].min() == pytest.approx(0.0, abs=1e-9)
        for side in ("left", "right"):
            sole = vertices[np.isin(main, [names[f"{side}_ankle"], names[f"{side}_foot"]]), 2].min()
            assert sole < (0.10 if name == "mid_walk" else 0.035)
        normals = _vertex_normals(vertices, model.faces)
        nearest = KDTree(vertices[trunk]).query(vertices[arms], distance_upper_bound=0.1)
        distance, at = (np.asarray(part) for part in nearest)
        near = np.isfinite(distance)
        gap = ((vertices[arms][near] - vertices[trunk][at[near]]) * normals[trunk][at[near]]).sum(1)
        deep.append((gap < -0.015).sum())
    assert sorted(deep)[-2] < 20  # one of four may be a body that this pose does not suit


def _vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    normal = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    out = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(out, faces[:, k], normal)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def test_poses_mean_what_they_are_called(model: BodyModel) -> None:
    subject = make_subject(model, np.zeros(model.num_betas), "neutral")
    names = {n: i for i, n in enumerate(model.joint_names)}

    def joints(name: str) -> dict[str, np.ndarray]:
        pose = poses.everyday_pose(name, np.random.default_rng(0), yaw=0.0, jitter_deg=0.0, mirror=False)
        at = subject.posed(model, full_pose(model, pose), np.zeros(3))[1]
        return {n: at[i] for n, i in names.items()}  # yaw 0: front is +x, left is +y, up is +z

    assert abs(joints("t_pose")["left_wrist"] - joints("t_pose")["right_wrist"])[1] > 1.0
    down = joints("arms_down")
    assert (
        down["left_wrist"][2] < down["spine1"][2] and down["left_wrist"][1] > down["left_hip"][1] > down["right_hip"][1]
    )
    assert joints("one_arm_up")["left_wrist"][2] > joints("one_arm_up")["head"][2]
    assert joints("hands_behind_back")["left_wrist"][0] < joints("hands_behind_back")["pelvis"][0] - 0.05
    for name in ("hands_before_chest", "arms_crossed", "holding"):
        at = joints(name)
        assert at["left_wrist"][0] > at["spine2"][0] + 0.15 and at["left_wrist"][2] > at["pelvis"][2]
    phone = joints("phone_at_ear")
    assert np.linalg.norm(phone["left_wrist"] - phone["head"]) < 0.32
    walk = joints("mid_walk")
    assert walk["left_ankle"][0] - walk["right_ankle"][0] > 0.3


def test_yaw_turns_the_body_and_mirroring_swaps_its_sides(model: BodyModel) -> None:
    for yaw in (0.0, 1.0, -2.5):
        front = poses.heading_rotation(yaw) @ [0, 0, 1]
        assert front == pytest.approx([np.cos(yaw), np.sin(yaw), 0])
        assert np.linalg.det(poses.heading_rotation(yaw)) == pytest.approx(1)
    one = poses.everyday_pose("one_arm_up", np.random.default_rng(0), jitter_deg=0, mirror=False)
    other = poses.everyday_pose("one_arm_up", np.random.default_rng(0), jitter_deg=0, mirror=True)
    left, right = poses.SMPL_JOINTS.index("left_shoulder"), poses.SMPL_JOINTS.index("right_shoulder")
    assert other[right] == pytest.approx(one[left] * [1, -1, -1])


def test_an_unknown_pose_names_those_there_are() -> None:
    with pytest.raises(InputError, match="a_pose"):
        poses.everyday_pose("handstand", np.random.default_rng(0))


# --- clothes


def test_clothes_are_as_thick_as_their_kind_and_skin_is_bare(model: BodyModel) -> None:
    subject = make_subject(model, np.zeros(model.num_betas), "neutral")
    names = list(model.joint_names)
    hand = model.lbs_weights[:, names.index("left_hand")] > 0.9
    for kind, least, most in (("tight", 0.4, 2.5), ("casual", 5.0, 16.0), ("loose", 10.0, 30.0)):
        clothes = dress(model, subject, kind, np.random.default_rng(3))
        assert least < 1000 * clothes.mean_offset_covered_m < most
        assert not clothes.offset[hand].any()
        assert clothes.offset.max() <= max(clothes.nominal_mm.values()) / 1000 + 1e-9
        gap = ((wear(subject.rest_vertices, model.faces, clothes) - subject.rest_vertices) ** 2).sum(1) ** 0.5
        assert gap == pytest.approx(clothes.offset, abs=1e-6)
    naked = dress(model, subject, "none", np.random.default_rng(3))
    assert not naked.offset.any()
    with pytest.raises(InputError, match="casual"):
        dress(model, subject, "armour", np.random.default_rng(3))


# --- noise


def _flat(device: sensor.SensorModel, distance: float, seed: int = 0) -> np.ndarray:
    size = (device.depth_camera.height, device.depth_camera.width)
    rng = np.random.default_rng(seed)
    bias = sensor.Bias(replace(device, bias_m=0.0), rng)
    flat = np.full(size, distance, np.float32)
    return sensor.read_depth(device, flat, np.ones(size, np.float32), np.zeros(size, bool), bias, rng)


@pytest.mark.parametrize("name", list(sensor.SENSORS))
@pytest.mark.parametrize("distance", [1.5, 3.0])
def test_noise_on_a_wall_is_what_the_sensor_states(name: str, distance: float) -> None:
    device = sensor.SENSORS[name]()
    read = _flat(device, distance)
    seen = read > 0
    error = read[seen] - distance
    sigma = float(device.sigma(np.full(1, distance, np.float32))[0])
    assert error.std() == pytest.approx(np.hypot(sigma, device.unit_m / np.sqrt(12)), rel=0.05)
    assert abs(error.mean()) < 0.1 * sigma
    assert (~seen).mean() == pytest.approx(device.random_lost, abs=0.002)
    assert np.abs(read / device.unit_m - np.round(read / device.unit_m)).max() < 1e-3  # whole counts


def test_stereo_noise_grows_with_the_square_and_hangs_together() -> None:
    device = sensor.realsense_d435()
    near, far = (_flat(device, z) for z in (1.5, 3.0))
    ratio = (far[far > 0] - 3.0).std() / (near[near > 0] - 1.5).std()
    assert ratio == pytest.approx(4.0, rel=0.1)
    error = np.where(far > 0, far - 3.0, 0)
    assert np.corrcoef(error[:, 1:].ravel(), error[:, :-1].ravel())[0, 1] > 0.7
    flight = _flat(sensor.azure_kinect(), 3.0)
    error = np.where(flight > 0, flight - 3.0, 0)
    assert abs(np.corrcoef(error[:, 1:].ravel(), error[:, :-1].ravel())[0, 1]) < 0.02


def test_edges_mix_both_sides_and_a_slanted_floor_has_none() -> None:
    device = sensor.azure_kinect()
    size = (device.depth_camera.height, device.depth_camera.width)
    step = np.full(size, 3.0, np.float32)
    step[:, :300] = 2.0
    ones, dark = np.ones(size, np.float32), np.zeros(size, bool)
    bias = sensor.Bias(replace(device, bias_m=0.0), np.random.default_rng(0))
    read = sensor.read_depth(device, step, ones, dark, bias, np.random.default_rng(0))
    between = (read > 2.05) & (read < 2.95)
    columns = np.nonzero(between.any(0))[0]
    assert set(columns) <= {299, 300} and 0.2 < between[:, 299:301].mean() < device.mixed
    rows = np.arange(size[0], dtype=np.float32)[:, None]
    floor = np.repeat(1.2 * device.depth_camera.fy / (rows + 150), size[1], 1).astype(np.float32)
    read = sensor.read_depth(device, floor, ones, dark, bias, np.random.default_rng(0))
    assert (read[floor < 5] == 0).mean() < 2 * device.random_lost


def test_grazing_and_dark_surfaces_lose_readings() -> None:
    device = sensor.azure_kinect()
    size = (device.depth_camera.height, device.depth_camera.width)
    flat = np.full(size, 2.0, np.float32)
    bias = sensor.Bias(device, np.random.default_rng(0))
    lost = []
    for facing, dark in ((1.0, False), (0.03, False), (1.0, True)):
        args = (np.full(size, facing, np.float32), np.full(size, dark), bias, np.random.default_rng(1))
        lost.append((sensor.read_depth(device, flat, *args) == 0).mean())
    assert lost[0] < 0.005 < 0.05 < min(lost[1:])


def test_what_is_out_of_range_or_open_is_not_read() -> None:
    device = sensor.azure_kinect()
    assert not _flat(device, 8.0).any()
    assert not _flat(device, 0.0).any()
    exact = _flat(sensor.noiseless(device), 1.2345)
    assert np.ptp(exact) == 0 and abs(exact[0, 0] - 1.2345) < 0.00051


def test_a_person_at_two_metres_is_seen_within_millimetres(model: BodyModel) -> None:
    medians, rms = [], []
    for seed in range(6):
        shot = sample_take(model, seed, pose_names=("a_pose",), headings_deg=(40 * seed,))
        frame, instant = shot.frames[0], shot.instants[0]
        seen = instant.masks["azure"] & (frame.depth > 0)
        error = (frame.depth - instant.clean["azure"])[seen]
        medians.append(np.median(np.abs(error)))
        rms.append(np.sqrt(np.mean(np.clip(error, -0.02, 0.02) ** 2)))
        assert seen.sum() / instant.masks["azure"].sum() > 0.93
    assert 0.001 < np.median(medians) < 0.003
    assert max(rms) < 0.008


# --- takes


def test_the_mask_is_the_visible_body(take: Take) -> None:
    for instant in take.instants:
        frame, mask, clean = instant.frames["azure"], instant.masks["azure"], instant.clean["azure"]
        points = frame.depth_camera.backproject(clean)[mask]
        world = points @ frame.T_world_depth[:3, :3].T + frame.T_world_depth[:3, 3]
        distance, _ = KDTree(instant.surface_world).query(world)
        assert np.percentile(distance, 99.5) < 0.03
        uv = np.round(
            frame.depth_camera.project(
                (instant.joints_world - frame.T_world_depth[:3, 3]) @ frame.T_world_depth[:3, :3]
            )
        )
        chest = uv[list(take.model.joint_names).index("spine3")].astype(int)
        assert mask[chest[1], chest[0]]
        ring = clean[~mask & (clean > 0)]
        assert len(ring) > 0.3 * mask.size  # the room is there too


def test_a_counter_hides_the_legs(model: BodyModel) -> None:
    shots = [
        sample_take(model, 5, headings_deg=(0.0,), occluder=hidden).instants[0].masks["azure"]
        for hidden in (False, True)
    ]
    assert shots[1].sum() < 0.85 * shots[0].sum()


def test_the_same_seed_gives_the_same_bytes_and_another_another(model: BodyModel) -> None:
    shots = [
        sample_take(model, seed, sensor="d435", color=True, mask="imperfect", clothing="loose").frames[0]
        for seed in (4, 4, 5)
    ]
    for name in ("depth", "color", "mask", "T_world_depth"):
        a, b, c = (getattr(s, name) for s in shots)
        assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_headings_turn_the_person_towards_the_sensor_or_away(model: BodyModel) -> None:
    shot = sample_take(model, 8, pose_names=("a_pose",) * 4, headings_deg=(0, 90, 180, 270), jitter_deg=0)
    names = list(model.joint_names)
    camera = shot.T_world_depth[0][:3, 3]
    across = []
    for instant in shot.instants:
        left, right = (instant.joints_world[names.index(f"{s}_shoulder")] for s in ("left", "right"))
        towards = camera - instant.joints_world[0]
        facing = np.cross(left - right, [0, 0, 1.0])[:2]
        across.append(facing @ towards[:2] / np.linalg.norm(facing) / np.linalg.norm(towards[:2]))
    assert across == pytest.approx([1, 0, -1, 0], abs=0.15)


def test_imperfect_masks_are_near_the_mask_but_not_it(take: Take) -> None:
    mask = take.instants[0].masks["azure"]
    overlaps = []
    for seed in range(8):
        other = sensor.imperfect_mask(mask, np.random.default_rng(seed))
        overlaps.append((mask & other).sum() / (mask | other).sum())
    assert min(overlaps) > 0.7 and max(overlaps) < 1.0


def test_colour_shows_the_person_where_the_colour_camera_sees_them(take: Take) -> None:
    instant = take.instants[0]
    frame = instant.frames["azure"]
    assert frame.color is not None and frame.color_camera is not None and frame.T_color_depth is not None
    chest = instant.joints_world[list(take.model.joint_names).index("spine3")]
    cam = np.linalg.inv(frame.T_world_depth) @ [*chest, 1.0]
    u, v = np.round(frame.color_camera.project((frame.T_color_depth @ cam)[:3])).astype(int)
    shirt = np.median(take.clothing.albedo[take.clothing.offset > 0.003], axis=0)
    seen = frame.color[v - 3 : v + 4, u - 3 : u + 4].reshape(-1, 3).mean(0)
    wall = frame.color[:10].reshape(-1, 3).mean(0)
    hue = lambda c: c / np.linalg.norm(c)  # noqa: E731
    near_shirt = np.linalg.norm(hue((seen / 255) ** 2.2) - hue(shirt))
    assert np.linalg.norm(seen - wall) > 15 or near_shirt < 0.1


def test_a_take_becomes_a_recording_that_reads_back(take: Take, tmp_path: Path) -> None:
    path = write_take(tmp_path / "take", take)
    recording = open_recording(path)
    assert recording.num_frames == 2 and recording.has_truth
    for t in range(2):
        frame = recording.frame(t, "azure")
        assert frame is not None and frame.color is not None
        assert np.abs(frame.depth - take.instants[t].frames["azure"].depth).max() < 1e-6
    truth = np.load(path / "truth/vertices_world.npy") * 1e-4 + np.load(path / "truth/vertices_world_offset.npy")
    assert np.abs(truth - [i.vertices_world for i in take.instants]).max() < 6e-5
    about = json.loads((path / "truth/subject.json").read_text())
    assert about["sex"] == take.subject.sex and about["clothing"]["kind"] == "casual"
    assert not (write_take(tmp_path / "bare", take, with_truth=False) / "truth").exists()
    with pytest.raises(OutputError):
        write_take(path, take)
    with pytest.raises(OutputError):
        write_take(tmp_path / "no" / "such", take)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bare", "take"]  # nothing half-written


# --- the demo


def test_the_demo_is_shipped_small_and_readable() -> None:
    path = demo.demo_recording_path()
    recording = open_recording(path)
    assert recording.num_frames == 4 and recording.has_truth
    assert all(recording.frame(t, recording.sensors[0].name) is not None for t in range(4))
    assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) <= 1.5e6


def test_the_shipped_demo_is_what_its_script_makes(model: BodyModel, tmp_path: Path) -> None:
    made, shipped = write_take(tmp_path / "demo", demo.film_demo(model)), demo.demo_recording_path()
    about = json.loads((shipped / "truth/subject.json").read_text())
    assert about["model"]["sha256"] == model.sha256
    assert about["off_model_mm_rms"] == pytest.approx(3.0, rel=1e-3)
    first, second = (open_recording(p) for p in (made, shipped))
    for t in range(4):
        a, b = first.frame(t, "kinect2"), second.frame(t, "kinect2")
        assert a is not None and b is not None
        # another machine's floating point may round a few readings the other way
        assert (np.abs(a.depth - b.depth) > 0.0011).mean() < 1e-3


def test_the_demo_command_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main([]) == 2
    assert "usage" in capsys.readouterr().err
