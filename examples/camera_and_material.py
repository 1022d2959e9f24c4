"""Where was the camera, and what is the jug made of? Pose, colour, gloss and roughness from one picture."""

from __future__ import annotations

from gallery import Outcome, follow, main, picture
from shapes import jug

from bodyfit.render.camera import RenderCamera
from bodyfit.render.extra import Tensor, torch
from bodyfit.render.rendered import Renderer
from bodyfit.render.scene import DirectionalLight, Lighting, Material

MIDDLE = (0.02, 0.0, 0.14)
TRUE_TURN, START_TURN = (0.0, 0.0, 0.0), (0.10, -0.30, 0.08)
TRUE_MOVE, START_MOVE = (0.0, 0.0, 0.0), (0.03, 0.02, 0.08)
TRUE_ALBEDO, START_ALBEDO = (0.10, 0.32, 0.55), (0.5, 0.5, 0.5)
TRUE_GLOSS, START_GLOSS = (0.08, 0.32), (0.03, 0.6)


def daylight() -> Lighting:
    """A bright sky above, a window to the left, a weak lamp to the right."""
    sh = torch.zeros(9, 3)
    sh[0] = torch.tensor([1.1, 1.15, 1.25])
    sh[2] = torch.tensor([0.45, 0.47, 0.52])
    return Lighting(
        sh=sh,
        directional=(
            DirectionalLight(torch.tensor([0.8, 0.9, -0.9]), torch.tensor([2.2, 2.1, 1.9])),
            DirectionalLight(torch.tensor([-1.0, 0.5, -0.4]), torch.tensor([0.7, 0.7, 0.8])),
        ),
    )


def turned(axis_angle: Tensor) -> Tensor:
    """(3, 3) rotation of (3,) radians."""
    zero = torch.zeros(())
    x, y, z = axis_angle
    rows = [torch.stack([zero, -z, y]), torch.stack([z, zero, -x]), torch.stack([-y, x, zero])]
    return torch.linalg.matrix_exp(torch.stack(rows))


def run(renderer: Renderer, size: int = 160, steps: int = 160) -> Outcome:
    """Errors: camera_m and camera_deg, albedo (the largest of three channels), specular, roughness."""
    corners, faces = jug()
    vertices, lighting = torch.from_numpy(corners), daylight()
    background = torch.tensor([0.80, 0.80, 0.78])
    usual = RenderCamera.look_at((0.35, -0.75, 0.42), MIDDLE, (0, 0, 1), width=size, height=size, vfov_deg=32)
    middle_cam = usual.pose[:3, :3] @ torch.tensor(MIDDLE) + usual.pose[:3, 3]

    def pose(turn: Tensor, move: Tensor) -> Tensor:
        """The usual pose, turned about the jug's middle and moved, in the camera's axes."""
        R = turned(turn)
        t = R @ (usual.pose[:3, 3] - middle_cam) + middle_cam + move
        return torch.cat([torch.cat([R @ usual.pose[:3, :3], t[:, None]], 1), torch.tensor([[0.0, 0, 0, 1]])])

    def seen(parameters: list[Tensor], samples: int = 2) -> Tensor:
        turn, move, albedo, gloss = parameters
        camera = RenderCamera(size, size, usual.intrinsics, pose(turn, move))
        kept = torch.exp(gloss).clamp_max(1.0)
        image = renderer.render(
            vertices,
            faces,
            camera,
            material=Material(albedo.clamp(0, 1), kept[0].expand(3), kept[1]),
            lighting=lighting,
            background=background,
            samples=samples,
        )
        assert image.color is not None
        return image.color[0]

    # gloss and roughness as logarithms: what counts is by which factor they are off
    truth = [torch.tensor(v) for v in (TRUE_TURN, TRUE_MOVE, TRUE_ALBEDO)] + [torch.tensor(TRUE_GLOSS).log()]
    sought = [torch.tensor(v) for v in (START_TURN, START_MOVE, START_ALBEDO)] + [torch.tensor(START_GLOSS).log()]
    with torch.no_grad():
        target, start = seen(truth), picture(seen(sought, 4))

    def errors() -> dict[str, float]:
        turn, move, albedo, gloss = (s.detach() for s in sought)
        there, here = torch.linalg.inv(pose(truth[0], truth[1])), torch.linalg.inv(pose(turn, move))
        return {
            "camera_m": float((there[:3, 3] - here[:3, 3]).norm()),
            "camera_deg": float(torch.rad2deg(turn.norm())),
            "albedo": float((albedo - truth[2]).abs().max()),
            "specular": abs(float(gloss[0].exp()) - TRUE_GLOSS[0]),
            "roughness": abs(float(gloss[1].exp()) - TRUE_GLOSS[1]),
        }

    before = errors()
    losses = follow(
        list(zip(sought, (0.02, 0.006, 0.03, 0.05), strict=True)),
        lambda: ((seen(sought) - target) ** 2).mean(),
        steps,
    )
    with torch.no_grad():
        found, shown = picture(seen(sought, 4)), seen(truth, 4)
    after = errors()
    return Outcome(
        {"start": start, "target": picture(shown), "found": found},
        losses,
        {name: (before[name], after[name]) for name in before},
    )


if __name__ == "__main__":
    main(run, __doc__ or "", size=160, steps=160)
