"""The shipped body file: format, geometry, T-pose, priors against ANSUR II, and bodies its training never saw."""

from __future__ import annotations

import csv
import importlib
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "models" / "anny_adult.npz"
SHARED = ROOT.parent / "shared"
SEXES = ("female", "male", "neutral")
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared")


@pytest.fixture(scope="module")
def body() -> dict[str, np.ndarray]:
    with np.load(FILE, allow_pickle=False) as z:
        return {k: z[k] for k in z.files}


@pytest.fixture(scope="module")
def shapedirs(body: dict[str, np.ndarray]) -> np.ndarray:
    return body["shapedirs"].astype(np.float64)


@pytest.fixture(scope="module")
def meta(body: dict[str, np.ndarray]) -> dict:
    return json.loads(str(body["meta"]))


@pytest.fixture(scope="module")
def build() -> dict[str, ModuleType]:
    """The build's own rig and measuring rules: numpy and scipy, no anny."""
    sys.path.insert(0, str(ROOT / "models"))
    try:
        return {n: importlib.import_module(f"anny_{n}") for n in ("rig", "prior", "marks", "train")}
    finally:
        sys.path.remove(str(ROOT / "models"))


@pytest.fixture(scope="module")
def rules(body: dict[str, np.ndarray], meta: dict, build: dict[str, ModuleType]):
    weights = body["weights"].astype(np.float64)
    return build["prior"].tape_rules(
        body["faces"],
        weights,
        body["J_regressor"],
        Rotation.from_rotvec(meta["standing_pose"]).as_matrix(),
        np.array(list(build["marks"].NIPPLES.values())),
        build["marks"].NAVEL,
        build["marks"].seat_vertices(body["v_template"].astype(np.float64), weights),
        build["marks"].perineum_vertices(body["v_template"].astype(np.float64), weights),
    )


def joint(body: dict[str, np.ndarray], name: str) -> np.ndarray:
    return (body["J_regressor"] @ body["v_template"])[body["joint_names"].tolist().index(name)]


def test_size_and_loading_time() -> None:
    assert FILE.stat().st_size <= 8_000_000
    times = []
    for _ in range(5):
        started = time.perf_counter()
        with np.load(FILE, allow_pickle=False) as z:
            for k in z.files:
                z[k]
        times.append(time.perf_counter() - started)
    assert min(times) < 0.1, f"loads in {min(times):.3f} s"


def test_shapes_and_kinds(body: dict[str, np.ndarray]) -> None:
    v, s = 13348, body["shapedirs"].shape[2]
    assert 24 <= s <= 48
    expected = {
        "v_template": ((v, 3), np.float32),
        "shapedirs": ((v, 3, s), np.float16),
        "J_regressor": ((24, v), np.float32),
        "weights": ((v, 24), np.float32),
        "faces": ((26692, 3), np.int32),
        "anny_vertex_ids": ((v,), np.int32),
        "sample_mask": ((v,), np.bool_),
        "part_labels": ((v,), np.uint8),
        "prior_mean_female": ((s,), np.float32),
        "prior_cov_male": ((s, s), np.float32),
    }
    for key, (shape, kind) in expected.items():
        assert body[key].shape == shape, key
        assert body[key].dtype == kind, key
    for key, array in body.items():
        if array.dtype.kind == "f":
            assert np.isfinite(array).all(), key
    parents = body["kintree_table"][0]
    assert parents[0] == -1
    assert (parents[1:] < np.arange(1, 24)).all()


def test_closed_outward_manifold(body: dict[str, np.ndarray], build: dict[str, ModuleType]) -> None:
    f = body["faces"].astype(int)
    edges = np.vstack([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])
    directed = {tuple(e) for e in edges.tolist()}
    assert len(directed) == len(edges), "an edge is used twice in one direction"
    assert all((b, a) in directed for a, b in directed), "an edge has no second face"
    assert 0.06 < build["train"].volume(body["v_template"], f) < 0.09
    assert np.array_equal(np.unique(f), np.arange(len(body["v_template"])))


def test_weights_and_regressor(body: dict[str, np.ndarray], meta: dict) -> None:
    w = body["weights"]
    assert w.min() >= 0
    assert np.abs(w.sum(1) - 1).max() < 1e-5
    assert w[w > 0].min() >= 0.9e-4
    assert np.abs(body["J_regressor"].sum(1) - 1).max() < 1e-3
    assert np.abs(joint(body, "pelvis")).max() < 1e-3
    assert meta["joint_regressor_mm"]["worst_joint_mean"] <= 2.5


def test_anny_vertex_ids(body: dict[str, np.ndarray]) -> None:
    ids = body["anny_vertex_ids"]
    assert len(np.unique(ids)) == len(ids)
    assert ids.min() >= 0
    assert ids.max() < 13718


def test_zero_pose_is_smpls_t_pose(body: dict[str, np.ndarray]) -> None:
    v = body["v_template"]
    assert 1.66 < np.ptp(v[:, 1]) < 1.72
    for side, sign in (("left", 1), ("right", -1)):
        shoulder, elbow, wrist, hand = (joint(body, f"{side}_{n}") for n in ("shoulder", "elbow", "wrist", "hand"))
        for a, b in ((shoulder, elbow), (elbow, wrist), (wrist, hand)):
            along = (b - a) / np.linalg.norm(b - a)
            assert along[0] * sign > np.cos(np.radians(2)), (side, along)
        hip, knee, ankle, toe = (joint(body, f"{side}_{n}") for n in ("hip", "knee", "ankle", "foot"))
        down = (ankle - hip) / np.linalg.norm(ankle - hip)
        assert -down[1] > np.cos(np.radians(4))
        assert 0.05 < ankle[0] * sign < 0.18
        assert hip[1] > knee[1] > ankle[1] > toe[1]
        forward = toe - ankle
        assert forward[2] > 0.08
        assert abs(forward[0]) < 0.25 * forward[2], "feet point forward"
        # palms down: the thumb side of the hand is in front, and the hand is flatter than it is wide
        hand_v = v[body["part_labels"] == body["part_names"].tolist().index(f"{side}_hand")]
        assert np.ptp(hand_v[:, 2]) > np.ptp(hand_v[:, 1])
    trunk = [joint(body, n)[1] for n in ("pelvis", "spine1", "spine2", "spine3", "neck", "head")]
    assert trunk == sorted(trunk)
    names = body["landmark_names"].tolist()
    nose, heel = (v[body["landmark_vertices"][names.index(n), 0]] for n in ("nose_tip", "left_heel"))
    assert nose[2] > 0.1, "the face looks along +z"
    assert heel[2] < 0


def test_betas_are_ordered_standard_deviations(body: dict[str, np.ndarray], shapedirs: np.ndarray) -> None:
    assert np.abs(body["prior_mean_neutral"]).max() < 1e-4
    assert np.abs(body["prior_cov_neutral"] - np.eye(shapedirs.shape[2])).max() < 1e-3
    f, v = body["faces"], body["v_template"].astype(float)
    area = np.linalg.norm(np.cross(v[f[:, 1]] - v[f[:, 0]], v[f[:, 2]] - v[f[:, 0]]), axis=1)
    share = np.zeros(len(v))
    np.add.at(share, f.reshape(-1), np.repeat(area, 3))
    weight = (share / share.sum() + 1 / len(v)) / 2 * np.where(body["sample_mask"], 1, 0.2)
    variance = np.einsum("v,vcs->s", weight / weight.sum(), shapedirs**2)
    assert (variance[1:] <= variance[:-1] * 1.06).all()  # sorted by the areas of the training bodies, not of this one


@pytest.mark.parametrize("sex", SEXES)
def test_priors_are_proper(body: dict[str, np.ndarray], sex: str) -> None:
    cov = body[f"prior_cov_{sex}"].astype(np.float64)
    assert np.abs(cov - cov.T).max() < 1e-5
    assert np.linalg.eigvalsh(cov).min() > 1e-3


def lid_rims(body: dict[str, np.ndarray]) -> np.ndarray:
    """Vertices on the rims of the mouth and the eye sockets: in a face with vertices outside and inside the cavity."""
    f, kept = body["faces"], body["sample_mask"][body["faces"]]
    return np.unique(f[kept.any(1) & ~kept.all(1)][kept[kept.any(1) & ~kept.all(1)]])


def test_coarse_meshes(body: dict[str, np.ndarray]) -> None:
    import open3d as o3d

    v = body["v_template"].astype(np.float64)
    whole = o3d.t.geometry.RaycastingScene()
    tensor = o3d.core.Tensor.from_numpy
    whole.add_triangles(tensor(body["v_template"]), tensor(body["faces"].astype(np.uint32)))
    for lod, count, near in (("lod1", 7700, 0.0006), ("lod2", 2600, 0.002)):
        ids, f = body[f"{lod}_vertex_ids"], body[f"{lod}_faces"]
        assert abs(len(f) - count) < 0.02 * count
        assert len(np.unique(ids)) == len(ids)
        assert body["sample_mask"][ids].all(), "no vertex inside a cavity"
        t = v[ids][f]
        area = np.linalg.norm(np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]), axis=1) / 2
        assert area.min() > 1e-7
        edges = np.vstack([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])
        directed = {tuple(e) for e in edges.tolist()}
        assert all((b, a) in directed for a, b in directed)
        middle = tensor(t.mean(1).astype(np.float32))
        outer = ~np.isin(f, ids.searchsorted(np.intersect1d(ids, lid_rims(body)))).all(1)  # lids span the cavities
        assert whole.compute_distance(middle).numpy()[outer].mean() < near


def test_sample_mask_leaves_out_the_cavities_only(body: dict[str, np.ndarray]) -> None:
    head = body["part_labels"] == body["part_names"].tolist().index("head")
    assert 900 <= (~body["sample_mask"]).sum() <= 1000
    assert body["sample_mask"][~head].all()


def test_landmarks(body: dict[str, np.ndarray]) -> None:
    v = body["v_template"].astype(np.float64)
    at = {
        n: v[row[row >= 0]].mean(0)
        for n, row in zip(body["landmark_names"].tolist(), body["landmark_vertices"], strict=True)
    }
    floor, stature = v[:, 1].min(), np.ptp(v[:, 1])
    for name, place in at.items():
        if name.startswith("left_"):
            mirrored = at["right_" + name[5:]] * (-1, 1, 1)
            assert place[0] > 0, name
            assert np.linalg.norm(place - mirrored) < 0.01, name
    ladder = (
        "head_top nose_tip chin neck_base_front left_bust_point underbust_front navel crotch left_patella left_heel"
    )
    heights = [at[n][1] for n in ladder.split()]
    assert heights == sorted(heights, reverse=True)
    # ANSUR II: mean heights over stature, women and men
    for name, fraction in (
        ("navel", 0.6015),
        ("left_bust_point", 0.727),
        ("left_buttock", 0.509),
        ("neck_base_back", 0.860),
        ("left_patella", 0.277),
        ("crotch", 0.481),
    ):
        assert abs((at[name][1] - floor) / stature - fraction) < 0.02, name


@needs_shared
@pytest.mark.parametrize("sex", SEXES)
def test_prior_reproduces_ansur(
    body: dict[str, np.ndarray], shapedirs: np.ndarray, rules, build: dict[str, ModuleType], sex: str
) -> None:
    columns = ("stature", "chestcircumference", "waistcircumference", "buttockcircumference", "weightkg")
    tables = []
    for name in {"female": ["FEMALE"], "male": ["MALE"], "neutral": ["FEMALE", "MALE"]}[sex]:
        path = SHARED / "data" / "ansur2" / f"ANSUR_II_{name}_Public.csv"
        with path.open(encoding="latin-1", newline="") as f:
            tables.append(np.array([[float(r[c]) for c in columns] for r in csv.DictReader(f)]))
    n = min(map(len, tables))  # equal shares of the sexes
    table = np.vstack([t[:: max(1, len(t) // n)][:n] for t in tables]) / (1000, 1000, 1000, 1000, 10)

    rng = np.random.default_rng(4)
    z = build["prior"].standard_samples(rng, 200, shapedirs.shape[2])
    cov = body[f"prior_cov_{sex}"].astype(np.float64)
    betas = body[f"prior_mean_{sex}"] + z @ np.linalg.cholesky(cov).T
    measured = build["prior"].measure_betas(betas, body["v_template"].astype(np.float64), shapedirs, rules)
    measured = measured[:, [0, 1, 2, 3, 5]]
    miss = np.abs(measured.mean(0) - table.mean(0))
    assert (miss[:4] < 0.006).all(), miss
    assert miss[4] < 1.2, miss
    assert np.allclose(measured.std(0) / table.std(0), 1, atol=0.09), measured.std(0) / table.std(0)
    assert np.abs(np.corrcoef(measured.T) - np.corrcoef(table.T)).max() < 0.09


def nearest_body(target: np.ndarray, start: np.ndarray, body: dict[str, np.ndarray], rig) -> np.ndarray:
    """Posed vertices (V, 3) nearest to target over betas, joint rotations and a shift: Gauss-Newton, no prior.

    start (24, 3, 3): global rotations. The coarsest mesh's vertices count.
    """
    rest, basis = body["v_template"].astype(np.float64), body["shapedirs"].astype(np.float64)
    w, regressor = body["weights"].astype(np.float64), body["J_regressor"].astype(np.float64)
    joints, joint_basis = regressor @ rest, np.einsum("jv,vcs->jcs", regressor, basis)
    below = np.array([[rig.is_below(k, j) for j in range(24)] for k in range(24)], float)
    some, n = body["lod2_vertex_ids"], basis.shape[2]
    h, shift, betas = start.copy(), np.zeros(3), np.zeros(n)

    def carried(v: np.ndarray, j: np.ndarray, pick: slice | np.ndarray = some) -> tuple[np.ndarray, np.ndarray]:
        """The vertices as each joint carries them (v, 24, 3), and the joints."""
        moved = rig.chain(j, h)
        return np.einsum("kij,vkj->vki", h, v[pick, None] - j) + moved, moved

    for _ in range(8):
        rigid, moved = carried(rest + basis @ betas, joints + joint_basis @ betas)
        columns = np.empty((len(rigid), 3, 75 + n))
        for k in range(24):
            x, y, z = np.einsum("vk,vkc->cv", w[some] * below[k], rigid - moved[k])
            o = np.zeros_like(x)
            columns[:, :, 3 * k : 3 * k + 3] = np.stack([o, z, -y, -z, o, x, y, -x, o], -1).reshape(-1, 3, 3)
        columns[:, :, 72:75] = np.eye(3)
        for i in range(n):
            columns[:, :, 75 + i] = np.einsum("vk,vkc->vc", w[some], carried(basis[..., i], joint_basis[..., i])[0])
        r = target[some] - shift - np.einsum("vk,vkc->vc", w[some], rigid)
        a = columns.reshape(-1, 75 + n)
        step = np.linalg.solve(a.T @ a + 1e-5 * np.eye(75 + n), a.T @ r.reshape(-1))
        turn = Rotation.from_rotvec(step[:72].reshape(24, 3)).as_matrix()
        for k in range(24):
            h[below[k] > 0] = turn[k] @ h[below[k] > 0]
        shift, betas = shift + step[72:75], betas + step[75:]
    rigid, _ = carried(rest + basis @ betas, joints + joint_basis @ betas, slice(None))
    return np.einsum("vk,vkc->vc", w, rigid) + shift


@needs_shared
def test_bodies_of_the_recordings_lie_near_the_basis(
    body: dict[str, np.ndarray], meta: dict, build: dict[str, ModuleType]
) -> None:
    """Subjects the training never saw, brought nearest by shape and pose: mean vertex distance in millimetres."""
    rig = build["rig"]
    start = np.empty((24, 3, 3))
    local = Rotation.from_rotvec(meta["anny_rest_pose"]).as_matrix()
    for k in range(24):
        start[k] = local[k] if k == 0 else start[rig.PARENTS[k]] @ local[k]
    found = {}
    for path in sorted(SHARED.glob("recordings/*/truth/rest_vertices.npy"))[::4]:
        z_up = np.load(path)[body["anny_vertex_ids"]].astype(np.float64)
        target = np.stack([z_up[:, 0], z_up[:, 2], -z_up[:, 1]], -1)
        error = np.linalg.norm(nearest_body(target, start, body, rig) - target, axis=1)
        found[path.parent.parent.name] = float(error.mean()) * 1e3
    print("mean distance to the basis, mm:", {k: round(e, 2) for k, e in found.items()})
    assert max(found.values()) < 2.0, found
    assert np.median(list(found.values())) < 1.5, found
