"""Measures the fit on a GPU: agreement with the CPU, cold starts, streams, shape fits, batch sizes, kernels, memory.

    python -m benchmarks.gpu [--device cuda] [--seconds-budget 420] [-o gpu_results]

Needs numpy, scipy, torch, numba, numba-cuda and this checkout with its body file; nothing else. Films are made by our
own renderer. Writes gpu.json, gpu.md and the plot into the folder after every section, so that what was measured stays
whatever happens next. A section that fails is told with its traceback, and the others go on; what there is no time for
is left out and told. `--device cpu` runs the very same sections on the CPU's backend: it shows that the command works.

Exit codes: 0, 1 where a section failed or device and CPU do not agree, 2 where there is no such device.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # read when numpy is loaded: streams share the cores

if TYPE_CHECKING:
    from benchmarks.gpu_measure import Bench, Scale

BUDGET_S = 420.0
GRACE_S = 45.0
"""so long after its budget a command that hangs is ended; what was measured is on the disk"""


@dataclass(frozen=True)
class Section:
    """What is measured, with how much time at least and at most, seconds."""

    name: str
    measure: Callable[[Bench], dict[str, Any]]
    least_s: float
    most_s: float


def sections(device: str) -> tuple[Section, ...]:
    """In the order of their weight: what comes last is left out first."""
    from benchmarks import gpu_hardware as hardware
    from benchmarks import gpu_measure as measure
    from benchmarks import gpu_track as track

    return (
        Section("environment", lambda _bench: hardware.environment(device), 0, 30),
        Section("prepare", measure.prepare, 0, 200),
        Section("first_use", hardware.first_use, 2, 120),
        Section("agreement", measure.agreement, 5, 60),
        Section("cold", measure.cold, 5, 40),
        Section("descents", track.descents, 5, 20),
        Section("threads", track.threads, 10, 60),
        Section("kernels", hardware.kernels, 10, 30),
        Section("roofline", hardware.roofline, 5, 15),
        Section("shapes", measure.shapes, 10, 45),
        Section("batch_sizes", measure.batch_sizes, 10, 60),
        Section("processes", track.processes, 15, 75),
        # the last: it takes the device to its limits
        Section("memory", hardware.memory, 5, 30),
    )


def small() -> Scale:
    """All of it within seconds, for tests: a thirtieth of the pixels, few frames, few hypotheses."""
    from benchmarks.gpu_measure import Scale
    from bodyfit.fit.config import FitConfig, Stage

    usual = FitConfig()
    changes = {
        "headings": 4, "survivors": 1, "generations": 0, "limb_rounds": 0, "arms_tasted": 0,
        "settle": usual.settle[:1], "limbs_again": replace(usual.limbs_again, pixels=400, iterations=1),
        "refine": (Stage("finish", 1, 800, 3, 999, 0.06, 0.12, sensor_noise=True, damping=1e-3, max_turn_rad=0.3),),
    }  # fmt: skip
    return Scale(
        films=2, frames=6, every=4, streams=(1, 2), batches=(1, 4), processes=(1,), seconds=0.05, track_seconds=0.3,
        repeats=1, instants=2, at_once=2, changes=changes,
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measures, writes, and says how it ended."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--seconds-budget", type=float, default=BUDGET_S, metavar="S")
    parser.add_argument("-o", "--out", type=Path, default=Path("gpu_results"), metavar="FOLDER")
    parser.add_argument(
        "--small", action="store_true", help="as little as possible of everything: a test of the command"
    )
    given = parser.parse_args(arguments)
    from benchmarks.gpu_jobs import make_backend
    from benchmarks.gpu_measure import Bench, Scale
    from bodyfit.body.model import load_body_model
    from bodyfit.errors import BodyfitError

    end = time.monotonic() + given.seconds_budget
    try:
        backend = make_backend(given.device)
    except (BodyfitError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # the first stops what was started, too; the second needs no turn of the interpreter
    watch = threading.Timer(max(given.seconds_budget + GRACE_S, 0.0), stop)
    watch.daemon = True
    watch.start()
    faulthandler.dump_traceback_later(given.seconds_budget + GRACE_S + 5.0, exit=True)
    scale = small() if given.small else Scale()
    bench = Bench(scale, backend, given.device != "cpu", load_body_model())
    given.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"running": None, "sections": {}}
    for section in sections(given.device):
        results["running"] = section.name
        write(given.out, results)
        results["sections"][section.name] = measured(section, bench, end)
        results["running"] = None
        write(given.out, results)
    watch.cancel()
    faulthandler.cancel_dump_traceback_later()
    print((given.out / "gpu.md").read_text(encoding="utf-8"))
    failed = [name for name, s in results["sections"].items() if "failed" in s or s.get("result", {}).get("failures")]
    agrees = bench.found.get("agreement", {}).get("holds", False)
    if failed or not agrees:
        print(f"failed: {', '.join(failed) or 'no section'}; agreement holds: {agrees}", file=sys.stderr)
    return 0 if agrees and not failed else 1


def stop() -> None:
    """Ends this process where it stands, and those that it started: they would keep the device."""
    faulthandler.dump_traceback()
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(1)


def measured(section: Section, bench: Bench, end: float) -> dict[str, Any]:
    """A section's result, why it was left out, or how it failed."""
    start = time.monotonic()
    if section.name not in ("environment", "prepare") and "prepare" not in bench.found:
        return {"left_out": "there are no films and no jobs"}
    if end - start < section.least_s:
        return {"left_out": f"only {max(end - start, 0):.0f} s of the budget were left"}
    bench.deadline = min(end, start + section.most_s)
    say = partial(print, flush=True, file=sys.stderr)
    say(f"{section.name} …")
    try:
        found = section.measure(bench)
    except Exception:  # nobody is there to start it again: what works is measured
        told = traceback.format_exc()
        say(told)
        return {"seconds": time.monotonic() - start, "failed": told}
    bench.found[section.name] = found
    counts = getattr(getattr(bench.backend, "programs", None), "counts", None)
    if counts is not None:
        found["programs"] = {**asdict(counts), "redone": getattr(bench.backend, "redone", 0)}
    for told in found.get("failures", ()):
        say(told)
    say(f"{section.name}: {time.monotonic() - start:.1f} s")
    return {"seconds": time.monotonic() - start, "result": found}


def write(folder: Path, results: dict[str, Any]) -> None:
    """Each file as a whole or not at all."""
    from benchmarks.gpu_report import PLOT, markdown, plot

    texts = {"gpu.json": json.dumps(results, indent=1, ensure_ascii=False) + "\n", "gpu.md": markdown(results)}
    batch = results["sections"].get("batch_sizes", {}).get("result")
    if batch is not None:
        texts[PLOT] = plot(batch)
    for name, text in texts.items():
        temporary = folder / f"{name}.part"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / name)


if __name__ == "__main__":
    sys.exit(main())
