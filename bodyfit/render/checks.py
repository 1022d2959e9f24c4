"""What `render` looks at before it draws: shapes, devices, numbers and indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from bodyfit.errors import DeviceError, InputError
from bodyfit.kernels.cpu_raster import all_below, all_within
from bodyfit.render.camera import RenderCamera
from bodyfit.render.extra import Tensor, torch
from bodyfit.render.layers import on_gpu
from bodyfit.render.scene import Lighting, Material, Texture

MAX_COORDINATE = 1e6


def batch_of(tensor: Tensor, own_axes: int) -> int:
    return tensor.shape[0] if tensor.ndim > own_axes else 1


def batched(field: str, tensor: Tensor, own_axes: int, n_batch: int) -> Tensor:
    """The tensor with a batch axis of n_batch before its own axes."""
    if tensor.ndim == own_axes:
        tensor = tensor[None]
    if tensor.shape[0] == n_batch:
        return tensor
    if tensor.shape[0] != 1:
        raise InputError(field, f"a batch of {n_batch} (or 1)", str(tensor.shape[0]))
    return tensor.expand(n_batch, *tensor.shape[1:])


def check_vertices(vertices: Tensor) -> Tensor:
    """Vertices (B, V, 3); their numbers are looked at elsewhere."""
    if not isinstance(vertices, torch.Tensor) or vertices.dtype not in (torch.float32, torch.float64):
        found = str(vertices.dtype) if isinstance(vertices, torch.Tensor) else type(vertices).__name__
        raise InputError("vertices", "a tensor of float32 or float64", found)
    if vertices.ndim not in (2, 3) or vertices.shape[-1] != 3:
        raise InputError("vertices", "shape (B, V, 3) or (V, 3)", str(tuple(vertices.shape)))
    if vertices.device.type not in ("cpu", "cuda"):
        raise DeviceError("vertices", "a tensor on the CPU or a CUDA device", str(vertices.device))
    points = vertices if vertices.ndim == 3 else vertices[None]
    if on_gpu(vertices) and vertices.dtype != torch.float32:
        raise InputError("vertices", "float32 on a CUDA device", str(vertices.dtype))
    return points


def check_devices(
    device: Any,
    view: RenderCamera,
    attributes: Tensor | None,
    texture: Texture | None,
    material: Material | None,
    lighting: Lighting | None,
    background: Tensor | None,
) -> None:
    """Refuses tensors that are not where the vertices are."""
    given: dict[str, Tensor | None] = {
        "camera.intrinsics": view.intrinsics,
        "camera.T_cam_world": view.pose,
        "vertex_attributes": attributes,
        "background": background,
    }
    if texture is not None:
        given |= {"texture.image": texture.image, "texture.uv": texture.uv}
    if material is not None:
        given |= {f"material.{k}": getattr(material, k) for k in ("albedo", "specular", "roughness")}
    if lighting is not None:
        given["lighting.sh"] = lighting.sh
        for k, sun in enumerate(lighting.directional):
            given |= {f"lighting.directional[{k}].{n}": getattr(sun, n) for n in ("direction", "irradiance")}
        for k, lamp in enumerate(lighting.points):
            given |= {f"lighting.points[{k}].{n}": getattr(lamp, n) for n in ("position", "intensity")}
    for name, tensor in given.items():
        if tensor is not None and tensor.device != device:
            raise DeviceError(name, f"a tensor on {device}, as the vertices", str(tensor.device))


def check_numbers(points: Tensor) -> None:
    """Refuses vertices (B, V, 3) that are not finite, or absurd; waits for a CUDA device."""
    plain = points.detach().cpu().numpy()
    if not all_within(plain.reshape(-1), MAX_COORDINATE):
        finite = np.isfinite(plain)
        if not finite.all():
            wrong = int((~finite).any(-1).sum())
            raise InputError("vertices", "finite numbers", f"{wrong} vertices with NaN or infinity")
        raise InputError("vertices", f"coordinates up to {MAX_COORDINATE:g} m", f"{np.abs(plain).max():g}")


def check_faces(field: str, faces: Any, n_rows: int, n_faces: int | None = None) -> Any:
    array = np.asarray(faces.detach().cpu().numpy() if isinstance(faces, torch.Tensor) else faces)
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "iu":
        raise InputError(field, "whole numbers of shape (F, 3)", f"{array.dtype} {array.shape}")
    if n_faces is not None and len(array) != n_faces:
        raise InputError(field, f"{n_faces} rows, one per face", str(len(array)))
    plain = np.ascontiguousarray(array, dtype=np.int32)
    # numbers that do not fit in 32 bits are looked at before they are cut off
    if array.size and not (all_below(plain.reshape(-1), n_rows) and (array is plain or (array == plain).all())):
        raise InputError(field, f"numbers from 0 to {n_rows - 1}", f"{array.min()} to {array.max()}")
    return plain


def check_uv_faces(texture: Texture, faces: Any) -> Any:
    n_rows = texture.uv.shape[-2]
    if texture.uv_faces is None:
        return check_faces("texture.uv (without uv_faces)", faces, n_rows)
    return check_faces("texture.uv_faces", texture.uv_faces, n_rows, len(faces))


def check_background(background: Tensor, n_batch: int, view: RenderCamera) -> Tensor:
    shape = tuple(background.shape)
    size = (view.height, view.width, 3)
    if shape not in ((3,), size, (1, *size), (n_batch, *size)):
        raise InputError("background", f"shape (3,), {size} or {(n_batch, *size)}", str(shape))
    if not on_gpu(background) and not bool(torch.isfinite(background.detach()).all()):
        raise InputError("background", "finite numbers", "NaN or infinity")
    return background
