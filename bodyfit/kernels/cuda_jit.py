"""How a function becomes a kernel of a GPU: the types it is launched with are part of it, and all are known by name.

A kernel runs over as many items as it has to whatever the grid is (`range(cuda.grid(1), n, cuda.gridsize(1))`), so a
launch only chooses how many threads share the work. Functions of `scalar`, `scalar_shading` and the `cpu_` files are
called as they are: numba compiles them for the device. Importing this needs numba-cuda, but no GPU.

With NUMBA_ENABLE_CUDASIM=1 (and NUMBA_DISABLE_JIT=1, since compiled functions do not take the simulator's arrays) the
same launches run in Python on numpy's arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import config, typeof, types
from numba import cuda as numba_cuda

cuda: Any = numba_cuda
"""numba's module, of whose functions in kernels a type checker knows nothing."""
SIMULATED = bool(getattr(config, "ENABLE_CUDASIM"))  # noqa: B009
THREADS = 8 if SIMULATED else 128
"""Threads in a block."""

F1, F2, F3, F4 = (types.Array(types.float32, n, "C") for n in (1, 2, 3, 4))
I1, I2, I3 = (types.Array(types.int32, n, "C") for n in (1, 2, 3))
L2, L3 = (types.Array(types.int64, n, "C") for n in (2, 3))
U1, U3 = (types.Array(types.uint8, n, "C") for n in (1, 3))
INT, FLAG = types.int64, types.boolean
"""What kernels take: arrays of 1, 2, … axes in the usual order, whole numbers and truth values of Python."""

KERNELS: dict[str, Kernel] = {}
"""Every kernel by `file.function`."""

device = cuda.jit(device=True)
"""Makes a function of arrays that kernels call."""


if SIMULATED:

    def float_as_int(number: Any) -> int:
        """The bits of a float32."""
        return int(np.float32(number).view(np.int32))

    def int_as_float(bits: Any) -> Any:
        """The float32 of these bits."""
        return np.int32(bits).view(np.float32)

else:
    from numba.cuda.libdevice import float_as_int, int_as_float  # type: ignore[no-redef]


@device
def rank_of(number):
    """A whole number of 32 bits, as int64, that is larger where the float32 is."""
    bits = np.int64(float_as_int(number))
    return bits if bits >= 0 else bits ^ np.int64(0x7FFFFFFF)


@device
def value_of(rank):
    """The float32 of a rank."""
    return int_as_float(np.int32(rank if rank >= 0 else rank ^ np.int64(0x7FFFFFFF)))


class Kernel:
    """A function that runs on the GPU with arguments of the given types."""

    def __init__(self, function: Callable[..., None], kinds: tuple[Any, ...]) -> None:
        self.function, self.kinds, self.threads = function, kinds, THREADS
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self._compiled: Any = cuda.jit(function, cache=not SIMULATED)

    def launch(self, blocks: int, stream: int, *arguments: Any) -> None:
        """Starts `blocks` blocks of threads on the stream at that address.

        Arrays are anything that has `__cuda_array_interface__`, in the simulator numpy's.
        """
        if SIMULATED:
            given = tuple(typeof(a) for a in arguments)
            if given != self.kinds:
                raise TypeError(f"{self.name} takes {self.kinds}, given {given}")
            with np.errstate(all="ignore"):
                self._compiled[blocks, THREADS](*arguments)
            return
        plain = [cuda.as_cuda_array(a) if hasattr(a, "__cuda_array_interface__") else a for a in arguments]
        self._compiled[blocks, THREADS, cuda.external_stream(stream)](*plain)


def kernel(*kinds: Any) -> Callable[[Callable[..., None]], Kernel]:
    """Registers a function as a kernel that is launched with these types."""

    def register(function: Callable[..., None]) -> Kernel:
        made = Kernel(function, kinds)
        KERNELS[made.name] = made
        return made

    return register
