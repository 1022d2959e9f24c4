"""What the physically based renderer knows besides the mesh: an environment, lights with a size, other surfaces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bodyfit.errors import ImageError, InputError
from bodyfit.render.extra import Tensor, torch
from bodyfit.render.scene import Material, check_shape


@dataclass(frozen=True)
class Environment:
    """Light from all around, as a latitude-longitude image of radiance.

    Args:
        radiance: (He, We, 3) linear, at least 2 by 2; the upper edge is the world's up (z), the middle column the
            world's x, and to its right is the world's -y.
        R_world_env: (3, 3) turns it in the world; the identity where None.
    """

    radiance: Tensor
    R_world_env: Tensor | None = None

    def __post_init__(self) -> None:
        check_shape("environment.radiance", self.radiance, None, None, 3, names="(He, We, 3)")
        if self.radiance.ndim != 3 or min(self.radiance.shape[:2]) < 2:
            raise InputError("environment.radiance", "(He, We, 3), at least 2 by 2", str(tuple(self.radiance.shape)))
        if bool((self.radiance.detach() < 0).any()):
            raise InputError("environment.radiance", "radiance of 0 or more", "negative numbers")
        if self.R_world_env is not None:
            check_shape("environment.R_world_env", self.R_world_env, 3, 3, names="(3, 3)")

    @staticmethod
    def from_exr(path: str | Path, *, R_world_env: Any = None) -> Environment:
        """Reads an OpenEXR file (or another that Mitsuba reads) as linear RGB.

        Raises:
            ImageError: no such file, or no image.
            MissingExtraError: Mitsuba, which reads it, is not installed.
        """
        from bodyfit.render.mitsuba_plugins import load_mitsuba

        if not Path(path).is_file():
            raise ImageError(str(path), "an image file", "no such file")
        mi = load_mitsuba()
        import numpy as np

        try:
            bitmap = mi.Bitmap(str(path)).convert(mi.Bitmap.PixelFormat.RGB, mi.Struct.Type.Float32, srgb_gamma=False)
        except RuntimeError as error:
            raise ImageError(str(path), "an image that Mitsuba reads", str(error).splitlines()[-1][:200]) from None
        turn = None if R_world_env is None else torch.as_tensor(R_world_env, dtype=torch.float32)
        return Environment(torch.from_numpy(np.array(bitmap, dtype=np.float32)), turn)


@dataclass(frozen=True)
class AreaLight:
    """A mesh (V, 3), (F, 3) in the world that gives off `radiance` (3,) on its outer side."""

    vertices: Tensor
    faces: Any
    radiance: Tensor

    def __post_init__(self) -> None:
        check_shape("area_light.vertices", self.vertices, None, 3, names="(V, 3)")
        check_shape("area_light.radiance", self.radiance, 3, names="(3,)")


@dataclass(frozen=True)
class OtherSurface:
    """A mesh (V, 3), (F, 3) in the world that is seen, casts shadows and reflects: a floor, say."""

    vertices: Tensor
    faces: Any
    material: Material

    def __post_init__(self) -> None:
        check_shape("surface.vertices", self.vertices, None, 3, names="(V, 3)")


@dataclass(frozen=True)
class Surroundings:
    """All that is around the mesh. It is part of every image: what hides the mesh hides it in the depth as well."""

    environment: Environment | None = None
    area_lights: tuple[AreaLight, ...] = ()
    surfaces: tuple[OtherSurface, ...] = ()
