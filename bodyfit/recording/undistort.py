"""Lens distortion taken out of images and pixels, once, at the door; behind it every camera is a pinhole.

The models are OpenCV's (documentation of `calib3d`, "Detailed Description"): with x, y on z = 1 and r² = x² + y²,

    radial = (1 + k1 r² + k2 r⁴ + k3 r⁶) / (1 + k4 r² + k5 r⁴ + k6 r⁶)      (k4..k6 are 0 in `brown_conrady`)
    x' = x radial + 2 p1 x y + p2 (r² + 2 x²)
    y' = y radial + p1 (r² + 2 y²) + 2 p2 x y

Such a polynomial is fitted inside the image and turns back on itself somewhere outside. An undistorted pixel beyond
that fold would show a ghost of the image's inside, so it has no source; and where the fold lies inside the image
itself, the coefficients cannot be those of a lens and are refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import CameraError

# real lenses stay far below; rational models, whose two halves nearly cancel, reach thousands
MAX_COEFFICIENT = 1e6
# the far corners of an image may lie outside of what was calibrated
MIN_REACHED_SHARE = 0.95
# the picture of a wide lens is round: the corners beyond it are dark, and where they would come from means nothing
MIN_REACHED_BY_WIDE_LENS = 0.75
# lenses bend the border by some percent; under coefficients that leave less than this, hardly anything would be seen
MIN_FILLED_SHARE = 0.5
_PROBES_PER_SIDE = 33
OUTSIDE = -2.0
"""a pixel beyond every image"""


@dataclass(frozen=True)
class Undistorter:
    """Where each pixel of the undistorted (pinhole, same K) image comes from in the recorded one.

    Attributes:
        camera: the recorded camera.
        nearest: (H, W, 2) int16 column and row of the nearest source pixel, far outside of the image where there is no
            source.
        between: (H, W, 2) int16 column and row before the source, and (H, W) uint16 how far it lies beyond them, as
            `cv2.remap` takes both.
        has_source: (H, W) uint8, 255 where there is a source.
    """

    camera: Camera
    nearest: NDArray[np.int16]
    between: tuple[NDArray[np.int16], NDArray[np.uint16]]
    has_source: NDArray[np.uint8]

    def image_nearest(self, image: NDArray) -> NDArray:
        """(H, W) depth or mask without distortion, values never blended; 0 where there is no source."""
        import cv2

        plain = image.view(np.uint8) if image.dtype == np.bool_ else image
        out = cv2.remap(plain, self.nearest, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)  # type: ignore[call-overload]
        return out.view(np.bool_) if image.dtype == np.bool_ else out.astype(image.dtype, copy=False)

    def image_linear(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) colour without distortion, bilinear; black where there is no source."""
        import cv2

        out = cv2.remap(image, *self.between, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return cv2.copyTo(out, self.has_source).astype(np.uint8, copy=False)

    def points(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 2) recorded pixels to undistorted pixels; NaN where the lens model has none."""
        return undistort_pixels(self.camera, pixels)


def make_undistorter(name: str, camera: Camera) -> Undistorter | None:
    """The undistorter of a camera, or None where it has no distortion.

    Raises:
        CameraError: coefficients under which parts of the image come from nowhere, or from two directions at once.
    """
    if camera.distortion.is_none:
        return None
    check_invertible(name, camera)
    v, u = np.mgrid[: camera.height, : camera.width].astype(np.float64)
    map_x, map_y, has_source = _sources(camera, u, v)
    import cv2

    sides = [np.where(has_source, side, OUTSIDE) for side in (map_x, map_y)]
    between = cv2.convertMaps(*(side.astype(np.float32) for side in sides), cv2.CV_16SC2)  # type: ignore[call-overload]
    return Undistorter(
        camera,
        np.ascontiguousarray(np.rint(np.stack(sides, -1)), np.int16),
        (np.asarray(between[0], np.int16), np.asarray(between[1], np.uint16)),
        np.where(has_source, np.uint8(255), np.uint8(0)),
    )


def _sources(camera: Camera, u: NDArray, v: NDArray) -> tuple[NDArray, NDArray, NDArray[np.bool_]]:
    """For pinhole pixels: the recorded pixels they come from, and whether there is such a pixel at all."""
    x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        xd, yd, determinant = _distort(camera, x, y)
        map_x, map_y = camera.fx * xd + camera.cx, camera.fy * yd + camera.cy
        column, row = np.rint(map_x), np.rint(map_y)
        inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
        return map_x, map_y, inside & (determinant > 0) & (x * x + y * y < fold_radius(camera) ** 2)


def check_invertible(name: str, camera: Camera) -> None:
    """Refuse coefficients that do not map directions to (nearly) the whole image, one direction to a pixel.

    Raises:
        CameraError: pixels that come from no direction, or a pinhole image that would stay mostly empty.
    """
    problem = _lens_problem(camera)
    if problem is not None:
        raise CameraError(f"{name}.distortion.coefficients", *problem)


@lru_cache(maxsize=64)  # a live stream's or a client's cameras are the same in each request
def _lens_problem(camera: Camera) -> tuple[str, str] | None:
    """What a lens must be and what this one is; None where all is well."""
    if camera.distortion.is_none:
        return None
    worst = max((abs(c) for c in camera.distortion.coefficients), default=0.0)
    if worst > MAX_COEFFICIENT:
        return f"at most {MAX_COEFFICIENT:g} in size", f"{worst:g}"
    u, v = np.meshgrid(
        np.linspace(0, camera.width - 1, _PROBES_PER_SIDE), np.linspace(0, camera.height - 1, _PROBES_PER_SIDE)
    )
    expected = "a lens model that can be inverted over the image"
    found = undistort_pixels(camera, np.stack([u.ravel(), v.ravel()], -1))
    is_reached: NDArray[np.bool_] = np.asarray(np.isfinite(found).all(axis=-1))
    reached = float(is_reached.mean())
    across, down = 2 * u / max(1, camera.width - 1) - 1, 2 * v / max(1, camera.height - 1) - 1
    is_inside = (np.square(across) + np.square(down)).ravel() <= 1
    is_round = reached >= MIN_REACHED_BY_WIDE_LENS and bool((is_reached | ~is_inside).all())
    if reached < MIN_REACHED_SHARE and not is_round:
        return expected, f"one that folds over: {100 * (1 - reached):.0f} % of the image comes from no direction"
    filled = _sources(camera, u, v)[2].mean()
    if filled < MIN_FILLED_SHARE:
        return expected, f"one that leaves {100 * (1 - filled):.0f} % of the pinhole image empty"
    return None


def fold_radius(camera: Camera) -> float:
    """Where the radial part first stops growing, on the plane z = 1; infinite where it never does.

    With s = r², N and D the two polynomials in s: d(r N/D)/dr = (N D + 2 s (N' D - N D')) / D².
    """
    numerator, denominator = _polynomials(camera)
    product = np.polynomial.Polynomial
    N, D = product(numerator), product(denominator)
    slope = N * D + product([0.0, 2.0]) * (N.deriv() * D - N * D.deriv())
    squares = [math.inf]
    for polynomial in (slope, D):
        # a leading coefficient that is next to nothing has its root beyond every image, and is divided by
        coefficients = polynomial.trim(tol=1e-100 * float(np.abs(polynomial.coef).max())).coef
        if len(coefficients) > 1:
            roots = np.polynomial.Polynomial(coefficients).roots()
            squares += [float(r.real) for r in roots if r.real > 0 and abs(r.imag) < 1e-9 * max(1.0, abs(r.real))]
    return math.sqrt(min(squares))


def undistort_pixels(camera: Camera, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) recorded pixels to pixels of the pinhole camera with the same K; NaN where there is no such direction.

    The radial part is inverted from a table up to the fold, then Newton's method on both coordinates, to 1e-6 pixels.
    """
    pixels = np.asarray(pixels, dtype=np.float64)
    if camera.distortion.is_none:
        return pixels.copy()
    target_x, target_y = (pixels[:, 0] - camera.cx) / camera.fx, (pixels[:, 1] - camera.cy) / camera.fy
    radius = np.hypot(target_x, target_y)
    fold = fold_radius(camera)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        x, y = _radial_guess(camera, target_x, target_y, radius, fold)
        for _ in range(30):
            xd, yd, determinant = _distort(camera, x, y)
            a, b, c, d = _jacobian(camera, x, y)
            ex, ey = target_x - xd, target_y - yd
            step_x, step_y = (d * ex - b * ey) / determinant, (a * ey - c * ex) / determinant
            # a long step near the fold would jump over it
            scale = np.minimum(1.0, 0.2 * (0.1 + np.hypot(x, y)) / np.maximum(np.hypot(step_x, step_y), 1e-300))
            x, y = x + scale * step_x, y + scale * step_y
        xd, yd, determinant = _distort(camera, x, y)
        error_px = np.hypot((xd - target_x) * camera.fx, (yd - target_y) * camera.fy)
        good = (error_px < 1e-6) & (determinant > 0) & (np.hypot(x, y) < fold)
    out = np.stack([camera.fx * x + camera.cx, camera.fy * y + camera.cy], -1)
    out[~good] = np.nan
    return out


def _radial_guess(
    camera: Camera, x: NDArray, y: NDArray, radius: NDArray, fold: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The undistorted point without the tangential part."""
    reach = min(fold, max(20.0, 4.0 * float(radius.max(initial=0.0))))
    r = np.linspace(0.0, reach, 4097)
    numerator, denominator = _polynomials(camera)
    distorted = r * np.polynomial.polynomial.polyval(r * r, numerator)
    distorted /= np.polynomial.polynomial.polyval(r * r, denominator)
    distorted = np.maximum.accumulate(np.where(np.isfinite(distorted), distorted, 0.0))
    growth = np.interp(radius, distorted, r) / np.maximum(radius, 1e-12)
    growth = np.where(radius < 1e-12, 1.0, growth)
    return x * growth, y * growth


def _coefficients(camera: Camera) -> tuple[float, ...]:
    """k1 k2 p1 p2 k3 k4 k5 k6."""
    return (*camera.distortion.coefficients, *(0.0,) * 8)[:8]


def _polynomials(camera: Camera) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numerator and denominator of the radial factor, in rising powers of r²."""
    k1, k2, _, _, k3, k4, k5, k6 = _coefficients(camera)
    return np.array([1.0, k1, k2, k3]), np.array([1.0, k4, k5, k6])


def _radial(camera: Camera, s: NDArray) -> tuple[NDArray, NDArray]:
    """The radial factor and its derivative by s = r²."""
    k1, k2, _, _, k3, k4, k5, k6 = _coefficients(camera)
    n, d = 1 + s * (k1 + s * (k2 + s * k3)), 1 + s * (k4 + s * (k5 + s * k6))
    dn, dd = k1 + s * (2 * k2 + s * 3 * k3), k4 + s * (2 * k5 + s * 3 * k6)
    return n / d, (dn * d - n * dd) / (d * d)


def _jacobian(camera: Camera, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """∂x'/∂x, ∂x'/∂y, ∂y'/∂x, ∂y'/∂y."""
    _, _, p1, p2, *_ = _coefficients(camera)
    f, df = _radial(camera, x * x + y * y)
    cross = 2 * x * y * df + 2 * p1 * x + 2 * p2 * y
    return f + 2 * x * x * df + 2 * p1 * y + 6 * p2 * x, cross, cross, f + 2 * y * y * df + 6 * p1 * y + 2 * p2 * x


def _distort(camera: Camera, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """The distorted point on the plane z = 1 and the determinant of the Jacobian there."""
    _, _, p1, p2, *_ = _coefficients(camera)
    s = x * x + y * y
    f, _ = _radial(camera, s)
    a, b, c, d = _jacobian(camera, x, y)
    return x * f + 2 * p1 * x * y + p2 * (s + 2 * x * x), y * f + p1 * (s + 2 * y * y) + 2 * p2 * x * y, a * d - b * c
