"""What the examples share: the loop that follows a gradient, the command line, and the pictures they write."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bodyfit.render.backends import RENDERERS, make_renderer
from bodyfit.render.color import linear_to_srgb
from bodyfit.render.extra import Tensor, torch
from bodyfit.render.rendered import Renderer

INK, SOFT, RULE = (34, 38, 44), (150, 155, 161), (250, 166, 74)


@dataclass
class Outcome:
    """What an example found.

    Attributes:
        pictures: start, target and found, (H, W, 3) uint8 sRGB.
        losses: one per step.
        errors: how far what was sought is from the truth, by name, before and after.
    """

    pictures: dict[str, NDArray[np.uint8]]
    losses: list[float]
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)

    def found(self, name: str) -> float:
        """The error that is left."""
        return self.errors[name][1]


def follow(parameters: Sequence[tuple[Tensor, float]], loss_of: Callable[[], Tensor], steps: int) -> list[float]:
    """Adam on (tensor, rate) pairs; rates fall to a fiftieth along a cosine. Returns the losses."""
    groups = [{"params": [tensor.requires_grad_(True)], "lr": rate} for tensor, rate in parameters]
    adam = torch.optim.Adam(groups, betas=(0.8, 0.98))
    curve = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda k: 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * min(k / max(steps - 1, 1), 1.0)))
    )
    losses = []
    for _ in range(steps):
        adam.zero_grad()
        loss = loss_of()
        loss.backward()
        adam.step()
        curve.step()
        losses.append(float(loss.detach()))
    return losses


def picture(linear: Tensor) -> NDArray[np.uint8]:
    """A linear image (H, W, 3) as sRGB bytes."""
    srgb = linear_to_srgb(linear.detach().clamp(0, 1))
    return (srgb * 255 + 0.5).to(torch.uint8).numpy()


def curve_picture(losses: Sequence[float], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The losses over the steps, logarithmic, as an image of (height, width)."""
    height, width = size
    image = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    left, right, top, bottom = 10, width - 8, 16, height - 16
    # five powers of ten below the start nothing is to be seen in a picture
    values = np.log10(np.maximum(np.asarray(losses), 1e-5 * max(losses)))
    low, high = float(values.min()), float(values.max())
    span = max(high - low, 1e-6)
    x = np.linspace(left, right, len(values))
    y = bottom - (values - low) / span * (bottom - top)
    draw.line([(left, top), (left, bottom), (right, bottom)], fill=SOFT)
    draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=RULE, width=2)
    draw.text((left, 2), f"loss {losses[0]:.1e}", fill=INK)
    text = f"{min(losses):.1e}, {len(losses)} steps"
    draw.text((right - draw.textlength(text), bottom + 2), text, fill=INK)
    return np.asarray(image)


def row(outcome: Outcome) -> NDArray[np.uint8]:
    """Start, target, found and the loss beside each other, named."""
    tiles = [*outcome.pictures.values()]
    height, width = tiles[0].shape[:2]
    tiles.append(curve_picture(outcome.losses, (height, width)))
    names = [*outcome.pictures, "loss"]
    gap, band = 4, 14
    sheet = Image.new("RGB", (len(tiles) * (width + gap) - gap, height + band), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for i, (name, tile) in enumerate(zip(names, tiles, strict=True)):
        sheet.paste(Image.fromarray(tile), (i * (width + gap), band))
        draw.text((i * (width + gap) + 2, 1), name, fill=INK)
    return np.asarray(sheet)


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Writes under a temporary name, then renames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    Image.fromarray(image).save(unfinished, format="PNG", optimize=True)
    os.replace(unfinished, path)


def write(outcome: Outcome, out: Path) -> None:
    """Writes start.png, target.png, found.png, loss.png and row.png, all four beside each other."""
    for name, image in outcome.pictures.items():
        write_png(out / f"{name}.png", image)
    height, width = next(iter(outcome.pictures.values())).shape[:2]
    write_png(out / "loss.png", curve_picture(outcome.losses, (height, width)))
    write_png(out / "row.png", row(outcome))


def main(run: Callable[[Renderer, int, int], Outcome], text: str, *, size: int, steps: int) -> None:
    """The command line of an example: where to write, how large, how long, with which renderer."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--size", type=int, default=size, help=f"pixels along the picture's side ({size})")
    parser.add_argument("--steps", type=int, default=steps, help=f"steps along the gradient ({steps})")
    parser.add_argument("--renderer", choices=RENDERERS, default="native")
    asked = parser.parse_args()
    outcome = run(make_renderer(asked.renderer), asked.size, asked.steps)
    write(outcome, asked.out)
    for name, (before, after) in outcome.errors.items():
        print(f"{name}: {before:.4g} at first, {after:.4g} found")
    print(f"pictures in {asked.out}")
