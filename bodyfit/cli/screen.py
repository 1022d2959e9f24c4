"""What commands print: one JSON document, or tables for people; progress goes to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bodyfit.body.measure import Measurement
    from bodyfit.fit.result import FitResult

MAX_FRAMES_SHOWN = 8
MAX_FLAGS_SHOWN = 12


def print_json(document: Mapping[str, Any]) -> None:
    """The one JSON document of a command, on stdout."""
    from bodyfit.export.tables import json_text

    sys.stdout.write(json_text(document))


def print_lines(*lines: str) -> None:
    """Plain lines on stdout, as they are."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def print_table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """A table on stdout: columns are (heading, "left" or "right")."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for heading, side in columns:
        table.add_column(heading, justify="right" if side == "right" else "left")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    # a pipe has no width: nothing is cut short there
    Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 240).print(table)


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """A function (stage, fraction) that shows how far long work is; silent where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield lambda stage, fraction: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)

        def show(stage: str, fraction: float) -> None:
            bar.update(task, description=stage, completed=min(max(fraction, 0.0), 1.0))

        yield show


def measurement_cells(measurement: Measurement) -> tuple[str, str, str]:
    """Value, standard deviation and unit as people read them: centimetres, litres, kilograms."""
    factor, unit, digits = {"m": (100.0, "cm", 1), "m3": (1000.0, "l", 1), "kg": (1.0, "kg", 1)}[measurement.unit]
    value, sd = measurement.value_m * factor, measurement.sd_m * factor
    return (f"{value:.{digits}f}" if value == value else "–", f"± {sd:.{digits}f}" if sd == sd else "", unit)


def print_measurements(measurements: Mapping[str, Measurement]) -> None:
    """The measurements as a table for people."""
    rows = []
    for name, m in measurements.items():
        value, sd, unit = measurement_cells(m)
        rows.append((name, value, sd, unit, "" if m.seen else "not seen whole: partly from what is usual"))
    columns = [("measurement", "left"), ("value", "right"), ("sd", "right"), ("", "left"), ("", "left")]
    print_table(columns, rows)


def print_sensors(result: FitResult) -> None:
    """Where the sensors were found to be, against where they were said to be."""
    rows = []
    for place in result.sensors:
        if place.fixed:
            rows.append((place.name, "held", "", ""))
            continue
        delay = (
            "" if place.delay_s is None else f"{place.delay_s * 1000:+.1f} ± {1000 * (place.delay_sd_s or 0):.1f} ms"
        )
        rows.append((
            place.name,
            f"{place.moved_m * 100:.1f} ± {place.moved_sd_m * 100:.1f} cm",
            f"{place.turned_deg:.2f} ± {place.turned_sd_deg:.2f}°",
            delay,
        ))  # fmt: skip
    print_table([("sensor", "left"), ("moved by", "right"), ("turned by", "right"), ("clock", "right")], rows)


def print_quality(result: FitResult) -> None:
    """How well the fit explains what was seen, frame by frame, and what it says about itself."""
    rows = []
    for q in result.frames[:MAX_FRAMES_SHOWN]:
        seen = [part for part, share in q.coverage.items() if share > 0]
        rows.append((
            str(q.frame_index),
            f"{q.depth_residual_m * 1000:.1f} mm" if isfinite(q.depth_residual_m) else "not seen",
            f"{q.silhouette_iou * 100:.0f} %",
            f"{len(seen)} of {len(q.coverage)}" if q.coverage else "not looked at",
            "" if q.believed else "NOT BELIEVED",
        ))  # fmt: skip
    columns = [
        ("frame", "right"),
        ("depth residual", "right"),
        ("outline", "right"),
        ("parts seen", "right"),
        ("", "left"),
    ]
    print_table(columns, rows)
    lines = []
    if len(result.frames) > MAX_FRAMES_SHOWN:
        lines.append(f"… and {len(result.frames) - MAX_FRAMES_SHOWN} more frames: see measurements.json")
    verdict = "to be believed" if result.converged else "NOT TO BE BELIEVED: do not use these numbers"
    lines += [f"fit: {verdict}; the solver stopped: {result.stop_reason.value}"]
    lines += [f"clothing taken as {result.clothing}; sex {result.sex}; body model {result.model.name}"]
    lines += [f"flag: {flag}" for flag in result.flags[:MAX_FLAGS_SHOWN]]
    if len(result.flags) > MAX_FLAGS_SHOWN:
        lines.append(f"… and {len(result.flags) - MAX_FLAGS_SHOWN} more flags: see measurements.json")
    lines += [f"hint: {hint}" for hint in result.hints]
    print_lines(*lines)
