"""A batch: every recording under a root fitted into its own folder, whatever happens on the way."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from bodyfit import __version__
from bodyfit.batch.find import find_recordings
from bodyfit.batch.manifest import Manifest, Row, State, open_manifest
from bodyfit.batch.remote import Root, is_url, open_root
from bodyfit.batch.tables import write_tables
from bodyfit.batch.work import FIT_FILE, Options, Outcome, Task
from bodyfit.errors import InputError, OutputError
from bodyfit.export.folder import OURS, STAGING

FINAL = ("bad", "done")


class Engine(Protocol):
    """What does tasks, several at a time."""

    @property
    def free(self) -> int:
        """How many more tasks can be begun now."""
        ...

    @property
    def busy(self) -> int:
        """How many tasks are being done."""
        ...

    def begin(self, task: Task) -> None:
        """Begins a task."""
        ...

    def ended(self) -> Iterator[Outcome]:
        """Waits a little, and gives what has ended by then."""
        ...


@dataclass(frozen=True)
class BatchRequest:
    """What was asked for.

    Attributes:
        root: a folder, or an fsspec URL of one.
        out: the results' folder.
        options: what decides the results.
        attempts: so often a recording is tried whose worker died, or which failed otherwise than by its own fault.
        resume: whether a batch that was begun in `out` goes on.
    """

    root: str
    out: Path
    options: Options
    attempts: int = 3
    resume: bool = False


@dataclass(frozen=True)
class BatchReport:
    """How a batch ended: rows by state, and whether it was interrupted."""

    rows: tuple[Row, ...]
    interrupted: bool

    def count(self, state: State) -> int:
        """How many recordings are in a state."""
        return sum(row.state is state for row in self.rows)


def run_batch(
    request: BatchRequest,
    make_engine: Callable[[], Engine],
    *,
    on_outcome: Callable[[Outcome, int, int], None] | None = None,
    stopping: Callable[[], bool] | None = None,
) -> BatchReport:
    """Fits everything that is not done yet, then writes the tables.

    Args:
        request: what to do.
        make_engine: called once there is something to do; closed by the caller.
        on_outcome: called with each outcome, how many are ended by then, and of how many.
        stopping: asked now and then; once True nothing new is begun, and what runs is left unfinished.

    Raises:
        OutputError, InputError: see `open_manifest` and `find_recordings`; results among the recordings.
    """
    out = request.out
    if not is_url(request.root) and Path(request.root).resolve() == out.resolve():
        raise InputError("--out", "another folder than ROOT", str(out))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise OutputError(str(out), "a folder that can be made", problem.strerror or str(problem)) from None
    settings = {"bodyfit": __version__, "root": request.root, **request.options.document()}
    with open_root(request.root) as root, open_manifest(out, settings, resume=request.resume) as manifest:
        sweep(out)
        manifest.take_back()
        _take_stock(manifest, root, out)
        asked = stopping or (lambda: False)
        interrupted = _work_through(request, manifest, root, make_engine, on_outcome, asked)
        manifest.take_back()
        rows = tuple(manifest.rows())
        write_tables(out, rows)
    return BatchReport(rows, interrupted)


def sweep(out: Path) -> None:
    """Takes away what killed workers left unfinished."""
    for left in sorted(out.rglob(f"{STAGING}*")):
        shutil.rmtree(left, ignore_errors=True)
    for left in out.glob(".*.part"):
        left.unlink(missing_ok=True)


def _take_stock(manifest: Manifest, root: Root, out: Path) -> None:
    """Brings the manifest up to what is there: new recordings, changed ones, those that are gone, results that are."""
    found = find_recordings(root.index, leave_out=out)
    names = {one.name for one in found}
    manifest.add((one.name, one.source, one.format, root.signature(one)) for one in found)
    rows = manifest.rows()
    manifest.forget(row.name for row in rows if row.name not in names and row.state is not State.done)
    manifest.redo(row.name for row in rows if row.state is State.done and not (out / row.name / FIT_FILE).exists())


def _make_room(folder: Path) -> None:
    """Takes an earlier result away, whole, so that one that is there is always of the attempt that is written down as
    running; makes the folder above it, which workers would else make at the same time. What is not a result of ours
    stays, and the attempt will say so."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_symlink() or not folder.is_dir():
        return
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    if all(OURS.fullmatch(path.relative_to(folder).as_posix()) for path in files):
        # a name that `sweep` takes away, should this be the moment at which the process ends
        going = folder.parent / f"{STAGING}{secrets.token_hex(4)}"
        folder.rename(going)
        shutil.rmtree(going, ignore_errors=True)


def _work_through(
    request: BatchRequest,
    manifest: Manifest,
    root: Root,
    make_engine: Callable[[], Engine],
    on_outcome: Callable[[Outcome, int, int], None] | None,
    stopping: Callable[[], bool],
) -> bool:
    total = len(manifest.rows())
    waiting = [row for row in manifest.rows(State.pending, State.failed) if row.attempts < request.attempts]
    if not waiting or stopping():
        return bool(waiting)
    attempts = {row.name: row.attempts for row in waiting}
    by_name = {row.name: row for row in waiting}
    queue = deque(row.name for row in waiting)
    ended = total - len(waiting)
    engine = make_engine()
    while (queue or engine.busy) and not stopping():
        while queue and engine.free:
            row = by_name[queue.popleft()]
            attempts[row.name] += 1
            with contextlib.suppress(OSError):  # the worker meets the same, and tells
                _make_room(request.out / row.name)
            manifest.started(row.name, time.time())
            engine.begin(Task(row.name, root.source(row.source), str(request.out / row.name), request.options))
        for outcome in engine.ended():
            again = outcome.state not in FINAL and attempts[outcome.name] < request.attempts
            _write_down(manifest, outcome, State.pending if again else State(outcome.state))
            if again:
                queue.append(outcome.name)
            else:
                ended += 1
            if on_outcome is not None:
                on_outcome(replace(outcome, state="again") if again else outcome, ended, total)
    return bool(queue or engine.busy)


def _write_down(manifest: Manifest, outcome: Outcome, state: State) -> None:
    manifest.ended(
        outcome.name, state, seconds=outcome.seconds, error=outcome.error, message=outcome.message,
        sha256=outcome.sha256,
    )  # fmt: skip
