"""What is drawn besides the mesh: texture, material and lights, as tensors that take gradients; all colours linear.

Every tensor may have a leading batch axis B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bodyfit.errors import InputError
from bodyfit.render.extra import Tensor, torch


def check_shape(field: str, value: Any, *tail: int | None, names: str, finite: bool = True) -> None:
    """Refuses what is no float tensor of shape `tail` (None: any size) or (B, *tail), or where asked for not finite."""
    good = (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.ndim - len(tail) in (0, 1)
        and all(t is None or t == s for t, s in zip(tail, value.shape[value.ndim - len(tail) :], strict=True))
    )
    if not good:
        found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise InputError(field, f"a float tensor {names}, or with a batch axis before", found)
    if finite and not bool(torch.isfinite(value.detach()).all()):
        raise InputError(field, "finite numbers", "NaN or infinity")


@dataclass(frozen=True)
class Texture:
    """A picture on the surface, looked up bilinearly.

    Args:
        image: (Ht, Wt, 3) linear.
        uv: (N, 2); (0, 0) is the upper left corner of the image, (1, 1) the lower right one: v points down.
        uv_faces: (F, 3) numbers of rows of `uv`, the mesh's faces where None.
        wrap: what lies outside of the image: its border ("clamp") or the image again ("repeat").
    """

    image: Tensor
    uv: Tensor
    uv_faces: Tensor | None = None
    wrap: Literal["clamp", "repeat"] = "clamp"

    def __post_init__(self) -> None:
        check_shape("texture.image", self.image, None, None, 3, names="(Ht, Wt, 3)")
        check_shape("texture.uv", self.uv, None, 2, names="(N, 2)")
        if self.wrap not in ("clamp", "repeat"):
            raise InputError("texture.wrap", "clamp or repeat", repr(self.wrap))


@dataclass(frozen=True)
class Material:
    """How the surface reflects: Lambert, and GGX where `specular` is given.

    Args:
        albedo: (3,) share of light that is reflected diffusely; a texture or three-channel attributes go before it.
        specular: (3,) reflectance at normal incidence (F0), 0.04 for most dielectrics.
        roughness: () from 0 to 1; GGX's alpha is its square.
    """

    albedo: Tensor | None = None
    specular: Tensor | None = None
    roughness: Tensor | None = None

    def __post_init__(self) -> None:
        if self.albedo is not None:
            check_shape("material.albedo", self.albedo, 3, names="(3,)")
        if (self.specular is None) != (self.roughness is None):
            raise InputError("material", "specular and roughness together, or neither", "one of them")
        if self.specular is not None and self.roughness is not None:
            check_shape("material.specular", self.specular, 3, names="(3,)")
            check_shape("material.roughness", self.roughness, names="()")
            if not bool(((self.roughness > 0) & (self.roughness <= 1)).all()):
                raise InputError("material.roughness", "over 0, up to 1", str(self.roughness.detach().tolist()))


@dataclass(frozen=True)
class DirectionalLight:
    """Light from far away: `direction` (3,) is where it travels, `irradiance` (3,) what a facing surface receives."""

    direction: Tensor
    irradiance: Tensor

    def __post_init__(self) -> None:
        check_shape("light.direction", self.direction, 3, names="(3,)")
        check_shape("light.irradiance", self.irradiance, 3, names="(3,)")
        if not bool((self.direction.detach().norm(dim=-1) > 0).all()):
            raise InputError("light.direction", "a direction", "the zero vector")


@dataclass(frozen=True)
class PointLight:
    """Light from a point `position` (3,) with radiant `intensity` (3,) per steradian."""

    position: Tensor
    intensity: Tensor

    def __post_init__(self) -> None:
        check_shape("light.position", self.position, 3, names="(3,)")
        check_shape("light.intensity", self.intensity, 3, names="(3,)")


@dataclass(frozen=True)
class Lighting:
    """Lights in the world; nothing casts a shadow.

    Args:
        sh: (9, 3) coefficients of the incoming radiance in real spherical harmonics of order 0 to 2, world axes, in
            the order 00, 1-1, 10, 11, 2-2, 2-1, 20, 21, 22 (Ramamoorthi and Hanrahan 2001); it lights the diffuse
            part only.
        directional: lights from far away.
        points: lights from points.
    """

    sh: Tensor | None = None
    directional: tuple[DirectionalLight, ...] = ()
    points: tuple[PointLight, ...] = ()

    def __post_init__(self) -> None:
        if self.sh is not None:
            check_shape("lighting.sh", self.sh, 9, 3, names="(9, 3)")
        object.__setattr__(self, "directional", tuple(self.directional))
        object.__setattr__(self, "points", tuple(self.points))
