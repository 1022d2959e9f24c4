"""SMPL's 24 joints on Anny's body: skin weights, T-pose, joint regressor. numpy and scipy only."""

from __future__ import annotations

import numpy as np

JOINTS = (
    "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 left_foot right_foot "
    "neck left_collar right_collar head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
    "left_hand right_hand"
).split()
PARENTS = np.array([-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21])
J = {name: i for i, name in enumerate(JOINTS)}

# The bone whose head is the joint, and the bones whose skin weight it takes (prefixes; S stands for the side).
_TRUNK = {
    "pelvis": ("root", ("root", "pelvis.", "spine05")),
    "spine1": ("spine04", ("spine04", "spine03")),
    "spine2": ("spine02", ("spine02",)),
    "spine3": ("spine01", ("spine01",)),
    "neck": ("neck01", ("neck01", "neck02", "neck03")),
    "head": ("head", ("head", "eye.")),
}
_LIMB = {
    "hip": ("upperleg01", ("upperleg01", "upperleg02")),
    "knee": ("lowerleg01", ("lowerleg01", "lowerleg02")),
    "ankle": ("foot", ("foot",)),
    "foot": ("toe2-1", ("toe",)),
    "collar": ("clavicle", ("clavicle", "shoulder01")),
    "shoulder": ("upperarm01", ("upperarm01", "upperarm02")),
    "elbow": ("lowerarm01", ("lowerarm01", "lowerarm02")),
    "wrist": ("wrist", ("wrist", "metacarpal")),
    "hand": ("finger3-1", ("finger",)),
}


def joint_bones(bone_labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Index of each joint's bone (24,), and the joint every Anny bone belongs to (K,)."""
    head = np.zeros(24, int)
    owner = np.full(len(bone_labels), -1)
    table = [(name, bone, prefixes, "") for name, (bone, prefixes) in _TRUNK.items()]
    for side, letter in (("left", ".L"), ("right", ".R")):
        table += [(f"{side}_{name}", bone + letter, pre, letter) for name, (bone, pre) in _LIMB.items()]
    for name, bone, prefixes, letter in table:
        head[J[name]] = bone_labels.index(bone)
        for i, label in enumerate(bone_labels):
            if label.startswith(tuple(prefixes)) and (not letter or label.endswith(letter)):
                owner[i] = J[name]
    if (owner < 0).any():
        raise RuntimeError(f"bones without a joint: {[b for b, o in zip(bone_labels, owner, strict=True) if o < 0]}")
    return head, owner


def joint_weights(vertex_bone_weights: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Skin weights (V, 24): Anny's summed per joint, below 1e-4 dropped, rows renormalised."""
    w = np.zeros((len(vertex_bone_weights), 24))
    for bone, joint in enumerate(owner):
        w[:, joint] += vertex_bone_weights[:, bone]
    w[w < 1e-4] = 0
    w = (w / w.sum(1, keepdims=True)).astype(np.float32)
    return w / w.sum(1, keepdims=True)


def is_below(joint: int, other: int) -> bool:
    """Whether `other` is `joint` or one of its descendants."""
    while other > joint:
        other = int(PARENTS[other])
    return other == joint


def rotation_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The least rotation taking direction a (..., 3) to direction b (3,), as matrices (..., 3, 3)."""
    a = a / np.linalg.norm(a, axis=-1, keepdims=True)
    b = np.broadcast_to(b / np.linalg.norm(b), a.shape)
    c = np.cross(a, b)
    k = np.zeros((*a.shape, 3))
    k[..., 0, 1], k[..., 0, 2], k[..., 1, 2] = -c[..., 2], c[..., 1], -c[..., 0]
    k -= np.swapaxes(k, -1, -2)
    cos = np.einsum("...i,...i->...", a, b)[..., None, None]
    return np.eye(3) + k + k @ k / (1 + cos)


def axis_rotation(axis: int, angle: float) -> np.ndarray:
    """Rotation (3, 3) by an angle in radians about a coordinate axis."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    r = np.eye(3)
    r[i, i], r[i, j], r[j, i], r[j, j] = c, -s, s, c
    return r


def skinning(weights: np.ndarray, joints: np.ndarray, target: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Per-vertex blended transforms (V, 3, 4) of joints (24, 3) moved to target with global rotations (24, 3, 3)."""
    g = np.concatenate([rotation, (target - np.einsum("kij,kj->ki", rotation, joints))[..., None]], -1)
    return (weights @ g.reshape(24, 12)).reshape(-1, 3, 4)


def chain(joints: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Joint positions (24, 3) after global rotations (24, 3, 3); the root stays."""
    out = joints.copy()
    for k in range(1, 24):
        out[k] = out[PARENTS[k]] + rotation[PARENTS[k]] @ (joints[k] - joints[PARENTS[k]])
    return out


COLLAR_LIFT = np.radians(8.0)  # share of the arm's rise that the shoulder girdle takes
LEG_SPLAY = 0.026  # sideways run of the leg per length in SMPL's T-pose
_UP, _LEFT = np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])


def t_pose_rotations(joints: np.ndarray, knuckles: np.ndarray) -> np.ndarray:
    """Global rotations (24, 3, 3) that bring one unposed Anny body into SMPL's T-pose.

    joints (24, 3): its joints in Anny's rest pose (arms in an A, elbows bent, legs apart); knuckles (2, 3): per side
    the mean direction from little to index knuckle, which tells how the palm is turned. Trunk, head and feet stay; arms
    go along x with straight elbows and palms down; legs come together without bending the knee.
    """
    h = np.tile(np.eye(3), (24, 1, 1))
    for side, sign, letter in (("left", 1.0, 0), ("right", -1.0, 1)):
        k = [J[f"{side}_{n}"] for n in ("collar", "shoulder", "elbow", "wrist", "hand")]
        out = _LEFT * sign
        h[k[0]] = axis_rotation(2, sign * COLLAR_LIFT)
        for a, b, c in ((k[0], k[1], k[2]), (k[1], k[2], k[3]), (k[2], k[3], k[4])):
            h[b] = rotation_between(h[a] @ (joints[c] - joints[b]), out) @ h[a]
        across = h[k[3]] @ knuckles[letter]  # little finger -> index, wanted along +z
        roll = axis_rotation(0, np.arctan2(across[1], across[2]))
        h[k[3]] = roll @ h[k[3]]
        h[k[4]] = h[k[3]]
        leg = joints[J[f"{side}_ankle"]] - joints[J[f"{side}_hip"]]
        now = np.arctan2(leg[0] * sign, -leg[1])
        swing = axis_rotation(2, -sign * (now - np.arctan(LEG_SPLAY)))
        h[J[f"{side}_hip"]] = h[J[f"{side}_knee"]] = swing
    return h


def unpose(vertices: np.ndarray, joints: np.ndarray, knuckles: np.ndarray, weights: np.ndarray):
    """One Anny body in the T-pose, pelvis joint at the origin: vertices (V, 3), joints (24, 3), rotations (24, 3, 3).

    The vertices are those that linear blend skinning with these weights takes back to the unposed Anny body exactly
    (each vertex's blended T-to-A matrix is inverted), so nothing is lost at the shoulders by going to T and back.
    """
    h = t_pose_rotations(joints, knuckles)
    t = chain(joints, h)
    m = skinning(weights, t, joints, np.swapaxes(h, 1, 2))
    a, b = m[:, :, :3], vertices - m[:, :, 3]
    adjugate = np.stack([np.cross(a[:, 1], a[:, 2]), np.cross(a[:, 2], a[:, 0]), np.cross(a[:, 0], a[:, 1])], -1)
    det = np.einsum("vi,vi->v", a[:, 0], adjugate[:, :, 0])
    v = np.einsum("vij,vj->vi", adjugate, b) / det[:, None]
    return v - t[0], t - t[0], h


def local_rotations(h: np.ndarray) -> np.ndarray:
    """Joint rotations (24, 3, 3) relative to the parent of global rotations (24, 3, 3)."""
    return np.array([h[k] if k == 0 else h[PARENTS[k]].T @ h[k] for k in range(24)])


def pose(vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, local: np.ndarray) -> np.ndarray:
    """Skinned vertices (V, 3) of a T-posed body for local rotations (24, 3, 3): SMPL's forward kinematics."""
    h = np.empty((24, 3, 3))
    for k in range(24):
        h[k] = local[k] if k == 0 else h[PARENTS[k]] @ local[k]
    m = skinning(weights, joints, chain(joints, h), h)
    return np.einsum("vij,vj->vi", m[:, :, :3], vertices) + m[:, :, 3]


def joint_regressor(
    vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, ridge: float = 5e-8, most: int = 400
) -> np.ndarray:
    """J_regressor (24, V): signed ridge regression of joints (N, 24, 3) on nearby vertices (N, V, 3), rows sum to 1.

    Only vertices that follow the joint or its parent and lie nearest to it on the mean body take part. The sum is kept
    at 1 by regressing differences from the candidates' centroid.
    """
    mean_v, mean_j = vertices.mean(0), joints.mean(0)
    out = np.zeros((24, vertices.shape[1]), np.float64)
    for k in range(24):
        family = weights[:, k] + (weights[:, PARENTS[k]] if k else weights[:, 1] + weights[:, 2] + weights[:, 3])
        near = np.linalg.norm(mean_v - mean_j[k], axis=1)
        pool = np.where(family > 0.2)[0]
        pool = pool[np.argsort(near[pool], kind="stable")]
        # spread over the neighbourhood: every n-th of the nearest fifth of the body or of all there are
        pool = np.sort(pool[: 3 * most][:: max(1, min(len(pool), 3 * most) // most)])
        x = vertices[:, pool].astype(np.float64)
        centre = x.mean(1, keepdims=True)
        a = (x - centre).transpose(0, 2, 1).reshape(-1, len(pool))
        y = (joints[:, k] - centre[:, 0]).reshape(-1)
        gram = a.T @ a / len(a)
        w = np.linalg.solve(gram + ridge * np.eye(len(pool)), a.T @ y / len(a))
        out[k, pool] = w - w.mean() + 1 / len(pool)
    return out / out.sum(1, keepdims=True)
