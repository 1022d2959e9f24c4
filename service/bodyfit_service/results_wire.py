"""Results as messages and back, to the last bit."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.files import ModelEntry
from bodyfit.body.measure import Measurement
from bodyfit.body.model import BodyModel
from bodyfit.errors import InputError, ModelFileError
from bodyfit.fit.extrinsics import SensorPlace
from bodyfit.fit.result import FitResult, FrameQuality
from bodyfit.fit.solver import StopReason
from bodyfit.fit.track_estimate import TrackEstimate, TrackState
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.enums import CLOTHING, SEXES, Words
from bodyfit_service.frames_sent import rigid_message

STOP_REASONS = Words(
    {
        StopReason.CONVERGED: pb.STOP_REASON_CONVERGED,
        StopReason.STEPS_USED: pb.STOP_REASON_STEPS_USED,
        StopReason.STUCK: pb.STOP_REASON_STUCK,
        StopReason.CANCELLED: pb.STOP_REASON_CANCELLED,
        StopReason.NO_EVIDENCE: pb.STOP_REASON_NO_EVIDENCE,
    }
)
TRACK_STATES = Words(
    {
        TrackState.FOUND: pb.TRACK_STATE_FOUND,
        TrackState.TRACKED: pb.TRACK_STATE_TRACKED,
        TrackState.COASTING: pb.TRACK_STATE_COASTING,
        TrackState.LOST: pb.TRACK_STATE_LOST,
    }
)


# models and measurements


def model_info(model: BodyModel | ModelEntry, *, default: bool = False, origin: str = "") -> pb.BodyModelInfo:
    """A body model as a message.

    Args:
        model: read, or as it is listed: joints then have no names.
        default: whether it is what an empty name means.
        origin: of a model that was read: shipped or imported; an entry knows its own.
    """
    if isinstance(model, ModelEntry):
        return pb.BodyModelInfo(
            name=model.name,
            sha256=_hash_of(model.path, model.path.stat().st_mtime_ns),
            family=model.family,
            licence=model.licence,
            num_vertices=model.num_vertices,
            num_joints=model.num_joints,
            num_betas=model.num_betas,
            default=default,
            origin="shipped" if model.origin == "shipped" else "imported",
        )
    return pb.BodyModelInfo(
        name=model.name,
        sha256=model.sha256,
        family=str(model.meta.get("family", "")),
        licence=str(model.meta.get("licence", "")),
        num_vertices=model.num_vertices,
        num_joints=model.num_joints,
        num_betas=model.num_betas,
        default=default,
        origin=origin,
        joint_names=model.joint_names,
    )


@lru_cache(maxsize=64)
def _hash_of(path: Path, _changed_ns: int) -> str:
    """As BodyModel.sha256, of a file that is not read as a model."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def measurements_message(measurements: Mapping[str, Measurement]) -> list[pb.Measurement]:
    """Measurements in their order; a standard deviation that is not known (NaN) is left out."""
    out = []
    for name, m in measurements.items():
        message = pb.Measurement(
            name=name, value=float(m.value_m), seen=bool(m.seen), definition=m.definition, unit=m.unit
        )
        if not math.isnan(m.sd_m):
            message.sd = float(m.sd_m)
        out.append(message)
    return out


def read_measurements(messages: Iterable[pb.Measurement]) -> dict[str, Measurement]:
    """Measurements by name; NaN where a standard deviation is not known."""
    return {
        m.name: Measurement(m.name, m.value, m.sd if m.HasField("sd") else math.nan, m.seen, m.definition, m.unit)
        for m in messages
    }


# a fit


def result_message(result: FitResult, outputs: pb.FitOutputs | None = None) -> pb.FitResult:
    """A fit as a message. Meshes and overlays are added by who makes them.

    Args:
        result: with or without observations, which are never sent.
        outputs: whether joints and vertices are wanted; neither where None.
    """
    outputs = outputs or pb.FitOutputs()
    message = pb.FitResult(
        model=model_info(result.model),
        sex=SEXES.number(result.sex),
        clothing=CLOTHING.number(result.clothing),
        clothing_asked=CLOTHING.number(result.clothing_asked),
        betas=_flat(result.betas),
        betas_cov=_flat(result.betas_cov),
        garments_m=_named(result.garments_m),
        coverage=[pb.PartCoverage(part=part, instants=int(n)) for part, n in result.coverage.items()],
        stop_reason=STOP_REASONS.number(result.stop_reason),
        converged=bool(result.converged),
        flags=result.flags,
        hints=result.hints,
        measurements=measurements_message(result.measurements),
        provenance_json=json.dumps(dict(result.provenance), allow_nan=False),
        skipped=[pb.SkippedInstant(index=i, reason=reason) for i, reason in result.skipped.items()],
        sensors=[_place_message(place) for place in result.sensors],
    )
    for t in range(result.num_frames):
        instant = message.instants.add(
            index=result.frame_indices[t],
            timestamp_s=float(result.timestamps_s[t]),
            pose=_flat(result.poses[t]),
            pose_sd=_flat(result.pose_sd[t]),
            transl=_flat(result.transl[t]),
            quality=_quality_message(result.frames[t]),
        )
        if outputs.joints:
            instant.joints.extend(_flat(result.joints_world(t)))
        if outputs.vertices:
            instant.vertices.extend(_flat(result.vertices_world(t)))
    if outputs.vertices:
        message.rest_vertices.extend(_flat(result.rest_vertices()))
    return message


def read_result(message: pb.FitResult, model: BodyModel) -> FitResult:
    """A fit as the library has it, equal to the server's to the last bit; `observations` is empty.

    Args:
        message: as it came.
        model: the same body model that the server fitted.

    Raises:
        ModelFileError: `model` is another one: the same numbers would be another person there.
        InputError: a message that no server of this version sends, with the field's name.
    """
    if message.model.sha256 != model.sha256:
        theirs = f"{message.model.name} with SHA-256 {message.model.sha256[:12]}…"
        hint = "use the server's model file here, or ask the server for this one by its name"
        raise ModelFileError("model", f"the server's, {theirs}", f"{model.name} with {model.sha256[:12]}…", hint)
    S, J = model.num_betas, model.num_joints
    frames = [_read_quality(m, f"instants[{t}].quality") for t, m in enumerate(message.instants)]
    T = len(frames)

    def stacked(name: str, *shape: int) -> NDArray[np.float64]:
        parts = [_array(f"instants[{t}].{name}", getattr(m, name), *shape) for t, m in enumerate(message.instants)]
        return np.stack(parts) if parts else np.zeros((T, *shape))

    return FitResult(
        model=model,
        sex=SEXES.name("sex", message.sex),
        clothing=CLOTHING.name("clothing", message.clothing),
        clothing_asked=CLOTHING.name("clothing_asked", message.clothing_asked),
        betas=_array("betas", message.betas, S),
        betas_cov=_array("betas_cov", message.betas_cov, S, S),
        poses=stacked("pose", J, 3),
        pose_sd=stacked("pose_sd", J, 3),
        transl=stacked("transl", 3),
        frame_indices=tuple(m.index for m in message.instants),
        timestamps_s=tuple(m.timestamp_s for m in message.instants),
        garments_m=_mapping(message.garments_m),
        frames=tuple(frames),
        coverage={c.part: c.instants for c in message.coverage},
        stop_reason=STOP_REASONS.name("stop_reason", message.stop_reason),
        converged=message.converged,
        flags=tuple(message.flags),
        hints=tuple(message.hints),
        measurements=read_measurements(message.measurements),
        provenance=_read_provenance(message.provenance_json),
        skipped={s.index: s.reason for s in message.skipped},
        sensors=tuple(_read_place(m, f"sensors[{i}]") for i, m in enumerate(message.sensors)),
    )


def _read_provenance(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError("provenance_json", "a JSON object", repr(text)[:60])
    return _tuples(found)


def _tuples(value: Any) -> Any:
    """What JSON made lists of is tuples in the library."""
    if isinstance(value, dict):
        return {key: _tuples(v) for key, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _quality_message(q: FrameQuality) -> pb.FrameQuality:
    message = pb.FrameQuality(
        depth_residual_m=float(q.depth_residual_m),
        silhouette_iou=float(q.silhouette_iou),
        covered=float(q.covered),
        coverage=_named(q.coverage),
        flags=q.flags,
        stop_reason=STOP_REASONS.number(q.stop_reason),
        believed=bool(q.believed),
    )
    if q.ambiguity is not None:
        message.ambiguity = float(q.ambiguity)
    return message


def _read_quality(instant: pb.InstantResult, field: str) -> FrameQuality:
    q = instant.quality
    return FrameQuality(
        frame_index=instant.index,
        depth_residual_m=q.depth_residual_m,
        silhouette_iou=q.silhouette_iou,
        covered=q.covered,
        coverage=_mapping(q.coverage),
        flags=tuple(q.flags),
        stop_reason=STOP_REASONS.name(f"{field}.stop_reason", q.stop_reason),
        ambiguity=q.ambiguity if q.HasField("ambiguity") else None,
        believed=q.believed,
    )


def _place_message(place: SensorPlace) -> pb.SensorPlace:
    message = pb.SensorPlace(
        name=place.name,
        t_world_depth=rigid_message(place.T_world_depth),
        given=rigid_message(place.given),
        fixed=bool(place.fixed),
        moved_m=float(place.moved_m),
        turned_deg=float(place.turned_deg),
        moved_sd_m=float(place.moved_sd_m),
        turned_sd_deg=float(place.turned_sd_deg),
        flags=place.flags,
    )
    if place.delay_s is not None:
        message.delay_s = float(place.delay_s)
    if place.delay_sd_s is not None:
        message.delay_sd_s = float(place.delay_sd_s)
    return message


def _read_place(message: pb.SensorPlace, field: str) -> SensorPlace:
    return SensorPlace(
        name=message.name,
        T_world_depth=_array(f"{field}.t_world_depth", message.t_world_depth.matrix, 4, 4),
        given=_array(f"{field}.given", message.given.matrix, 4, 4),
        fixed=message.fixed,
        moved_m=message.moved_m,
        turned_deg=message.turned_deg,
        moved_sd_m=message.moved_sd_m,
        turned_sd_deg=message.turned_sd_deg,
        delay_s=message.delay_s if message.HasField("delay_s") else None,
        delay_sd_s=message.delay_sd_s if message.HasField("delay_sd_s") else None,
        flags=tuple(message.flags),
    )


# a live estimate


def estimate_message(e: TrackEstimate) -> pb.TrackEstimate:
    """One instant's body as a message."""
    return pb.TrackEstimate(
        index=e.index,
        timestamp_s=float(e.timestamp_s),
        state=TRACK_STATES.number(e.state),
        betas=_flat(e.betas),
        betas_sd=_flat(e.betas_sd),
        pose=_flat(e.pose),
        pose_sd=_flat(e.pose_sd),
        transl=_flat(e.transl),
        joints=_flat(e.joints_world),
        garments_m=_named(e.garments_m),
        depth_residual_m=float(e.depth_residual_m),
        overlap=float(e.overlap),
        covered=float(e.covered),
        stop_reason=STOP_REASONS.number(e.stop_reason),
        steps=int(e.steps),
        shape_frozen=bool(e.shape_frozen),
        told=e.told,
        times_s=_named(e.times_s),
        hidden=e.hidden,
        behind_body=e.behind_body,
        color_points=int(e.color_points),
    )


def read_estimate(message: pb.TrackEstimate) -> TrackEstimate:
    """One instant's body as the library has it, equal to the server's to the last bit.

    Raises:
        InputError: a message that no server of this version sends, with the field's name.
    """
    J, S = len(message.pose) // 3, len(message.betas)
    return TrackEstimate(
        index=message.index,
        timestamp_s=message.timestamp_s,
        state=TRACK_STATES.name("estimate.state", message.state),
        betas=_array("estimate.betas", message.betas, S),
        betas_sd=_array("estimate.betas_sd", message.betas_sd, S),
        pose=_array("estimate.pose", message.pose, J, 3),
        pose_sd=_array("estimate.pose_sd", message.pose_sd, J, 3),
        transl=_array("estimate.transl", message.transl, 3),
        joints_world=_array("estimate.joints", message.joints, J, 3),
        garments_m=_mapping(message.garments_m),
        depth_residual_m=message.depth_residual_m,
        overlap=message.overlap,
        covered=message.covered,
        stop_reason=STOP_REASONS.name("estimate.stop_reason", message.stop_reason),
        steps=message.steps,
        shape_frozen=message.shape_frozen,
        told=tuple(message.told),
        times_s=_mapping(message.times_s),
        hidden=tuple(message.hidden),
        behind_body=tuple(message.behind_body),
        color_points=message.color_points,
    )


# parts of both


def _flat(values: NDArray[Any]) -> list[float]:
    return np.asarray(values, dtype=np.float64).ravel().tolist()


def _array(field: str, values: Any, *shape: int) -> NDArray[np.float64]:
    found = np.array(values, dtype=np.float64)
    if found.size != math.prod(shape):
        raise InputError(field, f"{' × '.join(map(str, shape))} numbers", str(found.size))
    return found.reshape(shape)


def _named(values: Mapping[str, float]) -> list[pb.NamedValue]:
    return [pb.NamedValue(name=name, value=float(value)) for name, value in values.items()]


def _mapping(values: Iterable[pb.NamedValue]) -> dict[str, float]:
    return {v.name: v.value for v in values}
