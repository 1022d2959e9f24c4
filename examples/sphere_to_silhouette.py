"""A sphere's vertices are moved until its outlines are those of another body, seen from three sides.

Sought is one displacement along the normal for each vertex; given are three silhouettes. A step of the gradient is
spread over the neighbours (Nicolet et al. 2021, "Large Steps in Inverse Rendering of Geometry"), or the rim alone
would move.
"""

from __future__ import annotations

import numpy as np
from gallery import Outcome, follow, main, picture
from shapes import icosphere

from bodyfit.render.camera import RenderCamera
from bodyfit.render.extra import Tensor, torch
from bodyfit.render.rendered import Renderer
from bodyfit.render.scene import DirectionalLight, Lighting, Material

RADIUS_M = 0.5
STIFFNESS = 6.0
PLACES = ((0.0, -3.0, 0.0), (3.0, 0.0, 0.4), (0.3, 0.2, 3.0))


def spread(faces: np.ndarray, count: int) -> Tensor:
    """(V, V) (1 + STIFFNESS · L)⁻¹ with L the mesh's uniform Laplacian."""
    L = np.zeros((count, count))
    for a, b in ((0, 1), (1, 2), (2, 0)):
        L[faces[:, a], faces[:, b]] = L[faces[:, b], faces[:, a]] = -1
    np.fill_diagonal(L, -L.sum(1))
    return torch.tensor(np.linalg.inv(np.eye(count) + STIFFNESS * L), dtype=torch.float32)


def pear(directions: Tensor) -> Tensor:
    """Radius of the sought body in a direction (V, 3): a pear with three low ribs."""
    x, y, z = directions.unbind(1)
    ribs = (x**3 - 3 * x * y**2) / (x**2 + y**2 + 0.2)
    return RADIUS_M * (1.0 - 0.28 * z + 0.22 * z**2 - 0.18 * torch.exp(-((z - 0.45) ** 2) / 0.05) + 0.30 * ribs)


def run(renderer: Renderer, size: int = 160, steps: int = 100, divisions: int = 3) -> Outcome:
    """Errors: outside_share, the pixels in which the silhouettes differ over those of the target."""
    corners, faces = icosphere(divisions)
    directions = torch.from_numpy(corners)
    soft = spread(faces, len(corners))
    cameras = [
        RenderCamera.look_at(place, (0, 0, 0), (0, 1, 0) if abs(place[2]) > 2 else (0, 0, 1),
                             width=size, height=size, vfov_deg=32)
        for place in PLACES
    ]  # fmt: skip
    light = Lighting(
        sh=torch.cat([torch.full((1, 3), 1.2), torch.zeros(8, 3)]),
        directional=(DirectionalLight(torch.tensor([0.8, 0.9, -0.9]), torch.full((3,), 2.0)),),
    )

    def silhouettes(radius: Tensor) -> list[Tensor]:
        vertices = directions * radius[:, None]
        return [renderer.render(vertices, faces, c, samples=2).alpha[0] for c in cameras]

    def shown(radius: Tensor) -> np.ndarray:
        image = renderer.render(
            directions * radius[:, None],
            faces,
            cameras[0],
            material=Material(albedo=torch.tensor([0.45, 0.60, 0.25])),
            lighting=light,
            background=torch.tensor([0.93, 0.94, 0.95]),
            samples=4,
        )
        assert image.color is not None
        return picture(image.color[0])

    moved = torch.zeros(len(corners))

    def radius() -> Tensor:
        return RADIUS_M + soft @ moved

    def differing() -> float:
        pairs = zip(silhouettes(radius()), target, strict=True)
        wrong = sum(float((a - b).abs().sum()) for a, b in pairs)
        return wrong / sum(float(b.sum()) for b in target)

    with torch.no_grad():
        target = silhouettes(pear(directions))
        before, start = differing(), shown(radius())
    losses = follow(
        [(moved, 0.06)],
        lambda: torch.stack([((a - b) ** 2).mean() for a, b in zip(silhouettes(radius()), target, strict=True)]).sum(),
        steps,
    )
    with torch.no_grad():
        after, found = differing(), shown(radius())
    return Outcome(
        {"start": start, "target": shown(pear(directions)), "found": found}, losses, {"outside_share": (before, after)}
    )


if __name__ == "__main__":
    main(run, __doc__ or "", size=160, steps=100)
