"""What a renderer gives back, and what every renderer can be asked: the same for all backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from bodyfit.camera import Camera
from bodyfit.errors import InputError
from bodyfit.render.camera import RenderCamera
from bodyfit.render.extra import Tensor, torch
from bodyfit.render.scene import Lighting, Material, Texture

Lazy = Tensor | Callable[[], Tensor | None] | None


class Rendered:
    """Images of one call, batch first; each is made when it is first asked for.

    The premultiplied images (coverage × mean, the integral over the covered part of the pixel) carry the whole
    gradient of the image's boundaries. A mean cannot: where no sample hit the surface it is 0 by definition, and an
    edge that comes in moves nothing. A loss across silhouettes takes `alpha`, premultiplied images or a colour
    composited over a background: `r.premultiplied_depth - r.alpha * depth_seen`, say.

    Args:
        alpha: (B, H, W) coverage, 0 to 1.
        premultiplied_depth: (B, H, W) metres.
        premultiplied_normals: (B, H, W, 3).
        premultiplied_attributes: (B, H, W, C).
        premultiplied_color: (B, H, W, 3) linear.
        background: (3,), (H, W, 3) or (B, H, W, 3) linear, what `color` is composited over.
        face_id: (B, H, W) int32.
        barycentrics: (B, H, W, 3).
    """

    def __init__(
        self,
        alpha: Tensor,
        *,
        premultiplied_depth: Lazy,
        premultiplied_normals: Lazy = None,
        premultiplied_attributes: Lazy = None,
        premultiplied_color: Lazy = None,
        background: Tensor | None = None,
        face_id: Lazy = None,
        barycentrics: Lazy = None,
    ) -> None:
        self.alpha = alpha
        self._background = background
        self._images: dict[str, Lazy] = {
            "premultiplied_depth": premultiplied_depth,
            "premultiplied_normals": premultiplied_normals,
            "premultiplied_attributes": premultiplied_attributes,
            "premultiplied_color": premultiplied_color,
            "face_id": face_id,
            "barycentrics": barycentrics,
        }

    def _image(self, name: str) -> Tensor | None:
        value = self._images[name]
        if value is not None and not isinstance(value, torch.Tensor):
            value = self._images[name] = value()
        return value

    def _present(self, name: str) -> Tensor:
        value = self._image(name)
        if value is None:
            raise InputError(f"rendered.{name}", "an image that this renderer makes", "none")
        return value

    def _mean(self, name: str) -> Tensor:
        total = self._present(name)
        alpha = self.alpha if total.ndim == self.alpha.ndim else self.alpha[..., None]
        seen = alpha > 0
        return torch.where(seen, total / torch.where(seen, alpha, torch.ones_like(alpha)), torch.zeros_like(total))

    @property
    def depth(self) -> Tensor:
        """(B, H, W) camera z in metres, the mean over covered samples; 0 where there are none."""
        return self._mean("premultiplied_depth")

    @property
    def normals(self) -> Tensor:
        """(B, H, W, 3) in the camera's axes, turned to the side that is seen; the mean over covered samples."""
        return self._mean("premultiplied_normals")

    @property
    def attributes(self) -> Tensor | None:
        """(B, H, W, C) interpolated vertex attributes, the mean over covered samples; None where none were given."""
        return None if self._image("premultiplied_attributes") is None else self._mean("premultiplied_attributes")

    @property
    def color(self) -> Tensor | None:
        """(B, H, W, 3) linear: over the background where one was given, else the mean over covered samples."""
        total = self._image("premultiplied_color")
        if total is None:
            return None
        if self._background is None:
            return self._mean("premultiplied_color")
        return total + (1.0 - self.alpha)[..., None] * self._background

    @property
    def premultiplied_depth(self) -> Tensor:
        """(B, H, W) coverage × mean depth, metres."""
        return self._present("premultiplied_depth")

    @property
    def premultiplied_normals(self) -> Tensor:
        """(B, H, W, 3) coverage × mean normal."""
        return self._present("premultiplied_normals")

    @property
    def premultiplied_attributes(self) -> Tensor:
        """(B, H, W, C) coverage × mean attributes."""
        return self._present("premultiplied_attributes")

    @property
    def premultiplied_color(self) -> Tensor:
        """(B, H, W, 3) coverage × mean linear colour."""
        return self._present("premultiplied_color")

    @property
    def face_id(self) -> Tensor:
        """(B, H, W) int32, the face of the covered sample nearest to the pixel's centre; -1 where there is none."""
        return self._present("face_id")

    @property
    def barycentrics(self) -> Tensor:
        """(B, H, W, 3) perspective-correct weights of that face's corners; 0 where there is none. No gradient."""
        return self._present("barycentrics")


class Renderer(Protocol):
    """What each backend does; one that cannot do a thing refuses it with an InputError."""

    name: str

    def render(
        self,
        vertices: Tensor,
        faces: Any,
        camera: RenderCamera | Camera,
        *,
        vertex_attributes: Tensor | None = None,
        texture: Texture | None = None,
        material: Material | None = None,
        lighting: Lighting | None = None,
        background: Tensor | None = None,
        samples: int = 1,
    ) -> Rendered:
        """Draws a batch of meshes; see `bodyfit.render.render.render`."""
        ...
