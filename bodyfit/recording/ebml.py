"""EBML, the layer below Matroska: numbers and elements of a file, read where they stand and never beyond its end.

RFC 8794: an element is an ID (4: a number of 1 to 4 bytes, whose leading bits say how many), a size (6: of 1 to 8
bytes; all bits set = unknown, allowed for the segment and clusters alone) and that many bytes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bodyfit.errors import RecordingError

HEADER_BYTES = 24
"""enough for an element's ID and size (12) and what a block starts with (11)"""
_MAX_CHILDREN = 100_000


class ByteFile:
    """A file that is read in pieces, at any place, by any thread.

    Args:
        path: the file.

    Attributes:
        name: what errors call it.
        size: bytes there are.

    Raises:
        RecordingError: a file that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._lock = threading.Lock()
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as problem:
            raise RecordingError(path.name, "a readable file", problem.strerror or str(problem)) from None

    def read(self, position: int, count: int) -> bytes:
        """`count` bytes from `position`, fewer at the file's end.

        Raises:
            RecordingError: a file that was closed or cannot be read any more.
        """
        count = max(0, min(count, self.size - position))
        try:
            with self._lock:
                self._file.seek(position)
                data = self._file.read(count)
                while len(data) < count:  # a read may be shorter than what there is
                    more = self._file.read(count - len(data))
                    if not more:
                        break
                    data += more
        except OSError as problem:
            raise RecordingError(self.name, "a readable file", problem.strerror or str(problem)) from None
        except ValueError:
            raise RecordingError(self.name, "an open recording", "one that was closed") from None
        return data

    def exactly(self, position: int, count: int) -> bytes:
        """The same, all of them.

        Raises:
            RecordingError: also where the file became shorter.
        """
        data = self.read(position, count)
        if len(data) != count:
            raise RecordingError(self.name, f"{count} bytes from byte {position}", f"{len(data)}: the file was cut")
        return data

    def close(self) -> None:
        """Closes the file; reading afterwards fails."""
        self._file.close()


class Element(NamedTuple):
    """One element of a file.

    Attributes:
        id: its ID, length bits included, as RFC 9559 lists them.
        start: where its ID stands.
        body: where its contents start.
        end: where they end by its own word, maybe beyond the file; None where the size is unknown.
        head: the first bytes of its contents (11 at least, if there are as many in the file).
    """

    id: int
    start: int
    body: int
    end: int | None
    head: bytes


def number(data: bytes, at: int) -> tuple[int, int] | None:
    """A number of variable length and its length in bytes; None where it is cut or longer than eight."""
    if at >= len(data) or data[at] == 0:
        return None
    length = 9 - data[at].bit_length()
    if at + length > len(data):
        return None
    value = int.from_bytes(data[at : at + length], "big")
    return value & ((1 << 7 * length) - 1), length


def element_at(file: ByteFile, position: int) -> Element | None:
    """The element that starts at `position`; None where no ID and size can be read."""
    head = file.read(position, HEADER_BYTES)
    found = _header(head, 0)
    if found is None:
        return None
    identity, size, body = found
    end = None if size is None else position + body + size
    return Element(identity, position, position + body, end, head[body:])


def _header(data: bytes, at: int) -> tuple[int, int | None, int] | None:
    """ID, size (None = unknown) and where the contents start."""
    if at >= len(data) or data[at] < 0x10:  # IDs have four bytes at most
        return None
    id_length = 9 - data[at].bit_length()
    size = number(data, at + id_length)
    if size is None:
        return None
    value, length = size
    unknown = value == (1 << 7 * length) - 1
    body = at + id_length + length
    return int.from_bytes(data[at : at + id_length], "big"), None if unknown else value, body


def children(name: str, data: bytes) -> Iterator[tuple[int, bytes]]:
    """IDs and contents of the elements in `data`, one after another.

    Raises:
        RecordingError: bytes that are no elements, or one that is longer than what holds it.
    """
    at = 0
    for _ in range(_MAX_CHILDREN):
        if at >= len(data):
            return
        found = _header(data, at)
        if found is None or found[1] is None or found[2] + found[1] > len(data):
            raise RecordingError(name, "Matroska elements", f"other bytes, {at} into {len(data)}")
        identity, size, body = found
        at = body + (size or 0)
        yield identity, data[body:at]
    raise RecordingError(name, f"at most {_MAX_CHILDREN} elements", "more")


def unsigned(data: bytes) -> int:
    """An unsigned integer; of 8 bytes at most, as the format has them."""
    return int.from_bytes(data[:8], "big")


def text(data: bytes) -> str:
    """A string; ended by the first zero byte, if there is one."""
    return data[:4096].split(b"\0", 1)[0].decode("utf-8", "replace")
