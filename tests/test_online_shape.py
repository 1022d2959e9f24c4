"""How much frames tell of a shape together, and what is worn by what all of them say."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.fit.config import CLOTHING, UNDECIDED
from bodyfit.fit.joint import joint_gaussian
from bodyfit.fit.mesh import GARMENTS
from bodyfit.fit.online_shape import AlikeErrors
from bodyfit.fit.problem import ShapeGaussian
from bodyfit.fit.track import Tracker
from bodyfit.fit.track_config import TrackConfig
from bodyfit.fit.wear import judge_stereo_wear
from bodyfit.synthetic.motion import plan_film

FRAMES = 8


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


@pytest.fixture(scope="module")
def seen(model: BodyModel) -> dict[str, list[Tracker]]:
    """By sensor the trackers of one person who stands nearly still, after each frame: only the last with all frames."""
    from copy import deepcopy

    out: dict[str, list[Tracker]] = {}
    for sensor in ("d435", "azure"):
        film = plan_film(model, 78, motion="wave", seconds=FRAMES / 30, sensor=sensor, clothing="tight")
        tracker = Tracker(model, gravity_world=film.gravity_world)
        kept = []
        for instant in film:
            tracker.update(list(instant.frames.values()))
            tracker._blas = None
            kept.append(deepcopy(tracker))
        out[sensor] = kept
    return out


def variance_of_mean(
    errors: AlikeErrors, anchors: NDArray[np.int64], noise: float, weights: NDArray[np.float64]
) -> float:
    """Of a weighted mean of frames that err as said; by all pairs of frames."""
    share = weights / weights.sum()
    same = (anchors[:, None] == anchors[None]).astype(float)
    cov = errors.always + errors.posed * same + noise * np.eye(len(anchors))
    return float(share @ cov @ share)


@pytest.mark.parametrize("noise", [0.0, 0.05, 1.0, 20.0])
@pytest.mark.parametrize("anchors", [[0], [0, 0, 0], [0, 1, 2, 3], [0, 0, 0, 0, 1, 3]])
def test_frames_together_know_as_much_as_their_mean(noise: float, anchors: list[int]) -> None:
    errors, shown = AlikeErrors(), np.array(anchors)
    weights = errors.weights(shown, noise)
    alone = errors.always + errors.posed + noise
    assert alone / weights.sum() == pytest.approx(variance_of_mean(errors, shown, noise, weights), rel=1e-12)
    # no other shares of the frames make a mean that is less far off
    rng = np.random.default_rng(1)
    others = [weights * rng.uniform(0.5, 1.5, len(weights)) for _ in range(50)]
    assert min(variance_of_mean(errors, shown, noise, w) for w in others) >= alone / weights.sum() - 1e-12


def test_noise_averages_out_and_clothes_do_not() -> None:
    errors, alike = AlikeErrors(always=0.4, posed=0.6), np.zeros(1000, np.int64)
    assert errors.weights(alike, 0.0).sum() == pytest.approx(1.0)
    assert errors.weights(alike, 15.0).sum() == pytest.approx(16.0, rel=0.02)
    assert errors.weights(np.arange(1000), 0.0).sum() == pytest.approx(2.5, rel=0.01)


def test_a_noisy_sensor_tells_in_frames_that_are_alike(seen: dict[str, list[Tracker]]) -> None:
    told = {sensor: [t.shape.online for t in trackers if t.shape is not None] for sensor, trackers in seen.items()}
    assert all(len(online) == FRAMES for online in told.values())
    assert told["d435"][-1].by_stereo
    assert not told["azure"][-1].by_stereo
    assert len(told["d435"][-1].keyframes) >= TrackConfig().tell_at_once
    # one of them showed how little noise there is
    assert len(told["azure"][-1].keyframes) == 1
    lessened = {sensor: online[-1].vertex_sd_m / online[0].vertex_sd_m for sensor, online in told.items()}
    assert lessened["d435"] < 0.9 < lessened["azure"]


def test_another_prior_changes_the_shape_and_not_the_evidence(seen: dict[str, list[Tracker]]) -> None:
    shape = seen["d435"][-1].shape
    assert shape is not None
    online = shape.online
    free = online.mesh.num_betas
    mean = np.asarray(np.linalg.solve(online._known, online._known_vector), np.float64)
    present = ShapeGaussian(mean, online._known)
    x, cov = online.under(present)
    assert np.allclose(x, online.x, atol=1e-9)
    assert np.allclose(cov, online.cov, rtol=1e-6, atol=1e-12)
    thick = joint_gaussian(shape._shape, CLOTHING["loose"], free)
    wanted = online.under(thick)
    online.assume(thick, CLOTHING["loose"].sigma_behind_m)
    assert np.allclose(online.x, wanted[0], atol=1e-9)
    assert (online.x[free : free + 2] > x[free : free + 2]).all()
    assert online.sigma_behind_m == CLOTHING["loose"].sigma_behind_m
    online.assume(present, shape.clothing.sigma_behind_m)
    assert np.allclose(online.x, x, atol=1e-9)


def test_what_is_worn_is_judged_by_all_frames(seen: dict[str, list[Tracker]]) -> None:
    shape = seen["d435"][-1].shape
    assert shape is not None
    assert shape.clothing.name == "tight"
    # what was told is not judged
    shape._worn_unknown = False
    shape.clothing = UNDECIDED
    shape.judge_again()
    assert shape.clothing is UNDECIDED
    shape._worn_unknown = True
    shape.judge_again()
    assert shape.clothing.name == "tight"


def test_cloth_tells_what_is_worn_before_a_stereo_camera() -> None:
    def worn(cloth_mm: float, shoes_mm: float) -> dict[str, float]:
        thickness = np.zeros(len(GARMENTS))
        thickness[:3] = 1e-3 * np.array([cloth_mm, cloth_mm, shoes_mm])
        return judge_stereo_wear(thickness).log_odds

    assert worn(1.0, 8.0)["casual"] < -1 and worn(8.0, 8.0)["casual"] > 1
    # feet come out thick whatever is worn
    assert abs(worn(4.0, 12.0)["casual"] - worn(4.0, 7.0)["casual"]) < 1.0
    assert worn(20.0, 11.0)["loose"] > worn(20.0, 11.0)["casual"]
