"""A motion as motion.npz, in the layout of AMASS's files (Mahmood et al. 2019), which hold motions of SMPL-H.

Keys of AMASS: `trans` (T, 3), `gender`, `mocap_framerate`, `betas` (16,), `dmpls` (T, 8), `poses` (T, 156), that is 52
joints of 3 numbers: root, 21 of the body, 15 of each hand. Metres, radians, z up, as in AMASS. Beside `mocap_framerate`
stands `mocap_frame_rate`, the name in AMASS's later files.

SMPL-H's shape space is its own. For other bodies, `betas` is zero (the average person) rather than numbers that would
be somebody else, `betas_are_smplh` is False, and the person's own numbers are `model_betas`. `trans` then belongs to a
body whose root lies elsewhere at rest: put a SMPL-H body's root on `root_world`, that is trans = root_world - its rest
root.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.skeleton import SMPLH_JOINTS
from bodyfit.errors import InputError
from bodyfit.export.motion import Motion, motion_of, on_an_even_clock
from bodyfit.rotation import axis_angle_from_matrix

if TYPE_CHECKING:
    from bodyfit.fit.result import FitResult

FILE_NAME = "motion.npz"
FORMAT = "bodyfit.motion/1"
NUM_BETAS = 16
NUM_DMPLS = 8
_KNUCKLES = ("index1", "middle1", "pinky1", "ring1")
"""SMPL turns all fingers by one joint of the hand; in SMPL-H these are where they turn."""


def motion_npz_bytes(result: FitResult) -> bytes:
    """The file of a result's motion, at one rate; equal results give equal bytes.

    Rows between two frames, where the recording has a gap, are `observed` False with `frame_indices` -1.

    Raises:
        InputError: the body has none of SMPL's joints, or see `motion_of`.
    """
    motion = on_an_even_clock(motion_of(result))
    model, T = result.model, len(motion)
    poses = smplh_poses(motion)
    is_smplh = model.meta.get("family") == "smplh"
    betas = np.zeros(NUM_BETAS)
    if is_smplh:
        kept = np.asarray(result.betas, np.float64)[:NUM_BETAS]
        betas[: len(kept)] = kept
    arrays = {
        # AMASS
        "trans": motion.root_world - motion.rest_joints[0],
        "gender": np.array(result.sex),
        "mocap_framerate": np.array(motion.rate),
        "mocap_frame_rate": np.array(motion.rate),
        "betas": betas,
        "dmpls": np.zeros((T, NUM_DMPLS)),
        "poses": poses.reshape(T, -1),
        "surface_model_type": np.array("smplh"),
        # ours
        "format": np.array(FORMAT),
        "betas_are_smplh": np.array(is_smplh),
        "body_model": np.array(model.name),
        "body_model_sha256": np.array(model.sha256),
        "model_betas": np.asarray(result.betas, np.float64),
        "model_poses": axis_angle_from_matrix(motion.rotations).reshape(T, -1),
        "joint_names": np.array(motion.joint_names),
        "joints_world": motion.joints_world(),
        "root_world": motion.root_world,
        "timestamps_s": motion.timestamps_s,
        "frame_indices": motion.frame_indices,
        "observed": motion.frame_indices >= 0,
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)  # numpy dates every member 1980
    return buffer.getvalue()


def smplh_poses(motion: Motion) -> NDArray[np.float64]:
    """(T, 52, 3) axis-angle of SMPL-H's joints, by name; the one hand joint of SMPL becomes the turn of four knuckles.

    Joints that the body lacks stay at zero; those that SMPL-H lacks (jaw, eyes) are left out.
    """
    poses = axis_angle_from_matrix(motion.rotations)
    ours = {name: j for j, name in enumerate(motion.joint_names)}
    if SMPLH_JOINTS[0] not in ours:
        raise InputError("joint_names", "those of SMPL, pelvis first", ", ".join(motion.joint_names[:4]))
    out = np.zeros((len(motion), len(SMPLH_JOINTS), 3))
    for k, name in enumerate(SMPLH_JOINTS):
        side, _, finger = name.partition("_")
        source = ours.get(name)
        if source is None and finger in _KNUCKLES:
            source = ours.get(f"{side}_hand")
        if source is not None:
            out[:, k] = poses[:, source]
    return out
