"""Depth sensors and their faults: what a time-of-flight or a stereo camera makes of exact depth.

The faults are those that evaluations of the Azure Kinect, the Kinect v2 and the RealSense D435 describe: noise that
grows with the square of the distance, mixed pixels at edges, a bias that varies slowly over the image and the distance,
holes where the surface grazes the ray or is dark. Their sizes were set so that the noise on a person at two metres is a
few millimetres (time of flight) or about one centimetre (stereo).
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera

EDGE_M = 0.03
"""A break in depth between neighbouring pixels that counts as an edge."""
GRAZING = np.float32(0.3)
"""Cosine of incidence below which a surface returns less and less."""


@dataclass(frozen=True)
class SensorModel:
    """A depth camera, its colour camera and its faults."""

    name: str
    depth_camera: Camera
    color_camera: Camera
    T_color_depth: NDArray[np.float64]
    kind: Literal["tof", "stereo"] = "tof"
    sigma_m: float = 0.0012
    """Noise at zero distance, metres."""
    sigma_per_m2: float = 0.0002
    """Growth of the noise with the square of the distance, metres per square metre."""
    bias_m: float = 0.0015
    """Size of the error that varies slowly over the image, metres (one standard deviation)."""
    mixed: float = 0.55
    """Share of the pixels at a depth edge that read a value between the two sides (time of flight)."""
    edge_lost: float = 0.3
    """Share of the pixels at a depth edge without a reading."""
    fattening_px: int = 0
    """Reach of the foreground's bleeding over the background (stereo), pixels."""
    correlation_px: float = 0.0
    """Length over which the noise is correlated (stereo's matching window), pixels."""
    random_lost: float = 0.002
    """Share of pixels without a reading for no reason."""
    range_m: tuple[float, float] = (0.3, 5.5)
    """Nearest and farthest reading, metres."""
    unit_m: float = 0.001
    """Depth is rounded to this, metres."""

    def sigma(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standard deviation (H, W) of the noise at each depth, metres."""
        return np.float32(self.sigma_m) + np.float32(self.sigma_per_m2) * depth * depth


def _pinhole(width: int, height: int, f: float) -> Camera:
    return Camera(width, height, f, f, (width - 1) / 2, (height - 1) / 2)


def _color_pose(x: float, y: float, pitch_deg: float) -> NDArray[np.float64]:
    """T_color_depth of a colour camera x, y metres beside the depth camera, tilted by some degrees."""
    c, s = np.cos(np.radians(pitch_deg)), np.sin(np.radians(pitch_deg))
    T = np.eye(4)
    T[1:3, 1:3] = [[c, s], [-s, c]]
    T[:3, 3] = [-x, -y, 0.0]
    return T


def azure_kinect() -> SensorModel:
    """Azure Kinect, narrow field of view, unbinned: 640×576, time of flight."""
    return SensorModel("azure", _pinhole(640, 576, 504.5), _pinhole(960, 540, 458.0), _color_pose(-0.032, -0.002, 5.8))


def kinect_v2() -> SensorModel:
    """Kinect v2: 512×424, time of flight."""
    return SensorModel(
        "kinect2", _pinhole(512, 424, 365.5), _pinhole(960, 540, 530.0), _color_pose(-0.052, 0.0, 0.0),
        sigma_m=0.0014, sigma_per_m2=0.0003, bias_m=0.002, mixed=0.65, edge_lost=0.2, range_m=(0.5, 4.5),
    )  # fmt: skip


def realsense_d435() -> SensorModel:
    """RealSense D435: 848×480, active stereo with a 5 cm baseline, 0.05 px of disparity noise."""
    f, baseline, disparity_px = 424.0, 0.05, 0.05
    return SensorModel(
        "d435", _pinhole(848, 480, f), _pinhole(960, 540, 690.0), _color_pose(0.015, 0.0, 0.0), kind="stereo",
        sigma_m=0.0003, sigma_per_m2=disparity_px / (f * baseline), bias_m=0.003, mixed=0.1, edge_lost=0.35,
        fattening_px=2, correlation_px=2.0, random_lost=0.01, range_m=(0.3, 6.0),
    )  # fmt: skip


SENSORS = {"azure": azure_kinect, "kinect2": kinect_v2, "d435": realsense_d435}


def noiseless(sensor: SensorModel) -> SensorModel:
    """The same cameras without any fault (depth is still rounded)."""
    return replace(
        sensor, kind="tof", sigma_m=0.0, sigma_per_m2=0.0, bias_m=0.0, mixed=0.0, edge_lost=0.0, fattening_px=0,
        correlation_px=0.0, random_lost=0.0,
    )  # fmt: skip


class Bias:
    """The slow error of one physical sensor: the same in every frame that it takes."""

    def __init__(self, sensor: SensorModel, rng: np.random.Generator) -> None:
        import cv2

        camera = sensor.depth_camera
        grid = rng.normal(0, 1, (5, 6)).astype(np.float32)
        self._image = cv2.resize(grid, (camera.width, camera.height), interpolation=cv2.INTER_CUBIC)
        self._image *= np.float32(sensor.bias_m * 0.75)
        self._phase = float(rng.uniform(0, 2 * np.pi))
        self._wiggle_m = float(sensor.bias_m * 0.65 * np.sqrt(2))

    def part(self, rows: slice, columns: slice) -> Bias:
        """The same error in a part of the image."""
        other = copy(self)
        other._image = self._image[rows, columns]
        return other

    def at(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Error (H, W) in metres at each pixel's depth: a pattern of the image and a wave along the distance."""
        wave = np.sin(depth * np.float32(2 * np.pi / 1.5) + np.float32(self._phase))
        return self._image + np.float32(self._wiggle_m) * wave


def read_depth(
    sensor: SensorModel,
    depth: NDArray[np.float32],
    facing: NDArray[np.float32],
    dark: NDArray[np.bool_],
    bias: Bias,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """What the sensor reads (H, W) of exact depth, metres, 0 = no reading.

    Args:
        depth: (H, W) exact camera z, metres, 0 = open.
        facing: (H, W) cosine between the surface's normal and the ray.
        dark: (H, W) where the surface swallows infrared light (hair).
        bias: this sensor's slow error.
    """
    import cv2

    far = np.where(depth > 0, depth, np.float32(2 * sensor.range_m[1]))
    kernel = np.ones((3, 3), np.uint8)
    near, back = cv2.erode(far, kernel), cv2.dilate(far, kernel)
    seen = far
    if sensor.fattening_px:
        # block matching gives an edge to the nearer side, here more, there less
        reach = 2 * sensor.fattening_px + 1
        wide = cv2.erode(far, np.ones((reach, reach), np.uint8))
        blobs = cv2.resize(rng.random((48, 64), dtype=np.float32), far.shape[::-1], interpolation=cv2.INTER_CUBIC)
        seen = np.where((far - wide > EDGE_M) & (blobs > 0.5), wide, far)
    chance = rng.random(depth.shape, dtype=np.float32)
    edge = np.nonzero(_edges(far))
    lost = (chance < sensor.random_lost) | (depth <= 0)
    if sensor.kind == "stereo":
        lost &= seen >= far - EDGE_M  # what bleeds over open space is a reading
        lost |= chance < sensor.random_lost
    at_edge = rng.random(len(edge[0]), dtype=np.float32)
    seen = seen.copy() if seen is far else seen
    mixed = at_edge < sensor.mixed
    rows, cols = edge[0][mixed], edge[1][mixed]
    share = rng.random(len(rows), dtype=np.float32) ** 2  # most of them stay close to one side
    from_near = rng.random(len(rows)) < 0.5
    share = np.where(from_near, share, 1 - share)
    seen[rows, cols] = near[rows, cols] * (1 - share) + np.minimum(back[rows, cols], sensor.range_m[1]) * share
    gone = at_edge > 1 - sensor.edge_lost
    lost[edge[0][gone], edge[1][gone]] = True
    # a grazing or dark surface sends little back: more noise, then none
    weak = np.clip((GRAZING - facing) / GRAZING, 0, 1) if sensor.random_lost else np.zeros_like(facing)
    if sensor.random_lost:
        lost |= rng.random(depth.shape, dtype=np.float32) < 0.5 * weak * weak * weak + 0.12 * dark
    noise = rng.standard_normal(depth.shape, dtype=np.float32)
    if sensor.correlation_px:
        noise = cv2.GaussianBlur(noise, (0, 0), sensor.correlation_px)
        noise *= np.float32(2 * np.sqrt(np.pi) * sensor.correlation_px)  # a blur shrinks white noise by this
    seen = seen + bias.at(seen) + noise * sensor.sigma(seen) * (1 + 2 * weak + dark.astype(np.float32))
    lost |= (seen < sensor.range_m[0]) | (seen > sensor.range_m[1])
    out = np.round(seen / np.float32(sensor.unit_m)) * np.float32(sensor.unit_m)
    out[lost] = 0
    return out.astype(np.float32)


def _edges(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels (H, W) beside a break in depth; a floor seen at a shallow angle has steps but no breaks."""
    import cv2

    across = np.array([[1.0, -2.0, 1.0]], np.float32)
    bend = np.maximum(np.abs(cv2.filter2D(depth, -1, across)), np.abs(cv2.filter2D(depth, -1, across.T)))
    return bend > EDGE_M


def imperfect_mask(
    mask: NDArray[np.bool_], rng: np.random.Generator, reach_px: int = 3, blobs: int = 2
) -> NDArray[np.bool_]:
    """A segmentation's mask (H, W): grown or shrunk by up to `reach_px`, its border frayed, pieces missing or added.

    Args:
        blobs: how many discs of 5 to 15 px at the border are taken away or added.
    """
    import cv2

    step = int(rng.integers(-reach_px, reach_px + 1))
    image = mask.astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(step) + 1, 2 * abs(step) + 1))
    moved = cv2.dilate(image, kernel) if step > 0 else cv2.erode(image, kernel) if step < 0 else image
    frayed = cv2.GaussianBlur(moved.astype(np.float32), (0, 0), 2.0)
    frayed += cv2.GaussianBlur(rng.standard_normal(mask.shape, dtype=np.float32), (0, 0), 3.0) * np.float32(1.2)
    out = (frayed > 0.5).astype(np.uint8)
    border = np.argwhere(cv2.morphologyEx(image, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0)
    # fraying noise far from the person is no mask
    out *= np.asarray(cv2.dilate(image, np.ones((15, 15), np.uint8)), np.uint8)
    for _ in range(blobs if len(border) else 0):
        row, col = border[int(rng.integers(len(border)))]
        value = int(rng.random() < 0.3)
        cv2.circle(out, (int(col), int(row)), int(rng.integers(5, 16)), value, -1)
    return out.astype(bool)
