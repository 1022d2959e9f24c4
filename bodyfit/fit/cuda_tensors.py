"""Tensors that kernels write into: on a CUDA device, or, in numba's simulator, in the host's memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bodyfit.kernels.cuda_jit import SIMULATED
from bodyfit.render.extra import Tensor, torch

Make = Callable[[], Sequence[NDArray[Any]]]
MOST_CACHED = 512
"""tables that are kept on a device: some 150 kB each"""


class Tensors(Protocol):
    """Where the tensors of a batch are, and what starts kernels over them."""

    device: torch.device

    def upload(self, array: NDArray[Any]) -> Tensor:
        """A copy of numpy's array there; the host does not wait for it."""
        ...

    def room(self, *shape: int, kind: torch.dtype = torch.float32) -> Tensor:
        """A tensor of that shape with anything in it."""
        ...

    def cached(self, key: Hashable, make: Make) -> tuple[Tensor, ...]:
        """Copies of arrays that are made once for a key; nothing may write into them. A launch that is recorded must
        not read them: they may be given up."""
        ...

    def constants(self, key: Hashable, make: Make) -> tuple[Tensor, ...]:
        """As `cached`, for recorded launches too."""
        ...

    def launch(self, kernel: Any, items: int, *arguments: Any) -> None:
        """Starts a kernel over so many items."""
        ...

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What does the same work again on the same tensors, with one launch; the work itself is not done."""
        ...

    def read_later(self, tensor: Tensor) -> Callable[[], NDArray[Any] | None]:
        """A function that gives a copy of the tensor as it is now, or None as long as it is not there."""
        ...


class _Cached:
    """What `cached` and `constants` are where nothing is recorded: the last few hundred."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()

    def upload(self, array: NDArray[Any]) -> Tensor:
        """As `Tensors` has it."""
        raise NotImplementedError

    def cached(self, key: Hashable, make: Make) -> tuple[Tensor, ...]:
        """Copies of arrays that are made once for a key."""
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = tuple(self.upload(a) for a in make())
            while len(self._kept) > MOST_CACHED:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return found

    def constants(self, key: Hashable, make: Make) -> tuple[Tensor, ...]:
        """The same."""
        return self.cached(key, make)


class HostTensors(_Cached):
    """In the host's memory, for numba's simulator (NUMBA_ENABLE_CUDASIM=1)."""

    device = torch.device("cpu")

    def upload(self, array: NDArray[Any]) -> Tensor:
        """A copy."""
        return torch.from_numpy(np.array(array, order="C"))

    def room(self, *shape: int, kind: torch.dtype = torch.float32) -> Tensor:
        """A tensor of that shape, filled with what is no sensible value."""
        return torch.full(shape, float("nan") if kind.is_floating_point else -7, dtype=kind)

    def launch(self, kernel: Any, items: int, *arguments: Any) -> None:
        """Runs the kernel with a few threads."""
        kernel.launch(2, 0, *(a.numpy() if isinstance(a, torch.Tensor) else a for a in arguments))

    def read_later(self, tensor: Tensor) -> Callable[[], NDArray[Any] | None]:
        """At once."""
        copy = tensor.numpy().copy()
        return lambda: copy

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """The work itself: there is nothing to launch."""
        return work


class DeviceTensors(_Cached):
    """On a CUDA device, on torch's current stream there."""

    def __init__(self, device: torch.device) -> None:
        from bodyfit.render.cuda_arrays import TorchArrays

        super().__init__()
        self.device = device
        self._arrays = TorchArrays(device)

    def upload(self, array: NDArray[Any]) -> Tensor:
        """A copy by way of pinned memory."""
        plain = torch.from_numpy(np.array(array, order="C"))
        return plain.pin_memory().to(self.device, non_blocking=True)

    def room(self, *shape: int, kind: torch.dtype = torch.float32) -> Tensor:
        """A tensor of that shape with anything in it."""
        return torch.empty(shape, dtype=kind, device=self.device)

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

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """A CUDA graph of what the work starts.

        Raises:
            RuntimeError: something in it cannot be captured.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device), torch.cuda.graph(graph):
            work()
        return graph.replay


class TapeError(Exception):
    """What is uploaded now has not the shapes of what was recorded."""


class Tape:
    """Tensors that are made once and filled again: what is built over a rewound tape, in the same order and with the
    same shapes, finds itself in the same places of the device's memory, as a recorded launch needs."""

    def __init__(self, tensors: Tensors) -> None:
        self.device, self.launch, self.read_later = tensors.device, tensors.launch, tensors.read_later
        self.record, self.cached = tensors.record, tensors.cached
        self._tensors, self._made, self._next, self._recorded = tensors, [], 0, False
        self._constants: list[tuple[Hashable, tuple[Tensor, ...]]] = []
        self._next_constants = 0

    def rewind(self) -> None:
        """From now on tensors are given out again from the first on."""
        self._next, self._next_constants, self._recorded = 0, 0, True

    def _again(self, shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
        if self._next >= len(self._made):
            raise TapeError
        made = self._made[self._next]
        if tuple(made.shape) != tuple(shape) or made.dtype != kind:
            raise TapeError
        self._next += 1
        return made

    def upload(self, array: NDArray[Any]) -> Tensor:
        """A copy; over a rewound tape in the place of the one that was made in its turn.

        Raises:
            TapeError: that has another shape or kind.
        """
        if not self._recorded:
            self._made.append(self._tensors.upload(array))
            return self._made[-1]
        plain = torch.from_numpy(np.array(array, order="C"))
        made = self._again(tuple(plain.shape), plain.dtype)
        made.copy_(plain.pin_memory() if made.is_cuda else plain, non_blocking=True)
        return made

    def constants(self, key: Hashable, make: Make) -> tuple[Tensor, ...]:
        """As the tensors' own, kept as long as the tape.

        Raises:
            TapeError: over a rewound tape, if the key is not the one that was asked for in its turn.
        """
        if not self._recorded:
            self._constants.append((key, self._tensors.constants(key, make)))
            return self._constants[-1][1]
        if self._next_constants >= len(self._constants) or self._constants[self._next_constants][0] != key:
            raise TapeError
        self._next_constants += 1
        return self._constants[self._next_constants - 1][1]

    def room(self, *shape: int, kind: torch.dtype = torch.float32) -> Tensor:
        """As `upload`, with anything in it."""
        if not self._recorded:
            self._made.append(self._tensors.room(*shape, kind=kind))
            return self._made[-1]
        return self._again(shape, kind)


def tensors_on(device: torch.device) -> Tensors:
    """Those of a device; the host's in the simulator."""
    return HostTensors() if SIMULATED else DeviceTensors(device)
