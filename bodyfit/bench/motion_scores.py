"""A followed person against the truth, frame after frame: places, twists, smoothness, feet, shape.

joints        mean distance of the joints that both skeletons have
surface       median distance from the true naked surface, where some sensor sees it, to the fit; mean over frames.
              Beyond clothing: less the mean thickness of what is worn, through which no depth sensor sees
acceleration  mean length of the joints' second differences times the square of the frame rate, fit over truth, over
              joints that both have and three frames in a row that are equally apart (within 10 %); where frames are
              missing or come at another rate, only such triples count
twist         turn about a limb's bone that carries its fitted vertices best onto the true ones (Kabsch's rotation
              between them, its swing split off); the median over frames and both sides
foot slide    mean speed over the floor of a fitted foot (mean of its vertices) while the true one stands, and the
              true one's own
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.bench.evaluate import ANNY_BONES, Truth, load_truth, own_shape_errors, shape_errors, surface_error
from bodyfit.errors import RecordingError
from bodyfit.rotation import nearest_rotation

if TYPE_CHECKING:
    from bodyfit.bench.girth_rules import GirthRules
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.result import FitResult
    from bodyfit.recording.description import Sensor

LIMBS = {
    "forearm": (("left_elbow", "left_wrist"), ("right_elbow", "right_wrist")),
    "upper_arm": (("left_shoulder", "left_elbow"), ("right_shoulder", "right_elbow")),
    "thigh": (("left_hip", "left_knee"), ("right_hip", "right_knee")),
    "calf": (("left_knee", "left_ankle"), ("right_knee", "right_ankle")),
}
"""Bones whose twist is scored: the joint that turns them and the one at their end."""
STANDING_M_S = 0.03
"""A true foot stands while it moves no faster over the floor than this, and up or down."""
WRONG_M = 0.15
"""A frame whose joints are this far off on average is wrong, whatever it says of itself."""
EVEN = 0.1
"""Steps of time that differ by no more than this share are equal."""


@dataclass(frozen=True)
class MotionScore:
    """Scores of a sequence, millimetres, degrees and metres per second; None where truth or model cannot say.

    Attributes:
        frames: of the truth; lost: those without an estimate; wrong: those whose estimate is far off.
        joints_mm, joints_p95_mm: mean and 95th percentile over frames of the mean over joints.
        surface_mm, surface_beyond_mm: with clothes counted, and less their mean thickness (not below 0).
        acceleration, true_acceleration: m/s²; acceleration_ratio: the first over the second.
        twist_deg: median by limb; twist_p90_deg: 90th percentile.
        slide_m_s, true_slide_m_s: of standing feet.
        rest_mm: mean vertex error of the unposed body, the pose solved away.
        shape_z: error of each beta over its standard deviation (own subjects only).
    """

    frames: int
    lost: int
    wrong: int
    joints_mm: float | None
    joints_p95_mm: float | None
    acceleration: float | None
    true_acceleration: float | None
    acceleration_ratio: float | None
    twist_deg: dict[str, float]
    twist_p90_deg: dict[str, float]
    slide_m_s: float | None
    true_slide_m_s: float | None
    joint_mm: dict[str, float] = field(default_factory=dict)
    surface_mm: float | None = None
    surface_worst_mm: float | None = None
    surface_beyond_mm: float | None = None
    cloth_mm: float | None = None
    rest_mm: float | None = None
    girth_mm: float | None = None
    stature_mm: float | None = None
    girth_errors_mm: dict[str, float] = field(default_factory=dict)
    shape_z: tuple[float, ...] = ()
    measurement_z: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Frame:
    time_s: float
    fitted: NDArray[np.float64] | None
    true: NDArray[np.float64]
    twist: dict[str, list[float]]
    feet: NDArray[np.float64] | None
    true_feet: NDArray[np.float64] | None


class MotionScorer:
    """Takes frames one after the other and keeps only what the scores need."""

    def __init__(self, model: BodyModel) -> None:
        names = {name: i for i, name in enumerate(model.joint_names)}
        main = model.lbs_weights.argmax(1)
        self.model = model
        self._limbs: dict[str, list[tuple[NDArray[np.int64], int, int]]] = {}
        for limb, sides in LIMBS.items():
            if all(a in names and b in names for a, b in sides):
                parts = [(np.nonzero(main == names[a])[0], names[a], names[b]) for a, b in sides]
                self._limbs[limb] = [p for p in parts if len(p[0]) >= 10]
        feet = [[names.get(f"{side}_{n}", -1) for n in ("ankle", "foot")] for side in ("left", "right")]
        self._feet = [np.nonzero(np.isin(main, joints))[0] for joints in feet]
        self._frames: list[_Frame] = []
        self._surface: list[float] = []

    def add(
        self,
        time_s: float,
        fitted: tuple[NDArray[Any], NDArray[Any]] | None,
        true_joints: NDArray[Any],
        true_vertices: NDArray[Any] | None = None,
    ) -> None:
        """One instant.

        Args:
            fitted: vertices (V, 3) and joints (J, 3) of the estimate, world metres; None where there is none.
            true_joints: (J, 3) in the order of the model's joints, NaN where the truth has no such joint.
            true_vertices: (V, 3), vertex by vertex the model's; None where the truth is another mesh.
        """
        twist: dict[str, list[float]] = {}
        feet = None
        if fitted is not None and true_vertices is not None:
            vertices, joints = fitted
            for limb, parts in self._limbs.items():
                twist[limb] = [
                    twist_between(vertices[part], true_vertices[part], joints[b] - joints[a]) for part, a, b in parts
                ]
            feet = self._feet_of(vertices)
        true_feet = None if true_vertices is None else self._feet_of(true_vertices)
        placed = None if fitted is None else np.asarray(fitted[1], np.float64)
        self._frames.append(_Frame(time_s, placed, np.asarray(true_joints, np.float64), twist, feet, true_feet))

    def add_surface(self, distance_m: float) -> None:
        """A frame's median distance of the seen surface, metres (`evaluate.surface_error`)."""
        if np.isfinite(distance_m):
            self._surface.append(distance_m)

    def _feet_of(self, vertices: NDArray[Any]) -> NDArray[np.float64] | None:
        if not all(len(ids) for ids in self._feet):
            return None
        return np.stack([vertices[ids].mean(0) for ids in self._feet])

    def score(self, *, cloth_mm: float | None = None, **shape: Any) -> MotionScore:
        """What the frames come to; `shape` holds rest_mm, girth_mm and so on (`evaluate.shape_errors`)."""
        frames = self._frames
        off, per_joint = [], []
        for f in frames:
            if f.fitted is not None:
                distance = np.linalg.norm(f.fitted - f.true, axis=1)
                per_joint.append(distance)
                off.append(float(np.nanmean(distance)) if np.isfinite(distance).any() else np.nan)
        error = np.array([e for e in off if np.isfinite(e)])
        fitted, true = self._accelerations()
        twist: dict[str, list[float]] = {}
        for f in frames:
            for limb, degrees in f.twist.items():
                twist.setdefault(limb, []).extend(abs(d) for d in degrees)
        slide, true_slide = self._slide()
        surface = float(np.mean(self._surface)) * 1e3 if self._surface else None
        beyond = None if surface is None or cloth_mm is None else max(surface - cloth_mm, 0.0)
        by_joint = np.array(per_joint)
        seen = {
            name: float(by_joint[:, i].mean() * 1e3)
            for i, name in enumerate(self.model.joint_names)
            if len(by_joint) and np.isfinite(by_joint[:, i]).all()
        }
        return MotionScore(
            frames=len(frames),
            lost=sum(f.fitted is None for f in frames),
            wrong=int((error > WRONG_M).sum()),
            joints_mm=float(error.mean() * 1e3) if len(error) else None,
            joints_p95_mm=float(np.percentile(error, 95) * 1e3) if len(error) else None,
            acceleration=fitted,
            true_acceleration=true,
            acceleration_ratio=fitted / true if fitted is not None and true else None,
            twist_deg={limb: float(np.median(d)) for limb, d in twist.items() if d},
            twist_p90_deg={limb: float(np.percentile(d, 90)) for limb, d in twist.items() if d},
            slide_m_s=slide,
            true_slide_m_s=true_slide,
            joint_mm=seen,
            surface_mm=surface,
            surface_worst_mm=float(np.max(self._surface)) * 1e3 if self._surface else None,
            surface_beyond_mm=beyond,
            cloth_mm=cloth_mm,
            **shape,
        )

    def _accelerations(self) -> tuple[float | None, float | None]:
        """Mean acceleration of fit and truth, m/s², over the same joints and triples of frames."""
        fitted, true = [], []
        for a, b, c in zip(self._frames, self._frames[1:], self._frames[2:], strict=False):
            first, second = b.time_s - a.time_s, c.time_s - b.time_s
            if a.fitted is None or b.fitted is None or c.fitted is None or abs(first - second) > EVEN * second:
                continue
            step2 = ((first + second) / 2) ** 2
            of_truth = np.linalg.norm(a.true - 2 * b.true + c.true, axis=1) / step2
            both = np.isfinite(of_truth)
            fitted.append(np.linalg.norm(a.fitted - 2 * b.fitted + c.fitted, axis=1)[both] / step2)
            true.append(of_truth[both])
        if not fitted:
            return None, None
        return float(np.mean(np.concatenate(fitted))), float(np.mean(np.concatenate(true)))

    def _slide(self) -> tuple[float | None, float | None]:
        fitted, true = [], []
        for a, b in zip(self._frames, self._frames[1:], strict=False):
            dt = b.time_s - a.time_s
            if a.feet is None or b.feet is None or a.true_feet is None or b.true_feet is None:
                continue
            moved = b.true_feet - a.true_feet
            stands = np.linalg.norm(moved, axis=1) / dt < STANDING_M_S
            true.extend(np.linalg.norm(moved[stands, :2], axis=1) / dt)
            fitted.extend(np.linalg.norm((b.feet - a.feet)[stands, :2], axis=1) / dt)
        if not fitted:
            return None, None
        return float(np.mean(fitted)), float(np.mean(true))


def twist_between(fitted: NDArray[Any], true: NDArray[Any], bone: NDArray[Any]) -> float:
    """Signed degrees about `bone` (3,) of the rotation that carries points `true` (N, 3) best onto `fitted` (N, 3).

    Rotation by Kabsch's method; its twist by the swing-twist decomposition of its quaternion.
    """
    a, b = np.asarray(true, np.float64), np.asarray(fitted, np.float64)
    R = nearest_rotation((b - b.mean(0)).T @ (a - a.mean(0)))
    axis = bone / np.linalg.norm(bone)
    # of a quaternion (w, v): tan(twist / 2) = v . axis / w; both as multiples of 4w and 4w²
    along = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) @ axis
    return float(np.degrees(2 * np.arctan2(along, 1 + np.trace(R))))


def true_joints_of(model: BodyModel, truth: Truth, instant: int) -> NDArray[np.float64]:
    """(J, 3) the truth's joints in the model's order; NaN where it has no bone of that name."""
    own = truth.is_mesh_of(model)
    out = np.full((model.num_joints, 3), np.nan)
    for i, name in enumerate(model.joint_names):
        side, _, rest = name.partition("_")
        bone = f"{ANNY_BONES.get(rest)}.{side[0].upper()}" if side in ("left", "right") else ANNY_BONES.get(name)
        known = name if own else bone
        if known in truth.joint_names:
            out[i] = truth.joints[instant, truth.joint_names.index(known)]
    return out


def true_vertices_of(model: BodyModel, truth: Truth, instant: int) -> NDArray[np.float64] | None:
    """(V, 3) the truth's vertices in the model's order; None where the meshes have nothing to do with each other."""
    if truth.is_mesh_of(model):
        return truth.vertices[instant]
    ids = model.anny_vertex_ids
    if ids is None or truth.vertices.shape[1] <= int(ids.max()):
        return None
    return truth.vertices[instant][ids]


def score_recording_motion(
    result: FitResult, recording: str | Path, *, rules: GirthRules | None = None, surface_every: int = 1
) -> MotionScore:
    """Scores a sequence's result against the `truth/` of its recording; truth's frames that the result lacks are lost.

    Args:
        recording: the folder.
        surface_every: the distance of surfaces is taken at every so many frames (0: at none).

    Raises:
        RecordingError: the recording has no truth, or one of another mesh.
    """
    from bodyfit.recording.formats import open_recording

    path = Path(recording)
    recorded, truth, model = open_recording(path), load_truth(path), result.model
    faces = model.faces.astype(np.int64) if truth.faces is None and truth.is_mesh_of(model) else truth.faces
    if faces is None:
        raise RecordingError(f"{path.name}/truth", "faces.npy, or the body model that the subject names", "neither")
    scorer = MotionScorer(model)
    placed = {int(index): t for t, index in enumerate(result.frame_indices)}
    for instant, index in enumerate(recorded.indices):
        t = placed.get(int(index))
        fitted = None if t is None else model.forward(result.betas, result.poses[t], result.transl[t])
        scorer.add(
            float(recorded.timestamps_s[instant]), fitted, true_joints_of(model, truth, instant),
            true_vertices_of(model, truth, instant),
        )  # fmt: skip
        if fitted is not None and surface_every and instant % surface_every == 0:
            at = truth.vertices[instant]
            scorer.add_surface(surface_error(fitted[0], model.faces, at, faces, recorded.sensors))
    shape: dict[str, Any] = {}
    if truth.is_mesh_of(model):
        shape = own_shape_errors(model, result.rest_vertices(), truth.rest)
        sd = np.sqrt(np.maximum(np.diagonal(result.betas_cov), 1e-12))
        shape["shape_z"] = tuple(((result.betas - np.array(truth.subject["betas"])) / sd).tolist())
        shape["measurement_z"] = measurement_z(model, truth.rest, result.measurements)
    elif model.anny_vertex_ids is not None:
        shape = shape_errors(model, result.rest_vertices(), truth.rest, rules)
    return scorer.score(cloth_mm=truth.subject.get("clothing", {}).get("offset_mm_mean_covered"), **shape)


def measurement_z(model: BodyModel, true_rest: NDArray[Any], measured: Mapping[str, Any]) -> dict[str, float]:
    """Error of each measurement over its standard deviation, of the true unposed body (V, 3) stood up."""
    from bodyfit.body.measure import measure_vertices, stand

    true = measure_vertices(model, *stand(model, true_rest))
    return {
        name: float((m.value_m - true[name]) / m.sd_m)
        for name, m in measured.items()
        if name in true and np.isfinite(m.sd_m) and m.sd_m > 0
    }


def held(z: Sequence[float] | NDArray[Any], width: float = 1.6448536269514722) -> float:
    """Share of errors within `width` standard deviations: 0.90 at 1.645 where these are honest."""
    values = np.abs(np.asarray(z, np.float64))
    return float((values <= width).mean()) if len(values) else float("nan")


def as_text(score: MotionScore) -> str:
    """The score as JSON."""
    from dataclasses import asdict

    return json.dumps(asdict(score), indent=1)


def sensors_of(sensors: Sequence[Any], T_world_depth: Sequence[NDArray[np.float64]]) -> list[Sensor]:
    """Synthetic sensors in their places, as `evaluate.surface_error` takes them."""
    from bodyfit.recording.description import Sensor

    return [
        Sensor(s.name, s.depth_camera, T, None, None, s.unit_m) for s, T in zip(sensors, T_world_depth, strict=True)
    ]
