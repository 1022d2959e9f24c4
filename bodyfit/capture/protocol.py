"""The guided capture: so many views, each taken when the person faces that way and stands still."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bodyfit.capture.guidance import HEADING_OFF_DEG, Advice, Sight, advise, is_still
from bodyfit.errors import InputError

FEWEST_VIEWS, MOST_VIEWS = 4, 8
START_S = 5.0
"""to walk in front of the sensor once the command runs"""
TURN_S = 2.0
"""nobody turns faster than this and stands"""
BY_TIME_S = 5.0
"""after so long a view is taken where nothing tells which way they face"""
PATIENCE_S = 15.0
"""after so long one is taken where the heading is told and not reached: a tracker may have been led astray"""
STILL_S = 0.4
TAKE_S = 0.5
"""one view: 15 frames at 30 a second, of which a fit takes one or some"""


@dataclass(frozen=True)
class Step:
    """What to do at a moment.

    Attributes:
        say: to the person.
        wanted: frames are to be recorded.
        view: which view is being prepared or taken.
        done: all views were taken.
    """

    say: str
    wanted: bool
    view: int
    done: bool = False


@dataclass
class TurnProtocol:
    """Leads through the views; give it the time and the newest sight.

    Attributes:
        views: how many, 4 to 8, evenly round.
        taken: what is known of the views until now: number, wanted_deg, heading_deg (None where unknown), by
            ("heading" or "time"), from_s, to_s on the clock that `step` is given.
    """

    views: int = 4
    taken: list[dict[str, Any]] = field(default_factory=list)
    _began: float | None = None
    _still_since: float | None = None
    _taking_since: float | None = None
    _heading: float | None = None
    _first: float | None = None
    _side: float = 0.0
    _by: str = ""

    def __post_init__(self) -> None:
        if not FEWEST_VIEWS <= self.views <= MOST_VIEWS:
            raise InputError("--views", f"{FEWEST_VIEWS} to {MOST_VIEWS} views", str(self.views))

    @property
    def step_deg(self) -> float:
        """From one view to the next."""
        return 360 / self.views

    def step(self, now_s: float, sight: Sight | None) -> Step:
        """What to do now.

        Args:
            now_s: seconds on any clock that goes on.
            sight: the newest; None where nobody looks: then time alone decides.
        """
        view = len(self.taken)
        if view == self.views:
            return Step("done: thank you", False, view - 1, True)
        self._began = now_s if self._began is None else self._began
        if self._taking_since is not None:
            if now_s - self._taking_since < TAKE_S:
                return Step("hold still: this view is being taken", True, view)
            self._finish(view, now_s)
            return self.step(now_s, sight)
        waited = now_s - self._began
        least = START_S if view == 0 else TURN_S
        if waited < least:
            return Step(f"{self._ask(view)} … {least - waited:.0f}", False, view)
        if sight is None:
            ready, self._by = waited >= BY_TIME_S, "time"
            return self._take(now_s, view, None) if ready else Step(self._ask(view), False, view)
        wrong = [a for a in advise(sight) if a.blocks]
        if wrong:
            self._still_since = None
            return Step(f"{self._ask(view)}; {wrong[0].value}", False, view)
        still = is_still(sight)
        self._still_since = (self._still_since or now_s) if still else None
        faces = self._faces(view, sight, waited)
        if not faces or self._still_since is None or now_s - self._still_since < STILL_S:
            hold = f"; {Advice.HOLD_STILL.value}" if faces else ""
            return Step(self._ask(view) + hold, False, view)
        return self._take(now_s, view, sight.heading_deg)

    def _faces(self, view: int, sight: Sight, waited: float) -> bool:
        """Whether they face as they should, or nothing better is to be had."""
        self._by = "time"
        if sight.heading_deg is None or (view > 0 and self._first is None):
            return waited >= BY_TIME_S
        if view == 0:
            self._by = "heading"
            return True
        assert self._first is not None
        turned = wrapped_deg(sight.heading_deg - self._first)
        side = self._side or (1.0 if turned >= 0 else -1.0)
        if abs(wrapped_deg(side * turned - view * self.step_deg)) <= HEADING_OFF_DEG:
            self._by, self._side = "heading", side
            return True
        return waited >= PATIENCE_S

    def _take(self, now_s: float, view: int, heading: float | None) -> Step:
        self._taking_since, self._heading = now_s, heading
        if view == 0:
            self._first = heading
        return Step("hold still: this view is being taken", True, view)

    def _finish(self, view: int, now_s: float) -> None:
        self.taken.append({
            "view": view,
            "wanted_deg": round(view * self.step_deg, 1),
            "heading_deg": None if self._heading is None else round(self._heading, 1),
            "by": self._by,
            "from_s": self._taking_since,
            "to_s": now_s,
        })  # fmt: skip
        self._began, self._still_since, self._taking_since, self._heading = now_s, None, None, None

    def _ask(self, view: int) -> str:
        if view == 0:
            return f"view 1 of {self.views}: face the sensor, arms a little away from the body"
        return f"view {view + 1} of {self.views}: turn on by {self.step_deg:.0f}°, the same way round"


def wrapped_deg(angle: float) -> float:
    """-180 up to 180."""
    return (angle + 180) % 360 - 180
