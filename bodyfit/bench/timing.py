"""Medians of repeated measurements, wall and CPU time side by side: on a loaded machine only the second one is ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bodyfit.errors import BodyfitError

SCALE = {"s": 1.0, "ms": 1e3}
MIN_SPAN_S = 0.002
"""what is shorter is called several times between two looks at the clock, whose CPU time moves in steps"""


@dataclass(frozen=True)
class Sample:
    """One measurement, seconds; `cpu` counts every thread of the process."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class ProcessRun:
    """A finished child process: its times from start to end, peak memory in bytes, and what its code reported."""

    sample: Sample
    peak_bytes: int
    report: Mapping[str, Any]


def sample_calls(call: Callable[[], Any], repeats: int) -> list[Sample]:
    """Times a call after one that does not count (it may compile, or touch memory for the first time)."""
    start = time.perf_counter()
    call()
    once = max(time.perf_counter() - start, 1e-7)
    inner = max(1, min(100, int(MIN_SPAN_S / once) + 1))
    samples = []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(inner):
            call()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        samples.append(Sample(wall / inner, cpu / inner))
    return samples


def figure(
    samples: Sequence[Sample], unit: str, *, limit: float | None = None, goal: float | None = None
) -> dict[str, Any]:
    """The record of one measurement; limit and goal are in the same unit."""
    factor = SCALE[unit]
    wall = [s.wall * factor for s in samples]
    record = {
        "median": median(wall),
        "cpu_median": median(s.cpu * factor for s in samples),
        "min": min(wall),
        "max": max(wall),
        "unit": unit,
        "n": len(samples),
    }
    return {**record, **{k: v for k, v in (("limit", limit), ("goal", goal)) if v is not None}}


def difference(more: Mapping[str, Any], *less: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of one figure when others are taken away: the part that cannot be called alone."""
    left = {k: max(0.0, more[k] - sum(part[k] for part in less)) for k in ("median", "cpu_median")}
    return {**left, "unit": more["unit"], "n": more["n"], "how": "a difference of medians"}


# What a child runs: the code, then what it cost. VmHWM counts this program alone, while ru_maxrss starts
# from what the parent held when it made the child.
_REPORT = """
def _peak():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
import json, sys
sys.stdout.flush()
sys.stderr.write("\\n" + json.dumps({"peak": _peak(), **report}) + "\\n")
"""


def run_python(code: str, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> ProcessRun:
    """Runs code in a fresh interpreter; the code fills the dict `report`.

    Raises:
        BodyfitError: the child failed; the message ends with what it said.
    """
    before = os.times()
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", f"report = {{}}\n{code}\n{_REPORT}", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    wall = time.perf_counter() - start
    after = os.times()
    lines = done.stderr.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise BodyfitError(f"a measured process ended with {done.returncode}: {' / '.join(lines[-3:])}")
    report = json.loads(lines[-1])
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return ProcessRun(Sample(wall, cpu), int(report["peak"]), report)
