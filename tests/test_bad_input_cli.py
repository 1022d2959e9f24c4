"""Bad input at the command line: exit code 2, an error that names field, expected and found, and nothing is written.

What a recording can be in detail is in test_bad_recordings.py; here each kind goes the whole way through `bodyfit fit`.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from room import GRAVITY, Room
from small_recording import edit_json, png

from bodyfit.cli.main import app
from bodyfit.recording import Sensor, write_recording
from bodyfit.synthetic.demo import demo_recording_path

Break = Callable[[Path], object]
Json = Callable[..., tuple[int, dict[str, Any]]]
DEPTH = "sensor/depth/000000.png"


def filmed(folder: Path, *people: tuple[float, float, float]) -> Path:
    """A room with these people in it, as a recording of one frame."""
    frame, _ = Room(people=list(people)).cast()
    sensor = Sensor("sensor", frame.depth_camera, frame.T_world_depth)
    return write_recording(folder, (sensor,), [frame], tuple(GRAVITY.tolist()))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filmed(tmp_path_factory.mktemp("bad") / "rec", (0.1, 2.6, 0.0))


@pytest.fixture
def recording(pristine: Path, tmp_path: Path) -> Path:
    """A recording of one's own to break."""
    return Path(shutil.copytree(pristine, tmp_path / "rec"))


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Runs a command that must be refused, in words and as JSON; the error."""

    def call(*arguments: str | Path, watched: Path) -> dict[str, Any]:
        before = everything_in(watched)
        code = app([str(a) for a in arguments])
        out, err = capfd.readouterr()
        assert (code, out) == (2, "")
        assert "Traceback" not in err and "expected" in err and "found" in err
        assert app([*(str(a) for a in arguments), "--json"]) == 2
        out, _ = capfd.readouterr()
        error = json.loads(out)["error"]
        assert error["exit_code"] == 2 and error["expected"] and error["found"]
        assert error["field"] in err
        assert everything_in(watched) == before, "something was written"
        return error

    return call


def everything_in(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def described(change: Callable[[dict[str, Any]], object]) -> Break:
    return lambda folder: edit_json(folder / "recording.json", change)


def sensor(**changes: Any) -> Break:
    return described(lambda d: d["sensors"][0].update(changes))


def camera(**changes: Any) -> Break:
    return described(lambda d: d["sensors"][0]["depth_camera"].update(changes))


def image(change: Callable[[np.ndarray], np.ndarray]) -> Break:
    def write(folder: Path) -> None:
        before = cv2.imread(str(folder / DEPTH), cv2.IMREAD_UNCHANGED)
        assert before is not None and cv2.imwrite(str(folder / DEPTH), change(before))

    return write


def data(content: bytes | Callable[[bytes], bytes], file: str = DEPTH) -> Break:
    def write(folder: Path) -> None:
        place = folder / file
        place.write_bytes(content(place.read_bytes()) if callable(content) else content)

    return write


def colour_without_camera(folder: Path) -> None:
    (folder / "sensor" / "color").mkdir()
    cv2.imwrite(str(folder / "sensor" / "color" / "000000.jpg"), np.zeros((20, 30, 3), np.uint8))


def scaled(factor: float) -> Break:
    return described(lambda d: d.update(depth_unit_m=d["depth_unit_m"] * factor))


STRETCHED = np.diag([1.2, 1.0, 1.0, 1.0]).tolist()
REFLECTED = np.diag([-1.0, 1.0, 1.0, 1.0]).tolist()

BROKEN: dict[str, tuple[Break, str, str]] = {
    "no recording.json": (lambda f: (f / "recording.json").unlink(), "recording.json", "no such file"),
    "recording.json cut off": (
        lambda f: data((f / "recording.json").read_bytes()[:80], "recording.json")(f), "recording.json", "line",
    ),
    "recording.json a list": (data(b"[]", "recording.json"), "recording.json", "array"),
    "another version": (described(lambda d: d.update(format="bodyfit.recording/2")), "format", "recording/2"),
    "no frames": (lambda f: (f / DEPTH).unlink(), "sensor/depth", "0 files"),
    "no frames.csv": (lambda f: (f / "frames.csv").unlink(), "frames.csv", "no such file"),
    "truncated PNG": (data(lambda whole: whole[: len(whole) // 2]), DEPTH, "cut"),
    "8-bit depth": (image(lambda d: (d // 20).astype(np.uint8)), DEPTH, "8-bit"),
    "3-channel depth": (image(lambda d: np.stack([d] * 3, 2)), DEPTH, "RGB"),
    "another size": (image(lambda d: d[:-8]), DEPTH, "320 × 280"),
    "2 mm away": (scaled(0.001), "depth", "mm"),
    "2 km away": (scaled(1000), "depth", "km"),
    "all zero": (image(np.zeros_like), "depth", "all zero"),
    "NaN intrinsics": (camera(fx=math.nan), "sensors[0].depth_camera.fx", "nan"),
    "absurd intrinsics": (camera(fx=-4e9), "sensors[0].depth_camera.fx", "-4e+09"),
    "unknown distortion": (
        camera(distortion={"model": "fisheye", "coefficients": [0.1]}), "distortion.model", "fisheye",
    ),
    "colour without camera": (colour_without_camera, "sensor/color", "1 (000000.jpg"),
    "a transform that scales": (sensor(T_world_depth=STRETCHED), "T_world_depth", "scales"),
    "a reflected transform": (sensor(T_world_depth=REFLECTED), "T_world_depth", "reflect"),
    "nobody": (
        image(lambda _: np.round(Room().cast()[0].depth * 1000).astype(np.uint16)), "depth", "walls and floor only",
    ),
    "an image of 100,000 × 100,000": (data(png(100_000, 100_000, 16, 0)), DEPTH, "100000 × 100000"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_recording(what: str, recording: Path, tmp_path: Path, refused: Callable[..., dict]) -> None:
    spoil, field, found = BROKEN[what]
    spoil(recording)
    error = refused("fit", recording, "-o", tmp_path / "out", watched=tmp_path)
    assert field in error["field"], error
    assert found in error["found"], error


def test_the_recording_that_is_broken_here_was_whole(recording: Path) -> None:
    """Nothing but what each test breaks stands in the way: the person is found."""
    from bodyfit.fit.fit import look
    from bodyfit.recording import open_recording

    instants, skipped = look(open_recording(recording), None, None, None, lambda *_: None)
    assert len(instants) == 1 and not skipped
    assert int(instants[0].observations[0].person.sum()) > 2000


def test_two_people_are_counted_and_one_can_be_chosen(tmp_path: Path, refused: Callable[..., dict]) -> None:
    from bodyfit.fit.fit import look
    from bodyfit.recording import open_recording

    folder = filmed(tmp_path / "two", (-0.7, 2.8, 0.0), (0.6, 2.5, 20.0))
    error = refused("fit", folder, "-o", tmp_path / "out", watched=tmp_path)
    assert error["field"] == "depth" and error["found"].startswith("2: ") and "--person" in error["hint"]
    middle = []
    for person in (1, 2):
        (instant,), _ = look(open_recording(folder), None, None, person, lambda *_: None)
        middle.append(float(np.median(np.nonzero(instant.observations[0].person)[1])))
    assert middle[0] < 160 < middle[1]
    error = refused("fit", folder, "-o", tmp_path / "out", "--person", "3", watched=tmp_path)
    assert error["field"] == "person" and error["found"] == "3" and "1 to 2" in error["expected"]


class Evil:
    """What pickle would run when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch was_run",)


@pytest.mark.parametrize("name", ["SMPL_NEUTRAL.pkl", "body.npz"])
def test_a_body_file_that_would_run_code(
    name: str, recording: Path, tmp_path: Path, refused: Callable[..., dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name.endswith(".pkl"):
        (tmp_path / name).write_bytes(pickle.dumps({"v_template": Evil(), "f": Evil()}))
    else:
        np.savez(tmp_path / name, v_template=np.array([Evil()], dtype=object))
    for arguments in (
        ("fit", recording, "-o", tmp_path / "out", "--model", tmp_path / name),
        ("models", "import", tmp_path / name, "-o", tmp_path / "mine.npz"),
    ):
        error = refused(*arguments, watched=tmp_path)
        assert name in error["field"], error
    assert not (tmp_path / "was_run").exists()


def test_a_file_in_the_place_of_the_out_folder(recording: Path, tmp_path: Path, refused: Callable[..., dict]) -> None:
    (tmp_path / "out").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "out" / "deeper"):
        error = refused("fit", recording, "-o", out, watched=tmp_path)
        assert "out" in error["field"] and "file" in error["found"]


def test_a_folder_that_holds_something_else(recording: Path, tmp_path: Path, refused: Callable[..., dict]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letters.txt").write_text("mine")
    error = refused("fit", recording, "-o", tmp_path / "out", watched=tmp_path)
    assert "letters.txt" in error["found"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB in memory; skipped where the system lets nobody mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    command = [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full(small_disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A whole fit, whose meshes do not fit: the error comes late and still leaves nothing."""
    out = small_disk / "out"
    code = app(["fit", str(demo_recording_path()), "--frames", "0", "--clothing", "tight", "-o", str(out), "--json"])
    error = json.loads(capfd.readouterr().out)["error"]
    assert code == error["exit_code"] == 2
    assert error["field"] == str(out) and "full disk" in error["found"]
    assert list(small_disk.iterdir()) == []


def test_a_read_only_disk(small_disk: Path, recording: Path, refused: Callable[..., dict]) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for out in (small_disk / "out", small_disk):
        error = refused("fit", recording, "-o", out, watched=small_disk)
        assert error["field"] == str(out) and "Read-only" in error["found"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(recording: Path, tmp_path: Path, refused: Callable[..., dict]) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    error = refused("fit", recording, "-o", locked / "out", watched=tmp_path)
    assert error["field"] == str(locked / "out")
