"""A batch that is killed, poisoned and run on one and two workers and on Ray: the same results, and how fast.

    python benchmarks/batch.py [--recordings 40] [--kills 3] [--engines local,ray] [--out FIGURES.json] [--results]

Makes as many recordings of the synthetic sensor (320×288, one or two instants, seeded), five of them poisoned:
truncated, empty, in the wrong unit, without a person, unreadable. Fits them with 2 workers and with 1, then once more
with 2 where the process is ended by SIGKILL at random moments and gone on with, then on a local Ray cluster. Every good
recording must have exactly one complete result, every poisoned one its reason, and results and tables must be the same
bytes in all runs; it ends with 1 where that is not so. Times are those of the whole command, workers' start included;
CPU time is that of all its processes (not known of Ray, whose workers are nobody's children).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from batch_recordings import POISONS, files_of, good, poison
from study import markdown, write_section, write_text

SEED = 7000
HEADING = "## A batch"
TABLES = ("measurements.csv", "measurements.parquet", "summary.html")


@dataclass
class Run:
    """One batch: how it was run, how long it took, and what is wrong with what it left."""

    title: str
    seconds: float = 0.0
    cpu_s: float | None = None
    largest_mb: float = 0.0
    kills_s: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    median_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


def made(root: Path, count: int) -> tuple[list[str], list[str]]:
    """Fills the root; names of good and of poisoned recordings."""
    from bodyfit.errors import PersonNotFoundError
    from bodyfit.fit.fit import look
    from bodyfit.recording.formats import open_recording

    names: list[str] = []
    seed = SEED
    while len(names) < count - len(POISONS):
        # some hundred to a folder, as archives are
        name = f"day{len(names) // 20}/{seed}"
        path = good(root / name, seed, (0.0,) if seed % 2 else (0.0, 180.0), scale=2)
        try:
            with open_recording(path) as recording:
                look(recording, None, None, None, lambda _stage, _done: None)
            names.append(name)
        except PersonNotFoundError:  # who stands before furniture: no case for a good recording
            shutil.rmtree(path)
        seed += 1
    bad = []
    for kind in POISONS:
        poison(kind, root / names[0], root / "poisoned" / kind)
        bad.append(f"poisoned/{kind}")
    return names, bad


def command(root: Path, out: Path, engine: str, workers: int, *more: str) -> list[str]:
    """The batch on the command line."""
    asked = ["--engine", engine, "--workers", str(workers), "--json", *more]
    return [sys.executable, "-m", "bodyfit.cli.main", "batch", str(root), "-o", str(out), *asked]


def run(title: str, root: Path, out: Path, engine: str, workers: int, kills_s: list[float] | None = None) -> Run:
    """One batch, killed after so many seconds each and gone on with, then left to end."""
    this = Run(title)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    more: list[str] = []
    for after in kills_s or []:
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(command(root, out, engine, workers, *more), stdout=said, stderr=said)
            try:
                process.wait(after)
                this.wrong.append(f"it ended by itself before {after:.1f} s")
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                this.kills_s.append(round(after, 2))
        more = ["--resume"]
    done = subprocess.run(command(root, out, engine, workers, *more), capture_output=True, text=True)
    this.seconds = time.perf_counter() - start
    after_all = resource.getrusage(resource.RUSAGE_CHILDREN)
    if engine == "local":
        this.cpu_s = after_all.ru_utime + after_all.ru_stime - before.ru_utime - before.ru_stime
        this.largest_mb = after_all.ru_maxrss / 1024
    if done.returncode != 4:
        this.wrong.append(f"it ended with {done.returncode}: {done.stderr[-400:]}")
    else:
        this.counts = json.loads(done.stdout)["counts"]
    return this


def check(this: Run, out: Path, names: list[str], bad: list[str], reference: Path | None) -> dict[str, str]:
    """Looks at what a batch left, and adds to `this.wrong`; the results' hashes by name.

    Args:
        reference: OUT of another run, whose files must be the same.
    """
    from bodyfit.batch.work import folder_sha256

    with sqlite3.connect(out / "manifest.sqlite") as db:
        query = "SELECT name, state, attempts, seconds, message, result_sha256 FROM recording ORDER BY name"
        rows = {row[0]: row[1:] for row in db.execute(query)}
    if sorted(rows) != sorted(names + bad):
        this.wrong.append("the manifest has other recordings")
        return {}
    hashes = {}
    for name in names:
        state, _, _, message, sha256 = rows[name]
        if state != "done" or folder_sha256(out / name) != sha256:
            this.wrong.append(f"{name}: {state}, {message or 'its files are not those of the manifest'}")
        hashes[name] = sha256
    for name in bad:
        if rows[name][0] != "bad" or not rows[name][3] or (out / name).exists():
            this.wrong.append(f"{name}: {rows[name][0]}, {rows[name][3]}")
    this.wrong += [f"left behind: {path}" for path in out.rglob(".*")]
    seconds = sorted(rows[name][2] for name in names)
    this.median_s = seconds[len(seconds) // 2]
    if reference is not None:
        one, other = ({k: v for k, v in files_of(p).items() if "manifest" not in k} for p in (reference, out))
        this.wrong += [f"other bytes: {k}" for k in sorted(one.keys() | other.keys()) if one.get(k) != other.get(k)]
    return hashes


def report(runs: list[Run], good_count: int, bad_count: int) -> str:
    """What came out, as RESULTS.md has it."""
    rows = []
    for this in runs:
        rows.append(
            [
                this.title,
                f"{this.seconds:.0f}",
                "–" if this.cpu_s is None else f"{this.cpu_s:.0f}",
                f"{3600 * (good_count + bad_count) / this.seconds:.0f}",
                f"{this.median_s:.1f}",
                str(this.counts.get("done", 0)),
                str(this.counts.get("bad", 0)),
                "same bytes, nothing left behind" if not this.wrong else f"{len(this.wrong)} wrong",
            ]
        )
    head = ["run", "s", "CPU s", "recordings/h", "median s of one", "done", "bad", "results"]
    text = markdown(head, rows)
    kills = next((this.kills_s for this in runs if this.kills_s), [])
    about = f"{good_count} good recordings (320×288, one or two instants) and {bad_count} poisoned ones"
    return (
        f"{text}\n\n{about}; `SIGKILL` after {', '.join(f'{s:.1f}' for s in kills) or 'no'} s of a run. "
        f"Made by `python benchmarks/batch.py --recordings {good_count + bad_count} --kills {len(kills)}` "
        f"on {os.cpu_count()} cores."
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=40)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which it is killed")
    parser.add_argument("--engines", default="local,ray", help="local,ray or local")
    parser.add_argument("--folder", type=Path, help="kept; a temporary one where not given")
    parser.add_argument("--out", type=Path, help="figures as JSON")
    parser.add_argument("--results", action="store_true", help="put the table into RESULTS.md")
    asked = parser.parse_args()
    if asked.recordings <= len(POISONS):
        parser.error(f"--recordings: more than {len(POISONS)}")
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="bodyfit-batch-"))
    try:
        return measured(folder, asked)
    finally:
        if asked.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def measured(folder: Path, asked: argparse.Namespace) -> int:
    """All runs."""
    root = folder / "recordings"
    names, bad = made(root, asked.recordings)
    runs: list[Run] = []

    def one(title: str, out: str, engine: str, workers: int, kills_s: list[float] | None = None) -> Run:
        this = run(title, root, folder / out, engine, workers, kills_s)
        check(this, folder / out, names, bad, folder / "two" if runs else None)
        runs.append(this)
        sys.stderr.write(f"{title}: {this.seconds:.1f} s; {'; '.join(this.wrong) or 'as it must be'}\n")
        return this

    whole = one("2 workers", "two", "local", 2)
    one("1 worker", "one", "local", 1)
    chance = random.Random(asked.seed)
    # early enough that every one of them strikes a run that is at work
    moments = [chance.uniform(0.05, 0.9 / max(asked.kills, 1)) * whole.seconds for _ in range(asked.kills)]
    one(f"2 workers, killed {asked.kills} times", "killed", "local", 2, moments)
    if "ray" in asked.engines.split(","):
        one("Ray, 2 workers", "ray", "ray", 2)
        one("Ray, 2 workers, killed once", "ray_killed", "ray", 2, [chance.uniform(0.3, 0.7) * whole.seconds])
    text = report(runs, len(names), len(bad))
    sys.stdout.write(f"{text}\n")
    figures: dict[str, Any] = {
        "recordings": asked.recordings,
        "cores": os.cpu_count(),
        "runs": [asdict(r) for r in runs],
    }
    if asked.out is not None:
        write_text(asked.out, json.dumps(figures, indent=1) + "\n")
    if asked.results:
        write_section(HEADING, text)
    return int(any(this.wrong for this in runs))


if __name__ == "__main__":
    sys.exit(main())
