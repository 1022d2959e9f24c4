"""How much frames tell of a shape together."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.fit.online_shape import NOISY, AlikeErrors, OnlineShape
from bodyfit.fit.track import Tracker
from bodyfit.fit.track_config import TrackConfig
from bodyfit.synthetic.motion import plan_film

FRAMES = 8


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


@pytest.fixture(scope="module")
def told(model: BodyModel) -> dict[str, tuple[float, OnlineShape]]:
    """By sensor one person's shape who stands nearly still: after the first frame its vertices' standard deviation, and
    what all frames told."""
    out: dict[str, tuple[float, OnlineShape]] = {}
    for sensor in ("d435", "azure"):
        film = plan_film(model, 78, motion="wave", seconds=FRAMES / 30, sensor=sensor, clothing="tight")
        tracker, sd = Tracker(model, gravity_world=film.gravity_world), []
        for instant in film:
            tracker.update(list(instant.frames.values()))
            assert tracker.shape is not None
            sd.append(tracker.shape.online.vertex_sd_m)
        assert tracker.shape is not None
        out[sensor] = sd[0], tracker.shape.online
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


def test_a_noisy_sensor_tells_in_frames_that_are_alike(told: dict[str, tuple[float, OnlineShape]]) -> None:
    (first, d435), (first_azure, azure) = told["d435"], told["azure"]
    assert azure.noise < NOISY <= d435.noise
    assert len(d435.keyframes) >= TrackConfig().tell_at_once
    # one of them showed how little noise there is
    assert len(azure.keyframes) == 1
    assert d435.vertex_sd_m / first < 0.9 < azure.vertex_sd_m / first_azure
