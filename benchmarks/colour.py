"""What colour adds to depth: twists of forearms and thighs, joints and vertices, with and without the photometric term.

    python benchmarks/colour.py [--films reach:3,arms:4,…] [--lag-s 0.033] [--tries] [--recording DIR]

Films of textured people are made (`bodyfit.synthetic.motion`) and followed by depth alone. Then the same poses are
refined: by depth alone, by depth and colour, and (`--tries`) by each with forearms also tried turned about themselves.
Twist: the rotation of a segment's vertices from truth to fit, about the segment's axis. `spread`: the twist's deviation
from its mean over the film: where a texture sits on a limb and how the limb is turned cannot be told apart by colour,
so that colour holds changes and depth the mean.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.fit.color_refine import ColorRefinement, learn_appearance, refine_pose
from bodyfit.fit.follow import Pose
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.photometric import ColorConfig
from bodyfit.fit.pose_prior import log_rotation
from bodyfit.fit.track import Tracker
from bodyfit.fit.view import View
from bodyfit.frame import Frame

SEGMENTS = {
    "left_forearm": ("left_elbow", "left_wrist"),
    "right_forearm": ("right_elbow", "right_wrist"),
    "left_thigh": ("left_hip", "left_knee"),
    "right_thigh": ("right_hip", "right_knee"),
}
FILMS = "reach:3,arms:4,walk:5,turn:6,squat:7"
TRIES_DEG = (-50.0, -25.0, 25.0, 50.0)
HEAD = (
    "| film | | forearm twist, ° | spread | thigh twist, ° | spread | joints, mm | vertices, mm | CPU ms |\n"
    "|---|---|--:|--:|--:|--:|--:|--:|--:|"
)


class Followed:
    """Frames, the tracker's views and poses by depth alone, and the shape it ended with."""

    def __init__(self, model: BodyModel, instants: Sequence[Sequence[Frame]], clothing: str, gravity: NDArray) -> None:
        tracker = Recorder(model, clothing=clothing, gravity_world=gravity)
        self.frames = instants
        self.poses: list[Pose] = []
        self.views: list[list[View]] = []
        for frames in instants:
            tracker.update(frames)
            assert tracker._pose is not None
            self.poses.append(Pose(tracker._pose.rotations.copy(), tracker._pose.transl.copy()))
            self.views.append(tracker.views)
        assert tracker.shape is not None
        self.mesh: Mesh = tracker.shape.mesh(tracker.config.stage.level)
        self.betas = tracker.shape.betas()[0]
        self.sigma_behind_m = tracker.shape.clothing.sigma_behind_m


class Recorder(Tracker):
    """A tracker that keeps the views of its last step."""

    views: list[View]

    def _descend(self, seen, expected, widen, evaluations):
        self.views = [s.view for s in seen]
        return super()._descend(seen, expected, widen, evaluations)


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


def errors(
    model: BodyModel, betas: NDArray, poses: Sequence[Pose], truth: Sequence[NDArray], joints: Sequence[NDArray] | None
) -> dict[str, float]:
    """Means over the frames: twists and their spreads in degrees, joints and vertices in millimetres."""
    twist: dict[str, list[float]] = {p: [] for p in SEGMENTS}
    far, apart = [], []
    for t, (pose, true) in enumerate(zip(poses, truth, strict=True)):
        v, j = model.forward(betas, log_rotation(pose.rotations)[0], pose.transl)
        for p in SEGMENTS:
            twist[p].append(twist_deg(model, p, v, j, true))
        far.append(np.linalg.norm(v - true, axis=1).mean() * 1e3)
        if joints is not None:
            apart.append(np.linalg.norm(j - joints[t], axis=1).mean() * 1e3)
    out = {"vertices": float(np.mean(far)), "joints": float(np.mean(apart)) if apart else float("nan")}
    for kind in ("forearm", "thigh"):
        a = np.array([twist[p] for p in SEGMENTS if p.endswith(kind)])
        out[kind], out[kind + " spread"] = float(np.abs(a).mean()), float(a.std(axis=1).mean())
    return out


def ablate(
    model: BodyModel, name: str, followed: Followed, truth: Sequence[NDArray], joints: Sequence[NDArray] | None,
    config: ColorConfig, every: int, with_tries: bool,
) -> list[tuple[str, str, dict[str, float]]]:  # fmt: skip
    """The rows of one film: every way of refining, measured at every `every`-th frame."""
    chosen = range(0, len(followed.frames), every)
    plain = ColorRefinement(color=config)
    tries = replace(plain, tries_deg=TRIES_DEG)
    appearance = learn_appearance(model, followed.mesh, followed.frames, followed.poses, config)
    rows = []
    ways = (
        ("followed by depth", None, None),
        ("depth", None, plain),
        ("depth, tries", None, tries),
        ("colour", appearance, plain),
        ("colour, tries", appearance, tries),
    )
    for way, seen, refinement in ways:
        if refinement is tries and not with_tries:
            continue
        started = time.process_time()
        poses = [followed.poses[t] for t in chosen]
        if refinement is not None:
            poses = [
                refine_pose(
                    model, seen, followed.frames[t], followed.views[t], followed.poses[t], followed.mesh,
                    followed.sigma_behind_m, refinement,
                ).pose
                for t in chosen
            ]  # fmt: skip
        spent = (time.process_time() - started) / len(poses) * 1e3 if refinement is not None else float("nan")
        found = errors(
            model, followed.betas, poses, [truth[t] for t in chosen],
            None if joints is None else [joints[t] for t in chosen],
        )  # fmt: skip
        found["ms"] = spent
        rows.append((name, way, found))
        print(row(*rows[-1]), flush=True)
    return rows


def row(name: str, way: str, e: dict[str, float]) -> str:
    """One line of the table."""
    cells = [
        f"{e['forearm']:.1f}", f"{e['forearm spread']:.1f}", f"{e['thigh']:.1f}", f"{e['thigh spread']:.1f}",
        f"{e['joints']:.1f}", f"{e['vertices']:.1f}", f"{e['ms']:.0f}",
    ]  # fmt: skip
    return f"| {name} | {way} | " + " | ".join("" if c == "nan" else c for c in cells) + " |"


def film(
    model: BodyModel, motion: str, seed: int, seconds: float, lag_s: float
) -> tuple[Followed, list[NDArray], list[NDArray]]:
    """A film of a textured person whose exposure wanders, followed by depth; the truth's vertices and joints."""
    from bodyfit.synthetic.motion import plan_film

    plan = plan_film(
        model, seed, motion=motion, seconds=seconds, color=True, color_stride=1, exposure_wanders=True,
        color_lag_s=lag_s,
    )  # fmt: skip
    frames, truth, joints = [], [], []
    for instant in plan:
        frames.append(list(instant.frames.values()))
        truth.append(instant.vertices_world.astype(np.float32))
        joints.append(instant.joints_world)
    return Followed(model, frames, "tight", plan.gravity_world), truth, joints


def recording(model: BodyModel, path: Path) -> tuple[Followed, list[NDArray]]:
    """A recording whose truth is meshes of the pipeline that the body file was made with."""
    from bodyfit.recording.native import open_recording

    source = open_recording(path)
    instants = [
        [f for f in (source.frame(i, s.name) for s in source.sensors) if f is not None]
        for i in range(source.num_frames)
    ]
    v = np.load(path / "truth" / "vertices_world.npy")
    if v.dtype == np.int16:
        v = v * 1e-4 + np.load(path / "truth" / "vertices_world_offset.npy")
    with np.load(Path(__file__).parents[1] / "models" / "anny_adult.npz") as file:
        v = v[:, file["anny_vertex_ids"]]
    gravity = np.array([0.0, 0.0, -1.0]) if source.gravity_world is None else source.gravity_world
    return Followed(model, instants, "auto", gravity), list(v)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", default=FILMS, help="motion:seed, …; empty for none")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--every", type=int, default=3, help="measure every so-manieth frame")
    parser.add_argument("--tries", action="store_true", help="also with forearms turned about themselves as starts")
    parser.add_argument("--lag-s", type=float, default=0.0, help="colour is so much later than depth")
    parser.add_argument("--weight", type=float, default=ColorConfig().weight)
    parser.add_argument("--recording", type=Path, help="a recording with truth of vertices")
    args = parser.parse_args()
    model, config = load_body_model(), ColorConfig(weight=args.weight)
    print(HEAD)
    rows = []
    if args.recording is not None:
        followed, truth = recording(model, args.recording)
        rows += ablate(model, args.recording.name, followed, truth, None, config, args.every, args.tries)
    for item in filter(None, args.films.split(",")):
        motion, seed = item.split(":")
        followed, truth, joints = film(model, motion, int(seed), args.seconds, args.lag_s)
        rows += ablate(model, f"{motion} {seed}", followed, truth, joints, config, args.every, args.tries)
    for way in dict.fromkeys(r[1] for r in rows):
        some = [r[2] for r in rows if r[1] == way]
        mean = {k: float(np.nanmean([e[k] for e in some])) if way else 0.0 for k in some[0] if k != "ms"}
        mean["ms"] = float(np.median([e["ms"] for e in some]))
        print(row("mean", way, mean))


if __name__ == "__main__":
    main()
