"""A batch of meshes drawn on a GPU, all images in one launch, without waiting for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bodyfit.kernels import cuda_edges
from bodyfit.kernels import cuda_raster as kernels
from bodyfit.kernels.cuda_edges import OUTLINES
from bodyfit.render import cuda_layers
from bodyfit.render.cuda_arrays import DeviceArrays
from bodyfit.render.cuda_edges import CudaPieces, DeviceEdges, EdgeRoom, find_pieces, scatter_edges

ROOM_FOR_LARGE = 4096
"""So many faces are drawn by blocks of threads; if there are more, the others are drawn by one thread each."""


class DeviceMesh(NamedTuple):
    """Faces (F, 3) int32, their texture coordinates' rows (F, 3) int32 (or the faces), and their edges, on a device."""

    faces: Any
    uv_faces: Any
    edges: DeviceEdges


class CudaRaster:
    """The nearest faces of B meshes at every sample, and the images that can be made from them.

    too_near (1,) int32 is how many vertices are nearer than the near plane.

    Args:
        points: (B, V, 3) float32 camera points in front of the camera.
        intrinsics: (B, 4) float32 fx fy cx cy.
        mesh: what all of them share.
        size: height and width in pixels.
        samples: n, for n × n samples per pixel.
        perspective: or orthographic.
        near: (1,) float32 metres; faces with a vertex nearer than that are left out.
        room: remembers how many edges there are.
        arrays: where all of these are.
    """

    def __init__(
        self,
        points: Any,
        intrinsics: Any,
        mesh: DeviceMesh,
        size: tuple[int, int],
        samples: int,
        perspective: bool,
        near: Any,
        room: EdgeRoom,
        arrays: DeviceArrays,
    ) -> None:
        self.points, self.intrinsics, self.mesh = points, intrinsics, mesh
        self.faces, self.uv_faces = mesh.faces, mesh.uv_faces
        self.size, self.samples, self.perspective = size, samples, perspective
        self._room, self.arrays = room, arrays
        self._pieces: dict[int, CudaPieces] = {}
        n_batch, n_points, n_faces = points.shape[0], points.shape[1], mesh.faces.shape[0]
        fine = (n_batch, size[0] * samples, size[1] * samples)
        launch = arrays.launch
        self.screen, self.areas = arrays.empty(n_batch, n_points, 3), arrays.empty(n_batch, n_faces)
        self.too_near = arrays.full(1, value=0, kind=np.int32)
        launch(
            kernels.project_points, n_batch * n_points, points, intrinsics, perspective, near, self.screen,
            self.too_near,
        )  # fmt: skip
        nearest = arrays.full(*fine, value=int(kernels.NOTHING), kind=np.int64)
        large, n_large = arrays.empty(ROOM_FOR_LARGE, 2, kind=np.int32), arrays.full(1, value=0, kind=np.int32)
        launch(kernels.draw, n_batch * n_faces, self.screen, mesh.faces, samples, self.areas, nearest, large, n_large)
        launch(kernels.draw_large_faces, None, self.screen, mesh.faces, samples, nearest, large, n_large)
        self.ids = arrays.empty(*fine, kind=np.int32)
        self.alpha, self.depth = arrays.empty(n_batch, *size), arrays.empty(n_batch, *size)
        self.seen = arrays.full(n_batch, value=0, kind=np.int32)
        launch(
            kernels.cover, n_batch * size[0] * size[1], nearest, self.areas, samples, perspective, self.ids, self.alpha,
            self.depth, self.seen,
        )  # fmt: skip

    def names(self) -> tuple[Any, Any]:
        """face_id (B, H, W) int32 and barycentrics (B, H, W, 3) of the covered sample nearest to each centre."""
        n_batch, (height, width) = self.points.shape[0], self.size
        face_id = self.arrays.empty(n_batch, height, width, kind=np.int32)
        weights = self.arrays.empty(n_batch, height, width, 3)
        self.arrays.launch(
            kernels.name_faces, n_batch * height * width, self.screen, self.mesh.faces, self.ids, self.samples,
            self.perspective, face_id, weights,
        )  # fmt: skip
        return face_id, weights

    def pieces(self, which: int) -> CudaPieces:
        """The visible pieces of the outlines or seams of all images."""
        if which not in self._pieces:
            self._pieces[which] = find_pieces(
                self.screen, self.mesh.faces, self.areas, self.mesh.edges, self.seen, which, self.size,
                self.perspective, self._room, self.arrays,
            )  # fmt: skip
        return self._pieces[which]

    def geometry_vjp(self, v_screen: Any) -> tuple[Any, Any]:
        """v_points (B, V, 3) and v_intrinsics (B, 4) of the screen's cotangent (B, V, 3)."""
        n_batch, n_points = self.points.shape[0], self.points.shape[1]
        v_points, v_intrinsics = self.arrays.empty(n_batch, n_points, 3), self.arrays.full(n_batch, 4, value=0.0)
        self.arrays.launch(
            kernels.project_points_vjp, n_batch * n_points, self.points, self.intrinsics, self.perspective, v_screen,
            v_points, v_intrinsics,
        )  # fmt: skip
        return v_points, v_intrinsics

    def cover_vjp(self, v_alpha: Any, v_depth: Any) -> tuple[Any, Any]:
        """Cotangents of points and intrinsics; v_alpha and v_depth (B, H, W)."""
        v_screen = self.arrays.full(*self.screen.shape, value=0.0)
        n_samples = self.ids.shape[0] * self.ids.shape[1] * self.ids.shape[2]
        self.arrays.launch(
            kernels.cover_vjp, n_samples, self.screen, self.mesh.faces, self.ids, self.samples, self.perspective,
            v_depth, v_screen,
        )  # fmt: skip
        pieces = self.pieces(OUTLINES)
        jumps = self.arrays.empty(pieces.ints.shape[0])
        self.arrays.launch(cuda_edges.cover_jumps, None, *pieces, v_alpha, v_depth, jumps)
        scatter_edges(pieces, jumps, v_screen, self.arrays)
        return self.geometry_vjp(v_screen)

    paint, paint_vjp = cuda_layers.paint, cuda_layers.paint_vjp
    paint_normals, paint_normals_vjp = cuda_layers.paint_normals, cuda_layers.paint_normals_vjp
    paint_color, paint_color_vjp = cuda_layers.paint_color, cuda_layers.paint_color_vjp
