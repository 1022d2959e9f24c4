"""A rotated square is turned upright: the gradient of its edges alone says where to.

Sought are the square's angle, place and size; given is an image of the upright one. All colour is constant, so that
everything is in the boundary part of the gradient.
"""

from __future__ import annotations

import math

from gallery import Outcome, follow, main, picture
from shapes import square

from bodyfit.render.camera import RenderCamera
from bodyfit.render.extra import Tensor, torch
from bodyfit.render.rendered import Renderer
from bodyfit.render.scene import Material

START_DEG, START_SHIFT, START_SCALE = 32.0, (0.16, -0.12), 0.8


def run(renderer: Renderer, size: int = 160, steps: int = 80) -> Outcome:
    """Errors: angle_deg, shift, scale (a share)."""
    corners, faces = square()
    flat = torch.from_numpy(corners)
    camera = RenderCamera.look_at((0, 0, 2.2), (0, 0, 0), (0, 1, 0), width=size, height=size, vfov_deg=45)
    material = Material(albedo=torch.tensor([0.9, 0.45, 0.1]))
    background = torch.tensor([0.93, 0.94, 0.95])

    def drawn(angle: Tensor, shift: Tensor, scale: Tensor, samples: int = 4) -> Tensor:
        c, s = torch.cos(angle), torch.sin(angle)
        turn = torch.stack([torch.stack([c, -s]), torch.stack([s, c])])
        placed = scale * flat[:, :2] @ turn.T + shift
        vertices = torch.cat([placed, torch.zeros(4, 1)], 1)
        image = renderer.render(vertices, faces, camera, material=material, background=background, samples=samples)
        assert image.color is not None
        return image.color[0]

    angle = torch.tensor(math.radians(START_DEG))
    shift, scale = torch.tensor(START_SHIFT), torch.tensor(START_SCALE)
    with torch.no_grad():
        target = drawn(torch.tensor(0.0), torch.zeros(2), torch.tensor(1.0))
        start = picture(drawn(angle, shift, scale))
    losses = follow(
        [(angle, 0.05), (shift, 0.02), (scale, 0.02)],
        lambda: ((drawn(angle, shift, scale) - target) ** 2).mean(),
        steps,
    )
    with torch.no_grad():
        found = picture(drawn(angle, shift, scale))
    return Outcome(
        {"start": start, "target": picture(target), "found": found},
        losses,
        {
            "angle_deg": (START_DEG, abs(math.degrees(float(angle.detach())))),
            "shift": (math.hypot(*START_SHIFT), float(shift.detach().norm())),
            "scale": (1 - START_SCALE, abs(float(scale.detach()) - 1)),
        },
    )


if __name__ == "__main__":
    main(run, __doc__ or "", size=160, steps=80)
