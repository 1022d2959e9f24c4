"""What calls of `render` with the same mesh share."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bodyfit.camera import Camera
from bodyfit.errors import InputError
from bodyfit.kernels.cpu_raster import all_equal
from bodyfit.render.camera import RenderCamera
from bodyfit.render.checks import check_faces, check_uv_faces
from bodyfit.render.cpu_raster import Scratch
from bodyfit.render.extra import torch
from bodyfit.render.layers import on_gpu
from bodyfit.render.scene import Texture
from bodyfit.render.topology import Topology, at_one_place, find_topology


class RenderContext:
    """What calls with the same mesh share: the edges of its faces, buffers, threads. Make one per loop.

    On a CUDA device the first call with a mesh is waited for: its vertices are checked and it is seen how much room
    the edges need. Later calls with the same `faces` object are not, and can be captured in a CUDA graph; they take
    vertices to be finite, and those that lay at one place in the first call to stay together. `check` says whether
    something did not fit.

    Args:
        threads: how many images of a batch are drawn at once; the pictures do not depend on it. All cores by default.
    """

    def __init__(self, threads: int | None = None) -> None:
        n_threads = threads if threads is not None else (os.cpu_count() or 1)
        if n_threads < 1:
            raise InputError("threads", "at least 1", str(threads))
        self.scratch = Scratch()
        self.pool = ThreadPoolExecutor(n_threads) if n_threads > 1 else None
        self._faces: Any = None
        self._uv_faces: Any = None
        self._n_points = -1
        self._topology: Topology | None = None
        self._pairs = np.empty((0, 2), np.int64)
        self._together = np.empty(0, np.bool_)
        self._given: tuple[Any, int, int, Any] = (None, -1, -1, None)
        self._uv_given: tuple[Any, Any, int, Any] = (None, None, -1, None)
        self._views: dict[Any, tuple[Camera, RenderCamera]] = {}
        self._gpus: dict[Any, Any] = {}

    def gpu(self, device: Any) -> Any:
        """The `CudaContext` of a CUDA device."""
        if device not in self._gpus:
            from bodyfit.render.cuda_context import CudaContext

            self._gpus[device] = CudaContext(device)
        return self._gpus[device]

    def check(self) -> None:
        """Waits for the CUDA devices in use.

        Raises:
            BodyfitError: edges did not fit into the room that there was, so that gradients since the last check miss
                some; from now on there is more. Graphs have to be captured anew.
        """
        for gpu in self._gpus.values():
            gpu.room.check()

    def triangles(self, faces: Any, n_points: int) -> Any:
        """Checked faces as an int32 array, the last call's own where they are the same.

        A tensor of a CUDA device is read (which waits) only where it is another object than in the last call, or was
        written to since.
        """
        there = isinstance(faces, torch.Tensor) and on_gpu(faces)
        version = faces._version if there else -1
        given = self._given
        if there and given[0] is faces and given[1:3] == (version, n_points):
            return given[3]
        plain = check_faces("faces", faces, n_points)
        # a copy: the caller may write new numbers into the same array
        kept = given[3] if _same(given[3], plain) else plain.copy()
        self._given = (faces if there else None, version, n_points, kept)
        return self._given[3]

    def checked_faces(self, faces: Any, n_points: int) -> Any:
        """Checked faces as an int32 array on the CPU; the last call's own copy where the numbers are the same."""
        known = self._faces
        plain = isinstance(faces, np.ndarray) and faces.dtype == np.int32 and faces.flags.c_contiguous
        if plain and known is not None and self._n_points == n_points and _same(known, faces):
            return known
        return check_faces("faces", faces, n_points)

    def uv_triangles(self, texture: Texture, triangles: Any) -> Any:
        """The same for the rows of a texture's `uv` at the corners of these triangles."""
        key = (texture.uv_faces, triangles, texture.uv.shape[-2])
        given = self._uv_given
        if not (given[0] is key[0] and given[1] is key[1] and given[2] == key[2]):
            self._uv_given = given = (*key, check_uv_faces(texture, triangles))
        return given[3]

    def view(self, camera: Camera, device: Any) -> RenderCamera:
        """The camera with its numbers on the device, copied there once."""
        known = self._views.get(device)
        if known is None or known[0] != camera:
            known = self._views[device] = (camera, RenderCamera.from_camera(camera, device=device))
        return known[1]

    @property
    def known_topology(self) -> Topology | None:
        """The edges of the last call's faces."""
        return self._topology

    def knows(self, faces: Any, uv_faces: Any) -> bool:
        """Whether these are the last call's faces."""
        return self._topology is not None and _same(self._faces, faces) and _same(self._uv_faces, uv_faces)

    def topology(self, faces: Any, uv_faces: Any, vertices: Any) -> Topology:
        """The edges of faces (F, 3), found anew where faces differ from the last call's, or vertices at one place part.

        Vertices that lay apart in the first call with these faces and lie at exactly one place later are not noticed.
        """
        same_mesh = self._topology is not None and _same(self._faces, faces) and _same(self._uv_faces, uv_faces)
        if same_mesh and self._topology is not None and not len(self._pairs):
            self._n_points = vertices.shape[1]  # for so many points these faces were checked
            return self._topology
        if not same_mesh:
            self._pairs = np.empty((0, 2), np.int64)
        together = at_one_place(vertices, self._pairs)
        if not same_mesh or self._topology is None or not np.array_equal(together, self._together):
            # copies: the caller may write new numbers into the same array
            self._faces, self._uv_faces = faces.copy(), None if uv_faces is None else uv_faces.copy()
            self._topology = find_topology(faces, vertices, uv_faces)
            # also those that came apart are watched: they may meet again
            self._pairs = np.unique(np.concatenate([self._pairs, self._topology.twins]), axis=0)
            self._together = at_one_place(vertices, self._pairs)
        self._n_points = vertices.shape[1]
        return self._topology


def _same(a: Any, b: Any) -> bool:
    if a is b or a is None or b is None:
        return a is b
    return a.shape == b.shape and all_equal(a.reshape(-1), b.reshape(-1))
