"""A motion as GLB (glTF 2.0, binary): the person's mesh on their skeleton, and one animation.

Metres; glTF's y is up, so the scene's one root node turns the world, whose z is up. Joints' nodes stand in the first
frame's pose, the mesh in the rest pose, as skinning wants it. The formats: Khronos, glTF 2.0 specification, 3.7 (meshes
and skins), 3.11 (animations), 4 (the file).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import InputError
from bodyfit.export.motion import Motion, motion_of, quaternions

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.result import FitResult

FILE_NAME = "motion.glb"
SKIN = (0.78, 0.62, 0.52, 1.0)
_FLOAT, _U8, _U16, _U32 = 5126, 5121, 5123, 5125
_ARRAY, _INDICES = 34962, 34963
_SHAPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


@dataclass(frozen=True, eq=False)
class Texture:
    """The colours of a surface as a picture.

    Attributes:
        image: the file's bytes, PNG or JPEG.
        uv: (N, 2) places in the picture, 0 to 1, v down from its upper edge, as in glTF.
        faces: (F, 3) which of `uv` belongs to each corner of the body's faces.
    """

    image: bytes
    uv: NDArray[np.floating]
    faces: NDArray[np.integer]


def glb_bytes(
    result: FitResult,
    *,
    colors: NDArray[np.floating] | None = None,
    texture: Texture | None = None,
    influences: int = 8,
) -> bytes:
    """The file of a result's motion: mesh, skeleton, weights, and keys at the frames' times.

    Times count from the first frame. A body with pose-dependent corrections (SMPL's posedirs) is written without them,
    since skinning knows none; `asset.extras` says so.

    Args:
        colors: (V, 3) linear light 0 to 1, one per vertex.
        texture: instead of, or multiplied by, the vertices' colours.
        influences: joints a vertex may follow: 8, or 4 for programs that read one set of weights. A vertex that has
            more keeps the largest, in proportion.

    Raises:
        InputError: see `bodyfit.export.motion.motion_of`; or colours, texture or influences that do not fit the body.
    """
    if influences not in (4, 8):
        raise InputError("influences", "4 or 8", str(influences))
    motion = motion_of(result)
    model = result.model
    file = _File()
    vertices = result.rest_vertices().astype(np.float32)
    source, faces, uv = _split(model, texture)
    attributes = {
        "POSITION": file.add(vertices[source], _ARRAY, bounds=True),
        "NORMAL": file.add(_normals(vertices, model.faces)[source], _ARRAY),
    }
    if uv is not None:
        attributes["TEXCOORD_0"] = file.add(uv, _ARRAY)
    if colors is not None:
        attributes["COLOR_0"] = file.add(_color_words(model, colors)[source], _ARRAY, normalized=True)
    joints, weights = skin_weights(model, influences)
    for k in range(joints.shape[1] // 4):
        attributes[f"JOINTS_{k}"] = file.add(joints[source, 4 * k : 4 * k + 4], _ARRAY)
        attributes[f"WEIGHTS_{k}"] = file.add(weights[source, 4 * k : 4 * k + 4], _ARRAY)
    indices = file.add(faces.reshape(-1).astype(np.uint32 if len(source) > 65535 else np.uint16), _INDICES)

    J = model.num_joints
    bind = np.tile(np.eye(4, dtype=np.float32), (J, 1, 1))
    bind[:, :3, 3] = -motion.rest_joints
    inverse_bind = file.add(np.swapaxes(bind, 1, 2).reshape(J, 16))  # by columns
    turns = quaternions(motion)
    material, pictures = _material(file, texture, colors)
    document: dict[str, Any] = {
        "asset": {
            "version": "2.0",
            "generator": f"bodyfit {_version()}",
            "extras": _about(model, motion.frame_indices.tolist()),
        },
        "scene": 0,
        "scenes": [{"name": "motion", "nodes": [0, J + 1]}],
        "nodes": [*_skeleton(motion, turns[0]), {"name": "body", "mesh": 0, "skin": 0}],
        "meshes": [
            {"name": "body", "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]},
        ],
        "skins": [{"name": "skeleton", "joints": list(range(1, J + 1)), "inverseBindMatrices": inverse_bind}],
        "materials": [material],
        "animations": [_animation(file, motion, turns)],
        **pictures,
    }
    return file.bytes_with(document)


def skin_weights(model: BodyModel, influences: int) -> tuple[NDArray[np.integer], NDArray[np.float32]]:
    """Joints (V, K) and weights (V, K) with K = 4 or 8, the largest first; each row of weights sums to one."""
    joints, weights = model.sparse_weights
    K = 4 if influences == 4 or joints.shape[1] <= 4 else 8
    w = np.zeros((model.num_vertices, K))
    kept = min(K, joints.shape[1])
    w[:, :kept] = weights[:, :kept]
    j = np.zeros((model.num_vertices, K), np.uint8 if model.num_joints <= 256 else np.uint16)
    j[:, :kept] = joints[:, :kept]
    out = (w / w.sum(1, keepdims=True)).astype(np.float32)
    out[:, 0] += (1 - out.astype(np.float64).sum(1)).astype(np.float32)
    j[out == 0] = 0  # the format wants joint 0 where nothing follows it
    return j, out


def _animation(file: _File, motion: Motion, turns: NDArray[np.float64]) -> dict[str, Any]:
    """Keys for the root's place and for each joint's rotation, interpolated linearly (along great circles)."""
    seconds = file.add((motion.timestamps_s - motion.timestamps_s[0]).astype(np.float32)[:, None], bounds=True)
    outputs = [(1, "translation", file.add(motion.root_world.astype(np.float32)))]
    outputs += [(j + 1, "rotation", file.add(turns[:, j].astype(np.float32))) for j in range(turns.shape[1])]
    return {
        "name": "motion",
        "samplers": [{"input": seconds, "interpolation": "LINEAR", "output": o} for _, _, o in outputs],
        "channels": [
            {"sampler": i, "target": {"node": node, "path": path}} for i, (node, path, _) in enumerate(outputs)
        ],
    }


def _skeleton(motion: Motion, turns: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The node that turns the world upright, and one node a joint in the first frame's pose."""
    half = float(np.sqrt(0.5))
    nodes: list[dict[str, Any]] = [{"name": "world_z_up", "rotation": [-half, 0.0, 0.0, half], "children": [1]}]
    places = motion.offsets.copy()
    places[0] = motion.root_world[0]
    for j, name in enumerate(motion.joint_names):
        node: dict[str, Any] = {"name": name, "translation": places[j].tolist(), "rotation": turns[j].tolist()}
        children = [int(c) + 1 for c in np.flatnonzero(motion.parents == j)]
        nodes.append({**node, "children": children} if children else node)
    return nodes


def _split(
    model: BodyModel, texture: Texture | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32] | None]:
    """The body's vertex behind each written one, the faces of those, and their places in the picture.

    glTF has one place in the picture per vertex: along the seams of a texture vertices are written several times.
    """
    if texture is None:
        return np.arange(model.num_vertices), model.faces.astype(np.int64), None
    uv, faces = np.asarray(texture.uv, np.float32), np.asarray(texture.faces)
    if not texture.image.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        raise InputError("texture.image", "a PNG or JPEG file", repr(bytes(texture.image[:8])))
    if uv.ndim != 2 or uv.shape[1] != 2 or not np.isfinite(uv).all():
        raise InputError("texture.uv", "finite numbers of shape (N, 2)", f"{uv.dtype} of shape {uv.shape}")
    if faces.shape != model.faces.shape:
        raise InputError("texture.faces", f"the body's faces' shape {model.faces.shape}", str(faces.shape))
    if faces.min() < 0 or faces.max() >= len(uv):
        raise InputError("texture.faces", f"numbers from 0 to {len(uv) - 1}", f"{faces.min()} to {faces.max()}")
    key = model.faces.astype(np.int64) * len(uv) + faces
    pairs, corner = np.unique(key.reshape(-1), return_inverse=True)
    return pairs // len(uv), corner.reshape(-1, 3), uv[pairs % len(uv)]


def _color_words(model: BodyModel, colors: NDArray[np.floating]) -> NDArray[np.uint16]:
    """(V, 4) of 16 bits: 8 would show steps in linear light's darks."""
    c = np.asarray(colors, np.float64)
    if c.shape != (model.num_vertices, 3):
        raise InputError("colors", f"shape ({model.num_vertices}, 3)", str(c.shape))
    if not np.isfinite(c).all():
        raise InputError("colors", "finite numbers", "NaN or infinity")
    words = np.full((len(c), 4), 65535, np.uint16)
    words[:, :3] = np.rint(np.clip(c, 0, 1) * 65535)
    return words


def _material(
    file: _File, texture: Texture | None, colors: NDArray[np.floating] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The material, and the picture that it shows."""
    surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 0.8}
    if texture is None:
        surface["baseColorFactor"] = list(SKIN) if colors is None else [1.0] * 4
        return {"name": "body", "pbrMetallicRoughness": surface}, {}
    surface["baseColorTexture"] = {"index": 0}
    kind = "image/png" if texture.image.startswith(b"\x89PNG") else "image/jpeg"
    pictures = {
        "images": [{"bufferView": file.view(texture.image), "mimeType": kind}],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "textures": [{"sampler": 0, "source": 0}],
    }
    return {"name": "body", "pbrMetallicRoughness": surface}, pictures


def _about(model: BodyModel, frames: list[int]) -> dict[str, Any]:
    about = {"body_model": model.name, "body_model_sha256": model.sha256, "frame_indices": frames}
    if model.posedirs is not None:
        about["left_out"] = "pose-dependent corrections of the surface (posedirs)"
    return about


def _normals(vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> NDArray[np.float32]:
    from bodyfit.kernels.body import vertex_normals

    normals = np.empty_like(vertices)
    vertex_normals(vertices, faces, normals)
    normals[np.linalg.norm(normals, axis=1) < 0.5] = (0.0, 1.0, 0.0)  # on no face: the format wants unit length
    return normals


def _version() -> str:
    from bodyfit import __version__

    return __version__


@dataclass
class _File:
    """The binary part of the file as it grows, and the table of what lies where."""

    data: bytearray = field(default_factory=bytearray)
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)

    def view(self, content: bytes, target: int | None = None) -> int:
        """Number of a new view of these bytes, which begin at a multiple of four."""
        self.data.extend(b"\0" * (-len(self.data) % 4))
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(content)}
        self.views.append(view if target is None else {**view, "target": target})
        self.data.extend(content)
        return len(self.views) - 1

    def add(
        self, array: NDArray[Any], target: int | None = None, *, bounds: bool = False, normalized: bool = False
    ) -> int:
        """Number of a new accessor of an array (N,) or (N, C)."""
        table = array.reshape(len(array), -1)
        kind = {"f4": _FLOAT, "u1": _U8, "u2": _U16, "u4": _U32}[table.dtype.str[1:]]
        content = np.ascontiguousarray(table, table.dtype.newbyteorder("<")).tobytes()
        accessor: dict[str, Any] = {
            "bufferView": self.view(content, target),
            "componentType": kind,
            "count": len(table),
            "type": _SHAPES[table.shape[1]],
        }
        if bounds:
            accessor |= {"min": table.min(0).tolist(), "max": table.max(0).tolist()}
        if normalized:
            accessor["normalized"] = True
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def bytes_with(self, document: dict[str, Any]) -> bytes:
        """The whole file: header, JSON chunk padded with spaces, binary chunk padded with zeros."""
        self.data.extend(b"\0" * (-len(self.data) % 4))
        document |= {
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [{"byteLength": len(self.data)}],
        }
        text = json.dumps(document, sort_keys=True, allow_nan=False, separators=(",", ":")).encode("ascii")
        text += b" " * (-len(text) % 4)
        size = 12 + 8 + len(text) + 8 + len(self.data)
        head = struct.pack("<4sII", b"glTF", 2, size) + struct.pack("<I4s", len(text), b"JSON")
        return head + text + struct.pack("<I4s", len(self.data), b"BIN\0") + bytes(self.data)
