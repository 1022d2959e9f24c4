"""Matroska files as depth cameras' recorders write them: tracks, tags, attachments, and where each image lies.

RFC 9559 says what the elements are (5.1), what a block starts with (10) and that times are ticks of TimestampScale
nanoseconds, a block's being relative to its cluster's. The whole file is walked once, from header to header: images are
stepped over and not read, so that a recording of an hour opens in seconds and takes 25 bytes of memory an image.

A file without an end, cut or damaged, gives what can be found: clusters start with an ID of four bytes, so that the
next one is looked for behind a damaged place. Cues (the format's own index) are not needed and not believed.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field

from bodyfit.errors import RecordingError
from bodyfit.recording.ebml import ByteFile, Element, children, element_at, number, text, unsigned

VIDEO = 1
MAX_BLOCKS = 1_000_000
"""images of one track: nine hours at 30 a second"""
# real ones have thousands of bytes an element; a file of nothing but heads would keep a reader busy for hours
_FREE_ELEMENTS, _BYTES_AN_ELEMENT = 10_000, 512
_MAX_TRACKS = 64
_MAX_TAGS = 10_000
_MAX_ATTACHMENTS = 1000
# what is read whole: descriptions, never images
_MAX_HEAD_BYTES = 4 << 20
_MAX_TICKS = 1 << 56
_MAX_SCALE_NS = 1_000_000_000
_SEARCH_BYTES = 1 << 20

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_INFO, _TRACKS, _TAGS, _ATTACHMENTS = 0x1549A966, 0x1654AE6B, 0x1254C367, 0x1941A469
_HEADS = {_INFO, _TRACKS, _TAGS}
_TOP = _HEADS | {_CLUSTER, _ATTACHMENTS, 0x114D9B74, 0x1C53BB6B, 0x1043A770}  # and the seek head, cues, chapters
_VOID, _CRC = 0xEC, 0xBF
_TIMESTAMP, _SIMPLE_BLOCK, _BLOCK_GROUP, _BLOCK, _REFERENCE = 0xE7, 0xA3, 0xA0, 0xA1, 0xFB
# and a cluster's position, the size of the one before it, silent tracks, encrypted blocks
_IN_CLUSTER = {_TIMESTAMP, _SIMPLE_BLOCK, _BLOCK_GROUP, _VOID, _CRC, 0xA7, 0xAB, 0x5854, 0xAF}
_FOUND_AGAIN = re.compile(b"|".join(re.escape(i.to_bytes(4, "big")) for i in (_CLUSTER, _ATTACHMENTS, *sorted(_HEADS))))


@dataclass(frozen=True)
class Track:
    """One track, as its entry describes it.

    Attributes:
        number: what its blocks call it; `uid` is what tags call it.
        name: `DEPTH`, `COLOR`, …
        kind: `VIDEO` or another of the format's types.
        codec: CodecID, for instance `V_MJPEG` or `V_MS/VFW/FOURCC`.
        private: what the codec has to know beside its images.
        width, height: pixels; 0 where it has none.
        period_ns: of one image, 0 where not told.
        fourcc: of uncompressed images.
        is_compressed: its blocks are compressed or encrypted once more.
    """

    number: int
    uid: int = 0
    name: str = ""
    kind: int = 0
    codec: str = ""
    private: bytes = b""
    width: int = 0
    height: int = 0
    period_ns: int = 0
    fourcc: bytes = b""
    is_compressed: bool = False


@dataclass(frozen=True)
class Tag:
    """A tag's value, and the track or attachment that it is about (0 = the whole file)."""

    value: str
    track_uid: int = 0
    attachment_uid: int = 0


@dataclass(frozen=True)
class Attachment:
    """An attached file and where its bytes lie."""

    name: str
    uid: int
    position: int
    size: int


@dataclass
class Blocks:
    """Where a track's blocks lie, in the order of the file.

    Attributes:
        positions, sizes: of their contents, in bytes.
        ticks: their times, in units of the file's TimestampScale.
        flags: bit 0x80: can be decoded by itself; bits 0x06: several frames in one block (lacing).
    """

    positions: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    ticks: array[int] = field(default_factory=lambda: array("q"))
    flags: bytearray = field(default_factory=bytearray)

    def __len__(self) -> int:
        return len(self.positions)


class Container:
    """What a Matroska file holds, found by walking it once.

    Args:
        file: the file; stays open.

    Attributes:
        scale_ns: nanoseconds of one tick.
        title, writer: what the file is called and what wrote it; empty where not told.
        tracks: in their order.
        tags: by name; the first of each.
        attachments: the attached files.
        blocks: by track number.
        missing_bytes: how many the file should have beyond its end; 0 where all are there or nobody knows.
        is_finished: False where the recorder never wrote how long the recording is.
        damaged_places: where other bytes stood than elements, and reading went on behind them.
        dropped_blocks: beyond the most that a track may have.

    Raises:
        RecordingError: no Matroska file, one without a description of its tracks, or one of too many elements.
    """

    def __init__(self, file: ByteFile) -> None:
        self.file = file
        self.scale_ns = 1_000_000
        self.title = self.writer = ""
        self.tracks: list[Track] = []
        self.tags: dict[str, Tag] = {}
        self.attachments: list[Attachment] = []
        self.blocks: dict[int, Blocks] = {}
        self.missing_bytes = self.damaged_places = self.dropped_blocks = 0
        self.is_finished = True
        self._elements = 0
        self._walk(self._open_segment())
        if not self.tracks:
            found = f"none: the last {self.missing_bytes} bytes are missing" if self.missing_bytes else "none"
            raise RecordingError(f"{file.name}: Tracks", "a description of the recording's tracks", found)

    def track(self, number: int) -> Blocks:
        """The blocks of a track; none where it has none."""
        return self.blocks.get(number) or Blocks()

    def _open_segment(self) -> Element:
        head = element_at(self.file, 0)
        if head is None or head.id != _EBML or head.end is None or head.end - head.body > 4096:
            raise RecordingError(self.file.name, "a Matroska file", "one that starts otherwise")
        kinds = [text(data) for i, data in children(self.file.name, self._contents(head)) if i == 0x4282]
        if kinds != ["matroska"]:
            raise RecordingError(self.file.name, "an EBML file of type matroska", f"{', '.join(kinds)[:40] or 'none'}")
        position = head.end
        segment = element_at(self.file, position)
        while segment is not None and segment.id in (_VOID, _CRC) and segment.end is not None:
            segment = element_at(self.file, segment.end)
        if segment is None or segment.id != _SEGMENT:
            raise RecordingError(self.file.name, "a Matroska segment behind the header", "none: the file is cut")
        if segment.end is None or segment.end == segment.body:
            self.is_finished = False
        else:
            self.missing_bytes = max(0, segment.end - self.file.size)
        return segment

    def _contents(self, element: Element) -> bytes:
        return self.file.exactly(element.body, (element.end or element.body) - element.body)

    def _at(self, position: int) -> Element | None:
        self._elements += 1
        most = _FREE_ELEMENTS + self.file.size // _BYTES_AN_ELEMENT
        if self._elements > most:
            raise RecordingError(self.file.name, f"at most {most} Matroska elements in {self.file.size} bytes", "more")
        return element_at(self.file, position)

    def _walk(self, segment: Element) -> None:
        position = segment.body
        while position < self.file.size:
            element = self._at(position)
            if element is not None and element.id == _CLUSTER:
                position = self._read_cluster(element)
            elif element is None or not self._read_top(element):
                position = self._find_again(position)
            else:
                position = element.end or self.file.size

    def _read_top(self, element: Element) -> bool:
        """Reads what is no cluster; False where it is nothing that stands here, or is broken."""
        if element.end is None or element.end > self.file.size or element.id not in _TOP | {_VOID, _CRC}:
            return False
        try:
            if element.id == _ATTACHMENTS:
                self._read_attachments(element)
            elif element.id in _HEADS:
                if element.end - element.body > _MAX_HEAD_BYTES:
                    return False
                contents = self._contents(element)
                {_INFO: self._read_info, _TRACKS: self._read_tracks, _TAGS: self._read_tags}[element.id](contents)
        except RecordingError:
            return False
        return True

    def _find_again(self, position: int) -> int:
        """Where reading can go on behind bytes that are no elements; the file's end where nowhere."""
        at = position + 1
        while at < self.file.size:
            piece = self.file.read(at, _SEARCH_BYTES)
            for match in _FOUND_AGAIN.finditer(piece):
                element = self._at(at + match.start())
                if element is not None and self._may_go_on(element):
                    self.damaged_places += 1
                    return element.start
            if len(piece) < _SEARCH_BYTES:
                break
            at += len(piece) - 3  # an ID may lie across the border of two pieces
        if not self.missing_bytes and self.file.size - position > 1:
            self.damaged_places += 1
        return self.file.size

    def _may_go_on(self, element: Element) -> bool:
        """Whether an ID that was found in the middle of other bytes can be that of an element."""
        if element.id == _CLUSTER:  # the last one of a cut file is longer than what is left of it
            return element.head[:1] in (bytes([_TIMESTAMP]), bytes([_VOID]), bytes([_CRC]))
        return element.end is not None and element.end <= self.file.size

    def _read_cluster(self, cluster: Element) -> int:
        """Indexes a cluster's blocks; where what follows it starts."""
        size = self.file.size
        end = size if cluster.end is None else min(cluster.end, size)
        position, ticks = cluster.body, -1
        while position < end:
            element = self._at(position)
            if element is not None and element.id in _TOP:
                return position  # a cluster of unknown size, or one whose size is wrong, ends where the next starts
            if element is None or element.id not in _IN_CLUSTER or element.end is None or element.end > end:
                return self._find_again(position)
            if element.id == _TIMESTAMP:
                ticks = unsigned(element.head[: element.end - element.body])
                if ticks > _MAX_TICKS:
                    return self._find_again(position)
            elif element.id == _SIMPLE_BLOCK and ticks >= 0:
                self._add_block(element.head, element.body, element.end, ticks, None)
            elif element.id == _BLOCK_GROUP and ticks >= 0:
                self._read_group(element, ticks)
            position = element.end
        return end

    def _read_group(self, group: Element, ticks: int) -> None:
        position, end = group.body, group.end or group.body
        block: Element | None = None
        is_key = True
        while position < end:
            element = self._at(position)
            if element is None or element.end is None or element.end > end:
                break
            if element.id == _BLOCK:
                block = element
            is_key = is_key and element.id != _REFERENCE
            position = element.end
        if block is not None and block.end is not None:
            self._add_block(block.head, block.body, block.end, ticks, is_key)

    def _add_block(self, head: bytes, body: int, end: int, ticks: int, is_key: bool | None) -> None:
        """`is_key`: None where the block itself says it."""
        track = number(head, 0)
        if track is None or body + track[1] + 3 > end or len(head) < track[1] + 3:
            self.damaged_places += 1
            return
        name, at = track
        if name not in self.blocks and len(self.blocks) >= _MAX_TRACKS:
            self.damaged_places += 1
            return
        blocks = self.blocks.setdefault(name, Blocks())
        if len(blocks) >= MAX_BLOCKS:
            self.dropped_blocks += 1
            return
        blocks.positions.append(body + at + 3)
        blocks.sizes.append(end - body - at - 3)
        blocks.ticks.append(ticks + int.from_bytes(head[at : at + 2], "big", signed=True))
        flags = head[at + 2]
        blocks.flags.append(flags if is_key is None else flags & 0x7F | (0x80 if is_key else 0))

    def _read_info(self, data: bytes) -> None:
        names = {0x7BA9: "title", 0x5741: "writer"}
        scale = 1_000_000
        for identity, value in children(f"{self.file.name}: Info", data):
            if identity == 0x2AD7B1:
                scale = unsigned(value)
            elif identity in names:
                setattr(self, names[identity], text(value))
        if not 1 <= scale <= _MAX_SCALE_NS:
            raise RecordingError(f"{self.file.name}: TimestampScale", f"1 to {_MAX_SCALE_NS} ns", str(scale))
        self.scale_ns = scale

    def _read_tracks(self, data: bytes) -> None:
        where = f"{self.file.name}: Tracks"
        entries = [value for identity, value in children(where, data) if identity == 0xAE]
        tracks = [_track(where, entry) for entry in entries[:_MAX_TRACKS]]
        if not self.tracks:
            self.tracks = [track for track in tracks if track.number]

    def _read_tags(self, data: bytes) -> None:
        where = f"{self.file.name}: Tags"
        for identity, value in children(where, data):
            if identity != 0x7373 or len(self.tags) >= _MAX_TAGS:
                continue
            pairs: list[tuple[str, str]] = []
            track_uid = attachment_uid = 0
            for kind, part in children(where, value):
                if kind == 0x63C0:
                    targets = dict(children(where, part))
                    track_uid, attachment_uid = (unsigned(targets.get(i, b"")) for i in (0x63C5, 0x63C6))
                elif kind == 0x67C8:
                    simple = dict(children(where, part))
                    pairs.append((text(simple.get(0x45A3, b"")), text(simple.get(0x4487, b""))))
            for name, content in pairs:
                self.tags.setdefault(name, Tag(content.strip(), track_uid, attachment_uid))

    def _read_attachments(self, element: Element) -> None:
        """Attached files are found, not read: they may be large."""
        position, end = element.body, element.end or element.body
        while position < end and len(self.attachments) < _MAX_ATTACHMENTS:
            entry = self._at(position)
            if entry is None or entry.end is None or entry.end > end:
                raise RecordingError(f"{self.file.name}: Attachments", "Matroska elements", "other bytes")
            if entry.id == 0x61A7:
                self._read_attachment(entry)
            position = entry.end

    def _read_attachment(self, entry: Element) -> None:
        name, uid, place = "", 0, (0, -1)
        position, end = entry.body, entry.end or entry.body
        while position < end:
            part = self._at(position)
            if part is None or part.end is None or part.end > end:
                raise RecordingError(f"{self.file.name}: Attachments", "Matroska elements", "other bytes")
            if part.id == 0x466E:
                name = text(self.file.read(part.body, min(part.end - part.body, 4096)))
            elif part.id == 0x46AE:
                uid = unsigned(self.file.read(part.body, min(part.end - part.body, 8)))
            elif part.id == 0x465C:
                place = (part.body, part.end - part.body)
            position = part.end
        if place[1] >= 0:
            self.attachments.append(Attachment(name, uid, *place))


def _track(where: str, data: bytes) -> Track:
    """A track's entry; unknown elements are left out."""
    found = dict(children(where, data))
    video = dict(children(where, found.get(0xE0, b"")))
    return Track(
        number=unsigned(found.get(0xD7, b"")),
        uid=unsigned(found.get(0x73C5, b"")),
        name=text(found.get(0x536E, b"")),
        kind=unsigned(found.get(0x83, b"")),
        codec=text(found.get(0x86, b"")),
        private=found.get(0x63A2, b""),
        width=unsigned(video.get(0xB0, b"")),
        height=unsigned(video.get(0xBA, b"")),
        period_ns=unsigned(found.get(0x23E383, b"")),
        fourcc=video.get(0x2EB524, b"")[:4],
        is_compressed=0x6D80 in found,
    )
