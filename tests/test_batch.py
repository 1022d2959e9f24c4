"""A batch: what it finds, what it survives, and that its results are those of `bodyfit fit`."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from batch_recordings import (  # pyright: ignore[reportMissingImports]
    POISONS,
    files_of,
    good,
    poison,
)

from bodyfit.batch.find import find_recordings
from bodyfit.batch.local import LocalEngine
from bodyfit.batch.manifest import Manifest, State, open_manifest
from bodyfit.batch.remote import local_copy, open_root
from bodyfit.batch.run import BatchReport, BatchRequest, run_batch
from bodyfit.batch.work import Options, Outcome, Task, folder_sha256
from bodyfit.cli.main import app
from bodyfit.errors import InputError, OutputError


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One frame of one person."""
    return good(tmp_path_factory.mktemp("recordings") / "one", 100)


@pytest.fixture(scope="module")
def poisoned(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of recordings of which none can be fitted."""
    root = tmp_path_factory.mktemp("poisoned")
    for kind in POISONS:
        poison(kind, pristine, root / kind)
    return root


def local(request: BatchRequest, workers: int = 1, limit_s: float = 600.0) -> BatchReport:
    engines: list[LocalEngine] = []

    def make() -> LocalEngine:
        engines.append(LocalEngine(workers, limit_s))
        return engines[0]

    try:
        return run_batch(request, make)
    finally:
        for engine in engines:
            engine.__exit__()


def command(root: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "bodyfit.cli.main", "batch", str(root), "-o", str(out), *more]


# --- what is found


def test_recordings_are_found_in_one_order_and_nothing_else(pristine: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("b/two", "b/one", "a", ".hidden/one"):
        poison("nobody", pristine, root / name)
    poison("nobody", pristine, root / "a" / "inside")
    (root / "link").symlink_to(root / "a")
    (root / "notes.txt").write_text("nothing")
    (root / "broken.mkv").write_bytes(b"\x00" * 100)
    (root / "out").mkdir()
    poison("nobody", pristine, root / "out" / "x")
    found = find_recordings(root, leave_out=root / "out")
    assert [(one.name, one.format) for one in found] == [
        ("a", "bodyfit"),
        ("b/one", "bodyfit"),
        ("b/two", "bodyfit"),
        ("broken.mkv", "unknown"),
    ]
    assert [one.name for one in find_recordings(root / "a")] == ["a"]
    with pytest.raises(InputError, match="nothing of that name"):
        find_recordings(tmp_path / "none")


def test_a_signature_changes_with_the_files_and_names_of_ours_are_given_to_no_recording(
    pristine: Path, tmp_path: Path
) -> None:
    folder = poison("nobody", pristine, tmp_path / "root" / "summary.html")
    (first,) = find_recordings(tmp_path / "root")
    assert first.name == "summary.html.recording"
    assert find_recordings(tmp_path / "root")[0].signature == first.signature
    os.utime(folder / "frames.csv", (1, 1))
    assert find_recordings(tmp_path / "root")[0].signature != first.signature


def test_a_name_that_is_no_text_costs_nothing_but_itself(pristine: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    poison("nobody", pristine, root / "good")
    os.rename(root / "good", os.fsencode(root) + b"/\xff")
    poison("nobody", pristine, root / "other")
    report = local(BatchRequest(str(root), tmp_path / "out", Options()))
    assert [(row.name, row.state, row.error) for row in report.rows] == [
        ("\\xff", State.bad, "RecordingError"),
        ("other", State.bad, "PersonNotFoundError"),
    ]


# --- the manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Iterator[Manifest]:
    with open_manifest(tmp_path, {"model": "a"}, resume=False) as opened:
        opened.add([("one", "one", "bodyfit", "1"), ("two", "two", "bodyfit", "1")])
        yield opened


def test_what_a_killed_run_was_at_is_pending_again(manifest: Manifest) -> None:
    manifest.started("one", 1.0)
    assert [(row.state, row.attempts) for row in manifest.rows()] == [(State.running, 1), (State.pending, 0)]
    manifest.take_back()
    assert [(row.state, row.attempts) for row in manifest.rows()] == [(State.pending, 0), (State.pending, 0)]


def test_only_a_recording_that_has_changed_is_fitted_again(manifest: Manifest) -> None:
    for name in ("one", "two"):
        manifest.started(name, 1.0)
        manifest.ended(name, State.done, seconds=2.0, sha256="x")
    manifest.add([("one", "one", "bodyfit", "2"), ("two", "two", "bodyfit", "1")])
    assert [(row.name, row.state) for row in manifest.rows()] == [("one", State.pending), ("two", State.done)]
    assert manifest.rows()[0].result_sha256 is None and manifest.rows()[0].attempts == 0


def test_a_batch_is_gone_on_with_when_asked_and_with_the_same_settings(tmp_path: Path) -> None:
    with (
        open_manifest(tmp_path, {"model": "a"}, resume=True),
        pytest.raises(OutputError, match="uses now"),
        open_manifest(tmp_path, {"model": "a"}, resume=True),
    ):
        pass
    with pytest.raises(OutputError, match="--resume"), open_manifest(tmp_path, {"model": "a"}, resume=False):
        pass
    with pytest.raises(InputError, match=r"^model: .*'a'.*'b'"), open_manifest(tmp_path, {"model": "b"}, resume=True):
        pass
    (tmp_path / "manifest.sqlite").write_bytes(b"nothing that SQLite wrote" * 100)
    with pytest.raises(OutputError, match="manifest"), open_manifest(tmp_path, {"model": "a"}, resume=True):
        pass


def test_results_among_the_recordings_are_refused(poisoned: Path) -> None:
    with pytest.raises(InputError, match="another folder than ROOT"):
        local(BatchRequest(str(poisoned), poisoned, Options()))


# --- what cannot be fitted


def test_every_poisoned_recording_gets_one_attempt_and_its_reason(poisoned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "group").mkdir(parents=True)
    report = local(BatchRequest(str(poisoned), out, Options()))
    assert {row.name: (row.state, row.attempts, row.error) for row in report.rows} == {
        "empty": (State.bad, 1, "RecordingError"),
        "nobody": (State.bad, 1, "PersonNotFoundError"),
        "truncated": (State.bad, 1, "ImageError"),
        "unit": (State.bad, 1, "DepthUnitError"),
        "unreadable": (State.bad, 1, "RecordingError"),
    }
    assert all(row.message and str(poisoned) not in row.message for row in report.rows)
    page = (out / "summary.html").read_text()
    assert "5 recordings: 5 bad" in page and "<script" not in page
    assert (out / "measurements.csv").read_text() == ""
    assert not list(out.rglob(".*"))


def test_the_page_escapes_what_recordings_are_called(pristine: Path, tmp_path: Path) -> None:
    poison("unreadable", pristine, tmp_path / "root" / "<script>alert('1')<")
    local(BatchRequest(str(tmp_path / "root"), tmp_path / "out", Options()))
    page = (tmp_path / "out" / "summary.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;alert(&#x27;1&#x27;)&lt;" in page


def test_a_worker_that_is_killed_or_too_slow_costs_one_attempt(pristine: Path, tmp_path: Path) -> None:
    def end_of(engine: LocalEngine) -> Outcome:
        while True:
            for outcome in engine.ended():
                return outcome

    task = Task("one", str(pristine), str(tmp_path / "out"), Options())
    with LocalEngine(1, 600.0) as engine:
        engine.begin(task)
        os.kill(engine._workers[0].process.pid or 0, signal.SIGKILL)  # pyright: ignore[reportPrivateUsage]
        assert (end_of(engine).state, engine.free) == ("failed", 1)
        # the next one works, also after it has died with nothing to do
        process = engine._workers[0].process  # pyright: ignore[reportPrivateUsage]
        process.kill()
        process.join()
        nobody = poison("nobody", pristine, tmp_path / "nobody")
        engine.begin(Task("two", str(nobody), str(tmp_path / "out"), Options()))
        assert end_of(engine).error == "PersonNotFoundError"
    with LocalEngine(1, 0.01) as engine:
        engine.begin(task)
        assert end_of(engine).error == "TimeLimit"
    assert not (tmp_path / "out").exists()


def test_a_recording_that_fails_by_the_machines_fault_is_tried_so_often(pristine: Path, tmp_path: Path) -> None:
    poison("nobody", pristine, tmp_path / "root" / "one")
    request = BatchRequest(str(tmp_path / "root"), tmp_path / "out", Options(), attempts=2)
    (row,) = local(request, limit_s=0.01).rows
    assert (row.state, row.attempts, row.error) == (State.failed, 2, "TimeLimit")


# --- what can


@pytest.mark.slow
def test_killed_at_random_a_batch_goes_on_and_gives_what_fit_gives(pristine: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    names = [good(root / "group" / f"{n}", 202 + n).relative_to(root).as_posix() for n in range(3)]
    for kind in POISONS:
        poison(kind, pristine, root / kind)
    good(root / "long", 300, (0.0, 0.0, 90.0, 180.0))
    names.append("long")
    more = ("--workers", "2", "--max-frames", "3")
    chance = random.Random(5)
    for n in range(3):
        process = subprocess.Popen([*command(root, out, *more), *(["--resume"] if n else [])])
        time.sleep(chance.uniform(3, 8))
        if n == 0:
            second = subprocess.run([*command(root, out, *more), "--resume"], capture_output=True, text=True)
            assert second.returncode == 2 and "uses now" in second.stderr
        process.kill()
        process.wait()
    last = subprocess.run([*command(root, out, *more, "--resume", "--json")], capture_output=True, text=True)
    assert last.returncode == 4, last.stderr
    document = json.loads(last.stdout)
    assert document["counts"] == {"pending": 0, "running": 0, "done": 4, "bad": 5, "failed": 0}
    with sqlite3.connect(out / "manifest.sqlite") as db:
        assert db.execute("SELECT count(*) FROM recording WHERE state = 'done'").fetchone() == (4,)
    assert not list(out.rglob(".bodyfit-*"))
    for name in names:
        alone = tmp_path / "alone" / name
        assert app(["fit", str(root / name), "-o", str(alone), "--max-frames", "3"]) == 0
        assert files_of(alone) == files_of(out / name)
    table = list(csv.DictReader((out / "measurements.csv").open()))
    assert [line["recording"] for line in table] == sorted(names)
    tables = {name: (out / name).read_bytes() for name in ("measurements.csv", "summary.html")}
    before = {row["name"]: row["result_sha256"] for row in document["recordings"]}
    # nothing changed: nothing is done, and the tables are the same bytes
    again = subprocess.run([*command(root, out, *more, "--resume", "--json")], capture_output=True, text=True)
    assert {row["name"]: row["result_sha256"] for row in json.loads(again.stdout)["recordings"]} == before
    assert tables == {name: (out / name).read_bytes() for name in tables}
    # a result that is lost and one whose recording has changed are made again, and are the same
    os.utime(root / "long" / "frames.csv", (1, 1))
    (out / names[0] / "fit.npz").unlink()
    third = subprocess.run([*command(root, out, *more, "--resume", "--json")], capture_output=True, text=True)
    assert {row["name"]: row["result_sha256"] for row in json.loads(third.stdout)["recordings"]} == before
    assert tables == {name: (out / name).read_bytes() for name in tables}
    assert {name: folder_sha256(out / name) for name in names} == {name: before[name] for name in names}


def test_interrupted_a_batch_says_where_it_stands(pristine: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    for n in range(3):
        good(root / str(n), 202 + n)
    process = subprocess.Popen(command(root, out, "--workers", "1", "--json"), stdout=subprocess.PIPE, text=True)
    while not (out / "manifest.sqlite").exists() or not _running(out):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    document = json.loads(said)
    assert document["interrupted"] and document["counts"]["running"] == 0 and document["counts"]["pending"] >= 1
    assert (out / "summary.html").exists()


def _running(out: Path) -> bool:
    with sqlite3.connect(f"file:{out / 'manifest.sqlite'}?mode=ro", uri=True, timeout=30) as db:
        try:
            return db.execute("SELECT count(*) FROM recording WHERE state = 'running'").fetchone() != (0,)
        except sqlite3.OperationalError:
            return False


# --- elsewhere


def test_a_root_in_storage_is_fetched_and_removed(
    poisoned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    # of a worker that was killed: nobody holds its lock
    (tmp_path / "temporary" / "bodyfit-fetched-dead").mkdir()
    (tmp_path / "temporary" / "bodyfit-fetched-dead.lock").touch()
    url = f"file://{poisoned}"
    with open_root(url) as root:
        found = find_recordings(root.index)
        assert [one.name for one in found] == sorted(POISONS)
        signatures = {one.name: root.signature(one) for one in found}
        assert len(set(signatures.values())) == len(POISONS)
        with local_copy(root.source("nobody")) as copy:
            assert files_of(copy) == files_of(poisoned / "nobody")
            assert [p.name for p in copy.parent.parent.glob("bodyfit-fetched-*.lock")] == [f"{copy.parent.name}.lock"]
    assert not list((tmp_path / "temporary").iterdir())
    with pytest.raises(InputError, match="0 files"), local_copy(f"{url}/none"):
        pass
    with pytest.raises(InputError), open_root("nosuchstorage://bucket/x"):
        pass


def test_a_batch_of_a_url_says_the_same_as_one_of_the_folder(poisoned: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    near = local(BatchRequest(str(poisoned), tmp_path / "near", Options()))
    far = local(BatchRequest(f"file://{poisoned}", tmp_path / "far", Options()))
    said = [[(row.name, row.state, row.error, row.message) for row in report.rows] for report in (near, far)]
    assert said[0] == said[1]
    for name in ("measurements.csv", "summary.html"):
        assert (tmp_path / "near" / name).read_bytes() == (tmp_path / "far" / name).read_bytes()


@pytest.mark.slow
def test_ray_gives_the_same_bytes_and_survives_its_workers(pristine: Path, poisoned: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from bodyfit.batch.ray_engine import RayEngine

    root = tmp_path / "root"
    for n in range(2):
        good(root / f"good{n}", 202 + n)
    for kind in POISONS:
        poison(kind, pristine, root / kind)
    here = local(BatchRequest(str(root), tmp_path / "here", Options()), workers=2)
    with RayEngine(2, 600.0) as engine:
        there = run_batch(BatchRequest(str(root), tmp_path / "there", Options()), lambda: engine)
        assert engine.free == 2
    said = [
        [(row.name, row.state, row.attempts, row.error, row.message, row.result_sha256) for row in report.rows]
        for report in (here, there)
    ]
    assert said[0] == said[1]
    left = [{k: v for k, v in files_of(tmp_path / p).items() if "manifest" not in k} for p in ("here", "there")]
    assert left[0] == left[1] and len(left[0]) > 10
    with RayEngine(1, 0.05) as engine:
        engine.begin(Task("good0", str(root / "good0"), str(tmp_path / "late"), Options()))
        outcomes: list[Outcome] = []
        while not outcomes:
            outcomes += engine.ended()
    assert (outcomes[0].state, outcomes[0].error) == ("failed", "TimeLimit")
    assert not (tmp_path / "late").exists()
