"""Parts of a followed body that a frame does not show: something stands before them, or they are out of the picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.body.skeleton import PART_NAMES, part_labels
from bodyfit.fit.follow import Pose, place_points
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.view import View
from bodyfit.observe.follow import NEARER_M
from bodyfit.observe.observation import PERSON

HIDDEN, SEEN = 0.7, 0.4
"""a part of which more than this share is not seen is hidden, and is seen again with less than that"""
SMALL = ("neck", "hand", "foot")
"""parts that come and go with a sensor's noise: they are named among the hidden ones, but nothing is told of them"""
UNSEEN = "not seen, and guessed"
"""what is told of others in the first frame that does not show them, and of every such frame of a recording"""


class HiddenParts:
    """Parts of one followed body that are not seen, from frame to frame."""

    def __init__(self, model: BodyModel) -> None:
        self._labels = part_labels(model.lbs_weights, model.joint_names)
        self.hidden: tuple[str, ...] = ()
        """of the last frame, names of `bodyfit.body.skeleton.PART_NAMES`"""

    def look(self, mesh: Mesh, pose: Pose, views: Sequence[View]) -> tuple[list[str], list[str]]:
        """Takes a frame in which the body stands at a pose.

        Returns:
            Parts that were seen until now and are not any more, and parts that are seen again, but for small ones.
        """
        share = self.unseen(mesh, pose, views)
        now = tuple(
            part for part, unseen in zip(PART_NAMES, share.tolist(), strict=True)
            if unseen > (SEEN if part in self.hidden else HIDDEN)
        )  # fmt: skip
        gone, back = set(now) - set(self.hidden), set(self.hidden) - set(now)
        self.hidden = now
        return large_of(p for p in PART_NAMES if p in gone), large_of(p for p in PART_NAMES if p in back)

    def unseen(self, mesh: Mesh, pose: Pose, views: Sequence[View]) -> NDArray[np.float64]:
        """(parts,) share of each part's vertices that no view shows: out of the picture, behind something nearer than
        the body, or where there is no reading. What the body itself hides counts as seen."""
        part = self._labels[mesh.vertex_ids]
        hidden = np.ones(len(part), bool)
        points = np.empty_like(mesh.template)
        for view in views:
            place_points(mesh, pose, view.R_cw, view.t_cw, points)
            fx, fy, cx, cy = (float(x) for x in view.intrinsics)
            z = np.maximum(points[:, 2], 1e-3)
            u = np.rint(fx * points[:, 0] / z + cx).astype(np.int64)
            v = np.rint(fy * points[:, 1] / z + cy).astype(np.int64)
            h, w = view.depth.shape
            inside = (u >= 0) & (v >= 0) & (u < w) & (v < h) & (points[:, 2] > 0)
            read, label = view.depth[v[inside], u[inside]], view.label[v[inside], u[inside]]
            nothing = (label != PERSON) & ((read <= 0) | (read < z[inside] - NEARER_M))
            hidden[np.flatnonzero(inside)[~nothing]] = False
        count = np.maximum(np.bincount(part, minlength=len(PART_NAMES)), 1)
        return np.bincount(part[hidden], minlength=len(PART_NAMES)) / count


def large_of(parts: Iterable[str]) -> list[str]:
    """Those of which it is told when they are hidden."""
    return [p for p in parts if not p.endswith(SMALL)]


def names_of(parts: Sequence[str]) -> str:
    """Parts as one reads them: "left thigh, left calf"."""
    return ", ".join(p.replace("_", " ") for p in parts)
