"""The benchmark of the fit on a GPU in words: a section of Markdown, and the plot of throughput over batch size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

Record = dict[str, Any]
HEADING = "## The fit on a GPU"
PLOT = "gpu_batch_sizes.svg"
COLORS = ("#1b6ca8", "#d1495b", "#3a7d44", "#8d5a97", "#b5651d", "#444444")
MOST_KERNELS = 20


def number(value: Any) -> str:
    """Three figures, and never an exponent above a thousandth; words as they are."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, str)) or value is None:
        return "" if value is None else str(value)
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.3g}" if size >= 1e-3 or not size else f"{value:.1e}"


def table(rows: Sequence[Record], columns: Iterable[tuple[str, str]]) -> list[str]:
    """Markdown's table of some keys of the rows, under their titles; what was left out says so in its last cell."""
    columns = list(columns)
    lines = [f"| {' | '.join(title for _, title in columns)} | |", f"|{'---|' * (len(columns) + 1)}"]
    for row in rows:
        cells = [number(row.get(key)).replace("|", "/") for key, _ in columns]
        why = row.get("left_out", row.get("limit", "")) or ""
        lines.append(f"| {' | '.join(cells)} | {why} |")
    return [*lines, ""]


def facts(record: Record, names: Iterable[tuple[str, str]]) -> list[str]:
    """A list of single figures."""
    return [*(f"- {title}: {number(record[key])}" for key, title in names if record.get(key) is not None), ""]


def environment(r: Record) -> list[str]:
    """The machine."""
    packages = ", ".join(f"{k} {v}" for k, v in r["packages"].items())
    names = (
        ("name", "device"), ("memory_gib", "its memory, GiB"), ("multiprocessors", "multiprocessors"),
        ("capability", "compute capability"), ("driver", "driver"), ("cuda", "CUDA of torch"), ("date", "date"),
        ("processor", "processor"), ("cores", "cores"), ("load", "load at the start"), ("python", "Python"),
    )  # fmt: skip
    return [f"    {r['command']}", "", *facts({**r}, names)[:-1], f"- packages: {packages}", ""]


def prepare(r: Record) -> list[str]:
    """What the CPU takes."""
    names = (
        ("films_s", "making the films, s"), ("first_cpu_fit_s", "first cold fit on the CPU, compiling included, s"),
        ("cold_fit_cpu_ms", "cold fit on the CPU alone, ms of one core"),
        ("track_cpu_ms_a_frame", "tracking on the CPU alone, ms of one core a frame"),
    )  # fmt: skip
    return facts(r, names)


def first_use(r: Record) -> list[str]:
    """First calls."""
    rows = [{"kind": kind, **times} for kind, times in r.items() if "first_ms" in times]
    return table(rows, (("kind", "job"), ("first_ms", "first, ms"), ("third_ms", "third, ms")))


def agreement(r: Record) -> list[str]:
    """Device against CPU."""
    shared = (
        ("cost", "cost"),
        ("equations", "equations"),
        ("gradient", "gradient"),
        ("pixels_elsewhere", "pixels elsewhere"),
    )
    columns = (
        ("stage", "stage"), ("groups", "bodies"), ("rows", "rows"), ("parameters", "parameters"), *shared,
        ("body_mm_median", "solved: body, median mm"), ("body_mm", "worst mm"),
        ("fork_mm", "from the nearest fork, mm"), ("cpu_s_own_mm", "the CPU's forks, mm"),
    )  # fmt: skip
    out = table(r["stages"], columns)
    if "followed" in r:
        names = (
            ("bodies", "followed bodies, in one batch"), ("body_mm_median", "from the CPU's, median mm"),
            ("body_mm_p95", "95 %, mm"), ("body_mm", "worst, mm"), ("other_steps", "that took more steps or fewer"),
            ("alone_or_in_company_mm", "alone or in company, worst mm"),
        )  # fmt: skip
        out += facts(r["followed"], names)
    limits = ", ".join(f"{k} {number(v)}" for k, v in r["limits"].items())
    out += [
        "Where two descents cost the same, the last bit of a sum decides between them; a fork is where the CPU itself",
        "ends when its start is moved by 0.1 µm. Only settled stages count: a search's hypotheses fall to either side.",
        "",
    ]
    return [
        *out,
        f"Limits (relative, but for the body): {limits}. **{'Holds.' if r['holds'] else 'Does not hold.'}**",
        "",
    ]


def cold(r: Record) -> list[str]:
    """One frame from nothing."""
    names = (
        ("wall_ms", "wall, median ms"), ("device_ms", "of it waiting for the device, ms"),
        ("cpu_part_ms", "the rest, logic on the CPU, ms"), ("logic_cpu_ms", "CPU time of that logic, ms"),
        ("process_cpu_ms", "CPU time of the process, ms"),
        ("slowest_ms", "slowest, ms"), ("first_ms", "first, ms"), ("repeats", "repeats"),
        ("body_from_the_cpu_s_mm", "farthest vertex from the CPU's body, mm"),
    )  # fmt: skip
    jobs = ", ".join(f"{v} × {k}" for k, v in r["jobs"].items())
    stages = ", ".join(f"{k} {number(v)}" for k, v in r["stages_ms"].items())
    told = f"limit {number(r['limit_ms'])} ms, goal {number(r['goal_ms'])} ms: {'met' if r['met'] else '**missed**'}"
    return [
        "The evidence is given (who the person is); finding them is work of the CPU before that.", "",
        *facts(r, names)[:-1], f"- jobs: {jobs}", f"- ms by stage: {stages}", f"- {told}", "",
    ]  # fmt: skip


def descents(r: Record) -> list[str]:
    """The solver alone."""
    return table(r["rows"], (("streams", "streams"), ("ms", "ms a batch"), ("frames_per_s", "frames/s")))


def threads(r: Record) -> list[str]:
    """Whole frames."""
    columns = (
        ("streams", "streams"), ("processes", "processes"), ("device", "device"), ("frames_per_s", "frames/s"),
        ("fewest_per_stream_per_s", "slowest stream, frames/s"), ("live", f"all ≥ {r['live_fps']:.0f}/s"),
        ("cpu_ms_a_frame", "CPU ms a frame"), ("logic_cpu_ms_a_frame", "of it tracking's own"),
        ("busy_cores", "busy cores"), ("device_process_cores", "of them the device's process"),
        ("waited_ms_a_frame", "waiting for the device, ms a frame"), ("jobs_a_batch", "jobs a batch"),
        ("followed", "share followed"),
    )  # fmt: skip
    rows = [{"processes": 1, "device": "here", **row} for row in r["rows"]]
    out = table(rows, columns)
    done = [row for row in r["rows"] if "parts_ms" in row]
    if done:
        parts = ", ".join(f"{k} {number(v)}" for k, v in done[-1]["parts_ms"].items())
        out += [f"Parts of a frame at {done[-1]['streams']} streams, median wall ms: {parts}.", ""]
    best = max((row.get("frames_per_s", 0.0) for row in r["rows"]), default=0.0)
    return [*out, f"Best {number(best)} frames/s on {r['cores']} cores; goal {number(r['goal_frames_per_s'])}.", ""]


def shapes(r: Record) -> list[str]:
    """Fits of several frames."""
    columns = (("at_once", "fits at once"), ("fits_per_s", "fits/s"), ("busy_cores", "busy cores"), ("fits", "fits"))
    return [f"Fits of {r['frames']} frames; the first took {number(r['first_s'])} s.", "", *table(r["rows"], columns)]


def batch_sizes(r: Record) -> list[str]:
    """Throughput over batch size."""
    kinds = list(r["table"])
    sizes = sorted({int(s) for row in r["table"].values() for s in row})
    rows = [{"size": n, **{k: r["table"][k].get(str(n), {}).get("per_s") for k in kinds}} for n in sizes]
    out = table(rows, (("size", "batch"), *((k, f"{k}, jobs/s") for k in kinds)))
    return [*out, f"![Throughput over batch size]({PLOT})", "", *(f"- not measured: {t}" for t in r["left_out"]), ""]


def kernels(r: Record) -> list[str]:
    """Shares."""
    out = []
    for name, part in r.items():
        if not isinstance(part, dict) or "rows" not in part:
            continue
        out += [f"{name}, batches of {r['batch']}:", ""]
        if "absent" in part:
            out += [f"- {part['absent']}", ""]
            continue
        rows = [{**row, "share": f"{100 * row['share']:.1f} %"} for row in part["rows"][:MOST_KERNELS]]
        out += table(rows, (("kernel", "kernel"), ("ms", "ms"), ("launches", "launches"), ("share", "share")))
        out += [f"Wall {number(part['wall_ms'])} ms, the device busy for {100 * part['busy']:.0f} % of it.", ""]
    return out


def roofline(r: Record) -> list[str]:
    """The heaviest kernel."""
    names = (
        ("batch", "jobs"), ("rows", "rows"), ("parameters", "parameters"), ("gflop", "GFLOP of rows × P × (P + 1) × 2"),
        ("rows_mb", "MB of rows"), ("wall_ms", "wall ms"), ("gflop_per_s", "GFLOP/s, copies and all"),
    )  # fmt: skip
    peak, heavy = r["peak"], r["heaviest"]
    if isinstance(peak, dict):
        peak = f"{number(peak['gflop_per_s'])} GFLOP/s float32, {number(peak['gb_per_s'])} GB/s (NVIDIA's data sheet)"
    if isinstance(heavy, dict):
        heavy = ", ".join(f"{k.replace('_', ' ')} {number(v)}" for k, v in heavy.items())
    return [*facts(r, names)[:-1], f"- the card's peak: {peak}", f"- heaviest kernel: {heavy}", ""]


def memory(r: Record) -> list[str]:
    """Too small a memory."""
    names = (
        ("jobs", "jobs in a batch"), ("peak_mib", "MiB that it takes"), ("room", "room that it was then left"),
        ("refused", "asked for at once"), ("survived", "jobs done when threads asked"), ("splits", "batches halved"),
        ("on_cpu", "jobs that did not fit alone and were done on the CPU"),
        ("body_mm", "worst body from the one with room, mm"), ("afterwards_mm", "a job afterwards, mm"),
    )  # fmt: skip
    return facts(r, names)


TITLES: dict[str, tuple[str, Callable[[Record], list[str]]]] = {
    "environment": ("Where", environment),
    "prepare": ("Beforehand, on the CPU", prepare),
    "first_use": ("First use", first_use),
    "agreement": ("Agreement with the CPU", agreement),
    "cold": ("One frame from nothing", cold),
    "descents": ("Streams: the solver alone", descents),
    "threads": ("Streams: whole frames, threads of one process", threads),
    "processes": ("Streams: whole frames, worker processes", threads),
    "shapes": ("Shape fits", shapes),
    "batch_sizes": ("Batch size and throughput", batch_sizes),
    "kernels": ("Share of the time by kernel", kernels),
    "roofline": ("Distance from the roofline", roofline),
    "memory": ("Too little memory", memory),
}


def markdown(results: Record) -> str:
    """All sections, those that failed or were left out too."""
    lines = [HEADING, ""]
    for name, section in results["sections"].items():
        title, write = TITLES[name]
        lines += [f"### {title}", ""]
        if "failed" in section:
            last = section["failed"].strip().splitlines()[-1]
            lines += [f"**Failed** after {number(section['seconds'])} s: {last} (whole traceback in the JSON)", ""]
        elif "left_out" in section:
            lines += [f"Left out: {section['left_out']}.", ""]
        else:
            lines += write(section["result"])
            programs = section["result"].get("programs")
            if programs:
                told = ", ".join(f"{k} {v}" for k, v in programs.items())
                lines += [f"Batches of repeated shapes until here (CUDA graphs): {told}.", ""]
            lines += [f"**Failed**: {told}\n" for told in section["result"].get("failures", ())]
    if results.get("running"):
        lines += [f"*Not finished: {results['running']} was running.*", ""]
    return "\n".join(lines)


def plot(batch: Record) -> str:
    """An SVG of jobs per second over batch size, both axes logarithmic."""
    curves = {
        kind: [(int(n), cell["per_s"]) for n, cell in sorted(row.items(), key=lambda item: int(item[0]))]
        for kind, row in batch["table"].items()
    }
    points = [p for curve in curves.values() for p in curve]
    if not points:
        return ""
    x_high = max(1, math.ceil(math.log2(max(n for n, _ in points))))
    low = math.floor(math.log10(min(y for _, y in points)))
    high = max(low + 1, math.ceil(math.log10(max(y for _, y in points))))
    left, top, width, height = 70.0, 20.0, 520.0, 320.0

    def at(n: float, y: float) -> tuple[float, float]:
        return (
            left + width * math.log2(n) / x_high,
            top + height * (high - math.log10(y)) / (high - low),
        )

    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 840 400" font-family="sans-serif" font-size="12">',
        '<rect width="840" height="400" fill="white"/>',
    ]
    for k in range(x_high + 1):
        x, _ = at(2**k, 10**high)
        out.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + height}" stroke="#ddd"/>')
        out.append(f'<text x="{x:.1f}" y="{top + height + 18}" text-anchor="middle">{2**k}</text>')
    for k in range(low, high + 1):
        _, y = at(1, 10.0**k)
        out.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**k:g}</text>')
    out.append(f'<text x="{left + width / 2}" y="390" text-anchor="middle">jobs in a batch</text>')
    out.append('<text transform="translate(18 180) rotate(-90)" text-anchor="middle">jobs per second</text>')
    for k, (kind, curve) in enumerate(curves.items()):
        color = COLORS[k % len(COLORS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*p) for p in curve))
        out.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in (at(*p) for p in curve)]
        out.append(f'<text x="{left + width + 16}" y="{top + 14 + 20 * k}" fill="{color}">{escape(kind)}</text>')
    return "\n".join([*out, "</svg>", ""])
