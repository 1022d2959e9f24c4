"""Clothes and hair as offsets of the surface along its normals, with hems, folds of a sort and a colour each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.errors import InputError
from bodyfit.kernels.body import vertex_normals
from bodyfit.synthetic.subject import Subject

# millimetres from .. to, drawn per person; the surface lies between 0.35 and 1 of the drawn value off the skin
_RANGES_MM: dict[str, dict[str, tuple[float, float]]] = {
    "none": {"shirt": (0, 0), "trousers": (0, 0), "shoes": (0, 0), "hair": (0, 0)},
    "tight": {"shirt": (1.0, 2.5), "trousers": (1.0, 2.5), "shoes": (0, 0), "hair": (2, 3)},
    "casual": {"shirt": (10, 16), "trousers": (11, 20), "shoes": (6, 10), "hair": (10, 18)},
    "loose": {"shirt": (20, 35), "trousers": (20, 32), "shoes": (8, 12), "hair": (12, 22)},
}
KINDS = tuple(_RANGES_MM)
_SKIN = ((236, 204, 178), (214, 168, 132), (176, 124, 88), (124, 82, 58), (92, 62, 46))
_HAIR = ((38, 30, 26), (70, 48, 34), (120, 84, 50), (170, 140, 96), (110, 110, 110))
_CLOTH = (
    (64, 84, 128), (142, 58, 60), (76, 110, 84), (196, 186, 168), (58, 60, 68), (182, 142, 72), (120, 92, 140),
    (210, 210, 214), (84, 132, 150), (150, 104, 78),
)  # fmt: skip


@dataclass(frozen=True)
class Clothing:
    """What a subject wears.

    Attributes:
        kind: one of `KINDS`.
        offset: (V,) metres between skin and surface, along the posed normal; 0 on bare skin.
        albedo: (V, 3) 0 to 1, linear colour of skin, hair and cloth.
        dark: (V,) bool, hair that swallows infrared light.
        nominal_mm: the drawn thickness per garment.
        sleeve, trousers: "none" (sleeve only), "short" or "long".
    """

    kind: str
    offset: NDArray[np.float64]
    albedo: NDArray[np.float32]
    dark: NDArray[np.bool_]
    nominal_mm: dict[str, float]
    sleeve: str
    trousers: str

    @property
    def mean_offset_covered_m(self) -> float:
        """Mean offset where anything covers the skin, metres."""
        covered = self.offset > 2e-4
        return float(self.offset[covered].mean()) if covered.any() else 0.0


def dress(model: BodyModel, subject: Subject, kind: str, rng: np.random.Generator) -> Clothing:
    """Clothes of a kind, cut for a subject, sizes and colours by chance.

    Raises:
        InputError: the kind is unknown.
    """
    if kind not in _RANGES_MM:
        raise InputError("clothing", f"one of {', '.join(KINDS)}", repr(kind))
    nominal = {name: float(rng.uniform(*limits)) for name, limits in _RANGES_MM[kind].items()}
    sleeves = {"none": ("none",), "tight": ("none", "short")}.get(kind, ("short", "long"))
    sleeve = sleeves[int(rng.integers(len(sleeves)))]
    trousers = "short" if rng.random() < (0.5 if kind == "tight" else 0.2) else "long"
    cover = garment_cover(model, subject, sleeve, trousers)
    fold = 0.35 + 0.65 * _smooth_field(subject.rest_vertices, rng)
    offset = np.zeros(model.num_vertices)
    for name, thick in nominal.items():  # a shirt falls over the trousers, not into them
        offset = np.maximum(offset, cover[name] * fold * thick / 1000)
    albedo = _albedo(cover, nominal, rng)
    dark = (cover["hair"] > 0.5) & (albedo.mean(1) < 0.05) & (nominal["hair"] > 0)
    return Clothing(kind, offset, albedo, dark, nominal, sleeve, trousers)


def wear(vertices: NDArray[Any], faces: NDArray[np.int32], clothing: Clothing) -> NDArray[np.float64]:
    """The outer surface (V, 3) of a posed body (V, 3) in its clothes, metres."""
    if not clothing.offset.any():
        return np.asarray(vertices, np.float64)
    origin = vertices.mean(0)
    local = np.ascontiguousarray(vertices - origin, np.float32)
    normals = np.empty_like(local)
    vertex_normals(local, faces, normals)
    return vertices + clothing.offset[:, None] * normals


def _step(x: NDArray[np.float64], at: float, width: float) -> NDArray[np.float64]:
    """0 below, 1 above `at`, smooth over `width`."""
    t = np.clip((x - at) / width + 0.5, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def garment_cover(model: BodyModel, subject: Subject, sleeve: str, trousers: str) -> dict[str, NDArray[np.float64]]:
    """Share 0 to 1 of each garment on every vertex, cut by planes in the T-pose that end in hems 8 mm wide."""
    joint = {name: subject.rest_joints[i] for i, name in enumerate(model.joint_names)}
    v = subject.rest_vertices
    x, y = np.abs(v[:, 0]), v[:, 1]
    hem = 0.008

    def between(a: str, b: str, share: float, axis: int) -> float:
        return float(abs(joint[a][axis]) + share * (abs(joint[b][axis]) - abs(joint[a][axis])))

    def height(a: str, b: str, share: float) -> float:
        return float(joint[a][1] + share * (joint[b][1] - joint[a][1]))

    reach = {
        "none": between("left_shoulder", "left_elbow", 0.05, 0),
        "short": between("left_shoulder", "left_elbow", 0.62, 0),
        "long": between("left_elbow", "left_wrist", 0.93, 0),
    }[sleeve]
    head = model.lbs_weights[:, [model.joint_names.index("head"), model.joint_names.index("neck")]].sum(1).astype(float)
    neckline = 1 - _step(y, height("neck", "head", 0.15), hem)
    shirt = _step(y, height("pelvis", "left_hip", 0.6), hem) * (1 - _step(x, reach, hem)) * neckline * (head < 0.98)
    waist = height("pelvis", "spine1", 0.7)
    legs = height("left_hip", "left_knee", 0.75) if trousers == "short" else height("left_ankle", "left_knee", 0.12)
    # in the T-pose only the trunk, the arms and the head are above the waist, and the hands are above it too
    leg = _step(y, legs, hem) * (1 - _step(y, waist, hem))
    shoes = 1 - _step(y, height("left_ankle", "left_knee", 0.06), hem)
    return {"shirt": shirt, "trousers": leg, "shoes": shoes, "hair": _hair(model, v)}


def _hair(model: BodyModel, v: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scalp: top and back of the head, away from the face and the neck."""
    skull = model.lbs_weights[:, model.joint_names.index("head")] > 0.5
    if not skull.any():
        return np.zeros(len(v))
    low, high = v[skull].min(0), v[skull].max(0)
    top, back = (v[:, 1] - low[1]) / (high[1] - low[1]), (high[2] - v[:, 2]) / (high[2] - low[2])
    return skull * _step(top + 0.45 * back, 0.93, 0.05) * _step(top, 0.35, 0.06)


def _smooth_field(points: NDArray[np.float64], rng: np.random.Generator, waves: int = 12) -> NDArray[np.float64]:
    """A random function of the rest body's points (N,), 0 to 1, with features of 7 to 20 cm."""
    direction = rng.normal(size=(3, waves))
    direction *= 2 * np.pi / (rng.uniform(0.14, 0.4, waves) * np.linalg.norm(direction, axis=0))
    field = np.sin(points @ direction + rng.uniform(0, 2 * np.pi, waves)).sum(1) / np.sqrt(waves / 2)
    return 0.5 + 0.5 * np.tanh(field)


def _albedo(
    cover: dict[str, NDArray[np.float64]], nominal: dict[str, float], rng: np.random.Generator
) -> NDArray[np.float32]:
    """(V, 3) colours; garments without thickness (naked, barefoot) are not painted."""
    skin = np.array(_SKIN[int(rng.integers(len(_SKIN)))], float)
    order = [i for i in rng.permutation(len(_CLOTH)) if np.abs(skin - _CLOTH[i]).sum() > 150]
    first, second = order[:2]  # cloth that can be told from skin
    paint = {
        "trousers": np.array(_CLOTH[first], float) * 0.7,
        "shirt": np.array(_CLOTH[second], float),
        "shoes": np.array((48, 46, 50), float),
        "hair": np.array(_HAIR[int(rng.integers(len(_HAIR)))], float),
    }
    out = np.tile(skin, (len(cover["shirt"]), 1))
    for name, rgb in paint.items():  # the shirt after the trousers: it hangs over them
        if nominal[name] > 0:
            share = cover[name][:, None]
            out = out * (1 - share) + rgb * share
    return ((out / 255) ** 2.2).astype(np.float32)
