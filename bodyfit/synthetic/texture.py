"""What people have on them that moves with them: weave, stripes, prints, seams, freckles, brows and lips.

A texture holds an albedo at `SIDE` x (`SIDE` + 1) / 2 cells of every face of the mesh (2 to 4 mm wide), made from
functions of the unposed body's surface: the same place on the body has the same colour in every frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.synthetic.clothing import Clothing, garment_cover
from bodyfit.synthetic.subject import Subject

SIDE = 6
"""cells along an edge of a face"""
PATTERNS = ("plain", "stripes", "checks", "print")


@dataclass(frozen=True)
class Texture:
    """Linear albedo (F, cells, 3), 0 to 1; cells as `kernels.paint.cell_of` counts them; `pattern` of the shirt."""

    albedo: NDArray[np.float32]
    side: int
    pattern: str

    def at_vertices(self, faces: NDArray[np.int32], count: int) -> NDArray[np.float64]:
        """(V, 3) mean albedo of the cells at each vertex."""
        corner = [_cell(self.side - 1, 0, self.side), _cell(0, self.side - 1, self.side), 0]
        total, weight = np.zeros((count, 3)), np.zeros(count)
        for k, cell in enumerate(corner):
            np.add.at(total, faces[:, k], self.albedo[:, cell])
            np.add.at(weight, faces[:, k], 1.0)
        return total / np.maximum(weight, 1.0)[:, None]


def _cell(i: int, j: int, side: int) -> int:
    return i * side - i * (i - 1) // 2 + j


def texture_of(
    model: BodyModel, subject: Subject, clothing: Clothing, rng: np.random.Generator, pattern: str | None = None
) -> Texture:
    """A texture by chance for someone's skin, hair and clothes, whose ground colours stay those of `clothing`.

    Args:
        pattern: of the shirt, one of `PATTERNS`; None draws it.
    """
    corners = []
    for i in range(SIDE):  # the upright cells' centres; the cells between them take their neighbour's colour
        for j in range(SIDE - i):
            a, b = (i + 0.4) / SIDE, (j + 0.4) / SIDE
            corners.append((a, b, 1 - a - b))
    weights = np.array(corners)

    def spread(values: NDArray[np.floating]) -> NDArray[np.float32]:
        at = values.astype(np.float32)[model.faces]  # (F, 3, ...)
        return np.einsum("sk,fk...->fs...", weights.astype(np.float32), at)

    places = spread(subject.rest_vertices)
    ground = spread(clothing.albedo)
    cover = garment_cover(model, subject, clothing.sleeve, clothing.trousers)
    share = {
        n: spread(c) if clothing.nominal_mm[n] > 0 else np.zeros(places.shape[:2], np.float32) for n, c in cover.items()
    }
    share["trousers"] = share["trousers"] * (1 - share["shirt"])
    bare = np.clip(1 - sum(share.values()), 0, 1)
    drawn = PATTERNS[int(rng.integers(len(PATTERNS)))]
    pattern = pattern or drawn
    weave_rng, shirt_rng, legs_rng, skin_rng, face_rng = rng.spawn(5)
    tint = np.ones_like(ground)
    cloth = 0.75 * _noise(places, weave_rng, 0.035, 0.12, 10) + 0.5 * _noise(places, weave_rng, 0.012, 0.03, 10)
    tint += (0.10 * (1 - bare) * cloth)[..., None]
    ground = _shirt(ground, places, share["shirt"], pattern, shirt_rng, model, subject)
    ground = _trousers(ground, places, share["trousers"], legs_rng, model, subject)
    strands = _noise(places * np.array([1.0, 0.25, 1.0], np.float32), weave_rng, 0.008, 0.02, 10)
    tint += (0.25 * share["hair"] * strands)[..., None]
    rosy = np.array([0.05, 0.09, 0.10], np.float32)  # blood shows in green and blue
    tint += (bare * _noise(places, skin_rng, 0.02, 0.12, 12))[..., None] * rosy
    tint += (0.03 * bare * _noise(places, skin_rng, 0.006, 0.015, 10))[..., None]
    out = ground * np.maximum(tint, 0.2)
    out = _freckles(out, places, bare, subject, skin_rng)
    out = _face(out, places, bare, model, subject, face_rng)
    return Texture(np.clip(out, 0.004, 0.95).astype(np.float32), SIDE, pattern)


def _noise(
    points: NDArray[np.float32], rng: np.random.Generator, shortest: float, longest: float, waves: int
) -> NDArray[np.float32]:
    """A random smooth function (...,) of points (..., 3), about -1 to 1, with waves of the given lengths, metres."""
    direction = rng.normal(size=(3, waves))
    length = np.exp(rng.uniform(np.log(shortest), np.log(longest), waves))
    direction *= 2 * np.pi / (length * np.linalg.norm(direction, axis=0))
    phase = rng.uniform(0, 2 * np.pi, waves)
    wave = np.sin(points @ direction.astype(np.float32) + phase.astype(np.float32))
    return (wave.sum(-1) / np.sqrt(waves)).astype(np.float32)


def _mix(ground: NDArray[np.float32], share: NDArray[np.floating], rgb: NDArray[np.floating]) -> NDArray[np.float32]:
    s = np.asarray(share, np.float32)[..., None]
    return (ground * (1 - s) + rgb * s).astype(np.float32)


def _other(rng: np.random.Generator) -> NDArray[np.float64]:
    """A colour for patterns: light or dark, hardly grey."""
    value = rng.choice([0.06, 0.65])
    return np.clip(value * (1 + rng.normal(0, 0.35, 3)), 0.02, 0.85)


def _along(places: NDArray[np.float32], model: BodyModel, subject: Subject) -> NDArray[np.float32]:
    """A coordinate that runs down the trunk and, on the arms of the T-pose, out along them, metres."""
    joint = {name: subject.rest_joints[i] for i, name in enumerate(model.joint_names)}
    shoulder = float(abs(joint["left_shoulder"][0])) + 0.02
    out = np.abs(places[..., 0]) - shoulder
    return np.where(out > 0, out + np.float32(0.3), places[..., 1])


def _shirt(
    ground: NDArray[np.float32],
    p: NDArray[np.float32],
    share: NDArray[np.float32],
    pattern: str,
    rng: np.random.Generator,
    model: BodyModel,
    subject: Subject,
) -> NDArray[np.float32]:
    ink, width = _other(rng), rng.uniform(0.025, 0.05)
    along = _along(p, model, subject)
    if pattern == "stripes":
        ground = _mix(ground, share * (np.sin(2 * np.pi * along / width) > rng.uniform(-0.2, 0.5)), ink)
    elif pattern == "checks":
        around = np.where(np.abs(along - p[..., 1]) > 1e-6, p[..., 2], p[..., 0])
        lines = (np.sin(2 * np.pi * along / width) > 0.3) * 0.45 + (np.sin(2 * np.pi * around / width) > 0.3) * 0.45
        ground = _mix(ground, share * lines, ink)
    elif pattern == "print":
        blotch = _noise(p, rng, 0.05, 0.14, 14)
        ground = _mix(ground, share * (blotch > 0.35), ink)
        ground = _mix(ground, share * (blotch < -0.75), _other(rng))
    # what runs along the sides shows how a trunk and an arm are turned
    seam = np.abs(p[..., 2] - np.float32(np.median(subject.rest_vertices[:, 2]))) < 0.004
    return _mix(ground, 0.45 * share * seam, np.array([0.03, 0.03, 0.03]))


def _trousers(
    ground: NDArray[np.float32],
    p: NDArray[np.float32],
    share: NDArray[np.float32],
    rng: np.random.Generator,
    model: BodyModel,
    subject: Subject,
) -> NDArray[np.float32]:
    joint = {name: subject.rest_joints[i] for i, name in enumerate(model.joint_names)}
    worn = 0.25 * (1 + _noise(p, rng, 0.08, 0.3, 8)) * share
    ground = _mix(ground, 0.35 * np.clip(worn, 0, 1), np.array([0.5, 0.5, 0.52]))
    stripe = rng.random() < 0.4
    hip, knee = joint["left_hip"], joint["left_knee"]
    # a seam, or a stripe, outside of each leg
    z = float(hip[2] + knee[2]) / 2
    outside = np.abs(p[..., 0]) > abs(float(hip[0])) + 0.02
    seam = outside & (np.abs(p[..., 2] - z) < (0.014 if stripe else 0.004))
    ground = _mix(
        ground, (0.9 if stripe else 0.5) * share * seam, _other(rng) if stripe else np.array([0.02, 0.02, 0.02])
    )
    pocket = (np.abs(p[..., 1] - (float(hip[1]) + 0.02)) < 0.006) & (np.abs(np.abs(p[..., 0]) - 0.09) < 0.05)
    return _mix(ground, 0.5 * share * pocket, np.array([0.02, 0.02, 0.02]))


def _freckles(
    ground: NDArray[np.float32],
    p: NDArray[np.float32],
    bare: NDArray[np.float32],
    subject: Subject,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Moles and veins of a few millimetres: nobody's arms are of one colour."""
    count = int(rng.integers(40, 90))
    at = subject.rest_vertices[rng.integers(0, len(subject.rest_vertices), count)].astype(np.float32)
    radius = rng.uniform(0.0025, 0.006, count)
    dark = np.zeros(p.shape[:2], np.float32)
    middle = p.mean(1)
    for place, r in zip(at, radius, strict=True):
        near = np.nonzero(((middle - place) ** 2).sum(1) < (r + 0.03) ** 2)[0]
        gap = np.sqrt(((p[near] - place) ** 2).sum(-1))
        dark[near] = np.maximum(dark[near], np.clip(1.5 - gap / r, 0, 1))
    return (ground * (1 - 0.6 * dark * bare)[..., None]).astype(np.float32)


def _face(
    ground: NDArray[np.float32],
    p: NDArray[np.float32],
    bare: NDArray[np.float32],
    model: BodyModel,
    subject: Subject,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Eyes, brows, lips and, on some, a beard; left out for a body whose eyes and mouth are not known."""
    if model.sample_mask is None:
        return ground
    inner = ~model.sample_mask  # eye sockets and mouth
    at, template = subject.rest_vertices, model.v_template
    aside = np.abs(template[:, 0]) > 0.015
    low = float(np.median(template[inner & ~aside, 1])) if (inner & ~aside).any() else 0.0
    eyes = [at[inner & aside & (template[:, 0] * s > 0) & (template[:, 1] > low + 0.01)] for s in (1, -1)]
    mouth = at[inner & ~aside]
    if min(map(len, [*eyes, mouth])) < 5:
        return ground
    dark = np.array([0.03, 0.02, 0.015]) * rng.uniform(0.6, 3.0)
    front = (p[..., 2] > float(mouth[:, 2].max()) - 0.05) * bare
    line = float(np.median(mouth[:, 1])) - 0.012
    if rng.random() < 0.3 and subject.sex == "male":
        beard = front * np.clip((line + 0.012 - p[..., 1]) / 0.01, 0, 1) * (p[..., 1] > line - 0.06)
        ground = _mix(ground, 0.6 * beard, dark)
    for eye in eyes:
        x, y = float(eye[:, 0].mean()), float(eye[:, 1].mean())
        dx, dy = (p[..., 0] - x) / 0.015, (p[..., 1] - y) / 0.006
        ground = _mix(ground, front * (dx**2 + dy**2 < 1), np.array([0.75, 0.73, 0.7]))
        ground = _mix(
            ground, front * ((p[..., 0] - x) ** 2 + (p[..., 1] - y) ** 2 < 0.0055**2), np.array([0.03, 0.03, 0.04])
        )
        brow = np.abs(p[..., 1] - y - 0.020 + 8 * (p[..., 0] - x) ** 2) < 0.0035
        ground = _mix(ground, 0.8 * front * brow * (np.abs(p[..., 0] - x) < 0.02), dark)
    lips = ((p[..., 0] / 0.024) ** 2 + ((p[..., 1] - line) / 0.008) ** 2) < 1
    return (ground * (1 - (front * lips)[..., None] * np.array([0.15, 0.45, 0.4]))).astype(np.float32)
