"""Batches of a shape that came before: the same places in the device's memory, and the steps as recorded launches.

What comes for the first time is started operation by operation. When a batch of the same shape comes again, what
begins it and what one step does are recorded (CUDA graphs); from then on a step is one launch.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from bodyfit.fit.cuda_batch import padded_size
from bodyfit.fit.cuda_equations import Equations, chunks_for
from bodyfit.fit.cuda_tensors import Tape, TapeError, Tensors

log = logging.getLogger("bodyfit.fit.cuda")

MOST_PROGRAMS = 12
Work = Callable[[], None]


@dataclass
class Program:
    """A tape, and what was recorded over it."""

    tape: Tape
    begin: Work | None = None
    step: Work | None = None
    recordable: bool = True


@dataclass(frozen=True)
class ProgramCounts:
    """How often batches were recorded, played again, and could not be recorded."""

    recorded: int = 0
    played: int = 0
    failed: int = 0


class Programs:
    """The last few shapes of batches; for one thread.

    Args:
        tensors: where batches lie.
        record: whether steps are recorded; False starts every operation anew.
    """

    def __init__(self, tensors: Tensors, *, record: bool = True) -> None:
        self.tensors, self.record = tensors, record
        self._programs: OrderedDict[Hashable, Program] = OrderedDict()
        self.recorded = self.played = self.failed = 0

    @property
    def counts(self) -> ProgramCounts:
        """What was done until now."""
        return ProgramCounts(self.recorded, self.played, self.failed)

    def __len__(self) -> int:
        return len(self._programs)

    def clear(self) -> None:
        """Gives the memory of all back."""
        self._programs.clear()

    def build(self, kind: type[Any], jobs: Sequence[Any], rows_per_pixel: float) -> tuple[Any, Work, Work]:
        """A loop of that kind (`Descending`) over the jobs, and how it is begun and stepped."""
        key = (kind.__name__, *signature(jobs, rows_per_pixel))
        program = self._programs.get(key)
        if program is not None:
            program.tape.rewind()
            try:
                loop = self._loop(kind, jobs, program.tape, rows_per_pixel)
            except TapeError:
                program = None
            else:
                self._programs.move_to_end(key)
                return loop, *self._recorded(program, loop)
        tape = Tape(self.tensors)
        loop = self._loop(kind, jobs, tape, rows_per_pixel)
        self._programs[key] = Program(tape)
        while len(self._programs) > MOST_PROGRAMS:
            self._programs.popitem(last=False)
        return loop, loop.begin, loop.step

    def _loop(self, kind: type[Any], jobs: Sequence[Any], tape: Tape, rows_per_pixel: float) -> Any:
        problems, states = [j.problem for j in jobs], [j.state for j in jobs]
        return kind(Equations(problems, states, tape, rows_per_pixel=rows_per_pixel), jobs)

    def _recorded(self, program: Program, loop: Any) -> tuple[Work, Work]:
        if not self.record or not program.recordable:
            return loop.begin, loop.step
        if program.begin is None or program.step is None:
            try:
                program.begin, program.step = self.tensors.record(loop.begin), self.tensors.record(loop.step)
                self.recorded += 1
            except RuntimeError as error:
                # the work can still be done one operation after the other; a lost device shows there too
                program.begin = program.step = None
                program.recordable = False
                self.failed += 1
                log.warning("steps on the device cannot be recorded: %s", str(error).splitlines()[0])
                return loop.begin, loop.step
        else:
            self.played += 1
        return program.begin, program.step


def signature(jobs: Sequence[Any], rows_per_pixel: float) -> tuple[Hashable, ...]:
    """What has to be equal for two batches to be of one shape, as far as that is cheaply known."""
    problems = [j.problem for j in jobs]
    views = [v for p in problems for v in p.views]
    high, wide = padded_size(views)
    soles = max(1, *(len(p.mesh.floor_vertices) for p in problems))
    chunks = chunks_for(max(v.num_person for v in views), high * wide, soles, rows_per_pixel)
    mesh = problems[0].mesh
    return (
        len(jobs), sum(len(j.state.group) for j in jobs), sum(len(j.state.shape) for j in jobs),
        sum(len(p.items) for p in problems), len(views), high, wide, soles, chunks,
        len({id(p.mesh) for p in problems}), len(mesh.template), len(mesh.faces), mesh.num_shape,
        type(problems[0]).__name__, tuple((p.spheres is None, p.learned_prior is None) for p in problems[:1]),
    )  # fmt: skip
