"""Valid requests, and what may become of them on the way: bytes that flip, fields that hold what nobody sends, images
that are broken, forged or far larger than they look. Every mutation comes from a seed."""

from __future__ import annotations

import io
import math
import random
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import zstandard
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from bodyfit.camera import Camera, Distortion
from bodyfit.frame import Frame, Keypoints
from bodyfit.recording.description import Sensor
from bodyfit_protos.v1 import bodyfit_pb2 as pb
from bodyfit_service.frames_wire import header_message, instant_message

WIDTH, HEIGHT = 40, 32
NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-7, 5e-324, 1e6, 1e12, 1e308, -1e308, math.nan, math.inf, -math.inf)
INTEGERS = (0, 1, 2, 3, 7, 255, 65535, 16384, 16385, 2**31 - 1, 2**32 - 1, -1, -(2**31), 2**63 - 1, 2**64 - 1)
TEXTS = ("", "a", "x" * 1000, "../../etc/passwd", "truth", "\0", "left", "LEFT", "naïve", "nose", "%s%n", "{}", " ")
_INTEGER_BITS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_ENUM: (-(2**31), 2**31 - 1),
}


# what is valid


def sensors(distorted: bool = False) -> tuple[Sensor, Sensor]:
    """One with colour, one without."""
    lens = Distortion("brown_conrady", (0.05, -0.02, 0.001, -0.001, 0.0)) if distorted else Distortion()
    T = np.eye(4)
    T[:3, 3] = 0.1, -2.0, 1.3
    color_camera = Camera(48, 27, 40, 40, 23.5, 13, lens)
    left = Sensor("left", Camera(WIDTH, HEIGHT, 35.0, 35.5, 19.6, 15.4, lens), T, color_camera, np.eye(4))
    return left, Sensor("right", Camera(36, 30, 30.0, 30.0, 17.5, 14.5), np.eye(4), depth_unit_m=0.00025)


def frames(t: int) -> list[Frame]:
    """Noise in front of a wall: nobody is there, so that a fit ends early."""
    rng = np.random.default_rng(t)
    left, right = sensors()
    assert left.color_camera is not None
    depth = (np.rint(rng.uniform(500, 5000, (HEIGHT, WIDTH))) * 0.001).astype(np.float32)
    depth[rng.uniform(size=depth.shape) < 0.1] = 0
    return [
        Frame(
            depth=depth,
            depth_camera=left.depth_camera,
            T_world_depth=left.T_world_depth,
            timestamp_s=0.1 * t,
            color=rng.integers(0, 256, (27, 48, 3), dtype=np.uint8),
            color_camera=left.color_camera,
            T_color_depth=left.T_color_depth,
            mask=depth > 2.0,
            keypoints=Keypoints(("nose", "left_hip"), np.array([[20.25, 4.0], [23.0, 13.5]]), np.array([1.0, 0.25])),
            sensor="left",
            index=t,
        ),
        Frame(
            depth=(rng.integers(1, 40000, (30, 36)) * 0.00025).astype(np.float32),
            depth_camera=right.depth_camera,
            T_world_depth=right.T_world_depth,
            timestamp_s=0.1 * t,
            sensor="right",
            index=t,
        ),
    ]


def valid_request(kind: int) -> pb.FitRequest:
    """One of four: they use every encoding there is between them."""
    gravity = np.array([0.0, 0.0, -1.0]) if kind % 2 else None
    request = pb.FitRequest(header=header_message(sensors(distorted=kind == 2), gravity))
    for t in range(1 + kind % 3):
        instant = instant_message(
            frames(t),
            index=t,
            timestamp_s=0.1 * t,
            depth=("zstd", "raw")[kind % 2],
            color=("png", "jpeg", "raw")[kind % 3],
            stamps={"left": 0.1 * t + 0.003},
        )
        if kind >= 2:
            _counts(instant.frames[1].depth, 36 * 30, zipped=kind == 3)
            instant.frames[0].depth.CopyFrom(pb.DepthImage(encoding=pb.DEPTH_ENCODING_PNG16, data=_png16()))
            mask = instant.frames[0].mask
            mask.encoding, mask.data = pb.MASK_ENCODING_RAW_UINT8, bytes([0, 255] * (WIDTH * HEIGHT // 2))
        request.instants.append(instant)
    return request


def valid_recording_stream(kind: int) -> list[pb.FitRecordingRequest]:
    """The same as a stream of chunks."""
    request = valid_request(kind)
    start = pb.FitRecordingStart(header=request.header, options=request.options, outputs=request.outputs)
    out = [pb.FitRecordingRequest(start=start)]
    for position, instant in enumerate(request.instants):
        data = instant.SerializeToString()
        for offset in range(0, len(data), 1500):
            piece = data[offset : offset + 1500]
            chunk = pb.InstantChunk(position=position, offset=offset, data=piece, last=offset + len(piece) == len(data))
            out.append(pb.FitRecordingRequest(chunk=chunk))
    return [*out, pb.FitRecordingRequest(finish=pb.FitRecordingFinish(num_instants=len(request.instants)))]


def valid_track_stream(kind: int) -> list[pb.TrackRequest]:
    """The same, live."""
    request = valid_request(kind)
    start = pb.TrackStart(header=request.header, every_instant=bool(kind % 2))
    return [pb.TrackRequest(start=start), *(pb.TrackRequest(instant=i) for i in request.instants)]


def _counts(depth: pb.DepthImage, pixels: int, *, zipped: bool) -> None:
    raw = np.random.default_rng(5).integers(0, 40000, pixels, dtype=np.uint16).tobytes()
    depth.encoding = pb.DEPTH_ENCODING_ZSTD_UINT16 if zipped else pb.DEPTH_ENCODING_RAW_UINT16
    depth.data = zstandard.ZstdCompressor().compress(raw) if zipped else raw


def _png16() -> bytes:
    import cv2

    counts = np.random.default_rng(6).integers(0, 5000, (HEIGHT, WIDTH)).astype(np.uint16)
    return cv2.imencode(".png", counts)[1].tobytes()


# what becomes of it


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Some bytes flipped, cut out, doubled, put elsewhere, or cut off at the end."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not out:
            return rng.randbytes(rng.randrange(1, 64))
        # the front holds tags and lengths, the rest mostly pixels
        at = rng.randrange(min(len(out), rng.choice((64, 512, len(out)))))
        what = rng.randrange(6)
        end = min(len(out), at + rng.choice((1, 2, 8, 200)))
        if what == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif what == 2:
            del out[at:end]
        elif what == 3:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 8, 200)))
        elif what == 4:
            out[at:at] = out[at:end] * rng.choice((1, 2, 50))
        else:
            del out[at:]
    return bytes(out)


def mutate(message: Message, rng: random.Random) -> None:
    """Puts into some fields of a message, or of those within it, what nobody sends."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        within = _messages(message)
        _mutate_field(rng.choice(within), rng, within)


def _messages(message: Message) -> list[Message]:
    out = [message]
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for part in value if field.is_repeated else [value]:
                out += _messages(part)
    return out


def _mutate_field(message: Message, rng: random.Random, others: Sequence[Message]) -> None:
    field = rng.choice(message.DESCRIPTOR.fields)
    name = field.name
    if field.is_repeated:
        _mutate_list(getattr(message, name), field, rng)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        same = [m for m in others if m.DESCRIPTOR is field.message_type]
        if rng.random() < 0.4 or not same:
            message.ClearField(name)
        else:
            copy = type(same[0])()
            copy.CopyFrom(rng.choice(same))
            getattr(message, name).CopyFrom(copy)
    elif field.type == FieldDescriptor.TYPE_BYTES:
        setattr(message, name, mutated_image(getattr(message, name), rng))
    else:
        setattr(message, name, _value(field, rng))


def _mutate_list(values: Any, field: Any, rng: random.Random) -> None:
    n = len(values)
    what = rng.randrange(5)
    if what == 0 and n:
        del values[rng.randrange(n)]
    elif what == 1 and n:
        values.extend([values[rng.randrange(n)]] * rng.choice((1, 2, 300)))
    elif what == 2:
        del values[:]
    elif what == 3 and n > 1:
        a, b = rng.randrange(n), rng.randrange(n)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            first = type(values[a])()
            first.CopyFrom(values[a])
            values[a].CopyFrom(values[b])
            values[b].CopyFrom(first)
        else:
            values[a], values[b] = values[b], values[a]
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        values.add()
    elif n and rng.random() < 0.7:
        values[rng.randrange(n)] = _value(field, rng)
    else:
        values.append(_value(field, rng))


def _value(field: Any, rng: random.Random) -> Any:
    if field.type == FieldDescriptor.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type == FieldDescriptor.TYPE_STRING:
        return rng.choice(TEXTS)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return rng.choice((*NUMBERS, rng.gauss(0, 1), rng.gauss(0, 1e3)))
    low, high = _INTEGER_BITS[field.type]
    return min(high, max(low, rng.choice((*INTEGERS, rng.randrange(10)))))


def mutated_image(data: bytes, rng: random.Random) -> bytes:
    """An image's bytes broken, or forged so that only their content is wrong."""
    what = rng.randrange(6)
    if what == 0:
        return mutated_bytes(data, rng)
    if what == 1 and data.startswith(b"\x89PNG"):
        return _forged_png(data, rng)
    if what == 2 and data.startswith(b"\x28\xb5\x2f\xfd"):
        return _forged_zstd(data, rng)
    if what == 3 and len(data) >= 4:
        floats = np.frombuffer(data[: len(data) // 4 * 4], "<f4").copy()
        floats[rng.randrange(len(floats))] = rng.choice((0.0, -1.0, 1e-40, 1e-7, 1e5, 1e38, math.nan, math.inf))
        return floats.tobytes() + data[len(floats) * 4 :]
    if what == 4:
        return rng.choice((b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM" + bytes(60), b"II*\0" + bytes(60)))
    return mutated_bytes(data, rng) if rng.random() < 0.5 else data[: rng.randrange(len(data) + 1)]


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Names and contents of a whole PNG's chunks."""
    out, stream = [], io.BytesIO(data[8:])
    while len(head := stream.read(8)) == 8:
        out.append((head[4:], stream.read(int.from_bytes(head[:4], "big"))))
        stream.read(4)
    return out


def png_of(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A PNG of chunks, every checksum right."""
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _forged_png(data: bytes, rng: random.Random) -> bytes:
    chunks = png_chunks(data)
    if not chunks:  # cut by an earlier mutation
        return mutated_bytes(data, rng)
    at = rng.randrange(len(chunks))
    name, content = chunks[at]
    what = rng.randrange(5)
    if what == 0 and name == b"IHDR" and len(content) == 13:
        header = list(struct.unpack(">IIBBBBB", content))
        i = rng.randrange(7)
        header[i] = min(rng.choice(INTEGERS) & 0xFFFFFFFF, 2**32 - 1 if i < 2 else 255)
        content = struct.pack(">IIBBBBB", *header)
    elif what == 1:
        content = mutated_bytes(content, rng)
    elif what == 2:
        name = rng.choice((b"IDAT", b"PLTE", b"tRNS", b"acTL", b"iCCP", b"zTXt", b"IHDR", b"IEND", b"eXIf"))
    elif what == 3 and name == b"IDAT":
        content = zlib.compress(bytes(rng.choice((0, 10, 10_000_000))), 9)
    else:
        chunks.insert(at, (name, content))
    chunks[at] = name, content
    return png_of(chunks)


def _forged_zstd(data: bytes, rng: random.Random) -> bytes:
    what = rng.randrange(5)
    if what == 0:  # far larger than it looks
        return zstandard.ZstdCompressor(level=19).compress(bytes(rng.choice((0, 1, 64 << 20))))
    if what == 1:  # no declared size
        return zstandard.ZstdCompressor(write_content_size=False).compress(bytes(WIDTH * HEIGHT * 4))
    if what == 2:  # the declared size of one and the content of another
        other = zstandard.ZstdCompressor().compress(bytes(rng.choice((0, 10_000_000))))
        return data[: rng.randrange(5, 14)] + other[rng.randrange(5, 14) :]
    if what == 3:
        return data + rng.choice((data, b"\0", b"\x50\x2a\x4d\x18\x04\0\0\0abcd"))
    return mutated_bytes(data, rng)
