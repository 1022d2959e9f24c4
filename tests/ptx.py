"""Compiles every kernel of the GPU's renderer for sm_90 without a GPU: `python ptx.py FOLDER` writes a .ptx for each.

numba-cuda asks a driver for its device and NVRTC for the chips that it knows, though the code itself comes from NVVM
alone: both are answered here, so that NVVM's wheel is all it takes. Exit code 77: there is no NVVM.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bodyfit.kernels

NO_NVVM = 77
CHIP = (9, 0)


def pretend_to_have_a_gpu() -> None:
    """Answers numba-cuda's questions about the machine."""
    dispatcher: Any = importlib.import_module("numba.cuda.dispatcher")
    nvrtc: Any = importlib.import_module("numba.cuda.cudadrv.nvrtc")
    cuda_paths: Any = importlib.import_module("numba.cuda.cuda_paths")
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=CHIP)
    nvrtc.get_supported_ccs = lambda: (CHIP,)
    cuda_paths._get_nvrtc_path = lambda: cuda_paths._env_path_tuple("none", None)


def tenth(values) -> None:
    """A kernel as one writes it without care: 0.1 is a number in double precision."""
    values[0] = values[0] * 0.1


def main(folder: Path) -> int:
    """Compiles them all."""
    from cuda.pathfinder import DynamicLibNotFoundError, load_nvidia_dynamic_lib

    try:
        load_nvidia_dynamic_lib("nvvm")
    except DynamicLibNotFoundError as error:
        print(str(error).splitlines()[0], file=sys.stderr)
        return NO_NVVM
    pretend_to_have_a_gpu()
    for info in pkgutil.iter_modules(bodyfit.kernels.__path__):
        if info.name.startswith("cuda_"):
            importlib.import_module(f"bodyfit.kernels.{info.name}")
    from bodyfit.kernels.cuda_jit import F1, KERNELS, cuda

    jobs = {name: (kernel.function, kernel.kinds) for name, kernel in KERNELS.items()} | {"probe": (tenth, (F1,))}
    for name, (function, kinds) in jobs.items():
        ptx, _ = cuda.compile(function, kinds, cc=CHIP, output="ptx", device=False, abi="numba")
        (folder / f"{name}.ptx").write_text(ptx)
    return 0


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stderr.flush()
    os._exit(code)
