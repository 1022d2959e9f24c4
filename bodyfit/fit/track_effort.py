"""How much a tracker does for a frame: less where the time that it may take is short, more where there is plenty."""

from __future__ import annotations

from bodyfit.fit.track_config import EFFORTS, Effort

SLOW_FRAMES, QUICK_FRAMES = 3, 30
"""so many frames that took too long, or half of the budget, before less or more is done"""
QUICK_SHARE = 0.55


class EffortLevel:
    """The row of `EFFORTS` that is used at present, from `first` on, and the frames that speak for another."""

    def __init__(self, first: int) -> None:
        self._first = self._row = first
        self._slow, self._quick = 0, 0

    @property
    def now(self) -> Effort:
        """What is done for a frame."""
        return EFFORTS[self._row]

    @property
    def short(self) -> bool:
        """Whether there is no time for what can be left out."""
        return self._row > max(self._first, 1)

    def spent(self, seconds: float, budget_s: float | None) -> None:
        """A frame took so long: less is done after three that took too long, more after thirty that took half."""
        if budget_s is None:
            return
        self._slow = self._slow + 1 if seconds > budget_s else 0
        self._quick = self._quick + 1 if seconds < QUICK_SHARE * budget_s else 0
        if self._slow >= SLOW_FRAMES and self._row < len(EFFORTS) - 1:
            self._row, self._slow, self._quick = self._row + 1, 0, 0
        elif self._quick >= QUICK_FRAMES and self._row > self._first:
            self._row, self._slow, self._quick = self._row - 1, 0, 0
