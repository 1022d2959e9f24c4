"""sRGB at the door: pictures in files are sRGB, everything inside the renderer is linear (IEC 61966-2-1)."""

from __future__ import annotations

from bodyfit.render.extra import Tensor, torch


def srgb_to_linear(srgb: Tensor) -> Tensor:
    """Linear light of sRGB values, both 0 to 1, any shape."""
    low = srgb / 12.92
    # The clamp keeps the gradient of the branch that is not taken finite.
    high = ((srgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(srgb <= 0.04045, low, high)


def linear_to_srgb(linear: Tensor) -> Tensor:
    """sRGB values of linear light, both 0 to 1, any shape; what is brighter than 1 stays brighter than 1."""
    low = linear * 12.92
    high = 1.055 * linear.clamp_min(0.0031308) ** (1.0 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, low, high)
