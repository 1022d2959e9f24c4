"""The images that a GPU's raster makes of what lives on its meshes, and their gradients; `CpuRaster`'s methods of the
same names, as functions of the raster.

All arrays have the batch axis first. One that is the same thing for every image (a tensor's `expand`) is read as one,
and its cotangents are summed over the batch: every image's row of the result is then the mean, so that their sum is
right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bodyfit.kernels import cuda_layers, cuda_shade
from bodyfit.kernels.cpu_shade import LIT, Light, Surface
from bodyfit.kernels.cuda_edges import OUTLINES, SEAMS
from bodyfit.render.cuda_arrays import DeviceArrays
from bodyfit.render.cuda_edges import CudaPieces, scatter_edges


def paint(raster: Any, values: Any) -> Any:
    """(B, H, W, C): the mean over all samples of vertex values (B, V, C)."""
    image = _image(raster, values.shape[-1])
    if values.shape[-1]:
        _launch_pixels(
            raster, cuda_layers.paint, raster.screen, raster.faces, raster.ids, raster.samples, raster.perspective,
            _given(values, raster.arrays), image,
        )  # fmt: skip
    return image


def paint_vjp(raster: Any, values: Any, v_image: Any) -> tuple[Any, Any, Any]:
    """Cotangents of values, points and intrinsics."""
    arrays = raster.arrays
    v_screen = _zeros_like(raster.screen, arrays)
    if not values.shape[-1]:
        return _zeros_like(values, arrays), *raster.geometry_vjp(v_screen)
    given, cotangents = _given(values, arrays), _given(v_image, arrays, each=True)
    v_values = _zeros_like(given, arrays)
    _launch_pixels(
        raster, cuda_layers.paint_vjp, raster.screen, raster.faces, raster.ids, raster.samples, raster.perspective,
        given, cotangents, v_values, v_screen,
    )  # fmt: skip

    def jumps(pieces: CudaPieces, rows: Any, out: Any) -> None:
        arrays.launch(cuda_layers.paint_jumps, None, raster.faces, *pieces, given, rows, out)

    _add_edges(raster, cotangents, jumps, v_screen)
    return _spread(v_values, values, arrays), *raster.geometry_vjp(v_screen)


def paint_normals(raster: Any, normals: Any) -> Any:
    """(B, H, W, 3): the mean over all samples of the unit normal; normals (B, V, 3) of any length."""
    image = _image(raster, 3)
    _launch_pixels(
        raster, cuda_layers.paint_normals, raster.screen, raster.faces, raster.areas, raster.ids, raster.samples,
        raster.perspective, _given(normals, raster.arrays), image,
    )  # fmt: skip
    return image


def paint_normals_vjp(raster: Any, normals: Any, v_image: Any) -> tuple[Any, Any, Any]:
    """Cotangents of normals, points and intrinsics."""
    arrays = raster.arrays
    v_screen = _zeros_like(raster.screen, arrays)
    given, cotangents = _given(normals, arrays), _given(v_image, arrays, each=True)
    v_normals = _zeros_like(given, arrays)
    _launch_pixels(
        raster, cuda_layers.paint_normals_vjp, raster.screen, raster.faces, raster.areas, raster.ids, raster.samples,
        raster.perspective, given, cotangents, v_normals, v_screen,
    )  # fmt: skip

    def jumps(pieces: CudaPieces, rows: Any, out: Any) -> None:
        arrays.launch(cuda_layers.normal_jumps, None, raster.faces, raster.areas, *pieces, given, rows, out)

    _add_edges(raster, cotangents, jumps, v_screen)
    return _spread(v_normals, normals, arrays), *raster.geometry_vjp(v_screen)


def paint_color(raster: Any, flags: int, surface: Surface, light: Light) -> Any:
    """(B, H, W, 3): the mean over all samples of the linear colour."""
    image = _image(raster, 3)
    _launch_pixels(
        raster, cuda_shade.paint_color, raster.screen, raster.faces, raster.uv_faces, raster.areas, raster.ids,
        raster.samples, flags, *_all_given(surface, light, raster.arrays), image,
    )  # fmt: skip
    return image


def paint_color_vjp(
    raster: Any, flags: int, surface: Surface, light: Light, v_image: Any
) -> tuple[Surface, Light, Any, Any]:
    """Cotangents of surface, light (of `places` they are 0), points and intrinsics."""
    arrays = raster.arrays
    v_screen = _zeros_like(raster.screen, arrays)
    given, cotangents = _all_given(surface, light, arrays), _given(v_image, arrays, each=True)
    sh, lamps, places, gloss, eye = given[5:]
    v_surface = [_zeros_like(x, arrays) for x in given[:5]]
    v_sh, v_lamps = _zeros_like(sh, arrays), _zeros_like(lamps, arrays)
    v_gloss = arrays.full(gloss.shape[0], 1, 4, value=0)
    v_eye = arrays.full(eye.shape[0], 1, 3, value=0)
    dark, v_dark = arrays.full(1, 9, 3, value=0), arrays.full(1, 9, 3, value=0)
    tiles = len(raster.ids) * -(-raster.size[0] * raster.size[1] // cuda_shade.TILE)
    n_lamps = lamps.shape[1] if flags & LIT else 1
    for first in range(0, n_lamps, cuda_shade.MOST_LAMPS):
        arrays.launch(
            cuda_shade.paint_color_vjp, tiles * cuda_shade.THREADS, raster.screen, raster.faces, raster.uv_faces,
            raster.areas, raster.ids, raster.samples, flags, *given[:5], dark if first else sh, lamps, places, gloss,
            eye, first, cotangents, *v_surface, v_dark if first else v_sh, v_lamps, v_gloss, v_eye, v_screen,
        )  # fmt: skip

    def jumps(pieces: CudaPieces, rows: Any, out: Any) -> None:
        arrays.launch(
            cuda_shade.color_jumps, None, raster.faces, raster.uv_faces, raster.areas, *pieces, flags, *given, rows, out
        )

    _add_edges(raster, cotangents, jumps, v_screen)
    totals = (v_sh, v_lamps, arrays.full(*light.places.shape, value=0), v_gloss[:, 0], v_eye[:, 0])
    return (
        Surface(*(_spread(v, x, arrays) for v, x in zip(v_surface, surface, strict=True))),
        Light(*(_spread(v, x, arrays) for v, x in zip(totals, light, strict=True))),
        *raster.geometry_vjp(v_screen),
    )


def _image(raster: Any, channels: int) -> Any:
    return raster.arrays.full(raster.ids.shape[0], *raster.size, channels, value=0)


def _launch_pixels(raster: Any, kernel: Any, *arguments: Any) -> None:
    raster.arrays.launch(kernel, raster.ids.shape[0] * raster.size[0] * raster.size[1], *arguments)


def _add_edges(raster: Any, v_image: Any, jumps_of: Callable[[CudaPieces, Any, Any], None], v_screen: Any) -> None:
    """Adds to v_screen what the edges sweep over; jumps_of fills the jumps of pieces from v_image (B, H W, C)."""
    rows = v_image.reshape(v_image.shape[0], -1, v_image.shape[-1])
    for which in (OUTLINES, SEAMS) if raster.mesh.edges.has_seams else (OUTLINES,):
        pieces = raster.pieces(which)
        jumps = raster.arrays.empty(pieces.ints.shape[0])
        jumps_of(pieces, rows, jumps)
        scatter_edges(pieces, jumps, v_screen, raster.arrays)


def _all_given(surface: Surface, light: Light, arrays: DeviceArrays) -> list[Any]:
    """Surface's and light's arrays for a kernel."""
    return [_given(x, arrays) for x in (*surface, *light)]


def _repeated(array: Any) -> bool:
    """Whether an array is the same memory for every image."""
    stride = array.strides[0] if isinstance(array, np.ndarray) else array.stride(0)
    return array.shape[0] > 1 and stride == 0


def _given(array: Any, arrays: DeviceArrays, each: bool = False) -> Any:
    """The array as a kernel takes it: in the usual order, with one row where all are the same (or `each`), not empty,
    truth values as uint8."""
    if 0 in array.shape:
        kind = np.float32 if "float" in str(array.dtype) else np.uint8
        return arrays.full(1, *(max(n, 1) for n in array.shape[1:]), value=0, kind=kind)
    part = array[:1] if _repeated(array) and not each else array
    if isinstance(part, np.ndarray):
        plain = np.require(part, None, ["C", "W"])
        return plain.view(np.uint8) if plain.dtype == np.bool_ else plain
    plain = part.detach().contiguous()
    return plain if plain.is_floating_point() else plain.byte()


def _zeros_like(array: Any, arrays: DeviceArrays) -> Any:
    return arrays.full(*array.shape, value=0)


def _spread(total: Any, array: Any, arrays: DeviceArrays) -> Any:
    """The cotangent with the shape of its array."""
    if 0 in array.shape:
        return _zeros_like(array, arrays)
    if total.shape[0] == array.shape[0]:
        return total
    mean = total * np.float32(1 / array.shape[0]).item()
    return np.broadcast_to(mean, array.shape) if isinstance(mean, np.ndarray) else mean.expand(array.shape)
