"""How well a posed body explains an observation: distances, overlap, which parts were seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.render.rasterize import rasterize

if TYPE_CHECKING:
    from bodyfit.observe.observation import Observation

EVERY = 2
"""the grid of the check: every second pixel says the same at a quarter of the time"""
AGREES_M = 0.05
"""a pixel whose depth is this near to the body's counts as having seen that part"""
OWN_SURFACE_M = 0.025
"""a vertex lies on the drawn surface when it is this near to it, slanted pixels included"""
SEEN_SHARE = 0.15
"""a part counts as seen in an instant when this share of its surface was"""


@dataclass(frozen=True)
class Agreement:
    """One view's counts and residuals; residuals (N,) metres along the normal, positive = sensor outside the body."""

    residuals: NDArray[np.float64]
    inside: int
    union: int
    person: int
    covered: int
    seen_vertices: NDArray[np.bool_]


def agreement(model: BodyModel, vertices_world: NDArray[np.float64], observation: Observation) -> Agreement:
    """Draws the body into the sensor's camera and compares."""
    T = observation.T_world_depth
    points = (vertices_world - T[:3, 3]) @ T[:3, :3]
    camera = observation.camera.every(EVERY)
    label, depth = observation.label[::EVERY, ::EVERY], observation.depth[::EVERY, ::EVERY]
    raster = rasterize(points, model.faces, camera)
    drawn = raster.face >= 0
    person = label == 1
    counted = label != 2
    # where something nearer than the body was seen, the body may be hidden: no evidence
    counted &= ~(drawn & ~person & (depth > 0) & (depth < raster.depth - 0.10))
    both = drawn & person & (depth > 0)
    rows, cols = np.nonzero(both)
    corners = points[model.faces[raster.face[rows, cols]]]
    n = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    n /= np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12)
    ray = np.stack([(cols - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy, np.ones(len(rows))], 1)
    gap = (depth[rows, cols] - raster.depth[rows, cols]).astype(np.float64)
    residuals = (n * ray).sum(1) * gap
    # a vertex was seen where the body's own surface is at its pixel, and the sensor's too
    z = points[:, 2]
    uv = np.rint(np.nan_to_num(camera.project(points), nan=-1e6)).astype(np.int64)
    inside = (z > 0) & (uv >= 0).all(1) & (uv[:, 0] < camera.width) & (uv[:, 1] < camera.height)
    seen = np.zeros(model.num_vertices, bool)
    at = np.flatnonzero(inside)
    u, v = uv[at, 0], uv[at, 1]
    seen[at] = (
        (np.abs(raster.depth[v, u] - z[at]) < OWN_SURFACE_M)
        & person[v, u]
        & (np.abs(depth[v, u] - raster.depth[v, u]) < AGREES_M)
    )
    return Agreement(
        residuals,
        int((drawn & person & counted).sum()),
        int(((drawn | person) & counted).sum()),
        int(person.sum()),
        int((drawn & person).sum()),
        seen,
    )


def part_coverage(model: BodyModel, seen_vertices: NDArray[np.bool_]) -> dict[str, float]:
    """For each part the share of its vertices that were seen; half of a limb faces away from a single sensor."""
    if model.part_labels is None:
        return {}
    use = np.ones(model.num_vertices, bool) if model.sample_mask is None else model.sample_mask
    out = {}
    for i, name in enumerate(model.part_names):
        mine = (model.part_labels == i) & use
        out[name] = float(seen_vertices[mine].mean()) if mine.any() else 0.0
    return out


def seen_counts(coverages: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """For each part the number of instants in which it was seen."""
    names = coverages[0].keys() if coverages else ()
    return {n: sum(c[n] >= SEEN_SHARE for c in coverages) for n in names}
