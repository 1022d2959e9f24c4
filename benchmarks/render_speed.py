"""How long the differentiable renderer takes on this machine: a table in Markdown.

    python benchmarks/render_speed.py [--repeat 40] [--plot benchmarks/render_speed.png]

The default body in the T-pose before a camera 2.5 m away (vertical field of view 60°), one thread, an image of coverage
and depth, gradients to vertices with edges. CPU time is the one to compare on a machine that others use too. Mitsuba
and redner are timed as well where they are installed, and named where they are not. `--plot` draws CPU time against
pixels and against triangles.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bodyfit.body.model import load_body_model
from bodyfit.errors import BodyfitError, OutputError
from bodyfit.render.backends import make_renderer
from bodyfit.render.camera import RenderCamera
from bodyfit.render.render import NativeRenderer
from bodyfit.render.rendered import Renderer
from bodyfit.render.scene import DirectionalLight, Lighting

Images = Callable[[Any], tuple[torch.Tensor, ...]]


class Times(NamedTuple):
    """Milliseconds: median wall, median CPU, least wall."""

    wall: float
    cpu: float
    least: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} / {self.cpu:.2f} / {self.least:.2f}"


class Cost(NamedTuple):
    """What one image costs: forward; forward and backward."""

    forward: Times
    both: Times

    def __str__(self) -> str:
        return f"{self.forward} | {self.both}"


def times(task: Callable[[], Any], repeat: int) -> Times:
    """After two calls that do not count."""
    task()
    task()
    wall, cpu = [], []
    for _ in range(repeat):
        start_wall, start_cpu = time.perf_counter(), time.process_time()
        task()
        cpu.append(time.process_time() - start_cpu)
        wall.append(time.perf_counter() - start_wall)
    return Times(1e3 * statistics.median(wall), 1e3 * statistics.median(cpu), 1e3 * min(wall))


def body(level: int) -> tuple[torch.Tensor, Any]:
    """Vertices (V, 3) of the default body in the T-pose about the origin, and its faces (F, 3).

    Level 0 is the whole mesh, 1 and 2 coarser ones, -1 the whole mesh with each triangle cut into four.
    """
    model = load_body_model()
    vertices, _ = model.forward(np.zeros(model.num_betas), np.zeros((model.num_joints, 3)))
    vertices = vertices - (vertices.max(0) + vertices.min(0)) / 2
    faces = model.faces
    if level > 0:
        chosen = model.levels[level - 1]
        vertices, faces = vertices[chosen.vertex_ids], chosen.faces
    elif level < 0:
        edges = np.stack([faces, np.roll(faces, -1, axis=1)], axis=2).reshape(-1, 2)
        ends, number = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True)
        ab, bc, ca = (len(vertices) + number.reshape(-1, 3)).T
        a, b, c = faces.T
        vertices = np.concatenate([vertices, vertices[ends].mean(1)])
        parts = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = np.concatenate([np.stack(p, axis=1) for p in parts]).astype(np.int32)
    return torch.tensor(vertices, dtype=torch.float32), faces


def view(width: int, height: int) -> RenderCamera:
    """The camera of the table."""
    return RenderCamera.look_at(
        [0.0, 0.0, 2.5], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0], width=width, height=height, vfov_deg=60.0
    )


def measure(
    renderer: Renderer, images: Images, repeat: int, level: int = 0, width: int = 640, height: int = 480, **options: Any
) -> Cost:
    """What an image costs, without gradients and with those of random cotangents to the vertices."""
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

    return Cost(times(forward, repeat), times(both, repeat))


def cover(drawn: Any) -> tuple[torch.Tensor, ...]:
    """Coverage and depth."""
    return drawn.alpha, drawn.premultiplied_depth


def everything(drawn: Any) -> tuple[torch.Tensor, ...]:
    """Coverage, depth and normals."""
    return drawn.alpha, drawn.premultiplied_depth, drawn.premultiplied_normals


def shaded(drawn: Any) -> tuple[torch.Tensor, ...]:
    """Coverage and colour."""
    return drawn.alpha, drawn.premultiplied_color


INK, PAPER, FAINT = (40, 40, 40), 255, (225, 225, 225)
COLORS = ((180, 110, 20), (40, 70, 200))
PANEL = (430, 330)


def draw_panel(title: str, unit: str, costs: dict[float, Cost]) -> Any:
    """A picture (H, W, 3) of CPU milliseconds, forward and with gradient, against pixels or triangles; log scales."""
    import cv2

    width, height = PANEL
    left, right, top, bottom = 60, width - 20, 40, height - 55
    xs = sorted(costs)
    values = [t for c in costs.values() for t in (c.forward.cpu, c.both.cpu)]
    ticks = [k * 10.0**e for e in range(-2, 4) for k in (1, 2, 5)]
    low = max(t for t in ticks if t <= min(values))
    high = min(t for t in ticks if t >= max(values))

    def place(x: float, y: float) -> tuple[int, int]:
        across = np.log(x / xs[0]) / np.log(xs[-1] / xs[0])
        up = np.log(y / low) / np.log(high / low)
        return round(left + across * (right - left)), round(bottom - up * (bottom - top))

    image = np.full((height, width, 3), PAPER, np.uint8)

    def text(words: str, x: int, y: int, color: tuple[int, int, int] = INK, middle: bool = False) -> None:
        size = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0]
        at = (min(x - size // 2, width - size - 2) if middle else x, y)
        cv2.putText(image, words, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, 1, cv2.LINE_AA)

    for tick in (t for t in ticks if low <= t <= high):
        y = place(xs[0], tick)[1]
        cv2.line(image, (left, y), (right, y), FAINT, 1)
        text(f"{tick:g}", 22, y + 4)
    for x in xs:
        text(f"{x / 1000:.0f}k" if x >= 1e4 else f"{x / 1000:.1f}k", place(x, low)[0], bottom + 18, middle=True)
    text(title, left, 22)
    text(unit, (left + right) // 2, bottom + 40, middle=True)
    for n, (name, color) in enumerate(zip(("forward", "forward and backward"), COLORS, strict=True)):
        points = [place(x, costs[x][n].cpu) for x in xs]
        cv2.polylines(image, [np.array(points, np.int32)], False, color, 2, cv2.LINE_AA)
        for point in points:
            cv2.circle(image, point, 4, color, -1, cv2.LINE_AA)
        text(name, left + 10, top + 14 + 18 * n, color)
    return image


def write_plot(path: Path, by_pixels: dict[float, Cost], by_triangles: dict[float, Cost]) -> None:
    """Writes both panels side by side as a PNG, under a temporary name first."""
    import cv2

    panels = [
        draw_panel("CPU ms, 27k triangles", "pixels", by_pixels),
        draw_panel("CPU ms, 640 x 480", "triangles", by_triangles),
    ]
    done, data = cv2.imencode(".png", np.concatenate(panels, axis=1), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise OutputError(str(path), "a picture that can be written as PNG", "a failure of the encoder")
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data.tobytes())
    temporary.replace(path)


def main() -> int:
    """Prints the table; draws the plot where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=40)
    parser.add_argument("--plot", type=Path, help="a PNG of cost against resolution and triangles")
    asked = parser.parse_args()
    repeat: int = asked.repeat
    torch.set_num_threads(1)
    native = NativeRenderer(threads=1)
    sun = DirectionalLight(torch.tensor([0.2, -0.5, -1.0]), torch.ones(3))
    lighting = Lighting(torch.linspace(0.8, -0.2, 27).reshape(9, 3), (sun,))
    print(f"milliseconds, median wall / median CPU / least wall of {repeat}; load {os.getloadavg()[0]:.1f}\n")
    print("| what | forward | forward and backward |\n|---|---|---|")
    usual = measure(native, cover, repeat)
    print(f"| alpha, depth, 640×480, 27k triangles | {usual} |")
    print(f"| the same, 4 × 4 samples | {measure(native, cover, repeat, samples=4)} |")
    print(f"| alpha, depth, normals | {measure(native, everything, repeat)} |")
    print(f"| alpha, colour (harmonics, a directional light) | {measure(native, shaded, repeat, lighting=lighting)} |")
    by_pixels: dict[float, Cost] = {640.0 * 480: usual}
    for width, height in ((160, 120), (320, 240), (1280, 960)):
        by_pixels[width * height] = measure(native, cover, repeat, 0, width, height)
        print(f"| alpha, depth, {width}×{height} | {by_pixels[width * height]} |")
    by_triangles: dict[float, Cost] = {float(len(body(0)[1])): usual}
    for level in (-1, 1, 2):
        n_faces = len(body(level)[1])
        by_triangles[n_faces] = measure(native, cover, repeat, level)
        print(f"| alpha, depth, 640×480, {n_faces} triangles | {by_triangles[n_faces]} |")
    # last: their threads go on spinning, which would count as CPU time of what comes after
    missing = []
    for name in ("mitsuba", "redner"):
        try:
            other = make_renderer(name)
        except BodyfitError as error:
            missing.append(str(error))
            print(f"| alpha, depth, 640×480, {name} | not installed | not installed |")
            continue
        print(f"| alpha, depth, 640×480, {name}, median of 3 | {measure(other, cover, 3)} |", flush=True)
    for message in missing:
        print(f"\n{message}")
    if asked.plot is not None:
        write_plot(asked.plot, by_pixels, by_triangles)
    return 0


if __name__ == "__main__":
    sys.exit(main())
