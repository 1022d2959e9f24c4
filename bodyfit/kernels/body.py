"""Shape, pose and skinning of one body, in plain loops; float32 meshes, float64 joints.

Linear blend skinning as in SMPL (Loper et al. 2015, eqs. 2-4): a vertex is moved by the weighted mean of its joints'
rigid motions about the rest joints. Weights are stored sparse: (V, K) joint numbers and weights, padded with weight 0.
"""

from __future__ import annotations

import numpy as np
from numba import njit

FAST = {"contract", "reassoc", "nsz", "arcp"}
"""Fast-math flags that keep NaN and infinity meaning what they mean."""


@njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def rest_shape(template, shapedirs, betas, out):
    """out (V, 3) = template (V, 3) + shapedirs (V, 3, S) · betas (S,)."""
    n_betas = betas.shape[0]
    for v in range(template.shape[0]):
        for c in range(3):
            acc = np.float32(0.0)
            for s in range(n_betas):
                acc += shapedirs[v, c, s] * betas[s]
            out[v, c] = template[v, c] + acc


@njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def shaped_joints(joint_template, jointdirs, shape, out):
    """out (J, 3) = joint_template (J, 3) + jointdirs (J, 3, S) · shape (S,), float64."""
    for j in range(joint_template.shape[0]):
        for r in range(3):
            acc = joint_template[j, r]
            for s in range(shape.shape[0]):
                acc += jointdirs[j, r, s] * shape[s]
            out[j, r] = acc


@njit(nogil=True, cache=True, forceinline=True)
def joint_motions(rotations, joints, parents, R_cw, t_cw, transl, G, posed):
    """World motion of each joint, seen from a camera.

    rotations (J, 3, 3) relative to the parent, joints (J, 3) at rest, R_cw (3, 3) and t_cw (3,) world to camera;
    fills G (J, 3, 3), the joints' rotations in the camera, and posed (J, 3), the joints' places in the camera.
    SMPL's root sits at its rest place plus transl.
    """
    for j in range(parents.shape[0]):
        p = parents[j]
        if p < 0:
            for r in range(3):
                for c in range(3):
                    acc = 0.0
                    for k in range(3):
                        acc += R_cw[r, k] * rotations[j, k, c]
                    G[j, r, c] = acc
                acc = t_cw[r]
                for k in range(3):
                    acc += R_cw[r, k] * (joints[j, k] + transl[k])
                posed[j, r] = acc
        else:
            for r in range(3):
                for c in range(3):
                    acc = 0.0
                    for k in range(3):
                        acc += G[p, r, k] * rotations[j, k, c]
                    G[j, r, c] = acc
                acc = posed[p, r]
                for k in range(3):
                    acc += G[p, r, k] * (joints[j, k] - joints[p, k])
                posed[j, r] = acc


@njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def skin(rest, weight_joints, weights, G, posed, joints, out):
    """out (V, 3) = rest (V, 3) moved by its joints' motions (G, posed) about the rest joints (J, 3)."""
    n_joints = joints.shape[0]
    motion = np.empty((n_joints, 12), np.float32)
    for j in range(n_joints):
        for r in range(3):
            t = posed[j, r]
            for c in range(3):
                motion[j, 4 * r + c] = G[j, r, c]
                t -= G[j, r, c] * joints[j, c]
            motion[j, 4 * r + 3] = t
    m = np.empty(12, np.float32)
    for v in range(rest.shape[0]):
        for i in range(12):
            m[i] = np.float32(0.0)
        for k in range(weights.shape[1]):
            w = weights[v, k]
            if w == np.float32(0.0):
                break
            j = weight_joints[v, k]
            for i in range(12):
                m[i] += w * motion[j, i]
        x, y, z = rest[v, 0], rest[v, 1], rest[v, 2]
        out[v, 0] = m[0] * x + m[1] * y + m[2] * z + m[3]
        out[v, 1] = m[4] * x + m[5] * y + m[6] * z + m[7]
        out[v, 2] = m[8] * x + m[9] * y + m[10] * z + m[11]


@njit(nogil=True, cache=True, forceinline=True)
def joint_shape_motion(jointdirs, parents, R_cw, G, out):
    """How betas move a point that hangs rigidly on each joint, beside the point's own shape.

    jointdirs (J, 3, S) metres per beta at rest; out (J, 3, S) = d(posed joint)/d(beta) - G d(rest joint)/d(beta).
    """
    n_joints, _, n_betas = jointdirs.shape
    for j in range(n_joints):
        p = parents[j]
        for r in range(3):
            for s in range(n_betas):
                acc = 0.0
                if p < 0:
                    for k in range(3):
                        acc += R_cw[r, k] * jointdirs[j, k, s]
                else:
                    acc = out[p, r, s]
                    for k in range(3):
                        acc += G[p, r, k] * (jointdirs[j, k, s] - jointdirs[p, k, s])
                out[j, r, s] = acc
    for j in range(n_joints):
        for r in range(3):
            for s in range(n_betas):
                acc = 0.0
                for k in range(3):
                    acc += G[j, r, k] * jointdirs[j, k, s]
                out[j, r, s] -= acc


@njit(nogil=True, cache=True, fastmath=FAST)
def vertex_normals(vertices, faces, out):
    """Area-weighted unit normals out (V, 3) of a mesh; zero where a vertex has no face."""
    out[:] = np.float32(0.0)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        e0x, e0y, e0z = (
            vertices[b, 0] - vertices[a, 0],
            vertices[b, 1] - vertices[a, 1],
            vertices[b, 2] - vertices[a, 2],
        )
        e1x, e1y, e1z = (
            vertices[c, 0] - vertices[a, 0],
            vertices[c, 1] - vertices[a, 1],
            vertices[c, 2] - vertices[a, 2],
        )
        nx, ny, nz = e0y * e1z - e0z * e1y, e0z * e1x - e0x * e1z, e0x * e1y - e0y * e1x
        for i in (a, b, c):
            out[i, 0] += nx
            out[i, 1] += ny
            out[i, 2] += nz
    for v in range(out.shape[0]):
        n = np.sqrt(out[v, 0] ** 2 + out[v, 1] ** 2 + out[v, 2] ** 2)
        if n > 0:
            for i in range(3):
                out[v, i] /= n
