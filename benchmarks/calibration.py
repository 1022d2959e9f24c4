"""Whether the stated standard deviations of measurements are honest: 4-frame fits of known bodies, measure by measure.

    python benchmarks/calibration.py --calibrate --clothing tight --fits 100 --jobs 2 --out calibration_train
    python benchmarks/calibration.py --clothing tight --fits 100 --jobs 2 --out calibration_check

The first prints the model errors for `bodyfit/body/measure_definitions.py`; the second checks them on other people.
Writes cases.jsonl (one line a fit; go on after a break by the same command), report.md and, with --calibrate,
model_error.json. Lines hold the fit's own standard deviation, so a changed table needs no new fits.
Fits are told what is worn (unless --judged) but not the sex.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from study import CONFIG, Z90, Record, grouped, markdown, run_cases, write_section, write_text

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.synthetic.take import Take

FIRST_TRAINING_SEED, FIRST_CHECKING_SEED = 1_000_000, 2_000_000
"""far apart: no body that chose the model errors is used to check them"""
QUARTERS_DEG = (0.0, 90.0, 180.0, 270.0)
HEADING_JITTER_DEG = 12.0
OFF_MODEL_MM = 3.0
LEAST, MOST = 0.80, 0.98
"""Shares of the truth in the 90 % intervals between which a standard deviation counts as honest."""
FOLDS = 5
_NO_ERROR: Mapping[str, float] = {}
Table = Mapping[str, Mapping[str, float]]

INTRODUCTION = """\
Fits of four frames (headings 0°, 90°, 180°, 270°, each ± 12°) of a person in something near to an A-pose;
sensors, sexes and off-model shape as for the cold start; `sex` left at neutral. The truth is measured on the
true unposed mesh stood up. A stated standard deviation is the fit's own (from the covariance of betas) and a
model error, which was chosen on other people so that 90 % intervals (value ± 1.645 sd) hold the truth in 90 %
of the fits; there is one for tight clothes and one for others. The last columns say how the fit's own would
do alone, and by what factor it is too narrow.

"""


@dataclass(frozen=True)
class Case:
    """What a seed stands for."""

    seed: int
    sex: str
    clothing: str
    sensor: str
    headings_deg: tuple[float, ...]


def case_of(seed: int, clothing: str = "both") -> Case:
    """The case of a seed: sexes take turns, and clothes where both kinds are asked for; all else is drawn."""
    from bodyfit.synthetic.sensor import SENSORS
    from bodyfit.synthetic.subject import SEXES

    rng = np.random.default_rng([0xCA11B, seed])
    sensors = sorted(SENSORS)
    turned = rng.uniform(-HEADING_JITTER_DEG, HEADING_JITTER_DEG, len(QUARTERS_DEG)) + QUARTERS_DEG
    return Case(
        seed,
        SEXES[seed % 2],
        ("tight", "casual")[seed // 2 % 2] if clothing == "both" else clothing,
        sensors[int(rng.integers(len(sensors)))],
        tuple(float(h) for h in np.round(turned, 1)),
    )


def film_case(model: BodyModel, case: Case) -> Take:
    """The person of a case, seen from four sides in something near to an A-pose."""
    from bodyfit.synthetic.take import sample_take

    return sample_take(
        model, case.seed, pose_names=("a_pose",) * len(case.headings_deg), headings_deg=case.headings_deg,
        sensor=case.sensor, sex=case.sex, off_model_mm_rms=OFF_MODEL_MM, clothing=case.clothing,
    )  # fmt: skip


def true_measurements(model: BodyModel, rest_vertices: NDArray[np.float64]) -> dict[str, float]:
    """The measurements of an unposed body (V, 3) stood up, what the shape basis cannot make included."""
    from bodyfit.body.measure import measure_vertices, stand

    return measure_vertices(model, *stand(model, rest_vertices))


def work(seed: int, clothing: str = "both", judged: bool = False) -> Record:
    """One 4-frame fit: each measurement's truth, value and the standard deviation that the fit alone states.

    clothing: tight, casual or both in turn; judged: the fit has to tell what is worn, else it is told.
    """
    from bodyfit.body.measure import measure_with_sd
    from bodyfit.body.model import load_body_model
    from bodyfit.errors import BodyfitError
    from bodyfit.fit.joint import FitSetup, Instant, fit_instants
    from bodyfit.observe.observation import observe

    model = load_body_model(None)
    case = case_of(seed, clothing)
    take = film_case(model, case)
    record: Record = {**vars(case), "refused": None, "believed": False, "measurements": {}}
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        frames = [observe(f, gravity_world=take.gravity_world) for f in take.frames]
        instants = [Instant(k, float(k), (o,)) for k, o in enumerate(frames)]
        result = fit_instants(FitSetup(model, "neutral", "auto" if judged else case.clothing, CONFIG), instants)
    except BodyfitError as refusal:
        return {**record, "refused": str(refusal)}
    record["wall_s"], record["cpu_s"] = time.perf_counter() - wall, time.process_time() - cpu
    truth = true_measurements(model, take.subject.rest_vertices)
    fitted = measure_with_sd(model, result.betas, result.betas_cov, model_error=_NO_ERROR)
    posed = [result.vertices_world(k) - take.instants[k].vertices_world for k in range(len(instants))]
    return {
        **record,
        "believed": bool(result.converged),
        "worn": result.clothing,
        "garments_m": dict(result.garments_m),
        "true_garments_m": {k: mm / 1000 for k, mm in take.clothing.nominal_mm.items()},
        "posed_error_m": [float(np.linalg.norm(d, axis=1).mean()) for d in posed],
        "measurements": {
            name: [truth[name], m.value_m, m.sd_m, bool(result.measurements[name].seen)] for name, m in fitted.items()
        },
    }


@dataclass(frozen=True)
class Errors:
    """One measure over many fits: error = value - truth (N,), the fit's own standard deviation (N,)."""

    error: NDArray[np.float64]
    sd: NDArray[np.float64]

    def coverage(self, model_error: float | NDArray[np.float64]) -> float:
        """Share of the truth within the 90 % interval; one model error for all fits or one for each (N,)."""
        return float((np.abs(self.error) <= Z90 * np.hypot(self.sd, model_error)).mean())

    def needed_model_error(self) -> float:
        """The model error with which 90 % of the truth lies in the 90 % interval; 0 where less would be needed."""
        needed = (self.error / Z90) ** 2 - self.sd**2
        return float(np.sqrt(max(np.quantile(needed, 0.9), 0.0)))

    def needed_factor(self) -> float:
        """The factor on the fit's own standard deviation with which 90 % of the truth lies in the 90 % interval."""
        return float(np.quantile(np.abs(self.error) / self.sd, 0.9) / Z90)


def errors_of(records: Sequence[Record], name: str) -> tuple[Errors, list[Record]]:
    """A measure's errors over the fits that claim it (believed, its body parts seen), and those fits."""
    rows, claims = [], []
    for r in records:
        truth, value, sd, seen = r["measurements"].get(name, (np.nan, np.nan, np.nan, False))
        if r["believed"] and seen and np.isfinite([truth, value, sd]).all():
            rows.append((value - truth, sd))
            claims.append(r)
    columns = np.array(rows, np.float64).reshape(-1, 2).T
    return Errors(columns[0], columns[1]), claims


def clothes_of(r: Record) -> str:
    """Which of the two tables of model errors a fit takes: tight or clothed."""
    return "tight" if r["worn"] == "tight" else "clothed"


def calibrated(records: Sequence[Record]) -> Table:
    """A model error for every measure, tight and clothed, to a tenth of a millimetre (0.01 l of volume, 0.01 kg)."""
    from bodyfit.body.measure_definitions import DEFINITIONS

    digits = {"m": 4, "m3": 5, "kg": 2}
    out: dict[str, dict[str, float]] = {"tight": {}, "clothed": {}}
    for name, definition in DEFINITIONS.items():
        for kind, table in out.items():
            mine = [r for r in records if r["believed"] and clothes_of(r) == kind]
            errors, _ = errors_of(mine, name)
            steps = 10.0 ** digits[definition.unit]
            if len(errors.error):  # rounded up: none at all is not claimed
                table[name] = round(max(np.ceil(errors.needed_model_error() * steps), 1) / steps, 5)
    return out


def crosswise(records: Sequence[Record]) -> Callable[[Record], Table]:
    """For each fit the model errors chosen on the other folds: no body is checked with what it helped to choose."""
    tables = [calibrated([r for r in records if r["seed"] % FOLDS != fold]) for fold in range(FOLDS)]
    return lambda r: tables[r["seed"] % FOLDS]


def report(records: list[Record], table_of: Callable[[Record], Table]) -> str:
    """The study's findings as markdown; table_of: a fit's model errors, "tight" and "clothed", for every measure."""
    from bodyfit.body.measure_definitions import DEFINITIONS

    claimed = [r for r in records if r["believed"]]
    sets = dict(grouped(claimed, lambda r: r["clothing"]))
    sets |= dict(grouped(claimed, lambda r: r["sensor"]))
    cpu = [r["cpu_s"] for r in records if "cpu_s" in r]
    wrong_clothes = sum(r["worn"] != r["clothing"] for r in claimed)
    rows, outside = [], []

    def held(some: Sequence[Record], name: str) -> tuple[Errors, NDArray[np.float64], float]:
        e, claims = errors_of(some, name)
        extra = np.array([table_of(r)[clothes_of(r)].get(name, 0.0) for r in claims])
        return e, extra, e.coverage(extra) if len(extra) else float("nan")

    def percent(part: float) -> str:
        return "–" if np.isnan(part) else f"{100 * part:.0f}"

    for name, definition in DEFINITIONS.items():
        unit, scale = {"m": ("mm", 1e3), "m3": ("l", 1e3), "kg": ("kg", 1.0)}[definition.unit]
        e, extra, inside = held(claimed, name)
        if not len(e.error):
            continue
        if not LEAST <= inside <= MOST:
            outside.append(name)
        rows.append((
            f"{name}, {unit}", f"{e.error.mean() * scale:+.1f}", f"{e.error.std() * scale:.1f}",
            f"{np.median(np.abs(e.error)) * scale:.1f}", f"{np.hypot(e.sd, extra).mean() * scale:.1f}",
            f"{e.sd.mean() * scale:.1f}", f"{100 * inside:.0f}" + ("" if LEAST <= inside <= MOST else " ✗"),
            *(percent(held(some, name)[2]) for some in sets.values()),
            f"{100 * e.coverage(0.0):.0f}", f"{e.needed_factor():.2f}",
        ))  # fmt: skip
    head = (
        "measure", "bias", "sd of error", "median abs. error", "stated sd", "of it the fit's", "in 90 % interval, %",
        *(f"{kind} ({len(some)})" for kind, some in sets.items()), "without model error, %", "factor needed then",
    )  # fmt: skip
    trunk = ("chest_girth", "waist_girth", "hip_girth")
    off = []
    for sensor, some in grouped(claimed, lambda r: r["sensor"]):
        of_trunk = np.concatenate([errors_of(some, name)[0].error for name in trunk])
        off += [f"{sensor} {of_trunk.mean() * 1e3:+.0f} mm"] if len(of_trunk) else []
    lines = [
        f"{len(records)} fits of 4 frames each, seeds {records[0]['seed']} to {records[-1]['seed']};"
        f" {len(claimed)} believed, {sum(r['refused'] is not None for r in records)} refused.",
        "",
        f"- Measures whose 90 % intervals hold the truth in {100 * LEAST:.0f} to {100 * MOST:.0f} % of the fits:"
        f" **{len(rows) - len(outside)} of {len(rows)}**" + (f"; outside: {', '.join(outside)}." if outside else "."),
        "- Mean error of chest, waist and hip girth by sensor: "
        + ", ".join(off)
        + ". One model error serves all sensors, so that it is wide for quiet ones and narrow for noisy ones.",
        f"- Clothes judged otherwise than they were: {wrong_clothes} of {len(claimed)}.",
        f"- Time of a fit, one thread: {np.median(cpu):.1f} s CPU (median)." if cpu else "",
        "",
        markdown(head, rows),
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Share of true measurements inside the stated intervals.")
    parser.add_argument("--fits", type=int, default=100)
    parser.add_argument("--calibrate", action="store_true", help="choose model errors, on training seeds")
    parser.add_argument("--crosswise", action="store_true", help="check each fifth with what the others choose")
    parser.add_argument("--first-seed", type=int, help="instead of the training or checking seeds")
    parser.add_argument("--clothing", choices=("tight", "casual", "both"), default="both")
    parser.add_argument("--judged", action="store_true", help="fits are not told what is worn")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--results", action="store_true", help="also write the section of RESULTS.md")
    parser.add_argument("--out", type=Path, default=Path("calibration"))
    asked: Any = parser.parse_args(arguments)
    from bodyfit.body.measure_definitions import model_errors

    def told(r: Record, done: int) -> None:
        off = r["refused"] or f"posed {1000 * np.mean(r['posed_error_m']):.1f} mm"
        print(f"{done:4d} seed {r['seed']} {r['clothing']:7s} taken as {r.get('worn')} {off}", flush=True)

    first = asked.first_seed
    if first is None:
        first = FIRST_TRAINING_SEED if asked.calibrate else FIRST_CHECKING_SEED
    records = run_cases(
        partial(work, clothing=asked.clothing, judged=asked.judged), range(first, first + asked.fits),
        asked.out / "cases.jsonl", asked.jobs, told, {"clothing": asked.clothing, "judged": asked.judged},
    )  # fmt: skip
    table: Table = {"tight": model_errors("tight"), "clothed": model_errors("casual")}
    if asked.calibrate:
        table = calibrated(records)
        write_text(asked.out / "model_error.json", json.dumps(table, indent=1) + "\n")
        print(json.dumps(table, indent=1))
    text = report(records, crosswise(records) if asked.crosswise else lambda _r: table)
    write_text(asked.out / "report.md", text + "\n")
    print("\n" + text)
    if asked.results:
        checked = "checked crosswise, each fifth with what the others choose" if asked.crosswise else "fresh people"
        how = "The fits judged for themselves what is worn" if asked.judged else "The fits were told what is worn"
        write_section("## Uncertainty", f"{INTRODUCTION}{how}; clothes: {asked.clothing}; {checked}.\n\n{text}")


if __name__ == "__main__":
    sys.exit(main())
