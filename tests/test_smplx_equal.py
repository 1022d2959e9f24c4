"""Bodies imported from every official layout move as in smplx, the reference implementation."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from official_layouts import fake_chumpy, official_arrays, write_official_npz, write_official_pkl
from tiny_body import tiny_body_arrays, write_tiny_body

from bodyfit.body.import_smpl import import_body
from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.body.npz import write_npz
from bodyfit.body.smplx_params import hand_poses, to_smplx_params, with_expression
from bodyfit.errors import InputError

torch = pytest.importorskip("torch")
body_models = pytest.importorskip("smplx.body_models")

TOLERANCE_M = 1e-5


@dataclass(frozen=True)
class Layout:
    """One official file: how it is written, and what is in it."""

    family: str
    file: str
    columns: int
    betas: int
    expressions: int = 0
    hands: bool = True


LAYOUTS = {
    "SMPL 1.0, Python 2 pickle": Layout("smpl", "basicModel_f_lbs_10_207_0_v1.0.0.pkl", 10, 10),
    "SMPL 1.1, Python 2 pickle": Layout("smpl", "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl", 300, 300),
    "SMPL npz": Layout("smpl", "SMPL_MALE.npz", 10, 10),
    "SMPL-H of MANO, pickle": Layout("smplh", "SMPLH_FEMALE.pkl", 10, 10),
    "SMPL-H npz with hands": Layout("smplh", "SMPLH_MALE.npz", 10, 10),
    "SMPL-H of AMASS, npz without hands": Layout("smplh", "model.npz", 16, 16, hands=False),
    "SMPL-X 1.1 npz": Layout("smplx", "SMPLX_NEUTRAL.npz", 400, 300, 100),
    "SMPL-X 1.1 pickle": Layout("smplx", "SMPLX_MALE.pkl", 400, 300, 100),
    "SMPL-X npz of 10 + 10": Layout("smplx", "SMPLX_FEMALE.npz", 20, 10, 10),
}
WRITERS: dict[str, Callable[[Path, dict[str, Any]], Path]] = {".npz": write_official_npz, ".pkl": write_official_pkl}


@dataclass(frozen=True)
class Case:
    """An official file, what smplx makes of its arrays, and our import of it."""

    layout: Layout
    path: Path
    arrays: dict[str, Any]
    model: BodyModel


@pytest.fixture(scope="module")
def landmarked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arrays = tiny_body_arrays()
    arrays["landmark_names"] = np.array(["vertex", "top_of_head"])
    arrays["landmark_vertices"] = np.array([[0], [arrays["v_template"][:, 1].argmax()]], np.int32)
    path = tmp_path_factory.mktemp("reference") / "tiny.npz"
    write_npz(path, arrays)
    return path


@pytest.fixture(scope="module", params=list(LAYOUTS))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, landmarked: Path) -> Case:
    layout = LAYOUTS[request.param]
    folder = tmp_path_factory.mktemp("official")
    arrays = official_arrays(layout.family, layout.columns, hands=layout.hands)
    path = WRITERS[Path(layout.file).suffix](folder / layout.file, arrays)
    imported = import_body(path, folder / "imported.npz", landmarks_from=landmarked)
    return Case(layout, path, arrays, load_body_model(imported.path))


def reference(case: Case, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """smplx's own model, in float64; it reads the official file itself where it knows how."""
    layout, arrays = case.layout, case.arrays
    V = len(arrays["v_template"])
    ids = {name: i % V for i, name in enumerate(body_models.VERTEX_IDS["smplx"])}
    monkeypatch.setattr(body_models, "VERTEX_IDS", {"smplh": ids, "smplx": ids})
    options = {"dtype": torch.float64, "num_betas": layout.betas} | options
    suffix = case.path.suffix[1:]
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), fake_chumpy():
        warnings.simplefilter("ignore", DeprecationWarning)
        if layout.family == "smplx":
            return body_models.SMPLX(str(case.path), ext=suffix, num_expression_coeffs=layout.expressions, **options)
        cls = {"smpl": body_models.SMPL, "smplh": body_models.SMPLH}[layout.family]
        if suffix == "pkl":
            return cls(str(case.path), ext=suffix, **options)
        struct = dict(arrays)
        if layout.betas > 10:  # smplx would cut these to 10
            missing = 300 - layout.columns
            struct["shapedirs"] = np.pad(arrays["shapedirs"], ((0, 0), (0, 0), (0, missing)))
        if layout.family == "smplh" and not layout.hands:
            struct |= {f"hands_components{s}": np.eye(45) for s in "lr"}
            struct |= {f"hands_mean{s}": np.zeros(45) for s in "lr"}
        return cls("", data_struct=SimpleNamespace(**struct), **options)


def random_parameters(model: BodyModel, seed: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    pose = rng.normal(0, 0.4, (model.num_joints, 3))
    return rng.normal(0, 1.0, model.num_betas), pose, rng.normal(0, 1.0, 3)


def as_tensors(params: dict[str, Any]) -> dict[str, Any]:
    return {k: torch.as_tensor(np.asarray(v, dtype=np.float64)) for k, v in params.items()}


def largest_difference(ours: tuple[Any, Any], output: Any, joints: int) -> float:
    vertices = output.vertices.detach().numpy()[0]
    theirs = output.joints.detach().numpy()[0, :joints]
    return max(abs(ours[0] - vertices).max(), abs(ours[1] - theirs).max())


@pytest.mark.parametrize("seed", [1, 2])
def test_forward_equals_smplx(case: Case, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    model = case.model
    betas, pose, transl = random_parameters(model, seed)
    params = to_smplx_params(model, betas, pose[None], transl[None])
    hands = {} if case.layout.family == "smpl" else {"use_pca": False, "flat_hand_mean": True}
    with torch.no_grad():
        output = reference(case, monkeypatch, **hands)(**as_tensors(params))
    assert largest_difference(model.forward(betas, pose, transl), output, model.num_joints) < TOLERANCE_M
    # a body that does not move would agree with anything
    assert np.linalg.norm(output.vertices.numpy()[0] - case.arrays["v_template"], axis=1).mean() > 0.1


def test_each_parameter_matters(case: Case) -> None:
    model = case.model
    betas, pose, transl = random_parameters(model, 3)
    vertices = model.forward(betas, pose, transl)[0]
    assert model.posedirs is not None
    assert abs(model.forward(0 * betas, pose, transl)[0] - vertices).max() > 1e-3
    for joint in range(model.num_joints):
        changed = pose.copy()
        changed[joint] += 0.5
        assert abs(model.forward(betas, changed, transl)[0] - vertices).max() > 1e-3, model.joint_names[joint]


@pytest.mark.parametrize("components", [6, 45])
@pytest.mark.parametrize("flat", [False, True])
def test_hand_components_equal_smplx(case: Case, monkeypatch: pytest.MonkeyPatch, components: int, flat: bool) -> None:
    model = case.model
    betas, pose, transl = random_parameters(model, 4)
    left, right = np.random.default_rng(5).normal(0, 0.7, (2, components))
    if case.layout.family == "smpl":
        with pytest.raises(InputError, match="fingers"):
            hand_poses(model, left, right)
        return
    if not case.layout.hands:  # no components: whole rotations, and no mean
        assert np.allclose(hand_poses(model, np.arange(45), np.zeros(45))[:15], np.arange(45).reshape(15, 3))
        return
    params = to_smplx_params(model, betas, pose[None], transl[None])
    params |= {"left_hand_pose": left[None], "right_hand_pose": right[None]}
    theirs = reference(case, monkeypatch, use_pca=True, num_pca_comps=components, flat_hand_mean=flat)
    pose[-30:] = hand_poses(model, left, right, flat_hand_mean=flat)
    with torch.no_grad():
        output = theirs(**as_tensors(params))
    assert largest_difference(model.forward(betas, pose, transl), output, model.num_joints) < TOLERANCE_M


def test_expression_equals_smplx(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    model = case.model
    betas, pose, transl = random_parameters(model, 6)
    if case.layout.family != "smplx":
        with pytest.raises(InputError, match="expression"):
            to_smplx_params(model, betas, pose[None], transl[None], np.zeros(10))
        with pytest.raises(InputError, match="expression"):
            with_expression(model, np.zeros(10))
        return
    expression = np.random.default_rng(7).normal(0, 1.5, case.layout.expressions)
    params = to_smplx_params(model, betas, pose[None], transl[None], expression)
    with torch.no_grad():
        output = reference(case, monkeypatch, use_pca=False, flat_hand_mean=True)(**as_tensors(params))
    smiling = with_expression(model, expression)
    assert largest_difference(smiling.forward(betas, pose, transl), output, model.num_joints) < TOLERANCE_M
    assert abs(smiling.forward(betas, pose, transl)[0] - model.forward(betas, pose, transl)[0]).max() > 1e-3


def test_several_frames_go_over_in_one_call(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    model, frames = case.model, 3
    betas, _, _ = random_parameters(model, 8)
    poses, transl = zip(*[random_parameters(model, s)[1:] for s in range(frames)], strict=True)
    params = to_smplx_params(model, betas, np.stack(poses), np.stack(transl))
    assert all(len(array) == frames and array.dtype == np.float32 for array in params.values())
    hands = {} if case.layout.family == "smpl" else {"use_pca": False, "flat_hand_mean": True}
    with torch.no_grad():
        output = reference(case, monkeypatch, batch_size=frames, **hands)(**as_tensors(params))
    for t in range(frames):
        ours = model.forward(betas, poses[t], transl[t])[0]
        assert abs(ours - output.vertices.numpy()[t]).max() < TOLERANCE_M


def test_other_bodies_are_refused(tmp_path: Path) -> None:
    model = load_body_model(write_tiny_body(tmp_path / "tiny.npz"))
    with pytest.raises(InputError, match="imported SMPL"):
        to_smplx_params(model, np.zeros(model.num_betas), np.zeros((1, 24, 3)), np.zeros((1, 3)))


def test_shapes_are_checked(case: Case) -> None:
    model = case.model
    betas, pose, transl = random_parameters(model, 9)
    for wrong in ((betas[1:], pose[None], transl[None]), (betas, pose, transl[None]), (betas, pose[None], transl)):
        with pytest.raises(InputError, match="shape"):
            to_smplx_params(model, *wrong)
