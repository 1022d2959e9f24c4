"""The fit's inner loop on a CUDA device: batches of jobs, each in as many launches as one alone would take."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, TypeVar

from bodyfit.errors import DeviceError, DeviceLostError, DeviceMemoryError, MissingExtraError
from bodyfit.fit.device import DescendJob, Descent, LinearizeJob, SolveJob
from bodyfit.fit.problem import Linearization, Problem
from bodyfit.fit.solver import Solution

T = TypeVar("T")
MOST_JOINTS = 64
FULL_ROWS = float("inf")


class CudaBackend:
    """Implements `bodyfit.fit.device.Backend` on one CUDA device; in numba's simulator, in the host's memory.

    Args:
        device: cuda or cuda:N.
        tensors: where a batch lies; made for the device where None.
        record: whether steps are recorded as CUDA graphs where shapes come again.

    Raises:
        MissingExtraError: torch or numba-cuda is not installed.
        DeviceError: there is no such device.
    """

    def __init__(self, device: str = "cuda", *, tensors: Any = None, record: bool = True) -> None:
        if tensors is None:
            why = self.available(device)
            if why is not None:
                raise DeviceError("device", "a CUDA device that torch sees", f"{device!r}: {why}")
            from bodyfit.fit.cuda_tensors import tensors_on
            from bodyfit.render.extra import torch

            tensors = tensors_on(torch.device(device))
        from bodyfit.fit.cuda_programs import Programs

        self.name, self._tensors = device, tensors
        self.programs = Programs(tensors, record=record)
        """batches of shapes that came before"""
        self.redone = 0
        """batches that were done again since their rows had no room"""

    @staticmethod
    def available(device: str = "cuda") -> str | None:
        """Why the device cannot be used; None where it can.

        Raises:
            MissingExtraError: torch or numba-cuda is not installed.
        """
        for package in ("torch", "numba_cuda"):
            if find_spec(package) is None:
                raise MissingExtraError(package.replace("_", "-"), "cuda", "fitting on a CUDA device")
        from bodyfit.kernels.cuda_jit import SIMULATED
        from bodyfit.render.extra import torch

        if SIMULATED:
            return None
        if not torch.cuda.is_available():
            return "torch finds no CUDA device"
        number = torch.device(device).index or 0
        if number >= torch.cuda.device_count():
            return f"torch finds {torch.cuda.device_count()} of them, numbered from 0"
        return None

    def memory_bytes(self) -> int:
        """Memory of the device that torch holds for this process."""
        from bodyfit.render.extra import torch

        return int(torch.cuda.memory_reserved(self._tensors.device)) if self._tensors.device.type == "cuda" else 0

    def takes(self, problem: Problem) -> bool:
        """Whether the problem is one of depth, keypoints and priors; colours and rigs are the CPU's."""
        from bodyfit.fit.follow import Expected

        return (
            type(problem) in (Problem, Expected)
            and not problem.colors
            and not problem.pulls
            and len(problem.mesh.parents) <= MOST_JOINTS
            and len(problem.items) > 0
        )

    def key(self, problem: Problem) -> Hashable:
        """Meshes of one topology with as many shape components, and as fine a grid."""
        from bodyfit.fit.cuda_batch import topology_of

        return (*topology_of(problem.mesh), problem.stage.pixels)

    def solve(self, jobs: Sequence[SolveJob]) -> list[Solution]:
        """As the protocol says."""
        from bodyfit.fit.cuda_solver import BatchSolve

        return self._looped(BatchSolve, jobs, BatchSolve.solutions)

    def descend(self, jobs: Sequence[DescendJob]) -> list[Descent]:
        """As the protocol says."""
        from bodyfit.fit.cuda_solver import BatchDescent

        return self._looped(BatchDescent, jobs, BatchDescent.descents)

    def linearize(self, jobs: Sequence[LinearizeJob]) -> list[Linearization]:
        """As the protocol says."""
        from bodyfit.fit.cuda_equations import Equations

        want_rows = any(j.want_rows for j in jobs)
        problems, states = [j.problem for j in jobs], [j.state for j in jobs]

        def once(rows_per_pixel: float) -> tuple[list[Linearization], Any]:
            equations = Equations(problems, states, self._tensors, rows_per_pixel=rows_per_pixel)
            found = equations.split(equations.at(equations.upload(states), want_rows=want_rows))
            return [_of_active(eq, job) for eq, job in zip(found, jobs, strict=True)], equations

        return self._with_room(once)

    def _looped(self, kind: Any, jobs: Sequence[Any], finish: Callable[..., list[T]]) -> list[T]:
        def once(rows_per_pixel: float) -> tuple[list[T], Any]:
            loop, begin, step = self.programs.build(kind, jobs, rows_per_pixel)
            return finish(loop, jobs, begin, step), loop.equations

        return self._with_room(once)

    def _with_room(self, once: Callable[[float], tuple[list[T], Any]]) -> list[T]:
        """Does it; again with room for all rows, if they had too little."""
        from bodyfit.fit.cuda_equations import ROWS_PER_PIXEL
        from bodyfit.render.extra import torch

        try:
            for rows_per_pixel in (ROWS_PER_PIXEL, FULL_ROWS):
                try:
                    found, equations = once(rows_per_pixel)
                except torch.cuda.OutOfMemoryError:
                    if not len(self.programs):
                        raise
                    # what is kept of other shapes may be all that it takes
                    self._give_back()
                    found, equations = once(rows_per_pixel)
                if not bool(equations.overflow.item()):
                    return found
                self.redone += 1
            raise AssertionError("rows without room though there is room for all")
        except torch.cuda.OutOfMemoryError as error:
            self._give_back()
            raise DeviceMemoryError(f"{self.name}: {str(error).splitlines()[0]}") from None
        except RuntimeError as error:
            raise self._lost(error) from error

    def _give_back(self) -> None:
        from bodyfit.render.extra import torch

        self.programs.clear()
        torch.cuda.empty_cache()

    def _lost(self, error: RuntimeError) -> Exception:
        """What a failed call means: a CUDA error leaves the device lost to this process."""
        from bodyfit.render.extra import torch

        kinds = tuple(k for k in (getattr(torch, "AcceleratorError", None),) if k is not None)
        text = str(error)
        if isinstance(error, kinds) or "CUDA error" in text or "CUDA driver error" in text:
            return DeviceLostError(f"{self.name}: {text.splitlines()[0]}")
        return error


def _of_active(eq: Linearization, job: LinearizeJob) -> Linearization:
    """What is of groups that are not active is left at zero."""
    if job.active is None or job.active.all():
        return eq
    group = job.state.group
    one = job.active.astype(float)
    each = one[group]
    item = each[job.problem.items[:, 0]]
    return replace(
        eq, A=eq.A * each[:, None, None], B=eq.B * each[:, None, None], C=eq.C * one[:, None, None],
        pose_gradient=eq.pose_gradient * each[:, None], shape_gradient=eq.shape_gradient * one[:, None],
        cost=eq.cost * one, instant_cost=eq.instant_cost * each, stats=eq.stats * item[:, None],
    )  # fmt: skip
