"""Every way a recording can be wrong ends in an error that names the place, what belongs there and what was found."""

from __future__ import annotations

import math
import os
import re
import shutil
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_recording import edit_json, png, read_all, write_small

from bodyfit.errors import CameraError, ImageError, InputError, RecordingError
from bodyfit.recording import open_recording

Change = Callable[[dict], object]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("recording") / "small")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A recording of one's own to break."""
    return Path(shutil.copytree(pristine, tmp_path / "small"))


def refused(action: Callable[[], object], field: str, found: str = "", kind: type[InputError] = RecordingError) -> None:
    """The error is of that kind, its field is exactly that one, it says what was found, and ends a command with 2."""
    with pytest.raises(kind) as caught:
        action()
    assert caught.value.field == field and re.search(found, caught.value.found), str(caught.value)
    assert caught.value.exit_code == 2 and caught.value.expected


def test_the_recording_to_break_is_whole(folder: Path) -> None:
    assert read_all(open_recording(folder)) == 4


def test_no_folder(tmp_path: Path) -> None:
    refused(lambda: open_recording(tmp_path / "none"), str(tmp_path / "none"), "nothing of that name")
    (tmp_path / "file").write_text("x")
    refused(lambda: open_recording(tmp_path / "file"), str(tmp_path / "file"), "a file")
    refused(lambda: open_recording("nul\0"), "nul\0")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(lambda: open_recording(tmp_path / "loop"), str(tmp_path / "loop"))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (None, "no such file"),
        (b"", "Expecting value at line 1"),
        (b'{"format": "bodyfit.recording/1", ', "line 1"),
        (b"\xff\xfe{}", "byte 0"),
        (b"[1, 2]", "an array of 2 entries"),
        (b"null", "null"),
        (b"[" * 200_000, "nested too deep"),
        (b'{"a": ' * 100_000, "nested too deep"),
        (b"1" * 10_000, "too many digits"),
        (b" " * ((4 << 20) + 1), f"{(4 << 20) + 1} bytes"),
    ],
)
def test_broken_recording_json(folder: Path, data: bytes | None, found: str) -> None:
    file = folder / "recording.json"
    file.unlink()
    if data is not None:
        file.write_bytes(data)
    refused(lambda: open_recording(folder), "recording.json", found)


def test_a_key_twice(folder: Path) -> None:
    file = folder / "recording.json"
    file.write_text(file.read_text().replace('"name"', '"fx": 1, "fx": 2, "name"', 1))
    refused(lambda: open_recording(folder), "recording.json: fx", "twice")


def left(**values: object) -> Change:
    """Change keys of the first sensor; `camera__key` reaches into its depth camera."""

    def change(document: dict) -> None:
        for key, value in values.items():
            place = document["sensors"][0]
            *path, last = key.split("__")
            for step in path:
                place = place[step]
            place[last] = value

    return change


def without(*path: str | int) -> Change:
    def change(document: dict) -> None:
        place = document
        for step in path[:-1]:
            place = place[step]  # type: ignore[index]
        del place[path[-1]]  # type: ignore[arg-type]

    return change


ROTATED = [[0.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
REFLECTED = [[-1.0, 0.0, 0.0, 0.0], *np.eye(4)[1:].tolist()]
SCALED = np.diag([2.0, 2.0, 2.0, 1.0]).tolist()
SENSOR = "sensors[0]"
BROWN = {"model": "brown_conrady", "coefficients": [0.1, 0, 0, 0, 0]}

WRONG_VALUES: list[tuple[Change, str, str, type[InputError]]] = [
    (lambda d: d.update(format="bodyfit.recording/2"), "format", "recording/2", RecordingError),
    (lambda d: d.update(format=1), "format", "1", RecordingError),
    (without("format"), "format", "no such key", RecordingError),
    (without("sensors"), "sensors", "no such key", RecordingError),
    (lambda d: d.update(sensors=[]), "sensors", "none", RecordingError),
    (lambda d: d.update(sensors={}), "sensors", "object", RecordingError),
    (lambda d: d.update(sensors=d["sensors"] * 200), "sensors", "400 entries", RecordingError),
    (lambda d: d.update(sensors=["left"]), SENSOR, '"left"', RecordingError),
    (without("gravity_world"), "gravity_world", "no such key", RecordingError),
    (lambda d: d.update(gravity_world=[0, 0, -9.81]), "gravity_world", "9.81", RecordingError),
    (lambda d: d.update(gravity_world=[0, 0, 0]), "gravity_world", "length 0", RecordingError),
    (lambda d: d.update(gravity_world=[0, -1]), "gravity_world", "shape", RecordingError),
    (lambda d: d.update(gravity_world=[0, 0, math.nan]), "gravity_world[2]", "nan", RecordingError),
    (lambda d: d.update(gravity_world="down"), "gravity_world", "down", RecordingError),
    *(
        (without("sensors", 0, key), f"{SENSOR}.{key}", "no such key", RecordingError)
        for key in ("name", "depth_camera", "color_camera", "T_color_depth", "T_world_depth")
    ),
    *(
        (without("sensors", 0, "depth_camera", key), f"{SENSOR}.depth_camera.{key}", "no such key", RecordingError)
        for key in ("width", "height", "fx", "fy", "cx", "cy", "distortion")
    ),
    *(
        (left(name=name), f"{SENSOR}.name", re.escape(repr(name)[1:6]), RecordingError)
        for name in (
            "..",
            "../left",
            "/etc",
            "a/b",
            "a\\b",
            "",
            ".",
            ".hidden",
            "truth",
            "Truth",
            "a\0",
            "a\n",
            "x" * 65,
        )
    ),
    (left(name=7), f"{SENSOR}.name", "7", RecordingError),
    (left(name="right"), "sensors[1].name", r"sensors\[0\]", RecordingError),
    (left(name="RIGHT"), "sensors[1].name", r"sensors\[0\]", RecordingError),
    (left(depth_camera=None), f"{SENSOR}.depth_camera", "null", RecordingError),
    (left(depth_camera__fx=math.nan), f"{SENSOR}.depth_camera.fx", "nan", RecordingError),
    (left(depth_camera__fy=math.inf), f"{SENSOR}.depth_camera.fy", "inf", RecordingError),
    (left(depth_camera__fx=10**400), f"{SENSOR}.depth_camera.fx", "inf", RecordingError),
    (left(depth_camera__fx="35"), f"{SENSOR}.depth_camera.fx", '"35"', RecordingError),
    (left(depth_camera__fx=True), f"{SENSOR}.depth_camera.fx", "true", RecordingError),
    (left(depth_camera__fx=0), f"{SENSOR}.depth_camera.fx", "0", CameraError),
    (left(depth_camera__fx=-35.0), f"{SENSOR}.depth_camera.fx", "-35", CameraError),
    (left(depth_camera__fy=1e9), f"{SENSOR}.depth_camera.fy", "1e.09", CameraError),
    (left(depth_camera__cx=-500), f"{SENSOR}.depth_camera.cx", "-500", CameraError),
    (left(depth_camera__width=0), f"{SENSOR}.depth_camera.width", "0", CameraError),
    (left(depth_camera__width=40.5), f"{SENSOR}.depth_camera.width", "40.5", RecordingError),
    (left(depth_camera__height=100_000), f"{SENSOR}.depth_camera.height", "100000", CameraError),
    (left(depth_camera__height=10**400), f"{SENSOR}.depth_camera.height", "1000", CameraError),
    (left(color_camera__fx=math.nan), f"{SENSOR}.color_camera.fx", "nan", RecordingError),
    (
        left(depth_camera__distortion__model="fisheye"),
        f"{SENSOR}.depth_camera.distortion.model",
        "fisheye",
        CameraError,
    ),
    (
        left(depth_camera__distortion={"model": "brown_conrady", "coefficients": [0.1]}),
        f"{SENSOR}.depth_camera.distortion.coefficients",
        "1 numbers",
        CameraError,
    ),
    (
        left(depth_camera__distortion={"model": "brown_conrady", "coefficients": [0, 0, math.nan, 0, 0]}),
        f"{SENSOR}.depth_camera.distortion.coefficients[2]",
        "nan",
        RecordingError,
    ),
    (
        left(depth_camera__distortion={"model": "brown_conrady", "coefficients": [-3.0, 0, 0, 0, 0]}),
        f"{SENSOR}.depth_camera.distortion.coefficients",
        "folds over",
        CameraError,
    ),
    (
        left(color_camera__distortion={"model": "rational", "coefficients": [1e200] * 8}),
        f"{SENSOR}.color_camera.distortion.coefficients",
        "1e.200",
        CameraError,
    ),
    (left(T_world_depth=REFLECTED), f"{SENSOR}.T_world_depth", "reflection", CameraError),
    (left(T_world_depth=SCALED), f"{SENSOR}.T_world_depth", "scales", CameraError),
    (left(T_world_depth=ROTATED[:3]), f"{SENSOR}.T_world_depth", "3 rows", RecordingError),
    (left(T_world_depth=[[1, 0], [0, 1]]), f"{SENSOR}.T_world_depth", "2 rows", RecordingError),
    (left(T_world_depth=np.zeros((4, 4)).tolist()), f"{SENSOR}.T_world_depth", r"\[0", CameraError),
    (left(T_world_depth=[[1e6, *row[1:]] for row in ROTATED]), f"{SENSOR}.T_world_depth", "", CameraError),
    (left(T_world_depth=[["1", *row[1:]] for row in ROTATED]), f"{SENSOR}.T_world_depth[0][0]", '"1"', RecordingError),
    (left(T_world_depth=[[math.nan, *r[1:]] for r in ROTATED]), f"{SENSOR}.T_world_depth[0][0]", "nan", RecordingError),
    (left(T_color_depth=SCALED), f"{SENSOR}.T_color_depth", "scales", CameraError),
    (left(T_color_depth=None), f"{SENSOR}.T_color_depth", "null", RecordingError),
    *(
        (left(depth_unit_m=unit), f"{SENSOR}.depth_unit_m", found, RecordingError)
        for unit, found in ((0, "0"), (-0.001, "-0"), (1000, "1000"), (math.nan, "nan"), ("mm", "mm"), (1e-9, "1e-09"))
    ),
]


@pytest.mark.parametrize(("change", "field", "found", "kind"), WRONG_VALUES, ids=lambda value: str(value)[:40])
def test_wrong_values(folder: Path, change: Change, field: str, found: str, kind: type[InputError]) -> None:
    edit_json(folder / "recording.json", change)
    refused(lambda: open_recording(folder), f"recording.json: {field}", found, kind)


def test_no_depth_unit_at_all(folder: Path) -> None:
    def change(document: dict) -> None:
        del document["depth_unit_m"]

    edit_json(folder / "recording.json", change)
    refused(lambda: open_recording(folder), "recording.json: depth_unit_m", "no such key")


@pytest.mark.parametrize(
    ("text", "field", "found"),
    [
        (None, "frames.csv", "no such file"),
        ("", "frames.csv: line 1", "''"),
        ("index,timestamp_s\n", "frames.csv", "none"),
        ("0,0.0\n10,0.1\n", "frames.csv: line 1", "0,0.0"),
        ("index,timestamp_s,left.heat\n", "frames.csv: column 3", "left.heat"),
        ("index,timestamp_s,left.depth_s,left.depth_s\n", "frames.csv: column 4", "twice"),
        ("index,timestamp_s\n0\n", "frames.csv: line 2", "1"),
        ("index,timestamp_s\n0,0,0\n", "frames.csv: line 2", "3"),
        ("index,timestamp_s\n0,0\n-1,1\n", "frames.csv: line 3, index", "-1"),
        ("index,timestamp_s\n0,0\n1.5,1\n", "frames.csv: line 3, index", "1.5"),
        ("index,timestamp_s\n0,0\n1000000,1\n", "frames.csv: line 3, index", "1000000"),
        ("index,timestamp_s\n0,0\n../../x,1\n", "frames.csv: line 3, index", "x"),
        ("index,timestamp_s\n10,0\n10,1\n", "frames.csv: line 3, index", "10"),
        ("index,timestamp_s\n0,0\n10,nan\n", "frames.csv: line 3, timestamp_s", "nan"),
        ("index,timestamp_s\n0,\n", "frames.csv: line 2, timestamp_s", "''"),
        ("index,timestamp_s\n0,1e999\n", "frames.csv: line 2, timestamp_s", "1e999"),
        ("index,timestamp_s\n0,1\n10,0.5\n", "frames.csv: line 3, timestamp_s", "0.5 s"),
        ("index,timestamp_s\n0,1\n10,1\n", "frames.csv: line 3, timestamp_s", "1 s"),
        ("index,timestamp_s,left.color_s\n0,1,5\n10,2,\n20,3,4\n", "frames.csv: line 4, left.color_s", "4 s"),
        ('index,timestamp_s\n0,"1\n', "frames.csv", "end of data"),
        ("index,timestamp_s\n0," + "1" * 200_000, "frames.csv", "field larger"),
        ("index,timestamp_s\n1,0\n2,1\n", "left/depth", "none of these"),
    ],
)
def test_bad_frames_csv(folder: Path, text: str | None, field: str, found: str) -> None:
    (folder / "frames.csv").unlink()
    if text is not None:
        (folder / "frames.csv").write_text(text)
    refused(lambda: open_recording(folder), field, found)


def test_frames_csv_that_is_no_text(folder: Path) -> None:
    (folder / "frames.csv").write_bytes(b"index,timestamp_s\n0,\xff\n")
    refused(lambda: open_recording(folder), "frames.csv", "byte 20")


def test_a_million_lines_without_a_time_are_read_in_seconds(folder: Path) -> None:
    rows = "".join(f"{i},{i},\n" for i in range(200_000))
    (folder / "frames.csv").write_text("index,timestamp_s,left.color_s\n" + rows)
    start = time.perf_counter()
    assert open_recording(folder).num_frames == 200_000
    assert time.perf_counter() - start < 10


def test_missing_frames(folder: Path) -> None:
    (folder / "left" / "depth" / "000010.png").unlink()
    recording = open_recording(folder)
    assert recording.frame(1, "left") is None and recording.frame(0, "left") is not None
    (folder / "right" / "depth" / "000010.png").unlink()
    refused(lambda: open_recording(folder), "right/depth", "0 files")
    shutil.rmtree(folder / "left")
    refused(lambda: open_recording(folder), "left/depth", "no such folder")
    (folder / "left").mkdir()
    (folder / "left" / "depth").write_text("")
    refused(lambda: open_recording(folder), "left/depth", "a file")


def test_colour_without_camera(folder: Path) -> None:
    edit_json(folder / "recording.json", left(color_camera=None))
    refused(lambda: open_recording(folder), "left/color", "3 ")


DEPTH = "left/depth/000000.png"
COLOR = "left/color/000000.jpg"
MASK = "left/mask/000000.png"


def first_frame(folder: Path) -> Callable[[], object]:
    recording = open_recording(folder)
    return lambda: recording.frame(0, "left")


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


WRONG_IMAGES: list[tuple[str, bytes, str]] = [
    (DEPTH, encoded(np.ones((32, 40), np.uint8)), "an 8-bit greyscale PNG"),
    (DEPTH, encoded(np.ones((32, 40, 3), np.uint16)), "a 16-bit RGB PNG"),
    (DEPTH, encoded(np.ones((32, 40, 3), np.uint8)), "an 8-bit RGB PNG"),
    (DEPTH, encoded(np.ones((32, 40, 4), np.uint16)), "a 16-bit RGBA PNG"),
    (DEPTH, encoded(np.ones((32, 40), np.uint8), ".jpg"), "JPEG"),
    (DEPTH, encoded(np.ones((32, 40), np.uint16), ".tiff"), "another kind of file"),
    (DEPTH, encoded(np.ones((40, 32), np.uint16)), "32 × 40 pixels"),
    (DEPTH, encoded(np.ones((64, 80), np.uint16)), "80 × 64 pixels"),
    (DEPTH, png(100_000, 100_000, 16, 0), "100000 × 100000 pixels"),
    (DEPTH, png(2**31, 1, 16, 0), "2147483648 × 1 pixels"),
    (DEPTH, png(40, 32, 16, 0), "broken image data"),
    (DEPTH, png(40, 32, 16, 5), "not define"),
    (DEPTH, b"", "an empty file"),
    (DEPTH, b"not an image", "another kind of file"),
    (DEPTH, b"\x89PNG\r\n\x1a\n", "cut or broken header"),
    (DEPTH, png(40, 32, 16, 0) + b"x" * (2 << 20), "bytes"),
    (COLOR, encoded(np.ones((27, 47, 3), np.uint8), ".jpg"), "47 × 27 pixels"),
    (COLOR, encoded(np.ones((27, 48, 3), np.uint16)), "a 16-bit RGB PNG"),
    (COLOR, png(100_000, 100_000, 8, 2), "100000 × 100000 pixels"),
    (COLOR, b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xdc\xff\xdc\x01\x01\x11\0", "65500 × 65500 pixels"),
    (COLOR, b"\xff\xd8\xff\xc0\0\x0b\x0c\0\x1b\0\x30\x01\x01\x11\0", "a 12-bit greyscale JPEG"),
    (COLOR, b"\xff\xd8\xff\xc3\0\x0b\x08\0\x1b\0\x30\x01\x01\x11\0", "SOF3"),
    (COLOR, b"\xff\xd8\xff\xc0\0\x0b\x08\0\x1b\0\x30\x04\x01\x11\0", "4 components"),
    (COLOR, b"\xff\xd8\xff\xd9", "none before its end"),
    (COLOR, b"\xff\xd8", "cut off"),
    (COLOR, b"\xff\xd8\x00\x00", "no marker at byte 2"),
    (MASK, encoded(np.ones((32, 40), np.uint16)), "a 16-bit greyscale PNG"),
    (MASK, encoded(np.ones((32, 40, 3), np.uint8)), "an 8-bit RGB PNG"),
    (MASK, encoded(np.ones((27, 48), np.uint8)), "48 × 27 pixels"),
    (MASK, encoded(np.ones((32, 40), np.uint8)), "no value above 1"),
]


@pytest.mark.parametrize(("file", "data", "found"), WRONG_IMAGES, ids=lambda value: str(value)[:40])
def test_wrong_images(folder: Path, file: str, data: bytes, found: str) -> None:
    (folder / file).write_bytes(data)
    tracemalloc.start()
    refused(first_frame(folder), file, found, ImageError)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("file", [DEPTH, COLOR, MASK])
def test_truncated_images(folder: Path, file: str) -> None:
    """Cut anywhere, a PNG or JPEG is refused; OpenCV alone would fill some of them up with grey."""
    whole = (folder / file).read_bytes()
    for length in sorted({*range(0, len(whole), max(1, len(whole) // 97)), len(whole) - 1}):
        (folder / file).write_bytes(whole[:length])
        refused(first_frame(folder), file, "cut|empty|kind", ImageError)


def test_one_wrong_bit_in_a_png(folder: Path) -> None:
    file = folder / DEPTH
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    refused(first_frame(folder), DEPTH, "checksum", ImageError)


def test_an_animated_png(folder: Path) -> None:
    data = (folder / DEPTH).read_bytes()
    body = b"acTL" + bytes(8)
    chunk = len(body[4:]).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    (folder / DEPTH).write_bytes(data[:33] + chunk + data[33:])
    refused(first_frame(folder), DEPTH, "animated", ImageError)


def test_files_that_are_none(folder: Path) -> None:
    file = folder / DEPTH
    file.unlink()
    file.mkdir()
    refused(first_frame(folder), DEPTH, "folder|special", ImageError)
    file.rmdir()
    file.symlink_to(folder / "nowhere.png")
    refused(first_frame(folder), DEPTH, "no such file", ImageError)
    file.unlink()
    file.symlink_to(file)
    refused(first_frame(folder), DEPTH, "", ImageError)
    file.unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(file)
        refused(first_frame(folder), DEPTH, "pipe", ImageError)
        file.unlink()
        os.mkfifo(folder / "pipe")
        (folder / "recording.json").unlink()
        (folder / "recording.json").symlink_to(folder / "pipe")
        refused(lambda: open_recording(folder), "recording.json", "pipe")


def test_nothing_outside_of_the_folder_is_opened(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "left" / "depth", tmp_path / "elsewhere")
    (folder / "left" / "depth").symlink_to(tmp_path / "elsewhere")
    refused(lambda: open_recording(folder), "left/depth", "outside")
    shutil.move(folder / "recording.json", tmp_path / "r.json")
    (folder / "recording.json").symlink_to(tmp_path / "r.json")
    refused(lambda: open_recording(folder), "recording.json", "outside")


@pytest.mark.parametrize(
    ("change", "field", "found"),
    [
        (lambda d: d.update(names=["nose", "tail"]), ": names[1]", "tail"),
        (lambda d: d.update(names=["nose", "nose"]), ": names[1]", "nose"),
        (lambda d: d.update(names=["nose"]), ": xy", "2 entries"),
        (lambda d: d.update(names="nose"), ": names", '"nose"'),
        (lambda d: d.pop("xy"), ": xy", "no such key"),
        (lambda d: d["xy"][0].append(1.0), ": xy[0]", "3 entries"),
        (lambda d: d["xy"][1].pop(), ": xy", "numbers"),
        (lambda d: d["xy"][1].__setitem__(0, math.nan), ": xy[1][0]", "nan"),
        (lambda d: d["xy"][1].__setitem__(0, None), ": xy[1][0]", "null"),
        (lambda d: d["xy"][1].__setitem__(0, 5000), ": xy[1]", "5000"),
        (lambda d: d["confidence"].pop(), ": confidence", "1"),
        (lambda d: d["confidence"].__setitem__(0, 1.5), ": confidence[0]", "1.5"),
    ],
)
def test_bad_keypoints(folder: Path, change: Change, field: str, found: str) -> None:
    file = "left/keypoints/000010.json"
    edit_json(folder / file, change)
    recording = open_recording(folder)
    refused(lambda: recording.frame(1, "left"), file + field, found)
