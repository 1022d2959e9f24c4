"""Motion capture brought to SMPL's 24 joints: bones' directions, the planes in which hinges bend, tilts of the trunk.

Skeletons differ in where their joints lie and in how their bones' axes stand, so angles are never copied. An upper arm
and a forearm point where the recorded ones point and are turned about themselves so that the elbow bends in the
recorded plane; so for thigh and calf. A forearm's twist is what the hand does beyond that, and goes to the elbow, as
in the body model, whose wrist only bends. Trunk, neck and head take the recorded tilts beyond a neutral one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from mocap_bvh import Clip
from numpy.typing import NDArray

from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle

Array = NDArray[np.float64]

WORLD = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""from a BVH file's world (y up) to ours (z up)"""
COLLAR_BELOW, COLLAR_ABOVE = 0.11, 0.30
"""the share of an upper arm's lift that the collar takes below and above the horizontal: the clips hold their collars
still (below as in `bodyfit.body.standing`, above the scapulohumeral rhythm of 2 to 1: Inman et al. 1944)"""
STILL_M_S = 0.15
"""a foot slower than this stands"""
JUMP_RAD = 0.8
"""a hand that turns further than this in a thirtieth of a second is a fault of the recording"""
WRIST_RANGE = ((-0.60, 0.60), (-1.40, 1.40))
"""radians to the sides, and up and down: what American Academy of Orthopaedic Surgeons (1965) gives, widened as in
`bodyfit.fit.pose_prior`; some clips hold a hand further bent than any wrist is"""
STRAIGHT_RAD = 0.06
"""how far a knee is bent when it is stretched"""
TRUNK = ("pelvis", "spine1", "spine2", "spine3")


@dataclass(frozen=True)
class Rig:
    """Which bones of a kind of file stand for which joints, and how its neutral trunk is tilted.

    Limbs are given for both sides: `{side}` names them. neutral_deg: forward tilt of the bones of spine3, neck and
    head when the body stands upright."""

    sides: tuple[str, str]
    trunk: dict[str, str]
    shoulder: str
    elbow: str
    wrist: str
    fingers: str
    thumb: str
    hip: str
    knee: str
    ankle: str
    toe: str
    neutral_deg: tuple[float, float, float]
    foot_across: tuple[float, float, float]
    """the left foot's axis to the person's left, in its bone's axes"""


CHARACTER = Rig(
    sides=("CC_Base_L_", "CC_Base_R_"),
    trunk={
        "pelvis": "CC_Base_Pelvis", "spine1": "CC_Base_Waist", "spine2": "CC_Base_Spine01",
        "spine3": "CC_Base_Spine02", "neck": "CC_Base_NeckTwist02", "head": "CC_Base_Head",
    },
    shoulder="{side}Upperarm", elbow="{side}Forearm", wrist="{side}Hand", fingers="{side}Mid1",
    thumb="{side}Thumb1", hip="{side}Thigh", knee="{side}Calf", ankle="{side}Foot", toe="{side}ToeBase",
    neutral_deg=(-10.3, 9.6, 0.0), foot_across=(-1.0, 0.0, 0.0),
)  # fmt: skip
"""a game character's skeleton, y along every bone; neutral: as in the T-pose that clip 007_05 begins with"""
PLAIN = Rig(
    sides=("Left", "Right"),
    trunk={
        "pelvis": "Hips", "spine1": "lowerback", "spine2": "Chest", "spine3": "Chest2", "neck": "Neck", "head": "Head",
    },
    shoulder="{side}Shoulder", elbow="{side}Elbow", wrist="{side}Wrist", fingers="{s}Fingers",
    thumb="{s}Thumb_end", hip="{side}Hip", knee="{side}Knee", ankle="{side}Ankle", toe="{side}Toe",
    neutral_deg=(0.0, 0.0, 0.0), foot_across=(0.940, 0.342, 0.0),
)  # fmt: skip
"""CMU's own skeleton: at rest its arms hang and its legs are 20 degrees apart"""


@dataclass(frozen=True)
class Motion:
    """pose (F, 24, 3) axis-angle, the root in a world with z up; transl (F, 3) metres; frames a second."""

    name: str
    pose: Array
    transl: Array
    fps: float


def rig_of(clip: Clip) -> Rig:
    """The kind of skeleton that a clip has.

    Raises:
        ValueError: it is none that is known.
    """
    for rig in (CHARACTER, PLAIN):
        if rig.trunk["spine3"] in clip.names:
            return rig
    raise ValueError(f"{clip.name}: expected a skeleton with CC_Base_Spine02 or Chest2, found {clip.names[:6]}")


def _unit(v: Array) -> Array:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def _frame(along: Array, across: Array) -> Array:
    """(..., 3, 3): columns are a bone's direction, the axis nearest to `across` that is normal to it, the third."""
    a = _unit(along)
    b = _unit(across - (across * a).sum(-1, keepdims=True) * a)
    return np.stack([a, b, np.cross(a, b)], -1)


def hinge_axis(clip: Clip, joint: int) -> Array:
    """(3,) the axis in the parent's axes about which a hinge bends: the principal one of its turns, positive when it
    bends (a clip's hinges hardly ever go beyond straight)."""
    parent = clip.parents[joint]
    turns = axis_angle_from_matrix(np.swapaxes(clip.rotations[:, parent], 1, 2) @ clip.rotations[:, joint])
    _, vectors = np.linalg.eigh(turns.T @ turns)
    axis = vectors[:, 2]
    return axis * np.sign((turns @ axis).sum())


def least_bend(clip: Clip) -> float:
    """Radians by which the clip's knees are bent when they are straightest, the straighter of both."""
    rig = rig_of(clip)
    least = []
    for side in rig.sides:
        joint = clip.joint(rig.knee.format(side=side))
        parent = clip.parents[joint]
        local = np.swapaxes(clip.rotations[:, parent], 1, 2) @ clip.rotations[:, joint]
        least.append(np.percentile(axis_angle_from_matrix(local) @ hinge_axis(clip, joint), 1))
    return float(min(least))


def without_t_pose(clip: Clip) -> Clip:
    """The clip without the T-pose that it may begin with: a first frame from which everything jumps."""
    R = clip.rotations
    step = np.linalg.norm(axis_angle_from_matrix(np.swapaxes(R[:1], 2, 3) @ R[1:2]), axis=-1)
    return replace(clip, rotations=R[1:], places=clip.places[1:]) if step.max() > 1.0 else clip


def retarget(clip: Clip, names: tuple[str, ...], rest: Array, *, knee_offset: float = 0.0) -> Motion:
    """A clip as poses of a body with these joints at these places (24, 3) in its zero pose, SMPL's T.

    knee_offset: radians that this skeleton's knees are bent when the subject's are straight; it is taken out of thigh
    and calf so that hip and ankle stay in line.

    Raises:
        ValueError: the clip's skeleton is unknown.
    """
    rig = rig_of(clip)
    J = {n: i for i, n in enumerate(names)}
    frames = len(clip.rotations)
    world = np.zeros((frames, len(names), 3, 3))  # in the file's world, y up
    _trunk(clip, rig, world, J)
    for k, side in enumerate(("left", "right")):
        sign = 1.0 - 2.0 * k

        def bone(pattern: str, prefix: str = rig.sides[k]) -> int:
            return clip.joint(pattern.format(side=prefix, s=prefix[0]))

        shoulder, elbow, wrist = bone(rig.shoulder), bone(rig.elbow), bone(rig.wrist)
        hip, knee, ankle, toe = bone(rig.hip), bone(rig.knee), bone(rig.ankle), bone(rig.toe)
        # arms: at zero along x, bending about the vertical
        bend = hinge_axis(clip, elbow)
        zero = _frame(np.array([sign, 0, 0]), np.array([0, -sign, 0]))
        for name, source, child in (("shoulder", shoulder, elbow), ("elbow", elbow, wrist)):
            mine = _frame(clip.offsets[child], bend)
            world[:, J[f"{side}_{name}"]] = clip.rotations[:, source] @ mine @ zero.T
        # the hand: fingers along x, the thumb to the front
        thumb = clip.offsets[bone(rig.thumb)]
        fingers = clip.offsets[bone(rig.fingers)]
        mine = _frame(fingers, thumb)
        hand = clip.rotations[:, wrist] @ mine @ _frame(np.array([sign, 0, 0]), np.array([0.0, 0, 1])).T
        _share_twist(world, J, side, hand)
        # legs: straight down at zero, whatever little bend the places of the body's joints make
        bend = hinge_axis(clip, knee)
        down = rest[J[f"{side}_ankle"]] - rest[J[f"{side}_hip"]]
        zero = _frame(down, np.array([1.0, 0, 0]))
        for name, source, child in (("hip", hip, knee), ("knee", knee, ankle)):
            mine = _frame(clip.offsets[child], bend)
            share = 0.5 if name == "hip" else -0.5
            turn = matrix_from_axis_angle(zero[:, 1] * share * knee_offset)
            world[:, J[f"{side}_{name}"]] = clip.rotations[:, source] @ mine @ zero.T @ turn
        _foot(clip, rig, world, J, side, ankle, toe, rest)
    _collars(world, J)
    local = world.copy()
    for name, parent in _parents().items():
        local[:, J[name]] = np.swapaxes(world[:, J[parent]], 1, 2) @ world[:, J[name]]
    local[:, 0] = WORLD @ world[:, 0]
    middle = 0.5 * (rest[J["left_hip"]] + rest[J["right_hip"]])
    transl = _hips(clip, rig, rest, J) - local[:, 0] @ middle
    transl[:, :2] -= transl[0, :2].copy()
    transl[:, 2] += _lowest_ankle(clip, rig, rest, J, world, transl)
    return Motion(clip.name, axis_angle_from_matrix(local), transl, clip.fps)


def _parents() -> dict[str, str]:
    out = {"spine1": "pelvis", "spine2": "spine1", "spine3": "spine2", "neck": "spine3", "head": "neck"}
    for side in ("left", "right"):
        for chain in (
            ("pelvis", "hip", "knee", "ankle", "foot"),
            ("spine3", "collar", "shoulder", "elbow", "wrist", "hand"),
        ):
            full = [chain[0], *(f"{side}_{n}" for n in chain[1:])]
            out.update(zip(full[1:], full[:-1], strict=True))
    return out


def _tilt(R: Array) -> Array:
    """(F,) radians by which a bone (F, 3, 3), x to the person's left and y up, is tilted to the front."""
    return np.arctan2(-R[:, 1, 2], R[:, 1, 1])


def _trunk(clip: Clip, rig: Rig, world: Array, J: dict[str, int]) -> None:
    chest, neck, head = np.radians(rig.neutral_deg)
    neutral = {"spine3": chest, "neck": neck, "head": head}
    sources = {name: clip.rotations[:, clip.joint(bone)] for name, bone in rig.trunk.items()}
    lean = _tilt(sources["spine3"]) - chest
    for name in TRUNK[:3]:
        # subjects' pelves and loins are tilted by tens of degrees against each other by how their skeletons were
        # fitted to markers: over a clip they are straight under the chest on the whole
        neutral[name] = float(np.median(_tilt(sources[name]) - lean))
    for name, R in sources.items():
        world[:, J[name]] = R @ matrix_from_axis_angle(np.array([-neutral[name], 0.0, 0.0]))


def _share_twist(world: Array, J: dict[str, int], side: str, hand: Array) -> None:
    """The forearm turns with the hand about its own length; what is left bends the wrist."""
    elbow = J[f"{side}_elbow"]
    H = _without_jumps(np.swapaxes(world[:, elbow], 1, 2) @ hand)
    # H = T S: T's half-angle is that of the quaternion's part along the forearm
    theta = axis_angle_from_matrix(H)
    angle = np.linalg.norm(theta, axis=1)
    along = np.sin(angle / 2) * theta[:, 0] / np.maximum(angle, 1e-12)
    twist = np.zeros((len(H), 3))
    twist[:, 0] = 2 * np.arctan(along / np.cos(angle / 2))
    T = matrix_from_axis_angle(twist)
    bend = axis_angle_from_matrix(np.swapaxes(T, 1, 2) @ H)
    for axis, (low, high) in enumerate(WRIST_RANGE, start=1):
        bend[:, axis] = np.clip(bend[:, axis], low, high)
    world[:, elbow] = world[:, elbow] @ T
    world[:, J[f"{side}_wrist"]] = world[:, J[f"{side}_hand"]] = world[:, elbow] @ matrix_from_axis_angle(bend)


def _without_jumps(R: Array) -> Array:
    """Rotations (F, 3, 3) in time with those beside a jump replaced by what lies between their neighbours."""
    out = R.copy()
    step = np.linalg.norm(axis_angle_from_matrix(np.swapaxes(R[:-1], 1, 2) @ R[1:]), axis=1)
    wrong = np.zeros(len(R), bool)
    for k in np.flatnonzero(step > JUMP_RAD):
        wrong[max(k - 1, 1) : k + 3] = True
    wrong[[0, -1]] = False
    good = np.flatnonzero(~wrong)
    for k in np.flatnonzero(wrong):
        a, b = good[good < k][-1], good[good > k][0]
        turn = axis_angle_from_matrix(R[a].T @ R[b])
        out[k] = R[a] @ matrix_from_axis_angle(turn * (k - a) / (b - a))
    return out


def _foot(clip: Clip, rig: Rig, world: Array, J: dict[str, int], side: str, ankle: int, toe: int, rest: Array) -> None:
    """The foot points where the recorded one points; when it stands, its sole is level."""
    direction = clip.offsets[toe]
    across = np.array(rig.foot_across) * (1, 1 if side == "left" else -1, 1)
    R, place = clip.rotations[:, ankle], clip.places
    along = _unit(R @ direction)
    unit = 1.0 / np.linalg.norm(clip.offsets[toe]) * 0.14  # metres a unit, near enough
    speed = np.linalg.norm(np.gradient(place[:, ankle], axis=0), axis=1) * clip.fps * unit
    low = place[:, ankle, 1] < np.percentile(place[:, ankle, 1], 10) + 0.02 / unit
    stands = low & (speed < STILL_M_S)
    drop = float(np.median(np.arcsin(-along[stands if stands.sum() > 5 else low, 1])))
    bone = rest[J[f"{side}_foot"]] - rest[J[f"{side}_ankle"]]
    ahead = _unit(bone * (1, 0, 1)) * np.cos(drop) - np.array([0, np.sin(drop), 0])
    mine = _frame(direction, across)
    zero = _frame(ahead, np.array([1.0, 0.0, 0.0]))
    world[:, J[f"{side}_ankle"]] = R @ mine @ zero.T
    # toes: how far they are bent up beyond their place when the foot stands
    turn = axis_angle_from_matrix(np.swapaxes(R, 1, 2) @ clip.rotations[:, toe]) @ _unit(across)
    still = float(np.median(turn[stands if stands.sum() > 5 else low]))
    bent = np.zeros((len(turn), 3))
    bent[:, 0] = np.clip(turn - still, -0.7, 0.2)
    world[:, J[f"{side}_foot"]] = world[:, J[f"{side}_ankle"]] @ matrix_from_axis_angle(bent)


def _collars(world: Array, J: dict[str, int]) -> None:
    """Lifts each collar with its arm."""
    chest = world[:, J["spine3"]]
    for side, sign in (("left", 1.0), ("right", -1.0)):
        arm = np.einsum("fba,fb->fa", chest, world[:, J[f"{side}_shoulder"], :, 0]) * sign
        lift = np.arcsin(np.clip(arm[:, 1], -1, 1))
        turn = np.zeros((len(lift), 3))
        turn[:, 2] = sign * lift * np.where(lift < 0, COLLAR_BELOW, COLLAR_ABOVE)
        world[:, J[f"{side}_collar"]] = chest @ matrix_from_axis_angle(turn)


def _hips(clip: Clip, rig: Rig, rest: Array, J: dict[str, int]) -> Array:
    """(F, 3) the middle of the hips in a world with z up, scaled by the legs' lengths."""
    hips = [clip.joint(rig.hip.format(side=s)) for s in rig.sides]
    return clip.places[:, hips].mean(1) * _scale(clip, rig, rest, J) @ WORLD.T


def _scale(clip: Clip, rig: Rig, rest: Array, J: dict[str, int]) -> float:
    """Metres of the body's legs a unit of the file's."""
    legs = [clip.joint(b.format(side=rig.sides[0])) for b in (rig.knee, rig.ankle)]
    ours = np.linalg.norm(rest[J["left_knee"]] - rest[J["left_hip"]])
    ours += np.linalg.norm(rest[J["left_ankle"]] - rest[J["left_knee"]])
    return float(ours / sum(np.linalg.norm(clip.offsets[b]) for b in legs))


def _lowest_ankle(clip: Clip, rig: Rig, rest: Array, J: dict[str, int], world: Array, transl: Array) -> Array:
    """(F,) metres by which the body has to be lifted for its lower ankle to be as high as the recorded one is."""
    theirs, ours = [], []
    scale = _scale(clip, rig, rest, J)
    for side, prefix in zip(("left", "right"), rig.sides, strict=True):
        theirs.append(clip.places[:, clip.joint(rig.ankle.format(side=prefix)), 1] * scale)
        chain = ["pelvis", f"{side}_hip", f"{side}_knee", f"{side}_ankle"]
        height = transl[:, 2] + rest[J["pelvis"], 1]
        for a, b in pairwise(chain):
            height = height + world[:, J[a], 1] @ (rest[J[b]] - rest[J[a]])
        ours.append(height)
    return np.minimum(*theirs) - np.minimum(*ours)
