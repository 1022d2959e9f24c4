"""Frames as messages and back: nothing is lost on the way, and what is wrong is named."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from same_values import difference
from small_recording import CLOCKS, edit_json, frames, png, sensors, write_small

from bodyfit.errors import CameraError, FrameError, ImageError, InputError, RecordingError
from bodyfit.fit.fit import fit
from bodyfit.frame import Frame
from bodyfit.recording import FrameSource, Recording, frames_recording, open_recording
from bodyfit.synthetic.demo import demo_recording_path
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.errors import TooLargeError
from bodyfit_service.frames_wire import (
    InstantDecoder,
    check_header,
    check_instant,
    frames_of,
    gravity_of,
    header_message,
    instant_message,
    make_recording,
    recording_messages,
)
from bodyfit_service.limits import Limits
from bodyfit_service.results_wire import (
    read_result,
    result_message,
)

LIMITS = Limits()
LENS = {"model": "brown_conrady", "coefficients": [0.06, -0.03, 0.001, -0.002, 0.01]}


def sent(recording: FrameSource, **chosen: Any) -> FrameSource:
    """What a server makes of a recording that was sent."""
    header, instants = recording_messages(recording, **chosen)
    data = pb.FitRequest(header=header, instants=list(instants)).SerializeToString()
    request = pb.FitRequest.FromString(data)
    return make_recording(request.header, request.instants, LIMITS)


def in_memory(recording: Recording) -> FrameSource:
    """The same frames as a program has them that read no file."""
    seen = [recording.frame(i, s.name) for i in range(recording.num_frames) for s in recording.sensors]
    return frames_recording([f for f in seen if f is not None], recording.gravity_world)


def assert_same_frames(a: FrameSource, b: FrameSource) -> None:
    assert difference(a.indices, b.indices) is None and difference(a.timestamps_s, b.timestamps_s) is None
    assert difference(a.gravity_world, b.gravity_world) is None
    assert [s.name for s in a.sensors] == [s.name for s in b.sensors]
    for i in range(a.num_frames):
        for sensor in a.sensors:
            assert difference(a.frame(i, sensor.name), b.frame(i, sensor.name)) is None


@pytest.fixture(params=["pinhole", "with lenses"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Recording:
    """Two sensors, of which one misses instants; masks, keypoints, clocks of their own, gravity off the axes."""
    folder = write_small(tmp_path / "small")

    def change(document: dict[str, Any]) -> None:
        document["gravity_world"] = [0.1, -0.2, -math.sqrt(1 - 0.05)]
        if request.param == "with lenses":
            for camera in ("depth_camera", "color_camera"):
                document["sensors"][0][camera]["distortion"] = LENS

    edit_json(folder / "recording.json", change)
    return open_recording(folder)


# frames


def test_a_recording_that_is_sent_has_the_same_frames(small: Recording) -> None:
    assert_same_frames(small, sent(small))
    assert_same_frames(small, sent(in_memory(small)))
    got = sent(small).stream_timestamps_s
    assert difference(got, {"left.depth_s": CLOCKS["left.depth_s"]}) is None


def test_parts_of_a_recording_are_sent(small: Recording) -> None:
    got = sent(small, frames=[2, 0], sensors=["left"])
    assert got.indices.tolist() == [0, 20] and [s.name for s in got.sensors] == ["left"]
    with pytest.raises(InputError, match="left, right"):
        recording_messages(small, sensors=["top"])
    with pytest.raises(InputError, match="0 to 2"):
        recording_messages(small, frames=[3])


@pytest.mark.parametrize("depth", ["zstd", "raw"])
@pytest.mark.parametrize("color", ["png", "raw", "jpeg"])
def test_each_packing_gives_the_frame_back(depth: Any, color: Any) -> None:
    seen = [f for f in frames() if f.index == 10]
    devices = sensors()
    header = header_message([s.undistorted for s in devices])
    instant = instant_message(seen, index=10, timestamp_s=0.1, depth=depth, color=color)
    got = frames_of(instant, check_header(header, LIMITS), LIMITS)
    for a, b in zip(seen, got, strict=True):
        if color == "jpeg" and a.color is not None and b.color is not None:
            assert np.abs(a.color.astype(int) - b.color).mean() < 4
            b = dataclasses.replace(b, color=a.color)
        assert difference(a, b) is None


@pytest.mark.parametrize("encoding", ["PNG16", "RAW_UINT16", "ZSTD_UINT16"])
def test_counts_become_metres_by_the_sensors_unit(encoding: str) -> None:
    import cv2

    right = sensors()[1]
    counts = np.random.default_rng(2).integers(0, 65536, (30, 36)).astype(np.uint16)
    raw = counts.astype("<u2").tobytes()
    data = {
        "PNG16": lambda: cv2.imencode(".png", counts)[1].tobytes(),
        "RAW_UINT16": lambda: raw,
        "ZSTD_UINT16": lambda: zstandard.ZstdCompressor().compress(raw),
    }[encoding]()
    depth = pb.DepthImage(encoding=f"DEPTH_ENCODING_{encoding}", data=data)
    instant = pb.Instant(frames=[pb.SensorFrame(sensor="right", depth=depth)])
    (frame,) = frames_of(instant, check_header(header_message([right]), LIMITS), LIMITS)
    assert difference(frame.depth, counts.astype(np.float32) * np.float32(0.00025)) is None


def test_what_is_left_out_means_what_the_manual_says() -> None:
    camera = pb.Camera(width=36, height=30, fx=30, fy=30, cx=17.5, cy=14.5)
    header = pb.RecordingHeader(sensors=[pb.Sensor(name="a", depth_camera=camera)])
    (sensor,) = check_header(header, LIMITS)
    assert sensor.depth_unit_m == 0.001 and difference(sensor.T_world_depth, np.eye(4)) is None
    assert sensor.color_camera is None and gravity_of(header) is None


# fits


def assert_same_fit(recording: Recording, **options: Any) -> None:
    ours = fit(recording, **options)
    for source in (recording, in_memory(recording)):
        got = fit(sent(source), **{k: v for k, v in options.items() if k != "frames"})
        assert difference(ours, got) is None
        outputs = pb.FitOutputs(joints=True, vertices=True)
        message = pb.FitResult.FromString(result_message(got, outputs).SerializeToString())
        assert difference(dataclasses.replace(ours, observations=()), read_result(message, ours.model)) is None
        for t, instant in enumerate(message.instants):
            assert difference(np.array(instant.vertices).reshape(-1, 3), ours.vertices_world(t)) is None
            assert difference(np.array(instant.joints).reshape(-1, 3), ours.joints_world(t)) is None
        assert difference(np.array(message.rest_vertices).reshape(-1, 3), np.float64(ours.rest_vertices())) is None


@pytest.mark.slow
def test_a_fit_of_what_was_sent_is_the_same_to_the_last_bit() -> None:
    assert_same_fit(open_recording(demo_recording_path()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [("real_kinect2_standing", {}), ("turn4_00", {}), ("rig_00", {}), ("rig_00", {"refine_extrinsics": True})],
)
def test_so_is_one_of_the_shared_recordings(shared_recordings: Path, name: str, options: dict[str, Any]) -> None:
    if not (shared_recordings / name).is_dir():
        pytest.skip("no such recording")
    assert_same_fit(open_recording(shared_recordings / name), **options)


def test_late_streams_come_late_to_a_fit_too(small: Recording) -> None:
    from bodyfit.fit.fit import stamped_delays

    names = [s.name for s in small.sensors]
    late = stamped_delays(small, names)
    assert any(np.abs(late["left"]) > 0)
    assert difference(late, stamped_delays(sent(small), names)) is None


# refusals by what a message says of itself


def request() -> pb.FitRequest:
    header = header_message([s.undistorted for s in sensors()], np.array([0.0, 0.0, -1.0]))
    instants = []
    for index in (0, 10, 20):
        seen = [f for f in frames() if f.index == index]
        instants.append(instant_message(seen, index=index, timestamp_s=seen[0].timestamp_s, stamps={"left": index}))
    return pb.FitRequest(header=header, instants=instants)


def set_at(path: str, value: Any) -> Callable[[pb.FitRequest], None]:
    """Sets a field by its name as errors say it."""

    def change(message: Any) -> None:
        *parts, last = path.replace("[", ".").replace("]", "").split(".")
        for part in parts:
            message = message[int(part)] if part.isdigit() else getattr(message, part)
        if last.isdigit():
            message[int(last)] = value
        elif value is None:
            message.ClearField(last)
        else:
            setattr(message, last, value)

    return change


FRAME = "instants[1].frames[0]"
LEFT = "header.sensors[0]"
LENS_OF = f"{LEFT}.depth_camera.distortion"
BIG_ZEROS = zstandard.ZstdCompressor().compress(bytes(256 << 20))
UNSIZED = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(32 * 40 * 4))
JPEG_OF_NOTHING = b"\xff\xd8\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00"


@pytest.mark.parametrize(
    ("field", "value", "kind", "named", "says"),
    [
        (f"{LEFT}.name", "../../etc", RecordingError, None, "letters"),
        (f"{LEFT}.name", "RIGHT", RecordingError, "header.sensors[1].name", "of its own"),
        (f"{LEFT}.depth_unit_m", math.nan, RecordingError, None, "metres"),
        (f"{LEFT}.depth_unit_m", 7.0, RecordingError, None, "metres"),
        (f"{LEFT}.depth_camera", None, CameraError, None, "a camera"),
        (f"{LEFT}.depth_camera.fx", math.inf, CameraError, None, "finite"),
        (f"{LEFT}.depth_camera.fx", 0.1, CameraError, None, "pixels"),
        (f"{LEFT}.depth_camera.width", 2**32 - 1, CameraError, None, "16384"),
        (f"{LEFT}.color_camera.cy", 1e9, CameraError, None, "near the image"),
        (f"{LEFT}.t_color_depth", None, CameraError, None, "beside color_camera"),
        (f"{LEFT}.t_world_depth.matrix[0]", 2.0, CameraError, f"{LEFT}.t_world_depth", "rigid"),
        (f"{LEFT}.t_world_depth.matrix[3]", 1e7, CameraError, f"{LEFT}.t_world_depth", "metres"),
        (f"{LEFT}.depth_camera.distortion.model", 77, InputError, None, "unknown number 77"),
        (
            f"{LEFT}.depth_camera.distortion.model",
            2,
            CameraError,
            f"{LEFT}.depth_camera.distortion.coefficients",
            "5 numbers",
        ),
        ("header.gravity_world.z", -0.5, RecordingError, "header.gravity_world", "unit vector"),
        ("header.gravity_world.z", math.nan, RecordingError, "header.gravity_world", "finite"),
        ("instants[1].index", 0, RecordingError, None, "more than 0"),
        ("instants[1].timestamp_s", 0.0, RecordingError, None, "after 0 s"),
        ("instants[1].timestamp_s", math.nan, RecordingError, None, "finite"),
        ("instants[1].timestamp_s", 1.7e15, RecordingError, None, "seconds"),
        (f"{FRAME}.sensor", "top", RecordingError, None, "left, right"),
        ("instants[1].frames[1].sensor", "left", RecordingError, None, "once"),
        (f"{FRAME}.depth", None, ImageError, None, "a depth image"),
        (f"{FRAME}.depth_timestamp_s", math.inf, RecordingError, None, "finite"),
        (f"{FRAME}.depth_timestamp_s", -9.0, RecordingError, None, "or later"),
        (f"{FRAME}.depth.encoding", 0, ImageError, None, "found none"),
        (f"{FRAME}.depth.encoding", 99, ImageError, None, "unknown number 99"),
        (f"{FRAME}.depth.encoding", 1, ImageError, f"{FRAME}.depth", "2560 bytes"),
        (f"{FRAME}.depth.encoding", 3, ImageError, f"{FRAME}.depth", "PNG or JPEG"),
        (f"{FRAME}.depth.encoding", 4, ImageError, f"{FRAME}.depth", "declares 2560 bytes"),
        (f"{FRAME}.depth.data", b"", ImageError, None, "empty"),
        (f"{FRAME}.depth.data", b"\x28\xb5\x2f\xfd", ImageError, None, "zstd frame"),
        (f"{FRAME}.depth.data", BIG_ZEROS, ImageError, None, "268435456 bytes"),
        (f"{FRAME}.depth.data", UNSIZED, ImageError, None, "no declared size"),
        (f"{FRAME}.color.encoding", 0, ImageError, None, "found none"),
        (f"{FRAME}.color.encoding", 1, ImageError, f"{FRAME}.color", "3888 bytes"),
        (f"{FRAME}.color.encoding", 2, ImageError, f"{FRAME}.color", "a JPEG"),
        (f"{FRAME}.color.data", png(60000, 60000, 8, 2), ImageError, None, "60000 × 60000"),
        (f"{FRAME}.color.data", JPEG_OF_NOTHING, ImageError, None, "a PNG as its encoding says"),
        (f"{FRAME}.mask.encoding", 0, ImageError, None, "found none"),
        (f"{FRAME}.mask.data", png(40, 32, 16, 0), ImageError, None, "16-bit"),
        (f"{FRAME}.keypoints.names[0]", "tail", RecordingError, None, "COCO"),
        (f"{FRAME}.keypoints.names[1]", "nose", RecordingError, None, "once"),
        (f"{FRAME}.keypoints.xy[0]", math.nan, RecordingError, None, "near the image"),
        (f"{FRAME}.keypoints.confidence[1]", 1.5, RecordingError, None, "0 to 1"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_decoded(
    field: str, value: Any, kind: type, named: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    def decoded(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded before it was checked")

    message = request()
    set_at(field, value)(message)
    monkeypatch.setattr(cv2, "imdecode", decoded)
    monkeypatch.setattr(zstandard, "ZstdDecompressor", decoded)
    with pytest.raises(kind, match=says) as refused:
        make_recording(message.header, message.instants, LIMITS)
    problem = refused.value
    assert type(problem) is kind
    assert problem.field == (named or field.removesuffix(".data"))


def test_a_valid_request_is_no_refusal() -> None:
    message = request()
    recording = make_recording(message.header, message.instants, LIMITS)
    assert recording.num_frames == 3 and recording.frame(0, "right") is None


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Limits(max_sensors=1), "header.sensors"),
        (Limits(max_image_pixels=1000), "header.sensors[0].depth_camera"),
        (Limits(max_instants=2), "instants"),
        (Limits(max_message_bytes=500), "instants[0]"),
        (Limits(max_total_pixels=6000), "instants[1]"),
    ],
)
def test_more_than_is_allowed(limits: Limits, named: str) -> None:
    message = request()
    with pytest.raises(TooLargeError) as refused:
        make_recording(message.header, message.instants, limits)
    assert refused.value.field == named


def test_pixels_are_counted_before_they_are_there() -> None:
    message = request()
    devices = check_header(message.header, LIMITS)
    assert check_instant(message.instants[0], devices, LIMITS) == 40 * 32 + 48 * 27
    assert check_instant(message.instants[1], devices, LIMITS) == 40 * 32 + 48 * 27 + 36 * 30


def test_no_sensors_and_no_instants() -> None:
    message = request()
    with pytest.raises(RecordingError, match="instants: expected at least one"):
        make_recording(message.header, [], LIMITS)
    with pytest.raises(RecordingError, match=r"header\.sensors: expected at least one"):
        make_recording(pb.RecordingHeader(), message.instants, LIMITS)
    decoder = InstantDecoder(check_header(message.header, LIMITS), LIMITS)
    with pytest.raises(RecordingError, match=r"^frames: expected at least one"):
        decoder.frames(pb.Instant(index=1, timestamp_s=1.0))


# refusals by what is in a message


def _floats(change: Callable[[np.ndarray], None]) -> bytes:
    depth = np.full((32, 40), 2.0, "<f4")
    change(depth)
    return zstandard.ZstdCompressor().compress(depth.tobytes())


def _put(value: float) -> Callable[[np.ndarray], None]:
    def change(depth: np.ndarray) -> None:
        depth[3, 4] = value

    return change


GOOD = _floats(lambda _depth: None)


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        (_floats(_put(math.nan)), FrameError, "NaN"),
        (_floats(_put(math.inf)), FrameError, "infinite"),
        (_floats(_put(-1.0)), FrameError, "negative"),
        (_floats(_put(1e30)), FrameError, "65535"),
        (_floats(_put(1e-40)), FrameError, "1e-06"),
        (GOOD[:-3], ImageError, "whole zstd frame"),
        (GOOD + b"\0", ImageError, "whole zstd frame"),
        (GOOD + GOOD, ImageError, "whole zstd frame"),
    ],
)
def test_depth_that_turns_out_wrong(data: bytes, kind: type, says: str) -> None:
    message = request()
    message.instants[1].frames[0].depth.data = data
    recording = make_recording(message.header, message.instants, LIMITS)
    assert recording.frame(0, "left") is not None
    with pytest.raises(kind, match=says) as refused:
        recording.frame(1, "left")
    assert refused.value.field == "instants[1].frames[0].depth"
    with pytest.raises(kind) as refused:
        frames_of(message.instants[1], check_header(message.header, LIMITS), LIMITS)
    assert refused.value.field == "frames[0].depth"


def test_a_frame_that_declares_less_than_it_holds_fills_no_memory() -> None:
    wanted = 32 * 40 * 4
    small, large = bytearray(zstandard.ZstdCompressor().compress(bytes(wanted))), bytes(64 << 20)
    blocks = zstandard.ZstdCompressor(write_content_size=False).compress(large)[6:]
    message = request()
    message.instants[0].frames[0].depth.data = bytes(small[:7]) + blocks
    recording = make_recording(message.header, message.instants, LIMITS)
    with pytest.raises(ImageError, match="whole zstd frame"):
        recording.frame(0, "left")


def test_colour_and_masks_that_turn_out_wrong() -> None:
    message = request()
    message.instants[0].frames[0].color.data = png(48, 27, 8, 2)
    message.instants[1].frames[0].mask.encoding = pb.MASK_ENCODING_RAW_UINT8
    message.instants[1].frames[0].mask.data = bytes([0, 1] * 640)
    recording = make_recording(message.header, message.instants, LIMITS)
    with pytest.raises(ImageError) as refused:
        recording.frame(0, "left")
    assert refused.value.field == "instants[0].frames[0].color"
    with pytest.raises(ImageError, match=r"frames\[0\]\.mask: expected a mask of 0 and 255"):
        recording.frame(1, "left")


def test_a_lens_that_folds_is_refused_before_its_images() -> None:
    message = request()
    lens = message.header.sensors[0].depth_camera.distortion
    lens.model = pb.DISTORTION_MODEL_BROWN_CONRADY
    lens.coefficients.extend([-3.0, 0.0, 0.0, 0.0, 0.0])
    assert check_header(message.header, LIMITS)
    with pytest.raises(CameraError) as refused:
        make_recording(message.header, message.instants, LIMITS)
    assert refused.value.field == "header.sensors[0].depth_camera.distortion.coefficients"


# recordings in memory


def test_frames_that_contradict_one_another() -> None:
    left, *_ = [f for f in frames() if f.index == 10]
    moved = left.T_world_depth.copy()
    moved[0, 3] += 0.1
    for wrong, says in [
        ([], "at least one"),
        ([left, left], "one frame of a sensor"),
        ([left, dataclasses.replace(left, index=9, timestamp_s=2.0)], "more than 10"),
        ([left, dataclasses.replace(left, index=11)], "after 0.1 s"),
        ([left, dataclasses.replace(left, sensor="b", timestamp_s=0.2)], "its instant's first"),
        ([left, dataclasses.replace(left, index=11, timestamp_s=0.2, T_world_depth=moved)], "T_world_depth"),
        ([dataclasses.replace(left, sensor="..")], "letters"),
    ]:
        with pytest.raises(InputError, match=says):
            frames_recording(wrong)


def test_a_program_fits_its_own_frames() -> None:
    recording = open_recording(demo_recording_path())
    frame = recording.frame(0, recording.sensors[0].name)
    assert isinstance(frame, Frame)
    ours = fit(recording, frames=[0])
    assert difference(ours, fit(frames_recording([frame], recording.gravity_world))) is None


def test_the_messages_of_a_recording_are_no_larger_than_its_files(small: Recording) -> None:
    header, instants = recording_messages(small)
    size = header.ByteSize() + sum(i.ByteSize() for i in instants)
    files = sum(f.stat().st_size for f in small.path.rglob("*") if f.is_file())
    assert size < files
    assert json.loads((small.path / "recording.json").read_text())["sensors"]


def test_mutations_come_from_their_seed(monkeypatch: pytest.MonkeyPatch, repo_root: Path) -> None:
    monkeypatch.syspath_prepend(str(repo_root / "benchmarks"))
    wire_mutations = importlib.import_module("wire_mutations")

    messages = []
    for _ in range(2):
        message = wire_mutations.valid_request(3)
        wire_mutations.mutate(message, random.Random(5))
        messages.append(message.SerializeToString(deterministic=True))
    assert messages[0] == messages[1] != wire_mutations.valid_request(3).SerializeToString(deterministic=True)
