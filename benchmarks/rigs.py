"""Several sensors at once: what they gain over one, and whether their places and clocks are found from the person.

    python benchmarks/rigs.py --rigs 20 --out rigs [--results]

Writes rigs/cases.jsonl (one line a rig; go on after a break by the same command) and report.md. A rig is made from its
seed alone: two or three sensors of one kind stand around a person who steps about, turns and changes pose.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from study import CONFIG, Record, markdown, run_cases, share, write_section, write_text

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.joint import Instant
    from bodyfit.fit.result import FitResult
    from bodyfit.synthetic.take import Take

FIRST_SEED = 400
KINDS = ("azure", "kinect2", "azure", "kinect2", "d435")
"""in turn, each for two rigs"""
OFF_MODEL_MM = 3.0
PLACE_M, TURN_DEG = 0.02, 1.0
"""how far each sensor but the first is said to stand from where it stands"""
FOUND_M, FOUND_DEG = 0.005, 0.3
INSTANTS, GAP_S = 10, 0.2
"""instants of a rig whose places are sought, and the time between them"""
CLOCK_INSTANTS, CLOCK_GAP_S = 16, 1 / 30
CLOCK_EVERY = 5
"""every fifth rig's clocks are put out of step too"""
KEY_S = 0.8
"""from one pose to the next"""


INTRODUCTION = """\
`python benchmarks/rigs.py --results`: two or three sensors of one kind (Azure Kinect, Kinect v2, RealSense D435 with
their noise and slow errors) around a person who steps about, turns and changes pose. Subjects of both sexes, 3 mm rms
off the model's span, tight or casual clothes; no masks; `sex` and `clothing` are left at neutral and auto.

"""


@dataclass(frozen=True)
class Case:
    """What a seed stands for."""

    seed: int
    sensors: int
    kind: str
    clothing: str
    sex: str
    delay_s: float
    """how much later than its stamps each sensor but the first sees, where clocks are out of step"""


def case_of(seed: int) -> Case:
    """The case of a seed: two and three sensors take turns, all else is drawn."""
    from bodyfit.synthetic.subject import SEXES

    rng = np.random.default_rng([0x816, seed])
    return Case(
        seed, 2 + seed % 2, KINDS[seed // 2 % len(KINDS)], ("tight", "casual")[int(rng.integers(2))],
        SEXES[int(rng.integers(2))], round(float(rng.choice([-1, 1]) * rng.uniform(0.008, 0.022)), 4),
    )  # fmt: skip


class Walkabout:
    """A person who steps about, turns and changes pose: poses and places at any time, smooth in it."""

    def __init__(self, model: BodyModel, subject: Any, rng: np.random.Generator, seconds: float) -> None:
        from bodyfit.rotation import matrix_from_axis_angle
        from bodyfit.synthetic.contact import both_feet_down, free_arms
        from bodyfit.synthetic.poses import EVERYDAY, everyday_pose
        from bodyfit.synthetic.take import full_pose

        count = int(np.ceil(seconds / KEY_S)) + 2
        yaw = rng.uniform(-np.pi, np.pi) + np.cumsum(rng.choice([-1, 1]) * rng.uniform(0.5, 1.1, count))
        poses = [
            everyday_pose(EVERYDAY[int(rng.integers(len(EVERYDAY)))], rng, yaw=float(y), mirror=bool(k % 2))
            for k, y in enumerate(yaw)
        ]
        keys = [free_arms(model, subject, both_feet_down(model, subject, full_pose(model, p))) for p in poses]
        self.keys = np.stack([matrix_from_axis_angle(k) for k in keys])
        self.places = rng.uniform(-0.6, 0.6, (count, 2))

    def at(self, seconds: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pose (J, 3) and place (2,) at a time from half a key before the first instant on."""
        from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle

        u = seconds / KEY_S + 0.5
        k = int(np.clip(np.floor(u), 0, len(self.keys) - 2))
        s = u - k
        s = s * s * (3 - 2 * s)
        way = axis_angle_from_matrix(np.swapaxes(self.keys[k], 1, 2) @ self.keys[k + 1])
        pose = axis_angle_from_matrix(self.keys[k] @ matrix_from_axis_angle(s * way))
        return pose, (1 - s) * self.places[k] + s * self.places[k + 1]


def film_rig(
    model: BodyModel, case: Case, times_s: Sequence[float], delays_s: Sequence[float] | None = None
) -> list[Take]:
    """One take a sensor, all of the same person at the same times, each with its own delay."""
    from bodyfit.synthetic.clothing import dress
    from bodyfit.synthetic.scene import Plane, Scene, place_camera
    from bodyfit.synthetic.sensor import SENSORS
    from bodyfit.synthetic.subject import sample_subject
    from bodyfit.synthetic.take import film

    who, clothes, where, moves, *noises = np.random.default_rng([0x816, case.seed, 1]).spawn(4 + case.sensors)
    subject = sample_subject(model, who, case.sex, OFF_MODEL_MM)
    worn = dress(model, subject, case.clothing, clothes)
    # three stand about evenly, two anything from a sixth to half of the way round
    apart = 2 * np.pi / 3 if case.sensors > 2 else where.uniform(np.pi / 3, np.pi)
    first = where.uniform(-np.pi, np.pi)
    poses_of_sensors = [
        place_camera(where, azimuth=first + k * apart + where.normal(0, 0.15), distance=(2.4, 2.9))
        for k in range(case.sensors)
    ]
    # a hall: what is farther than the sensors reach is open
    scene = Scene((Plane((0.0, 0.0, 1.0), 0.0, (150, 150, 150)),))
    walk = Walkabout(model, subject, moves, max(times_s) + 0.1)
    takes = []
    for k in range(case.sensors):
        delay = delays_s[k] if delays_s else 0.0
        steps = [walk.at(t + delay) for t in times_s]
        device = replace(SENSORS[case.kind](), name=f"cam{k}")
        takes.append(
            film(
                model, subject, worn, [p for p, _ in steps], np.stack([p for _, p in steps]), (device,),
                (poses_of_sensors[k],), scene, noises[k],
            )
        )  # fmt: skip
    return takes


def disturbed(T: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A sensor's pose (4, 4) shifted by PLACE_M and turned by TURN_DEG, each some way by chance."""
    from bodyfit.rotation import matrix_from_axis_angle

    axis, way = rng.normal(size=3), rng.normal(size=3)
    out = T.copy()
    out[:3, :3] = matrix_from_axis_angle(axis / np.linalg.norm(axis) * np.radians(TURN_DEG)) @ T[:3, :3]
    out[:3, 3] += way / np.linalg.norm(way) * PLACE_M
    return out


def looked_at(
    takes: Sequence[Take],
    times_s: Sequence[float],
    said: Sequence[NDArray[np.float64]] | None = None,
    only: int | None = None,
) -> list[Instant]:
    """The instants (or one of them) as observations, with the sensors where they are said to stand; as `bodyfit.fit`
    has it, a sensor that does not find the person is left out of an instant, and an instant that none has is left out.
    """
    from bodyfit.errors import FrameError, PersonNotFoundError
    from bodyfit.fit.joint import Instant
    from bodyfit.observe.observation import observe

    instants = []
    for t, seconds in enumerate(times_s):
        if only not in (None, t):
            continue
        seen = []
        for k, take in enumerate(takes):
            frame = take.instants[t].frames[take.sensors[0].name]
            T = frame.T_world_depth if said is None else said[k]
            frame = replace(frame, T_world_depth=T, timestamp_s=float(seconds))
            try:
                seen.append(observe(frame, gravity_world=take.gravity_world))
            except (PersonNotFoundError, FrameError):
                continue
        if seen:
            instants.append(Instant(t, float(seconds), tuple(seen)))
    return instants


def or_refusal(make: Callable[[], Record]) -> Record:
    """What is made, or why the library refused it: a case like others, and counted."""
    from bodyfit.errors import BodyfitError

    try:
        return make()
    except BodyfitError as refusal:
        return {"refused": str(refusal)}


def fitted(model: BodyModel, case: Case, instants: Sequence[Instant], *, refine: bool = False) -> FitResult:
    """What the library makes of them; clothes and sex as the command line has them."""
    from bodyfit.fit.joint import FitSetup, fit_instants
    from bodyfit.fit.rig_prior import RigConfig

    return fit_instants(FitSetup(model, "neutral", "auto", CONFIG, rig=RigConfig() if refine else None), instants)


def body_errors(model: BodyModel, takes: Sequence[Take], result: FitResult, at: Sequence[int]) -> Record:
    """Metres: joints and vertices of the posed body, vertices of the rest body, stature."""
    truth = [takes[0].instants[t] for t in at]
    joints = [np.linalg.norm(result.joints_world(i) - t.joints_world, axis=1).mean() for i, t in enumerate(truth)]
    vertices = [np.linalg.norm(result.vertices_world(i) - t.vertices_world, axis=1).mean() for i, t in enumerate(truth)]
    subject = takes[0].subject
    rest = result.rest_vertices() - subject.rest_vertices
    return {
        "joints_m": float(np.mean(joints)),
        "vertices_m": float(np.mean(vertices)),
        "rest_m": float(np.linalg.norm(rest - rest.mean(0), axis=1).mean()),
        "stature_m": float(abs(result.measurements["stature"].value_m - np.ptp(subject.rest_vertices[:, 1]))),
        "believed": bool(result.converged),
    }


def place_errors(true: NDArray[np.float64], found: NDArray[np.float64]) -> tuple[float, float, float]:
    """How far a sensor (4, 4) is from where it is: itself, metres; degrees; and what it sees of a person, metres."""
    from bodyfit.rotation import axis_angle_from_matrix

    D = found @ np.linalg.inv(true)
    person = np.array([0.0, 0.0, 0.9])
    return (
        float(np.linalg.norm(found[:3, 3] - true[:3, 3])),
        float(np.degrees(np.linalg.norm(axis_angle_from_matrix(D[:3, :3])))),
        float(np.linalg.norm(D[:3, :3] @ person + D[:3, 3] - person)),
    )


def compare(model: BodyModel, case: Case, takes: Sequence[Take], times_s: Sequence[float]) -> Record:
    """One instant seen by all sensors, and by each alone; sensors where they stand."""
    middle = len(times_s) // 2
    instants = looked_at(takes, times_s, only=middle)
    seen = instants[0].observations if instants else ()
    if len(seen) < len(takes):
        return {"refused": f"{len(seen)} of {len(takes)} sensors find the person"}

    def of(instant: Instant) -> Record:
        return body_errors(model, takes, fitted(model, case, [instant]), [middle])

    alone = [or_refusal(lambda o=o: of(replace(instants[0], observations=(o,)))) for o in seen]
    return {"together": of(instants[0]), "alone": alone}


def find_places(model: BodyModel, case: Case, takes: Sequence[Take], times_s: Sequence[float]) -> Record:
    """All instants, with all sensors but the first said to stand elsewhere: errors before and after."""
    rng = np.random.default_rng([0x816, case.seed, 2])
    true = [take.T_world_depth[0] for take in takes]
    said = [true[0], *(disturbed(T, rng) for T in true[1:])]
    instants = looked_at(takes, times_s, said)
    names = [take.sensors[0].name for take in takes]
    # the sensor that is held is the one that sees the person first: it has to be the one said to stand where it does
    while instants and instants[0].observations[0].sensor != names[0]:
        instants.pop(0)
    seen = [o.sensor for i in instants for o in i.observations]
    if set(seen) != set(names):
        return {"refused": f"{len(set(seen))} of {len(names)} sensors find the person"}
    result = fitted(model, case, instants, refine=True)
    of_name = {place.name: place for place in result.sensors}
    out = []
    for k in range(1, len(names)):
        place = of_name[names[k]]
        out.append({
            "said": place_errors(true[k], place.given), "found": place_errors(true[k], place.T_world_depth),
            "sd": (place.moved_sd_m, place.turned_sd_deg), "flags": list(place.flags),
            "delay_s": place.delay_s, "delay_sd_s": place.delay_sd_s,
        })  # fmt: skip
    unseen = len(names) * len(times_s) - len(seen)
    return {"places": out, "unseen": unseen, "body": body_errors(model, takes, result, [i.index for i in instants])}


def work(seed: int) -> Record:
    """One rig: all against one, places from nothing but the person, and for some the clocks."""
    from bodyfit.body.model import load_body_model

    model = load_body_model(None)
    case = case_of(seed)
    times = (np.arange(INSTANTS) * GAP_S).tolist()
    takes = film_rig(model, case, times)
    began = time.process_time()
    record: Record = {**vars(case), "compared": or_refusal(lambda: compare(model, case, takes, times))}
    middle = time.process_time()
    record["sought"] = or_refusal(lambda: find_places(model, case, takes, times))
    record["cpu_s"] = (middle - began, time.process_time() - middle)
    record["clocks"] = None
    if seed % CLOCK_EVERY == 0:
        close = (np.arange(CLOCK_INSTANTS) * CLOCK_GAP_S).tolist()
        delays = [0.0] + [case.delay_s * (-1) ** k for k in range(1, case.sensors)]
        late = film_rig(model, case, close, delays)
        record["clocks"] = {"delays_s": delays[1:], **or_refusal(lambda: find_places(model, case, late, close))}
    return record


def report(records: list[Record]) -> str:
    """The study's findings as markdown."""
    lines = [
        f"{len(records)} rigs, seeds {records[0]['seed']} to {records[-1]['seed']}: {compared_text(records)}",
        "", places_text(records), "", clocks_text(records), *refusals(records),
    ]  # fmt: skip
    cpu = np.array([r["cpu_s"] for r in records])
    lines += ["", f"CPU seconds of a rig, one thread, median: comparison {np.median(cpu[:, 0]):.0f}, places"
              f" {np.median(cpu[:, 1]):.0f}."]  # fmt: skip
    return "\n".join(lines)


def refusals(records: list[Record]) -> list[str]:
    """What was not fitted at all, or from fewer looks, and so is in none of the figures."""
    lines = []
    for r in records:
        for what in ("compared", "sought", "clocks"):
            if r[what] is not None and "refused" in r[what]:
                lines.append(f"- seed {r['seed']}, {what}: refused, {r[what]['refused']}")
            # records of rigs that all sensors saw at all times may be without the number
            elif r[what] is not None and r[what].get("unseen"):
                lines.append(
                    f"- seed {r['seed']}, {what}: images in which the person was not found: {r[what]['unseen']}"
                )
    return ["", *lines] if lines else []


def compared_text(records: list[Record]) -> str:
    """All sensors against each alone, one instant."""
    rows, better = [], {}
    records = [r for r in records if "refused" not in r["compared"]]
    if not records:
        return "none was compared."
    scores = (("joints_m", "joints"), ("vertices_m", "vertices"), ("rest_m", "rest pose"), ("stature_m", "stature"))
    for key, name in scores:
        together, best, every = [], [], []
        for r in records:
            alone = [a[key] for a in r["compared"]["alone"] if key in a]
            if alone:
                together.append(r["compared"]["together"][key])
                best.append(min(alone))
                every += alone
        better[name] = share(int((np.array(together) < best).sum()), len(best))
        rows.append((
            name, *(f"{1000 * np.mean(x):.1f} / {1000 * np.median(x):.1f}" for x in (together, best, every)),
            better[name],
        ))  # fmt: skip
    refused = sum("refused" in a for r in records for a in r["compared"]["alone"])
    text = "one instant, sensors where they stand; errors in mm, mean / median.\n\n" + markdown(
        ("", "all sensors", "the best single one, chosen by truth", "each single one", "all better than the best"), rows
    )
    return text + (f"\n\n{refused} fits of one sensor were refused." if refused else "")


def places_text(records: list[Record]) -> str:
    """Places said wrong, and found."""
    records = [r for r in records if "refused" not in r["sought"]]
    if not records:
        return "No places were found."
    groups = [("all", records)] + [(k, [r for r in records if r["kind"] == k]) for k in dict.fromkeys(KINDS)]
    rows = []
    for name, some in groups:
        places = [p for r in some for p in r["sought"]["places"]]
        if not places:
            continue
        for when in ("said", "found"):
            e = np.array([p[when] for p in places]) * (1000, 1, 1000)
            good = int(((e[:, 0] <= FOUND_M * 1000) & (e[:, 1] <= FOUND_DEG)).sum())
            at_person = int(((e[:, 2] <= FOUND_M * 1000) & (e[:, 1] <= FOUND_DEG)).sum())
            rows.append((
                f"{name}, {when}", str(len(e)),
                *(f"{np.median(x):.{d}f} / {np.percentile(x, 90):.{d}f}" for x, d in zip(e.T, (1, 2, 1), strict=True)),
                f"{100 * good / len(e):.0f} %", f"{100 * at_person / len(e):.0f} %",
            ))  # fmt: skip
    found = [p for r in records for p in r["sought"]["places"]]
    ratio = np.array([[p["found"][i] / max(p["sd"][i], 1e-9) for i in (0, 1)] for p in found])
    ok = f"{FOUND_M * 1000:.0f} mm and {FOUND_DEG}°"
    text = f"""Every sensor but the first said to stand {PLACE_M * 100:.0f} cm and {TURN_DEG:.0f}° from where it stands;
{INSTANTS} instants, {GAP_S} s apart. Median / 90th percentile; *person* is the error of what the sensor sees at the
person's place, *sensor* that of its own place, which a turn of 0.1° moves by 4 mm.

"""
    text += markdown(
        ("sensors", "number", "sensor, mm", "turn, °", "person, mm", f"sensor within {ok}", f"person within {ok}"), rows
    )
    text += (
        "\n\nErrors over the stated standard deviation, root mean square: place"
        f" {np.sqrt((ratio[:, 0] ** 2).mean()):.2f}, turn {np.sqrt((ratio[:, 1] ** 2).mean()):.2f} (1 where"
        " it is right). Joints of these fits:"
        f" {1000 * np.median([r['sought']['body']['joints_m'] for r in records]):.1f} mm, rest pose"
        f" {1000 * np.median([r['sought']['body']['rest_m'] for r in records]):.1f} mm (medians)."
    )
    return text


def clocks_text(records: list[Record]) -> str:
    """Clocks out of step, and found."""
    rows = []
    for r in records:
        if r["clocks"] is None or "refused" in r["clocks"]:
            continue
        for delay, p in zip(r["clocks"]["delays_s"], r["clocks"]["places"], strict=True):
            rows.append((
                f"{r['seed']}, {r['kind']}", f"{delay * 1000:+.1f}", f"{p['delay_s'] * 1000:+.1f}",
                f"{p['delay_sd_s'] * 1000:.1f}", f"{p['found'][0] * 1000:.1f}", f"{p['found'][1]:.2f}",
            ))  # fmt: skip
    if not rows:
        return ""
    head = ("rig", "delay, ms", "found, ms", "stated sd, ms", "sensor, mm", "turn, °")
    text = f"Clocks out of step and places wrong at once: {CLOCK_INSTANTS} instants at 30 a second.\n\n"
    return text + markdown(head, rows)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="What several sensors gain, and whether they find their own places.")
    parser.add_argument("--rigs", type=int, default=20, help="how many")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--out", type=Path, default=Path("rigs"))
    parser.add_argument("--results", action="store_true", help="also write the section of RESULTS.md")
    asked: Any = parser.parse_args(arguments)

    def told(r: Record, done: int) -> None:
        places = r["sought"].get("places", ())
        found = [f"{p['found'][0] * 1000:.1f} mm {p['found'][1]:.2f}°" for p in places] or ["refused"]
        print(
            f"{done:4d} seed {r['seed']} {r['sensors']} {r['kind']:7s} {r['clothing']:6s} {', '.join(found)}",
            flush=True,
        )

    seeds = range(asked.first_seed, asked.first_seed + asked.rigs)
    records = run_cases(work, seeds, asked.out / "cases.jsonl", asked.jobs, told)
    text = report(records)
    write_text(asked.out / "report.md", text + "\n")
    print("\n" + text)
    if asked.results:
        write_section("## Several sensors", INTRODUCTION + text)


if __name__ == "__main__":
    sys.exit(main())
