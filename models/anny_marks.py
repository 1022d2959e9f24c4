"""Body parts, evidence mask, coarse meshes and landmarks, found on the average adult in the T-pose."""

from __future__ import annotations

import numpy as np
from anny_rig import JOINTS, J

NAVEL = np.array([4100, 4101, 4102, 4103, 4104, 4105, 10730, 10731, 10732])  # the ring that Anny's navel change moves
NIPPLES = {"left": 8522, "right": 1866}
_PARTS = {
    "pelvis": ("pelvis",),
    "abdomen": ("spine1",),
    "chest": ("spine2", "spine3", "left_collar", "right_collar"),
    "neck": ("neck",),
    "head": ("head",),
}
_LIMB_PARTS = {
    "upper_arm": ("shoulder",),
    "forearm": ("elbow",),
    "hand": ("wrist", "hand"),
    "thigh": ("hip",),
    "calf": ("knee",),
    "foot": ("ankle", "foot"),
}


def body_parts(weights: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Part label (V,) uint8 by the dominant skin weight, and the parts' names."""
    parts = dict(_PARTS)
    for side in ("left", "right"):
        parts |= {f"{side}_{n}": tuple(f"{side}_{k}" for k in joints) for n, joints in _LIMB_PARTS.items()}
    names = list(parts)
    of_joint = np.zeros(24, np.uint8)
    for i, joints in enumerate(parts.values()):
        of_joint[[J[k] for k in joints]] = i
    total = np.zeros((len(weights), len(names)))
    for k in range(24):
        total[:, of_joint[k]] += weights[:, k]
    return total.argmax(1).astype(np.uint8), names


def cavity_vertices(faces: np.ndarray, cavity_faces: np.ndarray, n: int) -> np.ndarray:
    """Vertices (n,) bool that only cavity faces use."""
    mask = np.zeros(n, bool)
    mask[faces[cavity_faces]] = True
    mask[faces[~cavity_faces]] = False
    return mask


# --- coarse meshes ---------------------------------------------------------------------------------------------------


def _loops(faces: np.ndarray) -> list[list[int]]:
    """Boundary loops of an open mesh, each in the order that closing faces need."""
    edges = {(int(a), int(b)) for f in faces for a, b in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0]))}
    follow = {b: a for a, b in sorted(edges) if (b, a) not in edges}
    loops = []
    while follow:
        start = min(follow)
        loop, at = [start], follow.pop(start)
        while at != start:
            loop.append(at)
            at = follow.pop(at)
        loops.append(loop)
    return loops


def _cap(points: np.ndarray) -> list[tuple[int, int, int]]:
    """Triangles (indices into points) of least total area that span a closed polygon: Barequet and Sharir, 1995."""
    n = len(points)
    cost, split = np.zeros((n, n)), np.zeros((n, n), int)
    for gap in range(2, n):
        for i in range(n - gap):
            k = i + gap
            m = np.arange(i + 1, k)
            area = np.linalg.norm(np.cross(points[m] - points[i], points[k] - points[i]), axis=1) / 2
            total = cost[i, m] + cost[m, k] + area
            cost[i, k], split[i, k] = total.min(), m[total.argmin()]
    out, stack = [], [(0, n - 1)]
    while stack:
        i, k = stack.pop()
        if k - i >= 2:
            m = int(split[i, k])
            out.append((i, m, k))
            stack += [(i, m), (m, k)]
    return out


def without_cavities(vertices: np.ndarray, faces: np.ndarray, cavity_faces: np.ndarray) -> np.ndarray:
    """Faces with the mouth and the eye sockets cut out and closed by flat lids over their own rims."""
    kept = faces[~cavity_faces]
    lids = [[loop[i] for i in t] for loop in _loops(kept) for t in _cap(vertices[loop])]
    return np.vstack([kept, np.array(lids, faces.dtype)])


def coarse_mesh(vertices: np.ndarray, faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Quadric decimation to about `count` faces, its vertices moved to distinct vertices of the full mesh.

    Returns vertex_ids (V1,) int32 into the full mesh, ascending, and faces (F1, 3) int32 into vertex_ids.
    """
    import open3d as o3d
    from scipy.spatial import KDTree

    mesh = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(vertices), o3d.utility.Vector3iVector(faces))
    mesh.remove_unreferenced_vertices()
    small = mesh.simplify_quadric_decimation(count)
    points, f = np.asarray(small.vertices), np.asarray(small.triangles)
    used = np.unique(faces)
    distance, near = map(np.asarray, KDTree(vertices[used]).query(points, k=16))
    taken: set[int] = set()
    ids = np.full(len(points), -1)
    for i in np.argsort(distance[:, 0], kind="stable"):
        ids[i] = next(c for c in used[near[i]] if int(c) not in taken)
        taken.add(int(ids[i]))
    _unfold(ids, f, points, vertices, used[near])
    f = ids[f]
    keep, index = np.unique(f, return_inverse=True)
    return keep.astype(np.int32), index.reshape(-1, 3).astype(np.int32)


def _unfold(ids: np.ndarray, f: np.ndarray, points: np.ndarray, vertices: np.ndarray, near: np.ndarray) -> None:
    """Move snapped vertices (ids, in place) to other near ones until no face is turned against its unsnapped self."""
    wanted = np.cross(points[f[:, 1]] - points[f[:, 0]], points[f[:, 2]] - points[f[:, 0]])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    around: list[list[int]] = [[] for _ in ids]
    for i, face in enumerate(f):
        for corner in face:
            around[corner].append(i)

    def folded(which: np.ndarray | list[int]) -> np.ndarray:
        t = vertices[ids[f[which]]]
        n = np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0])
        length = np.linalg.norm(n, axis=1)
        return (np.einsum("ij,ij->i", n, wanted[which]) < 0.2 * length) | (length < 1e-8)

    for _ in range(20):
        bad = np.where(folded(np.arange(len(f))))[0]
        if not len(bad):
            return
        taken = set(ids.tolist())
        for corner in np.unique(f[bad]):
            at = ids[corner]
            options = [at, *(int(c) for c in near[corner] if int(c) not in taken)]
            score = []
            for option in options:
                ids[corner] = option
                moved = float(np.linalg.norm(vertices[option] - points[corner]))
                score.append((int(folded(around[corner]).sum()), moved))
            ids[corner] = options[min(range(len(options)), key=score.__getitem__)]
            taken = (taken - {int(at)}) | {int(ids[corner])}


# --- landmarks -------------------------------------------------------------------------------------------------------


def mirror_of(template: np.ndarray) -> np.ndarray:
    """Each vertex's mirror image (V,) on a mesh symmetric about x = 0."""
    from scipy.spatial import KDTree

    distance, index = map(np.asarray, KDTree(template).query(template * (-1, 1, 1)))
    if distance.max() > 2e-3:
        raise RuntimeError(f"the template is not symmetric: {distance.max() * 1e3:.1f} mm")
    return index


def landmarks(
    v: np.ndarray,
    standing: np.ndarray,
    joints: np.ndarray,
    weights: np.ndarray,
    outside: np.ndarray,
    mirror: np.ndarray,
) -> dict[str, np.ndarray]:
    """Landmark name -> vertex indices, on the average adult: v in the T-pose, standing with lowered arms, joints in T.

    Heights that a surface alone does not give (sternal notch, cervicale, acromion, trochanter, knee cap, malleolus)
    are ANSUR II's mean fractions of stature, sexes averaged. outside (V,) bool leaves the cavities out.
    """
    floor, stature = v[:, 1].min(), np.ptp(v[:, 1])
    at = lambda fraction: floor + fraction * stature  # noqa: E731
    x, y, z = v.T
    arm = weights[:, [J[f"left_{n}"] for n in ("shoulder", "elbow", "wrist", "hand")]].sum(1)
    leg = weights[:, [J[f"left_{n}"] for n in ("hip", "knee", "ankle", "foot")]].sum(1)
    head = weights[:, J["head"]]
    trunk = 1 - arm - arm[mirror] - leg - leg[mirror] - head
    middle = outside & (np.abs(x) < 2e-3)
    left = outside & (x > 0)

    def best(where: np.ndarray, score: np.ndarray) -> int:
        index = np.where(where)[0]
        return int(index[score[index].argmin()])

    def level(where: np.ndarray, height: float, band: float = 0.012) -> np.ndarray:
        return where & (np.abs(y - height) < band)

    out: dict[str, list[int]] = {"head_top": [best(outside, -y)]}
    nose = best(middle & (head > 0.5), -z)
    out["nose_tip"] = [nose]
    out["chin"] = [best(middle & (head > 0.3) & (z > z[nose] - 0.042) & (y < y[nose] - 0.03), y)]
    torso = middle & (trunk > 0.5)
    front, back = torso & (z > 0.02), torso & (z < 0.0)
    out["neck_base_front"] = [best(level(front, at(0.8178), 0.02), np.abs(y - at(0.8178)))]
    out["neck_base_back"] = [best(level(back, at(0.8604), 0.02), np.abs(y - at(0.8604)))]
    out["navel"] = list(NAVEL)
    nipple = NIPPLES["left"]
    under = y[nipple] - 0.045 * stature
    out["underbust_front"] = [best(level(front, under, 0.02), np.abs(y - under))]
    out["crotch"] = [best(middle & (trunk + leg + leg[mirror] > 0.9) & (y < 0) & (y > at(0.3)), y)]

    # the side neck point: where the slope of the trapezius begins, just outside the neck's half-width
    halfway = (joints[J["neck"], 1] + joints[J["head"], 1]) / 2
    half_width = x[level(left & (weights[:, J["neck"]] > 0.5), halfway, 0.02)].max()
    slope = left & (np.abs(x - half_width - 0.012) < 0.008) & (head < 0.02)
    sides: dict[str, int] = {"neck_side": best(slope, -y), "bust_point": nipple}
    s, e, w = (joints[J[f"left_{n}"]] for n in ("shoulder", "elbow", "wrist"))
    top = standing[:, 1]
    sides["acromion"] = best(left & (np.abs(x - s[0] - 0.005) < 0.012) & (np.abs(z - s[2]) < 0.05), -top)
    fold = left & (arm > 0.3) & (arm < 0.7)
    sides["axilla"] = best(fold, y)
    sides["axilla_front"] = best(fold & (z > s[2] + 0.035), y)
    sides["axilla_back"] = best(fold & (z < s[2] - 0.035), y)
    torso_left = left & (arm < 0.05) & (leg < 0.5)
    heights = np.arange(at(0.58), at(0.70), 0.01)
    widths = [x[level(torso_left, h, 0.01)].max() for h in heights]
    sides["waist_side"] = best(level(torso_left, heights[int(np.argmin(widths))], 0.01), -x)
    sides["trochanterion"] = best(level(left & (arm < 0.05), at(0.5159), 0.01), -x)
    seat = left & (y < at(0.60)) & (y > at(0.45)) & (arm < 0.05)
    sides["buttock"] = best(seat, z)
    knee = at(0.2768)
    sides["patella"] = best(level(left, knee), -z + 4 * (x - joints[J["left_knee"], 0]) ** 2)
    sides["knee_back"] = best(level(left, knee), z + 4 * (x - joints[J["left_knee"], 0]) ** 2)
    foot = weights[:, [J["left_ankle"], J["left_foot"]]].sum(1)
    sides["lateral_malleolus"] = best(level(left & (z < joints[J["left_ankle"], 2] + 0.03), at(0.040)), -x)
    sides["olecranon"] = best(left & (np.abs(x - e[0]) < 0.012), z + 0.5 * np.abs(y - e[1]))
    sides["ulnar_styloid"] = best(left & (np.abs(x - w[0] + 0.005) < 0.012), z + 0.5 * np.abs(y - w[1]))
    sides["fingertip"] = best(left & (arm > 0.9), -x)
    sides["heel"] = best(left & (foot > 0.5), z)
    sides["toe_tip"] = best(left & (foot > 0.5), -z)
    for name, index in sides.items():
        out[f"left_{name}"], out[f"right_{name}"] = [index], [int(mirror[index])]
    return {k: np.array(i, np.int32) for k, i in out.items()}


def packed(marks: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """landmark_names (L,) and landmark_vertices (L, K) int32 padded with -1."""
    table = np.full((len(marks), max(map(len, marks.values()))), -1, np.int32)
    for row, ids in zip(table, marks.values(), strict=True):
        row[: len(ids)] = ids
    return np.array(list(marks)), table


def perineum_vertices(v: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Vertices in the mid-plane among which the crotch is sought."""
    legs = weights[:, [JOINTS.index(k) for k in ("pelvis", "left_hip", "right_hip", "spine1")]].sum(1)
    height = (v[:, 1] - v[:, 1].min()) / np.ptp(v[:, 1])
    return np.where((np.abs(v[:, 0]) < 2e-3) & (legs > 0.9) & (height > 0.4) & (height < 0.6))[0]


def seat_vertices(v: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Vertices among which the buttocks' greatest protrusion is sought."""
    of = weights[:, [JOINTS.index(k) for k in ("pelvis", "left_hip", "right_hip", "spine1")]].sum(1)
    height = (v[:, 1] - v[:, 1].min()) / np.ptp(v[:, 1])
    return np.where((of > 0.9) & (v[:, 2] < -0.03) & (height > 0.43) & (height < 0.58))[0]
