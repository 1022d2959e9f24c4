"""How large a request may be. What is checked before anything is decoded costs no more than its message."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on what one client may send.

    Attributes:
        max_image_pixels: of one image: a sensor's cameras must not have more.
        max_instants: of one fit.
        max_sensors: of one recording.
        max_message_bytes: of one message, and of one instant that comes in chunks.
        max_total_pixels: of all depth and colour images of one fit, decoded; compressed images may be small.
    """

    max_image_pixels: int = 16_777_216
    max_instants: int = 256
    max_sensors: int = 16
    max_message_bytes: int = 64 << 20
    max_total_pixels: int = 1 << 29
