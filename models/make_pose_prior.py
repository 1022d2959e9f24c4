"""Makes `bodyfit/data/poses/motions.npz` from BVH clips of the CMU Graphics Lab Motion Capture Database.

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
from scipy.ndimage import gaussian_filter1d

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.body.npz import write_npz

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


if __name__ == "__main__":
    sys.exit(main())
