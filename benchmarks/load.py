"""A real server under load, on the loopback: throughput, latency, rejects, overhead and memory; writes LOAD.md.

    python benchmarks/load.py [--seconds 30] [--address HOST:PORT] [--from FIGURES.json] [--no-memory]

The clients of a load are asyncio tasks in this one process (sixty-four processes would fight for two cores): each sends
the same request, already packed, waits for the answer's bytes, and sends again. What a client spends on packing and
unpacking is measured on its own, by one whole client. The workers' own speed is that of as many processes that
call the library in a loop, right before: the clients' share of the cores is part of what the service costs.

The frame is VGA (640×480 depth and colour, one person, seeded), sent as a recording's files are: 16-bit PNG and JPEG.
Takes about ten minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
CLIENTS = (1, 4, 16, 64)
SEED = 640480
START_S = 300.0
METHOD = "/bodyfit.v1.BodyFitService/"
FITS_PER_HUNDRED = 5
"""of the requests of the memory's measurement so many are whole fits; half of the others show nobody, half measure"""


@dataclass
class Load:
    """What came of some clients that asked for a while."""

    clients: int
    seconds: float
    latencies_s: list[float] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    parts_ms: list[dict[str, float]] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Its figures."""
        done = np.array(self.latencies_s or [np.nan])
        return {
            "clients": self.clients,
            "seconds": self.seconds,
            "answered": len(self.latencies_s),
            "per_s": len(self.latencies_s) / self.seconds,
            "p50_s": float(np.percentile(done, 50)),
            "p95_s": float(np.percentile(done, 95)),
            "p99_s": float(np.percentile(done, 99)),
            "codes": dict(self.codes),
        }


def vga_take(folder: Path) -> Path:
    """A recording of one VGA frame with colour, made from a seed."""
    from bodyfit.body.model import load_body_model
    from bodyfit.camera import Camera
    from bodyfit.synthetic.sensor import SensorModel
    from bodyfit.synthetic.take import sample_take
    from bodyfit.synthetic.write import write_take

    camera = Camera(640, 480, 460.0, 460.0, 319.5, 239.5)
    beside = np.eye(4)
    beside[0, 3] = -0.03
    sensor = SensorModel("vga", camera, camera, beside)
    take = sample_take(load_body_model(), SEED, sensor=sensor, color=True, color_stride=1)
    return write_take(folder / "vga", take, with_truth=False)


def request_bytes(recording: Path) -> tuple[bytes, bytes]:
    """A Fit's message of the recording, and one of the same size in which nobody stands."""
    from bodyfit.recording import open_recording
    from bodyfit_protos.v1 import bodyfit_pb2 as pb
    from bodyfit_service.frames_wire import instant_message
    from bodyfit_service.material import make_material
    from bodyfit_service.questions import fit_question

    source = open_recording(recording)
    whole = fit_question(source, stream=False).request(None)
    assert whole is not None
    frame = source.frame(0, source.sensors[0].name)
    assert frame is not None
    wall = np.full_like(frame.depth, 3.0)
    nobody = instant_message([replace(frame, depth=wall, mask=None)], index=0, timestamp_s=0.0)
    empty = pb.FitRequest(header=make_material(source).header, instants=[nobody])
    return whole.SerializeToString(), empty.SerializeToString()


class Server:
    """`bodyfit serve` in a process of its own, on the loopback."""

    def __init__(self, workers: int, flags: Sequence[str]) -> None:
        command = [sys.executable, "-m", "bodyfit.cli.main", "serve", "--address", "127.0.0.1:0"]
        command += ["--metrics-address", "", "--fit-workers", str(workers), "--log-level", "warning", *flags]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the server
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.address = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("listening on "):
                self.address = line.split()[-1]
                break
        # what it prints from now on is read away, or it would stand still one day
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        if not self.address:
            raise SystemExit(f"the server does not start:\n{self.told()}")

    def told(self) -> str:
        """The end of its log."""
        self.log.seek(0)
        return self.log.read()[-4000:]

    def wait_serving(self) -> None:
        """Waits until health says SERVING."""
        from bodyfit_service.client import BodyFitClient

        end = time.monotonic() + START_S
        with BodyFitClient(self.address) as client:
            while not client.healthy(2.0):
                if self.process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"the server does not serve:\n{self.told()}")
                time.sleep(0.2)

    def memory(self) -> dict[str, float]:
        """Resident memory in MB: the front's, its children's, and their sum."""
        import psutil

        front = psutil.Process(self.process.pid)
        children = []
        for child in front.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                children.append(child.memory_info().rss / 1e6)
        mine = front.memory_info().rss / 1e6
        return {"front": mine, "workers": sum(children), "sum": mine + sum(children), "processes": 1 + len(children)}

    def stop(self) -> None:
        """Ends it as an operator does."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def served(address: str, workers: int, flags: Sequence[str]) -> Iterator[tuple[str, Server | None]]:
    """The address to ask, and the server where it was started here."""
    if address:
        yield address, None
        return
    server = Server(workers, flags)
    try:
        server.wait_serving()
        yield server.address, server
    finally:
        server.stop()


def _own(recording: str, seconds: float, start: Any, out: Any) -> None:
    """One of the processes whose speed is the workers' own: fits in a loop, as a worker's settings are."""
    from bodyfit.body.model import load_body_model
    from bodyfit.fit.config import FitConfig
    from bodyfit.fit.fit import fit
    from bodyfit.recording import open_recording

    body, config = load_body_model(), replace(FitConfig(), threads=1)
    source = open_recording(recording)
    fit(source, model=body, config=config)
    start.wait()
    end = time.monotonic() + seconds
    took = []
    while time.monotonic() < end:
        began = time.monotonic()
        fit(source, model=body, config=config)
        took.append(time.monotonic() - began)
    out.put(took)


def own_speed(recording: Path, processes: int, seconds: float) -> dict[str, Any]:
    """Fits a second of as many processes that call the library, reading the frame's files for each."""
    context = multiprocessing.get_context("spawn")
    start, out = context.Barrier(processes), context.Queue()
    arguments = (str(recording), seconds, start, out)
    running = [context.Process(target=_own, args=arguments) for _ in range(processes)]
    for process in running:
        process.start()
    took = [out.get(timeout=START_S + seconds) for _ in running]
    for process in running:
        process.join()
    # each process's own rate: what the last fit took beyond the bell is in its own time
    rate = sum(len(t) / sum(t) for t in took)
    return {"processes": processes, "per_s": rate, "median_s": float(np.median(np.concatenate(took)))}


async def one_client(
    call: Any, request: bytes, load: Load, end: float, metadata: Sequence[tuple[str, str]] | None
) -> None:
    """Asks, waits, asks again; a full server is asked again when it says."""
    import grpc

    from bodyfit_service.received import times_of
    from bodyfit_service.retries import asked_wait_s

    while (now := time.monotonic()) < end:
        answer = call(request, metadata=metadata, timeout=120)
        try:
            await answer
        except grpc.RpcError as error:
            load.codes[error.code().name] += 1  # type: ignore[attr-defined]
            await asyncio.sleep(min(asked_wait_s(error) or 0.5, 5.0))
            continue
        took = time.monotonic() - now
        load.codes["OK"] += 1
        load.latencies_s.append(took)
        load.parts_ms.append({**times_of(await answer.trailing_metadata()), "all": 1e3 * took})


async def load_of(address: str, method: str, request: bytes, clients: int, seconds: float) -> Load:
    """So many clients, each with a connection of its own."""
    from grpc import aio

    from bodyfit_service.channel import options

    load = Load(clients, seconds)
    # a pool of sub-channels shared by all would be one connection
    apart = [*options(None), ("grpc.use_local_subchannel_pool", 1)]
    channels = [aio.insecure_channel(address, apart) for _ in range(clients)]
    began = time.monotonic()
    try:
        calls = [c.unary_unary(METHOD + method, request_serializer=None, response_deserializer=None) for c in channels]
        await asyncio.gather(*(one_client(call, request, load, began + seconds, None) for call in calls))
    finally:
        for channel in channels:
            await channel.close()
    load.seconds = time.monotonic() - began  # until the last answer
    return load


def overhead(load: Load) -> dict[str, Any]:
    """What one client's requests took beside the fit itself, and in which part; medians, ms."""
    parts = [p for p in load.parts_ms if "fit" in p]
    if not parts:
        return {}
    beside = np.array([p["all"] - p["fit"] for p in parts])
    named = sorted({name for p in parts for name in p} - {"all"})
    return {
        "n": len(parts),
        "beside_fit_p50_ms": float(np.percentile(beside, 50)),
        "beside_fit_p95_ms": float(np.percentile(beside, 95)),
        "parts_p50_ms": {name: float(np.median([p.get(name, 0.0) for p in parts])) for name in named},
    }


async def whole_client(address: str, recording: Path, count: int) -> dict[str, float]:
    """What a client adds: reading and packing the files, unpacking the answer into a FitResult; medians, ms."""
    from bodyfit.recording import open_recording
    from bodyfit_service.aio import AsyncBodyFitClient

    source = open_recording(recording)
    took = []
    async with AsyncBodyFitClient(address) as client:
        await client.fit(source)  # loads the body model
        for _ in range(count):
            began = time.monotonic()
            answer = await client.fit_answer(source)
            took.append(1e3 * (time.monotonic() - began) - answer.times_ms.get("fit", float("nan")))
    return {"n": count, "beside_fit_p50_ms": float(np.median(took))}


async def memory_of(address: str, server: Server, fit: bytes, nobody: bytes, marks: Sequence[int]) -> dict[str, Any]:
    """The server's memory after so many requests from four clients: fits, frames without a person, measurements."""
    import grpc
    from grpc import aio

    from bodyfit_protos.v1 import bodyfit_pb2 as pb

    measure = pb.MeasureRequest(betas=[0.5, -0.5]).SerializeToString()
    done: Counter[str] = Counter()
    out: dict[str, Any] = {"requests": {}, "of": f"{FITS_PER_HUNDRED} % fits, else frames without a person and Measure"}
    async with aio.insecure_channel(address) as channel:
        calls = {
            name: channel.unary_unary(METHOD + name, request_serializer=None, response_deserializer=None)
            for name in ("Fit", "Measure")
        }

        async def ask(numbers: Iterator[int]) -> None:
            for n in numbers:
                whole = n % 100 < FITS_PER_HUNDRED
                kind = "fit" if whole else "nobody" if n % 2 else "measure"
                message = {"fit": fit, "nobody": nobody, "measure": measure}[kind]
                try:
                    await calls["Measure" if kind == "measure" else "Fit"](message, timeout=120)
                    done[f"{kind}: OK"] += 1
                except grpc.RpcError as error:
                    done[f"{kind}: {error.code().name}"] += 1  # type: ignore[attr-defined]

        before = 0
        for mark in marks:
            numbers = iter(range(before, mark))
            await asyncio.gather(*(ask(numbers) for _ in range(4)))
            before = mark
            out["requests"][mark] = server.memory()
    out["codes"] = dict(done)
    return out


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory(prefix="bodyfit-load-") as place:
        recording = vga_take(Path(place))
        fit, nobody = request_bytes(recording)
        figures: dict[str, Any] = {
            "cores": os.cpu_count(), "load_before": os.getloadavg()[0], "workers": arguments.workers,
            "request_bytes": len(fit), "loads": [],
        }  # fmt: skip
        if not arguments.address:
            figures["own"] = own_speed(recording, arguments.workers, arguments.seconds)
            print(f"the workers' own speed: {figures['own']['per_s']:.2f} fits/s", flush=True)
        flags = ["--per-client", "1000", *arguments.serve]
        with served(arguments.address, arguments.workers, flags) as (address, server):
            for clients in arguments.clients:
                load = asyncio.run(load_of(address, "Fit", fit, clients, arguments.seconds))
                figures["loads"].append(load.record())
                print(row_of(figures["loads"][-1], figures.get("own")), flush=True)
                if clients == 1:
                    figures["overhead"] = overhead(load)
            info = asyncio.run(load_of(address, "GetServerInfo", b"", 1, min(5.0, arguments.seconds)))
            figures["get_server_info"] = info.record()
            figures["whole_client"] = asyncio.run(whole_client(address, recording, arguments.whole))
            if server is not None and not arguments.no_memory:
                marks = (arguments.memory // 10, arguments.memory)
                figures["memory"] = asyncio.run(memory_of(address, server, fit, nobody, marks))
    return figures


def row_of(load: dict[str, Any], own: dict[str, Any] | None) -> str:
    """One line of the table of loads."""
    share = f"{100 * load['per_s'] / own['per_s']:.0f} %" if own else ""
    refused = ", ".join(f"{n} {code}" for code, n in sorted(load["codes"].items()) if code != "OK") or "none"
    times = " | ".join(f"{load[p]:.2f} s" for p in ("p50_s", "p95_s", "p99_s"))
    return f"| {load['clients']} | {load['answered']} | {load['per_s']:.2f} | {share} | {times} | {refused} |"


def document(figures: dict[str, Any]) -> str:
    """LOAD.md."""
    own = figures.get("own")
    lines = [
        "# The service under load",
        "",
        "`python benchmarks/load.py`: what is measured, and how, stands at its beginning.",
        "",
        f"- {figures['cores']} cores, {figures['workers']} workers of one thread; load average before: "
        f"{figures['load_before']:.1f}",
        f"- a request: {figures['request_bytes'] / 1e3:.0f} kB (VGA depth as PNG, colour as JPEG)",
    ]
    if own:
        lines.append(
            f"- {own['processes']} processes that call the library in a loop: {own['per_s']:.2f} fits/s, "
            f"median {own['median_s']:.2f} s a fit"
        )
    lines += [
        "",
        "| clients | answered | fits/s | of the workers' own | p50 | p95 | p99 | not answered |",
        "|---:|---:|---:|---:|---:|---:|---:|---|",
        *(row_of(load, own) for load in figures["loads"]),
        "",
        "## Overhead of a request",
        "",
        "| | ms |",
        "|---|---:|",
    ]
    over = figures.get("overhead") or {}
    if over:
        lines.append(f"| Fit beside the fit itself, p50 of {over['n']} | {over['beside_fit_p50_ms']:.1f} |")
        lines.append(f"| the same, p95 | {over['beside_fit_p95_ms']:.1f} |")
        lines += [f"| ↳ of it {n}, p50 | {ms:.1f} |" for n, ms in over["parts_p50_ms"].items() if n != "fit"]
    info, whole = figures["get_server_info"], figures["whole_client"]
    lines.append(
        f"| Fit beside the fit, with the client's packing and unpacking, p50 | {whole['beside_fit_p50_ms']:.1f} |"
    )
    lines.append(f"| GetServerInfo, p50 of {info['answered']} | {1e3 * info['p50_s']:.2f} |")
    if "memory" in figures:
        memory = figures["memory"]
        lines += [
            "",
            "## Memory",
            "",
            f"Resident MB after so many requests ({memory['of']}).",
            "",
            "| requests | front | workers | sum |",
            "|---:|---:|---:|---:|",
        ]
        rows = memory["requests"]
        for count, m in rows.items():
            lines.append(f"| {count} | {m['front']:.0f} | {m['workers']:.0f} | {m['sum']:.0f} |")
        sums = [m["sum"] for m in rows.values()]
        codes = ", ".join(f"{n} {c}" for c, n in sorted(memory["codes"].items()))
        lines += ["", f"Growth: {100 * (sums[-1] / sums[0] - 1):+.1f} %. Answers: {codes}."]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="", help="a server that runs already; else one is started")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each load")
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--whole", type=int, default=10, help="fits by one whole client")
    parser.add_argument("--memory", type=int, default=2000, help="requests for the memory's figures")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--serve", nargs="*", default=[], help="more flags of bodyfit serve")
    parser.add_argument("--from", dest="figures", type=Path, help="write the document of these figures")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of LOAD.md and load.json")
    arguments = parser.parse_args()
    figures = json.loads(arguments.figures.read_text()) if arguments.figures else measured(arguments)
    text = document(figures)
    (arguments.out / "load.json").write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    (arguments.out / "LOAD.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
