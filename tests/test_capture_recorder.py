"""The recorder: every frame that is read is written or counted, and what was written is readable whatever happens."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from capture_frames import FPS, ScriptedSource, captured, small_sensor

from bodyfit.capture import recorder as recorder_module
from bodyfit.capture.clock import CaptureClock
from bodyfit.capture.counts import Cause
from bodyfit.capture.recorder import Recorder
from bodyfit.capture.session import Session
from bodyfit.errors import DeviceError, OutputError, RecordingError
from bodyfit.recording.formats import open_recording
from bodyfit.recording.images import decode_depth

TESTS = Path(__file__).resolve().parent


def depth_of(path: Path, i: int) -> np.ndarray:
    with open_recording(path) as recording:
        encoded = recording.encoded(i, "cam")
        assert encoded is not None
        return decode_depth("depth", encoded.depth.load(), recording.sensors[0].depth_camera)


def whole(path: Path) -> list[int]:
    """Indices of a recording's frames, after every one was read and held against what was captured."""
    with open_recording(path) as recording:
        for i, index in enumerate(recording.indices):
            frame = recording.frame(i, "cam")
            assert frame is not None
            np.testing.assert_array_equal(depth_of(path, i), captured(int(index)).depth)
        assert (np.diff(recording.timestamps_s) > 0).all()
        return [int(i) for i in recording.indices]


def told(path: Path) -> dict:
    return json.loads((path / "capture.json").read_text())


def test_what_is_written_is_what_was_captured(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "rec", small_sensor(), gravity_world=np.array([0, 1.0, 0]), device={"name": "cam"})
    for k in range(20):
        assert recorder.offer(captured(k)) == k
    counts = recorder.finish("asked")
    assert (counts.read, counts.written, counts.failed) == (20, 20, 0)
    assert whole(tmp_path / "rec") == list(range(20))
    with open_recording(tmp_path / "rec") as recording:
        (sensor,) = recording.sensors
        asked = small_sensor()
        assert sensor.depth_camera == asked.depth_camera and sensor.color_camera == asked.color_camera
        assert sensor.depth_unit_m == asked.depth_unit_m
        np.testing.assert_array_equal(sensor.T_color_depth, asked.T_color_depth)
        np.testing.assert_allclose(recording.timestamps_s, np.arange(20) / FPS, atol=1e-9)
        lag = recording.stream_timestamps_s["cam.color_s"] - recording.stream_timestamps_s["cam.depth_s"]
        np.testing.assert_allclose(lag, 0.004, atol=1e-9)
        assert recording.notes == ()
        frame = recording.frame(3, "cam")
        assert frame is not None and frame.color is not None and abs(int(np.median(frame.color)) - 3) <= 1
    document = told(tmp_path / "rec")
    assert document["finished"] and document["frames"]["written"] == 20 and document["ended"] == "asked"
    names = {p.name for p in (tmp_path / "rec").rglob("*")}
    assert not any(name.startswith(".") for name in names)


def test_jpeg_bytes_are_stored_as_they_came(tmp_path: Path) -> None:
    from dataclasses import replace

    jpeg = recorder_module.encoded_color(np.full((45, 80, 3), 90, np.uint8), 80)
    recorder = Recorder(tmp_path / "rec", small_sensor())
    recorder.offer(replace(captured(0), color=jpeg))
    recorder.finish("asked")
    assert (tmp_path / "rec/cam/color/000000.jpg").read_bytes() == jpeg


def slowly(seconds: float) -> Callable[..., None]:
    write = recorder_module.write_whole

    def slow(file: Path, data: bytes) -> None:
        time.sleep(seconds)
        write(file, data)

    return slow


def test_what_is_behind_stores_depth_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "write_whole", slowly(0.002))
    recorder = Recorder(tmp_path / "rec", small_sensor(), queue_frames=40, writers=1)
    for k in range(40):
        recorder.offer(captured(k))
    counts = recorder.finish("asked")
    assert counts.written == 40 and 5 < counts.unpacked < 40
    assert whole(tmp_path / "rec") == list(range(40))
    sizes = [(tmp_path / f"rec/cam/depth/{k:06d}.png").stat().st_size for k in (5, 39)]
    assert sizes[0] > sizes[1] and told(tmp_path / "rec")["frames"]["unpacked"] == counts.unpacked


def test_a_burst_on_a_slow_disk_is_dropped_by_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "write_whole", slowly(0.005))
    recorder = Recorder(tmp_path / "rec", small_sensor(), queue_frames=4, writers=2)
    slowest = 0.0
    for k in range(60):
        began = time.thread_time()
        recorder.offer(captured(k))
        slowest = max(slowest, time.thread_time() - began)
    counts = recorder.finish("asked")
    dropped = counts.dropped[Cause.QUEUE_FULL]
    assert counts.read == 60 == counts.written + dropped
    assert dropped > 20 and counts.written >= 4
    kept = whole(tmp_path / "rec")
    document = told(tmp_path / "rec")
    missing = [i for run in document["drops"] for i in range(run["first"], run["last"] + 1)]
    assert sorted(kept + missing) == list(range(60))
    assert {run["cause"] for run in document["drops"]} == {"queue_full"}


def test_an_encoder_that_fails_costs_its_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = recorder_module.encoded_depth

    def moody(counts: np.ndarray, *, packed: bool = True) -> bytes:
        if counts[0, 0] in (3, 4, 9):
            raise ValueError("no")
        return encode(counts, packed=packed)

    monkeypatch.setattr(recorder_module, "encoded_depth", moody)
    recorder = Recorder(tmp_path / "rec", small_sensor())
    for k in range(12):
        recorder.offer(captured(k))
    counts = recorder.finish("asked")
    assert counts.dropped == {Cause.ENCODER: 3} and counts.written == 9
    assert whole(tmp_path / "rec") == [0, 1, 2, 5, 6, 7, 8, 10, 11]
    # nothing is left of a frame that is not in the recording
    assert len(list((tmp_path / "rec/cam/color").iterdir())) == 9


def test_frames_that_are_broken_or_not_wanted_are_counted(tmp_path: Path) -> None:
    from dataclasses import replace

    recorder = Recorder(tmp_path / "rec", small_sensor())
    recorder.offer(captured(0))
    recorder.offer(replace(captured(1), depth=np.zeros((4, 4), np.uint16)))
    recorder.offer(replace(captured(2), color=np.zeros((4, 4, 3), np.uint8)))
    recorder.offer(replace(captured(3), depth_time_s=float("nan")))
    recorder.offer(captured(4), wanted=False)
    recorder.offer(captured(5), view=1)
    recorder.offer(captured(6), view=1)
    recorder.offer(captured(7, time_s=captured(6).depth_time_s))
    counts = recorder.finish("asked")
    assert counts.dropped == {Cause.BROKEN: 3, Cause.NOT_ASKED: 1, Cause.REPEATED: 1}
    assert counts.read == 8 == counts.written + sum(counts.dropped.values()) and counts.failed == 3
    assert recorder.spans == {1: (5, 6)}
    assert whole(tmp_path / "rec") == [0, 5, 6]


def test_what_the_device_lost_is_known_by_its_count(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "rec", small_sensor())
    for k, number in enumerate([10, 11, 15, 16, 18]):
        recorder.offer(captured(k, number=number))
    counts = recorder.finish("asked")
    assert counts.lost_by_device == 4 and counts.failed == 0
    assert [(g["before"], g["count"]) for g in told(tmp_path / "rec")["device_gaps"]] == [(2, 3), (4, 1)]


def test_a_clock_that_jumps_leaves_times_that_rise(tmp_path: Path) -> None:
    from dataclasses import replace

    times = [50.0, 50.033, 50.066, 3.0, 3.033, 1e6, 1e6 + 0.033]
    recorder = Recorder(tmp_path / "rec", small_sensor())
    for k, t in enumerate(times):
        recorder.offer(replace(captured(k, time_s=t), arrived_s=10 + k / 30))
    recorder.finish("asked")
    with open_recording(tmp_path / "rec") as recording:
        np.testing.assert_allclose(np.diff(recording.timestamps_s), 0.033, atol=0.002)
    clock = told(tmp_path / "rec")["clock"]
    assert clock["jumps"] == 2 and len(clock["events"]) == 2 and clock["first_device_s"] == 50.0


def test_clock_of_equal_and_hardly_different_times() -> None:
    clock = CaptureClock()
    assert clock.instant(1.6e9, 0.0) == 0.0
    assert clock.instant(1.6e9, 0.1) is None
    last = 0.0
    for k in range(1, 200):
        now = clock.instant(1.6e9 + k * 3e-7, 0.1 + k * 1e-3)
        assert now is None or now > last
        last = now or last


def test_refuses_to_write_over_something(tmp_path: Path) -> None:
    (tmp_path / "rec").mkdir()
    with pytest.raises(OutputError, match="in its place"):
        Recorder(tmp_path / "rec", small_sensor())
    with pytest.raises(OutputError, match="parent folder"):
        Recorder(tmp_path / "no/rec", small_sensor())


def test_nothing_written_leaves_nothing(tmp_path: Path) -> None:
    Recorder(tmp_path / "rec", small_sensor()).finish("asked")
    assert not (tmp_path / "rec").exists()


def test_a_lost_device_is_told_and_the_recording_closed(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "rec", small_sensor())
    script = [*(captured(k) for k in range(5)), RuntimeError("the plug was pulled")]
    session = Session(ScriptedSource(script), recorder=recorder)
    session.start()
    assert session.over.wait(10)
    session.stop("asked")
    recorder.finish(session.ended)
    assert isinstance(session.problem, DeviceError) and "plug was pulled" in str(session.problem)
    assert "plug was pulled" in told(tmp_path / "rec")["ended"]
    assert whole(tmp_path / "rec") == list(range(5))


def test_readable_while_it_grows(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "rec", small_sensor())
    with pytest.raises(RecordingError, match="at least one frame"):
        open_recording(tmp_path / "rec")
    stop = threading.Event()

    def feed() -> None:
        k = 0
        while not stop.is_set():
            recorder.offer(captured(k))
            k += 1
            time.sleep(0.002)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        seen = [0]
        for _ in range(400):
            try:
                with open_recording(tmp_path / "rec") as recording:
                    seen.append(recording.num_frames)
                    assert "not finished" in recording.notes[0]
                    assert recording.frame(recording.num_frames - 1, "cam") is not None
            except RecordingError as problem:
                assert "changes while" in str(problem) or "at least one frame" in str(problem)
            if seen[-1] > 20:
                break
            time.sleep(0.01)
    finally:
        stop.set()
        thread.join()
        recorder.finish("asked")
    assert seen[-1] > 20 and seen == sorted(seen)


CHILD = """
    import sys, time
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from capture_frames import captured, small_sensor
    from bodyfit.capture.recorder import Recorder
    recorder = Recorder(Path({path!r}), small_sensor({width}, {height}))
    for k in range({count}):
        recorder.offer(captured(k, small_sensor({width}, {height})))
        time.sleep({pause})
        if k == 20:
            print("going", flush=True)
        if recorder.problem:
            break
    counts = recorder.finish("asked")
    print(recorder.problem)
    print(counts.read, counts.written, sum(counts.dropped.values()), counts.failed)
"""


def child(path: Path, count: int, pause: float = 0.003, size: tuple[int, int] = (64, 48)) -> list[str]:
    text = textwrap.dedent(CHILD).format(
        tests=str(TESTS), path=str(path), count=count, pause=pause, width=size[0], height=size[1]
    )
    return [sys.executable, "-c", text]


def test_killed_in_the_middle_it_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "rec"
    process = subprocess.Popen(child(path, 100_000), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "going"
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    kept = whole(path)
    assert len(kept) > 10 and kept == list(range(len(kept)))
    with open_recording(path) as recording:
        assert "not finished" in recording.notes[0]
    # a line that was cut off in the middle does not count either
    with (path / "frames.csv").open("a") as file:
        file.write(f"{len(kept)},12.3")
    assert whole(path) == kept


def in_small_disk(command: list[str], mount: Path, kilobytes: int) -> subprocess.CompletedProcess[str]:
    """Runs it where `mount` is a file system of that size, in name spaces of its own; what lies there comes out as a
    tar file on a real disk."""
    script = f'mount -t tmpfs -o size={kilobytes}k tmpfs "$0" && "${{@:2}}"; code=$?; cp -r "$0"/. "$1"; exit $code'
    out = mount.parent / "copied"
    out.mkdir()
    return subprocess.run(
        ["unshare", "-Urm", "bash", "-c", script, str(mount), str(out), *command],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def can_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    folder.mkdir()
    tried = subprocess.run(
        ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, timeout=20
    )
    return tried.returncode == 0


def test_a_disk_that_fills_up_is_told_and_what_was_written_is_readable(tmp_path: Path) -> None:
    if not can_mount(tmp_path / "try"):
        pytest.skip("no file system can be mounted here")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = in_small_disk(child(disk / "rec", 3000, 0.001, (320, 240)), disk, 3000)
    assert done.returncode == 0, done.stderr
    problem, counted = done.stdout.splitlines()[-2:]
    assert "No space left on device" in problem
    read, written, dropped, failed = map(int, counted.split())
    assert read == written + dropped and failed >= 1 and 5 < written < 100
    copied = tmp_path / "copied/rec"
    with open_recording(copied) as recording:
        assert recording.num_frames == written
        for i, index in enumerate(recording.indices):
            frame = recording.frame(i, "cam")
            assert frame is not None and frame.color is not None
            np.testing.assert_array_equal(depth_of(copied, i), captured(int(index), small_sensor(320, 240)).depth)
    document = told(copied)
    assert document["finished"] and "No space left" in document["ended"]
    assert document["frames"]["written"] == written
    assert document["frames"]["dropped"]["disk"] == sum(r["last"] - r["first"] + 1 for r in document["drops"])


def test_the_last_line_fits_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that the disk does not take, or takes half of, are tried once more after the reserve was given back."""
    recorder = Recorder(tmp_path / "rec", small_sensor(), writers=1)
    write, state = os.write, {"left": 6}
    rows = recorder._rows

    def full(descriptor: int, data: bytes) -> int:
        if descriptor != rows:
            return write(descriptor, data)
        state["left"] -= 1
        reserved = (tmp_path / "rec/.reserve").exists()
        if state["left"] < 0 and reserved:
            return write(descriptor, data[: len(data) // 2])
        if state["left"] < -1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(recorder_module.os, "write", full)
    for k in range(20):
        recorder.offer(captured(k))
    counts = recorder.finish("asked")
    assert recorder.problem is not None
    assert counts.read == 20 == counts.written + counts.dropped[Cause.DISK]
    assert whole(tmp_path / "rec") == list(range(counts.written)) and counts.written >= 6


def test_a_limit_on_file_size_is_a_full_disk(tmp_path: Path) -> None:
    """The system refuses the write itself, of a user who may write so much and no more."""
    path = tmp_path / "rec"
    # capture.json and lines fit, a depth image does not
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({30 << 10}, {30 << 10}));"
    command = child(path, 50, 0.001, (320, 240))
    # the reserve is larger than the limit: it is refused before anything is recorded
    done = subprocess.run([*command[:2], limit + command[2]], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "File too large" in done.stderr and "OutputError" in done.stderr
    assert not path.exists()
    limit = limit.replace(str(30 << 10), str(270 << 10))
    big = child(path, 50, 0.001, (640, 480))
    done = subprocess.run([*big[:2], limit + big[2]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    problem, counted = done.stdout.splitlines()[-2:]
    assert "File too large" in problem
    read, written, dropped, _ = map(int, counted.split())
    assert read == dropped and written == 0 and not path.exists()
