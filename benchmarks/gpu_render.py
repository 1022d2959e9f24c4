"""How fast the differentiable renderer is on a GPU, and whether its images and gradients are the CPU's.

    python benchmarks/gpu_render.py [--out gpu_render.json] [--minutes 7] [--batches 1 4 16 64 128] [--size 640 480]

Bodies of different shapes and poses (fixed random numbers) before a camera 2.5 m away. Needs the body file, torch with
a CUDA device, numba, numba-cuda, numpy and scipy. What takes longer than --minutes is left out and named; the file is
written after every part. Times are medians between CUDA events. Exit code 1: a limit of the agreement does not hold, or
something failed (the rest is measured all the same).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bodyfit.body.model import load_body_model
from bodyfit.render.camera import RenderCamera
from bodyfit.render.render import RenderContext, render
from bodyfit.render.scene import DirectionalLight, Lighting

GOAL_IMAGES_PER_S = 3000
LIMITS = {"depth_mm": 0.1, "alpha": 1e-4, "gradient": 2e-3}
IMAGES = {
    "alpha, depth": ("alpha", "premultiplied_depth"),
    "alpha, depth, normals": ("alpha", "premultiplied_depth", "premultiplied_normals"),
    "alpha, colour": ("alpha", "premultiplied_color"),
}
"""What is drawn; colour has harmonics and a directional light."""


class Scene:
    """A batch of bodies on a device, the cotangents of their images, and what is drawn of them."""

    def __init__(self, n_batch: int, size: tuple[int, int], device: str, what: str = "alpha, depth") -> None:
        points, self.faces = bodies(n_batch)
        self.vertices = torch.tensor(points, dtype=torch.float32, device=device, requires_grad=True)
        self.camera = RenderCamera.look_at(
            [0.0, 0.0, 2.5], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0], width=size[0], height=size[1], vfov_deg=60.0,
            device=device,
        )  # fmt: skip
        self.names, self.context, self.options = IMAGES[what], RenderContext(), {}
        if "premultiplied_color" in self.names:
            sun = DirectionalLight(torch.tensor([0.2, -0.5, -1.0], device=device), torch.ones(3, device=device))
            harmonics = torch.linspace(0.8, -0.2, 27, device=device).reshape(9, 3)
            self.options["lighting"] = Lighting(harmonics, (sun,))
        shapes = {name: (3,) if name in ("premultiplied_normals", "premultiplied_color") else () for name in self.names}
        self.cotangents = [
            random_image((n_batch, size[1], size[0], *shapes[name]), k).to(device) for k, name in enumerate(self.names)
        ]

    def images(self) -> tuple[Any, ...]:
        """The images that are asked for."""
        drawn = render(self.vertices, self.faces, self.camera, context=self.context, **self.options)
        return tuple(getattr(drawn, name) for name in self.names)

    def forward(self) -> None:
        """The images alone."""
        with torch.no_grad():
            self.images()

    def both(self) -> torch.Tensor:
        """The images, and the gradient with respect to the vertices (B, V, 3), edges included."""
        return torch.autograd.grad(self.images(), self.vertices, self.cotangents)[0]


def random_image(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Fixed random numbers (B, H, W) or (B, H, W, C), the same for every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bodies(n_batch: int) -> tuple[np.ndarray, Any]:
    """(B, V, 3) metres about the origin, turned about the vertical, in shapes and poses that differ; and the faces."""
    model, numbers = load_body_model(), np.random.default_rng(3)
    points = []
    for _ in range(n_batch):
        pose = numbers.normal(scale=0.12, size=(model.num_joints, 3))
        pose[0] = 0.0, numbers.uniform(-np.pi, np.pi), 0.0
        vertices, _ = model.forward(0.5 * numbers.normal(size=model.num_betas), pose)
        points.append(vertices - (vertices.max(0) + vertices.min(0)) / 2)
    return np.stack(points), model.faces


def milliseconds(task: Callable[[], Any], least: int = 10, seconds: float = 1.5) -> float:
    """Median time between events about the task, after three calls that do not count."""
    for _ in range(3):
        task()
    torch.cuda.synchronize()
    pairs, end = [], time.perf_counter() + seconds
    while len(pairs) < least or (time.perf_counter() < end and len(pairs) < 200):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        task()
        stop.record()
        pairs.append((start, stop))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(stop) for start, stop in pairs)


def throughput(task: Callable[[], Any], n_batch: int, least: int = 10, seconds: float = 1.5) -> float:
    """Images per second of calls one after the other, by the wall clock, the device waited for at the end."""
    task()
    torch.cuda.synchronize()
    n, start = 0, time.perf_counter()
    while n < least or time.perf_counter() < start + seconds:
        task()
        n += 1
    torch.cuda.synchronize()
    return n * n_batch / (time.perf_counter() - start)


def captured(scene: Scene) -> Callable[[], Any]:
    """The scene's `both` as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            scene.both()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gradient = scene.both()

    def replay() -> torch.Tensor:
        graph.replay()
        return gradient

    return replay


def speed(n_batch: int, size: tuple[int, int], what: str) -> dict[str, Any]:
    """Times of one batch, called from Python."""
    scene = Scene(n_batch, size, "cuda", what)
    start = time.perf_counter()
    scene.both()
    torch.cuda.synchronize()
    row: dict[str, Any] = {"batch": n_batch, "images": what, "first_call_s": time.perf_counter() - start}
    torch.cuda.reset_peak_memory_stats()
    row["forward_ms"], row["both_ms"] = milliseconds(scene.forward), milliseconds(scene.both)
    row["images_per_s"] = throughput(scene.both, n_batch)
    row["memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return row


def graph_speed(n_batch: int, size: tuple[int, int], what: str) -> dict[str, Any]:
    """The same batch as a CUDA graph, and how far its gradient is from the one of a plain call."""
    scene = Scene(n_batch, size, "cuda", what)
    expected, replay = scene.both(), captured(scene)
    row: dict[str, Any] = {"batch": n_batch, "images": what}
    row["ms"], row["images_per_s"] = milliseconds(replay), throughput(replay, n_batch)
    scene.context.check()
    # sums by atomics differ in their last bits from call to call
    row["difference"] = relative(replay(), expected)
    return row


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The norm of the difference over that of the expected."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def shares(n_batch: int, size: tuple[int, int], what: str) -> dict[str, Any]:
    """Device time of each kernel in forward and backward, the longest first."""
    from torch.profiler import ProfilerActivity, profile

    scene, repeat = Scene(n_batch, size, "cuda", what), 5
    for _ in range(3):
        scene.both()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as record:
        for _ in range(repeat):
            scene.both()
        torch.cuda.synchronize()
    times: dict[str, list[float]] = {}
    for event in record.events() or ():
        if str(event.device_type).endswith("CUDA"):
            times.setdefault(short_name(event.name), []).append(event.time_range.elapsed_us())
    total = sum(sum(t) for t in times.values())
    rows = [
        {"kernel": name, "ms": sum(t) / repeat / 1e3, "launches": len(t) / repeat, "share": sum(t) / total}
        for name, t in times.items()
    ]
    return {"batch": n_batch, "images": what, "kernels": sorted(rows, key=lambda row: -row["ms"])}


def short_name(name: str) -> str:
    """`cuda_edges.cut_edges` of a kernel's mangled name; the beginning of another's."""
    parts = re.match(r"_ZN((?:\d+\w+?)+?)B", name)
    ours = re.search(r"(cuda_[a-z]+?)(\d+)([a-z_]+)", name)
    if parts and ours:
        return f"{ours[1]}.{ours[3][: int(ours[2])]}"
    return name[:60]


def agreement(n_batch: int, size: tuple[int, int], what: str) -> dict[str, Any]:
    """Differences between the device and the CPU: images where both see the same face, and the gradient."""
    found, expected = Scene(n_batch, size, "cuda", what), Scene(n_batch, size, "cpu", what)
    drawn = render(found.vertices, found.faces, found.camera, context=found.context, **found.options)
    right = render(expected.vertices, expected.faces, expected.camera, context=expected.context, **expected.options)
    with torch.no_grad():
        same = drawn.face_id.cpu() == right.face_id
        differs = {name: (getattr(drawn, name).cpu() - getattr(right, name)).abs() for name in found.names}
    row: dict[str, Any] = {"batch": n_batch, "images": what, "pixels_with_another_face": int((~same).sum())}
    row["covered_pixels"] = int((right.face_id >= 0).sum())
    row["alpha"] = float(differs["alpha"][same].max())
    for name in found.names[1:]:
        key = "depth_mm" if name == "premultiplied_depth" else name
        row[key] = float(differs[name][same].max()) * (1000 if key == "depth_mm" else 1)
    # where another face is seen another one is moved: that is no matter of the gradient
    for scene in (found, expected):
        device = scene.vertices.device
        scene.cotangents = [g * same.to(device).reshape(*same.shape, *(1,) * (g.ndim - 3)) for g in scene.cotangents]
    ours, theirs = found.both().cpu(), expected.both()
    row["gradient"] = relative(ours, theirs)
    row["gradient_cosine"] = float(torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0))
    row["holds"] = all(row[key] <= limit for key, limit in LIMITS.items() if key in row)
    return row


def about() -> dict[str, Any]:
    """The machine, the packages and the command."""
    packages = {}
    for name in ("torch", "numba", "numba-cuda", "cuda-bindings", "numpy", "scipy"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "missing"
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "cpu_cores": os.cpu_count(),
        "packages": packages,
        "command": shlex.join(["python", *sys.argv]),
    }


def collect(rows: list[Any], measure: Callable[..., dict[str, Any]], *arguments: Any) -> None:
    """Puts a measurement where it belongs."""
    rows.append(measure(*arguments))


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_render.json"))
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64, 128])
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch sees no CUDA device here", file=sys.stderr)
        return 2
    size, end = tuple(given.size), time.monotonic() + 60 * given.minutes
    result: dict[str, Any] = {
        **about(),
        "size": size,
        "agreement": [],
        "speed": [],
        "graphs": [],
        "shares": [],
        "left_out": [],
        "failed": [],
    }
    print(json.dumps({k: result[k] for k in ("device", "packages", "command")}, indent=1), flush=True)
    largest = 64 if 64 in given.batches else max(given.batches)
    jobs: list[tuple[str, Callable[[], None]]] = []
    for what in IMAGES:
        jobs.append((f"agreement, {what}", partial(collect, result["agreement"], agreement, 4, size, what)))
        batches = [largest, *(n for n in given.batches if n != largest)] if what == "alpha, depth" else [largest]
        for n in batches:
            jobs.append((f"speed, {what}, {n}", partial(collect, result["speed"], speed, n, size, what)))
            jobs.append((f"graph, {what}, {n}", partial(collect, result["graphs"], graph_speed, n, size, what)))
        jobs.append((f"shares, {what}", partial(collect, result["shares"], shares, largest, size, what)))
    for name, job in jobs:
        start = time.monotonic()
        if start > end:
            result["left_out"].append(f"{name}: no time")
            continue
        try:
            job()
        except Exception as error:  # nobody is there to start it again: what works is measured
            traceback.print_exc()
            result["failed"].append(f"{name}: {type(error).__name__}: {error}")
            torch.cuda.empty_cache()
        print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
        write(given.out, result)
    show(result)
    agrees = bool(result["agreement"]) and all(row["holds"] for row in result["agreement"])
    return 0 if agrees and not result["failed"] else 1


def write(path: Path, result: dict[str, Any]) -> None:
    """The file as a whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(path)


def show(result: dict[str, Any]) -> None:
    """Tables in Markdown."""
    width, height = result["size"]
    print(f"\n{result['device']}, {width}×{height}, goal {GOAL_IMAGES_PER_S} images/s for 64\n")
    print("| images | batch | forward ms | and backward ms | images/s | MiB |")
    print("|---|---:|---:|---:|---:|---:|")
    for r in sorted(result["speed"], key=lambda r: (r["images"], r["batch"])):
        print(
            f"| {r['images']} | {r['batch']} | {r['forward_ms']:.2f} | {r['both_ms']:.2f} | {r['images_per_s']:.0f} "
            f"| {r['memory_mib']:.0f} |"
        )
    print("\n| as a CUDA graph | batch | forward and backward ms | images/s |\n|---|---:|---:|---:|")
    for r in sorted(result["graphs"], key=lambda r: (r["images"], r["batch"])):
        print(f"| {r['images']} | {r['batch']} | {r['ms']:.2f} | {r['images_per_s']:.0f} |")
    for part in result["shares"]:
        print(f"\n| kernel ({part['images']}, batch {part['batch']}) | ms | launches | share |\n|---|---:|---:|---:|")
        for r in part["kernels"][:25]:
            print(f"| {r['kernel']} | {r['ms']:.3f} | {r['launches']:.0f} | {100 * r['share']:.1f} % |")
    print("\nagreement with the CPU:")
    for row in result["agreement"]:
        print(json.dumps(row))
    for text in (*result["left_out"], *result["failed"]):
        print(f"not measured: {text}")


if __name__ == "__main__":
    sys.exit(main())
