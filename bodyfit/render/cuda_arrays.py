"""Arrays on a GPU and launches over them: torch's tensors on torch's stream, or numpy's in numba's simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from bodyfit.render.extra import torch

FEWEST_BLOCKS = 128
"""Blocks with nothing to do cost nothing; numba warns of launches with fewer."""


class DeviceArrays(Protocol):
    """What makes arrays on a device and starts kernels there. Nothing waits for the device but `to_host`."""

    def empty(self, *shape: int, kind: Any = np.float32) -> Any:
        """An array of that shape with anything in it."""
        ...

    def full(self, *shape: int, value: float, kind: Any = np.float32) -> Any:
        """An array of that shape, filled."""
        ...

    def from_host(self, array: Any) -> Any:
        """A copy of numpy's array on the device; truth values become uint8."""
        ...

    def to_host(self, array: Any) -> Any:
        """A copy as numpy's array; waits for the device."""
        ...

    def read_later(self, array: Any) -> Callable[[], Any]:
        """A function that gives a copy of the array as it is now as numpy's (int64), or None until it is there."""
        ...

    def capturing(self) -> bool:
        """Whether what is started now is being captured for a CUDA graph."""
        ...

    def launch(self, kernel: Any, items: int | None, *arguments: Any) -> None:
        """Starts a kernel over so many items; None: over a list whose length only the device knows."""
        ...


class SimulatedArrays:
    """numpy's arrays; kernels run in numba's simulator (NUMBA_ENABLE_CUDASIM=1)."""

    def empty(self, *shape: int, kind: Any = np.float32) -> Any:
        """An array of that shape, filled with what is no sensible value."""
        return np.full(shape, np.nan if np.dtype(kind).kind == "f" else -7, kind)

    def full(self, *shape: int, value: float, kind: Any = np.float32) -> Any:
        """An array of that shape, filled."""
        return np.full(shape, value, kind)

    def from_host(self, array: Any) -> Any:
        """A copy; truth values become uint8."""
        return np.array(array, np.uint8 if array.dtype == np.bool_ else array.dtype, order="C")

    def to_host(self, array: Any) -> Any:
        """A copy."""
        return np.array(array)

    def read_later(self, array: Any) -> Callable[[], Any]:
        """At once."""
        copy = array.astype(np.int64)
        return lambda: copy

    def capturing(self) -> bool:
        """Never."""
        return False

    def launch(self, kernel: Any, items: int | None, *arguments: Any) -> None:
        """Runs the kernel with a few threads."""
        kernel.launch(2, 0, *arguments)


class TorchArrays:
    """Tensors on a CUDA device; kernels start on torch's current stream there."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._processors = torch.cuda.get_device_properties(device).multi_processor_count

    def empty(self, *shape: int, kind: Any = np.float32) -> Any:
        """A tensor of that shape with anything in it."""
        return torch.empty(shape, dtype=_KINDS[np.dtype(kind)], device=self._device)

    def full(self, *shape: int, value: float, kind: Any = np.float32) -> Any:
        """A tensor of that shape, filled."""
        return torch.full(shape, value, dtype=_KINDS[np.dtype(kind)], device=self._device)

    def from_host(self, array: Any) -> Any:
        """A copy of numpy's array on the device; truth values become uint8."""
        plain = np.array(array, np.uint8 if array.dtype == np.bool_ else array.dtype, order="C")
        return torch.from_numpy(plain).to(self._device)

    def to_host(self, array: Any) -> Any:
        """A copy as numpy's array; waits for the device."""
        return array.cpu().numpy()

    def read_later(self, array: Any) -> Callable[[], Any]:
        """When the stream has come so far."""
        copy = torch.empty(array.shape, dtype=array.dtype, pin_memory=True)
        copy.copy_(array, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self._device))
        return lambda: copy.numpy().astype(np.int64) if done.query() else None

    def capturing(self) -> bool:
        """Whether torch's current stream is being captured for a CUDA graph."""
        return torch.cuda.is_current_stream_capturing()

    def launch(self, kernel: Any, items: int | None, *arguments: Any) -> None:
        """Starts the kernel on torch's current stream."""
        blocks = 16 * self._processors if items is None else -(-items // kernel.threads)
        with torch.cuda.device(self._device):
            plain = [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]
            kernel.launch(max(blocks, FEWEST_BLOCKS), torch.cuda.current_stream().cuda_stream, *plain)


_KINDS = {
    np.dtype(np.float32): torch.float32,
    np.dtype(np.int64): torch.int64,
    np.dtype(np.int32): torch.int32,
    np.dtype(np.uint8): torch.uint8,
}
