"""From a solution to a result: quality, flags, hints, measurements, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.fit.config import Clothing
from bodyfit.fit.joint import FitSetup, Instant, JointFit, garments_of
from bodyfit.fit.quality import SEEN_SHARE, agreement, part_coverage, seen_counts
from bodyfit.fit.result import FitResult, FrameQuality
from bodyfit.fit.solver import StopReason
from bodyfit.rotation import axis_angle_from_matrix
from bodyfit.watch import checkpoint

WORST_RESIDUAL_M = 0.020
"""beyond the clothes' thickness; a fit further off than this found something else"""
LEAST_IOU = 0.72
LEAST_COVERED = 0.80
RIVAL_COST = 1.05
SIDES = {"front": (2, 1.0), "back": (2, -1.0), "left side": (0, 1.0), "right side": (0, -1.0)}
TRUNK = ("pelvis", "abdomen", "chest")
LIMBS = ("upper_arm", "forearm", "hand", "thigh", "calf", "foot")


def frame_quality(
    setup: FitSetup, clothing: Clothing, instant: Instant, vertices: NDArray[np.float64], stop: StopReason,
    rivals: tuple[float, ...] | None, cost: float | None,
) -> tuple[FrameQuality, NDArray[np.bool_]]:  # fmt: skip
    """One instant's quality, and which vertices were seen (V,)."""
    model = setup.model
    views = [agreement(model, vertices, o) for o in instant.observations]
    residuals = np.concatenate([v.residuals for v in views])
    seen = np.logical_or.reduce([v.seen_vertices for v in views])
    residual = float(np.median(np.abs(residuals))) if len(residuals) else float("inf")
    union = sum(v.union for v in views)
    iou = sum(v.inside for v in views) / union if union else 0.0
    person = sum(v.person for v in views)
    covered = sum(v.covered for v in views) / person if person else 0.0
    coverage = part_coverage(model, seen)
    cut = sorted(set().union(*(o.cut_off for o in instant.observations)))
    flags = [f"cut off at the image's {side}" for side in cut]
    flags += [
        f"{part.replace('_', ' ')} hidden: its pose is a guess"
        for part, share in coverage.items()
        if part.endswith(LIMBS) and not part.endswith("hand") and share < 0.3 * SEEN_SHARE
    ]
    ambiguity = float(min(rivals) / cost) if rivals and cost else None
    if ambiguity is not None and ambiguity < RIVAL_COST:
        flags.append("ambiguous: another pose explains the picture about as well")
    allowance = WORST_RESIDUAL_M + clothing.shirt_m[0]
    wrong = []
    if residual > allowance:
        wrong.append(f"the body lies {residual * 1e3:.0f} mm from the sensor's points")
    if iou < LEAST_IOU:
        wrong.append(f"the outlines overlap only to {iou * 100:.0f} %")
    if covered < LEAST_COVERED:
        wrong.append(f"the body covers only {covered * 100:.0f} % of the person")
    flags += [f"not to be believed: {w}" for w in wrong]
    quality = FrameQuality(
        instant.index, residual, float(iou), float(covered), coverage, tuple(flags), stop, ambiguity, not wrong
    )
    return quality, seen


def sides_seen(model: BodyModel, seen: NDArray[np.bool_]) -> dict[str, float]:
    """Share of the trunk's front, back, left and right that was seen in any instant."""
    from bodyfit.kernels.body import vertex_normals

    normals = np.empty_like(model.v_template)
    vertex_normals(model.v_template, model.faces, normals)
    trunk = np.ones(model.num_vertices, bool)
    if model.part_labels is not None:
        trunk = np.isin(model.part_labels, [i for i, n in enumerate(model.part_names) if n in TRUNK])
    out = {}
    for name, (axis, sign) in SIDES.items():
        mine = trunk & (normals[:, axis] * sign > 0.6)
        out[name] = float(seen[mine].mean()) if mine.any() else 0.0
    return out


def advice(frames: Sequence[FrameQuality], sides: Mapping[str, float], skipped: Mapping[int, str]) -> list[str]:
    """What to do for a better fit."""
    hints = []
    unseen = [n for n in ("front", "back") if sides[n] < 0.15]
    if unseen:
        hints.append(f"turn around: the {' and the '.join(unseen)} was never seen")
    elif min(sides["left side"], sides["right side"]) < 0.15:
        side = "left" if sides["left side"] < sides["right side"] else "right"
        hints.append(f"turn a little: the {side} side was never seen")
    if any("cut off" in f for q in frames for f in q.flags):
        hints.append("step back or tilt the sensor: part of the body is outside of the picture")
    if any("hidden" in f for q in frames for f in q.flags) and not unseen:
        hints.append("hold the arms a little away from the body: a limb was hidden")
    if skipped:
        hints.append(f"{len(skipped)} frames without a person were left out")
    return hints


def make_result(
    setup: FitSetup,
    clothing: Clothing,
    instants: Sequence[Instant],
    found: JointFit,
    skipped: Mapping[int, str],
) -> FitResult:
    """Puts everything that is known about a joint fit into a result."""
    from bodyfit.body.measure import measure_with_sd
    from bodyfit.body.measure_definitions import model_errors

    model = setup.model
    S = model.num_betas
    betas = found.mean + found.shape[:S]
    poses = axis_angle_from_matrix(found.rotations)
    T, J = poses.shape[:2]
    stop = found.solution.reasons[0]
    qualities, seen_ever = [], np.zeros(model.num_vertices, bool)
    for t, instant in enumerate(instants):
        checkpoint()
        vertices, _ = model.forward(betas, poses[t], found.transl[t])
        rivals = found.rivals[t]
        cost = found.start_costs[t]
        quality, seen = frame_quality(setup, clothing, instant, vertices, stop, rivals, cost)
        qualities.append(quality)
        seen_ever |= seen
    coverage = seen_counts([q.coverage for q in qualities])
    sides = sides_seen(model, seen_ever)
    converged = all(q.believed for q in qualities) and stop is not StopReason.NO_EVIDENCE
    variance = np.diagonal(found.pose_cov, axis1=1, axis2=2)[:, : 3 * J].reshape(T, J, 3)
    betas_cov = found.shape_cov[:S, :S]
    checkpoint()
    flags = [f"frame {q.frame_index}: {f}" for q in qualities for f in q.flags]
    measurements = measure_with_sd(
        model, betas, betas_cov, coverage, sides=sides, model_error=model_errors(clothing.name)
    )
    return FitResult(
        model=model,
        sex=setup.sex,
        clothing=clothing.name,
        clothing_asked=setup.clothing,
        betas=betas,
        betas_cov=betas_cov,
        poses=poses,
        pose_sd=np.sqrt(np.maximum(variance, 0)),
        transl=found.transl,
        frame_indices=tuple(i.index for i in instants),
        timestamps_s=tuple(i.timestamp_s for i in instants),
        garments_m=garments_of(found, S),
        frames=tuple(qualities),
        coverage=coverage,
        stop_reason=stop,
        converged=converged,
        flags=tuple(flags),
        hints=tuple(advice(qualities, sides, skipped)),
        measurements=measurements,
        provenance=provenance(setup),
        observations=tuple(i.observations for i in instants),
        skipped=dict(skipped),
    )


def provenance(setup: FitSetup) -> dict[str, Any]:
    """What made this result: nothing that changes from run to run or from machine to machine."""
    from bodyfit import __version__

    settings = asdict(replace(setup.config, solver=None))
    return {
        "bodyfit": __version__,
        "model": setup.model.name,
        "model_sha256": setup.model.sha256,
        "sex": setup.sex,
        "clothing_asked": setup.clothing,
        "device": "cpu" if setup.config.solver is None else setup.config.solver.name,
        "solver": setup.method,
        # how many threads there were decides nothing: sums are in one order
        "config": {name: value for name, value in settings.items() if name not in ("threads", "solver")},
    }
