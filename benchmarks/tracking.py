"""How well and how fast a person is followed: films of people who move, what goes wrong in them, a long one.

    python benchmarks/tracking.py --films 16 --recoveries 10 --frames 5000 --out tracking --results

Writes tracking/films.jsonl and tracking/recoveries.jsonl (one line a film; go on after a break by the same command) and
tracking/report.md; --results puts the report into RESULTS.md and the plot beside it. A film is made from its seed
alone, streamed, and never kept. The tracker is told neither sex nor clothing. `--recording FOLDER` (again and again)
adds recordings with truth.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from study import Record, grouped, markdown, run_cases, write_section, write_text

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.track import Tracker
    from bodyfit.fit.track_estimate import TrackEstimate
    from bodyfit.synthetic.motion import Filming
    from bodyfit.synthetic.take import Instant

FIRST_SEED = 6000
SECONDS = 3.0
FPS = 30.0
EVENT = 45
"""frame at which something goes wrong in a film of the recoveries"""
CHECKPOINTS = (1, 5, 20)
"""frames after which the shape is scored, and after all"""
FOUND_M = 0.06
"""who is followed again has the joints this near on average, and for three frames"""
PLOT = "tracking.png"
HEADING = "## Following a moving person"

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


@dataclass(frozen=True)
class Case:
    """What a seed stands for."""

    seed: int
    motion: str
    sensor: str
    clothing: str
    sex: str


def case_of(seed: int) -> Case:
    """The film of a seed: movements take turns, sensors and clothes too; the sex is drawn."""
    from bodyfit.synthetic.motion import CLIP_PREFIX, MOTIONS
    from bodyfit.synthetic.subject import SEXES

    drawn = ["walk", "reach", "turn", "squat", "arms", "jump", "wave", "step_aside"]
    clips = [m for m in MOTIONS if m.startswith(CLIP_PREFIX)]
    # two of the former, then a recorded one
    names = [m for k in range(4) for m in (*drawn[2 * k : 2 * k + 2], *clips[k : k + 1])] + clips[4:]
    rng = np.random.default_rng([0x7AC, seed])
    turn = seed // 2
    sensor, clothing = ("azure", "d435")[seed % 2], ("tight", "casual")[turn % 2]
    return Case(seed, names[turn % len(names)], sensor, clothing, SEXES[int(rng.integers(2))])


def new_tracker(model: BodyModel, gravity_world: NDArray[np.float64]) -> Tracker:
    """The library's own settings."""
    from bodyfit.fit.track import Tracker

    return Tracker(model, gravity_world=gravity_world)


def follow(tracker: Tracker, film: Filming) -> Iterator[tuple[Instant, TrackEstimate, float, float]]:
    """Each instant, the estimate, wall and CPU seconds of the tracker."""
    for instant in film:
        frames = list(instant.frames.values())
        wall, cpu = time.perf_counter(), time.process_time()
        estimate = tracker.update(frames, index=frames[0].index)
        yield instant, estimate, time.perf_counter() - wall, time.process_time() - cpu


def placed(model: BodyModel, estimate: TrackEstimate) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Vertices and joints of an estimate; None where nobody was followed."""
    from bodyfit.fit.track_estimate import TrackState

    if estimate.state in (TrackState.LOST, TrackState.COASTING):
        return None
    return model.forward(estimate.betas, estimate.pose, estimate.transl)


def shape_now(model: BodyModel, tracker: Tracker, film: Filming) -> Record:
    """The shape known by now against the film's: rest error and z-scores of measurements and betas."""
    from bodyfit.bench.evaluate import own_shape_errors
    from bodyfit.bench.motion_scores import measurement_z
    from bodyfit.body.measure import measure_with_sd
    from bodyfit.body.measure_definitions import model_errors

    assert tracker.shape is not None
    betas, cov = tracker.shape.betas()
    true_rest = film.subject.rest_vertices
    errors = own_shape_errors(model, model.rest_vertices(betas), true_rest)
    measured = measure_with_sd(model, betas, cov, None, model_errors(tracker.shape.clothing.name))
    sd = np.sqrt(np.maximum(np.diagonal(cov), 1e-12))
    return {
        **{k: errors[k] for k in ("rest_mm", "girth_mm", "stature_mm")},
        "measurement_z": measurement_z(model, true_rest, measured),
        "beta_z": ((betas - film.subject.betas) / sd)[:12].tolist(),
        "worn": tracker.shape.clothing.name,
    }


def work(seed: int) -> Record:
    """One film, followed."""
    from bodyfit.bench.evaluate import surface_error
    from bodyfit.bench.motion_scores import MotionScorer, sensors_of
    from bodyfit.body.model import load_body_model
    from bodyfit.synthetic.motion import plan_film

    model, case = load_body_model(None), case_of(seed)
    film = plan_film(
        model, seed, motion=case.motion, seconds=SECONDS, fps=FPS, sensor=case.sensor, clothing=case.clothing,
        sex=case.sex,
    )  # fmt: skip
    tracker, scorer = new_tracker(model, film.gravity_world), MotionScorer(model)
    sensors = sensors_of(film.sensors, film.T_world_depth)
    wall, cpu, parts, shapes, states = [], [], {}, {}, []
    for k, (instant, estimate, wall_s, cpu_s) in enumerate(follow(tracker, film)):
        fitted = placed(model, estimate)
        scorer.add(estimate.timestamp_s, fitted, instant.joints_world, instant.vertices_world)
        if k % 15 == 7 and fitted is not None:
            faces = model.faces.astype(np.int64)
            scorer.add_surface(surface_error(fitted[0], model.faces, instant.vertices_world, faces, sensors))
        states.append(estimate.state.name)
        if estimate.state.name == "TRACKED":
            wall.append(wall_s)
            cpu.append(cpu_s)
            for part, seconds in estimate.times_s.items():
                parts.setdefault(part, []).append(seconds)
        if k + 1 in CHECKPOINTS and tracker.shape is not None:
            shapes[str(k + 1)] = shape_now(model, tracker, film)
    record: Record = {**vars(case), "states": {s: states.count(s) for s in sorted(set(states))}}
    if tracker.shape is None:
        return {**record, "refused": True}
    shapes["all"] = shape_now(model, tracker, film)
    score = asdict(scorer.score(cloth_mm=film.clothing.mean_offset_covered_m * 1000))
    return {
        **record,
        "refused": False,
        "score": score,
        "shapes": shapes,
        "frozen": tracker.shape.frozen,
        "wall_ms": percentiles(wall),
        "cpu_ms": percentiles(cpu),
        "parts_ms": {part: float(np.median(s) * 1e3) for part, s in parts.items()},
    }


def percentiles(seconds: Sequence[float]) -> list[float]:
    """Median and 95th percentile, milliseconds."""
    return [float(np.percentile(seconds, q) * 1e3) for q in (50, 95)] if seconds else []


# --- what goes wrong

TROUBLES = (
    "leaves the view and returns", "10 frames without depth", "hidden for 15 frames", "legs hidden for 15 frames",
    "100 ms stall",
)  # fmt: skip


def trouble_film(model: BodyModel, seed: int) -> tuple[str, Filming]:
    """What happens in a seed's film, and the film."""
    from bodyfit.synthetic.motion import Scenario, plan_film

    what = TROUBLES[seed % len(TROUBLES)]
    scenario = {
        TROUBLES[1]: Scenario(missing=(EVENT, 10)),
        TROUBLES[2]: Scenario(hidden=(EVENT, 15)),
        TROUBLES[3]: Scenario(hidden=(EVENT, 15), hides="legs"),
        TROUBLES[4]: Scenario(stall=(EVENT, 3)),
    }.get(what, Scenario())
    turn = seed // len(TROUBLES)
    leaves = what == TROUBLES[0]
    motion = "leave" if leaves else ("walk", "arms", "turn", "reach", "step_aside")[turn % 5]
    film = plan_film(
        model, seed, motion=motion, seconds=9.5 if leaves else 3.5, fps=FPS, sensor=("azure", "d435")[turn % 2],
        clothing=("tight", "casual")[turn // 2 % 2], scenario=scenario,
    )  # fmt: skip
    return what, film


def recover(seed: int) -> Record:
    """A film in which something goes wrong: how long until the person is followed again, and whether it was told."""
    from bodyfit.body.model import load_body_model

    model = load_body_model(None)
    what, film = trouble_film(model, seed)
    tracker = new_tracker(model, film.gravity_world)
    times, good, told, shown, states = [], [], [], [], []
    worst = 0.0
    for instant, estimate, wall_s, _ in follow(tracker, film):
        fitted = placed(model, estimate)
        off = np.inf
        if fitted is not None:
            off = float(np.linalg.norm(fitted[1] - instant.joints_world, axis=1).mean())
        good.append(off < FOUND_M)
        times.append(estimate.timestamp_s)
        told.append(bool(estimate.told) or fitted is None)
        states.append(estimate.state.name)
        shown.append(int(next(iter(instant.masks.values())).sum()))
        worst = max(worst, wall_s) if len(times) > 1 else 0.0
    t, ok = np.array(times), np.array(good)
    begin, end = event_frames(what, film.numbers, np.array(shown))
    record: Record = {
        "seed": seed, "what": what, "motion": film.name, "sensor": film.sensors[0].name,
        "before_ok": bool(ok[5:begin].all()), "seconds": None, "told": bool(any(told[begin : end + 2])),
        "worst_ms": worst * 1e3,
    }  # fmt: skip
    if begin >= end and what != TROUBLES[4]:
        return {**record, "never_happened": True}
    for k in range(end, len(t) - 2):
        if ok[k : k + 3].all():
            return {
                **record,
                "seconds": float(t[k] - t[end]),
                "ok_after": float(ok[k:].mean()),
                "states": states[begin : k + 1],
            }
    return record


def event_frames(what: str, numbers: NDArray[np.int64], shown: NDArray[np.int64]) -> tuple[int, int]:
    """First frame (of those that came) of what goes wrong and the first one after it.

    Who leaves is gone with less than 5 % of the usual pixels in the picture, and back with 70 %.
    """
    if what == TROUBLES[0]:
        usual = np.median(shown[:15])
        gone = np.nonzero(shown < 0.05 * usual)[0]
        if not len(gone):
            return 0, 0
        back = np.nonzero(shown[gone[-1] :] > 0.7 * usual)[0]
        return int(gone[0]), int(gone[-1] + back[0]) if len(back) else len(shown)
    count = {TROUBLES[1]: 10, TROUBLES[4]: 3}.get(what, 15)
    return int(np.searchsorted(numbers, EVENT)), int(np.searchsorted(numbers, EVENT + count))


# --- a long film


def long_run(frames: int, every: int = 250) -> Record:
    """One second and a half of film, forwards and backwards for so many frames: memory, time, drift."""
    from dataclasses import replace

    from bodyfit.body.model import load_body_model
    from bodyfit.synthetic.motion import plan_film

    model = load_body_model(None)
    film = plan_film(model, FIRST_SEED, motion="walk", seconds=1.5, fps=FPS)
    instants = list(film)
    order = [*range(len(instants)), *range(len(instants) - 2, 0, -1)]
    tracker = new_tracker(model, film.gravity_world)
    rows, errors, wall, lost = [], [], [], 0
    for k in range(frames):
        instant = instants[order[k % len(order)]]
        seen = [replace(f, timestamp_s=k / FPS, index=k) for f in instant.frames.values()]
        began = time.perf_counter()
        estimate = tracker.update(seen, index=k)
        wall.append(time.perf_counter() - began)
        errors.append(float(np.linalg.norm(estimate.joints_world - instant.joints_world, axis=1).mean()))
        lost += estimate.state.name in ("LOST", "COASTING")
        if (k + 1) % every == 0 or k + 1 == 100:
            rows.append([k + 1, resident_mb(), float(np.mean(errors[-every:]) * 1e3), percentiles(wall[-every:])[0]])
    return {
        "frames": frames,
        "lost": lost,
        "rows": rows,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def resident_mb() -> float:
    """Resident memory of this process, MB (Linux; elsewhere the peak)."""
    status = Path("/proc/self/statm")
    if status.is_file():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def recorded(folder: Path) -> Record:
    """A recording with truth, followed as `bodyfit track` does."""
    from bodyfit.bench.motion_scores import score_recording_motion
    from bodyfit.fit.track_recording import track

    walls: list[float] = []
    result = track(folder, on_estimate=lambda e: walls.append(e.times_s["all"]) if e.state.name == "TRACKED" else None)
    return {"name": folder.name, "score": asdict(score_recording_motion(result, folder)), "wall_ms": percentiles(walls)}


# --- report


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


def report(films: list[Record], troubles: list[Record], long: Record | None, recordings: list[Record]) -> str:
    """The findings as markdown."""
    done = [r for r in films if not r["refused"]]
    lines = [INTRODUCTION.format(seconds=SECONDS, fps=FPS)]
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
    for r in recordings:
        rows.append(_score_row(r["name"], [r["score"]], [r["score"]["rest_mm"]]))
    lines += [markdown(head, rows), ""]
    if len(films) > len(done):
        lines += [
            f"Nobody was found in {len(films) - len(done)} films (seeds {[r['seed'] for r in films if r['refused']]}).",
            "",
        ]
    lines += _speed_lines(done, recordings) + _shape_lines(done) + _trouble_lines(troubles) + _long_lines(long)
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
    return ["Time of followed frames (the first, cold one apart), one process, one thread; medians over films:", "",
            markdown(head, rows), ""]  # fmt: skip


def _shape_lines(done: list[Record]) -> list[str]:
    from bodyfit.bench.motion_scores import held

    rows = []
    for step in (*map(str, CHECKPOINTS), "all"):
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


def _trouble_lines(troubles: list[Record]) -> list[str]:
    rows = []
    for what, some in grouped([r for r in troubles if not r.get("never_happened")], lambda r: r["what"]):
        fast = [r for r in some if r["seconds"] is not None and r["seconds"] <= 0.5]
        rows.append((what, f"{len(fast)} of {len(some)}", _middle([r["seconds"] for r in some], 2),
                     str(sum(r["seconds"] is None for r in some)), f"{sum(r['told'] for r in some)} of {len(some)}",
                     _middle([r["worst_ms"] for r in some], 0)))  # fmt: skip
    if not rows:
        return []
    head = (
        "What goes wrong",
        "followed again within 0.5 s",
        "seconds, median (worst)",
        "never again",
        "told",
        "slowest frame, ms",
    )
    return ["Recovery: time from the first good frame until joints are within "
            f"{FOUND_M * 1e3:.0f} mm on average for three frames:", "", markdown(head, rows), ""]  # fmt: skip


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


def draw_plot(path: Path, done: list[Record], long: Record | None) -> None:
    """Two small panels: rest-pose error by frames known, and memory over the long film."""
    import cv2

    panels = []
    curves = [
        [(k, r["shapes"][str(k)]["rest_mm"]) for k in CHECKPOINTS if str(k) in r["shapes"]]
        + [(round(SECONDS * FPS), r["shapes"]["all"]["rest_mm"])]
        for r in done
    ]
    if curves:
        panels.append(_panel("rest-pose error, mm, by frames", [[(np.log(x), y) for x, y in c] for c in curves],
                             [(np.log(k), str(k)) for k in (*CHECKPOINTS, round(SECONDS * FPS))]))  # fmt: skip
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


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="How well and how fast a moving person is followed.")
    parser.add_argument("--films", type=int, default=16)
    parser.add_argument("--recoveries", type=int, default=10, help="films in which something goes wrong")
    parser.add_argument("--frames", type=int, default=5000, help="length of the long film; 0: none")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("tracking"))
    parser.add_argument("--recording", type=Path, action="append", default=[], help="a recording with truth")
    parser.add_argument("--results", action="store_true", help="put the report into RESULTS.md")
    asked = parser.parse_args(arguments)

    def told(r: Record, done: int) -> None:
        said = "nobody found" if r.get("refused") else r["what"] if "what" in r else f"{r['score']['joints_mm']:.1f} mm"
        print(f"{done}: seed {r['seed']} {r['motion']} {r['sensor']}: {said} {r.get('seconds', '')}", flush=True)

    seeds = range(asked.first_seed, asked.first_seed + asked.films)
    films = run_cases(work, seeds, asked.out / "films.jsonl", asked.jobs, told)
    wrong = range(asked.first_seed, asked.first_seed + asked.recoveries)
    troubles = run_cases(recover, wrong, asked.out / "recoveries.jsonl", asked.jobs, told)
    recordings = [recorded(folder) for folder in asked.recording]
    long = long_run(asked.frames) if asked.frames else None
    text = report(films, troubles, long, recordings)
    write_text(asked.out / "report.md", text + "\n")
    done = [r for r in films if not r["refused"]]
    if done or long is not None:
        draw_plot((Path(__file__).parent if asked.results else asked.out) / PLOT, done, long)
    if asked.results:
        write_section(HEADING, text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
