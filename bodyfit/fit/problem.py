"""A batch of fits as one problem: groups share a shape, instants have a pose, views look at an instant.

A cold start's hypotheses are groups of one instant that share one view; a recording is one group of many instants.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.collide import Spheres
from bodyfit.fit.config import FitConfig, Stage
from bodyfit.fit.device import LinearizeJob
from bodyfit.fit.keypoints import keypoint_terms
from bodyfit.fit.learned_prior import LearnedPrior
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.photometric import ColorPull, ColorTerm, photometric_equations
from bodyfit.fit.pose_prior import PosePrior, alike_terms, arm_pairs, pose_prior_terms
from bodyfit.fit.view import View
from bodyfit.kernels import evidence as E
from bodyfit.watch import checkpoint


@dataclass
class State:
    """rotations (N, J, 3, 3), transl (N, 3) metres, shape (G, S); group (N,) says whose shape an instant has."""

    rotations: NDArray[np.float64]
    transl: NDArray[np.float64]
    shape: NDArray[np.float64]
    group: NDArray[np.int64]

    def take(self, instants: Sequence[int] | NDArray[Any]) -> State:
        """Those instants, each as a group of its own."""
        index = np.asarray(instants, dtype=np.int64)
        return State(
            self.rotations[index].copy(),
            self.transl[index].copy(),
            self.shape[self.group[index]].copy(),
            np.arange(len(index)),
        )

    def copy(self) -> State:
        """A state that can be changed without changing this one."""
        return State(self.rotations.copy(), self.transl.copy(), self.shape.copy(), self.group)


@dataclass(frozen=True)
class ShapeGaussian:
    """The prior over `shape` (S,): mean and precision (S, S)."""

    mean: NDArray[np.float64]
    precision: NDArray[np.float64]


HELD = ShapeGaussian(np.zeros(1), np.full((1, 1), 1e12))
"""holds the one direction of a shape that has been decided (`bodyfit.fit.mesh.held_mesh`)"""


@dataclass
class Linearization:
    """Normal equations: A (N, Q, Q) of the poses, B (N, Q, S), C (G, S, S), gradients, costs of the groups (G,) and of
    the instants without the shape's prior (N,)."""

    A: NDArray[np.float64]
    B: NDArray[np.float64]
    C: NDArray[np.float64]
    pose_gradient: NDArray[np.float64]
    shape_gradient: NDArray[np.float64]
    cost: NDArray[np.float64]
    instant_cost: NDArray[np.float64]
    stats: NDArray[np.float64]
    """(number of items, NUM_STATS)"""


MOST_SIZES = 32
"""of so many image sizes the scratch is kept"""


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="bodyfit")


class Scratch:
    """What the kernel writes into while it looks at one view: one for each thread."""

    def __init__(self, mesh: Mesh) -> None:
        self.rest = np.empty_like(mesh.template)
        self.points = np.empty_like(mesh.template)
        self.images: dict[tuple[int, int], tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]] = {}

    def of(self, view: View) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
        """drawn depth, face and nearest model pixel, of the view's size."""
        return self.of_size((view.depth.shape[0], view.depth.shape[1]))

    def of_size(self, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
        """The same for a size (h, w); a person who walks has a grid of another size in every frame."""
        if size not in self.images:
            if len(self.images) >= MOST_SIZES:
                self.images.clear()
            self.images[size] = (np.empty(size, np.float32), np.empty(size, np.int32), np.empty(size, np.int32))
        return self.images[size]


@dataclass
class Problem:
    """What is fitted to what: items are pairs (instant, view)."""

    mesh: Mesh
    views: Sequence[View]
    items: NDArray[np.int64]
    stage: Stage
    config: FitConfig
    pose_prior: PosePrior
    pose_mean: NDArray[np.float64]
    shape_prior: ShapeGaussian
    sigma_behind_m: float
    use_floor: bool = True
    break_ties: bool = True
    """whether arms that do the same are likelier: a tie-breaker is no knowledge and has no part in a covariance"""
    shared_noise: bool = False
    """whether noise that pixels share counts once: so for a covariance. Poses come out better where the sensor is
    believed more than that, since the prior over them is a rough one"""
    learned_prior: LearnedPrior | None = None
    """what was learnt from motion capture takes the place of the Gaussian over the angles that it covers; it too has no
    part in a covariance, since so few clips show what people do and not what they do not"""
    spheres: Spheres | None = None
    """what tells how deep the body's parts lie in each other; no part in a covariance either: it is one-sided, rough"""
    colors: Sequence[tuple[int, ColorTerm]] = ()
    """what colour images say: pairs (instant, term), on points of this problem's mesh"""
    pulls: Sequence[tuple[int, ColorPull]] = ()
    """what they said when they were last looked at: pairs (instant, pull)"""
    _scratch: list[Scratch] = field(default_factory=list)
    _floors: dict[int, int] = field(default_factory=dict, init=False, repr=False)
    """by a view's id how many views of its instant know the floor"""

    def __post_init__(self) -> None:
        knows = np.array([bool(np.any(view.floor_plane[:3])) for view in self.views])
        items = np.asarray(self.items, np.int64).reshape(-1, 2)
        count = np.bincount(items[:, 0], weights=knows[items[:, 1]]) if len(items) else np.zeros(0)
        for n, v in items:
            self._floors[id(self.views[v])] = max(1, int(count[n]))

    @property
    def num_shared(self) -> int:
        """How many parameters all instants of a group share: the shape's."""
        return self.mesh.num_shape

    def settings(self, view: View) -> NDArray[np.float64]:
        """The kernel's numbers for one view; every view counts as the same number of independent pixels,
        every pair of soles as the same number of independent points, however many sensors know the floor: what errs
        is how soles lie on it."""
        s = np.empty(E.NUM_SETTINGS)
        noise = view.noise_m if self.stage.sensor_noise else 0.0
        if self.shared_noise:
            noise *= self.sharing(view)
        s[E.SIGMA_DEPTH] = np.hypot(self.config.sigma_depth_m, noise)
        s[E.SIGMA_BEHIND] = np.hypot(self.sigma_behind_m, noise)
        s[E.ROBUST_DEPTH] = self.stage.robust_depth_m
        s[E.SIGMA_OUTLINE] = self.config.sigma_outline_m
        s[E.ROBUST_OUTLINE] = self.stage.robust_outline_m
        s[E.WINDOW] = self.stage.window_m
        s[E.PIXEL_WEIGHT] = self.config.effective_pixels / max(view.num_person, 1)
        if self.stage.sensor_noise and view.noise_is_smooth:
            s[E.PIXEL_WEIGHT] *= self.config.smooth_noise_weight
        s[E.SIGMA_FLOOR] = self.config.sigma_floor_m
        s[E.SIGMA_SUNK] = self.config.sigma_sunk_m
        s[E.ROBUST_FLOOR] = self.stage.robust_floor_m
        s[E.FLOOR_WEIGHT] = self.config.effective_soles / max(len(self.mesh.floor_vertices), 1)
        s[E.FLOOR_WEIGHT] /= self._floors.get(id(view), 1)
        return s

    def sharing(self, view: View) -> float:
        """By how much noise counts more than in pixels that err each for itself: 1 where enough of them do."""
        return float(np.sqrt(max(1.0, self.config.effective_pixels / max(view.independent_pixels, 1.0))))

    def linearize(
        self, state: State, active: NDArray[np.bool_] | None = None, *, want_rows: bool = True
    ) -> Linearization:
        """Cost and normal equations at a state; instants whose group is not active are left at zero.

        Without rows the costs alone are worked out.
        """
        device = self.config.solver
        if device is not None and device.takes(self):
            return device.linearize(LinearizeJob(self, state, active, want_rows))
        return self.linearize_here(state, active, want_rows=want_rows)

    def linearize_here(
        self, state: State, active: NDArray[np.bool_] | None = None, *, want_rows: bool = True
    ) -> Linearization:
        """As `linearize`, on the CPU whatever the configuration says."""
        mesh = self.mesh
        n_instants, n_joints = state.rotations.shape[:2]
        Q, S = 3 * n_joints + 3, self.num_shared
        n_groups = len(state.shape)
        on = np.ones(n_groups, bool) if active is None else active
        out = Linearization(
            np.zeros((n_instants, Q, Q)), np.zeros((n_instants, Q, S)), np.zeros((n_groups, S, S)),
            np.zeros((n_instants, Q)), np.zeros((n_groups, S)), np.zeros(n_groups), np.zeros(n_instants),
            np.zeros((len(self.items), E.NUM_STATS)),
        )  # fmt: skip
        todo = [i for i, (n, _) in enumerate(self.items) if on[state.group[n]]]
        settings = [self.settings(view) for view in self.views]
        threads = max(1, min(self.config.threads, len(todo)))
        while len(self._scratch) < threads:
            self._scratch.append(Scratch(mesh))
        found: list[Any] = [None] * len(self.items)

        def work(lane: int) -> None:
            scratch = self._scratch[lane]
            for i in todo[lane::threads]:
                checkpoint()
                which = settings[self.items[i][1]]
                found[i] = self.item_equations(state, i, scratch, out.stats[i], want_rows=want_rows, settings=which)

        if threads == 1:
            work(0)
        else:
            list(_pool(threads).map(work, range(threads)))
        checkpoint()
        # summed in a fixed order, so that threads do not change the result
        for i in todo:
            n = self.items[i][0]
            k = state.group[n]
            H, g, keypoint_cost = found[i]
            out.instant_cost[n] += out.stats[i, [E.COST_DEPTH, E.COST_OUTLINE, E.COST_FLOOR]].sum() + keypoint_cost
            if want_rows:
                out.A[n] += H[:Q, :Q]
                out.B[n] += H[:Q, Q:]
                out.C[k] += H[Q:, Q:]
                out.pose_gradient[n] += g[:Q]
                out.shape_gradient[k] += g[Q:]
        self._add_colors(state, on, out, want_rows=want_rows)
        self._add_priors(state, on, out, want_rows=want_rows)
        return out

    def item_equations(
        self,
        state: State,
        i: int,
        scratch: Scratch,
        stats: NDArray[np.float64],
        *,
        want_rows: bool,
        settings: NDArray[np.float64] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """H (P, P), g (P,) of one item, P = pose and what is shared, and the cost of its keypoints; fills `stats`."""
        n, v = self.items[i]
        P = 3 * state.rotations.shape[1] + 3 + self.mesh.num_shape
        H, g = np.empty((P, P) if want_rows else (1, 1)), np.empty(P)
        self.view_equations(state, n, self.views[v], scratch, H, g, stats, want_rows=want_rows, settings=settings)
        return H, g, self._add_keypoints(state, n, self.views[v], H, g, want_rows=want_rows)

    def _add_colors(self, state: State, on: NDArray[np.bool_], out: Linearization, *, want_rows: bool) -> None:
        Q, S = out.A.shape[1], self.mesh.num_shape
        for n, term in self.colors:
            k = state.group[n]
            if not on[k]:
                continue
            H, g = np.zeros((Q + S, Q + S) if want_rows else (1, 1)), np.zeros(Q + S)
            out.instant_cost[n] += photometric_equations(
                term, self.mesh, state.rotations[n], state.transl[n], state.shape[k], H, g, want_rows=want_rows
            )
            if want_rows:
                out.A[n] += H[:Q, :Q]
                out.B[n, :, :S] += H[:Q, Q:]
                out.C[k, :S, :S] += H[Q:, Q:]
                out.pose_gradient[n] += g[:Q]
                out.shape_gradient[k, :S] += g[Q:]
        for n, pull in self.pulls:
            if on[state.group[n]]:
                cost, gradient, products = pull.equations(state.rotations[n], state.transl[n])
                out.instant_cost[n] += cost
                out.pose_gradient[n] += gradient
                out.A[n] += products

    def view_equations(
        self,
        state: State,
        n: int,
        view: View,
        scratch: Scratch,
        H: NDArray[np.float64],
        g: NDArray[np.float64],
        stats: NDArray[np.float64],
        *,
        want_rows: bool,
        settings: NDArray[np.float64] | None = None,
    ) -> None:
        """One instant against one view; `settings` are the view's, where they are known already."""
        mesh = self.mesh
        E.linearize_view(
            mesh.template, mesh.shapedirs, mesh.weight_joints, mesh.weights, mesh.faces,
            mesh.joint_template, mesh.jointdirs, mesh.parents,
            state.rotations[n], state.transl[n], state.shape[state.group[n]],
            view.R_cw, view.t_cw, view.intrinsics, view.depth, view.label, view.near_person,
            mesh.floor_vertices, view.floor_plane if self.use_floor else np.zeros(4),
            self.settings(view) if settings is None else settings, want_rows,
            scratch.rest, scratch.points, *scratch.of(view), H, g, stats,
        )  # fmt: skip

    def drawn(self, state: State, view: View) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Depth (h, w) metres and face (h, w), -1 for none, of the first instant as a view's camera sees it."""
        scratch = Scratch(self.mesh)
        self.view_equations(
            state, 0, view, scratch, np.empty((1, 1)), np.empty(1), np.empty(E.NUM_STATS), want_rows=False
        )  # fmt: skip
        depth, face, _ = scratch.of(view)
        return depth, face

    def _add_keypoints(
        self, state: State, n: int, view: View, H: NDArray[np.float64], g: NDArray[np.float64], *, want_rows: bool
    ) -> float:
        """Adds what a view's keypoints say to H and g; their cost."""
        targets = view.keypoints
        if targets is None:
            return 0.0
        cost, gradient, products = keypoint_terms(
            targets, self.mesh, state.rotations[n], state.transl[n], state.shape[state.group[n]],
            self.config.sigma_keypoint_px,
            max(self.config.robust_keypoint_px, self.stage.robust_outline_m * targets.px_per_m),
        )  # fmt: skip
        if want_rows:
            H += products
            g += gradient
        return cost

    def prior_equations(self, state: State) -> Linearization:
        """Cost and normal equations of all that is not seen in an image: the priors, and the keypoints."""
        n_instants, n_joints = state.rotations.shape[:2]
        Q, S, n_groups = 3 * n_joints + 3, self.mesh.num_shape, len(state.shape)
        out = Linearization(
            np.zeros((n_instants, Q, Q)), np.zeros((n_instants, Q, S)), np.zeros((n_groups, S, S)),
            np.zeros((n_instants, Q)), np.zeros((n_groups, S)), np.zeros(n_groups), np.zeros(n_instants),
            np.zeros((len(self.items), E.NUM_STATS)),
        )  # fmt: skip
        for n, v in self.items:
            H, g = np.zeros((Q + S, Q + S)), np.zeros(Q + S)
            out.instant_cost[n] += self._add_keypoints(state, n, self.views[v], H, g, want_rows=True)
            k = state.group[n]
            out.A[n] += H[:Q, :Q]
            out.B[n] += H[:Q, Q:]
            out.C[k] += H[Q:, Q:]
            out.pose_gradient[n] += g[:Q]
            out.shape_gradient[k] += g[Q:]
        self._add_priors(state, np.ones(n_groups, bool), out)
        return out

    def _add_priors(self, state: State, on: NDArray[np.bool_], out: Linearization, *, want_rows: bool = True) -> None:
        """Adds the priors of the groups that are on; without rows to the cost alone."""
        n_joints = state.rotations.shape[1]
        live = on[state.group]
        learned = self.learned_prior if self.break_ties else None
        cost, gradient, hessian = pose_prior_terms(
            state.rotations[live], self.pose_mean[live], self.pose_prior, self.stage.pose_prior,
            None if learned is None else learned.covered,
        )  # fmt: skip
        # blocks are added to views of the matrices: each addition by a list of instants would copy them
        everywhere = bool(live.all())
        where = slice(None) if everywhere else np.flatnonzero(live)
        out.instant_cost[where] += cost
        A, pull = (
            (out.A, out.pose_gradient) if everywhere or not want_rows else (out.A[where], out.pose_gradient[where])
        )
        if want_rows:
            pull[:, : 3 * n_joints] += gradient.reshape(len(gradient), -1)
            for j in range(1, n_joints):
                A[:, 3 * j : 3 * j + 3, 3 * j : 3 * j + 3] += hessian[:, j]
        whole = [learned.terms(state.rotations[live], self.stage.pose_prior)] if learned is not None else []
        if self.spheres is not None and self.break_ties:
            whole.append(self.spheres.terms(state.rotations[live]))
        for cost, gradient, hessian in whole:
            out.instant_cost[where] += cost
            if want_rows:
                pull[:, : 3 * n_joints] += gradient
                A[:, : 3 * n_joints, : 3 * n_joints] += hessian
        pairs = arm_pairs(self.mesh.joint_names) if self.break_ties else []
        if pairs:
            cost, gradient, hessian = alike_terms(state.rotations[live], pairs)
            out.instant_cost[where] += cost
            for k, pair in enumerate(pairs if want_rows else ()):
                for p, a in enumerate(pair):
                    pull[:, 3 * a : 3 * a + 3] += gradient[:, k, p]
                    for q, b in enumerate(pair):
                        A[:, 3 * a : 3 * a + 3, 3 * b : 3 * b + 3] += hessian[:, k, p, :, q]
        if want_rows and not everywhere:
            out.A[where], out.pose_gradient[where] = A, pull
        np.add.at(out.cost, state.group, out.instant_cost)
        precision = self.shape_prior.precision / self.stage.shape_prior**2
        d = state.shape[on] - self.shape_prior.mean
        shape_pull = d @ precision
        out.cost[on] += 0.5 * (d * shape_pull).sum(1)
        if want_rows:
            out.shape_gradient[on] += shape_pull
            out.C[on] += precision
