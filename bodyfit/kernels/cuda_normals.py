"""Area normals about the vertices of a batch of meshes, on a GPU: `cpu_layers.sum_normals` with a thread per face."""

from __future__ import annotations

from bodyfit.kernels.cuda_jit import F3, I2, cuda, kernel
from bodyfit.kernels.scalar import area_normal, area_normal_vjp


@kernel(F3, I2, F3)
def sum_normals(points, faces, normals):
    """normals (B, V, 3), which come 0, = sum of the area normals of the faces (F, 3) about each vertex."""
    n_faces = faces.shape[0]
    for i in range(cuda.grid(1), points.shape[0] * n_faces, cuda.gridsize(1)):
        image = i // n_faces
        f = i - image * n_faces
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x, y, z = area_normal(
            points[image, a, 0], points[image, a, 1], points[image, a, 2],
            points[image, b, 0], points[image, b, 1], points[image, b, 2],
            points[image, c, 0], points[image, c, 1], points[image, c, 2],
        )  # fmt: skip
        for k in (a, b, c):
            cuda.atomic.add(normals, (image, k, 0), x)
            cuda.atomic.add(normals, (image, k, 1), y)
            cuda.atomic.add(normals, (image, k, 2), z)


@kernel(F3, I2, F3, F3)
def sum_normals_vjp(points, faces, v_normals, v_points):
    """Adds to v_points (B, V, 3)."""
    n_faces = faces.shape[0]
    for i in range(cuda.grid(1), points.shape[0] * n_faces, cuda.gridsize(1)):
        image = i // n_faces
        f = i - image * n_faces
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        g = area_normal_vjp(
            points[image, a, 0], points[image, a, 1], points[image, a, 2],
            points[image, b, 0], points[image, b, 1], points[image, b, 2],
            points[image, c, 0], points[image, c, 1], points[image, c, 2],
            v_normals[image, a, 0] + v_normals[image, b, 0] + v_normals[image, c, 0],
            v_normals[image, a, 1] + v_normals[image, b, 1] + v_normals[image, c, 1],
            v_normals[image, a, 2] + v_normals[image, b, 2] + v_normals[image, c, 2],
        )  # fmt: skip
        cuda.atomic.add(v_points, (image, a, 0), g[0])
        cuda.atomic.add(v_points, (image, a, 1), g[1])
        cuda.atomic.add(v_points, (image, a, 2), g[2])
        cuda.atomic.add(v_points, (image, b, 0), g[3])
        cuda.atomic.add(v_points, (image, b, 1), g[4])
        cuda.atomic.add(v_points, (image, b, 2), g[5])
        cuda.atomic.add(v_points, (image, c, 0), g[6])
        cuda.atomic.add(v_points, (image, c, 1), g[7])
        cuda.atomic.add(v_points, (image, c, 2), g[8])
