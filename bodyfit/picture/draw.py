"""What pictures are made of: shaded meshes, tinted depth, crops, text, colour scales. Images: (H, W, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.kernels.body import vertex_normals
from bodyfit.render.rasterize import rasterize

Image = NDArray[np.uint8]
Rgb = tuple[int, int, int]

PAPER: Rgb = (248, 248, 246)
INK: Rgb = (34, 38, 44)
SOFT: Rgb = (118, 124, 132)
FAINT: Rgb = (176, 181, 187)
LINE: Rgb = (222, 224, 226)
BODY: Rgb = (250, 166, 74)
NEUTRAL: Rgb = (214, 218, 224)
GOOD: Rgb = (38, 132, 84)
DOUBT: Rgb = (190, 124, 10)
BAD: Rgb = (186, 48, 44)
MASK: Rgb = (64, 196, 170)


@dataclass(frozen=True)
class Shaded:
    """A mesh in a camera: depth (H, W) metres, 0 = nothing; light (H, W) 0 to 1."""

    depth: NDArray[np.float32]
    light: NDArray[np.float32]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) where the mesh is."""
        return self.depth > 0


def shade(points_cam: NDArray[Any], faces: NDArray[np.int32], camera: Camera, window: Crop | None = None) -> Shaded:
    """Draws a mesh (V, 3) in camera metres with smooth shading, lit from the upper left of the camera.

    With a window, only that part of the camera's image is drawn, at the window's size.
    """
    points = np.ascontiguousarray(points_cam, np.float32)
    normals = np.empty_like(points)
    vertex_normals(points, faces, normals)
    key = np.array([-0.45, -0.55, -0.7], np.float32)
    key /= np.linalg.norm(key)
    at_vertex = 0.22 + 0.62 * np.maximum(normals @ key, 0) + 0.26 * np.maximum(-normals[:, 2], 0) ** 1.5
    raster = rasterize(points, faces, camera) if window is None else rasterize(*window.of_mesh(points, faces, camera))
    light = np.zeros(raster.depth.shape, np.float32)
    hit = raster.face >= 0
    corners, w = faces[raster.face[hit]], raster.barycentrics[hit]
    a, b, c = (at_vertex[corners[:, k]] for k in range(3))
    light[hit] = np.clip(a * w[:, 0] + b * w[:, 1] + c * (1 - w[:, 0] - w[:, 1]), 0, 1)
    return Shaded(raster.depth, light)


def tint(light: NDArray[np.float32], color: Rgb) -> NDArray[np.float32]:
    """(..., 3) 0 to 255: a colour under light; full light goes a little towards white, as skin and plaster do."""
    base = np.array(color, np.float32)
    shine = np.maximum(light - np.float32(0.8), 0)[..., None] * np.float32(1.2)
    return (base * light[..., None] * (1 - shine) + 255 * shine).astype(np.float32)


def lay_over(image: Image, body: Shaded, color: Rgb, alpha: float) -> Image:
    """The image (H, W, 3) with a shaded body of a colour laid on it, with opacity alpha."""
    out = image.copy()
    mask = body.mask
    out[mask] = out[mask] * np.float32(1 - alpha) + tint(body.light[mask], color) * np.float32(alpha)
    return out


def outline(image: Image, mask: NDArray[np.bool_], color: Rgb, width: int = 2) -> Image:
    """The image with the mask's border (H, W) drawn smoothly on it."""
    import cv2

    out = np.ascontiguousarray(image)
    if mask.any():
        lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, lines, -1, color, width, cv2.LINE_AA)
    return out


def grey_depth(depth: NDArray[np.float32], near_m: float, far_m: float) -> Image:
    """Depth (H, W) as cool greys, near light and far dark; no reading is nearly black."""
    import cv2

    share = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    table = np.array((226, 231, 238), np.float32) * (1 - share) + np.array((52, 60, 76), np.float32) * share
    table[0] = (16, 18, 24)
    scale = 254.0 / max(far_m - near_m, 1e-3)
    level = np.maximum(cv2.convertScaleAbs(np.maximum(depth, np.float32(near_m)), alpha=scale, beta=-near_m * scale), 1)
    level[depth <= 0] = 0
    return np.asarray(cv2.applyColorMap(level, table.astype(np.uint8)[:, None, :]), np.uint8)


def signed_colors(value: NDArray[np.float32], limit: float) -> NDArray[np.float32]:
    """(..., 3) 0 to 255: blue for -limit, nearly white for 0, red for +limit."""
    stops = np.array([(24, 84, 168), (112, 168, 216), (246, 246, 244), (240, 146, 110), (172, 24, 40)], np.float32)
    x = (np.clip(value / limit, -1, 1) + 1) * 2
    low = np.minimum(x.astype(np.int32), 3)
    share = (x - low)[..., None]
    return (stops[low] * (1 - share) + stops[low + 1] * share).astype(np.float32)


@dataclass(frozen=True)
class Crop:
    """A window of a camera's image shown at another size."""

    left: float
    top: float
    scale: float
    width: int
    height: int

    def of_mesh(
        self, points_cam: NDArray[np.float32], faces: NDArray[np.int32], camera: Camera
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], Camera]:
        """Mesh and camera that draw the window without resampling.

        A window far from the image's middle would need a principal point that no camera has: the mesh is sheared along
        the rays instead, which moves its image and nothing else.
        """
        f = (camera.fx * self.scale, camera.fy * self.scale)
        middle = ((self.width - 1) / 2, (self.height - 1) / 2)
        wanted = ((camera.cx - self.left) * self.scale, (camera.cy - self.top) * self.scale)
        sheared = points_cam.copy()
        for axis in (0, 1):
            sheared[:, axis] += np.float32((wanted[axis] - middle[axis]) / f[axis]) * points_cam[:, 2]
        return sheared, faces, Camera(self.width, self.height, *f, *middle)

    def of(self, image: NDArray[Any], *, smooth: bool, border: float | Rgb = 0) -> NDArray[Any]:
        """The window of an image (H, W) or (H, W, 3), resampled."""
        import cv2

        s = self.scale
        matrix = np.array([[s, 0, -self.left * s], [0, s, -self.top * s]])
        flags = (cv2.INTER_AREA if s < 1 else cv2.INTER_LINEAR) if smooth else cv2.INTER_NEAREST
        source = image.astype(np.uint8) if image.dtype == np.bool_ else image
        value = border if isinstance(border, tuple) else (border,) * 3
        return cv2.warpAffine(source, matrix, (self.width, self.height), flags=flags, borderValue=value)


def crop_around(pixels: NDArray[Any], camera: Camera, size: tuple[int, int], margin: float = 0.08) -> Crop:
    """A window of size (width, height) around all pixels (N, 2) of a camera's image, with a margin (share of the span).

    Pixels far outside of the image count only as far as its own size beside it.
    """
    width, height = size
    side = np.array([camera.width, camera.height], float)
    low, high = np.zeros(2), side - 1
    if np.isfinite(pixels).any(0).all():
        low, high = np.array([[np.nanmin(p), np.nanmax(p)] for p in np.ascontiguousarray(pixels.T)]).T
        low, high = np.clip(low, -side, 2 * side), np.clip(high, -side, 2 * side)
    span = np.maximum((high - low) * (1 + 2 * margin), side / 16)
    scale = float(min(width / span[0], height / span[1]))
    left, top = (low + high) / 2 - (np.array(size) - 1) / scale / 2
    return Crop(float(left), float(top), scale, width, height)


@dataclass(frozen=True)
class Text:
    """A line of text to paint: x, y of its anchor in pixels."""

    x: float
    y: float
    text: str
    size: int = 15
    color: Rgb = INK
    align: Literal["left", "middle", "right"] = "left"
    bold: bool = False


def paint_texts(image: Image, texts: Sequence[Text]) -> Image:
    """The image with lines of text painted on it, each line's middle height at its y."""
    from PIL import Image as Pictures
    from PIL import ImageDraw

    picture = Pictures.fromarray(np.ascontiguousarray(image))
    pen = ImageDraw.Draw(picture)
    for t in texts:
        font = _font(t.size)
        anchor = {"left": "lm", "middle": "mm", "right": "rm"}[t.align]
        # the built-in face has one weight: a hairline around it makes it bold
        pen.text((t.x, t.y), t.text, fill=t.color, font=font, anchor=anchor, stroke_width=0.35 if t.bold else 0)
    return np.asarray(picture).copy()


@lru_cache(maxsize=16)
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> float:
    """Width of a line in pixels."""
    return float(_font(size).getlength(text))


def wrap(text: str, size: int, width: float) -> list[str]:
    """A text as lines no wider than `width` pixels."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def shorten(text: str, size: int, width: float) -> str:
    """A text cut to `width` pixels with dots at its end where it is longer."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(f"{text}…", size) > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def canvas(width: int, height: int, color: Rgb = PAPER) -> Image:
    """An empty sheet."""
    row = np.tile(np.array(color, np.uint8), (1, width, 1))
    return np.broadcast_to(row, (height, width, 3)).copy()


def put(sheet: Image, image: Image, x: int, y: int) -> None:
    """Lays an image on the sheet with its upper left corner at x, y; what sticks out is cut off."""
    height, width = min(image.shape[0], sheet.shape[0] - y), min(image.shape[1], sheet.shape[1] - x)
    sheet[y : y + height, x : x + width] = image[:height, :width]
