"""The official joints of SMPL, SMPL-H and SMPL-X, and the body part that each joint moves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BODY = (
    "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 left_foot right_foot "
    "neck left_collar right_collar head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist"
).split()
_FINGERS = [f"{side}_{finger}{i}" for side in ("left", "right")
            for finger in ("index", "middle", "pinky", "ring", "thumb") for i in (1, 2, 3)]  # fmt: skip

SMPL_JOINTS: tuple[str, ...] = (*_BODY, "left_hand", "right_hand")
SMPLH_JOINTS: tuple[str, ...] = (*_BODY, *_FINGERS)
SMPLX_JOINTS: tuple[str, ...] = (*_BODY, "jaw", "left_eye_smplhf", "right_eye_smplhf", *_FINGERS)
FAMILY_JOINTS: dict[str, tuple[str, ...]] = {"smpl": SMPL_JOINTS, "smplh": SMPLH_JOINTS, "smplx": SMPLX_JOINTS}

PART_NAMES: tuple[str, ...] = (
    "pelvis", "abdomen", "chest", "neck", "head",
    "left_upper_arm", "left_forearm", "left_hand", "right_upper_arm", "right_forearm", "right_hand",
    "left_thigh", "left_calf", "left_foot", "right_thigh", "right_calf", "right_foot",
)  # fmt: skip
_TRUNK_PART = {
    "pelvis": "pelvis", "spine1": "abdomen", "spine2": "abdomen", "spine3": "chest", "left_collar": "chest",
    "right_collar": "chest", "neck": "neck", "head": "head", "jaw": "head",
}  # fmt: skip
_LIMB_PART = {
    "hip": "thigh", "knee": "calf", "ankle": "foot", "foot": "foot",
    "shoulder": "upper_arm", "elbow": "forearm", "wrist": "hand", "hand": "hand",
}  # fmt: skip
_NEXT_PARTS = [("pelvis", "abdomen"), ("abdomen", "chest"), ("chest", "neck"), ("neck", "head")] + [
    (a if a in PART_NAMES else f"{side}_{a}", f"{side}_{b}")
    for side in ("left", "right")
    for a, b in (("chest", "upper_arm"), ("upper_arm", "forearm"), ("forearm", "hand"),
                 ("pelvis", "thigh"), ("thigh", "calf"), ("calf", "foot"))
]  # fmt: skip


def part_of_joint(joint: str) -> str:
    """The body part that a joint of any of the three families moves.

    Raises:
        KeyError: the name is none of theirs.
    """
    if joint in _TRUNK_PART:
        return _TRUNK_PART[joint]
    side, _, rest = joint.partition("_")
    if rest.endswith("smplhf"):
        return "head"
    if f"{side}_{rest}" in _FINGERS:
        return f"{side}_hand"
    return f"{side}_{_LIMB_PART[rest]}"


def part_labels(lbs_weights: NDArray[np.floating], joint_names: Sequence[str]) -> NDArray[np.uint8]:
    """(V,) number in PART_NAMES of the part whose joints hold most of each vertex's skin weight (V, J)."""
    parts = np.array([PART_NAMES.index(part_of_joint(n)) for n in joint_names])
    per_part = np.stack([lbs_weights[:, parts == p].sum(1) for p in range(len(PART_NAMES))], 1)
    return per_part.argmax(1).astype(np.uint8)


def parts_touch() -> NDArray[np.bool_]:
    """(P, P) which parts of PART_NAMES are the same or next to each other on the body."""
    touch = np.eye(len(PART_NAMES), dtype=bool)
    for a, b in _NEXT_PARTS:
        i, j = PART_NAMES.index(a), PART_NAMES.index(b)
        touch[i, j] = touch[j, i] = True
    return touch
