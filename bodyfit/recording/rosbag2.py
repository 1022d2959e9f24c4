"""ROS 2 bags: SQLite files (`.db3`), and folders of such or of MCAP files beside their metadata.yaml.

After rosbag2's storage plugin for SQLite (rosbag2_storage_sqlite3): tables `topics` (id, name, type,
serialization_format) and `messages` (topic_id, timestamp in ns, data). A folder's files are taken in the order of their
names, `name_0`, `name_1` …, as metadata.yaml lists them; nothing else of metadata.yaml is needed, so that a bag whose
recorder died before it wrote that file is read too. Messages that were compressed one by one
(`compression_mode: message`) are known by Zstandard's magic number; files that were compressed whole (`.db3.zstd`) have
to be unpacked first.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bodyfit.errors import RecordingError
from bodyfit.recording.bag import (
    MAX_MESSAGE_BYTES,
    MAX_TOPICS,
    ZSTD_MAGIC,
    Bag,
    Topic,
    zstd_message,
)
from bodyfit.recording.mcap import MAGIC as MCAP_MAGIC
from bodyfit.recording.mcap import Mcap

SQLITE_MAGIC = b"SQLite format 3\0"
METADATA = "metadata.yaml"
MAX_FILES = 4096
_MAX_MESSAGES = 50_000_000
_BATCH = 65536
# steps of SQLite's machine: a table of fifty million rows takes less than this
_MAX_STEPS, _STEPS_A_CALL = 2_000_000_000, 1_000_000


class SqliteBag:
    """One `.db3` file of a ROS 2 bag.

    Args:
        path: the file.

    Raises:
        RecordingError: no SQLite file, a damaged one, or one that is no bag.
    """

    def __init__(self, path: Path) -> None:
        self.name, self.topics, self.notes = path.name, dict[str, Topic](), list[str]()
        self._lock = threading.Lock()
        self._steps = 0
        try:
            if path.with_name(f"{path.name}-wal").is_file() and path.with_name(f"{path.name}-wal").stat().st_size:
                self.notes.append(f"{path.name}-wal was not read: the recorder had not closed the bag.")
            # immutable: no lock and no journal beside a recording, which may lie on a disk that cannot be written
            self._database = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
            self._database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_MESSAGE_BYTES + 1024)
            self._database.set_progress_handler(self._is_endless, _STEPS_A_CALL)
            for pragma in ("trusted_schema = off", "cell_size_check = on", "mmap_size = 0"):
                self._database.execute(f"PRAGMA {pragma}")
        except (sqlite3.Error, OSError) as problem:
            raise RecordingError(self.name, "a SQLite file", str(problem)) from None
        try:
            self._read_index()
        except BaseException:
            self.close()
            raise

    def head(self, topic: Topic, k: int, count: int) -> bytes:
        """The first bytes of a message; all of it where it is compressed."""
        data = self._data(topic, k, count)
        return self.message(topic, k)[:count] if data.startswith(ZSTD_MAGIC) else data

    def message(self, topic: Topic, k: int) -> bytes:
        """A whole message."""
        data = self._data(topic, k, None)
        return zstd_message(f"{self.name}: {topic.name}", data) if data.startswith(ZSTD_MAGIC) else data

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._database.close()

    def _is_endless(self) -> bool:
        self._steps += _STEPS_A_CALL
        return self._steps > _MAX_STEPS

    def _data(self, topic: Topic, k: int, count: int | None) -> bytes:
        where = f"{self.name}: {topic.name}"
        try:
            with (
                self._lock,
                self._database.blobopen("messages", "data", int(topic.places[k, 1]), readonly=True) as blob,
            ):
                if len(blob) > MAX_MESSAGE_BYTES:
                    raise RecordingError(where, f"messages of at most {MAX_MESSAGE_BYTES} bytes", f"{len(blob)}")
                return blob.read(len(blob) if count is None else min(count, len(blob)))
        except sqlite3.ProgrammingError:
            raise RecordingError(self.name, "an open recording", "one that was closed") from None
        except (sqlite3.Error, SystemError, OverflowError) as problem:
            raise RecordingError(where, f"message {k}", str(problem)) from None

    def _read_index(self) -> None:
        hint = f"sqlite3 {self.name} .recover | sqlite3 repaired.db3"
        try:
            # a view or a generated column of that name could be made to run for ever
            tables = dict(
                self._database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchmany(999)
            )
            for name in ("topics", "messages"):
                if name not in tables:
                    raise RecordingError(
                        self.name, f"a ROS 2 bag with a table {name}", f"{', '.join(tables) or 'none'}"
                    )
                if re.search(r"generated|\bas\b", tables[name], re.IGNORECASE) or "virtual" in tables[name].lower():
                    raise RecordingError(f"{self.name}: {name}", "a table as rosbag2 makes it", tables[name][:200])
            query = self._database.execute("SELECT id, name, type, serialization_format FROM topics")
            kinds = {row[0]: row[1:] for row in query.fetchmany(MAX_TOPICS)}
        except (sqlite3.Error, ValueError, TypeError) as problem:
            raise RecordingError(self.name, "a whole SQLite file of a ROS 2 bag", str(problem), hint) from None
        rows: list[np.ndarray] = []
        try:
            query = self._database.execute("SELECT topic_id, timestamp, rowid FROM messages NOT INDEXED")
            while batch := query.fetchmany(_BATCH):
                good = [row for row in batch if all(isinstance(value, int) for value in row)]
                rows.append(np.array(good, np.int64).reshape(-1, 3))
                if len(rows) * _BATCH > _MAX_MESSAGES:
                    raise RecordingError(self.name, f"at most {_MAX_MESSAGES} messages", "more")
        except sqlite3.Error as problem:
            if not rows:
                raise RecordingError(self.name, "a whole SQLite file of a ROS 2 bag", str(problem), hint) from None
            self.notes.append(f"The file is damaged ({problem}): the messages before that place are read; {hint}.")
        every = np.concatenate(rows) if rows else np.zeros((0, 3), np.int64)
        for number, (name, kind, coding) in kinds.items():
            mine = every[every[:, 0] == number] if isinstance(number, int) else every[:0]
            if len(mine) and isinstance(name, str) and isinstance(kind, str) and coding == "cdr":
                topic = Topic(name, kind.replace("/msg/", "/"), is_cdr=True)
                topic.set_messages(np.stack([mine[:, 1], np.zeros(len(mine), np.int64), mine[:, 2]], axis=-1))
                self.topics[name] = topic
        if not self.topics:
            raise RecordingError(self.name, "a ROS 2 bag with messages", "none")


class BagFolder:
    """The files of a ROS 2 bag, as one.

    Args:
        name: what errors call it.
        parts: its files, in the order of their names.
    """

    def __init__(self, name: str, parts: Sequence[Bag]) -> None:
        self.name, self._parts = name, tuple(parts)
        self.notes = [note for part in parts for note in part.notes]
        self.topics: dict[str, Topic] = {}
        rows: dict[str, list[np.ndarray]] = {}
        for p, part in enumerate(parts):
            for topic in part.topics.values():
                whole = self.topics.setdefault(topic.name, Topic(topic.name, topic.type, topic.is_cdr))
                if (whole.type, whole.is_cdr) == (topic.type, topic.is_cdr):
                    which = np.stack([topic.times_ns, np.full(len(topic), p), np.arange(len(topic))], axis=-1)
                    rows.setdefault(topic.name, []).append(which)
        for name, parts_rows in rows.items():
            self.topics[name].set_messages(np.concatenate(parts_rows))

    def head(self, topic: Topic, k: int, count: int) -> bytes:
        """The first bytes of a message."""
        part, i = (int(value) for value in topic.places[k])
        return self._parts[part].head(self._parts[part].topics[topic.name], i, count)

    def message(self, topic: Topic, k: int) -> bytes:
        """A whole message."""
        part, i = (int(value) for value in topic.places[k])
        return self._parts[part].message(self._parts[part].topics[topic.name], i)

    def close(self) -> None:
        """Closes the files."""
        for part in self._parts:
            part.close()


def bag_files(folder: Path) -> list[Path]:
    """The files of a ROS 2 bag in a folder, `name_2` before `name_10`."""
    names = [name for name in os.listdir(folder) if name.endswith((".db3", ".mcap"))]
    return [folder / name for name in sorted(names, key=_by_number)]


def open_rosbag2(path: Path) -> Bag:
    """Opens a ROS 2 bag: a folder, or one of its files.

    Raises:
        RecordingError: nothing that is one, or all of it damaged.
        MissingExtraError: a compression whose package is not installed.
    """
    if not path.is_dir():
        return _open_file(path)
    try:
        files = bag_files(path)
        if not files:
            packed = sorted(name for name in os.listdir(path) if name.endswith((".zstd", ".zst")))
            if packed:
                raise RecordingError(path.name, ".db3 or .mcap files", packed[0], f"unpack it: zstd -d {packed[0]}")
    except OSError as problem:
        raise RecordingError(path.name, "a readable folder", str(problem)) from None
    if not 1 <= len(files) <= MAX_FILES:
        raise RecordingError(path.name, f"1 to {MAX_FILES} .db3 or .mcap files beside {METADATA}", f"{len(files)}")
    parts: list[Bag] = []
    problems: list[RecordingError] = []
    try:
        for file in files:
            try:
                parts.append(_open_file(file))
            except RecordingError as problem:
                problems.append(problem)
        if not parts:
            raise problems[0]
        bag = BagFolder(path.name, parts)
    except BaseException:
        for part in parts:
            part.close()
        raise
    bag.notes.extend(f"A file is left out: {problem}." for problem in problems)
    return bag


def _open_file(path: Path) -> Bag:
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as problem:
        raise RecordingError(path.name, "a readable file", problem.strerror or str(problem)) from None
    if head.startswith(MCAP_MAGIC):
        return Mcap(path)
    if head == SQLITE_MAGIC:
        return SqliteBag(path)
    raise RecordingError(
        path.name, "an MCAP or SQLite file", f"a file that starts {head!r}" if head else "an empty file"
    )


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]{1,15})", name)]
