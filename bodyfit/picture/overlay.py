"""The fitted body over what one sensor saw: on its depth, on its colour, and where the two differ."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.observe.observation import BACKGROUND, PERSON, Observation
from bodyfit.picture.draw import (
    BODY,
    INK,
    MASK,
    SOFT,
    Crop,
    Image,
    Shaded,
    Text,
    canvas,
    crop_around,
    grey_depth,
    lay_over,
    outline,
    paint_texts,
    put,
    shade,
    signed_colors,
)

PANEL = (500, 640)
"""Width and height of one panel, pixels."""
LIMIT_M = 0.03
"""The residual at which the colour scale ends, metres."""
MISSED = (216, 64, 200)
EXTRA = (250, 200, 40)
_GAP, _TITLE, _FOOT = 14, 64, 76


def overlay_picture(observation: Observation, vertices_world: NDArray[Any], faces: NDArray[np.int32]) -> Image:
    """Panels side by side, (H, W, 3) uint8 RGB: the body over depth, over colour (where there is any), the residuals.

    Args:
        observation: what one sensor saw.
        vertices_world: (V, 3) fitted body in world metres.
        faces: (F, 3), wound outwards.
    """
    cam = in_camera(vertices_world, observation.T_world_depth)
    window = crop_around(_region(observation, cam), observation.camera, PANEL)
    panels: list[tuple[str, str, Image]] = [
        ("Body over depth", _where(observation), over_depth(observation, cam, faces, window))
    ]
    if observation.color is not None:
        panels.append(
            ("Body over colour", "projected into the colour camera", over_color(observation, cam, faces, PANEL))
        )
    error, body = residuals(observation, cam, faces)
    panels.append(
        ("Depth minus body", _verdict(observation, error, body), _residual_panel(observation, error, body, window))
    )

    width = len(panels) * (PANEL[0] + _GAP) + _GAP
    sheet = canvas(width, _TITLE + PANEL[1] + _FOOT)
    texts: list[Text] = []
    for i, (title, note, image) in enumerate(panels):
        x = _GAP + i * (PANEL[0] + _GAP)
        put(sheet, image, x, _TITLE)
        texts += [Text(x, 22, title, 21, INK, bold=True), Text(x, 47, note, 14, SOFT)]
    x = _GAP
    texts += _swatch(sheet, x, _TITLE + PANEL[1] + 24, BODY, "fitted body")
    texts += _swatch(sheet, x + 130, _TITLE + PANEL[1] + 24, MASK, "border of what was taken for the person")
    texts += _legend(sheet, width - _GAP - PANEL[0], _TITLE + PANEL[1])
    return paint_texts(sheet, texts)


def in_camera(vertices_world: NDArray[Any], T_world_cam: NDArray[np.float64]) -> NDArray[np.float64]:
    """World points (V, 3) in camera coordinates."""
    return (np.asarray(vertices_world, np.float64) - T_world_cam[:3, 3]) @ T_world_cam[:3, :3]


def residuals(
    observation: Observation, points_cam: NDArray[np.float64], faces: NDArray[np.int32]
) -> tuple[NDArray[np.float32], Shaded]:
    """How far (H, W), metres, the sensor's points on the person lie behind (+) or before (-) the body; NaN elsewhere.

    The gap along the ray is shortened by the cosine of incidence, which makes it a distance to the surface.
    """
    camera = observation.camera
    body = shade(points_cam, faces, camera)
    both = (observation.label == PERSON) & (observation.depth > 0) & body.mask
    error = np.full(observation.depth.shape, np.nan, np.float32)
    dy, dx = np.gradient(np.where(body.mask, body.depth, np.float32(0)))
    slope2 = (dx * np.float32(camera.fx)) ** 2 + (dy * np.float32(camera.fy)) ** 2
    cos = 1 / np.sqrt(1 + slope2 / np.maximum(body.depth, np.float32(0.1)) ** 2)
    error[both] = (observation.depth - body.depth)[both] * np.maximum(cos[both], np.float32(0.25))
    return error, body


def over_depth(
    observation: Observation, points_cam: NDArray[np.float64], faces: NDArray[np.int32], window: Crop
) -> Image:
    """The body, see-through, over grey depth in a window of the depth image."""
    person = observation.person
    at = observation.depth[person] if person.any() else observation.depth[observation.depth > 0]
    middle = float(np.median(at)) if at.size else 2.0
    image = grey_depth(window.of(observation.depth, smooth=False), middle - 0.9, middle + 1.6)
    label = window.of(observation.label == PERSON, smooth=False) > 0
    body = shade(points_cam, faces, observation.camera, window)
    image = outline(image, label, MASK, 2)
    image = lay_over(image, body, BODY, 0.72)
    return outline(image, body.mask, BODY, 1)


def over_color(
    observation: Observation,
    points_cam: NDArray[np.float64],
    faces: NDArray[np.int32],
    size: tuple[int, int],
    alpha: float = 0.62,
) -> Image:
    """The body, see-through, over the colour image, cut out around it and `size` (width, height) large."""
    if observation.color is None or observation.color_camera is None or observation.T_color_depth is None:
        raise ValueError("the observation has no colour")
    T = observation.T_color_depth
    points = points_cam @ T[:3, :3].T + T[:3, 3]
    window = crop_around(observation.color_camera.project(points), observation.color_camera, size)
    image = window.of(observation.color, smooth=True, border=(16, 18, 24))
    body = shade(points, faces, observation.color_camera, window)
    image = lay_over(image, body, BODY, alpha)
    return outline(image, body.mask, BODY, 1)


def _region(observation: Observation, points_cam: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels (N, 2) that the pictures must show: the body, and the person."""
    rows, cols = np.nonzero(observation.label == PERSON)
    corners = [(cols.min(), rows.min()), (cols.max(), rows.max())] if len(rows) else []
    return np.concatenate([observation.camera.project(points_cam), np.array(corners, float).reshape(-1, 2)])


def _residual_panel(observation: Observation, error: NDArray[np.float32], body: Shaded, window: Crop) -> Image:
    image = grey_depth(observation.depth, 0.0, 6.0) // 6
    image += np.array((48, 52, 58), np.uint8)
    seen = np.isfinite(error)
    image[body.mask & ~seen] = (104, 108, 116)  # the body, where nothing was measured
    image[seen] = signed_colors(error[seen], LIMIT_M)
    image[(observation.label == PERSON) & ~body.mask] = MISSED
    image[body.mask & (observation.label == BACKGROUND)] = EXTRA
    return window.of(image, smooth=False, border=(60, 64, 72))


def _where(observation: Observation) -> str:
    cut = f", cut off at the {' and '.join(sorted(observation.cut_off))}" if observation.cut_off else ""
    return f"sensor {observation.sensor}, frame {observation.index}{cut}"


def _verdict(observation: Observation, error: NDArray[np.float32], body: Shaded) -> str:
    known = error[np.isfinite(error)]
    person, background = observation.label == PERSON, observation.label == BACKGROUND
    union = (person | (body.mask & background)).sum()
    overlap = (person & body.mask).sum() / max(int(union), 1)
    if not known.size:
        return f"no depth on the body · outlines overlap {100 * overlap:.0f} %"
    size, signed = 1000 * np.median(np.abs(known)), 1000 * np.median(known)
    return f"median {size:.1f} mm, signed {signed:+.1f} mm · outlines overlap {100 * overlap:.0f} %"


def _swatch(sheet: Image, x: int, y: int, color: tuple[int, int, int], text: str) -> list[Text]:
    sheet[y - 7 : y + 7, x : x + 14] = color
    return [Text(x + 21, y, text, 14, SOFT)]


def _legend(sheet: Image, x: int, y: int) -> list[Text]:
    """The colour scale of the residuals under their panel, and what the other colours mean."""
    bar = 200
    scale = signed_colors(np.linspace(-LIMIT_M, LIMIT_M, bar, dtype=np.float32), LIMIT_M).astype(np.uint8)
    sheet[y + 14 : y + 28, x : x + bar] = scale
    sheet[y + 28 : y + 32, x + bar // 2] = INK
    limit = f"{1000 * LIMIT_M:.0f}"
    texts = [
        Text(x, y + 43, f"-{limit}", 13, SOFT),
        Text(x + bar / 2, y + 43, "0", 13, SOFT, "middle"),
        Text(x + bar, y + 43, f"+{limit} mm", 13, SOFT, "right"),
        Text(x, y + 62, "before the body", 13, SOFT),
        Text(x + bar, y + 62, "behind it", 13, SOFT, "right"),
    ]
    texts += _swatch(sheet, x + bar + 34, y + 21, MISSED, "person, not covered by the body")
    texts += _swatch(sheet, x + bar + 34, y + 43, EXTRA, "body, where there is no person")
    return texts
