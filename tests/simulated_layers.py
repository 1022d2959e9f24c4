"""Attributes, normals and colour of the GPU's renderer in numba's simulator; `test_cuda.py` runs this file in a process
of its own.

The raster is the CPU's, with the GPU's edges, so that what differs comes from the layers.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import render_scenes as scenes
import torch

from bodyfit.kernels import cpu_raster as kernels
from bodyfit.kernels import cuda_shade
from bodyfit.kernels.cpu_shade import GLOSSY, LIT, PERSPECTIVE, REPEATED, TEXTURED, Light, Surface
from bodyfit.render import cuda_layers
from bodyfit.render.cpu_raster import CpuRaster, Mesh, Scratch
from bodyfit.render.cuda_arrays import SimulatedArrays
from bodyfit.render.cuda_edges import CudaPieces, DeviceEdges, EdgeRoom, find_pieces
from bodyfit.render.cuda_raster import DeviceMesh
from bodyfit.render.topology import find_topology

TURNS = ((0.3, 0.5, 0.2), (0.9, -0.2, 0.4))
RNG = np.random.default_rng(5)


class GpuRaster:
    """What the layers know of `CudaRaster`, from a CpuRaster."""

    def __init__(self, raster: CpuRaster) -> None:
        self.cpu, self.arrays = raster, SimulatedArrays()
        self.screen, self.areas = raster.screen, raster.areas
        self.faces, self.uv_faces = raster.mesh.faces, raster.mesh.uv_faces
        self.samples, self.size, self.perspective = raster.samples, raster.size, raster.perspective
        self.ids = np.full((len(raster.ids), *raster.ids[0].shape), -1, np.int32)
        for b, (r0, r1, c0, c1) in enumerate(raster.reach):  # outside of its reach the CPU's are anything
            self.ids[b, r0 : r1 + 1, c0 : c1 + 1] = raster.ids[b][r0 : r1 + 1, c0 : c1 + 1]
        self._room = EdgeRoom()
        self.mesh = DeviceMesh(self.faces, self.uv_faces, DeviceEdges.of(raster.mesh.topology, self.arrays))

    def pieces(self, which: int) -> CudaPieces:
        """Of both images."""
        seen = np.array([{1: 1, -1: 2, 0: 3}[int(s)] for s in self.cpu._sign_seen], np.int32)
        return find_pieces(
            self.screen, self.faces, self.areas, self.mesh.edges, seen, which, self.size, self.perspective, self._room,
            self.arrays,
        )  # fmt: skip

    def geometry_vjp(self, v_screen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cotangents of points and intrinsics."""
        assert v_screen.dtype == np.float32
        v_points, v_intrinsics = np.zeros_like(self.cpu.points), np.zeros_like(self.cpu.intrinsics)
        for b, cotangent in enumerate(v_screen):
            kernels.project_points_vjp(
                self.cpu.points[b], self.cpu.intrinsics[b], self.perspective, cotangent, v_points[b], v_intrinsics[b]
            )
        return v_points, v_intrinsics


def raster_of(mesh: scenes.Mesh, samples: int, projection: str = "perspective", uv_faces: Any = None) -> CpuRaster:
    """The scene, turned in two ways."""
    view = scenes.camera(18, 14, projection=projection)
    R, t = view.pose[:3, :3], view.pose[:3, 3]
    points = np.stack([(scenes.turned(mesh, *turn).vertices @ R.T + t).float().numpy() for turn in TURNS])
    intrinsics = np.tile(view.intrinsics.float().numpy(), (len(points), 1))
    topology = find_topology(mesh.faces, points, uv_faces)
    shared = Mesh(mesh.faces, mesh.faces if uv_faces is None else uv_faces, topology)
    return CpuRaster(points, intrinsics, shared, view_size(view), samples, projection == "perspective", Scratch(), None)


def exact(raster: CpuRaster) -> CpuRaster:
    """The same in float64: what float32 makes of a cut at a grazing angle differs, by 3e-4 of a gradient on the CPU."""
    points, intrinsics = raster.points.astype(np.float64), raster.intrinsics.astype(np.float64)
    return CpuRaster(points, intrinsics, raster.mesh, raster.size, raster.samples, raster.perspective, Scratch(), None)


def view_size(view: Any) -> tuple[int, int]:
    return view.height, view.width


def numbers(*shape: int) -> np.ndarray:
    """Standard normal."""
    return RNG.normal(size=shape).astype(np.float32)


def assert_close(found: Any, expected: Any, what: str, some: bool = True) -> None:
    """To 1e-4 of the largest number; `some`: that it is not 0 everywhere."""
    assert found.shape == expected.shape, what
    assert found.dtype == np.float32, what
    assert not some or np.abs(expected).max() > 1e-3, what
    largest = np.abs(expected).max(initial=0)
    assert np.abs(found - expected).max(initial=0) <= 1e-4 * largest, what


CASES = [("boxes", 1, "perspective"), ("split boxes", 2, "perspective"), ("split boxes", 1, "orthographic")]
SCENES = {"boxes": scenes.two_boxes(), "split boxes": scenes.split(scenes.two_boxes())}


@pytest.mark.parametrize("name,samples,projection", CASES)
@pytest.mark.parametrize("channels,same", [(5, False), (2, True)])
def test_attributes(name: str, samples: int, projection: str, channels: int, same: bool) -> None:
    cpu = raster_of(SCENES[name], samples, projection)
    raster = GpuRaster(cpu)
    values = numbers(1 if same else 2, len(SCENES[name].vertices), channels)
    values = np.broadcast_to(values, (2, *values.shape[1:]))
    assert_close(cuda_layers.paint(raster, values), cpu.paint(values), "image", some=True)
    v_image = numbers(2, *cpu.size, channels)
    found, expected = (
        cuda_layers.paint_vjp(raster, values, v_image),
        list(exact(cpu).paint_vjp(values.astype(np.float64), v_image.astype(np.float64))),
    )
    if same:
        expected[0] = np.broadcast_to(expected[0].mean(0), values.shape)
    for what, ours, theirs in zip(("values", "points", "intrinsics"), found, expected, strict=True):
        assert_close(ours, theirs, what)


@pytest.mark.parametrize("name,samples,projection", CASES)
def test_normals(name: str, samples: int, projection: str) -> None:
    cpu = raster_of(SCENES[name], samples, projection)
    raster = GpuRaster(cpu)
    normals = numbers(2, len(SCENES[name].vertices), 3)
    assert_close(cuda_layers.paint_normals(raster, normals), cpu.paint_normals(normals), "image")
    v_image = numbers(2, *cpu.size, 3)
    found = cuda_layers.paint_normals_vjp(raster, normals, v_image)
    expected = exact(cpu).paint_normals_vjp(normals.astype(np.float64), v_image.astype(np.float64))
    for what, ours, theirs in zip(("normals", "points", "intrinsics"), found, expected, strict=True):
        assert_close(ours, theirs, what)


def scene_of(n_vertices: int, n_uv: int, flags: int, n_lamps: int, same: bool) -> tuple[Surface, Light]:
    """Anything that can be on the surface and before it; `same`: picture and light are the same for both images."""
    textured, n = bool(flags & TEXTURED), 1 if same else 2
    normals = numbers(2, n_vertices, 3)
    lamps = numbers(n, n_lamps, 6)
    places = np.arange(n_lamps) % 2 == 1
    lamps[..., 3:] = np.abs(lamps[..., 3:])
    lamps[:, ~places, :3] /= np.linalg.norm(lamps[:, ~places, :3], axis=-1, keepdims=True)
    lamps[:, places, :3] *= 3 / np.linalg.norm(lamps[:, places, :3], axis=-1, keepdims=True)
    gloss = np.array([[0.3, 0.1, 0.2, 0.4]], np.float32) + 0.1 * np.arange(n, dtype=np.float32)[:, None]
    eye = np.array([[0.2, 0.3, -2.5], [0.0, 0.1, -2.0]], np.float32)
    if not flags & PERSPECTIVE:
        eye /= np.linalg.norm(eye, axis=-1, keepdims=True)
    surface = Surface(
        0.6 * numbers(2, n_vertices, 3), normals, np.abs(numbers(2, 0 if textured else n_vertices, 3)),
        np.abs(numbers(n, 5, 4, 3)) if textured else numbers(n, 0, 0, 3),
        np.float32(0.5) + numbers(2, n_uv if textured else 0, 2),
    )  # fmt: skip
    light = Light(numbers(n, 9, 3), lamps, np.broadcast_to(places, (n, n_lamps)), gloss, eye)

    def both(x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x, (2, *x.shape[1:]))

    return Surface(*(both(x) for x in surface)), Light(*(both(x) for x in light))


@pytest.mark.parametrize("samples,flags,n_lamps,same", [
    (1, PERSPECTIVE, 0, False),
    (2, PERSPECTIVE | TEXTURED | REPEATED, 0, False),
    (1, PERSPECTIVE | LIT, 0, True),
    (2, PERSPECTIVE | LIT | GLOSSY, 3, False),
    (1, LIT | GLOSSY | TEXTURED, 2, True),
    (1, PERSPECTIVE | LIT | GLOSSY | TEXTURED | REPEATED, 6, False),
])  # fmt: skip
def test_color(samples: int, flags: int, n_lamps: int, same: bool) -> None:
    assert n_lamps <= 4 or n_lamps > cuda_shade.MOST_LAMPS, "a case has more lamps than fit at once"
    mesh = scenes.two_boxes()
    # a texture whose coordinates part at some edges, so that there are seams
    uv_faces = mesh.faces.copy()
    uv_faces[::2] += len(mesh.vertices)
    cpu = raster_of(
        mesh, samples, "perspective" if flags & PERSPECTIVE else "orthographic", uv_faces if flags & TEXTURED else None
    )
    raster = GpuRaster(cpu)
    surface, light = scene_of(len(mesh.vertices), 2 * len(mesh.vertices), flags, n_lamps, same)
    assert_close(
        cuda_layers.paint_color(raster, flags, surface, light), cpu.paint_color(flags, surface, light), "image"
    )
    v_image = numbers(2, *cpu.size, 3)
    found = cuda_layers.paint_color_vjp(raster, flags, surface, light, v_image)
    expected = cpu.paint_color_vjp(flags, surface, light, v_image)
    lit, textured, glossy = flags & LIT, flags & TEXTURED, flags & GLOSSY
    moved = {
        "points": lit and (n_lamps > 1 or (glossy and flags & PERSPECTIVE)), "normals": lit,
        "albedo": not textured, "image": textured, "uv": textured,
        "sh": lit, "lamps": lit and n_lamps, "places": False, "gloss": glossy, "eye": glossy,
    }  # fmt: skip
    given = {**surface._asdict(), **light._asdict()}
    theirs = {**expected[0]._asdict(), **expected[1]._asdict()}
    for what, ours in {**found[0]._asdict(), **found[1]._asdict()}.items():
        right = theirs[what]
        if given[what].strides[0] == 0 and right.size:
            right = np.broadcast_to(right.mean(0), right.shape)
        assert_close(ours, right, what, bool(moved[what]))
    assert_close(found[2], expected[2], "camera points")
    assert_close(found[3], expected[3], "intrinsics")


def test_a_torch_tensor_is_given_as_an_array_is() -> None:
    """Which rows, in which order and kind: what the launches of tensors on a GPU share with the simulator's."""
    arrays: Any = SimpleNamespace(full=lambda *shape, value, kind=np.float32: (shape, value, kind))
    one = torch.arange(6.0).reshape(1, 2, 3)
    assert cuda_layers._given(one.expand(4, 2, 3), arrays).shape == (1, 2, 3)
    assert cuda_layers._given(one.expand(4, 2, 3), arrays, each=True).is_contiguous()
    assert cuda_layers._given(one.transpose(1, 2), arrays).is_contiguous()
    assert cuda_layers._given(torch.tensor([[True, False]]), arrays).dtype == torch.uint8
    assert cuda_layers._given(torch.zeros(2, 0, dtype=torch.bool), arrays) == ((1, 1), 0, np.uint8)
    assert cuda_layers._given(torch.zeros(2, 0, 3), arrays) == ((1, 1, 3), 0, np.float32)
    spread = cuda_layers._spread(one, one.expand(4, 2, 3), arrays)
    assert spread.shape == (4, 2, 3)
    torch.testing.assert_close(spread.sum(0), one[0])
