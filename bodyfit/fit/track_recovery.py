"""A person who is not where they were expected, or stands otherwise: the frame again, wider and in every likely way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bodyfit.fit.follow import Followed, Pose, Seen
from bodyfit.fit.track_frame import FrameFit, Settled
from bodyfit.fit.track_limbs import arms_elsewhere
from bodyfit.fit.track_return import Return
from bodyfit.frame import Frame

LEAST_GAIN = 0.02
"""a body that was found otherwise replaces the followed one when it explains this much more"""


@dataclass
class Recovery:
    """Finds a followed person again who went on unseen, or of whom a limb was left behind.

    Attributes:
        returns: where who is not followed may be, and the ways that are still open once they were found.
    """

    fit: FrameFit
    returns: Return

    def come_back(
        self, frames: Sequence[Frame], now: float, gone_s: float, last: Pose, expected: Pose
    ) -> tuple[Followed, float] | None:
        """The person, where something stands before the room by now or where they were expected: in the pose that they
        had or a likely one, in any heading. None where they are not seen well enough."""
        fit, usual = self.fit, self.fit.usual
        if usual.mean is None:
            return None
        mesh = fit.coarse_mesh
        before = fit.sensors.before
        ways = self.returns.ways(frames, now, gone_s, mesh, last, expected)
        fit.sensors.before = before
        if ways is None:
            return None
        best: tuple[Followed, float] | None = None
        chosen = 0
        for i in range(min(fit.config.ways_tried, len(ways))):
            if ways.cost[i] > 2 * ways.cost[0]:
                break
            settled = fit.settled(frames, ways.pose(i), 0)
            if settled is None or settled[1] < fit.config.least_person * usual.mean[2]:
                continue
            if best is None or usual.merit(*settled[0].fits) > usual.merit(*best[0].fits):
                best, chosen = (settled[0], settled[1]), i
            if usual.is_good(*settled[0].fits) and not usual.is_odd(*settled[0].fits):
                break
        if best is None or not usual.is_good(*best[0].fits):
            return None
        self.returns.found(now, ways, chosen)
        return best

    def weighed(
        self, frames: Sequence[Frame], now: float, found: Followed, last: Pose, told: list[str], *, afresh: bool
    ) -> Settled | None:
        """The body as it stands more likely than as it was found at first; None where that is how it stands."""
        rival = self.returns.weigh(frames, now, self.fit.coarse_mesh, found.pose, last, afresh=afresh)
        settled = None if rival is None else self.fit.settled(frames, rival, 0)
        usual = self.fit.usual
        if settled is None or usual.merit(*settled[0].fits) < usual.merit(*found.fits) + LEAST_GAIN:
            return None
        self.returns.exchanged(found.pose)
        told.append("stands otherwise than they were taken to at first")
        return settled

    def wider(
        self, frames: Sequence[Frame], gone_s: float, last: Pose, expected: Pose, found: Followed,
        *, regain: bool, uncovered: bool,
    ) -> Iterator[Settled]:  # fmt: skip
        """The frame again: wider and coarser; then, where nothing is followed or what was hidden until now went on
        meanwhile, in every likely way; and, unless to `regain` is asked for, with an arm elsewhere.

        Args:
            gone_s: for so long the person was not followed.
            last: the pose before this frame.
            uncovered: whether something stood before the person until now.
        """
        c, fit = self.fit.config, self.fit
        seen = fit.sensors.look_coarsely(fit.coarse_mesh, frames, expected, c.regain.pixels)
        if not seen:
            return
        good = fit.usual.is_good(*found.fits)
        if not good or regain:
            again = self._regain(frames, seen, last, expected)
            if again is not None:
                yield again
                good = fit.usual.is_good(*again[0].fits)
            if not good or uncovered:
                back = self.come_back(frames, float(frames[0].timestamp_s), gone_s, last, expected)
                if back is not None:
                    yield *back, 0
            return
        moved = arms_elsewhere(
            fit.coarse_mesh, [s.view for s in seen], found.pose, c.regain, c.fit, fit.prior,
            fit.known_shape.clothing.sigma_behind_m, iterations=3,
        )  # fmt: skip
        if moved is not None:
            settled = fit.settled(frames, moved, 0)
            if settled is not None:
                yield settled

    def _regain(self, frames: Sequence[Frame], seen: Sequence[Seen], last: Pose, expected: Pose) -> Settled | None:
        """The frame once more, wider and coarser, from where the body was expected and from where it was."""
        best: Followed | None = None
        steps = 0
        for start in (expected,) if expected is last else (expected, last):
            coarse = self.fit.descend_coarsely(seen, start)
            steps += coarse.evaluations
            if best is None or coarse.equations.cost[0] < best.equations.cost[0]:
                best = coarse
        assert best is not None
        return self.fit.settled(frames, best.pose, steps)
