"""Films a known body: poses and sensors in, frames with noise and the truth beside them out."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.body.skeleton import SMPL_JOINTS
from bodyfit.camera import Camera
from bodyfit.frame import Frame
from bodyfit.render.rasterize import rasterize
from bodyfit.synthetic.clothing import Clothing, dress, wear
from bodyfit.synthetic.color_view import ColorView, Exposure, Light
from bodyfit.synthetic.contact import both_feet_down, free_arms, on_floor
from bodyfit.synthetic.poses import everyday_pose
from bodyfit.synthetic.scene import Scene, SceneView, place_camera, room
from bodyfit.synthetic.sensor import SENSORS, Bias, SensorModel, imperfect_mask, read_depth
from bodyfit.synthetic.subject import Subject, sample_subject
from bodyfit.synthetic.texture import Texture, texture_of

MaskKind = Literal["none", "true", "imperfect"]
_LIGHT_WORLD = np.array([0.35, -0.25, 0.9]) / np.linalg.norm([0.35, -0.25, 0.9])


@dataclass(frozen=True)
class Instant:
    """One moment: the sensors' frames and masks by sensor name, and the true body, all in world metres.

    Attributes:
        frames: what each sensor saw.
        masks: (H, W) bool, the person's visible pixels, exact.
        clean: (H, W) exact depth.
        pose: (J, 3) axis-angle; transl: (3,).
        vertices_world: (V, 3) naked body; surface_world: (V, 3) with clothes.
        joints_world: (J, 3).
    """

    frames: dict[str, Frame]
    masks: dict[str, NDArray[np.bool_]]
    clean: dict[str, NDArray[np.float32]]
    pose: NDArray[np.float64]
    transl: NDArray[np.float64]
    vertices_world: NDArray[np.float64]
    surface_world: NDArray[np.float64]
    joints_world: NDArray[np.float64]


@dataclass(frozen=True)
class Take:
    """A filmed subject."""

    model: BodyModel
    subject: Subject
    clothing: Clothing
    sensors: tuple[SensorModel, ...]
    T_world_depth: tuple[NDArray[np.float64], ...]
    instants: tuple[Instant, ...]
    pose_names: tuple[str, ...]
    headings_deg: tuple[float, ...]
    gravity_world: NDArray[np.float64]

    @property
    def frames(self) -> list[Frame]:
        """All frames, instant by instant."""
        return [frame for instant in self.instants for frame in instant.frames.values()]


def sample_take(
    model: BodyModel,
    seed: int,
    *,
    pose_names: Sequence[str] = ("a_pose",),
    headings_deg: Sequence[float] = (0.0,),
    sensor: str | SensorModel = "azure",
    sex: str | None = None,
    subject: Subject | None = None,
    off_model_mm_rms: float = 3.0,
    clothing: str = "tight",
    mask: MaskKind = "none",
    color: bool = False,
    color_stride: int = 2,
    occluder: bool = False,
    jitter_deg: float = 5.0,
    textured: bool = False,
) -> Take:
    """A person, a room and one sensor by chance; the same seed gives the same bytes.

    Args:
        pose_names: the pose of each instant, from `poses.POSES`.
        headings_deg: which way the person faces at each instant; 0 looks at the sensor, 90 shows it the right side.
        sensor: a name of `sensor.SENSORS` or a sensor.
        subject: the person; None draws one.
        mask: what the frames carry as a mask.
        color: render colour images too (kept at every `color_stride`-th pixel of the colour camera).
        occluder: a counter hides the legs.
        textured: skin and clothes have patterns (`texture.texture_of`) and the light comes from lamps; the depth is
            the same without.
    """
    subject_rng, clothes_rng, place_rng, pose_rng, sensor_rng = np.random.default_rng(seed).spawn(5)
    if subject is None:
        subject = sample_subject(model, subject_rng, sex, off_model_mm_rms)
    clothes = dress(model, subject, clothing, clothes_rng)
    device = SENSORS[sensor]() if isinstance(sensor, str) else sensor
    azimuth = place_rng.uniform(-np.pi, np.pi)
    T_world_depth = place_camera(place_rng, azimuth=azimuth)
    scene = room(place_rng, T_world_depth[:3, 3], occluder=occluder)
    poses = []
    for name, heading in zip(pose_names, headings_deg, strict=True):
        pose = everyday_pose(name, pose_rng, yaw=azimuth + np.radians(heading), jitter_deg=jitter_deg)
        poses.append(free_arms(model, subject, both_feet_down(model, subject, full_pose(model, pose))))
    places = pose_rng.normal(0, 0.04, (len(poses), 2))
    return film(
        model, subject, clothes, poses, places, (device,), (T_world_depth,), scene, sensor_rng, mask=mask, color=color,
        color_stride=color_stride, pose_names=tuple(pose_names), headings_deg=tuple(headings_deg),
        texture_seed=seed if textured else None,
    )  # fmt: skip


def film(
    model: BodyModel,
    subject: Subject,
    clothing: Clothing,
    poses: Sequence[NDArray[np.float64]],
    places: NDArray[Any],
    sensors: Sequence[SensorModel],
    T_world_depth: Sequence[NDArray[np.float64]],
    scene: Scene,
    rng: np.random.Generator,
    *,
    mask: MaskKind = "none",
    color: bool = False,
    color_stride: int = 2,
    frame_rate: float = 1.0,
    pose_names: tuple[str, ...] = (),
    headings_deg: tuple[float, ...] = (),
    texture_seed: int | None = None,
) -> Take:
    """Films a dressed subject in given poses (J, 3) with feet on the floor, the root above places (T, 2) metres.

    With a `texture_seed` the colour is that of a textured body under lamps.
    """
    flat = color and texture_seed is None
    views = [
        SensorView(s, T, scene, rng.spawn(1)[0], flat, color_stride)
        for s, T in zip(sensors, T_world_depth, strict=True)
    ]
    studio = None
    if color and texture_seed is not None:
        studio = Studio.drawn(model, subject, clothing, sensors, T_world_depth, scene, color_stride, texture_seed)
    instants = []
    for t, (pose, place) in enumerate(zip(poses, places, strict=True)):
        vertices, joints = subject.posed(model, pose, np.zeros(3))
        surface = wear(vertices, model.faces, clothing)
        transl = on_floor(surface, joints, place)
        surface = surface + transl
        frames, masks, clean = {}, {}, {}
        for view in views:
            name = view.sensor.name
            frames[name], masks[name], clean[name] = view.shoot(
                surface, model.faces, clothing, mask, t, t / frame_rate, rng.spawn(1)[0]
            )
        if studio is not None:
            frames = {name: studio.colored(frame, surface, model.faces) for name, frame in frames.items()}
        instants.append(Instant(frames, masks, clean, pose, transl, vertices + transl, surface, joints + transl))
    return Take(
        model, subject, clothing, tuple(sensors), tuple(T_world_depth), tuple(instants), pose_names, headings_deg,
        np.array([0.0, 0.0, -1.0]),
    )  # fmt: skip


@dataclass(frozen=True)
class Studio:
    """Texture and light of a film, and its colour cameras by sensor name; `exposure` is None where it is fixed."""

    texture: Texture
    light: Light
    views: dict[str, ColorView]
    T_color_depth: dict[str, NDArray[np.float64]]
    exposure: Exposure | None
    seed: int

    @staticmethod
    def drawn(
        model: BodyModel,
        subject: Subject,
        clothing: Clothing,
        sensors: Sequence[SensorModel],
        T_world_depth: Sequence[NDArray[np.float64]],
        scene: Scene,
        stride: int,
        seed: int,
        wanders: bool = False,
    ) -> Studio:
        """A studio by chance; with `wanders` the exposure and the white balance do."""
        texture_rng, light_rng, exposure_rng = np.random.default_rng([0xC0107, seed]).spawn(3)
        x, y = T_world_depth[0][:2, 3]
        light = Light.drawn(light_rng, float(np.arctan2(y, x)))
        return Studio(
            texture_of(model, subject, clothing, texture_rng),
            light,
            {s.name: ColorView(s, T, scene, light, stride) for s, T in zip(sensors, T_world_depth, strict=True)},
            {s.name: s.T_color_depth for s in sensors},
            Exposure.drawn(exposure_rng) if wanders else None,
            seed,
        )

    def colored(
        self, frame: Frame, surface_world: NDArray[np.float64], faces: NDArray[np.int32], time_s: float | None = None
    ) -> Frame:
        """The frame with a colour image of the surface (V, 3), exposed as at `time_s` (the frame's own)."""
        view = self.views[frame.sensor]
        at = frame.timestamp_s if time_s is None else time_s
        gain = np.ones(3, np.float32) if self.exposure is None else self.exposure.at(at)
        rng = np.random.default_rng([0xC0107, self.seed, frame.index, len(frame.sensor)])
        image = view.shoot(surface_world, faces, self.texture, gain, rng)
        return replace(frame, color=image, color_camera=view.camera, T_color_depth=self.T_color_depth[frame.sensor])


def full_pose(model: BodyModel, pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """A SMPL pose (24, 3) for a model with other joints besides (fingers, jaw): those stay at zero."""
    out = np.zeros((model.num_joints, 3))
    known = {name: i for i, name in enumerate(SMPL_JOINTS)}
    for i, name in enumerate(model.joint_names):
        if name in known:
            out[i] = pose[known[name]]
    return out


class SensorView:
    """One sensor in its place: what it sees of the empty room is worked out once."""

    def __init__(
        self,
        sensor: SensorModel,
        T_world_depth: NDArray[np.float64],
        scene: Scene,
        rng: np.random.Generator,
        color: bool,
        stride: int,
    ) -> None:
        self.sensor, self.T_world_depth = sensor, T_world_depth
        self.room = scene.view(sensor.depth_camera, T_world_depth)
        self.bias = Bias(sensor, rng)
        self.empty: list[NDArray[np.float32]] = []
        self.color_camera: Camera | None = None
        if color:
            self.color_camera = sensor.color_camera.every(stride)
            # drawn at twice the resolution where there is any, so that edges are smooth
            self.fine = 2 if stride % 2 == 0 else 1
            self.fine_camera = sensor.color_camera.every(stride // self.fine)
            self.T_world_color = T_world_depth @ np.linalg.inv(sensor.T_color_depth)
            self.color_room = scene.view(self.fine_camera, self.T_world_color)
            self.color_paint = scene.paint(self.color_room)

    def elsewhere(self, scene: Scene) -> SensorView:
        """The same sensor, its faults included, with other things in the room; without colour."""
        other = copy(self)
        other.room, other.color_camera = scene.view(self.sensor.depth_camera, self.T_world_depth), None
        if self.empty:
            other.read_empty(len(self.empty), np.random.default_rng(0))
        return other

    def read_empty(self, count: int, rng: np.random.Generator) -> None:
        """Reads the empty room so many times: frames to come have one of these around the person, which is cheaper."""
        dark = np.zeros(self.room.depth.shape, bool)
        self.empty = [
            read_depth(self.sensor, self.room.depth, self.room.facing, dark, self.bias, r) for r in rng.spawn(count)
        ]

    def shoot(
        self,
        surface_world: NDArray[np.float64],
        faces: NDArray[np.int32],
        clothing: Clothing,
        mask: MaskKind,
        index: int,
        timestamp_s: float,
        rng: np.random.Generator,
    ) -> tuple[Frame, NDArray[np.bool_], NDArray[np.float32]]:
        """A frame, the exact mask (H, W) and the exact depth (H, W)."""
        depth_rng, mask_rng, color_rng = rng.spawn(3)
        camera = self.sensor.depth_camera
        seen, corners, facing = _see(surface_world, faces, camera, self.T_world_depth, self.room)
        clean, cos = self.room.depth.copy(), self.room.facing.copy()
        clean[seen.mask], cos[seen.mask] = seen.depth, facing
        dark = np.zeros(clean.shape, bool)
        dark[seen.mask] = clothing.dark[corners[:, 0]]
        if self.empty:
            depth = self.empty[int(depth_rng.integers(len(self.empty)))].copy()
            window = _around(seen.mask)
            depth[window] = read_depth(
                self.sensor, clean[window], cos[window], dark[window], self.bias.part(*window), depth_rng
            )
        else:
            depth = read_depth(self.sensor, clean, cos, dark, self.bias, depth_rng)
        given = (
            {"none": None, "true": seen.mask}.get(mask) if mask != "imperfect" else imperfect_mask(seen.mask, mask_rng)
        )
        color = self._color(surface_world, faces, clothing, color_rng) if self.color_camera else None
        frame = Frame(
            depth=depth,
            depth_camera=camera,
            T_world_depth=self.T_world_depth,
            timestamp_s=timestamp_s,
            color=color,
            color_camera=self.color_camera,
            T_color_depth=self.sensor.T_color_depth if self.color_camera else None,
            mask=given,
            sensor=self.sensor.name,
            index=index,
        )
        return frame, seen.mask, clean

    def _color(
        self, surface_world: NDArray[np.float64], faces: NDArray[np.int32], clothing: Clothing, rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """(Hc, Wc, 3) sRGB: one lamp above, light from the sky and the camera's side, a soft shadow at the feet."""
        import cv2

        camera, room = self.fine_camera, self.color_room
        image = self.color_paint * (0.35 + 0.5 * room.facing[..., None])
        points = camera.backproject(room.depth) @ self.T_world_color[:3, :3].T + self.T_world_color[:3, 3]
        feet = surface_world[surface_world[:, 2] < surface_world[:, 2].min() + 0.1].mean(0)
        apart = ((points[..., :2] - feet[:2]) ** 2).sum(-1)
        shadow = np.exp(-apart / (2 * 0.22**2)) * np.exp(-((points[..., 2] / 0.05) ** 2))
        image = image * (1 - 0.55 * shadow[..., None])
        seen, corners, facing = _see(surface_world, faces, camera, self.T_world_color, room)
        normal = np.cross(
            surface_world[corners[:, 1]] - surface_world[corners[:, 0]],
            surface_world[corners[:, 2]] - surface_world[corners[:, 0]],
        )
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        light = 0.25 + 0.45 * np.maximum(normal @ _LIGHT_WORLD, 0) + 0.1 * normal[:, 2] + 0.35 * facing
        image[seen.mask] = clothing.albedo[corners].mean(1) * np.maximum(light, 0.03)[:, None]
        if self.fine == 2:
            image = cv2.GaussianBlur(image.astype(np.float32), (3, 3), 0)[::2, ::2]
        image = np.clip(image * 1.15 + rng.normal(0, 0.006, image.shape), 0, 1) ** (1 / 2.2)
        return np.round(image * 255).astype(np.uint8)


def _around(mask: NDArray[np.bool_], margin: int = 24) -> tuple[slice, slice]:
    """Rows and columns of a mask's pixels and of what they change in a sensor's reading."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if not len(rows):
        return slice(0, margin), slice(0, margin)
    return (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + margin + 1),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + margin + 1),
    )


@dataclass(frozen=True)
class _Seen:
    """mask (H, W) of the body's visible pixels and their depth (N,)."""

    mask: NDArray[np.bool_]
    depth: NDArray[np.float32]


def _see(
    surface_world: NDArray[np.float64],
    faces: NDArray[np.int32],
    camera: Camera,
    T_world_cam: NDArray[np.float64],
    room: SceneView,
) -> tuple[_Seen, NDArray[np.int32], NDArray[np.float32]]:
    """The body before the room: visible pixels, the corners (N, 3) of the face in each, cosine of incidence (N,)."""
    cam = (surface_world - T_world_cam[:3, 3]) @ T_world_cam[:3, :3]
    raster = rasterize(cam, faces, camera)
    mask = (raster.face >= 0) & ((room.depth == 0) | (raster.depth < room.depth))
    corners = faces[raster.face[mask]]
    a, b, c = (cam[corners[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    ray = (a + b + c) / 3
    facing = -(normal * ray).sum(1) / np.maximum(np.linalg.norm(normal, axis=1) * np.linalg.norm(ray, axis=1), 1e-12)
    return _Seen(mask, raster.depth[mask]), corners, np.clip(facing, 0, 1).astype(np.float32)
