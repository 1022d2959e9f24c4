"""A sensor frame turned into evidence: clean depth, and for every pixel whether it is the person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import DepthUnitError, FrameError, PersonNotFoundError, SeveralPeopleError
from bodyfit.frame import Frame, Keypoints
from bodyfit.observe.bleed import without_bleeding
from bodyfit.observe.edges import drop_flying_pixels
from bodyfit.observe.ground import Ground, find_ground
from bodyfit.observe.mend import follow_surface, is_rough, mend_mask
from bodyfit.observe.noise import DepthNoise, plane_noise
from bodyfit.observe.normals import normals_from_depth
from bodyfit.observe.person import Candidate, find_candidates
from bodyfit.observe.scene import Scene, build_scene, pixels_where
from bodyfit.observe.silhouette import (
    BACKGROUND,
    PERSON,
    UNKNOWN,
    NearGround,
    floor_at_feet,
    gather,
    keep_consistent,
    label_pixels,
)
from bodyfit.watch import checkpoint

__all__ = ["BACKGROUND", "PERSON", "UNKNOWN", "Observation", "observe"]

NEAREST_M, FARTHEST_M = 0.1, 50.0
"""Half of the readings nearer or farther than this: no depth sensor that can see a person sees so little or so much."""


@dataclass(frozen=True)
class Observation:
    """What one frame says about one person.

    Attributes:
        depth: (H, W) float32 metres, camera z, 0 = no reading; flying pixels dropped.
        label: (H, W) uint8: BACKGROUND (known not to be this person), PERSON, UNKNOWN (no reading, or something nearer
            may hide the person). A PERSON pixel may be without depth: the mask or its surroundings say whose it is.
        camera: pinhole depth camera.
        T_world_depth: (4, 4) depth-camera to world coordinates.
        up_world: (3,) unit vector, or None where neither gravity nor a floor is known.
        floor_height_m: the floor's world height along `up_world` where the person stands; None where no floor is seen.
        floor_plane_world: (4,) n·x + d = 0 with n pointing up, or None.
        cut_off: the image borders ("top", "bottom", "left", "right") that the person touches.
        mask_given: the person is who the recording's mask says.
        dropped_px: how many readings were dropped as flying pixels.
        noise: the sensor's noise, measured on floor and walls; None where too little of them is seen.
        color, color_camera, T_color_depth, keypoints, sensor, index, timestamp_s: as in the frame.
    """

    depth: NDArray[np.float32]
    label: NDArray[np.uint8]
    camera: Camera
    T_world_depth: NDArray[np.float64]
    up_world: NDArray[np.float64] | None
    floor_height_m: float | None
    floor_plane_world: NDArray[np.float64] | None
    cut_off: frozenset[str]
    mask_given: bool
    dropped_px: int
    keypoints: Keypoints | None
    color: NDArray[np.uint8] | None
    color_camera: Camera | None
    T_color_depth: NDArray[np.float64] | None
    sensor: str
    index: int
    timestamp_s: float
    noise: DepthNoise | None = None

    @property
    def person(self) -> NDArray[np.bool_]:
        """(H, W) bool, the person's pixels that have a reading."""
        return (self.label == PERSON) & (self.depth > 0)

    def normals(self) -> NDArray[np.float32]:
        """(H, W, 3) unit normals of the person's surface in camera coordinates, facing the camera; 0 elsewhere."""
        return normals_from_depth(self.depth, self.camera, self.person)


def observe(frame: Frame, *, gravity_world: NDArray[np.float64] | None, person: int | None = None) -> Observation:
    """Finds the person in a frame and says of every pixel whether it is theirs.

    Args:
        frame: depth in metres, undistorted; a `mask` in it says who the person is.
        gravity_world: (3,) direction of gravity in world coordinates, or None where unknown.
        person: which one, counted from the left of the image from 1, where several people stand in it.

    Raises:
        FrameError: the depth has no readings, or some that are negative or not finite.
        DepthUnitError: the depth can only be in another unit.
        PersonNotFoundError: nobody stands in the frame, or fewer than `person` people.
        SeveralPeopleError: several people do, and `person` was not given.
    """
    _check_depth(frame)
    depth, flying = drop_flying_pixels(frame.depth, frame.depth_camera)
    R, t = frame.T_world_depth[:3, :3], frame.T_world_depth[:3, 3]
    gravity_cam = None if gravity_world is None else R.T @ np.asarray(gravity_world, dtype=np.float64)
    if not (depth > 0).any():
        raise FrameError("depth", "readings that form surfaces", "specks only")
    checkpoint()
    ground = find_ground(depth, frame.depth_camera, gravity_cam)
    checkpoint()
    scene = build_scene(depth, frame.depth_camera, ground)

    checkpoint()
    if frame.mask is not None:
        if not frame.mask.any():
            raise PersonNotFoundError("mask", "pixels marked as the person", "none", "leave the mask out to search")
        near = floor_at_feet(scene, frame.mask & (depth > 0)) if (frame.mask & (depth > 0)).any() else None
        own = keep_consistent(scene, frame.mask, near) if near is not None else frame.mask & (depth > 0)
        if near is None or not own.any():
            raise PersonNotFoundError("mask", "depth readings where the mask says person", "none")
        height = near.height if near.ground.plane is not None else None
        above = depth > 0 if height is None else height > near.foot_m
        shape = frame.mask
        if is_rough(frame.mask, own, scene, above):
            own, doubtful = follow_surface(own, scene, above)
            whole = height is not None and float(height[own].min()) < 0.1
            shape = None
        else:
            missed, doubtful = mend_mask(frame.mask, depth, frame.depth_camera, height)
            own = own | (missed & ~scene.wall & ~scene.floor)
            doubtful, whole = doubtful & ~scene.wall & ~scene.floor, True
    else:
        chosen = _choose(scene, find_candidates(scene), frame, gravity_cam, person)
        main = chosen.mask(depth.shape)
        near = floor_at_feet(scene, main)
        own, doubtful = gather(scene, main, near)
        shape = None
        whole = ground.plane is not None and float(near.height[own].min()) < 0.1
    checkpoint()
    label = label_pixels(scene, own, near, frame.depth, whole, shape, doubtful)
    depth = np.where((label == PERSON) & ~own, np.float32(0), depth)
    noise = plane_noise(scene.depth, (scene.floor | scene.wall) & (label == BACKGROUND))
    checkpoint()
    if noise is not None and noise.stereo:
        depth, label = without_bleeding(depth, label, noise)

    plane_world, floor_height, up_world = _to_world(near.ground, gravity_world, scene, own, R, t)
    return Observation(
        depth=depth,
        label=label,
        camera=frame.depth_camera,
        T_world_depth=frame.T_world_depth,
        up_world=up_world,
        floor_height_m=floor_height,
        floor_plane_world=plane_world,
        cut_off=_cut_off(label == PERSON, depth, near),
        mask_given=frame.mask is not None,
        dropped_px=int(flying.sum()),
        keypoints=frame.keypoints,
        color=frame.color,
        color_camera=frame.color_camera,
        T_color_depth=frame.T_color_depth,
        sensor=frame.sensor,
        index=frame.index,
        timestamp_s=frame.timestamp_s,
        noise=noise,
    )


def _check_depth(frame: Frame) -> None:
    depth = frame.depth
    low, high = float(depth.min()), float(depth.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
        found = "NaN or infinity" if not (np.isfinite(low) and np.isfinite(high)) else f"{low:g} m"
        raise FrameError("depth", "finite metres, 0 for no reading", found)
    if high == 0:
        raise FrameError("depth", "some readings", "all zero")
    where = depth if frame.mask is None else np.where(frame.mask, depth, 0)
    readings = where[where > 0]
    if not len(readings):
        readings = depth[depth > 0]
    typical = float(np.median(readings))
    if not NEAREST_M <= typical <= FARTHEST_M:
        raise DepthUnitError(
            "depth", f"a person {NEAREST_M:g} to {FARTHEST_M:g} m away", f"readings at {_distance(typical)}",
            "depth_unit_m is wrong: millimetres per count are 0.001",
        )  # fmt: skip


def _distance(metres: float) -> str:
    if metres < 0.1:
        return f"{1000 * metres:.2g} mm"
    return f"{metres / 1000:.2g} km" if metres >= 1000 else f"{metres:.3g} m"


def _choose(
    scene: Scene, found: list[Candidate], frame: Frame, gravity_cam: NDArray[np.float64] | None, person: int | None
) -> Candidate:
    people = sorted((c for c in found if c.human is None), key=lambda c: c.column)
    if not people:
        _check_scale(frame, gravity_cam)
        raise PersonNotFoundError("depth", "a person standing in sight", _largest(found))
    if person is not None:
        if not 1 <= person <= len(people):
            raise PersonNotFoundError("person", f"1 to {len(people)}, counted from the left", str(person))
        return people[person - 1]
    if len(people) > 1:
        where = ", ".join(
            f"{k} at column {c.column:.0f}, {float(np.median(scene.depth[c.rows, c.cols])):.1f} m away"
            for k, c in enumerate(people, 1)
        )
        raise SeveralPeopleError(
            "depth", "one person", f"{len(people)}: {where}", "choose with --person N, counted from the left",
            count=len(people),
        )  # fmt: skip
    return people[0]


def _largest(found: list[Candidate]) -> str:
    if not found:
        return "walls and floor only"
    c = max(found, key=lambda c: c.area_m2)
    return f"at most a thing {c.top_m:.2f} m high and {c.span_m:.2f} m wide at column {c.column:.0f} ({c.human})"


def _check_scale(frame: Frame, gravity_cam: NDArray[np.float64] | None) -> None:
    """A room in which nobody is found at this scale, but somebody at ten times or a tenth of it, has a wrong unit."""
    for factor in (0.1, 10.0):
        scaled = frame.depth * np.float32(factor)
        if not 0.5 < float(np.median(scaled[scaled > 0])) < 15:
            continue
        depth, _ = drop_flying_pixels(scaled, frame.depth_camera)
        ground = find_ground(depth, frame.depth_camera, gravity_cam)
        people = [c for c in find_candidates(build_scene(depth, frame.depth_camera, ground)) if c.human is None]
        if people and ground.plane is not None:
            away = float(np.median(depth[people[0].rows, people[0].cols])) / factor
            tall = people[0].top_m / factor
            raise DepthUnitError(
                "depth", "a person of human size", f"one {tall:.2g} m tall, {away:.2g} m away",
                f"depth_unit_m is {1 / factor:g} times what it should be",
            )  # fmt: skip


def _to_world(
    ground: Ground,
    gravity_world: NDArray[np.float64] | None,
    scene: Scene,
    own: NDArray[np.bool_],
    R: NDArray[np.float64],
    t: NDArray[np.float64],
) -> tuple[NDArray[np.float64] | None, float | None, NDArray[np.float64] | None]:
    up_world: NDArray[np.float64] | None = None
    if gravity_world is not None:
        up_world = -np.asarray(gravity_world, dtype=np.float64) / np.linalg.norm(gravity_world)
    if ground.plane is None:
        return None, None, up_world
    n = R @ ground.plane[:3]
    plane_world = np.array([*n, ground.plane[3] - n @ t])
    if up_world is None:
        up_world = n
    v, u = pixels_where(own)
    z = scene.depth[v, u].astype(np.float64)
    camera = scene.camera
    middle = np.array([((u - camera.cx) / camera.fx * z).mean(), ((v - camera.cy) / camera.fy * z).mean(), z.mean()])
    at = R @ middle + t
    # down from the middle of the person to the floor
    drop = (n @ at + plane_world[3]) / (n @ up_world)
    return plane_world, float(up_world @ at - drop), up_world


def _cut_off(person: NDArray[np.bool_], depth: NDArray[np.float32], near: NearGround) -> frozenset[str]:
    h, w = person.shape
    rows, cols = np.flatnonzero(person.any(1)), np.flatnonzero(person.any(0))
    sides = {
        "top": rows[0] <= 1, "bottom": rows[-1] >= h - 2, "left": cols[0] <= 1, "right": cols[-1] >= w - 2,
    }  # fmt: skip
    out = {side for side, cut in sides.items() if cut}
    if "bottom" not in out and near.ground.plane is not None:
        # sensors whose field of view is not the whole image end in a margin without readings
        low = person & (depth > 0)
        if low.any() and float(near.height[low].min()) > 0.15:
            below = depth[rows[-1] + 2 :, cols[0] : cols[-1] + 1]
            if below.size and not (below > 0).any():
                out.add("bottom")
    return frozenset(out)
