"""Tensors that kernels write into: on a CUDA device, or, in numba's simulator, in the host's memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bodyfit.kernels.cuda_jit import SIMULATED
from bodyfit.render.extra import Tensor, torch


class Tensors(Protocol):
    """Where the tensors of a batch are, and what starts kernels over them."""

    device: torch.device

    def upload(self, array: NDArray[Any]) -> Tensor:
        """A copy of numpy's array there; the host does not wait for it."""
        ...

    def launch(self, kernel: Any, items: int, *arguments: Any) -> None:
        """Starts a kernel over so many items."""
        ...

    def read_later(self, tensor: Tensor) -> Callable[[], NDArray[Any] | None]:
        """A function that gives a copy of the tensor as it is now, or None as long as it is not there."""
        ...


class HostTensors:
    """In the host's memory, for numba's simulator (NUMBA_ENABLE_CUDASIM=1)."""

    device = torch.device("cpu")

    def upload(self, array: NDArray[Any]) -> Tensor:
        """A copy."""
        return torch.from_numpy(np.array(array, order="C"))

    def launch(self, kernel: Any, items: int, *arguments: Any) -> None:
        """Runs the kernel with a few threads."""
        kernel.launch(2, 0, *(a.numpy() if isinstance(a, torch.Tensor) else a for a in arguments))

    def read_later(self, tensor: Tensor) -> Callable[[], NDArray[Any] | None]:
        """At once."""
        copy = tensor.numpy().copy()
        return lambda: copy


class DeviceTensors:
    """On a CUDA device, on torch's current stream there."""

    def __init__(self, device: torch.device) -> None:
        from bodyfit.render.cuda_arrays import TorchArrays

        self.device = device
        self._arrays = TorchArrays(device)

    def upload(self, array: NDArray[Any]) -> Tensor:
        """A copy by way of pinned memory."""
        plain = torch.from_numpy(np.array(array, order="C"))
        return plain.pin_memory().to(self.device, non_blocking=True)

    def launch(self, kernel: Any, items: int, *arguments: Any) -> None:
        """Starts the kernel."""
        self._arrays.launch(kernel, items, *arguments)

    def read_later(self, tensor: Tensor) -> Callable[[], NDArray[Any] | None]:
        """When the stream has come so far."""
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        copy.copy_(tensor, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))
        return lambda: copy.numpy() if done.query() else None


def tensors_on(device: torch.device) -> Tensors:
    """Those of a device; the host's in the simulator."""
    return HostTensors() if SIMULATED else DeviceTensors(device)
