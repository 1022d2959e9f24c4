"""What a fit found, and how far to believe it. An outcome is data: a failed fit is a result that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.fit.solver import StopReason

if TYPE_CHECKING:
    from bodyfit.body.measure import Measurement
    from bodyfit.fit.extrinsics import SensorPlace
    from bodyfit.observe.observation import Observation

__all__ = ["FitResult", "FrameQuality", "StopReason"]


@dataclass(frozen=True)
class FrameQuality:
    """How well one instant's body explains what its sensors saw.

    Attributes:
        frame_index: the recording's index.
        depth_residual_m: median distance of the sensor's points on the person to the body's surface, along its normal.
        silhouette_iou: overlap of the body's outline with the person's mask, unknown pixels left out.
        covered: share of the person's pixels that the body covers.
        coverage: for each body part the share of its surface that the sensors saw.
        flags: what is wrong or missing, one short sentence each.
        stop_reason: why the optimiser stopped.
        ambiguity: cost of the best different hypothesis over this one's, 1 = as good; None after a warm start.
        believed: whether this instant is to be believed at all.
    """

    frame_index: int
    depth_residual_m: float
    silhouette_iou: float
    covered: float
    coverage: Mapping[str, float]
    flags: tuple[str, ...]
    stop_reason: StopReason
    ambiguity: float | None
    believed: bool


@dataclass(frozen=True, eq=False)
class FitResult:
    """One person: a shape, a pose for each instant, measurements with their uncertainty, and quality.

    Attributes:
        betas (S,), betas_cov (S, S): the shape and its covariance.
        poses (T, J, 3), pose_sd (T, J, 3): axis-angle radians, the root first, and one standard deviation.
        transl (T, 3): metres, world; vertices = skinned vertices + transl, as in SMPL.
        garments_m: thickness between skin and seen surface, by garment, as estimated.
        coverage: for each body part the number of instants in which it was seen.
        sensors: where they were found to be, where that was asked for; the observations have them there.
        clothing: what the person was taken to wear; `clothing_asked` is what was asked for.
    """

    model: BodyModel
    sex: str
    clothing: str
    clothing_asked: str
    betas: NDArray[np.float64]
    betas_cov: NDArray[np.float64]
    poses: NDArray[np.float64]
    pose_sd: NDArray[np.float64]
    transl: NDArray[np.float64]
    frame_indices: tuple[int, ...]
    timestamps_s: tuple[float, ...]
    garments_m: Mapping[str, float]
    frames: tuple[FrameQuality, ...]
    coverage: Mapping[str, int]
    stop_reason: StopReason
    converged: bool
    flags: tuple[str, ...]
    hints: tuple[str, ...]
    measurements: Mapping[str, Measurement]
    provenance: Mapping[str, Any]
    observations: tuple[tuple[Observation, ...], ...] = field(default=(), repr=False)
    skipped: Mapping[int, str] = field(default_factory=dict)
    sensors: tuple[SensorPlace, ...] = ()

    @property
    def num_frames(self) -> int:
        """T, the number of instants that were fitted."""
        return len(self.poses)

    def vertices_world(self, t: int) -> NDArray[np.float64]:
        """(V, 3) posed vertices of instant t, metres, world."""
        return self.model.forward(self.betas, self.poses[t], self.transl[t])[0]

    def joints_world(self, t: int) -> NDArray[np.float64]:
        """(J, 3) posed joints of instant t, metres, world."""
        return self.model.forward(self.betas, self.poses[t], self.transl[t])[1]

    def rest_vertices(self) -> NDArray[np.float64]:
        """(V, 3) unposed vertices, metres, in the order of the model file."""
        return self.model.rest_vertices(self.betas)

    def to_smplx(self) -> dict[str, NDArray[np.float64]]:
        """Parameters by smplx's keyword names, for models of the SMPL family.

        Raises:
            InputError: the body is another model: the same numbers would be another person there.
        """
        from bodyfit.body.smplx_params import to_smplx_params

        return to_smplx_params(self.model, self.betas, self.poses, self.transl)
