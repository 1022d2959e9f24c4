"""Limbs put where the sensor saw something that the body does not explain: two-bone reaching with a free swivel.

A hand beside the far hip or at the far ear is a few pixels that no descent finds; but they say where the hand is, and
shoulder, elbow and wrist then have one freedom left, the elbow's way around the line from shoulder to hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.view import View
from bodyfit.rotation import matrix_from_axis_angle

APART_M = 0.06
"""a reading this far before or behind the body in its pixel is not explained by it"""
LEAST_M2 = 0.0004
"""a smaller spot is noise"""
MOST_SPOTS = 5
STRETCH = 1.2
"""a spot beyond this many arm's lengths belongs to something else"""


@dataclass(frozen=True)
class Limb:
    """Two bones: the joint they hang on, the hinge between them, their possible ends; and the hinge's axis at rest,
    about which a positive turn bends, for the left side."""

    root: str
    hinge: str
    ends: tuple[str, ...]
    axis: tuple[float, float, float]
    swivels_deg: tuple[float, ...]


LIMBS = {
    "arm": Limb("shoulder", "elbow", ("wrist", "hand"), (0.0, -1.0, 0.0), tuple(range(0, 360, 45))),
    "leg": Limb("hip", "knee", ("ankle",), (1.0, 0.0, 0.0), (-30.0, 0.0, 30.0)),
}


def unexplained_spots(view: View, drawn: NDArray[np.float32], face: NDArray[np.int32]) -> list[NDArray[np.float64]]:
    """Spots of person pixels where the drawn body is not or is elsewhere, largest first, each (N, 3) world metres.

    drawn (h, w) metres and face (h, w), -1 where nothing is drawn, are of the view's size.
    """
    from scipy.ndimage import find_objects, label

    seen = (view.label == 1) & (view.depth > 0)
    open_to = seen & ((face < 0) | (np.abs(view.depth - np.where(face < 0, 0, drawn)) > APART_M))
    labels = np.zeros(open_to.shape, np.int32)
    label(open_to, np.ones((3, 3), bool), output=labels)
    sizes, boxes = np.bincount(labels.ravel())[1:], find_objects(labels)
    fx, fy, cx, cy = (float(x) for x in view.intrinsics)
    spots: list[tuple[float, NDArray[np.float64]]] = []
    # a pixel counts for z² / (fx fy): spots of too few pixels are none whatever their distance
    nearest = float(view.depth[seen].min()) if seen.any() else 1.0
    furthest = float(view.depth[seen].max()) if seen.any() else 1.0
    for k in np.argsort(-sizes, kind="stable")[: 2 * MOST_SPOTS]:
        if sizes[k] * furthest**2 < LEAST_M2 * fx * fy or nearest <= 0:
            break
        rows, columns = boxes[k]
        top, left = rows.start, columns.start
        v, u = np.nonzero(labels[rows, columns] == k + 1)
        v, u = v + top, u + left
        z = view.depth[v, u].astype(np.float64)
        area = float((z * z).sum()) / (fx * fy)
        if area >= LEAST_M2:
            cam = np.stack([(u - cx) / fx * z, (v - cy) / fy * z, z], 1)
            spots.append((area, (cam - view.t_cw) @ view.R_cw))
    spots.sort(key=lambda s: -s[0])
    return [points for _, points in spots[:MOST_SPOTS]]


def reaching(
    names: tuple[str, ...],
    rest: NDArray[np.float64],
    global_rotations: NDArray[np.float64],
    posed: NDArray[np.float64],
    parents: NDArray[np.int32],
    spots: Sequence[NDArray[np.float64]],
    limb: str,
    side: str,
) -> dict[int, NDArray[np.float64]]:
    """Ways to bring a limb's end to a spot, each with every swivel: local rotations (N, 3, 3) by joint number.

    rest and posed (J, 3): joints at rest and as posed, world; global_rotations (J, 3, 3) world. Empty where the body
    has no such limb or no spot is within reach.
    """
    form = LIMBS[limb]
    if any(f"{side}_{n}" not in names for n in (form.root, form.hinge, form.ends[0])):
        return {}
    a, b = (names.index(f"{side}_{n}") for n in (form.root, form.hinge))
    axis = np.array(form.axis) * (np.array([1.0, -1.0, -1.0]) if side == "right" else 1.0)
    above, front = global_rotations[parents[a]], global_rotations[0][:, 2]
    upper = rest[b] - rest[a]
    l1 = float(np.linalg.norm(upper))
    targets = []
    for points in spots:
        way = points - posed[a]
        targets += [way.mean(0), way[int((way * way).sum(1).argmax())]]
    found = [
        _bent(upper, rest[c] - rest[b], axis, np.array(targets), above, front, form.swivels_deg)
        for c in (names.index(f"{side}_{e}") for e in form.ends if f"{side}_{e}" in names)
        if targets and l1 > 0
    ]
    if not found:
        return {}
    return {a: np.concatenate([f[0] for f in found]), b: np.concatenate([f[1] for f in found])}


def _bent(
    upper: NDArray[np.float64],
    lower: NDArray[np.float64],
    axis: NDArray[np.float64],
    ways: NDArray[np.float64],
    above: NDArray[np.float64],
    front: NDArray[np.float64],
    swivels_deg: tuple[float, ...],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotations (N, 3, 3) of a limb's root joint and of its hinge, for each way (M, 3) from the one to the limb's end
    that is within reach and each swivel; the law of cosines gives the hinge's place."""
    l1, l2 = float(np.linalg.norm(upper)), float(np.linalg.norm(lower))
    length = np.linalg.norm(ways, axis=1)
    near = (length > 0.05) & (length < STRETCH * (l1 + l2))
    way, length = ways[near] / length[near, None], np.clip(length[near], abs(l1 - l2) + 0.02, l1 + l2 - 0.002)
    along = (l1 * l1 + length**2 - l2 * l2) / (2 * length)
    aside = np.sqrt(np.maximum(l1 * l1 - along**2, 0.0))
    # the swivel is counted from the front; where the limb itself points there, from above
    first = front - (way @ front)[:, None] * way
    weak = np.linalg.norm(first, axis=1) < 0.1
    first[weak] = above[:, 1] - (way[weak] @ above[:, 1])[:, None] * way[weak]
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(way, first)
    angle = np.radians(swivels_deg)
    out = np.cos(angle)[None, :, None] * first[:, None] + np.sin(angle)[None, :, None] * second[:, None]
    to_hinge = along[:, None, None] * way[:, None] + aside[:, None, None] * out
    to_end = (length[:, None] * way)[:, None] - to_hinge
    to_hinge, to_end = to_hinge.reshape(-1, 3), to_end.reshape(-1, 3)
    bone = to_hinge / np.linalg.norm(to_hinge, axis=1, keepdims=True)
    k = np.cross(bone, to_end)
    size = np.linalg.norm(k, axis=1)
    # aside is never quite zero (the length stops short of the straight limb), so the plane is known
    k /= np.maximum(size, 1e-12)[:, None]
    d1 = upper / l1
    h0 = axis - (axis @ d1) * d1
    h0 /= np.linalg.norm(h0)
    posed, rest = np.stack([bone, k, np.cross(bone, k)], 2), np.stack([d1, h0, np.cross(d1, h0)], 1)
    bend = np.arctan2(size, (bone * to_end).sum(1)) - np.arctan2(np.cross(d1, lower) @ h0, d1 @ lower)
    return above.T @ (posed @ rest.T), matrix_from_axis_angle(bend[:, None] * h0)
