"""`bodyfit track` the whole way: a recording on disk in, the motion's files out, and what it says about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bodyfit.body.model import load_body_model
from bodyfit.cli.main import app
from bodyfit.export.result_npz import read_fit_npz
from bodyfit.synthetic.motion import Scenario, plan_film
from bodyfit.synthetic.write import write_take

FRAMES = 14
MISSING = (6, 3)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    take = plan_film(
        load_body_model(), 41, motion="wave", seconds=FRAMES / 30, heading_deg=10.0, scenario=Scenario(missing=MISSING)
    ).take()
    return write_take(tmp_path_factory.mktemp("track") / "rec", take)


@pytest.fixture(scope="module")
def tracked(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    out = tmp_path_factory.mktemp("track") / "out"
    return out, app(["track", str(recording), "-o", str(out), "--no-video"])


def test_writes_the_motion_and_says_what_was_missing(
    recording: Path, tracked: tuple[Path, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = tracked
    names = {p.name for p in out.iterdir()}
    assert {"fit.npz", "measurements.json", "rest.ply", "motion.npz", "joints.csv", "motion.bvh", "motion.glb"} <= names
    assert "mesh" not in names and "overlay.mp4" not in names
    saved = read_fit_npz(out)
    assert saved.poses.shape == (FRAMES, 24, 3) and saved.frame_indices.tolist() == list(range(FRAMES))
    truth = np.load(recording / "truth" / "joints_world.npy")
    model = load_body_model()
    mine = np.stack([model.forward(saved.betas, p, t)[1] for p, t in zip(saved.poses, saved.trans, strict=True)])
    seen = [t for t in range(FRAMES) if not MISSING[0] <= t < sum(MISSING)]
    assert np.linalg.norm(mine - truth, axis=2)[seen].mean() < 0.020
    flags = json.dumps(json.loads((out / "measurements.json").read_text()))
    assert "no depth in this frame" in flags


def test_json_tells_states_times_and_events(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = app(["track", str(recording), "-o", str(tmp_path / "o"), "--json", "--frames", "0-8", "--no-video"])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    how = document["track"]
    assert how["frames"] == 9 and how["states"] == {"found": 1, "tracked": 5, "coasting": 3, "lost": 0}
    assert 0 < how["median_ms"] <= how["p95_ms"]
    assert [e["frame"] for e in how["events"]] == [6, 7, 8]
    assert code in (0, 4)  # three of nine frames are not to be believed: the fit says so
    assert document["quality"]["converged"] is (code == 0)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--budget-ms", "0"], "--budget-ms"),
        (["--frames", "99"], "--frames"),
        (["--sensors", "nobody"], "sensors"),
        (["--model", "no_such_body"], "model"),
    ],
)
def test_bad_input_is_named(
    recording: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], field: str
) -> None:
    out = tmp_path / "o"
    assert app(["track", str(recording), "-o", str(out), *arguments]) == 2
    error = capfd.readouterr().err
    assert field in error and "expected" in error and "found" in error
    assert not out.exists()
