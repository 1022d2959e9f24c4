"""Gradients of drawn images against central differences of the same images sampled finely."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from render_scenes import box_filtered, finer, images

from bodyfit.render.camera import RenderCamera
from bodyfit.render.render import RenderContext, render

Scene = Callable[[torch.Tensor], tuple[torch.Tensor, Any, RenderCamera, dict[str, Any]]]
"""What to draw for given parameters (P,): vertices, faces, camera and the other arguments of `render`."""


class Check(NamedTuple):
    """Derivatives (P,) of one weighted sum over the images: ours, central differences with step h and with h / 2."""

    ours: torch.Tensor
    difference: torch.Tensor
    halved: torch.Tensor

    def error(self, floor: float = 0.1) -> float:
        """The largest error, relative to the derivative or to `floor` times the largest one, whichever is more."""
        return self._largest(self.ours, floor)

    def unconverged(self, floor: float = 0.1) -> float:
        """The same for the two differences."""
        return self._largest(self.difference, floor)

    def _largest(self, other: torch.Tensor, floor: float) -> float:
        scale = self.halved.abs().clamp_min(floor * float(self.halved.abs().max()))
        return float(((other - self.halved).abs() / scale).max())


def smooth_weights(view: RenderCamera, channels: int) -> torch.Tensor:
    """(1, H, W, C): what each pixel and channel counts; slow waves, so that the loss is a generic one."""
    y, x = torch.meshgrid(
        torch.arange(view.height, dtype=torch.float64) / view.height,
        torch.arange(view.width, dtype=torch.float64) / view.width,
        indexing="ij",
    )
    waves = [1.0 + torch.sin(5.0 * x + 1.3 * c) * torch.cos(4.0 * y - 0.9 * c) + 0.7 * x for c in range(channels)]
    return torch.stack(waves, dim=-1)[None]


def check(
    scene: Scene, names: tuple[str, ...], n_params: int, *, samples: int = 4, by: int = 20, step: float = 6e-3
) -> dict[str, Check]:
    """Compares each named image at parameters 0: ours at `samples`, differences at 6 · by² samples a pixel.

    The fine samples are six shifted grids, so that an edge along a row or column does not jump over all at once.
    """
    context = RenderContext(threads=1)
    params = torch.zeros(n_params, dtype=torch.float64, requires_grad=True)
    vertices, faces, view, options = scene(params)
    drawn = render(vertices, faces, view, samples=samples, context=context, **options)
    weights, ours = {}, {}
    for name in names:
        image = images(drawn, (name,))
        weights[name] = smooth_weights(view, image.shape[-1])
        (ours[name],) = torch.autograd.grad((image * weights[name]).sum(), params, retain_graph=True)

    def losses(at: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(len(names), dtype=torch.float64)
        with torch.no_grad():
            moved, faces, camera, options = scene(at)
            for k in range(6):
                grid = finer(camera, by, (k + 0.5) / 6 - 0.5, (k * 0.618034) % 1.0 - 0.5)
                fine = render(moved, faces, grid, context=context, **options)
                for n, name in enumerate(names):
                    total[n] += (box_filtered(images(fine, (name,)), by) * weights[name]).sum() / 6
        return total

    differences = []
    for h in (step, step / 2):
        rows = []
        for k in range(n_params):
            at = torch.zeros(n_params, dtype=torch.float64)
            at[k] = h
            rows.append((losses(at) - losses(-at)) / (2 * h))
        differences.append(torch.stack(rows, dim=1))
    return {name: Check(ours[name], differences[0][n], differences[1][n]) for n, name in enumerate(names)}
