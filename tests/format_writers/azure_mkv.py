"""Azure Kinect recordings as k4arecorder lays them out, for tests: by Matroska elements (RFC 9559), or muxed by FFmpeg.

`write` writes the recorder's own layout (src/record of the Azure Kinect Sensor SDK: 1 µs ticks, clusters of 32 ms with
a checksum, one image a SimpleBlock, IMU samples laced in BlockGroups, tags that point to tracks and attachment).
`write_with_pyav` lets FFmpeg mux the same images, through PyAV: 1 ms ticks, its own clusters, cues and void elements.
FFmpeg's muxer drops the FOURCC of raw video (init_muxer in libavformat/mux.c resets the tag), so the header's four
bytes are put in afterwards.

A recording holds one device: one sensor. Depth of another size than a mode's is padded on the right and below, which
leaves its intrinsics as they are.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bodyfit.camera import Camera
from bodyfit.frame import Frame
from bodyfit.recording import Sensor

MODES = {  # name: (size, whole image at that binning, offset in it); mode_specific_calibration.c
    "NFOV_2X2BINNED": ((320, 288), 512, (96, 90)),
    "WFOV_2X2BINNED": ((512, 512), 512, (0, 0)),
    "NFOV_UNBINNED": ((640, 576), 1024, (192, 180)),
    "WFOV_UNBINNED": ((1024, 1024), 1024, (0, 0)),
}
TICK_NS = 1000
CLUSTER_NS = 32_000_000


@dataclass(frozen=True)
class Options:
    """What a recording is made with, and what is wrong with it.

    Attributes:
        color: coding of the colour images: MJPG, NV12, YUY2 or BGRA.
        depth: coding of the depth images: b16g, or YUY2 for the first recorders' little-endian.
        start_offset_ns: the device's clock at the first image.
        delay_ns: how much later than colour depth is taken.
        fps: images a second, as the tracks say it.
        without: tags, tracks or `calibration.json` that are left out.
        no_color_at: instants whose colour image was dropped.
        tags: values that replace those of the recorder.
        acceleration: (3,) m/s² that the accelerometer reads; None for no IMU.
        R_accelerometer_depth: how the accelerometer stands.
        T_depth_device: a frame of the device that is not the depth camera's.
        finished: False leaves the segment's size unknown, as a recorder that was killed.
        legacy_color: colour calibrated on the 16:9 image, as in early devices.
    """

    color: str = "MJPG"
    depth: str = "b16g"
    start_offset_ns: int = 200_011_000
    delay_ns: int = 0
    fps: int = 30
    without: tuple[str, ...] = ()
    no_color_at: tuple[int, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    acceleration: tuple[float, float, float] | None = None
    R_accelerometer_depth: Any = None
    T_depth_device: Any = None
    finished: bool = True
    legacy_color: bool = False


def mode_of(camera: Camera) -> str:
    """The smallest depth mode whose images hold this camera's."""
    for name, (size, _, _) in MODES.items():
        if camera.width <= size[0] and camera.height <= size[1]:
            return name
    raise ValueError(f"no depth mode holds {camera.width} × {camera.height}")


def in_mode(sensor: Sensor) -> Sensor:
    """The sensor as the recording has it: depth padded to a mode's size, a rational lens, the world its own."""
    (width, height), _, _ = MODES[mode_of(sensor.depth_camera)]
    return replace(sensor, name="k4a", depth_camera=replace(sensor.depth_camera, width=width, height=height))


def write(path: Path, sensors: Sequence[Sensor], frames: Iterable[Frame], options: Options | None = None) -> Path:
    """Writes the frames of the one sensor; pixels as they are, whatever lens the sensor has."""
    options = options or Options()
    sensor = in_mode(sensors[0])
    blocks: list[tuple[int, int, bytes]] = []
    track_numbers = {"COLOR": 1, "DEPTH": 2, "IR": 3, "IMU": 4}
    for i, frame in enumerate(frames):
        ns = round(frame.timestamp_s * 1e9)
        if frame.color is not None and i not in options.no_color_at and "COLOR" not in options.without:
            blocks.append((ns - options.delay_ns, 1, coded_color(frame.color, options.color)))
        counts = padded(frame.depth, sensor)
        order = ">u2" if options.depth == "b16g" else "<u2"
        if "DEPTH" not in options.without:
            blocks.append((ns, 2, counts.astype(order).tobytes()))
        if "IR" not in options.without:
            blocks.append((ns, 3, (counts // 7).astype(">u2").tobytes()))
        if options.acceleration is not None:
            samples = b"".join(
                struct.pack("<Q3fQ3f", (ns + k * 625_000) // 1000, *options.acceleration, ns // 1000, 0, 0, 0)
                for k in range(8)
            )
            blocks.append((ns, 4, samples))
    blocks.sort(key=lambda block: block[:2])
    first = blocks[0][0]
    parts = [
        element(0xEC, bytes(1024)),  # room for the recorder's index of elements
        _info(),
        _tracks(sensor, options, track_numbers),
        *_attachments(sensor, options),
        _tags(options, sensor, track_numbers),
        *_clusters([(ns - first, track, data) for ns, track, data in blocks]),
    ]
    body = b"".join(parts)
    header = element(
        0x1A45DFA3,
        b"".join((uint(0x4286, 1), uint(0x42F7, 1), uint(0x42F2, 4), uint(0x42F3, 8), element(0x4282, b"matroska")))
        + uint(0x4287, 2)
        + uint(0x4285, 2),
    )
    size = (1 << 56 | len(body)).to_bytes(8, "big") if options.finished else b"\x01" + b"\xff" * 7
    path.write_bytes(header + bytes.fromhex("18538067") + size + body)
    return path


def write_with_pyav(path: Path, sensors: Sequence[Sensor], frames: Iterable[Frame], *, codec: str = "rawvideo") -> Path:
    """Writes the same images by FFmpeg's muxer; with `codec="ffv1"` depth is recoded as users do to save space."""
    import av

    sensor = in_mode(sensors[0])
    camera = sensor.depth_camera
    with av.open(str(path), "w", format="matroska", options={"allow_raw_vfw": "1"}) as out:
        out.metadata["title"] = "Azure Kinect"
        out.metadata["K4A_START_OFFSET_NS"] = "5000000"
        color: Any = None
        if sensor.color_camera:
            color = out.add_stream("mjpeg", rate=30)
            color.width, color.height, color.pix_fmt = sensor.color_camera.width, sensor.color_camera.height, "yuvj420p"
            color.metadata["title"] = "COLOR"
        depth: Any = out.add_stream(codec, rate=30)
        depth.width, depth.height = camera.width, camera.height
        depth.pix_fmt = "gray16be" if codec == "rawvideo" else "gray16le"
        depth.metadata["title"] = "DEPTH"
        depth.metadata["K4A_DEPTH_MODE"] = mode_of(camera)
        text = json.dumps(calibration(sensor, Options()), indent=1).encode()
        out.add_attachment("calibration.json", "application/octet-stream", text)
        for frame in frames:
            ms = round(1000 * frame.timestamp_s)
            if color is not None and frame.color is not None:
                out.mux(_packet(coded_color(frame.color, "MJPG"), color, ms))
            counts = padded(frame.depth, sensor)
            if codec == "rawvideo":
                out.mux(_packet(counts.astype(">u2").tobytes(), depth, ms))
            else:
                image: Any = av.VideoFrame.from_ndarray(counts, format="gray16le")
                image.pts, image.time_base = ms, Fraction(1, 1000)
                out.mux(depth.encode(image))
        if codec != "rawvideo":
            out.mux(depth.encode())
    data = path.read_bytes()
    plain = struct.pack("<IiiHHI", 40, camera.width, -camera.height, 1, 16, 0)
    path.write_bytes(data.replace(plain, struct.pack("<IiiHH4s", 40, camera.width, camera.height, 1, 16, b"b16g")))
    return path


def _packet(data: bytes, stream: Any, ms: int) -> Any:
    import av

    packet: Any = av.Packet(data)
    packet.stream, packet.pts, packet.dts, packet.time_base = stream, ms, ms, Fraction(1, 1000)
    packet.is_keyframe = True
    return packet


def padded(depth: np.ndarray, sensor: Sensor) -> np.ndarray:
    """(H, W) uint16 millimetres of metres, in the mode's grid."""
    counts = np.zeros((sensor.depth_camera.height, sensor.depth_camera.width), np.uint16)
    counts[: depth.shape[0], : depth.shape[1]] = np.rint(depth * 1000)
    return counts


def coded_color(rgb: np.ndarray, coding: str) -> bytes:
    """An image as the recorder stores it; YUV by BT.601 with limited range (ITU-R BT.601-7, 2.5)."""
    if coding == "MJPG":
        done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
        assert done
        return data.tobytes()
    if coding == "BGRA":
        return np.concatenate([rgb[:, :, ::-1], np.full((*rgb.shape[:2], 1), 255, np.uint8)], axis=2).tobytes()
    weights = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
    y, u, v = np.moveaxis(rgb.astype(float) @ weights.T + [16, 128, 128], -1, 0)
    if coding == "NV12":
        half = [(c[::2, ::2] + c[1::2, ::2] + c[::2, 1::2] + c[1::2, 1::2]) / 4 for c in (u, v)]
        return b"".join(np.rint(plane).astype(np.uint8).tobytes() for plane in (y, np.stack(half, -1)))
    half = [(c[:, ::2] + c[:, 1::2]) / 2 for c in (u, v)]
    return np.rint(np.stack([y[:, ::2], half[0], y[:, 1::2], half[1]], -1)).astype(np.uint8).tobytes()


def calibration(sensor: Sensor, options: Options) -> dict[str, Any]:
    """calibration.json of a sensor: the whole sensors' cameras, in parts of their sides."""
    T_depth = np.eye(4) if options.T_depth_device is None else np.asarray(options.T_depth_device)
    _, binned, offset = MODES[mode_of(sensor.depth_camera)]
    cameras = [_camera(sensor.depth_camera, (binned, binned), offset, (1024, 1024), "D0", "Depth", T_depth)]
    if sensor.color_camera is not None and sensor.T_color_depth is not None:
        camera = sensor.color_camera
        whole, cut = (camera.width, camera.width * 3 / 4), (0.0, (camera.width * 3 / 4 - camera.height) / 2)
        pixels = (4096, 3072)
        if options.legacy_color:
            whole, cut, pixels = (
                (camera.width, camera.width * 9 / 16),
                (0.0, cut[1] - camera.width * 3 / 32),
                (1280, 720),
            )
        cameras.append(_camera(camera, whole, cut, pixels, "PV0", "PhotoVideo", sensor.T_color_depth @ T_depth))
    R = np.eye(3) if options.R_accelerometer_depth is None else np.asarray(options.R_accelerometer_depth)
    inertial = [
        {
            "Id": "CALIBRATION_InertialSensorId_LSM6DSM",
            "SensorType": f"CALIBRATION_InertialSensorType_{kind}",
            "Rt": {"Rotation": (R @ T_depth[:3, :3]).ravel().tolist(), "Translation": [0.0, 0.0, 0.0]},
        }
        for kind in ("Gyro", "Accelerometer")
    ]
    return {"CalibrationInformation": {"Cameras": cameras, "InertialSensors": inertial}}


def _camera(
    camera: Camera,
    whole: tuple[float, float],
    offset: tuple[float, float],
    pixels: tuple[int, int],
    location: str,
    purpose: str,
    T: np.ndarray,
) -> dict[str, Any]:
    k1, k2, p1, p2, k3, k4, k5, k6 = (*camera.distortion.coefficients, *(0.0,) * 8)[:8]
    unit = [
        (camera.cx + 0.5 + offset[0]) / whole[0],
        (camera.cy + 0.5 + offset[1]) / whole[1],
        camera.fx / whole[0],
        camera.fy / whole[1],
    ]
    return {
        "Intrinsics": {
            "ModelParameterCount": 14,
            "ModelParameters": [*unit, k1, k2, k3, k4, k5, k6, 0, 0, p2, p1],
            "ModelType": "CALIBRATION_LensDistortionModelBrownConrady",
        },
        "Location": f"CALIBRATION_CameraLocation{location}",
        "Purpose": f"CALIBRATION_CameraPurpose{purpose}",
        "MetricRadius": 1.74 if purpose == "Depth" else 0,
        "Rt": {"Rotation": T[:3, :3].ravel().tolist(), "Translation": T[:3, 3].tolist()},
        "SensorWidth": pixels[0],
        "SensorHeight": pixels[1],
    }


def element(identity: int, body: bytes) -> bytes:
    """An EBML element with the shortest size."""
    length = next(n for n in range(1, 9) if len(body) < (1 << 7 * n) - 1)
    name = identity.to_bytes((identity.bit_length() + 7) // 8, "big")
    return name + (1 << 7 * length | len(body)).to_bytes(length, "big") + body


def uint(identity: int, value: int) -> bytes:
    """An EBML element with an unsigned number."""
    return element(identity, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def _info() -> bytes:
    names = (
        element(0x7BA9, b"Azure Kinect") + element(0x4D80, b"libmatroska-1.4.9") + element(0x5741, b"k4arecord-1.4.1")
    )
    return element(0x1549A966, uint(0x2AD7B1, TICK_NS) + names)


def _tracks(sensor: Sensor, options: Options, numbers: dict[str, int]) -> bytes:
    depth, color = sensor.depth_camera, sensor.color_camera
    sizes = {"DEPTH": (depth, options.depth), "IR": (depth, "b16g"), "COLOR": (color, options.color)}
    entries = []
    for name, number in numbers.items():
        camera, coding = sizes.get(name, (None, ""))
        if name in options.without or (name == "COLOR" and camera is None):
            continue
        if name == "IMU":
            if options.acceleration is None:
                continue
            more = uint(0x83, 17) + element(0x86, b"S_K4A/IMU")
        else:
            assert camera is not None
            bits = {"b16g": 16, "MJPG": 24, "NV12": 12, "YUY2": 16, "BGRA": 32}[coding]
            header = struct.pack(
                "<IiiHH4sIiiII", 40, camera.width, camera.height, 1, bits, coding.encode(), 0, 0, 0, 0, 0
            )
            video = element(0xE0, uint(0xB0, camera.width) + uint(0xBA, camera.height))
            period = uint(0x23E383, 1_000_000_000 // options.fps)
            more = uint(0x83, 1) + element(0x86, b"V_MS/VFW/FOURCC") + element(0x63A2, header) + period + video
        entries.append(
            element(0xAE, uint(0xD7, number) + uint(0x73C5, 1000 + number) + element(0x536E, name.encode()) + more)
        )
    return element(0x1654AE6B, b"".join(entries))


def _attachments(sensor: Sensor, options: Options) -> list[bytes]:
    if "calibration.json" in options.without:
        return []
    text = json.dumps(calibration(sensor, options)).encode()
    names = element(0x466E, b"calibration.json") + element(0x4660, b"application/octet-stream")
    return [element(0x1941A469, element(0x61A7, names + element(0x465C, text) + uint(0x46AE, 77)))]


def _tags(options: Options, sensor: Sensor, numbers: dict[str, int]) -> bytes:
    targets = {"": b"", "calibration": element(0x63CA, b"ATTACHMENT") + uint(0x63C6, 77)}
    for name, number in numbers.items():
        targets[name] = element(0x63CA, b"TRACK") + uint(0x63C5, 1000 + number)
    values = [
        ("K4A_COLOR_TRACK", "1001", "COLOR"),
        ("K4A_COLOR_MODE", f"{options.color}_720P", "COLOR"),
        ("K4A_DEPTH_TRACK", "1002", "DEPTH"),
        ("K4A_DEPTH_MODE", mode_of(sensor.depth_camera), "DEPTH"),
        ("K4A_IR_TRACK", "1003", "IR"),
        ("K4A_DEPTH_DELAY_NS", str(options.delay_ns), ""),
        ("K4A_WIRED_SYNC_MODE", "STANDALONE", ""),
        ("K4A_CALIBRATION_FILE", "calibration.json", "calibration"),
        ("K4A_START_OFFSET_NS", str(options.start_offset_ns), ""),
    ]
    replaced = dict(options.tags)
    tags = [
        element(
            0x7373,
            element(0x63C0, targets[target])
            + element(0x67C8, element(0x45A3, name.encode()) + element(0x4487, replaced.get(name, value).encode())),
        )
        for name, value, target in values
        if name not in options.without
    ]
    return element(0x1254C367, _with_checksum(b"".join(tags)))


def _clusters(blocks: list[tuple[int, int, bytes]]) -> list[bytes]:
    groups: list[list[tuple[int, int, bytes]]] = []
    for block in blocks:
        if not groups or block[0] - groups[-1][0][0] >= CLUSTER_NS:
            groups.append([])
        groups[-1].append(block)
    clusters = []
    for group in groups:
        start = group[0][0] // TICK_NS
        body = [uint(0xE7, start)]
        for ns, track, data in group:
            head = (0x80 | track).to_bytes(1, "big") + struct.pack(">h", ns // TICK_NS - start)
            if track == 4:  # fixed-size lacing: the number of frames less one, then the frames
                block = head + b"\x04" + bytes([len(data) // 40 - 1]) + data
                body.append(element(0xA0, element(0xA1, block) + uint(0x9B, 5000)))
            else:
                body.append(element(0xA3, head + b"\x80" + data))
        clusters.append(element(0x1F43B675, _with_checksum(b"".join(body))))
    return clusters


def _with_checksum(body: bytes) -> bytes:
    """RFC 8794, 11.3.1: CRC-32, little-endian, of what follows it."""
    return element(0xBF, struct.pack("<I", zlib.crc32(body))) + body
