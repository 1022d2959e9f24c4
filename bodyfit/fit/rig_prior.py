"""What is known of a rig beside the person: where its sensors were said to be, and the floor that all of them see; and
of the person, beside the shape basis: a form of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.fit.config import Stage
from bodyfit.fit.problem import ShapeGaussian
from bodyfit.fit.rig import RigLayout, cross_matrix

if TYPE_CHECKING:
    from bodyfit.fit.joint import Instant

_refining = partial(Stage, sensor_noise=True, damping=1e-3)


@dataclass(frozen=True)
class RigConfig:
    """How roughly a rig is known, and the stages of finding it."""

    sigma_place_m: float = 0.05
    """standard deviation of where a sensor was said to be, each axis"""
    sigma_turn_deg: float = 3.0
    """and of how it was said to be turned, each axis"""
    sigma_clock_s: float = 0.02
    """and of its clock against the first sensor's: half a frame at 30 a second is 17 ms"""
    sigma_floor_m: float = 0.003
    """how well a sensor tells the floor's height at the person's feet"""
    sigma_floor_deg: float = 0.1
    """and its tilt"""
    stereo_floor: float = 3.0
    """a stereo matcher's floor is this many times worse: its errors grow with the square of the distance"""
    sensor_deg: float = 0.06
    """what a depth sensor's own slow errors, a millimetre or two that vary over the image, turn it by, each axis: the
    person does not show it, so it is added to what is told to be unknown"""
    sensor_m: float = 0.001
    """and shift it by, each axis"""
    sigma_form_m: float = 0.003
    """a body's own form, which the shape basis cannot make: standard deviation of the smooth bumps that stand for it.
    Without them a trunk that is thicker than the basis can make it turns and shifts the sensors that see it"""
    bumps: int = 80
    """how many, spread over the surface"""
    bump_m: float = 0.10
    """and their width"""
    coarse: tuple[Stage, ...] = field(
        default_factory=lambda: (
            _refining("rig", 2, 900, 10, 12, 0.12, 0.20, 0.10),
            _refining("rig fine", 1, 1600, 10, 24, 0.06, 0.12, 0.06, max_turn_rad=0.3, robust_floor_m=0.015),
        )
    )
    """from poses found with the sensors where they were said to be"""
    fine: tuple[Stage, ...] = field(
        default_factory=lambda: (
            _refining("rig last", 1, 2500, 8, 999, 0.04, 0.08, 0.03, max_turn_rad=0.1, robust_floor_m=0.015),
        )
    )
    """once more, when what is worn is known, with bumps"""


def bump_directions(model: BodyModel, count: int, width_m: float) -> NDArray[np.float32]:
    """(V, 3, K) how a metre of each bump moves the surface: along its normals, as a Gaussian about a vertex; the
    vertices are spread over the rest body, each the farthest from those before it."""
    from bodyfit.kernels.body import vertex_normals

    rest = model.v_template.astype(np.float32)
    normals = np.empty_like(rest)
    vertex_normals(rest, model.faces, normals)
    apart = np.full(len(rest), np.inf)
    out = np.empty((*rest.shape, count), np.float32)
    at = int(rest[:, 1].argmax())
    for k in range(count):
        square = ((rest - rest[at]) ** 2).sum(1)
        out[:, :, k] = normals * np.exp(-0.5 * square / width_m**2)[:, None]
        apart = np.minimum(apart, square)
        at = int(apart.argmax())
    return out


def beside(a: ShapeGaussian, b: ShapeGaussian) -> ShapeGaussian:
    """Two independent Gaussians as one over both."""
    n, m = len(a.mean), len(b.mean)
    precision = np.zeros((n + m, n + m))
    precision[:n, :n], precision[n:, n:] = a.precision, b.precision
    return ShapeGaussian(np.concatenate([a.mean, b.mean]), precision)


def rig_prior(config: RigConfig, layout: RigLayout, instants: Sequence[Instant], times: int) -> ShapeGaussian:
    """What is known of a rig (E,) without the person: where the sensors were said to be, and one floor for all.

    The floor is seen as often as the person is. What errs in both stays the same from instant to instant: they keep
    their proportion, however many instants there are.
    """
    turn, E = np.radians(config.sigma_turn_deg), layout.size
    precision, pull = np.zeros((E, E)), np.zeros(E)
    for k in range(1, len(layout.sensors)):
        at = layout.of(k).start
        # said of the sensor's own place, so that a turn about it shifts what it sees at the pivot
        away = layout.pivot - _sensor_place(instants, layout.sensors[k])
        G = np.zeros((6, 6))
        G[:3, :3] = np.eye(3) / turn
        G[3:, :3] = cross_matrix(away) / config.sigma_place_m
        G[3:, 3:] = np.eye(3) / config.sigma_place_m
        precision[at : at + 6, at : at + 6] = G.T @ G
        if layout.clocks:
            precision[at + 6, at + 6] = 1 / config.sigma_clock_s**2
    floors = floor_planes(instants)
    rows = [k for k, name in enumerate(layout.sensors) if name in floors]
    if len(rows) > 1:
        A, r = _floor_rows(layout, {k: floors[layout.sensors[k]] for k in rows})
        tilted, high = 1 / np.radians(config.sigma_floor_deg) ** 2, 1 / config.sigma_floor_m**2
        stereo = {o.sensor for i in instants for o in i.observations if o.noise is not None and o.noise.stereo}
        worse = [config.stereo_floor if layout.sensors[k] in stereo else 1.0 for k in rows]
        W = np.concatenate([np.array([tilted, tilted, high]) * times / w**2 for w in worse])
        # the floor that all agree on is unknown too: what is left when it is solved for (Schur's complement)
        shared = np.tile(np.eye(3), (len(rows), 1))
        P = np.diag(W) - (W[:, None] * shared) @ np.linalg.solve(shared.T @ (W[:, None] * shared), shared.T * W)
        precision += A.T @ P @ A
        pull -= A.T @ P @ r
    return ShapeGaussian(np.asarray(np.linalg.solve(precision, pull), np.float64), precision)


def _sensor_place(instants: Sequence[Instant], name: str) -> NDArray[np.float64]:
    return next(o.T_world_depth[:3, 3] for i in instants for o in i.observations if o.sensor == name)


def floor_planes(instants: Sequence[Instant]) -> Mapping[str, NDArray[np.float64]]:
    """For each sensor that sees the floor its plane (4,) in the world, n·x + d = 0, the mean over the instants."""
    seen: dict[str, list[NDArray[np.float64]]] = {}
    for i in instants:
        for o in i.observations:
            if o.floor_plane_world is not None:
                seen.setdefault(o.sensor, []).append(np.asarray(o.floor_plane_world, np.float64))
    out = {}
    for name, planes in seen.items():
        mean = np.mean(planes, axis=0)
        out[name] = mean / np.linalg.norm(mean[:3])
    return out


def _floor_rows(
    layout: RigLayout, floors: Mapping[int, NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two tilts and the height at the person of each sensor's floor: how they follow the rig's parameters (3K, E), and
    their values as given (3K,), radians and metres."""
    up = np.mean(list(floors.values()), axis=0)[:3]
    up /= np.linalg.norm(up)
    e1 = np.cross(up, [1.0, 0.0, 0.0] if abs(up[0]) < 0.9 else [0.0, 1.0, 0.0])
    e1 /= np.linalg.norm(e1)
    e2 = np.cross(up, e1)
    A, r = np.zeros((3 * len(floors), layout.size)), np.zeros(3 * len(floors))
    for row, (k, plane) in enumerate(sorted(floors.items())):
        n, d = plane[:3], plane[3]
        height = -(n @ layout.pivot + d) / (n @ up)
        r[3 * row : 3 * row + 3] = e1 @ n, e2 @ n, height
        if k > 0:
            at = layout.of(k).start
            tilt = -cross_matrix(n)  # ω × n
            A[3 * row, at : at + 3], A[3 * row + 1, at : at + 3] = e1 @ tilt, e2 @ tilt
            foot = height * up  # from the pivot
            A[3 * row + 2, at : at + 3] = up @ -cross_matrix(foot)
            A[3 * row + 2, at + 3 : at + 6] = up
    return A, r
