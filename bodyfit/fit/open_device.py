"""A device by its name: what `--device` and the argument `device` mean."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from bodyfit.errors import DeviceError, MissingExtraError
from bodyfit.fit.config import FitConfig

if TYPE_CHECKING:
    from bodyfit.fit.device import Solver

NAMES = "cpu, cuda, cuda:N or auto"
KNOWN = re.compile(r"cpu|auto|cuda(:\d{1,3})?|cpu-gathered")
DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
"""what a Linux that can reach an NVIDIA GPU has"""


def check_device(device: str, field: str = "device") -> None:
    """Refuses names that mean no device; whether it can be used is not looked at.

    Raises:
        DeviceError: there is no such name.
    """
    if not KNOWN.fullmatch(device):
        raise DeviceError(field, NAMES, repr(device))


def chosen_device(device: str) -> str:
    """The same, with `auto` decided: cuda where a fit could run there, else cpu."""
    if device != "auto":
        return device
    # torch takes seconds to import: not where there is nothing to be found
    if find_spec("torch") is None or find_spec("numba_cuda") is None:
        return "cpu"
    if sys.platform == "linux" and not any(Path(p).exists() for p in DRIVERS):
        return "cpu"
    from bodyfit.fit.cuda_backend import CudaBackend

    return "cuda" if CudaBackend.available() is None else "cpu"


def open_solver(device: str) -> Solver | None:
    """Who solves on a device, one for the whole process; None for the CPU here.

    cpu-gathered is the CPU's launchers in the place of a device: jobs of several threads are gathered as a device's
    are, and results are the CPU's to the last bit.

    Raises:
        DeviceError: there is no such device, or it cannot be used.
        MissingExtraError: what it needs is not installed.
    """
    check_device(device)
    name = chosen_device(device)
    if name == "cpu":
        return None
    with _OPENING:
        return _opened(name)


_OPENING = Lock()
"""two threads that open a device at once must not become two owners of it"""


@lru_cache(maxsize=8)
def _opened(device: str) -> Solver:
    from bodyfit.fit.device_process import backend_for
    from bodyfit.fit.gather import Gatherer

    return Gatherer(backend_for(device))


def on_device(config: FitConfig, device: str) -> FitConfig:
    """The configuration with a device's solver; one that it names already stays.

    Raises:
        DeviceError, MissingExtraError: see `open_solver`.
    """
    return config if config.solver is not None else replace(config, solver=open_solver(device))


def usable(device: str) -> str | None:
    """Why a device cannot be used; None where it can. Nothing is begun on it."""
    if not device.startswith("cuda"):
        return None
    try:
        from bodyfit.fit.cuda_backend import CudaBackend

        return CudaBackend.available(device)
    except MissingExtraError as error:
        return str(error)
