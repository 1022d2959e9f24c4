"""Depth that was recoded losslessly with FFV1 (RFC 9043), decoded by FFmpeg through PyAV: the extra `video`.

Only FFV1 needs a decoder: what recorders write themselves is not compressed. An image that is no key image needs those
before it, back to the last key image, so that reading at random costs more than reading in order.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from bodyfit.errors import ImageError, MissingExtraError


class Ffv1Depth:
    """Images of one track, 16-bit grey.

    Args:
        name: what errors call the track.
        size: (width, height) that every image must have.
        extradata: the codec's own header.
        load: gives the bytes of the i-th image of the track.
        is_key: whether the i-th image can be decoded by itself.

    Raises:
        MissingExtraError: PyAV is not installed.
    """

    def __init__(
        self,
        name: str,
        size: tuple[int, int],
        extradata: bytes,
        load: Callable[[int], bytes],
        is_key: Callable[[int], bool],
    ) -> None:
        if importlib.util.find_spec("av") is None:
            raise MissingExtraError("av (PyAV)", "video", f"{name}, which is coded with FFV1,")
        self._name, self._size, self._extradata, self._load, self._is_key = name, size, extradata, load, is_key
        self._lock = threading.Lock()
        self._decoder: Any = None
        self._next = -1

    def counts(self, i: int) -> bytes:
        """Little-endian 16-bit counts of the i-th image.

        Raises:
            ImageError: an image that cannot be decoded, or is of another kind or size.
        """
        with self._lock:
            if i != self._next:
                self._next = i
                while self._next > 0 and not self._is_key(self._next):
                    self._next -= 1
                self._decoder = self._fresh()
            found = b""
            while self._next <= i:
                wanted = self._next == i
                try:
                    found = self._decode(self._next, wanted)
                except ImageError:
                    self._next = -1
                    raise
                self._next += 1
            return found

    def _fresh(self) -> Any:
        import av

        decoder: Any = av.CodecContext.create("ffv1", "r")
        decoder.extradata = self._extradata or None
        decoder.width, decoder.height = self._size
        decoder.thread_count = 1  # several hold images back
        return decoder

    def _decode(self, i: int, wanted: bool) -> bytes:
        import av
        from av.error import FFmpegError

        name = f"{self._name} image {i}"
        data = self._load(i)
        try:
            frames = self._decoder.decode(av.Packet(data))
        except (FFmpegError, ValueError, EOFError) as problem:
            raise ImageError(name, "an image coded with FFV1", f"FFmpeg: {problem}"[:200]) from None
        if len(frames) != 1:
            raise ImageError(name, "one image", f"{len(frames)}")
        frame = frames[0]
        width, height = self._size
        if (frame.width, frame.height) != self._size:
            raise ImageError(name, f"{width} × {height} pixels", f"{frame.width} × {frame.height} pixels")
        if frame.format.name != "gray16le":
            raise ImageError(name, "16-bit grey", str(frame.format.name))
        if not wanted:
            return b""
        plane = frame.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        return rows[:height, : 2 * width].tobytes()
