"""Problems side by side, as the kernels of a GPU take them: views padded to one size, meshes of one topology.

Counts: N instants, G groups (shapes), M items (pairs of an instant and a view), U views, D meshes of V vertices, J
joints and S components of shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bodyfit.fit.cuda_tensors import Tensors
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.problem import Problem, State
from bodyfit.fit.view import View
from bodyfit.kernels.scalar_evidence import PERSON, UNKNOWN
from bodyfit.render.extra import Tensor

GRAIN = 32
"""views' sides are padded to multiples of so many pixels, so that shapes repeat"""


@dataclass(frozen=True)
class DeviceMeshes:
    """template (D, V, 3), shapedirs (D, V, 3, S), soles (D, F) vertices or -1, joint_template (D, J, 3) and jointdirs
    (D, J, 3, S) in both precisions; faces, weights and parents are all meshes'."""

    template: Tensor
    shapedirs: Tensor
    soles: Tensor
    joint_template: Tensor
    jointdirs: Tensor
    jointdirs32: Tensor
    faces: Tensor
    weight_joints: Tensor
    weights: Tensor
    parents: Tensor


@dataclass(frozen=True)
class DeviceViews:
    """depth, label, near_person (U, H, W), sizes (U, 2), intrinsics (U, 4), settings (U, K), planes (U, 4) in the
    camera, R_cw (U, 3, 3) in both precisions, t_cw (U, 3); persons (U,) pixels of the person."""

    depth: Tensor
    label: Tensor
    near_person: Tensor
    sizes: Tensor
    intrinsics: Tensor
    settings: Tensor
    planes: Tensor
    R_cw: Tensor
    R_cw32: Tensor
    t_cw: Tensor
    persons: Tensor


@dataclass(frozen=True)
class Places:
    """Where each problem's instants, groups and items begin; and, by their number, whose they are."""

    first_instant: list[int]
    first_group: list[int]
    first_item: list[int]
    group_of_instant: Tensor
    instant_of_item: Tensor
    view_of_item: Tensor
    group_of_item: Tensor
    instant32: Tensor
    view32: Tensor
    group32: Tensor
    mesh32: Tensor
    mesh_of_group: Tensor


@dataclass(frozen=True)
class Batch:
    """A batch on a device."""

    meshes: DeviceMeshes
    views: DeviceViews
    places: Places
    num_instants: int
    num_groups: int
    num_items: int
    most_person: int
    """person pixels of the view that has most"""

    @property
    def num_joints(self) -> int:
        """J."""
        return self.meshes.joint_template.shape[1]

    @property
    def num_shape(self) -> int:
        """S."""
        return self.meshes.shapedirs.shape[3]


def pack(problems: Sequence[Problem], states: Sequence[State], tensors: Tensors) -> Batch:
    """Uploads problems of one topology, joint count and shape size (`topology_of`)."""
    meshes, mesh_numbers = _distinct([p.mesh for p in problems])
    instants, groups, items = [0], [0], [0]
    group_of_instant, mesh_of_group, pairs, settings = [], [], [], []
    views: list[View] = []
    floors: list[bool] = []
    for problem, state, mesh in zip(problems, states, mesh_numbers, strict=True):
        first_view = len(views)
        for view in problem.views:
            views.append(view)
            settings.append(problem.settings(view))
            floors.append(problem.use_floor)
        own = np.asarray(problem.items, np.int64).reshape(-1, 2)
        pairs.append(own + np.array([instants[-1], first_view]))
        group_of_instant.append(state.group + groups[-1])
        mesh_of_group.append(np.full(len(state.shape), mesh, np.int64))
        instants.append(instants[-1] + len(state.group))
        groups.append(groups[-1] + len(state.shape))
        items.append(items[-1] + len(own))
    pair, group = np.concatenate(pairs), np.concatenate(group_of_instant)
    on_device, mesh = _upload_views(views, settings, floors, tensors), np.concatenate(mesh_of_group)
    up = tensors.upload
    i32 = np.int32
    places = Places(
        instants, groups, items, up(group), up(pair[:, 0]), up(pair[:, 1]), up(group[pair[:, 0]]),
        up(pair[:, 0].astype(i32)), up(pair[:, 1].astype(i32)), up(group[pair[:, 0]].astype(i32)),
        up(mesh.astype(i32)), up(mesh),
    )  # fmt: skip
    most = max((view.num_person for view in views), default=0)
    return Batch(_upload_meshes(meshes, tensors), on_device, places, instants[-1], groups[-1], items[-1], most)


def padded_size(views: Sequence[View]) -> tuple[int, int]:
    """Rows and columns that hold every view."""
    high = max((v.depth.shape[0] for v in views), default=1)
    wide = max((v.depth.shape[1] for v in views), default=1)
    return -(-high // GRAIN) * GRAIN, -(-wide // GRAIN) * GRAIN


def topology_of(mesh: Mesh) -> tuple[int, ...]:
    """Equal for meshes that can be in one batch."""
    few = slice(None, None, max(1, len(mesh.faces) // 64))
    drawn = hash(mesh.faces[few].tobytes()) ^ hash(mesh.weights[few].tobytes())
    return len(mesh.template), len(mesh.faces), len(mesh.parents), mesh.num_shape, drawn


def _distinct(meshes: Sequence[Mesh]) -> tuple[list[Mesh], list[int]]:
    numbers: dict[int, int] = {}
    found: list[Mesh] = []
    for mesh in meshes:
        if id(mesh) not in numbers:
            numbers[id(mesh)] = len(found)
            found.append(mesh)
    return found, [numbers[id(mesh)] for mesh in meshes]


def _upload_meshes(meshes: Sequence[Mesh], tensors: Tensors) -> DeviceMeshes:
    up, first = tensors.upload, meshes[0]
    most = max(1, *(len(m.floor_vertices) for m in meshes))
    soles = np.full((len(meshes), most), -1, np.int32)
    for d, mesh in enumerate(meshes):
        soles[d, : len(mesh.floor_vertices)] = mesh.floor_vertices
    jointdirs = np.stack([m.jointdirs for m in meshes])
    return DeviceMeshes(
        up(np.stack([m.template for m in meshes])), up(np.stack([m.shapedirs for m in meshes])), up(soles),
        up(np.stack([m.joint_template for m in meshes])), up(jointdirs), up(jointdirs.astype(np.float32)),
        up(first.faces.astype(np.int32)), up(first.weight_joints.astype(np.int32)), up(first.weights),
        up(first.parents.astype(np.int32)),
    )  # fmt: skip


def _upload_views(
    views: Sequence[View], settings: Sequence[np.ndarray], floors: Sequence[bool], tensors: Tensors
) -> DeviceViews:
    count = len(views)
    sizes = np.array([v.depth.shape for v in views], np.int32).reshape(-1, 2)
    high, wide = padded_size(views)
    depth = np.zeros((count, high, wide), np.float32)
    label = np.full((count, high, wide), UNKNOWN, np.uint8)
    near = np.full((count, high, wide), -1, np.int32)
    planes = np.zeros((count, 4), np.float32)
    for u, view in enumerate(views):
        h, w = view.depth.shape
        depth[u, :h, :w], label[u, :h, :w] = view.depth, view.label
        # flat numbers count in the view's own columns
        near[u, :h, :w] = np.where(view.near_person < 0, -1, view.near_person // w * wide + view.near_person % w)
        if floors[u]:
            n = view.R_cw @ view.floor_plane[:3]
            planes[u] = *n, view.floor_plane[3] - n @ view.t_cw
    R_cw = np.array([v.R_cw for v in views], np.float64).reshape(-1, 3, 3)
    up = tensors.upload
    return DeviceViews(
        up(depth), up(label), up(near), up(sizes),
        up(np.array([v.intrinsics for v in views], np.float32).reshape(-1, 4)),
        up(np.array(settings, np.float32).reshape(count, -1)), up(planes), up(R_cw), up(R_cw.astype(np.float32)),
        up(np.array([v.t_cw for v in views], np.float64).reshape(-1, 3)),
        up((label == PERSON).sum((1, 2)).astype(np.float64)),
    )  # fmt: skip
