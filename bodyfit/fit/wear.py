"""What the person wears, told from the depth alone: how thick the garments came out, and how rough the surface is.

Skin seen by a depth sensor is smooth at the scale of a few centimetres; cloth hangs in folds. Thickness follows from
what the shape basis cannot do: a trunk that is swollen against its own head, hands and feet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.fit.config import CLOTHING, UNDECIDED, Clothing
from bodyfit.render.rasterize import rasterize

if TYPE_CHECKING:
    from bodyfit.observe.observation import Observation

FOLD_M = 0.03
"""folds are looked for at this scale: rougher is the body's own form, finer is sensor noise"""
NOISIEST_M = 0.002
"""a sensor noisier than this hides folds"""
TEMPER = 0.25
"""share of the covariance's information that is believed: neighbouring residuals err together"""
ROUGH_RATIO, ROUGH_SPREAD = 0.57, 0.22
"""fold height over sensor noise half-way between skin and cloth, and the spread of its logarithm in either class"""
CLOTHED_PARTS = ("chest", "abdomen", "pelvis", "thigh", "calf", "upper_arm")


@dataclass(frozen=True)
class Wear:
    """log_odds of each class against tight, and the roughness ratio (None where the sensor is too noisy)."""

    log_odds: dict[str, float]
    roughness: float | None

    @property
    def clothing(self) -> Clothing:
        """The most probable class."""
        return CLOTHING[max(self.log_odds, key=lambda c: self.log_odds[c])]


def judge_wear(
    model: BodyModel,
    thickness: NDArray[np.float64],
    cov: NDArray[np.float64],
    bodies: Sequence[NDArray[np.float64]],
    observations: Sequence[Sequence[Observation]],
) -> Wear:
    """Weighs the classes after a fit with the undecided prior.

    thickness (G,) metres and cov (G, G): the garments as estimated; bodies: vertices (V, 3) of each instant.
    """
    prior = _table(UNDECIDED)
    information = np.linalg.inv(cov) - np.diag(1 / prior[1] ** 2)
    # what the data alone say: the estimate without the prior it was made with, tempered; many frames of one person
    # err together too, so they count as two
    temper = TEMPER * min(1.0, 2.0 / max(len(bodies), 1))
    pull = np.linalg.solve(cov, thickness) - prior[0] / prior[1] ** 2
    information, pull = temper * 0.5 * (information + information.T), temper * pull
    evidence = {name: _log_evidence(information, pull, *_table(c)) for name, c in CLOTHING.items()}
    # loose clothes are rarer, and explain any thickness a little
    odds = {n: e - evidence["tight"] - (2.0 if n == "loose" else 0.0) for n, e in evidence.items()}
    rough = roughness(model, bodies, observations)
    if rough is not None:
        hint = float(np.clip((np.log(rough) - np.log(ROUGH_RATIO)) * 2 * np.log(1.8) / ROUGH_SPREAD**2 / 2, -4, 4))
        for name in ("casual", "loose"):
            odds[name] += hint
    return Wear(odds, rough)


def _table(clothing: Clothing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows = np.array([clothing.shirt_m, clothing.trousers_m, clothing.shoes_m, clothing.hair_m])
    return rows[:, 0], rows[:, 1]


def _log_evidence(
    information: NDArray[np.float64], pull: NDArray[np.float64], mean: NDArray[np.float64], sd: NDArray[np.float64]
) -> float:
    """log ∫ exp(-½ oᵀΛo + ηᵀo) N(o; mean, sd²) do."""
    precision = np.diag(1 / sd**2)
    total = information + precision
    b = pull + mean / sd**2
    _, logdet = np.linalg.slogdet(np.eye(len(mean)) + np.diag(sd**2) @ information)
    return float(-0.5 * logdet + 0.5 * b @ np.linalg.solve(total, b) - 0.5 * mean @ precision @ mean)


def roughness(
    model: BodyModel, bodies: Sequence[NDArray[np.float64]], observations: Sequence[Sequence[Observation]]
) -> float | None:
    """Height of folds over the sensor's noise, the median over the views; None where noise hides folds."""
    ratios, noises = [], []
    for vertices, views in zip(bodies, observations, strict=True):
        for o in views:
            found = _view_roughness(model, vertices, o)
            if found is not None:
                ratios.append(found[0] / max(found[1], 1e-4))
                noises.append(found[1])
    if not ratios or np.median(noises) > NOISIEST_M:
        return None
    return float(np.median(ratios))


def _view_roughness(
    model: BodyModel, vertices: NDArray[np.float64], o: Observation
) -> tuple[float, float] | None:
    """Median height of the residual between FOLD_M and a quarter of it, and of what is finer, metres."""
    import cv2

    T = o.T_world_depth
    raster = rasterize((vertices - T[:3, 3]) @ T[:3, :3], model.faces, o.camera)
    gap = o.depth - raster.depth
    use = (raster.face >= 0) & (o.label == 1) & (o.depth > 0) & (np.abs(gap) < 0.06)
    if model.part_labels is not None:
        ids = [i for i, n in enumerate(model.part_names) if n.endswith(CLOTHED_PARTS)]
        use &= np.isin(model.part_labels[model.faces[np.maximum(raster.face, 0), 0]], ids)
    if use.sum() < 500:
        return None
    weight = use.astype(np.float32)
    scale = FOLD_M * o.camera.fx / float(np.median(o.depth[use]))

    def smooth(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), max(sigma, 0.6)), np.float32)

    held = np.where(use, gap, 0).astype(np.float32)
    wide_weight = smooth(weight, scale)
    wide = smooth(held, scale) / np.maximum(wide_weight, 1e-3)
    fine = smooth(held, scale / 4) / np.maximum(smooth(weight, scale / 4), 1e-3)
    inner = use & (wide_weight > 0.97)
    if inner.sum() < 300:
        return None
    return float(np.median(np.abs(fine - wide)[inner])), float(np.median(np.abs(held - fine)[inner]))
