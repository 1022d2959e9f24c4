"""A fit's result made by hand from the tiny body: what exports and commands are shown, without a fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bodyfit.body.measure import Measurement
from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.fit.result import FitResult, FrameQuality, StopReason

INDICES = (3, 5)


def tiny_result(body: BodyModel | Path, **changes: Any) -> FitResult:
    """Two instants of a person with a shape of their own; `changes` replace fields."""
    model = body if isinstance(body, BodyModel) else load_body_model(body)
    rng = np.random.default_rng(3)
    S, J = model.num_betas, model.num_joints
    poses = rng.normal(0, 0.2, (len(INDICES), J, 3))
    poses[:, 0] = [1.4, 0.2, -0.3]
    quality = [
        FrameQuality(
            frame_index=index,
            depth_residual_m=0.004 + 0.001 * index,
            silhouette_iou=0.93,
            covered=0.97,
            coverage={part: 0.5 if part != "head" else 0.0 for part in model.part_names},
            flags=() if index == 3 else ("the picture ends above the feet",),
            stop_reason=StopReason.CONVERGED,
            ambiguity=None if index == 3 else 0.4,
            believed=True,
        )
        for index in INDICES
    ]
    a = rng.normal(0, 0.1, (S, S))
    result = FitResult(
        model=model,
        sex="female",
        clothing="tight",
        clothing_asked="auto",
        betas=rng.normal(0, 1, S),
        betas_cov=a @ a.T + 0.01 * np.eye(S),
        poses=poses,
        pose_sd=np.full_like(poses, 0.02),
        transl=np.array([[1.0, 2.0, 0.9], [1.1, 2.0, 0.9]]),
        frame_indices=INDICES,
        timestamps_s=(0.1, 0.6),
        garments_m={"shirt": 0.0015},
        frames=tuple(quality),
        coverage={part: 2 if part != "head" else 0 for part in model.part_names},
        stop_reason=StopReason.CONVERGED,
        converged=True,
        flags=("the head was never seen",),
        hints=("show the head",),
        measurements={
            "stature": Measurement("stature", 1.7312345678, 0.004, True, "Floor to the top of the head.", "m"),
            "hip_girth": Measurement("hip_girth", 0.98, float("nan"), True, "A tape, with a comma.", "m"),
            "head_girth": Measurement("head_girth", 0.56, 0.012, False, "Round the head.", "m"),
            "volume": Measurement("volume", 0.0688, 0.0007, True, "Of the body.", "m3"),
            "mass": Measurement("mass", 67.8, 0.9, True, "Volume times density.", "kg"),
        },
        provenance={"bodyfit": "0.1.0", "device": "cpu", "config": {"stages": ["coarse", "fine"]}},
        skipped={4: "nobody stands there"},
    )
    return replace(result, **changes)
