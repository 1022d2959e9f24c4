"""The photometric term: the colour image near the person, and the pull of its colours on the body's points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.pose_prior import log_rotation
from bodyfit.fit.surface_points import PointCloud
from bodyfit.frame import Frame
from bodyfit.kernels import photometric as K


@dataclass(frozen=True)
class ColorConfig:
    """Settings of the photometric term and of what is learnt for it."""

    points: int = 14000
    """points of the body that have a colour: about one to 1.2 cm²"""
    used: int = 1600
    """at most so many of them pull in one frame: the steepest"""
    sigma: float = 0.04
    """standard deviation of a channel's residual, sRGB 0 to 1: noise, light that the model does not know, JPEG"""
    robust: float = 0.10
    """Geman-McClure scale of a point's residual over the three channels, sRGB"""
    blur_m: float = 0.007
    """the image is smoothed over so much of the body's surface (standard deviation, metres), so that a point has the
    same colour near and far"""
    finest_m: float = 0.0035
    """an image whose pixels are smaller than this on the body is halved first"""
    weight: float = 1.0
    """factor on the number of independent pixels"""
    edge_m: float = 0.02
    """no point is used so near the body's outline, or a limb's edge before another: what lies behind bleeds over it,
    and whatever moves with the outline resists a twist"""
    least_facing: float = 0.35
    """cosine between normal and line of sight below which a point is not looked at"""
    agreement_m: float = 0.02
    """a point is in sight where the depth sensor reads no more than this before or behind it"""
    least_gradient: float = 0.008
    """sRGB per pixel; flatter places say nothing of a motion"""
    learnt: float = 6.0
    """a point pulls once the frames that it was seen in (each counts the squared cosine) add up to this: colours of one
    moment, in which a limb was turned wrongly, would hold it there"""
    most_frames: float = 200.0
    """the running mean is over the last so many frames"""
    fastest_mps: float = 0.8
    """colours are learnt of points that move slower than this: colour is taken a little later than depth, and a limb
    that flies is not where it is thought to be"""
    margin_m: float = 0.12
    """how far around the expected body the image is cut out"""


@dataclass(frozen=True)
class ColorView:
    """The part of a frame's colour image with the person: image (h, w, 3) float32 sRGB 0 to 1, smoothed.

    intrinsics (4,) fx fy cx cy of that part in its pixels; R_cw, t_cw world to colour camera; blur_px the smoothing;
    px_per_m pixels per metre where the body is;
    box: first row, first column, rows and columns of the part in the full image.
    """

    image: NDArray[np.float32]
    intrinsics: NDArray[np.float32]
    R_cw: NDArray[np.float64]
    t_cw: NDArray[np.float64]
    blur_px: float
    px_per_m: float
    sensor: str
    box: tuple[int, int, int, int]


def color_pose(frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotation (3, 3) and translation (3,) from world to a frame's colour camera."""
    assert frame.T_color_depth is not None
    T = frame.T_color_depth @ np.linalg.inv(frame.T_world_depth)
    return np.ascontiguousarray(T[:3, :3]), np.ascontiguousarray(T[:3, 3])


def make_color_view(frame: Frame, points_world: NDArray[np.floating], config: ColorConfig) -> ColorView | None:
    """Cuts out, smooths and scales the colour image around a body expected at points_world (N, 3).

    None where there is no colour or the body is not in the picture.
    """
    import cv2

    if frame.color is None or frame.color_camera is None:
        return None
    camera: Camera = frame.color_camera
    R, t = color_pose(frame)
    p = points_world @ R.T + t
    z = p[:, 2]
    if not np.isfinite(p).all() or (z < 0.2).mean() > 0.5:
        return None
    p = p[z > 0.2]
    u, v = camera.fx * p[:, 0] / p[:, 2] + camera.cx, camera.fy * p[:, 1] / p[:, 2] + camera.cy
    far = float(np.median(p[:, 2]))
    margin = config.margin_m * camera.fx / far
    half = max(1, int(config.finest_m * camera.fx / far))  # so many pixels become one
    c0, c1 = int(max(0, u.min() - margin)), int(min(camera.width, u.max() + margin + 1))
    r0, r1 = int(max(0, v.min() - margin)), int(min(camera.height, v.max() + margin + 1))
    height, width = (r1 - r0) // half, (c1 - c0) // half
    if height < 16 or width < 16:
        return None
    part = frame.color[r0 : r0 + height * half, c0 : c0 + width * half]
    if half > 1:
        part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    blur = max(0.6, config.blur_m * camera.fx / half / far)
    smooth = cv2.GaussianBlur(part.astype(np.float32), (0, 0), blur, borderType=cv2.BORDER_REPLICATE)
    image = np.asarray(smooth * np.float32(1 / 255), np.float32)
    # the middle of `half` pixels lies half a pixel less than half of them further
    shift = (half - 1) / 2
    intrinsics = np.array(
        [camera.fx / half, camera.fy / half, (camera.cx - c0 - shift) / half, (camera.cy - r0 - shift) / half],
        np.float32,
    )
    return ColorView(
        np.ascontiguousarray(image),
        intrinsics,
        R,
        t,
        blur,
        camera.fx / half / far,
        frame.sensor,
        (r0, c0, height * half, width * half),
    )


@dataclass(frozen=True)
class ColorTerm:
    """What one frame's colours say of an instant: points (n) with the colours (n, 3) that they are expected to have.

    spread (n,): variance of a point's colour over the frames, sRGB²; weight: of one point, so that together they count
    as many as there are independent pixels.
    """

    view: ColorView
    cloud: PointCloud
    targets: NDArray[np.float32]
    spread: NDArray[np.float32]
    weight: float
    config: ColorConfig

    def settings(self) -> NDArray[np.float64]:
        """The kernel's numbers."""
        s = np.empty(K.NUM_SETTINGS)
        s[K.SIGMA], s[K.ROBUST], s[K.POINT_WEIGHT] = self.config.sigma, self.config.robust, self.weight
        s[K.LEAST_GRADIENT] = self.config.least_gradient
        return s


def photometric_equations(
    term: ColorTerm,
    mesh: Mesh,
    rotations: NDArray[np.float64],
    transl: NDArray[np.float64],
    shape: NDArray[np.float64],
    H: NDArray[np.float64],
    g: NDArray[np.float64],
    stats: NDArray[np.float64] | None = None,
    *,
    want_rows: bool = True,
) -> float:
    """Adds one frame's term to an instant's normal equations H (P, P), g (P,); its cost.

    rotations (J, 3, 3), transl (3,), shape (S,) as `Problem` has them, about the mesh that the points lie on; stats
    (NUM_STATS,) as the kernel fills them.
    """
    cloud, view = term.cloud, term.view
    stats = np.empty(K.NUM_STATS) if stats is None else stats
    K.linearize_points(
        cloud.template, cloud.shapedirs, cloud.weight_joints, cloud.weights,
        mesh.joint_template, mesh.jointdirs, mesh.parents, rotations, transl, shape,
        view.R_cw, view.t_cw, view.intrinsics, view.image, term.targets, term.spread, term.settings(), want_rows,
        H, g, stats,
    )  # fmt: skip
    return float(stats[K.COST])


@dataclass(frozen=True)
class ColorPull:
    """What an instant's colours said where they were last looked at, as a quadratic about that pose, so that poses can
    be solved again without the picture: rotations (J, 3, 3), transl (3,), products (Q, Q) and gradient (Q,) of the
    colours' cost there. Far away it is flat: texture says nothing there."""

    rotations: NDArray[np.float64]
    transl: NDArray[np.float64]
    products: NDArray[np.float32]
    gradient: NDArray[np.float32]

    REACH = 3.0
    """the cost at which the quadratic has turned halfway to flat"""

    def equations(
        self, rotations: NDArray[np.float64], transl: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Cost, gradient (Q,) and products (Q, Q) at a pose."""
        turn = log_rotation(np.swapaxes(self.rotations, -1, -2) @ rotations)[0]
        d = np.concatenate([turn.ravel(), transl - self.transl])
        g, Hd = self.gradient.astype(np.float64), self.products.astype(np.float64) @ d
        near = self.REACH / (self.REACH + 0.5 * float(d @ Hd))
        slope = float(g @ d)
        gradient = near * g + near**2 * (1 - slope / self.REACH) * Hd
        return near * (slope + 0.5 * float(d @ Hd)), gradient, near**2 * self.products.astype(np.float64)
