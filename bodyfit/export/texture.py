"""A person's colours for files: one per vertex, and as a picture on a map of the body's surface.

The map (`Atlas`) comes from the body alone: every part's faces are sorted by which of the six axes they face most at
rest, and each such chart is laid flat along that axis, so that nothing is stretched by more than 1/cos 55°. Charts are
packed in rows, largest first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.camera import Camera
from bodyfit.errors import InputError
from bodyfit.fit.appearance import Appearance
from bodyfit.kernels.photometric import GAMMA
from bodyfit.render.rasterize import rasterize

GAP_PX = 3
"""texels between charts, so that a renderer's filter does not mix them"""
NEIGHBOURS = 6
_AXES = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)


@dataclass(frozen=True)
class Atlas:
    """uv (N, 2) places in the picture, 0 to 1, v down from its upper edge; faces (F, 3): which belongs to each corner
    of the body's faces; size: texels along a side of the picture, for which the gaps between charts were laid out."""

    uv: NDArray[np.float32]
    faces: NDArray[np.int32]
    size: int


@dataclass(frozen=True)
class PersonTexture:
    """image (size, size, 3) uint8 sRGB on an atlas; known (size, size) bool: what a camera saw, the rest is filled."""

    image: NDArray[np.uint8]
    known: NDArray[np.bool_]
    atlas: Atlas

    def png(self) -> bytes:
        """The picture's file."""
        import cv2

        done, data = cv2.imencode(".png", cv2.cvtColor(self.image, cv2.COLOR_RGB2BGR))
        if not done:
            raise InputError("texture", "a picture that can be written as PNG", str(self.image.shape))
        return data.tobytes()


def body_atlas(model: BodyModel, size: int = 1024) -> Atlas:
    """The map of a body's surface in a picture of size x size texels; the same for the same body.

    Raises:
        InputError: a picture smaller than 128 texels.
    """
    if size < 128:
        raise InputError("size", "at least 128 texels", str(size))
    v = model.v_template.astype(np.float64)
    corner = v[model.faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    facing = (normal @ _AXES.T).argmax(1)
    part = np.zeros(len(model.faces), np.int64)
    if model.part_labels is not None:
        part = np.median(model.part_labels[model.faces], axis=1).astype(np.int64)
    chart = part * 6 + facing
    names = np.unique(chart)
    boxes, flat, ids = [], [], []
    for name in names:
        faces = model.faces[chart == name]
        used, corners = np.unique(faces, return_inverse=True)
        across = [i for i in range(3) if i != (name % 6) // 2]
        # the body's height runs down the picture where a chart has it
        p = v[used][:, across] * (np.array([1.0, -1.0]) if across[1] == 1 else np.array([1.0, 1.0]))
        flat.append(p - p.min(0))
        ids.append(corners.reshape(-1, 3))
        boxes.append(np.ptp(p, axis=0))
    scale, places = _packed(np.array(boxes), size)
    uv, faces = np.empty((sum(map(len, flat)), 2), np.float32), np.empty_like(model.faces)
    start = 0
    for name, p, corners, at in zip(names, flat, ids, places, strict=True):
        uv[start : start + len(p)] = (p * scale + at + 0.5) / size
        faces[chart == name] = corners + start
        start += len(p)
    return Atlas(uv, faces, size)


def _packed(boxes: NDArray[np.float64], size: int) -> tuple[float, NDArray[np.float64]]:
    """Texels per metre, and the upper left corner (C, 2) in texels of each chart: rows of charts, highest first."""
    order = np.argsort(-boxes[:, 1], kind="stable")

    def lay(scale: float) -> NDArray[np.float64] | None:
        at = np.empty_like(boxes)
        x, y, row = GAP_PX, GAP_PX, 0.0
        for c in order:
            w, h = boxes[c] * scale
            if x + w + GAP_PX > size:
                x, y, row = GAP_PX, y + row + GAP_PX, 0.0
            if x + w + GAP_PX > size or y + h + GAP_PX > size:
                return None
            at[c] = x, y
            x, row = x + w + GAP_PX, max(row, h)
        return at

    low, high = 0.0, size / float(boxes.max())
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if lay(middle) is not None else (low, middle)
    places = lay(low)
    assert places is not None
    return low, places


def _spread(appearance: Appearance, places: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Display values (n, 3) at places (n, 3) on the resting body, from the nearest points that have been seen, and
    whether those are near (1.5 cm)."""
    from scipy.spatial import KDTree

    known = appearance.weight > 0.5
    if known.sum() < NEIGHBOURS:
        raise InputError("appearance", "colours of some frames", f"{int(known.sum())} points seen")
    tree = KDTree(appearance.cloud.template[known])
    distance, index = tree.query(places, k=NEIGHBOURS)
    w = np.minimum(appearance.weight[known], 10.0)[index] / (distance + 0.004) ** 3
    colors = (appearance.albedo[known][index] * w[..., None]).sum(1) / w.sum(1)[:, None]
    return colors.astype(np.float32), distance[:, 0] < 0.015


def vertex_colors(appearance: Appearance, model: BodyModel) -> NDArray[np.uint8]:
    """(V, 3) sRGB of the full mesh's vertices; those that nobody saw take the nearest colour.

    Raises:
        InputError: an appearance that has seen nothing.
    """
    colors, _ = _spread(appearance, _rest(appearance, model))
    return np.rint(np.clip(colors, 0, 1) * 255).astype(np.uint8)


def linear_vertex_colors(appearance: Appearance, model: BodyModel) -> NDArray[np.float32]:
    """(V, 3) linear light, 0 to 1, as glTF's COLOR_0 has it."""
    colors, _ = _spread(appearance, _rest(appearance, model))
    return np.clip(colors, 0, 1) ** np.float32(GAMMA)


def person_texture(appearance: Appearance, model: BodyModel, atlas: Atlas | None = None) -> PersonTexture:
    """The colours as a picture on an atlas (None: `body_atlas`).

    Raises:
        InputError: an appearance that has seen nothing.
    """
    import cv2

    atlas = body_atlas(model) if atlas is None else atlas
    size = atlas.size
    flat = np.concatenate([atlas.uv - 0.5 / size, np.ones((len(atlas.uv), 1))], 1).astype(np.float32)
    a, b, c = (flat[atlas.faces[:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    order = np.where((area < 0)[:, None], [0, 1, 2], [0, 2, 1])  # the rasteriser draws what is wound this way
    wound = np.take_along_axis(atlas.faces, order, 1)
    raster = rasterize(flat, wound, Camera(size, size, float(size), float(size), 0.0, 0.0))
    on = raster.face >= 0
    corners = np.take_along_axis(model.faces, order, 1)[raster.face[on]]
    weights = np.concatenate([raster.barycentrics[on], 1 - raster.barycentrics[on].sum(1, keepdims=True)], 1)
    places = np.einsum("nk,nkc->nc", weights, _rest(appearance, model)[corners])
    colors, near = _spread(appearance, places)
    image = np.zeros((size, size, 3), np.uint8)
    image[on] = np.rint(np.clip(colors, 0, 1) * 255).astype(np.uint8)
    known = np.zeros((size, size), bool)
    known[on] = near
    # charts bleed into the gaps: filters reach over their borders
    _, label = cv2.distanceTransformWithLabels((~on).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    label = np.asarray(label, np.int64)
    table = np.zeros((label.max() + 1, 3), np.uint8)
    table[label[on]] = image[on]
    return PersonTexture(table[label], known, atlas)


def _rest(appearance: Appearance, model: BodyModel) -> NDArray[np.float64]:
    """The full mesh at rest in the shape that the points lie on: moved like the nearest vertices that both have."""
    from scipy.spatial import KDTree

    mesh = appearance.mesh
    if len(mesh.vertex_ids) == model.num_vertices:
        return mesh.template.astype(np.float64)
    base = model.v_template.astype(np.float64)
    moved = mesh.template - base[mesh.vertex_ids]
    distance, index = KDTree(base[mesh.vertex_ids]).query(base, k=4)
    w = 1 / (distance + 1e-3) ** 2
    return base + (moved[index] * w[..., None]).sum(1) / w.sum(1)[:, None]
