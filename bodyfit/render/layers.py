"""The images of a raster as torch operations: forward from the raster, backward through its `_vjp` methods."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.autograd.function import once_differentiable

from bodyfit.kernels import cpu_layers
from bodyfit.kernels import cpu_raster as kernels
from bodyfit.kernels.cpu_shade import Light, Surface
from bodyfit.render.extra import Tensor, torch


def on_gpu(tensor: Tensor) -> bool:
    """Whether the tensor is drawn by a CUDA device."""
    return tensor.is_cuda


def to_array(tensor: Tensor, whole: bool = False) -> Any:
    """The tensor's memory as an array, in the usual order; a batch that is one thing repeated stays one if not `whole`.

    A tensor of a CUDA device stays a tensor there.
    """
    plain = tensor.detach()
    if not whole and plain.ndim > 1 and plain.shape[0] > 0 and plain.stride(0) == 0:
        plain = plain[:1].contiguous().expand(plain.shape)
    else:
        plain = plain.contiguous()
    return plain if on_gpu(plain) else plain.numpy()


def to_tensor(array: Any) -> Tensor:
    """The tensor of what a raster made."""
    return array.detach() if isinstance(array, torch.Tensor) else torch.from_numpy(array)


class MovePoints(torch.autograd.Function):
    """Points (B, V, 3) in the frame of poses (B, 4, 4); see `move_points`."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, pose: Tensor, moved: Any) -> Tensor:
        ctx.save_for_backward(points, pose)
        return torch.from_numpy(moved)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_moved: Tensor) -> Any:
        given, poses = (to_array(t) for t in ctx.saved_tensors)
        cotangents, both = to_array(v_moved), ctx.needs_input_grad[1]
        v_points, v_pose = np.empty(given.shape, given.dtype), np.zeros(poses.shape, np.float64)
        for b in range(len(given)):
            kernels.move_points_vjp(given[b], poses[b], cotangents[b], both, v_points[b], v_pose[b])
        return torch.from_numpy(v_points), torch.from_numpy(v_pose.astype(given.dtype)) if both else None, None


def move_points(points: Tensor, pose: Tensor, most: float) -> tuple[Tensor, float, bool]:
    """Points (B, V, 3) in the frame of poses (B, 4, 4), on the CPU.

    Also their smallest z, and whether all points given are finite numbers between -most and most.
    """
    given, poses = to_array(points), to_array(pose)
    moved = np.empty(given.shape, given.dtype)
    told = [kernels.move_points(given[b], poses[b], most, moved[b]) for b in range(len(given))]
    nearest, within = min((z for z, _ in told), default=np.inf), all(fine for _, fine in told)
    if torch.is_grad_enabled() and (points.requires_grad or pose.requires_grad):
        return MovePoints.apply(points, pose, moved), nearest, within  # type: ignore[return-value]
    return torch.from_numpy(moved), nearest, within


class Cover(torch.autograd.Function):
    """(alpha, premultiplied depth) of camera points (B, V, 3) and intrinsics (B, 4)."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, intrinsics: Tensor, raster: Any) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(points, intrinsics)  # so that torch refuses where they were changed in the meantime
        ctx.raster = raster
        return to_tensor(raster.alpha), to_tensor(raster.depth)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_alpha: Tensor, v_depth: Tensor) -> Any:
        _ = ctx.saved_tensors
        v_points, v_intrinsics = ctx.raster.cover_vjp(to_array(v_alpha, whole=True), to_array(v_depth, whole=True))
        return to_tensor(v_points), to_tensor(v_intrinsics), None


def cover(points: Tensor, intrinsics: Tensor, raster: Any) -> tuple[Tensor, Tensor]:
    """Coverage and premultiplied depth, with gradient where one is asked for."""
    if torch.is_grad_enabled() and (points.requires_grad or intrinsics.requires_grad):
        return Cover.apply(points, intrinsics, raster)  # type: ignore[return-value]
    return to_tensor(raster.alpha), to_tensor(raster.depth)


class Paint(torch.autograd.Function):
    """Premultiplied attributes (B, H, W, C) of vertex values (B, V, C)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, points: Tensor, intrinsics: Tensor, raster: Any) -> Tensor:
        ctx.save_for_backward(values, points, intrinsics)
        ctx.raster = raster
        return to_tensor(raster.paint(to_array(values)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_image: Tensor) -> Any:
        values = to_array(ctx.saved_tensors[0])
        return (*(to_tensor(v) for v in ctx.raster.paint_vjp(values, to_array(v_image))), None)


class PaintNormals(torch.autograd.Function):
    """Premultiplied unit normals (B, H, W, 3) of vertex normals (B, V, 3) of any length."""

    @staticmethod
    def forward(ctx: Any, normals: Tensor, points: Tensor, intrinsics: Tensor, raster: Any) -> Tensor:
        ctx.save_for_backward(normals, points, intrinsics)
        ctx.raster = raster
        return to_tensor(raster.paint_normals(to_array(normals)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_image: Tensor) -> Any:
        normals = to_array(ctx.saved_tensors[0])
        return (*(to_tensor(v) for v in ctx.raster.paint_normals_vjp(normals, to_array(v_image))), None)


class PaintColor(torch.autograd.Function):
    """Premultiplied linear colour (B, H, W, 3); `tensors` are those of Surface, then those of Light."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, intrinsics: Tensor, raster: Any, flags: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(points, intrinsics, *tensors)
        ctx.raster, ctx.flags = raster, flags
        arrays = [to_array(t) for t in tensors]
        return to_tensor(raster.paint_color(flags, Surface(*arrays[:5]), Light(*arrays[5:])))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_image: Tensor) -> Any:
        arrays = [to_array(t) for t in ctx.saved_tensors[2:]]
        v_surface, v_light, v_points, v_intrinsics = ctx.raster.paint_color_vjp(
            ctx.flags, Surface(*arrays[:5]), Light(*arrays[5:]), to_array(v_image)
        )
        cotangents = [to_tensor(v) for v in (*v_surface, *v_light)]
        needs = ctx.needs_input_grad[4:]
        rest = [v if need else None for v, need in zip(cotangents, needs, strict=True)]
        return to_tensor(v_points), to_tensor(v_intrinsics), None, None, *rest


class VertexNormals(torch.autograd.Function):
    """Sums (B, V, 3) of the area normals about each vertex of points (B, V, 3).

    faces (F, 3) int32 lie where the points do; `device` makes arrays there, None on the CPU.
    """

    @staticmethod
    def forward(ctx: Any, points: Tensor, faces: Any, device: Any) -> Tensor:
        ctx.save_for_backward(points)
        ctx.faces, ctx.device = faces, device
        if device is not None:
            from bodyfit.render import cuda_normals

            return to_tensor(cuda_normals.sum_normals(to_array(points, whole=True), faces, device))
        arrays = to_array(points)
        normals = np.zeros(arrays.shape, arrays.dtype)
        for b in range(len(arrays)):
            cpu_layers.sum_normals(arrays[b], faces, normals[b])
        return torch.from_numpy(normals)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_normals: Tensor) -> Any:
        whole = ctx.device is not None
        points, cotangents = to_array(ctx.saved_tensors[0], whole), to_array(v_normals, whole)
        if ctx.device is not None:
            from bodyfit.render import cuda_normals

            return to_tensor(cuda_normals.sum_normals_vjp(points, ctx.faces, cotangents, ctx.device)), None, None
        v_points = np.zeros(points.shape, points.dtype)
        for b in range(len(points)):
            cpu_layers.sum_normals_vjp(points[b], ctx.faces, cotangents[b], v_points[b])
        return torch.from_numpy(v_points), None, None
