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
from bodyfit.fit.config import CLOTHING, Clothing
from bodyfit.render.rasterize import rasterize
from bodyfit.watch import checkpoint

if TYPE_CHECKING:
    from bodyfit.observe.observation import Observation

FOLD_M = 0.03
"""folds are looked for at this scale: rougher is the body's own form, finer is sensor noise"""
NOISIEST_M = 0.002
"""a sensor noisier than this hides folds"""
NOISE_LEFT = 0.19
"""share of white noise that is left in the band of the folds, for the filters below"""
FLATTEST_M = 0.0001
LEAST_SAID = 0.01
"""data that say less than this of what the prior says are taken to say this much"""
SURE = 0.9
"""a class more probable than this is taken for certain"""
MOST = 4.0
"""one cue alone moves the odds by at most e to this power"""
# What each class looks like to a fit without its undecided prior, mean and spread in millimetres over synthetic fits of
# known clothes: the shape takes up part of a garment's thickness, so these are not the garments' own.
CUES = {
    "tight": {"cloth": (0.9, 1.3), "shoes": (1.1, 1.5), "hair": (1.0, 1.5)},
    "casual": {"cloth": (5.8, 2.6), "shoes": (8.0, 2.3), "hair": (4.5, 3.2)},
    "loose": {"cloth": (15.0, 6.0), "shoes": (8.0, 3.5), "hair": (7.0, 4.0)},
}
FOLDS = {"tight": (0.30, 0.45), "casual": (0.80, 0.40), "loose": (1.2, 0.45)}
"""height of the folds, millimetres, and the spread of its logarithm"""
RARE = {"tight": 0.0, "casual": 0.0, "loose": -2.0}
"""log of how usual each is"""
CLOTHED_PARTS = ("chest", "abdomen", "pelvis", "thigh", "calf", "upper_arm")


@dataclass(frozen=True)
class Wear:
    """log_odds of each class against tight, and the folds' height in metres (None where the sensor is too noisy)."""

    log_odds: dict[str, float]
    folds_m: float | None

    @property
    def clothing(self) -> Clothing:
        """The most probable class; where others are possible too, with the mean and the spread of all by their odds."""
        names = list(self.log_odds)
        odds = np.array([self.log_odds[c] for c in names])
        share = np.exp(odds - odds.max())
        share /= share.sum()
        best = CLOTHING[names[int(share.argmax())]]
        if share.max() > SURE:
            return best

        def mixed(garment: str) -> tuple[float, float]:
            mean, sd = np.array([getattr(CLOTHING[c], garment) for c in names]).T
            middle = share @ mean
            return float(middle), float(np.sqrt(share @ (sd**2 + (mean - middle) ** 2)))

        behind = float(share @ np.array([CLOTHING[c].sigma_behind_m for c in names]))
        return Clothing(
            best.name, mixed("shirt_m"), mixed("trousers_m"), mixed("shoes_m"), mixed("hair_m"), behind
        )  # fmt: skip


def judge_wear(
    model: BodyModel,
    thickness: NDArray[np.float64],
    cov: NDArray[np.float64],
    bodies: Sequence[NDArray[np.float64]],
    observations: Sequence[Sequence[Observation]],
) -> Wear:
    """Weighs the classes after a fit with the undecided prior.

    thickness (G,) metres and cov (G, G): the garments (shirt, trousers, shoes, hair) as the data alone have them, see
    `without_prior`; bodies: vertices (V, 3) of each instant.
    """
    mm, mm2 = thickness * 1e3, cov * 1e6
    found = {
        "cloth": (float(mm[:2].mean()), float(mm2[:2, :2].sum() / 4)),
        "shoes": (float(mm[2]), float(mm2[2, 2])),
        "hair": (float(mm[3]), float(mm2[3, 3])),
    }
    folds = fold_height(model, bodies, observations)
    odds = dict(RARE)
    for name in odds:
        for cue, (value, variance) in found.items():
            odds[name] += _lead(value, variance, CUES[name][cue], CUES["tight"][cue])
        if folds is not None:
            height = float(np.log(max(folds, FLATTEST_M) * 1e3))
            odds[name] += _lead(height, 0.0, _log_scale(FOLDS[name]), _log_scale(FOLDS["tight"]))
    return Wear(odds, folds)


def without_prior(
    value: NDArray[np.float64],
    cov: NDArray[np.float64],
    prior_mean: NDArray[np.float64],
    prior_sd: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the data alone say, mean (G,) and covariance (G, G): a Gaussian posterior divided by its prior.

    A noisy sensor leaves the garments where the prior had them, which is between tight and casual: no sign of either.
    """
    precision = np.linalg.inv(cov)
    size, axes = np.linalg.eigh(precision - np.diag(1 / prior_sd**2))
    size = np.maximum(size, LEAST_SAID / prior_sd.max() ** 2)
    alone = np.asarray((axes / size) @ axes.T, np.float64)
    return alone @ (precision @ value - prior_mean / prior_sd**2), alone


def _log_scale(entry: tuple[float, float]) -> tuple[float, float]:
    return float(np.log(entry[0])), entry[1]


def _lead(value: float, variance: float, of: tuple[float, float], over: tuple[float, float]) -> float:
    """How much more probable a value is under one Gaussian than under another, as a logarithm, bounded."""

    def log_density(mean: float, sd: float) -> float:
        total = sd * sd + variance
        return -0.5 * (value - mean) ** 2 / total - 0.5 * float(np.log(total))

    return float(np.clip(log_density(*of) - log_density(*over), -MOST, MOST))


def fold_height(
    model: BodyModel, bodies: Sequence[NDArray[np.float64]], observations: Sequence[Sequence[Observation]]
) -> float | None:
    """Height of folds in metres without the sensor's noise, the median over the views; None where noise hides them."""
    heights, noises = [], []
    for vertices, views in zip(bodies, observations, strict=True):
        for o in views:
            checkpoint()
            # a stereo matcher's noise is as smooth as a fold
            smooth_noise = o.noise is not None and o.noise.stereo
            found = None if smooth_noise else _view_roughness(model, vertices, o)
            if found is not None:
                heights.append(np.sqrt(max(found[0] ** 2 - (NOISE_LEFT * found[1]) ** 2, 0.0)))
                noises.append(found[1])
    if not heights or np.median(noises) > NOISIEST_M:
        return None
    return float(np.median(heights))


def _view_roughness(model: BodyModel, vertices: NDArray[np.float64], o: Observation) -> tuple[float, float] | None:
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
