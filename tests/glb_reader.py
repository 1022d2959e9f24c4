"""Reads a skinned GLB as its specification says, and poses it: what a viewer shows, from the file's bytes alone."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES = {5126: "<f4", 5121: "<u1", 5123: "<u2", 5125: "<u4"}
_COUNTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


@dataclass
class Glb:
    document: dict[str, Any]
    binary: bytes

    @staticmethod
    def of(data: bytes) -> Glb:
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        chunks, at = {}, 12
        while at < len(data):
            size, kind = struct.unpack_from("<I4s", data, at)
            assert size % 4 == 0
            chunks[kind] = data[at + 8 : at + 8 + size]
            at += 8 + size
        return Glb(json.loads(chunks[b"JSON"]), chunks[b"BIN\0"])

    def array(self, accessor: int) -> NDArray[Any]:
        a = self.document["accessors"][accessor]
        view = self.document["bufferViews"][a["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        n = _COUNTS[a["type"]]
        data = np.frombuffer(self.binary, _TYPES[a["componentType"]], a["count"] * n, view["byteOffset"])
        table = data.reshape(a["count"], n)
        if "min" in a:
            np.testing.assert_array_equal(table.min(0), np.array(a["min"], table.dtype))
            np.testing.assert_array_equal(table.max(0), np.array(a["max"], table.dtype))
        return table

    @property
    def attributes(self) -> dict[str, NDArray[Any]]:
        (primitive,) = self.document["meshes"][0]["primitives"]
        return {name: self.array(i) for name, i in primitive["attributes"].items()}

    @property
    def faces(self) -> NDArray[np.int64]:
        (primitive,) = self.document["meshes"][0]["primitives"]
        return self.array(primitive["indices"]).reshape(-1, 3).astype(np.int64)

    def times(self) -> NDArray[np.float64]:
        return self.array(self.document["animations"][0]["samplers"][0]["input"])[:, 0].astype(np.float64)

    def nodes_at(self, seconds: float) -> list[NDArray[np.float64]]:
        """(4, 4) of each node in the scene at a time, keys interpolated."""
        local = [dict(node) for node in self.document["nodes"]]
        animation = self.document["animations"][0]
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            assert sampler["interpolation"] == "LINEAR"
            t, keys = self.array(sampler["input"])[:, 0], self.array(sampler["output"]).astype(np.float64)
            k = int(np.clip(np.searchsorted(t, np.float32(seconds), side="right") - 1, 0, max(len(t) - 2, 0)))
            u = 0.0 if len(t) == 1 else float(np.clip((seconds - t[k]) / (t[k + 1] - t[k]), 0, 1))
            path, a, b = channel["target"]["path"], keys[k], keys[min(k + 1, len(keys) - 1)]
            local[channel["target"]["node"]][path] = _slerp(a, b, u) if path == "rotation" else a * (1 - u) + b * u
        out = [np.eye(4) for _ in local]

        def visit(i: int, above: NDArray[np.float64]) -> None:
            own = np.eye(4)
            own[:3, :3] = _matrix(np.asarray(local[i].get("rotation", (0, 0, 0, 1)), np.float64))
            own[:3, 3] = local[i].get("translation", (0, 0, 0))
            out[i] = above @ own
            for child in local[i].get("children", ()):
                visit(child, out[i])

        for root in self.document["scenes"][0]["nodes"]:
            visit(root, np.eye(4))
        return out

    def vertices_at(self, seconds: float, sets: int = 2) -> NDArray[np.float64]:
        """(V, 3) in glTF's axes, by the skinning equation; `sets` of weights are looked at, as viewers do."""
        nodes, skin, a = self.nodes_at(seconds), self.document["skins"][0], self.attributes
        bind = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).astype(np.float64)
        moves = np.stack([nodes[j] @ b.T for j, b in zip(skin["joints"], bind, strict=True)])
        points = np.concatenate([a["POSITION"], np.ones((len(a["POSITION"]), 1))], 1)
        used = [k for k in range(sets) if f"JOINTS_{k}" in a]
        total = sum(a[f"WEIGHTS_{k}"].sum(1, dtype=np.float64) for k in used)
        out = np.zeros((len(points), 3))
        for k in used:
            for c in range(4):
                w = a[f"WEIGHTS_{k}"][:, c].astype(np.float64) / total
                out += w[:, None] * np.einsum("vij,vj->vi", moves[a[f"JOINTS_{k}"][:, c]], points)[:, :3]
        return out


def to_world(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """glTF's y-up coordinates to z-up ones."""
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], 1)


def _slerp(a: NDArray[np.float64], b: NDArray[np.float64], u: float) -> NDArray[np.float64]:
    d = float(a @ b)
    b, d = (b, d) if d >= 0 else (-b, -d)
    angle = np.arccos(min(d, 1.0))
    q = a if angle < 1e-9 else (np.sin((1 - u) * angle) * a + np.sin(u * angle) * b) / np.sin(angle)
    return q / np.linalg.norm(q)


def _matrix(q: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z, w = q
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
