"""The newest frame as a picture: colour or depth, the person's outline, and what is said to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.capture.recorder import write_whole
from bodyfit.capture.watching import Look

SHOWN_M = (0.5, 4.5)
BAR_PX = 28


def preview_image(look: Look, lines: list[str]) -> NDArray[np.uint8]:
    """(H + bar, W, 3) uint8 BGR on the depth camera's grid.

    Args:
        lines: printed below the picture; characters beyond ASCII are left out.
    """
    import cv2

    depth = look.frame.depth
    low, high = SHOWN_M
    scaled = np.clip((high - depth) / (high - low) * 255, 0, 255).astype(np.uint8)
    image = np.asarray(cv2.applyColorMap(scaled, cv2.COLORMAP_TURBO), np.uint8)
    image[depth <= 0] = 0
    if look.sight.outline is not None:
        edges, _ = cv2.findContours(look.sight.outline.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, edges, -1, (255, 255, 255), 2)
    bar = np.zeros((BAR_PX * max(len(lines), 1), image.shape[1], 3), np.uint8)
    for k, line in enumerate(lines):
        text = line.encode("ascii", "ignore").decode()
        cv2.putText(bar, text, (6, BAR_PX * k + 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([image, bar])


def write_preview(file: Path, look: Look, lines: list[str]) -> None:
    """Puts the picture in the file's place, whole: whoever looks at the file never sees a half one."""
    import cv2

    ok, data = cv2.imencode(".jpg", preview_image(look, lines), [cv2.IMWRITE_JPEG_QUALITY, 85])
    if ok:
        write_whole(file, data.tobytes())


def has_windows() -> bool:
    """Whether this OpenCV can open a window: the headless build, which bodyfit brings, cannot."""
    import re

    import cv2

    found = re.search(r"^\s*GUI:\s*(.*)$", cv2.getBuildInformation(), re.MULTILINE)
    return found is not None and found.group(1).strip().upper() not in ("", "NONE", "NO")
