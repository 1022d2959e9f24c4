"""The benchmark: it measures what it says, by the names and keys that its readers rely on. No speed is asserted."""

from __future__ import annotations

import math
import time

import pytest

from bodyfit.bench.bench import Plan, run, start_figures
from bodyfit.bench.timing import Sample, difference, figure, run_python, sample_calls
from bodyfit.errors import BodyfitError
from bodyfit.export.tables import json_text


def test_samples_count_wall_and_cpu_apart() -> None:
    asleep = sample_calls(lambda: time.sleep(0.02), 3)
    assert len(asleep) == 3
    assert all(s.wall >= 0.02 and s.cpu < s.wall for s in asleep)

    def busy() -> None:
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass

    assert all(s.cpu >= 0.02 for s in sample_calls(busy, 2))


def test_figures_are_medians_in_their_unit() -> None:
    record = figure([Sample(0.003, 0.002), Sample(0.001, 0.001), Sample(0.010, 0.004)], "ms", limit=5.0)
    assert record["median"] == pytest.approx(3.0)
    assert record["cpu_median"] == pytest.approx(2.0)
    assert (record["min"], record["max"]) == pytest.approx((1.0, 10.0))
    assert (record["n"], record["limit"]) == (3, 5.0) and "goal" not in record
    rest = difference(record, figure([Sample(0.001, 0.0005)], "ms"))
    assert rest["median"] == pytest.approx(2.0) and rest["cpu_median"] == pytest.approx(1.5)


def test_a_child_reports_and_its_memory_is_its_own() -> None:
    done = run_python("report['sum'] = sum(range(10)); block = bytearray(50_000_000)")
    assert done.report["sum"] == 45
    assert done.peak_bytes > 50_000_000
    assert run_python("pass").peak_bytes < 50_000_000
    assert done.sample.wall > 0


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(BodyfitError, match="no such thing"):
        run_python("raise ValueError('no such thing')")


def test_start_figures() -> None:
    figures = start_figures(Plan(processes=1))
    assert set(figures) == {"import bodyfit", "import bodyfit.cli.main", "load the body file"}
    assert all(record["median"] > 0 and record["unit"] == "ms" for record in figures.values())


@pytest.mark.slow
def test_a_small_run_holds_every_figure() -> None:
    said: list[float] = []
    plan = Plan(kernels=1, fits=1, processes=1, first_runs=0, frames=1)
    report = run(plan=plan, progress=lambda _stage, fraction: said.append(fraction))
    figures = report["figures"]
    for name in (
        "import bodyfit", "load the body file", "cold fit of one frame", "warm frame",
        "rasterise 640×480, depth and faces", "  rest shape", "  skin", "  raster", "  nearest labels", "  residuals",
        "  rows and normal equations", "  priors and sums", "  solve and move",
        "bodyfit fit, one frame, start to files", "peak memory, one frame",
    ):  # fmt: skip
        record = figures[name]
        assert record["unit"] in ("s", "ms", "MB") and record["n"] >= 1
        assert math.isfinite(record["median"]) and record["median"] >= 0
        if record.get("how") is None:
            assert record["median"] > 0, name
    iteration = next(record for name, record in figures.items() if name.startswith("one iteration"))
    # CPU time: another process may interrupt the shorter of the two
    assert iteration["cpu_median"] > figures["  rest shape"]["cpu_median"] > 0
    assert figures["peak memory, one frame"]["limit"] == 1500.0
    assert report["machine"]["cores"] >= 1 and "numba" in report["machine"]["packages"]
    assert said == sorted(said) and said[-1] == 1.0
    json_text(report)
