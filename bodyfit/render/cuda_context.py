"""What calls of `render` on one CUDA device share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from bodyfit.errors import MissingExtraError
from bodyfit.render.extra import Tensor
from bodyfit.render.topology import Topology

try:
    from bodyfit.render.cuda_arrays import TorchArrays
    from bodyfit.render.cuda_edges import DeviceEdges, EdgeRoom
    from bodyfit.render.cuda_raster import CudaRaster, DeviceMesh
except ModuleNotFoundError as error:
    if error.name is not None and error.name.partition(".")[0] not in ("numba", "numba_cuda", "cuda"):
        raise
    raise MissingExtraError("numba-cuda", "cuda", "drawing tensors of a CUDA device") from None


class CudaContext:
    """The mesh and its edges on the device, and what has been seen of the calls so far.

    The first call with a mesh is waited for and its vertices are looked at; so is one after a call in which a vertex
    turned out to be nearer than the near plane, or not finite. Others are not waited for.
    """

    def __init__(self, device: Any) -> None:
        self.arrays, self.room = TorchArrays(device), EdgeRoom()
        self._mesh: DeviceMesh | None = None
        self._topology: Topology | None = None
        self._near: dict[float, Any] = {}
        self._looked = False
        self._news: Callable[[], Any] | None = None

    def must_look(self, topology_known: bool) -> bool:
        """Whether this call's vertices have to be looked at on the host. Never while a graph is captured."""
        if self.arrays.capturing():
            return False
        news = None if self._news is None else self._news()
        if news is not None:
            self._news = None
            if news[0]:
                self._looked = False
                warnings.warn(
                    f"{news[0]} vertices of an earlier call were before the near plane or not finite: their faces were "
                    "left out; from now on such a call is cut there, or refused",
                    RuntimeWarning,
                    stacklevel=3,
                )
        must = not (self._looked and topology_known)
        self._looked = True
        return must

    def look_again(self) -> None:
        """The next call is looked at too."""
        self._looked = False

    def mesh(self, faces: Any, uv_faces: Any, topology: Topology) -> DeviceMesh:
        """The mesh on the device."""
        if self._mesh is None or self._topology is not topology:
            there = self.arrays.from_host(faces)
            there_uv = there if uv_faces is None else self.arrays.from_host(uv_faces)
            self._mesh = DeviceMesh(there, there_uv, DeviceEdges.of(topology, self.arrays))
            self._topology = topology
        return self._mesh

    def draw(
        self,
        points: Tensor,
        intrinsics: Tensor,
        mesh: DeviceMesh,
        size: tuple[int, int],
        samples: int,
        perspective: bool,
        near_m: float,
    ) -> CudaRaster:
        """The nearest faces of a batch; see `CudaRaster`."""
        if near_m not in self._near:
            self._near[near_m] = self.arrays.from_host(np.array([near_m], np.float32))
        raster = CudaRaster(
            points, intrinsics, mesh, size, samples, perspective, self._near[near_m], self.room, self.arrays
        )
        if self._news is None and not self.arrays.capturing():
            self._news = self.arrays.read_later(raster.too_near)
        return raster
