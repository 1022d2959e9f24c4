"""A fit can be watched, and ended between any two of its steps."""

from __future__ import annotations

import numpy as np
import pytest

from bodyfit.fit.config import FitConfig
from bodyfit.fit.fit import fit
from bodyfit.recording.native import open_recording
from bodyfit.synthetic.demo import demo_recording_path
from bodyfit.watch import checkpoint, watched


class Enough(BaseException):
    pass


def test_nobody_watches() -> None:
    checkpoint(1.0)


def test_watching_changes_nothing_and_what_the_watcher_raises_ends_the_fit_there() -> None:
    recording = open_recording(demo_recording_path())
    config = FitConfig(threads=1)
    passed: list[float | None] = []
    with watched(passed.append):
        seen = fit(recording, config=config)
    costs = [c for c in passed if c is not None]
    assert len(costs) > 20  # steps of the optimiser
    assert len(passed) > 5 * len(costs)  # and places between them
    assert min(costs) < 0.9 * costs[0]
    unseen = fit(recording, config=config)
    np.testing.assert_array_equal(seen.betas, unseen.betas)
    np.testing.assert_array_equal(seen.poses, unseen.poses)

    left = len(passed) // 2

    def stop(_cost: float | None) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Enough

    with pytest.raises(Enough), watched(stop):
        fit(recording, config=config)
    assert left == 0  # not one checkpoint further
    checkpoint()  # and nobody watches any more
    assert left == 0
