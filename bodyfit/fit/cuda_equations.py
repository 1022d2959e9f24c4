"""Costs and normal equations of a batch of fits on a GPU.

Kernels write the rows of the Jacobian in float32; their products are torch's batched matrix products, 256 rows at a
time, and those are summed in float64, as are the costs: so a sum over ten thousand pixels errs no more than one over
256. What has no pixel (priors, keypoints) is float64 throughout (`cuda_priors`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bodyfit.fit.cuda_batch import Batch, pack
from bodyfit.fit.cuda_priors import BatchPriors
from bodyfit.fit.cuda_tensors import Tensors
from bodyfit.fit.problem import Linearization, Problem, State
from bodyfit.kernels import cuda_fit_body as body
from bodyfit.kernels import cuda_fit_draw as draw
from bodyfit.kernels import cuda_fit_rows as pixel
from bodyfit.kernels import evidence as E
from bodyfit.kernels.scalar_evidence import BARE, DEPTH, SPILLED
from bodyfit.render.extra import Tensor, torch

ROWS_PER_PIXEL = 2.5
"""room for rows, for each of a person's pixels: most have one, those in a window two, and a body spills some"""
SPARE_ROWS = 192
GRAIN_OF_CHUNKS = 2
"""chunks come in multiples of this, so that shapes repeat"""


def chunks_for(persons: int, pixels: int, soles: int, rows_per_pixel: float) -> int:
    """How many chunks of rows an item has, where its view has so many pixels, and the person's are `persons`."""
    wanted = int(min(2 * pixels, rows_per_pixel * persons + SPARE_ROWS))
    chunks = -(-(wanted + soles) // pixel.CHUNK)
    return -(-chunks // GRAIN_OF_CHUNKS) * GRAIN_OF_CHUNKS


@dataclass
class BatchState:
    """rotations (N, J, 3, 3), transl (N, 3), shape (G, S), float64."""

    rotations: Tensor
    transl: Tensor
    shape: Tensor

    def copy_where(self, instants: Tensor, groups: Tensor, other: BatchState) -> None:
        """Takes over another state's instants (N,) and shapes (G,)."""
        self.rotations.copy_(torch.where(instants[:, None, None, None], other.rotations, self.rotations))
        self.transl.copy_(torch.where(instants[:, None], other.transl, self.transl))
        self.shape.copy_(torch.where(groups[:, None], other.shape, self.shape))

    def copy_(self, other: BatchState) -> None:
        """Takes over all of another state."""
        self.rotations.copy_(other.rotations)
        self.transl.copy_(other.transl)
        self.shape.copy_(other.shape)


@dataclass
class Normal:
    """As `bodyfit.fit.problem.Linearization`, on the device; stats (M, NUM_STATS)."""

    A: Tensor
    B: Tensor
    C: Tensor
    pose_gradient: Tensor
    shape_gradient: Tensor
    cost: Tensor
    instant_cost: Tensor
    stats: Tensor

    def copy_where(self, instants: Tensor, groups: Tensor, items: Tensor, other: Normal) -> None:
        """Takes over another's instants (N,), groups (G,) and items (M,)."""
        one, two = instants[:, None], instants[:, None, None]
        self.A.copy_(torch.where(two, other.A, self.A))
        self.B.copy_(torch.where(two, other.B, self.B))
        self.C.copy_(torch.where(groups[:, None, None], other.C, self.C))
        self.pose_gradient.copy_(torch.where(one, other.pose_gradient, self.pose_gradient))
        self.shape_gradient.copy_(torch.where(groups[:, None], other.shape_gradient, self.shape_gradient))
        self.cost.copy_(torch.where(groups, other.cost, self.cost))
        self.instant_cost.copy_(torch.where(instants, other.instant_cost, self.instant_cost))
        self.stats.copy_(torch.where(items[:, None], other.stats, self.stats))

    def copy_(self, other: Normal) -> None:
        """Takes over all of another's."""
        for name in self.__dataclass_fields__:
            getattr(self, name).copy_(getattr(other, name))


class Equations:
    """A batch and all that is needed to look at it again and again."""

    def __init__(
        self, problems: Sequence[Problem], states: Sequence[State], tensors: Tensors, *, rows_per_pixel: float
    ) -> None:
        self.tensors = tensors
        self.batch: Batch = pack(problems, states, tensors)
        self.priors = BatchPriors(problems, [s.group for s in states], tensors)
        self.overflow = tensors.upload(np.zeros(1, bool))
        """whether rows had no room"""
        batch = self.batch
        items, pixels = batch.num_items, batch.views.depth[0].numel() if batch.num_items else 0
        soles = batch.meshes.soles.shape[1]
        self.chunks = chunks_for(batch.most_person, pixels, soles, rows_per_pixel)
        self.room = self.chunks * pixel.CHUNK - soles
        self.num_pose = 3 * batch.num_joints + 3
        self.num_params = self.num_pose + batch.num_shape
        self._make_room(items, pixels)

    @property
    def bytes_of_rows(self) -> int:
        """Memory of the Jacobian's rows."""
        return self._rows.numel() * 4

    def _make_room(self, items: int, pixels: int) -> None:
        b, empty = self.batch, self.tensors.room
        V, J, S = b.meshes.template.shape[1], b.num_joints, b.num_shape
        image = (items, *b.views.depth.shape[1:])
        self._rest, self._points, self._screen = empty(b.num_groups, V, 3), empty(items, V, 3), empty(items, V, 3)
        self._G, self._posed, self._motion = empty(items, J, 3, 3), empty(items, J, 3), empty(items, J, 12)
        self._by_shape = empty(items, J, 3, S)
        self._nearest = empty(*image, kind=torch.int64)
        self._drawn = empty(*image)
        self._face, self._near_rows, self._near = (empty(*image, kind=torch.int32) for _ in range(3))
        self._records = empty(items, pixels, 2, pixel.NUM_RECORD)
        self._where = empty(items, pixels, 2, kind=torch.int32)
        self._modes = empty(items, pixels, kind=torch.int32)
        self._rows = empty(items, self.chunks, self.num_params + 1, pixel.CHUNK)
        self._sole_costs = empty(items, b.meshes.soles.shape[1])

    def at(self, state: BatchState, *, want_rows: bool = True) -> Normal:
        """Cost and normal equations at a state; nothing waits for the device."""
        self._draw(state)
        pixel_costs, stats = self._compare()
        products = self._products(want_rows=want_rows)
        costs = pixel_costs + self._sole_costs.sum(1, dtype=torch.float64)
        stats[:, E.COST_FLOOR] = self._sole_costs.sum(1, dtype=torch.float64)
        return self._sums(state, products, costs, stats)

    def _draw(self, state: BatchState) -> None:
        b, launch = self.batch, self.tensors.launch
        mesh, views, at = b.meshes, b.views, b.places
        items, V = b.num_items, mesh.template.shape[1]
        shape32 = state.shape.to(torch.float32)
        own = at.mesh_of_group
        joints = mesh.joint_template[own] + (mesh.jointdirs[own] @ state.shape[:, None, :, None])[..., 0]
        self._joints32 = joints.to(torch.float32)
        R = views.R_cw[at.view_of_item]
        base = (R @ state.transl[at.instant_of_item][:, :, None])[:, :, 0] + views.t_cw[at.view_of_item]
        launch(
            body.shape_rest, b.num_groups * V * 3, mesh.template, mesh.shapedirs, at.mesh32, shape32, self._rest
        )  # fmt: skip
        if not items:
            return
        launch(
            body.move_joints, items, state.rotations.to(torch.float32), views.R_cw32, base.to(torch.float32),
            self._joints32, mesh.parents, at.instant32, at.view32, at.group32, self._G, self._posed, self._motion,
        )  # fmt: skip
        launch(
            body.skin_points, items * V, self._rest, mesh.weight_joints, mesh.weights, self._motion, at.group32,
            self._points,
        )  # fmt: skip
        launch(draw.project_points, items * V, self._points, views.intrinsics, at.view32, self._screen)
        self._nearest.zero_()
        pixels = self._drawn.numel()
        launch(
            draw.draw_faces, items * mesh.faces.shape[0], self._screen, mesh.faces, views.sizes, at.view32,
            self._nearest,
        )  # fmt: skip
        launch(draw.read_faces, pixels, self._nearest, self._drawn, self._face)
        launch(draw.nearest_rows, items * self._face.shape[2], self._face, self._near_rows)
        launch(draw.nearest_pixels, pixels, self._near_rows, views.sizes, at.view32, self._near)

    def _compare(self) -> tuple[Tensor, Tensor]:
        """Costs of the pixels (M,) and stats (M, NUM_STATS)."""
        b = self.batch
        views = b.views
        if b.num_items:
            self.tensors.launch(
                pixel.compare_pixels, self._drawn.numel(), self._points, b.meshes.faces, self._drawn, self._face,
                self._near, views.depth, views.label, views.near_person, views.intrinsics, views.settings,
                b.places.view32, self._records, self._where, self._modes,
            )  # fmt: skip
        there = self._where >= 0
        zero = torch.zeros((), dtype=torch.float32, device=self.tensors.device)
        costs = torch.where(there, self._records[..., pixel.COST], zero).sum(2)
        gaps = torch.where(there, self._records[..., pixel.GAP], zero).sum(2)
        stats = torch.zeros((b.num_items, E.NUM_STATS), dtype=torch.float64, device=self.tensors.device)
        both = (self._modes == DEPTH) & there[..., 0]
        total = costs.sum(1, dtype=torch.float64)
        stats[:, E.COST_DEPTH] = torch.where(self._modes == DEPTH, costs, zero).sum(1, dtype=torch.float64)
        stats[:, E.COST_OUTLINE] = total - stats[:, E.COST_DEPTH]
        stats[:, E.NUM_BOTH] = both.sum(1).to(torch.float64)
        stats[:, E.NUM_PERSON] = views.persons[b.places.view_of_item]
        stats[:, E.NUM_SPILLED] = (self._modes == SPILLED).sum(1).to(torch.float64)
        stats[:, E.NUM_BARE] = (self._modes == BARE).sum(1).to(torch.float64)
        stats[:, E.SUM_GAP] = torch.where(both, gaps, zero).sum(1, dtype=torch.float64)
        return total, stats

    def _products(self, *, want_rows: bool) -> Tensor | None:
        """(M, P + 1, P + 1) products of all rows, the residual the last column; fills the soles' costs."""
        b, launch = self.batch, self.tensors.launch
        mesh, views, at = b.meshes, b.views, b.places
        if not b.num_items:
            return None
        shared = (
            self._rest, mesh.shapedirs, mesh.weight_joints, mesh.weights, self._joints32, mesh.parents, self._G,
            self._posed, self._by_shape, views.R_cw32, at.view32, at.group32, at.mesh32,
        )  # fmt: skip
        if want_rows:
            launch(
                body.move_joints_by_shape, b.num_items * b.num_shape, mesh.jointdirs32, mesh.parents, views.R_cw32,
                self._G, at.view32, at.group32, at.mesh32, self._by_shape,
            )  # fmt: skip
            self._rows.zero_()
            order = torch.cumsum((self._where >= 0).flatten(1), 1)
            self.overflow |= (order[:, -1] > self.room).any()
            launch(
                pixel.write_rows, order.numel(), self.room, self._records, self._where, order, self._points,
                mesh.faces, self._face, views.intrinsics, *shared, self._rows,
            )  # fmt: skip
        launch(
            pixel.write_soles, self._sole_costs.numel(), self._points, mesh.soles, views.planes, views.settings,
            *shared, self._sole_costs, want_rows, self._rows,
        )  # fmt: skip
        if not want_rows:
            return None
        flat = self._rows.flatten(0, 1)
        size = self.num_params + 1
        return torch.bmm(flat, flat.transpose(1, 2)).view(b.num_items, -1, size, size).sum(1, dtype=torch.float64)

    def _sums(self, state: BatchState, products: Tensor | None, costs: Tensor, stats: Tensor) -> Normal:
        """Items and priors together."""
        b, Q = self.batch, self.num_pose
        at = b.places
        prior = self.priors.terms(state.rotations, state.transl, state.shape)
        A, pose_gradient = prior.A, prior.pose_gradient
        C, shape_gradient = prior.C, prior.shape_gradient
        B = prior.B
        if B is None:
            B = torch.zeros((b.num_instants, Q, b.num_shape), dtype=torch.float64, device=self.tensors.device)
        if products is not None:
            P = self.num_params
            A = A.index_add(0, at.instant_of_item, products[:, :Q, :Q])
            B = B.index_add(0, at.instant_of_item, products[:, :Q, Q:P])
            C = C.index_add(0, at.group_of_item, products[:, Q:P, Q:P])
            pose_gradient = pose_gradient.index_add(0, at.instant_of_item, products[:, :Q, P])
            shape_gradient = shape_gradient.index_add(0, at.group_of_item, products[:, Q:P, P])
        instant_cost = prior.instant_cost.index_add(0, at.instant_of_item, costs)
        cost = prior.shape_cost.index_add(0, at.group_of_instant, instant_cost)
        return Normal(A, B, C, pose_gradient, shape_gradient, cost, instant_cost, stats)

    def empty_normal(self) -> Normal:
        """Place for normal equations, with anything in it."""
        b, Q, S = self.batch, self.num_pose, self.batch.num_shape
        N, G = b.num_instants, b.num_groups
        shapes = ((N, Q, Q), (N, Q, S), (G, S, S), (N, Q), (G, S), (G,), (N,), (b.num_items, E.NUM_STATS))
        return Normal(*(self.tensors.room(*shape, kind=torch.float64) for shape in shapes))

    def upload(self, states: Sequence[State]) -> BatchState:
        """The problems' states on the device."""
        up = self.tensors.upload
        return BatchState(
            up(np.concatenate([s.rotations for s in states])), up(np.concatenate([s.transl for s in states])),
            up(np.concatenate([s.shape for s in states])),
        )  # fmt: skip

    def split(self, found: Normal) -> list[Linearization]:
        """The problems' own equations, on the host: waits for the device."""
        host = [getattr(found, f).cpu().numpy() for f in found.__dataclass_fields__]
        A, B, C, pose, shape, cost, instant_cost, stats = host
        at, out = self.batch.places, []
        for k in range(len(at.first_instant) - 1):
            n = slice(at.first_instant[k], at.first_instant[k + 1])
            g = slice(at.first_group[k], at.first_group[k + 1])
            m = slice(at.first_item[k], at.first_item[k + 1])
            out.append(Linearization(A[n], B[n], C[g], pose[n], shape[g], cost[g], instant_cost[n], stats[m]))
        return out
