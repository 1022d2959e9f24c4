"""Results that came over the network, beside the recording that lies here: what pictures and files need of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from bodyfit.errors import PersonNotFoundError
from bodyfit_service.received import TrackAnswer

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.result import FitResult
    from bodyfit.fit.track_estimate import TrackEstimate
    from bodyfit.fit.track_recording import Step
    from bodyfit.recording.native import Recording


def with_observations(
    result: FitResult, recording: Recording, sensors: Sequence[str] | None = None, person: int | None = None
) -> FitResult:
    """The same result with what the recording's own frames show, as the library's fit keeps it.

    Args:
        sensors, person: as they were asked for.
    """
    from bodyfit.fit.extrinsics import moved_observation
    from bodyfit.fit.fit import look

    where = {int(index): i for i, index in enumerate(recording.indices)}
    positions = [where[index] for index in result.frame_indices if index in where]
    found, _ = look(recording, positions, sensors, person, lambda _stage, _fraction: None)
    places = {p.name: p for p in result.sensors}

    def in_place(seen: tuple) -> tuple:
        out = []
        for o in seen:
            place = places.get(o.sensor)
            if place is not None and not place.fixed:
                motion = place.T_world_depth @ np.linalg.inv(place.given)
                o = moved_observation(o, motion, place.delay_s or 0.0)
            out.append(o)
        return tuple(out)

    by_index = {i.index: in_place(i.observations) for i in found}
    return replace(result, observations=tuple(by_index.get(index, ()) for index in result.frame_indices))


@dataclass
class Followed:
    """The answers of a track through a recording, kept as far as its files need them.

    Attributes:
        positions: by index the instants' places in the recording.
        steps: of the instants in which the person was followed.
        skipped: by index why the others were not.
    """

    positions: dict[int, int]
    steps: list[Step] = field(default_factory=list)
    skipped: dict[int, str] = field(default_factory=dict)
    last: TrackEstimate | None = None

    def take(self, answer: TrackAnswer) -> None:
        """The next answer."""
        from bodyfit.fit.track_estimate import TrackState
        from bodyfit.fit.track_recording import step_of

        if answer.error is not None:
            self.skipped[answer.error.index] = f"{answer.error.field}: {answer.error.description}"
            return
        estimate = answer.estimate
        if estimate is None:
            return
        if estimate.state is TrackState.LOST:
            self.skipped[estimate.index] = "; ".join(estimate.told) or TrackState.LOST.value
            return
        self.steps.append(step_of(estimate, self.positions[estimate.index]))
        self.last = estimate

    def result(
        self, recording: Recording, model: BodyModel, *, sex: str, clothing: str, sensors: Sequence[str] | None = None,
        person: int | None = None,
    ) -> FitResult:  # fmt: skip
        """The track as a result: poses as they came, the shape as it was known at the end.

        The server tells one standard deviation of each beta, so that the result's covariance has a diagonal only. With
        clothing "auto" the result says "undecided": what the server judged is not told by a track.

        Raises:
            PersonNotFoundError: nobody was followed at all.
        """
        from bodyfit.fit.config import CLOTHING, UNDECIDED, FitConfig
        from bodyfit.fit.joint import FitSetup
        from bodyfit.fit.track_recording import Followed as Person
        from bodyfit.fit.track_recording import followed_result

        if self.last is None:
            first = next(iter(self.skipped.values()), "nothing")
            raise PersonNotFoundError("frames", "a person in one of them", first)
        answered = {s.index for s in self.steps} | set(self.skipped)
        unanswered = [index for index in self.positions if index not in answered]
        skipped = {**self.skipped, **dict.fromkeys(unanswered, "dropped: a newer frame had come")}
        about = Person(
            FitSetup(model, sex, clothing, FitConfig()), CLOTHING.get(clothing, UNDECIDED), self.last.betas,
            np.diag(self.last.betas_sd**2), self.last.garments_m,
        )  # fmt: skip
        names = list(sensors or (s.name for s in recording.sensors))
        return followed_result(about, recording, names, self.steps, skipped, person)
