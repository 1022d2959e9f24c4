"""Poses that depth found, once more with what colours say: the person's colours are learnt from all frames, then each
frame's pose is refined by depth and colour together.

A limb that turned fast is beyond the reach of its texture's gradient: forearms are also tried turned about themselves,
and the try that ends at the lowest cost of depth and colour together is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bodyfit.body.model import BodyModel
from bodyfit.fit.appearance import Appearance
from bodyfit.fit.config import FitConfig, Stage
from bodyfit.fit.follow import Followed, Pose, descend
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.photometric import ColorConfig, ColorTerm
from bodyfit.fit.pose_prior import PosePrior, pose_prior
from bodyfit.fit.track_config import TrackConfig
from bodyfit.fit.view import View
from bodyfit.frame import Frame
from bodyfit.rotation import matrix_from_axis_angle

LIMBS = (("left_elbow", "left_wrist"), ("right_elbow", "right_wrist"))
"""Joints that turn what lies between them and the next about that line."""


@dataclass(frozen=True)
class ColorRefinement:
    """How poses are refined with colours.

    Attributes:
        tries_deg: how far a forearm is turned about itself for further starts; empty: it is not.
        gain: by how much the cost must be lower for a try to be kept.
    """

    color: ColorConfig = field(default_factory=ColorConfig)
    stage: Stage = field(default_factory=lambda: TrackConfig().stage)
    fit: FitConfig = field(default_factory=FitConfig)
    evaluations: int = 6
    tries_deg: tuple[float, ...] = ()
    gain: float = 2.0


def learn_appearance(
    model: BodyModel, mesh: Mesh, frames: Sequence[Sequence[Frame]], poses: Sequence[Pose],
    config: ColorConfig | None = None, again: Appearance | None = None,
) -> Appearance:  # fmt: skip
    """The colours of a body of the shape `mesh` from frames (instants of sensors) and the poses found for them.

    again: an appearance learnt from poses that were worse: its light is kept, its colours are learnt anew.
    """
    appearance = Appearance.begin(model, mesh, config) if again is None else again.forget_colors()
    for instant, pose in zip(frames, poses, strict=True):
        for frame in instant:
            sight = appearance.look(frame, pose.rotations, pose.transl)
            if sight is not None:
                appearance.update(sight)
    return appearance


def color_terms(appearance: Appearance | None, frames: Sequence[Frame], pose: Pose) -> list[ColorTerm]:
    """What the colours of an instant's frames say about a pose near this one."""
    terms = []
    for frame in frames if appearance is not None else ():
        assert appearance is not None
        sight = appearance.look(frame, pose.rotations, pose.transl)
        term = None if sight is None else appearance.term(sight)
        if term is not None:
            terms.append(term)
    return terms


def refine_pose(
    model: BodyModel, appearance: Appearance | None, frames: Sequence[Frame], views: Sequence[View], start: Pose,
    mesh: Mesh, sigma_behind_m: float, config: ColorRefinement | None = None, prior: PosePrior | None = None,
) -> Followed:  # fmt: skip
    """One instant's pose by depth (views) and colour (frames); without an appearance by depth alone."""
    c = config or ColorRefinement()
    prior = prior or pose_prior(model.joint_names)

    def solve(pose: Pose, evaluations: int) -> Followed:
        terms = color_terms(appearance, frames, pose)
        return descend(
            mesh, views, pose, c.stage, c.fit, prior, sigma_behind_m, evaluations=evaluations, expected=None,
            colors=terms,
        )  # fmt: skip

    best = solve(start, c.evaluations)
    for limb in LIMBS if c.tries_deg else ():
        if not set(limb) <= set(model.joint_names):
            continue
        base = best
        for angle in c.tries_deg:
            found = solve(_turned(model, mesh, base.pose, limb, angle), c.evaluations)
            if found.equations.cost[0] < best.equations.cost[0] - c.gain:
                best = found
    return best


def _turned(model: BodyModel, mesh: Mesh, pose: Pose, limb: tuple[str, str], degrees: float) -> Pose:
    a, b = (model.joint_names.index(n) for n in limb)
    axis = mesh.joint_template[b] - mesh.joint_template[a]
    axis = axis / np.linalg.norm(axis)
    rotations = pose.rotations.copy()
    rotations[a] = rotations[a] @ matrix_from_axis_angle(axis * np.radians(degrees))
    return Pose(rotations, pose.transl)
