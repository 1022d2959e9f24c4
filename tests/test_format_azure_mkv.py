"""Azure Kinect and Femto recordings: what a recorder or FFmpeg wrote is read back, broken files are refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from format_damage import survey
from format_writers.azure_mkv import Options, calibration, coded_color, element, in_mode, padded, write, write_with_pyav
from small_recording import transform

from bodyfit.camera import Camera, Distortion
from bodyfit.errors import CameraError, ImageError, InputError, MissingExtraError, RecordingError
from bodyfit.frame import Frame
from bodyfit.recording import Recording, Sensor, open_recording
from bodyfit.recording.azure_calibration import DEPTH_MODES, read_calibration
from bodyfit.recording.encoded import Coding
from bodyfit.recording.formats import format_of

# the size of a real lens's numbers: barrel distortion whose two polynomials nearly cancel
DEPTH_LENS = Distortion("rational", (5.3, 3.4, -5e-5, 6e-5, 0.17, 5.64, 5.27, 0.9))
COLOR_LENS = Distortion("rational", (0.33, -2.49, -1.6e-4, -1.3e-4, 1.45, 0.21, -2.3, 1.375))
INSTANTS = (0.0, 1 / 30, 2 / 30, 4 / 30)


def sensor(color: tuple[int, int] | None = (96, 54)) -> Sensor:
    depth = Camera(320, 288, 252.1, 252.3, 162.25, 168.5, DEPTH_LENS)
    if color is None:
        return Sensor("k4a", depth, np.eye(4))
    width, height = color
    camera = Camera(width, height, 0.478 * width, 0.4785 * width, 0.49 * width, 0.51 * height, COLOR_LENS)
    return Sensor("k4a", depth, np.eye(4), camera, transform((0.1, 0.002, -0.001), (-0.032, -0.002, 0.004)))


def frames(one: Sensor, times: tuple[float, ...] = INSTANTS) -> list[Frame]:
    """Depth is noise, so that a byte out of place is seen; colour is smooth, and of another shade each time."""
    rng = np.random.default_rng(3)
    camera = one.color_camera
    found = []
    for i, time_s in enumerate(times):
        counts = rng.integers(500, 60000, (one.depth_camera.height, one.depth_camera.width))
        counts[rng.random(counts.shape) < 0.2] = 0
        color = None
        if camera is not None:
            x, y = np.meshgrid(np.linspace(0, 1, camera.width), np.linspace(0, 1, camera.height))
            color = np.rint(np.stack([40 + 170 * x, 30 + 150 * y, 20 + 40 * i + 90 * x * y], -1)).astype(np.uint8)
        found.append(
            Frame(
                depth=(counts * 0.001).astype(np.float32),
                depth_camera=one.depth_camera.pinhole,
                T_world_depth=np.eye(4),
                timestamp_s=time_s,
                color=color,
                color_camera=camera.pinhole if camera else None,
                T_color_depth=one.T_color_depth,
                index=i,
            )
        )
    return found


def recorded(path: Path, options: Options | None = None, color: tuple[int, int] | None = (96, 54)) -> Path:
    return write(path, [sensor(color)], frames(sensor(color)), options)


def counts_of(recording: Recording, i: int) -> np.ndarray:
    encoded = recording.encoded(i, "k4a")
    assert encoded is not None and encoded.depth.coding is Coding.UINT16
    camera = recording.sensors[0].depth_camera
    return np.frombuffer(encoded.depth.load(), "<u2").reshape(camera.height, camera.width)


def color_bytes(recording: Recording, i: int) -> bytes | None:
    encoded = recording.encoded(i, "k4a")
    assert encoded is not None
    return None if encoded.color is None else encoded.color.load()


def assert_same_camera(found: Camera | None, wanted: Camera | None) -> None:
    assert found is not None and wanted is not None
    assert (found.width, found.height, found.distortion) == (wanted.width, wanted.height, wanted.distortion)
    for key in ("fx", "fy", "cx", "cy"):
        assert getattr(found, key) == pytest.approx(getattr(wanted, key), abs=1e-9)


def assert_same_transform(found: np.ndarray | None, wanted: np.ndarray | None) -> None:
    assert found is not None and wanted is not None
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_what_the_recorder_wrote_is_read_back(tmp_path: Path) -> None:
    path = recorded(tmp_path / "recording")  # no suffix: the contents tell
    assert format_of(path).name == "azure"
    wanted = sensor()
    with open_recording(path) as recording:
        assert recording.format == "azure" and recording.num_frames == 4
        one = recording.sensor("k4a")
        assert_same_camera(one.depth_camera, wanted.depth_camera)
        assert_same_camera(one.color_camera, wanted.color_camera)
        assert_same_transform(one.T_color_depth, wanted.T_color_depth)
        assert one.depth_unit_m == 0.001
        np.testing.assert_allclose(recording.timestamps_s, INSTANTS, atol=1.01e-6)
        np.testing.assert_allclose(
            recording.stream_timestamps_s["k4a.depth_s"], 0.200011 + np.array(INSTANTS), atol=1.01e-6
        )
        np.testing.assert_allclose(
            recording.stream_timestamps_s["k4a.color_s"], 0.200011 + np.array(INSTANTS), atol=1.01e-6
        )
        for i in (3, 0, 2, 1):  # at random
            frame = frames(wanted)[i]
            np.testing.assert_array_equal(counts_of(recording, i), padded(frame.depth, wanted))
            assert frame.color is not None and color_bytes(recording, i) == coded_color(frame.color, "MJPG")
        assert any("infrared" in note for note in recording.notes)
        read = recording.frame(2, "k4a")
        assert read is not None and read.color is not None and read.depth_camera.distortion.is_none
        assert read.depth.max() > 1.0 and read.index == 2


def test_matroska_as_ffmpeg_muxes_it(tmp_path: Path) -> None:
    """An independent writer: other sizes of numbers, void elements, negative heights, cues; ticks of a millisecond."""
    pytest.importorskip("av")
    path = write_with_pyav(tmp_path / "a.mkv", [sensor()], frames(sensor()))
    with open_recording(path) as recording:
        assert_same_camera(recording.sensors[0].depth_camera, sensor().depth_camera)
        np.testing.assert_allclose(recording.timestamps_s, INSTANTS, atol=0.51e-3)
        np.testing.assert_allclose(recording.stream_timestamps_s["k4a.depth_s"][0], 0.005, atol=1e-9)
        for i, frame in enumerate(frames(sensor())):
            np.testing.assert_array_equal(counts_of(recording, i), padded(frame.depth, sensor()))
            assert frame.color is not None and color_bytes(recording, i) == coded_color(frame.color, "MJPG")


def test_ffmpeg_reads_what_the_tests_write(tmp_path: Path) -> None:
    """The test writer's elements are those of the format: FFmpeg finds tracks, tags, the attachment and the images."""
    av = pytest.importorskip("av")
    path = recorded(tmp_path / "a.mkv", Options(acceleration=(0.0, 0.0, -9.8)))
    with av.open(str(path)) as file:
        assert file.metadata["title"] == "Azure Kinect" and file.metadata["K4A_START_OFFSET_NS"] == "200011000"
        streams = {stream.metadata.get("title"): stream for stream in file.streams}
        assert streams["DEPTH"].codec_context.format.name == "gray16be"
        assert streams["DEPTH"].metadata["K4A_DEPTH_MODE"] == "NFOV_2X2BINNED"
        found = [packet for packet in file.demux() if packet.size]
        depth = [bytes(packet) for packet in found if packet.stream is streams["DEPTH"]]
        assert depth[1] == padded(frames(sensor())[1].depth, sensor()).astype(">u2").tobytes()
        assert len([packet for packet in found if packet.stream is streams["IMU"]]) == 4 * 8


@pytest.mark.parametrize("coding", ["NV12", "YUY2", "BGRA"])
def test_uncompressed_colour(tmp_path: Path, coding: str) -> None:
    path = recorded(tmp_path / "a.mkv", Options(color=coding), (96, 72))
    wanted = frames(sensor((96, 72)))
    with open_recording(path) as recording:
        assert_same_camera(recording.sensors[0].color_camera, sensor((96, 72)).color_camera)
        for i, frame in enumerate(wanted):
            rgb = np.frombuffer(color_bytes(recording, i) or b"", np.uint8).reshape(72, 96, 3)
            assert frame.color is not None
            worst = int(np.abs(rgb.astype(int) - frame.color).max())
            assert worst == 0 if coding == "BGRA" else worst <= 4
        read = recording.frame(0, "k4a")
        assert read is not None and read.color is not None and read.color.shape == (72, 96, 3)


def test_dropped_colour_and_delayed_depth(tmp_path: Path) -> None:
    """An instant whose colour was dropped has none; the delay that depth was given is taken off before pairing."""
    path = recorded(tmp_path / "a.mkv", Options(no_color_at=(1,), delay_ns=15_000_000))
    with open_recording(path) as recording:
        assert [color_bytes(recording, i) is None for i in range(4)] == [False, True, False, False]
        seen = recording.stream_timestamps_s
        assert np.isnan(seen["k4a.color_s"]).tolist() == [False, True, False, False]
        late = seen["k4a.depth_s"] - seen["k4a.color_s"]
        np.testing.assert_allclose(late[[0, 2, 3]], 0.015, atol=2e-6)
        assert any(note.startswith("1 depth images have no colour") for note in recording.notes)


def test_colour_without_depth_and_no_colour_at_all(tmp_path: Path) -> None:
    wanted = frames(sensor())
    lone = dataclasses.replace(wanted[3], timestamp_s=1.0, depth=wanted[3].depth * 0)
    path = write(tmp_path / "a.mkv", [sensor()], [*wanted, lone], Options(without=("IR",)))
    with open_recording(path) as recording:
        assert recording.num_frames == 5 and not any("infrared" in note for note in recording.notes)
    path = recorded(tmp_path / "b.mkv", color=None)
    with open_recording(path) as recording:
        assert recording.sensors[0].color_camera is None and "The recording has no colour." in recording.notes
        assert recording.frame(0, "k4a") is not None


def test_files_without_tags(tmp_path: Path) -> None:
    tags = ("K4A_COLOR_TRACK", "K4A_DEPTH_TRACK", "K4A_DEPTH_MODE", "K4A_CALIBRATION_FILE", "K4A_START_OFFSET_NS")
    path = recorded(tmp_path / "a.mkv", Options(without=(*tags, "K4A_DEPTH_DELAY_NS")))
    with open_recording(path) as recording:
        assert_same_camera(recording.sensors[0].depth_camera, sensor().depth_camera)
        assert any("NFOV_2X2BINNED" in note for note in recording.notes)
        assert any("K4A_START_OFFSET_NS is missing" in note for note in recording.notes)
        assert recording.stream_timestamps_s["k4a.depth_s"][0] == 0


def test_little_endian_depth_of_the_first_recorders(tmp_path: Path) -> None:
    with open_recording(recorded(tmp_path / "a.mkv", Options(depth="YUY2"))) as recording:
        np.testing.assert_array_equal(counts_of(recording, 1), padded(frames(sensor())[1].depth, sensor()))


def test_depth_recoded_with_ffv1(tmp_path: Path) -> None:
    """FFmpeg writes a key image every twelfth; the others need those before them, in whatever order they are read."""
    pytest.importorskip("av")
    small = [dataclasses.replace(frame, color=None) for frame in frames(sensor(), tuple(i / 30 for i in range(15)))]
    path = write_with_pyav(tmp_path / "a.mkv", [sensor()], small, codec="ffv1")
    with open_recording(path) as recording:
        for i in (0, 1, 14, 5, 6, 13, 3):
            np.testing.assert_array_equal(counts_of(recording, i), padded(small[i].depth, sensor()))
        place = path.read_bytes().rindex(counts_bytes := path.read_bytes()[-40_000:-39_900])
    data = bytearray(path.read_bytes())
    data[place : place + len(counts_bytes)] = bytes(len(counts_bytes))
    path.write_bytes(data)
    with open_recording(path) as recording:
        for i in range(15):  # FFmpeg conceals, or says so: never more than an error of ours
            try:
                recording.frame(i, "k4a")
            except ImageError as error:
                assert "FFV1" in str(error) or "image" in str(error)


def test_ffv1_needs_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    path = write_with_pyav(tmp_path / "a.mkv", [sensor()], frames(sensor()), codec="ffv1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"bodyfit\[video\]"):
        open_recording(path)


def test_gravity_is_the_accelerometers_where_the_camera_stood_still(tmp_path: Path) -> None:
    """Specific force points upwards at rest; Rt takes the device's frame to the accelerometer's."""
    R = transform((0.4, -1.0, 0.7), (0, 0, 0))[:3, :3]
    down = np.array([0.1, 0.95, 0.3])
    down /= np.linalg.norm(down)
    turned = transform((0.05, 0.1, -0.02), (0.01, 0.02, 0.0))
    x, y, z = (R @ (-9.75 * down)).tolist()
    options = Options(acceleration=(x, y, z), R_accelerometer_depth=R, T_depth_device=turned)
    with open_recording(recorded(tmp_path / "a.mkv", options)) as recording:
        assert recording.gravity_world is not None
        np.testing.assert_allclose(recording.gravity_world, down, atol=1e-6)
        assert_same_transform(recording.sensors[0].T_color_depth, sensor().T_color_depth)
        assert any("32 readings" in note for note in recording.notes)
    for moving in ((0.0, 0.0, -11.0), (float("nan"), 0.0, 9.8)):
        with open_recording(recorded(tmp_path / "b.mkv", Options(acceleration=moving))) as recording:
            assert recording.gravity_world is None
    calm = read_calibration("c", json.dumps(calibration(sensor(), Options())).encode())
    shaken = np.array([[0, 0, 9.8], [1.0, 0, 9.8], [-1.0, 0, 9.8]])
    assert calm.gravity_depth(shaken)[0] is None and "stand still" in calm.gravity_depth(shaken)[1]


def test_cameras_of_the_modes() -> None:
    """Against the numbers that the SDK's own code gives for this calibration, worked out by hand from its source."""
    whole = sensor((1280, 720))
    read = read_calibration("c", json.dumps(calibration(whole, Options())).encode() + b"\0")
    modes = {mode.name: read.depth_camera(mode) for mode in DEPTH_MODES}
    near, wide = modes["NFOV_2X2BINNED"], modes["WFOV_UNBINNED"]
    assert (wide.fx, wide.width) == (pytest.approx(504.2), 1024)
    # 162.25 + 0.5 + 96 pixels of 512 are twice as many of 1024; a corner at 0 is a centre at -0.5
    assert wide.cx == pytest.approx(2 * (near.cx + 0.5 + 96) - 0.5)
    assert modes["NFOV_UNBINNED"].cy == pytest.approx(wide.cy - 180)
    assert modes["WFOV_2X2BINNED"].cx == pytest.approx(near.cx + 96)
    hd, full, square = (read.color_camera(size) for size in ((1280, 720), (3840, 2160), (4096, 3072)))
    assert_same_camera(hd, whole.color_camera)
    assert full.cx == pytest.approx(3 * (hd.cx + 0.5) - 0.5) and full.fy == pytest.approx(3 * hd.fy)
    assert square.cy == pytest.approx(3.2 * (hd.cy + 0.5 + 120) - 0.5)
    with pytest.raises(RecordingError, match="4:3 or 16:9"):
        read.color_camera((1280, 800))
    legacy = read_calibration("c", json.dumps(calibration(whole, Options(legacy_color=True))).encode())
    assert_same_camera(legacy.color_camera((1280, 720)), whole.color_camera)
    assert legacy.color_camera((2048, 1536)).cy == pytest.approx(1.6 * (hd.cy + 0.5 + 120) - 0.5)


def test_wide_mode_of_a_lens_whose_corners_are_dark(tmp_path: Path) -> None:
    """The model of a real size turns back beyond the round picture: the corners come from nowhere, all else is read."""
    lens = Distortion("rational", (0.55, -0.021, 2e-5, -7e-5, -0.00265, 0.89, 0.086, -0.0139))
    camera = Camera(512, 512, 252.0, 252.1, 257.5, 255.5, lens)
    one = Sensor("k4a", camera, np.eye(4))
    with open_recording(write(tmp_path / "a.mkv", [one], frames(one)[:1])) as recording:
        assert any("% of the recorded pixels" in note for note in recording.notes)
        read = recording.frame(0, "k4a")
        assert read is not None and (read.depth[200:300, 200:300] > 0).mean() > 0.7


def test_lens_model_is_that_of_opencv() -> None:
    """The SDK's projection (intrinsic_transformation.c), written out, at points of the image."""
    read = read_calibration("c", json.dumps(calibration(sensor(), Options())).encode())
    camera = read.depth_camera(DEPTH_MODES[0])
    values = calibration(sensor(), Options())["CalibrationInformation"]["Cameras"][0]["Intrinsics"]["ModelParameters"]
    k1, k2, k3, k4, k5, k6, _, _, p2, p1 = values[4:]
    xy = np.array([[0.3, -0.2], [-0.5, 0.45], [0.0, 0.1]])
    s = (xy**2).sum(axis=1)
    d = (1 + k1 * s + k2 * s**2 + k3 * s**3) / (1 + k4 * s + k5 * s**2 + k6 * s**3)
    x = xy[:, 0] * d + (s + 2 * xy[:, 0] ** 2) * p2 + 2 * xy.prod(axis=1) * p1
    y = xy[:, 1] * d + (s + 2 * xy[:, 1] ** 2) * p1 + 2 * xy.prod(axis=1) * p2
    points = np.concatenate([xy, np.ones((3, 1))], axis=1)
    coefficients = np.array(camera.distortion.coefficients)
    seen, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.K, coefficients)
    wanted = np.stack([camera.fx * x + camera.cx, camera.fy * y + camera.cy], -1)
    np.testing.assert_allclose(seen[:, 0], wanted, atol=1e-9)


def changed(change: object, value: object) -> bytes:
    """A calibration with one value changed; `change` is the keys that lead to it."""
    document = calibration(sensor(), Options())
    place = document["CalibrationInformation"]
    keys = list(change) if isinstance(change, tuple) else [change]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("change", "value", "field"),
    [
        ("Cameras", [], "Cameras"),
        (("Cameras", 0, "Intrinsics", "ModelType"), "CALIBRATION_LensDistortionModelTheta", "ModelType"),
        (("Cameras", 0, "Intrinsics", "ModelType"), "CALIBRATION_LensDistortionModelRational6KT", "ModelType"),
        (("Cameras", 0, "Intrinsics", "ModelParameters"), [0.5] * 13, "14 numbers"),
        (("Cameras", 0, "Intrinsics", "ModelParameters"), [0.5] * 14, "centre of distortion"),
        (("Cameras", 1, "Rt", "Rotation"), [2.0] * 9, "Rt"),
        (("Cameras", 1, "Rt", "Translation"), [0.0], "Rt"),
        (("Cameras", 1, "SensorWidth"), "many", "SensorWidth"),
    ],
)
def test_calibrations_that_are_none(change: object, value: object, field: str) -> None:
    with pytest.raises((RecordingError, CameraError), match=field):
        read_calibration("calibration.json", changed(change, value))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(without=("calibration.json",)), "calibration.json.*no attached files"),
        (Options(without=("DEPTH",)), "a track DEPTH.*COLOR, IR"),
        (Options(without=("DEPTH",), tags=(("K4A_DEPTH_MODE", "PASSIVE_IR"),)), "PASSIVE_IR: infrared"),
        (Options(tags=(("K4A_DEPTH_MODE", "NFOV_UNBINNED"),)), "640 × 576 pixels, as NFOV_UNBINNED.*320 × 288"),
        (Options(tags=(("K4A_DEPTH_MODE", "SIDEWAYS"),)), "K4A_DEPTH_MODE.*SIDEWAYS"),
        (Options(tags=(("K4A_START_OFFSET_NS", "soon"),)), "K4A_START_OFFSET_NS.*soon"),
    ],
)
def test_recordings_that_cannot_be_used(tmp_path: Path, options: Options, words: str) -> None:
    with pytest.raises(RecordingError, match=words):
        open_recording(recorded(tmp_path / "a.mkv", options))


def test_colour_that_is_not_read_leaves_depth(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes().replace(b"MJPG\0", b"H264\0"))
    with open_recording(path) as recording:
        assert recording.sensors[0].color_camera is None and recording.frame(0, "k4a") is not None
        assert any("H264" in note for note in recording.notes)


def test_a_film_is_no_recording(tmp_path: Path) -> None:
    kinds = element(0x1A45DFA3, element(0x4282, b"matroska"))
    (tmp_path / "film.mkv").write_bytes(kinds + element(0x18538067, element(0x1654AE6B, b"")))
    with pytest.raises(RecordingError, match="a recording"):
        open_recording(tmp_path / "film.mkv")


def test_a_file_of_nothing_but_heads_is_refused(tmp_path: Path) -> None:
    """Each step from element to element takes time: as many as no recording has are an error, not an afternoon."""
    kinds = element(0x1A45DFA3, element(0x4282, b"matroska"))
    body = element(0x1549A966, element(0x7BA9, b"Azure Kinect")) + b"\xec\x80" * 20_000
    (tmp_path / "a.mkv").write_bytes(kinds + element(0x18538067, body))
    with pytest.raises(RecordingError, match="Matroska elements"):
        open_recording(tmp_path / "a.mkv")


def test_cut_files_open_with_what_is_there(tmp_path: Path) -> None:
    """At the end of each image there is one more; in front of the first one there is an error."""
    path = recorded(tmp_path / "a.mkv", Options(without=("IR",)))
    whole = path.read_bytes()
    images = [whole.index(padded(frame.depth, sensor()).astype(">u2").tobytes()) for frame in frames(sensor())]
    size = 2 * 320 * 288
    for kept, at in [(1, images[0] + size), (1, images[1] + size - 1), (3, images[3] + 1000), (4, images[3] + size)]:
        path.write_bytes(whole[:at])
        with open_recording(path) as recording:
            assert recording.num_frames == kept
            assert any("cut" in note for note in recording.notes) == (at < len(whole))
            np.testing.assert_array_equal(
                counts_of(recording, kept - 1), padded(frames(sensor())[kept - 1].depth, sensor())
            )
    for at in (0, 3, 40, 60, 1000, 1400, 2500, images[0] + 5):
        path.write_bytes(whole[:at])
        with pytest.raises(InputError):
            open_recording(path)


def test_a_recorder_that_was_killed_and_damage_in_the_middle(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.mkv", Options(finished=False))
    data = bytearray(path.read_bytes())
    with open_recording(path) as recording:
        assert recording.num_frames == 4 and any("did not finish" in note for note in recording.notes)
    second = data.index(padded(frames(sensor())[1].depth, sensor()).astype(">u2").tobytes())
    data[second - 8 : second] = bytes(8)  # the header of a block
    path.write_bytes(data)
    with open_recording(path) as recording:
        assert recording.num_frames == 3 and any("1 damaged places" in note for note in recording.notes)
        np.testing.assert_array_equal(counts_of(recording, 1), padded(frames(sensor())[2].depth, sensor()))


def test_a_closed_recording_says_so(tmp_path: Path) -> None:
    recording = open_recording(recorded(tmp_path / "a.mkv"))
    recording.close()
    with pytest.raises(RecordingError, match="closed"):
        counts_of(recording, 0)


def test_padding_keeps_intrinsics() -> None:
    camera = Camera(300, 200, 250.0, 250.0, 149.5, 99.5)
    held = in_mode(Sensor("front", camera, np.eye(4)))
    read = read_calibration("c", json.dumps(calibration(held, Options())).encode()).depth_camera(DEPTH_MODES[0])
    assert (read.width, read.height) == (320, 288)
    assert (read.fx, read.cx, read.cy) == (pytest.approx(250), pytest.approx(149.5), pytest.approx(99.5))


@pytest.mark.parametrize(("muxer", "mutations"), [("recorder", 200), ("ffmpeg", 40), ("ffv1", 60)])
def test_damaged_files(tmp_path: Path, muxer: str, mutations: int) -> None:
    """Cut at 20 places and changed at random: each is read, or refused by an error of ours."""
    path = tmp_path / "a.mkv"
    if muxer == "recorder":
        write(path, [sensor()], frames(sensor())[:2], Options(acceleration=(0.0, 0.0, -9.8)))
    else:
        pytest.importorskip("av")
        codec = "ffv1" if muxer == "ffv1" else "rawvideo"
        write_with_pyav(path, [sensor()], frames(sensor())[:2], codec=codec)
    found = survey(path, tmp_path / "scratch", mutations=mutations)
    assert found.wrong == []
    assert found.cases == 21 + mutations and found.counts["whole"] > 10 and found.counts["refused"] > 5


@pytest.mark.parametrize("seed", range(3))
def test_damaged_headers(tmp_path: Path, seed: int) -> None:
    """Changes where they matter: in what describes tracks, tags, calibration, and in the heads of blocks."""
    one = sensor((48, 27))
    path = write(tmp_path / "a.mkv", [one], frames(one)[:3], Options(without=("IR",), acceleration=(0.0, 0.0, -9.8)))
    whole, rng = path.read_bytes(), np.random.default_rng(seed)
    info = whole.index(bytes.fromhex("1549a966"))
    heads = [whole.index(padded(f.depth, one).astype(">u2").tobytes()) for f in frames(one)[:3]]
    places = [
        *range(info, heads[0]),
        *(at - k for at in heads for k in range(40)),
        *range(len(whole) - 700, len(whole)),
    ]
    opened = 0
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.choice(places, rng.choice([1, 1, 3])):
            kind = rng.integers(4)
            if kind == 0:
                data[at] ^= 1 << rng.integers(8)
            elif kind == 1:
                data[at : at + 4] = rng.bytes(4)
            elif kind == 2:
                data[at : at + 8] = b"\xff" * 8
            else:
                del data[at : at + rng.integers(1, 20)]
        path.write_bytes(data)
        try:
            with open_recording(path) as recording:
                opened += 1
                for i in range(recording.num_frames):
                    counts_of(recording, i)
                    color_bytes(recording, i)
        except InputError:
            pass
    assert 20 < opened < 150
