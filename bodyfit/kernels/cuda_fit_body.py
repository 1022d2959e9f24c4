"""Bodies of a batch of fits on a GPU: shapes, joints' motions, skinned points.

Groups G share a shape, items M are pairs of an instant N and a view U; D meshes of one topology. As `kernels.body`, in
float32 throughout: a point two metres from the camera is right to a micrometre or two.
"""

from __future__ import annotations

import numpy as np

from bodyfit.kernels.cuda_jit import F2, F3, F4, I1, I2, cuda, kernel

ZERO = np.float32(0.0)


@kernel(F3, F4, I1, F2, F3)
def shape_rest(template, shapedirs, mesh_of_group, shape, rest):
    """rest (G, V, 3) = template (D, V, 3) + shapedirs (D, V, 3, S) · shape (G, S) of each group's mesh."""
    n_points = rest.shape[1]
    for i in range(cuda.grid(1), rest.shape[0] * n_points * 3, cuda.gridsize(1)):
        g = i // (n_points * 3)
        at = i - g * n_points * 3
        v = at // 3
        c = at - v * 3
        d = mesh_of_group[g]
        total = ZERO
        for s in range(shape.shape[1]):
            total += shapedirs[d, v, c, s] * shape[g, s]
        rest[g, v, c] = template[d, v, c] + total


@kernel(F4, F3, F2, F3, I1, I1, I1, I1, F4, F3, F3)
def move_joints(
    rotations, R_cw, base, joints, parents, instant_of_item, view_of_item, group_of_item, G, posed, motion
):  # fmt: skip
    """Motions of the joints of every item, seen from its camera.

    rotations (N, J, 3, 3) relative to the parent, R_cw (U, 3, 3) world to camera, base (M, 3) the camera's place of
    the root's translation, joints (G, J, 3) at rest. Fills G (M, J, 3, 3) and posed (M, J, 3), as
    `kernels.body.joint_motions`, and motion (M, J, 12), rows of the map from a rest point to the camera.
    """
    n_joints = joints.shape[1]
    for m in range(cuda.grid(1), G.shape[0], cuda.gridsize(1)):
        n, u, k = instant_of_item[m], view_of_item[m], group_of_item[m]
        for j in range(n_joints):
            p = parents[j]
            for r in range(3):
                place = ZERO
                if p < 0:
                    place = base[m, r]
                    for q in range(3):
                        place += R_cw[u, r, q] * joints[k, j, q]
                else:
                    place = posed[m, p, r]
                    for q in range(3):
                        place += G[m, p, r, q] * (joints[k, j, q] - joints[k, p, q])
                posed[m, j, r] = place
                shift = place
                for c in range(3):
                    turn = ZERO
                    for q in range(3):
                        turn += (R_cw[u, r, q] if p < 0 else G[m, p, r, q]) * rotations[n, j, q, c]
                    G[m, j, r, c] = turn
                    motion[m, j, 4 * r + c] = turn
                    shift -= turn * joints[k, j, c]
                motion[m, j, 4 * r + 3] = shift


@kernel(F4, I1, F3, F4, I1, I1, I1, F4)
def move_joints_by_shape(jointdirs, parents, R_cw, G, view_of_item, group_of_item, mesh_of_group, out):
    """out (M, J, 3, S): how the shape moves a point that hangs rigidly on each joint, beside the point's own shape.

    jointdirs (D, J, 3, S) metres per unit of shape at rest; as `kernels.body.joint_shape_motion`.
    """
    n_joints, n_shape = out.shape[1], out.shape[3]
    for i in range(cuda.grid(1), out.shape[0] * n_shape, cuda.gridsize(1)):
        m = i // n_shape
        s = i - m * n_shape
        u, d = view_of_item[m], mesh_of_group[group_of_item[m]]
        for j in range(n_joints):
            p = parents[j]
            for r in range(3):
                total = ZERO
                if p < 0:
                    for q in range(3):
                        total += R_cw[u, r, q] * jointdirs[d, j, q, s]
                else:
                    total = out[m, p, r, s]
                    for q in range(3):
                        total += G[m, p, r, q] * (jointdirs[d, j, q, s] - jointdirs[d, p, q, s])
                out[m, j, r, s] = total
        for j in range(n_joints):
            for r in range(3):
                total = out[m, j, r, s]
                for q in range(3):
                    total -= G[m, j, r, q] * jointdirs[d, j, q, s]
                out[m, j, r, s] = total


@kernel(F3, I2, F2, F3, I1, F3)
def skin_points(rest, weight_joints, weights, motion, group_of_item, points):
    """points (M, V, 3) in each item's camera: rest (G, V, 3) moved by its joints' motions (M, J, 12).

    weight_joints and weights (V, K), padded with weight 0, as `kernels.body.skin`.
    """
    n_points = points.shape[1]
    for i in range(cuda.grid(1), points.shape[0] * n_points, cuda.gridsize(1)):
        m = i // n_points
        v = i - m * n_points
        k = group_of_item[m]
        x, y, z = rest[k, v, 0], rest[k, v, 1], rest[k, v, 2]
        px, py, pz = ZERO, ZERO, ZERO
        for q in range(weights.shape[1]):
            w = weights[v, q]
            if w == ZERO:
                break
            j = weight_joints[v, q]
            px += w * (motion[m, j, 0] * x + motion[m, j, 1] * y + motion[m, j, 2] * z + motion[m, j, 3])
            py += w * (motion[m, j, 4] * x + motion[m, j, 5] * y + motion[m, j, 6] * z + motion[m, j, 7])
            pz += w * (motion[m, j, 8] * x + motion[m, j, 9] * y + motion[m, j, 10] * z + motion[m, j, 11])
        points[m, v, 0], points[m, v, 1], points[m, v, 2] = px, py, pz
