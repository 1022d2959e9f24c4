"""Draws every measurement on a body and writes their table: `python -m bodyfit.picture.measure_figure docs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.measure import measure_vertices
from bodyfit.body.measure_definitions import DEFINITIONS, MODEL_ERROR_M
from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.body.standing import standing
from bodyfit.errors import OutputError

PX_PER_M = 760
HEIGHT_PX = 1480
CAMERA_M = 60.0
"""Away from the body: far enough that the picture is parallel to a pixel."""

Panel = tuple[str, str, tuple[str, ...]]
PANELS: tuple[Panel, ...] = (
    ("front", "Girths", tuple(n for n, d in DEFINITIONS.items() if d.kind == "girth")),
    ("side", "Girths from the side, depths, back and foot", (
        "head_girth", "neck_girth", "chest_girth", "underbust_girth", "waist_girth", "abdomen_girth",
        "hip_girth", "thigh_girth", "chest_depth", "back_waist_length", "foot_length")),
    ("front", "Lengths and breadths", tuple(
        n for n, d in DEFINITIONS.items()
        if d.kind in ("length", "breadth") and n not in ("chest_depth", "back_waist_length", "foot_length"))),
    ("front", "Heights", tuple(n for n, d in DEFINITIONS.items() if d.kind == "height")),
)  # fmt: skip
_INKS = ((38, 70, 200), (190, 90, 20), (20, 130, 40), (150, 30, 140), (0, 120, 190), (120, 110, 0), (60, 20, 110))


def draw_measurements(model: BodyModel, betas: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A picture (H, W, 3) BGR of the standing body with every length and girth drawn where it is taken."""
    vertices, joints = model.forward(betas, standing(model).pose)
    lines: dict[str, list[NDArray[np.float64]]] = {}
    values = measure_vertices(model, vertices, joints, lines=lines)
    floor = np.array([0.0, float(vertices[:, 1].min()), 0.0])
    lines = {name: [line - floor for line in ways] for name, ways in lines.items()}
    panels = [_panel(model, vertices - floor, lines, values, *panel) for panel in PANELS]
    return np.ascontiguousarray(np.concatenate(panels, axis=1))


def _turned(points: NDArray[np.float64], view: str) -> NDArray[np.float64]:
    """Right, up, towards the eye: from the front, or from the body's left side."""
    x, y, z = points.T
    return np.stack([x, y, z], 1) if view == "front" else np.stack([-z, y, x], 1)


def _panel(
    model: BodyModel,
    vertices: NDArray[np.float64],
    lines: dict[str, list[NDArray[np.float64]]],
    values: dict[str, float],
    view: str,
    title: str,
    names: Sequence[str],
) -> NDArray[np.uint8]:
    import cv2

    width = 1180 if view == "front" else 900
    picture, depth = _shaded(model, vertices, view, width)
    cv2.putText(picture, title, (24, 44), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (40, 40, 40), 2, cv2.LINE_AA)
    labels = []
    for i, name in enumerate(names):
        ink = _INKS[i % len(_INKS)]
        text = f"{name.replace('_', ' ')} {values[name] * 100:.1f}"
        if DEFINITIONS[name].kind == "height":
            top = _turned(lines[name][0], view)[1]
            _draw_height(picture, top, i, width, ink)
            labels.append((_pixel(top, width), text, ink, 1))
            continue
        for way in lines[name]:
            _draw_way(picture, depth, _turned(way, view), width, ink, through=DEFINITIONS[name].kind != "girth")
        ends = np.concatenate([_turned(w, view) for w in lines[name]])
        right = i % 2 == 1
        at = ends[ends[:, 0].argmax() if right else ends[:, 0].argmin()]
        labels.append((_pixel(at, width), text, ink, 1 if right else -1))
    for side in (-1, 1):
        _write([label for label in labels if label[3] == side], picture, side)
    return picture


def _pixel(point: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    return np.array([width / 2 + PX_PER_M * point[0], HEIGHT_PX - 40 - PX_PER_M * point[1]])


def _shaded(
    model: BodyModel, vertices: NDArray[np.float64], view: str, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The body in grey on white (H, W, 3), and the distance of its surface from the camera (H, W), 0 where none is."""
    from bodyfit.kernels.body import vertex_normals
    from bodyfit.kernels.raster import rasterize

    p = _turned(vertices, view)
    cam = np.ascontiguousarray(np.stack([p[:, 0], -p[:, 1], CAMERA_M - p[:, 2]], 1), np.float32)
    faces = model.faces
    depth = np.zeros((HEIGHT_PX, width), np.float32)
    face, bary = np.zeros((HEIGHT_PX, width), np.int32), np.zeros((HEIGHT_PX, width, 2), np.float32)
    focal = PX_PER_M * CAMERA_M
    rasterize(cam, faces, focal, focal, width / 2, float(HEIGHT_PX - 40), depth, face, bary)
    normals = np.empty_like(cam)
    vertex_normals(cam, faces, normals)
    hit = face >= 0
    w = np.dstack([bary, 1 - bary.sum(-1, keepdims=True)])[hit]
    n = np.einsum("pk,pkc->pc", w, normals[faces[face[hit]]])
    light = np.clip(0.45 + 0.5 * np.clip(n @ np.array([-0.35, -0.45, -0.82]), 0, 1), 0, 1)
    picture = np.full((HEIGHT_PX, width, 3), 255, np.uint8)
    picture[hit] = (light[:, None] * np.array([236, 238, 240])).astype(np.uint8)
    return picture, depth


def _draw_way(
    picture: NDArray[np.uint8],
    depth: NDArray[np.float32],
    way: NDArray[np.float64],
    width: int,
    ink: tuple[int, int, int],
    *,
    through: bool,
) -> None:
    """A polyline, dotted where the body hides it, unless it is drawn through the body."""
    import cv2

    for a, b in pairwise(way):
        count = max(int(np.linalg.norm(b - a) * PX_PER_M / 6), 1)
        steps = a + np.linspace(0, 1, count + 1)[:, None] * (b - a)
        pixels = np.array([_pixel(s, width) for s in steps])
        for k in range(count):
            u, v = np.clip(pixels[k].astype(int), 0, (width - 1, HEIGHT_PX - 1))
            surface = depth[v, u]
            hidden = not through and surface > 0 and CAMERA_M - steps[k, 2] > surface + 0.012
            ends = [tuple(round(x * 8) for x in pixels[j]) for j in (k, k + 1)]
            if not hidden:
                cv2.line(picture, ends[0], ends[1], ink, 3, cv2.LINE_AA, 3)
            elif k % 2 == 0 or count < 3:
                cv2.line(picture, ends[0], ends[1], tuple((c + 255) // 2 for c in ink), 1, cv2.LINE_AA, 3)


def _draw_height(
    picture: NDArray[np.uint8], top: NDArray[np.float64], number: int, width: int, ink: tuple[int, int, int]
) -> None:
    """An arrow from the floor, beside the body, and a level line to where the height is taken."""
    import cv2

    x, y = _pixel(top, width)
    column, floor = int(width * 0.60 + 26 * number), HEIGHT_PX - 40
    cv2.circle(picture, (int(x), int(y)), 5, ink, -1, cv2.LINE_AA)
    cv2.line(picture, (int(x), int(y)), (column, int(y)), ink, 1, cv2.LINE_AA)
    cv2.arrowedLine(picture, (column, floor), (column, int(y)), ink, 2, cv2.LINE_AA, tipLength=12 / max(floor - y, 12))


def _write(
    labels: list[tuple[NDArray[np.float64], str, tuple[int, int, int], int]], picture: NDArray[np.uint8], side: int
) -> None:
    """Labels at one margin, from the top down without overlap, each with a line to its measurement."""
    import cv2

    width, last = picture.shape[1], 60.0
    labels = sorted(labels, key=lambda label: float(label[0][1]))
    places = []
    for at, *_ in labels:
        last = max(last + 30, float(at[1]))
        places.append(last)
    for k in range(len(places) - 1, -1, -1):
        limit = HEIGHT_PX - 16 if k == len(places) - 1 else places[k + 1] - 30
        places[k] = min(places[k], limit)
    for (at, text, ink, _), y in zip(labels, places, strict=True):
        (w, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.66, 1)
        x = 16 if side < 0 else width - 16 - w
        cv2.putText(picture, text, (x, int(y) + 6), cv2.FONT_HERSHEY_SIMPLEX, 0.66, ink, 1, cv2.LINE_AA)
        start = (x + w + 6, int(y)) if side < 0 else (x - 6, int(y))
        cv2.line(picture, start, (int(at[0]), int(at[1])), ink, 1, cv2.LINE_AA)


def definitions_table() -> str:
    """The documentation of all measurements, Markdown."""
    rows = ["| name | kind | definition | name from | model error |", "|---|---|---|---|---|"]
    units = {"m": (1000.0, "mm"), "m3": (1000.0, "l"), "kg": (1.0, "kg")}
    for name, d in DEFINITIONS.items():
        scale, unit = units[d.unit]
        rows.append(f"| `{name}` | {d.kind} | {d.text} | {d.standard} | {MODEL_ERROR_M[name] * scale:.3g} {unit} |")
    return "\n".join(rows) + "\n"


def write_documentation(folder: Path, model: BodyModel) -> None:
    """Writes measurements.png, and in measurements.md the part between the table's marks.

    Raises:
        OutputError: the folder has no measurements.md with the marks, or cannot be written.
    """
    import cv2

    page = folder / "measurements.md"
    begin, end = "<!-- table -->\n", "<!-- end of table -->"
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if begin not in text or end not in text:
        raise OutputError(str(page), f"a page with {begin.strip()} and {end}", "none" if not text else "no such marks")
    text = text[: text.index(begin) + len(begin)] + definitions_table() + text[text.index(end) :]
    prior = model.priors.get("neutral") or next(iter(model.priors.values()))
    picture = draw_measurements(model, prior.mean)
    ok, png = cv2.imencode(".png", cv2.resize(picture, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA))
    if not ok:
        raise OutputError("measurements.png", "a picture", "that OpenCV cannot encode")
    for path, data in ((folder / "measurements.png", png.tobytes()), (page, text.encode())):
        partial = path.with_name(path.name + ".partial")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        except OSError as error:
            raise OutputError(str(path), "a file that can be written", str(error)) from error


if __name__ == "__main__":
    write_documentation(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"), load_body_model())
