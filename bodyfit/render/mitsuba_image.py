"""A Mitsuba scene's image as an operation of torch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from bodyfit.render.extra import Tensor, torch
from bodyfit.render.mitsuba_plugins import load_mitsuba

OTHER_NUMBERS = 0x5BD1E995
"""the gradient takes other random numbers than the image: the same ones would bias the gradient of a squared error"""


class MitsubaImage(torch.autograd.Function):
    """Image (H, W, 3) of a scene (a dictionary for `mitsuba.load_dict`) as a function of its named parameters."""

    @staticmethod
    def forward(ctx: Any, scene: dict[str, Any], names: list[str], seed: int, spp: int, *values: Tensor) -> Tensor:
        mi = load_mitsuba()
        made = mi.load_dict(scene)
        params = mi.traverse(made)
        for name, value in zip(names, values, strict=True):
            # the meshes were made with their vertices; setting them again would build the ray tracer's tree again
            if not name.endswith("vertex_positions"):
                params[name] = _of_kind(mi, params[name], value)
        params.update()
        image = np.array(mi.render(made, seed=seed, spp=spp))
        ctx.made, ctx.names, ctx.seed, ctx.spp = made, names, seed, spp
        ctx.save_for_backward(*values)
        return torch.from_numpy(image).to(values[0].dtype)

    @staticmethod
    def backward(ctx: Any, *v_images: Tensor) -> Any:
        mi, dr = load_mitsuba(), import_module("drjit")
        params = mi.traverse(ctx.made)
        leaves: dict[str, Any] = {}
        for name, value, needed in zip(ctx.names, ctx.saved_tensors, ctx.needs_input_grad[4:], strict=True):
            if needed:
                # a new array each: the environment's own one would take the gradient of its padded copy only
                leaves[name] = _of_kind(mi, params[name], value)
                dr.enable_grad(leaves[name])
                params[name] = leaves[name]
        params.update()
        v_image = mi.TensorXf(v_images[0].detach().float().contiguous().numpy())
        made = ctx.made
        made.integrator().render_backward(
            made, params, v_image, made.sensors()[0], seed=ctx.seed ^ OTHER_NUMBERS, spp=ctx.spp
        )
        out: list[Tensor | None] = []
        for name, value in zip(ctx.names, ctx.saved_tensors, strict=True):
            if name not in leaves:
                out.append(None)
                continue
            gradient = np.array(dr.grad(leaves[name]), dtype=np.float32)
            out.append(torch.from_numpy(gradient.reshape(value.shape)).to(value.dtype))
            params[name] = dr.detach(leaves[name])
        params.update()
        return None, None, None, None, *out


def _of_kind(mi: Any, there: Any, value: Tensor) -> Any:
    """The value as the type of what is there."""
    numbers = value.detach().float().contiguous()
    if isinstance(there, mi.TensorXf):
        return mi.TensorXf(numbers.numpy())
    if isinstance(there, mi.Color3f):
        return mi.Color3f(*numbers.tolist())
    return mi.Float(numbers.reshape(-1).numpy())
