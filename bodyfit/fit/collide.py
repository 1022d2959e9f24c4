"""A body's parts do not go through each other: spheres fitted to its mesh, and a cost on how deep they overlap.

Spheres along the limbs and rows of them across trunk and head are cheap to compare and smooth; a mesh would be neither.
They are those of the body that a fit begins with and do not follow its shape: what they are for is an arm that stands
in the chest, not the last millimetre of a hand on a hip.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.body.skeleton import part_of_joint
from bodyfit.errors import InputError
from bodyfit.fit.mesh import Mesh, mesh_for

SIGMA_M = 0.02
"""standard deviation of how deep parts that touch press into each other"""
SLACK_M = 0.015
"""flesh gives so much, and spheres are a rough copy of a body"""
SLACKS_M = {frozenset(("upper_arm", "abdomen")): 0.05, frozenset(("hand", "abdomen")): 0.025,
            frozenset(("hand", "pelvis")): 0.025}  # fmt: skip
"""a hanging arm lies in the hollow between trunk and shoulder; a hand on a hip presses"""
LEAST_VERTICES = 6
"""a slice of a part with fewer vertices has no sphere"""


class Limb(NamedTuple):
    """A limb's part: its joint, the next one, where between them its spheres sit (0 at the joint, 1 at the next)."""

    joint: str
    towards: str
    at: tuple[float, ...]


LIMBS = (
    Limb("shoulder", "elbow", (0.45, 0.70, 0.95)),
    Limb("elbow", "wrist", (0.20, 0.45, 0.70, 0.95)),
    Limb("wrist", "hand", (0.50, 1.00, 1.50)),
    Limb("hip", "knee", (0.30, 0.50, 0.70, 0.90)),
    Limb("knee", "ankle", (0.15, 0.40, 0.65, 0.90)),
    Limb("ankle", "foot", (0.20, 0.80)),
)
TRUNK = (("pelvis", "abdomen", "chest"), ("neck",), ("head",))
TRUNK_STEP_M = 0.07
NEIGHBOURS = {
    "upper_arm": ("upper_arm", "forearm", "chest", "neck", "head"),
    "forearm": ("forearm", "hand", "upper_arm"),
    "hand": ("hand", "forearm"),
    "thigh": ("thigh", "calf", "pelvis", "abdomen"),
    "calf": ("calf", "foot", "thigh"),
    "foot": ("foot", "calf"),
}
"""parts of the same side or of the trunk that a part is grown together with, or rests on"""


@dataclass(frozen=True, eq=False)
class Spheres:
    """What stands for a body: owner (K,) joint of each sphere, offset (K, 3) from it at rest, radius (K,) metres; parts
    (K,) names; pairs (P, 2) that are compared, slack (P,) metres that each may overlap."""

    owner: NDArray[np.int64]
    offset: NDArray[np.float64]
    radius: NDArray[np.float64]
    parts: tuple[str, ...]
    pairs: NDArray[np.int64]
    slack: NDArray[np.float64]
    joints: NDArray[np.float64]
    parents: NDArray[np.int32]

    def terms(
        self, rotations: NDArray[np.float64], sigma_m: float = SIGMA_M
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Cost (N,), gradient (N, 3J) and positive semidefinite Hessian (N, 3J, 3J) of the overlaps, by right
        perturbations of rotations (N, J, 3, 3).

        Raises:
            InputError: sigma is not positive.
        """
        cost, gradient, hessian, _ = self._overlaps(rotations, sigma_m)
        return cost, gradient, hessian

    def deepest_m(self, rotations: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) metres by which two parts go through each other at most, beyond what flesh gives."""
        return self._overlaps(rotations, SIGMA_M)[3]

    def _overlaps(
        self, rotations: NDArray[np.float64], sigma_m: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        from bodyfit.kernels.collide import penetration

        if not sigma_m > 0:
            raise InputError("sigma_m", "metres above 0", repr(sigma_m))
        R = np.ascontiguousarray(rotations, np.float64)
        n, size = len(R), 3 * R.shape[1]
        out = np.zeros(n), np.zeros((n, size)), np.zeros((n, size, size)), np.zeros(n)
        penetration(
            R, self.joints, self.parents, self.owner, self.offset, self.radius, self.pairs, self.slack,
            1.0 / sigma_m, *out,
        )  # fmt: skip
        return out


def spheres_of(model: BodyModel, betas: NDArray[np.float64]) -> Spheres:
    """Spheres fitted to a body of betas (S,); made once."""
    return _spheres_of(model, tuple(np.asarray(betas, np.float64).tolist()))


@lru_cache(maxsize=8)
def _spheres_of(model: BodyModel, betas: tuple[float, ...]) -> Spheres:
    return body_spheres(mesh_for(model, 1, 1, np.array(betas)))


def body_spheres(mesh: Mesh) -> Spheres:
    """Spheres fitted to a mesh in its zero pose; a body without some joints has fewer."""
    names, rest = mesh.joint_names, mesh.joint_template
    template = mesh.template.astype(np.float64)
    strongest = np.take_along_axis(mesh.weight_joints, mesh.weights.argmax(1)[:, None], 1)[:, 0]
    part_of = np.array([part_of_joint(n) for n in names])
    vertex_part = part_of[strongest]
    found: list[tuple[int, NDArray[np.float64], float, str]] = []
    for side in ("left", "right"):
        for limb in LIMBS:
            if f"{side}_{limb.joint}" in names and f"{side}_{limb.towards}" in names:
                j, k = names.index(f"{side}_{limb.joint}"), names.index(f"{side}_{limb.towards}")
                part = part_of_joint(names[j])
                found += _along(template[vertex_part == part], rest[j], rest[k], limb.at, j, part)
    for parts in TRUNK:
        mine = np.isin(vertex_part, parts)
        found += _across(template[mine], strongest[mine], rest, part_of)
    owner = np.array([f[0] for f in found], np.int64)
    offset = np.array([f[1] for f in found]).reshape(-1, 3)
    radius = np.array([f[2] for f in found])
    parts = tuple(f[3] for f in found)
    pairs = [(a, b) for a in range(len(found)) for b in range(a) if _compared(parts[a], parts[b])]
    chosen = np.array(pairs, np.int64).reshape(-1, 2)
    centre = rest[owner] + offset
    # what overlaps in the zero pose already may do so
    gap = np.linalg.norm(centre[chosen[:, 0]] - centre[chosen[:, 1]], axis=1) - radius[chosen].sum(1)
    kinds = [frozenset((_split(parts[a])[1], _split(parts[b])[1])) for a, b in chosen]
    given = np.array([SLACKS_M.get(kind, SLACK_M) for kind in kinds])
    slack = np.maximum(given, given - gap)
    return Spheres(owner, offset, radius, parts, chosen, slack, np.ascontiguousarray(rest), mesh.parents)


def _along(
    points: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64], at: tuple[float, ...],
    joint: int, part: str,
) -> list[tuple[int, NDArray[np.float64], float, str]]:  # fmt: skip
    """A sphere in each slice of a limb: at the slice's middle, as wide as it is on average."""
    bone = end - start
    share = (points - start) @ bone / (bone @ bone)
    half = 0.5 * float(np.diff(at).min()) if len(at) > 1 else 0.3
    out = []
    for t in at:
        some = points[np.abs(share - t) < max(half, 0.1)]
        if len(some) >= LEAST_VERTICES:
            low, high = some.min(0), some.max(0)
            middle = 0.5 * (low + high)
            middle += ((start + t * bone - middle) @ bone) / (bone @ bone) * bone
            across = some - middle
            across -= np.outer(across @ bone, bone) / (bone @ bone)
            # a hand is flat: half of its points are nearer than its width
            out.append((joint, middle - start, float(np.percentile(np.linalg.norm(across, axis=1), 40)), part))
    return out


def _across(
    points: NDArray[np.float64], strongest: NDArray[np.int32], rest: NDArray[np.float64], part_of: NDArray[np.str_]
) -> list[tuple[int, NDArray[np.float64], float, str]]:
    """Rows of up to three spheres in level slices, as deep as a slice is, on the joint that moves most of it."""
    out = []
    if len(points) < LEAST_VERTICES:
        return out
    low, high = points[:, 1].min(), points[:, 1].max()
    count = max(1, round((high - low) / TRUNK_STEP_M))
    for k in range(count):
        y0, y1 = low + (high - low) * k / count, low + (high - low) * (k + 1) / count
        inside = (points[:, 1] >= y0) & (points[:, 1] <= y1)
        some = points[inside]
        if len(some) < LEAST_VERTICES:
            continue
        joint = int(np.bincount(strongest[inside]).argmax())
        x, z = np.percentile(some[:, 0], [3, 97]), np.percentile(some[:, 2], [3, 97])
        deep, wide = 0.5 * (z[1] - z[0]), 0.5 * (x[1] - x[0])
        radius = min(deep, wide)
        spread = wide - radius
        middle = np.array([0.5 * (x[0] + x[1]), 0.5 * (y0 + y1), 0.5 * (z[0] + z[1])])
        for shift in (-spread, 0.0, spread) if spread > 0.3 * radius else (0.0,):
            offset = middle + np.array([shift, 0.0, 0.0]) - rest[joint]
            out.append((joint, offset, float(radius), str(part_of[joint])))
    return out


def _compared(a: str, b: str) -> bool:
    """Whether two parts can go through each other: not those that are grown together, nor the trunk's own."""
    (side_a, limb_a), (side_b, limb_b) = _split(a), _split(b)
    if not side_a and not side_b:
        return False
    if side_a and side_b and side_a != side_b:
        return True
    return limb_b not in NEIGHBOURS.get(limb_a, ()) and limb_a not in NEIGHBOURS.get(limb_b, ())


def _split(part: str) -> tuple[str, str]:
    side, _, rest = part.partition("_")
    return (side, rest) if side in ("left", "right") else ("", part)
