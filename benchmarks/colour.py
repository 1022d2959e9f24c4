"""What colour adds to depth: twists of forearms and thighs, joints and vertices, with and without the photometric term.

    python benchmarks/colour.py [--films reach:3,reach:24:casual,…] [--lag-s 0.033] [--tries] [--recording DIR]

Films of textured people are made (`bodyfit.synthetic.motion`) and followed by depth alone, and by depth and colour
(`TrackConfig.color`). Then the poses that depth found are refined: by depth alone, by depth and colour, by depth and
the true albedo (`true`: what colour could say if nothing had to be learnt; films only), and (`--tries`) by each with
forearms also tried turned about themselves. A recording of single poses (`turn4_*`) is not followed: its frames are
fitted together (`bodyfit.fit.fit`), and each is refined with colours that were learnt from the other frames.

Twist: the rotation of a segment's vertices from truth to fit, about the segment's axis. `spread`: the twist's deviation
from its mean over the film: where a texture sits on a limb and how the limb is turned cannot be told apart by colour,
so that colour holds changes and depth the mean.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.bench.evaluate import joint_error, load_truth
from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.fit.appearance import Appearance
from bodyfit.fit.color_refine import ColorRefinement, learn_appearance, refine_pose
from bodyfit.fit.follow import Pose
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.photometric import ColorConfig
from bodyfit.fit.pose_prior import log_rotation
from bodyfit.fit.track import Tracker
from bodyfit.fit.track_config import ColorTracking, TrackConfig
from bodyfit.fit.view import View
from bodyfit.frame import Frame
from bodyfit.rotation import matrix_from_axis_angle
from bodyfit.synthetic.texture import Texture

SEGMENTS = {
    "left_forearm": ("left_elbow", "left_wrist"),
    "right_forearm": ("right_elbow", "right_wrist"),
    "left_thigh": ("left_hip", "left_knee"),
    "right_thigh": ("right_hip", "right_knee"),
}
FILMS = "reach:3,arms:4,walk:5,turn:6,squat:7,reach:24:casual,reach:43:casual"
TRIES_DEG = (-50.0, -25.0, 25.0, 50.0)
LEARNING_FRAMES = 12
"""frames at a film's start that are not counted: there is nothing learnt yet that a track could use"""
HEAD = (
    "| film | | forearm twist, ° | spread | thigh twist, ° | spread | joints, mm | vertices, mm | CPU ms | 95 % |\n"
    "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"
)


@dataclass
class Evidence:
    """What poses are refined with: frames and the solver's views of each instant, the poses that depth found, the body
    of the shape found.

    Attributes:
        alone: the instants do not follow each other: each is refined with colours learnt from the others.
        track_ms: CPU milliseconds of each frame that was followed.
    """

    frames: Sequence[Sequence[Frame]]
    poses: list[Pose]
    views: list[list[View]]
    mesh: Mesh
    betas: NDArray[np.float64]
    sigma_behind_m: float
    alone: bool = False
    track_ms: tuple[float, ...] = ()


def followed(
    model: BodyModel, instants: Sequence[Sequence[Frame]], clothing: str, gravity: NDArray[np.float64],
    color: ColorTracking | None = None,
) -> Evidence:  # fmt: skip
    """A film as the tracker follows it, by depth alone or with colours."""
    tracker = Tracker(model, clothing=clothing, gravity_world=gravity, config=TrackConfig(color=color))
    poses, views, spent = [], [], []
    for frames in instants:
        began = time.process_time()
        estimate = tracker.update(frames)
        spent.append((time.process_time() - began) * 1e3)
        poses.append(Pose(matrix_from_axis_angle(estimate.pose), estimate.transl))
        views.append(list(tracker.views))
    assert tracker.shape is not None
    if tracker.colors is not None:
        c, n = tracker.colors, len(poses)
        print(f"  (colours moved {c.frames} of {n} frames, {c.refused} refused; limbs forgotten {c.forgotten} times)")
    return Evidence(
        instants, poses, views, tracker.shape.mesh(tracker.config.stage.level), tracker.shape.betas()[0],
        tracker.shape.clothing.sigma_behind_m, track_ms=tuple(spent[1:]),
    )  # fmt: skip


def fitted(model: BodyModel, path: Path, instants: Sequence[Sequence[Frame]], clothing: str) -> Evidence:
    """Single poses of one person, fitted together by depth."""
    from bodyfit.fit.config import CLOTHING, FitConfig
    from bodyfit.fit.fit import fit
    from bodyfit.fit.joint import FitSetup, held_body, prior_shape
    from bodyfit.fit.mesh import GARMENTS
    from bodyfit.fit.view import make_view

    result = fit(path, model=model, clothing=clothing)
    setup = FitSetup(model, result.sex, clothing, FitConfig())
    worn = [result.garments_m.get(g, 0.0) for g in GARMENTS]
    shape = np.concatenate([result.betas - prior_shape(setup).mean, worn])
    poses = [Pose(matrix_from_axis_angle(p), t) for p, t in zip(result.poses, result.transl, strict=True)]
    stage = TrackConfig().stage
    return Evidence(
        instants, poses, [[make_view(o, stage.pixels) for o in instant] for instant in result.observations],
        held_body(setup, stage.level, shape), result.betas, CLOTHING[result.clothing].sigma_behind_m, alone=True,
    )  # fmt: skip


def _rotation(a: NDArray, b: NDArray) -> NDArray:
    """The rotation (3, 3) that best turns points a (N, 3) into b (Kabsch 1976)."""
    U, _, Vt = np.linalg.svd((a - a.mean(0)).T @ (b - b.mean(0)))
    return (Vt.T * [1, 1, np.sign(np.linalg.det(U @ Vt))]) @ U.T


def twist_deg(model: BodyModel, part: str, vertices: NDArray, joints: NDArray, truth: NDArray) -> float:
    """By how many degrees a segment of a fit is turned about its axis against the truth's vertices (V, 3)."""
    assert model.part_labels is not None
    i = np.flatnonzero(model.part_labels == model.part_names.index(part))
    R = _rotation(truth[i], vertices[i])
    a, b = (joints[model.joint_names.index(n)] for n in SEGMENTS[part])
    axis = (b - a) / np.linalg.norm(b - a)
    w = np.sqrt(max(1e-9, (1 + np.trace(R)) / 4))
    q = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / (4 * w)
    return float(np.degrees(2 * np.arctan2(q @ axis, w)))


JointErrors = Callable[[int, NDArray[np.float64]], float | None]
"""Mean joint error in metres of an instant's joints (J, 3); None where truth has none of their names."""


def errors(
    model: BodyModel, betas: NDArray, poses: Sequence[Pose], chosen: Sequence[int], truth: Sequence[NDArray],
    joint_errors: JointErrors,
) -> dict[str, float]:  # fmt: skip
    """Means over the chosen instants: twists and their spreads in degrees, joints and vertices in millimetres."""
    twist: dict[str, list[float]] = {p: [] for p in SEGMENTS}
    far, apart = [], []
    for t, pose in zip(chosen, poses, strict=True):
        v, j = model.forward(betas, log_rotation(pose.rotations)[0], pose.transl)
        for p in SEGMENTS:
            twist[p].append(twist_deg(model, p, v, j, truth[t]))
        far.append(np.linalg.norm(v - truth[t], axis=1).mean() * 1e3)
        error = joint_errors(t, j)
        apart += [] if error is None else [error * 1e3]
    out = {"vertices": float(np.mean(far)), "joints": float(np.mean(apart)) if apart else float("nan")}
    for kind in ("forearm", "thigh"):
        a = np.array([twist[p] for p in SEGMENTS if p.endswith(kind)])
        out[kind], out[kind + " spread"] = float(np.abs(a).mean()), float(a.std(axis=1).mean())
    return out


@dataclass
class Film:
    """Something to measure on: evidence by depth, the same followed with colours, truth's vertices and joints."""

    name: str
    depth: Evidence
    color: Evidence | None
    truth: Sequence[NDArray]
    joint_errors: JointErrors
    texture: Texture | None = None


def true_albedo(texture: Texture, model: BodyModel, appearance: Appearance, reach_m: float) -> NDArray[np.float32]:
    """(N, 3) display values at the appearance's points, smoothed over the surface as the image is (metres)."""
    from scipy.spatial import KDTree

    from bodyfit.kernels.photometric import GAMMA

    side = texture.side
    weights = np.array(
        [((i + 0.4) / side, (j + 0.4) / side, 1 - (i + j + 0.8) / side) for i in range(side) for j in range(side - i)]
    )
    cells = np.einsum("sk,fkc->fsc", weights, model.v_template[model.faces]).reshape(-1, 3)
    shown = texture.albedo.reshape(-1, 3) ** (1 / GAMMA)
    at = appearance.points.of(model.v_template[appearance.mesh.vertex_ids])
    far, which = KDTree(cells).query(at, k=64)
    w = np.exp(-0.5 * ((far - far[:, :1]) / reach_m) ** 2)
    return (np.einsum("nk,nkc->nc", w, shown[which]) / w.sum(1)[:, None]).astype(np.float32)


def with_true_albedo(model: BodyModel, film: Film, config: ColorConfig) -> Appearance:
    """The albedo that the film was made with, and the light that agrees with it best where depth found the body."""
    assert film.texture is not None
    appearance = learn_appearance(model, film.depth.mesh, film.depth.frames, film.depth.poses, config)
    albedo = true_albedo(film.texture, model, appearance, config.blur_m)
    for instant, pose in zip(film.depth.frames, film.depth.poses, strict=True):
        for frame in instant:
            appearance.albedo[:], appearance.weight[:], appearance.variance[:] = albedo, 50.0, 1e-4
            sight = appearance.look(frame, pose.rotations, pose.transl)
            if sight is not None:
                appearance.update(sight)
    appearance.albedo[:], appearance.weight[:], appearance.variance[:] = albedo, 50.0, 1e-4
    return appearance


def refined(
    model: BodyModel, e: Evidence, chosen: Sequence[int], refinement: ColorRefinement,
    appearance_for: Callable[[int], Appearance | None],
) -> tuple[list[Pose], NDArray[np.float64]]:  # fmt: skip
    """Poses of the chosen instants, and the CPU milliseconds of each."""
    poses, spent = [], []
    for t in chosen:
        appearance = appearance_for(t)
        began = time.process_time()
        poses.append(
            refine_pose(
                model, appearance, e.frames[t], e.views[t], e.poses[t], e.mesh, e.sigma_behind_m, refinement
            ).pose
        )  # fmt: skip
        spent.append((time.process_time() - began) * 1e3)
    return poses, np.array(spent)


def ablate(
    model: BodyModel, film: Film, config: ColorConfig, every: int, with_tries: bool
) -> list[tuple[str, str, dict[str, float]]]:
    """The rows of one film: every way, measured at every `every`-th frame."""
    e = film.depth
    first, step = (0, 1) if e.alone else (min(LEARNING_FRAMES, len(e.frames) // 2), every)
    chosen = range(first, len(e.frames), step)
    rows: list[tuple[str, str, dict[str, float]]] = []

    def tell(way: str, betas: NDArray, poses: Sequence[Pose], ms: Sequence[float] | NDArray) -> None:
        found = errors(model, betas, poses, chosen, film.truth, film.joint_errors)
        found["ms"] = float(np.median(ms)) if len(ms) else float("nan")
        found["p95"] = float(np.percentile(ms, 95)) if len(ms) else float("nan")
        rows.append((film.name, way, found))
        print(row(*rows[-1]), flush=True)

    tell("fitted by depth" if e.alone else "followed by depth", e.betas, [e.poses[t] for t in chosen], e.track_ms)
    if film.color is not None:
        tell("followed with colour", film.color.betas, [film.color.poses[t] for t in chosen], film.color.track_ms)
    plain = ColorRefinement(color=config)
    if e.alone:
        few = replace(config, learnt=0.2)  # a point is seen in one or two of the other frames
        plain = ColorRefinement(color=few)
        others = []
        for t in chosen:
            rest = [k for k in chosen if k != t]
            seen, poses = [e.frames[k] for k in rest], [e.poses[k] for k in rest]
            others.append(learn_appearance(model, e.mesh, seen, poses, few))
        every_frame = learn_appearance(model, e.mesh, e.frames, e.poses, few)
        ways: list[tuple[str, Callable[[int], Appearance | None]]] = [
            ("depth", lambda t: None),
            ("colour of the others", lambda t: others[t]),
            ("colour of all", lambda t: every_frame),
        ]
    else:
        learnt = learn_appearance(model, e.mesh, e.frames, e.poses, config)
        ways = [("depth", lambda t: None), ("colour", lambda t: learnt)]
        if film.texture is not None:
            known = with_true_albedo(model, film, config)
            ways.append(("colour, true albedo", lambda t: known))
    for way, appearance_for in ways:
        tell(way, e.betas, *refined(model, e, chosen, plain, appearance_for))
        if with_tries and not e.alone:
            tell(
                way + ", tries", e.betas,
                *refined(model, e, chosen, replace(plain, tries_deg=TRIES_DEG), appearance_for),
            )  # fmt: skip
    return rows


def row(name: str, way: str, e: dict[str, float]) -> str:
    """One line of the table."""
    cells = [
        f"{e['forearm']:.1f}", f"{e['forearm spread']:.1f}", f"{e['thigh']:.1f}", f"{e['thigh spread']:.1f}",
        f"{e['joints']:.1f}", f"{e['vertices']:.1f}", f"{e['ms']:.0f}", f"{e['p95']:.0f}",
    ]  # fmt: skip
    return f"| {name} | {way} | " + " | ".join("" if c == "nan" else c for c in cells) + " |"


def make_film(model: BodyModel, spec: str, seconds: float, lag_s: float, config: ColorConfig) -> Film:
    """A film of a textured person whose exposure wanders; spec: motion:seed, then clothing, then sensor."""
    from bodyfit.synthetic.motion import plan_film

    motion, seed, clothing, sensor = (spec.split(":") + ["tight", "azure"][max(0, spec.count(":") - 1) :])[:4]
    plan = plan_film(
        model, int(seed), motion=motion, seconds=seconds, color=True, color_stride=1 if sensor == "azure" else 2,
        exposure_wanders=True, color_lag_s=lag_s, clothing=clothing, sensor=sensor,
    )  # fmt: skip
    frames, truth, joints = [], [], []
    for instant in plan:
        frames.append(list(instant.frames.values()))
        truth.append(instant.vertices_world.astype(np.float32))
        joints.append(instant.joints_world)
    assert plan.studio is not None
    name = f"{motion} {seed}"
    if clothing != "tight":
        name += f", {plan.clothing.sleeve} sleeves, {plan.studio.texture.pattern}"
    if sensor != "azure":
        name += f", {sensor}"
    return Film(
        name, followed(model, frames, clothing, plan.gravity_world),
        followed(model, frames, clothing, plan.gravity_world, tracking(config)), truth,
        lambda t, j: float(np.linalg.norm(j - joints[t], axis=1).mean()), plan.studio.texture,
    )  # fmt: skip


def tracking(config: ColorConfig) -> ColorTracking:
    """How a film is followed with colours of these settings."""
    usual = ColorTracking()
    return replace(usual, color=replace(config, most_frames=usual.color.most_frames))


def recording(model: BodyModel, path: Path, config: ColorConfig) -> Film:
    """A recording with truth, of the pipeline that the body file was made with."""
    from bodyfit.recording.native import open_recording

    assert model.anny_vertex_ids is not None
    source, truth = open_recording(path), load_truth(path)
    instants = [
        [f for f in (source.frame(i, s.name) for s in source.sensors) if f is not None]
        for i in range(source.num_frames)
    ]
    vertices = [v[model.anny_vertex_ids] for v in truth.vertices]
    gravity = np.array([0.0, 0.0, -1.0]) if source.gravity_world is None else source.gravity_world
    if np.median(np.diff(source.timestamps_s)) > 0.2:
        depth, color = fitted(model, path, instants, "auto"), None
    else:
        depth = followed(model, instants, "auto", gravity)
        color = followed(model, instants, "auto", gravity, tracking(config))
    return Film(path.name, depth, color, vertices, lambda t, j: joint_error(model, j, truth, t))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", default=FILMS, help="motion:seed[:clothing[:sensor]], …; empty for none")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--every", type=int, default=3, help="measure every so-manieth frame")
    parser.add_argument("--tries", action="store_true", help="also with forearms turned about themselves as starts")
    parser.add_argument("--lag-s", type=float, default=0.0, help="colour is so much later than depth")
    parser.add_argument("--weight", type=float, default=ColorConfig().weight)
    parser.add_argument("--recording", type=Path, action="append", default=[], help="a recording with truth")
    args = parser.parse_args()
    model, config = load_body_model(), ColorConfig(weight=args.weight)
    print(HEAD)
    rows = []
    for path in args.recording:
        rows += ablate(model, recording(model, path, config), config, args.every, args.tries)
    for spec in filter(None, args.films.split(",")):
        rows += ablate(model, make_film(model, spec, args.seconds, args.lag_s, config), config, args.every, args.tries)
    for way in dict.fromkeys(r[1] for r in rows):
        some = [r[2] for r in rows if r[1] == way]
        mean = {k: float(np.nanmean([e[k] for e in some])) for k in some[0] if k not in ("ms", "p95")}
        mean["ms"] = float(np.median([e["ms"] for e in some]))
        mean["p95"] = float(np.median([e["p95"] for e in some]))
        print(row(f"mean of {len(some)}", way, mean))


if __name__ == "__main__":
    main()
