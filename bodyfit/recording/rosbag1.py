"""ROS 1 bags, format 2.0 (`#ROSBAG V2.0`): records, chunks, connections, and where each message lies.

The format, after "Bags/Format/2.0" of the ROS wiki: a record is a length, a header of `name=value` fields, a length and
data; all numbers little-endian. `op` tells the kind: 3 the bag's header, 5 a chunk (its data is records, compressed as
`none`, `bz2` or `lz4`), 4 where a connection's messages lie in the chunk before it, 7 a connection (topic and type), 6
what chunks there are, 2 a message.

The file is walked from its beginning, header by header, and the index at its end is not relied on: so a bag that was
never closed, or was cut, is read as far as it goes, as `rosbag reindex` would.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bodyfit.errors import RecordingError
from bodyfit.recording.bag import LOOSE, MAX_TOPICS, Chunk, ChunkedBag, Read, Topic

MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _BAG, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION = 2, 3, 4, 5, 6, 7
_MAX_HEADER_BYTES = 1 << 16
_FIRST_READ = 320


class _Record(NamedTuple):
    """One record: its fields, and where its data lies."""

    fields: dict[bytes, bytes]
    op: int
    start: int
    data: int
    size: int

    @property
    def end(self) -> int:
        return self.data + self.size

    def number(self, name: bytes) -> int:
        value = self.fields.get(name, b"")
        return int.from_bytes(value, "little") if len(value) in (1, 4, 8) else -1

    def time_ns(self) -> int:
        value = self.fields.get(b"time", b"")
        return int.from_bytes(value[:4], "little") * 10**9 + int.from_bytes(value[4:8], "little")


class Rosbag1(ChunkedBag):
    """A ROS 1 bag.

    Args:
        path: the file.

    Raises:
        RecordingError: no bag, one of another version, or one that holds nothing that can be read.
        MissingExtraError: a compression whose package is not installed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connections: dict[int, tuple[str, str]] = {}
        self._rows: dict[int, list[np.ndarray]] = {}
        try:
            self._walk()
            self._make_topics()
        except BaseException:
            self.close()
            raise

    def _place(self, topic: Topic, k: int) -> tuple[Read, int, int]:
        """How to read a message, where its data lies and how long it is."""
        chunk, offset = (int(value) for value in topic.places[k])
        read = self._reader(chunk)
        record = _record(read, offset)
        if record is None or record.op != _MESSAGE or self._connection_name(record) != topic.name:
            raise RecordingError(f"{self.name}: {topic.name}", f"message {k} where the index says", "something else")
        return read, record.data, record.size

    def _connection_name(self, record: _Record) -> str:
        return self._connections.get(record.number(b"conn"), ("", ""))[0]

    def _walk(self) -> None:
        """All records of the file, the chunks' contents left out as far as they are indexed."""
        if self._file.read(0, len(MAGIC)) != MAGIC:
            raise RecordingError(self.name, "a ROS bag of format 2.0", f"a file that starts {self._file.read(0, 13)!r}")
        position, chunk, indexed, is_closed = len(MAGIC), LOOSE, True, True
        unindexed: list[int] = []
        while position < self._file.size:
            record = _record(self._file.read, position)
            if record is not None and record.op == _CHUNK and record.size == 0 and record.number(b"size") == 0:
                # a recorder that died had not yet written how long its last chunk became: its records come bare
                is_closed = False
            elif record is None or record.end > self._file.size or record.op not in range(_MESSAGE, _CONNECTION + 1):
                lost = self._file.size - position
                self.notes.append(
                    f"The bag is cut or damaged at byte {position}: the {lost} bytes from there are not read."
                )
                break
            position = record.end
            if record.op == _BAG:
                if record.fields.get(b"encryptor"):
                    raise RecordingError(
                        self.name, "a bag that is not encrypted", f"{record.fields[b'encryptor'][:40]!r}"
                    )
                is_closed = record.number(b"index_pos") > 0
            elif record.op == _CHUNK:
                if not indexed:
                    unindexed.append(chunk)
                chunk, indexed = len(self._chunks.chunks), record.size == 0
                self._chunks.chunks.append(_chunk(record))
            elif record.op == _INDEX and chunk != LOOSE:
                indexed = self._take_index(record, chunk) or indexed
            else:
                self._take(record, LOOSE)
        if not indexed:
            unindexed.append(chunk)
        if not is_closed:
            self.notes.append(
                "The bag was not closed by its recorder: what is there is read; `rosbag reindex` makes it whole."
            )
        self._scan(unindexed)

    def _scan(self, unindexed: list[int]) -> None:
        """Chunks whose messages no index names are looked through, and others for connections that are not known."""
        for chunk in unindexed:
            self._scan_chunk(chunk, with_messages=True)
        for chunk in range(len(self._chunks.chunks)):
            if all(connection in self._connections for connection in self._rows):
                break
            self._scan_chunk(chunk, with_messages=False)

    def _scan_chunk(self, chunk: int, *, with_messages: bool) -> None:
        try:
            for record in _records(self._reader(chunk), self._chunks.chunks[chunk].size):
                if with_messages or record.op == _CONNECTION:
                    self._take(record, chunk)
        except RecordingError as problem:
            self.notes.append(f"A chunk is left out: {problem}.")

    def _take(self, record: _Record, chunk: int) -> None:
        """A connection, or a message that no index names."""
        if record.op == _CONNECTION and len(self._connections) < MAX_TOPICS:
            read = self._reader(chunk)
            inside = _fields(read(record.data, min(record.size, _MAX_HEADER_BYTES)), is_cut=True)
            topic = inside.get(b"topic") or record.fields.get(b"topic", b"")
            name, kind = (value.decode("utf-8", "replace") for value in (topic, inside.get(b"type", b"")))
            self._connections.setdefault(record.number(b"conn"), (name, kind.replace("/msg/", "/")))
        elif record.op == _MESSAGE:
            row = np.array([[record.time_ns(), chunk, record.start]], np.int64)
            self._rows.setdefault(record.number(b"conn"), []).append(row)

    def _take_index(self, record: _Record, chunk: int) -> bool:
        """Where a connection's messages lie in a chunk; False where the record does not say it."""
        count = record.number(b"count")
        if record.number(b"ver") != 1 or count * 12 != record.size:
            return False
        raw = np.frombuffer(self._file.exactly(record.data, record.size), "<u4").reshape(-1, 3).astype(np.int64)
        rows = np.stack([raw[:, 0] * 10**9 + raw[:, 1], np.full(count, chunk), raw[:, 2]], axis=-1)
        self._rows.setdefault(record.number(b"conn"), []).append(rows)
        return True

    def _make_topics(self) -> None:
        by_name: dict[tuple[str, str], list[np.ndarray]] = {}
        for connection, rows in self._rows.items():
            if connection in self._connections:
                by_name.setdefault(self._connections[connection], []).extend(rows)
        for (name, kind), rows in by_name.items():
            topic = self.topics.setdefault(name, Topic(name, kind, is_cdr=False))
            if not len(topic) and sum(map(len, rows)):
                topic.set_messages(np.concatenate(rows))
        self._rows.clear()
        if not any(len(topic) for topic in self.topics.values()):
            why = " ".join(self.notes)
            raise RecordingError(self.name, "a bag with messages", f"none that can be read. {why}".strip())


def _chunk(record: _Record) -> Chunk:
    compression = record.fields.get(b"compression", b"").decode("ascii", "replace")
    size = record.size if compression == "none" else max(0, record.number(b"size"))
    return Chunk(record.data, record.size, size, compression)


def _records(read: Read, size: int) -> Iterator[_Record]:
    position = 0
    while position < size:
        record = _record(read, position)
        if record is None or record.end > size:
            return
        yield record
        position = record.end


def _record(read: Read, position: int) -> _Record | None:
    """The record at a position; None where there is none that makes sense."""
    head = read(position, _FIRST_READ)
    if len(head) < 8:
        return None
    (length,) = struct.unpack_from("<I", head)
    if not 0 < length <= _MAX_HEADER_BYTES:
        return None
    if len(head) < length + 8:
        head = read(position, length + 8)
        if len(head) < length + 8:
            return None
    fields = _fields(head[4 : 4 + length], is_cut=False)
    op = fields.get(b"op", b"")
    (size,) = struct.unpack_from("<I", head, 4 + length)
    return _Record(fields, op[0], position, position + length + 8, size) if len(op) == 1 else None


def _fields(data: bytes, *, is_cut: bool) -> dict[bytes, bytes]:
    """`name=value` fields, each after its length; nothing where they do not fill `data`, unless it may be cut."""
    fields: dict[bytes, bytes] = {}
    position = 0
    while position + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, position)
        field = data[position + 4 : position + 4 + length]
        name, equals, value = field.partition(b"=")
        if len(field) != length or not equals:
            return fields if is_cut else {}
        fields[name] = value
        position += 4 + length
    return fields
