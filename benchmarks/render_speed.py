"""How long the differentiable renderer takes on this machine: a table in Markdown.

    python benchmarks/render_speed.py [--repeat 40]

The default body in the T-pose before a camera 2.5 m away (vertical field of view 60°), one thread, an image of coverage
and depth, gradients to vertices with edges. CPU time is the one to compare on a machine that others use too. Where the
extra `mitsuba` is installed, its depth image and gradient are timed as well.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from bodyfit.body.model import load_body_model
from bodyfit.render.camera import RenderCamera
from bodyfit.render.render import NativeRenderer
from bodyfit.render.rendered import Renderer
from bodyfit.render.scene import DirectionalLight, Lighting

Images = Callable[[Any], tuple[torch.Tensor, ...]]


def times(task: Callable[[], Any], repeat: int) -> tuple[float, float, float]:
    """Median wall, median CPU and least wall milliseconds, after two calls that do not count."""
    task()
    task()
    wall, cpu = [], []
    for _ in range(repeat):
        start_wall, start_cpu = time.perf_counter(), time.process_time()
        task()
        cpu.append(time.process_time() - start_cpu)
        wall.append(time.perf_counter() - start_wall)
    return 1e3 * statistics.median(wall), 1e3 * statistics.median(cpu), 1e3 * min(wall)


def body(level: int) -> tuple[torch.Tensor, Any]:
    """Vertices (V, 3) of the default body in the T-pose about the origin, and its faces; level 0 is the whole mesh."""
    model = load_body_model()
    vertices, _ = model.forward(np.zeros(model.num_betas), np.zeros((model.num_joints, 3)))
    vertices = vertices - (vertices.max(0) + vertices.min(0)) / 2
    if level:
        chosen = model.levels[level - 1]
        return torch.tensor(vertices[chosen.vertex_ids], dtype=torch.float32), chosen.faces
    return torch.tensor(vertices, dtype=torch.float32), model.faces


def view(width: int, height: int) -> RenderCamera:
    """The camera of the table."""
    return RenderCamera.look_at(
        [0.0, 0.0, 2.5], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0], width=width, height=height, vfov_deg=60.0
    )


def measure(
    renderer: Renderer, images: Images, repeat: int, level: int = 0, width: int = 640, height: int = 480, **options: Any
) -> str:
    """Two cells of the table: forward; forward and backward."""
    vertices, faces = body(level)
    camera = view(width, height)
    moving = vertices.clone().requires_grad_()
    with torch.no_grad():
        shapes = images(renderer.render(vertices, faces, camera, **options))
    cotangents = [torch.randn(i.shape, generator=torch.Generator().manual_seed(k)) for k, i in enumerate(shapes)]

    def forward() -> None:
        with torch.no_grad():
            images(renderer.render(vertices, faces, camera, **options))

    def both() -> None:
        moving.grad = None
        torch.autograd.backward(images(renderer.render(moving, faces, camera, **options)), cotangents)

    def cell(t: tuple[float, float, float]) -> str:
        return f"{t[0]:.2f} / {t[1]:.2f} / {t[2]:.2f}"

    return f"{cell(times(forward, repeat))} | {cell(times(both, repeat))}"


def cover(drawn: Any) -> tuple[torch.Tensor, ...]:
    """Coverage and depth."""
    return drawn.alpha, drawn.premultiplied_depth


def everything(drawn: Any) -> tuple[torch.Tensor, ...]:
    """Coverage, depth and normals."""
    return drawn.alpha, drawn.premultiplied_depth, drawn.premultiplied_normals


def shaded(drawn: Any) -> tuple[torch.Tensor, ...]:
    """Coverage and colour."""
    return drawn.alpha, drawn.premultiplied_color


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=40)
    repeat = parser.parse_args().repeat
    torch.set_num_threads(1)
    native = NativeRenderer(threads=1)
    sun = DirectionalLight(torch.tensor([0.2, -0.5, -1.0]), torch.ones(3))
    lighting = Lighting(torch.linspace(0.8, -0.2, 27).reshape(9, 3), (sun,))
    print(f"milliseconds, median wall / median CPU / least wall of {repeat}; load {os.getloadavg()[0]:.1f}\n")
    print("| what | forward | forward and backward |\n|---|---|---|")
    print(f"| alpha, depth, 640×480, 27k triangles | {measure(native, cover, repeat)} |")
    print(f"| the same, 4 × 4 samples | {measure(native, cover, repeat, samples=4)} |")
    print(f"| alpha, depth, normals | {measure(native, everything, repeat)} |")
    print(f"| alpha, colour (harmonics, a directional light) | {measure(native, shaded, repeat, lighting=lighting)} |")
    for width, height in ((160, 120), (320, 240), (1280, 960)):
        print(f"| alpha, depth, {width}×{height} | {measure(native, cover, repeat, 0, width, height)} |")
    for level in (1, 2):
        n_faces = len(body(level)[1])
        print(f"| alpha, depth, 640×480, {n_faces} triangles | {measure(native, cover, repeat, level)} |")
    if find_spec("mitsuba") is not None and find_spec("bodyfit.render.mitsuba") is not None:
        from importlib import import_module

        other = import_module("bodyfit.render.mitsuba").MitsubaRenderer()
        print(f"| Mitsuba, alpha, depth, 640×480 | {measure(other, cover, 3)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
