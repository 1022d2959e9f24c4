"""A take as a recording on disk, with the truth beside it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path

import numpy as np

from bodyfit.errors import OutputError
from bodyfit.recording.description import Sensor
from bodyfit.recording.write import write_recording
from bodyfit.synthetic.take import Take

STEP_M = 1e-4
"""Resolution of the stored true vertices: tenths of a millimetre in 16 bits."""


def write_take(path: str | os.PathLike[str], take: Take, *, with_truth: bool = True, overwrite: bool = False) -> Path:
    """Writes a `bodyfit.recording/1` folder; `truth/` holds the body that was filmed, in the model's own topology.

    truth/rest_vertices.npy (V, 3) float32: the unposed naked body in the zero pose (x left, y up, z front);
    truth/vertices_world.npy (T, V, 3) int16 of 0.1 mm beside vertices_world_offset.npy (T, 1, 3) metres;
    truth/joints_world.npy (T, J, 3) with joint_names.json; truth/mask/<sensor>/000000.png; truth/subject.json.
    The faces are the model's.

    Raises:
        OutputError: the folder cannot be made, or something else is in its place.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise OutputError(str(target), "a name that is free", "something in its place", "ask to overwrite it")
    if target.exists() and not (target / "recording.json").is_file():
        raise OutputError(str(target), "a recording to overwrite", "something else")
    building = target.parent / f".{target.name}.{secrets.token_hex(6)}.part"
    color = take.instants[0].frames[take.sensors[0].name].color is not None
    sensors = []
    for device, T_world_depth in zip(take.sensors, take.T_world_depth, strict=True):
        frame = take.instants[0].frames[device.name]
        pose = device.T_color_depth if color else None
        sensors.append(Sensor(device.name, device.depth_camera, T_world_depth, frame.color_camera, pose, device.unit_m))
    try:
        write_recording(building, sensors, take.frames, take.gravity_world)
        if with_truth:
            _write_truth(building / "truth", take)
        if target.exists():
            shutil.rmtree(target)
        os.rename(building, target)
    except OSError as problem:
        raise OutputError(str(target), "a place to write to", problem.strerror or str(problem)) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _write_truth(folder: Path, take: Take) -> None:
    import cv2

    folder.mkdir()
    subject, model = take.subject, take.model
    vertices = np.stack([instant.vertices_world for instant in take.instants])
    offset = (vertices.max(1, keepdims=True) + vertices.min(1, keepdims=True)) / 2
    np.save(folder / "rest_vertices.npy", subject.rest_vertices.astype(np.float32))
    np.save(folder / "vertices_world.npy", np.round((vertices - offset) / STEP_M).astype(np.int16))
    np.save(folder / "vertices_world_offset.npy", offset)
    np.save(
        folder / "joints_world.npy", np.stack([instant.joints_world for instant in take.instants]).astype(np.float32)
    )
    (folder / "joint_names.json").write_text(json.dumps(list(model.joint_names)) + "\n")
    for t, instant in enumerate(take.instants):
        for name, mask in instant.masks.items():
            file = folder / "mask" / name / f"{t:06d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            _, data = cv2.imencode(".png", mask.astype(np.uint8) * 255)
            file.write_bytes(data.tobytes())
    stature = float(np.ptp(subject.rest_vertices[:, 1]))
    document = {
        "sex": subject.sex,
        "betas": subject.betas.tolist(),
        "off_model_mm_rms": subject.off_model_mm_rms,
        "rest_height_m": stature,
        "model": {"name": model.name, "sha256": model.sha256},
        "poses": [instant.pose.tolist() for instant in take.instants],
        "transl": [instant.transl.tolist() for instant in take.instants],
        "clothing": {
            "kind": take.clothing.kind,
            **{f"{name}_mm": mm for name, mm in take.clothing.nominal_mm.items()},
            "sleeve": take.clothing.sleeve,
            "trousers": take.clothing.trousers,
            "offset_mm_mean_covered": take.clothing.mean_offset_covered_m * 1000,
        },
        "scenario": {"pose": list(take.pose_names), "heading_deg": list(take.headings_deg)},
        "sensor_kind": {device.name: device.kind for device in take.sensors},
    }
    (folder / "subject.json").write_text(json.dumps(document, indent=1) + "\n")
