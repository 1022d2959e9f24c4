"""A Gaussian prior per sex over betas that reproduces ANSUR II's stature, girths and mass by ANSUR's own rules."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from anny_rig import J, pose
from anny_train import volume

MEASURES = ("stature", "chest", "waist", "hip", "crotch", "mass")  # metres and kilograms
_COLUMNS = (
    "stature",
    "chestcircumference",
    "waistcircumference",
    "buttockcircumference",
    "crotchheight",
    "weightkg",
)
_FILES = {"female": "ANSUR_II_FEMALE_Public.csv", "male": "ANSUR_II_MALE_Public.csv"}
DENSITY = 985.0  # kg/m3, whole body with air in the lungs


@dataclass(frozen=True)
class Gaussian:
    mean: np.ndarray
    cov: np.ndarray


def read_ansur(folder: Path) -> dict[str, Gaussian]:
    """Means and covariances of MEASURES per sex from ANSUR II's public tables (mm; weightkg is kg x 10)."""
    out = {}
    for sex, name in _FILES.items():
        with open(folder / name, encoding="latin-1", newline="") as f:
            rows = [[float(row[c]) for c in _COLUMNS] for row in csv.DictReader(f)]
        table = np.array(rows) / (1000, 1000, 1000, 1000, 1000, 10)
        out[sex] = Gaussian(table.mean(0), np.cov(table.T))
    return out


@dataclass(frozen=True)
class TapeRules:
    """What measuring a T-posed body of this mesh takes."""

    faces: np.ndarray
    weights: np.ndarray  # (V, 24)
    J_regressor: np.ndarray  # (24, V)
    standing: np.ndarray  # (24, 3, 3) local rotations that lower the arms, legs straight
    nipples: np.ndarray
    navel: np.ndarray
    trunk_edges: np.ndarray  # (E, 2) of trunk, head and legs, arms left out
    seat: np.ndarray  # vertices that may be the most protruding of the buttocks
    perineum: np.ndarray  # vertices that may be the trunk's lowest: thick thighs cross the mid-plane, these do not


def tape_rules(
    faces: np.ndarray,
    weights: np.ndarray,
    regressor: np.ndarray,
    standing: np.ndarray,
    nipples: np.ndarray,
    navel: np.ndarray,
    seat: np.ndarray,
    perineum: np.ndarray,
) -> TapeRules:
    arms = [J[f"{s}_{n}"] for s in ("left", "right") for n in ("shoulder", "elbow", "wrist", "hand")]
    arm = np.isin(weights.argmax(1), arms)
    f = faces[~arm[faces].any(1)]
    e = np.sort(np.vstack([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]), 1)
    return TapeRules(faces, weights, regressor, standing, nipples, navel, np.unique(e, axis=0), seat, perineum)


def girth(v: np.ndarray, edges: np.ndarray, height: float) -> float:
    """Tape round a horizontal section: the perimeter of its convex hull, metres."""
    from scipy.spatial import ConvexHull

    d = v[:, 1] - height
    a, b = d[edges[:, 0]], d[edges[:, 1]]
    cut = (a > 0) != (b > 0)
    e, a, b = edges[cut], a[cut], b[cut]
    t = (a / (a - b))[:, None]
    p = v[e[:, 0]] * (1 - t) + v[e[:, 1]] * t
    return float(ConvexHull(p[:, [0, 2]]).area)  # in the plane scipy's "area" is the perimeter


def measure(vertices: np.ndarray, rules: TapeRules) -> np.ndarray:
    """MEASURES (6,) of a T-posed body by ANSUR II's definitions, standing straight with the arms lowered.

    stature: floor to the head's top; chest: horizontal, at the nipples; waist: horizontal, at the navel (omphalion);
    hip (buttock circumference): horizontal, at the greatest protrusion of the buttocks; crotch: its
    height above the floor; mass: volume x DENSITY.
    """
    v = pose(vertices, rules.J_regressor @ vertices, rules.weights, rules.standing)
    cut = lambda height: girth(v, rules.trunk_edges, float(height))  # noqa: E731
    seat = v[rules.seat]
    return np.array(
        [
            np.ptp(v[:, 1]),
            cut(v[rules.nipples, 1].mean()),
            cut(v[rules.navel, 1].mean()),
            cut(seat[seat[:, 2].argmin(), 1]),
            v[rules.perineum, 1].min() - v[:, 1].min(),
            volume(v, rules.faces) * DENSITY,
        ]
    )


def measure_betas(betas: np.ndarray, mean: np.ndarray, basis: np.ndarray, rules: TapeRules) -> np.ndarray:
    """MEASURES (N, 6) of betas (N, k)."""
    flat = basis.reshape(-1, basis.shape[2]).astype(np.float64)
    return np.array([measure(mean + (flat @ b).reshape(-1, 3), rules) for b in betas])


def standard_samples(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Normal samples (n, k) whose own mean is 0 and covariance I: moments of measures come without sampling noise."""
    z = rng.standard_normal((n, k))
    z -= z.mean(0)
    return z @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T))).T


def calibrate(
    start: Gaussian,
    target: Gaussian,
    mean: np.ndarray,
    basis: np.ndarray,
    rules: TapeRules,
    seed: int,
    samples: int = 800,
    rounds: int = 4,
) -> Gaussian:
    """The Gaussian over betas nearest `start` whose sampled bodies measure like `target`.

    With measures m = A b + c, K = S A' (A S A')^-1 moves mean and covariance of m to any given values and leaves the
    conditional distribution of b given m as it was: what the tape does not see keeps the training set's variety. A is
    taken by differences one standard deviation to both sides; because mass and girths bend, it is taken anew at each
    round's mean, and what the moments of bodies drawn from the round's result still miss is added to those asked for.
    """
    rng = np.random.default_rng(seed)
    z = standard_samples(rng, samples, len(start.mean))
    now, want = start, target
    for _ in range(rounds):
        root = np.linalg.cholesky(now.cov)
        m = measure_betas(now.mean + z @ root.T, mean, basis, rules)
        ahead, behind = (measure_betas(now.mean + s * root.T, mean, basis, rules) for s in (1.0, -1.0))
        a = np.linalg.solve(root.T, (ahead - behind) / 2).T
        c = m.mean(0) - a @ now.mean
        if now is not start:
            want = Gaussian(want.mean + target.mean - m.mean(0), want.cov + target.cov - np.cov(m.T))
            if np.linalg.eigvalsh(want.cov).min() <= 0:
                raise RuntimeError("the prior's calibration diverged")
        gain = start.cov @ a.T @ np.linalg.inv(a @ start.cov @ a.T)
        now = Gaussian(
            start.mean + gain @ (want.mean - a @ start.mean - c),
            start.cov - gain @ a @ start.cov + gain @ want.cov @ gain.T,
        )
        now = Gaussian(now.mean, (now.cov + now.cov.T) / 2)
    return now


def mixture(parts: list[Gaussian]) -> Gaussian:
    """The Gaussian with the mean and covariance of an equal mixture."""
    mean = np.mean([p.mean for p in parts], 0)
    return Gaussian(mean, np.mean([p.cov + np.outer(p.mean - mean, p.mean - mean) for p in parts], 0))


def compare(measured: np.ndarray, target: Gaussian) -> dict[str, object]:
    """Sampled moments against the target's, as plain numbers for the provenance."""
    sd, want = measured.std(0, ddof=1), np.sqrt(np.diag(target.cov))
    return {
        "measures": list(MEASURES),
        "bodies": len(measured),
        "mean": measured.mean(0).round(4).tolist(),
        "ansur_mean": target.mean.round(4).tolist(),
        "sd": sd.round(4).tolist(),
        "ansur_sd": want.round(4).tolist(),
        "largest_correlation_error": float(
            np.abs(np.corrcoef(measured.T) - target.cov / np.outer(want, want)).max().round(3)
        ),
    }
