"""Priors and keypoints of a batch, as torch computes them, against the code that does one problem after the other.

Both are float64: what they differ by is the order of sums, and near half a turn the cancellation in the numba code's
1 + cos a. Every bound is relative to the largest number of the same instant or group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("numba_cuda", reason="numba-cuda (extra [cuda]) is missing")

from prior_problems import CONFIG, S, extremes, keypoint_view, mixed, poses, problem, state  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from bodyfit.body.model import BodyModel, load_body_model  # noqa: E402
from bodyfit.errors import InputError  # noqa: E402
from bodyfit.fit.collide import spheres_of  # noqa: E402
from bodyfit.fit.cuda_angles import JointAngles  # noqa: E402
from bodyfit.fit.cuda_chain import Chain  # noqa: E402
from bodyfit.fit.cuda_priors import BatchPriors, PriorTerms  # noqa: E402
from bodyfit.fit.cuda_spheres import BatchSpheres  # noqa: E402
from bodyfit.fit.cuda_tensors import DeviceTensors, HostTensors, Tape, TapeError, Tensors  # noqa: E402
from bodyfit.fit.follow import Pose  # noqa: E402
from bodyfit.fit.learned_prior import learned_prior  # noqa: E402
from bodyfit.fit.mesh import mesh_for  # noqa: E402
from bodyfit.fit.pose_prior import joint_angles, pose_prior  # noqa: E402
from bodyfit.fit.problem import Problem, State  # noqa: E402
from bodyfit.rotation import matrix_from_axis_angle  # noqa: E402

HOST = HostTensors()


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


# --- both ways --------------------------------------------------------------------------------------------------------


def on_device(states: Sequence[State], tensors: Tensors = HOST) -> tuple[Any, ...]:
    return tuple(
        tensors.upload(np.concatenate([getattr(s, name) for s in states])) for name in ("rotations", "transl", "shape")
    )


def together(problems: Sequence[Problem], states: Sequence[State], tensors: Tensors = HOST) -> PriorTerms:
    return BatchPriors(problems, [s.group for s in states], tensors).terms(*on_device(states, tensors))


FIELDS = ("instant_cost", "pose_gradient", "A", "B", "shape_gradient", "C", "cost")


def as_arrays(terms: PriorTerms, states: Sequence[State]) -> list[dict[str, NDArray[np.float64]]]:
    """Each problem's own, with the groups' costs summed."""
    n = np.cumsum([0, *(len(s.group) for s in states)])
    g = np.cumsum([0, *(len(s.shape) for s in states)])
    out = []
    for k, s in enumerate(states):
        own: dict[str, NDArray[np.float64]] = {}
        for name in ("instant_cost", "pose_gradient", "A", "B"):
            whole = getattr(terms, name)
            size = (*terms.pose_gradient.shape, S)
            own[name] = (np.zeros(size) if whole is None else whole.cpu().numpy())[n[k] : n[k + 1]]
        for name in ("shape_gradient", "C"):
            own[name] = getattr(terms, name).cpu().numpy()[g[k] : g[k + 1]]
        own["cost"] = terms.shape_cost.cpu().numpy()[g[k] : g[k + 1]].copy()
        np.add.at(own["cost"], s.group, own["instant_cost"])
        out.append(own)
    return out


def one_by_one(problems: Sequence[Problem], states: Sequence[State]) -> list[dict[str, NDArray[np.float64]]]:
    found = [p.prior_equations(s) for p, s in zip(problems, states, strict=True)]
    return [{name: getattr(eq, name) for name in FIELDS} for eq in found]


def assert_same(got: list[dict[str, Any]], want: list[dict[str, Any]], rtol: float = 1e-9) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        for name in FIELDS:
            assert np.isfinite(a[name]).all(), name
            assert a[name].shape == b[name].shape, name
            for i, (x, y) in enumerate(zip(a[name], b[name], strict=True)):
                np.testing.assert_allclose(x, y, rtol=0, atol=rtol * max(np.abs(y).max(), 1e-3), err_msg=f"{name} {i}")


SWITCHES: dict[str, dict[str, Any]] = {
    "all": {},
    "no learned prior": {"learned_prior": None},
    "no spheres": {"spheres": None},
    "no ties broken": {"break_ties": False},
    "ranges alone": {"learned_prior": None, "spheres": None},
}


@pytest.mark.parametrize("kind", list(SWITCHES))
def test_plausible_poses_have_the_same_priors(model: BodyModel, kind: str) -> None:
    R = poses(model, 12, 0, 0.3)
    one, at = problem(model, len(R), **SWITCHES[kind]), state(R)
    assert_same(as_arrays(together([one], [at]), [at]), one_by_one([one], [at]))


@pytest.mark.parametrize("kind", list(SWITCHES))
def test_extreme_poses_have_the_same_priors(model: BodyModel, kind: str) -> None:
    """Angles at 0 and at half a turn, bends far beyond their limits, limbs in each other. Half a turn is the cut of the
    angles, where both are right to the rounding of the matrix: a radian is known to 1e-8 there."""
    R = extremes(model)
    one, at = problem(model, len(R), **SWITCHES[kind]), state(R)
    want = one_by_one([one], [at])
    assert want[0]["instant_cost"].max() > 1e3
    got = as_arrays(together([one], [at]), [at])
    assert_same(got, want, 1e-7)
    near = slice(0, 8)
    assert_same(
        [{k: v[near] for k, v in got[0].items()}], [{k: v[near] for k, v in want[0].items()}], 1e-9
    )  # fmt: skip


def test_keypoints_of_several_views_pull_as_before(model: BodyModel) -> None:
    """Joints behind a camera say nothing; an instant without a view has none; two instants share a shape."""
    views = [keypoint_view(model, k, behind=k == 2) for k in range(4)]
    items = np.array([(0, 0), (0, 1), (1, 2), (3, 3), (3, 2)])
    R = poses(model, 4, 3, 0.2)
    one, at = problem(model, 4, views=views, items=items), state(R, [0, 1, 1, 0])
    want = one_by_one([one], [at])
    bare = one_by_one([replace(one, items=items[:0])], [at])
    assert (want[0]["instant_cost"] - bare[0]["instant_cost"])[[0, 1, 3]].min() > 1
    assert want[0]["instant_cost"][2] == bare[0]["instant_cost"][2]
    assert_same(as_arrays(together([one], [at]), [at]), want)


def test_names_that_no_joint_has_are_left_out(model: BodyModel) -> None:
    strange = keypoint_view(model, 1, names=("left_ear", "left_wrist", "tail"))
    none = keypoint_view(model, 1, names=("left_ear", "tail"))
    at = state(poses(model, 2, 3, 0.2))
    one = problem(model, 2, views=[strange, none], items=np.array([(0, 0), (1, 1)]))
    assert_same(as_arrays(together([one], [at]), [at]), one_by_one([one], [at]))
    deaf = problem(model, 2, views=[none], items=np.array([(0, 0), (1, 0)]))
    assert together([deaf], [at]).B is None


@pytest.mark.parametrize("off", [0.0, 1e-6, 0.3, 3.0])
def test_an_expected_pose_holds_as_before(model: BodyModel, off: float) -> None:
    R = poses(model, 1, 1, 0.2)
    away = matrix_from_axis_angle(np.random.default_rng(2).normal(0, 1, (24, 3)) * off / 2)
    one = problem(
        model, 1, expected=Pose(R[0] @ away, np.array([0.2, 0.1, -0.3])), sigma_turn_rad=0.1, sigma_move_m=0.02
    )
    at = state(R)
    assert_same(as_arrays(together([one], [at]), [at]), one_by_one([one], [at]), 1e-8)


def test_a_mixed_batch_is_each_problem_alone(model: BodyModel) -> None:
    problems, states = mixed(model)
    got = as_arrays(together(problems, states), states)
    assert_same(got, one_by_one(problems, states))
    alone = [as_arrays(together([p], [s]), [s])[0] for p, s in zip(problems, states, strict=True)]
    assert_same(got, alone, 1e-12)


def test_a_body_without_arms_has_what_there_is_for_it(model: BodyModel) -> None:
    """Mixtures over legs and trunk, no arms that do the same, and joints of which no table knows."""
    names = tuple(n.replace("shoulder", "wing").replace("elbow", "tip") for n in model.joint_names)
    base, learned = pose_prior(names), learned_prior(names)
    assert len(learned.parts) == 2
    R = extremes(model)[:8]
    one = problem(
        model, 8, mesh=replace(mesh_for(model, 2, S, model.priors["neutral"].mean), joint_names=names), pose_prior=base,
        learned_prior=learned,
    )  # fmt: skip
    for p in (one, replace(one, learned_prior=None), replace(one, stage=CONFIG.search)):
        at = state(R)
        assert_same(as_arrays(together([p], [at]), [at]), one_by_one([p], [at]))


def test_a_pose_that_is_none_does_not_reach_its_neighbours(model: BodyModel) -> None:
    """A step that went wrong in one problem is its own matter."""
    problems, states = mixed(model)
    want = as_arrays(together(problems, states), states)
    states[1].rotations[:] = np.nan
    states[1].transl[:] = np.inf
    got = as_arrays(together(problems, states), states)
    others = [0, 2, 3, 4, 5]
    assert_same([got[k] for k in others], [want[k] for k in others], 1e-12)
    assert not np.isfinite(got[1]["instant_cost"]).any()


def test_a_tape_holds_another_batch(model: BodyModel) -> None:
    """In the same memory, as what was recorded needs it; only if the operations are the same."""
    problems, states = mixed(model)
    n = [s.group for s in states]
    tape = Tape(HostTensors())
    first = BatchPriors(problems, n, tape)
    tight = replace(problems[1].pose_prior, sigma=problems[1].pose_prior.sigma * 0.5)
    wide = spheres_of(model, model.priors["neutral"].mean - 0.3)
    others = [replace(p, pose_prior=tight, pose_mean=p.pose_mean * 0.5) for p in problems]
    others = [replace(p, spheres=wide) if p.spheres is problems[0].spheres else p for p in others]
    others[0] = replace(others[0], views=others[0].views[::-1])
    others[3] = replace(others[3], sigma_turn_rad=0.4)
    tape.rewind()
    BatchPriors(others, n, tape)
    # what the first one has recorded would now read the second one's numbers
    assert_same(as_arrays(first.terms(*on_device(states)), states), one_by_one(others, states))
    bare = [replace(p, learned_prior=None) for p in problems]
    deaf = [replace(p, items=p.items[:0]) for p in problems]
    untied = [replace(p, break_ties=False) for p in problems]
    loose = [replace(p, spheres=None) for p in problems]
    free = [*problems[:3], replace(problems[3], expected=None), *problems[4:]]
    for other in (problems[:5], bare, deaf, untied, loose, free):
        tape.rewind()
        with pytest.raises(TapeError):
            BatchPriors(other, n[: len(other)], tape)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_angles_and_their_derivatives_equal_the_kernels(model: BodyModel) -> None:
    R = extremes(model)
    axes = np.arange(R.shape[1]).astype(np.int32) % 4 - 1
    theta, D = joint_angles(R, axes)
    got, by = JointAngles(tuple(axes.tolist()), HOST)(torch.from_numpy(R))
    bounds = np.where(np.arange(len(R)) < 8, 1e-12, 1e-7)
    for n, bound in enumerate(bounds):
        # at half a turn exactly, θ and -θ are the same rotation: their difference is then a whole turn
        off = got[n].numpy() - theta[n]
        turns = np.abs(np.linalg.norm(off, axis=1) - 2 * np.pi) < 1e-6
        np.testing.assert_allclose(off[~turns], 0, atol=max(bound, 1e-8) if n == 10 else bound)
        np.testing.assert_allclose(by[n].numpy()[~turns], D[n][~turns], atol=bound * 100)


def test_spheres_of_other_bodies_stand_side_by_side(model: BodyModel) -> None:
    mean = model.priors["neutral"].mean
    kinds = [spheres_of(model, mean), None, spheres_of(model, mean + 1.5), spheres_of(model, mean)]
    R = extremes(model)[11:15]
    turns = Chain(model.parents.astype(np.int32), HOST).turns(torch.from_numpy(R))
    gradient, products = torch.zeros(4, 75, dtype=torch.float64), torch.zeros(4, 75, 75, dtype=torch.float64)
    cost = 0.5 * BatchSpheres(kinds, 24, HOST).add(turns, gradient, products)
    for n, kind in enumerate(kinds):
        want = (np.zeros(1), np.zeros((1, 72)), np.zeros((1, 72, 72))) if kind is None else kind.terms(R[n : n + 1])
        assert kind is None or want[0][0] > 1
        scale = max(np.abs(want[2]).max(), 1.0)
        np.testing.assert_allclose(cost[n], want[0][0], rtol=1e-12)
        np.testing.assert_allclose(gradient[n, :72], want[1][0], atol=1e-12 * scale)
        np.testing.assert_allclose(products[n, :72, :72], want[2][0], atol=1e-12 * scale)
    assert (gradient[:, 72:] == 0).all() and (products[:, 72:] == 0).all()


def test_spheres_are_the_same_piece_by_piece(model: BodyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    import bodyfit.fit.cuda_spheres as module

    one, at = problem(model, 18), state(extremes(model)[:18])
    whole = as_arrays(together([one], [at]), [at])
    monkeypatch.setattr(module, "MOST_NUMBERS", 6 * 75 * 18 * 10)
    assert_same(as_arrays(together([one], [at]), [at]), whole, 1e-12)


def test_turns_are_products_along_the_way_to_the_root(model: BodyModel) -> None:
    R = poses(model, 2, 0, 0.8)
    got = Chain(model.parents.astype(np.int32), HOST).turns(torch.from_numpy(R)).numpy()
    for n in range(2):
        for j in range(model.num_joints):
            G, k = np.eye(3), j
            while k >= 0:
                G, k = R[n, k] @ G, int(model.parents[k])
            np.testing.assert_allclose(got[n, j].T, G, atol=1e-14)
    np.testing.assert_array_equal(got[:, -1], np.broadcast_to(np.eye(3), (2, 3, 3)))


def test_other_joints_in_one_batch_are_refused(model: BodyModel) -> None:
    a, at = problem(model, 1), state(poses(model, 1, 0, 0.1))
    more = replace(a, mesh=mesh_for(model, 2, S + 1, model.priors["neutral"].mean))
    with pytest.raises(InputError, match="num_shape"):
        BatchPriors([a, more], [at.group, at.group], HOST)
    with pytest.raises(InputError, match="groups"):
        BatchPriors([a], [], HOST)


# --- what the device is asked -----------------------------------------------------------------------------------------


WAITING = ("_local_scalar_dense", "item", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "_to_copy",
           "index.Tensor", "index_put", "copy_", "_pin_memory", "where.default", "linalg_")  # fmt: skip
"""operations that wait for the device, copy from or to it, or have a shape that it has to tell; `linalg_` but for
vector_norm and cross, whose decompositions may"""
HARMLESS = ("linalg_vector_norm", "linalg_cross")


class Watched(TorchDispatchMode):
    """Counts operations that start work, and keeps those that would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = 0
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        if not func.is_view and not name.startswith(("_unsafe_view", "_reshape_alias")):
            self.launches += 1
        if name.startswith(WAITING) and not name.startswith(HARMLESS):
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


def test_the_watch_sees_what_waits() -> None:
    a = torch.arange(3.0)
    with Watched() as watch:
        assert bool(a.sum() > 1) and len(a[a > 0]) == 2
        a.to(torch.float64)
        a[a > 1] = 0
    assert {w.partition(".")[0] for w in watch.waits} >= {"_local_scalar_dense", "index", "_to_copy", "index_put_"}


def test_terms_ask_the_device_nothing(model: BodyModel) -> None:
    """And start few kernels: a launch more or less is no matter, a loop over joints or instants would be."""
    problems, states = mixed(model)
    whole = BatchPriors(problems, [s.group for s in states], HOST)
    inputs = on_device(states)
    with Watched() as watch:
        whole.terms(*inputs)
    assert watch.waits == []
    counts = []
    for n in (1, 20):
        one, at = problem(model, n), state(poses(model, n, 0, 0.3))
        priors, inputs = BatchPriors([one], [at.group], HOST), on_device([at])
        with Watched() as watch:
            priors.terms(*inputs)
        assert watch.waits == []
        counts.append(watch.launches)
    assert counts[0] == counts[1] < 140


def test_terms_leave_what_they_were_given(model: BodyModel) -> None:
    """Twice the same, and what comes out is the caller's to change."""
    problems, states = mixed(model)
    priors, inputs = BatchPriors(problems, [s.group for s in states], HOST), on_device(states)
    copies = [a.clone() for a in inputs]
    first = priors.terms(*inputs)
    want = as_arrays(first, states)
    kept = [{k: v.copy() for k, v in w.items()} for w in want]
    for name in ("A", "C", "pose_gradient", "shape_gradient", "instant_cost", "shape_cost", "B"):
        getattr(first, name).add_(1.0)
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))
    assert_same(as_arrays(priors.terms(*inputs), states), kept, 0.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_graph_holds_the_terms_on_a_device(model: BodyModel) -> None:
    problems, states = mixed(model)
    device = DeviceTensors(torch.device("cuda"))
    priors, inputs = BatchPriors(problems, [s.group for s in states], device), on_device(states, device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        priors.terms(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = priors.terms(*inputs)
    moved = [state(s.rotations[::-1].copy(), s.group.tolist(), 7) for s in states]
    for there, new in zip(inputs, on_device(moved, device), strict=True):
        there.copy_(new)
    graph.replay()
    torch.cuda.synchronize()
    assert_same(as_arrays(found, states), one_by_one(problems, moved))
