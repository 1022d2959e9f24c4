"""The accuracy studies run on a few cases, go on where they were stopped, and count as they say."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bodyfit.body.model import load_body_model
from bodyfit.errors import InputError

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("study")


@pytest.fixture
def coldstart(study: ModuleType) -> ModuleType:
    return importlib.import_module("coldstart")


@pytest.fixture
def rigs(study: ModuleType) -> ModuleType:
    return importlib.import_module("rigs")


@pytest.fixture
def calibration(study: ModuleType) -> ModuleType:
    return importlib.import_module("calibration")


def _run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "cases.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_cold_fits_and_on_after_a_break(tmp_path: Path) -> None:
    out = tmp_path / "cold"
    _run("coldstart.py", "--fits", "2", "--first-seed", "0", "--out", str(out), "--no-picture")
    head, *records = _lines(out)
    assert "config" in head["settings"] and [r["seed"] for r in records] == [0, 1]
    assert all(0 < r["error_m"] < 1 and 0.1 < r["visible_share"] < 0.7 for r in records)
    assert "fits of one frame each, seeds 0 to 1" in (out / "report.md").read_text()
    # a run that was cut short in the middle of its second line makes that line again, the same
    text = (out / "cases.jsonl").read_text()
    (out / "cases.jsonl").write_text(text[: text.rindex("{") + 40])
    said = _run("coldstart.py", "--fits", "2", "--first-seed", "0", "--out", str(out), "--no-picture")
    assert "seed    0" not in said and "seed    1" in said
    again = _lines(out)[1:]
    timing = {"wall_s", "cpu_s"}
    for before, after in zip(records, again, strict=True):
        assert {k: v for k, v in before.items() if k not in timing} == {
            k: v for k, v in after.items() if k not in timing
        }


@pytest.mark.slow
def test_two_four_frame_fits(tmp_path: Path) -> None:
    out = tmp_path / "calibration"
    _run("calibration.py", "--calibrate", "--fits", "2", "--out", str(out))
    from bodyfit.body.measure_definitions import DEFINITIONS

    records = _lines(out)[1:]
    assert len(records) == 2
    for r in records:
        assert list(r["measurements"]) == list(DEFINITIONS)
        truth, value, sd, _ = r["measurements"]["stature"]
        assert 1.4 < truth < 2.1 and abs(value - truth) < 0.1 and 0 < sd < 0.05
    table = json.loads((out / "model_error.json").read_text())
    assert set(table) == {"tight", "clothed"} and any(table.values())
    for errors in table.values():
        assert set(errors) <= set(DEFINITIONS) and all(v > 0 for v in errors.values())


def test_records_of_other_settings_are_not_mixed_in(study: ModuleType, coldstart: ModuleType, tmp_path: Path) -> None:
    lines = tmp_path / "cases.jsonl"
    settings = study.settings()
    settings["config"]["headings"] += 1
    lines.write_text(json.dumps({"settings": settings}) + "\n")
    with pytest.raises(InputError, match="this version, model, configuration and options"):
        study.run_cases(coldstart.work, [0], lines, 1)
    with pytest.raises(InputError, match="jobs"):
        study.run_cases(coldstart.work, [0], tmp_path / "new.jsonl", 0)


def test_a_section_is_put_in_its_place(study: ModuleType) -> None:
    document = "# Results\n\n## A\n\nold\n\n## B\n\nother\n"
    once = study.with_section(document, "## A", "new\n")
    assert once == "# Results\n\n## A\n\nnew\n\n## B\n\nother\n"
    assert study.with_section(once, "## A", "new") == once
    assert study.with_section(once, "## C", "last").endswith("other\n\n## C\n\nlast\n")


def test_interval_of_a_share(study: ModuleType) -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, 15 of 148, 0 of 20, method 3
    for good, of, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert study.wilson(good, of) == pytest.approx((low, high), abs=1e-4)


def test_cases_are_balanced_and_repeatable(coldstart: ModuleType, calibration: ModuleType) -> None:
    cases = [coldstart.case_of(s) for s in range(312)]
    assert cases == [coldstart.case_of(s) for s in range(312)]
    assert np.unique([c.pose for c in cases], return_counts=True)[1].tolist() == [24] * 13
    octants = [coldstart.octant(vars(c)) for c in cases]
    assert np.bincount(octants, minlength=8).min() > 20
    for name, kinds in (("sensor", 3), ("sex", 2), ("clothing", 2), ("mask", 2)):
        counts = np.unique([getattr(c, name) for c in cases], return_counts=True)[1]
        assert len(counts) == kinds and counts.min() > 0.7 * 312 / kinds
    four = [calibration.case_of(calibration.FIRST_TRAINING_SEED + s) for s in range(100)]
    assert len({(c.sex, c.clothing) for c in four}) == 4


def test_visible_vertices_are_those_that_face_the_sensor(coldstart: ModuleType) -> None:
    model = load_body_model(None)
    case = next(c for c in map(coldstart.case_of, range(1000)) if c.pose == "a_pose" and c.heading_deg < 10)
    take = coldstart.film_case(model, case)
    visible = coldstart.visible_vertices(model, take)
    normals = np.empty_like(model.v_template)
    from bodyfit.kernels.body import vertex_normals

    vertex_normals(model.v_template, model.faces, normals)
    assert model.part_labels is not None
    trunk = np.isin(model.part_labels, [model.part_names.index(p) for p in ("chest", "abdomen", "pelvis")])
    assert visible[trunk & (normals[:, 2] > 0.8)].mean() > 0.95
    assert not visible[trunk & (normals[:, 2] < -0.5)].any()


def test_areas_add_up(coldstart: ModuleType) -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    areas = coldstart.vertex_areas(corners, np.array([[0, 1, 2], [0, 2, 3]], np.int32))
    assert areas == pytest.approx([1 / 3, 1 / 6, 1 / 3, 1 / 6])


def test_turned_person_is_named(coldstart: ModuleType) -> None:
    from bodyfit.rotation import axis_angle_from_matrix
    from bodyfit.synthetic.poses import heading_rotation

    a, b = (axis_angle_from_matrix(heading_rotation(np.radians(d))) for d in (10, 170))
    assert coldstart.heading_error_deg(a, b) == pytest.approx(160)


def test_failures_are_counted_and_named(coldstart: ModuleType) -> None:
    good = {
        **vars(coldstart.case_of(0)), "error_m": 0.008, "area_error_m": 0.007, "flags": [], "believed": True,
        "refused": None, "part_error_m": {"head": 0.01}, "limb_error_m": {"left arm": 0.02}, "heading_error_deg": 3.0,
        "mask_iou": 0.97, "wall_s": 2.0, "cpu_s": 1.0,
    }  # fmt: skip
    arm = {**good, "seed": 1, "error_m": 0.05, "limb_error_m": {"left arm": 0.3}, "part_error_m": {"left_hand": 0.3}}
    hidden = {
        **good,
        "seed": 2,
        "limb_error_m": {"left arm": 0.3},
        "flags": ["left forearm hidden: its pose is a guess"],
    }
    refused = {**good, "seed": 3, "error_m": None, "refused": "no person", "believed": False, "limb_error_m": {}}
    assert [coldstart.converged(r) for r in (good, arm, hidden, refused)] == [True, False, True, False]
    assert [coldstart.flagged(r) for r in (good, arm, hidden, refused)] == [False, False, True, True]
    assert coldstart.kind_of(arm) == "left arm wrong; off: left hand 30 cm"
    assert coldstart.cause_of(arm) == "an arm or hand elsewhere, seen"
    assert coldstart.cause_of(hidden) == "an arm elsewhere, mostly hidden and flagged so"
    assert coldstart.cause_of(good).startswith("limbs right; hands")
    text = coldstart.report([good, arm, hidden, refused])
    assert "50.0 % (15.0 to 85.0), 2 of 4" in text and "refused: no person" in text
    assert "1 of 2" in text  # of two failures the refusal says so, the arm does not


def test_model_error_makes_intervals_hold(calibration: ModuleType) -> None:
    rng = np.random.default_rng(0)
    n, sd = 4000, 0.003
    errors = calibration.Errors(rng.normal(0, np.hypot(sd, 0.004), n), np.full(n, sd))
    needed = errors.needed_model_error()
    assert needed == pytest.approx(0.004, rel=0.1)
    assert errors.coverage(needed) == pytest.approx(0.9, abs=0.005)
    assert errors.coverage(0.0) < 0.8 and errors.needed_factor() == pytest.approx(5 / 3, rel=0.05)
    # where the fit's own standard deviation is too wide already, nothing is added and the factor says so
    wide = calibration.Errors(rng.normal(0, 0.001, n), np.full(n, sd))
    assert wide.needed_model_error() == 0.0 and wide.needed_factor() == pytest.approx(1 / 3, rel=0.05)


def test_only_what_is_claimed_is_counted(calibration: ModuleType) -> None:
    def record(seed: int, error: float, worn: str = "tight", believed: bool = True, seen: bool = True) -> dict:
        return {
            **vars(calibration.case_of(seed)), "refused": None, "believed": believed, "worn": worn, "cpu_s": 1.0,
            "measurements": {"stature": [1.7, 1.7 + error, 0.001, seen]},
        }  # fmt: skip

    unclaimed = [record(1, 0.5, believed=False), record(2, 0.5, seen=False)]
    records = [record(0, 0.01), *unclaimed, *(record(s, 0.03, "casual") for s in range(3, 6))]
    errors, claims = calibration.errors_of(records, "stature")
    assert errors.error == pytest.approx([0.01, 0.03, 0.03, 0.03])
    assert [calibration.clothes_of(r) for r in claims] == ["tight"] + ["clothed"] * 3
    table = calibration.calibrated(records)
    assert table["tight"]["stature"] == pytest.approx(0.006, abs=1e-6)
    assert table["clothed"]["stature"] == pytest.approx(0.0183, abs=1e-6)
    # with nothing added no interval holds; with the calibrated errors all do, which is too many
    assert "**0 of 1**; outside: stature" in calibration.report(records, lambda _r: {"tight": {}, "clothed": {}})
    assert "| 100 ✗ |" in calibration.report(records, lambda _r: table)
    # crosswise, a body is held to what the others chose: the odd one out is not covered
    crosswise = calibration.crosswise([record(s, 0.03 if s == 14 else 0.01) for s in range(10, 20)])
    assert crosswise(record(14, 0.03))["tight"]["stature"] < 0.007 < crosswise(record(10, 0.01))["tight"]["stature"]


def test_a_rig_that_is_refused_is_counted_and_in_no_figure(rigs: ModuleType) -> None:
    def refuse() -> None:
        raise InputError("refine_extrinsics", "two or more sensors", "one")

    errors = {"joints_m": 0.005, "vertices_m": 0.006, "rest_m": 0.007, "stature_m": 0.008, "believed": True}
    place = {"said": (0.02, 1.0, 0.03), "found": (0.002, 0.1, 0.003), "sd": (0.002, 0.1), "delay_s": 0.01,
             "delay_sd_s": 0.001}  # fmt: skip
    sought = {"places": [place], "unseen": 0, "body": errors}
    good = {
        **vars(rigs.case_of(400)), "compared": {"together": errors, "alone": [errors, rigs.or_refusal(refuse)]},
        "sought": sought, "clocks": {"delays_s": [0.01], **sought}, "cpu_s": (1.0, 1.0),
    }  # fmt: skip
    refused = {
        **vars(rigs.case_of(401)), "compared": rigs.or_refusal(refuse), "sought": {**sought, "unseen": 3},
        "clocks": rigs.or_refusal(refuse), "cpu_s": (1.0, 1.0),
    }  # fmt: skip
    said = rigs.report([good, refused])
    assert "1 fits of one sensor were refused" in said and said.count("| 400, azure |") == 1
    for what in ("compared", "clocks"):
        assert f"- seed 401, {what}: refused, refine_extrinsics: expected two or more sensors, found one" in said
    assert "- seed 401, sought: images in which the person was not found: 3" in said and "seed 400" not in said
    assert rigs.compared_text([good]) == rigs.compared_text([good, refused])
    none = {**refused, "sought": rigs.or_refusal(refuse)}
    assert "none was compared" in rigs.report([none]) and "No places were found" in rigs.report([none])
