"""`bodyfit capture` the whole way: synthetic and replayed frames, the guided protocol, a server, and being stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_recording import frames, sensors

from bodyfit.capture.picture import has_windows
from bodyfit.cli.main import app
from bodyfit.recording import write_recording
from bodyfit.recording.formats import open_recording

DEMO = Path(__file__).resolve().parents[1] / "bodyfit" / "data" / "demo"


def told(path: Path) -> dict:
    return json.loads((path / "capture.json").read_text())


def test_synthetic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, picture = tmp_path / "rec", tmp_path / "now.jpg"
    code = app(["capture", "synthetic", "-o", str(out), "--seconds", "2", "--preview-file", str(picture)])
    said = capsys.readouterr()
    assert code == 0, said.err
    document = told(out)
    counts = document["frames"]
    assert document["finished"] and document["ended"] == "its time was over"
    assert counts["read"] == counts["written"] + sum(counts["dropped"].values()) and counts["lost_by_device"] == 0
    assert 20 <= counts["read"] <= 62
    assert f"{counts['read']} frames read, {counts['written']} written" in said.out
    assert "synthetic" in said.err and "played forwards and backwards" in said.err
    assert picture.read_bytes().startswith(b"\xff\xd8\xff") and not list(tmp_path.glob(".now*"))
    with open_recording(out) as recording:
        assert recording.num_frames == counts["written"] and recording.gravity_world is not None
        assert (np.diff(recording.timestamps_s) > 0).all()
        frame = recording.frame(recording.num_frames - 1, "azure")
        assert frame is not None and frame.color is not None and frame.depth.shape == (576, 640)


def test_a_picture_that_cannot_be_written_costs_no_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, picture = tmp_path / "rec", tmp_path / "no/folder.jpg"
    assert app(["capture", "synthetic", "-o", str(out), "--seconds", "1.5", "--preview-file", str(picture)]) == 0
    assert "no more pictures" in capsys.readouterr().err
    assert told(out)["ended"] == "its time was over" and told(out)["frames"]["written"] > 5


def test_replay_gives_the_same_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "again"
    code = app(["capture", "replay", str(DEMO), "-o", str(out), "--speed", "0", "--no-preview", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert code == 0 and answer["out"] == str(out) and answer["ended"] == "the source has no more frames"
    with open_recording(DEMO) as before, open_recording(out) as after:
        name = before.sensors[0].name
        assert answer["frames"]["written"] == before.num_frames == after.num_frames
        assert after.sensors[0].depth_camera == before.sensors[0].depth_camera
        times = before.timestamps_s - before.timestamps_s[0]
        np.testing.assert_allclose(after.timestamps_s, times, atol=1e-9)
        for i in range(before.num_frames):
            one, two = before.frame(i, name), after.frame(i, name)
            assert one is not None and two is not None
            np.testing.assert_array_equal(one.depth, two.depth)
            if one.color is not None:
                assert two.color is not None
                np.testing.assert_array_equal(one.color, two.color)  # JPEG as it was stored


def test_replay_of_one_of_several_sensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recording(tmp_path / "two", sensors(), frames())
    ask = ["capture", "replay", str(tmp_path / "two"), "-o", str(tmp_path / "out"), "--speed", "0", "--no-preview"]
    assert app(ask) == 2
    assert "--sensor: expected one of left, right" in capsys.readouterr().err
    assert app([*ask, "--sensor", "left"]) == 0
    with open_recording(tmp_path / "out") as recording:
        assert recording.num_frames == 3 and [s.name for s in recording.sensors] == ["left"]


def test_a_replay_keeps_its_pace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recording(tmp_path / "two", sensors(), frames())
    began = time.monotonic()
    out = tmp_path / "out"
    assert app(["capture", "replay", str(tmp_path / "two"), "-o", str(out), "--sensor", "left", "--no-preview"]) == 0
    assert time.monotonic() - began >= 0.2  # three frames, 0.1 s apart: never faster than they were taken
    assert told(out)["frames"]["written"] == 3


def test_the_guided_protocol_records_the_views_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bodyfit.capture import protocol

    for name, seconds in (("START_S", 0.3), ("TURN_S", 0.1), ("BY_TIME_S", 0.4), ("TAKE_S", 0.3)):
        monkeypatch.setattr(protocol, name, seconds)
    out = tmp_path / "rec"
    ask = ["capture", "synthetic", "-o", str(out), "--protocol", "turn", "--views", "4", "--no-preview"]
    assert app([*ask, "--seconds", "30"]) == 0
    said = capsys.readouterr().out
    assert "4 of 4 views taken, 4 of them by time alone" in said
    document = told(out)
    counts, views = document["frames"], document["views"]
    assert document["ended"] == "all views were taken" and counts["dropped"]["not_asked"] > 0
    assert counts["read"] == counts["written"] + sum(counts["dropped"].values())
    with open_recording(out) as recording:
        of_views = [i for v in views for i in range(v["first"], v["last"] + 1)]
        assert [int(i) for i in recording.indices] == of_views
    assert [v["view"] for v in views] == [0, 1, 2, 3] and views[2]["wanted_deg"] == 180.0


def test_options_that_make_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "rec")
    for ask, field in (
        (["synthetic"], "capture"),
        (["replay", "-o", out], "RECORDING"),
        (["synthetic", str(DEMO), "-o", out], "RECORDING"),
        (["synthetic", "--serial", "1", "-o", out], "--serial"),
        (["synthetic", "--speed", "2", "-o", out], "--speed"),
        (["replay", str(DEMO), "--speed", "-1", "-o", out], "speed"),
        (["synthetic", "--protocol", "turn", "--views", "9", "-o", out], "--views"),
        (["replay", str(tmp_path / "none"), "-o", out], "none"),
    ):
        assert app(["capture", *ask]) == 2, ask
        assert field in capsys.readouterr().err
    if not has_windows():
        assert app(["capture", "synthetic", "-o", out, "--window"]) == 2
        assert "--preview-file" in capsys.readouterr().err
    assert not Path(out).exists()
    Path(out).mkdir()
    assert app(["capture", "replay", str(DEMO), "-o", out, "--speed", "0", "--no-preview"]) == 2
    assert "in its place" in capsys.readouterr().err


def _heed_the_keyboard() -> None:
    """What a shell starts in the background, and all that comes of it, ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_from_the_keyboard_it_finishes(tmp_path: Path, number: int) -> None:
    out = tmp_path / "rec"
    command = [sys.executable, "-m", "bodyfit.cli.main", "capture", "synthetic", "-o", str(out), "--no-preview"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_the_keyboard
    )
    end = time.monotonic() + 60
    while time.monotonic() < end and len(list(out.glob("*/depth/*.png"))) < 10:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    text, complaint = process.communicate(timeout=30)
    assert process.returncode == 0, complaint
    assert "ended: stopped from the keyboard" in text
    counts = told(out)["frames"]
    assert told(out)["finished"] and counts["read"] == counts["written"] + sum(counts["dropped"].values())
    with open_recording(out) as recording:
        assert recording.num_frames == counts["written"] >= 10


def test_a_full_disk_ends_with_its_code(tmp_path: Path) -> None:
    from test_capture_recorder import can_mount, in_small_disk

    if not can_mount(tmp_path / "try"):
        pytest.skip("no file system can be mounted here")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [sys.executable, "-m", "bodyfit.cli.main", "capture", "synthetic", "-o", str(disk / "rec")]
    done = in_small_disk([*command, "--no-preview", "--seconds", "20"], disk, 4000)
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr and "is readable" in done.stderr
    with open_recording(tmp_path / "copied/rec") as recording:
        assert recording.num_frames >= 3
        for i in range(recording.num_frames):
            assert recording.frame(i, "azure") is not None


@pytest.mark.slow
def test_to_a_server(tmp_path: Path) -> None:
    """A real server; frames go there and into a recording at once."""
    pytest.importorskip("grpc")
    from server_process import ServerProcess

    out = tmp_path / "rec"
    with ServerProcess("--fit-workers", "1", "--track-workers", "1") as server:
        command = [sys.executable, "-m", "bodyfit.cli.main", "capture", "synthetic", "--to", server.address]
        command += ["-o", str(out), "--seconds", "4", "--no-preview", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
    live, counts = answer["live"], answer["frames"]
    assert live["offered"] == counts["read"] and live["offered"] == live["sent"] + live["not_sent"]
    assert live["answered"] >= 1 and live["states"]["found"] == 1 and live["refused"] == 0
    assert live["answered"] + live["dropped_by_server"] <= live["sent"]
    assert 1.4 < live["stature_m"] < 2.1 and 0 < live["stature_sd_m"] < 0.2
    with open_recording(out) as recording:
        assert recording.num_frames == counts["written"]


def test_a_server_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("grpc")
    out = tmp_path / "rec"
    ask = ["capture", "synthetic", "--to", "127.0.0.1:9", "-o", str(out), "--seconds", "30", "--no-preview"]
    assert app(ask) == 5
    capsys.readouterr()
    assert told(out)["ended"] == "the server ended the stream"
    with open_recording(out) as recording:
        assert recording.num_frames >= 1
