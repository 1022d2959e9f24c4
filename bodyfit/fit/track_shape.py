"""The followed person's shape: what the first frame told, what later ones added, and the meshes that it makes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.config import Clothing
from bodyfit.fit.follow import posed_joints
from bodyfit.fit.joint import FitSetup, garment_directions, joint_gaussian, prior_shape
from bodyfit.fit.mesh import GARMENTS, Mesh, held_mesh, mesh_for
from bodyfit.fit.online_shape import OnlineShape, joint_mesh
from bodyfit.fit.pose_prior import PosePrior
from bodyfit.fit.track_config import TrackConfig


class TrackShape:
    """Betas and garments of one followed person, about a fit to their first frame.

    Args:
        clothing: what was judged to be worn.
        found: (S + garments,) the first fit's shape about the prior's mean; cov its covariance.
    """

    def __init__(
        self,
        setup: FitSetup,
        config: TrackConfig,
        prior: PosePrior,
        clothing: Clothing,
        found: NDArray[np.float64],
        cov: NDArray[np.float64],
    ) -> None:
        model = setup.model
        S = model.num_betas
        self.clothing, self._shape = clothing, prior_shape(setup)
        free = min(config.shape_betas, S)
        about = self._shape.cov
        directions = garment_directions(model, self._shape.mean + found[:S])
        self._follow = np.linalg.solve(about[:free, :free], about[:free, free:]).T
        self._rest = found[free:S] - self._follow @ found[:free]
        self._joint = {
            level: joint_mesh(mesh_for(model, level, S, self._shape.mean, directions), about, free, self._rest)
            for level in {config.stage.level, config.regain.level, config.tell.level}
        }
        self._followed = (config.stage.level, config.regain.level)
        use = np.concatenate([np.arange(free), np.arange(S, S + len(GARMENTS))])
        self.online = OnlineShape(
            self._joint[config.tell.level], found[use], cov[np.ix_(use, use)], config.tell, config.fit, prior,
            clothing.sigma_behind_m, config.keyframes, config.novel_rad, config.frozen_m,
            config.alike, joint_gaussian(self._shape, clothing, free),
        )  # fmt: skip
        self._held: dict[int, Mesh] = {}
        self._held_version = -1
        self._known: tuple[int, NDArray[np.float64], NDArray[np.float64]] | None = None

    def mesh(self, level: int) -> Mesh:
        """The body of the present shape at a level, to be held still."""
        if self._held_version != self.online.version:
            self._held = {k: held_mesh(self._joint[k], self.online.x) for k in self._followed}
            self._held_version = self.online.version
        return self._held[level]

    def joints(self, rotations: NDArray[np.float64], transl: NDArray[np.float64], level: int) -> NDArray[np.float64]:
        """(J, 3) joints in the world of the body in a pose: rotations (J, 3, 3), transl (3,)."""
        return posed_joints(self.mesh(level), rotations, transl)

    def betas(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The shape as known by now (S,) and its covariance (S, S)."""
        if self._known is not None and self._known[0] == self.online.version:
            return self._known[1], self._known[2]
        free = self.online.mesh.num_betas
        E = np.concatenate([np.eye(free), self._follow])
        betas = self._shape.mean + E @ self.online.x[:free]
        betas[free:] += self._rest
        cov = E @ self.online.cov[:free, :free] @ E.T
        # what the first components leave open of the others
        cov[free:, free:] += self._shape.cov[free:, free:] - self._follow @ self._shape.cov[:free, free:]
        self._known = (self.online.version, betas, cov)
        return betas, cov

    def garments(self) -> dict[str, float]:
        """Thickness by garment as known by now, metres."""
        worn = self.online.x[self.online.mesh.num_betas :]
        return {g: float(x) for g, x in zip(GARMENTS, worn, strict=True)}

    @property
    def frozen(self) -> bool:
        """Whether later frames no longer move the shape."""
        return self.online.frozen
