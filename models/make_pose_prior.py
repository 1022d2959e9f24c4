"""Makes `bodyfit/data/poses` (motions.npz, prior.npz) from BVH clips of the CMU Graphics Lab Motion Capture Database.

    python models/make_pose_prior.py --clips DIR_WITH_BVH

The same clips give the same bytes. See models/POSES.md for what is in the files and where it comes from.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from mocap_bvh import read_bvh
from mocap_retarget import STRAIGHT_RAD, Motion, least_bend, retarget, without_t_pose
from numpy.typing import NDArray
from pose_mixture import Mixture, Recipe, clip_weights, fit_mixture, left_out, single
from scipy.ndimage import gaussian_filter1d

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.body.npz import write_npz
from bodyfit.body.skeleton import SMPL_JOINTS
from bodyfit.fit.learned_prior import BROAD_SHARE
from bodyfit.fit.pose_prior import MIRROR, angles_from, pose_prior

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "bodyfit" / "data" / "poses"
"""a folder of its own: npz files beside the demo would be taken for body files"""
CLIPS = {
    "01_01": "forward jumps",
    "002_01": "walk",
    "002_04": "jump, bent low before it",
    "005_02": "dance, one leg lifted",
    "006_04": "ball play, dribbling forward",
    "006_14": "ball play, dribble and throw",
    "007_05": "walk",
}
"""what is done in each clip, as looked at; the numbers are CMU's subject and trial"""
SOURCE = (
    "Retargeted from motion capture clips of the CMU Graphics Lab Motion Capture Database, mocap.cs.cmu.edu "
    "(subject_trial: " + ", ".join(CLIPS) + "). The database says of itself: 'This dataset of motions is free for all "
    "uses'; 'You may include this data in commercially-sold products, but you may not resell this data directly, even "
    "in converted form.' The data used in this project was obtained from mocap.cs.cmu.edu. The database was created "
    "with funding from NSF EIA-0196217."
)
JUMPS_M = 0.09
"""a body whose lowest point gets higher than this above the floor jumps"""
SMOOTH_S = 0.1
POSE_UNIT = 1e-4
"""radians a step of the stored poses"""


def with_floor(model: BodyModel, motion: Motion) -> Motion:
    """The motion set on z = 0: a body that never leaves the floor stands on it all the time, one that jumps stands on
    it most of the time."""
    betas = np.zeros(model.num_betas)
    pairs = zip(motion.pose, motion.transl, strict=True)
    lowest = np.array([model.forward(betas, p, t)[0][:, 2].min() for p, t in pairs])
    lift = np.full(len(lowest), np.percentile(lowest, 25))
    if (lowest - lift).max() < JUMPS_M:
        lift = gaussian_filter1d(lowest, SMOOTH_S * motion.fps, mode="nearest")
    transl = motion.transl - lift[:, None] * np.array([0.0, 0.0, 1.0])
    return Motion(motion.name, motion.pose, transl, motion.fps)


def write_motions(path: Path, motions: list[Motion]) -> None:
    """Writes clips as `bodyfit.synthetic.motion` reads them."""
    starts = np.cumsum([0, *(len(m.pose) for m in motions)])
    pose = np.concatenate([m.pose for m in motions])
    write_npz(
        path,
        {
            "names": np.array([m.name for m in motions]),
            "about": np.array([CLIPS.get(m.name, "") for m in motions]),
            "starts": starts.astype(np.int32),
            "fps": np.array([round(m.fps, 3) for m in motions]),
            "poses": np.rint(pose / POSE_UNIT).astype(np.int16),
            "transl": np.concatenate([m.transl for m in motions]).astype(np.float32),
            "source": np.array(SOURCE),
        },
    )


PARTS: dict[str, list[tuple[str, int]]] = {
    "arm": [
        (f"left_{j}", a) for j, axes in (("shoulder", (0, 1, 2)), ("elbow", (0, 1, 2)), ("wrist", (1, 2))) for a in axes
    ],
    "legs": [
        (f"{side}_{j}", a)
        for j, axes in (("hip", (0, 1, 2)), ("knee", (0,)), ("ankle", (0, 1, 2)))
        for side in ("left", "right")
        for a in axes
    ],
    "trunk": [(j, a) for j in ("spine1", "spine2", "spine3", "neck", "head") for a in range(3)],
}
"""joints and their angles, as `bodyfit.fit.pose_prior` counts them; the right arm is the left one's mirror image"""
RECIPES = {"arm": Recipe(2, 0.7, 10.0), "legs": Recipe(4, 0.7, 30.0), "trunk": Recipe(1, 0.7, 30.0)}
"""chosen by how likely left-out clips are; more components fit the clips that they were made from and no others"""


def clip_angles(motions: list[Motion], part: str) -> list[NDArray[np.float64]]:
    """The angles (frames, D) of a part in each clip, and in its mirror image."""
    names = list(SMPL_JOINTS)
    twist = pose_prior(SMPL_JOINTS).twist_axis
    other = {"left": "right_", "right": "left_"}
    swap = [names.index(other.get(n.partition("_")[0], n.partition("_")[0]) + n.partition("_")[2]) for n in names]
    joints, axes = [names.index(j) for j, _ in PARTS[part]], [a for _, a in PARTS[part]]
    out = []
    for m in motions:
        both = [angles_from(pose, twist)[:, joints, axes] for pose in (m.pose, m.pose[:, swap] * MIRROR)]
        out.append(np.concatenate(both))
    return out


def learn(motions: list[Motion]) -> dict[str, NDArray[np.generic]]:
    """The arrays of prior.npz; prints how likely clips are that a mixture was not made from."""
    names = list(SMPL_JOINTS)
    prior = pose_prior(SMPL_JOINTS)
    mean = angles_from(prior.mean[None], prior.twist_axis)[0]
    arrays: dict[str, NDArray[np.generic]] = {"source": np.array(SOURCE)}
    for part, angles in PARTS.items():
        joints, axes = [names.index(j) for j, _ in angles], [a for _, a in angles]
        sigma = prior.sigma[joints, axes]
        broad = single(mean[joints, axes], sigma)
        clips = clip_angles(motions, part)
        subjects = [subject(m.name) for m in motions]
        print(f"{part}: log-density a frame of a left-out subject's clip, broad Gaussian alone and with the mixture")
        scores = left_out(clips, subjects, sigma, broad, BROAD_SHARE, RECIPES[part])
        for m, (before, after) in zip(motions, scores, strict=True):
            print(f"  {m.name:7s} {before:7.2f} {after:7.2f}")
        weights = clip_weights([len(c) for c in clips], RECIPES[part])
        found: Mixture = fit_mixture(np.concatenate(clips), weights, sigma, RECIPES[part])
        arrays |= {
            f"{part}_joints": np.array([j for j, _ in angles]),
            f"{part}_axes": np.array(axes, np.int8),
            f"{part}_weights": found.weights.astype(np.float32),
            f"{part}_means": found.means.astype(np.float32),
            f"{part}_covs": found.covs.astype(np.float32),
        }
    return arrays


def subject(name: str) -> int:
    """CMU's number of the subject of a clip."""
    return int(name.split("_")[0])


def rest_joints(model: BodyModel) -> NDArray[np.float64]:
    """(24, 3) metres: the average adult's joints in the zero pose."""
    return model.joints_at_rest(np.zeros(model.num_betas))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder with the BVH files")
    parser.add_argument("--out", type=Path, default=DATA)
    asked = parser.parse_args()
    model = load_body_model(ROOT / "models" / "anny_adult.npz")
    rest = rest_joints(model)
    motions = []
    clips = [without_t_pose(read_bvh(path)) for path in sorted(asked.clips.glob("*.bvh"))]
    for clip in clips:
        # a subject's knees are straight somewhere in the subject's clips
        bend = min(least_bend(c) for c in clips if subject(c.name) == subject(clip.name))
        offset = max(0.0, bend - STRAIGHT_RAD)
        motion = with_floor(model, retarget(clip, model.joint_names, rest, knee_offset=offset))
        motions.append(motion)
        print(f"{motion.name}: {len(motion.pose)} frames at {motion.fps:.1f} a second")
    write_motions(asked.out / "motions.npz", motions)
    write_npz(asked.out / "prior.npz", learn(motions))


if __name__ == "__main__":
    sys.exit(main())
