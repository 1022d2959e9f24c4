"""Triangle meshes as PLY, binary little endian, which every mesh tool opens."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FACE = np.dtype([("n", "u1"), ("ids", "<i4", (3,))])


def ply_bytes(vertices: NDArray[Any], faces: NDArray[Any], comment: str = "") -> bytes:
    """The file of a mesh: vertices (V, 3) metres, stored as float32 in the order given, and faces (F, 3).

    Raises:
        ValueError: an array of another shape, or a vertex that is not finite.
    """
    v, f = np.asarray(vertices), np.asarray(faces)
    if v.ndim != 2 or v.shape[1] != 3 or f.ndim != 2 or f.shape[1] != 3:
        raise ValueError(f"vertices and faces must be (V, 3) and (F, 3), not {v.shape} and {f.shape}")
    if not np.isfinite(v).all():
        raise ValueError("vertices are not finite")
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"comment {line}" for line in comment.encode("ascii", "replace").decode().splitlines()]
    header += [f"element vertex {len(v)}", "property float x", "property float y", "property float z"]
    header += [f"element face {len(f)}", "property list uchar int vertex_indices", "end_header"]
    table = np.empty(len(f), _FACE)
    table["n"], table["ids"] = 3, f
    return "\n".join([*header, ""]).encode("ascii") + v.astype("<f4").tobytes() + table.tobytes()
