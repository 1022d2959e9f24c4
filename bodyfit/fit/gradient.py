"""The first-order fit: an optimiser of torch follows the gradient of rendered images.

The terms are those of the Levenberg-Marquardt fit (`bodyfit.kernels.evidence`), written on images that a renderer
makes: the distance along the normal where body and person share a pixel, weighted by coverage; the outline both ways,
the cost of a pixel that spills over or stays bare times the share of it that is covered or bare. What the edges do
to a cost comes from the renderer's boundary gradient. Priors and keypoints are the same code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.config import Stage
from bodyfit.fit.problem import Problem, State
from bodyfit.fit.solver import Solution, StopReason
from bodyfit.fit.torch_body import TorchMesh, turned
from bodyfit.fit.view import View
from bodyfit.kernels import evidence as E
from bodyfit.kernels.nearest import nearest_marked
from bodyfit.kernels.scalar_evidence import BACKGROUND, FAR_BEHIND, PERSON, SAME_SURFACE
from bodyfit.render.camera import RenderCamera
from bodyfit.render.extra import Tensor, torch
from bodyfit.rotation import matrix_from_axis_angle, nearest_rotation

if TYPE_CHECKING:
    from bodyfit.render.rendered import Rendered, Renderer

_COARSE = Stage("follow the gradient", 1, 1800, 120, 24, 0.06, 0.12, sensor_noise=True)
_FINE = Stage("follow it finely", 0, 4000, 40, 999, 0.04, 0.08, sensor_noise=True, max_turn_rad=0.004)
GRADIENT_STAGES = {
    "native": (_COARSE, _FINE),
    "redner": (replace(_COARSE, num_betas=999),),
    # an image of a few thousand pixels takes Mitsuba a good part of a second
    "mitsuba": (replace(_COARSE, level=2, pixels=500, iterations=80, num_betas=999),),
}
"""by renderer, in place of the stages of Levenberg-Marquardt"""
STILL = 2e-3
"""a cost that falls by less than this share from one tenth of the steps to the next stands still"""


@dataclass(frozen=True)
class GradientSettings:
    """How far each step of Adam (Kingma and Ba 2015) goes."""

    turn_rad: float = 0.015
    """of each joint per step, at first; a stage whose `max_turn_rad` is less shortens all steps by as much"""
    transl_m: float = 0.004
    """of the whole body"""
    shape_sd: float = 0.06
    """of each direction of the shape, in standard deviations of its prior"""
    last: float = 0.03
    """the last step is this share of the first; a cosine lies between"""
    samples: int = 1
    """the renderer's samples along each side of a pixel"""


class SeenView:
    """One sensor's evidence as tensors (h, w)."""

    def __init__(self, view: View, settings: NDArray[np.float64]) -> None:
        self.view, self.settings = view, settings
        h, w = view.depth.shape
        fx, fy, cx, cy = (float(k) for k in view.intrinsics)
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = view.R_cw, view.t_cw
        self.camera = RenderCamera(w, h, torch.tensor([fx, fy, cx, cy]), torch.tensor(T, dtype=torch.float32))
        self.mean_focal = 0.5 * (fx + fy)
        self.depth = torch.from_numpy(view.depth)
        self.person = torch.from_numpy(view.label == PERSON)
        self.background = torch.from_numpy((view.label == BACKGROUND) & (view.near_person >= 0))
        v, u = np.mgrid[:h, :w].astype(np.float32)
        self.rays = torch.from_numpy(np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], -1))
        self.to_person_px = torch.from_numpy(pixels_apart(view.near_person))

    @cached_property
    def weight(self) -> float:
        """What one pixel counts."""
        return float(self.settings[E.PIXEL_WEIGHT])

    def cost(self, rendered: Rendered) -> Tensor:
        """Depth and outline of one body in this view."""
        alpha, behind = rendered.alpha[0], rendered.premultiplied_depth[0]
        with torch.no_grad():
            near = np.where(alpha.numpy() > 0.5, np.arange(alpha.numel(), dtype=np.int32).reshape(alpha.shape), -1)
            near = np.ascontiguousarray(near, np.int32)
            nearest_marked(near)
            if near[0, 0] < 0:
                return 0.0 * alpha.sum()
            drawn = torch.where(alpha > 0, behind / alpha.clamp_min(1e-6), behind)
            body_z = drawn.reshape(-1)[torch.from_numpy(near.astype(np.int64))]
            towards = (rendered.normals[0] * self.rays).sum(-1)
        return self.depth_cost(alpha, behind, towards) + self.outline_cost(alpha, near, body_z)

    def depth_cost(self, alpha: Tensor, behind: Tensor, towards: Tensor) -> Tensor:
        """Point to plane on pixels that body and person share; `towards` (h, w) is the normal times the pixel's ray."""
        s = self.settings
        gap = torch.where(self.person & (self.depth > 0), alpha * self.depth - behind, torch.zeros_like(alpha))
        outside = gap * towards
        sigma = torch.where(outside.detach() > 0, float(s[E.SIGMA_BEHIND]), float(s[E.SIGMA_DEPTH]))
        c2 = float(s[E.ROBUST_DEPTH]) ** 2
        return 0.5 * self.weight * ((outside / sigma) ** 2 * c2 / (c2 + gap * gap)).sum()

    def outline_cost(self, alpha: Tensor, near: NDArray[np.int32], body_z: Tensor) -> Tensor:
        """Background that is covered and person that is left bare, each by its lateral distance."""
        with torch.no_grad():
            # a surface right where the body has one is the body's, whatever the mask says; and what is nearer hides it
            own = (self.depth > 0) & (self.depth < body_z + float(SAME_SURFACE))
            spilled = self.background & ~own
            bare = self.person & ~(self.depth > body_z + float(FAR_BEHIND))
            spilled_cost = self._lateral(self.to_person_px, body_z) * spilled
            bare_cost = self._lateral(torch.from_numpy(pixels_apart(near)), body_z) * bare
        return self.weight * ((alpha * spilled_cost).sum() + ((1 - alpha) * bare_cost).sum())

    def _lateral(self, apart_px: Tensor, z: Tensor) -> Tensor:
        """Cost of pixels this far from the other outline; the outline runs between two pixels' centres."""
        s = self.settings
        residual = (apart_px.clamp_min(1.0) - 0.5) * z / self.mean_focal
        c2 = float(s[E.ROBUST_OUTLINE]) ** 2
        square = residual * residual
        return 0.5 * square / float(s[E.SIGMA_OUTLINE]) ** 2 * c2 / (c2 + square)


def pixels_apart(near: NDArray[np.int32]) -> NDArray[np.float32]:
    """(h, w) how far each pixel is from the one whose flat number stands in `near`, pixels; 0 where there is none."""
    h, w = near.shape
    v, u = np.mgrid[:h, :w]
    apart = np.hypot(v - near // w, u - near % w)
    return np.where(near >= 0, apart, 0).astype(np.float32)


def floor_cost(vertices: Tensor, soles: Tensor, plane: NDArray[np.float64], s: NDArray[np.float64]) -> Tensor:
    """Soles (N,) on the floor: a foot may be lifted (robust), but never stands below it."""
    n = torch.tensor(plane[:3], dtype=vertices.dtype)
    above = vertices[soles] @ n + float(plane[3])
    c2 = float(s[E.ROBUST_FLOOR]) ** 2
    square = above * above
    lifted = square / float(s[E.SIGMA_FLOOR]) ** 2 * c2 / (c2 + square)
    return 0.5 * float(s[E.FLOOR_WEIGHT]) * torch.where(above > 0, lifted, square / float(s[E.SIGMA_SUNK]) ** 2).sum()


class GradientSolver:
    """Solves a `Problem` as `bodyfit.fit.solver.solve` does, with Adam and a renderer.

    Args:
        renderer: any backend; it draws one body at a time.
        settings: steps and their length.
        watch: called with the step's number and the cost of all groups, for curves and tests.
    """

    def __init__(
        self,
        renderer: Renderer,
        settings: GradientSettings | None = None,
        watch: Callable[[int, float], None] | None = None,
    ) -> None:
        self.renderer, self.settings, self.watch = renderer, settings or GradientSettings(), watch

    def __call__(self, problem: Problem, state: State, *, cancelled: Callable[[], bool] | None = None) -> Solution:
        """The state that the last step reached, its normal equations, and why the steps ended."""
        how = self.settings
        mesh = TorchMesh(problem.mesh)
        views = [SeenView(v, problem.settings(v)) for v in problem.views]
        # steps of the shape are taken along its prior's own axes
        axes = np.linalg.cholesky(np.linalg.inv(problem.shape_prior.precision))
        now = state.copy()
        delta = torch.zeros(*now.rotations.shape[:2], 3, dtype=torch.float64, requires_grad=True)
        move = torch.zeros(*now.transl.shape, dtype=torch.float64, requires_grad=True)
        shape_step = torch.zeros(*now.shape.shape, dtype=torch.float64, requires_grad=True)
        short = min(1.0, problem.stage.max_turn_rad / how.turn_rad)
        rates = ((delta, how.turn_rad * short), (move, how.transl_m * short), (shape_step, how.shape_sd * short))
        adam = torch.optim.Adam([{"params": [p], "lr": rate} for p, rate in rates], betas=(0.9, 0.98))
        costs: list[float] = []
        stopped = False
        steps = problem.stage.iterations
        for k in range(steps):
            if cancelled is not None and cancelled():
                stopped = True
                break
            cost, gradients = self._gradient(problem, views, mesh, now)
            costs.append(cost)
            if self.watch is not None:
                self.watch(k, cost)
            share = how.last + (1 - how.last) * 0.5 * (1 + np.cos(np.pi * k / max(steps - 1, 1)))
            for group, (_, rate) in zip(adam.param_groups, rates, strict=True):
                group["lr"] = rate * share
            turn, shift, reshape = gradients
            for p, g in ((delta, turn), (move, shift), (shape_step, reshape @ axes)):
                p.grad = torch.from_numpy(np.ascontiguousarray(g))
            adam.step()
            with torch.no_grad():
                now = State(
                    nearest_rotation(now.rotations @ matrix_from_axis_angle(delta.numpy())),
                    now.transl + move.numpy(),
                    now.shape + shape_step.numpy() @ axes.T,
                    now.group,
                )
                for p in (delta, move, shape_step):
                    p.zero_()
        equations = problem.linearize(now)
        reason = StopReason.CANCELLED if stopped else _reason(costs)
        n_groups = len(now.shape)
        return Solution(now, equations, equations.cost.copy(), np.full(n_groups, len(costs)), [reason] * n_groups)

    def _gradient(
        self, problem: Problem, views: list[SeenView], mesh: TorchMesh, state: State
    ) -> tuple[float, tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
        """Cost of all groups, and its gradients: turns (N, J, 3), translations (N, 3), shapes (G, S)."""
        n_instants, n_joints = state.rotations.shape[:2]
        rotations = torch.tensor(state.rotations, dtype=torch.float32)
        delta = torch.zeros(n_instants, n_joints, 3, requires_grad=True)
        transl = torch.tensor(state.transl, dtype=torch.float32, requires_grad=True)
        shape = torch.tensor(state.shape, dtype=torch.float32, requires_grad=True)
        posed = turned(rotations, delta)
        soles = torch.from_numpy(problem.mesh.floor_vertices.astype(np.int64))
        total = torch.zeros(())
        bodies: dict[int, Tensor] = {}
        for n, v in problem.items:
            n, view = int(n), views[int(v)]
            if n not in bodies:
                bodies[n] = mesh.vertices(posed[n], transl[n], shape[int(state.group[n])])
            total = total + view.cost(self.renderer.render(
                bodies[n], mesh.faces, view.camera, samples=self.settings.samples
            ))  # fmt: skip
            plane = view.view.floor_plane
            if problem.use_floor and np.any(plane[:3]):
                total = total + floor_cost(bodies[n], soles, plane, view.settings)
        total.backward()
        rest = problem.prior_equations(state)
        Q = 3 * n_joints
        turn, shift, reshape = (np.asarray(p.grad, np.float64) for p in (delta, transl, shape))
        return float(total.detach()) + float(rest.cost.sum()), (
            turn + rest.pose_gradient[:, :Q].reshape(turn.shape),
            shift + rest.pose_gradient[:, Q:],
            reshape + rest.shape_gradient,
        )


def _reason(costs: list[float]) -> StopReason:
    tenth = len(costs) // 10
    if tenth < 1:
        return StopReason.STEPS_USED
    before, last = np.mean(costs[-2 * tenth : -tenth]), np.mean(costs[-tenth:])
    return StopReason.CONVERGED if before - last < STILL * before else StopReason.STEPS_USED
