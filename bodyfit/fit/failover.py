"""A device with the CPU behind it: what the device is asked while it is away is solved here."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

from bodyfit.errors import DeviceLostError
from bodyfit.fit.device import CpuBackend, DescendJob, Descent, LinearizeJob, SolveJob, Solver
from bodyfit.fit.problem import Linearization, Problem
from bodyfit.fit.solver import Solution

AGAIN_S = 1.0
"""a device that was away is asked again after so long"""


class FailoverSolver:
    """Implements `bodyfit.fit.device.Solver`: asks a device, and the CPU for as long as that is lost.

    The two agree to 0.1 mm, so a fit may change from one to the other in the middle.
    """

    def __init__(self, device: Solver) -> None:
        self._device, self._cpu = device, CpuBackend()
        self._lock, self._away_since = Lock(), float("-inf")
        self.on_cpu = 0
        """jobs that the CPU did"""

    @property
    def name(self) -> str:
        """The device's, and that the CPU had a share in it where it had."""
        return f"{self._device.name}, in part cpu" if self.on_cpu else self._device.name

    def takes(self, problem: Problem) -> bool:
        """As the device's."""
        return self._device.takes(problem)

    def solve(self, job: SolveJob) -> Solution:
        """Waits for the solution."""
        return self._try(self._device.solve, lambda j: self._cpu.solve([j])[0], job)

    def linearize(self, job: LinearizeJob) -> Linearization:
        """Waits for the equations."""
        return self._try(self._device.linearize, lambda j: self._cpu.linearize([j])[0], job)

    def descend(self, job: DescendJob) -> Descent:
        """Waits for the end."""
        return self._try(self._device.descend, lambda j: self._cpu.descend([j])[0], job)

    def _try(self, there: Callable[[Any], Any], here: Callable[[Any], Any], job: Any) -> Any:
        if time.monotonic() - self._away_since > AGAIN_S:
            try:
                return there(job)
            except DeviceLostError:
                self._away_since = time.monotonic()
        with self._lock:
            self.on_cpu += 1
        return here(job)
