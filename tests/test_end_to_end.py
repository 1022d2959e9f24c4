"""The whole way with the shipped body: a filmed person in, a folder of results out, scored against the truth."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bodyfit.body.model import load_body_model
from bodyfit.cli.main import app
from bodyfit.synthetic.take import sample_take
from bodyfit.synthetic.write import write_take


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames of a body outside the model's span, front and back, by a simulated Kinect v2; truth beside them."""
    take = sample_take(
        load_body_model(), 11, pose_names=("a_pose", "a_pose"), headings_deg=(5.0, 184.0), sensor="kinect2"
    )
    return write_take(tmp_path_factory.mktemp("filmed") / "person", take)


def blind(filmed: Path, folder: Path) -> Path:
    """The recording without its truth."""
    return Path(shutil.copytree(filmed, folder / "rec", ignore=shutil.ignore_patterns("truth")))


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_fit_writes_everything_and_the_same_again(
    filmed: Path, tmp_path: Path, repo_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recording = blind(filmed, tmp_path)
    arguments = ["fit", str(recording), "--frames", "1", "--json", "-o"]
    # a process that compiles every kernel, one that finds them compiled, and this one, which has run others before
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "compiled")}
    for out in ("first", "second"):
        done = subprocess.run(
            [sys.executable, "-m", "bodyfit.cli.main", *arguments, str(tmp_path / out)],
            cwd=repo_root, env=environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert len(document["measurements"]) >= 24
    assert list((tmp_path / "compiled").rglob("evidence.linearize_view*.nbc"))
    files = files_in(tmp_path / "first")
    assert set(files) == set(document["files"]) == {
        "fit.npz", "measurements.json", "measurements.csv", "rest.ply", "summary.png",
        "mesh/000001.ply", "overlay/000001.png",
    }  # fmt: skip
    for content in files.values():
        assert str(tmp_path).encode() not in content
    assert app([*arguments, str(tmp_path / "here")]) == 0
    capfd.readouterr()
    for out in ("second", "here"):
        again = files_in(tmp_path / out)
        # names, not bytes: pytest would spend minutes on showing where two pictures differ
        assert sorted(again) == sorted(files)
        assert [name for name in files if again[name] != files[name]] == []


def test_evaluate_finds_the_person_that_was_filmed(filmed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = files_in(filmed)
    code = app(["evaluate", str(filmed), "--clothing", "tight", "--json"])
    document = json.loads(capfd.readouterr().out)
    assert code == 0
    assert files_in(filmed) == before
    (score,) = document["recordings"]
    assert score["frames"] == 2
    assert score["surface_mm"] < 6
    assert score["joints_mm"] < 30
    assert score["rest_mm"] < 6
    assert score["stature_mm"] < 15
    assert set(score["girth_errors_mm"]) == {"chest", "waist", "hip", "thigh", "calf", "upper_arm", "neck"}


def test_an_empty_room_is_bad_input(filmed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import cv2

    recording = blind(filmed, tmp_path)
    for file in recording.glob("*/depth/*.png"):
        depth = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert depth is not None
        cv2.imwrite(str(file), np.zeros_like(depth))
    assert app(["fit", str(recording), "-o", str(tmp_path / "out")]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "depth" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_demo_replaces_the_demo_before_and_says_where_the_picture_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "summary.png").write_bytes(b"of an earlier demo")
    (tmp_path / "notes.txt").write_text("mine")
    assert app(["demo", "-o", str(tmp_path)]) == 0
    out = capfd.readouterr().out
    assert str(tmp_path / "summary.png") in out
    assert "stature" in out
    assert (tmp_path / "summary.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "notes.txt").read_text() == "mine"
