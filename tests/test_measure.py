"""Measurements: slices of known shapes, then whole bodies: scale, growth, smoothness, uncertainty, documentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_body import write_tiny_body

from bodyfit.body.measure import (
    Measurement,
    measure,
    measure_vertices,
    measure_with_sd,
    measurement_jacobian,
    stand,
    standing_basis,
)
from bodyfit.body.measure_definitions import BODY_DENSITY, DEFINITIONS, MODEL_ERROR_M
from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.body.sections import (
    UP,
    Region,
    bridged_lengths,
    bridged_path,
    extremum,
    girth,
    mesh_edges,
    outline,
    slices,
)
from bodyfit.body.standing import ARM_ANGLE, standing, standing_pose
from bodyfit.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "models" / "anny_adult.npz"


def tube(radius_x: float, radius_z: float, top: float = 1.0, sides: int = 720) -> tuple[np.ndarray, np.ndarray]:
    """An upright open tube of elliptic section: vertices and edges along it."""
    a = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.stack([radius_x * np.cos(a), np.zeros(sides), radius_z * np.sin(a)], 1)
    k = np.arange(sides, dtype=np.int32)
    return np.concatenate([ring, ring + np.array([0, top, 0])]), np.stack([k, k + sides], 1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> BodyModel:
    """A body without landmarks."""
    return load_body_model(write_tiny_body(tmp_path_factory.mktemp("body") / "tiny.npz"))


@pytest.fixture(scope="module")
def shipped() -> BodyModel:
    if not SHIPPED.is_file():
        pytest.skip("the body file has not been made")
    return load_body_model(SHIPPED)


# --- slices ----------------------------------------------------------------------------------------------------------


def test_girth_of_a_cylinder_and_of_an_ellipse():
    from scipy.special import ellipe

    points, edges = tube(0.15, 0.15)
    assert girth(points, edges, np.array([0, 0.4, 0]), UP) == pytest.approx(2 * np.pi * 0.15, rel=1e-4)
    points, edges = tube(0.2, 0.1)
    exact = 4 * 0.2 * ellipe(1 - (0.1 / 0.2) ** 2)
    cut = slices(points[None], Region.of(edges), np.array([0, 0.4, 0]), UP)
    assert cut.girths[0, 0] == pytest.approx(exact, rel=1e-4)
    assert cut.extents[0, 0] == pytest.approx([-0.2, 0.2, -0.1, 0.1], abs=1e-9)


def test_an_oblique_slice_of_a_cylinder_is_an_ellipse():
    from scipy.special import ellipe

    points, edges = tube(0.1, 0.1)
    tilt = np.radians(30)
    exact = 4 * (0.1 / np.cos(tilt)) * ellipe(1 - np.cos(tilt) ** 2)
    assert girth(points, edges, np.array([0, 0.5, 0]), np.array([0, np.cos(tilt), np.sin(tilt)])) == pytest.approx(
        exact, rel=1e-4
    )


def test_a_tape_bridges_hollows_and_its_length_is_the_girth():
    a = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    r = 0.1 * (1 - 0.4 * np.cos(5 * a) ** 2)  # a star; its points lie on a circle of radius 0.1 at ten angles
    ring = np.stack([r * np.cos(a + np.pi / 10), 0 * a, r * np.sin(a + np.pi / 10)], 1)
    k = np.arange(400, dtype=np.int32)
    points, edges = np.concatenate([ring, ring + np.array([0, 1, 0])]), np.stack([k, k + 400], 1)
    tips = ring[np.isclose(r, r.max(), atol=1e-5)]
    decagon = 2 * len(tips) * r.max() * np.sin(np.pi / len(tips))
    read = girth(points, edges, np.array([0, 0.5, 0]), UP)
    assert len(tips) == 10
    assert read == pytest.approx(decagon, rel=1e-3)
    line = outline(points, edges, np.array([0, 0.5, 0]), UP)
    assert np.linalg.norm(np.diff(line, axis=0), axis=1).sum() == pytest.approx(read, rel=1e-9)
    assert line[:, 1] == pytest.approx(0.5)


def test_slices_of_a_box_and_beside_it():
    corners = np.array([[x, y, z] for x in (-0.2, 0.2) for y in (0, 1) for z in (-0.1, 0.1)], float)
    edges = np.array([[0, 2], [1, 3], [4, 6], [5, 7]], np.int32)
    cut = slices(corners[None], Region.of(edges), np.zeros(3), UP, (-0.5, 0.5), 3)
    assert np.isnan(cut.girths[0, 0])
    assert cut.girths[0, 2] == pytest.approx(1.2)
    assert np.isnan(girth(corners, edges, np.array([0, 5.0, 0]), UP))
    with pytest.raises(InputError, match="normal"):
        girth(corners, edges, np.zeros(3), np.zeros(3))


def test_slices_of_several_bodies_are_those_of_each():
    from scipy.spatial import ConvexHull

    rng = np.random.default_rng(2)
    points, edges = tube(0.15, 0.1, sides=90)
    # from nearly alike to far apart: hulls are found starting from the body before
    bodies = (
        points + rng.normal(0, 1, (7, *points.shape)) * np.array([1e-4, 1e-3, 0.01, 0.05, 0, 0.2, 1e-4])[:, None, None]
    )
    bodies[4, :, 1] += 3.0  # the planes miss this one
    region, normals = Region.of(edges), UP + rng.normal(0, 0.2, (7, 3))
    origins, ends = rng.normal(0, 0.02, (7, 3)), (np.full(7, 0.2), rng.uniform(0.4, 0.7, 7))
    together = slices(bodies, region, origins, normals, ends, 5)
    for d, body in enumerate(bodies):
        alone = slices(body[None], region, origins[d], normals[d], (ends[0][d], ends[1][d]), 5)
        assert np.array_equal(together.girths[d], alone.girths[0], equal_nan=True)
        assert np.array_equal(together.extents[d], alone.extents[0], equal_nan=True)
        n = normals[d] / np.linalg.norm(normals[d])
        a, b = body[edges[:, 0]], body[edges[:, 1]]
        for k, offset in enumerate(np.linspace(0.2, ends[1][d], 5)):
            over = (a - origins[d]) @ n - offset, (b - origins[d]) @ n - offset
            cut = (over[0] > 0) != (over[1] > 0)
            if not cut.any():
                assert d == 4 and np.isnan(alone.girths[0, k])
                continue
            t = (over[0] / np.where(cut, over[0] - over[1], 1.0))[cut, None]
            met = a[cut] + t * (b[cut] - a[cut])
            flat = met @ np.linalg.svd(n[None])[2][1:].T
            assert alone.girths[0, k] == pytest.approx(ConvexHull(flat).area, rel=1e-9)


def test_extremum_finds_the_top_between_slices():
    x = np.linspace(0, 1, 11)
    value, index = extremum(np.stack([1 - (x - 0.537) ** 2, 2 - (x - 0.263) ** 2]), 1.0)
    assert value == pytest.approx([1.0, 2.0]) and index / 10 == pytest.approx([0.537, 0.263])
    value, index = extremum((x[None] - 0.263) ** 2 + 3, -1.0)
    assert (value[0], index[0] / 10) == pytest.approx((3.0, 0.263))
    value, index = extremum(np.array([[np.nan, 2.0, 1.0], [np.nan] * 3]), 1.0)
    assert (value[0], index[0]) == (2.0, 1.0) and np.isnan(value[1])


def test_bridged_path_follows_humps_and_bridges_hollows():
    a = np.linspace(np.pi / 2, -np.pi / 2, 400)
    hump = np.stack([-np.cos(a), np.sin(a)], 1)  # from the top down, bulging to the right of the way
    length, way = bridged_path(hump)
    assert length == pytest.approx(np.pi, rel=1e-4)
    assert way[[0, -1]] == pytest.approx(hump[[0, -1]])
    length, way = bridged_path(hump * (-1, 1))  # on the other side it is a hollow
    assert length == pytest.approx(2.0)
    every = np.ones((2, 400), bool)
    every[1, 1:-1] = False
    assert bridged_lengths(np.stack([hump, hump]), every) == pytest.approx([np.pi, 2.0], rel=1e-4)


def test_mesh_edges_are_listed_once():
    assert mesh_edges(np.array([[0, 1, 2], [2, 1, 3]])).tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]


def test_volume_of_a_box():
    from bodyfit.kernels.sections import enclosed_volume

    v = np.array([[x, y, z] for x in (0.0, 2.0) for y in (0.0, 3.0) for z in (0.0, 0.5)])
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = np.array([t for q in quads for t in ([q[0], q[1], q[2]], [q[0], q[2], q[3]])], np.int32)
    assert enclosed_volume(v, faces) == pytest.approx(3.0)
    assert enclosed_volume(v + 7, faces) == pytest.approx(3.0)


# --- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["tiny", "shipped"])
def test_scaling_a_body_scales_what_is_measured(body: str, request: pytest.FixtureRequest):
    model = request.getfixturevalue(body)
    vertices, joints = model.forward(np.zeros(model.num_betas), standing(model).pose)
    one, more = measure_vertices(model, vertices, joints), measure_vertices(model, 1.1 * vertices, 1.1 * joints)
    for name, d in DEFINITIONS.items():
        power = 1 if d.unit == "m" else 3
        assert more[name] == pytest.approx(one[name] * 1.1**power, rel=1e-6), name


@pytest.mark.parametrize("body", ["tiny", "shipped"])
def test_every_definition_is_measured_on_every_plausible_body(body: str, request: pytest.FixtureRequest):
    model = request.getfixturevalue(body)
    rng = np.random.default_rng(3)
    prior = model.priors["neutral"]
    for _ in range(25):
        betas = rng.multivariate_normal(prior.mean, 2.0 * prior.cov)
        values = measure(model, betas)
        assert list(values) == list(DEFINITIONS)
        assert all(np.isfinite(v) and v > 0 for v in values.values()), values
        assert values["mass"] == pytest.approx(values["volume"] * BODY_DENSITY)
        assert values["arm_length"] == pytest.approx(values["upper_arm_length"] + values["forearm_length"], rel=1e-9)
        for low, high in (("knee_height", "crotch_height"), ("crotch_height", "hip_height"),
                          ("hip_height", "waist_height"), ("waist_height", "chest_height"),
                          ("chest_height", "shoulder_height"), ("shoulder_height", "stature"),
                          ("ankle_girth", "calf_girth"), ("mid_thigh_girth", "hip_girth"),
                          ("wrist_girth", "forearm_girth"), ("shoulder_breadth", "bideltoid_breadth")):  # fmt: skip
            assert values[low] < values[high], (low, high)


def test_mean_adults_are_of_human_size(shipped: BodyModel):
    # wide bands about the means of ANSUR II (2012), which names differently defined things alike: metres, kilograms
    bands = {
        "female": {"stature": (1.60, 1.66), "chest_girth": (0.90, 0.99), "hip_girth": (0.98, 1.06), "mass": (62, 73),
                   "neck_girth": (0.31, 0.36), "thigh_girth": (0.57, 0.65), "foot_length": (0.23, 0.26),
                   "hand_length": (0.17, 0.20), "head_girth": (0.52, 0.58), "trochanter_height": (0.80, 0.89)},
        "male": {"stature": (1.72, 1.79), "chest_girth": (1.00, 1.10), "hip_girth": (0.97, 1.06), "mass": (79, 91),
                 "neck_girth": (0.37, 0.43), "thigh_girth": (0.58, 0.66), "foot_length": (0.25, 0.29),
                 "hand_length": (0.18, 0.21), "head_girth": (0.55, 0.60), "trochanter_height": (0.86, 0.95)},
    }  # fmt: skip
    for sex, limits in bands.items():
        values = measure(shipped, shipped.priors[sex].mean)
        for name, (low, high) in limits.items():
            assert low < values[name] < high, (sex, name, values[name])


def test_skin_grown_all_round_adds_two_pi_of_it_to_girths(shipped: BodyModel):
    from bodyfit.kernels.body import vertex_normals

    vertices, joints = shipped.forward(shipped.priors["neutral"].mean, standing(shipped).pose)
    normals = np.empty(vertices.shape, np.float32)
    vertex_normals(vertices.astype(np.float32), shipped.faces, normals)
    thin = measure_vertices(shipped, vertices, joints)
    thick = measure_vertices(shipped, vertices + 0.005 * normals, joints)
    for name, d in DEFINITIONS.items():
        if d.kind == "girth":
            grown = (thick[name] - thin[name]) / 0.005
            assert grown == pytest.approx(2 * np.pi, rel=0.25), (name, grown)
    assert thick["mass"] > thin["mass"] + 5
    assert thick["hip_breadth"] - thin["hip_breadth"] == pytest.approx(0.01, abs=0.001)


def test_heavier_along_the_prior_means_larger_girths(shipped: BodyModel):
    prior = shipped.priors["male"]
    J = measurement_jacobian(shipped, prior.mean)
    names = list(DEFINITIONS)
    # the most probable change of betas per kilogram at one stature
    rows = J[[names.index("mass"), names.index("stature")]]
    heavier = prior.cov @ rows.T @ np.linalg.solve(rows @ prior.cov @ rows.T, [1.0, 0.0])
    readings = [measure(shipped, prior.mean + kg * heavier) for kg in (-12, -6, 0, 6, 12, 18)]
    for name in ("chest_girth", "waist_girth", "abdomen_girth", "hip_girth", "thigh_girth", "upper_arm_girth", "mass"):
        assert np.all(np.diff([r[name] for r in readings]) > 0), name
    assert np.ptp([r["stature"] for r in readings]) < 0.01


def test_measurements_change_smoothly_along_each_beta(shipped: BodyModel):
    rng = np.random.default_rng(5)
    for _ in range(3):
        start = rng.multivariate_normal(shipped.priors["neutral"].mean, shipped.priors["neutral"].cov)
        way = rng.standard_normal(shipped.num_betas)
        way /= np.linalg.norm(way)
        line = np.array([list(measure(shipped, start + t * way).values()) for t in np.linspace(0, 0.4, 17)])
        bends = np.abs(np.diff(line, n=2, axis=0)).max(0)
        slope = np.abs(np.diff(line, axis=0)).max(0)
        for name, bend, most in zip(DEFINITIONS, bends, slope, strict=True):
            if DEFINITIONS[name].unit == "m":
                assert bend < 0.0002 + 0.35 * most, (name, bend, most)


def test_measuring_an_unposed_mesh_equals_measuring_its_betas(shipped: BodyModel):
    betas = shipped.priors["female"].mean + 0.5
    direct = measure(shipped, betas)
    by_mesh = measure_vertices(shipped, *stand(shipped, shipped.rest_vertices(betas)))
    for name, value in direct.items():
        assert by_mesh[name] == pytest.approx(value, abs=2e-5 if DEFINITIONS[name].unit == "m" else 1e-2), name


def test_any_zero_pose_comes_to_the_same_stance(tiny: BodyModel):
    drooping = tiny.v_template.copy()
    drooping[:, 1] -= 0.3 * np.clip(np.abs(drooping[:, 0]) - 0.17, 0, None)
    for model in (tiny, replace(tiny, v_template=drooping)):
        _, joints = model.forward(np.zeros(model.num_betas), standing_pose(model))
        at = dict(zip(model.joint_names, joints, strict=True))
        for side, sign in (("left", 1), ("right", -1)):
            arm = at[f"{side}_elbow"] - at[f"{side}_shoulder"]
            assert np.arctan2(sign * arm[0], -arm[1]) == pytest.approx(ARM_ANGLE, abs=1e-6)
            leg = at[f"{side}_ankle"] - at[f"{side}_hip"]
            assert np.degrees(np.arctan2(sign * leg[0], -leg[1])) == pytest.approx(2.0, abs=0.05)


def test_lines_show_what_was_measured(shipped: BodyModel):
    vertices, joints = shipped.forward(shipped.priors["male"].mean, standing(shipped).pose)
    lines: dict[str, list[np.ndarray]] = {}
    values = measure_vertices(shipped, vertices, joints, lines=lines)
    assert set(lines) == set(DEFINITIONS) - {"volume", "mass"}
    for name, ways in lines.items():
        length = np.mean([np.linalg.norm(np.diff(w, axis=0), axis=1).sum() for w in ways])
        # the parabola lies a little beside the slice that is drawn, and breadths are read between two slices
        assert length == pytest.approx(values[name], rel=0.01, abs=0.002), name


# --- uncertainty -----------------------------------------------------------------------------------------------------


def test_standard_deviations_agree_with_sampling(shipped: BodyModel):
    rng = np.random.default_rng(0)
    prior = shipped.priors["neutral"]
    mean = rng.multivariate_normal(prior.mean, 0.5 * prior.cov)
    scale = 0.05 + 0.25 * rng.random(shipped.num_betas)
    mix = np.linalg.qr(rng.standard_normal((shipped.num_betas, shipped.num_betas)))[0]
    cov = (mix * scale**2) @ mix.T
    stated = measure_with_sd(shipped, mean, cov, model_error={})
    drawn = [list(measure(shipped, b).values()) for b in rng.multivariate_normal(mean, cov, 350)]
    for (name, m), sd in zip(stated.items(), np.std(drawn, axis=0), strict=True):
        assert m.sd_m == pytest.approx(sd, rel=0.15), name


@pytest.mark.parametrize("body", ["tiny", "shipped"])
def test_slopes_are_differences_of_bodies_measured_one_by_one(body: str, request: pytest.FixtureRequest):
    model = request.getfixturevalue(body)
    prior, pose = model.priors["neutral"], standing(model).pose
    betas = np.random.default_rng(4).multivariate_normal(prior.mean, prior.cov)
    here, basis = np.concatenate(model.forward(betas, pose)), standing_basis(model)

    def read(points: np.ndarray) -> np.ndarray:
        return np.array(
            list(measure_vertices(model, points[: model.num_vertices], points[model.num_vertices :]).values())
        )

    J = measurement_jacobian(model, betas)
    metres = np.array([d.unit == "m" for d in DEFINITIONS.values()])
    sides = 0
    for s in range(model.num_betas):
        ahead = (read(here + 0.05 * basis[s]) - read(here)) / 0.05
        expected = ahead
        if np.abs(ahead[metres]).max() > 0.02:
            behind = (read(here) - read(here - 0.05 * basis[s])) / 0.05
            calmer = np.where(np.abs(ahead) < np.abs(behind), ahead, behind)
            jump = np.abs(ahead - behind) > 0.02 + 2 * np.abs(calmer)
            expected = np.where(jump, calmer, 0.5 * (ahead + behind))
            sides += 1
        assert J[:, s] == pytest.approx(expected, rel=1e-9, abs=1e-11), s
    assert sides > 0
    stated = measure_with_sd(model, betas, np.eye(model.num_betas), model_error={})
    assert [m.value_m for m in stated.values()] == pytest.approx(list(measure(model, betas).values()), rel=1e-12)
    assert [m.sd_m for m in stated.values()] == pytest.approx(np.linalg.norm(J, axis=1), rel=1e-12)


def test_model_error_adds_in_squares(tiny: BodyModel):
    betas, nothing = np.zeros(tiny.num_betas), np.zeros((tiny.num_betas, tiny.num_betas))
    certain = measure_with_sd(tiny, betas, nothing)
    for name, m in certain.items():
        assert m.sd_m == pytest.approx(MODEL_ERROR_M[name])
    bare = measure_with_sd(tiny, betas, np.eye(tiny.num_betas), model_error={})
    both = measure_with_sd(tiny, betas, np.eye(tiny.num_betas), model_error={"stature": 0.02})
    assert both["stature"].sd_m == pytest.approx(np.hypot(bare["stature"].sd_m, 0.02))
    assert both["hip_girth"].sd_m == bare["hip_girth"].sd_m > 0


def test_what_was_not_seen_says_so(tiny: BodyModel):
    betas, cov = np.zeros(tiny.num_betas), np.eye(tiny.num_betas)
    parts = dict.fromkeys(tiny.part_names, 3)
    assert all(m.seen for m in measure_with_sd(tiny, betas, cov).values())
    assert all(m.seen for m in measure_with_sd(tiny, betas, cov, parts).values())
    hidden = parts | {"left_calf": 0, "right_calf": 0, "left_forearm": 0, "head": 0}
    found = measure_with_sd(tiny, betas, cov, hidden)
    assert not (found["calf_girth"].seen or found["knee_height"].seen or found["stature"].seen)
    assert found["forearm_girth"].seen  # the right one was
    front = measure_with_sd(tiny, betas, cov, parts, sides={"front": 0.9, "back": 0.02})
    assert not (front["waist_girth"].seen or front["mass"].seen or front["back_waist_length"].seen)
    assert front["stature"].seen and front["calf_girth"].seen


def test_measurements_carry_their_definition_and_unit(tiny: BodyModel):
    found = measure_with_sd(tiny, np.zeros(tiny.num_betas), np.eye(tiny.num_betas))
    assert all(isinstance(m, Measurement) and m.name == name for name, m in found.items())
    assert found["volume"].unit == "m3" and found["mass"].unit == "kg" and found["stature"].unit == "m"
    assert found["hip_girth"].definition == DEFINITIONS["hip_girth"].text


def test_bad_input_is_named(tiny: BodyModel):
    with pytest.raises(InputError, match="betas"):
        measure_with_sd(tiny, np.zeros(3), np.eye(3))
    with pytest.raises(InputError, match="betas_cov"):
        measure_with_sd(tiny, np.zeros(tiny.num_betas), np.eye(3))
    broken = tiny.rest_vertices(np.zeros(tiny.num_betas))
    broken[4, 1] = np.nan
    with pytest.raises(InputError, match=r"vertices: expected finite numbers, found 1"):
        measure_vertices(tiny, broken)
    with pytest.raises(InputError, match="left_knee"):
        standing_pose(replace(tiny, joint_names=tuple(n.replace("left_knee", "knee.L") for n in tiny.joint_names)))


# --- documentation ---------------------------------------------------------------------------------------------------


def test_every_definition_is_documented():
    from bodyfit.picture.measure_figure import PANELS, definitions_table

    page = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    assert definitions_table() in page, "run `python -m bodyfit.picture.measure_figure docs`"
    assert len(DEFINITIONS) >= 24
    for name, d in DEFINITIONS.items():
        assert d.name == name and d.text.endswith(".") and "\n" not in d.text and len(d.text) < 120
        assert d.kind in ("height", "girth", "breadth", "length", "volume", "mass") and d.parts and d.model_error > 0
        if d.unit == "m":
            assert any(name in names for _, _, names in PANELS), f"{name} is not on the picture"


def test_the_picture_is_drawn_and_replaced_whole(tiny: BodyModel, tmp_path: Path):
    import cv2

    from bodyfit.errors import OutputError
    from bodyfit.picture.measure_figure import write_documentation

    with pytest.raises(OutputError, match="measurements"):
        write_documentation(tmp_path, tiny)
    (tmp_path / "measurements.md").write_text("# A\n<!-- table -->\nold\n<!-- end of table -->\nend\n")
    write_documentation(tmp_path, tiny)
    text = (tmp_path / "measurements.md").read_text()
    assert "| `hip_girth` |" in text and "old" not in text and text.endswith("end\n")
    picture = cv2.imread(str(tmp_path / "measurements.png"))
    assert picture is not None and (picture < 250).any(-1).mean() > 0.05
    assert sorted(p.name for p in tmp_path.iterdir()) == ["measurements.md", "measurements.png"]
