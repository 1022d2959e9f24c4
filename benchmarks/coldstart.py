"""How often a fit of a single depth frame finds the pose from nothing: any heading, everyday poses, noise, bad masks.

    python benchmarks/coldstart.py --fits 300 --jobs 2 --out cold_start

Writes cold_start/cases.jsonl (one line a fit; go on after a break by the same command), report.md and failures.png.
A case is made from its seed alone. `sex` and `clothing` are left at the command line's defaults (neutral, auto).
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from study import CONFIG, Record, grouped, markdown, run_cases, share, write_section, write_text

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.result import FitResult
    from bodyfit.observe.observation import Observation
    from bodyfit.synthetic.take import Take

FIRST_SEED = 2236
"""the seeds below were looked at while the search was built: they say nothing about its success"""
CONVERGED_M = 0.020
"""a fit has converged when the truth's visible vertices are this near on average"""
WRONG_LIMB_M = 0.10
"""a limb whose end is this far off is a wrong limb, seen or not"""
WRONG_HEADING_DEG = 60.0
LEAST_MASK_IOU = 0.75
WRONG_PART_M = 0.04
"""a part whose visible vertices are this far off on average is named among the causes of a failure"""
VISIBLE_M = 0.02
"""a vertex is visible when the exact depth at its pixel is no nearer than this before it"""
OFF_MODEL_MM = 3.0
ENDS = {
    "left arm": ("left_elbow", "left_wrist", "left_hand"), "right arm": ("right_elbow", "right_wrist", "right_hand"),
    "left leg": ("left_knee", "left_ankle"), "right leg": ("right_knee", "right_ankle"),
}  # fmt: skip
OCTANTS = ("front", "front right", "right side", "back right", "back", "back left", "left side", "front left")
"""which side of the person the sensor sees, heading 0, 45, ... 315 degrees"""

INTRODUCTION = """\
`python benchmarks/coldstart.py --results`: fits of single depth frames from nothing but depth, gravity and,
in half of the cases, a mask. Subjects of both sexes, 3 mm rms off the model's span; 13 everyday poses in
turn, each varied by chance; headings from all round; three sensors with their noise (Azure Kinect 640×576,
Kinect v2 512×424, RealSense D435 848×480, whose noise is 15 mm at 2.5 m); tight or casual clothes; no mask
(the person has to be found in a room with walls and furniture) or an imperfect one (grown or shrunk by up to
3 px, frayed, pieces missing or added). `sex` and `clothing` are left at neutral and auto. The error is that
of the naked body's vertices that the sensor sees (13,348 vertices, of which hands have 26 %, the head 25 %
and the feet 17 %), same vertex to same vertex. Shares have 95 % confidence intervals (Wilson).

"""


@dataclass(frozen=True)
class Case:
    """What a seed stands for."""

    seed: int
    pose: str
    heading_deg: float
    sensor: str
    sex: str
    clothing: str
    mask: str


def case_of(seed: int) -> Case:
    """The case of a seed: poses take turns, all else is drawn."""
    from bodyfit.synthetic.poses import EVERYDAY
    from bodyfit.synthetic.sensor import SENSORS
    from bodyfit.synthetic.subject import SEXES

    rng = np.random.default_rng([0xC01D, seed])
    sensors = sorted(SENSORS)
    return Case(
        seed,
        EVERYDAY[seed % len(EVERYDAY)],
        round(float(rng.uniform(0, 360)), 1),
        sensors[int(rng.integers(len(sensors)))],
        SEXES[int(rng.integers(2))],
        ("tight", "casual")[int(rng.integers(2))],
        ("none", "imperfect")[int(rng.integers(2))],
    )


def film_case(model: BodyModel, case: Case) -> Take:
    """The person of a case before its sensor."""
    from bodyfit.synthetic.take import sample_take

    return sample_take(
        model, case.seed, pose_names=(case.pose,), headings_deg=(case.heading_deg,), sensor=case.sensor, sex=case.sex,
        off_model_mm_rms=OFF_MODEL_MM, clothing=case.clothing, mask=case.mask,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip


def fit_take(model: BodyModel, take: Take) -> tuple[Observation, FitResult]:
    """What the library makes of a take's only frame."""
    from bodyfit.fit.joint import FitSetup, Instant, fit_instants
    from bodyfit.observe.observation import observe

    seen = observe(take.frames[0], gravity_world=take.gravity_world)
    return seen, fit_instants(FitSetup(model, "neutral", "auto", CONFIG), [Instant(0, 0.0, (seen,))])


def visible_vertices(model: BodyModel, take: Take) -> NDArray[np.bool_]:
    """(V,) the truth's vertices that the sensor sees: facing it, in the picture, nothing before them."""
    from bodyfit.kernels.body import vertex_normals

    instant = take.instants[0]
    name, T = take.sensors[0].name, take.T_world_depth[0]
    camera = take.sensors[0].depth_camera
    cam = np.ascontiguousarray((instant.surface_world - T[:3, 3]) @ T[:3, :3], np.float32)
    normals = np.empty_like(cam)
    vertex_normals(cam, model.faces, normals)
    uv = np.rint(camera.project(cam)).astype(np.int64)
    inside = (cam[:, 2] > 0) & (uv >= 0).all(1) & (uv < (camera.width, camera.height)).all(1)
    u, v = np.where(inside[:, None], uv, 0).T
    # the body's own pixels: at its outline a vertex rounds onto the wall behind it
    open_to = instant.masks[name][v, u] & (cam[:, 2] - instant.clean[name][v, u] < VISIBLE_M)
    used = np.ones(model.num_vertices, bool) if model.sample_mask is None else model.sample_mask
    return inside & open_to & used & ((normals * cam).sum(1) < 0)


def work(seed: int) -> Record:
    """One cold fit, compared with its truth."""
    from bodyfit.body.model import load_body_model
    from bodyfit.errors import BodyfitError

    model = load_body_model(None)
    case = case_of(seed)
    take = film_case(model, case)
    record: Record = {**vars(case), "error_m": None, "flags": [], "believed": False, "refused": None}
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        seen, result = fit_take(model, take)
    except BodyfitError as refusal:
        record["refused"] = str(refusal)
        return record
    record["wall_s"], record["cpu_s"] = time.perf_counter() - wall, time.process_time() - cpu
    return {**record, **compared(model, take, seen, result)}


def compared(model: BodyModel, take: Take, seen: Observation, result: FitResult) -> Record:
    """Errors of a fit, metres and degrees, and what the result says of itself."""
    instant = take.instants[0]
    mask = instant.masks[take.sensors[0].name]
    distance = np.linalg.norm(result.vertices_world(0) - instant.vertices_world, axis=1)
    visible = visible_vertices(model, take)
    joints = np.linalg.norm(result.joints_world(0) - instant.joints_world, axis=1)
    joint = dict(zip(model.joint_names, joints, strict=True))
    quality = result.frames[0]
    person = seen.person
    area = vertex_areas(instant.vertices_world, model.faces)
    parts = {}
    for i, part in enumerate(model.part_names if model.part_labels is not None else ()):
        mine = visible & (model.part_labels == i)
        if mine.sum() >= 20:
            parts[part] = round(float(distance[mine].mean()), 4)
    return {
        "error_m": float(distance[visible].mean()),
        "area_error_m": float(np.average(distance[visible], weights=area[visible])),
        "part_error_m": parts,
        "all_error_m": float(distance.mean()),
        "visible_share": float(visible.mean()),
        "limb_error_m": {limb: float(max(joint[j] for j in ends)) for limb, ends in ENDS.items()},
        "heading_error_deg": heading_error_deg(instant.pose[0], result.poses[0, 0]),
        "mask_iou": float((person & mask).sum() / max((person | mask).sum(), 1)),
        "depth_residual_m": quality.depth_residual_m,
        "silhouette_iou": quality.silhouette_iou,
        "ambiguity": quality.ambiguity,
        "believed": bool(result.converged),
        "worn": result.clothing,
        "flags": list(quality.flags),
    }


def vertex_areas(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> NDArray[np.float64]:
    """(V,) square metres of surface that belong to each vertex: a third of each of its faces."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    face = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
    return np.bincount(faces.ravel(), np.repeat(face, 3), minlength=len(vertices)).astype(np.float64)


def heading_error_deg(true_root: NDArray[np.float64], found_root: NDArray[np.float64]) -> float:
    """Degrees between the directions that two root rotations (3,) axis-angle face, seen from above."""
    from bodyfit.rotation import matrix_from_axis_angle

    a, b = (matrix_from_axis_angle(r)[:2, 2] for r in (true_root, found_root))
    return float(np.degrees(np.abs(np.arctan2(a[0] * b[1] - a[1] * b[0], a @ b))))


def converged(r: Record) -> bool:
    """Whether the visible vertices are near enough on average."""
    return r["error_m"] is not None and r["error_m"] <= CONVERGED_M


def flagged(r: Record) -> bool:
    """Whether the result itself says that something may be wrong with the pose."""
    return not r["believed"] or any("ambiguous" in f or "hidden" in f for f in r["flags"])


def wrong_limbs(r: Record) -> list[str]:
    """Limbs in a wrong place, hidden ones included."""
    return [limb for limb, e in r.get("limb_error_m", {}).items() if e > WRONG_LIMB_M]


def kind_of(r: Record) -> str:
    """What went wrong, in words."""
    if r["refused"]:
        return f"refused: {r['refused']}"
    if r["heading_error_deg"] > WRONG_HEADING_DEG:
        return f"turned {r['heading_error_deg']:.0f}°"
    if r["mask_iou"] < LEAST_MASK_IOU:
        return f"person cut out wrongly (overlap {100 * r['mask_iou']:.0f} %)"
    limbs, parts = wrong_limbs(r), sorted(r["part_error_m"].items(), key=lambda item: -item[1])
    far = [f"{part.replace('_', ' ')} {e * 100:.0f} cm" for part, e in parts if e > WRONG_PART_M][:3]
    place = f"; off: {', '.join(far)}" if far else ""
    return (f"{' and '.join(limbs)} wrong" if limbs else "near the limit, limbs right") + place


def cause_of(r: Record) -> str:
    """The kind of a failure, for counting."""
    if r["refused"]:
        return "refused"
    limbs = " ".join(wrong_limbs(r))
    for found, cause in (
        (r["heading_error_deg"] > WRONG_HEADING_DEG, "faces another way"),
        (
            "arm" in limbs and any("arm hidden" in f for f in r["flags"]),
            "an arm elsewhere, mostly hidden and flagged so",
        ),
        ("arm" in limbs, "an arm or hand elsewhere, seen"),
        ("leg" in limbs, "a leg or foot elsewhere"),
        (r["mask_iou"] < LEAST_MASK_IOU, "limbs right; mask overlaps the truth by less than three quarters"),
        (r["sensor"] == "d435", "limbs right; the sensor's noise (d435)"),
    ):
        if found:
            return cause
    return "limbs right; hands, head or feet bent or turned a little otherwise"


def octant(r: Record) -> int:
    """0 to 7: the heading to the nearest 45 degrees."""
    return int(((r["heading_deg"] + 22.5) % 360) // 45)


def report(records: list[Record]) -> str:
    """The study's findings as markdown."""
    good, bad = [r for r in records if converged(r)], [r for r in records if not converged(r)]
    errors = np.array([r["error_m"] for r in good]) * 1000
    by_area = sum(r["error_m"] is not None and r["area_error_m"] <= CONVERGED_M for r in records)
    limbless = [r for r in records if wrong_limbs(r)]
    claimed = [r for r in limbless if not flagged(r)]
    cpu = np.array([r["cpu_s"] for r in records if "cpu_s" in r])
    wall = np.array([r["wall_s"] for r in records if "wall_s" in r])
    lines = [
        f"{len(records)} fits of one frame each, seeds {records[0]['seed']} to {records[-1]['seed']}.",
        "",
        f"- Converged (visible vertices within {CONVERGED_M * 1000:.0f} mm on average):"
        f" **{share(len(good), len(records))}**.",
        "- The same weighted by area (hands and head hold half of the vertices and a tenth of the skin):"
        f" {share(by_area, len(records))}.",
        f"- Visible vertices of converged fits: median {np.median(errors):.1f} mm, 90th percentile"
        f" {np.percentile(errors, 90):.1f} mm." if good else "- None converged.",
        f"- Failures that the result flags (not believed, ambiguous, hidden limb, or refused):"
        f" {sum(map(flagged, bad))} of {len(bad)}.",
        f"- Fits with a limb more than {WRONG_LIMB_M * 100:.0f} cm off, seen or hidden: {len(limbless)}, of which"
        f" {len(limbless) - len(claimed)} flagged.",
        f"- Flags on fits that are right (all limbs within {WRONG_LIMB_M * 100:.0f} cm):"
        f" {sum(flagged(r) for r in good if not wrong_limbs(r))} of {sum(not wrong_limbs(r) for r in good)}.",
        f"- Time of a fit, one thread: {np.median(cpu):.2f} s CPU (median), {np.percentile(cpu, 90):.2f} s (90th"
        f" percentile); wall {np.median(wall):.2f} s." if len(cpu) else "",
        "",
    ]  # fmt: skip
    for title, key in (
        ("What the sensor sees", lambda r: f"{octant(r)} {OCTANTS[octant(r)]}"), ("Pose", lambda r: r["pose"]),
        ("Mask", lambda r: r["mask"]), ("Clothing", lambda r: r["clothing"]), ("Sensor", lambda r: r["sensor"]),
        ("Sex", lambda r: r["sex"]),
    ):  # fmt: skip
        rows = []
        for value, some in grouped(records, key):
            ok = [r["error_m"] * 1000 for r in some if converged(r)]
            middle = f"{np.median(ok):.1f}" if ok else "–"
            name = str(value).lstrip("0123456789 ") if title.startswith("What") else str(value)
            rows.append((name, share(len(ok), len(some)), middle))
        lines += [markdown((title, "converged (95 % interval)", "error of these, mm, median"), rows), ""]
    if bad:
        causes = sorted(grouped(bad, cause_of), key=lambda item: -len(item[1]))
        rows = [(cause, str(len(some)), str(sum(map(flagged, some)))) for cause, some in causes]
        lines += [markdown(("What is wrong with the failures", "fits", "of them flagged"), rows), ""]
        lines += [f"{len(bad)} failures:", "", failure_table(bad), ""]
    if [r for r in claimed if converged(r)]:
        lines += ["Converged, yet a limb is wrong and nothing says so:", ""]
        lines += [failure_table([r for r in claimed if converged(r)]), ""]
    return "\n".join(lines)


def failure_table(records: list[Record]) -> str:
    """One row a fit."""
    rows = [
        (
            str(r["seed"]), r["pose"], f"{r['heading_deg']:.0f}°", f"{r['sensor']}, {r['clothing']}, mask {r['mask']}",
            "–" if r["error_m"] is None else f"{r['error_m'] * 1000:.0f}", kind_of(r),
            "; ".join([*([] if r["believed"] else ["not believed"]), *r["flags"]]) or "none",
        )
        for r in sorted(records, key=lambda r: -(r["error_m"] or 9))
    ]  # fmt: skip
    return markdown(("seed", "pose", "heading", "seen by", "error, mm", "kind", "what the result says"), rows)


def draw_sheet(model: BodyModel, records: list[Record], path: Path) -> None:
    """A picture of fits, two panels each: the depth with the truth's outline, the fitted body over it."""
    import cv2

    from bodyfit.errors import BodyfitError
    from bodyfit.picture import draw

    width, height, foot, columns = 230, 330, 66, 3
    rows = -(-len(records) // columns)
    sheet, texts = draw.canvas(columns * (2 * width + 16) + 8, max(rows, 1) * (height + foot)), []
    for k, r in enumerate(records):
        take = film_case(model, case_of(r["seed"]))
        frame, mask = take.frames[0], take.instants[0].masks[take.sensors[0].name]
        v, u = np.nonzero(mask)
        middle = float(np.median(take.instants[0].clean[take.sensors[0].name][mask]))
        window = draw.crop_around(np.stack([u, v], 1), frame.depth_camera, (width, height), 0.15)
        seen = draw.grey_depth(window.of(frame.depth, smooth=False), middle - 0.9, middle + 1.6)
        seen = draw.outline(seen, window.of(mask, smooth=False) > 0, draw.GOOD, 1)
        fitted = seen
        try:
            observation, result = fit_take(model, take)
            seen = draw.outline(seen, window.of(observation.person, smooth=False) > 0, draw.MASK, 1)
            T = take.T_world_depth[0]
            cam = (result.vertices_world(0) - T[:3, 3]) @ T[:3, :3]
            body = draw.shade(cam, model.faces, frame.depth_camera, window)
            fitted = draw.outline(draw.lay_over(fitted, body, draw.BODY, 0.75), body.mask, draw.BODY, 1)
        except BodyfitError:
            pass
        x, y = 8 + (k % columns) * (2 * width + 16), (k // columns) * (height + foot)
        draw.put(sheet, seen, x, y)
        draw.put(sheet, fitted, x + width, y)
        error = "refused" if r["error_m"] is None else f"{r['error_m'] * 1000:.0f} mm"
        words = f"{r['seed']} {r['pose']} {r['heading_deg']:.0f}° {r['clothing']} {error}: {kind_of(r)}"
        said = "; ".join(f.split(":")[0] for f in r["flags"]) or "no flag"
        for line, text in enumerate([*draw.wrap(words, 13, 2 * width)[:2], *draw.wrap(said, 12, 2 * width)[:2]]):
            texts.append(draw.Text(x, y + height + 10 + 15 * line, text, 13))
    ok, data = cv2.imencode(".png", draw.paint_texts(sheet, texts)[:, :, ::-1])
    assert ok
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data.tobytes())
    part.replace(path)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Share of single-frame fits that find the pose from nothing.")
    parser.add_argument("--fits", type=int, default=312, help="how many (312: 24 of each of 13 poses)")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--out", type=Path, default=Path("cold_start"))
    parser.add_argument("--results", action="store_true", help="also write the section of RESULTS.md")
    parser.add_argument("--no-picture", action="store_true", help="leave failures.png out")
    asked: Any = parser.parse_args(arguments)

    def told(r: Record, done: int) -> None:
        error = "refused" if r["error_m"] is None else f"{r['error_m'] * 1000:6.1f} mm"
        ok = "ok " if converged(r) else "BAD"
        print(f"{done:4d} {ok} seed {r['seed']:4d} {r['pose']:18s} {r['heading_deg']:5.1f}° {error}", flush=True)

    seeds = range(asked.first_seed, asked.first_seed + asked.fits)
    records = run_cases(work, seeds, asked.out / "cases.jsonl", asked.jobs, told)
    text = report(records)
    write_text(asked.out / "report.md", text + "\n")
    print("\n" + text)
    if asked.results:
        write_section("## Cold start", INTRODUCTION + text)
    bad = [r for r in records if not converged(r)]
    if bad and not asked.no_picture:
        from bodyfit.body.model import load_body_model

        draw_sheet(load_body_model(None), bad, asked.out / "failures.png")
        print(f"pictures of the failures: {asked.out / 'failures.png'}")


if __name__ == "__main__":
    sys.exit(main())
