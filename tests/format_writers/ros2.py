"""ROS 2 bags by the writer of `rosbags`: SQLite or MCAP, in a folder with metadata.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from format_writers.ros1 import Layout, Maker, Message

from bodyfit.frame import Frame
from bodyfit.recording import Sensor


def write(
    path: Path,
    sensors: Sequence[Sensor],
    frames: Sequence[Frame],
    layout: Layout | None = None,
    *,
    storage: str = "sqlite3",
) -> Path:
    """Writes the folder `path`; `storage` is `sqlite3` or `mcap`, `layout.container` `message` or `storage`."""
    from rosbags.typesys import Stores, get_typestore

    layout = layout or Layout()
    store: Any = get_typestore(Stores.ROS2_HUMBLE)
    return write_messages(path, store, Maker(store, layout).messages(sensors, frames), layout, storage)


def write_messages(path: Path, store: Any, messages: Sequence[Message], layout: Layout, storage: str) -> Path:
    """Writes messages that were made."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
    if layout.container:
        writer.set_compression(CompressionMode[layout.container.upper()], CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for message in messages:
            if message.topic not in connections:
                connections[message.topic] = writer.add_connection(message.topic, message.type, typestore=store)
            raw = store.serialize_cdr(message.content, message.type)
            writer.write(connections[message.topic], message.time_ns + layout.bag_delay_ns, raw)
    return path
