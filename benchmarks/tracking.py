"""How well and how fast a person is followed: films of people who move, what goes wrong in them, a long one.

    python benchmarks/tracking.py --films 16 --recoveries 10 --frames 5000 --out tracking --results

Writes tracking/films.jsonl and tracking/recoveries.jsonl (one line a film; go on after a break by the same command) and
tracking/report.md; --results puts the report into RESULTS.md and the plot beside it. A film is made from its seed
alone, streamed, and never kept. The tracker is told neither sex nor clothing. `--recording FOLDER` (again and again)
adds recordings with truth.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from study import Record, run_cases, write_section, write_text
from tracking_report import PLOT, draw_plot, percentiles, report

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
HEADING = "## Following a moving person"


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
    from bodyfit.fit.track_recording import step_of, together
    from bodyfit.synthetic.motion import plan_film

    model, case = load_body_model(None), case_of(seed)
    film = plan_film(
        model, seed, motion=case.motion, seconds=SECONDS, fps=FPS, sensor=case.sensor, clothing=case.clothing,
        sex=case.sex,
    )  # fmt: skip
    tracker, scorer = new_tracker(model, film.gravity_world), MotionScorer(model)
    sensors = sensors_of(film.sensors, film.T_world_depth)
    wall, cpu, parts, shapes, states = [], [], {}, {}, []
    steps, views, truths = [], [], []
    for k, (instant, estimate, wall_s, cpu_s) in enumerate(follow(tracker, film)):
        fitted = placed(model, estimate)
        scorer.add(estimate.timestamp_s, fitted, instant.joints_world, instant.vertices_world)
        if k % 15 == 7 and fitted is not None:
            faces = model.faces.astype(np.int64)
            scorer.add_surface(surface_error(fitted[0], model.faces, instant.vertices_world, faces, sensors))
        states.append(estimate.state.name)
        if estimate.state.name != "LOST":
            steps.append(step_of(estimate, k))
            views.append(tracker.views)
            truths.append((instant.joints_world, instant.vertices_world))
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
    cloth_mm = film.clothing.mean_offset_covered_m * 1000
    begun = time.process_time()
    settled = together(tracker, steps, views)
    together_ms = (time.process_time() - begun) * 1e3 / len(steps)
    afterwards, betas = MotionScorer(model), tracker.shape.betas()[0]
    for k, (step, (joints, vertices)) in enumerate(zip(settled, truths, strict=True)):
        fitted = model.forward(betas, step.pose.astype(np.float64), step.transl)
        afterwards.add(step.timestamp_s, fitted, joints, vertices)
        if k % 15 == 7:
            faces = model.faces.astype(np.int64)
            afterwards.add_surface(surface_error(fitted[0], model.faces, vertices, faces, sensors))
    return {
        **record,
        "refused": False,
        "score": asdict(scorer.score(cloth_mm=cloth_mm)),
        "together": asdict(afterwards.score(cloth_mm=cloth_mm)),
        "together_ms": together_ms,
        "shapes": shapes,
        "frozen": tracker.shape.frozen,
        "load": os.getloadavg()[0],
        "wall_ms": percentiles(wall),
        "cpu_ms": percentiles(cpu),
        "parts_ms": {part: float(np.median(s) * 1e3) for part, s in parts.items()},
    }


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


@dataclass
class Attempt:
    """One tracker on a film in which something goes wrong; live: it gets no frame that comes while it works on another,
    and an estimate counts when it is there. Times of work are CPU times: the machine's other work has no part in it."""

    model: BodyModel
    tracker: Tracker
    live: bool
    taken: list[int] = field(default_factory=list)
    """numbers, within the film, of the frames it got"""
    ready_s: list[float] = field(default_factory=list)
    good: list[bool] = field(default_factory=list)
    told: list[bool] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    work_s: list[float] = field(default_factory=list)
    busy_s: float = -np.inf
    """the film's time until which it works"""

    def take(self, k: int, instant: Instant) -> None:
        """The film's frame of number k."""
        from bodyfit.fit.track_hidden import BEHIND, SEEN_AGAIN

        frames = list(instant.frames.values())
        now = frames[0].timestamp_s
        if now < self.busy_s:
            return
        began = time.process_time()
        estimate = self.tracker.update(frames, index=frames[0].index)
        spent = time.process_time() - began
        # a live stream begins once the first, cold frame has been fitted
        late = spent if self.live and self.taken else 0.0
        self.busy_s = now + late
        fitted = placed(self.model, estimate)
        off = np.inf
        if fitted is not None:
            off = float(np.linalg.norm(fitted[1] - instant.joints_world, axis=1).mean())
        self.taken.append(k)
        self.ready_s.append(now + late)
        self.good.append(off < FOUND_M)
        # limbs go behind the own body all the time: that says nothing of what goes wrong
        news = [t for t in estimate.told if not t.startswith((BEHIND, SEEN_AGAIN))]
        self.told.append(bool(news) or fitted is None)
        self.states.append(estimate.state.name)
        self.work_s.append(spent)

    def outcome(self, begin: int, end: int, end_s: float) -> Record:
        """What came of it; something goes wrong in the film's frames from begin, and the one at end is good again."""
        taken, ok = np.array(self.taken), np.array(self.good)
        first, after = (int(np.searchsorted(taken, k)) for k in (begin, end))
        out: Record = {
            "before_ok": bool(ok[5:first].all()), "seconds": None, "told": any(self.told[first : after + 2]),
            "worst_ms": max(self.work_s[1:], default=0.0) * 1e3,
        }  # fmt: skip
        for k in range(after, len(taken) - 2):
            if ok[k : k + 3].all():
                return {
                    **out,
                    "seconds": max(0.0, self.ready_s[k] - end_s),
                    "ok_after": float(ok[k:].mean()),
                    "missed": int(taken[k] - end - (k - after)),
                    "states": self.states[first : k + 1],
                }
        return out


def recover(seed: int) -> Record:
    """A film in which something goes wrong: how long until the person is followed again, and whether it was told; where
    the tracker gets every frame, and where the film does not wait for it."""
    from bodyfit.body.model import load_body_model

    model = load_body_model(None)
    what, film = trouble_film(model, seed)
    patient, live = (Attempt(model, new_tracker(model, film.gravity_world), live) for live in (False, True))
    shown = []
    for k, instant in enumerate(film):
        patient.take(k, instant)
        live.take(k, instant)
        shown.append(int(next(iter(instant.masks.values())).sum()))
    begin, end = event_frames(what, film.numbers, np.array(shown))
    record: Record = {"seed": seed, "what": what, "motion": film.name, "sensor": film.sensors[0].name}
    if (begin >= end and what != TROUBLES[4]) or end >= len(film):
        return {**record, "never_happened": True}
    end_s = float(film.times_s[end])
    return {**record, **patient.outcome(begin, end, end_s), "live": live.outcome(begin, end, end_s)}


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
    text = report(films, troubles, long, recordings, seconds=SECONDS, fps=FPS, checkpoints=CHECKPOINTS, found_m=FOUND_M)
    write_text(asked.out / "report.md", text + "\n")
    done = [r for r in films if not r["refused"]]
    if done or long is not None:
        draw_plot(
            (Path(__file__).parent if asked.results else asked.out) / PLOT,
            done,
            long,
            CHECKPOINTS,
            round(SECONDS * FPS),
        )
    if asked.results:
        write_section(HEADING, text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
