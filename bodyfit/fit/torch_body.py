"""The posed mesh as torch computes it, so that an image's gradient reaches pose, place and shape.

The twin of `bodyfit.kernels.body`: linear blend skinning as in SMPL (Loper et al. 2015, eqs. 2-4).
"""

from __future__ import annotations

import numpy as np

from bodyfit.fit.mesh import Mesh
from bodyfit.render.extra import Tensor, torch


class TorchMesh:
    """One level of a body as tensors; `shape` (S,) as in `Mesh`."""

    def __init__(self, mesh: Mesh) -> None:
        count, joints = len(mesh.template), len(mesh.parents)
        dense = np.zeros((count, joints), np.float32)
        rows = np.repeat(np.arange(count), mesh.weights.shape[1])
        np.add.at(dense, (rows, mesh.weight_joints.ravel()), mesh.weights.ravel())
        self.template = torch.from_numpy(mesh.template.reshape(-1).copy())
        self.shapedirs = torch.from_numpy(mesh.shapedirs.reshape(count * 3, -1).copy())
        self.weights = torch.from_numpy(dense)
        self.joint_template = torch.from_numpy(mesh.joint_template.astype(np.float32))
        self.jointdirs = torch.from_numpy(mesh.jointdirs.astype(np.float32))
        self.parents = [int(p) for p in mesh.parents]
        self.faces = torch.from_numpy(mesh.faces.astype(np.int64))

    def vertices(self, rotations: Tensor, transl: Tensor, shape: Tensor) -> Tensor:
        """(V, 3) metres, world, of rotations (J, 3, 3) relative to the parents, transl (3,) metres and shape (S,)."""
        rest = (self.template + self.shapedirs @ shape).reshape(-1, 3)
        joints = self.joint_template + self.jointdirs @ shape
        turns: list[Tensor] = []
        places: list[Tensor] = []
        for j, p in enumerate(self.parents):
            if p < 0:
                turns.append(rotations[j])
                places.append(joints[j] + transl)
            else:
                turns.append(turns[p] @ rotations[j])
                places.append(places[p] + turns[p] @ (joints[j] - joints[p]))
        G, posed = torch.stack(turns), torch.stack(places)
        shift = posed - (G @ joints[:, :, None])[:, :, 0]
        motion = self.weights @ torch.cat([G.reshape(-1, 9), shift], 1)
        turn = motion[:, :9].reshape(-1, 3, 3)
        return (turn @ rest[:, :, None])[:, :, 0] + motion[:, 9:]


def turned(rotations: Tensor, delta: Tensor) -> Tensor:
    """(N, J, 3, 3) · exp(delta) to first order: exact in value and gradient at delta = 0, radians (N, J, 3)."""
    x, y, z = delta.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*delta.shape[:-1], 3, 3)
    return rotations + rotations @ skew
