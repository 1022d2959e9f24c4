"""A fit as fit.npz: AMASS's keys, so that tools for AMASS read it, and ours beside them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bodyfit.body.npz import read_npz
from bodyfit.errors import InputError
from bodyfit.export.tables import measurement_records, plain, provenance_record, quality_record

if TYPE_CHECKING:
    from bodyfit.fit.result import FitResult

FORMAT = "bodyfit.fit/1"
FILE_NAME = "fit.npz"


@dataclass(frozen=True, eq=False)
class SavedFit:
    """What fit.npz holds.

    Attributes:
        betas: (S,) shape, in the model's units of one standard deviation; betas_cov (S, S).
        poses: (T, J, 3) axis-angle in radians; pose_sd of the same shape.
        trans: (T, 3) metres, world.
        model_name, model_sha256: the body model that the parameters belong to.
        quality, provenance, measurements: as in measurements.json.
    """

    path: Path
    betas: NDArray[np.float64]
    betas_cov: NDArray[np.float64]
    poses: NDArray[np.float64]
    pose_sd: NDArray[np.float64]
    trans: NDArray[np.float64]
    frame_indices: NDArray[np.int64]
    timestamps_s: NDArray[np.float64]
    gender: str
    clothing: str
    mocap_framerate: float
    model_name: str
    model_sha256: str
    converged: bool
    stop_reason: str
    quality: dict[str, Any]
    provenance: dict[str, Any]
    measurements: dict[str, dict[str, Any]]


def frame_rate(timestamps_s: ArrayLike) -> float:
    """Frames a second by the median step; 1 where there is one frame, so that no reader divides by zero."""
    steps = np.diff(np.asarray(timestamps_s, dtype=np.float64))
    steps = steps[steps > 0]
    return float(round(1.0 / float(np.median(steps)), 6)) if len(steps) else 1.0


def fit_npz_bytes(result: FitResult) -> bytes:
    """The file of a result; equal results give equal bytes."""
    T = len(result.poses)
    quality = quality_record(result)
    arrays = {
        # AMASS
        "betas": np.asarray(result.betas, np.float64),
        "poses": np.asarray(result.poses, np.float64).reshape(T, -1),
        "trans": np.asarray(result.transl, np.float64),
        "gender": np.array(result.sex),
        "mocap_framerate": np.array(frame_rate(result.timestamps_s)),
        # ours
        "format": np.array(FORMAT),
        "body_model": np.array(result.model.name),
        "body_model_sha256": np.array(result.model.sha256),
        "betas_cov": np.asarray(result.betas_cov, np.float64),
        "pose_sd": np.asarray(result.pose_sd, np.float64).reshape(T, -1),
        "frame_indices": np.asarray(result.frame_indices, np.int64),
        "timestamps_s": np.asarray(result.timestamps_s, np.float64),
        "clothing": np.array(result.clothing),
        "converged": np.array(bool(result.converged)),
        "stop_reason": np.array(quality["stop_reason"]),
        "measurements_json": np.array(json.dumps(plain(measurement_records(result.measurements)), sort_keys=True)),
        "quality_json": np.array(json.dumps(quality, sort_keys=True, allow_nan=False)),
        "provenance_json": np.array(json.dumps(provenance_record(result), sort_keys=True, allow_nan=False)),
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)  # numpy dates every member 1980
    return buffer.getvalue()


def read_fit_npz(path: str | Path) -> SavedFit:
    """Reads a fit: fit.npz itself or the folder that holds it.

    Raises:
        InputError: there is no such file, it is not a fit, or its arrays do not fit one another.
    """
    file = Path(path)
    file = file / FILE_NAME if file.is_dir() else file
    if not file.is_file():
        raise InputError(str(path), f"a folder written by bodyfit fit, or its {FILE_NAME}", "no such file")
    arrays = read_npz(file)

    def take(key: str, shape: tuple[int | None, ...], kind: str) -> Any:
        if key not in arrays:
            raise InputError(f"{file.name}: {key}", "an array of this name", "none")
        a = arrays[key]
        fits = a.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, a.shape, strict=True))
        if not fits or a.dtype.kind not in kind:
            raise InputError(f"{file.name}: {key}", f"shape {shape}", f"{a.dtype} of shape {a.shape}")
        if a.dtype.kind == "f" and not np.isfinite(a).all():
            raise InputError(f"{file.name}: {key}", "finite numbers", "NaN or infinity")
        return a

    def text(key: str) -> str:
        return str(take(key, (), "U"))

    if text("format") != FORMAT:
        raise InputError(f"{file.name}: format", FORMAT, text("format"))
    S = take("betas", (None,), "f").shape[0]
    T, J3 = take("poses", (None, None), "f").shape
    if J3 % 3:
        raise InputError(f"{file.name}: poses", "three numbers per joint", f"{J3} columns")
    try:
        quality, provenance, measurements = (
            json.loads(text(f"{key}_json")) for key in ("quality", "provenance", "measurements")
        )
    except json.JSONDecodeError as e:
        raise InputError(f"{file.name}: quality_json, provenance_json, measurements_json", "JSON", str(e)) from None
    return SavedFit(
        path=file,
        betas=arrays["betas"].astype(np.float64),
        betas_cov=take("betas_cov", (S, S), "f").astype(np.float64),
        poses=arrays["poses"].astype(np.float64).reshape(T, -1, 3),
        pose_sd=take("pose_sd", (T, J3), "f").astype(np.float64).reshape(T, -1, 3),
        trans=take("trans", (T, 3), "f").astype(np.float64),
        frame_indices=take("frame_indices", (T,), "iu").astype(np.int64),
        timestamps_s=take("timestamps_s", (T,), "f").astype(np.float64),
        gender=text("gender"),
        clothing=text("clothing"),
        mocap_framerate=float(take("mocap_framerate", (), "f")),
        model_name=text("body_model"),
        model_sha256=text("body_model_sha256"),
        converged=bool(take("converged", (), "b")),
        stop_reason=text("stop_reason"),
        quality=quality,
        provenance=provenance,
        measurements=measurements,
    )
