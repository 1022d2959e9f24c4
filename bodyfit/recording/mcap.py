"""MCAP files: records, chunks, channels, and where each message lies; of ROS 2 recorders.

The format, after the MCAP specification (mcap.dev/spec): the magic, then records of an opcode (1 byte), a length (8)
and data; all numbers little-endian. Schema (3) and channel (4) say type and topic; a chunk (6) holds records, plain or
compressed as `lz4` or `zstd`; a message index (7) says where a channel's messages lie in the chunk before it; messages
(5) may stand outside of chunks. Messages of ROS 2 are coded as `cdr`, those of converted ROS 1 bags as `ros1`.

The file is walked from its beginning; the summary at its end is not relied on, so a file that was never closed, or was
cut, is read as far as it goes.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bodyfit.errors import RecordingError
from bodyfit.recording.bag import LOOSE, MAX_TOPICS, Chunk, ChunkedBag, Read, Topic

MAGIC = b"\x89MCAP0\r\n"
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _MESSAGE_INDEX = 1, 2, 3, 4, 5, 6, 7
_MAX_DEFINITION_BYTES = 1 << 20
_RECORD_BYTES, _MESSAGE_HEADER_BYTES = 9, 22


class _Channel(NamedTuple):
    schema: int
    topic: str
    coding: str


class Mcap(ChunkedBag):
    """An MCAP file.

    Args:
        path: the file.

    Raises:
        RecordingError: no such file, or one that holds nothing that can be read.
        MissingExtraError: a compression whose package is not installed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, _Channel] = {}
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
        head = read(offset, _RECORD_BYTES + _MESSAGE_HEADER_BYTES)
        if len(head) == _RECORD_BYTES + _MESSAGE_HEADER_BYTES and head[0] == _MESSAGE:
            size, channel = struct.unpack_from("<QH", head, 1)
            known = self._channels.get(channel)
            if known is not None and known.topic == topic.name and size >= _MESSAGE_HEADER_BYTES:
                return read, offset + len(head), size - _MESSAGE_HEADER_BYTES
        raise RecordingError(f"{self.name}: {topic.name}", f"message {k} where the index says", "something else")

    def _walk(self) -> None:
        """All records of the file, the chunks' contents left out as far as they are indexed."""
        read, size = self._file.read, self._file.size
        if read(0, len(MAGIC)) != MAGIC:
            raise RecordingError(self.name, "an MCAP file", f"a file that starts {read(0, 8)!r}")
        position, chunk, indexed, is_closed = len(MAGIC), LOOSE, True, False
        unindexed: list[int] = []
        while position < size and not is_closed:
            head = read(position, _RECORD_BYTES)
            op, length = struct.unpack("<BQ", head) if len(head) == _RECORD_BYTES else (0, 0)
            data, end = position + _RECORD_BYTES, position + _RECORD_BYTES + length
            if op == 0 or end > size:
                break
            if op == _FOOTER:
                is_closed = True
            elif op == _CHUNK:
                if not indexed:
                    unindexed.append(chunk)
                one = self._chunk(data, length)
                chunk, indexed = len(self._chunks.chunks), one.size == 0
                self._chunks.chunks.append(one)
            elif op == _MESSAGE_INDEX and chunk != LOOSE:
                indexed = self._take_index(data, length, chunk) or indexed
            else:
                self._take(read, op, position, length, LOOSE)
            position = end
        if not indexed:
            unindexed.append(chunk)
        if not is_closed:
            lost = size - position
            self.notes.append(
                f"The file was not closed, cut or damaged at byte {position}: the {lost} bytes from there are not read;"
                " `mcap recover` makes a whole file of it."
            )
        for one in unindexed:
            self._scan_chunk(one, with_messages=True)
        for one in range(len(self._chunks.chunks)):
            if all(channel in self._channels for channel in self._rows):
                break
            self._scan_chunk(one, with_messages=False)

    def _chunk(self, data: int, length: int) -> Chunk:
        """Start and end time, size, checksum, compression, and then the records."""
        head = self._file.read(data, min(length, 256))
        if len(head) >= 32:
            size, _, named = struct.unpack_from("<QII", head, 16)
            begin = 32 + named + 8
            if named <= 64 and len(head) >= begin:
                (stored,) = struct.unpack_from("<Q", head, 32 + named)
                compression = head[32 : 32 + named].decode("ascii", "replace") or "none"
                if begin + stored <= length:
                    return Chunk(data + begin, stored, stored if compression == "none" else size, compression)
        self.notes.append(f"The chunk at byte {data} is left out: its header is damaged.")
        return Chunk(data, 0, 0, "none")

    def _take_index(self, data: int, length: int, chunk: int) -> bool:
        """Where a channel's messages lie in a chunk; False where the record does not say it."""
        raw = self._file.read(data, length)
        if len(raw) < 6:
            return False
        channel, size = struct.unpack_from("<HI", raw)
        if size != len(raw) - 6 or size % 16:
            return False
        pairs = np.frombuffer(raw, "<i8", offset=6).reshape(-1, 2)
        rows = np.stack([pairs[:, 0], np.full(len(pairs), chunk), pairs[:, 1]], axis=-1).astype(np.int64)
        self._rows.setdefault(channel, []).append(rows)
        return True

    def _scan_chunk(self, chunk: int, *, with_messages: bool) -> None:
        read, size, position = self._reader(chunk), self._chunks.chunks[chunk].size, 0
        try:
            while position < size:
                head = read(position, _RECORD_BYTES)
                op, length = struct.unpack("<BQ", head) if len(head) == _RECORD_BYTES else (0, 0)
                if op == 0 or position + _RECORD_BYTES + length > size:
                    break
                if with_messages or op != _MESSAGE:
                    self._take(read, op, position, length, chunk)
                position += _RECORD_BYTES + length
        except RecordingError as problem:
            self.notes.append(f"A chunk is left out: {problem}.")

    def _take(self, read: Read, op: int, position: int, length: int, chunk: int) -> None:
        """A schema, a channel, or a message that no index names."""
        if op == _MESSAGE:
            head = read(position + _RECORD_BYTES, _MESSAGE_HEADER_BYTES)
            if len(head) == _MESSAGE_HEADER_BYTES:
                channel, _, time_ns = struct.unpack_from("<HIq", head)
                self._rows.setdefault(channel, []).append(np.array([[time_ns, chunk, position]], np.int64))
        elif op in (_SCHEMA, _CHANNEL) and max(len(self._schemas), len(self._channels)) < MAX_TOPICS:
            data = read(position + _RECORD_BYTES, min(length, _MAX_DEFINITION_BYTES))
            if op == _SCHEMA and len(data) >= 6:
                number, named = struct.unpack_from("<HI", data)
                self._schemas.setdefault(number, _text(data[6 : 6 + named]))
            elif op == _CHANNEL and len(data) >= 8:
                number, schema, named = struct.unpack_from("<HHI", data)
                after = 8 + min(named, len(data))
                coding = data[after + 4 : after + 4 + int.from_bytes(data[after : after + 4], "little")]
                self._channels.setdefault(number, _Channel(schema, _text(data[8:after]), _text(coding)))

    def _make_topics(self) -> None:
        by_topic: dict[_Channel, list[np.ndarray]] = {}
        for number, rows in self._rows.items():
            if number in self._channels and self._channels[number].coding in ("cdr", "ros1"):
                by_topic.setdefault(self._channels[number], []).extend(rows)
        for channel, rows in by_topic.items():
            kind = self._schemas.get(channel.schema, "").replace("/msg/", "/")
            topic = self.topics.setdefault(channel.topic, Topic(channel.topic, kind, is_cdr=channel.coding == "cdr"))
            if not len(topic) and sum(map(len, rows)):
                topic.set_messages(np.concatenate(rows))
        self._rows.clear()
        if not any(len(topic) for topic in self.topics.values()):
            why = " ".join(self.notes)
            raise RecordingError(self.name, "an MCAP file with ROS messages", f"none that can be read. {why}".strip())


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
