"""What the tracking benchmark found, as tables and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from study import Record, grouped, markdown

PLOT = "tracking.png"
INTRODUCTION = """\
`python benchmarks/tracking.py --results`: films of {seconds:g} s at {fps:g} frames a second of people who walk in arcs,
turn on the spot, reach, squat, wave, step aside, fold their arms or jump, and of recorded movements
(`bodyfit/synthetic`), 3 mm rms off the model's span, in tight or casual clothes, before an Azure Kinect (640×576) or a
RealSense D435 (848×480, stereo, 15 mm of noise at 2.5 m); depth only. The tracker is told neither sex nor clothing and
runs from its first, cold frame. Figures are means over frames, then medians over films (worst in brackets). Joints: 24,
mean distance. Acceleration: mean length of the joints' second differences times the square of the rate, fit and truth,
and the first over the second: who stands nearly still moves so little that the ratio shows the estimates' tremble.
Twist: turn about the bone between the fitted limb's vertices and the true ones. Slide: speed of a fitted foot while the
true one stands. Rest: mean error of the unposed body's vertices.

"""


def percentiles(seconds: Sequence[float]) -> list[float]:
    """Median and 95th percentile, milliseconds."""
    return [float(np.percentile(seconds, q) * 1e3) for q in (50, 95)] if seconds else []


def _middle(values: Sequence[float | None], digits: int = 1) -> str:
    """Median (largest) as text."""
    known = [v for v in values if v is not None and np.isfinite(v)]
    return f"{np.median(known):.{digits}f} ({max(known):.{digits}f})" if known else "–"


def _score_row(name: str, scores: Sequence[Record], rest: Sequence[float | None]) -> tuple[str, ...]:
    return (
        name, str(len(scores)), f"{sum(s['lost'] for s in scores)} / {sum(s['wrong'] for s in scores)}",
        _middle([s["joints_mm"] for s in scores]), _middle([s["surface_beyond_mm"] for s in scores]),
        _middle([s["acceleration"] for s in scores]), _middle([s["true_acceleration"] for s in scores]),
        _middle([s["acceleration_ratio"] for s in scores], 2), _middle([s["twist_deg"].get("forearm") for s in scores]),
        _middle([s["twist_deg"].get("thigh") for s in scores]),
        _middle([None if s["slide_m_s"] is None else s["slide_m_s"] * 1e3 for s in scores], 0), _middle(rest),
    )  # fmt: skip


def report(
    films: list[Record],
    troubles: list[Record],
    long: Record | None,
    recordings: list[Record],
    *,
    seconds: float,
    fps: float,
    checkpoints: Sequence[int],
    found_m: float,
) -> str:
    """The findings as markdown; films took so many seconds at so many frames a second."""
    done = [r for r in films if not r["refused"]]
    lines = [INTRODUCTION.format(seconds=seconds, fps=fps).strip(), ""]
    lines += [f"{len(films)} films, {len(troubles)} more in which something goes wrong.", ""]
    head = (
        "films", "n", "frames not followed / wrong", "joints, mm", "surface beyond clothing, mm",
        "acceleration, m/s²", "true", "ratio", "forearm twist, °", "thigh twist, °", "slide, mm/s", "rest, mm",
    )  # fmt: skip
    rows = [_score_row("all", [r["score"] for r in done], [r["shapes"]["all"]["rest_mm"] for r in done])]
    for key in ("sensor", "clothing", "motion"):
        for value, some in grouped(done, lambda r, k=key: r[k]):
            rows.append(
                _score_row(str(value), [r["score"] for r in some], [r["shapes"]["all"]["rest_mm"] for r in some])
            )
    for value, some in [("all", done), *grouped(done, lambda r: r["sensor"])]:
        after = [r["together"] for r in some]
        rows.append(_score_row(f"{value}, poses together", after, [r["shapes"]["all"]["rest_mm"] for r in some]))
    for r in recordings:
        rows.append(_score_row(r["name"], [r["score"]], [r["score"]["rest_mm"]]))
    lines += [markdown(head, rows), ""]
    if done:
        milliseconds = float(np.median([r["together_ms"] for r in done]))
        lines += [
            "*Poses together*: the same estimates after `bodyfit track` has solved all poses of the film together at "
            f"its end ({milliseconds:.0f} ms of CPU a frame more, median); recordings are scored so.",
            "",
        ]
    if len(films) > len(done):
        lines += [
            f"Nobody was found in {len(films) - len(done)} films (seeds {[r['seed'] for r in films if r['refused']]}).",
            "",
        ]
    lines += (
        _speed_lines(done, recordings)
        + _shape_lines(done, checkpoints)
        + _trouble_lines(troubles, found_m)
        + _long_lines(long)
    )
    return "\n".join(lines)


def _speed_lines(done: list[Record], recordings: list[Record]) -> list[str]:
    if not done:
        return []
    parts = sorted({p for r in done for p in r["parts_ms"]} - {"all"})
    rows = []
    for sensor, some in grouped(done, lambda r: r["sensor"]):
        timed = [r for r in some if r["wall_ms"]]
        median = [float(np.median([r[k][q] for r in timed])) for k in ("wall_ms", "cpu_ms") for q in (0, 1)]
        split = [f"{np.median([r['parts_ms'].get(p, 0.0) for r in timed]):.1f}" for p in parts]
        rows.append((sensor, *(f"{m:.1f}" for m in median), f"{1000 / median[2]:.0f}", *split))
    for r in recordings:
        rows.append((r["name"], *(f"{m:.1f}" for m in r["wall_ms"]), "", "", "", *("" for _ in parts)))
    head = ("Milliseconds a frame", "wall", "wall, p95", "CPU", "CPU, p95", "frames a second of CPU", *parts)
    loads = [r["load"] for r in done if "load" in r]
    busy = f" (load average {np.median(loads):.1f} in the median)" if loads else ""
    return ["Time of followed frames (the first, cold one apart), one process, one thread; medians over films. Wall "
            f"time says something on a quiet machine only{busy}; CPU time grows by half under load.", "",
            markdown(head, rows), ""]  # fmt: skip


def _shape_lines(done: list[Record], checkpoints: Sequence[int]) -> list[str]:
    from bodyfit.bench.motion_scores import held

    rows = []
    for step in (*map(str, checkpoints), "all"):
        shapes = [r["shapes"][step] for r in done if step in r["shapes"]]
        if not shapes:
            continue
        z = [v for s in shapes for v in s["measurement_z"].values()]
        b = [v for s in shapes for v in s["beta_z"]]
        rows.append((
            step, f"{np.mean([s['rest_mm'] for s in shapes]):.2f}", _middle([s["rest_mm"] for s in shapes]),
            _middle([s["girth_mm"] for s in shapes]), _middle([s["stature_mm"] for s in shapes]),
            f"{100 * held(z):.0f} %", f"{np.std(z):.2f}", f"{100 * held(b):.0f} %",
        ))  # fmt: skip
    head = ("frames", "rest, mm, mean", "rest, median (worst)", "girths, mm", "stature, mm",
            "measurements within ±1.645 sd", "sd of z", "first 12 betas within")  # fmt: skip
    frozen = sum(r["frozen"] for r in done)
    return ["Shape as known after so many frames (90 % within ±1.645 sd would be honest); "
            f"frozen by the end in {frozen} of {len(done)} films:", "", markdown(head, rows), "",
            f"![Rest-pose error over frames, and memory over a long film]({PLOT})", ""]  # fmt: skip


def _trouble_lines(troubles: list[Record], found_m: float) -> list[str]:
    rows = []
    for what, some in grouped([r for r in troubles if not r.get("never_happened")], lambda r: r["what"]):
        lives = [r["live"] for r in some]
        rows.append((
            what, *(_soon(each) for each in (some, lives)), _middle([r["seconds"] for r in some], 2),
            _middle([r["seconds"] for r in lives], 2), str(sum(r["seconds"] is None for r in (*some, *lives))),
            *(f"{np.mean([r.get('ok_after', 0.0) for r in each]) * 100:.0f} %" for each in (some, lives)),
            f"{sum(r['told'] for r in (*some, *lives))} of {2 * len(some)}",
            _middle([r["worst_ms"] for r in (*some, *lives)], 0), _middle([r.get("missed") for r in lives], 0),
        ))  # fmt: skip
    if not rows:
        return []
    head = (
        "What goes wrong", "followed again within 0.5 s", "live", "seconds, median (worst)", "live", "never again",
        "good from then on", "live", "told", "slowest frame, CPU ms", "frames missed, live",
    )  # fmt: skip
    return [
        f"Recovery: time from the first good frame until joints are within {found_m * 1e3:.0f} mm on average for three "
        "frames; who leaves is back when 70 % of the pixels are in the picture that they had at the beginning, and is "
        "still walking in then. *Live*: the film does not wait for the tracker, which misses the frames that come "
        "while it works on another (CPU time of one process stands for its time), and an estimate counts when it is "
        "there. *Good from then on*: share of the film's remaining frames within that distance.", "",
        markdown(head, rows), "",
    ]  # fmt: skip


def _soon(some: list[Record]) -> str:
    fast = [r for r in some if r["seconds"] is not None and r["seconds"] <= 0.5]
    return f"{len(fast)} of {len(some)}"


def _long_lines(long: Record | None) -> list[str]:
    if long is None:
        return []
    rows = long["rows"]
    middle = rows[len(rows) // 10]
    return [
        f"A long film ({long['frames']} frames, 1.5 s of walking forwards and backwards): {long['lost']} frames not "
        f"followed; resident memory {middle[1]:.0f} MB after {middle[0]} frames, {rows[-1][1]:.0f} MB at the end (peak "
        f"{long['peak_mb']:.0f} MB, the film's 45 frames included); joints {rows[0][2]:.1f} mm off at the beginning, "
        f"{rows[-1][2]:.1f} mm at the end; {middle[3]:.1f} and {rows[-1][3]:.1f} ms a frame (wall, median).",
        "",
    ]


def draw_plot(path: Path, done: list[Record], long: Record | None, checkpoints: Sequence[int], frames: int) -> None:
    """Two small panels: rest-pose error by frames known, and memory over the long film."""
    import cv2

    panels = []
    curves = [
        [(k, r["shapes"][str(k)]["rest_mm"]) for k in checkpoints if str(k) in r["shapes"]]
        + [(frames, r["shapes"]["all"]["rest_mm"])]
        for r in done
    ]
    if curves:
        panels.append(_panel("rest-pose error, mm, by frames", [[(np.log(x), y) for x, y in c] for c in curves],
                             [(np.log(k), str(k)) for k in (*checkpoints, frames)]))  # fmt: skip
    if long is not None:
        rows = long["rows"]
        last = rows[-1][0]
        panels.append(_panel("resident memory, MB, by frames", [[(r[0], r[1]) for r in rows]],
                             [(0, "0"), (last / 2, f"{last // 2}"), (last, str(last))]))  # fmt: skip
    ok, data = cv2.imencode(".png", np.concatenate(panels, 1), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert ok
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data.tobytes())
    part.replace(path)


def _panel(
    title: str, curves: Sequence[Sequence[tuple[float, float]]], ticks: Sequence[tuple[float, str]]
) -> NDArray[np.uint8]:
    import cv2

    width, height, left, top, right, bottom = 420, 280, 44, 36, 400, 240
    image = np.full((height, width, 3), 255, np.uint8)
    xs, high = [x for x, _ in ticks], 1.15 * max(y for c in curves for _, y in c)

    def at(x: float, y: float) -> tuple[int, int]:
        return round(left + (x - xs[0]) / (xs[-1] - xs[0]) * (right - left)), round(bottom - y / high * (bottom - top))

    def text(words: str, x: int, y: int) -> None:
        cv2.putText(image, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (60, 60, 60), 1, cv2.LINE_AA)

    text(title, left, 20)
    for y in np.linspace(0, high / 1.15, 5):
        cv2.line(image, at(xs[0], y), at(xs[-1], y), (225, 225, 225), 1)
        text(f"{y:.3g}", 4, at(xs[0], y)[1] + 4)
    for x, words in ticks:
        text(words, at(x, 0)[0] - 4 * len(words), bottom + 18)
    many = len(curves) > 1
    for curve in curves:
        color = (205, 190, 175) if many else (160, 90, 40)
        cv2.polylines(image, [np.array([at(*p) for p in curve], np.int32)], False, color, 1, cv2.LINE_AA)
    if many:
        places = sorted({x for c in curves for x, _ in c})
        means = [(x, float(np.mean([y for c in curves for v, y in c if v == x]))) for x in places]
        cv2.polylines(image, [np.array([at(*p) for p in means], np.int32)], False, (160, 90, 40), 2, cv2.LINE_AA)
    return image
