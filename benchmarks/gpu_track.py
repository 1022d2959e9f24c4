"""How many live streams a device follows: the solver's part alone, all of a frame in threads, and in processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_jobs import Stopwatch, alike, batch_of, counts_of, give_back, make_backend, solver_of
from benchmarks.gpu_measure import Bench, Record, per_call
from bodyfit.errors import BodyfitError, DeviceError

if TYPE_CHECKING:
    from benchmarks.gpu_frames import Film
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.device import Solver
    from bodyfit.fit.device_host import DeviceHost

LIVE_FPS, GOAL_FPS = 30.0, 2000.0
START_S = 12.0
"""what workers may take until they follow"""
OWN = "own"
WARM_FRAMES = 3
"""frames of a stream that do not count"""


def descents(bench: Bench) -> Record:
    """The solver's part of a frame alone: descents of N streams in one batch, again and again."""
    jobs = alike(bench.backend, bench.track_jobs.descends)
    rows = []
    for n in bench.scale.streams:
        if not jobs or not bench.has(2 * bench.scale.seconds):
            rows.append({"streams": n, "left_out": "no time" if jobs else "no such jobs"})
            continue
        batch = batch_of(jobs, n)
        took = per_call(lambda batch=batch: bench.backend.descend(batch), bench.scale.seconds)
        rows.append({"streams": n, "ms": 1e3 * took, "frames_per_s": n / took})
    return {"rows": rows, "goal_frames_per_s": GOAL_FPS}


def follow(model: BodyModel, films: Sequence[Film], streams: Sequence[int], solver: Solver, seconds: float) -> Record:
    """Follows so many streams at once, a thread each, as fast as they go, for so long; stream k walks through film
    k modulo their number from a place of its own."""
    from benchmarks.gpu_frames import new_tracker
    from bodyfit.fit.config import FitConfig
    from bodyfit.fit.track_config import TrackConfig

    watch = Stopwatch(solver)
    ready, go = threading.Barrier(len(streams) + 1), threading.Event()
    counts, states, times, failed = [0] * len(streams), [0] * len(streams), [], []
    end, own = [0.0], [0.0] * len(streams)

    def stream(place: int, number: int) -> None:
        film = films[number % len(films)]
        try:
            settings = TrackConfig(fit=FitConfig(threads=1, solver=watch), search=FitConfig(threads=1, solver=watch))
            tracker = new_tracker(model, film, settings)
            walk = film.walk_through(number // len(films), 2 * len(film))
            for frame in walk[:WARM_FRAMES]:
                tracker.update([frame])
        except Exception as error:  # the others go on; the section fails at its end
            failed.append(error)
            ready.wait()
            return
        ready.wait()
        go.wait()
        try:
            late, at, used = walk[-1].timestamp_s, WARM_FRAMES, time.thread_time()
            while time.perf_counter() < end[0]:
                turn, k = divmod(at, len(walk))
                frame = walk[k]
                estimate = tracker.update(
                    [replace(frame, timestamp_s=frame.timestamp_s + turn * (late + 1 / LIVE_FPS))]
                )
                counts[place], at = counts[place] + 1, at + 1
                states[place] += estimate.state.name == "TRACKED"
                times.append(dict(estimate.times_s))
            own[place] = time.thread_time() - used
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=stream, args=(i, n), daemon=True) for i, n in enumerate(streams)]
    for thread in threads:
        thread.start()
    ready.wait()
    watch.waited_s.clear()
    watch.jobs.clear()
    watch.cpu_s, before = 0.0, counts_of(solver)
    start, cpu = time.perf_counter(), time.process_time()
    end[0] = start + seconds
    go.set()
    for thread in threads:
        thread.join()
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    after = counts_of(solver)
    if failed:
        raise failed[0]
    frames = sum(counts)
    parts = {name for t in times for name in t}
    return {
        "streams": len(streams),
        "frames": frames,
        "seconds": took,
        "frames_per_s": frames / took,
        "fewest_per_stream_per_s": min(counts) / took,
        "followed": sum(states) / max(frames, 1),
        "cpu_ms_a_frame": 1e3 * cpu / max(frames, 1),
        "logic_cpu_ms_a_frame": 1e3 * (sum(own) - watch.cpu_s) / max(frames, 1),
        "busy_cores": cpu / took,
        "waited_ms_a_frame": 1e3 * sum(watch.waited_s.values()) / max(frames, 1),
        "jobs_a_frame": sum(watch.jobs.values()) / max(frames, 1),
        "jobs_a_batch": (after["jobs"] - before["jobs"]) / max(after["batches"] - before["batches"], 1),
        "parts_ms": {name: 1e3 * statistics.median(t.get(name, 0.0) for t in times) for name in sorted(parts)},
    }


def limit_of(row: Record, cores: int) -> str:
    """What keeps a row from being faster, in words."""
    busy, processes = row["busy_cores"], row.get("processes", 1)
    if row.get("device_process_cores", 0.0) > 0.85:
        return "the device's process: what it does on the CPU for its batches fills a core"
    if row["streams"] <= processes:
        return "latency: a stream's frames come one after the other"
    if busy > 0.85 * min(cores, 2**20):
        return f"the CPU: all {cores} cores are busy"
    if busy > 0.8 * processes:
        return (
            "the CPU: one interpreter does one thing at a time" if processes == 1 else "the CPU part of the processes"
        )
    return (
        "waiting for the device" if row["waited_ms_a_frame"] > row["cpu_ms_a_frame"] else "neither CPU nor device alone"
    )


def threads(bench: Bench) -> Record:
    """Whole frames, labelling and shape included: N streams as threads of this one process."""
    rows, cores = [], len(os.sched_getaffinity(0))
    with solver_of(bench.backend) as solver:
        for n in bench.scale.streams:
            if not bench.has(bench.scale.track_seconds + 0.15 * n + 2):
                rows.append({"streams": n, "left_out": "no time"})
                continue
            row = follow(bench.model, bench.films, range(n), solver, bench.scale.track_seconds)
            row["live"] = row["fewest_per_stream_per_s"] >= LIVE_FPS
            row["limit"] = limit_of(row, cores)
            rows.append(row)
    return {"rows": rows, "cores": cores, "live_fps": LIVE_FPS, "goal_frames_per_s": GOAL_FPS}


# worker processes


def processes(bench: Bench) -> Record:
    """The same with the streams shared out among worker processes: all of them ask one process that owns the device, as
    the service's do; or each has the device for itself."""
    from bodyfit.fit.device_host import DeviceHost
    from bodyfit.fit.device_process import GATHERED

    rows: list[Record] = []
    failures: list[str] = []
    cores, scale = len(os.sched_getaffinity(0)), bench.scale
    give_back(bench.backend)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for k, film in enumerate(bench.films):
            film.write(folder / f"{k}.npz")
        try:
            with DeviceHost(bench.backend.name if bench.on_gpu else GATHERED) as host:
                host.start()
                if not host.ready(max(bench.deadline - time.monotonic(), 1.0)):
                    raise DeviceError("device", "a process that is ready in time", "none")
                _shared_out(bench, folder, scale.processes, host, rows, failures)
        except (BodyfitError, OSError) as error:
            failures.append(f"a process for the device: {error}")
        _shared_out(bench, folder, scale.processes[-1:], None, rows, failures)
    return {
        "rows": rows, "failures": failures, "cores": cores, "live_fps": LIVE_FPS, "goal_frames_per_s": GOAL_FPS,
    }  # fmt: skip


def _shared_out(
    bench: Bench, folder: Path, counts: Sequence[int], host: DeviceHost | None, rows: list[Record], failures: list[str]
) -> None:
    """A row for each number of workers and streams; host: of the device's process, None: each has the device itself."""
    scale, cores = bench.scale, len(os.sched_getaffinity(0))
    for count in counts:
        for n in [n for n in scale.streams[-2:] if n >= count] or scale.streams[-1:]:
            about = {"streams": n, "processes": count, "device": "own" if host is None else "one process's"}
            if count > max(cores, 2):
                rows.append({**about, "left_out": f"only {cores} cores"})
            elif not bench.has(START_S + scale.track_seconds):
                rows.append({**about, "left_out": "no time"})
            else:
                left = max(bench.deadline - time.monotonic(), 1.0)
                try:
                    row = {**about, **_in_processes(bench, folder, count, n, host, min(left, 600.0))}
                    rows.append({**row, "limit": limit_of(row, cores)})
                except RuntimeError as error:  # the rows before it stay
                    failures.append(f"{n} streams in {count} processes: {error}")
                    rows.append({**about, "left_out": "failed"})


def cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process until now, as Linux counts them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _in_processes(
    bench: Bench, folder: Path, count: int, streams: int, host: DeviceHost | None, seconds: float
) -> Record:
    shares = [list(range(streams))[i::count] for i in range(count)]
    command = [sys.executable, "-m", "benchmarks.gpu_track", str(folder), bench.backend.name]
    command.append(OWN if host is None else host.address)
    workers = [
        subprocess.Popen(
            [*command, str(bench.scale.track_seconds), ",".join(map(str, share))], text=True,
            cwd=Path(__file__).resolve().parent.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for share in shares if share
    ]  # fmt: skip
    owner = host.process.pid if host is not None and host.process is not None else None
    killer = threading.Timer(seconds, lambda: [w.kill() for w in workers])
    killer.start()
    try:
        for worker in workers:
            assert worker.stdout is not None
            if worker.stdout.readline() != "ready\n":
                raise RuntimeError(f"a worker ended before it followed: {_words(worker)}")
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        before = cpu_s(owner) if owner else 0.0
        rows = []
        for worker in workers:
            out, told = worker.communicate()
            if worker.returncode:
                raise RuntimeError(f"a worker ended with {worker.returncode}: {told[-2000:]}")
            rows.append(json.loads(out))
        of_owner = cpu_s(owner) - before if owner else 0.0
    finally:
        killer.cancel()
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
    frames, took = sum(r["frames"] for r in rows), max(r["seconds"] for r in rows)

    def mean(name: str) -> float:
        return sum(r[name] * r["frames"] for r in rows) / max(frames, 1)

    slowest = min(r["fewest_per_stream_per_s"] for r in rows)
    names = ("followed", "cpu_ms_a_frame", "logic_cpu_ms_a_frame", "waited_ms_a_frame", "jobs_a_batch")
    return {
        "streams": streams,
        "processes": len(rows),
        "frames": frames,
        "seconds": took,
        "frames_per_s": frames / took,
        "fewest_per_stream_per_s": slowest,
        "live": slowest >= LIVE_FPS,
        "busy_cores": sum(r["busy_cores"] for r in rows) + of_owner / took,
        "device_process_cores": of_owner / took,
        **{name: mean(name) for name in names},
    }


def _words(worker: subprocess.Popen[str]) -> str:
    worker.kill()
    return worker.communicate()[1][-2000:]


def worker(arguments: Sequence[str]) -> int:
    """One worker: folder of films, device, where its process listens (or own), seconds, numbers of its streams; says
    ready, waits for a line, reports."""
    from benchmarks.gpu_frames import Film
    from bodyfit.body.model import load_body_model

    folder, device, address, seconds = Path(arguments[0]), arguments[1], arguments[2], float(arguments[3])
    streams = [int(n) for n in arguments[4].split(",")]
    films: list[Any] = [None] * len(list(folder.glob("*.npz")))
    for n in streams:
        k = n % len(films)
        films[k] = films[k] or Film.read(folder / f"{k}.npz")
    model = load_body_model()
    with ExitStack() as stack:
        if address == OWN:
            solver: Any = stack.enter_context(solver_of(make_backend(device)))
        else:
            from bodyfit.fit.device_process import RemoteSolver

            solver = RemoteSolver(address, device)
        follow(model, films, streams, solver, 0.2)  # compiled, or read from the disk, and warm
        print("ready", flush=True)
        if sys.stdin.readline() != "go\n":
            return 1
        print(json.dumps(follow(model, films, streams, solver, seconds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(worker(sys.argv[1:]))
