"""Times the renderers beside each other: the shipped body, depth and coverage, forward and to the vertices.

    python benchmarks/renderers.py [--renderers native,mitsuba] [--repeat 10] [--out FIGURES.json]

Each figure is the median over the repetitions, after one that does not count: wall and CPU seconds (of all threads)
per image. One sample per pixel for native; Mitsuba takes the stated samples, since its images have noise.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from study import write_text

from bodyfit.body.model import load_body_model
from bodyfit.body.standing import standing_pose
from bodyfit.errors import BodyfitError
from bodyfit.render.camera import RenderCamera
from bodyfit.render.extra import Tensor, torch
from bodyfit.render.rendered import Renderer
from bodyfit.render.scene import DirectionalLight, Lighting, Material

SIZES = ((640, 480), (320, 240), (160, 120))


def body() -> tuple[Tensor, Tensor]:
    """The default body's vertices (V, 3), standing before a camera that looks along z, and faces (F, 3)."""
    model = load_body_model()
    vertices, _ = model.forward(model.priors["neutral"].mean, standing_pose(model))
    middle = 0.5 * (vertices.min(0) + vertices.max(0))
    # from the body's axes (y up, facing z) to the camera's
    points = (vertices - middle) * [1.0, -1.0, -1.0] + [0.0, 0.0, 2.4]
    return torch.tensor(points, dtype=torch.float32), torch.from_numpy(model.faces.astype(np.int64))


def timed(call: Callable[[], Any], repeat: int) -> dict[str, float]:
    """Median wall and CPU seconds."""
    call()
    wall, cpu = [], []
    for _ in range(repeat):
        w, c = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - w)
        cpu.append(time.process_time() - c)
    return {"wall_s": float(np.median(wall)), "cpu_s": float(np.median(cpu)), "n": repeat}


def figures(renderer: Renderer, repeat: int) -> dict[str, dict[str, float]]:
    """By what is drawn and at which size."""
    vertices, faces = body()
    lighting = Lighting(directional=(DirectionalLight(torch.tensor([0.3, 0.4, 1.0]), torch.ones(3)),))
    out = {}
    for width, height in SIZES:
        camera = RenderCamera(width, height, torch.tensor([1.1 * height, 1.1 * height, width / 2, height / 2]))

        def depth(camera: RenderCamera = camera) -> None:
            with torch.no_grad():
                image = renderer.render(vertices, faces, camera)
                assert image.premultiplied_depth is not None

        def depth_gradient(camera: RenderCamera = camera) -> None:
            moved = vertices.clone().requires_grad_(True)
            image = renderer.render(moved, faces, camera)
            (image.alpha.sum() + image.premultiplied_depth.sum()).backward()

        def color(camera: RenderCamera = camera) -> None:
            with torch.no_grad():
                material = Material(albedo=torch.full((3,), 0.7))
                assert renderer.render(vertices, faces, camera, material=material, lighting=lighting).color is not None

        size = f"{width}x{height}"
        out[f"depth, {size}"] = timed(depth, repeat)
        out[f"depth and gradient, {size}"] = timed(depth_gradient, repeat)
        if renderer.name != "redner":
            out[f"lit, {size}"] = timed(color, repeat)
    return out


def made(name: str) -> Renderer:
    """The renderer, with one sample per pixel where it can be chosen."""
    if name == "mitsuba":
        from bodyfit.render.mitsuba import MitsubaRenderer

        return MitsubaRenderer(oversampling=1)
    from bodyfit.render.backends import make_renderer

    return make_renderer(name)


def main() -> None:
    """Prints a table; writes all figures where asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--renderers", default="native,mitsuba", help="names with commas between them")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    report: dict[str, Any] = {}
    for name in asked.renderers.split(","):
        try:
            renderer = made(name)
        except BodyfitError as error:
            print(f"{name}: left out: {error}")
            continue
        report[name] = figures(renderer, asked.repeat)
    rows = sorted({row for by_row in report.values() for row in by_row})
    print(f"| ms, wall / CPU | {' | '.join(report)} |")
    print(f"|---|{'---:|' * len(report)}")
    for row in rows:
        cells = [by_row.get(row) for by_row in report.values()]
        shown = ["" if c is None else f"{1e3 * c['wall_s']:.1f} / {1e3 * c['cpu_s']:.1f}" for c in cells]
        print(f"| {row} | {' | '.join(shown)} |")
    if asked.out is not None:
        write_text(asked.out, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
