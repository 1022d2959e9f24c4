"""A stereo matcher's faults: told from the frame itself, taken off the person's rim, kept out of what is worn."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from seen_body import on_the_floor, seen, standing

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.fit.config import CLOTHING
from bodyfit.fit.view import make_view
from bodyfit.fit.wear import Wear, without_prior
from bodyfit.observe.bleed import without_bleeding
from bodyfit.observe.noise import DepthNoise, plane_noise
from bodyfit.observe.observation import BACKGROUND, PERSON, UNKNOWN, observe
from bodyfit.synthetic.take import sample_take

STEREO = DepthNoise(0.0024, 2.0)


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


def slanted_wall(inverse_sigma: float, blur_px: float, seed: int = 3) -> NDArray[np.float64]:
    """(240, 320) depth of a plane, its 1/z off by noise of that standard deviation, blurred by so many pixels."""
    v, u = np.mgrid[:240, :320]
    noise = np.random.default_rng(seed).normal(0, 1, u.shape)
    if blur_px:
        noise = cv2.GaussianBlur(noise, (0, 0), blur_px)
    noise *= inverse_sigma / noise.std()
    return 1 / (0.4 + 0.0004 * u - 0.0002 * v + noise)


@pytest.mark.parametrize(("sigma", "blur"), [(0.0004, 0.0), (0.0024, 0.0), (0.0024, 2.0), (0.0024, 3.0), (0.0004, 2.0)])
def test_noise_is_measured_on_a_plane(sigma: float, blur: float) -> None:
    depth = slanted_wall(sigma, blur).astype(np.float32)
    depth[::9, ::7] = 0  # no reading
    found = plane_noise(depth, np.ones(depth.shape, bool))
    assert found is not None
    assert found.inverse_sigma == pytest.approx(sigma, rel=0.1)
    assert found.length_px == pytest.approx(blur, rel=0.15, abs=0.01)
    assert found.area_px == pytest.approx(max(1.0, 4 * np.pi * blur**2), rel=0.35)
    assert found.stereo == (blur > 0 and sigma > 0.001)


def test_steps_of_disparity_do_not_hide_the_noise() -> None:
    step = 0.0016  # of 1/z: a 32nd of a pixel for a baseline of 5 cm
    depth = 1 / (np.round(1 / slanted_wall(0.0024, 2.5) / step) * step)
    found = plane_noise(depth.astype(np.float32), np.ones(depth.shape, bool))
    assert found is not None
    assert found.stereo
    assert found.inverse_sigma == pytest.approx(0.0024, rel=0.2)


def test_too_little_of_a_plane_says_nothing() -> None:
    depth = slanted_wall(0.0024, 2.0).astype(np.float32)
    small = np.zeros(depth.shape, bool)
    small[100:130, 100:130] = True
    assert plane_noise(depth, small) is None
    assert plane_noise(np.zeros_like(depth), np.ones(depth.shape, bool)) is None


def board(grown_px: int, behind_m: float = 4.0) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.bool_]]:
    """Depth and label of a board 2.4 m away that a matcher made larger, and the true board (H, W)."""
    true = np.zeros((120, 100), bool)
    true[20:100, 30:70] = True
    grown = cv2.dilate(true.astype(np.uint8), np.ones((2 * grown_px + 1,) * 2, np.uint8)) > 0
    return np.where(grown, 2.4, behind_m).astype(np.float32), grown.astype(np.uint8), true


@pytest.mark.parametrize("behind_m", [4.0, 0.0])
def test_what_bled_is_the_persons_no_more(behind_m: float) -> None:
    depth, label, true = board(2, behind_m)
    clean, kind = without_bleeding(depth, label, STEREO)
    rim = (label == PERSON) & ~true
    assert (kind[rim] != PERSON).all()
    assert (clean[kind == BACKGROUND][depth[kind == BACKGROUND] == np.float32(2.4)] == 0).all()
    # a quarter of two pixels is half a pixel: half of the outermost ring
    outermost = (label == PERSON) & (cv2.erode(label, np.ones((3, 3), np.uint8)) == 0)
    assert (kind[outermost] == BACKGROUND).mean() == pytest.approx(0.5, abs=0.12)
    assert (kind[rim & ~outermost] == UNKNOWN).all()
    assert (kind[true] == PERSON).all()
    assert (clean[true] == np.float32(2.4)).all()


def test_where_nothing_is_farther_nothing_bleeds() -> None:
    depth, label, _ = board(2, behind_m=2.43)
    clean, kind = without_bleeding(depth, label, STEREO)
    assert (kind == label).all()
    assert (clean == depth).all()


def test_before_the_own_trunk_only_the_depth_goes() -> None:
    depth, label, true = board(2)
    label[:] = PERSON  # what is behind is the person's too
    depth[~(depth == np.float32(2.4))] = 2.7
    clean, kind = without_bleeding(depth, label, STEREO)
    assert (kind == PERSON).all()
    assert (clean[(depth == np.float32(2.4)) & ~true] == 0).all()
    assert (clean[true] > 0).all()
    assert (clean[depth > 2.5] > 0).all()


def test_white_noise_leaves_the_frame_alone() -> None:
    depth, label, _ = board(2)
    clean, kind = without_bleeding(depth, label, DepthNoise(0.0024, 0.0))
    assert clean is depth
    assert kind is label


@pytest.mark.parametrize(("sensor", "stereo"), [("d435", True), ("azure", False), ("kinect2", False)])
def test_sensors_are_told_apart(model: BodyModel, sensor: str, stereo: bool) -> None:
    take = sample_take(model, 11, pose_names=("a_pose",), headings_deg=(20.0,), sensor=sensor)
    found = observe(take.frames[0], gravity_world=take.gravity_world)
    assert found.noise is not None
    assert found.noise.stereo == stereo
    true = take.instants[0].masks[take.sensors[0].name]
    person = found.label == PERSON
    # without the correction a tenth of what a stereo sensor takes for the person is not theirs
    assert (person & ~true).sum() < 0.05 * true.sum()
    assert ((found.label == BACKGROUND) & true).sum() < 0.06 * true.sum()


def test_a_view_knows_how_many_of_its_pixels_err_alone(model: BodyModel) -> None:
    pose = standing(model, "a_pose")
    betas = np.zeros(model.num_betas)
    plain = seen(model, betas, pose, on_the_floor(model, betas, pose))
    count = int((plain.label == PERSON).sum())
    assert make_view(plain, 2000).independent_pixels == count
    noisy = make_view(replace(plain, noise=STEREO), 2000)
    assert noisy.independent_pixels == pytest.approx(count / (16 * np.pi))
    assert noisy.noise_m == pytest.approx(0.0024 * 2.35**2, rel=0.1)


def test_a_posterior_without_its_prior_is_the_data() -> None:
    rng = np.random.default_rng(5)
    root = rng.normal(0, 0.004, (4, 4))
    data_cov = root @ root.T + np.eye(4) * 0.002**2
    data, mean, sd = rng.normal(0.005, 0.003, 4), np.full(4, 0.007), np.array([0.007, 0.008, 0.005, 0.006])
    cov = np.asarray(np.linalg.inv(np.linalg.inv(data_cov) + np.diag(1 / sd**2)), np.float64)
    value = cov @ (np.linalg.solve(data_cov, data) + mean / sd**2)
    alone, alone_cov = without_prior(value, cov, mean, sd)
    assert alone == pytest.approx(data, abs=1e-6)
    assert alone_cov == pytest.approx(data_cov, abs=1e-9)
    # no data: nothing is said, and nothing breaks
    _, nothing = without_prior(mean, np.diag(sd**2), mean, sd)
    assert (np.sqrt(np.diag(nothing)) > 5 * sd).all()


def test_doubtful_clothes_are_held_as_a_mixture() -> None:
    sure = Wear({"tight": 0.0, "casual": 6.0, "loose": -3.0}, None).clothing
    assert sure is CLOTHING["casual"]
    torn = Wear({"tight": 0.0, "casual": 0.5, "loose": -9.0}, None).clothing
    assert torn.name == "casual"
    assert CLOTHING["tight"].shirt_m[0] < torn.shirt_m[0] < CLOTHING["casual"].shirt_m[0]
    assert torn.shirt_m[1] > CLOTHING["casual"].shirt_m[1]
