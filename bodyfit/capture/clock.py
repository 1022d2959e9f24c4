"""A device's clock made a recording's: seconds from the first frame, always rising, whatever that clock does."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

MOST_APART_S = 5.0
"""a device's clock that gains more than this on ours between two frames was set anew: crystals drift by 50 ppm, and
frames are held back by fractions of a second"""
LEAST_STEP_S = 1e-4
"""frames whose device's clock went back follow one another by at least this"""
MOST_EVENTS = 200


@dataclass
class CaptureClock:
    """Times of instants.

    Attributes:
        first_s: the device's time of the first frame; None before it.
        events: what the device's clock did, a sentence each; the first `MOST_EVENTS`.
        jumps: how many there were.
    """

    first_s: float | None = None
    events: list[str] = field(default_factory=list)
    jumps: int = 0
    _offset: float = 0.0
    _device: float = 0.0
    _arrived: float = 0.0
    _last: float = -1.0
    _last_color: float = float("-inf")

    def instant(self, device_s: float, arrived_s: float) -> float | None:
        """Seconds since the first frame, later than the one before; None for the same instant once more.

        Where the device's clock goes back, or leaps, the time goes on by what passed on this machine's clock.

        Args:
            device_s: when the frame was taken, on the device's clock.
            arrived_s: when it was read, on this machine's monotonic clock.
        """
        if self.first_s is None:
            self.first_s, self._offset = device_s, -device_s
        else:
            step, passed = device_s - self._device, arrived_s - self._arrived
            if step == 0:
                return None
            if step < 0 or step - passed > MOST_APART_S:
                now = self._last + max(passed, LEAST_STEP_S)
                self._offset = now - device_s
                self.jumps += 1
                if len(self.events) < MOST_EVENTS:
                    self.events.append(
                        f"at {now:.3f} s the device's clock jumped by {step:+.3f} s, while {passed:.3f} s passed here"
                    )
        self._device, self._arrived = device_s, arrived_s
        # adding and taking away large numbers may round two times to one
        self._last = max(device_s + self._offset, self._last + 1e-6)
        return self._last

    @property
    def now_s(self) -> float:
        """The last frame's time; 0 before the first."""
        return max(self._last, 0.0)

    def of_color(self, device_s: float | None) -> float | None:
        """A colour image's time on the clock that the instants have; None where it has none, or where it went back."""
        if device_s is None or self.first_s is None or not math.isfinite(device_s):
            return None
        time_s = device_s + self._offset
        if time_s < self._last_color or abs(time_s - self._last) > MOST_APART_S:
            return None
        self._last_color = time_s
        return time_s
