"""What a recording looks like at a glance: frames of each sensor in a row, depth above colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.frame import Frame
from bodyfit.picture.draw import INK, SOFT, Image, Text, canvas, grey_depth, paint_texts, put, shorten

TILE_WIDTH = 240
MOST_TILES = 12
PER_ROW = 6
_GAP, _TITLE, _LABEL = 8, 40, 20


def contact_sheet(title: str, frames: Mapping[str, Sequence[Frame]]) -> Image:
    """(H, W, 3) uint8 RGB: by sensor, its frames in the order of time, depth with its colour below.

    Args:
        title: of the sheet.
        frames: by sensor; those of the most frames are thinned evenly to MOST_TILES.
    """
    rows = [(name, _thinned(seen)) for name, seen in frames.items() if seen]
    columns = max((min(len(seen), PER_ROW) for _, seen in rows), default=1)
    width = columns * (TILE_WIDTH + _GAP) + _GAP
    texts = [Text(_GAP, _TITLE // 2, shorten(title, 20, width - 2 * _GAP), 20, INK, bold=True)]
    tiles: list[tuple[Image, int, int]] = []
    y = _TITLE
    for name, seen in rows:
        near, far = _range(seen)
        colours = f"depth from {near:.1f} m (light) to {far:.1f} m (dark), black where there is no reading"
        texts.append(Text(_GAP, y + _LABEL // 2, shorten(f"{name}: {colours}", 14, width - 2 * _GAP), 14, SOFT))
        y += _LABEL
        for start in range(0, len(seen), PER_ROW):
            deepest = 0
            for k, frame in enumerate(seen[start : start + PER_ROW]):
                x = _GAP + k * (TILE_WIDTH + _GAP)
                texts.append(Text(x, y + _LABEL // 2, f"{frame.index}  {frame.timestamp_s:.2f} s", 13, SOFT))
                images = [grey_depth(frame.depth, near, far)]
                if frame.color is not None:
                    images.append(frame.color)
                top = y + _LABEL
                for image in images:
                    tile = _fit(image)
                    tiles.append((tile, x, top))
                    top += tile.shape[0] + 2
                deepest = max(deepest, top)
            y = deepest + _GAP
    sheet = canvas(width, y + _GAP)
    for tile, x, top in tiles:
        put(sheet, tile, x, top)
    return paint_texts(sheet, texts)


def _thinned(seen: Sequence[Frame]) -> list[Frame]:
    if len(seen) <= MOST_TILES:
        return list(seen)
    return [seen[round(i)] for i in np.linspace(0, len(seen) - 1, MOST_TILES)]


def _range(seen: Sequence[Frame]) -> tuple[float, float]:
    """Metres between which most readings of a sensor's frames lie."""
    readings = np.concatenate([frame.depth[frame.depth > 0][::7] for frame in seen])
    if not len(readings):
        return 0.0, 1.0
    near, far = np.percentile(readings, [1, 97]).tolist()
    return near, max(far, near + 0.1)


def _fit(image: NDArray[Any]) -> Image:
    import cv2

    height = max(1, round(image.shape[0] * TILE_WIDTH / image.shape[1]))
    return np.asarray(cv2.resize(image, (TILE_WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)
