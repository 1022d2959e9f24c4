"""Where is the lamp, and how bright is it? Its place and intensity from the shading of a ball and a jug on a table."""

from __future__ import annotations

import numpy as np
from gallery import Outcome, follow, main, picture
from shapes import icosphere, joined, jug

from bodyfit.render.camera import RenderCamera
from bodyfit.render.extra import Tensor, torch
from bodyfit.render.rendered import Renderer
from bodyfit.render.scene import Lighting, PointLight

TRUE_PLACE, START_PLACE = (-0.35, -0.30, 0.55), (0.45, 0.05, 0.35)
TRUE_INTENSITY, START_INTENSITY = (1.1, 0.9, 0.6), (0.4, 0.4, 0.4)


def table_with_things() -> tuple[Tensor, Tensor, Tensor]:
    """Vertices (V, 3), faces (F, 3) and colours (V, 3)."""
    ball, ball_faces = icosphere(3)
    jug_vertices, jug_faces = jug(32)
    side = torch.linspace(-0.6, 0.6, 13)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).reshape(-1, 2)
    table = torch.cat([grid, torch.zeros(len(grid), 1)], 1).numpy()
    squares = [f for r in range(12) for c in range(12) for f in _square(r * 13 + c, 13)]
    parts = (
        (ball * 0.09 + np.array([-0.19, -0.10, 0.09]), ball_faces, (0.75, 0.20, 0.15)),
        (jug_vertices + np.array([0.06, 0.08, 0.0]), jug_faces, (0.80, 0.78, 0.72)),
        (table, torch.tensor(squares).numpy(), (0.45, 0.42, 0.38)),
    )
    vertices, faces = joined(*((v.astype("float32"), f) for v, f, _ in parts))
    colors = torch.cat([torch.tensor(c).expand(len(v), 3) for v, _, c in parts])
    return torch.from_numpy(vertices), torch.from_numpy(faces), colors


def _square(first: int, row: int) -> list[tuple[int, int, int]]:
    a, b, c, d = first, first + 1, first + 1 + row, first + row
    return [(a, b, c), (a, c, d)]


def run(renderer: Renderer, size: int = 160, steps: int = 200) -> Outcome:
    """Errors: place_m, intensity (the largest of three channels, a share of the true one)."""
    vertices, faces, colors = table_with_things()
    camera = RenderCamera.look_at((0.25, -1.0, 0.62), (-0.02, 0, 0.08), (0, 0, 1), width=size, height=size, vfov_deg=30)
    sky = torch.cat([torch.full((1, 3), 0.15), torch.zeros(8, 3)])

    def drawn(place: Tensor, intensity: Tensor, samples: int = 1) -> Tensor:
        image = renderer.render(
            vertices,
            faces,
            camera,
            vertex_attributes=colors,
            lighting=Lighting(sh=sky, points=(PointLight(place, intensity.clamp_min(0)),)),
            background=torch.tensor([0.02, 0.02, 0.02]),
            samples=samples,
        )
        assert image.color is not None
        return image.color[0]

    truth = torch.tensor(TRUE_PLACE), torch.tensor(TRUE_INTENSITY)
    place, intensity = torch.tensor(START_PLACE), torch.tensor(START_INTENSITY)

    def errors() -> tuple[float, float]:
        share = (intensity.detach() - truth[1]).abs() / truth[1]
        return float((place.detach() - truth[0]).norm()), float(share.max())

    with torch.no_grad():
        target, start, shown = drawn(*truth), picture(drawn(place, intensity, 3)), picture(drawn(*truth, 3))
    before = errors()
    losses = follow([(place, 0.05), (intensity, 0.05)], lambda: ((drawn(place, intensity) - target) ** 2).mean(), steps)
    with torch.no_grad():
        found = picture(drawn(place, intensity, 3))
    after = errors()
    return Outcome(
        {"start": start, "target": shown, "found": found},
        losses,
        {"place_m": (before[0], after[0]), "intensity": (before[1], after[1])},
    )


if __name__ == "__main__":
    main(run, __doc__ or "", size=160, steps=200)
