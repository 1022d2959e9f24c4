"""One recording of a batch: read, fitted and written, in whatever process or machine that happens."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bodyfit.batch.remote import local_copy
from bodyfit.errors import BodyfitError, DeviceError, InputError, MissingExtraError, OutputError

if TYPE_CHECKING:
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.device import Solver

FIT_FILE = "fit.npz"


@dataclass(frozen=True)
class Options:
    """What decides the results of a batch; the same for all its recordings.

    Attributes:
        model, sex, clothing: as of `bodyfit fit`.
        max_frames: of a longer recording so many frames are chosen; 0 takes all.
        device: what computes.
        motion: whether the person is followed through all frames instead, as `bodyfit track` does.
    """

    model: str = ""
    sex: str = "neutral"
    clothing: str = "auto"
    max_frames: int = 8
    motion: bool = False
    device: str = "cpu"

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Task:
    """A recording to fit: where it is, the folder to make, and where the device's process listens, if there is one."""

    name: str
    source: str
    out: str
    options: Options
    device_address: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        name: of the task.
        state: "done", "bad" (the recording is to blame) or "failed" (something else is; another attempt may do).
        seconds: that it took.
        error, message: class and text of the error.
        sha256: of the result's files.
    """

    name: str
    state: str
    seconds: float
    error: str = ""
    message: str = ""
    sha256: str = ""


def do(task: Task, say: Callable[[str, float], None] | None = None) -> Outcome:
    """Fits one recording and writes its folder, whole or not at all. Never raises for what is wrong with it."""
    started = time.monotonic()
    place = task.source

    def ended(state: str, problem: BaseException | None = None, sha256: str = "") -> Outcome:
        error = "" if problem is None else type(problem).__name__
        seconds = time.monotonic() - started
        # where a machine keeps the recording means nothing to whoever reads the table
        message = "" if problem is None else str(problem).replace(place, task.name)
        return Outcome(task.name, state, seconds, error, message, sha256)

    try:
        out = Path(task.out)
        with local_copy(task.source) as source:
            place = str(source)
            _fit(task, source, out, say or (lambda _stage, _fraction: None))
        return ended("done", sha256=folder_sha256(out))
    except (OutputError, DeviceError, MissingExtraError, MemoryError) as problem:
        return ended("failed", problem)
    except InputError as problem:
        return ended("bad", problem)
    except BodyfitError as problem:
        return ended("failed", problem)
    except Exception as problem:  # a fault of ours: this recording's alone, and told
        return ended("failed", problem)


_loaded: dict[str, BodyModel] = {}


def _model(name: str) -> BodyModel:
    from bodyfit.body.model import load_body_model

    if name not in _loaded:
        _loaded[name] = load_body_model(name or None)
    return _loaded[name]


def _remote(task: Task) -> Solver | None:
    """Who asks the device's process, where there is one."""
    if not task.device_address:
        return None
    from bodyfit.fit.device_process import RemoteSolver

    return RemoteSolver(task.device_address, task.options.device)


def _fit(task: Task, source: Path, out: Path, say: Callable[[str, float], None]) -> None:
    from bodyfit.batch.results import write_result
    from bodyfit.fit.choose_frames import choose_frames
    from bodyfit.fit.config import FitConfig
    from bodyfit.fit.fit import fit
    from bodyfit.fit.open_device import on_device
    from bodyfit.recording.formats import open_recording

    o = task.options
    # there are as many workers as cores; results are the same with any number
    one = on_device(FitConfig(threads=1, solver=_remote(task)), o.device)
    with open_recording(source) as recording:
        if o.motion:
            from bodyfit.fit.track_config import TrackConfig
            from bodyfit.fit.track_recording import track

            follow = TrackConfig(fit=one)
            follow = replace(follow, search=replace(follow.search, solver=one.solver))
            result = track(
                recording, model=_model(o.model), sex=o.sex, clothing=o.clothing, config=follow, progress=say
            )
            write_result(result, out, force=False, recording=source, video=None, meshes=False)
            return
        frames = None
        if 0 < o.max_frames < recording.num_frames:
            frames = choose_frames(recording, o.max_frames, progress=lambda done: say("choosing frames", 0.1 * done))
        result = fit(
            recording, model=_model(o.model), sex=o.sex, clothing=o.clothing, frames=frames, config=one, progress=say
        )
        write_result(result, out, force=False, recording=source, video=None)


def folder_sha256(folder: Path) -> str:
    """A hash over the names and bytes of a folder's files, in one order; they are on the disk by then, not only on
    their way to it, so that a machine that goes down afterwards keeps what the manifest says."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as opened:
            data = opened.read()
            os.fsync(opened.fileno())
        digest.update(f"{file.relative_to(folder).as_posix()}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()
