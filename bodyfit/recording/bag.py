"""What a bag of messages is to its readers, whatever contains it: topics, and messages that are read where they lie.

ROS 1 bags (rosbag1.py), MCAP files (mcap.py) and SQLite files (rosbag2.py) give a `Bag`. ros_bag.py and
realsense_bag.py make recordings of it. No code and no type definition of a file is used: the few messages that are
needed have layouts of their own in ros_messages.py.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import MissingExtraError, RecordingError

MAX_MESSAGE_BYTES = 256 << 20
"""an image of 8192 × 8192 pixels, 32 bits each"""
MAX_CHUNK_BYTES = 256 << 20
MAX_TOPICS = 10_000
EXTRA = "ros"
LOOSE = -1
"""the chunk of messages that lie in the file itself, outside of any chunk"""

Read = Callable[[int, int], bytes]
"""gives the bytes at an offset, so many of them"""


@dataclass
class Topic:
    """The messages of one topic, by time.

    Attributes:
        name: as `/camera/depth/image_raw`.
        type: as `sensor_msgs/Image`, without the `msg/` that ROS 2 has in between.
        is_cdr: messages are coded as ROS 2 does (CDR), not as ROS 1 does.
        times_ns: (N,) int64, when they were recorded, not falling.
        places: (N, 2) int64, where they lie; each kind of bag has its own meaning.
    """

    name: str
    type: str
    is_cdr: bool
    times_ns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    places: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    def __len__(self) -> int:
        return len(self.times_ns)

    def set_messages(self, rows: NDArray[np.int64]) -> None:
        """Takes messages (N, 3) of time and place, sorted by time; those of one time stay in order."""
        order = np.argsort(rows[:, 0], kind="stable")
        self.times_ns, self.places = rows[order, 0], rows[order, 1:]


class Bag(Protocol):
    """An opened bag.

    Attributes:
        name: what errors call it.
        topics: by name, those with messages.
        notes: what is wrong with the file, in sentences.
    """

    name: str
    topics: dict[str, Topic]
    notes: list[str]

    def head(self, topic: Topic, k: int, count: int) -> bytes:
        """The first `count` bytes of a topic's `k`-th message, fewer where it is shorter; cheap."""
        ...

    def message(self, topic: Topic, k: int) -> bytes:
        """A topic's whole `k`-th message."""
        ...

    def close(self) -> None:
        """Closes the files."""
        ...


class BagBytes:
    """A file that is read in pieces, at any place, by any thread.

    Args:
        path: the file.

    Raises:
        RecordingError: a file that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._lock = threading.Lock()
        try:
            self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as problem:
            raise RecordingError(path.name, "a readable file", problem.strerror or str(problem)) from None

    def read(self, position: int, count: int) -> bytes:
        """`count` bytes from `position`, fewer at the file's end."""
        count = max(0, min(count, self.size - position))
        try:
            with self._lock:
                self._file.seek(position)
                return self._file.read(count)
        except OSError as problem:
            raise RecordingError(self.name, "a readable file", problem.strerror or str(problem)) from None
        except ValueError:
            raise RecordingError(self.name, "an open recording", "one that was closed") from None

    def exactly(self, position: int, count: int) -> bytes:
        """The same, all of them.

        Raises:
            RecordingError: the file ends before.
        """
        data = self.read(position, count)
        if len(data) != count:
            raise RecordingError(self.name, f"{count} bytes from byte {position}", f"{len(data)}: the file was cut")
        return data

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


@dataclass(frozen=True)
class Chunk:
    """Messages that are compressed together.

    Attributes:
        position, stored: where its bytes lie in the file, and how many.
        size: how many they are once decompressed.
        compression: `none`, `bz2`, `lz4` or `zstd`.
    """

    position: int
    stored: int
    size: int
    compression: str


class ChunkStore:
    """The chunks of a file; the last few that were decompressed are kept.

    Args:
        file: the file.
        chunks: its chunks.
    """

    KEPT = 3

    def __init__(self, file: BagBytes, chunks: list[Chunk]) -> None:
        self.file, self.chunks = file, chunks
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._is_closed = False
        self.whole = False
        """whether who reads now wants more than heads: then a chunk is decompressed once, to its end"""

    def close(self) -> None:
        """Closes the file and forgets the chunks."""
        with self._lock:
            self._is_closed = True
            self._kept.clear()
        self.file.close()

    def read(self, chunk: int, offset: int, count: int) -> bytes:
        """Bytes of a chunk's contents, fewer at its end.

        Raises:
            RecordingError: a chunk that is broken.
            MissingExtraError: a compression whose package is not installed.
        """
        one = self.chunks[chunk]
        if offset < 0:
            raise RecordingError(self.file.name, "places inside of the file", f"{offset}")
        if one.compression == "none":
            return self.file.read(one.position + offset, min(count, max(0, one.stored - offset)))
        with self._lock:
            if self._is_closed:
                raise RecordingError(self.file.name, "an open recording", "one that was closed")
            data = self._kept.get(chunk, b"")
            # a chunk that was begun is begun anew: at opening heads are read, in order, and one is mostly enough
            if len(data) < min(offset + count, one.size):
                wanted = one.size if self.whole or data or offset + count > one.size // 2 else offset + count
                data = decompressed(self.file, one, wanted)
                self._kept[chunk] = data
                while len(self._kept) > self.KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(chunk)
        return data[offset : offset + count]


class ChunkedBag(ABC):
    """What containers whose messages lie in the file itself or in its chunks have in common; each says where.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = BagBytes(path)
        self.name, self.topics, self.notes = self._file.name, dict[str, Topic](), list[str]()
        self._chunks = ChunkStore(self._file, [])

    def head(self, topic: Topic, k: int, count: int) -> bytes:
        """The first bytes of a message."""
        read, data, size = self._place(topic, k)
        return read(data, min(count, size))

    def message(self, topic: Topic, k: int) -> bytes:
        """A whole message."""
        self._chunks.whole = True
        try:
            read, data, size = self._place(topic, k)
        finally:
            self._chunks.whole = False
        if size > MAX_MESSAGE_BYTES:
            raise RecordingError(
                f"{self.name}: {topic.name}", f"messages of at most {MAX_MESSAGE_BYTES} bytes", f"{size}"
            )
        out = read(data, size)
        if len(out) != size:
            raise RecordingError(f"{self.name}: {topic.name}", f"a message of {size} bytes", f"{len(out)}: it was cut")
        return out

    def close(self) -> None:
        """Closes the file."""
        self._chunks.close()

    @abstractmethod
    def _place(self, topic: Topic, k: int) -> tuple[Read, int, int]:
        """How to read a message, where its data lies and how long it is."""

    def _reader(self, chunk: int) -> Read:
        if chunk == LOOSE:
            return self._file.read
        return lambda offset, count: self._chunks.read(chunk, offset, count)


def decompressed(file: BagBytes, chunk: Chunk, count: int) -> bytes:
    """The first `count` bytes of a chunk's contents.

    Raises:
        RecordingError: bytes that are not what the compression writes, or fewer of them.
        MissingExtraError: a compression whose package is not installed.
    """
    where = f"{file.name}: the chunk at byte {chunk.position}"
    if chunk.size > MAX_CHUNK_BYTES or chunk.stored > MAX_CHUNK_BYTES:
        raise RecordingError(where, f"at most {MAX_CHUNK_BYTES} bytes", f"{max(chunk.size, chunk.stored)}")
    data = file.exactly(chunk.position, chunk.stored)
    count = min(count, chunk.size)
    if chunk.compression == "none":
        return data[:count]
    if chunk.compression not in _DECOMPRESSORS:
        raise RecordingError(f"{where}: compression", f"one of {', '.join(_DECOMPRESSORS)}", repr(chunk.compression))
    out = _DECOMPRESSORS[chunk.compression](where, data, count)
    if len(out) != count:
        raise RecordingError(where, f"{chunk.size} bytes once decompressed", "fewer")
    return out


def _bz2(where: str, data: bytes, count: int) -> bytes:
    import bz2

    try:
        return bz2.BZ2Decompressor().decompress(data, count)
    except (OSError, EOFError, ValueError) as problem:
        raise RecordingError(where, "data that bz2 wrote", str(problem)) from None


def _lz4(where: str, data: bytes, count: int) -> bytes:
    try:
        import lz4.frame as lz4_frame  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError("lz4", EXTRA, "reading a bag compressed with LZ4") from None
    decompressor: Any = lz4_frame.LZ4FrameDecompressor()
    try:
        return decompressor.decompress(data, max_length=count)
    except (RuntimeError, EOFError, ValueError, MemoryError) as problem:
        raise RecordingError(where, "data that LZ4 wrote", str(problem)) from None


def _zstd(where: str, data: bytes, count: int) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise MissingExtraError("zstandard", EXTRA, "reading a bag compressed with Zstandard") from None
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data) as stream:
            return stream.read(count)
    except (zstandard.ZstdError, ValueError, MemoryError) as problem:
        raise RecordingError(where, "data that Zstandard wrote", str(problem)) from None


def zstd_message(where: str, data: bytes) -> bytes:
    """A message that a ROS 2 recorder compressed by itself (`compression_mode: message`)."""
    out = _zstd(where, data, MAX_MESSAGE_BYTES + 1)
    if len(out) > MAX_MESSAGE_BYTES:
        raise RecordingError(where, f"at most {MAX_MESSAGE_BYTES} bytes once decompressed", "more")
    return out


ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_DECOMPRESSORS: dict[str, Callable[[str, bytes, int], bytes]] = {"bz2": _bz2, "lz4": _lz4, "zstd": _zstd}
