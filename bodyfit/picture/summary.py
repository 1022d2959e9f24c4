"""One picture of a fit: what was seen, the body, its measurements, and how far to believe them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.observe.observation import PERSON, Observation
from bodyfit.picture.draw import (
    BAD,
    DOUBT,
    FAINT,
    GOOD,
    INK,
    LINE,
    MASK,
    NEUTRAL,
    SOFT,
    Image,
    Rgb,
    Text,
    canvas,
    crop_around,
    grey_depth,
    outline,
    paint_texts,
    put,
    shade,
    shorten,
    text_width,
    tint,
    wrap,
)
from bodyfit.picture.overlay import in_camera, over_color, over_depth

if TYPE_CHECKING:
    from bodyfit.body.measure import Measurement
    from bodyfit.fit.result import FitResult

WIDTH, HEIGHT = 1840, 1060
_OF_FRAME = re.compile(r"frame (\d+): (.*)")
UNSEEN: Rgb = (150, 112, 118)
"""Colour of body parts that no frame showed."""
_EDGE, _TOP = 30, 132
_SEEN_HEIGHT = 616
_SEEN_X, _BODY_X, _TABLE_X = _EDGE, 682, 1210
_SEEN_WIDTH = 624
_BODY_SIZE = (496, 640)
_MOST_COLUMNS = 4


def summary_picture(result: FitResult, observations: Sequence[Sequence[Observation]]) -> Image:
    """The summary, (1060, 1840, 3) uint8 RGB.

    Args:
        result: a fit.
        observations: for each instant what each sensor saw; empty where it is no longer known.
    """
    sheet = canvas(WIDTH, HEIGHT)
    texts = _header(sheet, result, observations)
    texts += _seen(sheet, result, observations)
    texts += _body(sheet, result)
    texts += _table(sheet, list(result.measurements.items()))
    texts += _quality(sheet, result)
    return paint_texts(sheet, texts)


def _header(sheet: Image, result: FitResult, observations: Sequence[Sequence[Observation]]) -> list[Text]:
    frames = f"{result.num_frames} frame{'s' if result.num_frames != 1 else ''}"
    sensors = sorted({seen.sensor for instant in observations for seen in instant})
    facts = [f"{result.sex} body", f"{result.clothing} clothes", f"model {result.model.name}"]
    if sensors:
        facts.append(f"sensor{'s' if len(sensors) > 1 else ''} {', '.join(sensors)}")
    word, color, reason = _verdict(result)
    width = int(text_width(word, 20)) + 36
    x = WIDTH - _EDGE - width
    _pill(sheet, x, 22, width, 40, color)
    sheet[98:100, _EDGE : WIDTH - _EDGE] = LINE
    return [
        Text(_EDGE, 36, f"A body from {frames}", 30, INK, bold=True),
        Text(_EDGE, 74, shorten(" · ".join(facts), 16, x - 2 * _EDGE), 16, SOFT),
        Text(x + width / 2, 41, word, 20, (255, 255, 255), "middle", True),
        Text(WIDTH - _EDGE, 80, shorten(reason, 15, 900), 15, SOFT, "right"),
    ]


def _verdict(result: FitResult) -> tuple[str, Rgb, str]:
    """In a word whether to believe it, its colour, and the figures behind it."""
    known = [f for f in result.frames if np.isfinite(f.depth_residual_m)]
    figures = "no frame could be judged"
    if known:
        residual = 1000 * float(np.median([f.depth_residual_m for f in known]))
        overlap = 100 * float(np.median([f.silhouette_iou for f in known]))
        figures = f"depth residual {residual:.1f} mm · outlines overlap {overlap:.0f} %"
    good = sum(f.believed for f in result.frames)
    figures += f" · {good} of {len(result.frames)} frames believed"
    if not result.converged or not good:
        return "Failed", BAD, f"{_stop(result.stop_reason)} · {figures}"
    if good < len(result.frames) or result.flags:
        return "Converged, with doubts", DOUBT, figures
    return "Converged", GOOD, figures


def _stop(reason: object) -> str:
    return str(getattr(reason, "value", reason))


def _seen(sheet: Image, result: FitResult, observations: Sequence[Sequence[Observation]]) -> list[Text]:
    """Up to four columns: colour, depth with the person's outline, and the fit over it."""
    texts = [Text(_SEEN_X, _TOP, "What was seen", 20, INK, bold=True)]
    shown = _choose(observations)
    if not shown:
        return [*texts, Text(_SEEN_X, _TOP + 40, "The recording was not read again.", 15, SOFT)]
    several = len({seen.sensor for instant in observations for seen in instant}) > 1
    # few views lie in rows, so that the pictures stay upright
    kinds = 3 if any(observations[t][s].color is not None for t, s in shown) else 2
    lying = len(shown) < 3
    across, down = (kinds, len(shown)) if lying else (len(shown), kinds)
    width = min(260, (_SEEN_WIDTH - 8 * (across - 1)) // across)
    size = (width, min(round(width * 2.3), (_SEEN_HEIGHT - 8 * (down - 1)) // down - (22 if lying else 0)))
    for i, (t, s) in enumerate(shown):
        seen = observations[t][s]
        x, y = _SEEN_X, _TOP + 24
        for k, image in enumerate(_cells(result, seen, t, size)):
            at = (k, i) if lying else (i, k)
            step = (size[0] + 8, size[1] + (30 if lying else 8))
            put(sheet, image, x + at[0] * step[0], y + at[1] * step[1])
        name = f"frame {seen.index}" + (f", {seen.sensor}" if several else "")
        doubt = t < len(result.frames) and not result.frames[t].believed
        x += 0 if lying else i * (size[0] + 8)
        y += (i + 1) * (size[1] + 30) - 17 if lying else kinds * (size[1] + 8) + 8
        texts.append(Text(x, y, shorten(name, 14, size[0]), 14, BAD if doubt else SOFT))
    total = sum(len(instant) for instant in observations)
    if total > len(shown):
        texts.append(Text(_SEEN_X + _SEEN_WIDTH, _TOP, f"{len(shown)} of {total} views", 14, SOFT, "right"))
    return texts


def _choose(observations: Sequence[Sequence[Observation]]) -> list[tuple[int, int]]:
    """Which (instant, sensor) to show: spread over the instants first, then over the sensors."""
    pairs = [(t, s) for t, instant in enumerate(observations) for s in range(len(instant))]
    if len(observations) >= _MOST_COLUMNS:
        pairs = [pair for pair in pairs if pair[1] == 0]
    if len(pairs) <= _MOST_COLUMNS:
        return pairs
    return [pairs[i] for i in np.linspace(0, len(pairs) - 1, _MOST_COLUMNS).round().astype(int)]


def _cells(result: FitResult, seen: Observation, t: int, size: tuple[int, int]) -> list[Image]:
    """The three pictures of one column, `size` (width, height) large; two where there is no colour."""
    cam = in_camera(result.vertices_world(t), seen.T_world_depth)
    faces = result.model.faces
    person = seen.label == PERSON
    rows, cols = np.nonzero(person)
    corners = np.array([[cols.min(), rows.min()], [cols.max(), rows.max()]], float) if len(rows) else np.zeros((0, 2))
    window = crop_around(np.concatenate([corners, seen.camera.project(cam)]), seen.camera, size)
    at = seen.depth[seen.person]
    middle = float(np.median(at)) if at.size else 2.0
    depth = grey_depth(window.of(seen.depth, smooth=False), middle - 0.9, middle + 1.6)
    inside = window.of(person, smooth=False) > 0
    depth[inside] = (0.6 * depth[inside] + 0.4 * np.array(MASK)).astype(np.uint8)
    depth = outline(depth, inside, MASK, 1)
    if seen.color is None or seen.color_camera is None or seen.T_color_depth is None:
        return [depth, over_depth(seen, cam, faces, window)]
    T = seen.T_color_depth
    color_window = crop_around(seen.color_camera.project(cam @ T[:3, :3].T + T[:3, 3]), seen.color_camera, size)
    color = color_window.of(seen.color, smooth=True, border=(16, 18, 24))
    return [color, depth, over_color(seen, cam, faces, size, 0.8)]


def _body(sheet: Image, result: FitResult) -> list[Text]:
    """Front and side of the body in a neutral standing pose beside a ruler; parts never seen are tinted."""
    from bodyfit.body.standing import standing_pose

    model = result.model
    vertices, _ = model.forward(result.betas, standing_pose(model))
    floor, top = float(vertices[:, 1].min()), float(vertices[:, 1].max())
    x0, y0 = _BODY_X, _TOP + 24
    width, height = _BODY_SIZE
    sheet[y0 : y0 + height, x0 : x0 + width] = (238, 240, 242)
    # the front takes what its arms need, the side the rest
    spans = [float(np.ptp(vertices[:, axis])) for axis in (0, 2)]
    scale = min((height - 60) / max(top - floor, 0.5), (width - 70) / sum(spans))
    split = 40 + round((width - 40) * (spans[0] * scale + 10) / (sum(spans) * scale + 20))
    ground = y0 + height - 26
    texts = [
        Text(x0, _TOP, "The body", 20, INK, bold=True),
        Text(x0 + width, _TOP, "front and left side, neutral pose", 14, SOFT, "right"),
    ]
    for cm in range(0, int(100 * (top - floor)) + 1, 20):
        y = round(ground - cm / 100 * scale)
        sheet[y : y + 1, x0 + 40 : x0 + width] = LINE if cm else FAINT
        texts.append(Text(x0 + 34, y, str(cm), 12, FAINT, "right"))
    unseen = _unseen_vertices(result)
    views = ((40, split, 0, 1.0, 2), (split, width, 2, -1.0, 0))
    for left, end, across, sign, ahead in views:
        # far away with a long lens: nearly parallel rays, so that heights can be read off the ruler
        distance = 40.0
        middle = (vertices[:, across].min() + vertices[:, across].max()) / 2
        depth = distance - (vertices[:, ahead] - vertices[:, ahead].mean())
        cam = np.stack([sign * (vertices[:, across] - middle), floor - vertices[:, 1], depth], 1)
        camera = Camera(
            end - left, height, scale * distance, scale * distance, (end - left - 1) / 2, float(ground - y0)
        )
        body = shade(cam, model.faces, camera)
        patch = sheet[y0 : y0 + height, x0 + left : x0 + end]
        patch[body.mask] = tint(body.light[body.mask], NEUTRAL)
        if unseen.any():
            hidden = shade(cam, model.faces[unseen[model.faces].all(1)], camera)
            front = hidden.mask & (hidden.depth <= body.depth + 1e-3)
            patch[front] = tint(body.light[front], UNSEEN)
    if unseen.any():
        sheet[y0 + 12 : y0 + 26, x0 + 46 : x0 + 60] = UNSEEN
        texts.append(Text(x0 + 67, y0 + 19, "never seen: as is usual for such bodies", 13, SOFT))
    return texts


def _unseen_vertices(result: FitResult) -> NDArray[np.bool_]:
    """(V,) which vertices belong to parts that no frame showed."""
    labels = result.model.part_labels
    if labels is None or not result.coverage:
        return np.zeros(result.model.num_vertices, bool)
    hidden = [i for i, name in enumerate(result.model.part_names) if result.coverage.get(name, 1) == 0]
    return np.isin(labels, hidden)


def _table(sheet: Image, rows: list[tuple[str, Measurement]]) -> list[Text]:
    """Name, value and standard deviation of every measurement; grey where the body part was not seen."""
    x, right = _TABLE_X, WIDTH - _EDGE
    texts = [
        Text(x, _TOP, "Measurements", 20, INK, bold=True),
        Text(right, _TOP, "± one standard deviation", 14, SOFT, "right"),
    ]
    if not rows:
        return [*texts, Text(x, _TOP + 40, "None: the fit failed.", 15, SOFT)]
    y, step = _TOP + 40, min(27.0, (HEIGHT - _TOP - 96) / len(rows))
    size = 16 if step > 23 else 14 if step > 18 else 12
    for i, (name, m) in enumerate(rows):
        at = y + i * step
        value, sd, unit = _shown(m)
        ink = INK if m.seen else FAINT
        label = name.replace("_", " ")
        texts += [
            Text(x, at, shorten(label[:1].upper() + label[1:], size, 330), size, ink),
            Text(right - 130, at, value, size, ink, "right", bold=m.seen),
            Text(right - 46, at, f"± {sd}", size, SOFT if m.seen else FAINT, "right"),
            Text(right, at, unit, size, SOFT if m.seen else FAINT, "right"),
        ]
        line = round(at + step / 2)
        sheet[line : line + 1, x:right] = LINE
    if not all(m.seen for _, m in rows):
        texts.append(Text(x, y + len(rows) * step + 8, "grey: not seen whole; partly from what is usual", 13, SOFT))
    return texts


def _shown(m: Measurement) -> tuple[str, str, str]:
    """Value, standard deviation and unit as people read them: centimetres, litres, kilograms."""
    factor, unit = {"m": (100.0, "cm"), "m3": (1000.0, "l")}.get(m.unit, (1.0, m.unit))
    return f"{factor * m.value_m:.1f}", f"{factor * m.sd_m:.1f}", unit


def _quality(sheet: Image, result: FitResult) -> list[Text]:
    """What to know and what to do: flags and hints, then each frame's figures."""
    x, y = _EDGE, _TOP + 24 + _BODY_SIZE[1] + 18
    right = _TABLE_X - 40
    sheet[y : y + 2, x:right] = LINE
    y += 26
    notes = [(hint, INK) for hint in result.hints] + [(flag, DOUBT) for flag in _merged(result)]
    texts = [Text(x, y, "Worth knowing", 20, INK, bold=True)]
    if not notes:
        return [*texts, Text(x, y + 32, "Nothing to add: every part was seen and every frame agrees.", 15, SOFT)]
    room = int((HEIGHT - y - 24) // 22)
    columns = 1 if len(notes) <= room and all(len(text) > 60 for text, _ in notes) else 2
    width = (right - x) / columns
    lines = [(part, color, i == 0) for text, color in notes for i, part in enumerate(wrap(text, 15, width - 36))]
    if len(lines) > columns * room:
        lines = [*lines[: columns * room - 1], ("… more in measurements.json", SOFT, True)]
    for i, (line, color, first) in enumerate(lines):
        left, at = x + width * (i // room), y + 32 + 22 * (i % room)
        if first:
            sheet[round(at) - 3 : round(at) + 3, round(left) + 2 : round(left) + 8] = color
        texts.append(Text(left + 18, at, line, 15, color))
    return texts


def _merged(result: FitResult) -> list[str]:
    """The flags of the whole and of the frames, those that say the same of several frames in one line."""
    said: dict[str, list[str]] = {}
    per_frame = [
        f"frame {index}: {flag}"
        for index, frame in zip(result.frame_indices, result.frames, strict=True)
        for flag in frame.flags
    ]
    for flag in [*result.flags, *per_frame]:
        match = _OF_FRAME.match(flag)
        frames = said.setdefault(match[2] if match else flag, [])
        if match and match[1] not in frames:
            frames.append(match[1])
    return [
        f"frame{'s' if len(frames) > 1 else ''} {', '.join(frames)}: {text}" if frames else text
        for text, frames in said.items()
    ]


def _pill(sheet: Image, x: int, y: int, width: int, height: int, color: Rgb) -> None:
    """A filled box with round ends."""
    import cv2

    radius = height // 2
    cv2.rectangle(sheet, (x + radius, y), (x + width - radius, y + height), color, -1)
    for at in (x + radius, x + width - radius):
        cv2.circle(sheet, (at, y + radius), radius, color, -1, cv2.LINE_AA)
