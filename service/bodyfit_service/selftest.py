"""The shipped recording, fitted and followed: whether bodyfit works here, with its kernels compiled on the way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.config import FitConfig
    from bodyfit.fit.track_config import TrackConfig

FRAME_S = 1 / 30
"""from one instant that is followed to the next"""


def fit_shipped(model: BodyModel, config: FitConfig | None = None, frames: Sequence[int] | None = None) -> float:
    """Seconds that the fit of the shipped recording takes, of these frames or of all.

    Raises:
        InputError: it does not converge with this model.
    """
    from bodyfit.errors import InputError
    from bodyfit.fit.config import FitConfig
    from bodyfit.fit.fit import fit
    from bodyfit.recording.formats import open_recording
    from bodyfit.synthetic.demo import demo_recording_path

    began = time.perf_counter()
    recording = open_recording(demo_recording_path())
    result = fit(recording, model=model, frames=frames, config=config or FitConfig(threads=1))
    if not result.converged:
        raise InputError("model", "a body model with which the test fit converges", f"{model.name}, which does not")
    return time.perf_counter() - began


def follow_shipped(model: BodyModel, config: TrackConfig | None = None) -> float:
    """Seconds to find and follow the person of the shipped recording.

    Raises:
        BodyfitError: they are not found, or not followed.
    """
    from bodyfit.errors import BodyfitError
    from bodyfit.fit.track import Tracker
    from bodyfit.fit.track_estimate import TrackState
    from bodyfit.recording.formats import open_recording
    from bodyfit.synthetic.demo import demo_recording_path

    began = time.perf_counter()
    recording = open_recording(demo_recording_path())
    tracker = Tracker(model, config=config, gravity_world=recording.gravity_world)
    seen = [f for s in recording.sensors if (f := recording.frame(0, s.name)) is not None]
    states = [
        tracker.update([replace(f, timestamp_s=f.timestamp_s + n * FRAME_S) for f in seen]).state for n in range(3)
    ]
    if states != [TrackState.FOUND, TrackState.TRACKED, TrackState.TRACKED]:
        raise BodyfitError(f"the person of the shipped recording was {', '.join(s.name for s in states)}")
    return time.perf_counter() - began
