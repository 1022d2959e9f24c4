"""The table of formats, conversion to the native one, sensors that move, and what `bodyfit inspect` tells."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from format_damage import survey
from small_recording import frames, sensors, transform, write_small

from bodyfit.cli.main import app
from bodyfit.errors import FrameError, InputError, OutputError, RecordingError
from bodyfit.recording import Recording, open_recording, write_recording
from bodyfit.recording.convert import convert_recording
from bodyfit.recording.description import Sensor
from bodyfit.recording.encoded import Coding, EncodedFrame, EncodedImage
from bodyfit.recording.formats import FORMATS, format_of
from bodyfit.recording.inspect import inspect_recording
from bodyfit.recording.timeline import Timeline


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_small(tmp_path / "small")


class Arrays:
    """Images that no file holds: counts, metres and RGB."""

    def __init__(self, depth: np.ndarray, color: np.ndarray, coding: Coding) -> None:
        self.depth, self.color, self.coding = depth, color, coding

    def encoded(self, i: int, sensor: Sensor) -> EncodedFrame | None:
        if i == 1:
            return None
        if i == 2:
            raise RecordingError("chunk 2", "a whole chunk", "half of one")
        depth = EncodedImage("depth", self.coding, self.depth.tobytes)
        place = transform((0, 0.1 * i, 0), (0.2 * i, 0, 0))
        return EncodedFrame(depth, EncodedImage("color", Coding.UINT8, self.color.tobytes), None, None, place)

    def close(self) -> None:
        pass


def arrays(tmp_path: Path, coding: Coding) -> tuple[Recording, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    left, _ = sensors()
    counts = rng.integers(500, 5000, (32, 40))
    depth = counts.astype("<u2") if coding is Coding.UINT16 else (counts * 0.00025 + 0.1).astype("<f4")
    color = rng.integers(0, 255, (27, 48, 3)).astype(np.uint8)
    timeline = Timeline(np.arange(4), np.arange(4) / 30, {"left.depth_s": np.array([1.0, np.nan, 2.0, 3.0])})
    source = Recording(tmp_path, "arrays", [left], timeline, None, Arrays(depth, color, coding), ["it is a test"])
    return source, depth, color


@pytest.mark.parametrize("coding", [Coding.UINT16, Coding.FLOAT32])
def test_arrays_become_files_without_loss(tmp_path: Path, coding: Coding) -> None:
    """Counts stay counts, metres are rounded to a quarter of a millimetre; broken and absent frames are left out."""
    source, depth, color = arrays(tmp_path, coding)
    done = convert_recording(source, tmp_path / "out", color_format="png")
    assert (done.instants, done.images) == (2, 4) and list(done.skipped) == ["2 of left"]
    made = open_recording(tmp_path / "out")
    assert made.indices.tolist() == [0, 3] and made.timestamps_s.tolist() == [0.0, 3 / 30]
    assert made.stream_timestamps_s["left.depth_s"].tolist() == [1.0, 3.0]
    for t, i in enumerate((0, 3)):
        ours, theirs = made.frame(t, "left"), source.frame(i, "left")
        assert ours is not None and theirs is not None and ours.color is not None
        if coding is Coding.UINT16:
            assert np.array_equal(ours.depth, theirs.depth)
        else:
            assert np.abs(ours.depth - depth).max() <= 0.000126 and made.sensors[0].depth_unit_m == 0.00025
        assert np.array_equal(ours.color, color)
        assert np.array_equal(ours.T_world_depth, theirs.T_world_depth)


def test_a_converted_native_recording_has_the_same_files(small: Path, tmp_path: Path) -> None:
    convert_recording(open_recording(small), tmp_path / "again")
    files = sorted(str(f.relative_to(small)) for f in small.rglob("*") if f.is_file())
    assert len(files) > 10
    for name in files:
        assert (tmp_path / "again" / name).read_bytes() == (small / name).read_bytes(), name


def test_a_part_of_a_recording(small: Path, tmp_path: Path) -> None:
    done = convert_recording(open_recording(small), tmp_path / "part", frames=[1], sensors=["right"])
    part = open_recording(done.path)
    assert [s.name for s in part.sensors] == ["right"] and part.indices.tolist() == [10]
    with pytest.raises(InputError, match="positions from 0 to 2"):
        convert_recording(open_recording(small), tmp_path / "none", frames=[3])
    with pytest.raises(OutputError, match="free"):
        convert_recording(open_recording(small), done.path)
    with pytest.raises(RecordingError, match="sensor right: expected at least one depth"):
        convert_recording(open_recording(small), tmp_path / "none", frames=[0], sensors=["right"])
    assert not (tmp_path / "none").exists() and not list(tmp_path.glob(".*.part"))


def moved_frames() -> list:
    out = []
    for frame in frames():
        T = transform((0.0, 0.02 * frame.index, 0.0), (0.01 * frame.index, 0.0, 1.0))
        out.append(dataclasses.replace(frame, T_world_depth=T) if frame.sensor == "left" else frame)
    return out


def test_sensors_that_move(tmp_path: Path) -> None:
    """Each frame has its own place, written beside the sensor's images and read again, through conversion too."""
    with pytest.raises(FrameError, match="T_world_depth"):
        write_recording(tmp_path / "still", sensors(), moved_frames())
    folder = write_recording(tmp_path / "moved", sensors(), moved_frames(), moving=True)
    convert_recording(open_recording(folder), tmp_path / "again")
    for place in (folder, tmp_path / "again"):
        recording = open_recording(place)
        positions = {int(index): i for i, index in enumerate(recording.indices)}
        for frame in moved_frames():
            read = recording.frame(positions[frame.index], frame.sensor)
            assert read is not None and np.array_equal(read.T_world_depth, frame.T_world_depth)
    report, _ = inspect_recording(open_recording(folder))
    assert [round(s.moves_m, 6) for s in report.sensors] == [0.2, 0.0]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("index,", "number,", "line 1"),
        ("\n10,", "\nten,", "line 3, index"),
        ("\n10,", "\n0,", "0 twice"),
        ("\n10,", "\n10,nan", "line 3"),
        ("\n10,", "\n10,5", "line 3"),
        ("\n10,", "\n10,1.0,", "13 values"),
    ],
)
def test_places_that_make_no_sense(tmp_path: Path, old: str, new: str, says: str) -> None:
    folder = write_recording(tmp_path / "moved", sensors(), moved_frames(), moving=True)
    file = folder / "left" / "poses.csv"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=says):
        open_recording(folder)


def test_formats_are_told_by_content(small: Path, tmp_path: Path) -> None:
    assert format_of(small).name == "bodyfit"
    assert len({one.name for one in FORMATS}) == len(FORMATS)
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing.mkv").touch()
    (tmp_path / "text.bag").write_text("no bag at all")
    os.mkfifo(tmp_path / "pipe")
    for name, found in [
        ("empty", "nothing in it"),
        ("nothing.mkv", "an empty file"),
        ("text.bag", "starts b'no bag at all"),
        ("pipe", "a pipe"),
        ("missing", "nothing of that name"),
        ("nul\0", "null"),
    ]:
        with pytest.raises(RecordingError, match=found):
            open_recording(tmp_path / name)


def test_recordings_check_what_a_reader_gives(tmp_path: Path) -> None:
    """A format's reader that gives nonsense is refused, whatever the format."""
    left, right = sensors()
    store = Arrays(np.zeros(1), np.zeros(1), Coding.UINT16)

    def made(times: list[float], indices: list[int], *names: Sensor) -> Recording:
        return Recording(tmp_path / "r", "x", names, Timeline(np.array(indices), np.array(times), {}), None, store)

    assert made([0.0, 1.0], [3, 5], left, right).num_frames == 2
    for times, indices, names, says in [
        ([], [], (left,), "at least one"),
        ([0.0, 0.0], [0, 1], (left,), "rise"),
        ([0.0, 1.0], [1, 1], (left,), "rise"),
        ([0.0, np.nan], [0, 1], (left,), "finite"),
        ([0.0], [0], (), "at least one"),
        ([0.0], [0], (left, left), "a name of its own"),
        ([0.0], [0], (dataclasses.replace(left, name=".."),), "letters"),
    ]:
        with pytest.raises(InputError, match=says):
            made(times, indices, *names)


def test_gaps_and_rate(tmp_path: Path) -> None:
    left, _ = sensors()
    first = frames()[0]
    times = [0.0, 0.1, 0.2, 0.5, 0.6, 0.8]
    taken = [dataclasses.replace(first, index=i, timestamp_s=t) for i, t in enumerate(times)]
    report, seen = inspect_recording(open_recording(write_recording(tmp_path / "r", [left], taken)), samples=3)
    assert report.rate_hz == pytest.approx(10) and report.num_gaps == 2 and report.lost == 3
    assert report.gaps[0].after_index == 2 and report.gaps[0].seconds == pytest.approx(0.3)
    assert report.sensors[0].looked_at == (0, 2, 5) and len(seen["left"]) == 3
    assert report.sensors[0].step_m == pytest.approx(0.001, abs=1e-5)


def test_the_commands(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["convert", str(small), str(tmp_path / "out"), "--frames", "10", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 3
    assert app(["inspect", str(tmp_path / "out"), "--sheet", str(tmp_path / "sheet.png")]) == 0
    said = capsys.readouterr().out
    assert "40 × 32" in said and "0.25 mm a count" in said and "nobody found" in said
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None and sheet.shape[1] > 240 and sheet.std() > 10
    assert app(["inspect", str(tmp_path / "out"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == "bodyfit" and document["rate_hz"] is None
    assert [s["name"] for s in document["sensors"]] == ["left", "right"]
    assert app(["inspect", str(tmp_path / "out"), "--sheet", str(tmp_path / "sheet.gif")]) == 2
    assert app(["convert", str(tmp_path / "missing"), str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()


def test_a_damaged_native_recording(small: Path, tmp_path: Path) -> None:
    found = survey(small, tmp_path / "damaged")
    assert not found.wrong, "\n".join(found.wrong)
    assert found.cases == 221 and found.counts["refused"] > 50 and found.counts["whole"] > 10
