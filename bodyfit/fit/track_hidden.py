"""Parts of a followed body that a frame does not show: something stands before them, the body itself does, or they are
out of the picture."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.body.skeleton import PART_NAMES, part_labels
from bodyfit.fit.follow import Pose, place_points
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.view import View
from bodyfit.kernels import hidden as K
from bodyfit.observe.follow import NEARER_M
from bodyfit.observe.observation import PERSON

HIDDEN, SEEN = 0.7, 0.4
"""a part of which more than this share is not seen is hidden, and is seen again with less than that"""
SHOWN, SHOWN_AGAIN = 0.2, 0.4
"""so is a limb of whose surface that faces the sensor less than this share is shown, until it is that much"""
IN_FRONT = 0.5
"""and the body itself hides it where less than this share of that surface lies before all else of the body"""
LEAST_PX = 4.0
"""of a part that faces a sensor with fewer pixels nothing is concluded"""
TRUNK = ("pelvis", "abdomen", "chest")
"""arms hide much of these, and where they are is known all the same: by what is joined to them"""
SMALL = ("neck", "hand", "foot")
"""parts that come and go with a sensor's noise: they are named among the hidden ones, but nothing is told of them"""
UNSEEN = "not seen, and guessed"
"""what is told of others in the first frame that does not show them, and of every such frame of a recording"""
BEHIND = "behind their own body, and guessed"
"""the same of those that the body itself hides"""
SEEN_AGAIN = "seen again"
"""what is told of either once the frame shows them"""


class HiddenParts:
    """Parts of one followed body that are not seen, from frame to frame.

    Attributes:
        hidden: of the last frame, names of `bodyfit.body.skeleton.PART_NAMES`, whatever hides them.
        behind_body: those of them that the body itself hides.
        obstructed: those that this frame would not show in whatever way the body's other parts stood: they are out of
            the picture, behind something nearer than the body, or where there are no readings.
    """

    def __init__(self, model: BodyModel) -> None:
        self._labels = part_labels(model.lbs_weights, model.joint_names)
        self.hidden: tuple[str, ...] = ()
        self.behind_body: tuple[str, ...] = ()
        self.obstructed: tuple[str, ...] = ()
        self._unshown: tuple[str, ...] = ()
        self._faces: NDArray[np.int32] | None = None
        self._face_parts = np.zeros(0, np.uint8)

    def look(self, mesh: Mesh, pose: Pose, views: Sequence[View]) -> list[str]:
        """Takes a frame in which the body stands at a pose.

        Returns:
            What is to be told: parts that were seen until now and are not any more, and parts that are seen again, but
            for small ones.
        """
        unseen, in_front, shown = self.shares(mesh, pose, views)
        hidden, behind, unshown, obstructed = self.hidden, self.behind_body, self._unshown, self.obstructed
        self.obstructed = _within(PART_NAMES, unseen > _limits(obstructed, HIDDEN, SEEN))
        limits = _limits(unshown, SHOWN, SHOWN_AGAIN)
        low = np.where(np.isnan(shown), limits == SHOWN_AGAIN, shown < limits)
        self._unshown = tuple(p for p in _within(PART_NAMES, low) if p not in TRUNK)
        covered = _within(PART_NAMES, in_front < IN_FRONT)
        # what hides a limb is asked once, when it is hidden: else it would be told again and again
        self.behind_body = tuple(
            p for p in self._unshown if p not in self.obstructed
            and p in (behind if p in unshown and p not in obstructed else covered)
        )  # fmt: skip
        self.hidden = tuple(p for p in PART_NAMES if p in self.obstructed or p in self._unshown)
        news = (
            (UNSEEN, _without(_without(self.hidden, self.behind_body), _without(hidden, behind))),
            (BEHIND, _without(self.behind_body, behind)),
            (SEEN_AGAIN, _without(hidden, self.hidden)),
        )
        return [f"{what}: {names_of(large_of(parts))}" for what, parts in news if large_of(parts)]

    def shares(
        self, mesh: Mesh, pose: Pose, views: Sequence[View]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Shares of each part (parts,), in the view that shows most of it.

        Returns:
            Of its vertices, those that no view shows: out of the picture, behind something nearer than the body, or
            where there is no reading; what the body itself hides counts as seen here. Of its surface that faces the
            sensor, what lies before all else of the body, and what the depth shows where the body has it; nan where
            there is too little of that surface.
        """
        part = self._labels[mesh.vertex_ids]
        if mesh.faces is not self._faces:
            corners = part[mesh.faces]
            self._faces = mesh.faces
            self._face_parts = np.where(corners[:, 1] == corners[:, 2], corners[:, 1], corners[:, 0])
        hidden = np.ones(len(part), bool)
        points = np.empty_like(mesh.template)
        areas = np.empty((len(PART_NAMES), K.NUM_AREAS))
        shares = np.full((2, len(PART_NAMES)), np.nan)
        for view in views:
            place_points(mesh, pose, view.R_cw, view.t_cw, points)
            hidden &= _obstructed(points, view)
            drawn, face = np.empty(view.depth.shape, np.float32), np.empty(view.depth.shape, np.int32)
            K.part_areas(
                points, mesh.faces, self._face_parts, view.intrinsics, view.depth, view.label, NEARER_M, drawn, face,
                areas,
            )  # fmt: skip
            facing = areas[:, K.FACING]
            enough = np.where(facing >= LEAST_PX, facing, np.nan)
            shares = np.fmax(shares, areas[:, [K.IN_FRONT, K.SHOWN]].T / enough)
        count = np.maximum(np.bincount(part, minlength=len(PART_NAMES)), 1)
        return np.bincount(part[hidden], minlength=len(PART_NAMES)) / count, shares[0], shares[1]


def _obstructed(points: NDArray[np.float32], view: View) -> NDArray[np.bool_]:
    """(V,) which of a body's points (V, 3), in a view's camera, it cannot show whatever lies between them."""
    fx, fy, cx, cy = (float(x) for x in view.intrinsics)
    z = np.maximum(points[:, 2], 1e-3)
    u = np.rint(fx * points[:, 0] / z + cx).astype(np.int64)
    v = np.rint(fy * points[:, 1] / z + cy).astype(np.int64)
    h, w = view.depth.shape
    inside = (u >= 0) & (v >= 0) & (u < w) & (v < h) & (points[:, 2] > 0)
    read, label = view.depth[v[inside], u[inside]], view.label[v[inside], u[inside]]
    nothing = (label != PERSON) & ((read <= 0) | (read < z[inside] - NEARER_M))
    out = np.ones(len(points), bool)
    out[np.flatnonzero(inside)[~nothing]] = False
    return out


def _limits(parts: Collection[str], first: float, again: float) -> NDArray[np.float64]:
    """(parts,) the limit of each: another one for those that are among `parts` already."""
    return np.array([again if p in parts else first for p in PART_NAMES])


def _within(names: Sequence[str], chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(n for n, c in zip(names, chosen.tolist(), strict=True) if c)


def _without(parts: Iterable[str], others: Collection[str]) -> tuple[str, ...]:
    return tuple(p for p in parts if p not in others)


def large_of(parts: Iterable[str]) -> list[str]:
    """Those of which it is told when they are hidden."""
    return [p for p in parts if not p.endswith(SMALL)]


def names_of(parts: Sequence[str]) -> str:
    """Parts as one reads them: "left thigh, left calf"."""
    return ", ".join(p.replace("_", " ") for p in parts)
