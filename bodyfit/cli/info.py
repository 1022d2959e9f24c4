"""`bodyfit info`: versions, devices and what is installed."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from bodyfit.cli.fit import JsonOption

NEEDED = (
    "numpy",
    "scipy",
    "numba",
    "opencv-python-headless",
    "open3d-cpu",
    "open3d",
    "pillow",
    "threadpoolctl",
    "typer",
    "rich",
)
EXTRAS = {
    "render": ("torch",),
    "mitsuba": ("mitsuba", "drjit", "torch"),
    "smplx": ("smplx", "torch"),
    "video": ("av",),
    "service": (
        "grpcio",
        "grpcio-health-checking",
        "grpcio-reflection",
        "grpcio-status",
        "protobuf",
        "prometheus-client",
        "zstandard",
    ),
    "ros": ("lz4", "zstandard"),
    "iphone": ("lzfse",),
    "realsense": ("pyrealsense2",),
    "orbbec": ("pyorbbecsdk2",),
    "azure": ("pyk4a",),
    "batch": ("pyarrow", "fsspec"),
    "ray": ("ray", "fsspec"),
    "otel": ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-grpc"),
    "test": ("pytest", "hypothesis", "ruff", "pyright"),
}


def version() -> str:
    """The installed version of bodyfit."""
    return _installed("bodyfit") or "0+unknown"


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cuda() -> dict[str, Any]:
    """Whether a CUDA driver is there; found by looking, not by starting it."""
    driver = Path("/proc/driver/nvidia/version")
    return {"driver": driver.is_file(), "used": False, "why": "this version computes on the CPU only"}


def information() -> dict[str, Any]:
    """Versions, devices and what is installed, as plain data."""
    from bodyfit.body.model import DEFAULT_MODEL

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "bodyfit": version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: found for name in NEEDED if (found := _installed(name))},
        "extras": {extra: {name: _installed(name) for name in names} for extra, names in EXTRAS.items()},
        "devices": {"cpu": {"cores": cores, "used": True}, "cuda": _cuda()},
        "default_model": DEFAULT_MODEL,
    }


def info_command(as_json: JsonOption = False) -> None:
    """Show versions, devices and what is installed."""
    from bodyfit.cli.screen import print_json, print_table

    data = information()
    if as_json:
        print_json(data)
        return
    rows = [(key, str(data[key])) for key in ("bodyfit", "python", "system", "default_model")]
    rows += sorted(data["packages"].items())
    for extra, packages in data["extras"].items():
        missing = [name for name, found in packages.items() if found is None]
        there = ", ".join(f"{name} {found}" for name, found in packages.items() if found)
        lack = f"missing {', '.join(missing)}: pip install 'bodyfit[{extra}]'" if missing else ""
        rows.append((f"extra {extra}", "; ".join(s for s in (there, lack) if s)))
    cuda = data["devices"]["cuda"]
    rows.append(("cpu", f"{data['devices']['cpu']['cores']} cores, used"))
    rows.append(("cuda", f"{'driver found' if cuda['driver'] else 'no driver'}; {cuda['why']}"))
    print_table([("", "left"), ("", "left")], rows)
