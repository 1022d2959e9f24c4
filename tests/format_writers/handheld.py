"""Recordings of hand-held sensors for tests, written as their formats' specifications say (see the readers).

Each function writes frames of one sensor; depth and colour are registered (`T_color_depth` is the identity).
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from bodyfit.camera import Camera
from bodyfit.frame import Frame

GL = np.diag([1.0, -1.0, -1.0, 1.0])


def png(image: np.ndarray) -> bytes:
    done, data = cv2.imencode(".png", image)
    assert done
    return data.tobytes()


def jpeg(rgb: np.ndarray) -> bytes:
    done, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    return data.tobytes()


def counts(frame: Frame, per_metre: float) -> np.ndarray:
    return np.rint(frame.depth.astype(np.float64) * per_metre).astype(np.uint16)


def write_tum(folder: Path, frames: Sequence[Frame], *, calibration: bool = True, poses: bool = True) -> Path:
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    lists = {"rgb": ["# color images"], "depth": ["# depth maps"]}
    way = ["# ground truth trajectory", "# timestamp tx ty tz qx qy qz qw"]
    for frame in frames:
        stamp = 1305031102.0 + frame.timestamp_s
        files = {"depth": png(counts(frame, 5000))}
        if frame.color is not None:
            files["rgb"] = png(frame.color[..., ::-1])
        for name, data in files.items():
            own = stamp + (0.004 if name == "rgb" else 0.0)
            (folder / name / f"{own:.6f}.png").write_bytes(data)
            lists[name].append(f"{own:.6f} {name}/{own:.6f}.png")
        T = frame.T_world_depth
        numbers = [*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat()]
        way.append(" ".join([f"{stamp:.6f}", *(f"{x:.9f}" for x in numbers)]))
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    if poses:
        (folder / "groundtruth.txt").write_text("\n".join(way) + "\n")
    c = frames[0].depth_camera
    if calibration:
        (folder / "calibration.txt").write_text(f"{c.fx!r} {c.fy!r} {c.cx!r} {c.cy!r}\n")
    return folder


def write_sens(
    path: Path, frames: Sequence[Frame], *, depth: str = "zlib", color: str = "jpeg", lost: Sequence[int] = ()
) -> Path:
    d = frames[0].depth_camera
    c = frames[0].color_camera or d
    name = b"a sensor of a test"
    out = [struct.pack("<IQ", 4, len(name)), name]
    for camera in (c, None, d, None):
        K = np.eye(4)
        if camera is not None:
            K[0, 0], K[1, 1], K[0, 2], K[1, 2] = camera.fx, camera.fy, camera.cx, camera.cy
        out.append(K.astype("<f4").tobytes())
    kinds = {"raw": 0, "png": 1, "jpeg": 2}[color], {"raw": 0, "zlib": 1, "occi": 2}[depth]
    out.append(struct.pack("<iiIIIIfQ", *kinds, c.width, c.height, d.width, d.height, 1000.0, len(frames)))
    for n, frame in enumerate(frames):
        pose = np.full((4, 4), -np.inf) if n in lost else frame.T_world_depth
        data = counts(frame, 1000).astype("<u2").tobytes()
        data = zlib.compress(data) if depth == "zlib" else data
        image = b""
        if frame.color is not None:
            image = {"raw": frame.color.tobytes(), "png": png(frame.color[..., ::-1]), "jpeg": jpeg(frame.color)}[color]
        micros = 5_000_000 + round(frame.timestamp_s * 1e6)
        out += [pose.astype("<f4").tobytes(), struct.pack("<QQQQ", micros, micros, len(image), len(data)), image, data]
    path.write_bytes(b"".join(out) + struct.pack("<Q", 0))
    return path


def write_r3d(path: Path, frames: Sequence[Frame], *, sizes: bool = True, without: Sequence[str] = ()) -> Path:
    import lzfse

    d, c = frames[0].depth_camera, frames[0].color_camera
    assert c is not None
    metadata = {
        "w": c.width, "h": c.height, "fps": 30, "K": [c.fx, 0, 0, 0, c.fy, 0, c.cx, c.cy, 1],
        "frameTimestamps": [100.0 + frame.timestamp_s for frame in frames],
        "perFrameIntrinsicCoeffs": [[c.fx, c.fy, c.cx, c.cy] for _ in frames],
        "poses": [], "initPose": [0, 0, 0, 1, 0, 0, 0], "cameraType": 1,
    }  # fmt: skip
    if sizes:
        metadata |= {"dw": d.width, "dh": d.height}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for n, frame in enumerate(frames):
            T = frame.T_world_depth @ GL
            pose = [*Rotation.from_matrix(T[:3, :3]).as_quat().tolist(), *T[:3, 3].tolist()]
            metadata["poses"].append(pose)
            depth = np.where(frame.depth > 0, frame.depth, np.nan).astype("<f4")
            archive.writestr(f"rgbd/{n}.depth", lzfse.compress(depth.tobytes()))
            sure = np.where(frame.depth > 0, 2, 0).astype(np.uint8)
            sure[:3] = 0
            archive.writestr(f"rgbd/{n}.conf", lzfse.compress(sure.tobytes()))
            if frame.color is not None:
                archive.writestr(f"rgbd/{n}.jpg", jpeg(frame.color))
        for key in without:
            del metadata[key]
        archive.writestr("metadata", json.dumps(metadata))
        archive.writestr("icon", b"")
    return path


def write_open3d(folder: Path, frames: Sequence[Frame], *, nested: bool = False, way: bool = True) -> Path:
    """As Open3D's own writer has the intrinsics (`write_pinhole_camera_intrinsic`), or a recorder's video metadata."""
    import open3d as o3d

    open3d: Any = o3d  # its stubs take no path and no array
    for name in ("color", "depth"):
        (folder / name).mkdir(parents=True)
    c = frames[0].depth_camera
    intrinsic = open3d.camera.PinholeCameraIntrinsic(c.width, c.height, c.fx, c.fy, c.cx, c.cy)
    file = folder / ("camera_intrinsic.json" if not nested else "plain.json")
    assert open3d.io.write_pinhole_camera_intrinsic(str(file), intrinsic)
    if nested:
        document = {"camera": json.loads(file.read_text()), "depth_scale": 5000.0, "fps": 15.0}
        (folder / "intrinsic.json").write_text(json.dumps(document))
    lines = []
    for n, frame in enumerate(frames):
        image = open3d.geometry.Image(counts(frame, 5000.0 if nested else 1000.0))
        assert open3d.io.write_image(str(folder / "depth" / f"{n:06d}.png"), image)
        if frame.color is not None:
            color = open3d.geometry.Image(np.ascontiguousarray(frame.color))
            assert open3d.io.write_image(str(folder / "color" / f"{n:06d}.png"), color)
        lines += [f"{n} {n} {n + 1}", *(" ".join(f"{x:.9f}" for x in row) for row in frame.T_world_depth)]
    if way:
        (folder / "trajectory.log").write_text("\n".join(lines) + "\n")
    return folder


def write_stray(folder: Path, frames: Sequence[Frame], *, rate: int = 30, crf: int = 8) -> Path:
    import av

    for name in ("depth", "confidence"):
        (folder / name).mkdir(parents=True)
    c = frames[0].color_camera
    assert c is not None
    (folder / "camera_matrix.csv").write_text(f"{c.fx!r}, 0.0, {c.cx!r}\n0.0, {c.fy!r}, {c.cy!r}\n0.0, 0.0, 1.0\n")
    rows = ["timestamp, frame, x, y, z, qx, qy, qz, qw"]
    with av.open(str(folder / "rgb.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = c.width, c.height, "yuv420p"
        stream.options, stream.time_base = {"crf": str(crf), "g": "5" if crf < 15 else "30"}, Fraction(1, rate)
        for n, frame in enumerate(frames):
            assert frame.color is not None
            (folder / "depth" / f"{n:06d}.png").write_bytes(png(counts(frame, 1000)))
            sure = np.full(frame.depth.shape, 2, np.uint8)
            sure[:3] = 0
            (folder / "confidence" / f"{n:06d}.png").write_bytes(png(sure))
            T = frame.T_world_depth
            numbers = [*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat()]
            rows.append(", ".join([f"{77.0 + frame.timestamp_s:.6f}", f"{n:06d}", *(f"{x:.9f}" for x in numbers)]))
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.color), format="rgb24")
            picture.pts = n
            for packet in stream.encode(picture):
                film.mux(packet)
        for packet in stream.encode():
            film.mux(packet)
    (folder / "odometry.csv").write_text("\n".join(rows) + "\n")
    return folder


def registered(camera: Camera, frame: Frame) -> Frame:
    """The same frame with its colour on the depth camera's grid: what the depth grid's pixels see."""

    assert frame.color is not None and frame.color_camera is not None and frame.T_color_depth is not None
    c = frame.color_camera
    z = np.where(frame.depth > 0, frame.depth, np.float32(3.0)).astype(np.float64)
    v, u = np.indices(z.shape)
    points = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], -1)
    moved = points @ frame.T_color_depth[:3, :3].T + frame.T_color_depth[:3, 3]
    x = (moved[..., 0] / moved[..., 2] * c.fx + c.cx).astype(np.float32)
    y = (moved[..., 1] / moved[..., 2] * c.fy + c.cy).astype(np.float32)
    color = np.asarray(cv2.remap(frame.color, x, y, cv2.INTER_LINEAR), np.uint8)
    return replace(frame, color=color, color_camera=camera, T_color_depth=np.eye(4))
