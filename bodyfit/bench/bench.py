"""How fast this machine is: start, kernels, one Levenberg-Marquardt iteration in its parts, fits, memory.

The data are the demo recording's: a body outside the model's span before a Kinect v2 in a room, at four headings.
Kernels are timed by calling them on the data of the last stage, not by clocks inside them.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.bench.timing import ProcessRun, Sample, difference, figure, run_python, sample_calls
from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.camera import Camera
from bodyfit.errors import InputError
from bodyfit.fit.config import CLOTHING, FitConfig
from bodyfit.fit.result import FitResult

Progress = Callable[[str, float], None]
Figures = dict[str, dict[str, Any]]
VGA = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)
CLOTHES = "tight"
NUDGE_RAD, NUDGE_M = np.radians(2.0), 0.01
"""how far a warm start is from the pose it looks for: a joint's motion between two frames"""

IMPORT_CODE = """
import time
wall, cpu = time.perf_counter(), time.process_time()
import {module}
report["wall"], report["cpu"] = time.perf_counter() - wall, time.process_time() - cpu
"""
COMMAND_CODE = """
import sys
from bodyfit.cli.main import app
code = app(sys.argv[1:])
# 4: the fit says that it is not to be believed, and has written its files
if code not in (0, 4):
    sys.exit(code)
report["exit_code"] = code
"""


@dataclass(frozen=True)
class Plan:
    """How often what is measured."""

    kernels: int = 40
    """repetitions of what takes milliseconds"""
    fits: int = 5
    """of whole fits"""
    processes: int = 5
    """of fresh processes"""
    first_runs: int = 1
    """of runs with an empty cache of compiled code: tens of seconds each"""
    frames: int = 4
    """frames of the fit of several; 1 leaves it out"""


QUICK = Plan(kernels=10, fits=1, processes=1, first_runs=0)


@dataclass(frozen=True)
class Instant:
    """One seen instant with its fit, as the last stage had it."""

    body: BodyModel
    result: FitResult
    config: FitConfig


def run(*, quick: bool = False, progress: Progress | None = None, plan: Plan | None = None) -> dict[str, Any]:
    """Measures everything; returns {"figures": {name: {median, cpu_median, unit, n, …}}, "order": […], "machine": {…}}.

    Each figure is a median over n repetitions: `median` wall time, `cpu_median` the CPU time of all threads; `limit`
    and `goal` say what the project asks for.
    """
    chosen = plan or (QUICK if quick else Plan())
    say = progress or (lambda _stage, _fraction: None)
    figures: Figures = {}
    loads = [_load_average()]
    with _recording() as recording:
        say("starting processes", 0.0)
        figures.update(start_figures(chosen))
        say("fitting", 0.1)
        instant, found = fit_figures(chosen, recording, say)
        figures.update(found)
        loads.append(_load_average())
        say("kernels", 0.6)
        figures.update(body_figures(chosen, instant))
        figures.update(iteration_figures(chosen, instant))
        say("bodyfit fit", 0.7)
        figures.update(command_figures(chosen, recording))
    loads.append(_load_average())
    say("done", 1.0)
    return {"figures": figures, "order": list(figures), "machine": machine(instant, loads)}


def start_figures(plan: Plan) -> Figures:
    """Imports in fresh interpreters, and reading the body file."""
    figures: Figures = {}
    for module in ("bodyfit", "bodyfit.cli.main"):
        code = IMPORT_CODE.format(module=module)
        runs = [run_python(code).report for _ in range(plan.processes)]
        figures[f"import {module}"] = figure([Sample(r["wall"], r["cpu"]) for r in runs], "ms")
    figures["load the body file"] = figure(sample_calls(load_body_model, plan.processes), "ms", limit=100.0)
    return figures


def fit_figures(plan: Plan, recording: Path, progress: Progress) -> tuple[Instant, Figures]:
    """Whole fits in this process, code compiled: one frame from nothing, its parts, several frames, a warm frame."""
    from bodyfit.fit.fit import fit, look
    from bodyfit.fit.initialize import Starter, seen_stature, shape_of_height
    from bodyfit.fit.joint import STATURE_SIGMA_M, FitSetup, prior_shape
    from bodyfit.fit.pose_prior import pose_prior
    from bodyfit.recording.formats import open_recording

    body, config, figures = load_body_model(), FitConfig(), {}
    source = open_recording(recording)
    results: list[FitResult] = []

    def cold() -> None:
        results[:] = [fit(source, model=body, clothing=CLOTHES, frames=[0], config=config)]

    figures["cold fit of one frame"] = figure(sample_calls(cold, plan.fits), "s", limit=2.0, goal=0.5)
    progress("fitting", 0.25)
    instants, _ = look(source, [0], None, None, lambda _stage, _fraction: None)
    observations = instants[0].observations
    figures["  find the person"] = figure(
        sample_calls(lambda: look(source, [0], None, None, lambda _stage, _fraction: None), plan.fits), "s"
    )
    setup = FitSetup(body, "neutral", CLOTHES, config)
    told = prior_shape(setup)
    stature = seen_stature(observations)
    if stature is not None:
        told = shape_of_height(body, told, stature, STATURE_SIGMA_M)
    clothing, prior = CLOTHING[CLOTHES], pose_prior(body.joint_names)
    starter = Starter(body, told, prior, clothing, config)
    start = starter.start(observations)
    figures["  find the pose from nothing"] = figure(sample_calls(lambda: starter.start(observations), plan.fits), "s")
    progress("fitting", 0.35)
    before = _nudged(start)
    figures["warm frame"] = figure(sample_calls(lambda: starter.follow(observations, before), 3 * plan.fits), "ms")
    if plan.frames > 1:
        several = list(range(min(plan.frames, source.num_frames)))
        figures[f"shape fit of {len(several)} frames"] = figure(
            sample_calls(
                lambda: fit(source, model=body, clothing=CLOTHES, frames=several, config=config), max(1, plan.fits // 2)
            ),
            "s",
            limit=6.0,
            goal=2.0,
        )
    return Instant(body, results[0], config), figures


def body_figures(plan: Plan, instant: Instant) -> Figures:
    """The body's forward pass, and drawing it whole at 640×480."""
    from bodyfit.kernels.raster import draw_faces
    from bodyfit.render.rasterize import rasterize

    body, result = instant.body, instant.result
    points = _before_camera(result.vertices_world(0), VGA)
    depth, face = np.empty((VGA.height, VGA.width), np.float32), np.empty((VGA.height, VGA.width), np.int32)
    f4 = np.float32
    camera = f4(VGA.fx), f4(VGA.fy), f4(VGA.cx), f4(VGA.cy)
    n = plan.kernels
    return {
        f"forward pass, {body.num_vertices} vertices": figure(
            sample_calls(lambda: body.forward(result.betas, result.poses[0], result.transl[0]), n), "ms", limit=2.0
        ),
        "rasterise 640×480, depth and faces": figure(
            sample_calls(lambda: draw_faces(points, body.faces, *camera, depth, face), n), "ms", limit=1.5
        ),
        "rasterise 640×480, barycentrics and checks too": figure(
            sample_calls(lambda: rasterize(points, body.faces, VGA), n), "ms"
        ),
    }


def iteration_figures(plan: Plan, instant: Instant) -> Figures:
    """One iteration of the last stage (full body, all terms, one view, one thread), whole and in its parts."""
    from bodyfit.fit.joint import FitSetup, garment_directions, joint_gaussian, prior_shape
    from bodyfit.fit.mesh import mesh_for
    from bodyfit.fit.pose_prior import pose_prior
    from bodyfit.fit.problem import Problem, Scratch, State
    from bodyfit.fit.solver import moved, step_of
    from bodyfit.fit.view import make_view
    from bodyfit.kernels import evidence as E
    from bodyfit.kernels.body import joint_motions, rest_shape, skin
    from bodyfit.kernels.nearest import nearest_marked
    from bodyfit.kernels.raster import draw_faces
    from bodyfit.rotation import matrix_from_axis_angle

    body, result, config = instant.body, instant.result, instant.config
    clothing, stage = CLOTHING[CLOTHES], config.refine[-1]
    shape = prior_shape(FitSetup(body, "neutral", CLOTHES, config))
    prior = pose_prior(body.joint_names)
    mesh = mesh_for(body, stage.level, stage.num_betas, shape.mean, garment_directions(body, result.betas))
    view = make_view(result.observations[0][0], stage.pixels)
    thickness = np.array(list(result.garments_m.values()))
    found = np.concatenate([result.betas - shape.mean, thickness])[None]
    state = State(matrix_from_axis_angle(result.poses[:1]), result.transl[:1], found, np.zeros(1, np.int64))
    problem = Problem(
        mesh, [view], np.zeros((1, 2), np.int64), stage, config, prior, prior.mean[None],
        joint_gaussian(shape, clothing, body.num_betas), clothing.sigma_behind_m,
    )  # fmt: skip
    equations = problem.linearize(state)
    damping = np.full(1, stage.damping)
    size = 3 * body.num_joints + 3 + mesh.num_shape
    scratch, H, g, stats = Scratch(mesh), np.empty((size, size)), np.empty(size), np.empty(E.NUM_STATS)

    def step() -> State:
        return moved(state, *step_of(equations, state, damping, damping), stage.max_turn_rad)

    def iteration() -> None:
        step()
        problem.linearize(state)

    def evidence(want_rows: bool) -> None:
        problem.view_equations(state, 0, view, scratch, H, g, stats, want_rows=want_rows)

    evidence(True)
    drawn, face, near = scratch.of(view)
    pixels = np.arange(face.size, dtype=np.int32).reshape(face.shape)
    marked = np.where(face >= 0, pixels, np.int32(-1))
    joints = mesh.joint_template + mesh.jointdirs @ found[0]
    G, posed = np.empty((body.num_joints, 3, 3)), np.empty((body.num_joints, 3))
    joint_motions(state.rotations[0], joints, mesh.parents, view.R_cw, view.t_cw, state.transl[0], G, posed)
    coefficients = found[0].astype(np.float32)
    points = np.empty_like(mesh.template)
    fx, fy, cx, cy = view.intrinsics

    def labels() -> None:
        near[:] = marked
        nearest_marked(near)

    n = plan.kernels
    parts: dict[str, Callable[[], Any]] = {
        "rest shape": lambda: rest_shape(mesh.template, mesh.shapedirs, coefficients, scratch.rest),
        "skin": lambda: skin(scratch.rest, mesh.weight_joints, mesh.weights, G, posed, joints, points),
        "raster": lambda: draw_faces(points, mesh.faces, fx, fy, cx, cy, drawn, face),
        "nearest labels": labels,
    }
    figures = {name: figure(sample_calls(part, n), "ms") for name, part in parts.items()}
    cost = figure(sample_calls(lambda: evidence(False), n), "ms")
    rows = figure(sample_calls(lambda: evidence(True), n), "ms")
    whole = figure(sample_calls(lambda: problem.linearize(state), n), "ms")
    figures["residuals"] = difference(cost, *figures.values())
    figures["rows and normal equations"] = difference(rows, cost)
    figures["priors and sums"] = difference(whole, rows)
    figures["solve and move"] = figure(sample_calls(step, n), "ms")
    title = f"one iteration, {len(mesh.faces)} faces, {int(stats[E.NUM_PERSON])} person pixels, {size} parameters"
    return {
        title: figure(sample_calls(iteration, n), "ms", limit=10.0),
        **{f"  {name}": record for name, record in figures.items()},
    }


def command_figures(plan: Plan, recording: Path) -> Figures:
    """`bodyfit fit` of one frame from process start to files, compiled code cached and not; and its memory."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="bodyfit_bench_") as scratch:

        def command(out: str, frames: str, cache: str | None = None) -> ProcessRun:
            arguments = [
                "fit",
                str(recording),
                "-o",
                str(Path(scratch, out)),
                "--frames",
                frames,
                "--clothing",
                CLOTHES,
            ]
            environment = None if cache is None else {"NUMBA_CACHE_DIR": str(Path(scratch, cache))}
            return run_python(COMMAND_CODE, arguments, environment)

        first = [command(f"first{i}", "0", f"cache{i}") for i in range(plan.first_runs)]
        if first:
            figures["bodyfit fit, one frame, first run (compiles)"] = figure([r.sample for r in first], "s")
        command("warm", "0")
        one = [command(f"one{i}", "0") for i in range(plan.processes)]
        figures["bodyfit fit, one frame, start to files"] = figure([r.sample for r in one], "s", limit=6.0, goal=3.0)
        peaks = {"one frame": [r.peak_bytes for r in one]}
        if plan.frames > 1:
            frames = ",".join(str(i) for i in range(plan.frames))
            peaks[f"{plan.frames} frames"] = [command("several", frames).peak_bytes]
        for name, peak in peaks.items():
            figures[f"peak memory, {name}"] = {
                "median": float(np.median(peak)) / 1e6, "unit": "MB", "n": len(peak), "limit": 1500.0,
            }  # fmt: skip
    return figures


def machine(instant: Instant, loads: list[float | None]) -> dict[str, Any]:
    """What the figures were measured with; names no machine."""
    names = ("bodyfit", "numpy", "scipy", "numba", "opencv-python-headless")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    blas = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        "processor": _processor(),
        "cores": cores,
        "threads of the fit": instant.config.threads,
        "BLAS threads": ", ".join(f"{k}={os.environ[k]}" for k in blas if k in os.environ) or "as the library chooses",
        "load average (1 min) at start, middle, end": ", ".join("–" if x is None else f"{x:.1f}" for x in loads),
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {metadata.version(name)}" for name in names),
        "body": f"{instant.body.name}, {instant.body.num_vertices} vertices, {instant.body.num_betas} betas",
    }


@contextmanager
def _recording() -> Iterator[Path]:
    """The demo recording: the shipped one, or the same one filmed anew."""
    from bodyfit.synthetic.demo import demo_recording_path, film_demo
    from bodyfit.synthetic.write import write_take

    try:
        yield demo_recording_path()
        return
    except InputError:
        pass
    with tempfile.TemporaryDirectory(prefix="bodyfit_bench_") as scratch:
        yield write_take(Path(scratch, "demo"), film_demo(load_body_model()))


def _nudged(start: Any) -> Any:
    """The start that an instant before would have left: every joint turned a little, the body moved."""
    from dataclasses import replace

    from bodyfit.rotation import matrix_from_axis_angle

    rng = np.random.default_rng(1)
    turns = matrix_from_axis_angle(rng.normal(0, NUDGE_RAD, (len(start.rotations), 3)))
    return replace(start, rotations=start.rotations @ turns, transl=start.transl + rng.normal(0, NUDGE_M, 3))


def _before_camera(vertices_world: NDArray[np.float64], camera: Camera) -> NDArray[np.float32]:
    """Camera coordinates of a body that fills nine tenths of the image's height; world z is up."""
    x, y, z = (vertices_world - 0.5 * (vertices_world.min(0) + vertices_world.max(0))).T
    distance = float(np.ptp(z)) * camera.fy / (0.9 * camera.height)
    return np.stack([x, -z, y + distance], 1).astype(np.float32)


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
