"""Fits against truth: recordings whose `truth/` says what the body was, which the fit itself never opens.

All scores in millimetres:
  surface    median distance from the true surface to the fit over what some sensor saw; mean over frames
  rest       mean vertex error of the unposed body, the pose (not the shape) solved away (`pose_solve`)
  girth      mean |error| of seven girths by `girth_rules`; stature likewise
  joints     mean distance of the joints to the truth's
Rest, girth and stature compare vertex with vertex: the truth must be a mesh of Anny's whose places the model's vertices
know, or the model's own (as `bodyfit.synthetic` writes it; its girths are those of `bodyfit.body.measure`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.bench.girth_rules import GIRTHS, GirthRules
from bodyfit.bench.pose_solve import posed_onto
from bodyfit.errors import RecordingError

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.result import FitResult
    from bodyfit.recording.description import Sensor
    from bodyfit.recording.recording import Recording

SURFACE_SAMPLES = 20_000
ANNY_BONES = {
    "pelvis": "root", "hip": "upperleg01", "spine1": "spine04", "knee": "lowerleg01", "spine2": "spine02",
    "ankle": "foot", "spine3": "spine01", "foot": "toe2-1", "neck": "neck01", "collar": "clavicle", "head": "head",
    "shoulder": "upperarm01", "elbow": "lowerarm01", "wrist": "wrist", "hand": "finger3-1",
}  # fmt: skip
"""The bone of Anny's skeleton whose head is SMPL's joint; sides are added."""


@dataclass(frozen=True)
class Score:
    """One recording's scores, millimetres; None where the model or the rules cannot say.

    Attributes:
        cloth_mm: how far the clothes stand off the body on average, which the sensor cannot see through.
        guess_rest_mm, guess_girth_mm: what guessing the average adult of the true stature scores.
    """

    name: str
    seconds: float
    converged: bool
    stop_reason: str
    flags: tuple[str, ...]
    frames: int
    surface_mm: float
    worst_frame_mm: float
    joints_mm: float | None = None
    rest_mm: float | None = None
    girth_mm: float | None = None
    stature_mm: float | None = None
    girth_errors_mm: dict[str, float] = field(default_factory=dict)
    cloth_mm: float | None = None
    guess_rest_mm: float | None = None
    guess_girth_mm: float | None = None


@dataclass(frozen=True, eq=False)
class Truth:
    """What `truth/` holds: vertices (T, V, 3) world, faces (F, 3), rest (V, 3), joints (T, K, 3) with names.

    `faces` is None where the mesh is that of a body model; the subject names it then.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64] | None
    rest: NDArray[np.float64]
    joints: NDArray[np.float64]
    joint_names: tuple[str, ...]
    subject: dict[str, Any]
    guess: dict[str, Any]

    def is_mesh_of(self, model: BodyModel) -> bool:
        """Whether the truth was made with this very model and has its vertices."""
        return self.subject.get("model", {}).get("sha256") == model.sha256 and len(self.rest) == model.num_vertices


def load_truth(recording: Path) -> Truth:
    """Reads a test recording's truth.

    Raises:
        RecordingError: there is none, or a file of it is missing.
    """
    folder = recording / "truth"
    if not folder.is_dir():
        raise RecordingError(str(folder), "the truth of a test recording", "no such folder")
    try:
        vertices = np.load(folder / "vertices_world.npy")
        if vertices.dtype == np.int16:  # long clips: tenths of a millimetre about an offset per frame
            vertices = vertices * 1e-4 + np.load(folder / "vertices_world_offset.npy")
        guess = folder / "floor.json"
        return Truth(
            vertices=vertices.astype(np.float64),
            faces=np.load(faces).astype(np.int64) if (faces := folder / "faces.npy").is_file() else None,
            rest=np.load(folder / "rest_vertices.npy").astype(np.float64),
            joints=np.load(folder / "joints_world.npy").astype(np.float64),
            joint_names=tuple(json.loads((folder / "joint_names.json").read_text())),
            subject=json.loads((folder / "subject.json").read_text()),
            guess=json.loads(guess.read_text()).get("floor", {}) if guess.is_file() else {},
        )
    except FileNotFoundError as e:
        raise RecordingError(str(folder), "the truth of a test recording", f"no {Path(e.filename).name}") from None


def evaluate_recording(
    recording: str | Path, fit: Callable[[Path], FitResult], rules: GirthRules | None = None
) -> tuple[Score, FitResult]:
    """Fits one recording and scores the result; the truth is opened after the fit."""
    from bodyfit.recording.formats import open_recording

    path = Path(recording)
    began = time.perf_counter()
    result = fit(path)
    seconds = time.perf_counter() - began
    name = path.resolve().name
    return score_result(result, open_recording(path), load_truth(path), name, seconds, rules), result


def score_result(
    result: FitResult,
    recording: Recording,
    truth: Truth,
    name: str,
    seconds: float,
    rules: GirthRules | None = None,
) -> Score:
    """Scores a result against the truth of its recording."""
    model = result.model
    own = truth.is_mesh_of(model)
    faces = model.faces.astype(np.int64) if truth.faces is None and own else truth.faces
    if faces is None:
        expected = "faces.npy, or the body model that the subject names"
        raise RecordingError(f"{name}/truth", expected, f"neither (the fit used {model.name})")
    surface, joints = [], []
    # truth counts instants, files carry indices
    for t, instant in enumerate(np.searchsorted(recording.indices, result.frame_indices)):
        at = truth.vertices[instant]
        surface.append(surface_error(result.vertices_world(t), model.faces, at, faces, recording.sensors))
        error = joint_error(model, result.joints_world(t), truth, int(instant))
        joints += [] if error is None else [error]
    shape: dict[str, Any] = {}
    if own:
        shape = own_shape_errors(model, result.rest_vertices(), truth.rest)
    elif model.anny_vertex_ids is not None:
        shape = shape_errors(model, result.rest_vertices(), truth.rest, rules)
    clothing = truth.subject.get("clothing", {})
    return Score(
        name=name,
        seconds=seconds,
        converged=bool(result.converged),
        stop_reason=result.stop_reason.name.lower(),
        flags=tuple(dict.fromkeys(f for q in result.frames for f in q.flags)),
        frames=len(surface),
        surface_mm=float(np.mean(surface)) * 1e3,
        worst_frame_mm=float(np.max(surface)) * 1e3,
        joints_mm=float(np.mean(joints)) * 1e3 if joints else None,
        cloth_mm=clothing.get("offset_mm_mean_covered"),
        **_guess(truth),
        **shape,
    )


def surface_error(
    vertices: NDArray[Any],
    faces: NDArray[Any],
    true_vertices: NDArray[Any],
    true_faces: NDArray[Any],
    sensors: Sequence[Sensor],
) -> float:
    """Median distance, metres, from true surface points that a sensor sees to the fitted surface; NaN if none is."""
    points = _surface_samples(true_vertices, true_faces)
    seen = _seen_by_any(points, true_vertices, true_faces, sensors)
    if not seen.any():
        return float("nan")
    return float(np.median(_scene(vertices, faces).compute_distance(_tensor(points[seen], np.float32)).numpy()))


def joint_error(model: BodyModel, joints: NDArray[Any], truth: Truth, instant: int) -> float | None:
    """Mean distance, metres, of the joints that both skeletons have; None for a model with other joints."""
    if model.anny_vertex_ids is None and not truth.is_mesh_of(model):
        return None
    distances = []
    for name, place in zip(model.joint_names, joints, strict=True):
        if name in truth.joint_names and truth.is_mesh_of(model):
            distances.append(np.linalg.norm(place - truth.joints[instant, truth.joint_names.index(name)]))
            continue
        side, _, rest = name.partition("_")
        bone = f"{ANNY_BONES.get(rest)}.{side[0].upper()}" if side in ("left", "right") else ANNY_BONES.get(name)
        if bone in truth.joint_names:
            distances.append(np.linalg.norm(place - truth.joints[instant, truth.joint_names.index(bone)]))
    return float(np.mean(distances)) if distances else None


def shape_errors(
    model: BodyModel, rest: NDArray[Any], true_rest: NDArray[Any], rules: GirthRules | None
) -> dict[str, Any]:
    """`rest_mm`, and with rules `girth_mm`, `stature_mm` and the signed `girth_errors_mm` (fit minus truth)."""
    ids = np.asarray(model.anny_vertex_ids, dtype=np.int64)
    posed = posed_onto(model, rest, true_rest[ids])
    errors: dict[str, Any] = {"rest_mm": float(np.linalg.norm(posed - true_rest[ids], axis=1).mean() * 1e3)}
    if rules is not None:
        whole = true_rest.copy()  # eyes and tongue are not in the model and not in any girth
        whole[ids] = posed
        fitted, true = rules.measure(whole), rules.measure(true_rest)
        signed = {k: (fitted[k] - true[k]) * 1e3 for k in true}
        errors["girth_mm"] = float(np.mean([abs(signed[k]) for k in GIRTHS]))
        errors["stature_mm"] = abs(signed["stature"])
        errors["girth_errors_mm"] = {k: signed[k] for k in GIRTHS}
    return errors


def own_shape_errors(model: BodyModel, rest: NDArray[Any], true_rest: NDArray[Any]) -> dict[str, Any]:
    """The same between two bodies of one model, measured by its own definitions."""
    from bodyfit.body.measure import measure_vertices, stand

    posed = posed_onto(model, rest, true_rest)
    fitted, true = (measure_vertices(model, *stand(model, v)) for v in (rest, true_rest))
    signed = {k: (fitted[name] - true[name]) * 1e3 for k in GIRTHS if (name := f"{k}_girth") in true}
    return {
        "rest_mm": float(np.linalg.norm(posed - true_rest, axis=1).mean() * 1e3),
        "girth_mm": float(np.mean([abs(e) for e in signed.values()])) if signed else None,
        "stature_mm": abs(fitted["stature"] - true["stature"]) * 1e3,
        "girth_errors_mm": signed,
    }


def medians(scores: Sequence[Score]) -> dict[str, float]:
    """The median of each number over the recordings that have it."""
    rows = [asdict(s) for s in scores]
    columns = {
        k: [r[k] for r in rows if isinstance(r[k], float) and np.isfinite(r[k])] for k in (rows[0] if rows else ())
    }
    return {k: float(np.median(v)) for k, v in columns.items() if v}


def _guess(truth: Truth) -> dict[str, float]:
    """What the average adult, scaled to the true stature, scores: only a fit well below it has learnt anything."""
    guess = truth.guess.get("mean_scaled")
    if not guess:
        return {}
    girths = guess["girths_mm_fit_minus_truth"]
    return {
        "guess_rest_mm": float(guess["rest_v2v"]["mean"]),
        "guess_girth_mm": float(np.mean([abs(girths[k]) for k in GIRTHS])),
    }


def _tensor(array: NDArray[Any], kind: type[np.generic]) -> Any:
    import open3d as o3d

    return o3d.core.Tensor(np.ascontiguousarray(array, dtype=kind))  # pyright: ignore[reportCallIssue]


def _scene(vertices: NDArray[Any], faces: NDArray[Any]) -> Any:
    import open3d as o3d

    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(_tensor(vertices, np.float32), _tensor(faces, np.uint32))
    return scene


def _surface_samples(vertices: NDArray[Any], faces: NDArray[Any]) -> NDArray[np.float64]:
    """(N, 3) points, uniform over the surface; the same ones each time."""
    random = np.random.default_rng(0)
    corners = np.asarray(vertices, np.float64)[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = corners[random.choice(len(faces), SURFACE_SAMPLES, p=area / area.sum())]
    s, w = np.sqrt(random.random((SURFACE_SAMPLES, 1))), random.random((SURFACE_SAMPLES, 1))
    return (1 - s) * chosen[:, 0] + s * (1 - w) * chosen[:, 1] + s * w * chosen[:, 2]


def _seen_by_any(
    points: NDArray[np.float64], vertices: NDArray[Any], faces: NDArray[Any], sensors: Sequence[Sensor]
) -> NDArray[np.bool_]:
    """(N,) whether a point lies in some sensor's picture with nothing of the body before it."""
    scene, seen = _scene(vertices, faces), np.zeros(len(points), bool)
    for sensor in sensors:
        T, camera = sensor.T_world_depth, sensor.depth_camera
        pixel = camera.project((points - T[:3, 3]) @ T[:3, :3])
        inside = np.isfinite(pixel).all(1) & (pixel > -0.5).all(1)
        inside &= (pixel[:, 0] < camera.width - 0.5) & (pixel[:, 1] < camera.height - 0.5)
        rays = np.concatenate([points, T[:3, 3] - points], axis=1)
        # a ray of length 1 ends at the sensor; it starts a little off the surface that it leaves
        hidden = scene.test_occlusions(_tensor(rays, np.float32), tnear=0.004, tfar=1.0).numpy()
        seen |= inside & ~hidden
    return seen
