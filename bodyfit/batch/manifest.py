"""What a batch has done: one SQLite row for each recording, from which a killed batch goes on where it was."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from bodyfit.errors import InputError, OutputError

FILE, LOCK = "manifest.sqlite", "manifest.lock"
VERSION = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS batch (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS recording (
    name TEXT PRIMARY KEY,           -- the result's folder within OUT
    source TEXT NOT NULL,            -- path within ROOT
    format TEXT NOT NULL,
    signature TEXT NOT NULL,         -- sizes and times of its files
    state TEXT NOT NULL CHECK (state IN ('pending', 'running', 'done', 'bad', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    started_at REAL,                 -- seconds since 1970
    seconds REAL,                    -- of the attempt that ended it
    error TEXT,                      -- class of the error
    message TEXT,
    result_sha256 TEXT               -- over the names and bytes of the result's files
) WITHOUT ROWID;
"""


class State(StrEnum):
    """Where a recording stands."""

    pending = "pending"
    running = "running"
    done = "done"
    bad = "bad"
    """the recording is to blame: trying again would not help"""
    failed = "failed"
    """the machine or bodyfit is to blame, and every attempt was used"""


@dataclass(frozen=True)
class Row:
    """One recording: as the table has it."""

    name: str
    source: str
    format: str
    signature: str
    state: State
    attempts: int
    seconds: float | None
    error: str | None
    message: str | None
    result_sha256: str | None


class Manifest:
    """The open manifest of a batch; get one from `open_manifest`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def rows(self, *states: State) -> list[Row]:
        """All recordings, or those in these states, by name."""
        wanted = states or tuple(State)
        marks = ",".join("?" * len(wanted))
        columns = [field.name for field in fields(Row)]
        query = f"SELECT {', '.join(columns)} FROM recording WHERE state IN ({marks}) ORDER BY name"
        found = self._db.execute(query, [str(state) for state in wanted])
        told = [dict(zip(columns, row, strict=True)) for row in found]
        return [Row(**{**one, "state": State(one["state"])}) for one in told]

    def add(self, found: Iterable[tuple[str, str, str, str]]) -> None:
        """Recordings that were found, as (name, source, format, signature), all of them or none; one that has changed
        since it was fitted is to be fitted again."""
        with self._db:
            self._db.executemany(
                "INSERT INTO recording (name, source, format, signature, state) VALUES (?, ?, ?, ?, 'pending') "
                "ON CONFLICT (name) DO UPDATE SET source = excluded.source, format = excluded.format, "
                "signature = excluded.signature, state = 'pending', attempts = 0, error = NULL, message = NULL, "
                "result_sha256 = NULL WHERE signature != excluded.signature",
                found,
            )

    def started(self, name: str, now_s: float) -> None:
        """An attempt begins."""
        with self._db:
            self._db.execute(
                "UPDATE recording SET state = 'running', attempts = attempts + 1, started_at = ? WHERE name = ?",
                (now_s, name),
            )

    def ended(
        self, name: str, state: State, *, seconds: float, error: str = "", message: str = "", sha256: str = ""
    ) -> None:
        """An attempt ended: done, bad, failed for good, or pending again."""
        with self._db:
            self._db.execute(
                "UPDATE recording SET state = ?, seconds = ?, error = ?, message = ?, result_sha256 = ? WHERE name = ?",
                (str(state), seconds, error or None, message or None, sha256 or None, name),
            )

    def take_back(self) -> None:
        """Attempts that a killed or interrupted run was at: that was not the recordings' fault and does not count."""
        with self._db:
            self._db.execute(
                "UPDATE recording SET state = 'pending', attempts = max(attempts - 1, 0) WHERE state = 'running'"
            )

    def redo(self, names: Iterable[str]) -> None:
        """Recordings whose results are gone: they are fitted as if they were new."""
        with self._db:
            self._db.executemany(
                "UPDATE recording SET state = 'pending', attempts = 0, result_sha256 = NULL WHERE name = ?",
                [(name,) for name in names],
            )

    def forget(self, names: Iterable[str]) -> None:
        """Recordings that are no longer there."""
        with self._db:
            self._db.executemany("DELETE FROM recording WHERE name = ?", [(name,) for name in names])

    def settings(self) -> dict[str, Any]:
        """What the batch was started with."""
        return {key: json.loads(value) for key, value in self._db.execute("SELECT key, value FROM batch ORDER BY key")}

    def set_settings(self, settings: Mapping[str, Any]) -> None:
        """Writes it down, once."""
        with self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO batch (key, value) VALUES (?, ?)",
                [(key, json.dumps(value, sort_keys=True)) for key, value in settings.items()],
            )


@contextmanager
def open_manifest(out: Path, settings: Mapping[str, Any], *, resume: bool) -> Iterator[Manifest]:
    """The manifest in folder `out`, which no other process uses as long as this one has it.

    Args:
        out: the results' folder; it exists.
        settings: plain data that decides results; a batch goes on only with the same.
        resume: whether a batch that was begun goes on.

    Raises:
        OutputError: a batch runs there; one was begun there, and `resume` is not given; no manifest of ours.
        InputError: other settings than the batch was begun with.
    """
    try:
        descriptor = os.open(out / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as problem:
        raise OutputError(str(out), "a folder to write to", problem.strerror or str(problem)) from None
    try:
        try:
            # the kernel lets go of it when the process ends, however it does
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(str(out), "a folder that no other batch works on", "one that a batch uses now") from None
        there = (out / FILE).exists()
        if there and not resume:
            hint = "--resume goes on with it"
            raise OutputError(str(out), "a folder without a batch in it", f"a batch's {FILE}", hint)
        with _connected(out / FILE) as connection:
            manifest = Manifest(connection)
            known = manifest.settings()
            wanted = {"version": VERSION, **settings}
            for key in sorted({*known, *wanted} if known else ()):
                if known.get(key) != json.loads(json.dumps(wanted.get(key))):
                    expected = f"as the batch was begun with: {known.get(key)!r}"
                    raise InputError(key, expected, repr(wanted.get(key)), "a new OUT takes other settings")
            if not known:
                manifest.set_settings(wanted)
            yield manifest
    finally:
        os.close(descriptor)


@contextmanager
def _connected(file: Path) -> Iterator[sqlite3.Connection]:
    try:
        connection = sqlite3.connect(file, timeout=30)
        try:
            # every row's end is on the disk before the next one begins: a reboot loses nothing
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_TABLES)
            yield connection
        finally:
            connection.close()
    except sqlite3.DatabaseError as problem:
        raise OutputError(str(file), "the manifest of a batch", str(problem)) from None
