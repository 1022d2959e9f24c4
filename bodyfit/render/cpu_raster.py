"""A batch of meshes drawn on the CPU: one image per task, images side by side in threads, each summed in one order.

What depends on threads is only when an image is made, never what is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bodyfit.kernels import cpu_draw, cpu_edges, cpu_layers, cpu_pieces, cpu_shade
from bodyfit.kernels import cpu_raster as kernels
from bodyfit.kernels.cpu_shade import Light, Surface
from bodyfit.render.topology import Topology

Array = NDArray[Any]
OUTLINES, SEAMS = 0, 1


class Pieces(NamedTuple):
    """The visible pieces of edges of one image; see `kernels.cpu_edges` for the columns."""

    ints: NDArray[np.int32]
    floats: Array


class Scratch:
    """Buffers that one call after the other uses; a buffer is taken and given back, so threads never share one."""

    def __init__(self) -> None:
        self._free: dict[tuple[Any, ...], list[Array]] = {}

    def take(self, shape: tuple[int, ...], dtype: Any, fill: int | None = None) -> Array:
        """An array of that shape; with `fill`, one that was given back filled with it."""
        try:
            return self._free[(shape, np.dtype(dtype), fill)].pop()
        except (KeyError, IndexError):
            return np.empty(shape, dtype) if fill is None else np.full(shape, fill, dtype)

    def give(self, array: Array, fill: int | None = None) -> None:
        """Gives back what `take` gave."""
        self._free.setdefault((array.shape, array.dtype, fill), []).append(array)


class Mesh(NamedTuple):
    """Faces (F, 3) int32, their texture coordinates' rows (F, 3) int32 (or the faces), and their edges."""

    faces: NDArray[np.int32]
    uv_faces: NDArray[np.int32]
    topology: Topology


class CpuRaster:
    """The nearest faces of B meshes at every sample, and every image that can be made from them.

    Args:
        points: (B, V, 3) camera points in front of the camera.
        intrinsics: (B, 4) fx fy cx cy, of the dtype of `points`.
        mesh: what all of them share.
        size: height and width in pixels.
        samples: n, for n × n samples per pixel.
        perspective: or orthographic.
        scratch: buffers.
        threads: the pool that draws, None to draw in the caller's thread.
    """

    def __init__(
        self,
        points: Array,
        intrinsics: Array,
        mesh: Mesh,
        size: tuple[int, int],
        samples: int,
        perspective: bool,
        scratch: Scratch,
        threads: ThreadPoolExecutor | None,
    ) -> None:
        self.points, self.intrinsics, self.mesh = points, intrinsics, mesh
        self.size, self.samples, self.perspective = size, samples, perspective
        self._scratch, self._threads = scratch, threads
        n_batch, fine = len(points), (size[0] * samples, size[1] * samples)
        self.dtype = points.dtype
        self.screen = np.empty_like(points)
        self.areas = np.empty((n_batch, len(mesh.faces)), self.dtype)
        self.ids = [scratch.take(fine, np.int32) for _ in range(n_batch)]
        self.nearest = [scratch.take(fine, self.dtype) for _ in range(n_batch)]
        self.reach = np.empty((n_batch, 4), np.int64)
        self._sign_seen = np.zeros(n_batch, np.int64)
        self._pieces: list[dict[int, Pieces]] = [{} for _ in range(n_batch)]
        self.alpha = np.empty((n_batch, *size), self.dtype)
        self.depth = np.empty((n_batch, *size), self.dtype)

        def draw(b: int) -> None:
            backs = scratch.take((len(mesh.faces) + 1, 5), np.int32)
            self._sign_seen[b] = cpu_draw.draw_image(
                points[b], intrinsics[b], mesh.faces, samples, perspective, self.screen[b], self.reach[b],
                self.areas[b], backs, self.nearest[b], self.ids[b], self.alpha[b], self.depth[b],
            )  # fmt: skip
            scratch.give(backs)

        self._each(draw)

    def __del__(self) -> None:
        for array in (*getattr(self, "ids", ()), *getattr(self, "nearest", ())):
            self._scratch.give(array)

    def _each(self, task: Callable[[int], Any]) -> None:
        """Runs the task for every image of the batch."""
        n_batch = len(self.points)
        if self._threads is None or n_batch == 1:
            for b in range(n_batch):
                task(b)
        else:
            list(self._threads.map(task, range(n_batch)))

    def names(self) -> tuple[Array, Array]:
        """face_id (B, H, W) int32 and barycentrics (B, H, W, 3) of the covered sample nearest to each centre."""
        face_id = np.empty((len(self.points), *self.size), np.int32)
        weights = np.empty((*face_id.shape, 3), self.dtype)

        def name(b: int) -> None:
            kernels.name_faces(
                self.screen[b], self.mesh.faces, self.ids[b], self.samples, self.reach[b], self.perspective, face_id[b],
                weights[b],
            )  # fmt: skip

        self._each(name)
        return face_id, weights

    def pieces(self, b: int, which: int) -> Pieces:
        """The visible pieces of image b's outlines or seams."""
        if which not in self._pieces[b]:
            self._pieces[b][which] = self._find_pieces(b, which)
        return self._pieces[b][which]

    def _find_pieces(self, b: int, which: int) -> Pieces:
        topology = self.mesh.topology
        if which == SEAMS and not topology.seams.any():
            return Pieces(np.empty((0, cpu_edges.INTS), np.int32), np.empty((0, cpu_edges.FLOATS), self.dtype))
        # Outside of a closed surface only its front is seen, and what hides or lies behind is a front too: where no
        # sample saw a back, backs are left out.
        only = int(self._sign_seen[b]) if topology.closed else 0
        slots = self._scratch.take(self.size, np.int32)
        ints, floats = cpu_pieces.find_pieces(
            self.screen[b], self.mesh.faces, self.areas[b], topology.starts, topology.sides, topology.incident,
            topology.bounds, topology.seams, topology.closed, which, only, self.perspective, slots,
        )  # fmt: skip
        self._scratch.give(slots)
        return Pieces(ints, floats)

    def _finish(self, b: int, v_screen: Array, v_points: Array, v_intrinsics: Array) -> None:
        kernels.project_points_vjp(
            self.points[b], self.intrinsics[b], self.perspective, v_screen, v_points[b], v_intrinsics[b]
        )

    def _geometry_vjp(self, task: Callable[[int, Array], None]) -> tuple[Array, Array]:
        """v_points (B, V, 3) and v_intrinsics (B, 4) of tasks that each fill the cotangent of image b's screen."""
        v_points, v_intrinsics = np.empty_like(self.points), np.zeros_like(self.intrinsics)

        def run(b: int) -> None:
            v_screen = np.zeros(self.points.shape[1:], np.float64)
            task(b, v_screen)
            self._finish(b, v_screen, v_points, v_intrinsics)

        self._each(run)
        return v_points, v_intrinsics

    def _scatter(self, pieces: Pieces, jumps: Array, v_screen: Array) -> None:
        cpu_edges.scatter_edges(pieces.ints, pieces.floats, jumps, v_screen)

    def cover_vjp(self, v_alpha: Array, v_depth: Array) -> tuple[Array, Array]:
        """Cotangents of points and intrinsics; v_alpha and v_depth (B, H, W)."""

        def task(b: int, v_screen: Array) -> None:
            sums = self._scratch.take(self.mesh.faces.shape, np.float64, fill=0)
            kernels.cover_vjp(
                self.screen[b], self.mesh.faces, self.nearest[b], self.ids[b], self.samples, self.reach[b],
                self.perspective, v_depth[b], sums, v_screen,
            )  # fmt: skip
            self._scratch.give(sums, fill=0)
            outlines = self.pieces(b, OUTLINES)
            cpu_edges.scatter_cover(outlines.ints, outlines.floats, v_alpha[b].ravel(), v_depth[b].ravel(), v_screen)

        return self._geometry_vjp(task)

    def paint(self, values: Array) -> Array:
        """(B, H, W, C): the mean over all samples of vertex values (B, V, C)."""
        image = np.zeros((len(self.points), *self.size, values.shape[-1]), self.dtype)

        def task(b: int) -> None:
            cpu_layers.paint(
                self.screen[b], self.mesh.faces, self.ids[b], self.samples, self.reach[b], self.perspective,
                values[b], image[b],
            )  # fmt: skip

        self._each(task)
        return image

    def paint_vjp(self, values: Array, v_image: Array) -> tuple[Array, Array, Array]:
        """Cotangents of values, points and intrinsics."""
        v_values = np.zeros(values.shape, np.float64)

        def task(b: int, v_screen: Array) -> None:
            cpu_layers.paint_vjp(
                self.screen[b], self.mesh.faces, self.ids[b], self.samples, self.reach[b], self.perspective,
                values[b], v_image[b], v_values[b], v_screen,
            )  # fmt: skip
            flat = v_image[b].reshape(-1, values.shape[-1])
            for which in (OUTLINES, SEAMS):
                pieces = self.pieces(b, which)
                jumps = np.empty(len(pieces.ints), self.dtype)
                cpu_layers.paint_jumps(self.mesh.faces, pieces.ints, pieces.floats, values[b], flat, jumps)
                self._scatter(pieces, jumps, v_screen)

        v_points, v_intrinsics = self._geometry_vjp(task)
        return v_values.astype(self.dtype), v_points, v_intrinsics

    def paint_normals(self, normals: Array) -> Array:
        """(B, H, W, 3): the mean over all samples of the unit normal; normals (B, V, 3) of any length."""
        image = np.zeros((len(self.points), *self.size, 3), self.dtype)

        def task(b: int) -> None:
            cpu_layers.paint_normals(
                self.screen[b], self.mesh.faces, self.areas[b], self.ids[b], self.samples, self.reach[b],
                self.perspective, normals[b], image[b],
            )  # fmt: skip

        self._each(task)
        return image

    def paint_normals_vjp(self, normals: Array, v_image: Array) -> tuple[Array, Array, Array]:
        """Cotangents of normals, points and intrinsics."""
        v_normals = np.zeros(normals.shape, np.float64)

        def task(b: int, v_screen: Array) -> None:
            cpu_layers.paint_normals_vjp(
                self.screen[b], self.mesh.faces, self.areas[b], self.ids[b], self.samples, self.reach[b],
                self.perspective, normals[b], v_image[b], v_normals[b], v_screen,
            )  # fmt: skip
            flat = v_image[b].reshape(-1, 3)
            for which in (OUTLINES, SEAMS):
                pieces = self.pieces(b, which)
                jumps = np.empty(len(pieces.ints), self.dtype)
                cpu_layers.normal_jumps(
                    self.mesh.faces, self.areas[b], pieces.ints, pieces.floats, normals[b], flat, jumps
                )
                self._scatter(pieces, jumps, v_screen)

        v_points, v_intrinsics = self._geometry_vjp(task)
        return v_normals.astype(self.dtype), v_points, v_intrinsics

    def paint_color(self, flags: int, surface: Surface, light: Light) -> Array:
        """(B, H, W, 3): the mean over all samples of the linear colour; every array with a batch axis before."""
        image = np.zeros((len(self.points), *self.size, 3), self.dtype)

        def task(b: int) -> None:
            cpu_shade.paint_color(
                self.screen[b], self.mesh.faces, self.mesh.uv_faces, self.areas[b], self.ids[b], self.samples,
                self.reach[b], flags, Surface(*(x[b] for x in surface)), Light(*(x[b] for x in light)), image[b],
            )  # fmt: skip

        self._each(task)
        return image

    def paint_color_vjp(
        self, flags: int, surface: Surface, light: Light, v_image: Array
    ) -> tuple[Surface, Light, Array, Array]:
        """Cotangents of surface, light, points and intrinsics."""
        v_surface = Surface(*(np.zeros(x.shape, np.float64) for x in surface))
        v_light = Light(*(np.zeros(x.shape, np.float64) for x in light))

        def task(b: int, v_screen: Array) -> None:
            ours, lamps = Surface(*(x[b] for x in surface)), Light(*(x[b] for x in light))
            cpu_shade.paint_color_vjp(
                self.screen[b], self.mesh.faces, self.mesh.uv_faces, self.areas[b], self.ids[b], self.samples,
                self.reach[b], flags, ours, lamps, v_image[b],
                Surface(*(x[b] for x in v_surface)), Light(*(x[b] for x in v_light)), v_screen,
            )  # fmt: skip
            flat = v_image[b].reshape(-1, 3)
            for which in (OUTLINES, SEAMS):
                pieces = self.pieces(b, which)
                jumps = np.empty(len(pieces.ints), self.dtype)
                cpu_shade.color_jumps(
                    self.mesh.faces, self.mesh.uv_faces, self.areas[b], pieces.ints, pieces.floats, flags, ours, lamps,
                    flat, jumps,
                )  # fmt: skip
                self._scatter(pieces, jumps, v_screen)

        v_points, v_intrinsics = self._geometry_vjp(task)
        return (
            Surface(*(x.astype(self.dtype) for x in v_surface)),
            Light(*(x.astype(self.dtype) for x in v_light)),
            v_points,
            v_intrinsics,
        )
