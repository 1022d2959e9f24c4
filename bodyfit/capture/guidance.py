"""What to tell whoever stands before a sensor: pure functions of the newest frame, what was observed in it, and before.

The thresholds are those at which a fit begins to suffer or cannot be had; each says why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import BodyfitError, PersonNotFoundError, SeveralPeopleError
from bodyfit.frame import Frame
from bodyfit.observe.observation import PERSON, Observation, observe

NEAREST_M = 1.2
"""nearer than this no sensor's picture (60 to 90 degrees) has a whole adult in it"""
FARTHEST_M = 3.5
"""beyond this a person is less than 250 pixels high at 500 pixels of focal length, and a stereo sensor's noise, which
grows with the square of the distance, is three centimetres"""
CLOSE_UP_M, CLOSE_UP_SHARE = 0.9, 0.1
"""where nobody is found and so much of the picture is so near, somebody stands right before the sensor"""
FASTEST_M_S = 0.12
"""depth and colour are up to half a frame (17 ms) apart, and colour is exposed for up to 33 ms: at this speed that is
2 to 4 mm, as much as the depth's noise; a standing person sways by less than 0.03 m/s"""
DARKEST = 40.0
"""mean brightness (0 to 255, as stored) of the person's part of the colour image; below it colours are mostly noise"""
LEAST_VALID = 0.75
"""share of the person's outline with readings: dark or wet clothes and sunlight swallow the sensor's light, and what is
not read is measured from what is usual"""
GAP_M = 0.06
"""a patch without readings up to twice this wide is the person's where their readings surround it"""
HEADING_OFF_DEG = 25.0
"""a heading is reached within this: half of the step between eight views, and a little"""


class Advice(Enum):
    """What to say; the value is the sentence."""

    NOBODY = "nobody is seen: step in front of the sensor, the whole body in its picture"
    SEVERAL = "several people are seen: one person only"
    TOO_NEAR = "too near: step back"
    TOO_FAR = "too far: step closer"
    FEET_CUT = "the feet are cut off: step back, or tilt the sensor down"
    HEAD_CUT = "the head is cut off: step back, or tilt the sensor up"
    OUT_LEFT = "out of the picture on its left: move to the middle"
    OUT_RIGHT = "out of the picture on its right: move to the middle"
    LITTLE_DEPTH = "much of the body gives no depth: avoid dark or shiny clothes and direct sunlight"
    TOO_DARK = "too dark: switch a light on"
    HOLD_STILL = "hold still"

    @property
    def blocks(self) -> bool:
        """Whether a view that is taken now would be of little use."""
        return self not in (Advice.LITTLE_DEPTH, Advice.TOO_DARK, Advice.TOO_FAR)


@dataclass(frozen=True, eq=False)
class Sight:
    """What one frame says about who stands there.

    Attributes:
        time_s: the frame's.
        people: how many were found.
        distance_m: median depth of the person's readings; None where nobody was found.
        cut_off: the image borders that they touch: top, bottom, left, right.
        close_up: nobody was found, and something fills the picture right before the sensor.
        valid_share: share of the person's outline with readings.
        brightness: mean of their colours, 0 to 255; of the whole image where nobody was found; None without colour.
        speed_m_s: how fast they move, against the sight before; None where there is none to compare with.
        heading_deg: which way they face: 0 looks at the sensor, 90 shows it the right side; None where unknown.
        outline: (H, W) bool, the person's pixels, holes filled.
        depth: (H, W) float32 metres, the frame's.
    """

    time_s: float
    people: int
    distance_m: float | None = None
    cut_off: frozenset[str] = frozenset()
    close_up: bool = False
    valid_share: float = 1.0
    brightness: float | None = None
    speed_m_s: float | None = None
    heading_deg: float | None = None
    outline: NDArray[np.bool_] | None = None
    depth: NDArray[np.float32] | None = None
    focal_px: float = 500.0


def look(
    frame: Frame,
    gravity_world: NDArray[np.float64] | None,
    before: Sight | None = None,
    *,
    root_rotation: NDArray[np.float64] | None = None,
    place_world: NDArray[np.float64] | None = None,
) -> Sight:
    """Looks for a person in a frame.

    Args:
        before: the sight of an earlier frame, which tells how fast they move.
        root_rotation: (3, 3) body to world, of a tracker's estimate for this frame; place_world: (3,) where it stands.
    """
    try:
        seen = observe(frame, gravity_world=gravity_world)
    except SeveralPeopleError as problem:
        return Sight(frame.timestamp_s, problem.count, brightness=_brightness(frame, None))
    except PersonNotFoundError:
        return Sight(frame.timestamp_s, 0, close_up=is_close_up(frame), brightness=_brightness(frame, None))
    except BodyfitError:  # no readings, or in another unit: nobody is seen, whatever else is wrong
        return Sight(frame.timestamp_s, 0, close_up=is_close_up(frame), brightness=_brightness(frame, None))
    distance = float(np.median(frame.depth[seen.person]))
    outline = outline_of(seen.label == PERSON, frame.depth, GAP_M / distance * frame.depth_camera.fx)
    person = outline & (frame.depth > 0)
    heading = None
    if root_rotation is not None and place_world is not None:
        heading = heading_deg(root_rotation, place_world, frame.T_world_depth, up_of(seen, frame))
    sight = Sight(
        frame.timestamp_s,
        1,
        distance_m=distance,
        cut_off=seen.cut_off,
        valid_share=float(person.sum() / max(outline.sum(), 1)),
        brightness=_brightness(frame, seen),
        heading_deg=heading,
        outline=outline,
        depth=frame.depth,
        focal_px=frame.depth_camera.fx,
    )
    return sight if before is None else with_speed(sight, before)


def advise(sight: Sight) -> tuple[Advice, ...]:
    """What is wrong with what is seen, the most important first; nothing where all is well."""
    if sight.people == 0:
        dark = (Advice.TOO_DARK,) if _is_dark(sight) else ()
        return (Advice.TOO_NEAR if sight.close_up else Advice.NOBODY, *dark)
    if sight.people > 1:
        return (Advice.SEVERAL,)
    cut, out = sight.cut_off, []
    near = sight.distance_m is not None and sight.distance_m < NEAREST_M
    if near or {"top", "bottom"} <= cut:
        out.append(Advice.TOO_NEAR)
    else:
        out += [Advice.FEET_CUT] * ("bottom" in cut) + [Advice.HEAD_CUT] * ("top" in cut)
    if sight.distance_m is not None and sight.distance_m > FARTHEST_M:
        out.append(Advice.TOO_FAR)
    out += [Advice.OUT_LEFT] * ("left" in cut) + [Advice.OUT_RIGHT] * ("right" in cut)
    if sight.valid_share < LEAST_VALID:
        out.append(Advice.LITTLE_DEPTH)
    if _is_dark(sight):
        out.append(Advice.TOO_DARK)
    if sight.speed_m_s is not None and sight.speed_m_s > FASTEST_M_S:
        out.append(Advice.HOLD_STILL)
    return tuple(out)


def is_still(sight: Sight) -> bool:
    """Whether a person is seen and stands still."""
    return sight.people == 1 and sight.speed_m_s is not None and sight.speed_m_s <= FASTEST_M_S


def with_speed(sight: Sight, before: Sight) -> Sight:
    """The sight with the speed since the one before, where both have a person.

    Across the line of sight it is the area that changed hands between person and background, by the outline's length:
    an outline of length L that moves by d sweeps about L d 2/π. Along it, the median change of depth.
    """
    passed = sight.time_s - before.time_s
    a, b = sight.outline, before.outline
    if passed <= 0 or a is None or b is None or a.shape != b.shape or sight.depth is None or before.depth is None:
        return sight
    swept = float((a ^ b).sum())
    length = (_border(a) + _border(b)) / 2
    metres = (sight.distance_m or 0.0) / sight.focal_px
    across = swept / max(length * 2 / np.pi, 1.0) * metres
    both = a & b & (sight.depth > 0) & (before.depth > 0)
    along = abs(float(np.median(sight.depth[both] - before.depth[both]))) if both.any() else 0.0
    # frayed edges alone change half a pixel of the outline from frame to frame
    across = max(across - 0.75 * metres, 0.0)
    return replace(sight, speed_m_s=max(across, along) / passed)


def heading_deg(
    root_rotation: NDArray[np.float64],
    place_world: NDArray[np.float64],
    T_world_depth: NDArray[np.float64],
    up_world: NDArray[np.float64],
) -> float:
    """Which way a body faces, -180 to 180: 0 looks at the sensor, 90 shows it the right side.

    Args:
        root_rotation: (3, 3) body to world; an unturned body looks along z, its left along x.
        place_world: (3,) where it stands. up_world: (3,).
    """
    up = up_world / np.linalg.norm(up_world)
    facing, to_sensor = root_rotation[:, 2], T_world_depth[:3, 3] - place_world
    facing, to_sensor = (v - up * (up @ v) for v in (facing, to_sensor))
    return float(np.degrees(np.arctan2(up @ np.cross(to_sensor, facing), to_sensor @ facing)))


def up_of(seen: Observation, frame: Frame) -> NDArray[np.float64]:
    """(3,) up in the world: gravity's or the floor's; else the sensor is taken to stand upright."""
    return seen.up_world if seen.up_world is not None else -frame.T_world_depth[:3, 1]


def is_close_up(frame: Frame) -> bool:
    """Whether much of the picture is right before the sensor, or too near for it to read at all."""
    readings = frame.depth > 0
    near = (frame.depth < CLOSE_UP_M) & readings
    return bool(near.mean() > CLOSE_UP_SHARE)


def outline_of(person: NDArray[np.bool_], depth: NDArray[np.float32], reach_px: float) -> NDArray[np.bool_]:
    """The person's pixels (H, W) and those without a reading that lie among them, in gaps of up to twice `reach_px`."""
    import cv2

    side = 2 * int(np.clip(reach_px, 1, 40)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    closed = np.asarray(cv2.morphologyEx(person.astype(np.uint8), cv2.MORPH_CLOSE, kernel))
    return person | ((closed > 0) & (depth <= 0))


def _border(mask: NDArray[np.bool_]) -> float:
    inside = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return float(mask.sum() - inside.sum())


def _is_dark(sight: Sight) -> bool:
    return sight.brightness is not None and sight.brightness < DARKEST


def _brightness(frame: Frame, seen: Observation | None) -> float | None:
    """Mean of the colours where the person is, or of the whole image; thinned, since a mean needs no million pixels."""
    if frame.color is None:
        return None
    if seen is not None and frame.color_camera is not None and frame.T_color_depth is not None:
        rows, cols = np.nonzero(seen.person)
        rows, cols = rows[::37], cols[::37]
        z, c = frame.depth[rows, cols].astype(np.float64), frame.depth_camera
        points = np.stack([(cols - c.cx) / c.fx * z, (rows - c.cy) / c.fy * z, z], axis=-1)
        T = frame.T_color_depth
        pixels = frame.color_camera.project(points @ T[:3, :3].T + T[:3, 3])
        pixels = np.rint(pixels[np.isfinite(pixels).all(axis=-1)]).astype(np.int64)
        h, w = frame.color.shape[:2]
        inside = (pixels >= 0).all(axis=-1) & (pixels[:, 0] < w) & (pixels[:, 1] < h)
        if inside.any():
            u, v = pixels[inside].T
            return float(frame.color[v, u].mean())
    return float(frame.color[::8, ::8].mean())
