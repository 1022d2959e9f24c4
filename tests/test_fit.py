"""The fit as a whole, on filmed people with the shipped body: starts cold, says what it did not see, repeats itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bodyfit
from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.errors import DeviceError, InputError
from bodyfit.fit.config import FitConfig
from bodyfit.fit.fit import fit
from bodyfit.fit.problem import Problem
from bodyfit.fit.quality import agreement
from bodyfit.fit.result import FitResult, StopReason
from bodyfit.frame import Frame
from bodyfit.recording import Sensor, write_recording
from bodyfit.synthetic.take import Take, sample_take


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


@pytest.fixture(scope="module")
def take(model: BodyModel) -> Take:
    """One person in front of a Kinect v2: facing it, in profile, and facing it once more."""
    return sample_take(
        model, 11, pose_names=("a_pose",) * 3, headings_deg=(5.0, 90.0, -4.0), sensor="kinect2", off_model_mm_rms=2.0
    )


def recorded(folder: Path, take: Take, frames: Sequence[Frame]) -> Path:
    """A recording of those frames, without truth; the camera is the frames'."""
    first = frames[0]
    sensor = Sensor(take.sensors[0].name, first.depth_camera, first.T_world_depth)
    return write_recording(folder, (sensor,), frames, tuple(take.gravity_world.tolist()))


@pytest.fixture(scope="module")
def folder(take: Take, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("fit") / "rec", take, take.frames)


@pytest.fixture(scope="module")
def front(folder: Path) -> FitResult:
    """The first frame alone, from a cold start, on two threads."""
    return fit(folder, frames=[0], clothing="tight")


def test_a_cold_start_converges(front: FitResult, take: Take) -> None:
    truth = take.instants[0]
    assert front.converged and front.num_frames == 1
    quality = front.frames[0]
    assert quality.believed and quality.depth_residual_m < 0.006 and quality.silhouette_iou > 0.9
    assert quality.covered > 0.9
    apart = np.linalg.norm(front.vertices_world(0) - truth.vertices_world, axis=1)
    seen = agreement(front.model, truth.vertices_world, front.observations[0][0]).seen_vertices
    assert apart[seen].mean() < 0.02
    assert 0.2 < seen.mean() < 0.6
    assert len(front.measurements) >= 24
    assert abs(front.measurements["stature"].value_m - np.ptp(take.subject.rest_vertices[:, 1])) < 0.03
    assert front.provenance["model_sha256"] == front.model.sha256
    assert any("back was never seen" in hint for hint in front.hints)


def same(a: FitResult, b: FitResult) -> None:
    for name in ("betas", "betas_cov", "poses", "pose_sd", "transl"):
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes(), name
    assert {k: (m.value_m, m.sd_m) for k, m in a.measurements.items()} == {
        k: (m.value_m, m.sd_m) for k, m in b.measurements.items()
    }
    assert a.flags == b.flags and a.hints == b.hints and a.garments_m == b.garments_m


def test_the_same_again_to_the_last_bit_on_any_number_of_threads(front: FitResult, folder: Path) -> None:
    assert FitConfig().threads == 2
    same(front, fit(folder, frames=[0], clothing="tight", config=FitConfig(threads=1)))
    same(front, bodyfit.fit(str(folder), frames=[0], clothing="tight"))


def test_the_covariances_are_what_they_should_be(front: FitResult) -> None:
    cov = front.betas_cov
    np.testing.assert_allclose(cov, cov.T, atol=1e-9)
    assert np.linalg.eigvalsh(cov).min() > 0
    prior = front.model.priors["neutral"].cov * FitConfig().prior_widening ** 2
    assert np.trace(cov) < 0.8 * np.trace(prior), "one view has told something about the shape"
    assert (front.pose_sd > 0).all() and np.isfinite(front.pose_sd).all()


@pytest.mark.parametrize(
    ("options", "kind", "field"),
    [
        ({"sex": "other"}, InputError, "sex"),
        ({"clothing": "armour"}, InputError, "clothing"),
        ({"device": "cuda"}, DeviceError, "device"),
        ({"device": "tpu"}, DeviceError, "device"),
        ({"sensors": ["nobody"]}, InputError, "sensors"),
        ({"frames": [3]}, InputError, "frames"),
        ({"frames": [-1]}, InputError, "frames"),
        ({"frames": []}, InputError, "frames"),
        ({"person": 2}, InputError, "person"),
    ],
)
def test_options_that_cannot_be_are_refused(folder: Path, options: dict, kind: type[InputError], field: str) -> None:
    with pytest.raises(kind) as caught:
        fit(folder, **options)
    assert caught.value.field == field
    assert caught.value.expected and caught.value.found and caught.value.exit_code == 2


def below(frame: Frame, rows: int) -> Frame:
    """The frame of a sensor whose image ends after that many rows."""
    return replace(frame, depth=frame.depth[:rows].copy(), depth_camera=replace(frame.depth_camera, height=rows))


def test_a_person_cut_off_is_fitted_and_flagged(take: Take, tmp_path: Path) -> None:
    mask = next(iter(take.instants[0].masks.values()))
    rows = np.flatnonzero(mask.any(1))
    cut = below(take.frames[0], int(rows[0] + 0.62 * (rows[-1] - rows[0])))
    result = fit(recorded(tmp_path / "cut", take, [cut]), clothing="tight")
    assert any("cut off at the image's bottom" in flag for flag in result.flags)
    assert {"left foot hidden: its pose is a guess", "right foot hidden: its pose is a guess"} <= set(
        result.frames[0].flags
    )
    assert any("outside of the picture" in hint for hint in result.hints)
    assert result.coverage["left_foot"] == result.coverage["right_calf"] == 0 < result.coverage["chest"]
    assert not result.measurements["ankle_girth"].seen
    assert result.frames[0].depth_residual_m < 0.015


@pytest.fixture(scope="module")
def profile(folder: Path) -> FitResult:
    """The second frame, in which one arm is behind the body."""
    return fit(folder, frames=[1], clothing="tight")


def test_an_arm_behind_the_body_is_flagged(profile: FitResult, take: Take) -> None:
    seen = agreement(profile.model, take.instants[1].vertices_world, profile.observations[0][0]).seen_vertices
    assert profile.model.part_labels is not None
    names = list(profile.model.part_names)
    share = {n: float(seen[profile.model.part_labels == names.index(n)].mean()) for n in names}
    hidden = [f"{side}_forearm" for side in ("left", "right") if share[f"{side}_forearm"] < 0.02]
    assert len(hidden) == 1, share
    assert f"{hidden[0].replace('_', ' ')} hidden: its pose is a guess" in profile.frames[0].flags
    assert profile.coverage[hidden[0]] == 0
    arm = [i for i, n in enumerate(profile.model.joint_names) if n.endswith(("_elbow", "_shoulder"))]
    sd = {profile.model.joint_names[i]: float(profile.pose_sd[0, i].max()) for i in arm}
    side, other = (hidden[0].split("_")[0], "left" if hidden[0].startswith("right") else "right")
    assert sd[f"{side}_elbow"] > 2 * sd[f"{other}_elbow"], "what nobody saw is known less well"


def test_a_frame_without_readings_is_skipped_and_named(take: Take, tmp_path: Path) -> None:
    frames = [take.frames[0], replace(take.frames[1], depth=np.zeros_like(take.frames[1].depth))]
    result = fit(recorded(tmp_path / "dark", take, frames), clothing="tight")
    assert result.frame_indices == (0,) and result.num_frames == 1
    assert list(result.skipped) == [1] and "all zero" in result.skipped[1]
    assert any("left out" in hint for hint in result.hints)


def test_a_cancelled_fit_says_so_and_progress_rises_to_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, float]] = []
    steps: list[int] = []
    whole = Problem.linearize

    def counted(problem: Problem, *arguments: Any, **options: Any) -> Any:
        steps.append(len(problem.items))
        return whole(problem, *arguments, **options)

    monkeypatch.setattr(Problem, "linearize", counted)
    result = fit(
        folder, frames=[0, 1, 2], clothing="tight", cancelled=lambda: True,
        progress=lambda what, share: said.append((what, share)),
    )  # fmt: skip
    assert result.stop_reason is StopReason.CANCELLED
    assert len(steps) < 15, "the cold start of one frame alone takes a hundred"
    shares = [share for _, share in said]
    assert shares == sorted(shares) and shares[0] > 0 and shares[-1] == 1
    assert all(what for what, _ in said)
